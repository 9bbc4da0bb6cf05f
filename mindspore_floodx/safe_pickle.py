"""Pickles that hold plain data and nothing else: read without the power to run code.

A pickle may name any function to call. Here only those names are resolved that build dictionaries and numbers; a file
that asks for another one is refused before that is even imported. NumPy's own functions are not called either: they
trust what a pickle gives them.

The module's reader in C makes room for as many objects as a file announces, gigabytes for ten bytes; its reader in
Python does not, at 3 to 6 MB a second.
"""

from __future__ import annotations

import os
import pickle
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from .errors import UserError


class _Type:
    """What stands for `numpy.dtype` in the pickle of a NumPy number: a type of number, and its byte order."""

    def __init__(self, text: str, align: bool = False, copy: bool = True) -> None:
        if not isinstance(text, str) or not re.fullmatch("b1|[iu][1248]|f[248]", text):
            raise pickle.UnpicklingError("it has an array type that is no number")
        self.text, self.order = text, "="

    def __setstate__(self, state: tuple) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("it has a number in an unknown byte order")
        self.order = state[1]


def _scalar(kind: _Type, raw: bytes) -> Any:
    """A number of NumPy's, from the bytes that a pickle has of it."""
    return np.frombuffer(raw, np.dtype(kind.order + kind.text), count=1)[0]


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
    ("numpy", "dtype"): _Type,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}


class _PlainUnpickler(pickle._Unpickler):
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
