"""A plain PyTorch loop with the settings of `run/train.py`: what the MindSpore runs are expected to reach.

    python benchmarks/pytorch_baseline.py --dataset mrpc --data-dir DIR --seeds 0 1 2 --output results/FILE.json

It starts from the same weights (the classifier drawn from the same seed) and sees the same batches in the same order;
dropout masks differ, so runs agree in what they reach and not in their digits. Model, loss, optimiser and schedule are
Hugging Face's and PyTorch's own. Flooding shares the steps of fine-tuning up to the first batch whose loss lies below
the level: until there the two are the same computation, so that step is saved and flooding goes on from it.
"""

import argparse
import copy
import json
import time
from pathlib import Path

import torch
import transformers
from sklearn.metrics import f1_score

from ckpt_convert.state import load_state
from mindspore_floodx.data import load_dataset
from mindspore_floodx.encoding import encode, epoch_order, load_tokenizer, make_batch
from mindspore_floodx.files import write_json
from mindspore_floodx.pretrained import find_model


def tensors(encoded, indices):
    return {name: torch.from_numpy(array).long() for name, array in make_batch(encoded, indices).items()}


@torch.no_grad()
def evaluate(model, encoded, batch_size=32):
    model.eval()
    losses, predicted = 0.0, []
    for start in range(0, len(encoded), batch_size):
        batch = tensors(encoded, range(start, min(start + batch_size, len(encoded))))
        output = model(**batch)
        losses += output.loss.item() * len(batch["labels"])
        predicted += output.logits.argmax(-1).tolist()
    model.train()
    labels = encoded.labels.tolist()
    accuracy = sum(a == b for a, b in zip(predicted, labels, strict=True)) / len(labels)
    return {"eval_loss": losses / len(labels), "eval_accuracy": accuracy, "eval_f1": f1_score(labels, predicted)}


class Run:
    def __init__(self, arguments, seed, train):
        self.arguments, self.seed, self.train = arguments, seed, train
        state = load_state(find_model(arguments.model), num_labels=2, new_head=True, seed=seed)
        config = transformers.BertConfig.from_dict(state.config)
        torch.manual_seed(seed)
        self.model = transformers.BertForSequenceClassification(config)
        self.model.load_state_dict({name: torch.from_numpy(array) for name, array in state.tensors.items()})
        self.model.train()
        exempt = ("bias", "LayerNorm.weight")
        named = list(self.model.named_parameters())
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for n, p in named if not n.endswith(exempt)], "weight_decay": arguments.weight_decay},
                {"params": [p for n, p in named if n.endswith(exempt)], "weight_decay": 0.0},
            ],
            lr=arguments.learning_rate,
            eps=1e-8,
        )
        self.steps_per_epoch = -(-len(train) // arguments.batch_size)
        total = self.steps_per_epoch * arguments.epochs
        self.schedule = transformers.get_linear_schedule_with_warmup(self.optimizer, int(0.1 * total), total)
        self.step, self.epochs, self.losses, self.branch = 0, [], [], None

    def saved(self):
        parts = {name: copy.deepcopy(getattr(self, name).state_dict()) for name in ("model", "optimizer", "schedule")}
        return parts | {
            "rng": torch.get_rng_state(),
            "step": self.step,
            "epochs": list(self.epochs),
            "losses": list(self.losses),
        }

    def restore(self, saved):
        for name in ("model", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(saved[name])
        torch.set_rng_state(saved["rng"])
        self.step, self.epochs, self.losses = saved["step"], list(saved["epochs"]), list(saved["losses"])

    def go(self, evaluation, level=None, watch=None):
        size, began = self.arguments.batch_size, time.time()
        while self.step < self.steps_per_epoch * self.arguments.epochs:
            epoch, within = divmod(self.step, self.steps_per_epoch)
            order = epoch_order(len(self.train), self.seed, epoch)
            before = torch.get_rng_state()
            loss = self.model(**tensors(self.train, order[within * size : (within + 1) * size])).loss
            if watch is not None and self.branch is None and loss.item() < watch:
                self.branch = self.saved() | {"rng": before}
            self.optimizer.zero_grad()
            (loss if level is None else (loss - level).abs() + level).backward()
            self.optimizer.step()
            self.schedule.step()
            self.losses.append(loss.item())
            self.step += 1
            if self.step % self.steps_per_epoch == 0:
                recent = self.losses[-self.steps_per_epoch :]
                row = {"epoch": epoch + 1, "train_loss": sum(recent) / len(recent), **evaluate(self.model, evaluation)}
                self.epochs.append(row)
                print(f"seed {self.seed} level {level}: {row} {time.time() - began:.0f} s", flush=True)
        return {
            "seed": self.seed,
            "flood_level": level,
            "epochs": self.epochs,
            "flooded_steps": 0 if level is None else sum(loss < level for loss in self.losses),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="mrpc")
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--flood-level", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    dataset = load_dataset(arguments.dataset, data_dir=arguments.data_dir)
    tokenizer = load_tokenizer(find_model(arguments.model))
    train, evaluation = (encode(s, tokenizer, arguments.max_length) for s in (dataset.train, dataset.evaluation))
    settings = {k: v for k, v in vars(arguments).items() if k not in ("data_dir", "output", "seeds")}
    settings |= {"torch": torch.__version__, "transformers": transformers.__version__}
    runs = json.loads(arguments.output.read_text())["runs"] if arguments.output.exists() else []
    for seed in arguments.seeds:
        if any(run["seed"] == seed for run in runs):
            continue  # finished before an interruption
        run = Run(arguments, seed, train)
        finetuned = run.go(evaluation, watch=arguments.flood_level)
        shared = len(run.losses) if run.branch is None else run.branch["step"]
        if run.branch is not None:
            run.restore(run.branch)
            flooded = run.go(evaluation, level=arguments.flood_level)
        else:
            flooded = finetuned | {"flood_level": arguments.flood_level}
        runs += [finetuned, flooded | {"steps_shared_with_finetuning": shared}]
        write_json(
            arguments.output, {"settings": settings, "data_fingerprint": dataset.train.fingerprint, "runs": runs}
        )


if __name__ == "__main__":
    main()
