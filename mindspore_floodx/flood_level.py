"""The criterion of Flooding-X: from the accordance and the training loss of each sub-epoch to the flood level.

The level is the training loss of the sub-epoch just before the model begins to overfit (section 3). What shows that
beginning is less clear: section 3.2 says that a negative accordance means overfitting, section 5.1 that accordance
turns from negative to positive there, and on real runs it may do neither. So there are three rules.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import UserError, nearest

RULES = ("change-point", "turns-negative", "turns-positive")
FALLBACKS = ("steepest", "none")


@dataclass(frozen=True)
class FloodLevel:
    """A decision of `choose_flood_level`.

    Attributes:
        level: the flood level b, in units of the training loss; None if there is none to give.
        rule: the rule that was asked.
        fired: whether the rule saw a turn; if not, `level` is the fall-back's.
        sub_epoch: the sub-epoch of the turn, counted from 1; None if there is none.
        confirmed: the sub-epoch after which the turn was certain (later than `sub_epoch` by `patience` - 1).
        reason: the decision in a sentence.
    """

    level: float | None
    rule: str
    fired: bool
    sub_epoch: int | None
    confirmed: int | None
    reason: str


def choose_flood_level(
    accordance: Sequence[float],
    train_loss: Sequence[float],
    rule: str = "change-point",
    *,
    smoothing: int = 1,
    patience: int = 2,
    margin: float = 0.05,
    window: int = 4,
    deviations: float = 3.0,
    fallback: str = "steepest",
) -> FloodLevel:
    """Finds the turn of the accordance and returns the training loss just before it as flood level.

    A turn at sub-epoch t uses nothing later than t + patience - 1, so the decision on a part of a series is the one
    that a run takes when it has come so far. Rules:

    - ``turns-negative`` (section 3.2): accordance falls below -margin after having been above margin.
    - ``turns-positive`` (section 5.1): it rises above margin after having been below -margin.
    - ``change-point``: it rises above the mean of the `window` sub-epochs before by more than `margin` and by more than
      `deviations` times their standard deviation. A series that still climbs steadily has a large deviation, so its
      climb is no turn; leaving a plateau is one.

    Args:
        accordance: value of each sub-epoch, in order; NaN (undefined) is taken as the value before it,
            at the start as the first that is defined.
        train_loss: mean training loss of each sub-epoch.
        rule: one of `RULES`.
        smoothing: accordance is averaged over so many sub-epochs, each with those before it.
        patience: so many sub-epochs in a row must be beyond the threshold; the first of them is the turn.
        margin: distance from the threshold below which nothing counts; between the margins a sign keeps (hysteresis).
        window, deviations: of change-point.
        fallback: what a series without a turn gives: ``steepest`` takes the greatest rise of the accordance after the
            first `window` sub-epochs as its turn (in a shorter series, the greatest of all), ``none`` gives no level.

    Raises:
        UserError: an unknown rule or fall-back, a number out of range, or series of different lengths.
    """
    _check(accordance, train_loss, rule, fallback, smoothing, patience, margin, window, deviations)
    series = _smooth(_filled(accordance), smoothing)
    turn, why = None, ""
    if series:
        if rule == "change-point":
            turn, why = _leaves_plateau(series, patience, margin, window, deviations)
        else:
            turn, why = _crosses(series, patience, margin, 1 if rule == "turns-positive" else -1)
    if turn is not None:
        return _decision(rule, True, turn, turn + patience - 1, train_loss, why)
    if fallback == "none" or len(series) < 2:
        return FloodLevel(None, rule, False, None, None, f"{why or 'there is no sub-epoch yet'}; no level is given")
    rises = [after - before for before, after in itertools.pairwise(series)]
    start = window - 1 if len(rises) > window - 1 else 0
    steepest = rises.index(max(rises[start:]), start) + 1
    told = f"{why}; fall-back: the steepest rise, from {series[steepest - 1]:.3f} to {series[steepest]:.3f}"
    return _decision(rule, False, steepest, len(series) - 1, train_loss, told)


def _decision(rule: str, fired: bool, turn: int, confirmed: int, train_loss: Sequence[float], why: str) -> FloodLevel:
    before = max(turn - 1, 0)  # sub-epochs from 0 here, from 1 in what is told
    level = float(train_loss[before])
    reason = f"{why}, at sub-epoch {turn + 1}; the training loss of sub-epoch {before + 1} was {level:.4f}"
    return FloodLevel(level, rule, fired, turn + 1, confirmed + 1, reason)


def _leaves_plateau(
    series: list[float], patience: int, margin: float, window: int, deviations: float
) -> tuple[int | None, str]:
    for t in range(window, len(series) - patience + 1):
        before = series[t - window : t]
        mean, deviation = statistics.fmean(before), statistics.pstdev(before)
        if all(value > mean + max(margin, deviations * deviation) for value in series[t : t + patience]):
            return t, (
                f"accordance left its plateau: {series[t]:.3f} after {mean:.3f} +- {deviation:.3f} over {window} "
                "sub-epochs"
            )
    rise = f"{margin:g} and {deviations:g} standard deviations"
    return None, f"accordance never rose from a plateau of {window} sub-epochs by {rise}"


def _crosses(series: list[float], patience: int, margin: float, side: int) -> tuple[int | None, str]:
    """The first lasting change to `side` (1: above 0, -1: below) from the other one."""
    word = "positive" if side > 0 else "negative"
    was_other = False
    for t, value in enumerate(series):
        next_ones = series[t : t + patience]
        if was_other and len(next_ones) == patience and all(side * each > margin for each in next_ones):
            return t, f"accordance turned {word}: {value:.3f}"
        was_other = was_other or side * value < -margin
    return None, f"accordance never turned {word} (it lay between {min(series):.3f} and {max(series):.3f})"


def _filled(accordance: Sequence[float]) -> list[float]:
    values, last = [], next((float(each) for each in accordance if not math.isnan(each)), 0.0)
    for each in accordance:
        last = last if math.isnan(each) else float(each)
        values.append(last)
    return values


def _smooth(values: list[float], over: int) -> list[float]:
    return [statistics.fmean(values[max(0, i - over + 1) : i + 1]) for i in range(len(values))]


def _check(
    accordance: Sequence[float],
    train_loss: Sequence[float],
    rule: str,
    fallback: str,
    smoothing: int,
    patience: int,
    margin: float,
    window: int,
    deviations: float,
) -> None:
    for name, value, allowed in (("rule", rule, RULES), ("fallback", fallback, FALLBACKS)):
        if value not in allowed:
            raise UserError(f"{name} is {value!r}{nearest(value, allowed)}; choose one of {', '.join(allowed)}")
    if len(accordance) != len(train_loss):
        raise UserError(f"{len(accordance)} values of accordance and {len(train_loss)} of the loss; give one of each")
    for name, number, least in (("smoothing", smoothing, 1), ("patience", patience, 1), ("window", window, 2)):
        if number < least:
            raise UserError(f"{name} is {number}; it must be at least {least}")
    for name, size in (("margin", margin), ("deviations", deviations)):
        if not size >= 0:
            raise UserError(f"{name} is {size}; it must be 0 or more")
