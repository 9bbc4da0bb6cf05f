"""Our wrappers leave things out, never change them: results equal those of TextAttack's own Attacker and wrapper."""

from __future__ import annotations

import json
import random
from collections import OrderedDict
from unittest import mock

import numpy as np
import pytest
import torch
from tiny_victim import NEIGHBOURS, PAIRS, SENTENCES, export_tiny

from mindspore_floodx.attack_library import no_nltk_downloads, textattack
from mindspore_floodx.attack_recipes import AttackSettings, build_attack
from mindspore_floodx.attack_standin import NeighbourLists, read_neighbours
from mindspore_floodx.attack_swaps import HomoglyphSwap
from mindspore_floodx.attack_victim import Victim
from mindspore_floodx.pretrained import find_model

RECIPES = textattack.attack_recipes


class StockEncoder(textattack.constraints.semantics.sentence_encoders.SentenceEncoder):
    """The stand-in encoder without any saving: every sentence every time, in TextAttack's order."""

    def __init__(self, threshold=0.8, large=False, metric="angular", **kwargs):
        super().__init__(threshold=threshold, metric=metric, **kwargs)
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(find_model("minilm"))
        self.bert = AutoModel.from_pretrained(find_model("minilm")).eval()
        self.encoded = 0

    def encode(self, sentences):
        self.encoded += len(sentences)
        rows = []
        with torch.no_grad():
            for start in range(0, len(sentences), 32):
                part = sentences[start : start + 32]
                batch = self.tokenizer(part, padding=True, max_length=256, truncation=True, return_tensors="pt")
                hidden = self.bert(**batch)[0]
                for vectors, mask in zip(hidden, batch["attention_mask"], strict=True):
                    rows.append(vectors[mask.bool()].mean(dim=0))
        return torch.stack(rows)


def stock_attack(recipe, folder, lists):
    """The recipe on TextAttack's own model wrapper, only the resources replaced."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    victim = textattack.models.wrappers.HuggingFaceModelWrapper(
        AutoModelForSequenceClassification.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    )
    module = __import__(recipe.__module__, fromlist=["_"])
    embedding = textattack.shared.WordEmbedding
    with (
        no_nltk_downloads(),
        mock.patch.object(embedding, "counterfitted_GLOVE_embedding", staticmethod(lambda: NeighbourLists(lists))),
        mock.patch.object(module, "UniversalSentenceEncoder", StockEncoder, create=True),
        mock.patch.object(module, "WordSwapHomoglyphSwap", HomoglyphSwap, create=True),
    ):
        return recipe.build(victim)


def seeded(attack, inputs, labels):
    """Attacks each example with its own seed, as random recipes need for a comparison."""
    results = []
    for position, (texts, label) in enumerate(zip(inputs, labels, strict=True)):
        random.seed(position)
        np.random.seed(position)
        results.append(attack.attack(texts, label))
    return results


def with_attacker(attack, inputs, labels):
    """Attacks through TextAttack's Attacker."""
    columns = list(inputs[0]) if isinstance(inputs[0], OrderedDict) else ["text"]
    rows = [(tuple(texts.values()) if isinstance(texts, OrderedDict) else texts) for texts in inputs]
    dataset = textattack.datasets.Dataset(list(zip(rows, labels, strict=True)), input_columns=columns)
    settings = textattack.AttackArgs(num_examples=len(rows), silent=True, disable_stdout=True)
    return list(textattack.Attacker(attack, dataset, settings).attack_dataset())


def essence(results):
    return [
        (type(result).__name__, result.perturbed_result.attacked_text.tokenizer_input, result.num_queries)
        for result in results
    ]


def as_pairs(pairs):
    return [OrderedDict([("text", first), ("text_pair", second)]) for first, second in pairs]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return export_tiny(tmp_path_factory.mktemp("victim"))


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    path = tmp_path_factory.mktemp("lists") / "lists.json"
    path.write_text(json.dumps(NEIGHBOURS))
    return path


@pytest.mark.parametrize("name, recipe", [("textbugger", "TextBuggerLi2018"), ("deepwordbug", "DeepWordBugGao2018")])
@pytest.mark.parametrize("kind", ["sentences", "pairs"])
def test_equal_to_stock(name, recipe, kind, folder, lists):
    inputs = SENTENCES if kind == "sentences" else as_pairs(PAIRS)
    victim = Victim(folder)
    labels = [int(label) for label in victim([tuple(x.values()) if kind == "pairs" else x for x in inputs]).argmax(1)]
    labels[0] = 1 - labels[0]  # one that is skipped
    ours = build_attack(AttackSettings(name, "standin", neighbours=lists), victim)
    stock = stock_attack(getattr(RECIPES, recipe), folder, NEIGHBOURS)
    expected = essence(seeded(stock, inputs, labels))
    assert essence(seeded(ours, inputs, labels)) == expected
    assert {"SkippedAttackResult", "SuccessfulAttackResult"} <= {kind for kind, _, _ in expected}


@pytest.fixture(scope="module")
def real(shared_data, monkeypatch_module):
    """Ten real sentences and four real pairs, real neighbour lists, and NLTK's tagger."""
    import nltk

    for name in ("nltk_data", "counter_fitted"):
        if not (shared_data / name).is_dir():
            pytest.skip(f"the shared data has no {name}")
    monkeypatch_module.setattr(nltk.data, "path", [str(shared_data / "nltk_data"), *nltk.data.path])
    sentences = [
        line.split("\t")[0]
        for line in (shared_data / "glue" / "SST-2" / "dev.tsv").read_text(encoding="utf-8").splitlines()[1:]
    ]
    pairs = [
        tuple(line.split("\t")[3:5])
        for line in (shared_data / "glue" / "MRPC" / "dev.tsv").read_text(encoding="utf-8-sig").splitlines()[1:]
    ]
    short = [sentence for sentence in sentences if len(sentence.split()) < 14][:5]
    long = [sentence for sentence in sentences if 17 < len(sentence.split()) < 24][:5]
    return {
        "sentences": short + long,
        "pairs": as_pairs(sorted(pairs, key=lambda pair: len(" ".join(pair)))[5:9]),
        "lists": shared_data / "counter_fitted" / "dne_euc-top8-d0.7.json",
    }


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.mark.parametrize("kind", ["sentences", "pairs"])
def test_textfooler_on_real_text_equals_stock(kind, real, folder):
    inputs = real[kind]
    victim = Victim(folder)
    labels = [int(label) for label in victim([tuple(x.values()) if kind == "pairs" else x for x in inputs]).argmax(1)]
    labels[1] = 1 - labels[1]
    ours = build_attack(AttackSettings("textfooler", "standin", neighbours=real["lists"]), victim)
    stock = stock_attack(RECIPES.TextFoolerJin2019, folder, read_neighbours(real["lists"]))
    expected = essence(with_attacker(stock, inputs, labels))
    encoded = []
    model = ours.constraints[-1].model
    with mock.patch.object(model, "encode", lambda texts, encode=model.encode: encoded.extend(texts) or encode(texts)):
        assert essence(with_attacker(ours, inputs, labels)) == expected
    assert {"SkippedAttackResult", "SuccessfulAttackResult"} <= {kind for kind, _, _ in expected}
    assert len(encoded) < 0.75 * stock.constraints[-1].encoded  # the saving is real
