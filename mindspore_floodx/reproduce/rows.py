"""The rows of the tables: which cells belong together, being seeds of one experiment."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..methods import FLOODING as WITH_LEVEL
from .labels import ATTACKS, BASELINE, DATASETS, METHODS, label, ordered
from .results import Result, swept_level


@dataclass(frozen=True)
class Row:
    """Cells that differ in their seed alone.

    Attributes:
        name: what the row is called in tables and figures.
        cells: a cell a seed, by seed.
    """

    dataset: str
    method: str
    name: str
    cells: tuple[Result, ...]
    tag: str | None = None

    @property
    def seeds(self) -> list[int]:
        return [cell["seed"] for cell in self.cells]

    def figures(self, attack: str, figure: str, kind: str = "raw") -> list[float]:
        """Returns a figure of the attack's summaries, a value a seed that has it."""
        found = [summary_of(cell, attack, kind) for cell in self.cells]
        return [each[figure] for each in found if each is not None and each.get(figure) is not None]

    def levels(self) -> list[float]:
        """Returns the distinct flood levels of the runs, as given or as found, by seed."""
        return list(dict.fromkeys(level for cell in self.cells if (level := flood_level(cell)) is not None))


def datasets_of(results: Iterable[Result]) -> list[str]:
    return ordered(DATASETS, (result["dataset"] for result in results))


def attacks_of(results: Iterable[Result]) -> list[str]:
    return ordered(ATTACKS, (attack for result in results for attack in result["attacks"]))


def summary_of(result: Result, attack: str, kind: str = "raw") -> dict | None:
    """Returns the summary of a cell's attack, None if it has none."""
    return (result["attacks"].get(attack) or {}).get(kind)


def epoch_records(result: Result) -> list[dict]:
    """Returns the records of a cell that was attacked after each epoch, of its first attack in the tables' order."""
    records = result["by_epoch"] or []
    first = ordered(ATTACKS, (record["attack"] for record in records))[:1]
    return [record for record in records if record["attack"] in first]


def clean_accuracy(result: Result) -> float:
    """Returns the accuracy on the whole evaluation set, as the attacks measured it; else that of the last epoch."""
    for attack in attacks_of([result]):
        if (found := summary_of(result, attack)) and found.get("clean_accuracy") is not None:
            return found["clean_accuracy"]
    return result["epochs"][-1]["eval_accuracy"]


def flood_level(result: Result) -> float | None:
    """Returns the level that a run was flooded at: the one given, or the one Flooding-X found."""
    if result["flood_level"]:
        return result["flood_level"]["level"]
    return result["settings"].get("flood_level") if result["method"] in WITH_LEVEL else None


def main_rows(results: Sequence[Result], dataset: str) -> list[Row]:
    """Returns the rows of a data set in the tables' order, without extra experiments and without the sweep's cells.

    Of flooding's sweep there is one row, "flooding (best b)": the cells of the level that `best_level` chooses, and of
    the variant `best`, as far as they were trained at that level.
    """
    chosen = [result for result in results if result["dataset"] == dataset and result["tag"] is None]
    rows = []
    for method in ordered(METHODS, (result["method"] for result in chosen)):
        cells = [result for result in chosen if result["method"] == method]
        plain = [cell for cell in cells if cell["variant"] is None]
        if plain:
            rows.append(_row(label(METHODS, method), plain))
        if len(plain) < len(cells) and (best := _best(cells)):
            rows.append(_row(f"{label(METHODS, method)} (best b)", best))
    return rows


def sweep(results: Iterable[Result], dataset: str) -> list[Result]:
    """Returns the cells of flooding's sweep on a data set, without extra experiments, by level and seed."""
    cells = [
        result
        for result in results
        if result["dataset"] == dataset and result["tag"] is None and swept_level(result) is not None
    ]
    return sorted(cells, key=lambda cell: (swept_level(cell), cell["seed"]))


def best_level(cells: Sequence[Result]) -> float | None:
    """Returns the level of a sweep with the best mean raw accuracy under attack; the lowest of equally good ones.

    The mean is over the attacks that all its cells have, and over seeds. None without such an attack.
    """
    attacks = [attack for attack in attacks_of(cells) if all(summary_of(cell, attack) for cell in cells)]
    if not attacks:
        return None
    means: dict[float, list[float]] = {}
    for cell in cells:
        found = [summary["accuracy_under_attack"] for attack in attacks if (summary := summary_of(cell, attack))]
        level = swept_level(cell)
        if level is not None:
            means.setdefault(level, []).append(statistics.fmean(found))
    return max(sorted(means), key=lambda level: statistics.fmean(means[level]))


def further_rows(results: Iterable[Result], dataset: str) -> list[Row]:
    """Returns the rows of the extra experiments of a data set: one a method, level of a sweep and tag."""
    groups: dict[tuple[str, str, str | None], list[Result]] = {}
    for result in results:
        if result["dataset"] == dataset and result["tag"] is not None:
            variant = None if result["variant"] == "best" else result["variant"]
            groups.setdefault((result["tag"], result["method"], variant), []).append(result)
    rows = []
    for (tag, method, variant), cells in groups.items():
        level = "" if variant is None else f" (b = {variant[1:]})"
        rows.append(_row(f"{label(METHODS, method)}{level}, {tag}", cells))
    return rows


def find(rows: Iterable[Row], method: str) -> Row | None:
    """Returns the row of a method; of flooding that of the sweep, if there are two."""
    found = [row for row in rows if row.method == method]
    return found[-1] if found else None


def baseline_of(row: Row, main: Sequence[Row], further: Sequence[Row]) -> Row | None:
    """Returns the fine-tuning that a row is held against: with the row's tag, else the main one."""
    if row.tag is not None:
        same = [each for each in further if each.method == BASELINE and each.tag == row.tag]
        if same and row.method != BASELINE:
            return same[0]
    return None if row.method == BASELINE and row.tag is None else find(main, BASELINE)


def _best(cells: Sequence[Result]) -> list[Result]:
    swept = [cell for cell in cells if swept_level(cell) is not None]
    level = best_level(swept) if swept else None
    others = [cell for cell in cells if cell["variant"] == "best"]
    if level is None:
        return others
    found = [cell for cell in swept if swept_level(cell) == level]
    seeds = {cell["seed"] for cell in found}
    return found + [cell for cell in others if flood_level(cell) == level and cell["seed"] not in seeds]


def lowest_before_flooding(cell: Result) -> int | None:
    """Returns the sub-epoch with the lowest evaluation loss of those before flooding, which changes what follows.

    They are the sub-epochs whose accordance was measured; None where none has an evaluation loss.
    """
    known = [
        row for row in cell["accordance"] if row.get("eval_loss") is not None and row.get("accordance") is not None
    ]
    return min(known, key=lambda row: row["eval_loss"])["sub_epoch"] if known else None


def _row(name: str, cells: Iterable[Result]) -> Row:
    cells = tuple(sorted(cells, key=lambda cell: cell["seed"]))
    return Row(cells[0]["dataset"], cells[0]["method"], name, cells, cells[0]["tag"])
