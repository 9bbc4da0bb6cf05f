"""A small random classifier in a Hugging Face folder: enough of a model to be attacked, in milliseconds a query."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from mindspore_floodx.pretrained import find_model

LABELS = ("negative", "positive")

# Sentences of our own with words that NEIGHBOURS can swap; the last ones are the odd cases.
SENTENCES = [
    "The plot is clever and the actors are wonderful .",
    "A dull film, badly made and far too long.",
    "I liked the music; the story was weak.",
    "Nothing here is new, but every scene is charming!",
    "The director wastes a fine cast on a silly script.",
    "An honest, moving portrait of a family in trouble, told with patience and much quiet humour by a great cast.",
    "Bad jokes, worse acting.",
    "It never bores and it never lies.",
    "Wonderful",
    "",
]
PAIRS = [
    ("The company sold its paper mill .", "The firm sold the mill for cash ."),
    ("Shares fell after the report .", "The report made shares fall ."),
    ("A storm closed the harbour on Monday .", "On Monday the port was shut by a storm ."),
    ("He denied the claim .", "She won the race ."),
]
_GROUPS = """
plot story tale script|clever smart bright|actors players cast|wonderful great splendid marvellous|dull boring dreary
film movie picture|badly poorly|long lengthy|liked loved enjoyed|music score sound|weak feeble poor|new fresh novel
scene shot moment|charming lovely sweet|director filmmaker|wastes squanders|fine good decent|silly foolish stupid
honest sincere|moving touching|portrait picture|family household|trouble distress|quiet calm|humour wit|bad awful
jokes gags|worse poorer|acting playing|bores tires|lies deceives|company firm business|sold traded|paper cardboard
mill plant factory|cash money|shares stocks|fell dropped|report statement|fall drop|storm gale tempest|harbour port
closed shut|denied refuted|claim charge|won took|race contest
"""
NEIGHBOURS = {
    word: [other for other in group.split() if other != word]
    for line in _GROUPS.split("\n")
    for group in line.split("|")
    for word in group.split()
}


def export_tiny(folder: Path, labels: tuple[str, ...] = LABELS, seed: int = 1, **config: int) -> Path:
    """Writes a random two-layer BERT with MiniLM's vocabulary; its answers change with almost every word."""
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(find_model("minilm"), model_max_length=64)
    settings = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.5,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        **config,
    )
    BertForSequenceClassification(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
