"""Writes a figure: SVG, PNG and PDF with the caption beneath it, its data as CSV; and lists what was written."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..files import replacing
from .labels import DATASETS, label

FORMATS = ("svg", "png", "pdf")
NAMES = {
    "figure1": "loss and accuracy under Gaussian noise on the word embeddings",
    "figure2": "accuracy under attack against the flood level",
    "figure3": "gradient accordance and losses against the sub-epochs",
    "figure4": "accuracy under attack and training loss after each epoch",
}


@dataclass(frozen=True)
class Figure:
    """A figure of one data set: what it shows, in words and numbers, and the matplotlib figure."""

    stem: str
    caption: str
    data: pd.DataFrame
    drawn: Any


def save(figure: Figure, folder: Path) -> list[Path]:
    """Writes a figure as <stem>.svg, .png, .pdf and .csv and returns the paths; the same figure gives the same bytes.

    Raises:
        UserError: the folder cannot be written to.
    """
    plt = pyplot()
    width, height = figure.drawn.get_size_inches()
    lines = textwrap.wrap(figure.caption, int(16.5 * width), break_on_hyphens=False)
    below = 0.2 + 0.131 * len(lines)  # inches, of 8-point lines
    above = 0.1 + max(
        (legend.get_window_extent().height / figure.drawn.dpi for legend in figure.drawn.legends), default=0
    )
    whole = height + below
    figure.drawn.set_size_inches(width, whole)
    figure.drawn.get_layout_engine().set(rect=(0, (below + above) / whole, 1, 1 - (below + above) / whole))
    for legend in figure.drawn.legends:  # the layout would put it at the figure's edge, onto the caption
        legend.set_in_layout(False)
        legend.set_loc("lower center")
        legend.set_bbox_to_anchor((0, below / whole, 1, 1), figure.drawn.transFigure)
    text = "\n".join(lines)
    figure.drawn.text(0.1 / width, 0.08 / whole, text, fontsize=8, color="0.3", va="bottom", parse_math=False)
    dates: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    paths = [folder / f"{figure.stem}.{suffix}" for suffix in (*FORMATS, "csv")]
    with plt.rc_context({"svg.hashsalt": figure.stem}):
        for path in paths[:-1]:
            with replacing(path) as temporary:
                figure.drawn.savefig(temporary, dpi=120, metadata=dates[path.suffix[1:]])
    plt.close(figure.drawn)
    with replacing(paths[-1]) as temporary:
        figure.data.to_csv(temporary, index=False)
    return paths


def listing(listed: Iterable[dict], left_out: Iterable[dict]) -> str:
    """Returns the figures as Markdown: those that are there with their captions, then the others with the reason."""
    parts = [f"![{NAMES[each['figure']]}]({each['stem']}.svg)\n\n{each['caption']}" for each in listed]
    parts += [
        f"Figure {each['figure'][-1]}, {label(DATASETS, each['dataset'])}: left out, {each['reason']}."
        for each in left_out
    ]
    return "\n\n".join(parts) + "\n"


def pyplot() -> Any:
    """Returns matplotlib.pyplot, which needs no screen."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
