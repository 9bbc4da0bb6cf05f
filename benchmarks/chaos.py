"""Kills real commands with SIGKILL at random moments, gives them again, and compares what they end with.

    python benchmarks/chaos.py                                    # hours; adds to results/chaos.json
    python benchmarks/chaos.py --kinds attack conversion grid     # minutes
    python benchmarks/chaos.py --kinds training --data-dir DATA   # on real pairs of MRPC

Each command is run once undisturbed and once killed and given again until it ends; the moments are drawn from a seed
and spread over the work. What both leave has to be equal byte by byte, but for fields and columns that are times.

training    every method on a model of one layer with dropout and 37 generated sentences, or with --data-dir on 64 real
            pairs: --kills times for Flooding-X and --kills-each for every other method
attack      two attacks on MiniLM, trained here in some seconds (or --victim RUN); now and then with worker processes
conversion  MiniLM in both directions over a former result, which stays or is replaced by the whole new one; killed at
            random times and before every change of a file
grid        a cell with training, attack, tables, figures and report; all its processes, the grid or its step alone

The result file is written after every row, and rows that it has are not made again.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]

from chaos_commands import kill_attacks, kill_conversions, kill_grids  # noqa: E402
from killed_runs import Command, artefacts, context, differences, kill_at_random  # noqa: E402
from training_files import command_line, make_training_files  # noqa: E402

from mindspore_floodx.files import write_json  # noqa: E402
from mindspore_floodx.methods import OWN  # noqa: E402
from mindspore_floodx.pretrained import find_model  # noqa: E402

KINDS = ("attack", "conversion", "grid", "training")
MORE: dict[str, dict[str, object]] = {
    "finetune": {"accordance": "both", "sub_epochs": 2, "accordance_every": 2},
    "floodingx": {"accordance": "both", "sub_epochs": 2, "flood_window": 1, "flood_margin": 0.0, "flood_patience": 1},
    "flooding": {"flood_level": 0.6},
    "iflood": {"flood_level": 0.6},
    "softad": {"flood_level": 0.6},
    "selective": {"flood_level": 0.6},
    "adaflood": {"adaflood_folds": 2, "adaflood_epochs": 1},
    "freelb": {"accordance": "snapshot", "sub_epochs": 2},
}


def main() -> int:
    arguments = _arguments()
    results = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    for name, work in _work(arguments):
        kind, _, part = name.partition(" ")
        rows = results.setdefault(kind, {})
        if part in rows if part else rows:
            continue
        with tempfile.TemporaryDirectory(dir=arguments.temporary) as folder:
            row = work(Path(folder))
        row = row if kind == "conversion" else row | {"machine": _machine()}
        rows.update({part: row} if part else row)
        write_json(arguments.output, results)
        print(f"{name}: {row.get('kills', '')} kills, {row.get('equal')} of {row.get('files')} files equal", flush=True)
    return 0 if _all_equal(results) else 1


def _work(arguments: argparse.Namespace) -> list[tuple[str, Callable[[Path], dict[str, Any]]]]:
    """What is to be done, by the name of its row."""
    kills, seed = arguments.kills, arguments.seed
    todo: dict[str, list[tuple[str, Callable[[Path], dict[str, Any]]]]] = {
        "attack": [("attack", lambda folder: kill_attacks(kills, seed, _victim(arguments, folder), 100, folder))],
        "conversion": [("conversion", lambda folder: kill_conversions(kills, seed, folder))],
        "grid": [("grid", lambda folder: kill_grids(kills, seed, folder))],
        "training": [],
    }
    for number, method in enumerate(sorted(arguments.methods, key=lambda name: name != "floodingx")):
        count = kills if method == "floodingx" else arguments.kills_each
        todo["training"].append(
            (
                f"training {method}",
                lambda folder, method=method, count=count, number=number: kill_method(  # type: ignore[misc]
                    method, count, seed + number, arguments.data_dir, folder
                ),
            )
        )
    return [each for kind in arguments.kinds for each in todo[kind]]


def _victim(arguments: argparse.Namespace, folder: Path) -> Path:
    """The run folder of a model to attack."""
    if arguments.victim is not None:
        return arguments.victim
    given = {"dataset": "demo", "model": "minilm", "epochs": 1, "max_train_examples": 160, "max_length": 64}
    given |= {"learning_rate": 1e-4, "threads": 1, "output_dir": folder / "victim"}
    if Command(command_line(given), folder / "said.txt").end() != 0:
        raise RuntimeError((folder / "said.txt").read_text())
    return folder / "victim"


def _machine() -> dict[str, Any]:
    packages = ("mindspore", "torch", "textattack", "numpy")
    versions = {name: metadata.version(name) for name in packages}
    return {"python": platform.python_version(), "system": platform.system(), **versions}


def _all_equal(results: dict[str, Any]) -> bool:
    rows = [row for row in results.values() if "kills" in row]
    rows += [row for rows in results.values() for row in rows.values() if isinstance(row, dict) and "kills" in row]
    return all(row["equal"] == row["files"] if "files" in row else row["neither"] == 0 for row in rows)


def kill_method(method: str, kills: int, seed: int, data_dir: Path | None, folder: Path) -> dict[str, object]:
    """Trains with a method undisturbed and killed; returns a row of the result file."""
    started = time.monotonic()
    given = make_training_files(folder, find_model("minilm"))
    steps_per_epoch = 5
    if data_dir is not None:
        kept = ("model", "max_length", "batch_size", "eval_batch_size", "learning_rate", "warmup_ratio", "threads")
        given = {name: given[name] for name in kept}
        given |= {"dataset": "mrpc", "data_dir": str(data_dir), "max_train_examples": 64, "eval_batch_size": 64}
        steps_per_epoch = 8
    epochs = max(2, kills // 2)
    given |= {"method": method, "epochs": epochs, "checkpoint_every_steps": 2} | MORE.get(method, {})
    words = [*command_line(given), "--output-dir"]
    whole, run = folder / "whole", folder / "killed"
    said = folder / "said.txt"
    if Command([*words, str(whole)], said).end() != 0:
        raise RuntimeError(said.read_text())
    killed = kill_at_random([*words, str(run)], run, epochs * steps_per_epoch, kills, seed, folder)
    while not (run / "export").exists():
        if Command([*words, str(run)], said).end() != 0:
            raise RuntimeError(said.read_text())
    first, second = artefacts(whole), artefacts(run)
    names = first.keys() | second.keys()
    different = differences(first, second)
    return {
        "data": "64 pairs of MRPC" if data_dir else "37 generated sentences",
        "kills": len(killed),
        "while a state was written": sum("state" in each for each in killed),
        "files": len(names),
        "equal": len(names) - len(different),
        "different": different,
        "flood_level": json.loads(first["flood_level.json"])["level"] if "flood_level.json" in first else None,
        "killed": killed,
        "seconds": round(time.monotonic() - started),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--kinds", nargs="+", default=list(KINDS), choices=KINDS, metavar="KIND", help="default: all four")
    add("--kills", type=int, default=50, help="of each kind; of trainings, of Flooding-X (default 50)")
    add("--kills-each", type=int, default=5, help="of the training with every other method (default 5)")
    add("--methods", nargs="+", default=list(OWN), choices=list(OWN), metavar="METHOD", help="of training")
    add("--seed", type=int, default=0, help="of the moments (default 0)")
    add("--data-dir", type=Path, help="folder with MRPC in its official layout, for training")
    add("--victim", type=Path, metavar="RUN", help="a finished run folder to attack")
    add("--temporary", type=Path, metavar="DIR", help="where the runs are made (default: the system's)")
    add("--output", type=Path, default=Path("results/chaos.json"))
    return parser.parse_args()


if __name__ == "__main__":
    context.set_forkserver_preload(
        ["mindspore", "transformers", "tensorboard.summary", "textattack", "mindspore_floodx.trainer"]
    )
    sys.exit(main())
