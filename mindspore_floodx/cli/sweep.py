"""The command behind run/sweep.py: vanilla Flooding, whose level is searched (the paper, section 4)."""

from __future__ import annotations

import argparse
import math
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from ..errors import Terminated, UserError
from ..files import replacing
from ..plots import plot_sweep
from ..runs import is_finished
from ..settings import resolve
from ..untrusted import read_table
from .commands import command_line
from .options import refuse_unknown
from .train import build_parser

EXAMPLES = """\
examples:
  # the paper's search: steps of 0.01
  %(prog)s --levels 0.01 0.10 0.01 --dataset sst2 --device GPU

  # a coarse look with the bundled encoder; every option of run/train.py may be added
  %(prog)s --levels 0.05 0.30 0.05 --dataset sst2 --data-dir DATA --model minilm --epochs 10

Each level is a run folder of its own under --output-dir; levels that are finished are not trained again, so the same
command goes on where it was stopped.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Trains level after level and writes sweep.csv and sweep.png."""
    parser = argparse.ArgumentParser(
        prog="sweep",
        description="Train with flooding at every level of a range, and compare.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--levels", type=float, nargs=3, required=True, metavar=("FROM", "TO", "STEP"), help="the levels b"
    )
    parser.add_argument("--output-dir", metavar="DIR", help="default runs/<dataset>-sweep-<seed>")
    own, rest = parser.parse_known_args(argv)
    train_parser = build_parser()
    given, unknown = train_parser.parse_known_args(rest)
    refuse_unknown(train_parser, unknown)
    chosen = vars(given)
    settings_file = chosen.pop("config", None)
    for name in ("method", "flood_level"):
        if name in chosen:
            raise UserError(f"--{name.replace('_', '-')} is what the sweep sets; leave it out")
    levels = levels_of(*own.levels)
    first = resolve(chosen | {"method": "flooding", "flood_level": levels[0]}, settings_file)  # refuses what is wrong
    folder = Path(own.output_dir or f"runs/{first.dataset}-sweep-{first.seed}")
    for number, level in enumerate(levels, 1):
        run = folder / f"level-{level:g}"
        print(f"level {level:g} ({number} of {len(levels)}): {run}", flush=True)
        settings = resolve(chosen | {"method": "flooding", "flood_level": level, "output_dir": str(run)}, settings_file)
        if not is_finished(settings):
            _train(rest, level, run)
        rows = summarise(folder)
    print()
    print(tabulate(rows.to_dict("records"), headers="keys", tablefmt="simple", floatfmt=".4f"))
    print(f"\ntable: {folder / 'sweep.csv'}\nfigure: {plot_sweep(rows, folder / 'sweep.png', first.dataset)}")
    return 0


def levels_of(first: float, last: float, step: float) -> list[float]:
    """Returns the levels from `first` to `last`, both included, rounded to what the step can tell apart.

    Raises:
        UserError: an empty range, a step that is not positive, or a negative level.
    """
    if not (step > 0 and 0 <= first <= last) or not all(map(math.isfinite, (first, last, step))):
        raise UserError(f"--levels {first:g} {last:g} {step:g} is no range; write --levels 0.01 0.10 0.01")
    return [round(first + step * index, 10) for index in range(int((last - first) / step + 1e-6) + 1)]


def summarise(folder: Path) -> pd.DataFrame:
    """Writes sweep.csv from the finished runs of a sweep: a row a level, ordered by it, and returns it."""
    rows = []
    for run in folder.glob("level-*"):
        if not (run / "export").exists():
            continue
        epochs = read_table(run / "epochs.csv", ("train_loss", "eval_loss", "eval_accuracy"))
        steps = read_table(run / "log.csv", ("flooded",))
        last = epochs.iloc[-1]
        rows.append(
            {
                "flood_level": float(run.name.removeprefix("level-")),
                "eval_accuracy": last["eval_accuracy"],
                "eval_loss": last["eval_loss"],
                "train_loss": last["train_loss"],
                "flooded": steps["flooded"].mean(),
                "lowest_eval_loss": epochs["eval_loss"].min(),
            }
        )
    table = pd.DataFrame(rows).sort_values("flood_level")
    with replacing(folder / "sweep.csv") as temporary:
        table.to_csv(temporary, index=False)
    return table


def _train(options: list[str], level: float, run: Path) -> None:
    """Trains in a process of its own, so that the memory of one level is free before the next."""
    chosen = ["--method", "flooding", "--flood-level", str(level), "--output-dir", str(run)]
    done = subprocess.run(command_line("train", [*options, *chosen]), check=False)  # noqa: S603  our own command
    if done.returncode in (130, 143):
        raise KeyboardInterrupt if done.returncode == 130 else Terminated
    if done.returncode:
        raise UserError(f"the run at level {level:g} failed; see above, mend it and give the same command again")
