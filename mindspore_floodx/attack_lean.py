"""Puts the savings into an attack that TextAttack has built."""

from __future__ import annotations

import contextlib
from typing import Any

from .attack_encoding import encode_once
from .attack_library import textattack
from .attack_savings import Savings
from .attack_words import KeepTags, words_kept

_QUERIES_AT_ONCE = 1024  # the victim itself splits them, by tokens


class LeanAttack(textattack.Attack):
    """TextAttack's `Attack`, which has its models forget an example's inputs and keeps the words of texts."""

    def attack(self, example: Any, ground_truth_output: Any) -> Any:
        """Attacks one example; the result is that of TextAttack's own `attack`."""
        self._forget()
        try:
            with words_kept() if self.savings.words else contextlib.nullcontext():
                return super().attack(example, ground_truth_output)
        finally:
            self._forget()

    def _forget(self) -> None:
        for holder in (
            self.goal_function.model,
            *(getattr(constraint, "model", None) for constraint in self.constraints),
        ):
            forget = getattr(holder, "forget", None)
            if forget is not None:
                forget()


def save(attack: Any, savings: Savings) -> None:
    """Gives an already built `textattack.Attack` the savings that are not in its model and transformation already."""
    for constraint in attack.constraints:
        if savings.encodings:
            encode_once(constraint)
        if savings.tags and type(constraint) is textattack.constraints.grammaticality.PartOfSpeech:
            constraint.__class__ = type("PartOfSpeech", (KeepTags,), {})  # as which the recipe is shown and recorded
    if savings.runtime:
        attack.goal_function.batch_size = _QUERIES_AT_ONCE
    attack.savings = savings
    attack.__class__ = LeanAttack
