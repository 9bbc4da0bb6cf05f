"""Empty, blank, one-word and one-sign inputs, and pairs of them, under the real search of every recipe there is."""

from __future__ import annotations

import json

import nltk
import pytest
import torch
from test_attacks import dataset
from tiny_victim import NEIGHBOURS, export_tiny

from mindspore_floodx.attack_victim import Victim
from mindspore_floodx.attacks import attack
from mindspore_floodx.pretrained import find_model

ODD = [
    "",
    " ",
    "\n",
    "!!!",
    "a",
    "the",
    "I",
    "42",
    "Wonderful",
    "Wonderful !",
    "don't",
    "\u200b",
    "é",
    "[MASK]",
    "😀 film",
]
ODD += ["wonderful\u00a0film", "x" * 400]
PAIRS = [("", ""), ("", "wonderful"), ("wonderful", ""), ("film", "film"), ("!", "?"), ("the", "a"), (" ", "bad film")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A victim, neighbour lists and a random masked language model of one layer."""
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    folder = tmp_path_factory.mktemp("odd")
    export_tiny(folder / "victim")
    (folder / "lists.json").write_text(json.dumps(NEIGHBOURS))
    tokenizer = AutoTokenizer.from_pretrained(find_model("minilm"), model_max_length=512)
    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **small)).save_pretrained(folder / "masked-lm")
    tokenizer.save_pretrained(folder / "masked-lm")
    return folder


@pytest.mark.parametrize("name", ["synonym", "deepwordbug", "textbugger", "bertattack", "textfooler"])
@pytest.mark.parametrize("kind", ["texts", "pairs"])
def test_odd_inputs_are_attacked_and_counted(name, kind, folder, tmp_path, monkeypatch, request):
    if name == "textfooler":
        data = request.getfixturevalue("shared_data") / "nltk_data"
        if not data.is_dir():
            pytest.skip("the shared data has no nltk_data")
        monkeypatch.setattr(nltk.data, "path", [str(data), *nltk.data.path])
    inputs = ODD if kind == "texts" else PAIRS
    labels = Victim(folder / "victim")(inputs).argmax(1).tolist()
    labels[-1] = 1 - labels[-1]  # skipped
    texts, pairs = (ODD, None) if kind == "texts" else tuple([pair[i] for pair in PAIRS] for i in (0, 1))
    summary = attack(
        folder / "victim",
        name,
        "all",
        data=dataset(texts, pairs, labels),
        resources="standin",
        neighbours=folder / "lists.json",
        masked_lm=folder / "masked-lm",
        max_candidates=4,
        output_dir=tmp_path,
        progress=False,
    )
    assert summary["num_examples"] == len(inputs)
    assert summary["num_skipped"] == 1
    lines = (tmp_path / "attacks" / name / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    for record, given in zip(map(json.loads, lines), inputs, strict=True):
        assert tuple(record["original"].values()) == ((given,) if kind == "texts" else given)
        assert record["num_words_changed"] <= record["num_words"]
        assert 0 not in (record["num_words_changed"], record["num_words"]) or record["result"] != "succeeded"
        if record["num_words"] == 0:  # nothing to change: the first prediction is all that was asked
            assert (record["perturbed"], record["queries"]) == (record["original"], 1)
