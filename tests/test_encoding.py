"""Encoding against the tokeniser itself, batches, the cache, and what breaks it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from mindspore_floodx import encoding
from mindspore_floodx.encoding import POOL, bucketed_order, encode, epoch_order, load_tokenizer, make_batch
from mindspore_floodx.errors import UserError
from mindspore_floodx.splits import TextSplit

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "was", "good", "bad", "never", "not", "##ly"]
TEXTS = ["the film was good", "bad", "the film was not bad , never badly"]
PAIRS = ["good", "the film was never never good", "the"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return load_tokenizer(folder)


def split(texts=TEXTS, pairs=None, labels=(1, 0, 1)) -> TextSplit:
    return TextSplit("train", list(texts), pairs and list(pairs), np.array(labels), "here")


def row(encoded, i):
    span = slice(encoded.offsets[i], encoded.offsets[i + 1])
    return encoded.input_ids[span].tolist(), encoded.token_type_ids[span].tolist()


@pytest.mark.parametrize("pairs", [None, PAIRS])
@pytest.mark.parametrize("max_length", [6, 64])
def test_rows_are_what_the_tokenizer_gives_one_by_one(tokenizer, tmp_path, pairs, max_length):
    encoded = encode(split(pairs=pairs), tokenizer, max_length, tmp_path)
    assert (len(encoded), encoded.input_ids.dtype, encoded.offsets.dtype) == (3, np.int32, np.int64)
    for i, text in enumerate(TEXTS):
        second = None if pairs is None else pairs[i]
        alone = tokenizer(text, second, truncation="longest_first", max_length=max_length)
        assert row(encoded, i) == (alone["input_ids"], alone["token_type_ids"])
    assert encoded.lengths.max() <= max_length
    assert (encoded.token_type_ids.max() == 1) == (pairs is not None)


def test_chunks_do_not_show(tokenizer, tmp_path, monkeypatch):
    whole = encode(split(pairs=PAIRS), tokenizer, 64, tmp_path / "a")
    monkeypatch.setattr(encoding, "CHUNK", 2)
    parts = encode(split(pairs=PAIRS), tokenizer, 64, tmp_path / "b")
    np.testing.assert_array_equal(whole.input_ids, parts.input_ids)
    np.testing.assert_array_equal(whole.offsets, parts.offsets)


def test_a_batch_is_what_the_tokenizer_pads(tokenizer, tmp_path):
    encoded = encode(split(pairs=PAIRS), tokenizer, 64, tmp_path)
    for indices in ([2, 0], [1], [0, 1, 2, 1]):
        batch = make_batch(encoded, indices)
        expected = tokenizer(
            [TEXTS[i] for i in indices], [PAIRS[i] for i in indices], padding="longest", return_tensors="np"
        )
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            assert batch[name].dtype == np.int32
            np.testing.assert_array_equal(batch[name], expected[name])
        np.testing.assert_array_equal(batch["labels"], np.array([1, 0, 1], np.int32)[indices])


def test_a_batch_uses_the_tokenizers_padding_id(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "bad", "[PAD]"]))
    tokenizer = load_tokenizer(tmp_path)
    batch = make_batch(encode(split(), tokenizer, 64, tmp_path), [0, 1])
    assert set(batch["input_ids"][batch["attention_mask"] == 0].tolist()) == {7}


class TestCache:
    def test_second_call_does_not_tokenise(self, tokenizer, tmp_path, monkeypatch):
        first = encode(split(), tokenizer, 64, tmp_path)
        monkeypatch.setattr(encoding, "_tokenise", None)
        second = encode(split(), tokenizer, 64, tmp_path)
        for name in ("input_ids", "token_type_ids", "offsets", "labels", "pad_id"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))

    def test_key_holds_everything_that_matters(self, tokenizer, tmp_path):
        (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
        cased = load_tokenizer(tmp_path)
        variants = [
            (split(), tokenizer, 64),
            (split(), tokenizer, 63),
            (split(), cased, 64),
            (split(labels=(1, 0, 0)), tokenizer, 64),
            (split(texts=[*TEXTS[:2], "good"]), tokenizer, 64),
            (split(pairs=PAIRS), tokenizer, 64),
        ]
        keys = {encoding._key(*variant) for variant in variants}
        assert len(keys) == len(variants)

    def test_key_does_not_depend_on_earlier_calls_or_the_file(self, tokenizer):
        key = encoding._key(split(), tokenizer, 64)
        tokenizer(TEXTS, padding="max_length", truncation=True, max_length=9)
        assert encoding._key(split(), tokenizer, 64) == key
        elsewhere = TextSplit("test", TEXTS, None, np.array([1, 0, 1]), "elsewhere")
        assert encoding._key(elsewhere, tokenizer, 64) == key

    @pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "text"])
    def test_damaged_file_is_made_again(self, tokenizer, tmp_path, damage):
        expected = encode(split(), tokenizer, 64, tmp_path)
        (path,) = tmp_path.glob("*.npz")
        content = path.read_bytes()
        middle = content.index(expected.input_ids.tobytes())
        damaged = {
            "empty": b"",
            "cut": content[: len(content) // 2],
            "flipped": content[:middle] + b"\x7f" + content[middle + 1 :],
            "text": b"not an archive",
        }
        path.write_bytes(damaged[damage])
        np.testing.assert_array_equal(encode(split(), tokenizer, 64, tmp_path).input_ids, expected.input_ids)
        assert path.read_bytes() == content

    def test_folder_that_cannot_be_written_costs_only_the_cache(self, tokenizer, tmp_path):
        (tmp_path / "file").write_text("in the way")
        assert len(encode(split(), tokenizer, 64, tmp_path / "file" / "cache")) == 3

    def test_default_folder(self, monkeypatch, tmp_path):
        monkeypatch.setenv("FLOODX_CACHE", str(tmp_path / "mine"))
        assert encoding.default_cache_dir() == tmp_path / "mine"
        monkeypatch.delenv("FLOODX_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert encoding.default_cache_dir() == tmp_path / "mindspore-floodx"


@pytest.mark.parametrize("pairs, least", [(None, 3), (PAIRS, 5)])
def test_max_length_without_room(tokenizer, tmp_path, pairs, least):
    with pytest.raises(UserError, match=f"max_length is {least - 1}.* set it to {least} or more"):
        encode(split(pairs=pairs), tokenizer, least - 1, tmp_path)
    assert encode(split(pairs=pairs), tokenizer, least, tmp_path).lengths.max() == least


class TestLoadTokenizer:
    def test_without_vocabulary(self, tmp_path):
        with pytest.raises(UserError, match=r"no vocabulary \(tokenizer\.json or vocab\.txt\)"):
            load_tokenizer(tmp_path)
        with pytest.raises(UserError, match="no vocabulary"):
            load_tokenizer(tmp_path / "absent")

    def test_damaged_file(self, tmp_path):
        (tmp_path / "tokenizer.json").write_text('{"model": ')
        with pytest.raises(UserError, match="cannot be read"):
            load_tokenizer(tmp_path)

    def test_vocab_txt_and_tokenizer_json_of_a_real_model_agree(self, minilm_folder, tmp_path):
        shutil.copy(minilm_folder / "vocab.txt", tmp_path)
        texts = ["Although the Café was far-from great, it's 100% OK!", "naïve 東京"]
        real, plain = load_tokenizer(minilm_folder), load_tokenizer(tmp_path)
        assert real(texts)["input_ids"] == plain(texts)["input_ids"]
        assert real.convert_ids_to_tokens(real(texts)["input_ids"][0])[:3] == ["[CLS]", "although", "the"]


def test_epoch_order_is_a_fixed_permutation_of_seed_and_epoch():
    assert sorted(epoch_order(50, 3, 0)) == list(range(50))
    np.testing.assert_array_equal(epoch_order(50, 3, 1), np.random.default_rng([3, 1]).permutation(50))
    assert epoch_order(50, 3, 0).tolist() != epoch_order(50, 3, 1).tolist() != epoch_order(50, 4, 1).tolist()


class TestBatchesOfSimilarLengths:
    lengths = np.random.default_rng(0).integers(3, 200, 5 * POOL * 8 + 21)  # five pools, a part of one and 5 examples

    def test_every_example_once_by_seed_and_epoch(self):
        orders = [bucketed_order(self.lengths, 8, *which) for which in ((3, 0), (3, 0), (3, 1), (4, 0))]
        assert all(sorted(order) == list(range(len(self.lengths))) for order in orders)
        assert orders[0].tolist() == orders[1].tolist()
        assert len({tuple(order) for order in orders}) == 3

    def test_little_is_padded(self):
        def positions(order):
            return sum(len(rows) * self.lengths[rows].max() for rows in np.split(order, range(8, len(order), 8)))

        plain, bucketed = (
            positions(epoch_order(len(self.lengths), 3, 0)),
            positions(bucketed_order(self.lengths, 8, 3, 0)),
        )
        assert self.lengths.sum() <= bucketed < 1.07 * self.lengths.sum() < 1.6 * self.lengths.sum() < plain

    def test_batches_come_in_random_order_and_the_small_one_last(self):
        order = bucketed_order(self.lengths, 8, 3, 0)
        means = self.lengths[order[:-5]].reshape(-1, 8).mean(axis=1)
        assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.2
        # the last five are those of the random order, whatever their length
        np.testing.assert_array_equal(order[-5:], np.random.default_rng([3, 0]).permutation(len(self.lengths))[-5:])

    @pytest.mark.parametrize("n", [0, 1, 7, 8, 9])
    def test_fewer_examples_than_a_pool(self, n):
        assert sorted(bucketed_order(self.lengths[:n], 8, 0, 0)) == list(range(n))
