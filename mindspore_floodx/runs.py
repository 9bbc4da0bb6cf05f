"""The run folder: what is written while a model trains, so that the run explains itself afterwards."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from . import distributed, run_state
from .errors import UserError
from .files import write_json, write_text
from .mlflow_tracking import MlflowMirror
from .pretrained import BY_MINDNLP
from .settings import TrainSettings
from .untrusted import read_yaml

LOG_COLUMNS = ("step", "epoch", "loss", "flooded", "learning_rate", "tokens_per_second")
SCALE_COLUMNS = ("loss_scale", "skipped")  # of log.csv too, in float16
RESULTS = (
    "export",  # the first to go: without it no run is finished
    "epochs.csv",
    "accordance.csv",
    "accordance_classes.csv",
    "flood_level.json",
    "tensorboard",
    "mlflow.json",
    "checkpoints",
    "attacks",
    "plots",
    run_state.FOLDER,
)
# what `files.replacing` and `files.replacing_folder` write before they rename it
LEFTOVER = re.compile(
    r"\.(config|environment|flood_level|mlflow|checkpoint|export|epoch-\d+|training|accordance)-(old-)?[a-z0-9_]{8}(\.\w+)?"
)
PACKAGES = ("mindspore-floodx", "mindspore", "numpy", "pandas", "torch", "transformers", "tokenizers", "textattack")


def demand_free(settings: TrainSettings) -> None:
    """Checks that a run with these settings may write its folder.

    A run that is finished has an export/ folder and is only replaced when told to; an unfinished one goes on from its
    state (`state_of`), or is begun again if it has none.

    Raises:
        UserError: the folder holds a finished run or other files, or is a file.
    """
    path = settings.run_folder
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; a run needs a folder, so choose another --output-dir")
    if path.exists() and not _is_run(path) and any(not each.name.startswith(".") for each in path.iterdir()):
        raise UserError(f"{path} holds files that are no run's; choose another --output-dir")
    if (path / "export").exists() and not settings.overwrite:
        run_state.discard(path)  # where the process was killed between export and this
        raise UserError(f"{path} holds a finished run; choose another --output-dir, or add --overwrite")
    model = Path(settings.model.removeprefix(BY_MINDNLP)).resolve()
    if path.resolve() in (model, *model.parents):
        raise UserError(f"{path} holds the model to train, which the run would replace; choose another --output-dir")


def is_finished(settings: TrainSettings, fingerprints: dict[str, Any] | None = None) -> bool:
    """Returns whether the run folder holds the finished run of just these settings and, if given, this data."""
    path = settings.run_folder
    try:
        made_with = settings_of(path).that_matter()
        data = json.loads((path / "environment.json").read_text(encoding="utf-8"))["data"]
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return False
    same_data = fingerprints is None or data == fingerprints
    return (path / "export").exists() and made_with == settings.that_matter() and same_data


def state_of(settings: TrainSettings, fingerprints: dict[str, Any]) -> run_state.RunState | None:
    """Returns the state that the run in the folder goes on from; None where it begins.

    Raises:
        UserError: the folder holds the state of a run with other settings, data or versions, or one that is damaged.
    """
    path = settings.run_folder
    if settings.overwrite:
        return None
    found = run_state.load(path)
    if found is None:
        return None
    of_run, here = found.progress, belonging(settings, fingerprints)
    if of_run["data"] != here["data"]:
        what = "other data (its content has changed, or its file)"
    elif of_run["versions"] != here["versions"]:
        what = f"other versions ({_differences(of_run['versions'], here['versions'])})"
    elif of_run["settings"] != here["settings"]:
        what = f"other settings ({_differences(of_run['settings'], here['settings'])})"
    else:
        return found
    raise UserError(
        f"{path} holds an unfinished run with {what}; give the same to go on with it, choose another --output-dir, or "
        "add --overwrite to begin anew"
    )


def belonging(settings: TrainSettings, fingerprints: dict[str, Any]) -> dict[str, Any]:
    """Returns what a state belongs to, as JSON: settings, data, and the packages that may change a bit."""
    versions = {name: _version(name) for name in ("mindspore-floodx", "mindspore", "numpy")}
    content = {"settings": settings.that_matter(), "data": fingerprints, "versions": versions}
    return json.loads(json.dumps(content))


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    said = [f"{name} {first.get(name)} there and {second.get(name)} here" for name in names[:3]]
    return ", ".join(said) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def settings_of(run: Path, given: Mapping[str, Any] | None = None) -> TrainSettings:
    """Returns the settings a run was made with (its config.yaml); those that are `given` replace the run's.

    Raises:
        UserError: config.yaml cannot be read, holds no settings, or what is given is out of range.
    """
    try:
        return TrainSettings(**(read_yaml(run / "config.yaml") | dict(given or {})))
    except TypeError as error:
        raise UserError(f"{run / 'config.yaml'} holds no settings of a run ({error}); give a run folder") from None


def _is_run(path: Path) -> bool:
    try:
        with open(path / "log.csv", encoding="utf-8", errors="replace") as file:
            header = file.readline()
            return header == "" or header.startswith("step,epoch,loss")  # empty: killed before the header was written
    except OSError:
        return False


class RunFolder:
    """A run's folder: config.yaml, environment.json, log.csv, epochs.csv, TensorBoard events, and what others add.

    What it logs is also sent to MLflow, if `track` says so.

    What an earlier run left in the folder is removed, since it belongs to another model; only the checkpoint of an
    unfinished run stays until this run has its own. Of a run that goes on the logs are cut to what they were when its
    state was written.

    Args:
        settings: of the run.
        kept: bytes of each log that stay, by name (`sizes`), of a run that goes on; None begins anew.

    Raises:
        UserError: as `demand_free`, the folder cannot be written, or a log is shorter than it was.
    """

    def __init__(self, settings: TrainSettings, kept: Mapping[str, int] | None = None):
        demand_free(settings)
        self.path, self._kept = settings.run_folder, dict(kept or {})
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for place in (self.path, self.path / "checkpoints", self.path / "plots"):
                for leftover in list(place.glob(".*")):  # of a process that was killed while it wrote
                    if LEFTOVER.fullmatch(leftover.name):
                        _remove(leftover)
            results = () if kept is not None else (*RESULTS, "checkpoint") if settings.overwrite else RESULTS
            for name in results:
                _remove(self.path / name)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}; choose another --output-dir") from None
        columns = (*LOG_COLUMNS, *(SCALE_COLUMNS if settings.precision == "float16" else ()))
        self._steps = CsvTable(self.path / "log.csv", columns, self._kept.get("log.csv"))
        write_text(self.path / "config.yaml", yaml.safe_dump(settings.to_dict(), sort_keys=False))
        self._epochs: CsvTable | None = None
        self._first_step = self._steps.rows() + 1
        self._events: Any = None
        track = settings.track if distributed.is_main() else "none"
        self._tensorboard = track in ("tensorboard", "both")
        self._mlflow = MlflowMirror(self.path, tqdm.write) if track in ("mlflow", "both") else None

    def write_environment(self, settings: TrainSettings, fingerprints: dict[str, Any]) -> None:
        """Writes environment.json: versions, device, threads, workers, seed and the data's fingerprint."""
        write_json(
            self.path / "environment.json",
            {
                "python": platform.python_version(),
                "packages": package_versions(),
                "platform": platform.platform(),
                "device": settings.device,
                "threads": settings.threads or os.cpu_count(),
                "workers": distributed.size(),
                "seed": settings.seed,
                "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
                "data": fingerprints,
            },
        )

    def log_step(self, row: dict[str, Any]) -> None:
        self._steps.add(row)
        if self._mlflow is not None:
            self._mlflow.start()
        for name in ("loss", "learning_rate", "tokens_per_second", "loss_scale"):
            if name in row:
                self._event(f"train/{name}", row[name], row["step"])

    def log_epoch(self, row: dict[str, Any], step: int) -> None:
        if self._epochs is None:
            self._epochs = CsvTable(self.path / "epochs.csv", tuple(row), self._kept.get("epochs.csv"))
        self._epochs.add(row)
        for name, value in row.items():
            if name.startswith("eval_"):
                self._event(f"eval/{name.removeprefix('eval_')}", value, step)

    def sizes(self) -> dict[str, int]:
        """Returns the bytes of log.csv and epochs.csv, which are safe on the disk then."""
        sizes = {"log.csv": self._steps.size()}
        if self._epochs is not None:
            return sizes | {"epochs.csv": self._epochs.size()}
        return sizes | {name: size for name, size in self._kept.items() if name == "epochs.csv"}

    def _event(self, tag: str, value: float, step: int) -> None:
        if not self._tensorboard:
            return
        if self._events is None:
            folder = self.path / "tensorboard"
            _start_events(folder, self._first_step)
            from tensorboard.summary import Writer

            self._events = Writer(str(folder))
        self._events.add_scalar(tag, value, step)

    def close(self) -> None:
        for each in (self._steps, self._epochs, self._events):
            if each is not None:
                each.close()

    def end_tracking(self, status: str) -> None:
        """Ends the run where it is tracked, once everything is written: FINISHED, FAILED or KILLED, as in MLflow."""
        if self._mlflow is not None:
            self._mlflow.end(status, 30.0 if status == "FINISHED" else 10.0)


def _start_events(folder: Path, step: int) -> None:
    """Tells TensorBoard where the run begins or goes on: it drops what an earlier start logged of this and later steps.

    The first start counts too: it is from the second on that TensorBoard drops anything.
    """
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))
    writer.add_event(Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START)))
    writer.close()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class CsvTable:
    """A CSV file that grows by a row at a time and is readable at any moment.

    Args:
        path: the file.
        columns: its header.
        kept: so many bytes of the file as it is stay; None begins a new one.

    Raises:
        UserError: the file is shorter than what shall stay.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], kept: int | None = None):
        self._path = path
        if kept is not None:
            if not path.exists() or path.stat().st_size < kept:
                raise UserError(
                    f"{path} is shorter than when the run's state was written; put it back, or add --overwrite to "
                    "begin the run anew"
                )
            os.truncate(path, kept)
        self._file = open(path, "w" if kept is None else "a", newline="", encoding="utf-8", buffering=1)
        self._writer = csv.DictWriter(self._file, columns, lineterminator="\n")
        if kept is None:
            self._writer.writeheader()

    def size(self) -> int:
        """Returns the bytes so far, which are safe on the disk then."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def rows(self) -> int:
        """Returns the number of rows on the disk."""
        return self._path.read_bytes().count(b"\n") - 1  # no value holds a line's end; the header is one

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
