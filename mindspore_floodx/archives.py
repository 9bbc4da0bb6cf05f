"""Archives and folders from elsewhere, copied into a folder of our own without trusting a name in them."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from .errors import UserError

MAX_BYTES = 8 << 30  # all files together; the largest set of resources takes about 5 GB
MAX_FILES = 20_000
_BLOCK = 1 << 20


@dataclass
class _Budget:
    """What may still be unpacked; counts the bytes that come out, not those that the archive announces."""

    bytes: int
    files: int

    def take_file(self) -> None:
        self.files -= 1
        if self.files < 0:
            raise UserError(f"it holds more than {MAX_FILES:,} files")

    def take_bytes(self, count: int) -> None:
        self.bytes -= count
        if self.bytes < 0:
            raise UserError("it is larger than --max-gigabytes allows")


def stage(source: str | os.PathLike, folder: Path, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES) -> None:
    """Copies the files of a folder, of a zip or tar archive, or one file, into the empty `folder`.

    Raises:
        UserError: no such source; a name that is absolute or leads out of the folder; a link, a device or an encrypted
            member; too many files or bytes; a damaged archive; or no room on the disk. Nothing outside `folder` is
            written.
    """
    source = Path(source)
    budget = _Budget(min(max_bytes, shutil.disk_usage(folder).free), max_files)
    try:
        for name, open_member in _members(source):
            target = folder / _safe(name)
            budget.take_file()
            target.parent.mkdir(parents=True, exist_ok=True)
            with open_member() as reader, target.open("xb") as writer:
                while block := reader.read(_BLOCK):
                    budget.take_bytes(len(block))
                    writer.write(block)
    except UserError as error:
        raise UserError(f"{source} is refused: {error}") from error
    except FileExistsError as error:
        raise UserError(f"{source} is refused: it holds {Path(error.filename).name} twice") from error
    # zipfile raises NotImplementedError for a compression that it does not know
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, tarfile.TarError, NotImplementedError) as error:
        raise UserError(f"{source} cannot be read: {error}") from error
    except Exception as error:  # zlib's, lzma's and bz2's own errors
        raise UserError(f"{source} is damaged: {error}") from error


def _safe(name: str) -> Path:
    """Returns the member's name as a relative path; refuses one that leads elsewhere on any system."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0] or "\0" in name:
        raise UserError(f"the name {name!r} leads out of the folder")
    return Path(*path.parts)


def _members(source: Path) -> Iterator[tuple[str, Any]]:
    """Yields the name of each file and a function that opens it."""
    if source.is_dir():
        yield from _of_folder(source)
    elif not source.is_file():
        raise UserError("there is no such file or folder")
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            for entry in archive.infolist():
                kind = stat.S_IFMT(entry.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise UserError(f"{entry.filename!r} is a link or a special file")
                if entry.flag_bits & 1:
                    raise UserError(f"{entry.filename!r} is encrypted")
                _safe(entry.filename)
                if not entry.is_dir():
                    yield entry.filename, lambda entry=entry: archive.open(entry)
    elif tarfile.is_tarfile(source):
        with tarfile.open(source) as archive:
            for member in archive:
                if not (member.isreg() or member.isdir()):
                    raise UserError(f"{member.name!r} is a link or a special file")
                _safe(member.name) if member.name != "." else None
                if member.isreg():
                    yield member.name, lambda member=member: _opened(archive, member)
    else:
        yield source.name, lambda: source.open("rb")


def _opened(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    reader = archive.extractfile(member)
    assert reader is not None  # a regular file
    return reader


def _of_folder(source: Path) -> Iterator[tuple[str, Any]]:
    for place, folders, names in os.walk(source):
        for name in (*folders, *names):
            path = Path(place) / name
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                relative = path.relative_to(source)
                raise UserError(f"'{relative}' is a link or a special file; copy the folder with its contents (cp -rL)")
        for name in names:
            path = Path(place) / name
            yield path.relative_to(source).as_posix(), lambda path=path: path.open("rb")
