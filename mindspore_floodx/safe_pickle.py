"""Pickles that hold plain data and nothing else: read without the power to run code.

A pickle may name any function to call. Here only those names are resolved that build dictionaries and numbers; a file
that asks for another one is refused before that is even imported.
"""

from __future__ import annotations

import os
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from .errors import UserError

_scalar = np.float64(0).__reduce__()[0]  # how NumPy pickles a number of its own


def _latin1(text: str, encoding: str) -> bytes:
    """How bytes are written in the older pickle formats; other encodings would be looked up among modules."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding}")
    return text.encode(encoding)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "defaultdict"): defaultdict,
    ("builtins", "dict"): dict,
    ("__builtin__", "dict"): dict,
    ("_codecs", "encode"): _latin1,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to an object outside the file")


def load_plain(path: str | os.PathLike) -> Any:
    """Reads a pickle of dictionaries, lists, strings and numbers.

    Raises:
        UserError: the file holds something else, or is no pickle.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file).load()
    except UserError:
        raise
    except Exception as error:  # a damaged pickle raises almost anything
        raise UserError(
            f"{path.name} is refused: it is not a pickle of plain dictionaries, strings and numbers ({error})"
        ) from error
