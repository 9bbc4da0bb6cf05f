"""Reads what the finished cells of a grid left: result.json, the attacked examples, and the timing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..untrusted import MAX_JSON_BYTES, parse_json, read_text
from .labels import DATASETS, METHODS, ordered

Result = dict[str, Any]
_NEEDED = ("id", "dataset", "method", "seed", "settings", "data", "statistics", "epochs", "attacks")
_OPTIONAL = ("variant", "tag", "accordance", "flood_level", "smoothness", "by_epoch")


def read_results(folder: str | Path) -> list[Result]:
    """Returns the content of every ``cells/<id>/result.json`` under `folder`: the finished cells.

    They are sorted by data set and method in the order of the tables, extra experiments (with a tag) after the others,
    flooding's sweep by its level, then by seed.

    Raises:
        UserError: there is no finished cell, or a file that is no result of a cell.
    """
    paths = sorted(Path(folder).glob("cells/*/result.json"))
    if not paths:
        raise UserError(f"{folder} has no finished cell (cells/*/result.json); run the grid first")
    results = [_read_result(path) for path in paths]
    places = [
        ordered(names, (each[key] for each in results)) for names, key in ((DATASETS, "dataset"), (METHODS, "method"))
    ]

    def place(result: Result) -> tuple:
        dataset, method = places[0].index(result["dataset"]), places[1].index(result["method"])
        level = swept_level(result)
        variant = (level is None, level or 0.0, result["variant"] or "")
        return dataset, result["tag"] is not None, result["tag"] or "", method, variant, result["seed"]

    return sorted(results, key=place)


def swept_level(result: Result) -> float | None:
    """Returns the flood level of a cell of flooding's sweep (variant ``b0.1``), None for any other cell."""
    variant = result["variant"]
    if not variant or not variant.startswith("b") or variant == "best":
        return None
    return float(variant[1:])


def read_examples(folder: str | Path, cell_id: str, attack: str, kind: str = "raw") -> list[dict[str, Any]]:
    """Returns the attacked examples of a cell, sorted by id; none if the cell has no such file.

    Args:
        folder: of the grid's results.
        kind: ``raw``, or ``calibrated`` for the attack on calibrated logits.

    Raises:
        UserError: a line that is not the record of an example, or an example that is there twice.
    """
    path = Path(folder) / "cells" / cell_id / f"examples-{attack}{'' if kind == 'raw' else f'-{kind}'}.jsonl"
    if not path.exists():
        return []
    records: dict[int, dict[str, Any]] = {}
    # lines end with a newline and nothing else: texts hold other characters that str.splitlines takes for ends
    for number, line in enumerate(read_text(path, MAX_JSON_BYTES).split("\n"), 1):
        if not line:
            continue
        try:
            record = json.loads(line)
            id, _ = record["id"], record["result"]
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{path}, line {number} is no record of an attacked example; remove the folder {path.parent} and run "
                "the grid again"
            ) from None
        if id in records:
            raise UserError(
                f"{path}, line {number} has example {id} for a second time; remove {path.parent}, run again"
            )
        records[id] = record
    return [records[id] for id in sorted(records)]


def read_timing(folder: str | Path) -> dict[str, dict[str, Any]]:
    """Returns the content of every ``timing/<dataset>.json`` under `folder`, by data set, in the tables' order.

    Raises:
        UserError: a file that is no result of `floodx-timing`.
    """
    found = {}
    for path in Path(folder).glob("timing/*.json"):
        content = _json(path)
        rows = content.get("rows") if isinstance(content, dict) else None
        if not rows or not all({"method", "seconds_per_epoch", "ratio"} <= set(row) for row in rows):
            raise UserError(
                f"{path} is no result of the timing: it lacks rows with method, seconds_per_epoch and ratio"
            )
        found[path.stem] = content
    return {name: found[name] for name in ordered(DATASETS, found)}


def _read_result(path: Path) -> Result:
    content = _json(path)
    if not isinstance(content, dict):
        raise UserError(
            f"{path} is no result of a cell: it is no JSON object; remove its folder and run the grid again"
        )
    if missing := [name for name in _NEEDED if content.get(name) is None]:
        raise UserError(
            f"{path} is no result of a cell: it lacks {', '.join(missing)}; remove its folder and run the grid again"
        )
    result = dict.fromkeys(_OPTIONAL) | content
    try:
        swept_level(result)
        figures = [summaries["raw"] for summaries in content["attacks"].values()]
        broken = not all({"accuracy_under_attack", "num_examples"} <= set(each) for each in figures)
        broken |= not all({"train", "evaluation"} <= set(content[name]) for name in ("data", "statistics"))
    except (ValueError, KeyError, TypeError, AttributeError):
        broken = True
    if broken:
        raise UserError(
            f"{path} is no result of a cell: its data, its variant or an attack's raw figures cannot be read; remove "
            "its folder and run the grid again"
        )
    return result


def _json(path: Path) -> Any:
    try:
        return parse_json(read_text(path, MAX_JSON_BYTES))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); remove its folder and run the grid again") from None
