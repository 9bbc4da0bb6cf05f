"""The README's figures are those of the result files."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from mindspore_floodx.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("update_readme", ROOT / "benchmarks" / "update_readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_is_what_the_result_files_say(script):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert script.updated(readme, ROOT / "results") == readme


def test_a_changed_result_changes_its_part_and_nothing_else(script, tmp_path):
    demo = json.loads((ROOT / "results" / "demo.json").read_text(encoding="utf-8"))
    demo["rows"][0]["accuracy_under_attack"] = 0.4321
    (tmp_path / "demo.json").write_text(json.dumps(demo))
    text = "before\n<!-- demo-table:begin, by a script -->\nstale 99.9\n<!-- demo-table:end -->\nafter\n"
    new = script.updated(text, tmp_path)
    assert new.startswith("before\n<!-- demo-table:begin, by a script -->\n| method")
    assert new.endswith("\n<!-- demo-table:end -->\nafter\n")
    assert " 43.2 |" in new and "stale" not in new
    assert script.updated(new, tmp_path) == new


def test_a_part_that_cannot_be_written_is_named(script, tmp_path):
    with pytest.raises(UserError, match=r"part 'demo-tabel'.*did you mean 'demo-table'"):
        script.updated("<!-- demo-tabel:begin -->\n", tmp_path)
    with pytest.raises(UserError, match="demo-table has no end"):
        script.updated("<!-- demo-table:begin -->\n", tmp_path)
    with pytest.raises(UserError, match=r"demo\.json is missing"):
        script.updated("<!-- demo-table:begin -->\n<!-- demo-table:end -->", tmp_path)


def test_means_are_over_the_seeds_that_both_have(script, tmp_path):
    def run(seed, accuracy):
        return {"method": "finetune", "seed": seed, "eval_accuracy": accuracy, "eval_f1": 0.9}

    report = {
        "verdicts": [{"method": "finetune", "seeds": [0, 1]}, {"method": "flooding", "seeds": []}],
        "mindspore": [run(0, 0.8), run(1, 0.9), run(2, 0.1)],
        "pytorch": [run(0, 0.7), run(1, 0.8)],
    }
    (tmp_path / "mrpc_parity.json").write_text(json.dumps(report))
    text = script.updated("<!-- mrpc-parity:begin -->\n<!-- mrpc-parity:end -->", tmp_path)
    assert "| 85.00" in text and "| 75.00" in text and "flooding" not in text


def test_speed_is_shown_with_its_spread(script, tmp_path):
    row = {"model": "minilm", "task": "train", "batch": 16, "length": 32, "mindspore_share_of_peak": 0.456}
    row |= {"mindspore_tokens_per_second": 1234.4, "pytorch_tokens_per_second": 1000.0}
    row |= {"ratio_median": 1.234, "ratio_min": 1.1, "ratio_max": 1.4, "mindspore_peak_gigabytes": 1.5}
    row |= {"compile_seconds": 6.2}
    report = {"command": "python benchmarks/train_step.py", "threads": 2, "rounds": 5, "rows": [row]}
    (tmp_path / "train_step.json").write_text(json.dumps(report))
    text = script.updated("<!-- train-step:begin -->\n<!-- train-step:end -->", tmp_path)
    assert "1,234 |" in text and "1.23 (1.10 to 1.40)" in text and "46% |" in text
    assert "minilm 1.5 GB and 6 s." in text


def test_a_real_epoch_is_shown_with_its_load(script, tmp_path):
    row = {"model": "minilm", "dataset": "mrpc", "task": "train", "batch": 16, "share_of_padding": 0.316}
    row |= {"mindspore_tokens_per_second": 1234.4, "pytorch_tokens_per_second": 1000.0}
    row |= {"ratio_median": 1.234, "ratio_quartiles": [1.1, 1.4]}
    report = {"command": "python x", "threads": 1, "cores": 2, "load_average": 5.34, "rows": [row]}
    (tmp_path / "real_epoch.json").write_text(json.dumps(report))
    text = script.updated("<!-- real-epoch:begin -->\n<!-- real-epoch:end -->", tmp_path)
    assert "mrpc, batch 16" in text and "32% |" in text and "1.23 (1.10 to 1.40)" in text
    assert "load average 5.3 on 2 cores" in text
