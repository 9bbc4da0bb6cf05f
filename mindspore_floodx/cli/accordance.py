"""The command behind run/accordance.py: measures gradient accordance, and says what each rule makes of a run's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ..accordance_of_run import measure_accordance
from ..errors import UserError
from ..flood_level import RULES, choose_flood_level
from ..plots import plot_accordance, read_series
from .options import number_or

EXAMPLES = """\
examples:
  # a finished run, at its last checkpoint and on its own training data; the run's series, if it was measured
  %(prog)s runs/sst2-floodingx-0

  # every epoch, and how every batch agrees with every other
  %(prog)s runs/sst2-finetune-0 --every-epoch --batches 32 --batch-matrix

  # does the last layer alone say the same, for less?
  %(prog)s runs/sst2-finetune-0 --parameters 'layer\\.5|pooler|classifier'

  # a model without a run
  %(prog)s exported --dataset sst2 --data-dir DATA

  # only what the rules say of a series that was measured in training, as fast as a file is read
  %(prog)s runs/sst2-floodingx-0 --rules-only

Accordance is the mean cosine of the class gradients of different batches (Flooding-X, eqs. 11-13).
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints tables, and writes accordance/ into the run folder."""
    options = vars(_parser().parse_args(argv))
    source, rules_only = Path(options.pop("run_or_model")), options.pop("rules_only")
    measured = source / "accordance.csv"
    if rules_only and not measured.is_file():
        raise UserError(f"{measured} is missing: the run was not measured; train it with --accordance online")
    if not rules_only:
        batches = options.pop("batches")
        options["num_batches"] = None if batches == "all" else batches
        rows = measure_accordance(source, **options)
        print(tabulate([_shown(row) for row in rows], headers="keys", tablefmt="simple", floatfmt=".4f"))
        for row in rows:
            if row["undefined"]:
                print(f"undefined: {row['undefined']}")
    if measured.is_file():
        print()
        print(tabulate(_decisions(measured), headers="keys", tablefmt="simple", floatfmt=".4f"))
        print(f"\nfigure: {plot_accordance(source)}")
    return 0


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    names = ["checkpoint", "accordance", "same_class", "accordance_of_parameters", "batches"]
    return {name.replace("_", " "): row[name] for name in names if name in row}


def _decisions(path: Path) -> list[dict[str, Any]]:
    """What each rule makes of each series in accordance.csv."""
    series, rows = read_series(path.parent), []
    for column, measured in (("accordance", "as trained"), ("snapshot", "snapshot")):
        if column == "snapshot" and series["snapshot"].isna().all():
            continue
        for rule in RULES:
            made = choose_flood_level(series[column].tolist(), series["train_loss"].tolist(), rule)
            rows.append(
                {
                    "series": measured,
                    "rule": rule,
                    "turn": "yes" if made.fired else "no",
                    "sub-epoch": made.sub_epoch,
                    "flood level": made.level,
                    "reason": made.reason,
                }
            )
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="accordance",
        description="Measure the gradient accordance of a run or a model, and what the flood rules make of it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("run_or_model", metavar="RUN_OR_MODEL", help="a run folder, or a model folder, hub id or minilm")
    add("--batches", type=number_or("all"), default=16, metavar="N|all", help="of the training data (default 16)")
    add("--batch-matrix", action="store_true", help="every batch against every other, at most 64, with a heat map")
    add("--parameters", metavar="REGEX", help="also of the parameters whose names this is found in, to compare")
    add("--every-epoch", action="store_true", help="every checkpoint of a run trained with --save-every-epoch")
    add("--rules-only", action="store_true", help="measure nothing; only what the rules say of the run's own series")
    add("--dataset", metavar="NAME", help="training data; by default what the run was trained on")
    add("--data-dir", metavar="DIR", help="folder with the data sets in their official layouts")
    add("--train", dest="train_file", metavar="FILE", help="your own training file, or another one of the data set")
    add("--eval-file", metavar="FILE", help="with your own training file: the evaluation file it came with")
    add("--text-column", metavar="NAME", help="own files: column of the text")
    add("--text-pair-column", metavar="NAME", help="own files: column of the second text")
    add("--label-column", metavar="NAME", help="own files: column of the label")
    add("--batch-size", type=int, metavar="N", help="by default the run's")
    add("--threads", type=int, metavar="N", help="CPU threads; by default all cores")
    add("--device", metavar="CPU|GPU", help="default CPU")
    add("--output-dir", metavar="DIR", help="by default RUN/accordance; for a model without a run nothing is written")
    return parser
