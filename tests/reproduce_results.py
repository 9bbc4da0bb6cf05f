"""Result files of a grid as `reproduce` leaves them: made up, with every field; the figures follow from the examples.

`write_grid` writes a small grid with everything in it, `write_cell` one cell. Nothing here trains or attacks.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from mindspore_floodx.attack_metrics import FAILED, SKIPPED, SUCCEEDED, share_interval, summarise

COLUMNS = {"mrpc": ("sentence1", "sentence2"), "qnli": ("question", "sentence")}
LABELS = {"sst2": ["negative", "positive"], "ag_news": ["World", "Sports", "Business", "Sci/Tech"]}
WORDS = "a quiet film about two brothers who never say what they mean and lose everything in the end".split()
SWAPS = {"quiet": "silent", "film": "movie", "brothers": "siblings", "lose": "forfeit", "end": "close", "mean": "imply"}
EPOCHS = 10


def cell_id(dataset: str, method: str, seed: int, variant: str | None = None, tag: str | None = None) -> str:
    return "-".join(str(part) for part in (dataset, method, variant, tag, seed) if part is not None)


def example_records(
    dataset: str, held: list[str], seed: int = 0, ids: list[int] | None = None, keep_texts: bool = True
) -> list[dict[str, Any]]:
    """One line of examples.jsonl for each of `held`, the results; the changed words are drawn with `seed`."""
    rng = np.random.default_rng(seed)
    columns = COLUMNS.get(dataset, ("sentence",))
    labels = len(LABELS.get(dataset, "ab"))
    records = []
    for id, result in zip(ids or range(len(held)), held, strict=True):
        length = int(rng.integers(6, len(WORDS) + 1))
        original = {column: " ".join(WORDS[:length]) for column in columns}
        changes = (
            [] if result != SUCCEEDED else [each for each in WORDS[:length] if each in SWAPS and rng.random() < 0.7]
        )
        if result == SUCCEEDED and not changes:
            changes = ["quiet"]
        perturbed = {
            column: " ".join(SWAPS[word] if word in changes else word for word in text.split())
            for column, text in original.items()
        }
        label = int(rng.integers(labels))
        before = label if result != SKIPPED else (label + 1) % labels
        after = before if result != SUCCEEDED else (label + 1) % labels
        record: dict[str, Any] = {
            "id": id,
            "label": label,
            "original_output": before,
            "perturbed_output": after,
            "original_scores": _scores(rng, before, labels),
            "perturbed_scores": _scores(rng, after, labels),
            "queries": 0 if result == SKIPPED else int(rng.integers(10, 120)),
            "result": result,
            "num_words": length * len(columns),
            "num_words_changed": len(changes) * len(columns),
        }
        if keep_texts:
            record |= {"original": original, "perturbed": perturbed}
        else:
            text = json.dumps([original, perturbed])
            record["original_sha256"] = hashlib.sha256(text.encode()).hexdigest()
            record["changes"] = [[word, SWAPS[word]] for word in changes]
        records.append(record)
    return records


def _scores(rng: np.random.Generator, output: int, labels: int) -> list[float]:
    scores = rng.uniform(0, 0.4, labels)
    scores[output] = 1.0
    return [float(each) for each in scores / scores.sum()]


def draw_results(count: int, clean: float, robust: float, seed: int) -> list[str]:
    """Results of `count` examples: about `clean` of them right before the attack, about `robust` after it.

    An example has its own difficulty whatever the `seed` is, so that models agree on many examples as real ones do.
    """
    difficulty = np.random.default_rng(12345).uniform(size=count)
    noisy = np.clip(difficulty + np.random.default_rng(seed).normal(0, 0.06, count), 0, 1)
    return [FAILED if each < robust else SUCCEEDED if each < clean else SKIPPED for each in noisy]


def write_cell(
    output: Path,
    dataset: str = "sst2",
    method: str = "finetune",
    seed: int = 0,
    *,
    variant: str | None = None,
    tag: str | None = None,
    attacks: dict[str, list[str]] | None = None,
    calibrated: dict[str, list[str]] | None = None,
    level: float | None = None,
    epochs: int = EPOCHS,
    smoothness: float | None = None,
    accordance: bool = False,
    by_epoch: list[float] | None = None,
    keep_texts: bool = True,
    resources: str = "standin",
    **changes: Any,
) -> dict[str, Any]:
    """Writes a finished cell and returns the content of its result.json.

    Args:
        attacks: results (succeeded, failed, skipped) of the attacked examples, by attack.
        calibrated: likewise, of the attack on calibrated logits.
        level: the flood level.
        smoothness: how fast the loss rises under noise; None leaves the curve out.
        accordance: whether the cell has accordance and the level found by it.
        by_epoch: accuracy under attack of 100 examples after each epoch.
        changes: fields of result.json to replace; `settings` is updated instead.
    """
    id = cell_id(dataset, method, seed, variant, tag)
    folder = output / "cells" / id
    folder.mkdir(parents=True, exist_ok=True)
    labels = LABELS.get(dataset, ["no", "yes"])
    settings = {
        "dataset": dataset,
        "model": "minilm",
        "method": method,
        "flood_level": level,
        "max_train_examples": 4000,
        "epochs": epochs,
        "batch_size": 32,
        "learning_rate": 5e-5,
        "seed": seed,
    }
    summaries: dict[str, Any] = {}
    for name, results in (attacks or {}).items():
        kinds = {"raw": results, "calibrated": (calibrated or {}).get(name)}
        summaries[name] = {}
        for kind, each in kinds.items():
            records = None if each is None else example_records(dataset, each, seed, keep_texts=keep_texts)
            summaries[name][kind] = None if records is None else _summary(name, kind, records, dataset, resources)
            if records is not None:
                path = folder / f"examples-{name}{'-calibrated' if kind == 'calibrated' else ''}.jsonl"
                path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    floor = level or 0.0
    rows = [
        {
            "epoch": epoch,
            "train_loss": floor + 0.6 * 0.6**epoch,
            "eval_loss": 0.4 + (0.0 if level else 0.03 * epoch),
            "eval_accuracy": 0.80 + 0.005 * epoch,
            "seconds": 60.0 + seed + {"pgd": 300.0, "freelb": 280.0}.get(method, 0.0),
        }
        for epoch in range(1, epochs + 1)
    ]
    train = {"source": f"{dataset}/train_partial.tsv", "examples": 4000, "partial": True, "sha256": "0" * 64}
    evaluation = {"source": f"{dataset}/dev.tsv (validation)", "examples": 872, "partial": False, "sha256": "1" * 64}
    shares = [1 / len(labels)] * len(labels)
    content: dict[str, Any] = {
        "id": id,
        "dataset": dataset,
        "method": method,
        "seed": seed,
        "variant": variant,
        "tag": tag,
        "settings": settings | changes.pop("settings", {}),
        "device": "CPU",
        "threads": 1,
        "versions": {"mindspore": "2.10.0", "textattack": "0.3.11"},
        "data": {"train": train, "evaluation": evaluation},
        "statistics": {
            "train": {
                "examples": 4000,
                "classes": len(labels),
                "words_mean": 11.25,
                "words_max": 52,
                "class_shares": shares,
            },
            "evaluation": {
                "examples": 872,
                "classes": len(labels),
                "words_mean": 19.5,
                "words_max": 47,
                "class_shares": shares,
            },
        },
        "label_names": labels,
        "text_columns": list(COLUMNS.get(dataset, ("sentence",))),
        "epochs": rows,
        "flooded": 0.31 if level else 0.0,
        "accordance": _accordance(epochs) if accordance else None,
        "flood_level": {"level": 0.24, "rule": "change-point", "sub_epoch": 9, "fired": True, "reason": "it rose"}
        if accordance
        else None,
        "attacks": summaries,
        "smoothness": None if smoothness is None else _smoothness(smoothness, rows[-1]["eval_loss"]),
        "by_epoch": None if by_epoch is None else [_epoch(number, share) for number, share in enumerate(by_epoch, 1)],
        "seconds": {"train": sum(row["seconds"] for row in rows), "attack": 301.0},
    }
    content |= changes
    (folder / "result.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    return content


def _summary(attack: str, kind: str, records: list[dict[str, Any]], dataset: str, resources: str) -> dict[str, Any]:
    clean = sum(record["result"] != SKIPPED for record in records)
    calibration = None
    if kind == "calibrated":
        found = {"nll_before": 0.52, "nll_after": 0.41, "ece_before": 0.101, "ece_after": 0.043}
        calibration = {"held_out": "the other half", "temperatures": [1.8], "attacked": found}
    return {
        "attack": attack,
        "clean_accuracy": clean / len(records),
        "clean_accuracy_interval": share_interval(clean, len(records)),
        **summarise(records),
        "resources": resources,
        "resource_notes": ["neighbour lists in the place of counter-fitted vectors"],
        "calibration": calibration,
        "seed": 0,
        "dataset": dataset,
        "evaluation_source": f"{dataset}/dev.tsv (validation)",
        "evaluation_partial": False,
        "evaluation_examples": 872,
        "seconds_attacking": 300.5,
    }


def _accordance(epochs: int) -> list[dict[str, Any]]:
    rows = []
    for number in range(1, 4 * epochs + 1):
        turned = number >= 9
        rows.append(
            {
                "sub_epoch": number,
                "step": 31 * number,
                "epoch": (number + 3) // 4,
                "accordance": -0.3 + 0.002 * number if turned else -0.95 + 0.04 * number,
                "snapshot": None,
                "train_loss": 0.24 + 0.4 * 0.8**number,
                "eval_loss": 0.36 + (0.01 * (number - 8) if turned else 0.03 * (8 - number)),
                "eval_accuracy": 0.84,
            }
        )
    return rows


def _smoothness(steepness: float, loss: float) -> dict[str, Any]:
    curve = []
    for step in range(11):
        deviation = 0.05 * step
        scatter = None if step == 0 else 0.01 + 0.02 * deviation
        curve.append(
            {
                "deviation": round(deviation, 2),
                "loss_mean": loss + steepness * deviation**2,
                "loss_std": scatter,
                "accuracy_mean": 0.85 - 0.15 * steepness * deviation**2,
                "accuracy_std": scatter,
            }
        )
    return {"draws": 5, "measured": 872, "curve": curve}


def _epoch(number: int, share: float, examples: int = 100) -> dict[str, Any]:
    held = round(share * examples)
    return {
        "epoch": number,
        "attack": "textfooler",
        "accuracy_under_attack": held / examples,
        "accuracy_under_attack_interval": share_interval(held, examples),
        "num_examples": examples,
    }


def write_timing(output: Path, dataset: str = "sst2", ratios: dict[str, float] | None = None) -> dict[str, Any]:
    """Writes timing/<dataset>.json with the fields that are read of it; `ratios` are to fine-tuning's time."""
    ratios = ratios or {"finetune": 1.0, "flooding": 1.01, "floodingx": 1.06, "pgd": 5.4, "freelb": 4.6}
    rows = [
        {
            "method": method,
            "label": "floodingx (measuring)" if method == "floodingx" else method,
            "settings": {},
            "forward_passes": 6 if method == "pgd" else 1,
            "backward_passes": 6 if method == "pgd" else 1,
            "auxiliary_forward_passes": 0,
            "auxiliary_backward_passes": 0,
            "seconds_per_step": 0.5 * ratio,
            "seconds_per_epoch": 62.5 * ratio,
            "ratio": ratio,
            "ratio_median": ratio,
            "ratio_low": 0.98 * ratio,
            "ratio_high": 1.02 * ratio,
            "cpu_seconds_per_epoch": 60.0 * ratio,
            "cpu_ratio": ratio,
        }
        for method, ratio in ratios.items()
    ]
    content = {
        "command": "floodx-timing",
        "settings": {"methods": list(ratios), "model": "minilm", "batch_size": 32, "device": "CPU"},
        "data": {"dataset": dataset, "examples": 4000, "steps_per_epoch": 125, "batches_timed": 20},
        "threads": 1,
        "rows": rows,
    }
    (output / "timing").mkdir(parents=True, exist_ok=True)
    (output / "timing" / f"{dataset}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    return content


ROBUST = {  # share that withstands, of the made-up grid
    "finetune": 0.20,
    "pgd": 0.30,
    "freelb": 0.28,
    "flooding": 0.24,
    "floodingx": 0.34,
    "iflood": 0.25,
    "softad": 0.22,
}


def write_grid(output: Path, examples: int = 120) -> Path:
    """Writes a grid with all there can be: SST-2 with seeds, a sweep, a tag, curves and timing; MRPC and AG News."""

    def attacked(robust: float, seed: int) -> dict[str, list[str]]:
        weak = {"textfooler": 0.0, "textbugger": 0.08, "bertattack": -0.1}
        return {
            name: draw_results(examples, 0.86, robust + more, seed + place)
            for place, (name, more) in enumerate(weak.items())
        }

    for number, (method, robust) in enumerate(ROBUST.items()):
        for seed in (0, 1, 2):
            if (method in ("pgd", "freelb") and seed) or (method == "flooding" and seed == 0):
                continue
            write_cell(
                output,
                "sst2",
                method,
                seed,
                variant="best" if method == "flooding" else None,
                attacks=attacked(robust, 100 * number + seed),
                calibrated=attacked(robust - 0.05, 50 * number + seed),
                level=0.1 if method in ("flooding", "iflood", "softad") else None,
                smoothness=2.0 - 1.5 * robust + 0.1 * seed,
                accordance=method == "floodingx",
                by_epoch=[0.3 - 0.01 * epoch for epoch in range(EPOCHS)]
                if method == "finetune" and seed == 0
                else None,
            )
    for level, robust in ((0.05, 0.19), (0.06, 0.21), (0.1, 0.26), (0.2, 0.22)):
        write_cell(
            output,
            "sst2",
            "flooding",
            0,
            variant=f"b{level:g}",
            attacks=attacked(robust, int(1000 * level)),
            calibrated=attacked(robust - 0.04, int(1000 * level)),
            level=level,
            smoothness=1.9 if level == 0.1 else None,
            by_epoch=[0.3] * 6 + [0.35, 0.4, 0.45, 0.5] if level == 0.1 else None,
        )
    for method, robust in (("finetune", 0.22), ("flooding", 0.3)):
        write_cell(
            output,
            "sst2",
            method,
            0,
            tag="epochs25",
            attacks=attacked(robust, 7),
            level=0.1,
            epochs=25,
            keep_texts=False,
        )
    for dataset in ("mrpc", "ag_news"):
        for method in ("finetune", "flooding", "floodingx"):
            results = {"textfooler": draw_results(examples, 0.8, ROBUST[method], len(method))}
            write_cell(
                output,
                dataset,
                method,
                0,
                attacks=results,
                level=0.1 if method == "flooding" else None,
                accordance=method == "floodingx",
                keep_texts=dataset == "mrpc",
            )
    write_timing(output)
    return output
