"""The claims on robustness: who is best, by how much, and what the flood level does to it."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

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
from .labels import ADVERSARIAL, BASELINE, DATASETS, FLOODINGX, PAPER, label
from .results import swept_level
from .rows import attacks_of, find, main_rows, sweep
from .statistics import CONFIDENCE, Pair, PairedDifference, difference_draws, interval, paired_difference

TEXTFOOLER = "textfooler"
_BOOTSTRAP = "95% bootstrap interval of the paired difference on the same attacked examples, runs paired by seed"
FEWEST = 50  # attacked examples that a verdict needs; of a handful, a bootstrap interval is too narrow
_NO_EXAMPLES = f"fewer than {FEWEST} examples were attacked in both runs"
SLIGHT = 0.02  # a slight change of b; the paper searches in steps of 0.01
LARGE = 0.05  # a large change of robustness: 5 points
_NARROW = 0.04  # an interval that can tell 0.2 points from something else at all


def best_under_textfooler(evidence: Evidence) -> Claim:
    """Decides "best under TextFooler on IMDB, AG News, SST-2 and MRPC"."""
    names = ("imdb", "ag_news", "sst2", "mrpc")
    parts = _both_kinds(lambda kind: [_best(evidence, name, kind) for name in names])
    return decide(
        "best-textfooler",
        "Flooding-X is the most robust under TextFooler on IMDB, AG News, SST-2 and MRPC.",
        "Supported on a data set if Flooding-X has the highest mean Aua% of the paper's seven methods, all of which "
        "were run, and the interval of its difference to the next best lies above 0; not supported if another one "
        "is higher or the interval reaches 0. Supported as a whole if it is on all four.",
        _BOOTSTRAP,
        parts,
        named=True,
    )


def below_pgd_on_qnli(evidence: Evidence) -> Claim:
    """Decides "0.2 points below 5-step PGD on QNLI"."""
    parts = _both_kinds(lambda kind: [_below_pgd(evidence, kind)])
    return decide(
        "below-pgd-qnli",
        "On QNLI, Flooding-X is 0.2 points below 5-step PGD under TextFooler.",
        "Supported if the interval of the difference holds -0.2 points, not supported if it does not; not tested if "
        f"the interval is wider than {100 * _NARROW:.0f} points, which would agree with anything.",
        _BOOTSTRAP,
        parts,
        named=True,
    )


def above_adversarial(evidence: Evidence) -> Claim:
    """Decides "5 to 20 points above the adversarial-training baselines on average"."""
    return decide(
        "5-points-above-adversarial",
        "Flooding-X is 5 to 20 points of Aua% above the adversarial-training baselines on average.",
        "The difference of Aua% to every adversarial baseline under every attack, its mean on a data set over all "
        "pairs of an attacked example, then the mean over the data sets, which decides. Supported if that is at "
        "least 5 points and its interval lies above 0; more than 20 points support it too, and the figure tells.",
        _BOOTSTRAP,
        _both_kinds(lambda kind: _averaged(evidence, ADVERSARIAL, False, kind)),
    )


def gain_over_finetuning(evidence: Evidence) -> Claim:
    """Decides "robust accuracy of plain BERT improved by 100 to 400%"."""
    return decide(
        "100-percent-over-finetuning",
        "Flooding-X improves the robust accuracy of plain fine-tuning by 100 to 400%.",
        "Aua% over all attacks against that of fine-tuning, as a relative gain on each data set, then its mean over "
        "the data sets, which decides. Supported if that is at least 100% and the interval of the difference of "
        "Aua% lies above 0; more than 400% supports it too, and the figure tells.",
        _BOOTSTRAP,
        _both_kinds(lambda kind: _averaged(evidence, {BASELINE: PAPER[BASELINE]}, True, kind)),
    )


def sensitive_to_level(evidence: Evidence) -> Claim:
    """Decides "a slight change of b changes robustness a lot"."""
    parts = _both_kinds(lambda kind: [_sensitive(evidence, name, kind) for name in evidence.datasets])
    return decide(
        "sensitive-to-b",
        "A slight change of the flood level b changes robustness a lot.",
        f"Slight: at most {SLIGHT:g} (the paper searches at steps of 0.01); a lot: at least {100 * LARGE:.0f} points "
        "of Aua%, mean over the attacks. Supported if two levels of the sweep that are slightly apart differ by "
        "that, and the interval of their difference, widened for the number of such pairs (Bonferroni), leaves 0 "
        "out. Not supported if no such pair does, or if no two levels of the sweep differ at all by that test, "
        "however far apart. Not tested if no levels are slightly apart and some others differ, or if none differs and "
        f"an interval is wider than {200 * LARGE:.0f} points.",
        "bootstrap interval of the paired difference on the same attacked examples at 1 - 0.05 / number of pairs",
        parts,
    )


def _both_kinds(of_kind: Callable[[str], Iterable[Part]]) -> list[Part]:
    """Returns the raw parts and those calibrated ones for which there is something to tell."""
    return [*of_kind("raw"), *(part for part in of_kind("calibrated") if part.verdict != NOT_TESTED)]


def _best(evidence: Evidence, dataset: str, kind: str) -> Part:
    rows = {row.name: row for row in main_rows(evidence.results, dataset) if row.method in PAPER}
    shares = {name: row.figures(TEXTFOOLER, "accuracy_under_attack", kind) for name, row in rows.items()}
    means = {name: statistics.fmean(values) for name, values in shares.items() if values}
    ours = [name for name in means if rows[name].method == FLOODINGX]
    others = [name for name in means if rows[name].method != FLOODINGX]
    if not ours:
        return untested(dataset, "Flooding-X was not attacked with TextFooler", kind)
    if not others:
        return untested(dataset, "no other method was attacked with TextFooler", kind)
    next_best = max(others, key=lambda name: means[name])
    pairs = evidence.outcomes.pairs(rows[ours[0]].cells, rows[next_best].cells, [TEXTFOOLER], kind)
    found = paired_difference(pairs)
    if found is None or found.examples < FEWEST:
        return untested(dataset, f"{_NO_EXAMPLES}, Flooding-X and {next_best}", kind)
    mean = f"{100 * means[ours[0]]:.1f} against {100 * means[next_best]:.1f} of {next_best}"
    values = {"aua": means[ours[0]], "next_best": next_best, "next_best_aua": means[next_best], **_values(found)}
    lacking = missing_baselines({rows[name].method for name in means}, PAPER)
    if means[ours[0]] <= means[next_best]:
        verdict, reason = NOT_SUPPORTED, f"{next_best} is at least as high"
    elif found.low <= 0:
        verdict, reason = NOT_SUPPORTED, "it is the highest, but by no more than chance may give"
    elif lacking:
        verdict, reason = NOT_TESTED, f"it is the highest of those that were run, but {lacking}"
    else:
        verdict, reason = SUPPORTED, f"it is above {next_best}"
    figure = f"Aua% {mean}, difference {spread_out(found.difference, found.low, found.high)}"
    return Part(part_name(dataset, kind), verdict, figure, reason, values, kind == "raw")


def _below_pgd(evidence: Evidence, kind: str) -> Part:
    rows = main_rows(evidence.results, "qnli")
    ours, pgd = find(rows, FLOODINGX), find(rows, "pgd")
    if ours is None or pgd is None:
        lacking = [called for row, called in ((ours, "Flooding-X"), (pgd, "PGD")) if row is None]
        return untested("qnli", f"{' and '.join(lacking)} {'was' if len(lacking) == 1 else 'were'} not run", kind)
    found = paired_difference(evidence.outcomes.pairs(ours.cells, pgd.cells, [TEXTFOOLER], kind))
    if found is None or found.examples < FEWEST:
        return untested("qnli", _NO_EXAMPLES, kind)
    if found.high - found.low > _NARROW:
        verdict, reason = NOT_TESTED, "the interval is too wide; attack more examples"
    elif found.low <= -0.002 <= found.high:
        verdict, reason = SUPPORTED, "the interval holds -0.2 points"
    else:
        verdict, reason = NOT_SUPPORTED, "the interval does not hold -0.2 points"
    figure = f"difference {spread_out(found.difference, found.low, found.high)}"
    return Part(part_name("qnli", kind), verdict, figure, reason, _values(found), kind == "raw")


def _averaged(evidence: Evidence, wanted: Mapping[str, str], relative: bool, kind: str) -> list[Part]:
    """Returns a part a data set, and one of their average, which decides."""
    least = 1.0 if relative else 0.05
    parts: list[Part] = []
    figures, differences, draws, names, notes = [], [], [], [], []
    for place, name in enumerate(evidence.datasets):
        rows = main_rows(evidence.results, name)
        ours = find(rows, FLOODINGX)
        others = [row for row in rows if row.method in wanted]
        if ours is None or not others:
            lacking = "Flooding-X was not run" if ours is None else f"none of {', '.join(wanted.values())} was run"
            parts.append(Part(part_name(name, kind), NOT_TESTED, reason=lacking, decides=False))
            continue
        attacks = attacks_of(ours.cells)
        pairs = [pair for other in others for pair in evidence.outcomes.pairs(ours.cells, other.cells, attacks, kind)]
        found, drawn = paired_difference(pairs), difference_draws(pairs, place)
        if found is None or drawn is None or found.examples < FEWEST:
            parts.append(Part(part_name(name, kind), NOT_TESTED, reason=_NO_EXAMPLES, decides=False))
            continue
        mine, theirs = _shares(pairs)
        if relative and not theirs:
            reason = "fine-tuning withstood no attack, so there is no relative gain"
            parts.append(
                Part(part_name(name, kind), NOT_TESTED, f"Aua% {100 * mine:.1f} against 0", reason, decides=False)
            )
            continue
        figures.append(mine / theirs - 1 if relative else found.difference)
        differences.append(found.difference)
        draws.append(drawn)
        told = f"{100 * figures[-1]:+.0f}%, " if relative else ""
        figure = (
            f"{told}{spread_out(found.difference, found.low, found.high)} ({100 * mine:.1f} against {100 * theirs:.1f})"
        )
        verdict, reason = _enough(figures[-1], found.low, least, relative)
        if lacking := missing_baselines({row.method for row in others}, wanted):
            reason += f"; {lacking}"
            notes.append(f"{label(DATASETS, name)}: {lacking}")
        names.append(label(DATASETS, name))
        parts.append(
            Part(part_name(name, kind), verdict, figure, reason, {"gain": figures[-1], **_values(found)}, False)
        )
    what = "mean over the data sets" + (", calibrated" if kind == "calibrated" else "")
    if not figures:
        reason = "; ".join(f"{part.what}: {part.reason}" for part in parts) or "there are no runs"
        return [*parts, Part(what, NOT_TESTED, reason=reason, decides=kind == "raw")]
    low, high = interval(np.mean(draws, axis=0))
    mean, difference = statistics.fmean(figures), statistics.fmean(differences)
    verdict, reason = _enough(mean, low, least, relative)
    told = f"{100 * mean:+.0f}%, " if relative else ""
    values = {"gain": mean, "difference": difference, "low": low, "high": high, "datasets": len(figures)}
    figure = f"{told}{spread_out(difference, low, high)}"
    reason = "; ".join([f"{reason}, on {', '.join(names)}; the paper has {len(DATASETS)} data sets", *notes])
    return [*parts, Part(what, verdict, figure, reason, values, kind == "raw")]


def _enough(figure: float, low: float, least: float, relative: bool) -> tuple[str, str]:
    wanted = f"{100 * least:.0f}{'%' if relative else ' points'}"
    if figure >= least and low > 0:
        return SUPPORTED, f"at least {wanted}, and more than chance gives"
    return NOT_SUPPORTED, f"less than {wanted}" if figure < least else "the interval reaches 0"


def _shares(pairs: Sequence[Pair]) -> tuple[float, float]:
    """Returns accuracy under attack of both sides, over all pairs of an attacked example."""
    common = [(method[id], other[id]) for method, other in pairs for id in method.keys() & other.keys()]
    return statistics.fmean(a for a, _ in common), statistics.fmean(b for _, b in common)


def _sensitive(evidence: Evidence, dataset: str, kind: str) -> Part:
    cells = sweep(evidence.results, dataset)
    levels = sorted({level for cell in cells if (level := swept_level(cell)) is not None})
    if len(levels) < 2:
        return untested(dataset, "there was no sweep of two levels or more", kind)
    of_level = {level: [cell for cell in cells if swept_level(cell) == level] for level in levels}
    attacks = attacks_of(cells)
    every = list(itertools.combinations(levels, 2))
    near = [(a, b) for a, b in every if b - a <= SLIGHT + 1e-9]
    chosen = near or every
    found = {}
    for a, b in chosen:
        pairs = evidence.outcomes.pairs(of_level[b], of_level[a], attacks, kind)
        difference = paired_difference(pairs, 1 - (1 - CONFIDENCE) / len(chosen))
        if difference is not None and difference.examples >= FEWEST:
            found[a, b] = difference
    if not found:
        return untested(dataset, _NO_EXAMPLES, kind)
    certain = {key: each for key, each in found.items() if each.low > 0 or each.high < 0}
    large = {key: each for key, each in certain.items() if abs(each.difference) >= LARGE}
    key = max(large or certain or found, key=lambda each: abs(found[each].difference))
    biggest = found[key]
    unclear = any(each.high - each.low > 2 * LARGE for each in found.values())
    if near and large:
        verdict = SUPPORTED
        reason = f"pairs of levels at most {SLIGHT:g} apart: {len(near)}, with a large difference: {len(large)}"
    elif not certain and unclear:
        verdict, reason = NOT_TESTED, f"too few examples were attacked to tell {100 * LARGE:.0f} points from none"
    elif near:
        verdict, reason = NOT_SUPPORTED, f"pairs of levels at most {SLIGHT:g} apart: {len(near)}, none differs so much"
    elif certain:
        verdict, reason = NOT_TESTED, f"no two levels are at most {SLIGHT:g} apart; levels further apart do differ"
    else:
        verdict, reason = (
            NOT_SUPPORTED,
            f"no two of the {len(levels)} levels differ, though they are further apart",
        )
    told = spread_out(biggest.difference, biggest.low, biggest.high)
    figure = f"from b = {key[0]:g} to {key[1]:g}: {told}; {len(levels)} levels from {levels[0]:g} to {levels[-1]:g}"
    values = {"from": key[0], "to": key[1], "pairs_of_levels": len(chosen), **_values(biggest)}
    return Part(part_name(dataset, kind), verdict, figure, reason, values, kind == "raw")


def _values(found: PairedDifference) -> dict[str, Any]:
    return {name: getattr(found, name) for name in ("difference", "low", "high", "p_value", "examples")}
