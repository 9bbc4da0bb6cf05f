"""The command behind run/compare.py: settings of runs that differ, and their figures side by side."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from ..run_comparison import Comparison, Row, compare_runs

FORMATS = ("text", "markdown", "csv", "json")
_TITLES = {  # as the attack command and the paper's tables call them
    "clean_accuracy": "Clean%",
    "accuracy_under_attack": "Aua%",
    "attack_success_rate": "Suc%",
    "avg_queries": "#Query",
    "avg_words_changed": "changed%",
    "eval_accuracy": "eval accuracy %",
    "eval_f1": "eval F1 %",
    "flooded": "flooded steps %",
    "num_examples": "examples",
    "p_value": "p against the first",
}

EXAMPLES = """\
examples:
  %(prog)s runs/mrpc-finetune-0 runs/mrpc-flooding-0
  %(prog)s runs/sst2-* --format csv > comparison.csv
"""


def parser() -> argparse.ArgumentParser:
    """Returns the command's options."""
    options = argparse.ArgumentParser(
        prog="compare.py",
        description="Compare runs by their result files: settings that differ, losses and accuracies of the last and\n"
        "the best epoch, and each attack's figures with 95%% intervals. Warns where figures are not comparable.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("runs", nargs="+", metavar="RUN", help="two or more run folders")
    options.add_argument(
        "--format",
        choices=FORMATS,
        default="text",
        help="text and markdown are rounded, in %%; csv and json are exact, shares as fractions (default: text)",
    )
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the comparison.

    Raises:
        UserError: as `run_comparison.compare_runs` does.
    """
    arguments = parser().parse_args(argv)
    print(render(compare_runs(arguments.runs), arguments.format))
    return 0


def render(comparison: Comparison, style: str) -> str:
    """Returns a comparison as text in one of `FORMATS`, without a newline at the end."""
    if style == "json":
        return json.dumps(dataclasses.asdict(comparison), indent=2, ensure_ascii=False)
    if style == "csv":
        return _csv(comparison)
    markdown = style == "markdown"
    blocks = [f"{'**Warning:**' if markdown else 'warning:'} {warning}" for warning in comparison.warnings]
    tables: dict[str, list[list[str]]] = {
        "settings that differ": [[name, *map(_plain, each)] for name, each in comparison.settings.items()]
    }
    for title, rows in comparison.groups.items():
        tables[title] = [[_TITLES.get(row.name, row.name.replace("_", " ")), *_cells(row)] for row in rows]
    for title, lines in tables.items():
        if lines:
            if markdown:  # a regular expression may have a bar, which would end its cell
                lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
            style = "github" if markdown else "presto"
            body = tabulate(lines, ["", *comparison.runs], tablefmt=style, disable_numparse=True)
            blocks.append(f"### {title}\n\n{body}" if markdown else f"{title}\n{body}")
        elif title == "settings that differ":
            blocks.append("no setting differs")
    return "\n\n".join(blocks)


def _cells(row: Row) -> list[str]:
    percent = _TITLES.get(row.name, "").endswith("%")
    digits = 1 if percent or row.name in ("avg_queries", "seconds") else 4
    cells = []
    for value, interval in zip(row.values, row.intervals, strict=True):
        cell = _number(value, 100 if percent else 1, digits)
        if value is not None and interval:
            cell += f" [{', '.join(_number(bound, 100 if percent else 1, digits) for bound in interval)}]"
        cells.append(cell)
    return cells


def _number(value: Any, factor: int, digits: int) -> str:
    if not isinstance(value, float):
        return _plain(value)
    if value.is_integer() and factor == 1 and digits == 4:
        return f"{value:.0f}"  # an epoch's number
    return f"{factor * value:.{digits}f}"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _csv(comparison: Comparison) -> str:
    """One line a setting or figure: its group, its name, and of each run the value and the ends of its interval."""
    file = io.StringIO()
    write = csv.writer(file, lineterminator="\n").writerow
    write(["group", "name", *(f"{run}{end}" for run in comparison.runs for end in ("", " low", " high"))])
    for name, values in comparison.settings.items():
        write(["settings", name, *(cell for value in values for cell in (value, None, None))])
    for title, rows in comparison.groups.items():
        for row in rows:
            pairs = zip(row.values, row.intervals, strict=True)
            write([title, row.name, *(cell for value, ends in pairs for cell in (value, *(ends or (None, None))))])
    for warning in comparison.warnings:
        write(["warning", warning])
    return file.getvalue().rstrip("\n")
