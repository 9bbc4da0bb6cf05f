"""Text files to rows, with the line number of everything that is wrong: TSV without quoting, CSV with it, JSON lines.

The format follows from the file's name:

- ``.tsv``, ``.txt``: tab-separated, no quoting at all (GLUE, MSR paraphrase); a quotation mark is part of the text.
- ``.csv``: comma-separated with standard quoting (RFC 4180); a quoted field may hold commas and line breaks.
- ``.jsonl``: one JSON object a line.

All are UTF-8, with or without a byte order mark. A line feed ends a line, optionally after a carriage return.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UserError, nearest
from .untrusted import parse_json, read_bytes

SUFFIXES = (".tsv", ".txt", ".csv", ".jsonl")
MAX_BYTES = 4 << 30  # a file is held in memory; the largest of the paper's has 0.03 GB


class Problems:
    """The bad rows of one file: the first is reported in full, the others are counted. Nothing is dropped silently."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[int, str] = {}

    def add(self, line: int, message: str) -> None:
        """Notes what is wrong with the row that starts at `line` (from 1); a row counts once, by its first problem."""
        self._found.setdefault(line, message)

    def raise_any(self) -> None:
        """Raises `UserError` for the first bad row, with the number of bad rows, if there is any."""
        if self._found:
            line = min(self._found)
            more = f" (the first of {len(self._found)} bad rows)" if len(self._found) > 1 else ""
            raise UserError(f"{self.path}, line {line}: {self._found[line]}{more}")


@dataclass(frozen=True)
class Rows:
    """The rows of one file that could be read; `problems` holds the others, so that all are reported together.

    Attributes:
        path: the file.
        lines: the line at which each row starts, from 1.
        fields: per wanted column, the value of each row: text, or what the JSON holds there.
        problems: the bad rows found so far.
    """

    path: Path
    lines: list[int]
    fields: dict[str, list[Any]]
    problems: Problems


def read_rows(path: str | Path, columns: Sequence[str], *, header: Sequence[str] | None = None) -> Rows:
    """Reads the wanted `columns` of a .tsv, .txt, .csv or .jsonl file.

    Args:
        path: the file; its suffix tells the format.
        columns: names of the columns to keep.
        header: the column names of a file that has no header line (AG News CSV).

    Raises:
        UserError: no such file, an unknown suffix, bytes that are not UTF-8, or a column that the header lacks. Rows
            that are bad in themselves are noted in the result's `problems`.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{path}: the format of a text file follows from its name; rename it to one of *{', *'.join(SUFFIXES)}"
        )
    text = read_text(path)
    problems = Problems(path)
    if path.suffix.lower() == ".jsonl":
        return _rows_of_objects(path, text, columns, problems)
    if path.suffix.lower() == ".csv":
        records = _csv_records(path, text, problems)
    else:
        records = ((line, record.split("\t")) for line, record in _lines(text))
    names = list(header) if header else _header(path, records, problems)
    for column in columns:
        if names.count(column) != 1:
            what = "has no column" if column not in names else "has more than one column"
            raise UserError(
                f"{path}, line 1: the header {what} {column!r} (it has {', '.join(map(repr, names))})"
                f"{nearest(column, names) if column not in names else ''}; name the right column or mend the header"
            )
    positions = {column: names.index(column) for column in columns}
    rows = Rows(path, [], {column: [] for column in columns}, problems)
    for line, record in records:
        if len(record) != len(names):
            found = "empty line" if record in ([], [""]) else f"{len(record)} field{'s' if len(record) > 1 else ''}"
            hint = " (a .tsv file has no quoting; save quoted fields as .csv)" if path.suffix.lower() != ".csv" else ""
            problems.add(line, f"{found} instead of {len(names)} fields; mend or delete the row{hint}")
            continue
        rows.lines.append(line)
        for column, position in positions.items():
            rows.fields[column].append(record[position])
    return rows


def read_text(path: Path) -> str:
    """The file's text without byte order mark; `UserError` with the line of the first byte that is not UTF-8."""
    data = read_bytes(path, MAX_BYTES)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        problems = Problems(path)
        for line, part in enumerate(data.split(b"\n"), start=1):
            try:
                part.decode("utf-8-sig" if line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                problems.add(line, f"byte {error.start + 1} of the line is not UTF-8; save the file as UTF-8")
        problems.raise_any()
        raise  # cannot happen: a line feed never lies inside a UTF-8 sequence


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines with their numbers, up to the last one that is not blank."""
    # str.splitlines would also split at form feeds and Unicode separators, which are text here
    lines = text.split("\n")
    while lines and not lines[-1].strip(" \r"):
        lines.pop()
    for number, line in enumerate(lines, start=1):
        yield number, line.removesuffix("\r")


def _csv_records(path: Path, text: str, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    if "\0" in text:  # before Python 3.11 the csv module stops there, after it the character passes
        line = text[: text.index("\0")].count("\n") + 1
        raise UserError(f"{path}, line {line}: there is a NUL character; the file is damaged, write it again")
    text = re.sub(r"[\r\n]+\Z", "", text)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # how long a text may be is not the format's to say
    # newline="" leaves line breaks inside quoted fields alone; strict makes a stray quotation mark an error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1
    while True:
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # after a broken quotation nothing tells where the next row starts, so this one ends the reading
            problems.add(start, f"the quoting is broken ({error}); double a quotation mark inside a quoted field")
            return
        yield start, record
        start = reader.line_num + 1


def _header(path: Path, records: Iterator[tuple[int, list[str]]], problems: Problems) -> list[str]:
    record = next(records, None)
    if record is None:
        problems.raise_any()
        raise UserError(f"{path}: the file is empty; it needs a header line and rows")
    return [name.strip() for name in record[1]]


def _rows_of_objects(path: Path, text: str, columns: Sequence[str], problems: Problems) -> Rows:
    rows = Rows(path, [], {column: [] for column in columns}, problems)
    for line, record in _lines(text):
        try:
            row = parse_json(record)
        except ValueError as error:
            problems.add(line, f"not a JSON object ({error}); write one object a line")
            continue
        if not isinstance(row, dict):
            problems.add(line, "not a JSON object; write one object a line, such as " + '{"text": "...", "label": 0}')
            continue
        missing = [column for column in columns if column not in row]
        if missing:
            problems.add(
                line,
                f"no field {missing[0]!r} (the row has {', '.join(map(repr, row)) or 'none'})"
                f"{nearest(missing[0], row)}; add it or name the right field",
            )
            continue
        rows.lines.append(line)
        for column in columns:
            rows.fields[column].append(row[column])
    return rows
