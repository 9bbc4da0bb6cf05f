"""The attacked model: an exported Hugging Face folder in PyTorch, queried as TextAttack does, without needless work."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from .attack_library import textattack
from .errors import UserError

Input = str | tuple[str, str]


class Victim(textattack.models.wrappers.HuggingFaceModelWrapper):
    """TextAttack's wrapper, with texts padded to the longest of their batch instead of the model's maximum length."""

    def __init__(
        self, folder: str | os.PathLike, max_length: int | None = None, device: str = "cpu", threads: int = 1
    ) -> None:
        """Loads the model of a Hugging Face folder.

        Args:
            max_length: longest input in tokens; the tokenizer's and the model's own limits hold as well.
            threads: CPU threads of PyTorch in this process.

        Raises:
            UserError: the folder cannot be loaded as a text classifier, or there is no GPU that PyTorch can use.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("PyTorch finds no GPU here; use --device CPU, or install its CUDA build")
        torch.set_num_threads(threads)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{folder} cannot be loaded as a text classifier: {reason}") from error
        super().__init__(model.eval().to(device), tokenizer)
        limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None), max_length]
        self.max_tokens = min(limit for limit in limits if limit is not None)
        self.device = device

    @torch.inference_mode()
    def __call__(self, texts: list[Input]) -> torch.Tensor:
        """Returns the logits of texts or pairs of texts, [len(texts), labels] float32 on the CPU."""
        inputs = self.tokenizer(
            texts, padding="longest", truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )
        return self.model(**inputs.to(self.device)).logits.float().cpu()


def predict(victim: Victim, inputs: Sequence[Input], batch_size: int = 64, progress: bool = False) -> np.ndarray:
    """Returns the victim's class for each input, [len(inputs)] int64; inputs of like length share a batch."""
    length = [len(text) if isinstance(text, str) else len(text[0]) + len(text[1]) for text in inputs]
    order = np.argsort(length, kind="stable")[::-1]  # longest first: a batch that does not fit in memory fails at once
    classes = np.empty(len(inputs), dtype=np.int64)
    starts = range(0, len(order), batch_size)
    for start in tqdm(starts, desc="clean accuracy", unit="batch", disable=not progress):
        batch = order[start : start + batch_size]
        classes[batch] = victim([inputs[i] for i in batch]).argmax(dim=1).numpy()
    return classes
