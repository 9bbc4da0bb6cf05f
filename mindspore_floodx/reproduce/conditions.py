"""What every table and figure says of itself: encoder, data part, attack resources, number of examples, seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .labels import DATASETS, RESOURCES, encoder, label
from .results import Result
from .rows import attacks_of, best_level, datasets_of, summary_of, sweep


def conditions(cells: Sequence[Result], attacked: bool = True) -> str:
    """Returns sentences on the encoder, the data, the epochs and the seeds of the cells; of several kinds, all.

    Args:
        cells: at least one.
        attacked: also tell the attacks' resources and on how many examples they ran.
    """
    models = sorted({encoder(cell["settings"]["model"]) for cell in cells})
    epochs = sorted({len(cell["epochs"]) for cell in cells})
    parts = [f"Encoder {_listed(models)}, {_span(epochs)} epochs"]
    for name in datasets_of(cells):
        of_name = [cell for cell in cells if cell["dataset"] == name]
        parts.append(f"{label(DATASETS, name)}: {' or '.join(_distinct(_data(cell) for cell in of_name))}")
    if attacked and (told := attack_conditions(cells)):
        parts.append(told)
    parts.append(seeds_line(cells))
    return ". ".join(parts) + "."


def attack_conditions(cells: Iterable[Result]) -> str:
    """Returns the resources of the attacks and the number of attacked examples; empty without an attack."""
    cells = list(cells)
    summaries = [found for cell in cells for name in attacks_of([cell]) if (found := summary_of(cell, name))]
    if not summaries:
        return ""
    resources = _distinct(label(RESOURCES, found.get("resources", "unknown resources")) for found in summaries)
    counts = sorted({found["num_examples"] for found in summaries})
    warning = ", which compare models with each other, not with papers" if "stand-in resources" in resources else ""
    return f"Attacks on {_span(counts)} random evaluation examples with {' and '.join(resources)}{warning}"


def seeds_line(cells: Iterable[Result]) -> str:
    """Returns ``Seed 0`` or ``Seeds 0, 1, 2``."""
    seeds = sorted({cell["seed"] for cell in cells})
    return f"Seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def sweep_note(results: Sequence[Result], dataset: str) -> str:
    """Returns how the level of the row "flooding (best b)" was chosen; empty if there was no sweep."""
    cells = sweep(results, dataset)
    level = best_level(cells) if cells else None
    if level is None:
        return ""
    levels = sorted({cell["settings"]["flood_level"] for cell in cells})
    return (
        f"flooding (best b): of the levels {', '.join(f'{each:g}' for each in levels)} the one with the highest mean "
        f"raw Aua% over the attacks ({seeds_line(cells).lower()}), b = {level:g}. It was chosen on the attacked "
        "examples themselves, as a search on the test set does, which flatters it at that seed"
    )


def _data(cell: Result) -> str:
    train, evaluation = cell["data"]["train"], cell["data"]["evaluation"]
    return (
        f"{train['examples']:,} training examples ({_source(train)}), "
        f"{evaluation['examples']:,} evaluation examples ({_source(evaluation)})"
    )


def _source(part: dict) -> str:
    return f"{part['source']}{', a part of the data set' if part['partial'] else ''}"


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _listed(values: Sequence[str]) -> str:
    return " and ".join(values)


def _span(values: Sequence[int]) -> str:
    return f"{values[0]:,}" if len(values) == 1 else f"{values[0]:,} to {values[-1]:,}"
