"""The rows of the report's table of results: an experiment under an attack, over its seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .labels import ATTACKS, DATASETS, METHODS, RESOURCES, encoder, label
from .results import Result, swept_level
from .rows import Row, attacks_of, clean_accuracy, datasets_of, further_rows, main_rows, summary_of, sweep
from .statistics import mean_and_sd

MAIN, SWEEP, FURTHER = "main rows", "levels of the sweep", "further experiments"
FIGURES: tuple[tuple[str, str, str, int], ...] = (  # heading, name in a summary, raw or calibrated, factor
    ("Clean%", "clean_accuracy", "raw", 100),
    ("Aua%", "accuracy_under_attack", "raw", 100),
    ("Aua% calibrated", "accuracy_under_attack", "calibrated", 100),
    ("Suc%", "attack_success_rate", "raw", 100),
    ("Suc% calibrated", "attack_success_rate", "calibrated", 100),
    ("#Query", "avg_queries", "raw", 1),
    ("Words changed%", "avg_words_changed", "raw", 100),
    ("ECE%", "ece_before", "calibration", 100),
    ("ECE% calibrated", "ece_after", "calibration", 100),
)
_BOLD = ("Clean%", "Aua%", "Aua% calibrated")  # the highest of a data set and attack among the main rows


@dataclass
class Figure:
    """A figure of a row: what is shown, what it is sorted by, and the line below it."""

    text: str
    sort: float | str
    below: str = ""
    best: bool = False


@dataclass
class AttackRow:
    """A row of the table, as the page's template takes it."""

    part: str
    dataset: str
    data_note: str
    method: str
    method_note: str
    order: int  # among the methods
    attack: str
    attack_name: str
    resources: str
    figures: list[Figure]
    examples: int
    seeds: str
    cells: list[Result]


def attack_rows(results: Sequence[Result]) -> list[AttackRow]:
    """Returns the rows of all data sets: the main ones first, then the sweep's levels, then further experiments."""
    groups: list[tuple[str, Row]] = []
    for part, choose in ((MAIN, main_rows), (SWEEP, _sweep_rows), (FURTHER, further_rows)):
        groups += [(part, row) for dataset in datasets_of(results) for row in choose(results, dataset)]
    rows = [
        _attack_row(part, row, attack, order)
        for order, (part, row) in enumerate(groups)
        for attack in attacks_of(row.cells)
    ]
    for column, (heading, *_) in enumerate(FIGURES):
        if heading in _BOLD:
            _mark_best([row for row in rows if row.part == MAIN], column)
    return rows


def experiment_name(result: Result) -> str:
    """Returns what a cell is called where it stands alone: its method, of a sweep its level, and its tag."""
    level = swept_level(result)
    if result["variant"] == "best":
        level = result["settings"].get("flood_level")
    at = "" if level is None else f" (b = {level:g})"
    return f"{label(METHODS, result['method'])}{at}{', ' + result['tag'] if result['tag'] else ''}"


def encoders_of(results: Sequence[Result]) -> list[str]:
    """Returns the distinct names of the encoders that were trained."""
    return list(dict.fromkeys(encoder(result["settings"]["model"]) for result in results))


def resources_of(summary: dict[str, Any]) -> str:
    """Returns the words that go with the figures of an attack."""
    return label(RESOURCES, summary.get("resources", "unknown resources"))


def _sweep_rows(results: Sequence[Result], dataset: str) -> Iterator[Row]:
    for cell in sweep(results, dataset):
        yield Row(dataset, cell["method"], experiment_name(cell), (cell,))


def _attack_row(part: str, row: Row, attack: str, order: int) -> AttackRow:
    cells = [cell for cell in row.cells if summary_of(cell, attack)]
    summaries = [summary for cell in cells if (summary := summary_of(cell, attack))]
    levels = ", ".join(f"{level:.3g}" for level in row.levels())
    partial = any(cell["data"]["train"].get("partial") for cell in cells)
    trained = sorted({cell["data"]["train"]["examples"] for cell in cells})
    count = ", ".join(f"{number:,}" for number in trained)
    return AttackRow(
        part=part,
        dataset=label(DATASETS, row.dataset),
        data_note=f"trained on {count}{', partial' if partial else ''}",
        method=row.name,
        method_note=", ".join([*encoders_of(cells), *([f"b = {levels}"] if levels else [])]),
        order=order,
        attack=label(ATTACKS, attack),
        attack_name=attack,
        resources=" and ".join(dict.fromkeys(resources_of(summary) for summary in summaries)),
        figures=[_figure(cells, attack, name, kind, factor) for _, name, kind, factor in FIGURES],
        examples=max(summary["num_examples"] for summary in summaries),
        seeds="one seed" if len(cells) == 1 else f"{len(cells)} seeds",
        cells=cells,
    )


def _figure(cells: Sequence[Result], attack: str, name: str, kind: str, factor: int) -> Figure:
    values: list[float] = []
    bounds = None
    for cell in cells:
        summary = summary_of(cell, attack, "raw" if kind == "raw" else "calibrated")
        value: float | None = None
        if name == "clean_accuracy":
            value = clean_accuracy(cell)
        elif kind == "calibration":
            value = ((summary or {}).get("calibration") or {}).get("attacked", {}).get(name)
        elif summary is not None:
            value = summary.get(name)
        if value is not None:
            values.append(value)
            bounds = (summary or {}).get(f"{name}_interval")
    mean, deviation = mean_and_sd(values)
    if mean is None:
        return Figure("-", "")
    spread = "" if deviation is None else f" ± {factor * deviation:.1f}"
    below = ""
    if len(cells) == 1 and bounds:
        below = f"{factor * bounds[0]:.1f} to {factor * bounds[1]:.1f}"
    elif len(values) < len(cells):
        below = f"{len(values)} of {len(cells)} seeds"
    return Figure(f"{factor * mean:.1f}{spread}", mean, below)


def _mark_best(rows: Sequence[AttackRow], column: int) -> None:
    for dataset, attack in {(row.dataset, row.attack) for row in rows}:
        figures = [row.figures[column] for row in rows if (row.dataset, row.attack) == (dataset, attack)]
        known = [figure for figure in figures if figure.sort != ""]
        highest = max((figure.text.split(" ")[0] for figure in known), key=float, default=None)
        if len(known) > 1:  # one alone is the best of nothing
            for figure in known:
                figure.best = figure.text.split(" ")[0] == highest
