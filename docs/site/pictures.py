"""Draws the pictures of docs/method.md, and writes what they say beneath them, from result files and from the formulas.

python docs/site/pictures.py            # writes docs/pictures/*.svg and the captions in docs/method.md
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from mindspore_floodx.accordance_result import accordance_from_gradients
from mindspore_floodx.files import replacing, write_text

ROOT = Path(__file__).resolve().parents[2]
CELLS = ROOT / "results" / "reproduce-cpu" / "cells"
GREY, TEAL, ORANGE = "#7a7a7a", "#00796b", "#d9622b"
STYLE = {
    "svg.hashsalt": "floodx",  # the same file every time
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def loss() -> tuple[Figure, str]:
    """The flooded loss, and gradient descent on a loss of one weight with it and without."""
    level, rate, steps = 0.3, 0.2, 24
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    plain = np.linspace(0, 1, 201)
    left.plot(plain, plain, "--", color=GREY, label="J")
    left.plot(plain, np.abs(plain - level) + level, color=TEAL, linewidth=2, label="|J - b| + b")
    left.axvline(level, color=ORANGE, linewidth=1, linestyle=":")
    left.text(level + 0.01, 0.03, f"b = {level:g}", color=ORANGE)
    left.text(0.1, level + 0.24, "the step\nascends", color=TEAL)
    left.text(0.62, 0.42, "the step\ndescends", color=TEAL)
    left.set(xlabel="loss J of the batch", ylabel="loss that is trained", ylim=(0, 1.05))
    left.legend(loc="lower right")
    ends = {}
    for name, colour, flooded in (("without flooding", GREY, False), (f"flooded at b = {level:g}", TEAL, True)):
        weight, losses = 1.4, []
        for _ in range(steps):
            value = weight**2 / 2
            losses.append(value)
            sign = -1.0 if flooded and value < level else 1.0
            weight -= rate * sign * weight  # the gradient of weight^2 / 2 is the weight
        ends[flooded] = losses
        right.plot(losses, "o-", markersize=3, color=colour, label=name)
    right.axhline(level, color=ORANGE, linewidth=1, linestyle=":")
    right.set(xlabel="step", ylabel="J", ylim=(0, None))
    right.legend()
    last = ends[True][-10:]
    caption = (
        f"Left: the flooded loss of a batch. Right: {steps} steps of gradient descent on J = w^2 / 2 from w = 1.4 with "
        f"learning rate {rate:g}. Without flooding J ends at {ends[False][-1]:.4f}; flooded, the last ten values lie "
        f"between {min(last):.2f} and {max(last):.2f}."
    )
    return figure, caption


def run() -> tuple[Figure, str]:
    """Training and evaluation loss of two kept runs, fine-tuned and flooded, by epoch."""
    plain, flooded = (_cell(f"sst2-{method}-0") for method in ("finetune", "floodingx"))
    level = flooded["flood_level"]["level"]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
    for cell, colour, name in ((plain, GREY, "fine-tuning"), (flooded, TEAL, "Flooding-X")):
        epochs = [row["epoch"] for row in cell["epochs"]]
        for axis, key in zip(axes, ("train_loss", "eval_loss"), strict=True):
            axis.plot(epochs, [row[key] for row in cell["epochs"]], "o-", markersize=3, color=colour, label=name)
    for axis, title in zip(axes, ("training loss", "evaluation loss"), strict=True):
        axis.set(xlabel="epoch", title=title, ylim=(0, None))
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].axhline(level, color=ORANGE, linewidth=1, linestyle=":")
    axes[0].text(1, level, f"b = {level:.2f}", color=ORANGE, va="top")
    axes[0].set(ylabel="mean cross-entropy")
    axes[1].legend()

    def told(cell: dict[str, Any]) -> str:
        losses = [row["eval_loss"] for row in cell["epochs"]]
        return (
            f"training loss {cell['epochs'][-1]['train_loss']:.3f}, evaluation loss {losses[-1]:.3f} after its lowest, "
            f"{min(losses):.3f}, in epoch {1 + losses.index(min(losses))}"
        )

    caption = (
        f"{_data(plain)} After {len(epochs)} epochs fine-tuning has {told(plain)}; Flooding-X has {told(flooded)}. "
        f"It found b = {level:.2f} at sub-epoch {flooded['flood_level']['sub_epoch']}, and {flooded['flooded']:.0%} of "
        "all its steps went uphill."
    )
    return figure, caption


def gradients() -> tuple[Figure, str]:
    """Class gradients of two batches of a logistic regression with two weights, and their accordance."""
    generator = np.random.default_rng(0)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharex=True, sharey=True)
    values = []
    for axis, shared, own, title in (
        (axes[0], 1.0, 0.3, "the classes pull against each other"),
        (axes[1], 0.3, 1.0, "the classes agree"),
    ):
        found = np.zeros((2, 2, 2))  # batches, classes, weights
        for batch in range(2):
            for label in range(2):
                centre = np.array([shared, own if label else -own])
                examples = centre + 0.25 * generator.standard_normal((8, 2))
                found[batch, label] = ((0.5 - label) * examples).mean(0)  # of the cross-entropy, at weights 0
        for batch in range(2):
            for label, colour in enumerate((ORANGE, TEAL)):
                x, y = found[batch, label]
                line = "-" if batch == 0 else "--"
                axis.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "->", "color": colour, "ls": line, "lw": 2})
                axis.plot([], [], line, color=colour, linewidth=2, label=f"class {'ab'[label]}, batch {batch + 1}")
        value = accordance_from_gradients(found, np.ones((2, 2), bool)).value
        values.append(value)
        axis.set(title=f"{title}: S = {value:.2f}", xlim=(-0.7, 0.7), ylim=(-0.7, 0.7), xlabel="gradient by weight 1")
        axis.axhline(0, color="0.85", linewidth=0.8, zorder=0)
        axis.axvline(0, color="0.85", linewidth=0.8, zorder=0)
        axis.set_aspect("equal")
    axes[0].set(ylabel="gradient by weight 2")
    axes[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    caption = (
        "A logistic regression with two weights, at weights 0, on drawn examples. An arrow is the mean gradient of a "
        "class in a batch. Left: what all examples share is large, what tells the classes apart is small, and S = "
        f"{values[0]:.2f}. Right: the other way round, and S = {values[1]:.2f}. `accordance_from_gradients` computed S."
    )
    return figure, caption


PICTURES = {"flooded-loss": loss, "flooded-run": run, "class-gradients": gradients}


def draw(folder: Path) -> dict[str, str]:
    """Writes all pictures to a folder and returns the caption of each."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = {}
    with plt.rc_context(STYLE):
        for name, function in PICTURES.items():
            figure, captions[name] = function()
            with replacing(folder / f"{name}.svg") as temporary:
                figure.savefig(temporary, format="svg", metadata={"Date": None})
            plt.close(figure)
    return captions


def captioned(text: str, captions: dict[str, str]) -> str:
    """Returns the page with each caption between its marks."""
    for name, caption in captions.items():
        marked = re.compile(rf"(<!-- {name}:begin[^>]*-->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        text, number = marked.subn(lambda found, caption=caption: f"{found[1]}{caption}\n{found[2]}", text)
        if number != 1:
            raise ValueError(f"docs/method.md needs one place for the caption of {name}, and has {number}")
    return text


def _cell(name: str) -> dict[str, Any]:
    return json.loads((CELLS / name / "result.json").read_text(encoding="utf-8"))


def _data(cell: dict[str, Any]) -> str:
    data, settings = cell["data"], cell["settings"]
    return (
        f"{settings['model']}, {data['train']['examples']:,} training examples ({data['train']['source']}), "
        f"{data['evaluation']['examples']:,} evaluation examples ({data['evaluation']['source']}), seed {cell['seed']}."
    )


if __name__ == "__main__":
    page = ROOT / "docs" / "method.md"
    write_text(page, captioned(page.read_text(encoding="utf-8"), draw(ROOT / "docs" / "pictures")))
