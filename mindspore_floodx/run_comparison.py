"""Runs side by side: settings that differ, their figures, and what makes the figures unfit to be compared."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .attack_metrics import RESOURCE_NOTES
from .comparison import paired_outcome
from .errors import UserError
from .run_files import RunFiles, read_run_files

ABSENT = "absent"  # of a setting that an older run does not know
_PLACES = ("output_dir", "overwrite")  # settings that say where a run lies, not what it is
_ATTACK_FIGURES = (
    "clean_accuracy",
    "accuracy_under_attack",
    "attack_success_rate",
    "avg_queries",
    "avg_words_changed",
)
_SAME_IN_AN_ATTACK = {  # what has to be equal for two summaries of one attack to be compared, and its name
    "example_ids": "other examples",
    "data_fingerprint": "other evaluation data",
    "resource_sha256": "other resources",
    "recipe": "another recipe",
    "max_length": "another longest input",
    "versions": "other versions",
}


@dataclass(frozen=True)
class Row:
    """One figure of every run; `values` and the 95% `intervals` [low, high] are None where there is none."""

    name: str
    values: list[Any]
    intervals: list[list[float] | None]


@dataclass(frozen=True)
class Comparison:
    """What `compare_runs` returns.

    Attributes:
        runs: the runs' names: their folders', or their paths where folders are called alike.
        settings: the values of each setting that differs, by its name.
        groups: figures by the title of their group. Shares are fractions, losses in nats.
        warnings: sentences about what makes figures unfit to be compared.
    """

    runs: list[str]
    settings: dict[str, list[Any]] = field(default_factory=dict)
    groups: dict[str, list[Row]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def compare_runs(runs: Sequence[str | os.PathLike]) -> Comparison:
    """Compares two or more runs by their result files.

    Raises:
        UserError: fewer than two different folders, or one that is no run's or is damaged.
    """
    paths = [Path(run) for run in runs]
    twice = [path for i, path in enumerate(paths) if path.resolve() in [other.resolve() for other in paths[:i]]]
    if twice:
        raise UserError(f"{twice[0]} is given twice; give different runs")
    if len(paths) < 2:
        raise UserError("give at least two run folders to compare")
    files = [read_run_files(path) for path in paths]
    names = [path.resolve().name for path in paths]
    result = Comparison(names if len(set(names)) == len(names) else [str(path) for path in paths])
    result.settings.update(_settings(files))
    result.groups["training"] = _training(files)
    result.groups["last epoch"] = _epoch([run.epochs[-1] if run.epochs else None for run in files])
    result.groups["best epoch (highest eval_accuracy)"] = _epoch([run.best_epoch for run in files])
    result.warnings.extend(_unequal(files, result.runs))
    for folder, resources in _attacks(files):
        title = f"attack {folder}{RESOURCE_NOTES.get(resources, f' ({resources} resources)')}"
        summaries = [_summary(run, folder, resources) for run in files]
        found = _unequal_attacks(summaries, result.runs, title)
        result.warnings.extend(found)
        result.groups[title] = _attack(summaries)
        if not found:
            result.groups[title] += _paired(files, folder, summaries)
    return result


def _settings(files: list[RunFiles]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for run in files for name in run.settings if name not in _PLACES)
    values = {name: [run.settings.get(name, ABSENT) for run in files] for name in names}
    return {name: each for name, each in values.items() if any(value != each[0] for value in each)}


def _row(name: str, values: list[Any], intervals: list[Any] | None = None) -> Row:
    return Row(name, values, intervals or [None] * len(values))


def _training(files: list[RunFiles]) -> list[Row]:
    return [
        _row("finished", [run.finished for run in files]),
        _row("epochs", [len(run.epochs) for run in files]),
        _row("flood_level", [run.flood_level for run in files]),
        _row("flooded", [None if run.flood_level is None else run.flooded for run in files]),
        _row("lowest_eval_loss", [min((row["eval_loss"] for row in run.epochs), default=None) for run in files]),
        _row("seconds", [sum(row["seconds"] for row in run.epochs) if run.epochs else None for run in files]),
    ]


def _epoch(rows: list[dict[str, float] | None]) -> list[Row]:
    names = dict.fromkeys(name for row in rows if row for name in row if name != "seconds")
    return [_row(name, [None if row is None else row.get(name) for row in rows]) for name in names]


def _attacks(files: list[RunFiles]) -> list[tuple[str, str]]:
    """Every attack with the resources it had: figures with different ones are never in one row."""
    found = {(folder, summary["resources"]): None for run in files for folder, summary in run.attacks.items()}
    return sorted(found)


def _summary(run: RunFiles, folder: str, resources: str) -> dict[str, Any] | None:
    summary = run.attacks.get(folder)
    return summary if summary is not None and summary["resources"] == resources else None


def _attack(summaries: list[dict[str, Any] | None]) -> list[Row]:
    rows = [_row("num_examples", [None if each is None else each["num_examples"] for each in summaries])]
    for name in _ATTACK_FIGURES:
        values = [None if each is None else each.get(name) for each in summaries]
        rows.append(_row(name, values, [each.get(f"{name}_interval") if each else None for each in summaries]))
    return rows


def _paired(files: list[RunFiles], folder: str, summaries: list[dict[str, Any] | None]) -> list[Row]:
    """McNemar's exact test of each run against the first one that was attacked."""
    attacked = [i for i, summary in enumerate(summaries) if summary is not None]
    if len(attacked) < 2:
        return []
    values: list[float | None] = [None] * len(files)
    for i in attacked[1:]:
        values[i] = paired_outcome(files[attacked[0]].path, files[i].path, folder)["p_value"]
    return [_row("p_value", values)]


def _unequal(files: list[RunFiles], names: list[str]) -> list[str]:
    """Warnings of runs that are unfinished, or made with other versions or data."""
    warnings = [f"{name} is not finished" for name, run in zip(names, files, strict=True) if not run.finished]
    silent = [name for name, run in zip(names, files, strict=True) if not run.environment]
    warnings += [f"{name} has no environment.json: its versions and data are not known" for name in silent]
    known = [run.environment for run in files if run.environment]
    versions = [{"python": each.get("python"), **each.get("packages", {})} for each in known]
    for package in dict.fromkeys(package for each in versions for package in each):
        found = [str(each.get(package)) for each in versions]
        if len(set(found)) > 1:
            warnings.append(f"versions differ: {package} {' | '.join(found)}")
    data = [each.get("data", {}) for each in known]
    for split in dict.fromkeys(split for each in data for split in each):
        found = [_sentence(each.get(split)) for each in data]
        if len({(each.get(split) or {}).get("sha256") for each in data}) > 1:
            warnings.append(f"data differ: {split} is {' | '.join(found)}")
    return warnings


def _sentence(split: dict[str, Any] | None) -> str:
    if split is None:
        return "not there"
    note = ", a part of the official data" if split.get("partial") else ""
    return f"{split.get('source')} ({split.get('examples'):,} examples{note}, sha256 {str(split.get('sha256'))[:8]})"


def _unequal_attacks(summaries: list[dict[str, Any] | None], names: list[str], title: str) -> list[str]:
    attacked = [(name, each) for name, each in zip(names, summaries, strict=True) if each is not None]
    warnings = []
    for name, summary in attacked[1:]:
        first = attacked[0][1]
        differing = [word for key, word in _SAME_IN_AN_ATTACK.items() if summary.get(key) != first.get(key)]
        if differing:
            warnings.append(f"{title}: {name} has {' and '.join(differing)} than {attacked[0][0]}")
    return warnings
