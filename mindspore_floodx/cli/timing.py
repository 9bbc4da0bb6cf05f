"""The command behind run/timing.py: what each training method costs beside fine-tuning (the paper's Table 3)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..methods import method_names
from ..timing import TIMED_SETTINGS, conditions, measure_timing, timing_table
from .options import number_or, refuse_unknown
from .train import add_settings

EXAMPLES = """\
examples:
  # every method on SST-2 with the bundled encoder
  %(prog)s --dataset sst2 --data-dir DATA --model minilm

  # Flooding-X beside two rivals with fewer steps of ascent, and more batches
  %(prog)s --methods floodingx pgd freelb --adversarial-steps 3 --batches 100 --dataset mrpc --data-dir DATA

  # the paper's setting, on a GPU
  %(prog)s --dataset sst2 --device GPU --batches all

  # your own data
  %(prog)s --train my.csv --eval-file test.csv --text-column text --label-column label --model minilm

Nothing is trained to the end: every method takes a step on each batch of a run's first epoch in turn, and the mean time
of a step times the steps of an epoch is the time of an epoch. Ratios are to fine-tuning, which is always timed. On a
machine that does other work as well, look at the ratios of the CPU seconds. floodingx is timed while it measures
gradient accordance; after the turn it costs what flooding costs. The auxiliary models that adaflood and selective train
first are not timed; `auxiliary` counts their forward + backward passes of every training example.

Files: timing.json (all of it, step by step), timing.csv, timing.md, plots/timing.svg, .png and .pdf.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Times the methods, prints the table, and says where the files are."""
    parser = _parser()
    arguments, unknown = parser.parse_known_args(argv)
    refuse_unknown(parser, unknown)
    options = vars(arguments)
    folder = Path(options["output_dir"])
    result = measure_timing(options.pop("methods"), **options)
    print(f"{conditions(result)}\n\n{timing_table(result['rows'], 'simple')}")
    print(f"\ntable: {folder / 'timing.md'}\nfigure: {folder / 'plots' / 'timing.png'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="timing",
        description="Time the training steps of every method on the same batches, beside fine-tuning's.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--methods", nargs="+", metavar="METHOD", help=f"default all: {', '.join(method_names())}")
    add("--batches", type=number_or("all"), default=20, metavar="N|all", help="batches that are timed (default 20)")
    add("--warm-up", type=int, default=6, metavar="N", help="batches before them, which are not counted (default 6)")
    add("--output-dir", default="runs/timing", metavar="DIR", help="default runs/timing")
    add_settings(parser.add_argument_group("data, model and machine, as in run/train.py"), TIMED_SETTINGS)
    return parser
