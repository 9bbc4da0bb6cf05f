from __future__ import annotations

import json
import re

import numpy as np
import pytest
from tiny_victim import LABELS, NEIGHBOURS, PAIRS, SENTENCES, export_tiny

from mindspore_floodx import attack_job
from mindspore_floodx.attack_job import VictimSettings
from mindspore_floodx.attack_metrics import summarise
from mindspore_floodx.attack_victim import Victim
from mindspore_floodx.attacks import attack
from mindspore_floodx.cli.attack import main
from mindspore_floodx.data import TextDataset, TextSplit
from mindspore_floodx.errors import UserError


def dataset(texts, pairs=None, labels=None, label_names=LABELS):
    labels = np.array([int(i != 7) for i in range(len(texts))] if labels is None else labels)
    split = TextSplit("test", list(texts), pairs, labels, "memory")
    columns = ("sentence",) if pairs is None else ("sentence1", "sentence2")
    return TextDataset("toy", split, split, list(label_names), columns)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return export_tiny(tmp_path_factory.mktemp("victim"))


@pytest.fixture
def options(export, tmp_path):
    return {
        "run_or_export": export,
        "attack": "synonym",
        "synonyms": NEIGHBOURS,
        "output_dir": tmp_path,
        "data": dataset(SENTENCES),
        "num_examples": "all",
        "progress": False,
    }


def read_examples(folder, name="synonym"):
    path = folder / "attacks" / name / "examples.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_summary_and_examples_agree_and_odd_inputs_are_attacked(options, tmp_path, export):
    summary = attack(**options)
    assert json.loads((tmp_path / "attacks" / "synonym" / "summary.json").read_text(encoding="utf-8")) == summary
    examples = read_examples(tmp_path)
    assert [e["id"] for e in examples] == summary["example_ids"] == list(range(10))
    for name, value in summarise(examples).items():
        assert summary[name] == value
    assert {e["result"] for e in examples} == {"succeeded", "failed", "skipped"}

    predicted = Victim(export)(SENTENCES).argmax(1).numpy()
    assert summary["clean_accuracy"] == pytest.approx(
        np.mean([p == e["label"] for p, e in zip(predicted, examples, strict=True)])
    )
    for e, text in zip(examples, SENTENCES, strict=True):
        assert e["original"] == {"sentence": text}
        assert e["original_output"] == predicted[e["id"]]
        assert (e["result"] == "skipped") == (predicted[e["id"]] != e["label"])
        assert (e["perturbed_output"] != e["label"]) == (e["result"] != "failed")
        assert sum(e["original_scores"]) == pytest.approx(1, abs=1e-5)
        assert e["num_words_changed"] == sum(
            a != b for a, b in zip(text.split(), e["perturbed"]["sentence"].split(), strict=True)
        )
    empty, one_word = examples[9], examples[8]
    assert (empty["num_words"], one_word["num_words"]) == (0, 1)
    assert empty["perturbed"] == {"sentence": ""}


def test_queries_count_the_first_prediction_the_ranking_and_every_candidate(options, tmp_path):
    """One word, which is no stop word: first prediction, its deletion, its three neighbours."""
    victims = Victim(options["run_or_export"])
    label = victims(["wonderful"]).argmax(1).item()
    options["data"] = dataset(["wonderful", "x"], labels=[label, 1 - label])
    attack(**options)
    assert read_examples(tmp_path)[0]["queries"] == 1 + 1 + len(NEIGHBOURS["wonderful"])


def test_a_run_that_is_stopped_goes_on_and_ends_the_same(options, tmp_path, monkeypatch):
    whole = attack(**options)
    expected = (tmp_path / "attacks" / "synonym" / "examples.jsonl").read_bytes()
    options["output_dir"] = tmp_path / "second"
    attacked = []
    real = attack_job.attack_example

    def stop_after_four(built, example, **rest):
        if len(attacked) == 4:
            raise KeyboardInterrupt
        attacked.append(example.id)
        return real(built, example, **rest)

    monkeypatch.setattr(attack_job, "attack_example", stop_after_four)
    with pytest.raises(KeyboardInterrupt):
        attack(**options)
    assert len(read_examples(options["output_dir"])) == 4
    monkeypatch.setattr(
        attack_job, "attack_example", lambda built, e, **rest: attacked.append(e.id) or real(built, e, **rest)
    )
    again = attack(**options)
    assert attacked == list(range(10))  # no example twice, none left out
    assert (options["output_dir"] / "attacks" / "synonym" / "examples.jsonl").read_bytes() == expected
    changing = {"seconds_attacking", "seconds_clean", "seconds_this_call"}
    assert {k: v for k, v in again.items() if k not in changing} == {
        k: v for k, v in whole.items() if k not in changing
    }
    assert again["seconds_clean"] > 0
    # finished: the same call only reads
    attack(**options)
    assert len(attacked) == 10
    # other words: nothing of the old results is taken over
    attack(**{**options, "synonyms": {"wonderful": ["awful"]}})
    assert len(attacked) == 20


def test_random_attacks_do_not_depend_on_the_other_examples(options, tmp_path):
    base = {**options, "attack": "deepwordbug", "resources": "standin"}
    attack(**base)
    whole = {e["id"]: e for e in read_examples(tmp_path, "deepwordbug")}
    summary = attack(**{**base, "num_examples": 4, "output_dir": tmp_path / "few"})
    few = read_examples(tmp_path / "few", "deepwordbug")
    assert len(few) == summary["num_examples"] == 4
    for e in few:
        assert e["perturbed"] == whole[e["id"]]["perturbed"]
        assert e["queries"] == whole[e["id"]]["queries"]
    assert summary["resources"] == "standin"


@pytest.mark.parametrize("column", [None, "first", "sentence2"])
def test_pairs(options, tmp_path, export, column):
    first, second = ([pair[i] for pair in PAIRS] for i in (0, 1))
    labels = Victim(export)(PAIRS).argmax(1).tolist()
    summary = attack(**{**options, "data": dataset(first, second, labels), "attack_column": column})
    assert summary["clean_accuracy"] == 1.0
    assert summary["attack_column"] == {None: "both", "first": "first", "sentence2": "second"}[column]
    for e in read_examples(tmp_path):
        if column == "first":
            assert e["original"]["sentence2"] == e["perturbed"]["sentence2"]
        if column == "sentence2":
            assert e["original"]["sentence1"] == e["perturbed"]["sentence1"]


def test_columns_named_premise_and_hypothesis_are_not_frozen_behind_the_user_s_back(options, tmp_path, export):
    from dataclasses import replace

    first, second = ([pair[i] for pair in PAIRS] for i in (0, 1))
    data = replace(
        dataset(first, second, Victim(export)(PAIRS).argmax(1).tolist()), text_columns=("premise", "hypothesis")
    )
    assert attack(**{**options, "data": data})["attack_column"] == "second"
    assert all(e["original"]["premise"] == e["perturbed"]["premise"] for e in read_examples(tmp_path))
    assert attack(**{**options, "data": data, "attack_column": "both"})["attack_column"] == "both"
    assert any(e["original"]["premise"] != e["perturbed"]["premise"] for e in read_examples(tmp_path))


def test_clean_accuracy_is_of_the_whole_set_and_measured_once(options, tmp_path, monkeypatch):
    from mindspore_floodx import attack_clean

    whole = attack(**options)
    monkeypatch.setattr(attack_clean, "predict_logits", lambda *args, **kwargs: pytest.fail("measured again"))
    few = attack(**{**options, "num_examples": 3})
    assert few["clean_accuracy"] == whole["clean_accuracy"]
    assert (few["num_examples"], few["evaluation_examples"]) == (3, 10)
    with pytest.raises(pytest.fail.Exception):
        attack(**{**options, "data": dataset(SENTENCES[::-1])})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"attack": "synonim"}, "did you mean 'synonym'"),
        ({"threads": 0}, "threads"),
        ({"workers": 0}, "workers"),
        ({"workers": "many"}, "'auto'"),
        ({"device": "GPUs"}, "did you mean 'GPU'"),
        ({"num_examples": 0}, "number of examples"),
        ({"run_or_export": "nowhere"}, "there is no folder"),
        ({"data": dataset(SENTENCES, label_names=("a", "b"))}, "classes"),
        ({"data": None, "dataset": "sst3"}, "did you mean 'sst2'"),
        ({"data": None}, "--dataset"),
        ({"attack_column": "second"}, "one text column"),
        ({"victim": "mindspor"}, "did you mean 'mindspore'"),
        ({"max_length": 0}, "no room for text"),
        ({"max_length": 4, "data": dataset(["a"] * 3, ["b"] * 3)}, "no room for text"),
        ({"seed": -1}, "seed"),
        ({"resources": "standing"}, "'official' or 'standin'"),
        ({"attack": "deepwordbug", "resources": "standin", "max_candidates": 0}, "max_candidates"),
        ({"neighbours": "nowhere.json"}, "does not exist"),
        ({"calibrate": True}, "--calibration-file"),
        ({"calibration_file": "held.csv"}, "--calibrate"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(options, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        attack(**{**options, **change})
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_cannot_be_written_is_refused_before_the_model_is_loaded(options, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr(VictimSettings, "load", lambda self: pytest.fail("loaded"))
    with pytest.raises(UserError, match="output"):
        attack(**{**options, "output_dir": tmp_path / "file"})


def test_progress_shows_accuracy_under_attack_and_the_time_left(options, capsys):
    figures = attack(**{**options, "progress": True})
    last = capsys.readouterr().err.splitlines()[-1].split("\r")[-1]
    assert f"Aua {100 * figures['accuracy_under_attack']:.1f}%" in last
    assert re.search(r"10/10 \[\d\d:\d\d<\d\d:\d\d", last)


def test_a_failure_inside_textattack_names_the_example(options, monkeypatch):
    from mindspore_floodx.attack_library import textattack

    def broken(self, example, label):
        raise ValueError("substring not found")

    monkeypatch.setattr(textattack.Attack, "attack", broken)
    with pytest.raises(UserError, match=r"example 0 .* failed: ValueError in .*substring not found; .* 0 examples"):
        attack(**options)


def test_command_on_a_run_folder(tmp_path, capsys):
    run = tmp_path / "run"
    export_tiny(run / "export", labels=("no", "yes"))
    (tmp_path / "test.csv").write_text(
        "text,label\n" + "".join(f'"{s}",{("no", "yes")[i % 2]}\n' for i, s in enumerate(SENTENCES[:6]))
    )
    (tmp_path / "lists.json").write_text(json.dumps(NEIGHBOURS))
    (run / "config.yaml").write_text(
        f"train_file: {tmp_path}/test.csv\neval_file: {tmp_path}/test.csv\ntext_column: text\nlabel_column: label\n"
        "max_length: 32\n"
    )
    arguments = ["--resources", "standin", "--neighbours", str(tmp_path / "lists.json"), "--num-examples", "4"]
    assert main([str(run), "--attack", "synonym", "textbugger", *arguments]) == 0
    out = capsys.readouterr().out
    assert "test: 4 of 6 examples, seed 0" in out
    assert "textbugger (stand-in resources) |" in out
    summaries = {
        name: json.loads((run / "attacks" / name / "summary.json").read_text()) for name in ("synonym", "textbugger")
    }
    assert summaries["synonym"]["example_ids"] == summaries["textbugger"]["example_ids"]
    assert summaries["textbugger"]["resources"] == "standin"
    assert summaries["textbugger"]["max_length"] == 32
    assert str(tmp_path) not in json.dumps(summaries)
    with pytest.raises(UserError, match="textfoler"):  # the second name is wrong: the first is not started
        main([str(run), "--attack", "deepwordbug", "textfoler", "--resources", "standin"])
    assert not (run / "attacks" / "deepwordbug").exists()
