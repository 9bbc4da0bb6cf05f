"""The command behind run/smoothness.py: loss under noise on the word embeddings (the paper's Figure 1)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ..smoothness import DEVIATIONS, measure_smoothness
from .options import number_or

EXAMPLES = """\
examples:
  # fine-tuning beside flooding: 11 standard deviations from 0 to 0.5, each with 5 draws of the noise
  %(prog)s runs/sst2-finetune-0 runs/sst2-flooding-0 runs/sst2-floodingx-0

  # a first look: 200 random examples, the same for both runs, and less noise
  %(prog)s runs/mrpc-finetune-0 runs/mrpc-flooding-0 --num-examples 200 --draws 2 --deviations 0 0.02 0.05 0.1

  # names for the legend, and a folder of its own
  %(prog)s runs/demo/finetune runs/demo/flooding --labels fine-tuning "flooding, b = 0.2" --output-dir runs/demo-noise

Each run is measured at its last checkpoint on its own evaluation set, which has to be the same for all of them. The
noise N(0, a^2) is added to the word embeddings of real tokens, before position and token type embeddings and LayerNorm.
An example has the same noise in every run, so that curves are comparable. Files: smoothness.csv (a row a run, deviation
and draw), smoothness.json (means and standard deviations over the draws), plots/smoothness.svg, .png and .pdf.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints the losses and accuracies by deviation, and says where the files are."""
    options = vars(_parser().parse_args(argv))
    folder = Path(options["output_dir"])
    result = measure_smoothness(options.pop("runs"), **options)
    data = result["data"]
    print(f"{data['dataset']} ({data['source']}): {data['measured']:,} of {data['examples']:,} evaluation examples")
    if data["partial"]:
        print(f"note: {data['source']} is only a part of the official {data['split']} data")
    for name, scale, digits in (("loss", 1, 4), ("accuracy", 100, 2)):
        print(f"\n{name}{' (%)' if scale == 100 else ''}, mean ± standard deviation over the draws")
        rows = _shown(result["runs"], name, scale, digits)
        print(tabulate(rows, headers="keys", tablefmt="simple", stralign="right"))
    print(f"\ntable: {folder / 'smoothness.csv'}\nfigure: {folder / 'plots' / 'smoothness.png'}")
    return 0


def _shown(runs: list[dict[str, Any]], name: str, scale: int, digits: int) -> list[dict[str, str]]:
    """Returns a row a deviation with a column a run."""
    rows = []
    for points in zip(*(run["curve"] for run in runs), strict=True):
        row = {"deviation": f"{points[0]['deviation']:g}"}
        for run, point in zip(runs, points, strict=True):
            spread = point[f"{name}_std"]
            text = f"{scale * point[f'{name}_mean']:.{digits}f}"
            row[run["run"]] = text if spread is None else f"{text} ± {scale * spread:.{digits}f}"
        rows.append(row)
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="smoothness",
        description="Measure the loss of finished runs under Gaussian noise on their word embeddings.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="run folders that run/train.py wrote")
    add("--deviations", type=float, nargs="+", default=list(DEVIATIONS), metavar="A", help="default 0 0.05 ... 0.5")
    add("--draws", type=int, default=5, metavar="N", help="draws of the noise, for the error bands (default 5)")
    add("--num-examples", type=number_or("all"), default="all", metavar="N|all", help="random examples (default all)")
    add("--seed", type=int, default=0, metavar="N", help="of the examples and of the noise (default 0)")
    add("--batch-size", type=int, metavar="N", help="by default each run's evaluation batch")
    add("--device", default="CPU", metavar="CPU|GPU", help="default CPU")
    add("--threads", type=int, metavar="N", help="CPU threads; by default all cores")
    add("--data-dir", metavar="DIR", help="where the data sets are now, if not where the runs had them")
    add("--labels", nargs="+", metavar="NAME", help="names of the curves; by default the run folders'")
    add("--output-dir", default="runs/smoothness", metavar="DIR", help="default runs/smoothness")
    return parser
