"""The Universal Sentence Encoder through tensorflow_hub, with a small SavedModel of its form in its place."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from stock_attack import essence
from test_attack_identity import seeded
from tiny_victim import NEIGHBOURS, SENTENCES, export_tiny

from mindspore_floodx import attack_resources as needs
from mindspore_floodx.attack_library import no_nltk_downloads, textattack
from mindspore_floodx.attack_recipes import AttackSettings, build_attack
from mindspore_floodx.attack_standin import NeighbourLists
from mindspore_floodx.attack_swaps import HomoglyphSwap
from mindspore_floodx.attack_victim import Victim


def test_the_extra_is_declared_and_its_pins_agree_with_ours():
    text = (Path(__file__).parents[1] / "setup.py").read_text(encoding="utf-8")
    assert '"use": ["tensorflow' in text
    assert all(name in text for name in ("tensorflow", "tensorflow_hub", "setuptools<81"))


def test_tensorflow_gets_its_folder_and_its_threads(tmp_path, monkeypatch):
    from mindspore_floodx.attack_library import prepare_tensorflow

    for name in ("TFHUB_CACHE_DIR", "TF_NUM_INTRAOP_THREADS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("TA_CACHE_DIR", str(tmp_path))
    prepare_tensorflow(3)
    assert os.environ["TFHUB_CACHE_DIR"] == str(tmp_path) and os.environ["TF_NUM_INTRAOP_THREADS"] == "3"
    monkeypatch.setenv("TFHUB_CACHE_DIR", "mine")
    prepare_tensorflow(5)
    assert os.environ["TFHUB_CACHE_DIR"] == "mine" and os.environ["TF_NUM_INTRAOP_THREADS"] == "3"


@pytest.fixture
def encoder(tmp_path, monkeypatch):
    """A SavedModel in the cache of tensorflow_hub: texts -> the sum of random vectors of their words."""
    pytest.importorskip("tensorflow_hub", reason="the extra `use` is not installed")
    tf = pytest.importorskip("tensorflow")

    class Encoder(tf.Module):
        def __init__(self):
            super().__init__()
            table = np.random.default_rng(0).normal(size=(5000, 16)).astype(np.float32)
            self.table = tf.Variable(table)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def __call__(self, texts):
            words = tf.strings.split(texts)
            rows = tf.gather(self.table, tf.strings.to_hash_bucket_fast(words.flat_values, 5000))
            return {"outputs": tf.math.unsorted_segment_sum(rows, words.value_rowids(), words.nrows())}

    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    tf.saved_model.save(Encoder(), str(tmp_path / needs.SENTENCE_ENCODER_FOLDER))
    assert needs.SENTENCE_ENCODER.missing() is None


def test_the_recipe_s_own_encoder_gives_the_same_results(encoder, tmp_path, monkeypatch):
    """With `EncodeOnce` and without, on TextAttack's own class, which finds the model by its address in the cache."""
    import socket

    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: pytest.fail("the network was asked for"))
    victim = Victim(export_tiny(tmp_path / "victim"))
    labels = [int(label) for label in victim(SENTENCES).argmax(1)]
    embedding = textattack.shared.WordEmbedding
    module = textattack.attack_recipes.textbugger_li_2018
    with mock.patch.object(
        embedding, "counterfitted_GLOVE_embedding", staticmethod(lambda: NeighbourLists(NEIGHBOURS))
    ):
        ours = build_attack(AttackSettings("textbugger"), victim)
        with no_nltk_downloads(), mock.patch.object(module, "WordSwapHomoglyphSwap", HomoglyphSwap):
            theirs = module.TextBuggerLi2018.build(victim)
    own = theirs.constraints[-1]
    assert type(own).__module__.startswith("textattack.") and isinstance(ours.constraints[-1], type(own))
    expected = essence(seeded(theirs, SENTENCES, labels))
    assert essence(seeded(ours, SENTENCES, labels)) == expected
    assert {"SuccessfulAttackResult", "FailedAttackResult"} <= {kind for kind, _, _ in expected}
    vectors = ours.constraints[-1].encode(["the plot", "the story", "the plot"])
    assert vectors.dtype == torch.float32 and vectors.shape == (3, 16)
    assert torch.equal(vectors[0], vectors[2]) and not torch.equal(vectors[0], vectors[1])
