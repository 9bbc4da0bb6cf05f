"""Published figures of other papers, to be set beside ours: always under the name of their source."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from .labels import ATTACKS, DATASETS, label
from .results import Result
from .rows import Row, attacks_of, clean_accuracy, datasets_of, find, main_rows

SOURCES = {
    "robust-tickets-2022": (
        "Zheng et al., Robust Lottery Tickets for Pre-trained Language Models, ACL 2022: BERT-base, 3 epochs, "
        "TextAttack, 1,000 examples (SST-2: 872)"
    ),
    "robust-pruning-2023": "EMNLP 2023 (2023.emnlp-main.79): BERT-base, mean of 5 seeds",
    "rmlm-2023": (
        "RMLM, Findings of ACL 2023: BERT, OpenAttack, 1,000 test examples, no limit of queries or edits, SST-2 in its "
        "6,920-sentence version; some rows of the stored copy were re-aligned"
    ),
}
_METHODS = {"Fine-tune": "finetune", "FreeLB": "freelb", "InfoBERT": "infobert", "Flooding-X": "floodingx"}


def read_published() -> pd.DataFrame:
    """Returns the package's table: dataset, method, attack, four figures in percent and queries (or NaN), source."""
    return pd.read_csv(Path(__file__).with_name("published.csv"))


def beside(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns the published figures of the data sets and attacks that we have, each with ours of the same method.

    Returns:
        records with dataset, attack, method as their source writes them, clean_pct, aua_pct (None: not given), source,
        and ours_clean_pct, ours_aua_pct (means over seeds) and ours_seeds, None where there is no such run of ours.
    """
    ours: dict[str, tuple[dict[str, str], list[Row]]] = {}
    for name in datasets_of(results):
        rows = main_rows(results, name)
        attacked = attacks_of(cell for row in rows for cell in row.cells)
        ours[label(DATASETS, name)] = ({label(ATTACKS, attack): attack for attack in attacked}, rows)
    records = []
    for row in read_published().to_dict("records"):
        attacks, rows = ours.get(row["dataset"].split(" (")[0], ({}, []))
        attack = attacks.get(row["attack"].split(" (")[0])
        if attack is None:
            continue
        found = find(rows, _METHODS[row["method"]]) if row["method"] in _METHODS else None
        shares = [] if found is None else found.figures(attack, "accuracy_under_attack")
        clean = [] if found is None or not shares else [clean_accuracy(cell) for cell in found.cells]
        records.append(
            {
                **{name: row[name] for name in ("dataset", "attack", "method")},
                "clean_pct": _known(row["clean_pct"]),
                "aua_pct": _known(row["aua_pct"]),
                "source": row["source"],
                "ours_clean_pct": 100 * statistics.fmean(clean) if clean else None,
                "ours_aua_pct": 100 * statistics.fmean(shares) if shares else None,
                "ours_seeds": len(shares) or None,
            }
        )
    return records


def _known(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
