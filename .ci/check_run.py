"""Fails unless run folders hold what the README promises: `python .ci/check_run.py RUN [RUN ...]`."""

import csv
import json
import sys
from pathlib import Path

from transformers import pipeline

for run in map(Path, sys.argv[1:]):
    for name in ("config.yaml", "environment.json", "checkpoint", "export", "plots/training.png"):
        assert (run / name).exists(), f"{run / name} is missing"
    with open(run / "log.csv", encoding="utf-8") as file:
        steps = list(csv.DictReader(file))
    wanted = {"step", "epoch", "loss", "flooded", "learning_rate", "tokens_per_second"}
    assert len(steps) == 6 and wanted <= steps[0].keys(), f"{run / 'log.csv'}: {len(steps)} rows, {list(steps[0])}"
    with open(run / "epochs.csv", encoding="utf-8") as file:
        epochs = list(csv.DictReader(file))
    wanted = {"epoch", "train_loss", "eval_loss", "eval_accuracy", "seconds"}
    assert len(epochs) == 1 and wanted <= epochs[0].keys(), f"{run / 'epochs.csv'}: {epochs}"
    summary = json.loads((run / "attacks" / "synonym" / "summary.json").read_text(encoding="utf-8"))
    shares = [summary[name] for name in ("clean_accuracy", "accuracy_under_attack", "attack_success_rate")]
    assert all(0 <= share <= 1 for share in shares) and summary["avg_queries"] > 1, summary
    assert summary["num_examples"] == 10 and summary["resources"] == "built-in", summary
    answer = pipeline("text-classification", model=str(run / "export"))("The soup was delicious.")[0]
    assert answer["label"] in ("five", "one"), answer
    print(f"{run}: complete; the export says {answer['label']} ({answer['score']:.3f})")
