"""A sentence-similarity constraint of TextAttack that does each piece of work once, with the same results.

TextAttack encodes the unchanged sentence once for every candidate, and encodes texts whose score the recipe then
overwrites because they are shorter than its window. Both are left out here; which candidates pass, in which order and
with which score stays the same.
"""

from __future__ import annotations

from typing import Any

import torch

from .attack_library import textattack


class EncodeOnce(textattack.constraints.semantics.sentence_encoders.SentenceEncoder):
    """Inherited before an encoder that has its own `encode`: every distinct sentence of an example is encoded once."""

    def encode(self, sentences: list[str]) -> torch.Tensor:
        """Returns the sentences' vectors, [len(sentences), width] float32."""
        known: dict[str, torch.Tensor] = self.__dict__.setdefault("_encodings", {})
        new = [sentence for sentence in dict.fromkeys(sentences) if sentence not in known]
        if new:
            known.update(zip(new, torch.as_tensor(super().encode(new)), strict=True))
        return torch.stack([known[sentence] for sentence in sentences])

    def clear_cache(self) -> None:
        """Forgets the vectors; TextAttack calls it after each attacked example."""
        self.__dict__.pop("_encodings", None)

    def _check_constraint_many(self, transformed_texts: list, reference_text: Any) -> list:
        scores = torch.ones(len(transformed_texts))  # what the recipe gives to texts shorter than its window
        scored = [
            i
            for i, text in enumerate(transformed_texts)
            if not (self.skip_text_shorter_than_window and len(text.words) < self.window_size)
        ]
        if scored:
            scores[scored] = self._score_list(reference_text, [transformed_texts[i] for i in scored]).cpu().float()
        for text, score in zip(transformed_texts, scores.tolist(), strict=True):
            text.attack_attrs["similarity_score"] = score
        passed = (scores >= self.threshold).tolist()
        return [text for text, keep in zip(transformed_texts, passed, strict=True) if keep]


def encode_once(constraint: Any) -> None:
    """Gives an already built `SentenceEncoder` (the official recipes' own) the behaviour of `EncodeOnce`."""
    kind = type(constraint)
    encoder = textattack.constraints.semantics.sentence_encoders.SentenceEncoder
    if isinstance(constraint, encoder) and not isinstance(constraint, EncodeOnce):
        constraint.__class__ = type(kind.__name__, (EncodeOnce, kind), {})
