"""The memory of a long training and of a long attack: no growth once everything that is needed is there.

    python benchmarks/memory_growth.py                            # some minutes; adds to results/memory_growth.json
    python benchmarks/memory_growth.py --only "attack" --model minilm

Training: ten epochs of Flooding-X with accordance, an evaluation after each. Attack: 2,000 sentences of the generated
corpus. The process's resident memory, but for what is mapped from files, is read from the system every tenth of a
second, and its median taken over each tenth of the work. The first two tenths are warm-up; growth is the last tenth by
the third. Above 5 % the program ends with exit status 1.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from killed_runs import Command, lines, steps  # noqa: E402
from training_files import command_line, make_training_files  # noqa: E402

from mindspore_floodx.demo_corpus import generate  # noqa: E402
from mindspore_floodx.files import write_json  # noqa: E402
from mindspore_floodx.pretrained import find_model  # noqa: E402

LARGEST_GROWTH = 0.05
PARTS, WARM_UP = 10, 2
BATCH = 16


def main() -> int:
    arguments = _arguments()
    results = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    for kind, work in {"training": train, "attack": attack}.items():
        name = f"{kind}, {'MiniLM' if arguments.model == 'minilm' else 'small model'}"
        if arguments.only not in (None, kind) or name in results:
            continue
        with tempfile.TemporaryDirectory() as folder:
            results[name] = work(arguments, Path(folder)) | {"machine": _machine()}
        write_json(arguments.output, results)
        print(f"{name}: {results[name]['megabytes']} MB, growth {results[name]['growth']:.1%}", flush=True)
    return 1 if any(row["growth"] > LARGEST_GROWTH for row in results.values()) else 0


def train(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Ten epochs; the parts are the epochs."""
    model = "minilm" if arguments.model == "minilm" else make_training_files(folder, find_model("minilm"))["model"]
    given = {"dataset": "demo", "model": model, "method": "floodingx", "epochs": PARTS, "batch_size": BATCH}
    given |= {"max_train_examples": arguments.examples or 800, "max_length": 64, "threads": 1}
    command = Command([*command_line(given), "--output-dir", str(folder / "run")], folder / "said.txt")
    total = PARTS * -(-int(given["max_train_examples"]) // BATCH)
    row = watch(command, lambda: steps(folder / "run"), total)
    return row | {"steps": total, "epochs": PARTS, "examples": given["max_train_examples"]}


def attack(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """An attack with synonyms by one process."""
    count = arguments.examples or 2000
    victim = folder / "victim"
    if arguments.model == "minilm":
        words = ["to-mindspore", str(find_model("minilm")), str(folder / "ms"), "--num-labels", "2"]
        _demand(Command(words, folder / "said.txt", "ckpt_convert.command"))
        words = ["to-pytorch", str(folder / "ms"), str(victim)]
        _demand(Command(words, folder / "said.txt", "ckpt_convert.command"))
    else:
        from tiny_victim import export_tiny

        export_tiny(victim)
    corpus = generate(seed=1, n_train=2, n_eval=count).evaluation
    with open(folder / "test.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "opinion"])
        writer.writerows(zip(corpus.texts, (["negative", "positive"][label] for label in corpus.labels), strict=True))
    words = [str(victim), "--attack", "synonym", "--num-examples", "all", "--eval-file", str(folder / "test.csv")]
    words += ["--text-column", "review", "--label-column", "opinion", "--output-dir", str(folder)]
    command = Command(words, folder / "said.txt", "mindspore_floodx.cli.attack")
    path = folder / "attacks" / "synonym"
    row = watch(command, lambda: lines(path / "examples.jsonl"), count)
    queries = json.loads((path / "summary.json").read_text())["avg_queries"]
    return row | {"examples": count, "queries": queries}


def watch(command: Command, progress: Callable[[], int], total: int) -> dict[str, Any]:
    """Returns the median memory of each tenth of a command's work, in megabytes, and its growth."""
    started, seen = time.monotonic(), [list[int]() for _ in range(PARTS)]
    while command.process.is_alive():
        done, size = progress(), resident(command.process.pid)
        if size and 0 < done < total:
            seen[done * PARTS // total].append(size)
        time.sleep(0.1)
    _demand(command)
    sizes = [statistics.median(part) for part in seen]
    return {
        "megabytes": [round(size / 1e6, 1) for size in sizes],
        "readings": [len(part) for part in seen],
        "growth": round(sizes[-1] / sizes[WARM_UP] - 1, 4),
        "seconds": round(time.monotonic() - started),
    }


def resident(process: int) -> int:
    """Returns the bytes of a process's resident memory that no file stands for; 0 where it has ended.

    What is mapped from files (libraries, weights) comes and goes with the need of other processes.
    """
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:")]
    return 1024 * int(found[0]) if found else 0


def _demand(command: Command) -> None:
    if command.end() != 0:
        raise RuntimeError(command.said())


def _machine() -> dict[str, str]:
    versions = {name: metadata.version(name) for name in ("mindspore", "torch", "textattack", "numpy")}
    return {"python": platform.python_version(), "system": platform.system(), **versions}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", choices=("training", "attack"))
    add(
        "--model", default="small", choices=("small", "minilm"), help="default small: a random one of one or two layers"
    )
    add("--examples", type=int, metavar="N", help="of an epoch (default 800), or of the attack (default 2,000)")
    add("--output", type=Path, default=Path("results/memory_growth.json"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
