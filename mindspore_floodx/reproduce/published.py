"""Published figures of other papers, to be set beside ours: always under the name of their source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from .labels import ATTACKS, DATASETS, METHODS, label
from .results import Result
from .rows import attacks_of, clean_accuracy, datasets_of, find, main_rows
from .statistics import mean_and_sd

SOURCES = {
    "robust-tickets-2022": (
        "Zheng et al., Robust Lottery Tickets for Pre-trained Language Models, ACL 2022: BERT-base, 3 epochs, "
        "TextAttack, 1,000 examples (SST-2: 872)"
    ),
    "robust-pruning-2023": "EMNLP 2023 (2023.emnlp-main.79): BERT-base, mean of 5 seeds",
    "rmlm-2023": "RMLM, Findings of ACL 2023: BERT, OpenAttack, 1,000 test examples, no limit of queries or edits",
}
_METHODS = {"Fine-tune": "finetune", "FreeLB": "freelb", "InfoBERT": "infobert", "Flooding-X": "floodingx"}


def read_published() -> pd.DataFrame:
    """Returns the package's table: dataset, method, attack, clean_pct, aua_pct, suc_pct, queries (NaN: not given), source."""
    return pd.read_csv(Path(__file__).with_name("published.csv"))


def beside(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns the published figures of the data sets and attacks that we have, each with ours of the same method.

    Returns:
        records with dataset, attack, method as their source writes them, clean_pct, aua_pct (None: not given), source,
        and ours_clean_pct, ours_aua_pct (means over seeds) and ours_seeds, None where there is no such run of ours.
    """
    ours = {}
    for name in datasets_of(results):
        rows = main_rows(results, name)
        attacks = attacks_of(cell for row in rows for cell in row.cells)
        ours[label(DATASETS, name)] = ({label(ATTACKS, attack): attack for attack in attacks}, rows)
    records = []
    for row in read_published().to_dict("records"):
        attacks, rows = ours.get(row["dataset"].split(" (")[0], ({}, []))
        attack = attacks.get(row["attack"].split(" (")[0])
        if attack is None:
            continue
        found = find(rows, _METHODS.get(row["method"], "")) if row["method"] in _METHODS else None
        aua = None if found is None else mean_and_sd(found.figures(attack, "accuracy_under_attack"))[0]
        clean = None if found is None else mean_and_sd(clean_accuracy(cell) for cell in found.cells)[0]
        records.append(
            {
                **{name: row[name] for name in ("dataset", "attack", "method")},
                "clean_pct": _known(row["clean_pct"]),
                "aua_pct": _known(row["aua_pct"]),
                "source": row["source"],
                "ours_clean_pct": None if aua is None or clean is None else 100 * clean,
                "ours_aua_pct": None if aua is None else 100 * aua,
                "ours_seeds": None if found is None or aua is None else len(found.figures(attack, "accuracy_under_attack")),
            }
        )
    return records


def _known(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


assert set(_METHODS.values()) <= set(METHODS)
