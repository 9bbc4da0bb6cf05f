"""Per-example results that survive a kill: each is on disk as soon as it exists, and the same call goes on there."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .attack_metrics import FAILED, SKIPPED, SUCCEEDED
from .errors import UserError
from .files import replacing, replacing_folder, write_json
from .untrusted import can_be_written, parse_json, read_bytes, read_json

MAX_BYTES = 8 << 30  # of a journal; an example takes some kilobytes
SYNC_SECONDS = 0.5  # what a power cut may cost; a killed process loses nothing that was added


class Journal:
    """The files of one attack that grow with it; `settings.json` says what their results belong to.

    ``examples.jsonl`` holds what an example's result is. It ends the same however often and wherever the work was
    stopped, so the time an example took is not in it but in ``seconds.jsonl``.

    Results made with other settings are never mixed in and never lost: they are moved to
    ``<parent>/previous/<attack>-<fingerprint>/``. Only one process may have the journal open, see `lock.locked`.
    """

    def __init__(self, folder: str | os.PathLike, settings: dict[str, Any], fingerprint: str, ids: list[int]) -> None:
        """Opens the journal of the examples `ids`.

        Args:
            settings: JSON-ready; what a result depends on, for the reader.
            fingerprint: equal exactly if the settings are.

        Raises:
            UserError: the folder cannot be written to.
        """
        self.folder = Path(folder)
        self.path = self.folder / "examples.jsonl"
        self.ids = set(ids)
        self._seconds_path = self.folder / "seconds.jsonl"
        self._synced = 0.0
        old = self._fingerprint_on_disk()
        found = self._read()
        if found and (old != fingerprint or not found.keys() <= self.ids):
            self._keep_aside(old or "unknown")
        known = found if old == fingerprint else {}
        self.done = {id: record for id, record in known.items() if id in self.ids}
        for path in self.folder.glob(".*-*.*"):  # `replacing` was killed
            path.unlink(missing_ok=True)
        self._write_sorted()  # without a line that a kill cut short
        write_json(self.folder / "settings.json", {"fingerprint": fingerprint, **settings})

    def add(self, record: dict[str, Any]) -> None:
        """Appends one example's result; when this returns, a kill of the process cannot take it away.

        Args:
            record: JSON-ready; `id` is its example, `seconds` the time that took.

        Raises:
            UserError: the disk is full.
        """
        durable = time.monotonic() - self._synced >= SYNC_SECONDS
        try:
            # In this order: no result is ever without its time.
            for path, line in ((self._seconds_path, _seconds_line(record)), (self.path, _line(record))):
                with open(path, "a", encoding="utf-8") as file:
                    file.write(line)
                    if durable:
                        file.flush()
                        os.fsync(file.fileno())
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror}; make room and run the same command"
            ) from error
        if durable:
            self._synced = time.monotonic()
        self.done[record["id"]] = record

    def finish(self) -> list[dict[str, Any]]:
        """Rewrites the files in the order of the ids, the results also as ``examples.parquet``.

        Returns:
            the records, each with its `seconds`.
        """
        self._write_sorted()
        records = [self.done[id] for id in sorted(self.done)]
        with replacing(self.folder / "examples.parquet") as temporary:
            pd.DataFrame(records).drop(columns="seconds", errors="ignore").to_parquet(temporary, index=False)
        return records

    def _write_sorted(self) -> None:
        for path, line in ((self._seconds_path, _seconds_line), (self.path, _line)):
            with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
                file.writelines(line(self.done[id]) for id in sorted(self.done))
                file.flush()
                os.fsync(file.fileno())

    def _fingerprint_on_disk(self) -> str | None:
        try:
            content = read_json(self.folder / "settings.json")
        except UserError:  # damaged: its results belong to nothing known
            return "unknown" if (self.folder / "settings.json").exists() else None
        found = content.get("fingerprint") if isinstance(content, dict) else None
        # it becomes part of a folder's name where results are set aside
        return found if isinstance(found, str) and re.fullmatch("[0-9a-zA-Z-]{1,64}", found) else "unknown"

    def _read(self) -> dict[int, dict[str, Any]]:
        paths = (self.path, self._seconds_path)
        records, times = (read_records(path) if path.is_file() else {} for path in paths)
        return {
            id: record | {"seconds": _seconds_of(times.get(id, record))}
            for id, record in records.items()
            if can_be_counted(record)
        }

    def _keep_aside(self, fingerprint: str) -> None:
        """Copies the folder to a name that is not taken yet: at every moment the results are in one place at least."""
        name = f"{self.folder.name}-{fingerprint[:12]}"
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        target = next(path for each in names if not (path := self.folder.parent / "previous" / each).exists())
        with replacing_folder(target) as temporary:
            shutil.copytree(self.folder, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
        for name in ("examples.parquet", "summary.json"):
            (self.folder / name).unlink(missing_ok=True)


def read_records(path: str | os.PathLike) -> dict[int, dict[str, Any]]:
    """Returns the records of a JSONL file by their `id`, the last one of each; other lines are left out.

    Such a line was cut short by a kill, or is not ours. Lines end with a newline and nothing else: texts hold other
    characters that Python takes for ends of lines.

    Raises:
        UserError: the file cannot be read.
    """
    records: dict[int, dict[str, Any]] = {}
    for line in read_bytes(Path(path), MAX_BYTES).decode("utf-8", errors="replace").split("\n"):
        try:
            record = parse_json(line)
        except ValueError:
            continue
        if "\\u" in line and not can_be_written(record):
            continue
        if isinstance(record, dict) and type(record.get("id")) is int:  # True would pass for 1
            records[record["id"]] = record
    return records


def can_be_counted(record: Mapping[str, Any]) -> bool:
    """Says whether a record is one of an attack: what is there is of the right type, and `summarise` finds its counts.

    The example of a record that is not is attacked again.
    """
    return (
        record.get("result") in (SUCCEEDED, FAILED, SKIPPED)
        and "queries" in record
        and all(fits(record[name]) for name, fits in _FIELDS.items() if name in record)
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 53


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < math.inf


_FIELDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("queries", "num_words", "num_words_changed"), _is_count),
    **dict.fromkeys(("label", "original_output", "perturbed_output"), _is_count),
    **dict.fromkeys(
        ("original_scores", "perturbed_scores"), lambda value: isinstance(value, list) and all(map(_is_number, value))
    ),
    **dict.fromkeys(
        ("original", "perturbed"),
        lambda value: isinstance(value, dict) and all(isinstance(text, str) for text in value.values()),
    ),
}


def _seconds_of(record: dict[str, Any]) -> float | None:
    seconds = record.get("seconds")
    return seconds if _is_number(seconds) else None


def _line(record: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in record.items() if name != "seconds"}, ensure_ascii=False) + "\n"


def _seconds_line(record: dict[str, Any]) -> str:
    return json.dumps({"id": record["id"], "seconds": record.get("seconds")}) + "\n"
