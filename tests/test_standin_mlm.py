"""The masked language model of the stand-in resources, on a tiny BERT and a language of twelve letters."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_bert import save_tiny_bert
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM

from mindspore_floodx import standin_mlm
from mindspore_floodx.cli.standin_mlm import main
from mindspore_floodx.errors import UserError
from mindspore_floodx.standin_masking import Masker, cut, equal_shares, make_batches, pad
from mindspore_floodx.standin_mlm import RECORD, masked_logits, measure, train_standin_mlm
from mindspore_floodx.standin_settings import MaskedLMSettings
from mindspore_floodx.standin_text import Source, divide, read_sources

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = MaskedLMSettings(tokens=24_000, batch_tokens=192, max_length=16, learning_rate=5e-3, held_out_words=400)
GROUPS = ("abcd", "efgh", "ijkl")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("tiny") / "bert")


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    """Texts of letters from one of three groups, so that the letters in view tell the group of a hidden one."""
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(list(GROUPS[rng.integers(3)]), int(rng.integers(8, 13)))) for _ in range(400)]
    path = tmp_path_factory.mktemp("text") / "letters.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, encoder, text_file):
    folder = tmp_path_factory.mktemp("trained") / "mlm"
    record = train_standin_mlm(folder, files=[text_file], encoder=encoder, settings=SETTINGS, threads=1, progress=False)
    return folder, record


@pytest.fixture(scope="module")
def tokenizer(encoder):
    return AutoTokenizer.from_pretrained(encoder)


def ids_of(tokenizer, *texts):
    return pad(tokenizer(list(texts))["input_ids"], tokenizer.pad_token_id)


class TestTraining:
    def test_it_learns_to_guess_held_out_words(self, trained):
        _, record = trained
        before, after = record["before"]["all"], record["after"]["all"]
        assert before["masked_tokens"] == after["masked_tokens"] > 10
        assert after["perplexity"] < 0.5 * before["perplexity"]  # 4 is the best possible, 12 needs no text in view
        assert after["top1"] > before["top1"] and after["top5"] >= after["top1"]
        assert record["training_loss"][-1] < 0.8 * record["training_loss"][0]
        assert "stand-in" in record["note"]

    def test_folder_loads_as_a_masked_language_model(self, trained, text_file):
        folder, record = trained
        model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        assert isinstance(model, BertForMaskedLM)
        assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
        assert json.loads((folder / RECORD).read_text()) == record
        for group, text in zip(
            GROUPS, ("a b d [MASK] c a b d", "g [MASK] e f e h g h", "k k i l [MASK] j i l"), strict=True
        ):
            ids = torch.from_numpy(ids_of(tokenizer, text))
            guess = model(ids).logits[ids == tokenizer.mask_token_id].argmax().item()
            assert tokenizer.convert_ids_to_tokens(guess) in group
        # what was written is what was measured
        (division,) = divide(read_sources([], None, [text_file]), SETTINGS.held_out_words, SETTINGS.seed)
        pieces = {division.name: cut(tokenizer, division.held_out, SETTINGS.max_length)}
        assert measure(model, tokenizer, pieces, SETTINGS) == record["after"]

    def test_same_seed_same_weights_other_seed_others(self, trained, tmp_path, encoder, text_file):
        folder, record = trained
        weights = {}
        for seed in (0, 1):
            train_standin_mlm(
                tmp_path / str(seed),
                files=[text_file],
                encoder=encoder,
                settings=replace(SETTINGS, seed=seed),
                threads=1,
                progress=False,
            )
            weights[seed] = (tmp_path / str(seed) / "model.safetensors").read_bytes()
        assert weights[0] == (folder / "model.safetensors").read_bytes() != weights[1]
        assert json.loads((tmp_path / "0" / RECORD).read_text())["data_fingerprint"] == record["data_fingerprint"]

    def test_less_text_than_tokens_is_read_again_and_no_more_than_asked(self, trained):
        _, record = trained
        (source,) = record["sources"]
        assert 0 < source["training_tokens"] < SETTINGS.tokens  # so it was read more than once
        assert source["training_texts"] + source["held_out_texts"] + source["left_out_for_shared_words"] == 400

    def test_bfloat16_learns_as_well(self, tmp_path, encoder, text_file, trained):
        settings = replace(SETTINGS, bfloat16=True)
        record = train_standin_mlm(tmp_path / "m", files=[text_file], encoder=encoder, settings=settings, threads=1)
        assert record["after"]["all"]["perplexity"] < 0.5 * record["before"]["all"]["perplexity"]
        assert next(AutoModelForMaskedLM.from_pretrained(tmp_path / "m").parameters()).dtype == torch.float32


class TestLoss:
    def test_logits_of_chosen_positions_equal_those_of_all(self, encoder, tokenizer):
        torch.manual_seed(3)
        model = BertForMaskedLM(BertConfig.from_pretrained(encoder)).eval()
        ids = ids_of(tokenizer, "a b c d", "e f g h i j k", "l")
        hidden, chosen = Masker(tokenizer, np.arange(10, 20), 0.4, 0.8, 0.1)(ids, np.random.default_rng(0))
        labels = torch.from_numpy(np.where(chosen, ids, -100))
        expected = model(
            torch.from_numpy(hidden),
            attention_mask=torch.from_numpy((ids != tokenizer.pad_token_id) * 1),
            labels=labels,
        )
        logits = masked_logits(model, torch.from_numpy(hidden), tokenizer.pad_token_id, torch.from_numpy(chosen))
        assert logits.shape == (chosen.sum(), len(tokenizer))
        torch.testing.assert_close(logits, expected.logits[torch.from_numpy(chosen)], rtol=0, atol=1e-6)
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(ids)[torch.from_numpy(chosen)])
        torch.testing.assert_close(loss, expected.loss, rtol=0, atol=1e-6)

    def test_figures_equal_a_plain_recount(self, trained, tokenizer):
        model = BertForMaskedLM.from_pretrained(trained[0]).eval()
        texts = ["a b c d a b c", "f g h e e f g", "j k l i", "a e i", "l k j i k l j"] * 3
        pieces = cut(tokenizer, texts, 16)
        found = measure(model, tokenizer, {"x": pieces}, SETTINGS)["x"]
        rng = np.random.default_rng(SETTINGS.seed)
        (batch,) = make_batches(pieces, SETTINGS.batch_tokens, rng)
        ids = pad(batch, tokenizer.pad_token_id)
        hidden, chosen = Masker(tokenizer, np.arange(5), standin_mlm.MEASURED_SHARE)(ids, rng)
        assert (hidden[chosen] == tokenizer.mask_token_id).all()
        logits = model(torch.from_numpy(hidden), torch.from_numpy((ids != tokenizer.pad_token_id) * 1)).logits
        ranks, losses = [], []
        for row, column in np.argwhere(chosen):
            scores, target = logits[row, column], int(ids[row, column])
            ranks.append(scores.argsort(descending=True).tolist().index(target))
            losses.append(-scores.log_softmax(-1)[target].item())
        assert found == {
            "top1": round(np.mean([rank < 1 for rank in ranks]), 4),
            "top5": round(np.mean([rank < 5 for rank in ranks]), 4),
            "perplexity": pytest.approx(np.exp(np.mean(losses)), abs=0.01),
            "masked_tokens": len(ranks),
        }
        assert 0 < found["top1"] < found["top5"]


class TestMasking:
    def test_whole_words_and_their_shares(self, tokenizer):
        rng = np.random.default_rng(0)
        ids = ids_of(tokenizer, *["ab c de fgh i"] * 2000)
        words = np.array([-1, 0, 0, 1, 2, 2, 3, 3, 3, 4, -1])
        replacements = tokenizer.convert_tokens_to_ids(["x", "y"])
        hidden, chosen = Masker(tokenizer, np.array(replacements), 0.3, 0.5, 0.3)(ids, rng)
        assert not chosen[:, words < 0].any()
        kinds = np.where(hidden == tokenizer.mask_token_id, 0, np.where(hidden == ids, 2, 1))
        assert (kinds[~chosen] == 2).all() and np.isin(hidden[chosen & (kinds == 1)], replacements).all()
        for word in range(5):
            of_word = words == word
            assert (chosen[:, of_word] == chosen[:, of_word][:, :1]).all()  # all of its tokens or none
            assert (kinds[:, of_word] == kinds[:, of_word][:, :1]).all()  # and in one way
            assert abs(chosen[:, of_word].mean() - 0.3) < 0.04
        for kind, share in ((0, 0.5), (1, 0.3), (2, 0.2)):
            assert abs((kinds[chosen] == kind).mean() - share) < 0.04

    def test_something_is_always_chosen_and_never_padding(self, tokenizer):
        ids = ids_of(tokenizer, "a", "b c d")
        for seed in range(20):
            hidden, chosen = Masker(tokenizer, np.array([9]), 1e-9)(ids, np.random.default_rng(seed))
            assert chosen.sum() == 1 and ids[chosen] > 4 and hidden[chosen] == tokenizer.mask_token_id

    def test_pieces_hold_all_tokens_and_no_more_than_asked(self, tokenizer):
        texts = ["a b c d e f g h i j k l m", "n o p q", "r s"]
        pieces = cut(tokenizer, texts, 8)
        assert [len(piece) for piece in pieces] == [8, 8, 6]  # the rest of the first text is too short, the last too
        assert tokenizer.decode([id for piece in pieces for id in piece[1:-1]]) == "a b c d e f g h i j k l n o p q"
        assert cut(tokenizer, texts, 8, tokens=9) == pieces[:2]

    def test_batches_hold_every_piece_once_within_the_limit(self):
        rng = np.random.default_rng(0)
        pieces = [[number] * int(rng.integers(5, 60)) for number in range(500)]
        batches = list(make_batches(pieces, 128, rng))
        assert sorted(piece[0] for batch in batches for piece in batch) == list(range(500))
        padded = sum(len(batch) * max(map(len, batch)) for batch in batches)
        assert all(len(batch) * max(map(len, batch)) <= 128 for batch in batches)
        assert padded < 1.05 * sum(map(len, pieces))  # similar lengths are together

    def test_shares(self):
        assert equal_shares([100, 10, 100], 90) == [40, 10, 40]
        assert equal_shares([5, 5], 90) == [5, 5]
        assert sum(equal_shares([1000, 1000, 1000], 100)) == 100


class TestText:
    def test_held_out_text_is_not_trained_on(self, monkeypatch, tmp_path, encoder, text_file, tokenizer):
        seen = []
        original = standin_mlm.masked_logits

        def watch(model, ids, padding, chosen):
            if model.training:
                seen.extend(ids.tolist())
            return original(model, ids, padding, chosen)

        monkeypatch.setattr(standin_mlm, "masked_logits", watch)
        # Nothing is hidden, so that the tokens that are trained on can be read off.
        settings = replace(SETTINGS, masked_share=0.0, random_share=0.0, max_length=32)
        train_standin_mlm(tmp_path / "m", files=[text_file], encoder=encoder, settings=settings, threads=1)
        (division,) = divide(read_sources([], None, [text_file]), SETTINGS.held_out_words, SETTINGS.seed)
        trained_on = {tokenizer.decode(ids, skip_special_tokens=True) for ids in seen}
        assert division.held_out and trained_on == set(division.training)
        assert trained_on.isdisjoint(division.held_out)

    def test_text_that_shares_words_with_held_out_text_is_left_out(self):
        long = "one two three four five six seven eight nine ten"
        others = [f"other words in text number {number} of many" for number in range(8)]
        parts = ["two three four five", "ONE two three four five six seven eight and more", "one two three four, five"]
        for seed in range(40):
            divisions = divide([Source("a", [long, *others]), Source("b", [*parts, *others])], 1, seed)
            if divisions[0].held_out == [long]:
                break
        kept = divisions[1].training + divisions[1].held_out
        assert parts[2] in kept  # its words differ
        assert not {parts[0], parts[1]} & set(divisions[1].training)
        assert divisions[1].left_out == len(parts) + len(others) - len(kept)

    def test_held_out_is_at_most_a_tenth(self):
        texts = [f"text number {number} has six words" for number in range(30)]
        (division,) = divide([Source("a", texts)], 10**6, 0)
        assert len(division.held_out) == 3 and len(division.training) == 27
        assert sorted(division.held_out + division.training) == sorted(texts)

    def test_files_of_every_kind(self, tmp_path):
        (tmp_path / "a.txt").write_text("one two three four\n\ntoo short\none two three four\nfive six seven eight\n")
        (tmp_path / "b.csv").write_text('body,n\n"a, b c d<br />e f g h",1\n"i j k l m",2\n')
        (tmp_path / "c.jsonl").write_text('{"body": "o p q r"}\n{"body": "s t u v"}\n')
        names = ["a.txt", "b.csv", "c.jsonl"]
        sources = read_sources([], None, [tmp_path / name for name in names], "body")
        assert [source.name for source in sources] == names
        assert [source.texts for source in sources] == [
            ["one two three four", "five six seven eight"],
            ["a, b c d", "e f g h", "i j k l m"],
            ["o p q r", "s t u v"],
        ]

    def test_both_texts_of_a_pair_are_read(self, shared_data):
        (source,) = read_sources(["mrpc"], shared_data, [])
        assert source.name == "mrpc (MRPC/train.tsv)" and len(source.texts) > 3668
        assert not any(len(text.split()) < 4 for text in source.texts)


class TestRefusals:
    @pytest.fixture(autouse=True)
    def no_training(self, monkeypatch):
        def heavy(*args):
            raise AssertionError("the model was built before everything was checked")

        monkeypatch.setattr(standin_mlm, "_build", heavy)

    def call(self, tmp_path, *words):
        return main(["--output-dir", str(tmp_path / "new"), *map(str, words)])

    def test_no_text(self, tmp_path):
        with pytest.raises(UserError, match="no text to train on; name data sets with --dataset"):
            self.call(tmp_path)
        empty = tmp_path / "empty.txt"
        empty.write_text("\n  \nshort line\n")
        with pytest.raises(UserError, match=r"empty\.txt has fewer than two texts of 4 words"):
            self.call(tmp_path, "--text-file", empty)

    def test_missing_data(self, tmp_path):
        with pytest.raises(UserError, match=r"absent\.txt does not exist"):
            self.call(tmp_path, "--text-file", tmp_path / "absent.txt")
        with pytest.raises(UserError, match="no data set 'sst3'.*did you mean 'sst2'"):
            self.call(tmp_path, "--dataset", "sst3", "--data-dir", tmp_path)
        with pytest.raises(UserError, match=str(tmp_path)):
            self.call(tmp_path, "--dataset", "imdb", "--data-dir", tmp_path)

    def test_wrong_column_and_bad_row(self, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_text('{"text": "a b c d"}\n{"text": 3}\n')
        with pytest.raises(UserError, match=r"a\.jsonl, line 2: column 'text' is not text"):
            self.call(tmp_path, "--text-file", path)
        with pytest.raises(UserError, match="no field 'txt'"):
            self.call(tmp_path, "--text-file", path, "--text-column", "txt")

    def test_twice(self, tmp_path, text_file):
        with pytest.raises(UserError, match="given twice"):
            self.call(tmp_path, "--text-file", text_file, text_file)

    def test_all_text_repeats_the_held_out(self, tmp_path):
        path = tmp_path / "a.txt"
        path.write_text("a b c d e f g h\na b c d e f g h i\n")
        with pytest.raises(UserError, match="repeats what is held out"):
            self.call(tmp_path, "--text-file", path)

    def test_output_folder_in_use(self, tmp_path, text_file):
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "precious").write_text("x")
        with pytest.raises(UserError, match="exists and is not empty; choose a new folder with --output-dir"):
            self.call(tmp_path, "--text-file", text_file)
        with pytest.raises(UserError, match="is no writable folder"):
            main(["--output-dir", str(tmp_path / "new" / "precious" / "deep"), "--text-file", str(text_file)])
        assert (tmp_path / "new" / "precious").read_text() == "x"

    @pytest.mark.parametrize(
        ("option", "value", "message"),
        [
            ("--tokens", 0, "tokens must be above 0"),
            ("--learning-rate", "nan", "learning_rate must be above 0"),
            ("--batch-tokens", 100, "too few for a text of max_length = 128"),
            ("--chosen-share", 1, "chosen_share must lie between 0 and 1"),
            ("--random-share", 0.3, "together at most 1"),
            ("--max-length", 4, "at least 8"),
            ("--seed", -1, "seed must be 0 or more"),
            ("--threads", 0, "threads must be at least 1"),
            ("--encoder", "/nowhere/at/all", "there is no folder"),
        ],
    )
    def test_settings(self, tmp_path, text_file, option, value, message):
        with pytest.raises(UserError, match=message):
            self.call(tmp_path, "--text-file", text_file, option, value)
        assert not (tmp_path / "new").exists()

    def test_encoder_of_another_kind(self, tmp_path, text_file, encoder):
        other = tmp_path / "other"
        other.mkdir()
        (other / "config.json").write_text('{"model_type": "gpt2"}')
        (other / "model.safetensors").write_bytes(b"")
        with pytest.raises(UserError, match="type 'gpt2'"):
            self.call(tmp_path, "--text-file", text_file, "--encoder", other)
        with pytest.raises(UserError, match="takes 64 tokens at most"):
            self.call(tmp_path, "--text-file", text_file, "--encoder", encoder)


def test_command_prints_the_figures(tmp_path, encoder, text_file, capsys):
    words = ["--text-file", text_file, "--encoder", encoder, "--tokens", 1500, "--batch-tokens", 128]
    words += ["--max-length", 16, "--threads", 1, "--output-dir", tmp_path / "m"]
    assert main([str(word) for word in words]) == 0
    out = capsys.readouterr().out
    assert "letters.txt" in out and "first five (%)" in out and f"--masked-lm {tmp_path / 'm'}" in out


def test_interrupted_training_leaves_nothing(tmp_path, encoder, text_file):
    words = ["--text-file", text_file, "--encoder", encoder, "--tokens", 10**6, "--max-length", 16, "--threads", 1]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run" / "standin_mlm.py"), *map(str, words), "--output-dir", tmp_path / "m"],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
    )
    shown = b""
    until = time.monotonic() + 120
    while b"loss" not in shown and time.monotonic() < until:
        shown += os.read(process.stderr.fileno(), 1000)
    process.send_signal(signal.SIGINT)
    shown += process.communicate(timeout=60)[1]
    assert process.returncode == 130 and b"stopped by Ctrl-C" in shown and b"Traceback" not in shown
    assert list(tmp_path.iterdir()) == []
