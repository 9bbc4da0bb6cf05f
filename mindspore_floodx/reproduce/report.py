"""report.html: one page with all results, figures, claims and attacked sentences, that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ..errors import UserError
from ..files import write_text
from ..untrusted import MAX_JSON_BYTES, read_json, read_text
from .figures import NAMES as FIGURE_NAMES
from .labels import ATTACKS, DATASETS, KINDS, label
from .report_rows import FIGURES, MAIN, attack_rows, encoders_of, experiment_name, resources_of
from .report_samples import COLUMNS, Samples
from .report_tables import read_tables
from .report_words import all_resources, describe_cell, facts, lead, warnings
from .results import Result, read_examples, read_results
from .rows import attacks_of, summary_of

TABLE_TITLES = {
    "table1": "Table 1. The data",
    "table2": "Table 2. Accuracy, and accuracy under attack",
    "table2b": "Table 2b. Accuracy under attack before and after temperature calibration",
    "table2c": "Table 2c. Paired differences to fine-tuning on the same attacked examples",
    "table3": "Table 3. Time of an epoch",
    "table3b": "Table 3b. Time of an epoch in the training runs",
    "table2-further": "Further experiments: accuracy under attack",
    "table2b-further": "Further experiments: calibration",
    "table2c-further": "Further experiments: paired differences",
}
_VERDICTS = {"supported": "supported", "not supported": "unsupported", "not tested": "untested"}  # and their looks
_SVG, _PNG = "image/svg+xml", "image/png"


def write_report(output: str | Path) -> Path:
    """Writes ``report.html`` from the result files of a grid and from what was made of them; returns its path.

    Read are ``cells/*/result.json`` and ``failed.json``, the examples files beside them, and, where they exist,
    ``tables/*.html``, ``figures/*.svg`` (or .png) with their .csv, and ``claims.json``. The page loads nothing from
    elsewhere, which its content security policy also forbids, and works from a file. Examples are compressed and
    unpacked by the browser, those of one attack on one cell at a time.

    Args:
        output: the grid's folder of results.

    Raises:
        UserError: a file that cannot be read, or the page cannot be written; the file is named.
    """
    output = Path(output)
    results = read_results(output) if any(output.glob("cells/*/result.json")) else []
    samples = Samples()
    sets = list(_sets(output, results, samples))
    failed = list(_failed(output))
    rows = attack_rows(results)
    texts = samples.add_texts()
    tables, figures = list(_tables(output)), list(_figures(output))
    claims = _claims(output)
    parts = [
        ("results", "Results", True),
        ("claims", "Claims", claims),
        ("figures", "Figures", figures),
        ("tables", "Statistics", tables),
        ("sentences", "Sentences", sets),
        ("runs", "How it was run", True),
    ]
    index = {
        "columns": COLUMNS,
        "cells": [describe_cell(result) for result in results],
        "sets": sets,
        "texts": {label(DATASETS, dataset): number for dataset, number in texts.items()},
    }
    page = _render(
        title="Flooding-X, reproduced",
        lead=lead(results),
        warnings=list(warnings(results, failed)),
        parts=[(id, name) for id, name, there in parts if there],
        columns=_COLUMNS,
        filters=[
            ("part", "Rows", list(dict.fromkeys(row.part for row in rows))),
            ("dataset", "Data set", list(dict.fromkeys(row.dataset for row in rows))),
            ("method", "Method", list(dict.fromkeys(row.method for row in rows))),
            ("attack", "Attack", list(dict.fromkeys(row.attack for row in rows))),
        ],
        main_part=MAIN if any(row.part == MAIN for row in rows) else "",
        rows=rows,
        tables=tables,
        claims=claims,
        ours=", ".join([*encoders_of(results), *all_resources(results)]),
        figures=figures,
        sets=sets,
        facts=list(facts(results)),
        failed=failed,
        index=_json_in_html(index),
        blocks=samples.blocks,
    )
    target = output / "report.html"
    write_text(target, page)
    return target


_COLUMNS = [  # heading, and whether it is one of numbers
    ("Method", False),
    ("Data set", False),
    ("Attack", False),
    ("Seeds, to open", False),
    *((heading, True) for heading, *_ in FIGURES),
    ("Examples", True),
]


def _render(**content: Any) -> str:
    folder = importlib.resources.files(__package__) / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    return environment.get_template("report.html").render(
        style=Markup(style),  # noqa: S704 - our own files
        script=Markup(script),  # noqa: S704
        style_hash=_hash(style),
        script_hash=_hash(script),
        **content,
    )


def _hash(text: str) -> str:
    """Returns what a content security policy calls an inline style or script by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


def _json_in_html(content: Any) -> Markup:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    # within a script element only these begin anything, and JSON has them in strings alone
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704


def _data_uri(path: Path, kind: str) -> str:
    try:
        return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; make the figures again") from None


def _sets(output: Path, results: Sequence[Result], samples: Samples) -> Iterator[dict[str, Any]]:
    """Packs the examples of every attack on every cell; yields what the page needs to offer them."""
    for number, result in enumerate(results):
        for attack, kind in itertools.product(attacks_of([result]), KINDS):
            summary = summary_of(result, attack, kind)
            examples = read_examples(output, result["id"], attack, kind) if summary else []
            if not summary or not examples:
                continue
            try:
                block = samples.add(result["dataset"], examples)
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"the examples of {attack} ({kind}) in {output / 'cells' / result['id']} are not those of an "
                    f"attack ({error!r}); remove that folder and run the grid again"
                ) from None
            yield {
                "dataset": label(DATASETS, result["dataset"]),
                "method": experiment_name(result),
                "seed": str(result["seed"]),
                "attack": label(ATTACKS, attack),
                "kind": kind,
                "cell": number,
                "resources": resources_of(summary),
                "block": block,
            }


def _failed(output: Path) -> Iterator[dict[str, str]]:
    for path in sorted(output.glob("cells/*/failed.json")):
        if not (path.parent / "result.json").exists():
            content = read_json(path)
            content = content if isinstance(content, dict) else {}
            yield {
                "id": path.parent.name,
                "step": str(content.get("step", "")),
                "message": str(content.get("message", "")),
            }


def _tables(output: Path) -> Iterator[dict[str, Any]]:
    order = {name: place for place, name in enumerate(TABLE_TITLES)}
    for path in sorted(output.glob("tables/*.html"), key=lambda path: (order.get(path.stem, len(order)), path.stem)):
        if tables := read_tables(read_text(path, MAX_JSON_BYTES)):
            data = path.with_suffix(".csv")
            yield {
                "id": path.stem,
                "name": TABLE_TITLES.get(path.stem, path.stem),
                "tables": tables,
                "data": _data_uri(data, "text/csv") if data.exists() else "",
            }


def _figures(output: Path) -> Iterator[dict[str, str]]:
    """Yields the figures that figures.json lists, and those that were left out, with the reason."""
    folder = output / "figures"
    path = folder / "figures.json"
    content = read_json(path) if path.exists() else {}
    try:
        for figure in content.get("figures", []):
            svg, csv = (folder / f"{figure['stem']}.{suffix}" for suffix in ("svg", "csv"))
            yield {
                "title": _figure_title(figure),
                "name": figure["stem"],
                "caption": figure["caption"],
                "source": _data_uri(svg, _SVG) if svg.exists() else _data_uri(svg.with_suffix(".png"), _PNG),
                "data": _data_uri(csv, "text/csv") if csv.exists() else "",
            }
        for figure in content.get("left_out", []):
            yield {"title": _figure_title(figure), "left_out": figure["reason"]}
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no list of figures ({error!r}); make the figures again") from None


def _figure_title(figure: dict[str, str]) -> str:
    number = figure["figure"].removeprefix("figure")
    return f"Figure {number}, {label(DATASETS, figure['dataset'])}: {FIGURE_NAMES[figure['figure']]}"


def _claims(output: Path) -> dict[str, Any]:
    """Returns what claims.json holds: conditions, claims, and published figures beside ours; nothing without it."""
    path = output / "claims.json"
    if not path.exists():
        return {}
    content = read_json(path)
    try:
        claims = [dict(claim) | {"looks": _VERDICTS[claim["verdict"]]} for claim in content["claims"]]
        return {"conditions": content["conditions"], "claims": claims, "published": dict(content["published"])}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no list of claims ({error!r}); write the claims again") from None
