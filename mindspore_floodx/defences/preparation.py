"""What some methods learn of every training example before the training: from auxiliary models, kept in a cache."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor
from tqdm import tqdm

from ..accumulation import AccumulatedStep
from ..encoding import EncodedSplit, default_cache_dir, epoch_order, make_batch
from ..errors import UserError
from ..files import replacing
from ..flooding import ClassificationLoss, ExampleLosses, FloodingTrainOneStepCell
from ..layers import set_dropout_clocks
from ..parts import Division, division_of
from ..settings import TrainSettings
from ..training_inputs import build_model
from .base import batch_shapes, tensors
from .perturbation import Ascent, initial_perturbation, uniform_noise

TRAINING = (
    "batch_size",
    "learning_rate",
    "warmup_ratio",
    "warmup_steps",
    "weight_decay",
    "adam_epsilon",
    "max_grad_norm",
    "precision",
    "seed",
)
ASCENT = ("adversarial_steps", "adversarial_step_size", "adversarial_init", "adversarial_bound")


@dataclass
class Preparation:
    """The run's settings and data, and auxiliary models on them.

    Auxiliary models start from the same encoder as the run and are fine-tuned with its batch size, learning rate,
    weight decay and seed.

    Attributes:
        settings: of the run.
        train_set: the encoded training examples, N of them.
        label_names: the classes.
        model_folder: the encoder's.
        before_each: called before every step; what it raises ends the preparation.
    """

    settings: TrainSettings
    train_set: EncodedSplit
    label_names: tuple[str, ...]
    model_folder: Path
    before_each: Callable[[], None] = lambda: None

    def held_out_losses(self, folds: int, epochs: int) -> np.ndarray:
        """Returns each example's cross-entropy under a model that was trained on the other folds, float64 [N].

        Raises:
            UserError: there are fewer examples than folds.
        """
        count = len(self.train_set)
        if count < folds:
            raise UserError(f"adaflood_folds is {folds}, but there are only {count} training examples")

        def compute() -> np.ndarray:
            parts = np.array_split(np.random.default_rng([self.settings.seed, 2**31]).permutation(count), folds)
            auxiliary = _Auxiliary(self, epochs, count - min(map(len, parts)))
            losses = np.empty(count)
            for number, part in enumerate(parts, start=1):
                # each model starts anew, so what is finished of a stopped preparation is kept by the fold
                options = {"folds": folds, "epochs": epochs, "fold": number}
                losses[part] = self._cached(
                    "held-out-fold", options, partial(of_fold, auxiliary, number, part), size=len(part)
                )
            return losses

        def of_fold(auxiliary: _Auxiliary, number: int, part: np.ndarray) -> np.ndarray:
            auxiliary.restart()
            others = np.setdiff1d(np.arange(count), part)
            for epoch in range(epochs):
                auxiliary.train(others, epoch, f"auxiliary model {number}/{folds}, epoch {epoch + 1}/{epochs}")
            return auxiliary.losses(part)

        return self._cached("held-out", {"folds": folds, "epochs": epochs}, compute)

    def perturbed_losses(self, epochs: int) -> np.ndarray:
        """Returns each example's cross-entropy under a perturbation of K steps, float64 [N].

        It is the mean over the ends of all epochs of a fine-tuning; dropout is off while it is measured.
        """

        def compute() -> np.ndarray:
            auxiliary = _Auxiliary(self, epochs, len(self.train_set))
            everything, total = np.arange(len(self.train_set)), np.zeros(len(self.train_set))
            for epoch in range(epochs):
                auxiliary.train(everything, epoch, f"auxiliary model, epoch {epoch + 1}/{epochs}")
                total += auxiliary.losses(everything, f"perturbed losses, epoch {epoch + 1}/{epochs}", perturbed=True)
            return total / epochs

        return self._cached("perturbed", {"epochs": epochs}, compute, ASCENT)

    def _cached(
        self,
        kind: str,
        options: dict[str, int],
        compute: Callable[[], np.ndarray],
        more: tuple[str, ...] = (),
        size: int | None = None,
    ) -> np.ndarray:
        settings = {name: getattr(self.settings, name) for name in (*TRAINING, *more)}
        digest = hashlib.sha256(json.dumps([kind, options, settings, self.label_names]).encode())
        for array in (self.train_set.input_ids, self.train_set.offsets, self.train_set.labels):
            digest.update(array.tobytes())
        for path in sorted(self.model_folder.iterdir()):
            if path.is_file() and path.suffix in (".json", ".safetensors", ".bin", ".ckpt", ".npz"):
                digest.update(path.name.encode())
                digest.update(path.read_bytes())
        path = default_cache_dir() / f"auxiliary-{kind}-{digest.hexdigest()[:32]}.npy"
        try:
            kept = np.load(path, allow_pickle=False)
            if kept.shape == (len(self.train_set) if size is None else size,):
                print(f"{kind} losses of an earlier run: {path}")
                return kept
        except (OSError, ValueError, EOFError):
            pass
        losses = compute()
        try:
            with replacing(path) as temporary, open(temporary, "wb") as file:
                np.save(file, losses)
        except UserError:
            pass  # a cache that cannot be written costs time at the next start, not this run
        return losses


class _Auxiliary:
    """A model that is fine-tuned again and again from the same start, compiled once."""

    def __init__(self, preparation: Preparation, epochs: int, most_examples: int):

        settings = self.settings = preparation.settings
        self.data, self.before_each = preparation.train_set, preparation.before_each
        steps = -(-most_examples // settings.batch_size) * epochs
        self.model, self.optimizer, _ = build_model(
            settings, list(preparation.label_names), preparation.model_folder, steps
        )
        # Every worker trains the whole model itself, in parts no larger than those of the run. What a worker finds in
        # the cache, another one may not: if they shared a step, they could wait for each other for ever.
        division = division_of(settings)
        self.division = Division(division.micro_batches * division.workers)
        loss = ClassificationLoss(self.model)
        self.step: Any
        if self.division.is_whole:
            self.step = FloodingTrainOneStepCell(loss, self.optimizer, max_grad_norm=settings.max_grad_norm)
            self.step.set_inputs(*batch_shapes())
        else:
            self.step = AccumulatedStep(loss, self.optimizer, None, settings.max_grad_norm, workers=False)
            self.step.compile(*batch_shapes())
        hidden = Tensor(shape=[None, None, self.model.config.hidden_size], dtype=ms.float32)
        number = Tensor(shape=[], dtype=ms.float32)
        self.of_examples, self.ascent = ExampleLosses(self.model), Ascent(ClassificationLoss(self.model))
        self.of_examples.set_inputs(*batch_shapes(), hidden)
        self.ascent.set_inputs(hidden, number, number, *batch_shapes())
        trained = {id(each): each for each in (*self.model.get_parameters(), *self.optimizer.get_parameters())}
        self.start = [(each, each.asnumpy().copy()) for each in trained.values()]

    def restart(self) -> None:
        for parameter, value in self.start:
            parameter.set_data(Tensor(value))
        set_dropout_clocks(self.model, 0)

    def train(self, examples: np.ndarray, epoch: int, title: str) -> None:
        order = examples[epoch_order(len(examples), self.settings.seed, epoch)]
        if self.division.is_whole:
            self.step.set_train()
        for batch in self._batches(order, title):
            if self.division.is_whole:
                self.step(*tensors(batch)).asnumpy()
            else:
                self.step([(part.share, tensors(part.batch)) for part in self.division.parts(batch)])
            if self.optimizer.dynamic_loss_scale is not None:
                self.optimizer.dynamic_loss_scale.end_step()

    def losses(self, examples: np.ndarray, title: str | None = None, perturbed: bool = False) -> np.ndarray:
        """Returns the losses of these examples, with dropout off; `perturbed` after the steps of ascent."""
        self.of_examples.set_train(False)
        return np.concatenate(
            [
                self.of_examples(*tensors(batch), self._perturbation(batch, number, perturbed)).asnumpy()
                for number, batch in enumerate(self._batches(examples, title))
            ]
        ).astype(np.float64)

    def _perturbation(self, batch: dict[str, np.ndarray], number: int, perturbed: bool) -> Tensor:
        settings = self.settings
        shape = (*batch["input_ids"].shape, self.model.config.hidden_size)
        if not perturbed:
            return Tensor(np.zeros(shape, np.float32))
        assert settings.adversarial_steps and settings.adversarial_init is not None
        noise = uniform_noise(shape, (settings.seed, 2**31 + 1, number))
        perturbation = Tensor(initial_perturbation(noise, batch["attention_mask"], settings.adversarial_init))
        step_size = Tensor(settings.adversarial_step_size, ms.float32)
        bound = Tensor(settings.adversarial_bound or math.inf, ms.float32)
        self.ascent.set_train(False)
        for _ in range(settings.adversarial_steps):
            perturbation = self.ascent(perturbation, step_size, bound, *tensors(batch))
        return perturbation

    def _batches(self, order: np.ndarray, title: str | None) -> Iterator[dict[str, np.ndarray]]:
        starts = range(0, len(order), self.settings.batch_size)
        bar = tqdm(starts, title, unit="step", mininterval=1.0, dynamic_ncols=True, disable=title is None)
        for start in bar:
            self.before_each()
            yield make_batch(self.data, order[start : start + self.settings.batch_size])
