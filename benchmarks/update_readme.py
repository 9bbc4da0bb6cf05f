"""Writes the README's figures from the result files in results/.

    python benchmarks/update_readme.py                      # after a result file has changed
    python benchmarks/update_readme.py --demo runs/demo     # first takes over the result of a finished `make demo`
    python benchmarks/update_readme.py --check              # changes nothing; fails if the README is not up to date

What stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->` is written by the function of that name in PARTS.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

from mindspore_floodx.cli.demo import explain
from mindspore_floodx.comparison import table
from mindspore_floodx.errors import UserError, nearest, run_command
from mindspore_floodx.files import replacing, write_text

ROOT = Path(__file__).resolve().parents[1]


def demo_table(results: Path) -> str:
    """What the demo printed, and how it was made."""
    demo = _read(results / "demo.json")
    return (
        f"{table(demo['rows'])}\n\n{explain(demo)}\n\n"
        f"`{demo['command'].strip()}`, {demo['threads']} CPU threads, {demo['seconds'] / 60:.1f} minutes; "
        f"MindSpore {demo['versions']['mindspore']}, PyTorch {demo['versions']['torch']}. All figures: "
        "[results/demo.json](results/demo.json)."
    )


def mrpc_parity(results: Path) -> str:
    """MindSpore beside the plain PyTorch loop on MRPC: means over the seeds that both have."""
    report = _read(results / "mrpc_parity.json")
    rows = []
    for verdict in report["verdicts"]:
        for name in ("mindspore", "pytorch"):
            runs = [
                run for run in report[name] if run["method"] == verdict["method"] and run["seed"] in verdict["seeds"]
            ]
            if runs:
                mean = {key: sum(run[key] for run in runs) / len(runs) for key in ("eval_accuracy", "eval_f1")}
                rows.append((verdict["method"], name, len(runs), *(f"{100 * value:.2f}" for value in mean.values())))
    text = tabulate(rows, ("method", "framework", "seeds", "accuracy %", "F1 %"), "github", disable_numparse=True)
    return f"{text}\n\n`python benchmarks/mrpc_parity.py`, [results/mrpc_parity.json](results/mrpc_parity.json)."


def train_step(results: Path) -> str:
    """Tokens per second of MindSpore and of PyTorch, and their ratio."""
    report = _read(results / "train_step.json")
    rows = [
        (
            row["model"],
            row["task"],
            row["batch"],
            row["length"],
            f"{row['mindspore_tokens_per_second']:,.0f}",
            f"{row['pytorch_tokens_per_second']:,.0f}",
            f"{row['ratio_median']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})",
            f"{row['mindspore_share_of_peak']:.0%}",
        )
        for row in report["rows"]
    ]
    largest = {row["model"]: row for row in sorted(report["rows"], key=lambda row: row["mindspore_peak_gigabytes"])}
    memory = ", ".join(
        f"{model} {row['mindspore_peak_gigabytes']:.1f} GB and {row['compile_seconds']:.0f} s"
        for model, row in largest.items()
    )
    columns = ("model", "task", "batch", "length", "MindSpore tokens/s", "PyTorch tokens/s", "ratio", "share of matmul")
    alignment = ("left", "left", *["right"] * 6)
    text = tabulate(rows, columns, "github", disable_numparse=True, colalign=alignment)
    return (
        f"{text}\n\n`{report['command'].strip()}`, {report['threads']} CPU threads, medians of {report['rounds']} "
        f"rounds. MindSpore's largest memory and its time to compile: {memory}. "
        "[results/train_step.json](results/train_step.json)."
    )


def real_epoch(results: Path) -> str:
    """Real tokens per second on the padded batches of a real epoch."""
    report = _read(results / "real_epoch.json")
    rows = [
        (
            row["model"],
            f"{row['dataset']}, batch {row['batch']}",
            row["task"],
            f"{row['share_of_padding']:.0%}",
            f"{row['mindspore_tokens_per_second']:,.0f}",
            f"{row['pytorch_tokens_per_second']:,.0f}",
            f"{row['ratio_median']:.2f} ({row['ratio_quartiles'][0]:.2f} to {row['ratio_quartiles'][1]:.2f})",
        )
        for row in report["rows"]
    ]
    columns = ("model", "data", "task", "padding", "MindSpore tokens/s", "PyTorch tokens/s", "ratio (quartiles)")
    alignment = ("left", "left", "left", *["right"] * 4)
    text = tabulate(rows, columns, "github", disable_numparse=True, colalign=alignment)
    return (
        f"{text}\n\n`{report['command'].strip()}`, CPU, {report['threads']} thread(s) a side, load average "
        f"{report['load_average']:.1f} on {report['cores']} cores. [results/real_epoch.json](results/real_epoch.json)."
    )


def attacks(results: Path) -> str:
    """Fine-tuned and flooded models under the paper's attacks."""
    report = _read(results / "attacks.json")
    tests = {(pair["dataset"], pair["name"], pair["kind"]): pair["p_value"] for pair in report["pairs"]}
    rows = []
    for each in report["attacks"]:
        if each["kind"] != "raw":
            continue
        found = each["summary"]
        low, high = found["accuracy_under_attack_interval"]
        p_value = tests.get((each["dataset"], each["name"], each["kind"]))
        rows.append(
            (
                f"{each['dataset']}, {found['num_examples']}",
                each["name"],
                each["method"],
                f"{100 * found['clean_accuracy']:.1f}",
                f"{100 * found['accuracy_under_attack']:.1f} ({100 * low:.1f} to {100 * high:.1f})",
                f"{100 * found['attack_success_rate']:.1f}",
                f"{found['avg_queries']:.1f}",
                "" if p_value is None or each["method"] == "finetune" else f"{p_value:.2g}",
            )
        )
    calibrated = any(each["kind"] == "calibrated" for each in report["attacks"])
    also = ", which also has the calibrated attacks" if calibrated else ""
    columns = ("data, examples", "attack", "method", "Clean%", "Aua% (95% interval)", "Suc%", "#Query", "p")
    alignment = ("left", "left", "left", *["right"] * 5)
    text = tabulate(rows, columns, "github", disable_numparse=True, colalign=alignment)
    return (
        f"{text}\n\n*p*: McNemar's exact test of both models on the same examples. `{report['command']}`, "
        f"[results/attacks.md](results/attacks.md){also}."
    )


def reproduction(results: Path) -> str:
    """Table 2 of the grid for two CPU cores, with its caption."""
    folder = results / "reproduce-cpu"
    try:
        words = (folder / "tables" / "table2.md").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{folder} has no tables; run python run/reproduce.py --preset cpu --report") from None
    shown = re.sub(r"^## ", "### ", words, flags=re.MULTILINE).strip()
    return f"{shown}\n\n`python run/reproduce.py --preset cpu --data-dir DATA --neighbours FILE --masked-lm FOLDER`."


PARTS = {
    "demo-table": demo_table,
    "mrpc-parity": mrpc_parity,
    "real-epoch": real_epoch,
    "train-step": train_step,
    "attacks": attacks,
    "reproduction": reproduction,
}


def updated(text: str, results: Path) -> str:
    """Returns the text with every marked part written anew.

    Raises:
        UserError: a marked part is unknown or has no end, or its result file is missing.
    """
    for name in re.findall(r"<!-- ([\w-]+):begin", text):
        if name not in PARTS:
            raise UserError(f"README.md marks a part {name!r} that no function writes{nearest(name, PARTS)}")
        marked = re.compile(rf"(<!-- {name}:begin[^>]*-->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        if not marked.search(text):
            raise UserError(f"README.md: the part {name} has no end; put <!-- {name}:end --> after it")
        content = PARTS[name](results)
        text = marked.sub(lambda found, content=content: f"{found[1]}{content}\n{found[2]}", text)
    return text


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run what makes it, or take its part out of README.md") from None


def _take_demo(folder: Path) -> None:
    for source, target in (("results.json", "demo.json"), ("plots/comparison.png", "demo.png")):
        if not (folder / source).is_file():
            raise UserError(f"{folder / source} is missing; run make demo first")
        with replacing(ROOT / "results" / target) as temporary:
            shutil.copyfile(folder / source, temporary)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the README's figures from the files in results/.")
    parser.add_argument("--check", action="store_true", help="only fail if the README is not up to date")
    parser.add_argument("--demo", type=Path, metavar="FOLDER", help="first copy the results of this demo to results/")
    arguments = parser.parse_args()
    if arguments.demo:
        _take_demo(arguments.demo)
    readme = ROOT / "README.md"
    before = readme.read_text(encoding="utf-8")
    after = updated(before, ROOT / "results")
    if not arguments.check:
        write_text(readme, after)
    elif after != before:
        print("README.md is not what results/ says; run python benchmarks/update_readme.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    run_command(main)
