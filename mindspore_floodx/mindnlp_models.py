"""Models by way of mindnlp, `--model mindnlp:NAME_OR_FOLDER`: loaded in an environment of its own.

mindnlp takes PyTorch's place in a process that imports it, so that TextAttack cannot run there, and it wants older
packages. So another Python loads the model (`mindnlp_bridge`) and writes safetensors and tokenizer files.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

from .device import end_with_parent
from .encoding import default_cache_dir
from .errors import UserError
from .files import replacing_folder
from .pretrained import BY_MINDNLP

VARIABLE = "FLOODX_MINDNLP_PYTHON"
ENVIRONMENT = ".venv-mindnlp"  # `make mindnlp` makes it
_BRIDGE = Path(__file__).with_name("mindnlp_bridge.py")


def find_through_mindnlp(name: str) -> Path:
    """Returns a Hugging Face folder with the model that mindnlp loads under `name`, a folder or the id of a hub.

    The folder lies in the cache (`encoding.default_cache_dir`). A local folder is loaded again when a file of it has
    changed, a model of a hub when the copy is removed.

    Raises:
        UserError: no name, no environment with mindnlp, or mindnlp cannot load the model.
    """
    if not name:
        raise UserError(f"the model {BY_MINDNLP!r} has no name; give {BY_MINDNLP}NAME, a model folder or a hub id")
    local = Path(name).expanduser()
    source = str(local.absolute()) if local.exists() else name
    copy = default_cache_dir() / f"mindnlp-{_key(Path(source), source)}"
    if (copy / "config.json").is_file():
        return copy
    python = find_python()
    print(f"loading {name} through mindnlp, with {python}", flush=True)
    with replacing_folder(copy) as folder:
        done = subprocess.run(  # noqa: S603 - isolated (-I): neither this package's modules nor PYTHONPATH are seen
            [python, "-I", str(_BRIDGE), source, str(folder)],
            capture_output=True,
            text=True,
            errors="replace",
            preexec_fn=end_with_parent,
        )
        if done.returncode != 0:
            raise UserError(f"mindnlp could not load {name}: {_reason(done)}")
    return copy


def find_python() -> str:
    """Returns the Python that has mindnlp: $FLOODX_MINDNLP_PYTHON, this one, or that of .venv-mindnlp.

    Raises:
        UserError: there is none.
    """
    given = os.environ.get(VARIABLE)
    if given:
        if not os.access(given, os.X_OK) or Path(given).is_dir():
            raise UserError(
                f"{VARIABLE} is {given}, which is no program; name the Python of an environment with mindnlp"
            )
        return given
    if _is_installed():
        return sys.executable
    for home in (Path.cwd(), Path(__file__).parents[1]):
        python = home / ENVIRONMENT / "bin" / "python"
        if os.access(python, os.X_OK):
            return str(python)
    raise UserError(
        f"a model {BY_MINDNLP}NAME is loaded in an environment of its own, and there is none; run `make mindnlp` in a "
        f"clone, or set {VARIABLE} to the Python of an environment with mindspore-floodx[mindnlp]"
    )


def _is_installed() -> bool:
    try:
        return bool(importlib.metadata.version("mindnlp"))
    except importlib.metadata.PackageNotFoundError:
        return False


def _key(folder: Path, source: str) -> str:
    """What tells one model from another: its name and, of a folder, its files' names, sizes and times."""
    found = [(each.name, each.stat()) for each in sorted(folder.iterdir()) if each.is_file()] if folder.is_dir() else []
    files = [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in found]
    return hashlib.sha256("\n".join([source, *files]).encode()).hexdigest()[:32]


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return said[-1] if said else f"its process ended with {done.returncode} ({lines[-1] if lines else 'no message'})"
