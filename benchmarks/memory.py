"""What a training step on long inputs takes: largest memory and time, with recomputation, float16 and micro-batches.

    python benchmarks/memory.py --output results/memory.json
    python benchmarks/memory.py --models bert-base --batch 2 --steps 1 --output FILE.json

Every form of the step has a process of its own, since memory that was used once stays with a process. Rows are full.
Reported: the largest memory, and how much of it came with the steps, after the graph was compiled; and processor
seconds of a step (the median of those after the first), which a busy machine changes less than the time that passes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FORMS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float32, recompute": {"recompute": True},
    "float32, 4 micro-batches": {"gradient_accumulation_steps": 4},
    "float16": {"precision": "float16"},
    "float16, recompute": {"precision": "float16", "recompute": True},
}
SIZES = {"minilm": (384, 6, 12, 1536), "bert-base": (768, 12, 12, 3072)}  # hidden, layers, heads, intermediate


def peak() -> float:
    """Returns the largest memory of this process so far, in gigabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measure(model: str, form: str, batch: int, length: int, steps: int) -> dict[str, Any]:
    """Takes some steps in this process and returns its measurements."""
    import tempfile

    from mindspore_floodx.device import use_device

    use_device("CPU", 1)
    import numpy as np

    from mindspore_floodx.bert import BertConfig, BertForSequenceClassification
    from mindspore_floodx.defences.flooding import Flooding
    from mindspore_floodx.settings import resolve
    from mindspore_floodx.training_inputs import build_model

    hidden, layers, heads, inner = SIZES[model]
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
        BertForSequenceClassification(BertConfig(intermediate_size=inner, **sizes)).save_pretrained(folder)
        settings = resolve({"dataset": "demo", "model": folder, "max_length": length} | FORMS[form])
        network, optimizer, _ = build_model(settings, ["bad", "good"], Path(folder), 100)
    defence = Flooding(network, optimizer, settings)
    began = time.process_time()
    defence.compile()
    compiled, before = time.process_time() - began, peak()
    generator = np.random.default_rng(0)
    ids = generator.integers(1000, 30000, (batch, length)).astype(np.int32)
    rows = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    seconds = []
    for _ in range(steps):
        began = time.process_time()
        defence.train_step(rows | {"labels": np.arange(batch, dtype=np.int32) % 2})
        seconds.append(time.process_time() - began)
    return {
        "model": model,
        "form": form,
        "batch": batch,
        "length": length,
        "peak_gigabytes": peak(),
        "gigabytes_of_the_steps": peak() - before,
        "cpu_seconds_per_step": statistics.median(seconds[1:] or seconds),
        "compile_cpu_seconds": compiled,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--models", nargs="+", choices=SIZES, default=["minilm"])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # a model and a form, measured in this process
    options = parser.parse_args()
    if options.one:
        row = measure(*options.one, options.batch, options.length, options.steps)
        options.output.write_text(json.dumps(row))
        return
    from mindspore_floodx.files import write_json
    from mindspore_floodx.runs import package_versions

    rows = []
    for model in options.models:
        for form in options.forms:
            sizes = ["--batch", options.batch, "--length", options.length, "--steps", options.steps]
            part = options.output.with_suffix(".part")
            command = [sys.executable, __file__, "--one", model, form, "--output", part, *sizes]
            subprocess.run([str(word) for word in command], check=True)
            rows.append(json.loads(part.read_text()))
            part.unlink()
            print(", ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    result = {
        "command": "python benchmarks/memory.py " + " ".join(sys.argv[1:]),
        "threads": 1,
        "load_average": os.getloadavg()[0],
        "packages": package_versions(),
        "rows": rows,
    }
    write_json(options.output, result)


if __name__ == "__main__":
    main()
