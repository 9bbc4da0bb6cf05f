"""JSON and YAML that somebody else may have written: bounded in size, read as plain data, refused in one sentence.

Both libraries raise errors of many kinds for hostile text, and both believe what only looks harmless: YAML's aliases
and merge keys grow a hundred bytes to gigabytes, a key that is there twice silently wins, and a nesting of a thousand
brackets ends the recursion of whoever prints it later.
"""

from __future__ import annotations

import io
import json
import reprlib
import stat
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .errors import UserError

if TYPE_CHECKING:
    import pandas as pd

MAX_JSON_BYTES = 256 << 20
MAX_YAML_BYTES = 100_000  # PyYAML needs a second for this much, and a minute for numbers that are made to be slow
MAX_DEPTH = 50

_Bounded = reprlib.Repr()
_Bounded.maxstring = _Bounded.maxother = 80
_Bounded.maxlong = 40


def shown(value: Any) -> str:
    """Returns `value` as Python writes it, but never more than a few lines, however deep or large it is."""
    try:
        text = _Bounded.repr(value)
    except ValueError:  # a whole number of more than 4,300 digits
        text = "an enormous number"
    return text if len(text) <= 200 else f"{text[:200]}..."


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Returns the content of a plain file.

    Raises:
        UserError: it is larger than `max_bytes`, is a device or a pipe, or cannot be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # these have no size, or no end
            raise UserError(f"{path} is no plain file; give a copy of its content")
        if status.st_size > max_bytes:
            raise UserError(f"{path} is larger than {max_bytes:,} bytes; give a smaller file")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    except ValueError as error:  # a NUL in the name
        raise UserError(f"{str(path)!r}: cannot be read ({error}); check the path") from None


def read_text(path: Path, max_bytes: int) -> str:
    """Returns the text of a UTF-8 file.

    Raises:
        UserError: as `read_bytes`, or it is not UTF-8.
    """
    data = read_bytes(path, max_bytes)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start + 1}); save it as UTF-8") from None


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: as `read_text`, it is not JSON as `parse_json` takes it, or could not be written as UTF-8 again.
    """
    text = read_text(path, max_bytes)
    try:
        content = parse_json(text)
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); write or download it again") from None
    if "\\u" in text and not can_be_written(content):
        raise UserError(f"{path} holds half of a surrogate pair, a broken \\u escape; write or download it again")
    return content


def parse_json(text: str) -> Any:
    """Returns what a JSON text says.

    Raises:
        ValueError: it is no JSON, is nested more than 50 deep, or has a field twice in one object.
    """
    try:
        content = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise ValueError(f"{error.msg} at {line}column {error.colno}") from None
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from None
    _demand_shallow(content)
    return content


def can_be_written(content: Any) -> bool:
    """Says whether `content` is free of halves of surrogate pairs, which no file in UTF-8 could be written with."""
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def read_mapping(path: Path, names: Sequence[str] = ()) -> dict[str, Any]:
    """Reads a .json or .yaml file that maps names to values.

    Raises:
        UserError: as `read_json` or `read_yaml`, it holds something else, or one of `names` is absent.
    """
    content = read_json(path) if path.suffix == ".json" else read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no names with values; write it again")
    if absent := [name for name in names if name not in content]:
        raise UserError(f"{path} has no {absent[0]!r}; write it again")
    return content


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Reads a CSV table of results whose `columns` hold numbers; a cell may be empty, which is NaN.

    Raises:
        UserError: as `read_bytes`; it is no table; it has no row; or a column is absent or holds something else.
    """
    import pandas as pd  # here: it takes a second, and most of what is read is no table

    try:
        table = pd.read_csv(io.BytesIO(read_bytes(path, MAX_JSON_BYTES)))
    except ValueError as error:  # pandas' own errors and bytes that are not UTF-8
        raise UserError(f"{path} is not a table ({' '.join(str(error).split())}); make the run again") from None
    absent = [name for name in columns if name not in table.columns]
    if absent or table.empty:
        raise UserError(f"{path} has no {f'column {absent[0]!r}' if absent else 'row'}; make the run again")
    odd = [name for name in columns if not pd.api.types.is_numeric_dtype(table[name])]
    if odd:
        raise UserError(f"{path}: column {odd[0]!r} holds something that is no number; make the run again")
    return table


def read_yaml(path: Path) -> Any:
    """Reads a YAML file of plain values, lists and mappings; an empty file is None.

    Raises:
        UserError: as `read_text`; it is no YAML; or it has a tag for anything but plain data, an alias, a key twice,
            or is nested more than 50 deep.
    """
    text = read_text(path, MAX_YAML_BYTES)
    try:
        return _PlainLoader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise UserError(f"{path} is not valid YAML: {line}{str(error.problem or error.context)[:200]}") from None
    except Exception as error:  # values that only look like a date or a number raise whatever their conversion does
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())[:200]}") from None


def _refused(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader without aliases (so without merge bombs) and without keys that are there twice."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.events.AliasEvent):
            raise _refused(f"aliases are not taken (*{event.anchor})", event.start_mark)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _refused(f"nested more than {MAX_DEPTH} deep", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        twice = _first_twice([key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
        if twice is not None:
            raise _refused(f"{shown(twice)} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"the field {shown(_first_twice([name for name, _ in pairs]))} is there twice")
    return found


def _first_twice(names: list[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _demand_shallow(content: Any) -> None:
    level, deeper = [content], []
    for _ in range(MAX_DEPTH):
        for value in level:
            if isinstance(value, dict):
                deeper += [each for each in value.values() if isinstance(each, (dict, list))]
            elif isinstance(value, list):
                deeper += [each for each in value if isinstance(each, (dict, list))]
        if not deeper:
            return
        level, deeper = deeper, []
    raise ValueError(f"nested more than {MAX_DEPTH} deep")
