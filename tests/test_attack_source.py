from __future__ import annotations

import json

import numpy as np
import pytest

from mindspore_floodx.attack_source import (
    choose_attackable,
    choose_examples,
    find_export,
    load_evaluation,
    match_columns,
    match_labels,
    model_labels,
    recorded_settings,
)
from mindspore_floodx.data import TextDataset, TextSplit
from mindspore_floodx.errors import UserError


def dataset(label_names, labels=(0, 1, 0), pairs=None):
    split = TextSplit("test", ["one", "two", "three"], pairs, np.array(labels), "memory")
    return TextDataset("toy", split, split, list(label_names), ("text",) if pairs is None else ("a", "b"))


def test_a_run_gives_its_export_and_an_export_gives_itself(tmp_path):
    export = tmp_path / "run" / "export"
    export.mkdir(parents=True)
    with pytest.raises(UserError, match="ckpt_convert"):
        find_export(tmp_path / "run")
    (export / "config.json").write_text("{}")
    assert find_export(tmp_path / "run") == export
    assert find_export(export) == export
    with pytest.raises(UserError, match="there is no folder"):
        find_export(tmp_path / "nothing")


def test_settings_of_a_run_are_found_from_its_export_too(tmp_path):
    (tmp_path / "export").mkdir()
    assert recorded_settings(tmp_path) == {}
    (tmp_path / "config.yaml").write_text("dataset: mrpc\nmax_length: 64\n")
    assert (
        recorded_settings(tmp_path) == recorded_settings(tmp_path / "export") == {"dataset": "mrpc", "max_length": 64}
    )
    (tmp_path / "config.yaml").write_text("- a\n")
    with pytest.raises(UserError, match=r"config\.yaml"):
        recorded_settings(tmp_path)


def write_csv(path, rows):
    path.write_text("review,mark\n" + "".join(f"{text},{mark}\n" for text, mark in rows))
    return str(path)


def test_own_files_are_loaded_as_the_run_recorded_them(tmp_path):
    train = write_csv(tmp_path / "train.csv", [("good", "yes"), ("bad", "no")])
    test = write_csv(tmp_path / "test.csv", [("fine", "yes"), ("poor", "no"), ("nice", "yes")])
    recorded = {"dataset": "train", "train_file": train, "text_column": "review", "label_column": "mark"}
    data = load_evaluation({**recorded, "eval_file": test}, {})
    assert data.evaluation.texts == ["fine", "poor", "nice"]
    assert data.label_names == ["no", "yes"]
    other = write_csv(tmp_path / "other.csv", [("well", "yes"), ("ill", "no")])
    given = {"eval_file": other, "text_column": "review", "label_column": "mark"}
    assert load_evaluation({"dataset": "sst2", "data_dir": "elsewhere"}, given).evaluation.texts == ["well", "ill"]
    with pytest.raises(UserError, match="--label-column"):
        load_evaluation({}, {"eval_file": other, "text_column": "review"})


def test_a_share_of_the_training_file_is_the_same_share_again(tmp_path):
    train = write_csv(tmp_path / "train.csv", [(f"text {i}", "yes" if i % 2 else "no") for i in range(40)])
    recorded = {"train_file": train, "text_column": "review", "label_column": "mark", "eval_fraction": 0.2, "seed": 5}
    first = load_evaluation(recorded, {}).evaluation
    assert len(first) == 8
    assert load_evaluation(recorded, {}).evaluation.fingerprint == first.fingerprint
    assert load_evaluation({**recorded, "seed": 6}, {}).evaluation.fingerprint != first.fingerprint


def test_another_data_set_replaces_the_recorded_one(tmp_path):
    with pytest.raises(UserError, match="--dataset"):
        load_evaluation({}, {"dataset": None})
    # the recorded folder belongs to the recorded data set, not to the one asked for
    data = load_evaluation({"dataset": "mrpc", "data_dir": str(tmp_path)}, {"dataset": "demo"})
    assert data.name == "demo"


def test_labels_are_matched_by_name(tmp_path):
    data = dataset(["no", "yes"])
    assert match_labels(data, ["no", "yes"], tmp_path) is data.evaluation
    assert match_labels(data, ["LABEL_0", "LABEL_1"], tmp_path) is data.evaluation
    swapped = match_labels(data, ["yes", "no"], tmp_path)
    assert swapped.labels.tolist() == [1, 0, 1]
    assert swapped.fingerprint != data.evaluation.fingerprint
    assert match_labels(data, ["yes", "maybe", "no"], tmp_path).labels.tolist() == [2, 0, 2]
    for names in (["LABEL_0", "LABEL_1", "LABEL_2"], ["good", "bad"], ["no"]):
        with pytest.raises(UserError, match="classes"):
            match_labels(data, names, tmp_path)


def test_the_classes_of_a_model(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"id2label": {"1": "yes", "0": "no"}}))
    assert model_labels(tmp_path) == ["no", "yes"]
    path.write_text(json.dumps({"num_labels": 3}))
    assert model_labels(tmp_path) == ["LABEL_0", "LABEL_1", "LABEL_2"]
    for broken in ("{", json.dumps({"id2label": {"0": "no", "2": "yes"}}), "[]"):
        path.write_text(broken)
        with pytest.raises(UserError, match=r"config\.json"):
            model_labels(tmp_path)


def test_pairs_need_a_model_with_two_token_types(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"type_vocab_size": 1}))
    match_columns(tmp_path, dataset("ab").evaluation)
    with pytest.raises(UserError, match="type_vocab_size"):
        match_columns(tmp_path, dataset("ab", pairs=["x", "y", "z"]).evaluation)


def test_which_text_of_a_pair_is_changed():
    pair = ("sentence1", "sentence2")
    assert choose_attackable(None, pair) == "both"
    assert choose_attackable("sentence2", pair) == choose_attackable("second", pair) == "second"
    assert choose_attackable(None, ("premise", "hypothesis")) == "second"
    assert choose_attackable("both", ("premise", "hypothesis")) == "both"
    assert choose_attackable(None, ("text",)) == "both"
    with pytest.raises(UserError, match="did you mean 'sentence2'"):
        choose_attackable("sentense2", pair)
    with pytest.raises(UserError, match="one text column"):
        choose_attackable("second", ("text",))


def test_the_sample_depends_on_size_and_seed_alone_and_grows():
    ids = choose_examples(872, 100, 0)
    assert ids == choose_examples(872, 100, 0) == sorted(set(ids))
    assert len(ids) == 100
    assert ids != choose_examples(872, 100, 1)
    assert set(ids) < set(choose_examples(872, 200, 0))
    assert max(ids) > 700  # drawn from everywhere, not the first ones
    assert choose_examples(5, "all", 0) == choose_examples(5, 100, 0) == [0, 1, 2, 3, 4]
    for wrong in (0, -3, "some", 2.5, True):
        with pytest.raises(UserError, match="number of examples"):
            choose_examples(5, wrong, 0)
    with pytest.raises(UserError, match="seed"):
        choose_examples(5, 2, -1)
