"""Pictures of a run, from its log files."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .files import replacing
from .model_config import labels_of, read_config
from .untrusted import read_mapping, read_table

_TITLE = ("dataset", "method", "model", "seed", "flood_level", "sub_epochs", "accordance")


def plot_training(run: str | Path) -> Path:
    """Draws plots/training.png of a run folder, see `training_figure`."""
    run = Path(run)
    return _save(training_figure(run), run / "plots" / "training.png")


def training_figure(run: Path) -> Any:
    """Returns a figure of a run folder: training loss per step, evaluation loss and accuracy per epoch.

    Raises:
        UserError: config.yaml, log.csv or epochs.csv is absent or damaged.
    """
    plt = _pyplot()
    settings = read_mapping(run / "config.yaml", _TITLE)
    steps = read_table(run / "log.csv", ("step", "loss"))
    epochs = read_table(run / "epochs.csv", ("epoch", "eval_loss", "eval_accuracy"))
    per_epoch = len(steps) / max(len(epochs), 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    x = steps["step"] / per_epoch
    left.plot(x, steps["loss"], color="0.5", alpha=0.4, linewidth=0.8, label="training loss, each step")
    window = max(5, len(steps) // 40)
    smooth = steps["loss"].rolling(window, min_periods=1).mean()
    left.plot(x, smooth, color="C0", label=f"training loss, mean of {window} steps")
    left.plot(epochs["epoch"], epochs["eval_loss"], "o-", color="C1", label="evaluation loss")
    if settings["flood_level"] is not None:
        left.axhline(
            settings["flood_level"], color="C3", linestyle="--", label=f"flood level {settings['flood_level']:g}"
        )
    elif (decision := flood_decision(run)) and decision["level"] is not None:
        since = decision["confirmed"] / settings["sub_epochs"] if decision["runs"] == 1 else 0
        label = f"flood level {decision['level']:.3f}, found by the run"
        left.plot([since, len(epochs)], [decision["level"]] * 2, color="C3", linestyle="--", label=label)
    left.set(xlabel="epoch", ylabel="cross-entropy", ylim=(0, None))
    left.legend(frameon=False)
    right.plot(epochs["epoch"], 100 * epochs["eval_accuracy"], "o-", color="C2")
    right.set(xlabel="epoch", ylabel="accuracy on the evaluation set (%)")
    right.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(_title(settings))
    return figure


def plot_accordance(run: str | Path) -> Path:
    """Draws plots/accordance.png of a run that was measured, see `accordance_figure`."""
    run = Path(run)
    return _save(accordance_figure(run), run / "plots" / "accordance.png")


def accordance_figure(run: Path) -> Any:
    """Returns a figure of a run that was measured: accordance and losses by sub-epoch, the class matrix.

    The left panel is the paper's Figure 3: where accordance turns, and where the evaluation loss does.

    Raises:
        UserError: config.yaml or accordance.csv is absent or damaged.
    """
    plt = _pyplot()
    settings = read_mapping(run / "config.yaml", _TITLE)
    rows = read_series(run)
    classes = read_table(run / "accordance_classes.csv", ("sub_epoch", "accordance"))
    epochs = rows["step"] / rows["step"].iloc[-1] * rows["epoch"].iloc[-1]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 4.5), constrained_layout=True, gridspec_kw={"width_ratios": [2.2, 1]}
    )
    measured = "snapshot" if settings["accordance"] == "snapshot" else "online"
    handles = draw_accordance(left, epochs, rows, flood_decision(run), settings["accordance"])
    left.set(xlabel="epoch")
    figure.legend(handles=handles, frameon=False, loc="outside lower center", ncols=len(handles))
    defined = classes[(classes["measured"] == measured) & classes["accordance"].notna()]
    if len(defined):
        number = defined["sub_epoch"].max()
        last = defined[defined["sub_epoch"] == number]
        names = class_names(run)
        _matrix(
            figure, right, last.pivot(index="class_a", columns="class_b", values="accordance").to_numpy(), names, names
        )
        right.set(title=f"between classes, sub-epoch {number}")
    figure.suptitle(_title(settings))
    return figure


def draw_accordance(
    axes: Any, x: pd.Series, rows: pd.DataFrame, decision: dict[str, Any] | None, setting: str
) -> list[Any]:
    """Draws accordance against `x`, losses on a second axis and the turn as a line; returns what a legend names.

    Args:
        x: where each of the `rows` stands.
        rows: columns accordance, train_loss and eval_loss, a row a sub-epoch; for `both` also snapshot.
        decision: sub_epoch, fired and level of the turn; None if none was looked for.
        setting: `accordance` of the run: how it was measured.
    """
    measured = "snapshot" if setting == "snapshot" else "online"
    axes.plot(x, rows["accordance"], "o-", markersize=3, color="C0", label=f"accordance, {measured}")
    if setting == "both":
        axes.plot(x, rows["snapshot"], "s--", markersize=3, color="C4", label="accordance, snapshot")
    axes.axhline(0, color="0.8", linewidth=0.8)
    axes.set(ylabel="gradient accordance between classes (eq. 13)", ylim=(-1.02, None))
    losses = axes.twinx()
    losses.plot(x, rows["train_loss"], color="C2", linewidth=1, label="training loss")
    known = rows["eval_loss"].notna()
    losses.plot(x[known], rows["eval_loss"][known], "o-", markersize=3, color="C1", label="evaluation loss")
    losses.set(ylabel="cross-entropy", ylim=(0, 1.08 * rows[["train_loss", "eval_loss"]].max().max()))
    if decision and decision["sub_epoch"] is not None:
        word = "turn" if decision["fired"] else "no turn; steepest rise"
        at = x.iloc[min(decision["sub_epoch"], len(x)) - 1]
        axes.axvline(at, color="C3", linestyle=":", label=f"{word}: b = {decision['level']:.3f}")
    return [*axes.get_legend_handles_labels()[0], *losses.get_legend_handles_labels()[0]]


def plot_batch_matrix(matrix: np.ndarray, target: Path, title: str) -> Path:
    """Draws the accordance of every batch with every other, [batches, batches], as a heat map."""
    figure, axes = _pyplot().subplots(figsize=(6, 5), constrained_layout=True)
    _matrix(figure, axes, matrix, None, None)
    axes.set(xlabel="batch", ylabel="batch", title=title)
    return _save(figure, target)


def plot_sweep(table: pd.DataFrame, target: Path, dataset: str) -> Path:
    """Draws accuracy and losses of the last epoch against the flood level."""
    figure, (left, right) = _pyplot().subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    levels = table["flood_level"]
    left.plot(levels, 100 * table["eval_accuracy"], "o-", color="C2")
    left.set(xlabel="flood level b", ylabel="accuracy on the evaluation set (%)")
    for name, colour in (("eval_loss", "C1"), ("lowest_eval_loss", "C4"), ("train_loss", "C0")):
        right.plot(levels, table[name], "o-", color=colour, label=name.replace("_", " "))
    right.plot(levels, levels, color="0.8", linewidth=0.8, label="loss = b")
    right.set(xlabel="flood level b", ylabel="cross-entropy, last epoch", ylim=(0, None))
    right.legend(frameon=False)
    figure.suptitle(f"{dataset}, flooding")
    return _save(figure, target)


def plot_smoothness(table: pd.DataFrame, targets: Sequence[Path], title: str) -> None:
    """Draws loss and accuracy against the noise's standard deviation, a curve a run (the paper's Figure 1).

    Args:
        table: columns run, deviation, draw, loss, accuracy. The line is the mean over the draws, the band one standard
            deviation of them to either side.
        targets: the files to write; their suffixes are the formats.
    """
    curves = {}
    for name in dict.fromkeys(table["run"]):
        draws = table[table["run"] == name].groupby("deviation")[["loss", "accuracy"]]
        curves[name] = draws.mean().add_suffix("_mean").join(draws.std().add_suffix("_std"))
    figure = draw_noise_curves(curves)
    figure.suptitle(title)
    for target in targets:
        with replacing(target) as temporary:
            figure.savefig(temporary, dpi=120)
    _pyplot().close(figure)


def draw_noise_curves(curves: dict[str, pd.DataFrame]) -> Any:
    """Returns a figure of loss and accuracy against the noise's standard deviation, with bands.

    Args:
        curves: for each name a frame indexed by the noise's standard deviation, with loss_mean, loss_std,
            accuracy_mean (a fraction) and accuracy_std; the band is one _std to either side.
    """
    plt = _pyplot()
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.5), constrained_layout=True)
    colours = colours_of(len(curves))
    for (_, curve), colour, marker in zip(curves.items(), colours, itertools.cycle("os^Dv<>p")):
        for axes, column, scale in zip(panels, ("loss", "accuracy"), (1, 100), strict=True):
            middle, width = scale * curve[f"{column}_mean"], scale * curve[f"{column}_std"]
            axes.plot(curve.index, middle, marker=marker, markersize=4, color=colour)
            axes.fill_between(curve.index, middle - width, middle + width, color=colour, alpha=0.2, linewidth=0)
    left, right = panels
    for axes, label in ((left, "mean cross-entropy, evaluation set"), (right, "accuracy, evaluation set (%)")):
        axes.set(xlabel="standard deviation of the noise on the word embeddings", ylabel=label)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
    left.set_ylim(0, 1.05 * left.dataLim.ymax)
    labels = list(curves)
    columns = max(1, 120 // (max(map(len, labels)) + 6))
    figure.legend(left.get_lines(), labels, frameon=False, loc="outside lower center", ncols=min(columns, len(labels)))
    return figure


def colours_of(count: int) -> list[Any]:
    """Returns so many colours that can be told apart."""
    if count <= 10:
        return [f"C{index}" for index in range(count)]
    return list(_pyplot().colormaps["turbo"](np.linspace(0.05, 0.95, count)))  # more than the default cycle has


def plot_timing(rows: Sequence[tuple[str, float, float]], targets: Sequence[Path], title: str) -> None:
    """Draws the seconds of an epoch by method as bars, the quickest on top (the paper's Table 3).

    Args:
        rows: name, seconds an epoch, and their ratio to fine-tuning, which is written at the bar.
        targets: the files to write; their suffixes are the formats.
    """
    names, seconds, ratios = zip(*sorted(rows, key=lambda row: row[1]), strict=True)
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(8, 1.3 + 0.32 * len(names)), constrained_layout=True)
    colours = ["0.6" if name == "finetune" else "C0" for name in names]
    bars = axes.barh(list(names), seconds, color=colours, height=0.7)
    axes.bar_label(bars, [f"{ratio:.2f}x" for ratio in ratios], padding=4)
    axes.margins(y=0.02)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.1 * max(seconds)))
    axes.set_xlabel("seconds of an epoch's training steps (at the bar: ratio to fine-tuning)")
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.suptitle(title, fontsize="medium")
    for target in targets:
        with replacing(target) as temporary:
            figure.savefig(temporary, dpi=120)
    plt.close(figure)


def read_series(run: Path) -> pd.DataFrame:
    """Returns a run's accordance.csv: a row for each sub-epoch.

    Raises:
        UserError: it cannot be read, or a column of it is absent or holds something else than numbers.
    """
    columns = ("step", "epoch", "accordance", "train_loss", "eval_loss", "snapshot")
    return read_table(run / "accordance.csv", columns)


def flood_decision(run: Path) -> dict[str, Any] | None:
    """Returns the content of a run's flood_level.json, or None if it has none."""
    path = run / "flood_level.json"
    return read_mapping(path, ("level", "runs", "sub_epoch", "confirmed", "fired")) if path.exists() else None


def class_names(run: Path) -> list[str] | None:
    """Returns the class names in the model's config.json; None if the run has no model yet."""
    path = run / "checkpoint" / "config.json"
    if not path.exists():
        return None
    return list(labels_of(read_config(path)).values())


def _matrix(figure: Any, axes: Any, matrix: np.ndarray, rows: list[str] | None, columns: list[str] | None) -> None:
    # the colours span what is there, or a matrix of much the same values would be one colour
    image = axes.imshow(matrix, cmap="coolwarm", vmin=-1 if rows else None, vmax=1 if rows else None)
    figure.colorbar(image, ax=axes, shrink=0.8, label="mean cosine")
    if rows and columns:
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        for (i, j), value in np.ndenumerate(matrix):
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if abs(value) > 0.6 else "black")


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")  # no screen needed
    import matplotlib.pyplot as plt

    plt.rcParams["text.parse_math"] = False  # names of classes, models and data sets may hold dollar signs
    return plt


def _title(settings: dict[str, Any]) -> str:
    return f"{settings['dataset']}, {settings['method']}, {settings['model']}, seed {settings['seed']}"


def _save(figure: Any, target: Path) -> Path:
    with replacing(target) as temporary:
        figure.savefig(temporary, dpi=120)
    _pyplot().close(figure)
    return target
