"""MindSpore against Hugging Face PyTorch, step by step on one machine.

    python benchmarks/train_step.py --output results/train_step.json
    python benchmarks/train_step.py --models minilm --rounds 3 --output FILE.json      # a short look

For each model, batch size and length, a MindSpore process and a PyTorch process hold the same task; this process lets
them work in turn (A B A B ...), so that a machine whose speed drifts slows both. Training is forward, backward and the
AdamW update with dropout on; inference is the forward pass alone. Rows are full (no padding). A third turn measures the
machine's float32 matrix product. Reported: medians, the ratio MindSpore / PyTorch of tokens per second, each side's
share of the matrix product's speed, compile seconds and the largest memory of each process.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

SIZES = {  # hidden, layers, heads, intermediate
    "minilm": (384, 6, 12, 1536),
    "bert-base": (768, 12, 12, 3072),
}


def flops(model: str, batch: int, length: int, training: bool) -> float:
    """Floating-point operations of the matrix products of one pass; a backward pass costs two forward ones."""
    hidden, layers, _, inner = SIZES[model]
    tokens = batch * length
    layer = 2 * tokens * (4 * hidden * hidden + 2 * hidden * inner) + 4 * tokens * length * hidden
    return layers * layer * (3 if training else 1)


def batch_of(batch: int, length: int):
    import numpy as np

    rng = np.random.default_rng(0)
    ids = rng.integers(1000, 30000, (batch, length)).astype(np.int32)
    return ids, np.ones_like(ids), np.zeros_like(ids), rng.integers(0, 2, batch).astype(np.int32)


class MindSporeSide:
    def __init__(self, model: str, threads: int):
        from mindspore_floodx.device import use_device

        use_device("CPU", threads)
        import mindspore as ms
        from mindspore import Tensor

        from mindspore_floodx.bert import BertConfig, BertForSequenceClassification
        from mindspore_floodx.evaluation import Evaluator
        from mindspore_floodx.flooding import ClassificationLoss, FloodingTrainOneStepCell
        from mindspore_floodx.optim import AdamW

        hidden, layers, heads, inner = SIZES[model]
        network = BertForSequenceClassification(
            BertConfig(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=inner)
        )
        self.Tensor = Tensor
        self.step = FloodingTrainOneStepCell(ClassificationLoss(network), AdamW(network.trainable_params(), 2e-5))
        ids, labels = Tensor(shape=[None, None], dtype=ms.int32), Tensor(shape=[None], dtype=ms.int32)
        began = time.perf_counter()
        self.step.set_train()
        self.step.set_inputs(ids, ids, ids, labels)
        self.step.compile(ids, ids, ids, labels)
        self.evaluator = Evaluator(network)
        self.evaluator.compile()
        self.compile_seconds = time.perf_counter() - began

    def train(self, arrays):
        self.step.set_train()
        self.step(*map(self.Tensor, arrays)).asnumpy()

    def infer(self, arrays):
        self.evaluator.forward.set_train(False)
        self.evaluator.forward(*map(self.Tensor, arrays[:3])).asnumpy()


class PyTorchSide:
    compile_seconds = 0.0

    def __init__(self, model: str, threads: int):
        import torch
        import transformers

        torch.set_num_threads(threads)
        hidden, layers, heads, inner = SIZES[model]
        self.torch = torch
        self.model = transformers.BertForSequenceClassification(
            transformers.BertConfig(
                hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=inner
            )
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=2e-5, weight_decay=0.01)

    def _batch(self, arrays):
        names = ("input_ids", "attention_mask", "token_type_ids", "labels")
        return {name: self.torch.from_numpy(array).long() for name, array in zip(names, arrays, strict=True)}

    def train(self, arrays):
        self.model.train()
        self.optimizer.zero_grad()
        loss = self.model(**self._batch(arrays)).loss
        loss.backward()
        self.optimizer.step()
        loss.item()

    def infer(self, arrays):
        self.model.eval()
        with self.torch.inference_mode():
            self.model(**{k: v for k, v in self._batch(arrays).items() if k != "labels"})


SIDES = {"mindspore": MindSporeSide, "pytorch": PyTorchSide}


def serve(worker, arrays_of) -> None:
    """The child: takes lines on stdin, a task and what `arrays_of` needs, and answers with the seconds of one pass."""
    print(json.dumps({"compile_seconds": worker.compile_seconds}), flush=True)
    for line in sys.stdin:
        task, *words = line.split()
        arrays = arrays_of(*words)
        began, cpu = time.perf_counter(), time.process_time()
        getattr(worker, task)(arrays)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak}), flush=True)


class Child:
    """A process that runs `script` with --serve; `options` are the script's own.

    It may run on as many cores as `threads` says and no more: MindSpore's matrix products take at least two threads,
    whatever it is told.
    """

    def __init__(self, side: str, model: str, threads: int, script: str = __file__, options: tuple[str, ...] = ()):
        command = [sys.executable, script, "--serve", side, "--models", model, "--threads", str(threads), *options]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads]),
        )
        self.compile_seconds = self._answer()["compile_seconds"]

    def _answer(self) -> dict:
        while line := self.process.stdout.readline():
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"the process stopped: {self.process.args}")

    def ask(self, task: str, *words: str | int) -> dict:
        self.process.stdin.write(" ".join(map(str, (task, *words))) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def matmul_flops(threads: int) -> float:
    import torch

    torch.set_num_threads(threads)
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    began = time.perf_counter()
    for _ in range(3):
        a @ b
    return 3 * 2 * 2048**3 / (time.perf_counter() - began)


def measure(model: str, threads: int, batches, lengths, rounds: int) -> list[dict]:
    sides = {side: Child(side, model, threads) for side in ("mindspore", "pytorch")}
    rows = []
    for length in lengths:
        for batch in batches:
            for task in ("train", "infer"):
                seconds: dict[str, list[float]] = {side: [] for side in sides}
                peaks, memory = [], {}
                for turn in range(rounds + 1):
                    peaks.append(matmul_flops(threads))
                    for side, child in sides.items():
                        answer = child.ask(task, batch, length)
                        memory[side] = answer["peak_bytes"]
                        if turn:  # the first warms up
                            seconds[side].append(answer["seconds"])
                work, peak = flops(model, batch, length, task == "train"), statistics.median(peaks)
                median = {side: statistics.median(times) for side, times in seconds.items()}
                ratios = [b / a for a, b in zip(seconds["mindspore"], seconds["pytorch"], strict=True)]
                row = {
                    "model": model,
                    "task": task,
                    "batch": batch,
                    "length": length,
                    "ratio_median": statistics.median(ratios),
                    "ratio_min": min(ratios),
                    "ratio_max": max(ratios),
                    "matmul_gflops": peak / 1e9,
                }
                for side in sides:
                    row |= {
                        f"{side}_seconds": median[side],
                        f"{side}_tokens_per_second": batch * length / median[side],
                        f"{side}_share_of_peak": work / median[side] / peak,
                        f"{side}_peak_gigabytes": memory[side] / 1e9,
                    }
                row["compile_seconds"] = sides["mindspore"].compile_seconds
                rows.append(row)
                print(
                    f"{model:9} {task:5} batch {batch:2} length {length:3}: MindSpore "
                    f"{row['mindspore_tokens_per_second']:6.0f} tokens/s, PyTorch "
                    f"{row['pytorch_tokens_per_second']:6.0f}, ratio {row['ratio_median']:.2f}",
                    flush=True,
                )
    for child in sides.values():
        child.close()
    return rows


def write_results(arguments: argparse.Namespace, rows: list[dict], **more) -> None:
    """Writes the result file: the rows, the command that made them, and what machine and versions it ran with."""
    from mindspore_floodx.files import write_json
    from mindspore_floodx.runs import package_versions

    words = ["DATA" if before == "--data-dir" else word for before, word in itertools.pairwise(sys.argv)]
    content = {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words]),
        "cores": os.cpu_count(),
        "threads": arguments.threads,
        **more,
        "load_average": os.getloadavg()[0],
        "packages": package_versions(),
        "rows": rows,
    }
    write_json(arguments.output, content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path)
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        worker = SIDES[arguments.serve](arguments.models[0], arguments.threads)
        serve(worker, lambda *sizes: batch_of(*(int(n) for n in sizes)))
        return
    rows = [
        row
        for model in arguments.models
        for row in measure(model, arguments.threads, arguments.batches, arguments.lengths, arguments.rounds)
    ]
    if arguments.output:
        write_results(arguments, rows, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
