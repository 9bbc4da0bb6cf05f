"""What was fetched or imported, with sizes and hashes, so that a damaged resource is noticed before an attack.

Most resources have no published hash. Theirs is taken when they arrive, and later checked against that.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from .errors import UserError
from .files import sha256_of, write_json
from .untrusted import read_json

NAME = "floodx_resources.json"


def cache_folder() -> Path:
    """Returns TextAttack's cache folder: ``$TA_CACHE_DIR``, or ``~/.cache/textattack``."""
    return Path(os.environ.get("TA_CACHE_DIR") or "~/.cache/textattack").expanduser()


def scratch_folder() -> tempfile.TemporaryDirectory:
    """Returns a temporary folder in the cache, on the disk where resources go: they may be larger than /tmp.

    Raises:
        UserError: the cache cannot be written to.
    """
    home = cache_folder()
    try:
        home.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=home, prefix=".arriving-")
    except OSError as error:
        raise UserError(
            f"cannot write {home}: {error.strerror}; set TA_CACHE_DIR to a folder that can be written"
        ) from error


def read() -> dict[str, Any]:
    """Returns the manifest: place -> ``source`` and ``files`` (name -> ``size`` in bytes, ``sha256``)."""
    try:
        content = read_json(cache_folder() / NAME)
    except UserError:
        return {}
    return {place: entry for place, entry in content.items() if _is_entry(entry)} if isinstance(content, dict) else {}


def _is_entry(entry: Any) -> bool:
    files = entry.get("files") if isinstance(entry, dict) else None
    return isinstance(files, dict) and all(
        isinstance(file, dict) and isinstance(file.get("size"), int) and isinstance(file.get("sha256"), str)
        for file in files.values()
    )


def files_of(place: Path) -> dict[str, Path]:
    """Returns the files of a resource by their names relative to `place`; of a single file, by its own name."""
    if place.is_file():
        return {place.name: place}
    return {path.relative_to(place).as_posix(): path for path in sorted(place.rglob("*")) if path.is_file()}


def size_of(place: Path) -> int:
    """Returns the bytes of a resource's files."""
    return sum(path.stat().st_size for path in files_of(place).values())


def record(place: Path, source: str) -> None:
    """Writes down the sizes and hashes of a resource that has just arrived from `source`."""
    files = {name: {"size": path.stat().st_size, "sha256": sha256_of(path)} for name, path in files_of(place).items()}
    write_json(cache_folder() / NAME, {**read(), str(place.absolute()): {"source": source, "files": files}})


def recorded_hashes(place: Path) -> dict[str, str]:
    """Returns the SHA-256 of each file of a resource as it arrived; empty for what the manifest does not know."""
    known = read().get(str(place.absolute()))
    return {name: entry["sha256"] for name, entry in known["files"].items()} if isinstance(known, dict) else {}


def damaged(place: Path, hashes: bool = False) -> list[str]:
    """Returns what differs from the manifest, one line a file; nothing for what the manifest does not know.

    Args:
        hashes: whether the contents are compared too, not only the sizes.
    """
    known = read().get(str(place.absolute()))
    if not isinstance(known, dict):
        return []
    lines = []
    for name, expected in known["files"].items():
        path = place if place.is_file() else place / name
        if not path.is_file():
            lines.append(f"{name} is absent")
        elif path.stat().st_size != expected["size"]:
            lines.append(f"{name} has {path.stat().st_size} bytes, and had {expected['size']} when it arrived")
        elif hashes and sha256_of(path) != expected["sha256"]:
            lines.append(f"{name} has another content than when it arrived")
    return lines
