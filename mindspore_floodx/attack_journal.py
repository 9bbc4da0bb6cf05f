"""Per-example results that survive a kill: each is on disk as soon as it exists, and the same call goes on there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from .errors import UserError
from .files import write_json, write_text


class Journal:
    """The file ``examples.jsonl`` of one attack, with ``settings.json`` saying what its results belong to.

    Results made with other settings are never mixed in and never lost: they are moved to
    ``<parent>/previous/<attack>-<fingerprint>/``.
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
        self._fingerprint = fingerprint
        old = self._fingerprint_on_disk()
        found = self._read() if old == fingerprint else {}
        if old is not None and (old != fingerprint or not found.keys() <= self.ids):
            self._set_aside(old)
        self.done = {id: record for id, record in found.items() if id in self.ids}
        write_json(self.folder / "settings.json", {"fingerprint": fingerprint, **settings})
        self._write_sorted()  # without a line that a kill cut short

    def add(self, record: dict[str, Any]) -> None:
        """Appends one example's result, flushed to the disk before it returns."""
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(_line(record))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror}; make room and run the same command"
            ) from error
        self.done[record["id"]] = record

    def finish(self) -> list[dict[str, Any]]:
        """Rewrites the file in the order of the ids and returns its records."""
        self._write_sorted()
        return [self.done[id] for id in sorted(self.done)]

    def _write_sorted(self) -> None:
        write_text(self.path, "".join(_line(self.done[id]) for id in sorted(self.done)))

    def _fingerprint_on_disk(self) -> str | None:
        try:
            return json.loads((self.folder / "settings.json").read_text(encoding="utf-8"))["fingerprint"]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError):  # not ours, or damaged: its results belong to nothing known
            return "unknown"

    def _read(self) -> dict[int, dict[str, Any]]:
        records = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    record = json.loads(line)
                    records[record["id"]] = record
                except (ValueError, KeyError, TypeError):
                    continue  # the line that was being written when the run was killed
        return records

    def _set_aside(self, fingerprint: str) -> None:
        target = self.folder.parent / "previous" / f"{self.folder.name}-{fingerprint[:12]}"
        try:
            if target.exists():
                shutil.rmtree(target)
            shutil.copytree(self.folder, target)
            for path in (self.path, self.folder / "summary.json"):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot move earlier results to {target}: {error.strerror}") from error


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
