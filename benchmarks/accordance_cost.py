"""What measuring gradient accordance costs: training steps with and without it, batch by batch on one machine.

    python benchmarks/accordance_cost.py --data-dir DATA --output results/accordance_cost.json

A process that trains plainly and one that trains with online accordance take each batch in turn (A B A B ...): MiniLM
on SST-2, MRPC and QNLI (two classes) and AG News (four) with the paper's batch sizes, BERT-base on a few batches of
each. Reported: the ratio of seconds, with / without, and of CPU seconds, which other programs on the machine disturb
less; the tokens of a batch, since what measuring adds does not grow with them; and how much more memory the measuring
process needed at its peak, in gradients (parameters x 4 bytes).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
from tabulate import tabulate
from train_step import SIZES, Child, serve, write_results

from mindspore_floodx.data import load_dataset
from mindspore_floodx.encoding import encode, epoch_order, load_tokenizer, make_batch
from mindspore_floodx.files import write_text
from mindspore_floodx.pretrained import find_model

DATA = {  # batch size, classes, and the file when the whole training set is not there
    "sst2": (32, 2, None),
    "mrpc": (16, 2, None),
    "qnli": (16, 2, "train_partial.tsv"),
    "ag_news": (16, 4, "train_partial.jsonl"),
}
NAMES = ("input_ids", "attention_mask", "token_type_ids", "labels")
WARM_UP = 3
ALLOWED = {2: 1.10, 4: 1.20}


class Side:
    """A model that trains, plainly or measured."""

    def __init__(self, side: str, model: str, classes: int, threads: int):
        from mindspore_floodx.device import use_device

        use_device("CPU", threads)
        import mindspore as ms
        from mindspore import Tensor

        from mindspore_floodx.accordance import GradientAccordance
        from mindspore_floodx.bert import BertConfig, BertForSequenceClassification
        from mindspore_floodx.flooding import ClassificationLoss, FloodingTrainOneStepCell
        from mindspore_floodx.optim import AdamW

        hidden, layers, heads, inner = SIZES[model]
        network = BertForSequenceClassification(
            BertConfig(
                hidden_size=hidden,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=inner,
                id2label={index: str(index) for index in range(classes)},
            )
        )
        optimizer = AdamW(network.trainable_params(), 2e-5)
        began = time.perf_counter()
        if side == "online":
            measure = GradientAccordance(network, optimizer)
            measure.compile()
            self.step = lambda arrays: measure.add(dict(zip(NAMES, arrays, strict=True)))
        else:
            cell = FloodingTrainOneStepCell(ClassificationLoss(network), optimizer)
            ids, labels = Tensor(shape=[None, None], dtype=ms.int32), Tensor(shape=[None], dtype=ms.int32)
            cell.set_train()
            cell.set_inputs(ids, ids, ids, labels)
            cell.compile(ids, ids, ids, labels)
            self.step = lambda arrays: cell(*map(Tensor, arrays)).asnumpy()
        self.compile_seconds = time.perf_counter() - began

    def train(self, arrays):
        self.step(arrays)


def batches_of(dataset: str, data_dir: Path, count: int) -> list[list[np.ndarray]]:
    size, _, file = DATA[dataset]
    split = load_dataset(dataset, data_dir, train_file=file).train
    encoded = encode(split, load_tokenizer(find_model("minilm")), 512)
    order = epoch_order(len(encoded), 0, 0)
    batches = (make_batch(encoded, order[start : start + size]) for start in range(0, count * size, size))
    return [[batch[name] for name in NAMES] for batch in batches]


def parameters_of(model: str, classes: int) -> int:
    hidden, layers, _, inner = SIZES[model]
    embeddings = (30522 + 512 + 2 + 2) * hidden
    layer = 4 * (hidden + 1) * hidden + (hidden + 1) * inner + (inner + 1) * hidden + 4 * hidden
    return embeddings + layers * layer + (hidden + 1) * hidden + (hidden + 1) * classes


def measure(model: str, dataset: str, count: int, arguments: argparse.Namespace) -> dict:
    size, classes, _ = DATA[dataset]
    options = ("--data-dir", str(arguments.data_dir), "--datasets", dataset, "--batches", str(count))
    sides = {
        side: Child(side, model, arguments.threads, script=__file__, options=options) for side in ("plain", "online")
    }
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    cpu: dict[str, list[float]] = {side: [] for side in sides}
    tokens = [int(batch[1].sum()) for batch in batches_of(dataset, arguments.data_dir, WARM_UP + count)[WARM_UP:]]
    memory = {}
    for number in range(WARM_UP + count):
        for side, child in sides.items():
            answer = child.ask("train", number)
            seconds[side].append(answer["seconds"])
            cpu[side].append(answer["cpu_seconds"])
            memory[side] = answer["peak_bytes"]
    compile_seconds = {side: child.compile_seconds for side, child in sides.items()}
    for child in sides.values():
        child.close()
    counted = {side: times[WARM_UP:] for side, times in seconds.items()}
    ratios = [b / a for a, b in zip(counted["plain"], counted["online"], strict=True)]
    quartiles = statistics.quantiles(ratios, n=4)
    gradient = parameters_of(model, classes) * 4
    row = {
        "model": model,
        "dataset": dataset,
        "classes": classes,
        "batch": size,
        "batches": count,
        "tokens_a_batch": statistics.fmean(tokens),
        "ratio_median": statistics.median(ratios),
        "ratio_quartiles": [quartiles[0], quartiles[2]],
        "ratio_of_totals": sum(counted["online"]) / sum(counted["plain"]),
        "ratio_of_cpu_totals": sum(cpu["online"][WARM_UP:]) / sum(cpu["plain"][WARM_UP:]),
        "ratio_allowed": ALLOWED[classes],
        "more_memory_in_gradients": (memory["online"] - memory["plain"]) / gradient,
        "memory_allowed_in_gradients": classes + 3,
    }
    for side in sides:
        row |= {
            f"{side}_seconds": statistics.median(counted[side]),
            f"{side}_peak_gigabytes": memory[side] / 1e9,
            f"{side}_compile_seconds": compile_seconds[side],
        }
    print(
        f"{model:9} {dataset:7} {classes} classes: ratio {row['ratio_median']:.3f} ({quartiles[0]:.3f} to "
        f"{quartiles[2]:.3f}), of totals {row['ratio_of_totals']:.3f}, of CPU seconds "
        f"{row['ratio_of_cpu_totals']:.3f}, allowed {ALLOWED[classes]:.2f}; "
        f"{row['more_memory_in_gradients']:.1f} gradients more memory, allowed {classes + 3}",
        flush=True,
    )
    return row


def report(rows: list[dict], command: str, threads: int) -> str:
    """The result file as a page."""
    names = ("model", "data", "batch", "tokens", "times plain (quartiles)", "of CPU seconds", "allowed", "more memory")
    lines = [
        (
            row["model"],
            f"{row['dataset']}, {row['classes']} classes",
            row["batch"],
            f"{row['tokens_a_batch']:.0f}",
            "{:.2f} ({:.2f} to {:.2f})".format(row["ratio_median"], *row["ratio_quartiles"]),
            f"{row['ratio_of_cpu_totals']:.2f}",
            f"{row['ratio_allowed']:.2f}",
            f"{row['more_memory_in_gradients']:.1f} of {row['memory_allowed_in_gradients']}",
        )
        for row in rows
    ]
    return "\n".join(
        [
            "# What online accordance costs",
            "",
            f"Training steps with every batch measured, in units of plain ones; {threads} thread(s); memory in",
            "gradients (parameters x 4 bytes). With `--accordance-every N` the part above 1 is divided by N.",
            "",
            tabulate(lines, names, "github", disable_numparse=True),
            "",
            f"`{command}`",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder with glue/ and ag_news/")
    parser.add_argument("--models", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--datasets", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--batches", type=int, default=40, help="of MiniLM; BERT-base takes a fifth as many")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path)
    parser.add_argument("--serve", choices=("plain", "online"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        dataset = arguments.datasets[0]
        batches = batches_of(dataset, arguments.data_dir, WARM_UP + arguments.batches)
        side = Side(arguments.serve, arguments.models[0], DATA[dataset][1], arguments.threads)
        serve(side, lambda number: batches[int(number)])
        return
    rows = [
        measure(model, dataset, max(4, arguments.batches // (1 if model == "minilm" else 5)), arguments)
        for model in arguments.models
        for dataset in arguments.datasets
    ]
    if arguments.output:
        write_results(arguments, rows)
        command = json.loads(arguments.output.read_text())["command"]
        write_text(arguments.output.with_suffix(".md"), report(rows, command, arguments.threads))


if __name__ == "__main__":
    main()
