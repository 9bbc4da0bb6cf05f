"""The claims page: claims.json and claims.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ..files import write_json, write_text
from .claims import Claim, Evidence
from .claims_of_attacks import (
    FEWEST,
    above_adversarial,
    below_pgd_on_qnli,
    best_under_textfooler,
    gain_over_finetuning,
    sensitive_to_level,
)
from .claims_of_training import (
    flatter_loss,
    robust_at_epoch_5,
    steep_rise,
    time_of_adversarial,
    time_of_finetuning,
    turn_and_test_loss,
)
from .conditions import conditions
from .published import SOURCES, beside

RULES = (
    best_under_textfooler,
    below_pgd_on_qnli,
    above_adversarial,
    gain_over_finetuning,
    time_of_finetuning,
    time_of_adversarial,
    robust_at_epoch_5,
    steep_rise,
    flatter_loss,
    sensitive_to_level,
    turn_and_test_loss,
)


def all_claims(evidence: Evidence) -> list[Claim]:
    """Returns every claim with its verdict.

    Raises:
        UserError: a broken file of attacked examples.
    """
    return [rule(evidence) for rule in RULES]


def write_claims(evidence: Evidence, folder: str | Path) -> list[Path]:
    """Writes claims.md and claims.json: the verdicts, how they were reached, and published figures beside ours.

    Raises:
        UserError: a broken file of attacked examples, or a folder that cannot be written to.
    """
    folder = Path(folder)
    claims, published = all_claims(evidence), beside(evidence.results)
    told = conditions([cell for cell in evidence.results if cell["tag"] is None] or evidence.results)
    content = {
        "conditions": told,
        "claims": [claim.content() for claim in claims],
        "published": {"sources": SOURCES, "rows": published},
    }
    write_json(folder / "claims.json", content)
    write_text(folder / "claims.md", _page(told, claims, published))
    return [folder / "claims.md", folder / "claims.json"]


def _page(told: str, claims: Sequence[Claim], published: Sequence[dict[str, Any]]) -> str:
    summary = [(f"[{claim.claim}](#{claim.id})", f"**{claim.verdict}**", claim.reason) for claim in claims]
    parts = [
        "# The paper's claims and our runs",
        "The claims are those of the Flooding-X paper (Liu et al., ACL 2022) in other words; every figure is from our "
        "runs, and every verdict is computed from them by the rule that stands with it. A claim that is not supported "
        "may be wrong, may not hold under these conditions, or may need more runs to show. A verdict on attacks needs "
        f"at least {FEWEST} examples that both runs were attacked on. Parts on calibrated logits "
        "show whether a verdict outlasts calibration; they do not decide it.",
        told,
        _table(summary, ("claim", "verdict", "on what")),
    ]
    for claim in claims:
        rows = [
            (part.what + ("" if part.decides else " *"), part.verdict, part.figure, part.reason) for part in claim.parts
        ]
        parts += [
            f'<a id="{claim.id}"></a>\n\n## {claim.claim}',
            f"**{claim.verdict[0].upper()}{claim.verdict[1:]}.** {claim.reason[0].upper()}{claim.reason[1:]}.",
            f"Rule: {claim.rule}",
            f"Test: {claim.test}.",
            _table(rows, ("on", "verdict", "our figure", "why")) if rows else "There are no runs.",
        ]
        if any(not part.decides for part in claim.parts):
            parts.append("\\* for information; it does not decide.")
    return "\n\n".join([*parts, *_published(published)]) + "\n"


def _published(rows: Sequence[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    sources = "\n".join(f"- `{name}`: {text}." for name, text in SOURCES.items())
    shown = [
        (
            row["dataset"],
            row["attack"],
            row["method"],
            _percent(row["ours_clean_pct"]),
            _percent(row["ours_aua_pct"]),
            row["ours_seeds"] or "-",
            _percent(row["clean_pct"]),
            _percent(row["aua_pct"]),
            f"`{row['source']}`",
        )
        for row in rows
    ]
    heading = ("data set", "attack", "method", "our Clean%", "our Aua%", "our seeds", "Clean%", "Aua%", "source")
    return [
        "## Published figures beside ours",
        "From other papers, named in the last column. None is of the Flooding-X paper's own tables. Data, encoder, "
        "attack resources and examples differ from source to source and from ours, and move the figures as much as the "
        "method does: they give the order of size, not a comparison.",
        sources,
        _table(shown, heading),
    ]


def _table(rows: Sequence[Sequence[Any]], heading: Sequence[str]) -> str:
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return tabulate(cells, heading, tablefmt="github", disable_numparse=True)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
