"""Where the time of a step goes, by MindSpore's own profiler: the shares of the CPU kernels.

    python benchmarks/profile_step.py --output results/profile

Trains and infers on the batches of benchmarks/train_step.py and writes OUTPUT.json and OUTPUT.md. `wall` is the median
time of a step without the profiler; what the kernels do not account for is spent between them (shapes, memory, launch).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from tabulate import tabulate
from train_step import SIZES, MindSporeSide, batch_of

from mindspore_floodx.files import write_json, write_text
from mindspore_floodx.runs import package_versions

STEPS = 5
SHOWN = 12


def profile(side: MindSporeSide, task: str, arrays) -> dict:
    """Returns the wall milliseconds of a step and, kernel by kernel, calls, milliseconds and share."""
    import mindspore as ms

    seconds = []
    for _ in range(2 * STEPS):
        began = time.perf_counter()
        getattr(side, task)(arrays)
        seconds.append(time.perf_counter() - began)
    with tempfile.TemporaryDirectory() as folder:
        profiler = ms.Profiler(output_path=folder)
        for _ in range(STEPS):
            getattr(side, task)(arrays)
        profiler.analyse()
        (path,) = Path(folder).rglob("cpu_op_type_info_*.csv")
        table = pd.read_csv(path)
    table = table.sort_values("total_compute_time", ascending=False)
    total = table["total_compute_time"].sum()
    kernels = [
        {
            "kernel": row.op_type,
            "calls": int(row.type_occurrences) // STEPS,
            "milliseconds": float(row.total_compute_time) / STEPS,
            "share": float(row.total_compute_time / total),
        }
        for row in table.itertuples()
    ]
    return {
        "task": task,
        "wall_milliseconds": 1000 * statistics.median(seconds[STEPS:]),
        "kernel_milliseconds": total / STEPS,
        "kernels": kernels,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SIZES, default="minilm")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, required=True, help="without a suffix")
    arguments = parser.parse_args()
    side = MindSporeSide(arguments.model, arguments.threads)
    arrays = batch_of(arguments.batch, arguments.length)
    results = [profile(side, task, arrays) for task in ("train", "infer")]
    command = "python benchmarks/profile_step.py " + " ".join(sys.argv[1:])
    write_json(
        arguments.output.with_suffix(".json"),
        {
            "command": command,
            "model": arguments.model,
            "batch": arguments.batch,
            "length": arguments.length,
            "threads": arguments.threads,
            "packages": package_versions(),
            "results": results,
        },
    )
    lines = [
        f"# Kernels of a step: {arguments.model}, batch {arguments.batch}, length {arguments.length}",
        f"`{command}`, {arguments.threads} CPU threads, MindSpore {package_versions()['mindspore']}.",
    ]
    for result in results:
        rows = [
            (each["kernel"], each["calls"], f"{each['milliseconds']:.0f}", f"{each['share']:.1%}")
            for each in result["kernels"][:SHOWN]
        ]
        lines += [
            f"## {result['task']}",
            f"{result['wall_milliseconds']:.0f} ms a step, {result['kernel_milliseconds']:.0f} ms of them in kernels:",
            tabulate(rows, ("kernel", "calls", "ms", "share"), "github", disable_numparse=True),
        ]
    write_text(arguments.output.with_suffix(".md"), "\n\n".join(lines) + "\n")
    print("\n\n".join(lines))


if __name__ == "__main__":
    main()
