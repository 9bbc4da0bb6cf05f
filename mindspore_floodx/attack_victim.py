"""The attacked model: an exported Hugging Face folder in PyTorch, queried as TextAttack does, without needless work."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from transformers import AutoModelForSequenceClassification

from .attack_forward import PackedBert, Tokens, can_be_packed, tokens_of
from .attack_library import textattack
from .attack_repeats import Remembered
from .attack_savings import Savings
from .attack_transformer import load_transformer
from .errors import UserError

Input = str | tuple[str, str]


class Victim(textattack.models.wrappers.HuggingFaceModelWrapper):
    """TextAttack's wrapper, without its padding to the model's maximum length and with equal inputs computed once."""

    def __init__(
        self,
        folder: str | os.PathLike,
        max_length: int | None = None,
        device: str = "cpu",
        threads: int = 1,
        savings: Savings = Savings(),  # noqa: B008 - frozen
    ) -> None:
        """Loads the model of a Hugging Face folder.

        Args:
            max_length: longest input in tokens; the tokenizer's and the model's own limits hold as well.
            threads: CPU threads of PyTorch in this process.
            savings: of them, `padding`, `runtime` and `repeats`; the results are the same whichever are on.

        Raises:
            UserError: the folder cannot be loaded as a text classifier, or there is no GPU that PyTorch can use.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("PyTorch finds no GPU here; use --device CPU, or install its CUDA build")
        torch.set_num_threads(threads)
        tokenizer, model = load_transformer(folder, AutoModelForSequenceClassification, "a text classifier")
        super().__init__(model.eval().to(device), tokenizer)
        limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None), max_length]
        self.max_tokens = min(limit for limit in limits if limit is not None)
        self.device = device
        self._padding = "longest" if savings.padding else "max_length"
        self._packed = PackedBert(model) if savings.runtime and can_be_packed(model, device) else None
        self._remembered = Remembered(self.logits) if savings.repeats else None
        tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True  # no warning about `pad`

    def __call__(self, texts: list[Input]) -> torch.Tensor:
        """Returns the logits of texts or pairs of texts, [len(texts), labels] float32 on the CPU."""
        encoded = self.tokenizer(texts, truncation=True, max_length=self.max_tokens, return_token_type_ids=True)
        tokens = tokens_of(encoded)
        return self.logits(tokens) if self._remembered is None else self._remembered(tokens)

    def forget(self) -> None:
        """Drops what is remembered of earlier calls; `attack_lean.LeanAttack` does so for each example."""
        if self._remembered is not None:
            self._remembered.forget()

    @torch.inference_mode()
    def logits(self, tokens: Sequence[Tokens]) -> torch.Tensor:
        """Returns the logits of tokenised texts, [len(tokens), labels] float32 on the CPU."""
        if self._packed is not None:
            return self._packed.logits(tokens)
        inputs = {"input_ids": [list(ids) for ids, _ in tokens]}
        if "token_type_ids" in self.tokenizer.model_input_names:
            inputs["token_type_ids"] = [list(types) for _, types in tokens]
        batch = self.tokenizer.pad(inputs, padding=self._padding, max_length=self.max_tokens, return_tensors="pt")
        return self.model(**batch.to(self.device)).logits.float().cpu()
