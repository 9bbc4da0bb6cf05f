"""The claims on training: what it costs, when the robustness comes, how flat the loss is, and what the turn tells."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

from .claims import (
    NOT_SUPPORTED,
    NOT_TESTED,
    SUPPORTED,
    Claim,
    Evidence,
    Part,
    decide,
    missing_baselines,
    part_name,
    spread_out,
    untested,
)
from .labels import ADVERSARIAL, BASELINE, FLOODING, FLOODINGX, METHODS, PAPER, label
from .results import Result
from .rows import Row, epoch_records, find, lowest_before_flooding, main_rows
from .statistics import share_difference
from .tables import median_seconds

AS_LONG = 1.10  # a ratio of times that counts as the same
LEAST, MOST = 2.0, 15.0  # times dearer than Flooding-X
EARLY, BEFORE_RISE = 5, 6  # epochs
_FROM_RUNS = (
    "only the training runs' own clocks are known, which other work on a machine disturbs; time it with floodx-timing"
)


def time_of_finetuning(evidence: Evidence) -> Claim:
    """Decides "training time that of fine-tuning"."""
    parts = []
    for name in evidence.datasets:
        ratios, disturbed = _ratios(evidence, name)
        ours = {method: ratios[method] for method in (FLOODING, FLOODINGX) if method in ratios}
        if FLOODINGX not in ours:
            parts.append(untested(name, "there is no time of Flooding-X beside fine-tuning's"))
            continue
        slow = {method: ratio for method, ratio in ours.items() if ratio > AS_LONG}
        figure = ", ".join(f"{label(METHODS, method)} {ratio:.2f}" for method, ratio in ours.items())
        reason = (
            f"above {AS_LONG:g}: {', '.join(label(METHODS, each) for each in slow)}" if slow else f"at most {AS_LONG:g}"
        )
        verdict, reason = (NOT_TESTED, disturbed) if disturbed else (NOT_SUPPORTED if slow else SUPPORTED, reason)
        parts.append(Part(part_name(name), verdict, f"ratio to fine-tuning: {figure}", reason, dict(ours)))
    return decide(
        "time-of-finetuning",
        "Flooding-X trains in the time of fine-tuning.",
        f"Supported on a data set if an epoch takes at most {AS_LONG:g} times as long as one of fine-tuning, both "
        "while accordance is measured (Flooding-X) and, where that was timed, at the level (flooding).",
        "none of significance; the ratio of the times of training steps on the same batches (Table 3)",
        parts,
    )


def time_of_adversarial(evidence: Evidence) -> Claim:
    """Decides "2 to 15 times less than adversarial training"."""
    parts = []
    for name in evidence.datasets:
        ratios, disturbed = _ratios(evidence, name)
        others = {method: ratios[method] for method in ADVERSARIAL if method in ratios}
        if FLOODINGX not in ratios or not others:
            parts.append(untested(name, "there is no time of Flooding-X beside that of adversarial training"))
            continue
        times = {method: ratio / ratios[FLOODINGX] for method, ratio in others.items()}
        outside = [label(METHODS, method) for method, value in times.items() if not LEAST <= value <= MOST]
        figure = ", ".join(f"{label(METHODS, method)} {value:.2f}" for method, value in times.items())
        reason = f"not within: {', '.join(outside)}" if outside else "all are within"
        if lacking := missing_baselines(set(others)):
            reason += f"; {lacking}"
        verdict, reason = (NOT_TESTED, disturbed) if disturbed else (NOT_SUPPORTED if outside else SUPPORTED, reason)
        parts.append(Part(part_name(name), verdict, f"times that of Flooding-X: {figure}", reason, times))
    return decide(
        "time-of-adversarial",
        "Flooding-X takes 2 to 15 times less time than adversarial training.",
        f"Supported on a data set if an epoch of every adversarial baseline that was timed takes from {LEAST:g} to "
        f"{MOST:g} times as long as one of Flooding-X while it measures accordance, which is its dearest.",
        "none of significance; the ratio of the times of training steps on the same batches (Table 3)",
        parts,
    )


def robust_at_epoch_5(evidence: Evidence) -> Claim:
    """Decides "at epoch 5 as robust as fine-tuning at its last epoch"."""
    parts = []
    for name in evidence.datasets:
        ours, base = _by_epoch(evidence, name)
        if ours is None or base is None:
            parts.append(
                untested(name, "fine-tuning and Flooding-X (or flooding) were not both attacked after each epoch")
            )
            continue
        early, last = _counts(ours.cells, EARLY), _counts(base.cells, _last_epoch(base.cells))
        if early is None or last is None:
            parts.append(untested(name, f"there is no figure of epoch {EARLY}"))
            continue
        difference, low, high = share_difference(early, last)
        figure = (
            f"{ours.name} after epoch {EARLY} {_share(early)}, fine-tuning after its last {_share(last)}, difference "
            f"{spread_out(difference, low, high)}"
        )
        if difference >= 0:
            verdict, reason = SUPPORTED, "it is not below"
        elif high < 0:
            verdict, reason = NOT_SUPPORTED, "it is below, by more than chance gives"
        else:
            verdict, reason = NOT_TESTED, "it is below, but too few examples were attacked to tell"
        parts.append(
            Part(part_name(name), verdict, figure, reason, {"difference": difference, "low": low, "high": high})
        )
    return decide(
        "epoch-5",
        "After epoch 5, Flooding-X is as robust as fine-tuning after its last epoch.",
        "Supported if Aua% after epoch 5 is not below that of fine-tuning after its last epoch; not supported if it is "
        "and the interval lies below 0; not tested if it is below but the interval reaches 0. Flooding stands for "
        "Flooding-X where only that was attacked after each epoch.",
        "Newcombe's 95% interval of the difference of two shares, seeds pooled",
        parts,
    )


def steep_rise(evidence: Evidence) -> Claim:
    """Decides "a steep rise from epoch 7"."""
    parts = []
    for name in evidence.datasets:
        ours, _ = _by_epoch(evidence, name)
        found = [] if ours is None else [_counts(ours.cells, at) for at in (1, BEFORE_RISE, _last_epoch(ours.cells))]
        if ours is None or None in found or (last := _last_epoch(ours.cells)) <= BEFORE_RISE:
            parts.append(
                untested(name, f"neither Flooding-X nor flooding was attacked after epochs 1, {BEFORE_RISE} and later")
            )
            continue
        first, middle, end = (each for each in found if each is not None)
        difference, low, high = share_difference(end, middle)
        after = difference / (last - BEFORE_RISE)
        before = (middle[0] / middle[1] - first[0] / first[1]) / (BEFORE_RISE - 1)
        figure = (
            f"{ours.name}: epoch 1 {_share(first)}, epoch {BEFORE_RISE} {_share(middle)}, epoch {last} {_share(end)}; "
            f"rise after epoch {BEFORE_RISE} {spread_out(difference, low, high)}"
        )
        if low <= 0:
            verdict, reason = NOT_SUPPORTED, "no rise beyond what chance gives"
        elif after <= 2 * max(before, 0.0):
            verdict, reason = NOT_SUPPORTED, "it rises, but not twice as fast as before"
        else:
            verdict, reason = SUPPORTED, "it rises, more than twice as fast as before"
        values = {"before_per_epoch": before, "after_per_epoch": after, "low": low, "high": high}
        parts.append(Part(part_name(name), verdict, figure, reason, values))
    return decide(
        "rise-from-epoch-7",
        "The robustness of Flooding-X rises steeply from epoch 7.",
        f"Supported if Aua% after the last epoch is above that after epoch {BEFORE_RISE}, the interval of the "
        f"difference lies above 0, and the rise per epoch is more than twice that from epoch 1 to {BEFORE_RISE}.",
        "Newcombe's 95% interval of the difference of two shares, seeds pooled; the examples are the same, so it is "
        "rather too wide",
        parts,
    )


def flatter_loss(evidence: Evidence) -> Claim:
    """Decides "a flatter loss under Gaussian noise on the word embeddings than every baseline"."""
    parts = []
    for name in evidence.datasets:
        rises = {row.name: _rises(row) for row in main_rows(evidence.results, name) if row.method in PAPER}
        methods = {row.name: row.method for row in main_rows(evidence.results, name)}
        rises = {name: found for name, found in rises.items() if found}
        ours = next((each for each in rises if methods[each] == FLOODINGX), None)
        others = [each for each in rises if methods[each] != FLOODINGX]
        if ours is None or not others:
            parts.append(untested(name, "Flooding-X and a baseline were not both measured under noise"))
            continue
        means = {each: statistics.fmean(found.values()) for each, found in rises.items()}
        steeper = [each for each in others if not _flatter(rises[ours], rises[each])]
        lacking = missing_baselines({methods[each] for each in rises}, PAPER)
        if steeper:
            verdict, reason = NOT_SUPPORTED, f"no flatter than {', '.join(steeper)}"
        elif lacking:
            verdict, reason = NOT_TESTED, f"it is flatter than all that were measured, but {lacking}"
        else:
            verdict, reason = SUPPORTED, "it is flatter than all"
        figure = "mean rise of the loss: " + ", ".join(f"{each} {mean:.3f}" for each, mean in means.items())
        parts.append(Part(part_name(name), verdict, figure, reason, means))
    return decide(
        "flatter-loss",
        "Under Gaussian noise on the word embeddings, the loss of Flooding-X is flatter than that of every baseline.",
        "The rise of the evaluation loss over its value without noise, mean over the noise's strengths (Figure 1). "
        "Supported on a data set if it is smaller than that of each of the paper's other methods, all of which were "
        "measured, in the mean over the seeds and for each seed that both have.",
        "none of significance; the order of the runs with the same seed and the same noise",
        parts,
    )


def turn_and_test_loss(evidence: Evidence) -> Claim:
    """Decides "accordance turns where the test loss starts to rise"."""
    parts = []
    for name in evidence.datasets:
        row = find(main_rows(evidence.results, name), FLOODINGX)
        cells = [cell for cell in row.cells if cell["accordance"] and cell["flood_level"]] if row else []
        told = [each for cell in cells if (each := _turn(cell)) is not None]
        if not told:
            parts.append(untested(name, "no run of Flooding-X has accordance and the evaluation loss beside it"))
            continue
        agreeing = [each for each in told if each[0]]
        verdict = SUPPORTED if 2 * len(agreeing) > len(told) else NOT_SUPPORTED
        reason = f"{len(agreeing)} of {len(told)} runs"
        figure = "; ".join(each[1] for each in told)
        parts.append(Part(part_name(name), verdict, figure, reason, {"agreeing": len(agreeing), "runs": len(told)}))
    return decide(
        "turn-and-test-loss",
        "Gradient accordance turns where the test loss starts to rise.",
        "A run agrees if its rule saw a turn no further from the sub-epoch with the lowest evaluation loss than the "
        "evaluation loss was measured apart, plus the one sub-epoch by which a turn follows. Only sub-epochs before "
        "flooding count, since flooding changes the loss; whether it would have fallen further is not seen. Supported "
        "on a data set if more than half of the runs agree.",
        "none of significance; runs are counted (Figure 3)",
        parts,
    )


def _ratios(evidence: Evidence, dataset: str) -> tuple[dict[str, float], str]:
    """Returns times as ratios to fine-tuning's by method, as timed; else of the runs, and why those decide nothing."""
    if dataset in evidence.timing:
        return {row["method"]: row["ratio"] for row in evidence.timing[dataset]["rows"]}, ""
    rows = main_rows(evidence.results, dataset)
    base = find(rows, BASELINE)
    if base is None:
        return {}, ""
    seconds = {row.method: statistics.fmean(median_seconds(cell) for cell in row.cells) for row in rows}
    return {method: value / seconds[BASELINE] for method, value in seconds.items()}, _FROM_RUNS


def _by_epoch(evidence: Evidence, dataset: str) -> tuple[Row | None, Row | None]:
    """Returns Flooding-X (else flooding) and fine-tuning, with the cells that were attacked after each epoch."""
    rows = [
        Row(row.dataset, row.method, row.name, cells)
        for row in main_rows(evidence.results, dataset)
        if (cells := tuple(cell for cell in row.cells if epoch_records(cell)))
    ]
    return find(rows, FLOODINGX) or find(rows, FLOODING), find(rows, BASELINE)


def _last_epoch(cells: Sequence[Result]) -> int:
    return max(row["epoch"] for cell in cells for row in epoch_records(cell))


def _counts(cells: Sequence[Result], epoch: int) -> tuple[int, int] | None:
    """Returns how many examples withstood after an epoch, of how many, over all seeds."""
    found = [row for cell in cells for row in epoch_records(cell) if row["epoch"] == epoch]
    if not found:
        return None
    held = sum(round(row["accuracy_under_attack"] * row["num_examples"]) for row in found)
    return held, sum(row["num_examples"] for row in found)


def _share(counts: tuple[int, int]) -> str:
    return f"{100 * counts[0] / counts[1]:.1f}%"


def _rises(row: Row) -> dict[int, float]:
    """Returns by seed the mean rise of the loss under noise over its value without."""
    found = {}
    for cell in row.cells:
        curve = {each["deviation"]: each["loss_mean"] for each in (cell["smoothness"] or {}).get("curve", [])}
        if 0.0 in curve and len(curve) > 1:
            found[cell["seed"]] = statistics.fmean(loss - curve[0.0] for at, loss in curve.items() if at > 0)
    return found


def _flatter(ours: dict[int, float], others: dict[int, float]) -> bool:
    in_mean = statistics.fmean(ours.values()) < statistics.fmean(others.values())
    return in_mean and all(ours[seed] < others[seed] for seed in ours.keys() & others.keys())


def _turn(cell: Result) -> tuple[bool, str] | None:
    """Returns whether the turn agrees with the evaluation loss, and what was seen; None without the loss."""
    known = [row for row in cell["accordance"] if row.get("eval_loss") is not None]
    if len(known) < 2:
        return None
    lowest = lowest_before_flooding(cell)
    if lowest is None:
        return None
    apart = max(after["sub_epoch"] - before["sub_epoch"] for before, after in itertools.pairwise(known))
    decision = cell["flood_level"]
    seen = f"seed {cell['seed']}: lowest evaluation loss before flooding at sub-epoch {lowest}"
    if not decision["fired"]:
        return False, f"{seen}, no turn seen"
    turn = decision["sub_epoch"]
    return abs(turn - 1 - lowest) <= apart, f"{seen}, turn at {turn}"
