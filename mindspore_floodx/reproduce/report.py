"""report.html: one page with all results, figures, claims and attacked sentences, that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ..errors import UserError
from ..files import write_text
from .figures import NAMES as FIGURE_NAMES
from .labels import ATTACKS, DATASETS, label
from .report_rows import FIGURES, MAIN, attack_rows, encoders_of, experiment_name, resources_of
from .report_samples import COLUMNS, Samples
from .report_tables import read_tables
from .results import Result, read_examples, read_results
from .rows import attacks_of, clean_accuracy, datasets_of, flood_level, summary_of

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
_KINDS = ("raw", "calibrated")
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
        "cells": [_cell(result) for result in results],
        "sets": sets,
        "texts": {label(DATASETS, dataset): number for dataset, number in texts.items()},
    }
    page = _render(
        title="Flooding-X, reproduced",
        lead=_lead(results),
        warnings=list(_warnings(results, failed)),
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
        ours=", ".join([*encoders_of(results), *_resources(results)]),
        figures=figures,
        sets=sets,
        facts=list(_facts(results)),
        failed=failed,
        index=_json_in_html(index),
        blocks=samples.blocks,
    )
    target = output / "report.html"
    write_text(target, page)
    return target


_COLUMNS = [
    {"title": "Method", "sortable": True},
    {"title": "Data set", "sortable": True},
    {"title": "Attack", "sortable": True},
    {"title": "Seeds, to open", "sortable": True},
    *({"title": heading, "number": True, "sortable": True} for heading, *_ in FIGURES),
    {"title": "Examples", "number": True, "sortable": True},
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


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}; remove it, and give the same command again") from None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read(path))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); remove it, and give the same command again") from None


def _sets(output: Path, results: Sequence[Result], samples: Samples) -> Iterator[dict[str, Any]]:
    """Packs the examples of every attack on every cell; yields what the page needs to offer them."""
    for number, result in enumerate(results):
        for attack in attacks_of([result]):
            for kind in _KINDS:
                summary = summary_of(result, attack, kind)
                examples = read_examples(output, result["id"], attack, kind) if summary else []
                if not summary or not examples:
                    continue
                yield {
                    "dataset": label(DATASETS, result["dataset"]),
                    "method": experiment_name(result),
                    "seed": str(result["seed"]),
                    "attack": label(ATTACKS, attack),
                    "kind": kind,
                    "cell": number,
                    "resources": resources_of(summary),
                    "block": samples.add(result["dataset"], examples),
                }


def _failed(output: Path) -> Iterator[dict[str, str]]:
    for path in sorted(output.glob("cells/*/failed.json")):
        if not (path.parent / "result.json").exists():
            content = _read_json(path)
            content = content if isinstance(content, dict) else {}
            yield {
                "id": path.parent.name,
                "step": str(content.get("step", "")),
                "message": str(content.get("message", "")),
            }


def _tables(output: Path) -> Iterator[dict[str, Any]]:
    order = {name: place for place, name in enumerate(TABLE_TITLES)}
    for path in sorted(output.glob("tables/*.html"), key=lambda path: (order.get(path.stem, len(order)), path.stem)):
        if tables := read_tables(_read(path)):
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
    content = _read_json(path) if path.exists() else {}
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
    """Returns what claims.json holds: the claims, and published figures beside ours; nothing without it."""
    path = output / "claims.json"
    if not path.exists():
        return {}
    content = _read_json(path)
    try:
        return {
            "claims": [dict(claim) | {"kind": _VERDICTS.get(claim["verdict"], "untested")} for claim in content["claims"]],
            "published": content.get("published", []),
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no list of claims ({error!r}); write the claims again") from None


def _cell(result: Result) -> dict[str, Any]:
    """Returns what the page says of a cell beside its sentences."""
    train, evaluation = (result["data"][part] for part in ("train", "evaluation"))
    part = ", part of the data" if train.get("partial") else ""
    settings = [(name, str(value)) for name, value in result["settings"].items() if value is not None]
    last = result["epochs"][-1]
    about = (
        f"{label(DATASETS, result['dataset'])}, {experiment_name(result)}, seed {result['seed']}: "
        f"{encoders_of([result])[0]}, trained on {train['examples']:,} examples{part}, "
        f"clean accuracy {100 * clean_accuracy(result):.1f}%."
    )
    return {
        "id": result["id"],
        "labels": [str(name) for name in result.get("label_names") or []],
        "columns": result.get("text_columns") or [],
        "about": about,
        "facts": [
            ("cell", result["id"]),
            ("training data", f"{train['source']}, {train['examples']:,} examples{part}"),
            ("evaluation data", f"{evaluation['source']}, {evaluation['examples']:,} examples"),
            *_level_facts(result),
            ("training loss, last epoch", f"{last['train_loss']:.3f}"),
            ("evaluation loss, last epoch", f"{last['eval_loss']:.3f}"),
            (
                "evaluation accuracy by epoch",
                ", ".join(f"{100 * each['eval_accuracy']:.1f}" for each in result["epochs"]),
            ),
            *_calibration_facts(result),
            *settings,
        ],
    }


def _level_facts(result: Result) -> Iterator[tuple[str, str]]:
    level, decision = flood_level(result), result["flood_level"]
    if level is not None:
        yield "flood level", f"{level:.3g}" + (f", found by the run: {decision['reason']}" if decision else "")
    if result.get("flooded"):
        yield "flooded", f"{100 * result['flooded']:.0f}% of the examples trained on had their loss raised"


def _calibration_facts(result: Result) -> Iterator[tuple[str, str]]:
    for attack in attacks_of([result]):
        calibration = (summary_of(result, attack, "calibrated") or {}).get("calibration")
        if calibration:
            temperatures = " and ".join(f"{value:.3g}" for value in calibration["temperatures"])
            error = calibration["attacked"]
            yield (
                f"calibration, {label(ATTACKS, attack)}",
                f"logits / {temperatures}; expected calibration error {100 * error['ece_before']:.1f}% before, "
                f"{100 * error['ece_after']:.1f}% after",
            )


def _resources(results: Sequence[Result]) -> list[str]:
    return list(
        dict.fromkeys(
            resources_of(summary)
            for result in results
            for attack in attacks_of([result])
            if (summary := summary_of(result, attack))
        )
    )


def _lead(results: Sequence[Result]) -> str:
    if not results:
        return "The results of a grid of training runs under attack. There are none yet."
    seeds = sorted({result["seed"] for result in results})
    attacks = [label(ATTACKS, attack) for attack in attacks_of(results)]
    return (
        f"{', '.join(encoders_of(results))} fine-tuned on {_list([label(DATASETS, each) for each in datasets_of(results)])} "
        f"and attacked with {_list(attacks)}: {len(results)} runs, "
        f"{'one seed' if len(seeds) == 1 else f'up to {len(seeds)} seeds'}. Every figure comes from a result file."
    )


def _list(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else "nothing"


def _warnings(results: Sequence[Result], failed: Sequence[Any]) -> Iterator[str]:
    resources = _resources(results)
    if len(resources) == 1 and resources[0] == "stand-in resources":
        yield (
            "All attacks were run with stand-in resources, not with the files that the published recipes name. Their "
            "figures compare the models of this page with each other, not with those of papers."
        )
    elif "stand-in resources" in resources:
        yield "Rows that say stand-in resources can be compared with each other, not with figures of papers."
    for dataset in datasets_of(results):
        cells = [result for result in results if result["dataset"] == dataset]
        for part, word in (("train", "training"), ("evaluation", "evaluation")):
            if sizes := sorted({cell["data"][part]["examples"] for cell in cells if cell["data"][part].get("partial")}):
                sizes_text = _list([f"{size:,}" for size in sizes])
                yield f"{label(DATASETS, dataset)}: only part of the {word} data was used ({sizes_text} examples)."
    if failed:
        yield f"{len(failed)} {'cell' if len(failed) == 1 else 'cells'} failed; the last part of this page says why."


def _facts(results: Sequence[Result]) -> Iterator[tuple[str, str]]:
    if not results:
        return
    yield "Finished runs", str(len(results))
    yield "Encoder", _list(encoders_of(results))
    for dataset in datasets_of(results):
        cells = [result for result in results if result["dataset"] == dataset]
        for part, word in (("train", "training"), ("evaluation", "evaluation")):
            data = {
                f"{cell['data'][part]['source']}, {cell['data'][part]['examples']:,} examples"
                f"{' (part of the data)' if cell['data'][part].get('partial') else ''}"
                for cell in cells
            }
            yield f"{label(DATASETS, dataset)}, {word}", "; ".join(sorted(data))
    notes = {
        (resources_of(summary), note)
        for result in results
        for attack in attacks_of([result])
        if (summary := summary_of(result, attack))
        for note in summary.get("resource_notes") or [""]
    }
    for name in sorted({name for name, _ in notes}):
        yield "Attacks", "; ".join(filter(None, [name, *sorted(note for other, note in notes if other == name)]))
    devices = {f"{result.get('device')}, {result.get('threads')} threads" for result in results}
    yield "Device", "; ".join(sorted(devices)).replace("1 threads", "1 thread")
    versions = {f"{name} {version}" for result in results for name, version in (result.get("versions") or {}).items()}
    yield "Versions", ", ".join(sorted(versions))
