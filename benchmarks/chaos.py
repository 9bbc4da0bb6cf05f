"""Kills training with SIGKILL at random moments, method by method, and compares what the runs end with.

    python benchmarks/chaos.py --kills 50 --output results/chaos_training.json
    python benchmarks/chaos.py --kills 50 --data-dir DATA --output results/chaos_training.json

Every method is trained twice by the same command, a model of one layer with dropout on 37 generated sentences, or with
--data-dir on 64 real pairs of MRPC: once undisturbed, and once killed and started again until it ends. The kills are
drawn from a seed and spread over the run (tests/killed_runs.py). Weights, export and flood level have to be equal byte
by byte, the tables in every column but tokens_per_second and seconds, numbers to a millionth of them; which tables are
not equal to the last digit is said. The program goes on with the next method where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from killed_runs import Command, artefacts, differences, kill_at_random  # noqa: E402
from training_files import command_line, make_training_files  # noqa: E402

from mindspore_floodx.files import write_json  # noqa: E402
from mindspore_floodx.methods import OWN  # noqa: E402
from mindspore_floodx.pretrained import find_model  # noqa: E402

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
    results = json.loads(arguments.output.read_text()) if arguments.output.exists() else {"methods": {}}
    results |= {"kills": arguments.kills, "data": "mrpc, 64 pairs" if arguments.data_dir else "37 generated sentences"}
    for number, method in enumerate(arguments.methods):
        if method in results["methods"]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            row = kill_method(method, arguments.kills, arguments.seed + number, arguments.data_dir, Path(folder))
        results["methods"][method] = row
        write_json(arguments.output, results)
        print(f"{method}: {row['kills']} kills, {row['equal']} of {row['files']} files equal, {row['seconds']:.0f} s")
    return 0 if all(row["equal"] == row["files"] for row in results["methods"].values()) else 1


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
    different, last_digits = differences(first, second, 1e-6), differences(first, second)
    return {
        "kills": len(killed),
        "while a state was written": sum("state" in each for each in killed),
        "files": len(names),
        "equal": len(names) - len(different),
        "different": different,
        "different only in the seventh digit of a number": [name for name in last_digits if name not in different],
        "flood_level": json.loads(first["flood_level.json"])["level"] if "flood_level.json" in first else None,
        "killed": killed,
        "seconds": time.monotonic() - started,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="for each method (default 50)")
    parser.add_argument("--methods", nargs="+", default=list(OWN), choices=list(OWN), metavar="METHOD")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument("--data-dir", type=Path, help="folder with MRPC in its official layout")
    parser.add_argument("--output", type=Path, default=Path("results/chaos_training.json"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
