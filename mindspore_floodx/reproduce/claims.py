"""The paper's claims, each with a rule that decides from our runs whether they support it.

A verdict is `supported`, `not supported` (the runs were made and do not show it, be it for chance or against it) or
`not tested` (what the rule needs was not run).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .labels import ADVERSARIAL, DATASETS, label
from .results import Result
from .rows import datasets_of
from .statistics import Outcomes

SUPPORTED, NOT_SUPPORTED, NOT_TESTED = "supported", "not supported", "not tested"


@dataclass(frozen=True)
class Part:
    """What one data set says about a claim.

    Attributes:
        what: the data set, and what else distinguishes the part.
        verdict: one of the three.
        figure: our figure, in words.
        reason: why the verdict is what it is.
        values: the numbers that decided, in the units of `figure`.
        decides: whether it takes part in the claim's verdict; parts on calibrated logits only show whether a verdict
            outlasts calibration, and those beside an average what it is made of.
    """

    what: str
    verdict: str
    figure: str = "-"
    reason: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    decides: bool = True


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, how it is decided, and what our runs say."""

    id: str
    claim: str
    rule: str
    test: str
    verdict: str
    reason: str
    parts: tuple[Part, ...]

    def content(self) -> dict[str, Any]:
        """Returns everything as JSON-ready values."""
        return asdict(self) | {"parts": [asdict(part) for part in self.parts]}


@dataclass(frozen=True)
class Evidence:
    """What the rules decide from."""

    results: Sequence[Result]
    outcomes: Outcomes
    timing: Mapping[str, dict]

    @property
    def datasets(self) -> list[str]:
        return datasets_of(self.results)


def decide(id: str, claim: str, rule: str, test: str, parts: Sequence[Part], named: bool = False) -> Claim:
    """Returns the claim with the verdict that its parts give together.

    One part that does not support it is enough for `not supported`. Without one, it is `supported` if every part is,
    where the claim names its data sets, and if any is, where it speaks of all: the reason then tells on which it was.

    Args:
        named: whether the parts are all the data sets that the claim names.
    """
    deciding = [part for part in parts if part.decides]
    groups = {
        verdict: [part.what for part in deciding if part.verdict == verdict]
        for verdict in (NOT_SUPPORTED, SUPPORTED, NOT_TESTED)
    }
    reason = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in groups.items() if names)
    if groups[NOT_SUPPORTED]:
        verdict = NOT_SUPPORTED
    elif groups[SUPPORTED] and not (named and groups[NOT_TESTED]):
        verdict = SUPPORTED
    else:
        verdict = NOT_TESTED
        why = list(dict.fromkeys(f"{part.what}: {part.reason}" for part in deciding if part.verdict == NOT_TESTED))
        reason = "; ".join([f"supported: {', '.join(groups[SUPPORTED])}"] * bool(groups[SUPPORTED]) + why)
    if len(deciding) == 1 and deciding[0].verdict != NOT_TESTED:
        reason = f"{deciding[0].figure}; {deciding[0].reason}"
    return Claim(id, claim, rule, test, verdict, reason or "there are no runs", tuple(parts))


def untested(dataset: str, reason: str, kind: str = "raw") -> Part:
    return Part(part_name(dataset, kind), NOT_TESTED, reason=reason, decides=kind == "raw")


def part_name(dataset: str, kind: str = "raw") -> str:
    return label(DATASETS, dataset) + (", calibrated" if kind == "calibrated" else "")


def points(value: float) -> str:
    return f"{100 * value:+.1f}"


def spread_out(difference: float, low: float, high: float) -> str:
    """Returns a difference of shares with its interval, in points."""
    return f"{points(difference)} points [{points(low)}, {points(high)}]"


def missing_baselines(present: set[str], wanted: Mapping[str, str] = ADVERSARIAL) -> str:
    """Returns which of the `wanted` methods were not run, in words; empty if all were."""
    names = [called for method, called in wanted.items() if method not in present]
    return f"{', '.join(names)} {'was' if len(names) == 1 else 'were'} not run" if names else ""
