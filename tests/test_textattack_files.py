"""TextAttack's own command on a run: the documentation's commands, with equal results in both frameworks."""

from __future__ import annotations

import csv
import os
import shlex
import subprocess
import sys
from pathlib import Path

import nltk
import pytest
import yaml
from doc_blocks import ROOT, blocks
from tiny_victim import LABELS, PAIRS, SENTENCES, export_tiny

from ckpt_convert import to_mindspore
from mindspore_floodx import textattack_files
from mindspore_floodx.cli.textattack_files import main
from mindspore_floodx.device import use_device
from mindspore_floodx.errors import UserError
from mindspore_floodx.textattack_files import dataset_of_run, model_of_run, write_textattack_files

use_device("CPU", 1)
RUN = "runs/mrpc-flooding-0"  # in the documentation


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """The test process computes with one thread, and the tests after these shall too."""
    monkeypatch.setattr(textattack_files, "number_of_workers", lambda *_: 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder: one tiny model in both forms, evaluated on sentences with labels in turn."""
    folder = tmp_path_factory.mktemp("run")
    export_tiny(folder / "export")
    to_mindspore(folder / "export", folder / "checkpoint")
    texts = [text for text in SENTENCES if len(text.split()) > 1]
    lines = [f"{text}\t{LABELS[(i + 1) % 2]}\n" for i, text in enumerate(texts)]
    (folder / "test.tsv").write_text("text\tlabel\n" + "".join(lines), encoding="utf-8")
    data = {"eval_file": str(folder / "test.tsv"), "text_column": "text", "label_column": "label"}
    (folder / "config.yaml").write_text(yaml.safe_dump({"dataset": "custom", "max_length": 48, **data}))
    return folder


def documented(run: Path, language: str) -> list[str]:
    """The documentation's commands, or its program, with this run in the place of theirs."""
    (block,) = blocks("ecosystems.md", language, "TextAttack")
    return block.replace(RUN, str(run)).splitlines()


def results(path: Path) -> tuple[list[list[str]], list[list[float]]]:
    """What an attack's CSV file says of each example: texts, outcomes and queries; and the two scores."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    scores = [[float(row.pop(name)) for name in ("original_score", "perturbed_score")] for row in rows]
    return [list(row.values()) for row in rows], scores


def test_the_documented_commands_give_equal_results_in_both_frameworks(run, tmp_path, monkeypatch, capsys):
    prepare, pytorch, mindspore = (shlex.split(line) for line in documented(run, "bash"))
    assert prepare[:2] == ["python", "run/textattack_files.py"]
    assert main(prepare[2:]) == 0
    printed = capsys.readouterr().out.splitlines()
    for line, command in zip(printed, (pytorch, mindspore), strict=True):
        assert shlex.split(line)[-len(command) + 2 :] == command[:-2]  # but for --num-examples
    # the stop words that this process finds, so that both commands leave the same words alone
    environment = os.environ | {"NLTK_DATA": os.pathsep.join(nltk.data.path), "PYTHONPATH": str(ROOT)}
    log = tmp_path / "pytorch.csv"
    script = [sys.executable, str(Path(sys.executable).parent / pytorch[0]), *pytorch[1:], "--log-to-csv", str(log)]
    done = subprocess.run(script, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Number of skipped attacks:" in done.stdout

    from textattack.commands.textattack_cli import main as textattack_command

    log = tmp_path / "mindspore.csv"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [*mindspore, "--log-to-csv", str(log)])
    textattack_command()
    (first, scores), (second, others) = (results(tmp_path / f"{name}.csv") for name in ("pytorch", "mindspore"))
    assert first == second
    assert len(first) == len(SENTENCES) - 2
    assert {"Successful", "Skipped"} <= {row[-1] for row in first}
    for one, other in zip(scores, others, strict=True):
        assert one == pytest.approx(other, abs=2e-5)


def test_the_documented_program_attacks_in_mindspore(run, capsys):
    exec(compile("\n".join(documented(run, "python")), "ecosystems.md", "exec"), {})
    assert "-->" in capsys.readouterr().out


def test_pairs_have_two_columns_and_the_models_order_of_classes(run, tmp_path):
    export_tiny(tmp_path / "export", labels=("yes", "no"))
    lines = [f"{first}\t{second}\t{('no', 'yes')[i % 2]}\n" for i, (first, second) in enumerate(PAIRS)]
    (tmp_path / "test.tsv").write_text("premise\thypothesis\tlabel\n" + "".join(lines), encoding="utf-8")
    columns = {"text_column": "premise", "text_pair_column": "hypothesis", "label_column": "label"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"eval_file": str(tmp_path / "test.tsv"), **columns}))
    *models, data = write_textattack_files(tmp_path)
    assert [path.name for path in models] == ["model.py"]  # no checkpoint/
    dataset = dataset_of_run(str(data))
    assert dataset.label_names == ["yes", "no"]
    assert [label for _, label in dataset] == [1, 0, 1, 0]
    assert dict(dataset[1][0]) == dict(zip(("text", "text_pair"), PAIRS[1], strict=True))
    model = model_of_run(str(models[0]), "pytorch")
    assert model([PAIRS[0]]).shape == (1, 2)


def test_the_runs_longest_input_holds(run):
    assert model_of_run(str(run / "textattack" / "model.py"), "pytorch").max_tokens == 48


def test_mistakes_are_told_although_textattack_swallows_exceptions(run, tmp_path):
    with pytest.raises(UserError, match=r"has no config\.yaml"):
        write_textattack_files(tmp_path)
    (tmp_path / "config.yaml").write_text("dataset: sst2\n")
    with pytest.raises(UserError, match="neither export/ nor checkpoint/"):
        write_textattack_files(tmp_path)
    with pytest.raises(SystemExit, match="error: .*finish the training"):
        model_of_run(str(tmp_path / "textattack" / "model.py"), "pytorch")
    with pytest.raises(SystemExit, match="error: "):
        dataset_of_run(str(tmp_path / "textattack" / "dataset.py"))
