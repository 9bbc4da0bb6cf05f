"""MindSpore's .ckpt format, read and written without importing MindSpore.

A .ckpt file is a sequence of protocol-buffer messages, one a tensor (a tensor above 512 MiB is split into several):

    field 1 (message)   field 1: name    field 2 (message)   field 1: dimensions, field 2: type, field 3: bytes

`mindspore.load_checkpoint` needs three times the model's memory and believes dimensions that the bytes do not fill, so
that a damaged file gives tensors of foreign memory; here every length is checked before anything is allocated.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mindspore_floodx.errors import UserError
from mindspore_floodx.pretrained import as_float32

_NUMPY_TYPES = {
    **{f"Float{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    **{f"Int{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UInt{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    "Bool": np.dtype(bool),
    "BFloat16": np.dtype("<u2"),  # NumPy lacks the type: read as bits, widened below
}
_MINDSPORE_TYPES = {kind: name for name, kind in _NUMPY_TYPES.items() if name != "BFloat16"}
_SLICE_BYTES = 512 * 1024 * 1024  # as MindSpore splits tensors
_TRAILER = b"crc_num"  # followed by 10 bytes: the CRC-32 of everything before, when saved with crc_check=True
_MAX_TEXT = 10_000  # bytes of a name or a type
_LARGEST_BESIDE_ZERO = 1 << 40  # bytes of a tensor without elements, if its sizes of 0 were 1
_MAX_DIMENSIONS = 8  # MindSpore's own limit


class _DamagedError(Exception):
    pass


def read_ckpt(path: str | os.PathLike, upcast: dict[str, str] | None = None) -> dict[str, np.ndarray]:
    """Reads the tensors of a .ckpt file; floating types become float32, noted in `upcast`. Text entries are left out.

    Raises:
        UserError: the file is unreadable, damaged, encrypted, or its sizes contradict each other.
    """
    path = Path(path)
    upcast = {} if upcast is None else upcast
    try:
        with open(path, "rb") as file:
            end = _end_of_messages(file)
            parts: dict[str, list[np.ndarray]] = {}
            kinds: dict[str, tuple[str, tuple[int, ...]]] = {}
            last = None
            for name, kind, shape, data in _entries(file, end):
                if name in parts and name != last:
                    raise _DamagedError(f"tensor {name!r} is there twice")
                parts.setdefault(name, []).append(data)
                kinds[name] = (kind, shape)
                last = name
        if not parts:
            raise _DamagedError("no tensor in it")
        tensors = {}
        for name, (kind, shape) in kinds.items():
            if kind != "str":
                tensors[name] = _assemble(name, kind, shape, parts.pop(name), upcast)
        return tensors
    except _DamagedError as error:
        raise UserError(f"{path} is not a whole MindSpore checkpoint ({error}); save or copy it again") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def write_ckpt(path: str | os.PathLike, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes `tensors` byte for byte as `mindspore.save_checkpoint` does."""
    with open(path, "wb") as file:
        for name, tensor in tensors.items():
            data = np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data
            kind = _MINDSPORE_TYPES[tensor.dtype]
            dims = b"".join(b"\x08" + _varint(size) for size in tensor.shape)
            for start in range(0, max(len(data), 1), _SLICE_BYTES):
                part = data[start : start + _SLICE_BYTES]
                tensor_head = dims + _delimited(2, kind.encode()) + b"\x1a" + _varint(len(part))
                value_head = _delimited(1, name.encode()) + b"\x12" + _varint(len(tensor_head) + len(part))
                total = len(value_head) + len(tensor_head) + len(part)
                file.write(b"\x0a" + _varint(total) + value_head + tensor_head)
                file.write(part)


def _entries(file: BinaryIO, end: int) -> Iterator[tuple[str, str, tuple[int, ...], np.ndarray]]:
    """Yields name, type, shape and bytes of every message up to offset `end`."""
    for number, message in _fields(file, 0, end):
        if number != 1 or isinstance(message, int):
            raise _DamagedError("it does not begin like one")
        name, kind, data = None, None, None
        dims: list[int] = []
        for field, value in _fields(file, *message):
            if field == 1:
                name = _text(file, value)
            elif field == 2 and not isinstance(value, int):
                for part, content in _fields(file, *value):
                    if part == 1:
                        dims += _dimensions(file, content, _MAX_DIMENSIONS - len(dims))
                    elif part == 2:
                        kind = _text(file, content)
                    elif part == 3 and not isinstance(content, int):
                        data = _read(file, *content)
        if name is None or kind is None or data is None:
            raise _DamagedError("an entry without name, type or data")
        yield name, kind, tuple(dims), data


def _assemble(
    name: str, kind: str, shape: tuple[int, ...], parts: list[np.ndarray], upcast: dict[str, str]
) -> np.ndarray:
    if kind not in _NUMPY_TYPES:
        raise _DamagedError(f"tensor {name!r} has the unknown type {kind[:40]!r}")
    data = parts[0] if len(parts) == 1 else np.concatenate(parts)
    dtype = _NUMPY_TYPES[kind]
    if shape == (0,) and data.size == dtype.itemsize:
        shape = ()  # older versions wrote a scalar so
    # a size of 0 hides the others in their product, which NumPy takes all the same
    apart_from_zeros = math.prod(size for size in shape if size) * dtype.itemsize
    too_large = min(shape, default=0) < 0 or apart_from_zeros > max(data.size, _LARGEST_BESIDE_ZERO)
    if too_large or math.prod(shape) * dtype.itemsize != data.size:
        raise _DamagedError(f"tensor {name!r} claims shape {shape} of {kind} but has {data.size} bytes")
    array = data.view(dtype).reshape(shape)
    if kind == "BFloat16":
        upcast[name] = "bfloat16"
        # bfloat16 is the upper half of float32; shifted by a plain 16, a scalar would become 64 bits wide
        return np.asarray(array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return as_float32(name, array, upcast)


def _fields(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """Yields number and value of each field from offset `start` to `end`: an integer, or where its bytes lie."""
    while start < end:
        file.seek(start)
        key = _read_varint(file, end)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            yield number, _read_varint(file, end)
            start = file.tell()
        elif wire_type == 2:
            length = _read_varint(file, end)
            start = file.tell()
            if length > end - start:
                raise _DamagedError(f"{length} bytes announced where {end - start} are left")
            yield number, (start, start + length)
            start += length
        else:
            raise _DamagedError("bytes that are no field")


def _read_varint(file: BinaryIO, end: int) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte or file.tell() > end:
            raise _DamagedError("it ends in the middle of a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise _DamagedError("a number of more than 10 bytes")


def _dimensions(file: BinaryIO, content: int | tuple[int, int], most: int) -> list[int]:
    """Returns one dimension, or several where they are packed into one field; refuses more than `most`."""
    if isinstance(content, int) and most > 0:
        return [content if content < 1 << 63 else content - (1 << 64)]
    if isinstance(content, int) or content[1] - content[0] > most * 10:
        raise _DamagedError(f"a tensor of more than {_MAX_DIMENSIONS} dimensions")
    start, end = content
    file.seek(start)
    sizes = []
    while file.tell() < end:
        sizes.append(_read_varint(file, end))
    if len(sizes) > most:
        raise _DamagedError(f"a tensor of more than {_MAX_DIMENSIONS} dimensions")
    return sizes


def _text(file: BinaryIO, content: int | tuple[int, int]) -> str:
    if isinstance(content, int) or content[1] - content[0] > _MAX_TEXT:
        raise _DamagedError("a name that is no name")
    try:
        return _read(file, *content).tobytes().decode()
    except UnicodeDecodeError:
        raise _DamagedError("a name that is not UTF-8") from None


def _read(file: BinaryIO, start: int, end: int) -> np.ndarray:
    data = np.empty(end - start, dtype=np.uint8)
    file.seek(start)
    if file.readinto(data) != data.size:  # type: ignore[attr-defined]
        raise _DamagedError("it became shorter while it was read")
    return data


def _end_of_messages(file: BinaryIO) -> int:
    """Returns the offset behind the last message, having checked the checksum if there is one."""
    size = file.seek(0, os.SEEK_END)
    trailer = size - len(_TRAILER) - 10
    if trailer <= 0:
        return size
    file.seek(trailer)
    tail = file.read()
    if not tail.startswith(_TRAILER):
        return size
    file.seek(0)
    checksum, left = 0, trailer
    while left:
        block = file.read(min(left, 1 << 20))
        checksum, left = zlib.crc32(block, checksum), left - len(block)
    if checksum != int.from_bytes(tail[len(_TRAILER) :], "big"):
        raise _DamagedError("its checksum is wrong")
    return trailer


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _delimited(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content
