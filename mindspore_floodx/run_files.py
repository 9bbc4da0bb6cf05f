"""A run folder read back: settings, environment, epochs and attacks, from its files alone and without a framework."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UserError
from .untrusted import read_json, read_yaml


@dataclass(frozen=True)
class RunFiles:
    """What a run folder says.

    Attributes:
        path: the folder.
        settings: config.yaml.
        environment: environment.json (python, packages, platform, data ...); {} where there is none.
        epochs: the rows of epochs.csv, numbers by column; losses in nats, accuracies as fractions.
        flooded: share of examples whose loss a step raised, the mean over log.csv; None without a step.
        decision: flood_level.json of Flooding-X; None where there is none.
        attacks: summary.json of each finished attack, by its folder's name.
    """

    path: Path
    settings: dict[str, Any]
    environment: dict[str, Any]
    epochs: list[dict[str, float]]
    flooded: float | None
    decision: dict[str, Any] | None
    attacks: dict[str, dict[str, Any]]

    @property
    def finished(self) -> bool:
        """Whether the training came to its end: the export is its last act."""
        return (self.path / "export" / "config.json").is_file()

    @property
    def flood_level(self) -> float | None:
        """The level b: the setting's, or the one that the run found; None without flooding."""
        given = self.settings.get("flood_level")
        return given if given is not None or self.decision is None else self.decision.get("level")

    @property
    def best_epoch(self) -> dict[str, float] | None:
        """The row of the epoch with the highest evaluation accuracy, the first of several; None without an epoch."""
        return max(self.epochs, key=lambda row: row["eval_accuracy"], default=None)


def read_run_files(run: str | os.PathLike) -> RunFiles:
    """Reads a run folder, finished or not.

    Raises:
        UserError: no run folder, or a file of it is damaged.
    """
    path = Path(run)
    if not path.is_dir():
        raise UserError(f"there is no folder {path}; give a run folder")
    settings = _read(path / "config.yaml", read_yaml)
    if not isinstance(settings, dict):
        raise UserError(f"{path} has no config.yaml with a run's settings; give a folder that run/train.py wrote")
    flooded = [float(row["flooded"]) for row in read_rows(path / "log.csv", ("flooded",))]
    return RunFiles(
        path,
        settings,
        _read(path / "environment.json", read_json) or {},
        [
            {name: float(value) for name, value in row.items()}
            for row in read_rows(path / "epochs.csv", ("epoch", "train_loss", "eval_loss", "eval_accuracy", "seconds"))
        ],
        sum(flooded) / len(flooded) if flooded else None,
        _read(path / "flood_level.json", read_json),
        {file.parent.name: _read(file, read_json) for file in sorted((path / "attacks").glob("*/summary.json"))},
    )


def _read(path: Path, read: Callable[[Path], Any]) -> Any:
    """The content of a file; None if there is none."""
    return read(path) if path.exists() else None


def read_rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Returns the whole rows of a CSV file, without a last one that is still being written; [] if there is no file.

    Raises:
        UserError: it cannot be read, or a row has no number in one of the `columns`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}; restore it, or train again") from None
    rows = list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))
    try:
        for row in rows:
            for name in columns:
                float(row[name])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} is damaged: a row without a number for {name}; restore it, or train again") from None
    return rows
