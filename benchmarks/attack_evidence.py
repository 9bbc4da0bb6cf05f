"""Fine-tuned and flooded models under the paper's three attacks, raw and calibrated, on whole evaluation sets.

    python benchmarks/attack_evidence.py --data-dir DATA --neighbours FILE --masked-lm FOLDER     # can be stopped

MiniLM on SST-2 (the first 4,000 training sentences of at least 5 words; all 872 of the evaluation set) and on MRPC
(all; 408 pairs), fine-tuned and flooded, one seed; then TextFooler, TextBugger and BERT-Attack with stand-in resources.
What is finished is kept in results/attacks.json, also when the run folders are gone; results/attacks.md is made of it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

from mindspore_floodx.attack_metrics import table
from mindspore_floodx.comparison import paired_outcome
from mindspore_floodx.files import write_json, write_text
from mindspore_floodx.runs import package_versions

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {
    "sst2": "--max-train-examples 4000 --min-words 5 --epochs 10 --batch-size 32 --learning-rate 5e-5",
    "mrpc": "--epochs 5 --batch-size 16 --learning-rate 2e-5",
}
METHODS = {"finetune": "", "flooding": "--flood-level 0.1"}
ATTACKS = ("textfooler", "textbugger", "bertattack")
KINDS = {"raw": "", "calibrated": "-calibrated"}
LEFT_OUT = ("example_ids", "recipe", "calibration")  # long; the seed and the recipe's name say as much


def train(arguments: argparse.Namespace, dataset: str, method: str) -> Path:
    """Trains one model, unless its folder holds it; returns the folder."""
    folder = arguments.runs / f"{dataset}-{method}"
    if not (folder / "export").exists():
        command = [sys.executable, str(ROOT / "run/train.py"), "--dataset", dataset, "--model", "minilm"]
        command += ["--data-dir", str(arguments.data_dir), "--method", method, *METHODS[method].split()]
        command += [*SETTINGS[dataset].split(), "--seed", "0", "--threads", "1", "--output-dir", str(folder)]
        subprocess.run(command, check=True)
    return folder


def attack(arguments: argparse.Namespace, folder: Path, dataset: str, name: str, kind: str) -> dict[str, Any]:
    """Attacks a model, unless its folder holds the results; returns what is kept of the summary."""
    path = folder / "attacks" / f"{name}{KINDS[kind]}" / "summary.json"
    if not path.exists():
        command = [sys.executable, str(ROOT / "run/attack.py"), str(folder), "--attack", name, "--num-examples", "all"]
        command += ["--dataset", dataset, "--data-dir", str(arguments.data_dir), "--resources", "standin"]
        command += ["--neighbours", str(arguments.neighbours), "--workers", str(arguments.workers)]
        command += ["--masked-lm", str(arguments.masked_lm)] if name == "bertattack" else []
        subprocess.run([*command, *(["--calibrate"] if kind == "calibrated" else [])], check=True)
    summary = json.loads(path.read_text())
    kept = {key: value for key, value in summary.items() if key not in LEFT_OUT}
    if summary["calibration"] is not None:
        kept["calibration"] = {key: value for key, value in summary["calibration"].items() if key != "parts"}
    return kept


def compare(arguments: argparse.Namespace, dataset: str, name: str, kind: str) -> dict[str, Any]:
    """McNemar's test of the two models, on the same examples."""
    folders = [arguments.runs / f"{dataset}-{method}" for method in METHODS]
    return paired_outcome(*folders, f"{name}{KINDS[kind]}")


def report(kept: dict[str, Any], output: Path) -> None:
    lines = [
        "# Fine-tuned and flooded models under attack",
        "",
        "MiniLM, one seed, 95% intervals. **Stand-in resources**:",
    ]
    lines += ["figures compare these models with each other, not with papers.", ""]
    for dataset, settings in SETTINGS.items():
        for name in ATTACKS:
            some = [each for each in kept["attacks"] if (each["dataset"], each["name"]) == (dataset, name)]
            if not some:
                continue
            number = some[0]["summary"]["num_examples"]
            lines += [
                f"## {dataset}, {name}",
                "",
                f"{number} examples; `{settings}`, flooding `--flood-level 0.1`.",
                "",
            ]
            for each in some:
                title = f"{each['method']}, {each['kind']}"
                lines += [f"{title}:", "", "```", table([each["summary"]]), "```", ""]
            rows = [
                (each["kind"], each["only_first"], each["only_second"], f"{each['p_value']:.3g}")
                for each in kept["pairs"]
                if (each["dataset"], each["name"]) == (dataset, name)
            ]
            if rows:
                columns = ("", "only fine-tuning withstood", "only flooding withstood", "p (McNemar, exact)")
                lines += [tabulate(rows, columns, "github", disable_numparse=True), ""]
    lines += [f"Written by `{kept['command']}`.", ""]
    write_text(output.with_suffix(".md"), "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder with SST-2/ and MRPC/")
    parser.add_argument("--neighbours", type=Path, required=True, help="word neighbours for the stand-in attacks")
    parser.add_argument("--masked-lm", type=Path, required=True, help="what run/standin_mlm.py made")
    parser.add_argument("--datasets", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--workers", default="auto")
    parser.add_argument("--runs", type=Path, default=Path("runs/attacks"))
    parser.add_argument("--output", type=Path, default=ROOT / "results/attacks")
    arguments = parser.parse_args()
    path = arguments.output.with_suffix(".json")
    kept: dict[str, Any] = {"attacks": [], "pairs": []}
    if path.exists():
        kept = json.loads(path.read_text())
    kept["command"] = "python benchmarks/attack_evidence.py --data-dir DATA --neighbours FILE --masked-lm FOLDER"
    done = {(each["dataset"], each["name"], each["kind"], each["method"]) for each in kept["attacks"]}
    plan = [(d, kind, name) for d in arguments.datasets for kind in arguments.kinds for name in arguments.attacks]
    for dataset, kind, name in plan:
        about = {"dataset": dataset, "name": name, "kind": kind}
        for method in METHODS:
            if (dataset, name, kind, method) in done:
                continue
            folder = train(arguments, dataset, method)
            summary = attack(arguments, folder, dataset, name, kind)
            kept["attacks"].append(about | {"method": method, "summary": summary})
            if method == list(METHODS)[-1]:
                kept["pairs"].append(about | compare(arguments, dataset, name, kind))
            kept["packages"] = package_versions()
            write_json(path, kept)
            report(kept, arguments.output)
    report(kept, arguments.output)
    print(arguments.output.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
