"""Runs side by side, from result files alone."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from run_files import EPOCHS, write_attack, write_run_files

from mindspore_floodx.cli.compare import main, render
from mindspore_floodx.errors import UserError
from mindspore_floodx.run_comparison import compare_runs

ROOT = Path(__file__).resolve().parents[1]
HELD = ["failed", "failed", "succeeded", "skipped"]


@pytest.fixture
def runs(tmp_path):
    first = write_run_files(tmp_path / "plain", None)
    second = write_run_files(tmp_path / "flooded", 0.1, learning_rate=3e-5, accordance_parameters="a|b")
    for run, results in ((first, ["succeeded", "succeeded", "succeeded", "skipped"]), (second, HELD)):
        write_attack(run, "deepwordbug", results)
    return first, second


def rows(comparison, title):
    return {row.name: row.values for row in comparison.groups[title]}


def test_settings_that_differ_and_no_others(runs):
    assert compare_runs(runs).settings == {
        "method": ["finetune", "flooding"],
        "flood_level": [None, 0.1],
        "learning_rate": [2e-5, 3e-5],
        "accordance_parameters": ["absent", "a|b"],
    }


def test_figures_of_the_last_and_the_best_epoch(runs):
    comparison = compare_runs(runs)
    assert rows(comparison, "last epoch")["eval_accuracy"] == [0.8125, 0.8125]
    best = rows(comparison, "best epoch (highest eval_accuracy)")
    assert (best["epoch"], best["eval_accuracy"], best["train_loss"]) == ([1.0, 1.0], [0.875] * 2, [0.6] * 2)
    training = rows(comparison, "training")
    assert training == {
        "finished": [True, True],
        "epochs": [2, 2],
        "flood_level": [None, 0.1],
        "flooded": [None, 0.25],
        "lowest_eval_loss": [0.4, 0.4],
        "seconds": [20.5, 20.5],
    }
    assert comparison.warnings == []


def test_a_level_that_the_run_found_is_its_flood_level(runs):
    (runs[0] / "flood_level.json").write_text(json.dumps({"level": 0.24, "rule": "change-point"}))
    assert rows(compare_runs(runs), "training")["flood_level"] == [0.24, 0.1]


def test_attacks_have_their_intervals_resources_and_paired_test(runs):
    comparison = compare_runs(runs)
    (title,) = [name for name in comparison.groups if name.startswith("attack")]
    assert title == "attack deepwordbug (stand-in resources)"
    figures = {row.name: row for row in comparison.groups[title]}
    assert figures["accuracy_under_attack"].values == [0.0, 0.5]
    # Wilson's interval of 2 in 4, by hand: (0.5 + z^2 / 8 -+ z sqrt(1 / 16 + z^2 / 64)) / (1 + z^2 / 4) with z = 1.96
    assert figures["accuracy_under_attack"].intervals[1] == pytest.approx([0.15004, 0.84996], abs=1e-4)
    assert figures["p_value"].values == [None, 0.5]  # two examples differ, both for the second: 2 / 2^2


def test_figures_with_other_resources_are_never_in_one_row(runs):
    write_attack(runs[0], "textfooler", HELD, "official")
    write_attack(runs[1], "textfooler", HELD, "standin")
    comparison = compare_runs(runs)
    official, standin = "attack textfooler", "attack textfooler (stand-in resources)"
    assert rows(comparison, official)["accuracy_under_attack"] == [0.5, None]
    assert rows(comparison, standin)["accuracy_under_attack"] == [None, 0.5]
    assert "p_value" not in rows(comparison, official) | rows(comparison, standin)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"example_ids": [0, 1, 2, 9]}, "other examples"),
        ({"data_fingerprint": "ee" * 32}, "other evaluation data"),
        ({"versions": {"textattack": "0.3.10"}}, "other versions"),
    ],
)
def test_an_attack_that_is_not_comparable_is_a_warning_without_a_paired_test(runs, changed, word):
    for run, more in zip(runs, ({}, changed), strict=True):
        write_attack(run, "pruthi", HELD, **more)
    comparison = compare_runs(runs)
    assert comparison.warnings == [f"attack pruthi (stand-in resources): flooded has {word} than plain"]
    assert "p_value" not in rows(comparison, "attack pruthi (stand-in resources)")


def test_other_versions_and_data_are_warnings(runs):
    path = runs[1] / "environment.json"
    environment = json.loads(path.read_text())
    environment["packages"]["numpy"] = "2.0.0"
    environment["data"]["train"] |= {"sha256": "ff" * 32, "examples": 67349, "partial": False}
    environment["data"]["evaluation"]["source"] = "/elsewhere/dev.tsv"  # the same text in another place
    path.write_text(json.dumps(environment))
    assert compare_runs(runs).warnings == [
        "versions differ: numpy 1.26.4 | 2.0.0",
        "data differ: train is SST-2/train.tsv (4,000 examples, a part of the official data, sha256 aaaaaaaa) | "
        "SST-2/train.tsv (67,349 examples, sha256 ffffffff)",
    ]
    path.unlink()
    assert compare_runs(runs).warnings == ["flooded has no environment.json: its versions and data are not known"]


def test_a_run_that_is_still_training(runs, tmp_path):
    young = write_run_files(tmp_path / "young", 0.1, finished=False)
    (young / "epochs.csv").write_text(EPOCHS + "1,0.6,0.4")  # a row that is being written
    comparison = compare_runs([runs[0], young])
    assert comparison.warnings == ["young is not finished"]
    assert rows(comparison, "last epoch")["eval_accuracy"] == [0.8125, None]
    assert rows(comparison, "training")["epochs"] == [2, 0]


def test_text_and_markdown(runs):
    comparison = compare_runs(runs)
    text, markdown = render(comparison, "text"), render(comparison, "markdown")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in (text + "\n" + markdown).splitlines()]
    for line in (
        ["Aua%", "0.0 [0.0, 49.0]", "50.0 [15.0, 85.0]"],
        ["eval accuracy %", "81.2", "81.2"],
        ["flooded steps %", "-", "25.0"],
        ["flood level", "-", "0.1000"],
    ):
        assert lines.count(line) >= 2, line
    assert "a\\|b" in markdown and "a|b" in text
    assert all(line.startswith(("|", "#")) for line in markdown.splitlines() if line)


def test_csv_and_json_are_exact(runs):
    comparison = compare_runs(runs)
    table = list(csv.DictReader(io.StringIO(render(comparison, "csv"))))
    (line,) = [each for each in table if each["name"] == "accuracy_under_attack"]
    assert (line["plain"], line["flooded"]) == ("0.0", "0.5")
    assert float(line["flooded low"]) == comparison.groups[line["group"]][2].intervals[1][0]
    content = json.loads(render(comparison, "json"))
    assert content["settings"]["flood_level"] == [None, 0.1]
    assert content["groups"]["last epoch"][1] == {"name": "train_loss", "values": [0.2] * 2, "intervals": [None] * 2}


def test_folders_that_are_called_alike_are_told_apart_by_their_paths(runs, tmp_path):
    other = write_run_files(tmp_path / "elsewhere" / "plain", None)
    assert compare_runs([runs[0], other]).runs == [str(runs[0]), str(other)]


def test_mistakes(runs, tmp_path):
    for given, said in (
        ([runs[0]], "at least two"),
        ([runs[0], runs[0]], "given twice"),
        ([runs[0], tmp_path / "absent"], "there is no folder"),
        ([runs[0], tmp_path], "has no config.yaml"),
    ):
        with pytest.raises(UserError, match=said):
            compare_runs(given)
    (runs[1] / "epochs.csv").write_text(EPOCHS + "1,0.6,x,0.8,1\n")
    with pytest.raises(UserError, match=r"flooded/epochs\.csv is damaged"):
        compare_runs(runs)
    (runs[0] / "attacks" / "deepwordbug" / "summary.json").write_text("{")
    with pytest.raises(UserError, match=r"summary\.json is not valid JSON"):
        compare_runs(runs)


def test_the_command_of_the_readme(runs, capsys):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = [each for each in readme.splitlines() if each.startswith("python run/compare.py")]
    words = [str(runs["flooding" in word]) if word.startswith("runs/") else word for word in line.split()[2:]]
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("settings that differ\n")


def test_the_command_loads_no_framework(runs, capsys):
    assert main([str(runs[0]), str(runs[1]), "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("group,name,plain,")
    code = (
        "import sys; from mindspore_floodx.cli.compare import main; main(sys.argv[1:]);"
        "print([name for name in ('mindspore', 'torch', 'transformers', 'textattack') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *runs], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.endswith("\n[]\n")
