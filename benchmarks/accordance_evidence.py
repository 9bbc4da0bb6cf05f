"""Does gradient accordance tell when a model begins to overfit, and does it give a good flood level? Real data, seeds.

    python benchmarks/accordance_evidence.py --data-dir DATA            # hours on a CPU; goes on where it was stopped
    python benchmarks/accordance_evidence.py --data-dir DATA --report   # only the report, from what is finished

For SST-2 (its first 4,000 training sentences of at least 5 words) and the whole MRPC, with MiniLM and every seed:
fine-tuning for ten epochs with the accordance measured in both ways and the evaluation loss after each sub-epoch; then
flooding at every level of a sweep. The report sets the sub-epoch at which each rule sees the turn beside that of the
lowest evaluation loss, and the level it gives beside the best one of the sweep. Finished runs are kept in
results/accordance.json, also when their folders are gone; results/accordance.md and the figures are made from it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from mindspore_floodx.files import replacing, write_json, write_text
from mindspore_floodx.flood_level import RULES, FloodLevel, choose_flood_level
from mindspore_floodx.runs import package_versions

ROOT = Path(__file__).resolve().parent.parent
SETTINGS: dict[str, list[str]] = {
    "sst2": "--max-train-examples 4000 --min-words 5 --epochs 10 --batch-size 32 --learning-rate 5e-5".split(),
    "mrpc": "--epochs 10 --batch-size 16 --learning-rate 2e-5".split(),
}
LEVELS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
SERIES = ("accordance", "snapshot", "same_class", "snapshot_same_class", "train_loss", "eval_loss", "eval_accuracy")
MEASURED = {"online": "accordance", "snapshot": "snapshot"}  # and the column of each


def train(arguments: argparse.Namespace, dataset: str, seed: int, level: float | None) -> Path:
    """Trains one run, unless its folder holds it; returns the folder."""
    name = "measured" if level is None else f"level-{level:g}"
    folder = arguments.runs / f"{dataset}-{name}-{seed}"
    if (folder / "export").exists():
        return folder
    method = ["--method", "flooding", "--flood-level", str(level)]
    if level is None:  # a quarter of the batches is enough for a snapshot: the mean over 56 pairs of batches
        method = ["--method", "finetune", "--accordance", "both", "--accordance-batches", "8", "--evaluate-sub-epochs"]
    command = [sys.executable, str(ROOT / "run/train.py"), "--dataset", dataset, "--data-dir", str(arguments.data_dir)]
    command += ["--model", "minilm", "--seed", str(seed), *SETTINGS[dataset], *method, "--output-dir", str(folder)]
    if arguments.threads:
        command += ["--threads", str(arguments.threads)]
    subprocess.run(command, check=True)
    return folder


def figures_of(folder: Path, level: float | None) -> dict[str, Any]:
    """What is kept of a finished run."""
    if level is None:
        table = pd.read_csv(folder / "accordance.csv")
        return {name: [round(float(value), 5) for value in table[name]] for name in ("step", "epoch", *SERIES)}
    epochs, steps = pd.read_csv(folder / "epochs.csv"), pd.read_csv(folder / "log.csv")
    last = epochs.iloc[-1]
    figures = {name: float(last[name]) for name in ("eval_accuracy", "eval_loss", "train_loss")}
    return figures | {"flooded": float(steps["flooded"].mean()), "lowest_eval_loss": float(epochs["eval_loss"].min())}


def decisions(run: dict[str, Any]) -> list[tuple[str, str, FloodLevel]]:
    """What every rule makes of both series of a measured run."""
    return [
        (measured, rule, choose_flood_level(run[column], run["train_loss"], rule))
        for measured, column in MEASURED.items()
        for rule in RULES
    ]


def report(kept: dict[str, Any], output: Path) -> None:
    """Writes the Markdown page and a figure for each data set."""
    lines = ["# Accordance, the test loss and the flood level", "", f"Written by `{kept['command']}`.", ""]
    for dataset in SETTINGS:
        runs = {run["seed"]: run for run in kept["runs"] if run["dataset"] == dataset and run["level"] is None}
        sweep = [run for run in kept["runs"] if run["dataset"] == dataset and run["level"] is not None]
        lines += [f"## {dataset}", "", f"MiniLM, `{' '.join(SETTINGS[dataset])}`.", ""]
        if not runs:
            lines += ["Not run yet.", ""]
            continue
        lines += ["Sub-epochs are counted from 1, four to an epoch.", "", table_of_turns(runs), ""]
        lines += [f"![{dataset}](accordance-{dataset}.png)", "", *(lines_of_sweep(sweep) if sweep else [])]
        plot(dataset, runs, output.parent / f"accordance-{dataset}.png")
    write_text(output.with_suffix(".md"), "\n".join(lines))


def table_of_turns(runs: dict[int, dict[str, Any]]) -> str:
    rows = []
    for seed, run in sorted(runs.items()):
        lowest = int(np.argmin(run["eval_loss"])) + 1
        for measured, rule, made in decisions(run):
            turn = f"{made.sub_epoch}" if made.fired else f"none (steepest rise: {made.sub_epoch})"
            best = f"{lowest} ({run['eval_loss'][lowest - 1]:.3f})"
            rows.append((seed, best, measured, rule, turn, f"{made.sub_epoch - lowest:+d}", f"{made.level:.3f}"))
    columns = ("seed", "lowest test loss at", "measured", "rule", "turn at", "later by", "flood level")
    return tabulate(rows, columns, "github", disable_numparse=True)


def lines_of_sweep(sweep: list[dict[str, Any]]) -> list[str]:
    names = ("seed", "level", "eval_accuracy", "eval_loss", "flooded")
    rows = sorted(tuple(run[name] for name in names) for run in sweep)
    columns = ("seed", "flood level", "accuracy", "eval loss, last epoch", "share of flooded steps")
    lines = ["Sweep of the level:", "", tabulate(rows, columns, "github", floatfmt=("g", "g", ".4f", ".4f", ".3f")), ""]
    for seed in sorted({run["seed"] for run in sweep}):
        some = [run for run in sweep if run["seed"] == seed]
        loss, accuracy = min(some, key=lambda r: r["eval_loss"]), max(some, key=lambda r: r["eval_accuracy"])
        lines += [f"Seed {seed}: lowest loss at b = {loss['level']:g}, best accuracy at b = {accuracy['level']:g}.", ""]
    return lines


def plot(dataset: str, runs: dict[int, dict[str, Any]], target: Path) -> None:
    """The paper's Figure 3 for every seed: accordance above, losses below, the turns marked."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, len(runs), figsize=(4.5 * len(runs), 6), squeeze=False, sharex=True, sharey="row", constrained_layout=True
    )
    for column, (seed, run) in enumerate(sorted(runs.items())):
        above, below = axes[:, column]
        x = np.arange(1, len(run["step"]) + 1)
        for (measured, name), colour in zip(MEASURED.items(), ("C0", "C4"), strict=True):
            above.plot(x, run[name], "o-", markersize=2.5, color=colour, label=f"accordance, {measured}")
            made = choose_flood_level(run[name], run["train_loss"])
            if made.fired:
                label = f"change-point, {measured}: b = {made.level:.3f}"
                above.axvline(made.sub_epoch, color=colour, linestyle=":", label=label)
        above.axhline(0, color="0.8", linewidth=0.8)
        below.plot(x, run["train_loss"], color="C2", label="training loss")
        below.plot(x, run["eval_loss"], "o-", markersize=2.5, color="C1", label="evaluation loss")
        lowest = int(np.argmin(run["eval_loss"])) + 1
        for each in (above, below):
            each.axvline(lowest, color="C1", linestyle="--", linewidth=0.8)
        above.set(title=f"{dataset}, seed {seed}")
        above.legend(frameon=False, fontsize=7)
        below.set(xlabel="sub-epoch", ylim=(0, None))
        below.legend(frameon=False, fontsize=7)
    axes[0, 0].set_ylabel("accordance between classes (eq. 13)")
    axes[1, 0].set_ylabel("cross-entropy")
    with replacing(target) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--datasets", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--levels", type=float, nargs="*", default=list(LEVELS), help="of the sweep; none: no sweep")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--runs", type=Path, default=Path("runs/accordance"))
    parser.add_argument("--output", type=Path, default=ROOT / "results/accordance")
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    path = arguments.output.with_suffix(".json")
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"runs": []}
    kept["command"] = "python benchmarks/accordance_evidence.py --data-dir DATA"
    plan = [(d, s, None) for s in arguments.seeds for d in arguments.datasets]  # what can be seen soonest comes first
    plan += [(d, s, level) for s in arguments.seeds for d in arguments.datasets for level in arguments.levels]
    done = {(run["dataset"], run["seed"], run["level"]) for run in kept["runs"]}
    for dataset, seed, level in () if arguments.report else plan:
        if (dataset, seed, level) in done:
            continue
        figures = figures_of(train(arguments, dataset, seed, level), level)
        kept["runs"].append({"dataset": dataset, "seed": seed, "level": level} | figures)
        kept["packages"] = package_versions()
        write_json(path, kept)
        report(kept, arguments.output)
    report(kept, arguments.output)
    print(arguments.output.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
