"""Tables 1, 2 and 3 of the paper, and beside Table 2 calibration, paired differences, further experiments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from .conditions import conditions, seeds_line, sweep_note
from .labels import ATTACKS, BASELINE, DATASETS, FLOODINGX, KINDS, METHODS, PAPER, encoder, label, ordered
from .render import Table, write_tables
from .results import Result
from .rows import (
    Row,
    attacks_of,
    baseline_of,
    clean_accuracy,
    datasets_of,
    further_rows,
    main_rows,
    summary_of,
    sweep,
)
from .statistics import Outcomes, mean_and_sd, paired_difference

FIGURES = {  # measures of Table 2 -> figure of a summary, factor, direction of the best
    "Aua%": ("accuracy_under_attack", 100.0, "max"),
    "Suc%": ("attack_success_rate", 100.0, "min"),
    "#Query": ("avg_queries", 1.0, "max"),
}
_SEVERAL = "Rows with several seeds show mean ± standard deviation over them, rows with one seed its value"
_SETTINGS_OF_CELL = ("seed", "output_dir", "overwrite", "device", "threads", "data_dir")  # tell no experiment


def write_all_tables(
    results: Sequence[Result], outcomes: Outcomes, timing: Mapping[str, dict], folder: str | Path
) -> list[Path]:
    """Writes every table that the results have something for, each as .md, .tex, .csv and .html.

    Returns:
        the paths: table1 (data), table2 (robustness), table2b (calibration), table2c (paired differences), their
        counterparts of extra experiments (``-further``), table3 (time) and table3b (time of the training runs).

    Raises:
        UserError: a broken file of attacked examples, or a folder that cannot be written to.
    """
    found = {
        "table1": table1(results),
        "table2": table2(results),
        "table2b": table2b(results),
        "table2c": table2c(results, outcomes),
        "table2-further": table2(results, further=True),
        "table2b-further": table2b(results, further=True),
        "table2c-further": table2c(results, outcomes, further=True),
        "table3": table3(timing),
        "table3b": table3b(results),
    }
    return [path for stem, tables in found.items() if tables for path in write_tables(stem, tables, folder)]


def table1(results: Sequence[Result]) -> list[Table]:
    """Returns the statistics of the data: examples, classes and their shares, words; a row a data set and part.

    Extra experiments count only where a data set has no others.
    """
    rows: dict[tuple[str, str], dict[tuple[str, str], Any]] = {}
    shown = []
    for name in datasets_of(results):
        cells = [result for result in results if result["dataset"] == name]
        cells = [cell for cell in cells if cell["tag"] is None] or cells
        for cell in cells:
            for part in ("train", "evaluation"):
                row = _data_row(cell, part)
                same = [key for key in rows if key[0] == label(DATASETS, name) and key[1].startswith(part)]
                if any(rows[key] == row for key in same):
                    continue
                rows[label(DATASETS, name), part + (f" {len(same) + 1}" if same else "")] = row
        shown += cells
    frame = _frame(rows, ["data set", "part"])
    models = sorted({encoder(cell["settings"]["model"]) for cell in shown})
    caption = (
        "Table 1: the data of the runs, as they were read; words stand between white space, of both texts of a pair. "
        f"No model and no attack plays a part in it (encoder of the runs: {' and '.join(models)}; {seeds_line(shown)})."
    )
    return [Table("Data", caption, frame)]


def table2(results: Sequence[Result], further: bool = False) -> list[Table]:
    """Returns, a table a data set, Clean% and each attack's Aua%, Suc% and #Query of every method.

    Args:
        further: of the extra experiments (cells with a tag) instead.
    """
    tables = []
    for name in datasets_of(results):
        rows = further_rows(results, name) if further else main_rows(results, name)
        if not rows:
            continue
        attacks = attacks_of(cell for row in rows for cell in row.cells)
        values, spreads = {}, {}
        for row in rows:
            told: dict[tuple[str, str], Any] = {("", "seeds"): len(row.cells), ("", "b"): _levels(row)}
            if further:
                told["", "differs in"] = _differs(row, results)
            figures = {("", "Clean%"): [100 * clean_accuracy(cell) for cell in row.cells]}
            for attack in attacks:
                for measure, (figure, factor, _) in FIGURES.items():
                    figures[label(ATTACKS, attack), measure] = [factor * each for each in row.figures(attack, figure)]
            values[row.name], spreads[row.name] = _means(told, figures)
        frame, spread = _frame(values, ["method"]), _frame(spreads, ["method"])
        best = {"Clean%": "max"} | {measure: goal for measure, (_, _, goal) in FIGURES.items()}
        bold = "" if further else " Best in bold: highest Clean%, Aua% and #Query, lowest Suc%."
        what = (
            "accuracy before (Clean%, whole evaluation set) and under attack (Aua%), share of attacks on correctly "
            "classified examples that succeed (Suc%), and queries of an attack (#Query)"
        )
        number = "Further experiments" if further else "Table 2"
        caption = f"{number}, {label(DATASETS, name)}: {what}.{bold} {_notes(results, name, rows, further)}"
        tables.append(Table(label(DATASETS, name), caption, frame, spread, None if further else best))
    return tables


def table2b(results: Sequence[Result], further: bool = False) -> list[Table]:
    """Returns Aua% raw and on calibrated logits side by side, with the expected calibration error."""
    tables = []
    for name in datasets_of(results):
        rows = further_rows(results, name) if further else main_rows(results, name)
        rows = [row for row in rows if any(_calibrated(cell) for cell in row.cells)]
        if not rows:
            continue
        attacks = attacks_of(cell for row in rows for cell in row.cells)
        values, spreads = {}, {}
        for row in rows:
            figures = {}
            for attack in attacks:
                for kind in KINDS:
                    shares = row.figures(attack, "accuracy_under_attack", kind)
                    figures[label(ATTACKS, attack), f"Aua% {kind}"] = [100 * share for share in shares]
            fits = [fit for cell in row.cells if (fit := _calibrated(cell))]
            for measure in ("ECE before", "ECE after", "temperature"):
                figures["calibration", measure] = [fit[measure] for fit in fits]
            values[row.name], spreads[row.name] = _means({("", "seeds"): len(row.cells)}, figures)
        number = "Further experiments, calibration" if further else "Table 2b"
        caption = (
            f"{number}, {label(DATASETS, name)}: accuracy under attack with the model's own logits (raw) and with "
            "logits divided by a temperature fitted on held-out examples (calibrated), which keeps every prediction "
            "and takes away what confidence alone hides from the attack; expected calibration error (ECE, 15 bins) of "
            "the attacked examples before and after, mean over the attacks, and the temperature. Best in bold: highest "
            f"Aua%, lowest ECE. {_notes(results, name, rows, further, listing=False)}"
        )
        best = {"Aua% raw": "max", "Aua% calibrated": "max", "ECE before": "min", "ECE after": "min"}
        frame, spread = _frame(values, ["method"]), _frame(spreads, ["method"])
        tables.append(Table(label(DATASETS, name), caption, frame, spread, best))
    return tables


def table2c(results: Sequence[Result], outcomes: Outcomes, further: bool = False) -> list[Table]:
    """Returns every method's difference of Aua% to fine-tuning on the same attacked examples, where there is one."""
    tables = []
    for name in datasets_of(results):
        main, extra = main_rows(results, name), further_rows(results, name)
        rows: dict[tuple[str, str, str], dict[tuple[str, str], Any]] = {}
        shown: list[Row] = []
        for row in extra if further else main:
            base = baseline_of(row, main, extra)
            if base is None:
                continue
            for attack in attacks_of(row.cells):
                for kind in KINDS:
                    if told := _difference(outcomes, row, base, attack, kind):
                        against = {("", "against"): base.name} if further else {}
                        rows[row.name, label(ATTACKS, attack), kind] = against | told
                        shown += [row, base]
        if not rows:
            continue
        number = "Further experiments, paired differences" if further else "Table 2c"
        caption = (
            f"{number}, {label(DATASETS, name)}: Aua% minus that of {'the run named' if further else 'fine-tuning'} on "
            "the same attacked examples, in points, runs paired by seed; low and high: 95% bootstrap interval (10,000 "
            "samples of the examples, each drawn with all its runs); it shows the scatter of the examples, not that of "
            "the training, which `by seed` shows. only other, only method: pairs of which only that side withstood; "
            "p: McNemar's exact two-sided test on them. It takes pooled pairs as independent; with several seeds an "
            "example occurs once a seed, which makes p too small. p is not corrected for the number of rows. "
            f"{_notes(results, name, shown, further, listing=False)}"
        )
        tables.append(Table(label(DATASETS, name), caption, _frame(rows, ["method", "attack", "logits"])))
    return tables


def table3(timing: Mapping[str, dict]) -> list[Table]:
    """Returns the seconds of an epoch and their ratio to fine-tuning's, as `floodx-timing` measured them."""
    if not timing:
        return []
    rows: dict[str, dict[tuple[str, str], Any]] = {}
    for name, content in timing.items():
        for row in content["rows"]:
            told = rows.setdefault(row["method"], {})
            told[label(DATASETS, name), "s/epoch"] = row["seconds_per_epoch"]
            told[label(DATASETS, name), "ratio"] = row["ratio"]
    measuring = {FLOODINGX: " (measuring accordance)"}
    frame = _frame(
        {label(METHODS, name) + measuring.get(name, ""): rows[name] for name in ordered(METHODS, rows)}, ["method"]
    )
    caption = (
        "Table 3: seconds of an epoch's training steps and their ratio to fine-tuning's; all methods took turns on the "
        f"same batches. {' '.join(_timing_conditions(name, content) for name, content in timing.items())} "
        "No attack plays a part in it."
    )
    return [Table("Time", caption, frame)]


def table3b(results: Sequence[Result]) -> list[Table]:
    """Returns the median seconds of the training runs' epochs and their ratio to fine-tuning's."""
    rows: dict[str, dict[tuple[str, str], Any]] = {}
    spreads: dict[str, dict[tuple[str, str], Any]] = {}
    shown: list[Row] = []
    for name in datasets_of(results):
        main = main_rows(results, name)
        base = {cell["seed"]: cell for row in main if row.method == BASELINE for cell in row.cells}
        for row in main:
            seconds = [median_seconds(cell) for cell in row.cells]
            paired = [
                median_seconds(cell) / median_seconds(base[cell["seed"]]) for cell in row.cells if cell["seed"] in base
            ]
            group = label(DATASETS, name)
            told, spread = _means({}, {(group, "s/epoch"): seconds, (group, "ratio"): paired})
            rows.setdefault(row.name, {}).update(told)
            spreads.setdefault(row.name, {}).update(spread)
        shown += main
    if not rows:
        return []
    places = {name: place for place, name in enumerate(ordered(METHODS, (row.method for row in shown)))}
    rows = {row.name: rows[row.name] for row in sorted(shown, key=lambda row: places[row.method])}
    cells = [cell for row in shown for cell in row.cells]
    devices = sorted({f"{cell.get('device', 'unknown device')}, threads {cell.get('threads')}" for cell in cells})
    caption = (
        "Table 3b: median seconds of an epoch of the training runs themselves, evaluation and measurements included, "
        "with their ratio to fine-tuning's with the same seed. Other work on the machine, and other machines, change "
        f"these times; Table 3, where there is one, is measured for comparison. {_SEVERAL}. {'; '.join(devices)}. "
        f"{conditions(cells, attacked=False)}"
    )
    return [
        Table(
            "Time of the training runs",
            caption,
            _frame(rows, ["method"]),
            _frame({name: spreads[name] for name in rows}, ["method"]),
        )
    ]


def _data_row(cell: Result, part: str) -> dict[tuple[str, str], Any]:
    told, counted = cell["data"][part], cell["statistics"][part]
    shares = ", ".join(f"{100 * share:.1f}%" for share in counted["class_shares"])
    return {
        ("", "examples"): counted["examples"],
        ("", "classes"): counted["classes"],
        ("", "class shares"): shares,
        ("", "mean words"): counted["words_mean"],
        ("", "longest"): counted["words_max"],
        ("", "source"): told["source"],
        ("", "whole data set"): "a part" if told["partial"] else "yes",
    }


def _notes(results: Sequence[Result], name: str, rows: Sequence[Row], further: bool, listing: bool = True) -> str:
    """Returns what a caption says after its first sentence; with `listing` also which of the paper's methods lack."""
    cells = [cell for row in rows for cell in row.cells]
    parts = [conditions(cells).rstrip(".")]
    if any(len(row.cells) > 1 for row in rows):
        parts.append(_SEVERAL)
    if not further:
        if note := sweep_note(results, name):
            parts.append(note)
        main = main_rows(results, name)
        used = {cell["id"] for row in main for cell in row.cells} | {cell["id"] for cell in sweep(results, name)}
        left = [
            each["id"] for each in results if each["dataset"] == name and not each["tag"] and each["id"] not in used
        ]
        if left:
            parts.append(f"Left out, trained at a level that is no longer the best: {', '.join(left)}")
        missing = [called for method, called in PAPER.items() if method not in {row.method for row in main}]
        if listing and missing:
            parts.append(f"Of the paper's methods these were not run: {', '.join(missing)}")
    return ". ".join(parts) + "."


def _levels(row: Row) -> str | None:
    return "; ".join(f"{level:.3g}" for level in row.levels()) or None


def _differs(row: Row, results: Sequence[Result]) -> str:
    """Returns the settings in which an extra experiment differs from the main one of its method, else fine-tuning."""
    cell = row.cells[0]
    main = [each for each in results if each["dataset"] == row.dataset and each["tag"] is None]
    same = [each for each in main if each["method"] == row.method] or [e for e in main if e["method"] == BASELINE]
    if not same:
        return "no main run to compare"
    settings, other = cell["settings"], same[0]["settings"]
    names = [name for name in settings if name not in (*_SETTINGS_OF_CELL, "method", "flood_level")]
    changed = [f"{name} {settings[name]}" for name in names if settings[name] != other.get(name)]
    counts = [
        {found["num_examples"] for name in attacks_of([each]) if (found := summary_of(each, name))}
        for each in (cell, same[0])
    ]
    if counts[0] != counts[1] and counts[0]:
        changed.append(f"{max(counts[0])} attacked examples")
    return "; ".join(changed) or "-"


def _calibrated(cell: Result) -> dict[str, float] | None:
    """Returns the mean of ECE and temperature over a cell's calibrated attacks; None without one."""
    found = [
        summary["calibration"] for attack in attacks_of([cell]) if (summary := summary_of(cell, attack, "calibrated"))
    ]
    fits = [
        {
            "ECE before": each["attacked"]["ece_before"],
            "ECE after": each["attacked"]["ece_after"],
            "temperature": sum(each["temperatures"]) / len(each["temperatures"]),
        }
        for each in found
        if each
    ]
    return {name: sum(fit[name] for fit in fits) / len(fits) for name in fits[0]} if fits else None


def _difference(outcomes: Outcomes, row: Row, base: Row, attack: str, kind: str) -> dict[tuple[str, str], Any]:
    found = paired_difference(outcomes.pairs(row.cells, base.cells, [attack], kind))
    if found is None:
        return {}
    return {
        ("", "difference"): 100 * found.difference,
        ("", "low"): 100 * found.low,
        ("", "high"): 100 * found.high,
        ("", "by seed"): ", ".join(f"{100 * each:+.1f}" for each in found.by_run),
        ("", "only other"): found.only_other,
        ("", "only method"): found.only_method,
        ("", "p"): found.p_value,
        ("", "examples"): found.examples,
    }


def _timing_conditions(name: str, content: Mapping[str, Any]) -> str:
    settings, data = content.get("settings", {}), content.get("data", {})
    told = [f"encoder {encoder(settings['model'])}"] if "model" in settings else []
    told += [f"batch {settings['batch_size']}"] if "batch_size" in settings else []
    told += [f"{data['examples']:,} training examples"] if "examples" in data else []
    told += [f"{data['batches_timed']} batches timed"] if "batches_timed" in data else []
    told += [str(settings["device"])] if "device" in settings else []
    told += [f"threads {content['threads']}"] if "threads" in content else []
    told += [f"seed {settings['seed']}"] if "seed" in settings else []
    return f"{label(DATASETS, name)}: {', '.join(told)}."


def median_seconds(cell: Result) -> float:
    """Returns the median of the seconds of a run's epochs."""
    return float(pd.Series([row["seconds"] for row in cell["epochs"]]).median())


def _means(told: dict, figures: Mapping[tuple[str, str], Iterable[float]]) -> tuple[dict, dict]:
    means = {column: mean_and_sd(values) for column, values in figures.items()}
    return told | {column: mean for column, (mean, _) in means.items()}, {
        column: sd for column, (_, sd) in means.items()
    }


def _frame(rows: Mapping[Any, Mapping[tuple[str, str], Any]], names: list[str]) -> pd.DataFrame:
    """Returns rows as a frame with the index levels `names`; numbers keep their kind, what is missing is None."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    index = (
        pd.MultiIndex.from_tuples(list(rows), names=names) if len(names) > 1 else pd.Index(list(rows), name=names[0])
    )
    data = [[row.get(column) for column in columns] for row in rows.values()]
    return pd.DataFrame(data, index, pd.MultiIndex.from_tuples(columns), dtype=object)
