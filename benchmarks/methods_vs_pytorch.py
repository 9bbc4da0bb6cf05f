"""What adversarial training costs in MindSpore and in PyTorch, each relative to its own fine-tuning.

    python benchmarks/methods_vs_pytorch.py --data-dir DATA --output results/methods_vs_pytorch.json

Two processes, one a framework, with MiniLM, K = 5 and real SST-2 sentences of at least 5 words in batches of 32; the
PyTorch side is the implementation in tests/pytorch_defences.py. Every batch goes through all methods of both sides in
turn, in an order that moves on by one each time. Reported for each side and method: the median and the quartiles of the
ratio to fine-tuning batch by batch, and the ratio of the totals.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from tabulate import tabulate
from train_step import Child, serve, write_results

from mindspore_floodx.data import load_dataset
from mindspore_floodx.encoding import encode, epoch_order, load_tokenizer, make_batch
from mindspore_floodx.files import write_text
from mindspore_floodx.pretrained import find_model
from mindspore_floodx.settings import resolve

METHODS = ("finetune", "flooding", "pgd", "freelb", "tavat", "infobert")
BATCH_SIZE, WARM_UP, FLOOD_LEVEL = 32, 4, 0.1  # MindSpore tries out its kernels' threads in the first calls


def batches_of(data_dir: Path, count: int) -> list[dict[str, np.ndarray]]:
    split = load_dataset("sst2", data_dir=data_dir, max_train_examples=4000, min_words=5).train
    encoded = encode(split, load_tokenizer(find_model("minilm")), 512)
    order = epoch_order(len(encoded), 0, 0)
    return [
        make_batch(encoded, order[start : start + BATCH_SIZE]) for start in range(0, count * BATCH_SIZE, BATCH_SIZE)
    ]


def settings_of(method: str):
    level = {"flood_level": FLOOD_LEVEL} if method == "flooding" else {}
    return resolve({"method": method, "dataset": "custom", **level})


class MindSporeSide:
    def __init__(self, threads: int):
        import time

        from mindspore_floodx.bert import BertForSequenceClassification
        from mindspore_floodx.device import use_device
        from mindspore_floodx.methods import find_defence
        from mindspore_floodx.optim import AdamW

        use_device("CPU", threads)
        model = BertForSequenceClassification.from_pretrained("minilm", num_labels=2)
        optimizer = AdamW(model.trainable_params(), 2e-5)
        self.methods = {name: find_defence(name)(model, optimizer, settings_of(name)) for name in METHODS}
        began = time.perf_counter()
        for each in self.methods.values():
            each.compile()
        self.compile_seconds = time.perf_counter() - began

    def __getattr__(self, method):
        return self.methods[method].train_step


class PyTorchSide:
    compile_seconds = 0.0

    def __init__(self, threads: int):
        import torch
        import transformers

        sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
        import pytorch_defences as reference

        torch.set_num_threads(threads)
        config = transformers.BertConfig.from_pretrained(find_model("minilm"), num_labels=2)
        model = transformers.BertForSequenceClassification(config).train()
        generator = np.random.default_rng(0)
        self.hidden, self.generator = config.hidden_size, generator
        self.optimizer, _ = reference.adamw(model, 2e-5, 0.01, 10**6, 0)
        self.optimise = lambda clip: reference.optimise(model, self.optimizer, None, clip)

        def options(method):
            own = settings_of(method)
            names = {"steps": "steps", "step_size": "step_size", "init": "init", "bound": "bound"}
            return {name: getattr(own, f"adversarial_{theirs}") for name, theirs in names.items()}

        def layer(outputs, inputs):
            limit = inputs**-0.5
            return generator.uniform(-limit, limit, (outputs, inputs)), generator.uniform(-limit, limit, outputs)

        size = config.hidden_size
        shapes = {"mean": (size, size, size), "logvar": (size, size, size), "score": (2 * size, 300, 1)}
        estimators = {}
        for name, (first, middle, last) in shapes.items():
            for place, (outputs, inputs) in ((0, (middle, first)), (2, (last, middle))):
                weight, bias = layer(outputs, inputs)
                estimators |= {f"{name}.{place}.weight": weight, f"{name}.{place}.bias": bias}
        table = generator.uniform(-1, 1, (config.vocab_size, size)) * 0.2 / size**0.5
        self.methods = {
            "finetune": reference.FineTuning(model),
            "flooding": reference.Flooding(model, FLOOD_LEVEL),
            "pgd": reference.PGD(model, **options("pgd")),
            "freelb": reference.FreeLB(model, **options("freelb")),
            "tavat": reference.TAVAT(model, **options("tavat"), table=table),
            "infobert": reference.InfoBERT(model, **options("infobert"), estimators=estimators),
        }

    def __getattr__(self, method):
        def step(batch):
            shape = (*batch["input_ids"].shape, self.hidden)
            noise = self.generator.random(shape, dtype=np.float32) * np.float32(2) - np.float32(1)
            self.methods[method].step(batch, noise)
            self.optimise(settings_of(method).max_grad_norm)

        return step


SIDES = {"mindspore": MindSporeSide, "pytorch": PyTorchSide}


def measure(arguments: argparse.Namespace) -> list[dict]:
    options = ("--data-dir", str(arguments.data_dir), "--batches", str(arguments.batches))
    sides = {side: Child(side, "minilm", arguments.threads, script=__file__, options=options) for side in SIDES}
    turns = [(side, method) for method in arguments.methods for side in SIDES]
    times: dict[tuple[str, str], list[SimpleNamespace]] = {turn: [] for turn in turns}
    for number in range(WARM_UP + arguments.batches):
        for turn in (*turns[number % len(turns) :], *turns[: number % len(turns)]):
            side, method = turn
            times[turn].append(SimpleNamespace(**sides[side].ask(method, number)))
        print(f"batch {number + 1} of {WARM_UP + arguments.batches}", flush=True)
    rows = []
    for (side, method), answers in times.items():
        plain = times[side, "finetune"][WARM_UP:]
        counted = answers[WARM_UP:]
        ratios = [a.seconds / b.seconds for a, b in zip(counted, plain, strict=True)]
        quartiles = statistics.quantiles(ratios, n=4)
        row = {
            "side": side,
            "method": method,
            "seconds_median": statistics.median(each.seconds for each in counted),
            "ratio_median": statistics.median(ratios),
            "ratio_quartiles": [quartiles[0], quartiles[2]],
            "ratio_of_totals": sum(e.seconds for e in counted) / sum(e.seconds for e in plain),
            "cpu_ratio_of_totals": sum(e.cpu_seconds for e in counted) / sum(e.cpu_seconds for e in plain),
            "peak_gigabytes": max(each.peak_bytes for each in answers) / 1e9,
        }
        rows.append(row)
        print(
            f"{side:9} {method:9} {row['seconds_median']:6.2f} s a step, ratio {row['ratio_median']:.2f} "
            f"({quartiles[0]:.2f} to {quartiles[2]:.2f}), of totals {row['ratio_of_totals']:.2f}, "
            f"of CPU seconds {row['cpu_ratio_of_totals']:.2f}"
        )
    for child in sides.values():
        child.close()
    return rows


def report(result: dict) -> str:
    """The result as a page."""
    lines = [
        (
            row["side"],
            row["method"],
            f"{row['seconds_median']:.2f}",
            f"{row['ratio_median']:.2f} ({row['ratio_quartiles'][0]:.2f} to {row['ratio_quartiles'][1]:.2f})",
            f"{row['ratio_of_totals']:.2f}",
            f"{row['cpu_ratio_of_totals']:.2f}",
        )
        for row in sorted(result["rows"], key=lambda row: row["side"])
    ]
    names = ("framework", "method", "seconds a step", "times fine-tuning (quartiles)", "of totals", "of CPU seconds")
    load = f"load average {result['load_average']:.1f} on {result['cores']} cores"
    return "\n".join(
        [
            "# What a method costs, in units of the same framework's fine-tuning",
            "",
            f"MiniLM, SST-2, batch {BATCH_SIZE}, K = 5, {result['threads']} thread(s) a side, {load}.",
            "",
            tabulate(lines, names, "github", disable_numparse=True),
            "",
            f"`{result['command']}`",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder with SST-2/")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path)
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--models", nargs=1, default=["minilm"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        batches = batches_of(arguments.data_dir, WARM_UP + arguments.batches)
        serve(SIDES[arguments.serve](arguments.threads), lambda number: batches[int(number)])
        return
    arguments.methods = ["finetune", *(each for each in arguments.methods if each != "finetune")]
    rows = measure(arguments)
    if arguments.output:
        write_results(arguments, rows)
        write_text(arguments.output.with_suffix(".md"), report(json.loads(arguments.output.read_text())))


if __name__ == "__main__":
    main()
