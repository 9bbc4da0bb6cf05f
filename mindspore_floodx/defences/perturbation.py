"""What adversarial training has in common: perturbations of the word embeddings, moved along the loss's gradient.

The steps of a batch's perturbation run one after the other through graphs that are compiled once, whatever their
number; the gradient by the parameters is added up on the device between them.

Shapes: B batch, L length, H hidden size. |x| is the norm over an example's tokens and dimensions.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from .. import distributed
from ..accordance_cells import Zero
from ..accumulation import ApplyTotals, Totals, assign_add
from ..flooding import ClassificationLoss
from ..loss_scale import LossScale, loss_scale_of
from ..run_state import set_values, values
from .base import Batch, Defence, batch_shapes, tensors

if TYPE_CHECKING:
    from ..bert import BertForSequenceClassification
    from ..settings import TrainSettings


def uniform_noise(shape: tuple[int, ...], seed: Sequence[int]) -> np.ndarray:
    """Returns noise in [-1, 1), float32, that depends on the seed alone."""
    return np.random.default_rng(seed).random(shape, dtype=np.float32) * np.float32(2) - np.float32(1)


def initial_perturbation(noise: np.ndarray, attention_mask: np.ndarray, size: float) -> np.ndarray:
    """Returns noise * mask * size / sqrt(tokens * H), float32 [B, L, H] (FreeLB, algorithm 1).

    Args:
        noise: float32 [B, L, H], uniform in [-1, 1).
        attention_mask: int32 [B, L].
        size: e0, about the norm of the result.
    """
    tokens = np.maximum(attention_mask.sum(axis=1), 1)
    scale = size / np.sqrt(tokens * noise.shape[2])  # [B]
    return (noise * (attention_mask * scale[:, None])[:, :, None]).astype(np.float32)


def norms(x, axis):
    """The norm over `axis`, kept; 0 for 0."""
    return ops.sqrt((x * x).sum(axis=axis, keepdims=True))


def divided(x, size):
    """x / size, and 0 where the size is 0."""
    return x * ops.select(size > 0, 1.0 / ops.maximum(size, 1e-30), ops.zeros_like(size))


def shrinking(perturbation, bound):
    """min(1, R / |delta|) [B, 1, 1], the factor of the projection Pi; 1 for a bound R of infinity."""
    return ops.minimum(bound / ops.maximum(norms(perturbation, (1, 2)), 1e-30), 1.0)


def ascend(perturbation, gradient, step_size, bound):
    """Pi(delta + a g / |g|), each example for itself; an example without a gradient stays where it is."""
    moved = perturbation + divided(gradient, norms(gradient, (1, 2))) * step_size
    return moved * shrinking(moved, bound)


class Ascent(nn.Cell):
    """delta <- Pi(delta + a g / |g|) with g the loss's gradient by the perturbation delta alone."""

    def __init__(self, loss: nn.Cell, loss_scale: LossScale | None = None):
        super().__init__(auto_prefix=False)
        self.loss, self.loss_scale = _AtPerturbation(loss, loss_scale), loss_scale
        self.gradient = ops.GradOperation()

    def construct(self, perturbation, step_size, bound, *batch):
        gradient = self.gradient(self.loss)(perturbation, *batch)
        if self.loss_scale is not None:
            gradient = self.loss_scale.of_perturbation(gradient)
        return ascend(perturbation, gradient, step_size, bound)


class _AtPerturbation(nn.Cell):
    """The loss, scaled, with the perturbation as its first input."""

    def __init__(self, loss: nn.Cell, loss_scale: LossScale | None):
        super().__init__(auto_prefix=False)
        self.loss, self.loss_scale = loss, loss_scale

    def construct(self, perturbation, input_ids, attention_mask, token_type_ids, labels):
        loss = self.loss(input_ids, attention_mask, token_type_ids, labels, perturbation)
        return loss if self.loss_scale is None else loss * self.loss_scale.scale


class _Probed(nn.Cell):
    """(share + probe) J, with a `probe` that is always 0: share grad J by the weights and J by the probe.

    A loss scale is a factor of the share.
    """

    def __init__(self, loss: nn.Cell, probe: Parameter, loss_scale: LossScale | None):
        super().__init__(auto_prefix=False)
        self.loss, self.probe, self.loss_scale = loss, probe, loss_scale

    def construct(self, perturbation, share, input_ids, attention_mask, token_type_ids, labels):
        loss = self.loss(input_ids, attention_mask, token_type_ids, labels, perturbation)
        if self.loss_scale is not None:
            share = share * self.loss_scale.scale
        return (share + self.probe) * loss


class AccumulatedGradient(nn.Cell):
    """The loss J at a perturbation and share grad J by it; share grad J by the weights is added to the totals.

    The perturbation is added to the rows of the word embeddings, so its gradient is that of these rows as well: only
    they are added to the embeddings' total, half of MiniLM's weights, and the others stay as they are.

    With a loss scale the totals are scaled, and the gradient by the perturbation that is returned is not.
    """

    def __init__(
        self,
        model: BertForSequenceClassification,
        totals: Totals,
        weights: list[Parameter],
        loss_scale: LossScale | None = None,
    ):
        super().__init__(auto_prefix=False)
        self.loss_scale = loss_scale
        probe = Parameter(Tensor(0.0, ms.float32), name="probe")
        words = model.bert.embeddings.word_embeddings.embedding_table
        self.probed = _Probed(ClassificationLoss(model), probe, loss_scale)
        self.weights_and_probe = ParameterTuple((*(each for each in weights if each is not words), probe))
        pairs = list(zip(weights, totals.totals, strict=True))
        self.totals = ParameterTuple(total for each, total in pairs if each is not words)
        self.of_words = [total for each, total in pairs if each is words]  # none where the embeddings are not trained
        self.gradient, self.map = ops.GradOperation(get_all=True, get_by_list=True), ops.HyperMap()

    def construct(self, perturbation, share, input_ids, *batch):
        by_inputs, by_weights = self.gradient(self.probed, self.weights_and_probe)(
            perturbation, share, input_ids, *batch
        )
        loss = ops.depend(by_weights[-1], self.map(assign_add, self.totals, by_weights[:-1]))
        for total in self.of_words:
            rows = by_inputs[0].reshape((-1, total.shape[1]))
            loss = ops.depend(loss, ops.scatter_add(total, input_ids.reshape(-1), rows))
        if self.loss_scale is not None:
            return loss, self.loss_scale.of_perturbation(by_inputs[0])
        return loss, by_inputs[0]


class PerturbationDefence(Defence):
    """Adversarial training with K steps of a perturbation of the word embeddings.

    Attributes:
        steps, step_size, size, bound: K, a, e0 and R (infinity: no projection), from the settings.
        share, part, is_last: of a batch that is divided, the part in hand: its share of the examples, its number, and
            whether the step is taken after it.
        perturbation: that of the last pass whose gradient the parameters got, [B, L, H].
    """

    perturbation: Tensor | None = None

    def __init__(self, model: BertForSequenceClassification, optimizer: nn.Optimizer, settings: TrainSettings):
        super().__init__(model, optimizer, settings)
        assert settings.adversarial_steps and settings.adversarial_step_size is not None
        assert settings.adversarial_init is not None
        self.steps, self.size = settings.adversarial_steps, settings.adversarial_init
        self.step_size = Tensor(settings.adversarial_step_size, ms.float32)
        self.bound = Tensor(settings.adversarial_bound or math.inf, ms.float32)
        self.forward_passes = self.backward_passes = self.steps
        self.loss_scale = loss_scale_of(optimizer)
        self.steps_taken = 0
        self.share, self.part, self.is_last = 1.0, 0, True
        self.cells: list[Any] = []

    def graph(self, cell: nn.Cell, *shapes: Any) -> nn.Cell:
        """Returns the cell, which `compile` will compile for inputs like `shapes` (None stands for any size)."""
        inputs = [Tensor(shape=list(s), dtype=ms.float32) if isinstance(s, (list, tuple)) else s for s in shapes]
        cell.set_inputs(*inputs)
        self.cells.append((cell, inputs))
        return cell

    def steps_along(self, optimizer: nn.Optimizer, max_grad_norm: float | None) -> tuple[Totals, Any]:
        """Returns totals for an optimizer's parameters, and what takes the step along them and clears them.

        Of a batch that is divided the step waits for the last part.
        """
        totals = Totals(list(optimizer.parameters))
        apply, clear = self.graph(ApplyTotals(optimizer, totals, max_grad_norm)), self.graph(Zero(totals.totals))

        def step() -> None:
            if self.is_last:
                apply()
                clear()

        return totals, step

    def compile(self) -> None:
        for cell, inputs in self.cells:
            cell.set_train()
            cell.compile(*inputs)

    def noise(self, batch: Batch) -> np.ndarray:
        """Returns the noise of the next step, uniform in [-1, 1), float32 [B, L, H]; it depends on seed and step."""
        shape = (*batch["input_ids"].shape, self.model.config.hidden_size)
        return uniform_noise(shape, (self.settings.seed, self.steps_taken))

    def train_step(self, batch: Batch, noise: np.ndarray | None = None) -> float:
        """As `Defence.train_step`; `noise` takes the place of the noise that the perturbation starts from."""
        for cell, _ in self.cells:
            cell.set_train()
        noise = self.noise(batch) if noise is None else noise
        start = initial_perturbation(noise, batch["attention_mask"], self.size)
        loss, parts = 0.0, self.division.parts(batch)
        for number, (rows, content, share) in enumerate(parts):
            self.share, self.part, self.is_last = share, number, number == len(parts) - 1
            of_part = np.ascontiguousarray(start[rows][:, : content["input_ids"].shape[1]])
            losses = self.passes(Tensor(of_part), tensors(content))
            loss += share * sum(float(each.asnumpy()) for each in losses) / len(losses)
        self.steps_taken += 1
        return float(distributed.total(loss)) if self.division.workers > 1 else loss

    def learned(self) -> list[Parameter]:
        """Returns the parameters that change from step to step beside model and optimizer."""
        return []

    def training_state(self) -> dict[str, np.ndarray]:
        return values(self.learned()) | {"steps_taken": np.array(self.steps_taken)}

    def load_training_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.steps_taken = int(state["steps_taken"])
        set_values(self.learned(), state)

    @abstractmethod
    def passes(self, start: Tensor, batch: tuple[Tensor, ...]) -> list[Tensor]:
        """Trains on a batch from the perturbation `start` on; returns the losses whose mean is J.

        Of a method that `divides`, this is a part of the batch: its gradients count by `share`.
        """

    def perturbation_shape(self) -> list[int | None]:
        return [None, None, self.model.config.hidden_size]


def pass_shapes(defence: PerturbationDefence) -> tuple[Any, ...]:
    """Returns perturbation, step size, bound and batch, as most graphs of a pass take them."""
    return (defence.perturbation_shape(), [], [], *batch_shapes())
