from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny_victim import NEIGHBOURS, export_tiny

from mindspore_floodx import attack_resources as needs
from mindspore_floodx.attack_catalogue import NAMES, RECIPES
from mindspore_floodx.attack_encoding import EncodeOnce
from mindspore_floodx.attack_library import textattack
from mindspore_floodx.attack_recipes import (
    AttackSettings,
    build_attack,
    check_settings,
    describe_resources,
    sha256_of_resources,
)
from mindspore_floodx.attack_victim import Victim
from mindspore_floodx.errors import UserError
from mindspore_floodx.resource_manifest import record


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    return Victim(export_tiny(tmp_path_factory.mktemp("victim")))


@pytest.fixture
def nothing(tmp_path, monkeypatch):
    """A machine without any of the resources."""
    import huggingface_hub
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(needs.BUILT_IN_NLTK_DATA)])
    monkeypatch.setenv("TA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: None)
    lists = tmp_path / "lists.json"
    lists.write_text(json.dumps(NEIGHBOURS))
    return lists


@pytest.mark.parametrize("name", RECIPES)
def test_official_lists_all_that_is_missing_and_where_it_belongs(name, nothing):
    with pytest.raises(UserError) as caught:
        check_settings(AttackSettings(name))
    message = str(caught.value)
    for resource in RECIPES[name].official:
        assert resource.missing() in message
    assert ("--resources standin" in message) == (RECIPES[name].standin is not None)


def test_wrong_settings_are_refused(nothing):
    for settings, message in (
        (AttackSettings("textfoolr"), "did you mean 'textfooler'"),
        (AttackSettings("textfooler", "stand-in"), "'official' or 'standin'"),
        (AttackSettings("textbugger", "standin"), "--neighbours FILE"),
        (AttackSettings("bertattack", "standin"), "--masked-lm FOLDER"),
        (AttackSettings("pwws", "standin"), "no stand-in resources for pwws"),
        (AttackSettings("textbugger", "official", neighbours=nothing), "stand-ins"),
        (AttackSettings("textfooler", "standin", neighbours=nothing), "part-of-speech tagger"),
        (AttackSettings("deepwordbug", "standin", max_candidates=0), "max_candidates"),
    ):
        with pytest.raises(UserError, match=message):
            check_settings(settings)
    check_settings(AttackSettings("synonym"))
    check_settings(AttackSettings("deepwordbug", "standin"))
    check_settings(AttackSettings("textbugger", "standin", neighbours=nothing))


def test_results_say_what_was_replaced(nothing):
    described = describe_resources(AttackSettings("textbugger", "standin", neighbours=nothing))
    assert described["resources"] == "standin"
    notes = " ".join(described["resource_notes"])
    assert "neighbour lists" in notes and "MiniLM" in notes and "built-in stop words" in notes and "lists.json" in notes
    assert str(nothing.parent) not in notes
    assert describe_resources(AttackSettings("deepwordbug")) == {"resources": "official", "resource_notes": []}
    assert describe_resources(AttackSettings("synonym", "standin"))["resources"] == "built-in"
    assert "48 candidates" in describe_resources(AttackSettings("bertattack"))["resource_notes"][0]


def test_hash_covers_only_what_the_attack_uses(nothing, monkeypatch):
    import nltk

    lists = sha256_of_resources(AttackSettings("textbugger", "standin", neighbours=nothing))
    nothing.write_text("{}")
    assert sha256_of_resources(AttackSettings("textbugger", "standin", neighbours=nothing)) != lists
    assert sha256_of_resources(AttackSettings("deepwordbug", "standin", neighbours=nothing)) is None
    assert sha256_of_resources(AttackSettings("deepwordbug")) is None
    place = nothing.parent / "nltk" / "corpora" / "stopwords"
    place.mkdir(parents=True)
    monkeypatch.setattr(nltk.data, "path", [str(place.parents[1])])
    hashes = []
    for content in ("the", "of"):
        (place / "english").write_text(content)
        record(place, "a test")
        hashes.append(sha256_of_resources(AttackSettings("deepwordbug")))
    assert None not in hashes and len(set(hashes)) == 2
    one, other = ({"a": ["b"]}, {"a": ["c"]})
    hashes = {sha256_of_resources(AttackSettings("synonym", synonyms=s)) for s in (one, other)}
    assert len(hashes) == 2


def test_stand_ins_keep_the_recipe_as_textattack_builds_it(nothing, victim):
    attack = build_attack(AttackSettings("textfooler", "standin", neighbours=nothing), victim)
    assert attack.transformation.max_candidates == 50
    assert [type(c).__name__ for c in attack.constraints] == ["WordEmbeddingDistance", "PartOfSpeech", "MiniLMEncoder"]
    encoder = attack.constraints[-1]
    assert (encoder.threshold, encoder.window_size) == (0.840845057, 15)
    assert encoder.skip_text_shorter_than_window and not encoder.compare_against_original
    bugger = build_attack(AttackSettings("textbugger", "standin", neighbours=nothing), victim)
    assert bugger.transformation.transformations[-1].max_candidates == 5
    assert bugger.constraints[-1].threshold == 0.8
    # and nothing of it stays behind for the next recipe
    assert textattack.attack_recipes.textfooler_jin_2019.UniversalSentenceEncoder is not type(encoder)


def test_official_textfooler_uses_the_official_resources(victim, monkeypatch):
    words = ["good", "fine", "bad"]
    vectors = np.array([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0]], dtype=np.float32)
    near = np.array([[0, 1, 2], [1, 0, 2], [2, 1, 0]])
    embedding = textattack.shared.WordEmbedding(
        vectors, {word: i for i, word in enumerate(words)}, dict(enumerate(words)), near
    )
    monkeypatch.setattr(
        textattack.shared.WordEmbedding, "counterfitted_GLOVE_embedding", staticmethod(lambda: embedding)
    )
    attack = build_attack(AttackSettings("textfooler"), victim)
    assert attack.transformation.embedding is embedding
    encoder = attack.constraints[-1]
    assert isinstance(encoder, EncodeOnce) and type(encoder).__name__ == "UniversalSentenceEncoder"
    asked = []
    encoder.model = lambda sentences: asked.append(list(sentences)) or torch.ones(len(sentences), 4)
    assert encoder.encode(["a", "b", "a"]).shape == (3, 4)
    assert asked == [["a", "b"]]


def test_bert_attack_takes_the_paper_s_number_of_candidates(nothing, victim, tmp_path):
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    from mindspore_floodx.pretrained import find_model

    tokenizer = AutoTokenizer.from_pretrained(find_model("minilm"))
    tokenizer.save_pretrained(tmp_path / "mlm")
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **size)).save_pretrained(tmp_path / "mlm")
    for given, expected in (({}, 48), ({"max_candidates": 8}, 8)):
        settings = AttackSettings("bertattack", "standin", masked_lm=tmp_path / "mlm", **given)
        check_settings(settings)
        attack = build_attack(settings, victim)
        assert attack.transformation.max_candidates == expected
        assert attack.transformation.method == "bert-attack"
    assert type(attack.attack("a gloomy tale of water", 0)).__name__.endswith("AttackResult")


def test_an_unchangeable_column_is_left_alone(victim):
    from collections import OrderedDict

    lists = {"firm": ["company", "business"], "sold": ["traded"], "mill": ["plant"]}
    pair = OrderedDict([("text", "the firm sold the mill"), ("text_pair", "the mill sold the firm")])
    text = textattack.shared.AttackedText(pair)
    for attackable, expected in (("both", {1, 2, 4, 6, 7, 9}), ("first", {1, 2, 4}), ("second", {6, 7, 9})):
        attack = build_attack(AttackSettings("synonym", synonyms=lists), victim, attackable)
        assert set(attack.get_indices_to_order(text)[1]) == expected


def test_every_name_is_documented():
    from pathlib import Path

    text = (Path(__file__).parents[1] / "docs" / "attacks.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in NAMES)
