"""A run folder's result files, written by hand: two epochs, flooded or not, and attacks on four examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from mindspore_floodx.attack_metrics import share_interval, summarise

EPOCHS = "epoch,train_loss,eval_loss,eval_accuracy,seconds\n"


def write_run_files(folder: Path, level: float | None, finished: bool = True, **settings: Any) -> Path:
    """Writes config.yaml, environment.json, log.csv, epochs.csv and, if `finished`, an export's config.json."""
    folder.mkdir(parents=True)
    method = "finetune" if level is None else "flooding"
    content = {"dataset": "sst2", "model": "minilm", "method": method, "flood_level": level, "seed": 0, "epochs": 2}
    content |= {"learning_rate": 2e-5, "batch_size": 16, "max_length": 128, "device": "CPU"}
    content |= {"output_dir": str(folder), "overwrite": False}
    (folder / "config.yaml").write_text(yaml.safe_dump(content | settings))
    part = {"source": "SST-2/train.tsv", "examples": 4000, "partial": True, "sha256": "aa" * 32}
    evaluation = {"source": "SST-2/dev.tsv", "examples": 872, "partial": False, "sha256": "bb" * 32}
    environment = {"python": "3.11.9", "packages": {"mindspore": "2.10.0", "numpy": "1.26.4"}}
    environment |= {"data": {"train": part, "evaluation": evaluation}}
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "log.csv").write_text("step,loss,flooded\n1,0.7,0\n2,0.5,0\n3,0.1,1\n4,0.3,0\n")
    (folder / "epochs.csv").write_text(EPOCHS + "1,0.6,0.40,0.875,10.5\n2,0.2,0.45,0.8125,10.0\n")
    if finished:
        (folder / "export").mkdir()
        labels = {"0": "negative", "1": "positive"}
        (folder / "export" / "config.json").write_text(json.dumps({"model_type": "bert", "id2label": labels}))
    return folder


def write_attack(run: Path, name: str, results: list[str], resources: str = "standin", **changed: Any) -> None:
    """Writes attacks/<name> with an example for each of `results`, which say succeeded, failed or skipped."""
    folder = run / "attacks" / name
    folder.mkdir(parents=True)
    examples = [
        {"id": i, "result": result, "queries": 10 + i, "num_words": 8, "num_words_changed": 2}
        for i, result in enumerate(results)
    ]
    right = sum(result != "skipped" for result in results)
    summary = {
        "attack": name,
        "clean_accuracy": right / len(results),
        "clean_accuracy_interval": share_interval(right, len(results)),
        **summarise(examples),
        "resources": resources,
        "resource_notes": ["a MiniLM sentence encoder in the place of the Universal Sentence Encoder"],
        "resource_sha256": "cc" * 32,
        "recipe": ["Attack("],
        "data_fingerprint": "dd" * 32,
        "max_length": 128,
        "versions": {"textattack": "0.3.11"},
        "seed": 0,
        "victim": "pytorch",
        "calibration": None,
        "evaluation_examples": 872,
        "evaluation_partial": False,
        "example_ids": [example["id"] for example in examples],
    }
    (folder / "summary.json").write_text(json.dumps(summary | changed))
    (folder / "examples.jsonl").write_text("".join(json.dumps(example) + "\n" for example in examples))
