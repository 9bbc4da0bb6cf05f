"""The run folder: what is written while a model trains, so that the run explains itself afterwards."""

from __future__ import annotations

import csv
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import yaml

from .errors import UserError
from .files import write_json, write_text
from .settings import TrainSettings

LOG_COLUMNS = ("step", "epoch", "loss", "flooded", "learning_rate", "tokens_per_second")
PACKAGES = ("mindspore-floodx", "mindspore", "numpy", "pandas", "torch", "transformers", "tokenizers", "textattack")


class RunFolder:
    """A run's folder: config.yaml, environment.json, log.csv, epochs.csv, TensorBoard events, and what others add.

    A run that is finished has an export/ folder. `start` refuses to touch such a folder unless told to overwrite it;
    an unfinished run in it is begun again.

    Raises:
        UserError: the folder holds a finished run, or cannot be written.
    """

    def __init__(self, settings: TrainSettings):
        self.path = Path(settings.output_dir)
        if (self.path / "export").exists() and not settings.overwrite:
            raise UserError(f"{self.path} holds a finished run; choose another --output-dir, or add --overwrite")
        if self.path.exists() and any(self.path.iterdir()) and not (self.path / "config.yaml").exists():
            raise UserError(f"{self.path} holds files that are no run's; choose another --output-dir")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make {self.path}: {error.strerror}; choose another --output-dir") from None
        write_text(self.path / "config.yaml", yaml.safe_dump(settings.to_dict(), sort_keys=False))
        self._steps = _Table(self.path / "log.csv", LOG_COLUMNS)
        self._epochs: _Table | None = None
        self._events: Any = None

    def write_environment(self, settings: TrainSettings, fingerprints: dict[str, Any]) -> None:
        """Writes environment.json: versions, device, threads, seed and the data's fingerprint."""
        write_json(
            self.path / "environment.json",
            {
                "python": platform.python_version(),
                "packages": {name: _version(name) for name in PACKAGES},
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
            self._epochs = _Table(self.path / "epochs.csv", tuple(row))
        self._epochs.add(row)
        for name, value in row.items():
            if name.startswith("eval_"):
                self._event(f"eval/{name.removeprefix('eval_')}", value, step)

    def _event(self, tag: str, value: float, step: int) -> None:
        if self._events is None:
            from tensorboard.summary import Writer

            for old in (self.path / "tensorboard").glob("events.*"):
                old.unlink()
            self._events = Writer(str(self.path / "tensorboard"))
        self._events.add_scalar(tag, value, step)

    def close(self) -> None:
        for each in (self._steps, self._epochs, self._events):
            if each is not None:
                each.close()


class _Table:
    """A CSV file that grows by a row at a time and is readable at any moment."""

    def __init__(self, path: Path, columns: tuple[str, ...]):
        self._file = open(path, "w", newline="", encoding="utf-8", buffering=1)  # noqa: SIM115 - closed by close()
        self._writer = csv.DictWriter(self._file, columns, lineterminator="\n")
        self._writer.writeheader()

    def add(self, row: dict[str, Any]) -> None:
        self._writer.writerow({name: f"{value:.7g}" if isinstance(value, float) else value
                               for name, value in row.items()})

    def close(self) -> None:
        self._file.close()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
