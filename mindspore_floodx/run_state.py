"""What an unfinished run goes on from: the files in <run folder>/state, each whole or absent, of which two are kept.

A file holds everything that the next step depends on, as tensors, and in its header, as JSON, where the run is, how
long its logs were and which settings, data and versions it belongs to. The order of the data and the noise of
adversarial training are functions of seed and step and need no place here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import distributed
from .errors import UserError
from .files import replacing

FOLDER, KEPT = "state", 2
TRAINED = ("model/", "optimizer/", "defence/")
Arrays = dict[str, np.ndarray]


class RunState(NamedTuple):
    """A state that was read: its file, what the header says (`save`'s `progress`) and the tensors by name."""

    path: Path
    progress: dict[str, Any]
    arrays: Arrays


def save(run: Path, step: int, progress: Mapping[str, Any], arrays: Arrays) -> Path:
    """Writes the state after a step and removes all but the last two; returns the file.

    Args:
        run: the run folder.
        step: number of training steps done.
        progress: what JSON can hold.
        arrays: any shapes and types by name; those of model/, optimizer/ and defence/ have to be finite.

    Raises:
        UserError: an array holds a number that is not finite, or the file cannot be written; the former states stay.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    folder = run / FOLDER
    # accordance may be undefined; what is trained may not
    trained = [name for name in arrays if name.startswith(TRAINED)]
    poisoned = next((name for name in trained if not np.isfinite(arrays[name]).all()), None)
    if poisoned is not None:
        raise UserError(
            f"{poisoned.partition('/')[2]} is no longer finite after step {step}; no checkpoint was written of this "
            f"({last_good(run)}); try a smaller --learning-rate or --max-grad-norm 1, and --overwrite"
        )
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    header = {"progress": json.dumps(dict(progress)), "sha256": digest(arrays)}
    target = folder / f"step-{step:09d}.safetensors"
    try:
        with replacing(target) as temporary:
            save_file(arrays, temporary, header)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())  # so that the new name never stands for less than the whole file
    except (SafetensorError, UserError) as error:  # the library's own error is what a full disk ends in
        cause = error.__cause__ or error
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
        raise UserError(
            f"cannot write the run's state to {folder}: {reason}; make room there and give the same command again "
            f"({last_good(run)})"
        ) from error
    newest = _files(run)[-KEPT:]
    for other in folder.iterdir():  # older ones, and what a killed process left half-written
        if other not in newest:
            other.unlink(missing_ok=True)
    return target


def load(run: Path) -> RunState | None:
    """Returns the newest whole state of a run; None where there is no file.

    Raises:
        UserError: there are files, and none is whole.
    """
    from safetensors import SafetensorError, safe_open

    files = _files(run)
    for path in reversed(files):
        try:
            with safe_open(path, framework="numpy") as file:
                header = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}
            if header.get("sha256") == digest(arrays):
                return RunState(path, json.loads(header["progress"]), arrays)
        except (OSError, SafetensorError, ValueError, KeyError):
            continue
    if files:
        raise UserError(
            f"{files[-1]} is damaged, and so is every older state in its folder; add --overwrite to begin the run anew"
        )
    return None


def from_main(found: RunState | None) -> RunState | None:
    """Returns, on every worker of a job, the state that rank 0 found."""
    from safetensors.numpy import load as read
    from safetensors.numpy import save as written

    if distributed.size() == 1:
        return found
    header = distributed.json_from_main(lambda: found and {"path": str(found.path), "progress": found.progress})
    if header is None:
        return None
    content = distributed.from_main(lambda: written(found.arrays if found else {}))
    return RunState(Path(header["path"]), header["progress"], read(content))


def last_good(run: Path) -> str:
    """Says of which step the last state is."""
    files = _files(run)
    if not files:
        return "there is no earlier one yet"
    return f"the last good one is of step {int(files[-1].stem.partition('-')[2])}, {files[-1]}"


def discard(run: Path) -> None:
    """Removes all states of a run, which is finished or begun anew."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)


def part(arrays: Mapping[str, np.ndarray], name: str) -> Arrays:
    """Returns the arrays of ``<name>/...``, by the rest of their names."""
    return {key[len(name) + 1 :]: array for key, array in arrays.items() if key.startswith(f"{name}/")}


def values(parameters: Any) -> Arrays:
    """Returns the values of MindSpore parameters by name."""
    return {each.name: each.asnumpy() for each in parameters}


def set_values(parameters: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Sets MindSpore parameters to what `values` returned of such ones.

    Raises:
        UserError: one is missing or has another shape.
    """
    from mindspore import Tensor

    for each in parameters:
        array = arrays.get(each.name)
        if array is None or array.shape != tuple(each.shape):
            raise UserError(f"the run's state does not fit this method: {each.name}; add --overwrite to begin it anew")
        each.set_data(Tensor(array))


def _files(run: Path) -> list[Path]:
    return sorted((run / FOLDER).glob("step-*.safetensors"))


def digest(arrays: Arrays) -> str:
    """Returns what tells arrays apart: a hash of their names, types, shapes and every bit."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}\n".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()
