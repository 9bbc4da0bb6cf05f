"""Trains every method that divides its batches as one process, with micro-batches and with workers, and compares.

    python benchmarks/several_devices.py --data-dir DATA --output results/several_devices.json

100 steps of a model of one layer without dropout on 397 sentences of SST-2, four epochs whose last batch has 13 of 16
examples. Every table that a run leaves is held against that of one process with whole batches, number by number, and
the flood decision of every step. Data, order and settings are the same, so only the rounding of sums may differ.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from distributed_job import Job  # noqa: E402
from training_files import make_training_files  # noqa: E402

from mindspore_floodx.files import write_json, write_text  # noqa: E402
from mindspore_floodx.pretrained import find_model  # noqa: E402
from mindspore_floodx.runs import package_versions  # noqa: E402

STEPS, EXAMPLES, BATCH, EPOCHS = 100, 397, 16, 4
METHODS: dict[str, dict[str, Any]] = {
    "flooding": {"flood_level": 0.68},
    "floodingx": {"flood_window": 2, "flood_margin": 0.0, "flood_patience": 1, "flood_deviations": 0.0},
    "iflood": {"flood_level": 0.68},
    "adaflood": {"adaflood_folds": 2, "adaflood_epochs": 1},
    "softad": {"flood_level": 0.68},
    "selective": {"flood_level": 0.68, "selective_epochs": 1},
    "freelb": {},
    "pgd": {},
}
WAYS = {  # workers and micro-batches of each
    "2 workers": (2, 1),
    "4 micro-batches": (1, 4),
}
TIMES = ("tokens_per_second", "seconds")


def main() -> int:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        content = measure(arguments.methods, arguments.ways, arguments.data_dir, arguments.folder or Path(folder))
    write_json(arguments.output, content)
    write_text(arguments.output.with_suffix(".md"), table(content))
    worst = max(row["largest_relative_difference"] for ways in content["methods"].values() for row in ways.values())
    different = sum(row["different_decisions"] for ways in content["methods"].values() for row in ways.values())
    print(f"largest relative difference {worst:.1e}; {different} flood decisions differ")
    return 0 if worst <= 1e-5 and different == 0 else 1


def measure(methods: list[str], ways: list[str], data_dir: Path, folder: Path) -> dict[str, Any]:
    """Trains in every way and returns the content of the result file."""
    folder.mkdir(parents=True, exist_ok=True)
    given = _settings(folder, data_dir)
    for way in ("one process", *ways):
        workers, micro_batches = WAYS.get(way, (1, 1))
        trainings = []
        for method in methods:
            run = folder / way.replace(" ", "-") / method
            if not (run / "export").exists():  # else it was made before this program was stopped
                more = {"method": method, "gradient_accumulation_steps": micro_batches, "output_dir": str(run)}
                trainings.append(given | METHODS[method] | more)
        started = time.monotonic()
        if trainings:
            _train(trainings, folder / f"job-{way.replace(' ', '-')}", workers)
        print(f"{way}: {time.monotonic() - started:.0f} s", flush=True)
    return {
        "steps": STEPS,
        "data": f"sst2, {EXAMPLES} training sentences, batches of {BATCH}, the last of an epoch of {EXAMPLES % BATCH}",
        "model": "1 layer of 32 units, dropout off",
        "device": "CPU",
        "versions": package_versions(),
        "methods": {
            method: {
                way: compare(folder / "one-process" / method, folder / way.replace(" ", "-") / method) for way in ways
            }
            for method in methods
        },
    }


def table(content: dict[str, Any]) -> str:
    """Returns the result file as a page."""
    lines = [
        "# Micro-batches and workers against one process",
        "",
        f"{content['steps']} steps; {content['data']}; {content['model']}; {content['device']}. Differences are the "
        "largest of any number in the run's tables, relative; decisions are the steps at which another share of "
        "examples was flooded. Written by `benchmarks/several_devices.py`.",
        "",
        "| method | way | largest difference of a loss | of any number | different decisions | flooded | level |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, ways in content["methods"].items():
        for way, row in ways.items():
            levels = " and ".join(f"{level:.6f}" for level in row.get("flood_levels", []) if level is not None)
            lines.append(
                f"| {method} | {way} | {row['by_table']['log.csv']:.1e} | {row['largest_relative_difference']:.1e} | "
                f"{row['different_decisions']} | {row['flooded_share']:.0%} | {levels} |"
            )
    return "\n".join(lines) + "\n"


def compare(whole: Path, divided: Path) -> dict[str, Any]:
    """Returns how far the tables of two runs are apart.

    Differences of values below 1e-3, such as an accordance near 0, count absolutely.
    """
    tables: dict[str, float] = {}
    different = 0
    for table in sorted(path.name for path in whole.glob("*.csv")):
        mine, theirs = _rows(whole / table), _rows(divided / table)
        if len(mine) != len(theirs):
            raise RuntimeError(f"{divided / table} has {len(theirs)} rows, not {len(mine)}")
        tables[table] = 0.0
        for one, two in zip(mine, theirs, strict=True):
            different += table == "log.csv" and one["flooded"] != two["flooded"]
            for name in one.keys() - set(TIMES):
                tables[table] = max(tables[table], _difference(one[name], two[name]))
    losses = [float(row["loss"]) for row in _rows(whole / "log.csv")]
    flooded = [float(row["flooded"]) for row in _rows(whole / "log.csv")]
    assert len(losses) == STEPS
    found = {
        "largest_relative_difference": max(tables.values()),
        "by_table": tables,
        "different_decisions": different,
        "loss_first_and_last": [losses[0], losses[-1]],
        "flooded_share": sum(flooded) / STEPS,
    }
    if (whole / "flood_level.json").exists():
        found["flood_levels"] = [
            json.loads((run / "flood_level.json").read_text())["level"] for run in (whole, divided)
        ]
    return found


def _difference(one: str, two: str) -> float:
    if one == two:
        return 0.0
    return abs(float(one) - float(two)) / max(abs(float(one)), 1e-3)


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _settings(folder: Path, data_dir: Path) -> dict[str, Any]:
    made = folder / "files"
    if not made.exists():
        made.mkdir()
        make_training_files(made, find_model("minilm"))
        config = json.loads((made / "model" / "config.json").read_text())
        config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        (made / "model" / "config.json").write_text(json.dumps(config))
    return {
        "dataset": "sst2",
        "data_dir": str(data_dir.resolve()),
        "model": str(made / "model"),
        "max_train_examples": EXAMPLES,
        "max_length": 64,
        "batch_size": BATCH,
        "epochs": EPOCHS,
        "learning_rate": 3e-4,
        "threads": 1,
    }


def _train(trainings: list[dict[str, Any]], folder: Path, workers: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if workers > 1:
        job = Job(trainings, folder, workers)
        if job.end() != 0:
            raise RuntimeError(job.all_said())
        return
    folder.mkdir()
    (folder / "trainings.json").write_text(json.dumps(trainings))
    program = ROOT / "tests" / "distributed_job.py"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, str(program), str(folder / "trainings.json")], check=True, env=environment)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with SST-2 in its official layout")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS), metavar="WAY")
    parser.add_argument("--folder", type=Path, help="keep the runs here, and go on with those that are finished")
    parser.add_argument("--output", type=Path, default=Path("results/several_devices.json"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
