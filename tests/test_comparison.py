"""The demo's table, paired test and figure, from run folders written by hand."""

from __future__ import annotations

import json

import pytest
import yaml
from PIL import Image

from mindspore_floodx.comparison import COLUMNS, paired_outcome, plot, read_run, table
from mindspore_floodx.errors import UserError


def write_run(folder, level, held, eval_losses=(0.6, 0.2, 0.3)):
    """A run of three epochs with four steps, the last two of which are flooded, attacked on len(held) examples."""
    attacked = folder / "attacks" / "synonym"
    attacked.mkdir(parents=True)
    method = "finetune" if level is None else "flooding"
    (folder / "config.yaml").write_text(yaml.safe_dump({"method": method, "flood_level": level}))
    flooded = [0, 0, 0, 0] if level is None else [0, 0, 1, 1]
    (folder / "log.csv").write_text("step,flooded\n" + "".join(f"{i},{each}\n" for i, each in enumerate(flooded)))
    rows = [f"{i + 1},{0.5 / (i + 1)},{loss},0.9,2.0\n" for i, loss in enumerate(eval_losses)]
    (folder / "epochs.csv").write_text("epoch,train_loss,eval_loss,eval_accuracy,seconds\n" + "".join(rows))
    summary = {
        "clean_accuracy": 0.9125,
        "accuracy_under_attack": sum(held) / len(held),
        "attack_success_rate": 1 - sum(held) / len(held),
        "avg_queries": 33.25,
        "num_examples": len(held),
        "seconds_attacking": 1.0,
    }
    (attacked / "summary.json").write_text(json.dumps(summary))
    results = ("failed" if each else "succeeded" for each in held)
    lines = (json.dumps({"id": i, "result": result}) for i, result in enumerate(results))
    (attacked / "examples.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def runs(tmp_path):
    first = write_run(tmp_path / "a", None, [1, 0, 0, 0, 0, 0, 0, 0])
    return first, write_run(tmp_path / "b", 0.2, [0, 1, 1, 1, 1, 1, 1, 1], (0.6, 0.5, 0.4))


def test_a_row_has_the_last_epoch_and_the_attack(runs):
    row = read_run(runs[1], "synonym")
    assert (row["train_loss"], row["eval_loss"]) == (pytest.approx(0.5 / 3), 0.4)
    assert (row["lowest_eval_loss"], row["lowest_eval_loss_epoch"]) == (0.4, 3)
    assert (row["flooded_steps"], row["steps"], row["seconds_training"]) == (0.5, 4, 6.0)
    assert read_run(runs[0], "synonym")["lowest_eval_loss_epoch"] == 2


def test_the_table_shows_percentages(runs):
    rows = [read_run(run, "synonym") for run in runs]
    lines = table(rows).splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == list(COLUMNS)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert cells == [
        ["fine-tuning", "91.2", "12.5", "87.5", "33.2", "0.167", "0.300", "-"],
        ["flooding, b = 0.2", "91.2", "87.5", "12.5", "33.2", "0.167", "0.400", "50%"],
    ]


def test_figures_that_could_not_be_counted_are_dashes(runs):
    row = read_run(runs[0], "synonym") | {"attack_success_rate": None, "avg_queries": None}
    assert table([row]).splitlines()[-1].count(" - ") == 3


def test_the_paired_test_counts_examples_on_which_the_runs_differ(runs):
    # Of eight differing examples one favours the first run: two-sided binomial p = 2 (1 + 8) / 2^8.
    outcome = paired_outcome(*runs, "synonym")
    assert outcome == {"only_first": 1, "only_second": 7, "p_value": pytest.approx(18 / 256)}
    assert paired_outcome(runs[0], runs[0], "synonym") == {"only_first": 0, "only_second": 0, "p_value": 1.0}


def test_runs_attacked_on_other_examples_are_not_compared(runs, tmp_path):
    other = write_run(tmp_path / "c", None, [1, 1])
    with pytest.raises(UserError, match="different examples"):
        paired_outcome(runs[0], other, "synonym")


def test_a_run_without_the_attack_is_named(runs):
    with pytest.raises(UserError, match=r"a is no finished run with the attack textfooler"):
        read_run(runs[0], "textfooler")


def test_the_figure_has_three_panels(runs, tmp_path):
    rows = [read_run(run, "synonym") for run in runs]
    target = plot(runs, rows, tmp_path / "plots" / "comparison.png")
    with Image.open(target) as image:
        assert image.width > 2.5 * image.height


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("attacks/synonym/summary.json", "[" * 100_000, "nested"),
        ("attacks/synonym/summary.json", "[]", "no names with values"),
        ("attacks/synonym/summary.json", "{}", "no 'clean_accuracy'"),
        ("attacks/synonym/summary.json", "text", "avg_queries is no number"),
        ("config.yaml", "method: [1]\nflood_level: 1", "method is [1]"),
        ("config.yaml", "method: finetune\nflood_level: <script>", "flood_level is '<script>'"),
        ("config.yaml", "a: &a [x]\nb: *a", "aliases"),
        ("log.csv", "step,flooded\n0,yes\n", "'flooded'"),
        ("epochs.csv", "epoch,train_loss,eval_loss,seconds\n1,,,\n", "eval_loss"),
        ("epochs.csv", "\0", "epochs.csv"),
    ],
)
def test_run_folders_of_others(runs, name, content, said):
    if content == "text":
        content = (runs[0] / name).read_text().replace("33.25", '"<b>33</b>"')
    (runs[0] / name).write_text(content)
    with pytest.raises(UserError) as error:
        read_run(runs[0], "synonym")
    assert said in str(error.value) and name in str(error.value) and "\n" not in str(error.value)
