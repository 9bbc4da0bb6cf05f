"""Everything that is written from the finished cells of a grid: tables, figures and the claims page."""

from __future__ import annotations

from pathlib import Path

from .claims import Evidence
from .claims_page import write_claims
from .figures import write_all_figures
from .results import read_results, read_timing
from .statistics import Outcomes
from .tables import write_all_tables


def write_all(output: str | Path) -> list[Path]:
    """Writes tables/, figures/, claims.md and claims.json of a grid from its result files.

    Tables and figures of an earlier call for which there is nothing any more are removed.

    Args:
        output: the grid's folder, with cells/<id>/result.json and, if it was measured, timing/<dataset>.json.

    Returns:
        the paths of all files written.

    Raises:
        UserError: no finished cell, a broken result file (which is named), or a folder that cannot be written to.
    """
    output = Path(output)
    evidence = Evidence(read_results(output), Outcomes(output), read_timing(output))
    written = [
        *write_all_tables(evidence.results, evidence.outcomes, evidence.timing, output / "tables"),
        *write_all_figures(evidence.results, output / "figures"),
        *write_claims(evidence, output),
    ]
    for pattern in ("tables/table[1-3]*", "figures/figure[1-4]-*"):
        for path in set(output.glob(pattern)) - set(written):
            path.unlink()
    return written
