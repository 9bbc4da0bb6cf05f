"""The text format, made into TextAttack's arrays, gives TextAttack's own class what brute force gives."""

from __future__ import annotations

import pickle
from collections import defaultdict

import numpy as np
import pytest

from mindspore_floodx import counter_fitted
from mindspore_floodx.counter_fitted import build, check, nearest_rows, read_text
from mindspore_floodx.errors import UserError

COUNT = 400


@pytest.fixture(scope="module")
def words():
    return ["fawn", *(f"word{i}" for i in range(COUNT - 3)), "naïve", "o'clock"]


@pytest.fixture(scope="module")
def vectors():
    random = np.random.default_rng(0)
    found = random.normal(size=(COUNT, counter_fitted.WIDTH)).round(6)
    found /= 17  # not of length 1: Euclidean distance and cosine then differ
    found[0, 0] = -0.022007
    found[7] = found[3]  # two words with one vector
    return found.round(6)


@pytest.fixture(scope="module")
def text(words, vectors, tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "counter-fitted-vectors.txt"
    lines = [f"{word} {' '.join(f'{x:.6f}' for x in row)}\n" for word, row in zip(words, vectors, strict=True)]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def folder(text, tmp_path):
    made = tmp_path / "word_embeddings" / "paragramcf"
    made.mkdir(parents=True)
    build(text, made, COUNT)
    return made


def brute_force(vectors):
    vectors = vectors.astype(np.float32).astype(np.float64)  # as they are stored
    order = []
    for i in range(len(vectors)):
        distances = [(float(((row - vectors[i]) ** 2).sum()), j) for j, row in enumerate(vectors) if j != i]
        order.append([i, *(j for _, j in sorted(distances))])
    return np.array(order)


def test_textattack_s_own_class_reads_them(folder, words, vectors, monkeypatch):
    from mindspore_floodx.attack_library import textattack

    install = textattack.shared.utils.install
    monkeypatch.setattr(install, "TEXTATTACK_CACHE_DIR", str(folder.parents[1]))
    monkeypatch.setattr(install, "http_get", None)  # nothing is downloaded
    monkeypatch.setattr(textattack.shared.utils, "GLOBAL_OBJECTS", {})
    embedding = textattack.shared.WordEmbedding.counterfitted_GLOVE_embedding()
    expected = brute_force(vectors)
    assert embedding[0][0] == embedding["fawn"][0] == pytest.approx(-0.022007)
    for i, word in enumerate(words):
        assert embedding.word2index(word) == i and embedding.index2word(i) == word
        assert list(embedding.nearest_neighbours(i, 50)) == list(expected[i, 1:51])
    assert embedding.get_mse_dist("fawn", "o'clock") == pytest.approx(((vectors[0] - vectors[-1]) ** 2).sum(), rel=1e-5)
    cosine = vectors[0] @ vectors[9] / np.linalg.norm(vectors[0]) / np.linalg.norm(vectors[9])
    assert embedding.get_cos_sim(0, 9) == pytest.approx(cosine, abs=1e-6)
    swap = textattack.transformations.WordSwapEmbedding(max_candidates=5, embedding=embedding)
    assert swap._get_replacement_words("fawn") == [words[j] for j in expected[0, 1:6]]


@pytest.mark.parametrize("block", [1, 7, 256, COUNT + 1])
def test_neighbours_equal_brute_force_whatever_the_block(block, vectors):
    expected = brute_force(vectors)
    told = []
    found = nearest_rows(vectors.astype(np.float32), 100, block, told.append)
    assert found.dtype == np.int32 and sum(told) == COUNT
    np.testing.assert_array_equal(found, expected[:, :101])
    np.testing.assert_array_equal(nearest_rows(vectors[:5].astype(np.float32)), brute_force(vectors[:5]))


def test_tied_and_repeated_vectors_keep_their_own_row_first():
    same = nearest_rows(np.ones((200, 4), dtype=np.float32), 20)
    np.testing.assert_array_equal(same[:, 0], np.arange(200))
    assert all(len(set(row)) == 21 for row in same.tolist())


def test_wrong_texts_are_refused_with_the_line(text, tmp_path):
    lines = text.read_text(encoding="utf-8").splitlines(keepends=True)
    path = tmp_path / "vectors.txt"
    for change, message in (
        (lambda x: x[:-1], "has 399 words instead of 400"),
        (lambda x: [*x, x[0]], "more than 400 lines"),
        (lambda x: [*x[:3], x[2], *x[4:]], "line 4 .* is not a new word"),
        (lambda x: [*x[:5], x[5].replace(" ", "  ", 1), *x[6:]], "line 6 .* is not a new word"),
        (lambda x: [*x[:5], x[5].rsplit(" ", 1)[0] + " one\n", *x[6:]], "line 6 .* not a number"),
        (lambda x: [*x[:5], x[5].rsplit(" ", 1)[0] + " nan\n", *x[6:]], "line 6 .* not finite"),
    ):
        path.write_text("".join(change(list(lines))), encoding="utf-8")
        with pytest.raises(UserError, match=message):
            read_text(path, COUNT)
    path.write_bytes(b"\xff\xfe" + bytes(100))
    with pytest.raises(UserError, match="UTF-8"):
        read_text(path, COUNT)


def test_arrays_are_checked(folder):
    check(folder, COUNT)
    with pytest.raises(UserError, match="shape"):
        check(folder, counter_fitted.WORDS)

    def broken(name, content, message):
        kept = (folder / name).read_bytes()
        if isinstance(content, np.ndarray):
            np.save(folder / name, content)
        else:
            (folder / name).write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
        with pytest.raises(UserError, match=message):
            check(folder, COUNT)
        (folder / name).write_bytes(kept)

    vectors, near = np.load(folder / "paragram.npy"), np.load(folder / "nn.npy")
    rows = pickle.loads((folder / "wordlist.pickle").read_bytes())
    broken("paragram.npy", vectors[:, :299], "shape")
    broken("paragram.npy", vectors + 1, "not the counter-fitted vectors")
    broken("paragram.npy", np.array([{}], dtype=object), "is not an array")
    broken("paragram.npy", b"", "is not an array")
    broken("nn.npy", near[:, :40], "shape")
    broken("nn.npy", near[:, 1:], "does not list")
    broken("nn.npy", near + 1, "does not list")
    broken("nn.npy", near.astype(float), "whole numbers")
    broken("wordlist.pickle", {**rows, "fawn": 1}, "row of its own")
    broken("wordlist.pickle", list(rows), "does not map")
    broken("cos_sim.p", {}, "table")
    broken("mse_dist.p", defaultdict(dict, {1: 2}), "table")
    check(folder, COUNT)
