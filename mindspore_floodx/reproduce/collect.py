"""From a finished run folder to the small result files of its cell, from which every table and figure is made."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..attack_journal import read_records
from ..data import TextSplit
from ..errors import UserError
from ..files import replacing, write_json
from ..settings import TrainSettings
from ..untrusted import read_json
from .grid import Cell

LEFT_OUT = ("example_ids", "recipe", "example_seconds")  # of a summary: long; the seed and the recipe's name say it
KINDS = {"raw": "", "calibrated": "-calibrated"}  # and how the folder of such an attack ends


def collect(
    cell: Cell,
    run: Path,
    settings: TrainSettings,
    target: Path,
    keep_texts: bool,
    seconds: dict[str, float],
    uncalibrated: str | None = None,
) -> None:
    """Writes a cell's result.json, last of all its files, and a file of examples for every attack.

    Args:
        run: the run folder, attacked and measured as the cell's plan says.
        seconds: what its steps took in this call; a run's training time is taken from the run itself.
        uncalibrated: why the model could not be calibrated, if it could not.

    Raises:
        UserError: a file of the run is missing or cannot be read.
    """
    from ..training_inputs import load_data

    try:
        environment = read_json(run / "environment.json")
        epochs, steps = pd.read_csv(run / "epochs.csv"), pd.read_csv(run / "log.csv")
        attacks: dict[str, dict[str, Any]] = {}
        for attack in cell.plan.attacks:
            attacks[attack] = {"raw": None, "calibrated": None}
            for kind, end in KINDS.items():
                if kind == "raw" or (attack in cell.plan.calibrated and uncalibrated is None):
                    folder = run / "attacks" / f"{attack}{end}"
                    attacks[attack][kind] = _summary(folder / "summary.json")
                    _write_examples(folder / "examples.jsonl", target / f"examples-{attack}{end}.jsonl", keep_texts)
    except (OSError, ValueError, KeyError, UserError) as error:
        raise UserError(f"{run} is not complete ({error}); remove it and give the same command again") from None
    dataset = load_data(settings)
    made_with = {name: value for name, value in settings.to_dict().items() if name not in ("data_dir", "output_dir")}
    write_json(
        target / "result.json",
        {
            "id": cell.id,
            "dataset": cell.dataset,
            "method": cell.method,
            "seed": cell.seed,
            "variant": cell.variant,
            "tag": cell.tag,
            "settings": made_with,
            "device": settings.device,
            "threads": environment["threads"],
            "versions": environment["packages"],
            "data": {
                "train": environment["data"][dataset.train.name],
                "evaluation": environment["data"][dataset.evaluation.name] | {"split": dataset.evaluation.name},
            },
            "statistics": {
                "train": statistics_of(dataset.train, len(dataset.label_names)),
                "evaluation": statistics_of(dataset.evaluation, len(dataset.label_names)),
            },
            "label_names": list(dataset.label_names),
            "text_columns": list(dataset.text_columns),
            "epochs": records_of(epochs),
            "flooded": float(steps["flooded"].mean()),
            "accordance": records_of(pd.read_csv(run / "accordance.csv"))
            if (run / "accordance.csv").exists()
            else None,
            "flood_level": _decision(run / "flood_level.json"),
            "attacks": attacks,
            "uncalibrated": uncalibrated,
            "smoothness": _smoothness(run / "smoothness" / "smoothness.json") if cell.plan.smoothness else None,
            "by_epoch": _by_epoch(cell, run, settings.epochs) if cell.by_epoch else None,
            "seconds": {
                "train": float(epochs["seconds"].sum()),
                "attack": sum(
                    found["seconds_attacking"] for each in attacks.values() for found in each.values() if found
                ),
                "this_call": {name: round(value, 1) for name, value in seconds.items()},
            },
        },
    )


def read_if_there(path: Path) -> Any:
    """Returns the content of a JSON file of ours; None if there is none.

    Raises:
        UserError: it is damaged.
    """
    return read_json(path) if path.exists() else None


def statistics_of(split: TextSplit, classes: int) -> dict[str, Any]:
    """Returns Table 1's figures of a split: examples, classes, words an example (both texts of a pair), shares."""
    pairs = split.pairs if split.pairs is not None else [""] * len(split.texts)
    words = np.array([len(text.split()) + len(pair.split()) for text, pair in zip(split.texts, pairs, strict=True)])
    counts = np.bincount(np.asarray(split.labels), minlength=classes)
    return {
        "examples": len(split),
        "classes": classes,
        "words_mean": float(words.mean()),
        "words_max": int(words.max()),
        "class_shares": [float(count / len(split)) for count in counts],
    }


def records_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns a table's rows, JSON-ready; what is missing or not a number is None."""
    rows = table.to_dict("records")
    return [
        {str(name): None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        for row in rows
    ]


def changes_of(record: dict[str, Any]) -> list[list[str]]:
    """Returns the words that an attack replaced, each run of them with what stands there now: [["good"], ["great"]]."""
    changes = []
    for column, text in record["original"].items():
        old, new = text.split(), record["perturbed"][column].split()
        for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            if kind != "equal":
                changes.append([" ".join(old[a:b]), " ".join(new[c:d])])
    return changes


def _write_examples(source: Path, target: Path, keep_texts: bool) -> None:
    lines = []
    for record in read_records(source).values():
        if not keep_texts:
            texts = json.dumps(record["original"], ensure_ascii=False, sort_keys=True)
            kept = {name: value for name, value in record.items() if name not in ("original", "perturbed")}
            sha256 = hashlib.sha256(texts.encode()).hexdigest()
            record = kept | {"original_sha256": sha256, "changes": changes_of(record)}
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    with replacing(target) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def _summary(path: Path) -> dict[str, Any]:
    found = read_json(path)
    kept = {name: value for name, value in found.items() if name not in LEFT_OUT}
    if kept.get("calibration"):
        kept["calibration"] = {name: value for name, value in kept["calibration"].items() if name != "parts"}
    return kept


def _decision(path: Path) -> dict[str, Any] | None:
    found = read_if_there(path)
    return (
        None if found is None else {name: found.get(name) for name in ("level", "rule", "sub_epoch", "fired", "reason")}
    )


def _smoothness(path: Path) -> dict[str, Any]:
    found = read_if_there(path)
    if found is None:
        raise UserError(f"{path} is missing; give the same command again")
    return {
        "draws": found["settings"]["draws"],
        "measured": found["data"]["measured"],
        "curve": found["runs"][0]["curve"],
    }


def _by_epoch(cell: Cell, run: Path, epochs: int) -> list[dict[str, Any]]:
    wanted = cell.by_epoch
    assert wanted is not None
    rows = []
    for epoch in range(1, epochs + 1):
        found = read_if_there(run / "by-epoch" / f"epoch-{epoch}" / "attacks" / wanted["attack"] / "summary.json")
        if found is None:
            raise UserError(f"epoch {epoch} of {run} was not attacked; give the same command again")
        names = ("clean_accuracy", "accuracy_under_attack", "accuracy_under_attack_interval", "num_examples")
        rows.append({"epoch": epoch, "attack": wanted["attack"], **{name: found[name] for name in names}})
    return rows
