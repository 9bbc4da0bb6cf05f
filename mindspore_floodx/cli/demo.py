"""The command behind `make demo`: fine-tuning and flooding side by side, on a corpus that the project generates."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..comparison import NAMES, paired_outcome, plot, read_run, table
from ..demo_corpus import NOISE
from ..errors import UserError
from ..files import write_json, write_text
from ..settings import resolve

METHODS = ("finetune", "flooding")
ATTACK = "synonym"
QUICK = {"epochs": 1, "max_train_examples": 64}  # shows that everything works; its figures mean nothing
QUICK_EXAMPLES = 10
PACKAGES = ("mindspore", "torch", "transformers", "textattack", "numpy")


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, converts, verifies and attacks both models, prints the table, and writes results, table and figure."""
    arguments = _parser().parse_args(argv)
    examples = arguments.examples or (QUICK_EXAMPLES if arguments.quick else 100)
    if arguments.examples is not None and arguments.examples < 1:
        raise UserError(f"--examples is {arguments.examples}; attack at least 1")
    folder = Path(arguments.output_dir)
    runs = {method: folder / method for method in METHODS}
    given: dict[str, Any] = {"dataset": "demo", "seed": arguments.seed, "threads": arguments.threads}
    given |= QUICK if arguments.quick else {}
    given |= {name: getattr(arguments, name) for name in ("epochs", "model") if getattr(arguments, name) is not None}
    chosen = {method: resolve(given | {"method": method, "output_dir": str(run)}) for method, run in runs.items()}

    from ..attacks import attack  # late: --help should not wait for MindSpore and PyTorch
    from ..trainer import train

    for run in runs.values():
        _clear(run)
    started = time.perf_counter()
    print(
        f"Film, restaurant and gadget reviews, generated; {NOISE:.0%} of the training labels are wrong, the evaluation "
        "labels are right.\nBoth models start from the same weights and see the same batches. Results of an earlier "
        f"demo in {folder} are replaced."
    )
    for number, (method, run) in enumerate(runs.items()):
        print(f"\n[{2 * number + 1}/4] {NAMES[method]}: train, convert and verify", flush=True)
        train(chosen[method])
        print(
            f"\n[{2 * number + 2}/4] {NAMES[method]}: attack {examples} sentences with synonyms, in PyTorch", flush=True
        )
        attack(run, ATTACK, examples, seed=arguments.seed, threads=arguments.threads or os.cpu_count() or 1)

    rows = [read_run(run, ATTACK) for run in runs.values()]
    paired = paired_outcome(runs[METHODS[0]], runs[METHODS[1]], ATTACK)
    seconds = time.perf_counter() - started
    settings = chosen["flooding"]
    results = {
        "command": " ".join(["python run/demo.py", *(sys.argv[1:] if argv is None else argv)]),
        "attack": ATTACK,
        "training_examples": settings.max_train_examples,
        "epochs": settings.epochs,
        "seed": settings.seed,
        "rows": rows,
        "paired": {"first": METHODS[0], "second": METHODS[1], **paired},
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        "threads": settings.threads or os.cpu_count(),
        "seconds": round(seconds, 1),
    }
    notes = explain(results)
    write_json(folder / "results.json", results)
    write_text(folder / "results.md", f"{table(rows)}\n\n{notes}\n")
    figure = plot(list(runs.values()), rows, folder / "plots" / "comparison.png")
    print(f"\n{table(rows, 'simple')}\n\n{notes}\n")
    print(f"figures: {folder / 'results.json'}, {folder / 'results.md'}, {figure}")
    print(f"runs:    {', '.join(str(run) for run in runs.values())}")
    print(f"took {seconds / 60:.1f} minutes")
    return 0


def explain(results: dict[str, Any]) -> str:
    """Returns what the table's figures are, and how much the difference between its two rows tells."""
    rows, paired = results["rows"], results["paired"]
    flooded = next(row for row in rows if row["flood_level"] is not None)
    losses = ", ".join(
        f"{NAMES[row['method']]} {row['lowest_eval_loss']:.3f} (epoch {row['lowest_eval_loss_epoch']}) -> "
        f"{row['eval_loss']:.3f}"
        for row in rows
    )
    verdict = "more than chance would give" if paired["p_value"] < 0.05 else "chance alone can give this"
    return "\n".join(
        (
            "- Clean%: accuracy on all evaluation sentences. Losses: mean cross-entropy of the last epoch.",
            "- Aua% (still right), Suc% (of those that were right, fooled) and #Query (mean model calls): under the "
            f"attack `{results['attack']}` on the same {flooded['num_examples']} sentences.",
            f"- Evaluation loss, lowest -> last: {losses}.",
            f"- Flooded steps went uphill, their loss being below b = {flooded['flood_level']:g}: "
            f"{flooded['flooded_steps']:.0%} of {flooded['steps']}.",
            f"- Sentences that held under attack only with {NAMES[paired['first']]}: {paired['only_first']}, only with "
            f"{NAMES[paired['second']]}: {paired['only_second']} (sign test p = {paired['p_value']:.2g}: {verdict}).",
            "- One seed, one generated corpus, an attack of the project's own: a demonstration, not a finding.",
        )
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="demo",
        description="Fine-tuning and flooding side by side on a generated corpus: train in MindSpore, convert to "
        "PyTorch and verify, attack, compare. Needs no hub, no data and no GPU.",
    )
    add = parser.add_argument
    add("--seed", type=int, default=0, metavar="N", help="of everything that is drawn (default 0)")
    add("--epochs", type=int, metavar="N", help="default: configs/datasets/demo.yaml")
    add("--examples", type=int, metavar="N", help="sentences to attack (default 100)")
    add("--model", metavar="NAME", help="hub id or local folder instead of the bundled minilm")
    add("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
    add("--output-dir", default="runs/demo", metavar="DIR", help="default runs/demo; its earlier results are replaced")
    add("--quick", action="store_true", help="64 training sentences, 1 epoch, 10 attacked: only to see that it works")
    return parser


def _clear(run: Path) -> None:
    """Removes a run of an earlier demo, and nothing that is not one."""
    if (run / "config.yaml").is_file():
        shutil.rmtree(run)
