"""The figures of a table row with their 95% intervals, from the per-example results."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scipy import stats
from tabulate import tabulate

SUCCEEDED, FAILED, SKIPPED = "succeeded", "failed", "skipped"
CONFIDENCE = 0.95
Interval = list[float] | None
SHARES = ("clean_accuracy", "accuracy_under_attack", "attack_success_rate")
RESOURCE_NOTES = {"official": "", "standin": " (stand-in resources)", "built-in": " (the project's own attack)"}


def summarise(examples: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts attacked examples, each with ``result`` (succeeded, failed or skipped), ``queries`` and word counts.

    With S succeeded, F failed and K skipped (misclassified before the attack) of n = S + F + K:

    - ``accuracy_under_attack`` = F / n (Aua%: examples still classified correctly),
    - ``attack_success_rate`` = S / (S + F) (Suc%),
    - ``avg_queries`` = mean queries over S and F (#Query); a skipped example is not attacked,
    - ``avg_words_changed`` = mean over S of ``num_words_changed`` / ``num_words``, words of both texts of a pair,
    - ``accuracy_before_attack`` = (S + F) / n, on this sample only.

    Each figure has its 95% interval [low, high] beside it under its name with ``_interval``: `share_interval` for
    shares of examples, `mean_interval` for means. Shares are fractions in [0, 1]; a figure without any example to
    count is None.

    Raises:
        ValueError: a result that is none of the three.
    """
    examples = list(examples)
    count = Counter(example["result"] for example in examples)
    if unknown := set(count) - {SUCCEEDED, FAILED, SKIPPED}:
        raise ValueError(f"unknown results {sorted(unknown)}")
    queries = [example["queries"] for example in examples if example["result"] != SKIPPED]
    changed = [
        example["num_words_changed"] / example["num_words"]
        for example in examples
        if example["result"] == SUCCEEDED and example.get("num_words")
    ]
    shares = {
        "accuracy_before_attack": (len(queries), len(examples)),
        "accuracy_under_attack": (count[FAILED], len(examples)),
        "attack_success_rate": (count[SUCCEEDED], len(queries)),
    }
    means = {"avg_queries": queries, "avg_words_changed": changed}
    figures: dict[str, Any] = {
        "num_examples": len(examples),
        "num_succeeded": count[SUCCEEDED],
        "num_failed": count[FAILED],
        "num_skipped": count[SKIPPED],
    }
    for name, (part, whole) in shares.items():
        figures[name] = part / whole if whole else None
        figures[f"{name}_interval"] = share_interval(part, whole)
    for name, values in means.items():
        figures[name] = statistics.fmean(values) if values else None
        figures[f"{name}_interval"] = mean_interval(values, highest=1.0 if name == "avg_words_changed" else math.inf)
    return figures


def count_changed_words(attributes: Mapping[str, Any]) -> int:
    """Returns how many words of the original an attack replaced, split, removed or put words beside.

    Args:
        attributes: the ``attack_attrs`` of the perturbed `AttackedText`. Its ``modified_indices`` count the words of
            the perturbed text, two where a word was split, so they are traced back to the original's.
    """
    modified = attributes["modified_indices"]
    return sum(1 for place in attributes["original_index_map"].tolist() if place == -1 or place in modified)


def share_interval(part: int, whole: int) -> Interval:
    """Returns Wilson's 95% interval [low, high] of the share `part` / `whole`; None if `whole` is 0.

    It stays within [0, 1] and has a width also where the share is 0 or 1.
    """
    if not whole:
        return None
    interval = stats.binomtest(part, whole).proportion_ci(CONFIDENCE, method="wilson")
    return [float(interval.low), float(interval.high)]


def mean_interval(values: Sequence[float], highest: float = math.inf) -> Interval:
    """Returns Student's 95% interval [low, high] of the mean, cut to [0, `highest`], which no mean here can leave.

    None for fewer than two values, which do not tell how far they scatter.
    """
    if len(values) < 2:
        return None
    mean = statistics.fmean(values)
    error = statistics.stdev(values) / math.sqrt(len(values))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return [max(0.0, mean - half), min(highest, mean + half)]


def table(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Returns the summaries of `attacks.attack` as rows ``Clean% | Aua% | Suc% | #Query | changed%`` under one heading.

    Each cell is a figure with its 95% interval. Figures with other than the official resources, of the MindSpore model
    or of calibrated logits say so in the same line.
    """
    heading = ("attack", "Clean%", "Aua%", "Suc%", "#Query", "changed%")
    rows = [
        (
            attack_title(summary),
            *(figure(summary, name, 100) for name in SHARES),
            figure(summary, "avg_queries"),
            figure(summary, "avg_words_changed", 100),
        )
        for summary in summaries
    ]
    return tabulate(rows, heading, tablefmt="presto", colalign=("left", *["right"] * 5), disable_numparse=True)


def attack_title(summary: Mapping[str, Any]) -> str:
    """Returns the attack's name with what its figures need to be read: other resources, MindSpore, temperatures."""
    victim = ", MindSpore" if summary.get("victim") == "mindspore" else ""
    calibration = summary.get("calibration")
    temperatures = "" if calibration is None else " and ".join(f"{value:.3g}" for value in calibration["temperatures"])
    calibrated = f", logits / {temperatures}" if temperatures else ""
    return f"{summary['attack']}{victim}{calibrated}{RESOURCE_NOTES[summary['resources']]}"


def figure(summary: Mapping[str, Any], name: str, factor: int = 1) -> str:
    """Returns a figure of a summary times `factor` with its 95% interval, such as ``26.6 [23.8, 29.6]``, or ``-``."""
    value, interval = summary.get(name), summary.get(f"{name}_interval")
    if value is None:
        return "-"
    bounds = f" [{factor * interval[0]:.1f}, {factor * interval[1]:.1f}]" if interval else ""
    return f"{factor * value:.1f}{bounds}"
