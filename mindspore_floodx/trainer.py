"""The one training loop: settings in, a run folder with a trained, converted and verified model out."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from .data import DATASETS, TextDataset, load_dataset, load_files
from .device import stoppable, use_device
from .encoding import EncodedSplit, encode, epoch_order, load_tokenizer, make_batch
from .errors import UserError, nearest
from .files import replacing
from .flood_level import FloodLevel, choose_flood_level
from .monitor import AccordanceMonitor, sub_epoch_ends, write_decision
from .plots import plot_accordance, plot_training
from .pretrained import find_model
from .runs import RunFolder, demand_free, is_finished
from .settings import TrainSettings, resolve

if TYPE_CHECKING:
    from .bert import BertForSequenceClassification
    from .optim import AdamW


def train(settings: TrainSettings | None = None, **given: Any) -> Path:
    """Trains a classifier and returns its run folder.

    Args:
        settings: all settings at once (`settings.resolve` makes them), or
        given: single ones by name, as on the command line: `train(dataset="mrpc", model="minilm", epochs=3)`.

    Returns:
        the run folder: config.yaml, environment.json, log.csv, epochs.csv, checkpoint/ (MindSpore), export/ (Hugging
        Face), plots/ and tensorboard/.

    Raises:
        UserError: a wrong setting, unreadable data or model, a loss that is not finite, or a conversion whose check
            failed.
    """
    if settings is None:
        settings = resolve(given)
    elif given:
        raise UserError("give settings as one object or by name, not both")
    demand_free(settings)  # before minutes go into the data
    dataset = load_data(settings)
    model_folder = find_model(settings.model)
    use_device(settings.device, settings.threads)
    if settings.method == "floodingx" and settings.floodingx_runs == 2:
        return _measure_then_train(settings, dataset, model_folder)
    return _Training(settings, dataset, model_folder).run()


def _measure_then_train(settings: TrainSettings, dataset: TextDataset, model_folder: Path) -> Path:
    """Flooding-X in two runs: fine-tuning with the accordance measured, then training from scratch with the level.

    The first run has a folder of its own, <run folder>-measurement, and is taken from there if it is finished.
    """
    measuring = dataclasses.replace(settings, method="finetune", output_dir=f"{settings.run_folder}-measurement")
    if not is_finished(measuring, fingerprints(dataset)):
        demand_free(measuring)
        _Training(measuring, dataset, model_folder).run()
    series = pd.read_csv(measuring.run_folder / "accordance.csv")
    accordance, train_loss = series["accordance"].tolist(), series["train_loss"].tolist()
    decision = choose_flood_level(accordance, train_loss, **settings.flood_rule_options(), fallback="steepest")
    if decision.level is None:
        raise UserError(f"{decision.reason}; train longer, or give a level with --method flooding --flood-level")
    run = _Training(settings, dataset, model_folder)
    for folder in (measuring.run_folder, run.folder.path):
        write_decision(folder, decision, settings, accordance, train_loss)
    plot_accordance(measuring.run_folder)  # again, with the turn marked
    run.flood_at(decision)
    return run.run()


def load_data(settings: TrainSettings) -> TextDataset:
    """Loads what the settings name: a known data set, or files of the user's.

    Raises:
        UserError: as `data.load_dataset` and `data.load_files` do.
    """
    if settings.text_column or settings.label_column:
        if not (settings.train_file and settings.text_column and settings.label_column):
            raise UserError("your own files need all three of --train, --text-column and --label-column")
        return load_files(
            settings.train_file,
            settings.eval_file,
            text_column=settings.text_column,
            text_pair_column=settings.text_pair_column,
            label_column=settings.label_column,
            eval_fraction=settings.eval_fraction,
            seed=settings.seed,
            max_train_examples=settings.max_train_examples,
            min_words=settings.min_words,
            name=settings.dataset,
        )
    if settings.dataset not in DATASETS:
        raise UserError(
            f"there is no data set {settings.dataset!r}{nearest(settings.dataset, DATASETS)}; choose "
            f"one of {', '.join(DATASETS)}, or give --train, --text-column and --label-column for your own"
        )
    return load_dataset(
        settings.dataset,
        settings.data_dir,
        train_file=settings.train_file,
        eval_file=settings.eval_file,
        max_train_examples=settings.max_train_examples,
        min_words=settings.min_words,
    )


def build_model(
    settings: TrainSettings, label_names: list[str], model_folder: Path, total_steps: int
) -> tuple[BertForSequenceClassification, AdamW, list[float]]:
    """Returns the model at the start of a run, its optimizer, and the learning rate of every step.

    Raises:
        UserError: the model has fewer positions than `max_length`.
    """
    import mindspore as ms

    from .bert import BertForSequenceClassification
    from .optim import AdamW, linear_warmup_decay

    ms.set_seed(settings.seed)
    model = BertForSequenceClassification.from_pretrained(model_folder, label_names=label_names, seed=settings.seed)
    longest = model.config.max_position_embeddings
    if settings.max_length > longest:
        raise UserError(
            f"max_length is {settings.max_length}, but {settings.model} has only {longest} positions; "
            f"give --max-length {longest} or less"
        )
    rates = linear_warmup_decay(settings.learning_rate, settings.warmup_share(total_steps), total_steps)
    optimizer = AdamW(
        model.trainable_params(), rates, epsilon=settings.adam_epsilon, weight_decay=settings.weight_decay
    )
    return model, optimizer, rates


def epoch_batches(
    train_set: EncodedSplit, example_inputs: Mapping[str, np.ndarray], settings: TrainSettings, epoch: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the batches of an epoch (from 0), each with its rows of the `example_inputs`."""
    order = epoch_order(len(train_set), settings.seed, epoch)
    for start in range(0, len(order), settings.batch_size):
        examples = order[start : start + settings.batch_size]
        values = {name: of_all[examples] for name, of_all in example_inputs.items()}
        yield make_batch(train_set, examples) | values


class _Training:
    def __init__(self, settings: TrainSettings, dataset: TextDataset, model_folder: Path):
        self.settings, self.dataset = settings, dataset
        tokenizer = load_tokenizer(model_folder)
        self.train_set = encode(dataset.train, tokenizer, settings.max_length)
        self.eval_set = encode(dataset.evaluation, tokenizer, settings.max_length)
        self.folder = RunFolder(settings)
        self.folder.write_environment(settings, fingerprints(dataset))
        self.steps_per_epoch = -(-len(self.train_set) // settings.batch_size)
        self.total_steps = self.steps_per_epoch * settings.epochs
        self._build(model_folder)

    def _build(self, model_folder: Path) -> None:
        from .defences.preparation import Preparation
        from .evaluation import Evaluator
        from .methods import find_defence

        settings = self.settings
        kind = find_defence(settings.method)
        preparation = Preparation(settings, self.train_set, tuple(self.dataset.label_names), model_folder)
        self.example_inputs = kind.prepare(preparation)
        self.model, self.optimizer, self.rates = build_model(
            settings, list(self.dataset.label_names), model_folder, self.total_steps
        )
        self.defence = kind(self.model, self.optimizer, settings)
        self.evaluator = Evaluator(self.model)
        self.monitor: AccordanceMonitor | None = None
        if settings.accordance != "none":
            self.monitor = AccordanceMonitor(settings, self.folder.path, self.model, self.optimizer)
        self.seeks_level = settings.method == "floodingx"  # until there is one
        self.compile_seconds = 0.0

    def flood_at(self, decision: FloodLevel) -> None:
        """Floods from now on at the level that was found."""
        from .defences.flooding import Flooding

        assert isinstance(self.defence, Flooding)
        assert decision.level is not None
        self.seeks_level = False
        self.defence.set_flood_level(decision.level)
        if self.monitor is not None:
            self.monitor.stop_training()
        tqdm.write(f"flooding at {decision.level:.4f}: {decision.reason}")

    def run(self) -> Path:
        settings = self.settings
        print(self._describe())
        try:
            with stoppable():
                self._compile()
                for epoch in range(settings.epochs):
                    self._epoch(epoch)
                    if settings.save_every_epoch:
                        self._save(self.folder.path / "checkpoints" / f"epoch-{epoch + 1}")
        except KeyboardInterrupt:
            self._save(self.folder.path / "checkpoint")
            print(f"\nstopped; the model as it is now was saved in {self.folder.path / 'checkpoint'}", file=sys.stderr)
            raise
        finally:
            self.folder.close()
            if self.monitor is not None:
                self.monitor.close()
        return self._finish()

    def _describe(self) -> str:
        settings, data = self.settings, self.dataset
        level = "" if settings.flood_level is None else f" at level {settings.flood_level:g}"
        lines = [
            f"{data.name}: {len(data.train):,} training and {len(data.evaluation):,} evaluation examples, "
            f"{data.num_labels} classes",
            f"{settings.method}{level}, {settings.model}, {settings.epochs} epochs of {self.steps_per_epoch} steps, "
            f"batch {settings.batch_size}, on {settings.device}",
        ]
        lines += [
            f"note: {split.source} is only a part of the official {split.name} data"
            for split in (data.train, data.evaluation)
            if split.partial
        ]
        return "\n".join(lines)

    def _compile(self) -> None:
        """Compiles all graphs once, for batches of any size and length, and says how long that took."""
        started = time.perf_counter()
        online = self.monitor is not None and self.monitor.online is not None
        if not online or self.settings.accordance_every > 1 or self.settings.method == "floodingx":
            self.defence.compile()
        if self.monitor is not None:
            self.monitor.compile()
        self.evaluator.compile()
        self.compile_seconds = time.perf_counter() - started
        print(f"compiled in {self.compile_seconds:.1f} s, for every batch size and length")

    def _batches(self, epoch: int) -> Iterator[dict[str, np.ndarray]]:
        return epoch_batches(self.train_set, self.example_inputs, self.settings, epoch)

    def _train_on(self, batch: dict[str, np.ndarray], step: int) -> float:
        """The step of this number; returns the mean loss of the batch before it."""
        if self.monitor is not None and self.monitor.online is not None and self.monitor.measures(step):
            return self.monitor.online.add(batch)
        return self.defence.train_step(batch)

    def _epoch(self, epoch: int) -> None:
        started, losses, examples = time.perf_counter(), 0.0, 0
        ends = sub_epoch_ends(self.steps_per_epoch, self.settings.sub_epochs)
        bar = tqdm(
            self._batches(epoch),
            f"epoch {epoch + 1}/{self.settings.epochs}",
            self.steps_per_epoch,
            unit="step",
            mininterval=1.0,
            dynamic_ncols=True,
        )
        for within, batch in enumerate(bar, start=1):
            index = epoch * self.steps_per_epoch + within
            began = time.perf_counter()
            loss = self._train_on(batch, index)
            seconds = time.perf_counter() - began
            rate = self.rates[index - 1]
            _demand_finite(loss, f"step {index} (epoch {epoch + 1}, learning rate {rate:.2g})")
            self.folder.log_step(
                {
                    "step": index,
                    "epoch": epoch + 1,
                    "loss": loss,
                    "flooded": self.defence.flooded,
                    "learning_rate": rate,
                    "tokens_per_second": float(batch["attention_mask"].sum() / seconds),
                }
            )
            losses += loss * len(batch["labels"])
            examples += len(batch["labels"])
            bar.set_postfix(loss=f"{losses / examples:.4f}", refresh=False)
            if self.monitor is not None:
                self.monitor.saw(batch, loss)
                if within in ends[:-1]:
                    self._end_sub_epoch(index, epoch, self._evaluate() if self.settings.evaluate_sub_epochs else None)
        scores = self._evaluate()
        _demand_finite(scores["eval_loss"], f"the evaluation after epoch {epoch + 1}")
        if self.monitor is not None:
            self._end_sub_epoch((epoch + 1) * self.steps_per_epoch, epoch, scores)
        row = {"epoch": epoch + 1, "train_loss": losses / examples, **scores, "seconds": time.perf_counter() - started}
        self.folder.log_epoch(row, (epoch + 1) * self.steps_per_epoch)
        tqdm.write(
            "  ".join(
                f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()
            )
        )

    def _evaluate(self) -> dict[str, float]:
        return self.evaluator.evaluate(self.eval_set, self.settings.eval_batch_size, f1=self.dataset.name == "mrpc")

    def _end_sub_epoch(self, step: int, epoch: int, scores: dict[str, float] | None) -> None:
        assert self.monitor is not None
        self.monitor.end_sub_epoch(step, epoch + 1, scores)
        if self.seeks_level:
            decision = self.monitor.decide()
            if decision.fired or step == self.total_steps:
                self.monitor.write_decision(decision)
            if decision.fired:
                self.flood_at(decision)
            elif step == self.total_steps:
                tqdm.write(f"flooding was never switched on: {decision.reason}")

    def _save(self, folder: Path) -> None:
        """Writes the model and, beside it, what the method learned."""
        from ckpt_convert.convert import write_safetensors

        self.model.save_pretrained(folder)
        state = self.defence.state()
        if state:
            with replacing(folder / "defence.safetensors") as temporary:
                write_safetensors(temporary, state, framework="ms")

    def _finish(self) -> Path:
        from ckpt_convert import to_pytorch

        checkpoint = self.folder.path / "checkpoint"
        self._save(checkpoint)
        report = to_pytorch(checkpoint, self.folder.path / "export", verify=True)
        print(
            f"exported to {self.folder.path / 'export'}; "
            f"largest logit difference to PyTorch {report.max_logit_difference:.1e}"
        )
        plot_training(self.folder.path)
        if self.monitor is not None and not all(map(math.isnan, self.monitor.accordance)):
            plot_accordance(self.folder.path)
        return self.folder.path


def _demand_finite(loss: float, where: str) -> None:
    if not np.isfinite(loss):
        raise UserError(
            f"the loss is {loss} at {where}; no checkpoint was written of this; try a smaller "
            "--learning-rate or --max-grad-norm 1"
        )


def fingerprints(dataset: TextDataset) -> dict[str, Any]:
    """Returns what tells each split's data apart, by the split's name."""
    return {
        split.name: {
            "source": split.source,
            "examples": len(split),
            "partial": split.partial,
            "sha256": split.fingerprint,
        }
        for split in (dataset.train, dataset.evaluation)
    }
