"""Does the MindSpore training reach what plain PyTorch reaches? Whole MRPC, several seeds, the same settings.

    python benchmarks/mrpc_parity.py --data-dir DIR            # hours on a CPU; goes on where it was stopped
    python benchmarks/mrpc_parity.py --data-dir DIR --report   # only the comparison, from the runs that are finished

Runs `run/train.py` (which converts and verifies) and `run/attack.py` for fine-tuning and flooding and each seed,
compares the last epoch with the runs of benchmarks/pytorch_baseline.py, and writes results/mrpc_parity.json and .md. A
run that is in the result file, or whose folder is finished, is not made again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from mindspore_floodx.files import write_json, write_text

ROOT = Path(__file__).resolve().parent.parent
METRICS = ("eval_accuracy", "eval_f1", "eval_loss", "train_loss")
POINTS_ALLOWED = 1.0


def train(arguments, method: str, seed: int) -> None:
    command = [
        sys.executable,
        str(ROOT / "run/train.py"),
        "--dataset",
        "mrpc",
        "--data-dir",
        str(arguments.data_dir),
        "--model",
        "minilm",
        "--device",
        "CPU",
        "--epochs",
        str(arguments.epochs),
        "--seed",
        str(seed),
        "--method",
        method,
        "--output-dir",
        str(folder(arguments, method, seed)),
    ]
    if method == "flooding":
        command += ["--flood-level", str(arguments.flood_level)]
    if arguments.threads:
        command += ["--threads", str(arguments.threads)]
    subprocess.run(command, check=True)


def folder(arguments, method: str, seed: int) -> Path:
    return arguments.runs / f"mrpc-{method}-{seed}"


def attack(arguments, method: str, seed: int) -> None:
    resources = ["--resources", "standin", "--neighbours", str(arguments.neighbours)] if arguments.neighbours else []
    command = [sys.executable, str(ROOT / "run/attack.py"), str(folder(arguments, method, seed))]
    subprocess.run([*command, "--attack", arguments.attack, *resources], check=True)


def ours(arguments, method: str, seed: int, kept: list[dict]) -> dict | None:
    """The figures of a finished run: from its folder, else from the result file of an earlier call."""
    run = folder(arguments, method, seed)
    if not (run / "export").exists():
        return next((row for row in kept if (row["method"], row["seed"]) == (method, seed)), None)
    steps, epochs = pd.read_csv(run / "log.csv"), pd.read_csv(run / "epochs.csv")
    last, summary = epochs.iloc[-1], run / "attacks" / arguments.attack / "summary.json"
    return {
        "seed": seed,
        "method": method,
        **{name: float(last[name]) for name in METRICS},
        "flooded_steps": int(steps["flooded"].sum()),
        "steps": len(steps),
        "attack": json.loads(summary.read_text()) if summary.exists() else None,
    }


def theirs(path: Path) -> list[dict]:
    if not path.exists():
        return []
    return [
        {
            "seed": run["seed"],
            "method": "finetune" if run["flood_level"] is None else "flooding",
            **{name: run["epochs"][-1][name] for name in METRICS},
            "flooded_steps": run["flooded_steps"],
        }
        for run in json.loads(path.read_text())["runs"]
    ]


def earlier(arguments) -> list[dict]:
    path = arguments.output.with_suffix(".json")
    return json.loads(path.read_text())["mindspore"] if path.exists() else []


def report(arguments) -> None:
    kept = earlier(arguments)
    mindspore = [
        row
        for method in ("finetune", "flooding")
        for seed in arguments.seeds
        if (row := ours(arguments, method, seed, kept))
    ]
    pytorch = theirs(arguments.pytorch)
    rows, verdicts = [], []
    for method in ("finetune", "flooding"):
        seeds = sorted(
            {r["seed"] for r in mindspore if r["method"] == method}
            & {r["seed"] for r in pytorch if r["method"] == method}
        )
        pair = [[r for r in side if r["method"] == method and r["seed"] in seeds] for side in (mindspore, pytorch)]
        if not seeds:
            verdicts.append({"method": method, "seeds": [], "verdict": "not run"})
            continue
        means = [{name: statistics.mean(r[name] for r in side) for name in METRICS} for side in pair]
        points = 100 * (means[0]["eval_accuracy"] - means[1]["eval_accuracy"])
        verdicts.append(
            {
                "method": method,
                "seeds": seeds,
                "accuracy_points_apart": points,
                "verdict": "agree" if abs(points) <= POINTS_ALLOWED else "differ",
            }
        )
        for name, mean in zip(("MindSpore", "PyTorch"), means, strict=True):
            rows.append(
                [
                    method,
                    name,
                    len(seeds),
                    f"{100 * mean['eval_accuracy']:.2f}",
                    f"{100 * mean['eval_f1']:.2f}",
                    f"{mean['eval_loss']:.4f}",
                    f"{mean['train_loss']:.4f}",
                ]
            )
    write_json(
        arguments.output.with_suffix(".json"),
        {
            "epochs": arguments.epochs,
            "flood_level": arguments.flood_level,
            "mindspore": mindspore,
            "pytorch": pytorch,
            "verdicts": verdicts,
        },
    )
    table = tabulate(
        rows,
        ["method", "framework", "seeds", "accuracy %", "F1 %", "eval loss", "train loss"],
        "github",
        disable_numparse=True,
    )
    lines = [
        f"- {v['method']}: {v['verdict']}"
        + (
            f", mean accuracies {abs(v['accuracy_points_apart']):.2f} points apart, seeds {v['seeds']}"
            if v["seeds"]
            else ""
        )
        for v in verdicts
    ]
    attacked = [attack_cells(row) for row in mindspore if row["attack"]]
    columns = ["method", "seed", "attack", "Clean%", "Aua%", "Suc%", "#Query", "examples"]
    attacks = tabulate(attacked, columns, "github", disable_numparse=True) if attacked else "No run was attacked yet."
    write_text(
        arguments.output.with_suffix(".md"),
        "# MRPC: MindSpore against a plain PyTorch loop\n\nMiniLM, the whole training set, "
        f"{arguments.epochs} epochs, last epoch, means over the seeds that both have finished. Written by "
        "`python benchmarks/mrpc_parity.py`.\n\n"
        + table
        + "\n\n"
        + "\n".join(lines)
        + "\n\n## The MindSpore runs under attack\n\nEvery run was converted, verified and attacked with "
        "`run/attack.py`.\n\n" + attacks + "\n",
    )
    print(table, *lines, attacks, sep="\n")


def attack_cells(row: dict) -> list:
    summary = row["attack"]
    names = ("clean_accuracy", "accuracy_under_attack", "attack_success_rate")
    return [
        row["method"],
        row["seed"],
        f"{summary['attack']} ({summary['resources']} resources)",
        *(f"{100 * summary[name]:.1f}" for name in names),
        f"{summary['avg_queries']:.1f}",
        summary["num_examples"],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--flood-level", type=float, default=0.1)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--attack", default="textfooler")
    parser.add_argument("--neighbours", type=Path, help="attack with stand-in resources and these neighbour lists")
    parser.add_argument("--runs", type=Path, default=Path("runs/parity"))
    parser.add_argument(
        "--pytorch",
        type=Path,
        default=ROOT / "results/mrpc_pytorch.json",
        help="result file of benchmarks/pytorch_baseline.py",
    )
    parser.add_argument("--output", type=Path, default=ROOT / "results/mrpc_parity")
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    if not arguments.report:
        for seed in arguments.seeds:
            for method in ("finetune", "flooding"):
                row = ours(arguments, method, seed, earlier(arguments))
                if row is None:
                    train(arguments, method, seed)
                if row is None or row["attack"] is None:
                    attack(arguments, method, seed)
                report(arguments)
    report(arguments)


if __name__ == "__main__":
    main()
