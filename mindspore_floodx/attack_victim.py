"""The attacked model: an exported Hugging Face folder in PyTorch, queried as TextAttack does, without needless work."""

from __future__ import annotations

import os

import torch
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
