from __future__ import annotations

import dataclasses
import json
import pickle

import pytest
from tiny_victim import NEIGHBOURS, export_tiny

from mindspore_floodx import attack_nodes
from mindspore_floodx import attack_resources as needs
from mindspore_floodx.attack_job import AttackJob, Example, VictimSettings
from mindspore_floodx.attack_nodes import MISSING, SentJob, demand_same, must_be_same, places_of_files, read_files
from mindspore_floodx.attack_recipes import AttackSettings
from mindspore_floodx.errors import UserError


@pytest.fixture
def job(tmp_path):
    export_tiny(tmp_path / "model")
    (tmp_path / "model" / "attacks").mkdir()  # of earlier attacks: stays here
    (tmp_path / "lists.json").write_text(json.dumps(NEIGHBOURS))
    return AttackJob(
        VictimSettings(tmp_path / "model"), AttackSettings("synonym", neighbours=tmp_path / "lists.json"), ("text",)
    )


def fetchers(job, asked):
    contents = {name: read_files(place) for name, place in places_of_files(job).items()}
    return {name: lambda name=name: asked.append(name) or contents[name] for name in contents}


def test_a_job_needs_none_of_its_files_where_it_arrives(job, tmp_path):
    example = Example(3, ("A dull film, badly made and far too long.",), 0)
    here = job.prepare({})(example)
    asked, kept = [], {}
    sent = dataclasses.replace(
        pickle.loads(pickle.dumps(SentJob(job, must_be_same(job), {}))), files=fetchers(job, asked)
    )
    (tmp_path / "model").rename(tmp_path / "moved")
    (tmp_path / "lists.json").unlink()
    there = sent.prepare(kept)(example)
    assert there | {"seconds": 0} == here | {"seconds": 0}
    assert sorted(asked) == ["model", "neighbours"]
    sent.prepare(kept)  # the next attack on the same model
    assert asked.count("model") == 1


def test_what_is_sent(job, tmp_path):
    assert places_of_files(job).keys() == {"model", "neighbours"}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= read_files(tmp_path / "model").keys()
    settings = AttackSettings("bertattack", "standin", tmp_path / "lists.json", masked_lm=tmp_path / "model")
    assert places_of_files(dataclasses.replace(job, settings=settings)).keys() == {"model", "masked_lm"}


def test_what_must_be_the_same(job, tmp_path, monkeypatch):
    versions = must_be_same(job)
    assert versions.keys() == {*attack_nodes.PACKAGES, "this project's code"}
    assert versions["textattack"] == "0.3.11" and len(versions["this project's code"]) == 64
    # resources by their content, the caches that TextAttack fills left out
    monkeypatch.setenv("TA_CACHE_DIR", str(tmp_path))
    vectors = needs.VECTORS.place()
    vectors.mkdir(parents=True)
    official = dataclasses.replace(job, settings=AttackSettings("textbugger"))
    assert must_be_same(official)[needs.VECTORS.label] == MISSING
    for name in needs.VECTOR_FILES:
        (vectors / name).write_bytes(b"one")
    first = must_be_same(official)
    assert "tensorflow" in first and first[needs.SENTENCE_ENCODER.label] == MISSING
    for name, changes in [("mse_dist.p", False), ("paragram.npy", True)]:
        attack_nodes._fingerprint.cache_clear()
        (vectors / name).write_bytes(b"two")
        assert (must_be_same(official) != first) is changes
    with pytest.raises(UserError, match="^the node .* has another content of the counter-fitted word vectors; copy it"):
        demand_same(first, must_be_same(official))


def test_another_machine():
    print_ = "0" * 64
    there = {"torch": "2.13.0", "NLTK's WordNet": print_}
    demand_same(there, dict(there))
    with pytest.raises(UserError, match=r"^the node \S+ has 2.12.0 of the package torch; install torch==2.13.0 there$"):
        demand_same(there, there | {"torch": "2.12.0"})
    with pytest.raises(UserError, match="lacks the package torch; install torch==2.13.0 there$"):
        demand_same(there, there | {"torch": MISSING})
    with pytest.raises(
        UserError, match="lacks NLTK's WordNet; copy it there from the machine of the command, to where"
    ):
        demand_same(there, there | {"NLTK's WordNet": MISSING})


def test_a_full_disk_on_a_node(job, tmp_path, monkeypatch):
    full = tmp_path / "full"
    full.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(full))
    monkeypatch.setattr(
        "pathlib.Path.write_bytes", lambda path, content: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    sent = SentJob(job, must_be_same(job), fetchers(job, []))
    with pytest.raises(UserError, match=r"^\S+ cannot write .*: No space left on device; make room there$"):
        sent.prepare({})
    assert list(full.iterdir()) == []
