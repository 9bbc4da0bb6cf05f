"""Files that are either whole or absent: everything is written beside its target and renamed into place."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import UserError


@contextlib.contextmanager
def replacing(target: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path in the target's folder; on success it is renamed to `target`, on failure removed.

    The temporary name keeps the target's suffix, since some writers choose their format by it.

    Raises:
        UserError: the folder cannot be made or written to, or the disk is full.
    """
    target = Path(target)
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}-", suffix=target.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}; choose another output folder") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(target: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary folder beside `target`; on success it takes the target's place, on failure it is removed.

    Raises:
        UserError: the parent cannot be written to, or the disk is full.
    """
    target = Path(target)
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
        yield temporary
        temporary.chmod(0o755)
        if target.exists() and _swapped(temporary, target):
            shutil.rmtree(temporary)
        elif target.exists():  # a kill between the two renames leaves the former folder under its hidden name only
            old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-old-"))
            os.replace(target, old / target.name)
            os.replace(temporary, target)
            shutil.rmtree(old)
        else:
            os.replace(temporary, target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}; choose another output folder") from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


def _swapped(first: Path, second: Path) -> bool:
    """Lets two paths change their names in one step, so that both exist at every moment; False where it cannot be."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):  # an older C library, or another one
        return False
    of_this_folder, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of renameat2(2)
    return renameat2(of_this_folder, os.fsencode(first), of_this_folder, os.fsencode(second), exchange) == 0


def demand_writable(folder: str | os.PathLike, inside: tuple[str, ...] = ("plots",)) -> None:
    """Refuses a folder that results, and those in its folders `inside`, could not be written to; makes them all.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    folder = Path(folder)
    try:
        for place in (folder, *(folder / name for name in inside)):
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                pass
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}; choose another --output-dir") from None


def write_text(target: str | os.PathLike, text: str) -> None:
    """Writes `text` as UTF-8, whole or not at all."""
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: str | os.PathLike, content: Any) -> None:
    """Writes `content` as indented JSON, whole or not at all."""
    write_text(target, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def sha256_of(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file's bytes as 64 hex digits.

    Raises:
        UserError: the file cannot be read.
    """
    digest = hashlib.sha256()
    for block in blocks_of(path):
        digest.update(block)
    return digest.hexdigest()


def blocks_of(path: str | os.PathLike) -> Iterator[bytes]:
    """Yields the bytes of a file, a megabyte at a time.

    Raises:
        UserError: the file cannot be read, also where that shows in its middle.
    """
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                yield block
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}); copy it there again, or check the disk"
        ) from error
