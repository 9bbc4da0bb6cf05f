"""The generated corpus: sizes, balance, noise, and labels that a reader of the sentences (written here) confirms."""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections import Counter

import numpy as np
import pytest

from mindspore_floodx import demo_corpus
from mindspore_floodx.demo_corpus import NOISE, generate, synonyms


@pytest.fixture(scope="module")
def corpus():
    return generate()


@pytest.fixture(scope="module")
def clean_labels(corpus):
    """Labels before the noise: the same sentences, asked for as evaluation sentences."""
    whole = generate(n_train=0, n_eval=2400)
    assert whole.evaluation.texts == corpus.train.texts + corpus.evaluation.texts
    return whole.evaluation.labels


def words_of(text: str) -> list[str]:
    return re.findall(r"[\w-]+", text.lower())


def polarity_words() -> dict[str, int]:
    table = {}
    for negative, positive in [*demo_corpus._ADJECTIVES.values(), demo_corpus._VERBS]:
        for label, groups in enumerate((negative, positive)):
            table |= {word: label for group in groups for word in group.split()}
    return table


def read_label(text: str, polarity: dict[str, int]) -> int:
    """Reads a sentence as a person would: find the main clause, its opinion word, and whether that is denied."""
    text = text[0].lower() + text[1:].rstrip(".")
    if text.startswith("although "):
        main = text.split(", ", 1)[1]
    elif ", but " in text:
        main = text.split(", but ")[1]
    elif ", and " in text:
        main = text.split(", and ", 1)[1]
    else:
        main = re.split(r", (?:even though|although) ", text)[0]
    (opinion,) = [word for word in words_of(main) if word in polarity]
    turned = any(f"was {cue} " in main for cue in ("not at all", "anything but", "never", "far from", "hardly"))
    turned |= bool(re.search(r"\b(could|should) have been more\b", main))
    return polarity[opinion] ^ int(turned)


def test_sizes_names_and_lengths(corpus):
    assert (corpus.name, corpus.label_names, corpus.text_columns) == ("demo", ["negative", "positive"], ("sentence",))
    assert (len(corpus.train), len(corpus.evaluation)) == (2000, 400)
    assert corpus.train.pairs is None and not corpus.train.partial
    counts = np.concatenate([corpus.train.word_counts(), corpus.evaluation.word_counts()])
    assert counts.min() >= 6 and counts.max() <= 20


def test_no_sentence_twice(corpus):
    assert len({*corpus.train.texts, *corpus.evaluation.texts}) == 2400


def test_balance_and_noise(corpus, clean_labels):
    flipped = corpus.train.labels != clean_labels[:2000]
    for label in (0, 1):
        assert int((clean_labels[:2000] == label).sum()) == 1000
        assert int((corpus.evaluation.labels == label).sum()) == 200
        assert int(flipped[clean_labels[:2000] == label].sum()) == round(NOISE * 1000) == 80
    np.testing.assert_array_equal(corpus.evaluation.labels, clean_labels[2000:])


def test_labels_follow_the_main_clause(corpus, clean_labels):
    polarity = polarity_words()
    read = [read_label(text, polarity) for text in corpus.train.texts + corpus.evaluation.texts]
    assert read == clean_labels.tolist()


def test_substitutions_keep_the_label_and_stay_inside_the_grammar(corpus):
    polarity, table, rng = polarity_words(), synonyms(), random.Random(0)
    changed = 0
    for text, label in zip(corpus.evaluation.texts, corpus.evaluation.labels, strict=True):
        attacked = re.sub(r"[\w-]+", lambda m: rng.choice(table.get(m[0], [m[0]])), text)
        assert read_label(attacked, polarity) == label
        changed += attacked != text
    assert changed == 400


def test_synonym_table(corpus):
    table = synonyms()
    for word, others in table.items():
        assert others and word not in others and len(set(others)) == len(others)
        for other in others:  # a set: each stands for all others
            assert sorted([word, *others]) == sorted([other, *table[other]])
        assert word == word.lower() and " " not in word
    polarity = polarity_words()
    assert all(polarity.get(word) == polarity.get(other) for word, others in table.items() for other in others)
    # every sentence offers several words to an attack, and none at its capital letter
    offers = [sum(word in table for word in words_of(text)) for text in corpus.evaluation.texts]
    assert min(offers) >= 1 and np.mean(offers) > 3
    assert not any(words_of(text)[0] in table for text in corpus.evaluation.texts)


def test_no_word_is_in_two_sets():
    groups = [group for pair in demo_corpus._ADJECTIVES.values() for part in pair for group in part]
    groups += [group for part in demo_corpus._VERBS for group in part]
    groups += demo_corpus._INTENSIFIERS + demo_corpus._HEARSAY
    groups += [aspect for kinds in demo_corpus._TOPICS.values() for aspects in kinds.values() for aspect in aspects]
    repeated = [word for word, count in Counter(itertools.chain(*map(str.split, groups))).items() if count > 1]
    assert repeated == []


def test_no_single_word_tells_the_label(corpus, clean_labels):
    """The best vote of single words (how often each goes with a label in training) stays far below a reader."""
    texts, labels = corpus.train.texts + corpus.evaluation.texts, clean_labels
    counts = {0: Counter(), 1: Counter()}
    for text, label in zip(texts[:2000], labels[:2000].tolist(), strict=True):
        counts[label].update(set(words_of(text)))
    odds = {w: np.log((counts[1][w] + 1) / (counts[0][w] + 1)) for w in {*counts[0], *counts[1]}}
    votes = [sum(odds.get(word, 0) for word in set(words_of(text))) > 0 for text in texts[2000:]]
    assert np.mean(np.array(votes) == labels[2000:]) < 0.8


def test_one_seed_is_one_corpus_on_every_python():
    first, again, other = generate(5, 200, 50), generate(5, 200, 50), generate(6, 200, 50)
    assert first.train.fingerprint == again.train.fingerprint != other.train.fingerprint
    assert first.evaluation.texts == again.evaluation.texts
    digest = hashlib.sha256("\n".join(first.train.texts).encode()).hexdigest()
    assert digest.startswith("4013b437371ef75b")
