"""How much faster do worker processes attack? One against several, on the evaluation sentences of a trained run.

    python benchmarks/attack_workers.py RUN --data-dir DATA --neighbours LISTS.json --output results/attack_workers.json

Meant for an idle machine. This process, one worker and several workers take each block of sentences in turn (A B C,
C B A, ...), all started before and idle while it is another's turn. Reported: the ratio of the seconds one worker and
several need, over all blocks and block by block; that the records are the same; the start of the workers apart. The
ratio is explained by two numbers: the share of the time in which workers are busy, and how much longer an example takes
while the other cores work too.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tabulate import tabulate
from train_step import write_results

from mindspore_floodx.attack_job import AttackJob, Example, VictimSettings
from mindspore_floodx.attack_loop import fair_order
from mindspore_floodx.attack_recipes import AttackSettings, check_settings
from mindspore_floodx.attack_source import (
    choose_attackable,
    choose_examples,
    find_export,
    load_evaluation,
    match_labels,
    model_labels,
    recorded_settings,
)
from mindspore_floodx.attack_workers import Workers, number_of_workers
from mindspore_floodx.files import write_text

ALLOWED = 1.8  # what two workers have to reach


def examples_and_job(arguments: argparse.Namespace) -> tuple[list[Example], AttackJob, str]:
    settings = AttackSettings(arguments.attack, arguments.resources, arguments.neighbours)
    check_settings(settings)
    export, recorded = find_export(arguments.run), recorded_settings(arguments.run)
    data = load_evaluation(recorded, {"data_dir": arguments.data_dir})
    split = match_labels(data, model_labels(export), export)
    job = AttackJob(
        VictimSettings(export, recorded.get("max_length")),
        settings,
        data.text_columns,
        choose_attackable(None, data.text_columns),
    )
    ids = choose_examples(len(split), arguments.examples, 0)
    texts = [(split.texts[id],) if split.pairs is None else (split.texts[id], split.pairs[id]) for id in ids]
    return [Example(id, text, int(split.labels[id])) for id, text in zip(ids, texts, strict=True)], job, data.name


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    examples, job, dataset = examples_and_job(arguments)
    count, size = number_of_workers(arguments.workers), arguments.block
    blocks = [fair_order(examples[start : start + size]) for start in range(0, len(examples), size)]
    with contextlib.ExitStack() as stack:
        one, several = (stack.enter_context(Workers(number)) for number in (1, count))
        starts = {}
        for workers in (one, several):
            workers.start(job, wait_for=workers.count)
            starts[workers.count] = max(workers.starting_seconds)
        here = job.prepare({})
        sides: dict[str, Callable[[list[Example]], list[dict[str, Any]]]] = {
            "this process": lambda block: [here(example) for example in block],
            "1 worker": lambda block: list(one.run(block)),
            f"{count} workers": lambda block: list(several.run(block)),
        }
        for run in sides.values():  # the first sentences are slower
            run(blocks[0][: 2 * count])
        wall: dict[str, list[float]] = {side: [] for side in sides}
        inside = dict.fromkeys(sides, 0.0)
        identical, queries = True, 0
        for turn, block in enumerate(blocks):
            found = {}
            for side in list(sides)[:: 1 if turn % 2 == 0 else -1]:
                began = time.perf_counter()
                records = sides[side](block)
                wall[side].append(time.perf_counter() - began)
                inside[side] += sum(record["seconds"] for record in records)
                found[side] = sorted(
                    ({name: value for name, value in record.items() if name != "seconds"} for record in records),
                    key=lambda record: record["id"],
                )
            identical = identical and all(records == found["1 worker"] for records in found.values())
            queries += sum(record["queries"] for record in found["1 worker"])
            print(", ".join(f"{side} {seconds[-1]:.1f} s" for side, seconds in wall.items()), flush=True)
    total = {side: sum(seconds) for side, seconds in wall.items()}
    many = f"{count} workers"
    ratios = [a / b for a, b in zip(wall["1 worker"], wall[many], strict=True)]
    return {
        "attack": arguments.attack,
        "resources": arguments.resources,
        "dataset": dataset,
        "examples": len(examples),
        "block": size,
        "queries": queries,
        "workers": count,
        "seconds": total,
        "ratio_of_totals": total["1 worker"] / total[many],
        "ratio_median": statistics.median(ratios),
        "ratio_lowest": min(ratios),
        "ratio_highest": max(ratios),
        "ratio_allowed": ALLOWED if count == 2 else None,
        "share_of_time_busy": inside[many] / (count * total[many]),
        "example_takes_longer": inside[many] / inside["1 worker"],
        "one_worker_against_this_process": total["this process"] / total["1 worker"],
        "identical_records": identical,
        "seconds_starting_one_worker": starts[1],
        "seconds_starting_all_workers": starts[count],
    }


def report(row: dict[str, Any], load: float) -> str:
    count = row["workers"]
    note = " (stand-in resources)" if row["resources"] == "standin" else ""
    cells = [(side, f"{seconds:.1f}", f"{row['examples'] / seconds:.2f}") for side, seconds in row["seconds"].items()]
    table = tabulate(cells, ("", "seconds", "examples a second"), tablefmt="github", disable_numparse=True)
    allowed = "" if row["ratio_allowed"] is None else f" At least {row['ratio_allowed']} is asked for."
    return (
        f"# Worker processes\n\n{row['attack']}{note} on {row['examples']} examples of {row['dataset']}, "
        f"{row['queries']} queries, one thread a process, {os.cpu_count()} cores, load before {load:.1f}.\n\n"
        f"{table}\n\n"
        f"{count} workers against one: {row['ratio_of_totals']:.2f} times as fast; block by block (of {row['block']}) "
        f"median {row['ratio_median']:.2f}, from {row['ratio_lowest']:.2f} to {row['ratio_highest']:.2f}.{allowed}\n"
        f"Workers were busy {100 * row['share_of_time_busy']:.1f}% of the time, and an example took "
        f"{row['example_takes_longer']:.2f} times as long as with one. One worker against this process: "
        f"{row['one_worker_against_this_process']:.2f} times as fast.\n"
        f"All records are {'the same' if row['identical_records'] else 'NOT THE SAME'}. Not counted above: one worker "
        f"was ready after {row['seconds_starting_one_worker']:.1f} s, {count} were after "
        f"{row['seconds_starting_all_workers']:.1f} s.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--data-dir", type=Path, help="where the run's data set lies now")
    parser.add_argument("--attack", default="textfooler")
    parser.add_argument("--resources", default="standin")
    parser.add_argument("--neighbours", type=Path)
    parser.add_argument("--examples", type=int, default=400)
    parser.add_argument("--block", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    arguments.threads, load = 1, os.getloadavg()[0]
    row = measure(arguments)
    text = report(row, load)
    print(text)
    if arguments.output:
        words = [Path(word).name if os.path.isabs(word) else word for word in sys.argv[1:]]
        command = " ".join(["python benchmarks/attack_workers.py", *words])
        write_results(arguments, [row], command=command, load_average_before=load)
        write_text(arguments.output.with_suffix(".md"), text)


if __name__ == "__main__":  # worker processes import this file
    main()
