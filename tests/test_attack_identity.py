"""Our wrappers leave things out, never change them: results equal those of TextAttack's own Attacker and wrapper."""

from __future__ import annotations

import json
import os
import random
from unittest import mock

import numpy as np
import pytest
import torch
from stock_attack import CLASSES, RECIPES, as_pairs, essence, stock_attack, with_attacker, write_masked_lm
from tiny_victim import NEIGHBOURS, PAIRS, SENTENCES, export_tiny

from mindspore_floodx import attack_words
from mindspore_floodx.attack_encoding import EncodeOnce
from mindspore_floodx.attack_library import textattack
from mindspore_floodx.attack_recipes import AttackSettings, build_attack
from mindspore_floodx.attack_savings import NAMES, NO_SAVINGS, Savings
from mindspore_floodx.attack_standin import read_neighbours
from mindspore_floodx.attack_victim import Victim

ALL = Savings()
STOCK_WORDS = textattack.shared.utils.words_from_text


def seeded(attack, inputs, labels):
    """Attacks each example with its own seed, as random recipes need for a comparison."""
    results = []
    for position, (texts, label) in enumerate(zip(inputs, labels, strict=True)):
        random.seed(position)
        np.random.seed(position)
        results.append(attack.attack(texts, label))
    return results


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
    """Real sentences and pairs in a fixed mix of short and long, real neighbour lists, and NLTK's tagger."""
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
    short = [sentence for sentence in sentences if len(sentence.split()) < 14]
    long = [sentence for sentence in sentences if 17 < len(sentence.split()) < 24]
    return {
        "sentences": [sentence for both in zip(short, long, strict=False) for sentence in both],
        "pairs": as_pairs(sorted(pairs, key=lambda pair: len(" ".join(pair)))[5:]),
        "lists": shared_data / "counter_fitted" / "dne_euc-top8-d0.7.json",
    }


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def masked_lm(tmp_path_factory):
    return write_masked_lm(tmp_path_factory.mktemp("masked-lm"))


@pytest.fixture(scope="module")
def ours_of(folder, masked_lm, real):
    """Builds our attack of a name on the tiny victim, with given savings."""

    def build(name, savings=ALL):
        settings = AttackSettings(name, "standin", real["lists"], 8, masked_lm)
        return build_attack(settings, Victim(folder, savings=savings), savings=savings)

    return build


@pytest.fixture(scope="module")
def stock_of(folder, masked_lm, real):
    """Builds TextAttack's own attack of a name on the tiny victim."""
    lists = read_neighbours(real["lists"])
    return lambda name: stock_attack(getattr(RECIPES, CLASSES[name]), folder, lists, masked_lm, max_candidates=8)


# (sentences, pairs) of each recipe. FLOODX_IDENTITY=full takes 60 and 20 of each; benchmarks/attack.py also takes a
# trained victim.
COUNTS = {"textfooler": (10, 4), "textbugger": (6, 2), "bertattack": (4, 2)}
if os.environ.get("FLOODX_IDENTITY") == "full":
    COUNTS = dict.fromkeys(COUNTS, (60, 20))


@pytest.mark.parametrize("kind", ["sentences", "pairs"])
@pytest.mark.parametrize("name", COUNTS)
def test_real_text_equals_stock(name, kind, real, ours_of, stock_of):
    inputs = real[kind][: COUNTS[name][kind == "pairs"]]
    ours, stock = ours_of(name), stock_of(name)
    victim = ours.goal_function.model
    labels = [int(label) for label in victim([tuple(x.values()) if kind == "pairs" else x for x in inputs]).argmax(1)]
    labels[1] = 1 - labels[1]
    expected = essence(with_attacker(stock, inputs, labels))
    encoded = []
    model = ours.constraints[-1].model
    with mock.patch.object(model, "encode", lambda texts, encode=model.encode: encoded.extend(texts) or encode(texts)):
        assert essence(with_attacker(ours, inputs, labels)) == expected
    assert {"SkippedAttackResult", "SuccessfulAttackResult"} <= {kind for kind, _, _ in expected}
    assert len(encoded) < 0.75 * stock.constraints[-1].encoded  # the saving is real


@pytest.fixture(scope="module")
def two_attacked_by_stock(real, ours_of, stock_of):
    """The first two real sentences and what TextAttack itself makes of them, for each of two recipes."""
    inputs, found = real["sentences"][:2], {}
    for name in ("textfooler", "bertattack"):
        labels = [int(label) for label in ours_of(name).goal_function.model(inputs).argmax(1)]
        found[name] = inputs, labels, essence(with_attacker(stock_of(name), inputs, labels))
    return found


@pytest.mark.parametrize("without", [*NAMES, "all of them"])
def test_each_saving_can_be_switched_off(without, two_attacked_by_stock, ours_of):
    name = "textfooler" if without == "tags" else "bertattack"
    savings = NO_SAVINGS if without == "all of them" else ALL.without([without])
    inputs, labels, expected = two_attacked_by_stock[name]
    assert essence(with_attacker(ours_of(name, savings), inputs, labels)) == expected


def test_a_switch_switches(ours_of):
    """What each switch turns off is not done, and is done without it: the results alone could not tell."""

    def done(savings):
        ours = ours_of("bertattack", savings)
        victim, swap, encoder = ours.goal_function.model, ours.transformation, ours.constraints[-1]
        widths, splits = [], []
        model_hook = victim.model.register_forward_pre_hook(
            lambda _, inputs, named: widths.append(named["input_ids"].shape[1]), with_kwargs=True
        )
        victim(["a good film"])
        model_hook.remove()
        with mock.patch.object(attack_words, "_split", lambda text: splits.append(text) or STOCK_WORDS(text)):
            attack_words._words_of_piece.cache_clear()
            ours.attack("zest", int(victim(["zest"]).argmax()) ^ 1)  # a skipped example
        stock_swap = textattack.transformations.WordSwapMaskedLM
        with mock.patch.object(stock_swap, "_bert_attack_replacement_words", return_value=["stock"]):
            text = textattack.shared.AttackedText("unbelievably good")
            words = swap._bert_attack_replacement_words(text, 0, torch.ones(64, 8, dtype=torch.long), None)
        return {
            "padding": swap._encode_text("a good film")["input_ids"].shape[1] == 5 and (not widths or widths[0] == 5),
            "runtime": not widths,
            "repeats": victim._remembered is not None and encoder.model._remembered is not None,
            "encodings": isinstance(encoder, EncodeOnce),
            "products": words != ["stock"],
            "words": splits == ["zest"],
            "tags": isinstance(ours_of("textfooler", savings).constraints[1], attack_words.KeepTags),
        }

    assert all(done(ALL).values())
    for name in NAMES:
        assert [other for other, is_done in done(ALL.without([name])).items() if not is_done] == [name]
    assert not any(done(NO_SAVINGS).values())


def test_nothing_is_remembered_from_one_example_to_the_next(ours_of, real):
    ours = ours_of("textbugger")
    victim, encoder = ours.goal_function.model, ours.constraints[-1].model
    sentence = real["sentences"][1]
    label = int(victim([sentence]).argmax())
    assert victim._remembered._rows
    asked = []
    with mock.patch.object(
        victim._remembered, "_compute", lambda tokens: asked.extend(tokens) or victim.logits(tokens)
    ):
        ours.attack(sentence, label)
    assert len(asked) == len(set(asked)) > 1
    assert tuple(victim.tokenizer(sentence)["input_ids"]) in {ids for ids, _ in asked}  # asked anew
    assert not victim._remembered._rows and not encoder._remembered._rows
