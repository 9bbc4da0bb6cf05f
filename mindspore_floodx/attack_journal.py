"""Per-example results that survive a kill: each is on disk as soon as it exists, and the same call goes on there."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pandas as pd

from .errors import UserError
from .files import replacing, replacing_folder, write_json

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
            return json.loads((self.folder / "settings.json").read_text(encoding="utf-8"))["fingerprint"]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError):  # not ours, or damaged: its results belong to nothing known
            return "unknown"

    def _read(self) -> dict[int, dict[str, Any]]:
        paths = (self.path, self._seconds_path)
        records, seconds = (read_records(path) if path.is_file() else {} for path in paths)
        return {id: {"seconds": None} | record | seconds.get(id, {}) for id, record in records.items()}

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
    """Returns the records of a JSONL file by their `id`, the last one of each; lines cut short by a kill are left out.

    Lines end with a newline and nothing else: texts hold other characters that Python takes for ends of lines.
    """
    records: dict[int, dict[str, Any]] = {}
    for line in Path(path).read_bytes().decode("utf-8", errors="replace").split("\n"):
        try:
            record = json.loads(line)
            records[record["id"]] = record
        except (ValueError, KeyError, TypeError):
            continue  # the line that was being written when the run was killed
    return records


def _line(record: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in record.items() if name != "seconds"}, ensure_ascii=False) + "\n"


def _seconds_line(record: dict[str, Any]) -> str:
    return json.dumps({"id": record["id"], "seconds": record.get("seconds")}) + "\n"
