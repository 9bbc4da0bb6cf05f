"""The command behind run/reproduce.py: a grid of runs, and from them the paper's tables and figures."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from ..device import DEVICES
from ..errors import UserError, sigterm_raises
from ..files import demand_writable
from ..reproduce.cells import Outcome, Places, run_grid
from ..reproduce.grid import Grid, find_grid, presets, read_grid
from ..reproduce.overview import estimate, overview
from ..settings import config_folder
from .options import number_or

EXAMPLES = """\
examples:
  # the paper: five data sets, its seven methods and those that came later, three attacks, BERT-base
  python run/reproduce.py --device GPU

  # what two CPU cores can do in some days, with the bundled encoder; without a network, with stand-in resources
  python run/reproduce.py --preset cpu --data-dir DATA --neighbours FILE --masked-lm FOLDER --dry-run
  python run/reproduce.py --preset cpu --data-dir DATA --neighbours FILE --masked-lm FOLDER --only 'sst2-finetune-*'

  # the tables, figures and the page once more, from the results that are there
  python run/reproduce.py --preset cpu --report

Each cell of the grid is a training run, attacked and measured. The same command goes on where it was stopped, and
several, on one machine or on several with a shared folder, take different cells. Files: cells/ (the results, small),
tables/, figures/, claims.md, report.html; the run folders themselves lie in --runs-dir.
"""


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    path = find_grid(options.preset)
    grid = read_grid(path)
    output = Path(options.output_dir or f"runs/reproduce-{grid.name}")
    places = Places(
        output=output,
        runs=Path(options.runs_dir) if options.runs_dir else output / "runs",
        data_dir=options.data_dir,
        device=options.device,
        neighbours=options.neighbours,
        masked_lm=options.masked_lm,
        workers=options.workers,
    )
    chosen = grid.choose(options.only)
    if options.dry_run:
        print(tabulate(overview(chosen, grid, places), headers="keys", tablefmt="simple", colalign=("left",) * 4))
        print(f"\n{estimate(chosen, grid, places)}")
        return 0
    demand_writable(output, ("cells",))
    _keep_grid(path, output)
    code = 0
    if not options.report:
        _demand_resources(chosen, places)
        with sigterm_raises():
            outcome = run_grid(chosen, places, lambda line: print(f"\n== {line}", flush=True))
        _tell(outcome)
        code = 1 if outcome.failed else 0
    _report(output)
    return code


def _demand_resources(grid: Grid, places: Places) -> None:
    """Refuses a grid whose attacks would all fail, before hours go into training.

    Raises:
        UserError: a resource of an attack is missing.
    """
    from ..attack_recipes import BERT_ATTACK_CANDIDATES, AttackSettings, check_settings

    for plan in {(*cell.plan.attacks, cell.plan.resources): cell.plan for cell in grid.cells}.values():
        for attack in (*plan.attacks, *([plan.by_epoch["attack"]] if plan.by_epoch else [])):
            candidates = plan.max_candidates or BERT_ATTACK_CANDIDATES
            check_settings(AttackSettings(attack, plan.resources, places.neighbours, candidates, places.masked_lm))


def _keep_grid(path: Path, output: Path) -> None:
    """Puts the grid's file beside its results; another grid's results are not written over.

    Raises:
        UserError: the folder holds the results of another grid.
    """
    kept = output / "grid.yaml"
    if kept.exists() and read_grid(kept).name != read_grid(path).name:
        raise UserError(f"{output} holds the results of another grid (see {kept}); choose another --output-dir")
    if not kept.exists() or not kept.samefile(path):
        shutil.copyfile(path, kept)


def _tell(outcome: Outcome) -> None:
    print(f"\n{len(outcome.finished)} cells are finished")
    for name, cells in (("another process has", outcome.elsewhere), ("waiting for a sweep", outcome.waiting)):
        if cells:
            print(f"{name}: {', '.join(cells)}")
    for id, reason in outcome.failed.items():
        print(f"failed: {id}: {reason}")


def _report(output: Path) -> None:
    from ..reproduce.report import write_report
    from ..reproduce.write import write_all

    for path in (*write_all(output), write_report(output)):
        print(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reproduce",
        description="Run a grid of trainings and attacks and write the paper's tables and figures from their results.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    names = "|".join(presets())
    add("--preset", default="paper", metavar=f"{names}|FILE", help=f"a grid of {config_folder().name}/grids, or a file")
    add("--device", default="CPU", choices=DEVICES, metavar="CPU|GPU", help="of training and attacked models")
    add("--data-dir", metavar="DIR", help="folder with the data sets in their official layouts; without it, the hub")
    add("--neighbours", metavar="FILE", help="stand-in resources: word neighbours, see run/attack.py")
    add("--masked-lm", metavar="FOLDER", help="masked language model of bertattack, see run/attack.py")
    add("--workers", type=number_or("auto"), default=1, metavar="N|auto", help="processes that attack (default 1)")
    add("--output-dir", metavar="DIR", help="gets results and report (default runs/reproduce-<grid>)")
    add("--runs-dir", metavar="DIR", help="gets the run folders, which are large (default: runs in --output-dir)")
    add("--only", nargs="+", default=[], metavar="PATTERN", help="cells whose name fits, such as 'mrpc-*' '*-pgd-0'")
    add("--dry-run", action="store_true", help="list the cells, what became of them, and what they will take")
    add("--report", action="store_true", help="run nothing; write tables, figures and report from what is there")
    return parser
