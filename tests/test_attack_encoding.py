from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mindspore_floodx.attack_encoding import EncodeOnce, encode_once
from mindspore_floodx.attack_library import textattack


class Counting(textattack.constraints.semantics.sentence_encoders.SentenceEncoder):
    """Encodes a sentence as counts of letters, and remembers what it was asked for."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.asked = []

    def encode(self, sentences):
        self.asked += sentences
        return torch.tensor([[sentence.count(letter) + 0.1 for letter in "aeiou"] for sentence in sentences])


class Saving(EncodeOnce, Counting):
    pass


def candidates(text, index, words):
    texts = [text.replace_word_at_index(index, word) for word in words]
    for changed in texts:
        changed.attack_attrs["last_transformation"] = None
    return texts


LONG = " ".join(["some words that make this text longer than the window of the constraint by far"] * 2)


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("text", ["just a short one", LONG])
@pytest.mark.parametrize("window", [None, 15])
def test_same_candidates_and_scores_with_less_encoding(skip, text, window):
    options = {"threshold": 0.9, "metric": "angular", "window_size": window, "skip_text_shorter_than_window": skip}
    stock, saving = Counting(**options), Saving(**options)
    original = textattack.shared.AttackedText(text)
    words = ["in", "aeiouaeiou", "uuuuuuuuuu", "lots"]
    expected = list(stock._check_constraint_many(theirs := candidates(original, 1, words), original))
    passed = list(saving._check_constraint_many(ours := candidates(original, 1, words), original))
    assert [t.text for t in passed] == [t.text for t in expected]
    assert [t.attack_attrs["similarity_score"] for t in ours] == [t.attack_attrs["similarity_score"] for t in theirs]
    assert len(saving.asked) == len(set(saving.asked)) < len(stock.asked)
    if skip and len(original.words) < (window or float("inf")):
        assert saving.asked == []
        assert len(passed) == len(words)
    else:
        assert len(passed) < len(words) or text == LONG


def test_cache_ends_with_the_example():
    saving = Saving()
    saving.encode(["a", "b", "a"])
    saving.encode(["b"])
    assert saving.asked == ["a", "b"]
    saving.clear_cache()
    saving.encode(["b"])
    assert saving.asked == ["a", "b", "b"]


def test_a_built_constraint_is_converted_in_place_once():
    constraint = Counting()
    encode_once(constraint)
    kind = type(constraint)
    encode_once(constraint)
    assert type(constraint) is kind
    assert isinstance(constraint, EncodeOnce)
    assert str(constraint) == str(Counting())
    other = SimpleNamespace()
    encode_once(other)
    assert type(other) is SimpleNamespace
