"""What a grid's cells are, how far each is, and how long the rest will take, told from the cells that are finished."""

from __future__ import annotations

import statistics
from typing import Any

from .cells import Places, is_done
from .collect import read_if_there
from .grid import Cell, Grid


def overview(chosen: Grid, grid: Grid, places: Places) -> list[dict[str, str]]:
    """Returns a row a cell: its id, its state, its attacks and the hours it took or is expected to take."""
    known = _seconds_of_finished(grid, places)
    rows = []
    for cell in chosen.cells:
        seconds = known.get(cell.id) or _expected(cell, grid, known)
        rows.append(
            {
                "cell": cell.id,
                "state": _state(cell, places),
                "attacks": f"{', '.join(cell.plan.attacks)} on {cell.plan.num_examples}",
                "minutes": "-" if seconds is None else f"{'' if cell.id in known else '~'}{seconds / 60:.0f}",
            }
        )
    for dataset in chosen.timing:
        done = (places.output / "timing" / f"{dataset}.json").exists()
        row = {"cell": f"{dataset}-timing", "state": "finished" if done else "to do", "attacks": "", "minutes": "-"}
        rows.append(row)
    return rows


def estimate(chosen: Grid, grid: Grid, places: Places) -> str:
    """Returns a sentence: how many cells are left, and the time they will take as far as it can be told."""
    known = _seconds_of_finished(grid, places)
    left = [cell for cell in chosen.cells if not is_done(cell, places)]
    expected = [_expected(cell, grid, known) for cell in left]
    told = [seconds for seconds in expected if seconds is not None]
    line = f"{len(chosen.cells) - len(left)} of {len(chosen.cells)} cells are finished"
    if told:
        line += (
            f"; {len(told)} of the {len(left)} others will take about {sum(told) / 3600:.1f} hours, as earlier ones did"
        )
    if len(told) < len(left):
        line += f"; of {len(left) - len(told)} nothing is known until a cell of the same data set is finished"
    return line


def _state(cell: Cell, places: Places) -> str:
    if is_done(cell, places):
        return "finished"
    failed = read_if_there(places.cell(cell.id) / "failed.json")
    return f"failed: {failed['step']}" if failed else "to do"


def _seconds_of_finished(grid: Grid, places: Places) -> dict[str, float]:
    found: dict[str, float] = {}
    for cell in grid.cells:
        result: dict[str, Any] | None = read_if_there(places.cell(cell.id) / "result.json")
        if result:
            found[cell.id] = result["seconds"]["train"] + result["seconds"]["attack"]
    return found


def _expected(cell: Cell, grid: Grid, known: dict[str, float]) -> float | None:
    """The median of the finished cells of the same data set and method; else of the data set, if there are any."""
    of_dataset = [other for other in grid.cells if other.id in known and other.dataset == cell.dataset]
    of_method = [other for other in of_dataset if (other.method, other.tag) == (cell.method, cell.tag)]
    times = [known[other.id] for other in of_method or of_dataset]
    return statistics.median(times) if times else None
