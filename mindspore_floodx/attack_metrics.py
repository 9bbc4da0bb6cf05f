"""The figures of a table row, from the per-example results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

SUCCEEDED, FAILED, SKIPPED = "succeeded", "failed", "skipped"


def summarise(examples: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts attacked examples, each with ``result`` (succeeded, failed or skipped) and ``queries``.

    With S succeeded, F failed and K skipped (misclassified before the attack) of n = S + F + K:

    - ``accuracy_under_attack`` = F / n (Aua%: examples still classified correctly),
    - ``attack_success_rate`` = S / (S + F) (Suc%),
    - ``avg_queries`` = mean queries over S and F (#Query); a skipped example is not attacked,
    - ``accuracy_before_attack`` = (S + F) / n, on this sample only.

    Shares are fractions in [0, 1]; a figure without any example to count is None.

    Raises:
        ValueError: a result that is none of the three.
    """
    examples = list(examples)
    count = Counter(example["result"] for example in examples)
    if unknown := set(count) - {SUCCEEDED, FAILED, SKIPPED}:
        raise ValueError(f"unknown results {sorted(unknown)}")
    attacked = [example["queries"] for example in examples if example["result"] != SKIPPED]
    return {
        "num_examples": len(examples),
        "num_succeeded": count[SUCCEEDED],
        "num_failed": count[FAILED],
        "num_skipped": count[SKIPPED],
        "accuracy_before_attack": _share(len(attacked), len(examples)),
        "accuracy_under_attack": _share(count[FAILED], len(examples)),
        "attack_success_rate": _share(count[SUCCEEDED], len(attacked)),
        "avg_queries": _share(sum(attacked), len(attacked)),
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def table_row(summary: Mapping[str, Any]) -> str:
    """Returns a summary as the row ``Clean% | Aua% | Suc% | #Query`` with its heading, one line each.

    Figures with other than the official resources say so in the same line.
    """
    note = {"official": "", "standin": " (stand-in resources)", "built-in": " (the project's own attack)"}
    name = f"{summary['attack']}{note[summary['resources']]}"
    cells = [
        _percent(summary["clean_accuracy"]),
        _percent(summary["accuracy_under_attack"]),
        _percent(summary["attack_success_rate"]),
        "-" if summary["avg_queries"] is None else f"{summary['avg_queries']:.1f}",
    ]
    width = max(len(name), len("attack"))
    heading = f"{'attack':<{width}} | Clean% |   Aua% |   Suc% |  #Query"
    return heading + "\n" + f"{name:<{width}} | {cells[0]:>6} | {cells[1]:>6} | {cells[2]:>6} | {cells[3]:>7}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
