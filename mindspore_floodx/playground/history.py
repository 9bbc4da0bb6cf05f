"""The history of a run as pictures for the page, on light and on dark ground."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..plots import accordance_figure, training_figure

_GROUNDS = ("default", "dark_background")  # styles of matplotlib
_COLOURS = "axes.prop_cycle"  # the same on both grounds


@dataclass(frozen=True)
class Picture:
    """A figure: what it shows, and a PNG for each ground as a data address that a page can hold."""

    what: str
    light: str
    dark: str


def draw_history(run: Path | None) -> tuple[list[Picture], str]:
    """Returns the pictures of a run's history, and a sentence where there are none.

    The first shows the training loss with the flood level, the evaluation loss and the accuracy; the second, of a run
    that was measured, its accordance.
    """
    if run is None or not (run / "log.csv").is_file():
        return [], "No history: this is an exported model without the run it came from."
    drawn: list[tuple[str, Callable[[Path], Any]]] = [("loss and accuracy of the training", training_figure)]
    if (run / "accordance.csv").is_file() and (run / "accordance_classes.csv").is_file():
        drawn.append(("gradient accordance of the training", accordance_figure))
    try:
        return [Picture(what, *(_png(figure, run, ground) for ground in _GROUNDS)) for what, figure in drawn], ""
    except UserError as error:
        return [], f"The history cannot be drawn: {error}."
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:  # tables that do not fit together
        return [], f"The history cannot be drawn, the logs in {run} do not fit together ({type(error).__name__})."


def _png(figure_of: Callable[[Path], Any], run: Path, ground: str) -> str:
    import matplotlib.pyplot as plt

    with plt.style.context([ground, {_COLOURS: plt.rcParamsDefault[_COLOURS]}]):
        figure = figure_of(run)
        file = io.BytesIO()
        try:
            figure.savefig(file, dpi=110, transparent=True)
        finally:
            plt.close(figure)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
