from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_victim import LABELS, NEIGHBOURS, SENTENCES, export_tiny

from mindspore_floodx import attack_calibration
from mindspore_floodx.attack_calibration import (
    calibrate_halves,
    calibrate_on_file,
    check_calibration,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
)
from mindspore_floodx.attack_source import choose_examples
from mindspore_floodx.attack_victim import Victim
from mindspore_floodx.attacks import attack
from mindspore_floodx.cli.attack import main
from mindspore_floodx.data import TextDataset, TextSplit
from mindspore_floodx.errors import UserError


def drawn(examples, classes, temperature, seed=0):
    """Logits, and labels drawn from softmax(logits / temperature): the temperature that is right for them."""
    rng = np.random.default_rng(seed)
    logits = (3 * rng.standard_normal((examples, classes))).astype(np.float32)
    shares = torch.from_numpy(logits).double().div(temperature).softmax(1).numpy()
    return logits, np.array([rng.choice(classes, p=row) for row in shares])


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("temperature", [0.25, 1.0, 4.0])
def test_the_known_temperature_is_found_and_equals_a_grid_search(classes, temperature):
    logits, labels = drawn(20_000, classes, temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.06)
    grid = temperature * np.geomspace(0.8, 1.25, 801)
    target = torch.from_numpy(labels).long()
    losses = [torch.nn.functional.cross_entropy(torch.from_numpy(logits).double() / t, target).item() for t in grid]
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=1e-3)
    assert negative_log_likelihood(logits, labels, found) <= min(losses) + 1e-12
    assert negative_log_likelihood(logits, labels) == pytest.approx(
        torch.nn.functional.cross_entropy(torch.from_numpy(logits).double(), target).item()
    )


def test_no_temperature_is_best_for_a_model_that_is_always_or_never_right():
    logits, _ = drawn(300, 2, 1.0)
    for scale in (1, 1000):  # so large that the likelihood is 1 over a range of temperatures
        with pytest.raises(UserError, match="300 of the 300"):
            fit_temperature(scale * logits, logits.argmax(1))
    with pytest.raises(UserError, match="no temperature"):
        fit_temperature(logits, logits.argmin(1))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_calibration_error_equals_a_recount_bin_by_bin(temperature):
    logits, labels = drawn(700, 3, 1.7, seed=4)
    total = 0.0
    probabilities = torch.from_numpy(logits).double().div(temperature).softmax(1)
    for number in range(15):
        inside = [
            (float(row.max()), int(row.argmax()) == label)
            for row, label in zip(probabilities, labels, strict=True)
            if number / 15 < float(row.max()) <= (number + 1) / 15
        ]
        if inside:
            confidence, accuracy = (sum(values) / len(inside) for values in zip(*inside, strict=True))
            total += len(inside) / len(labels) * abs(confidence - accuracy)
    assert expected_calibration_error(logits, labels, temperature) == pytest.approx(total, abs=1e-12)


def test_calibration_error_of_certain_and_of_undecided_predictions():
    certain, labels = np.array([[1000.0, -1000.0]] * 4, np.float32), np.array([0, 0, 0, 1])
    assert expected_calibration_error(certain, labels) == pytest.approx(0.25)
    assert expected_calibration_error(np.zeros((4, 2), np.float32), labels) == pytest.approx(0.25)


def test_each_example_has_a_temperature_that_was_fitted_without_it(monkeypatch):
    logits, labels = drawn(1001, 2, 2.0)
    logits[:, 0] += np.arange(1001) * 1e-6  # every row is unique, so that a row tells its example
    fitted_on = {}
    real = attack_calibration.fit_temperature

    def watched(some_logits, some_labels):
        temperature = real(some_logits, some_labels)
        fitted_on[temperature] = {row.tobytes() for row in some_logits}
        return temperature

    monkeypatch.setattr(attack_calibration, "fit_temperature", watched)
    whole = calibrate_halves(logits, labels, range(1001), seed=3)
    assert sorted(id for part in whole.parts for id in part.ids) == list(range(1001))
    assert [len(part.ids) for part in whole.parts] == [501, 500]
    for part in whole.parts:
        assert part.fit["examples"] in (500, 501)
        assert not {logits[id].tobytes() for id in part.ids} & fitted_on[part.temperature]
    # a smaller sample: one temperature, the same as in the larger one
    few = calibrate_halves(logits, labels, choose_examples(1001, 300, 3), seed=3)
    assert few.settings == whole.settings
    assert [part.temperature for part in few.parts] == [whole.parts[0].temperature]
    assert set(few.parts[0].ids) < set(whole.parts[0].ids)
    described = whole.describe(logits, labels)
    scaled = logits.astype(np.float64)
    for part in whole.parts:
        scaled[part.ids] /= part.temperature
    assert described["attacked"]["nll_after"] == pytest.approx(negative_log_likelihood(scaled, labels))
    assert described["attacked"]["nll_before"] == pytest.approx(negative_log_likelihood(logits, labels))
    assert described["attacked"]["nll_after"] < described["attacked"]["nll_before"]


def test_at_most_a_thousand_examples_are_fitted_on():
    logits, labels = drawn(5000, 2, 2.0)
    parts = calibrate_halves(logits, labels, range(5000), seed=0).parts
    assert [(len(part.ids), part.fit["examples"]) for part in parts] == [(2500, 1000), (2500, 1000)]


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return export_tiny(tmp_path_factory.mktemp("victim"))


@pytest.fixture(scope="module")
def data(export):
    """440 sentences, made by combining others, with labels that the tiny victim gets right four times in five."""
    texts = [f"{first} {second}" for first in SENTENCES[:-1] for second in SENTENCES[:-1]]
    texts += [f"{text} {text}" for text in texts] + [f"{text} Fine music ." for text in texts]
    texts += [f"Bad jokes . {text}" for text in texts[:197]]
    texts = [text[:150] for text in dict.fromkeys(texts)][:440]
    rng = np.random.default_rng(1)
    labels = Victim(export)(texts).argmax(1).numpy()
    labels = np.where(rng.random(len(texts)) < 0.2, 1 - labels, labels)
    split = TextSplit("test", texts, None, labels, "memory")
    return TextDataset("toy", split.take(range(2)), split, list(LABELS), ("sentence",))


@pytest.fixture
def options(export, data, tmp_path):
    return {
        "run_or_export": export,
        "attack": "synonym",
        "synonyms": NEIGHBOURS,
        "output_dir": tmp_path,
        "data": data,
        "num_examples": 30,
        "progress": False,
    }


def records(folder, name):
    lines = (folder / "attacks" / name / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_the_calibrated_attack_sees_divided_logits_and_leaves_the_raw_results_alone(options, tmp_path, export):
    raw = attack(**options)
    calibrated = attack(**options, calibrate=True)
    before, after = records(tmp_path, "synonym"), records(tmp_path, "synonym-calibrated")
    (temperature,) = calibrated["calibration"]["temperatures"]
    assert raw["calibration"] is None
    assert temperature != pytest.approx(1, abs=0.05)
    assert calibrated["clean_accuracy"] == raw["clean_accuracy"]
    assert calibrated["num_skipped"] == raw["num_skipped"]
    victim = Victim(export)
    for one, other in zip(before, after, strict=True):
        assert (one["id"], one["original_output"]) == (other["id"], other["original_output"])
        for which in ("original", "perturbed"):
            expected = (victim([other[which]["sentence"]])[0] / temperature).softmax(0).tolist()
            assert other[f"{which}_scores"] == pytest.approx(expected, abs=1e-5)
    assert [e["original_scores"] for e in before] != [e["original_scores"] for e in after]
    assert json.loads((tmp_path / "attacks/synonym/summary.json").read_text())["calibration"] is None
    fit = calibrated["calibration"]["parts"][0]["held_out"]
    assert fit["examples"] == 220
    assert fit["nll_after"] < fit["nll_before"]
    # more examples: the temperature stays, nothing is attacked twice
    stamp = (tmp_path / "attacks/synonym-calibrated/settings.json").read_text()
    more = attack(**{**options, "num_examples": 40}, calibrate=True)
    assert (tmp_path / "attacks/synonym-calibrated/settings.json").read_text() == stamp
    assert more["calibration"]["temperatures"] == [temperature]
    assert not (tmp_path / "attacks" / "previous").exists()


def test_temperature_one_gives_the_results_of_the_raw_attack(options, tmp_path, monkeypatch):
    monkeypatch.setattr(attack_calibration, "fit_temperature", lambda *_: 1.0)
    attack(**options)
    attack(**options, calibrate=True)
    assert records(tmp_path, "synonym-calibrated") == records(tmp_path, "synonym")


def test_a_whole_set_is_attacked_in_two_parts(options, tmp_path, monkeypatch):
    monkeypatch.setattr(attack_calibration, "fit_temperature", lambda logits, labels: 2.0 + logits[0, 0] % 1)
    summary = attack(**{**options, "num_examples": "all", "synonyms": {"wonderful": ["great"]}}, calibrate=True)
    found = records(tmp_path, "synonym-calibrated")
    assert len(found) == summary["num_examples"] == 440
    first, second = summary["calibration"]["parts"]
    assert (len(first["example_ids"]), len(second["example_ids"])) == (220, 220)
    assert first["temperature"] != second["temperature"]
    logits = np.load(tmp_path / "attacks" / "clean_logits.npy")
    for part in (first, second):
        for id in part["example_ids"]:
            expected = torch.from_numpy(logits[id] / part["temperature"]).softmax(0).tolist()
            assert found[id]["original_scores"] == pytest.approx(expected, abs=1e-5)


def held_out_file(path, texts, labels):
    path.write_text("sentence,label\n" + "".join(f'"{t}",{label}\n' for t, label in zip(texts, labels, strict=True)))
    return path


def test_a_file_of_ones_own(options, tmp_path, export, data):
    texts = [f"Indeed {text}" for text in data.evaluation.texts[:250]]
    labels = np.where(np.arange(250) % 4 == 0, 0, 1)
    path = held_out_file(tmp_path / "held.csv", texts, [LABELS[label] for label in labels])
    few = replace(data, evaluation=data.evaluation.take(range(30)))  # too small to spare a half
    summary = attack(**{**options, "data": few, "num_examples": "all"}, calibrate=True, calibration_file=path)
    logits = Victim(export)(texts).numpy()
    assert summary["calibration"]["temperatures"] == [pytest.approx(fit_temperature(logits, labels), rel=1e-4)]
    assert summary["calibration"]["held_out"] == "held.csv"
    # the labels may be numbers in the data's order, and the model's order is another
    numbered = held_out_file(tmp_path / "numbered.csv", texts, labels)
    turned = check_calibration(True, numbered, few, few.evaluation, LABELS[::-1])
    assert turned.labels.tolist() == (1 - labels).tolist()
    assert calibrate_on_file(Victim(export), replace(turned, labels=labels), [1, 4]).parts[0].ids == [1, 4]


@pytest.mark.parametrize("kind", ["small set", "small file", "attacked", "trained", "no flag", "no label"])
def test_an_impossible_calibration_is_refused_before_anything_is_written(kind, options, tmp_path, data):
    texts = [f"Indeed {text}" for text in data.evaluation.texts[:250]]
    labels = [LABELS[i % 2] for i in range(250)]
    folder = tmp_path / "elsewhere"
    options |= {"calibrate": True, "output_dir": folder, "calibration_file": tmp_path / "held.csv"}
    if kind == "small set":
        options |= {"data": replace(data, evaluation=data.evaluation.take(range(399))), "calibration_file": None}
        message = "399 examples.*--calibration-file"
    elif kind == "small file":
        texts, labels, message = texts[:199], labels[:199], "has 199 examples"
    elif kind == "attacked":
        texts[7], message = data.evaluation.texts[400], "1 of the evaluation examples"
    elif kind == "trained":
        options["data"] = replace(
            data, train=data.train.take([0, 1, 0]), evaluation=data.evaluation.take(range(9, 400))
        )
        texts[7], message = data.train.texts[1], "1 of the training examples"
    elif kind == "no flag":
        options["calibrate"], message = False, "--calibrate"
    else:
        labels[3], message = "neutral", "neutral"
    held_out_file(tmp_path / "held.csv", texts, labels)
    with pytest.raises(UserError, match=message):
        attack(**options)
    assert not folder.exists()


def test_the_command_prints_both_rows_and_the_temperature(tmp_path, export, data, capsys):
    held_out_file(tmp_path / "test.csv", data.evaluation.texts, [LABELS[label] for label in data.evaluation.labels])
    (tmp_path / "lists.json").write_text(json.dumps(NEIGHBOURS))
    command = [str(export), "--attack", "synonym", "--neighbours", str(tmp_path / "lists.json"), "--num-examples", "6"]
    command += ["--eval-file", str(tmp_path / "test.csv"), "--text-column", "sentence", "--label-column", "label"]
    assert main([*command, "--output-dir", str(tmp_path), "--calibrate"]) == 0
    out = capsys.readouterr().out.splitlines()
    raw, calibrated = (line.split("|")[0].strip() for line in out[3:5])
    assert raw == "synonym (the project's own attack)"
    assert calibrated.startswith("synonym, logits / ")
    assert out[5].startswith("temperature ") and "calibration error" in out[5]
    for name in ("synonym", "synonym-calibrated"):
        assert (tmp_path / "attacks" / name / "summary.json").is_file()
