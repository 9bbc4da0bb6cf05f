"""MindSpore against Hugging Face PyTorch on the batches of a real epoch: random order, padded to their longest row.

    python benchmarks/real_epoch.py --data-dir DATA --output results/real_epoch.json

A sample of the batches that `run/train.py` would train on: MRPC in batches of 16 and SST-2 in batches of 32. A
MindSpore process and a PyTorch process take each batch in turn (A B A B ...), first for a training step with dropout
and AdamW, then for an inference pass. Counted are real tokens; padding is not. Reported: the medians of tokens per
second, and the median, the quartiles and the total of the ratio MindSpore / PyTorch batch by batch.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

import numpy as np
from train_step import SIDES, SIZES, Child, serve, write_results

from mindspore_floodx.data import load_dataset
from mindspore_floodx.encoding import encode, epoch_order, load_tokenizer, make_batch
from mindspore_floodx.pretrained import find_model

BATCH_SIZES = {"mrpc": 16, "sst2": 32}
NAMES = ("input_ids", "attention_mask", "token_type_ids", "labels")
WARM_UP = 6  # batches before the count: MindSpore tries out its kernels' thread counts in the first five calls


def batches_of(dataset: str, data_dir: Path, count: int) -> list[list[np.ndarray]]:
    """Returns the first `count` batches of epoch 0 of seed 0, each as the arrays `NAMES`."""
    split = load_dataset(dataset, data_dir=data_dir).train
    encoded = encode(split, load_tokenizer(find_model("minilm")), 512)
    order, size = epoch_order(len(encoded), 0, 0), BATCH_SIZES[dataset]
    batches = (make_batch(encoded, order[start : start + size]) for start in range(0, count * size, size))
    return [[batch[name] for name in NAMES] for batch in batches]


def measure(model: str, dataset: str, arguments: argparse.Namespace) -> list[dict]:
    count = WARM_UP + arguments.batches
    masks = [arrays[1] for arrays in batches_of(dataset, arguments.data_dir, count)]
    options = ("--data-dir", str(arguments.data_dir), "--datasets", dataset, "--batches", str(arguments.batches))
    sides = {side: Child(side, model, arguments.threads, script=__file__, options=options) for side in SIDES}
    rows = []
    for task in ("train", "infer"):
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        memory = {}
        for number in range(count):
            for side, child in sides.items():
                answer = child.ask(task, number)
                seconds[side].append(answer["seconds"])
                memory[side] = answer["peak_bytes"]
        counted = {side: times[WARM_UP:] for side, times in seconds.items()}
        tokens = [int(mask.sum()) for mask in masks[WARM_UP:]]
        ratios = [b / a for a, b in zip(counted["mindspore"], counted["pytorch"], strict=True)]
        quartiles = statistics.quantiles(ratios, n=4)
        row = {
            "model": model,
            "dataset": dataset,
            "task": task,
            "batch": BATCH_SIZES[dataset],
            "batches": arguments.batches,
            "share_of_padding": 1 - sum(tokens) / sum(mask.size for mask in masks[WARM_UP:]),
            "ratio_median": statistics.median(ratios),
            "ratio_quartiles": [quartiles[0], quartiles[2]],
            "ratio_of_totals": sum(counted["pytorch"]) / sum(counted["mindspore"]),
            "compile_seconds": sides["mindspore"].compile_seconds,
        }
        for side, times in counted.items():
            speeds = [n / each for n, each in zip(tokens, times, strict=True)]
            row |= {
                f"{side}_tokens_per_second": statistics.median(speeds),
                f"{side}_peak_gigabytes": memory[side] / 1e9,
            }
        rows.append(row)
        print(
            f"{model:9} {dataset:4} {task:5}: MindSpore {row['mindspore_tokens_per_second']:6.0f} tokens/s, PyTorch "
            f"{row['pytorch_tokens_per_second']:6.0f}, ratio {row['ratio_median']:.2f} "
            f"({quartiles[0]:.2f} to {quartiles[2]:.2f}), of totals {row['ratio_of_totals']:.2f}",
            flush=True,
        )
    for child in sides.values():
        child.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder with MRPC/ and SST-2/")
    parser.add_argument("--models", nargs="+", choices=SIZES, default=["minilm"])
    parser.add_argument("--datasets", nargs="+", choices=BATCH_SIZES, default=list(BATCH_SIZES))
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path)
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        batches = batches_of(arguments.datasets[0], arguments.data_dir, WARM_UP + arguments.batches)
        serve(SIDES[arguments.serve](arguments.models[0], arguments.threads), lambda number: batches[int(number)])
        return
    rows = [
        row
        for model in arguments.models
        for dataset in arguments.datasets
        for row in measure(model, dataset, arguments)
    ]
    if arguments.output:
        write_results(arguments, rows)


if __name__ == "__main__":
    main()
