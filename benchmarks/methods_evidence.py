"""Every training method on real sentences: train, convert, attack.

    python benchmarks/methods_evidence.py --data-dir DATA --neighbours FILE     # goes on where it was stopped

MiniLM, the first 2,000 SST-2 training sentences of at least 5 words, two epochs, one seed; then TextFooler with
stand-in resources on the same 100 validation sentences. So short a training shows that each method runs from end to
end and what it costs; it does not rank them. Finished runs are kept in results/methods.json, also when their folders
are gone; results/methods.md is made from it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from mindspore_floodx.files import write_json, write_text
from mindspore_floodx.methods import OWN
from mindspore_floodx.runs import package_versions

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = "--dataset sst2 --model minilm --max-train-examples 2000 --min-words 5 --epochs 2 --learning-rate 5e-5"
ATTACK = "--attack textfooler --resources standin --num-examples 100 --seed 0"
FIGURES = ("num_examples", "accuracy_under_attack", "attack_success_rate", "avg_queries", "seconds")


def run(arguments: argparse.Namespace, method: str) -> dict[str, Any]:
    """Trains and attacks, unless the run's folder holds both, and returns what is kept of it."""
    folder = arguments.runs / method
    if not (folder / "export").exists():
        command = [sys.executable, str(ROOT / "run/train.py"), "--data-dir", str(arguments.data_dir), *SETTINGS.split()]
        command += ["--method", method, "--seed", "0", "--threads", str(arguments.threads)]
        subprocess.run([*command, "--output-dir", str(folder)], check=True)
    summary = folder / "attacks" / "textfooler" / "summary.json"
    if not summary.exists():
        command = [sys.executable, str(ROOT / "run/attack.py"), str(folder), *ATTACK.split()]
        subprocess.run([*command, "--neighbours", str(arguments.neighbours)], check=True)
    attacked = json.loads(summary.read_text())
    last, steps = pd.read_csv(folder / "epochs.csv").iloc[-1], pd.read_csv(folder / "log.csv")
    return {
        "method": method,
        "clean": 100 * float(last["eval_accuracy"]),
        "attack": {name: attacked[name] for name in FIGURES if name in attacked},
        "train_loss": float(last["train_loss"]),
        "eval_loss": float(last["eval_loss"]),
        "flooded": float(steps["flooded"].mean()),
        "steps": len(steps),
        "seconds_of_the_last_epoch": float(last["seconds"]),
    }


def report(kept: dict[str, Any], output: Path) -> None:
    rows = [
        (
            each["method"],
            f"{each['clean']:.1f}",
            f"{100 * each['attack']['accuracy_under_attack']:.1f}",
            f"{100 * each['attack']['attack_success_rate']:.1f}",
            f"{each['attack']['avg_queries']:.1f}",
            f"{each['train_loss']:.3f}",
            f"{each['eval_loss']:.3f}",
            f"{each['flooded']:.0%}",
        )
        for each in kept["runs"]
    ]
    names = ("method", "Clean%", "Aua%", "Suc%", "#Query", "train loss", "eval loss", "flooded")
    lines = [
        "# Every method, end to end",
        "",
        f"`{SETTINGS}`, one seed; `{ATTACK}`. Stand-in resources: figures compare these runs with each other and never "
        "with a paper's. Two epochs on 2,000 sentences show that a method works; they do not rank it. *flooded*: share "
        "of the examples whose loss a step raised.",
        "",
        tabulate(rows, names, "github", disable_numparse=True),
        "",
        f"Written by `{kept['command']}`.",
        "",
    ]
    write_text(output.with_suffix(".md"), "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder with SST-2/")
    parser.add_argument("--neighbours", type=Path, required=True, help="word neighbours for the stand-in attack")
    parser.add_argument("--methods", nargs="+", choices=OWN, default=list(OWN))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/methods"))
    parser.add_argument("--output", type=Path, default=ROOT / "results/methods")
    arguments = parser.parse_args()
    path = arguments.output.with_suffix(".json")
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"runs": []}
    kept["command"] = "python benchmarks/methods_evidence.py --data-dir DATA --neighbours FILE"
    for method in arguments.methods:
        if method not in {each["method"] for each in kept["runs"]}:
            kept["runs"].append(run(arguments, method))
            kept["runs"].sort(key=lambda each: list(OWN).index(each["method"]))
            kept["packages"] = package_versions()
            write_json(path, kept)
            report(kept, arguments.output)
    print(arguments.output.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
