"""Sets finished runs side by side: a table, a figure and a result file, all from the files of the run folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from .attack_journal import read_records
from .attack_metrics import FAILED
from .errors import UserError
from .files import replacing
from .settings import demand_types
from .untrusted import read_mapping, read_table

NAMES = {"finetune": "fine-tuning", "flooding": "flooding"}
FIGURES = ("clean_accuracy", "accuracy_under_attack", "attack_success_rate", "avg_queries", "num_examples")
COLUMNS = ("method", "Clean%", "Aua%", "Suc%", "#Query", "train loss", "eval loss", "flooded steps")


def read_run(run: str | Path, attack: str) -> dict[str, Any]:
    """Returns the figures of a run that was attacked: those of the last epoch, and the attack's summary.

    Shares (accuracies, success rate, flooded steps) are fractions in [0, 1], losses mean cross-entropies in nats.

    Raises:
        UserError: a file of the run is missing or cannot be read.
    """
    run = Path(run)
    try:
        settings = read_mapping(run / "config.yaml", ("method", "flood_level"))
        demand_types(settings, run / "config.yaml")
        summary = read_mapping(run / "attacks" / attack / "summary.json", (*FIGURES, "seconds_attacking"))
        steps = read_table(run / "log.csv", ("flooded",))
        epochs = read_table(run / "epochs.csv", ("epoch", "train_loss", "eval_loss", "seconds"))
    except UserError as error:
        raise UserError(f"{run} is no finished run with the attack {attack} ({error}); train and attack it") from None
    odd = [name for name in FIGURES if not isinstance(summary[name], (int, float, type(None)))]
    if odd or epochs[["epoch", "eval_loss"]].isna().to_numpy().any():
        where = f"attacks/{attack}/summary.json: {odd[0]}" if odd else "epochs.csv: eval_loss"
        raise UserError(f"{run}/{where} is no number; train and attack it again")
    last, best = epochs.iloc[-1], epochs.loc[epochs["eval_loss"].idxmin()]
    return {
        "run": run.name,
        "method": settings["method"],
        "flood_level": settings["flood_level"],
        **{name: summary[name] for name in FIGURES},
        "train_loss": float(last["train_loss"]),
        "eval_loss": float(last["eval_loss"]),
        "lowest_eval_loss": float(best["eval_loss"]),
        "lowest_eval_loss_epoch": int(best["epoch"]),
        "flooded_steps": float(steps["flooded"].mean()),
        "steps": len(steps),
        "seconds_training": round(float(epochs["seconds"].sum()), 1),
        "seconds_attacking": summary["seconds_attacking"],
    }


def table(rows: Sequence[dict[str, Any]], style: str = "github") -> str:
    """Returns the rows of `read_run` as a text table; `style` is one of tabulate's, `github` is Markdown."""

    def percent(share: float | None) -> str:
        return "-" if share is None else f"{100 * share:.1f}"

    cells = [
        (
            NAMES.get(row["method"], row["method"])
            + ("" if row["flood_level"] is None else f", b = {row['flood_level']:g}"),
            percent(row["clean_accuracy"]),
            percent(row["accuracy_under_attack"]),
            percent(row["attack_success_rate"]),
            "-" if row["avg_queries"] is None else f"{row['avg_queries']:.1f}",
            f"{row['train_loss']:.3f}",
            f"{row['eval_loss']:.3f}",
            "-" if row["flood_level"] is None else f"{100 * row['flooded_steps']:.0f}%",
        )
        for row in rows
    ]
    alignment = ("left", *["right"] * (len(COLUMNS) - 1))
    return tabulate(cells, COLUMNS, tablefmt=style, disable_numparse=True, colalign=alignment)


def paired_outcome(first: str | Path, second: str | Path, attack: str) -> dict[str, Any]:
    """Compares two runs example by example: the same sentences were attacked in both.

    Returns:
        `only_first` and `only_second`, the numbers of examples that only this model still classified correctly under
        attack, and `p_value` of the exact two-sided sign test (McNemar's): how often chance alone would give a
        difference at least as large.

    Raises:
        UserError: the runs were attacked on different examples.
    """
    from scipy.stats import binomtest

    held = []
    for run in (first, second):
        records = read_records(Path(run) / "attacks" / attack / "examples.jsonl")
        held.append({id: record.get("result") == FAILED for id, record in records.items()})
    if held[0].keys() != held[1].keys():
        raise UserError(f"{first} and {second} were attacked on different examples; attack both with one --seed")
    only_first = sum(held[0][id] and not held[1][id] for id in held[0])
    only_second = sum(held[1][id] and not held[0][id] for id in held[0])
    differing = only_first + only_second
    p_value = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    return {"only_first": only_first, "only_second": only_second, "p_value": p_value}


def plot(runs: Sequence[str | Path], rows: Sequence[dict[str, Any]], target: str | Path) -> Path:
    """Draws the losses of the runs, epoch by epoch on one scale, beside bars of Clean% and Aua%."""
    import matplotlib

    matplotlib.use("Agg")  # no screen needed
    import matplotlib.pyplot as plt
    import numpy as np

    plt.rcParams["text.parse_math"] = False  # names may hold dollar signs
    epochs = [pd.read_csv(Path(run) / "epochs.csv") for run in runs]
    top = 1.05 * max(float(each[["train_loss", "eval_loss"]].to_numpy().max()) for each in epochs)
    figure, axes = plt.subplots(
        1, len(runs) + 1, figsize=(4.2 * (len(runs) + 1), 3.8), constrained_layout=True, squeeze=False
    )
    for axis, each, row in zip(axes[0], epochs, rows, strict=False):
        axis.plot(each["epoch"], each["train_loss"], "o-", color="C0", markersize=4, label="training (noisy labels)")
        axis.plot(each["epoch"], each["eval_loss"], "s-", color="C1", markersize=4, label="evaluation")
        if row["flood_level"] is not None:
            axis.axhline(row["flood_level"], color="0.35", linestyle="--", linewidth=1, label="flood level b")
        axis.set(title=NAMES.get(row["method"], row["method"]), xlabel="epoch", ylabel="mean cross-entropy")
        axis.set_ylim(0, top)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(frameon=False)
    bars = axes[0][-1]
    width = 0.8 / len(rows)
    for position, row in enumerate(rows):
        shares = 100 * np.array([row["clean_accuracy"], row["accuracy_under_attack"]])
        places = np.arange(2) + (position - (len(rows) - 1) / 2) * width
        drawn = bars.bar(places, shares, 0.92 * width, color=f"C{position + 2}", label=NAMES.get(row["method"]))
        bars.bar_label(drawn, fmt="%.1f", padding=2)
    examples = rows[0]["num_examples"]
    bars.set_xticks([0, 1], ["clean\n(all evaluation\nsentences)", f"under attack\n({examples} sentences)"])
    bars.set(title="accuracy", ylabel="%", ylim=(0, 115), yticks=range(0, 101, 20))
    bars.legend(frameon=False, loc="upper right")
    for axis in axes[0]:
        axis.spines[["top", "right"]].set_visible(False)
    target = Path(target)
    with replacing(target) as temporary:
        figure.savefig(temporary, dpi=130)
    plt.close(figure)
    return target
