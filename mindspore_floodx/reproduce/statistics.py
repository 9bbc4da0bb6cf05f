"""Mean and standard deviation over seeds; two methods compared on the same attacked examples."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from ..attack_metrics import FAILED, share_interval
from .results import Result, read_examples

CONFIDENCE = 0.95
RESAMPLES = 10_000
_VALUES_AT_ONCE = 1 << 24  # of resampled examples, 128 MiB
Held = Mapping[int, bool]  # example id -> still classified correctly after the attack
Pair = tuple[Held, Held]  # of one method and of the one it is held against


def mean_and_sd(values: Iterable[float | None]) -> tuple[float | None, float | None]:
    """Returns the mean and the sample standard deviation (n - 1) of the values that are not None.

    The deviation of a single value is None: one seed tells nothing of the scatter. Without a value both are.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None, None
    return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None


@dataclass(frozen=True)
class PairedDifference:
    """A method held against another one on the same attacked examples.

    Attributes:
        difference: accuracy under attack of the method minus the other's, in [-1, 1], over all pairs.
        low, high: its 95% bootstrap interval; examples are drawn again, each with all its pairs.
        by_run: the difference of each pair of runs.
        only_other, only_method: pairs of which only one withstood the attack.
        p_value: McNemar's exact test on the pooled pairs.
        examples: distinct examples.
    """

    difference: float
    low: float
    high: float
    by_run: tuple[float, ...]
    only_other: int
    only_method: int
    p_value: float
    examples: int


def paired_difference(pairs: Sequence[Pair], confidence: float = CONFIDENCE) -> PairedDifference | None:
    """Compares a method with another one, run by run and example by example.

    The interval is that of other examples under the same trained models: it holds the scatter of the examples, not
    that of the training, which the standard deviation over seeds shows. McNemar's test takes all pairs as independent;
    with several runs an example is in it several times, so its p is then too small rather than too large.

    Args:
        pairs: for each pair of runs (the same seed, or also the same attack) the outcomes of the method and of the
            other one. Only examples that both were attacked on count.
        confidence: of the interval.

    Returns:
        the difference; None if no example was attacked in both runs of any pair.
    """
    differences = _differences(pairs)
    if not differences:
        return None
    sums, counts = _by_example(differences)
    values = [value for each in differences for value in each.values()]
    low, high = interval(bootstrap_means(sums, counts), confidence)
    only_method, only_other = values.count(1), values.count(-1)
    return PairedDifference(
        difference=float(sums.sum() / counts.sum()),
        low=low,
        high=high,
        by_run=tuple(statistics.fmean(each.values()) for each in differences),
        only_other=only_other,
        only_method=only_method,
        p_value=mcnemar(only_other, only_method),
        examples=len(sums),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Returns the p-value of McNemar's exact two-sided test, given the pairs of which only one side was right."""
    differing = only_first + only_second
    return float(binomtest(only_first, differing).pvalue) if differing else 1.0


def bootstrap_means(sums: np.ndarray, counts: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Returns the mean of each of `resamples` samples of the examples, drawn with replacement, [resamples].

    Args:
        sums: of the values of each example, [examples].
        counts: how many values an example has, [examples]; the mean is that over all values of the sample.
    """
    rng = np.random.default_rng(seed)
    at_once = max(1, _VALUES_AT_ONCE // len(sums))
    means = []
    for start in range(0, resamples, at_once):
        chosen = rng.integers(0, len(sums), (min(at_once, resamples - start), len(sums)))
        means.append(sums[chosen].sum(1) / counts[chosen].sum(1))
    return np.concatenate(means)


def interval(draws: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Returns the percentile interval of bootstrap draws."""
    low, high = np.quantile(draws, ((1 - confidence) / 2, (1 + confidence) / 2))
    return float(low), float(high)


def difference_draws(pairs: Sequence[Pair], seed: int) -> np.ndarray | None:
    """Returns bootstrap draws of the difference of `paired_difference`, [RESAMPLES]; None where that gives None.

    Draws of different data sets need different seeds, or they would rise and fall together.
    """
    differences = _differences(pairs)
    return bootstrap_means(*_by_example(differences), seed=seed) if differences else None


def _differences(pairs: Sequence[Pair]) -> list[dict[int, int]]:
    found = [{id: int(method[id]) - int(other[id]) for id in method.keys() & other.keys()} for method, other in pairs]
    return [each for each in found if each]


def _by_example(differences: Sequence[Mapping[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    sums: dict[int, int] = {}
    counts: dict[int, int] = {}
    for each in differences:
        for id, value in each.items():
            sums[id], counts[id] = sums.get(id, 0) + value, counts.get(id, 0) + 1
    ids = sorted(sums)  # so that the draws do not depend on the order of sets
    return np.array([sums[id] for id in ids], float), np.array([counts[id] for id in ids], float)


def share_difference(first: tuple[int, int], second: tuple[int, int]) -> tuple[float, float, float]:
    """Returns first - second of two shares of different examples, and Newcombe's 95% interval (1998, method 10).

    Args:
        first, second: part and whole, the whole at least 1.
    """
    shares, bounds = [], []
    for part, whole in (first, second):
        shares.append(part / whole)
        bounds.append(share_interval(part, whole) or [0.0, 1.0])
    (a, b), ((a_low, a_high), (b_low, b_high)) = shares, bounds
    low = a - b - math.hypot(a - a_low, b_high - b)
    high = a - b + math.hypot(a_high - a, b - b_low)
    return a - b, low, high


class Outcomes:
    """Which attacked examples withstood, read once from the files under `folder`."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._known: dict[tuple[str, str, str], dict[int, bool]] = {}

    def held(self, result: Result, attack: str, kind: str = "raw") -> Held:
        """Returns the outcomes of a cell's attacked examples; empty if the cell has none.

        Raises:
            UserError: the file of the examples is broken.
        """
        key = result["id"], attack, kind
        if key not in self._known:
            records = read_examples(self._folder, *key)
            self._known[key] = {record["id"]: record["result"] == FAILED for record in records}
        return self._known[key]

    def pairs(
        self, method: Sequence[Result], other: Sequence[Result], attacks: Iterable[str], kind: str = "raw"
    ) -> list[Pair]:
        """Returns the pairs of runs with one seed, for each attack, that have attacked examples in common."""
        others = {result["seed"]: result for result in other}
        found = [
            (self.held(result, attack, kind), self.held(others[result["seed"]], attack, kind))
            for attack in attacks
            for result in method
            if result["seed"] in others
        ]
        return [(first, second) for first, second in found if first.keys() & second.keys()]
