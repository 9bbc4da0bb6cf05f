"""Every recipe of TextAttack by name: offered with its needs, or refused with the reason."""

from __future__ import annotations

import importlib
import inspect
import json
from unittest import mock

import pytest
import torch
from stock_attack import StockEncoder, as_pairs, essence
from test_attack_identity import seeded
from tiny_victim import NEIGHBOURS, PAIRS, SENTENCES, export_tiny

from mindspore_floodx import attack_resources as needs
from mindspore_floodx.attack_catalogue import NAMES, RECIPES, REFUSED, canonical_name
from mindspore_floodx.attack_library import no_nltk_downloads, textattack
from mindspore_floodx.attack_recipes import AttackSettings, build_attack, check_settings
from mindspore_floodx.attack_standin import NeighbourLists
from mindspore_floodx.attack_victim import Victim
from mindspore_floodx.cli.attack import parser
from mindspore_floodx.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return export_tiny(tmp_path_factory.mktemp("victim"))


@pytest.fixture(scope="module")
def masked_lm(tmp_path_factory):
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    from mindspore_floodx.pretrained import find_model

    path = tmp_path_factory.mktemp("mlm")
    tokenizer = AutoTokenizer.from_pretrained(find_model("minilm"))
    tokenizer.save_pretrained(path)
    torch.manual_seed(3)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **size)).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    path = tmp_path_factory.mktemp("lists") / "lists.json"
    path.write_text(json.dumps(NEIGHBOURS))
    return path


@pytest.fixture
def tagger(shared_data, monkeypatch):
    import nltk

    if not (shared_data / "nltk_data").is_dir():
        pytest.skip("the shared data has no nltk_data")
    monkeypatch.setattr(nltk.data, "path", [str(shared_data / "nltk_data"), *nltk.data.path])


def test_every_recipe_of_textattack_is_offered_or_refused():
    from textattack.attack_args import ATTACK_RECIPE_NAMES

    for name, path in ATTACK_RECIPE_NAMES.items():
        known = canonical_name(name)
        assert known == canonical_name(path.rpartition(".")[2])
        assert (known in NAMES) != (known in REFUSED)
    recipes = textattack.attack_recipes
    classes = [name for name, kind in inspect.getmembers(recipes, inspect.isclass) if name != "AttackRecipe"]
    assert {canonical_name(name) for name in classes} == set(RECIPES) | set(REFUSED)
    for recipe in RECIPES.values():
        assert hasattr(importlib.import_module(f"textattack.attack_recipes.{recipe.module}"), recipe.name)


def test_other_spellings_and_refusals():
    assert AttackSettings("bert-attack").attack == AttackSettings("BERTAttackLi2020").attack == "bertattack"
    for name, part in (("hotflip", "gradient"), ("Seq2SickCheng2018BlackBox", "summarisation"), ("psso", "'pso'")):
        with pytest.raises(UserError, match=part) as caught:
            check_settings(AttackSettings(name))
        assert "textfooler" in str(caught.value)
    for name in ("pso", "clare", "a2t", "kuleshov", "leap"):
        with pytest.raises(UserError, match="no stand-in resources"):
            check_settings(AttackSettings(name, "standin"))
    text = " ".join(parser().format_help().split())
    assert all(name in text for name in NAMES)


def stock(name, folder, masked_lm=None):
    """The recipe on TextAttack's own model wrapper, only the resources replaced."""
    from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

    victim = textattack.models.wrappers.HuggingFaceModelWrapper(
        AutoModelForSequenceClassification.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    )
    module = importlib.import_module(f"textattack.attack_recipes.{RECIPES[name].module}")
    own = textattack.transformations.WordSwapMaskedLM

    def with_model(**arguments):
        model, tokenizer = (kind.from_pretrained(masked_lm) for kind in (AutoModelForMaskedLM, AutoTokenizer))
        return own(masked_language_model=model, tokenizer=tokenizer, **arguments)

    embedding = textattack.shared.WordEmbedding
    with (
        no_nltk_downloads(),
        mock.patch.object(embedding, "counterfitted_GLOVE_embedding", staticmethod(lambda: NeighbourLists(NEIGHBOURS))),
        mock.patch.object(module, "UniversalSentenceEncoder", StockEncoder, create=True),
        mock.patch.object(module, "WordSwapMaskedLM", with_model, create=True),
    ):
        return getattr(module, RECIPES[name].name).build(victim)


@pytest.mark.parametrize("name, sentences, pairs", [("pruthi", 4, 2), ("iga", 3, 0), ("bae", 2, 1)])
def test_further_recipes_equal_stock_with_stand_ins(name, sentences, pairs, folder, lists, masked_lm, tagger):
    victim = Victim(folder)
    settings = AttackSettings(name, "standin", neighbours=lists, masked_lm=masked_lm)
    check_settings(settings)
    ours, theirs = build_attack(settings, victim), stock(name, folder, masked_lm)
    for search in (ours.search_method, theirs.search_method):  # of the genetic search: enough for a test
        if hasattr(search, "pop_size"):
            search.pop_size, search.max_iters = 6, 3
    results = []
    for inputs in (SENTENCES[:sentences], as_pairs(PAIRS[:pairs])):
        if inputs:
            labels = [
                int(label)
                for label in victim(
                    [tuple(x.values()) if pairs and not isinstance(x, str) else x for x in inputs]
                ).argmax(1)
            ]
            expected = essence(seeded(theirs, inputs, labels))
            assert essence(seeded(ours, inputs, labels)) == expected
            results += expected
    assert any(kind == "SuccessfulAttackResult" for kind, _, _ in results)


def test_bae_keeps_its_own_number_of_candidates(folder, masked_lm, tagger):
    settings = AttackSettings("bae", "standin", masked_lm=masked_lm, max_candidates=7)
    swap = build_attack(settings, Victim(folder)).transformation
    assert (swap.method, swap.max_candidates, swap.min_confidence) == ("bae", 50, 0.0)


def test_a2t_takes_the_gradient_of_our_victim_and_leaves_it_as_it_was(folder, tagger):
    """Its sentence encoder cannot be had here: a constant one in its place, so that the search itself is run."""
    from textattack.attack_recipes import a2t_yoo_2021 as module

    class Constant(textattack.constraints.semantics.sentence_encoders.SentenceEncoder):
        def __init__(self, model_name, **arguments):
            super().__init__(**arguments)

        def encode(self, sentences):
            return torch.ones(len(sentences), 3)

    embedding = textattack.shared.WordEmbedding
    victim = Victim(folder)
    before = victim(SENTENCES)
    with (
        mock.patch.object(embedding, "counterfitted_GLOVE_embedding", staticmethod(lambda: NeighbourLists(NEIGHBOURS))),
        mock.patch.object(module, "SBERT", Constant),
    ):
        attack = build_attack(AttackSettings("a2t"), victim)
    results = essence(seeded(attack, SENTENCES[:6], [int(label) for label in before[:6].argmax(1)]))
    assert any(kind == "SuccessfulAttackResult" for kind, _, _ in results)
    pair = as_pairs(PAIRS[:1])[0]
    attack.attack(pair, int(victim([tuple(pair.values())]).argmax()))
    assert torch.equal(victim(SENTENCES), before)


def test_building_never_asks_the_hub(folder, monkeypatch):
    import huggingface_hub
    from huggingface_hub import constants

    seen = []
    module = importlib.import_module("textattack.attack_recipes.kuleshov_2017")
    monkeypatch.setattr(module, "GPT2", lambda **arguments: seen.append(constants.HF_HUB_OFFLINE) or 1 / 0)
    monkeypatch.setattr(
        textattack.shared.WordEmbedding,
        "counterfitted_GLOVE_embedding",
        staticmethod(lambda: NeighbourLists(NEIGHBOURS)),
    )
    with pytest.raises(ZeroDivisionError):
        build_attack(AttackSettings("kuleshov"), Victim(folder))
    assert seen == [True] and huggingface_hub.constants.HF_HUB_OFFLINE is False
    assert needs.GPT2 in RECIPES["kuleshov"].official
