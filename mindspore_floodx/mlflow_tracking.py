"""A run in MLflow: what its files say, sent while it trains and whenever the server can be reached.

The run folder comes first, and MLflow gets a copy. So a server that is away costs nothing but time: what is missing is
sent at the next attempt, or later by run/track.py. MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME are MLflow's own.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .attack_metrics import SHARES
from .errors import UserError
from .files import sha256_of, write_json
from .run_files import RunFiles, read_rows, read_run_files

IDENTITY = "mlflow.json"  # which MLflow run this is, and what it has
_STEPS = ("loss", "flooded", "learning_rate", "tokens_per_second")
_ARTEFACTS = (
    "*.yaml",
    "*.csv",
    "environment.json",
    "flood_level.json",
    "plots/*",
    "attacks/*/summary.json",
    "export/*.md",
)
_LARGEST_ARTEFACT = 10_000_000  # bytes
_MOST_METRICS = 1_000  # that MLflow takes in a request
_SECONDS = 10.0  # between two attempts


def demand_mlflow() -> None:
    """Checks that MLflow's library is installed.

    Raises:
        UserError: it is not.
    """
    try:
        importlib.metadata.version("mlflow-skinny")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            "track is mlflow, and MLflow is not installed; run `pip install 'mindspore-floodx[mlflow]'`, or use "
            "--track tensorboard"
        ) from None


def send_run(run: str | os.PathLike, status: str | None = None) -> str:
    """Sends MLflow what it does not have of a run: metrics, and with a status also files and attacks' figures.

    Args:
        run: a run folder, finished or not. Its mlflow.json tells which MLflow run it is; one is made if there is none.
        status: FINISHED, FAILED or KILLED ends the MLflow run; None leaves it running.

    Returns:
        where it is: the tracking server and the run's id.

    Raises:
        UserError: no run folder, a damaged file of it, or MLflow is not installed.
        Exception: whatever MLflow's client raises when the server does not take it.
    """
    demand_mlflow()
    client = _client()
    files = read_run_files(run)
    place = _identity(client, files)
    for name, metrics, position in _unsent(files, place):
        for start in range(0, len(metrics), _MOST_METRICS):
            client.log_batch(place["run_id"], metrics=metrics[start : start + _MOST_METRICS])
        place["sent"][name] = position
        write_json(files.path / IDENTITY, place)
    if status is not None:
        for path in _artefacts(files.path):
            digest, name = sha256_of(path), f"file {path.relative_to(files.path)}"
            if place["sent"].get(name) != digest:
                folder = path.parent.relative_to(files.path).as_posix()
                client.log_artifact(place["run_id"], str(path), None if folder == "." else folder)
                place["sent"][name] = digest
        client.set_terminated(place["run_id"], status)
        write_json(files.path / IDENTITY, place)
    return f"{place['tracking_uri']}, run {place['run_id']}"


class MlflowMirror:
    """Sends a run to MLflow while it trains, in a thread of its own. Nothing that MLflow does or not ends the run.

    Args:
        run: the run folder.
        say: takes what the user is told, a line.
        seconds: between two attempts.
    """

    def __init__(self, run: Path, say: Callable[[str], None], seconds: float = _SECONDS):
        self._run, self._say, self._seconds = run, say, seconds
        self._status: str | None = None
        self._ended, self._complained, self._delivered = threading.Event(), False, False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins sending, if it has not begun. Called where signals are held back, which the thread inherits."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
            self._thread.start()

    def end(self, status: str, patience: float = 30.0) -> None:
        """Sends the rest and ends the MLflow run, waiting at most so many seconds; says so if something is missing."""
        self._status = status
        self._ended.set()
        self.start()
        assert self._thread is not None
        self._thread.join(patience)
        if not self._delivered:
            self._say(f"MLflow lacks a part of {self._run}; send it with: python run/track.py {self._run}")

    def _work(self) -> None:
        while True:
            last = self._ended.wait(self._seconds)
            try:
                send_run(self._run, self._status if last else None)
                self._delivered = last
            except Exception as error:  # MLflow's, the network's, the database's: none of them is the training's
                if not self._complained:
                    self._complained = True
                    reason = str(error).partition("\n")[0][:200]
                    self._say(f"MLflow cannot be reached ({reason}); the training goes on and it is tried again")
            if last:
                return


def _client() -> Any:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # MLflow's own 7 take minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # they report on making the database
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient()


def _identity(client: Any, files: RunFiles) -> dict[str, Any]:
    """Finds or makes the MLflow run of a run folder."""
    from mlflow.exceptions import MlflowException

    uri, path = _without_password(client.tracking_uri), files.path / IDENTITY
    try:
        place = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        place = {}
    if isinstance(place, dict) and place.get("tracking_uri") == uri:
        try:
            client.get_run(place["run_id"])
            client.update_run(place["run_id"], status="RUNNING")
            return place
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "mindspore-floodx")
    known = client.get_experiment_by_name(experiment)
    number = client.create_experiment(experiment) if known is None else known.experiment_id
    packages = files.environment.get("packages", {})
    tags = {name: str(version) for name, version in packages.items() if version}
    tags |= {f"data.{name}.sha256": str(part.get("sha256")) for name, part in files.environment.get("data", {}).items()}
    run_id = client.create_run(number, run_name=files.path.resolve().name, tags=tags).info.run_id
    place = {"tracking_uri": uri, "experiment": experiment, "run_id": run_id, "sent": {}}
    write_json(path, place)
    from mlflow.entities import Param

    given = [Param(name, str(value)[:6000]) for name, value in files.settings.items() if value is not None]
    for start in range(0, len(given), 100):  # that MLflow takes in a request
        client.log_batch(run_id, params=given[start : start + 100])
    return place


def _without_password(uri: str) -> str:
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _unsent(files: RunFiles, place: dict[str, Any]) -> Iterator[tuple[str, list[Any], Any]]:
    """Yields, for each table with rows that MLflow lacks, its name, their metrics and the position behind them."""
    sent = place["sent"]
    steps = read_rows(files.path / "log.csv", ("step", *_STEPS))
    new = [row for row in steps if int(row["step"]) > sent.get("log.csv", 0)]
    for start in range(0, len(new), _MOST_METRICS // len(_STEPS)):
        part = new[start : start + _MOST_METRICS // len(_STEPS)]
        given = [(f"train/{name}", row[name], int(row["step"])) for row in part for name in _STEPS]
        yield "log.csv", _metrics(given), int(part[-1]["step"])
    last_step = {int(row["epoch"]): int(row["step"]) for row in steps}  # of each epoch
    rows = [row for row in files.epochs if row["epoch"] > sent.get("epochs.csv", 0) and int(row["epoch"]) in last_step]
    if rows:
        scores = [
            (name.replace("eval_", "eval/"), value, last_step[int(row["epoch"])])
            for row in rows
            for name, value in row.items()
            if name.startswith("eval_")
        ]
        yield "epochs.csv", _metrics(scores), int(rows[-1]["epoch"])
    measured = [row for row in read_rows(files.path / "accordance.csv", ("sub_epoch", "step")) if row["accordance"]]
    measured = [row for row in measured if int(row["sub_epoch"]) > sent.get("accordance.csv", 0)]
    if measured:
        values = [("accordance", row["accordance"], int(row["step"])) for row in measured]
        yield "accordance.csv", _metrics(values), int(measured[-1]["sub_epoch"])
    for name, summary in files.attacks.items():
        digest = sha256_of(files.path / "attacks" / name / "summary.json")
        if sent.get(f"attack {name}") != digest:
            figures = [(f"attack/{name}/{each}", summary[each], len(steps)) for each in (*SHARES, "avg_queries")]
            yield f"attack {name}", _metrics(figures), digest


def _metrics(values: Iterable[tuple[str, Any, int]]) -> list[Any]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    numbers = ((name, float(value), step) for name, value, step in values if value is not None)
    return [Metric(name, value, now, step) for name, value, step in numbers if math.isfinite(value)]


def _artefacts(run: Path) -> list[Path]:
    found = sorted({path for pattern in _ARTEFACTS for path in run.glob(pattern)})
    return [path for path in found if path.is_file() and path.stat().st_size <= _LARGEST_ARTEFACT]
