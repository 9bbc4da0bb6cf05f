"""A folder that one process at a time writes to; the lock of a process that has ended, however it ended, is free."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import filelock

from .errors import UserError

FILE, OWNER = ".lock", ".lock-owner"


class Locked(UserError):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Holds the lock of `folder`, which is made if need be; the system frees it when this process ends.

    Raises:
        Locked: another process holds it (its number and machine are named).
        UserError: the folder cannot be written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / FILE)
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise Locked(
            f"{_owner(folder)} is writing to {folder}; wait until it has finished, or choose another --output-dir"
        ) from None
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; choose another --output-dir") from error
    try:
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            (folder / OWNER).write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / OWNER).unlink()
        lock.release()


def _owner(folder: Path) -> str:
    try:
        return (folder / OWNER).read_text(encoding="utf-8").strip() or "another process"
    except OSError:
        return "another process"
