"""Tables that were written as HTML files, read back: their words and which of them are bold, and nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

_BOLD_RULE = re.compile(r"([^{}]*)\{[^{}]*font-weight:\s*bold")
_ID = re.compile(r"#([\w-]+)")
_LETTER = re.compile(r"[^\W\d_]")


@dataclass
class TableCell:
    """A cell of a table: its text, and how it is shown."""

    text: str
    heading: bool
    columns: int = 1
    bold: bool = False
    left: bool = False  # of a column of words


@dataclass
class HtmlTable:
    """A table of a file, with the heading above it."""

    title: str = ""
    caption: str = ""
    head: list[list[TableCell]] = field(default_factory=list)
    body: list[list[TableCell]] = field(default_factory=list)


def read_tables(text: str) -> list[HtmlTable]:
    """Returns the tables of an HTML file; the last heading above a table is its title.

    Nothing of the file's markup is kept, so a page that shows the words as text cannot be changed by them.
    """
    reader = _Reader()
    reader.feed(text)
    reader.close()
    for table in reader.tables:
        _tidy(table)
    return reader.tables


def _tidy(table: HtmlTable) -> None:
    """Leaves out empty rows of the head, puts the index's names into its last row, and aligns columns of words."""
    head = [row for row in table.head if any(cell.text for cell in row)]
    while (
        len(head) > 1
        and len(head[-1]) == len(head[-2])
        and all(not (above.text and below.text) for above, below in zip(head[-2], head[-1], strict=True))
    ):
        last = head.pop()
        head[-1] = [above if above.text else below for above, below in zip(head[-1], last, strict=True)]
    table.head = head
    rows = table.body
    width = len(rows[0]) if rows else 0
    words = [any(_LETTER.search(row[at].text) for row in rows if at < len(row)) for at in range(width)]
    for row in [*rows, *(row for row in head if len(row) == width)]:
        for cell, left in zip(row, words, strict=False):
            cell.left = left


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: list[HtmlTable] = []
        self._bold: set[str] = set()  # ids of cells
        self._place: list[str] = []  # the open elements whose text is wanted
        self._title = ""
        self._in_head = self._in_table = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given: dict[str, Any] = dict(attrs)
        if tag in ("style", "script", "caption", "h1", "h2", "h3", "th", "td"):
            self._place.append(tag)
        if tag in ("h1", "h2", "h3"):
            self._title = ""
        elif tag == "table":
            self.tables.append(HtmlTable(self._title))
            self._in_table = True
        elif tag in ("thead", "tbody"):
            self._in_head = tag == "thead"
        elif not self._in_table:
            return
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td"):
            if not self._rows:
                self._rows.append([])
            span = str(given.get("colspan") or "")
            bold = given.get("id") in self._bold
            self._rows[-1].append(TableCell("", tag == "th", int(span) if span.isdecimal() else 1, bold))

    def handle_endtag(self, tag: str) -> None:
        if tag in self._place:
            while self._place.pop() != tag:
                pass
        if tag == "table":
            self._in_table = False

    def handle_data(self, data: str) -> None:
        place = self._place[-1] if self._place else ""
        if place == "style":
            for rule in _BOLD_RULE.finditer(data):
                self._bold.update(_ID.findall(rule.group(1)))
        elif place in ("h1", "h2", "h3"):
            self._title += data
        elif not self._in_table:
            return
        elif place == "caption":
            self.tables[-1].caption += data
        elif place in ("th", "td") and self._rows and self._rows[-1]:
            self._rows[-1][-1].text += data.replace("\xa0", "")

    @property
    def _rows(self) -> list[list[TableCell]]:
        table = self.tables[-1]
        return table.head if self._in_head else table.body
