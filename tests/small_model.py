"""A small BERT without dropout, as Hugging Face saves it, and random batches of pairs for it."""

from pathlib import Path

import numpy as np

HIDDEN, VOCABULARY, CLASSES = 32, 60, 3


def save_small_bert(folder: Path, dropout: float = 0.0) -> Path:
    """Writes the model to a new folder and returns it; its weights are large enough for clear gradients."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=16,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.1,
        num_labels=CLASSES,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def random_batches(count: int, seed: int = 0, size: int = 6) -> list[dict[str, np.ndarray]]:
    """Returns batches of pairs with different lengths; the label follows from the first token."""
    generator = np.random.default_rng(seed)
    batches = []
    for _ in range(count):
        lengths = generator.integers(3, 12, size)
        columns = np.arange(lengths.max())
        mask = (columns < lengths[:, None]).astype(np.int32)
        ids = generator.integers(1, VOCABULARY, mask.shape).astype(np.int32) * mask
        second = (columns >= lengths[:, None] // 2).astype(np.int32) * mask
        labels = (ids[:, 0] % CLASSES).astype(np.int32)
        batches.append({"input_ids": ids, "attention_mask": mask, "token_type_ids": second, "labels": labels})
    return batches


def random_noise(batch: dict[str, np.ndarray], seed: int) -> np.ndarray:
    """Returns noise for a batch, uniform in [-1, 1), float32 [batch, length, hidden]."""
    shape = (*batch["input_ids"].shape, HIDDEN)
    return np.random.default_rng(seed).random(shape, dtype=np.float32) * np.float32(2) - np.float32(1)
