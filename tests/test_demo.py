"""The demo from start to end on a tiny model, and that it refuses, replaces and spares the right things."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_bert import save_tiny_bert

from mindspore_floodx.cli.demo import explain, main
from mindspore_floodx.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """What a demo printed, and its folder; in a process of its own, as MindSpore takes its threads once."""
    folder = tmp_path_factory.mktemp("demo")
    model = save_tiny_bert(folder / "tiny")
    output = folder / "out"
    stale = output / "finetune" / "attacks" / "old.json"  # an earlier demo, and a file that is none of its
    stale.parent.mkdir(parents=True)
    stale.write_text("{}")
    (output / "finetune" / "config.yaml").write_text("method: finetune\n")
    (output / "notes.txt").write_text("mine")
    options = ["--quick", "--examples", "5", "--threads", "1", "--model", str(model), "--output-dir", str(output)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "run" / "demo.py"), *options], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, output, stale


def test_the_demo_prints_its_table_and_what_it_means(demo):
    printed, output, _ = demo
    results = json.loads((output / "results.json").read_text())
    assert "method" in printed and "flooding, b = " in printed and "fine-tuning " in printed
    assert explain(results) in printed
    assert printed.count("largest logit difference to PyTorch") == 2
    table = (output / "results.md").read_text()
    assert table.startswith("| method") and explain(results) in table


def test_the_demo_leaves_two_runs_that_differ_in_the_method_alone(demo):
    _, output, _ = demo
    first, second = (yaml.safe_load((output / name / "config.yaml").read_text()) for name in ("finetune", "flooding"))
    differing = {name for name in first if first[name] != second[name]}
    assert differing == {"method", "flood_level", "output_dir"}
    for name in ("finetune", "flooding"):
        assert (output / name / "export" / "model.safetensors").exists()
        assert len((output / name / "attacks" / "synonym" / "examples.jsonl").read_text().splitlines()) == 5
    assert (output / "plots" / "comparison.png").stat().st_size > 10_000


def test_the_result_file_repeats_the_summaries(demo):
    _, output, _ = demo
    results = json.loads((output / "results.json").read_text())
    assert [row["method"] for row in results["rows"]] == ["finetune", "flooding"]
    for row in results["rows"]:
        summary = json.loads((output / row["run"] / "attacks" / "synonym" / "summary.json").read_text())
        assert {name: row[name] for name in ("clean_accuracy", "avg_queries")} == {
            name: summary[name] for name in ("clean_accuracy", "avg_queries")
        }
    assert results["command"].startswith("python run/demo.py --quick") and results["threads"] == 1


def test_an_earlier_demo_is_replaced_and_other_files_are_spared(demo):
    _, output, stale = demo
    assert not stale.exists()
    assert (output / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "message"), [(["--examples", "0"], "--examples is 0"), (["--epochs", "0"], "epochs is 0")]
)
def test_a_wrong_option_leaves_an_earlier_demo_alone(tmp_path, options, message):
    kept = tmp_path / "finetune" / "config.yaml"
    kept.parent.mkdir()
    kept.write_text("method: finetune\n")
    with pytest.raises(UserError, match=message):
        main([*options, "--output-dir", str(tmp_path)])
    assert kept.exists()


def test_chance_is_called_chance():
    row = {"eval_loss": 0.3, "lowest_eval_loss": 0.2, "lowest_eval_loss_epoch": 2, "num_examples": 100, "steps": 10}
    rows = [
        row | {"method": "finetune", "flood_level": None, "flooded_steps": 0.0},
        row | {"method": "flooding", "flood_level": 0.2, "flooded_steps": 0.25},
    ]
    paired = {"first": "finetune", "second": "flooding", "only_first": 5, "only_second": 9}
    text = explain({"rows": rows, "attack": "synonym", "paired": paired | {"p_value": 0.42}})
    assert "chance alone can give this" in text and "25% of 10" in text
    text = explain({"rows": rows, "attack": "synonym", "paired": paired | {"p_value": 0.01}})
    assert "more than chance would give" in text
