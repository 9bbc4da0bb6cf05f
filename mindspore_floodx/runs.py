"""The run folder: what is written while a model trains, so that the run explains itself afterwards."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .errors import UserError
from .files import write_json, write_text
from .settings import TrainSettings

LOG_COLUMNS = ("step", "epoch", "loss", "flooded", "learning_rate", "tokens_per_second")
RESULTS = (
    "epochs.csv",
    "accordance.csv",
    "accordance_classes.csv",
    "flood_level.json",
    "tensorboard",
    "checkpoints",
    "export",
    "attacks",
    "plots",
)
PACKAGES = ("mindspore-floodx", "mindspore", "numpy", "pandas", "torch", "transformers", "tokenizers", "textattack")


def demand_free(settings: TrainSettings) -> None:
    """Checks that a run with these settings may write its folder.

    A run that is finished has an export/ folder and is only replaced when told to; an unfinished one is begun again.

    Raises:
        UserError: the folder holds a finished run or other files, or is a file.
    """
    path = settings.run_folder
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; a run needs a folder, so choose another --output-dir")
    if path.exists() and any(path.iterdir()) and not _is_run(path):
        raise UserError(f"{path} holds files that are no run's; choose another --output-dir")
    if (path / "export").exists() and not settings.overwrite:
        raise UserError(f"{path} holds a finished run; choose another --output-dir, or add --overwrite")
    if path.resolve() in (Path(settings.model).resolve(), *Path(settings.model).resolve().parents):
        raise UserError(f"{path} holds the model to train, which the run would replace; choose another --output-dir")


def is_finished(settings: TrainSettings, fingerprints: dict[str, Any] | None = None) -> bool:
    """Returns whether the run folder holds the finished run of just these settings and, if given, this data."""
    path = settings.run_folder
    try:
        made_with = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
        data = json.loads((path / "environment.json").read_text(encoding="utf-8"))["data"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return False
    wanted = settings.to_dict() | {"overwrite": False}
    same_data = fingerprints is None or data == fingerprints
    return (path / "export").exists() and made_with | {"overwrite": False} == wanted and same_data


def settings_of(run: Path, given: Mapping[str, Any] | None = None) -> TrainSettings:
    """Returns the settings a run was made with (its config.yaml); those that are `given` replace the run's.

    Raises:
        UserError: config.yaml cannot be read, holds no settings, or what is given is out of range.
    """
    try:
        made_with = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        return TrainSettings(**(made_with | dict(given or {})))
    except (OSError, UnicodeDecodeError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"{run / 'config.yaml'} holds no settings of a run ({error}); give a run folder") from None


def _is_run(path: Path) -> bool:
    try:
        with open(path / "log.csv", encoding="utf-8", errors="replace") as file:
            return file.readline().startswith("step,epoch,loss")
    except OSError:
        return False


class RunFolder:
    """A run's folder: config.yaml, environment.json, log.csv, epochs.csv, TensorBoard events, and what others add.

    What an earlier run left in the folder is removed, since it belongs to another model; only the checkpoint of an
    unfinished run stays until this run has its own.

    Raises:
        UserError: as `demand_free`, or the folder cannot be written.
    """

    def __init__(self, settings: TrainSettings):
        demand_free(settings)
        self.path = settings.run_folder
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for name in (*RESULTS, "checkpoint") if settings.overwrite else RESULTS:
                if (self.path / name).is_dir():
                    shutil.rmtree(self.path / name)
                else:
                    (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}; choose another --output-dir") from None
        write_text(self.path / "config.yaml", yaml.safe_dump(settings.to_dict(), sort_keys=False))
        self._steps = CsvTable(self.path / "log.csv", LOG_COLUMNS)
        self._epochs: CsvTable | None = None
        self._events: Any = None

    def write_environment(self, settings: TrainSettings, fingerprints: dict[str, Any]) -> None:
        """Writes environment.json: versions, device, threads, seed and the data's fingerprint."""
        write_json(
            self.path / "environment.json",
            {
                "python": platform.python_version(),
                "packages": package_versions(),
                "platform": platform.platform(),
                "device": settings.device,
                "threads": settings.threads or os.cpu_count(),
                "seed": settings.seed,
                "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
                "data": fingerprints,
            },
        )

    def log_step(self, row: dict[str, Any]) -> None:
        self._steps.add(row)
        for name in ("loss", "learning_rate", "tokens_per_second"):
            self._event(f"train/{name}", row[name], row["step"])

    def log_epoch(self, row: dict[str, Any], step: int) -> None:
        if self._epochs is None:
            self._epochs = CsvTable(self.path / "epochs.csv", tuple(row))
        self._epochs.add(row)
        for name, value in row.items():
            if name.startswith("eval_"):
                self._event(f"eval/{name.removeprefix('eval_')}", value, step)

    def _event(self, tag: str, value: float, step: int) -> None:
        if self._events is None:
            from tensorboard.summary import Writer

            self._events = Writer(str(self.path / "tensorboard"))
        self._events.add_scalar(tag, value, step)

    def close(self) -> None:
        for each in (self._steps, self._epochs, self._events):
            if each is not None:
                each.close()


class CsvTable:
    """A CSV file that grows by a row at a time and is readable at any moment."""

    def __init__(self, path: Path, columns: tuple[str, ...]):
        self._file = open(path, "w", newline="", encoding="utf-8", buffering=1)
        self._writer = csv.DictWriter(self._file, columns, lineterminator="\n")
        self._writer.writeheader()

    def add(self, row: dict[str, Any]) -> None:
        self._writer.writerow(
            {name: f"{value:.7g}" if isinstance(value, float) else value for name, value in row.items()}
        )

    def close(self) -> None:
        self._file.close()


def package_versions() -> dict[str, str | None]:
    """Returns the versions of the packages that results depend on; None for one that is not installed."""
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
