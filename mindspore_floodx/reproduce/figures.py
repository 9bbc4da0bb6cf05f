"""Figures 1 to 4 of the paper, each as SVG, PNG and PDF with what it shows as CSV, and a list of them all."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..files import write_json, write_text
from ..plots import colours_of, draw_accordance, draw_noise_curves
from .conditions import conditions, resources
from .figure_files import NAMES, Figure, listing, pyplot, save
from .labels import ATTACKS, BASELINE, DATASETS, FLOODINGX, KINDS, METHODS, label
from .results import Result, swept_level
from .rows import (
    attacks_of,
    clean_accuracy,
    datasets_of,
    epoch_records,
    find,
    flood_level,
    further_rows,
    lowest_before_flooding,
    main_rows,
    summary_of,
    sweep,
)
from .statistics import mean_and_sd

_MARKERS = "os^Dv<>p"
_MOST_PANELS = 3  # of Figure 3, a seed each


def write_all_figures(results: Sequence[Result], folder: str | Path) -> list[Path]:
    """Writes every figure that the results have something for, and figures.json and figures.md, which list them.

    A figure without data is left out; the lists say so, and why.

    Returns:
        the paths of all files.

    Raises:
        UserError: the folder cannot be written to.
    """
    folder = Path(folder)
    kinds: dict[str, Callable[[Sequence[Result], str], Figure | str]] = {
        "figure1": figure1,
        "figure2": figure2,
        "figure3": figure3,
        "figure4": figure4,
    }
    paths, listed, left_out = [], [], []
    for name in datasets_of(results):
        for kind, draw in kinds.items():
            figure = draw(results, name)
            if isinstance(figure, str):
                left_out.append({"figure": kind, "dataset": name, "reason": figure})
                continue
            paths += save(figure, folder)
            listed.append({"figure": kind, "dataset": name, "stem": figure.stem, "caption": figure.caption})
    listed.sort(key=lambda each: each["figure"])
    left_out.sort(key=lambda each: each["figure"])
    write_json(folder / "figures.json", {"figures": listed, "left_out": left_out})
    write_text(folder / "figures.md", listing(listed, left_out))
    return [*paths, folder / "figures.json", folder / "figures.md"]


def figure1(results: Sequence[Result], dataset: str) -> Figure | str:
    """Draws loss and accuracy under noise, a curve a method, or tells why there is nothing to draw."""
    curves, shown, frames = {}, [], []
    for row in main_rows(results, dataset):
        cells = [cell for cell in row.cells if cell["smoothness"]]
        if cells:
            curves[row.name] = noise_curve(cells)
            shown += cells
            frames.append(curves[row.name].reset_index().assign(method=row.name, seeds=len(cells)))
    if not curves:
        return "no run was measured under noise"
    drawn = draw_noise_curves(curves)
    measured = sorted({cell["smoothness"]["measured"] for cell in shown})
    draws = sorted({cell["smoothness"]["draws"] for cell in shown})
    caption = (
        f"Figure 1, {label(DATASETS, dataset)}: mean cross-entropy and accuracy when N(0, a^2) is added to the word "
        f"embeddings, against a; {_either(measured)} evaluation examples, {_either(draws)} draws. Curves: mean over "
        "the seeds; bands: one standard deviation, over the seeds where a method has several, else over the draws. "
        f"{conditions(shown, attacked=False)} No attack plays a part in it."
    )
    return _figure("figure1", dataset, caption, pd.concat(frames, ignore_index=True), drawn)


def noise_curve(cells: Sequence[Result]) -> pd.DataFrame:
    """Returns the mean curve of some seeds, indexed by deviation: loss_mean, loss_std, accuracy_mean, accuracy_std.

    The deviations are those over the seeds; of a single seed, those over the draws of the noise.
    """
    curves = [pd.DataFrame(cell["smoothness"]["curve"]).set_index("deviation").astype(float) for cell in cells]
    if len(curves) == 1:
        return curves[0]
    by_deviation = pd.concat(curves).groupby(level=0)
    means, spreads = by_deviation.mean(), by_deviation.std()
    columns = {}
    for name in ("loss", "accuracy"):
        columns[f"{name}_mean"], columns[f"{name}_std"] = means[f"{name}_mean"], spreads[f"{name}_mean"]
    return pd.DataFrame(columns)


def figure2(results: Sequence[Result], dataset: str) -> Figure | str:
    """Draws Aua% against the flood level of the sweep, fine-tuning as lines, or tells why there is nothing to draw."""
    cells = sweep(results, dataset)
    levels = sorted({level for cell in cells if (level := swept_level(cell)) is not None})
    if len(levels) < 2:
        return "the sweep of flood levels has one level only" if levels else "there was no sweep of flood levels"
    if not (attacks := attacks_of(cells)):
        return "no run of the sweep was attacked"
    rows = main_rows(results, dataset)
    base, found = find(rows, BASELINE), find(rows, FLOODINGX)
    groups: list[tuple[str, float | None, list[Result]]] = []
    groups += [("flooding", level, [cell for cell in cells if swept_level(cell) == level]) for level in levels]
    groups += [(row.name, None, list(row.cells)) for row in (base,) if row]
    groups += [
        (row.name, level, [cell]) for row in (found,) if row for cell in row.cells if (level := flood_level(cell))
    ]
    data = pd.DataFrame([each for group in groups for each in _level_records(*group, attacks)])
    shown = [cell for _, _, of_group in groups for cell in of_group]
    several = any(len(of_group) > 1 for name, _, of_group in groups if name == "flooding")
    bars = "one standard deviation over the seeds, of a single seed " if several else ""
    caption = (
        f"Figure 2, {label(DATASETS, dataset)}: accuracy under attack, raw and, where measured, on calibrated logits, "
        f"and before the attack, against the flood level b of vanilla flooding. Bars: {bars}the 95% interval of the "
        f"share.{' Dashed: fine-tuning, mean over its seeds.' if base else ''}"
        f"{' Stars: Flooding-X, each seed at the level it found.' if found else ''} {conditions(shown)}"
    )
    return _figure("figure2", dataset, caption, data, _draw_levels(data, attacks))


def _level_records(name: str, level: float | None, cells: Sequence[Result], attacks: Sequence[str]) -> Iterable[dict]:
    """Yields what Figure 2 shows of cells with one level: a record an attack and kind, in percent."""
    shares = {("clean", "raw", "clean_accuracy"): [clean_accuracy(cell) for cell in cells]}
    for attack in attacks:
        for kind in KINDS:
            found = [summary for cell in cells if (summary := summary_of(cell, attack, kind))]
            shares[attack, kind, "accuracy_under_attack"] = [each["accuracy_under_attack"] for each in found]
    for (attack, kind, figure), values in shares.items():
        mean, spread = mean_and_sd(values)
        if mean is None:
            continue
        first = next(
            (
                each
                for cell in cells
                for each in [summary_of(cell, attacks[0] if attack == "clean" else attack, kind)]
                if each
            ),
            {},
        )
        bounds = first.get(f"{figure}_interval") if spread is None else [mean - spread, mean + spread]
        low, high = bounds or (None, None)
        yield {
            "method": name,
            "flood level": level,
            "attack": attack,
            "kind": kind,
            "accuracy %": 100 * mean,
            "low": None if low is None else 100 * low,
            "high": None if high is None else 100 * high,
            "seeds": len(values),
        }


def _draw_levels(data: pd.DataFrame, attacks: Sequence[str]) -> Any:
    kinds = [kind for kind in KINDS if ((data["kind"] == kind) & (data["attack"] != "clean")).any()]
    plt = pyplot()
    drawn, axes = plt.subplots(1, len(kinds) + 1, figsize=(4.4 * (len(kinds) + 1), 4.2), constrained_layout=True)
    panels = [(kind, list(attacks), f"accuracy under attack (%), {kind}") for kind in kinds]
    panels.append(("raw", ["clean"], "accuracy before the attack (%)"))
    handles: dict[str, Any] = {}
    for place, (kind, names, title) in zip(axes, panels, strict=True):
        for name, colour, marker in zip(
            names, ["0.35"] if names == ["clean"] else colours_of(len(names)), itertools.cycle(_MARKERS)
        ):
            chosen = data[(data["attack"] == name) & (data["kind"] == kind)]
            swept = chosen[chosen["method"] == "flooding"]
            middle = swept["accuracy %"].astype(float)
            bars = [middle - swept["low"].astype(float), swept["high"].astype(float) - middle]
            line = place.errorbar(
                swept["flood level"], middle, bars, marker=marker, markersize=5, color=colour, capsize=2, elinewidth=0.8
            )
            if name != "clean":  # the panel says what it is
                handles.setdefault(label(ATTACKS, name), line)
            for value in chosen[chosen["method"] == label(METHODS, BASELINE)]["accuracy %"]:
                place.axhline(value, color=colour, linestyle="--", linewidth=1)
                handles.setdefault("fine-tuning", plt.Line2D([], [], color="0.35", linestyle="--", linewidth=1))
            stars = chosen[chosen["method"] == label(METHODS, FLOODINGX)]
            if len(stars):
                place.plot(
                    stars["flood level"], stars["accuracy %"], "*", color=colour, markersize=11, markeredgecolor="white"
                )
                handles.setdefault(
                    "Flooding-X", plt.Line2D([], [], color="0.35", marker="*", markersize=11, linestyle="")
                )
        place.set(xlabel="flood level b", ylabel=title)
        _quiet(place)
    top = max(place.get_ylim()[1] for place in axes[:-1])
    for place in axes[:-1]:
        place.set_ylim(0, top)
    known = [
        name for name in (*(label(ATTACKS, each) for each in attacks), "fine-tuning", "Flooding-X") if name in handles
    ]
    drawn.legend([handles[name] for name in known], known, frameon=False, loc="outside lower center", ncols=len(known))
    return drawn


def figure3(results: Sequence[Result], dataset: str) -> Figure | str:
    """Draws accordance and losses against the sub-epochs, a panel a seed, or tells why there is nothing to draw."""
    row = find(main_rows(results, dataset), FLOODINGX)
    cells = [cell for cell in row.cells if cell["accordance"]] if row else []
    if not cells:
        return "there was no run of Flooding-X with accordance"
    frames, told = [], []
    handles: dict[str, Any] = {}
    shown = cells[:_MOST_PANELS]
    plt = pyplot()
    drawn, axes = plt.subplots(
        len(shown), 1, figsize=(9, 1 + 2.8 * len(shown)), constrained_layout=True, squeeze=False, sharex=True
    )
    for cell in cells:
        rows = pd.DataFrame(cell["accordance"])
        names = [name for name in ("accordance", "snapshot", "train_loss", "eval_loss") if name in rows]
        rows[names] = rows[names].astype(float)  # what is undefined is null in the file
        decision = cell["flood_level"]
        turn = decision["sub_epoch"] if decision else None
        frames.append(rows.assign(seed=cell["seed"], turn=[number == turn for number in rows["sub_epoch"]]))
        told.append(_turn_line(cell, lowest_before_flooding(cell)))
        if cell in shown:
            place = axes[shown.index(cell)][0]
            setting = cell["settings"].get("accordance", "online")
            for handle in draw_accordance(place, rows["sub_epoch"], rows, decision, setting):
                handles.setdefault(handle.get_label().partition(": b")[0], handle)
            level = f", b = {decision['level']:.3f}" if turn is not None else ""
            place.set_title(f"seed {cell['seed']}{level}", fontsize="medium")
            place.set(ylabel="accordance (eq. 13)")
    axes[-1][0].set(xlabel="sub-epoch")
    drawn.legend(list(handles.values()), list(handles), frameon=False, loc="outside lower center", ncols=len(handles))
    caption = (
        f"Figure 3, {label(DATASETS, dataset)}: gradient accordance between classes, training and evaluation loss "
        f"against the sub-epochs of Flooding-X; dotted: the turn. {' '.join(told)} {conditions(cells, attacked=False)} "
        "No attack plays a part in it."
    )
    return _figure("figure3", dataset, caption, pd.concat(frames, ignore_index=True), drawn)


def _turn_line(cell: Result, lowest: int | None) -> str:
    decision = cell["flood_level"] or {"sub_epoch": None}
    turn = "no turn" if decision["sub_epoch"] is None else f"turn at sub-epoch {decision['sub_epoch']}"
    if decision["sub_epoch"] is not None and not decision["fired"]:
        turn = f"no turn seen, the steepest rise at sub-epoch {decision['sub_epoch']} taken"
    loss = "" if lowest is None else f", lowest evaluation loss before flooding at sub-epoch {lowest}"
    return f"Seed {cell['seed']}: {turn}{loss}."


def figure4(results: Sequence[Result], dataset: str) -> Figure | str:
    """Draws Aua% and training loss after each epoch, a curve a method, or tells why there is nothing to draw."""
    rows = [*main_rows(results, dataset), *further_rows(results, dataset)]
    chosen = {row.name: [cell for cell in row.cells if epoch_records(cell)] for row in rows}
    chosen = {name: cells for name, cells in chosen.items() if cells}
    if not chosen:
        return "no run was attacked after each epoch"
    plt = pyplot()
    drawn, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), constrained_layout=True)
    records = []
    for (name, cells), colour, marker in zip(chosen.items(), colours_of(len(chosen)), itertools.cycle(_MARKERS)):
        curve = epoch_curve(cells)
        records.append(curve.reset_index().assign(method=name))
        attacked = curve[curve["accuracy under attack %"].notna()]
        middle = attacked["accuracy under attack %"]
        left.plot(attacked.index, middle, marker=marker, markersize=4, color=colour, label=name)
        left.fill_between(
            attacked.index,
            attacked["low"].astype(float),
            attacked["high"].astype(float),
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
        right.plot(curve.index, curve["training loss"], marker=marker, markersize=4, color=colour)
    left.set(xlabel="epoch", ylabel="accuracy under attack (%)", ylim=(0, None))
    right.set(xlabel="epoch", ylabel="training loss (cross-entropy)", ylim=(0, None))
    for place in (left, right):
        place.xaxis.get_major_locator().set_params(integer=True)
        _quiet(place)
    drawn.legend(
        *left.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=min(5, len(chosen))
    )
    cells = [cell for of_row in chosen.values() for cell in of_row]
    attacks = sorted({label(ATTACKS, row["attack"]) for cell in cells for row in epoch_records(cell)})
    counts = sorted({row["num_examples"] for cell in cells for row in epoch_records(cell)})
    attack = f"{' and '.join(attacks)}{f' {told}' if (told := resources(cells)) else ''}"
    caption = (
        f"Figure 4, {label(DATASETS, dataset)}: accuracy under attack and training loss after each "
        f"epoch; {attack}, {_either(counts)} evaluation examples attacked each time. Curves: mean over the "
        "seeds; bands: one standard deviation over the seeds, of a single seed the 95% interval of the share. "
        f"{conditions(cells, attacked=False)}"
    )
    return _figure("figure4", dataset, caption, pd.concat(records, ignore_index=True), drawn)


def epoch_curve(cells: Sequence[Result]) -> pd.DataFrame:
    """Returns what Figure 4 shows of some seeds of one experiment.

    Returns:
        indexed by epoch: accuracy under attack % (mean over the seeds), low and high (one standard deviation to either
        side, of a single seed the 95% interval), seeds, training loss (mean over the seeds).
    """
    records = []
    for epoch in sorted({row["epoch"] for cell in cells for row in cell["epochs"]}):
        attacked = [row for cell in cells for row in epoch_records(cell) if row["epoch"] == epoch]
        losses = [row["train_loss"] for cell in cells for row in cell["epochs"] if row["epoch"] == epoch]
        mean, spread = mean_and_sd(row["accuracy_under_attack"] for row in attacked)
        low, high = None, None
        if mean is not None and spread is not None:
            low, high = mean - spread, mean + spread
        elif mean is not None:
            low, high = attacked[0].get("accuracy_under_attack_interval") or (None, None)
        records.append(
            [
                epoch,
                *(None if each is None else 100 * each for each in (mean, low, high)),
                len(attacked),
                statistics.fmean(losses),
            ]
        )
    columns = ["epoch", "accuracy under attack %", "low", "high", "seeds", "training loss"]
    return pd.DataFrame(records, columns=columns).astype(float).astype({"epoch": int, "seeds": int}).set_index("epoch")


def _figure(kind: str, dataset: str, caption: str, data: pd.DataFrame, drawn: Any) -> Figure:
    """Puts the first sentences of the caption over the figure and all of it under it."""
    title = caption.split(":")[0].partition(", ")
    drawn.suptitle(f"{title[2]}: {NAMES[kind]}")
    return Figure(f"{kind}-{dataset}", caption, data, drawn)


def _quiet(axes: Any) -> None:
    axes.grid(color="0.92")
    axes.set_axisbelow(True)


def _either(values: Sequence[int]) -> str:
    return " or ".join(f"{value:,}" for value in values)
