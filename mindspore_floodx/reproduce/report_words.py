"""What the report says in words: its opening, what has to be kept in mind, and what is known of each cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .labels import ATTACKS, DATASETS, label
from .report_rows import encoders_of, experiment_name, resources_of
from .results import Result
from .rows import attacks_of, clean_accuracy, datasets_of, flood_level, summary_of


def describe_cell(result: Result) -> dict[str, Any]:
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


def all_resources(results: Sequence[Result]) -> list[str]:
    """Returns the distinct words that go with the figures of the attacks."""
    return list(
        dict.fromkeys(
            resources_of(summary)
            for result in results
            for attack in attacks_of([result])
            if (summary := summary_of(result, attack))
        )
    )


def lead(results: Sequence[Result]) -> str:
    """Returns the page's first sentences: what was trained, on what, attacked with what, how often."""
    if not results:
        return "The results of a grid of training runs under attack. There are none yet."
    seeds = sorted({result["seed"] for result in results})
    attacks = _list([label(ATTACKS, attack) for attack in attacks_of(results)])
    datasets = _list([label(DATASETS, dataset) for dataset in datasets_of(results)])
    return (
        f"{_list(encoders_of(results))} fine-tuned on {datasets} and attacked with {attacks}: {len(results)} runs, "
        f"{'one seed' if len(seeds) == 1 else f'up to {len(seeds)} seeds'}. Every figure comes from a result file."
    )


def _list(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else "nothing"


def warnings(results: Sequence[Result], failed: Sequence[Any]) -> Iterator[str]:
    """Yields what has to be kept in mind with all figures: stand-in resources, partial data, cells that failed."""
    resources = all_resources(results)
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


def facts(results: Sequence[Result]) -> Iterator[tuple[str, str]]:
    """Yields pairs (term, text) on encoders, data, attack resources, devices and versions of all runs."""
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
