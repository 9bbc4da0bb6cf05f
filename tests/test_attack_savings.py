"""The switches themselves, and the two savings that keep what was found: words and repeated inputs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mindspore_floodx.attack_library import textattack
from mindspore_floodx.attack_repeats import Remembered
from mindspore_floodx.attack_savings import NAMES, NO_SAVINGS, Savings
from mindspore_floodx.attack_words import words_from_text, words_kept
from mindspore_floodx.errors import UserError

STOCK = textattack.shared.utils.words_from_text
ODD = [
    "don't",
    "'quoted'",
    "well-known--not",
    "a@b.com",
    "½cup",
    "naïve…",
    "x\u00a0y",
    "一部好电影 ok",
    "*",
    "-",
    "\n",
    "é",
]


def test_switches():
    assert Savings().off() == [] and NO_SAVINGS.off() == list(NAMES)
    assert Savings().without(["tags", "words"]).off() == ["words", "tags"]
    with pytest.raises(UserError, match="paddings.*did you mean 'padding'"):
        Savings().without(["paddings"])


@given(st.lists(st.sampled_from(ODD) | st.text(max_size=8), max_size=6), st.sampled_from([" ", "  ", "\n", ""]))
def test_words_are_those_of_textattack(pieces, between):
    text = between.join(pieces)
    assert words_from_text(text) == STOCK(text)


def test_words_are_kept_within_the_context_alone():
    holders = textattack.shared.attacked_text, textattack.shared.utils.strings
    with words_kept():
        assert all(holder.words_from_text is words_from_text for holder in holders)
    assert all(holder.words_from_text is STOCK for holder in holders)


def test_equal_inputs_are_computed_once_until_forgotten():
    asked = []

    def compute(inputs):
        asked.append(list(inputs))
        return torch.tensor([[float(one), len(asked)] for one in inputs])

    remembered = Remembered(compute)
    assert remembered([3, 1, 3]).tolist() == [[3, 1], [1, 1], [3, 1]]
    assert remembered([1, 2]).tolist() == [[1, 1], [2, 2]]
    remembered.forget()
    assert remembered([1]).tolist() == [[1, 3]]
    assert asked == [[3, 1], [2], [1]]
