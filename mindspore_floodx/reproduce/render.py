"""A table as Markdown, LaTeX (booktabs), CSV and HTML, all from one frame of numbers."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler
from tabulate import tabulate

from ..files import replacing, write_text

FORMATS = {  # of a measure, the last part of a column's name; shares are in percent already
    "Clean%": ".1f",
    "Aua%": ".1f",
    "Suc%": ".1f",
    "#Query": ".1f",
    "Aua% raw": ".1f",
    "Aua% calibrated": ".1f",
    "ECE before": ".3f",
    "ECE after": ".3f",
    "temperature": ".2f",
    "difference": "+.1f",
    "low": "+.1f",
    "high": "+.1f",
    "p": ".2g",
    "s/epoch": ",.1f",
    "ratio": ".2f",
    "mean words": ".1f",
}
MISSING = "-"
_SHRUNK = r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{"  # a table wider than the page


@dataclass(frozen=True)
class Table:
    """One table of a file.

    Attributes:
        title: what distinguishes it from the file's other tables: the data set.
        caption: what it shows, and under which conditions.
        frame: numbers or texts; the index has plain names; columns are pairs (group, measure), the group empty where
            there is none.
        spread: standard deviations, for some of the frame's columns; None where nothing has one.
        best: columns' measures -> max or min, in which the best value is bold.
    """

    title: str
    caption: str
    frame: pd.DataFrame
    spread: pd.DataFrame | None = None
    best: Mapping[str, str] | None = None

    def texts(self) -> pd.DataFrame:
        """Returns the frame as it is shown: rounded, with ± where there is a deviation, else ``-``."""
        shown = self.frame.astype(object).copy()
        for column in shown.columns:
            for row in shown.index:
                shown.at[row, column] = self._cell(row, column)
        return shown

    def bold(self) -> pd.DataFrame:
        """Returns which cells hold the best value of their column, compared as shown; none if all are equal."""
        marked = pd.DataFrame(False, self.frame.index, self.frame.columns)
        for column in self.frame.columns:
            goal = (self.best or {}).get(column[-1])
            if goal is None:
                continue
            known = pd.to_numeric(self.frame[column]).dropna()
            shown = pd.Series([float(_number(value, column[-1]).replace(",", "")) for value in known], known.index)
            if shown.nunique() > 1:
                marked.loc[shown.index[shown == getattr(shown, goal)()], column] = True
        return marked

    def _cell(self, row: Any, column: Any) -> str:
        value = self.frame.at[row, column]
        if pd.isna(value):
            return MISSING
        text = _number(value, column[-1])
        spread = None if self.spread is None or column not in self.spread else self.spread.at[row, column]
        return text if spread is None or pd.isna(spread) else f"{text} ± {_number(spread, column[-1]).lstrip('+')}"


def write_tables(stem: str, tables: Sequence[Table], folder: str | Path) -> list[Path]:
    """Writes <stem>.md, .tex, .csv and .html and returns their paths.

    Raises:
        UserError: the folder cannot be written to.
    """
    folder = Path(folder)
    write_text(folder / f"{stem}.md", markdown(tables))
    write_text(folder / f"{stem}.tex", latex(tables, stem))
    write_text(folder / f"{stem}.html", html_page(tables, stem))
    with replacing(folder / f"{stem}.csv") as temporary:
        numbers(tables).to_csv(temporary, index=False)
    return [folder / f"{stem}.{suffix}" for suffix in ("md", "tex", "csv", "html")]


def markdown(tables: Sequence[Table]) -> str:
    """Returns the tables with their captions; the best values are between asterisks."""
    parts = []
    for table in tables:
        texts, bold = table.texts(), table.bold()
        rows = []
        for row in texts.index:
            cells = [f"**{texts.at[row, c]}**" if bold.at[row, c] else texts.at[row, c] for c in texts.columns]
            rows.append([_piped(each) for each in (*_as_tuple(row), *cells)])
        header = [*map(str, texts.index.names), *(_flat(column) for column in texts.columns)]
        alignment = ["left"] * texts.index.nlevels + ["right"] * len(texts.columns)
        grid = tabulate(rows, header, tablefmt="github", disable_numparse=True, colalign=alignment)
        parts.append(f"## {table.title}\n\n{table.caption}\n\n{grid}\n")
    return "\n".join(parts)


def latex(tables: Sequence[Table], stem: str) -> str:
    """Returns the tables as floats for a document that loads booktabs and graphicx."""
    parts = ["% \\usepackage{booktabs,graphicx}"]
    for number, table in enumerate(tables, 1):
        styler = _styled(table, "latex", "textbf:--rwrap;")
        styler = styler.set_table_styles([{"selector": "small", "props": ":{};"}])
        parts.append(
            styler.to_latex(
                environment="table*",
                position="ht",
                position_float="centering",
                hrules=True,
                sparse_index=False,
                multicol_align="c",
                column_format="l" * table.frame.index.nlevels + "r" * len(table.frame.columns),
                caption=_latex_text(re.sub(r"^Table \w+[,:] ", "", table.caption)),
                label=f"tab:{stem}" + (f"-{number}" if len(tables) > 1 else ""),
            )
        )
    text = "\n".join(parts).replace("±", "$\\pm$")
    return text.replace("\\begin{tabular}", f"{_SHRUNK}\\begin{{tabular}}").replace("\\end{tabular}", "\\end{tabular}}")


def html_page(tables: Sequence[Table], stem: str) -> str:
    """Returns a page that needs nothing else; numbers are right-aligned, the best ones bold."""
    parts = []
    for number, table in enumerate(tables, 1):
        styler = _styled(table, "html", "font-weight: bold")
        styler = styler.set_uuid(f"{stem}-{number}").set_caption(html.escape(table.caption))
        parts.append(f"<h2>{html.escape(table.title)}</h2>\n<div>{styler.to_html(sparse_index=False)}</div>")
    body = "\n".join(parts)
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{_HEAD.format(stem)}</head>\n<body>\n{body}\n</body>\n</html>\n'


def numbers(tables: Sequence[Table]) -> pd.DataFrame:
    """Returns all numbers of the tables, not rounded, deviations in columns of their own, with the table's title."""
    frames = []
    for table in tables:
        columns: dict[str, Any] = {}
        for column in table.frame.columns:
            columns[_flat(column)] = table.frame[column]
            if table.spread is not None and column in table.spread and table.spread[column].notna().any():
                columns[f"{_flat(column)} sd"] = table.spread[column]
        frame = pd.DataFrame(columns, table.frame.index).reset_index()
        frame.insert(0, "table", table.title)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


_HEAD = """<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em; color-scheme: light dark; }}
div {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; max-width: 60em; padding-bottom: .7em; }}
th, td {{ padding: .2em .7em; text-align: right; white-space: nowrap; }}
th[colspan] {{ text-align: center; }}
tbody th {{ text-align: left; font-weight: normal; }}
thead {{ border-top: 2px solid; border-bottom: 1px solid; }}
tbody {{ border-bottom: 2px solid; }}
</style>
"""


def _styled(table: Table, escape: str, bold: str) -> Styler:
    """Returns the escaped texts, the best in the style `bold`, under one line of headings where there are no groups."""
    texts = table.texts()
    marked = np.where(table.bold(), bold, "")
    if not any(texts.columns.get_level_values(0)):
        texts = texts.droplevel(0, axis=1)
    styler = texts.style.format(escape=escape).format_index(escape=escape, axis=0).format_index(escape=escape, axis=1)
    if texts.index.nlevels == 1:
        styler = styler.hide(axis=0, names=True)  # it would take a line of its own under the headings
    return styler.apply(lambda _: marked, axis=None)


def _number(value: Any, measure: str) -> str:
    if isinstance(value, str) or measure not in FORMATS:
        return f"{value:,}" if isinstance(value, Integral) else str(value)
    return format(value, FORMATS[measure])


def _flat(column: Any) -> str:
    return " ".join(part for part in column if part)


def _as_tuple(row: Any) -> tuple:
    return row if isinstance(row, tuple) else (row,)


def _piped(text: Any) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def _latex_text(text: str) -> str:
    """Escapes what has a meaning in LaTeX."""
    return text.translate(_LATEX)


_LATEX = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {c: f"\\{c}" for c in "&%$#_{}"}
)
