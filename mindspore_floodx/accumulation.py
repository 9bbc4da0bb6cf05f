"""Training steps whose gradient is added up: over passes of an adversarial method, over micro-batches, over workers.

The flooded loss |J - b| + b is that of the whole batch. So what is added up, part by part, is the plain gradient of
share_p J_p, and J itself with it; sign(J - b) is applied once, to the sum over all parts of all workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from .accordance_cells import Zero
from .collectives import SumsOverWorkers
from .flooding import Direction, Weighted
from .loss_scale import GuardedStep, loss_scale_of, times

assign_add = ops.MultitypeFuncGraph("assign_add")


@assign_add.register("Tensor", "Tensor")
def _assign_add_one(total, gradient):
    return ops.assign_add(total, gradient)


class Totals(nn.Cell):
    """The gradients by some weights, added up over the passes and parts of a training step."""

    def __init__(self, weights: list[Parameter]):
        super().__init__(auto_prefix=False)
        self.totals = ParameterTuple(
            Parameter(Tensor(np.zeros(each.shape, np.float32)), name=f"total.{each.name}", requires_grad=False)
            for each in weights
        )
        self.map = ops.HyperMap()

    def construct(self, gradients):
        return self.map(assign_add, self.totals, gradients)


class ApplyTotals(nn.Cell):
    """An optimizer's step along the sum of the totals over all workers.

    Args:
        optimizer: over the weights whose totals these are.
        totals: of the weights and, if it is `probed`, of a probe (`flooding.Weighted`) at the end.
        max_grad_norm: largest global norm of the gradient (clipped above it); None does not clip.
        probed: the probe's total is J and the share of examples whose loss rises, float32 [2], which is returned.
        direction: turns J into the sign that the gradient is taken with.
        workers: whether the totals of other workers of the job are added.
    """

    def __init__(
        self,
        optimizer: nn.Optimizer,
        totals: Totals,
        max_grad_norm: float | None,
        probed: bool = False,
        direction: nn.Cell | None = None,
        workers: bool = True,
    ):
        super().__init__(auto_prefix=False)
        self.step, self.totals = GuardedStep(optimizer, max_grad_norm, workers), totals.totals
        self.probed, self.direction, self.map = probed, direction, ops.HyperMap()
        self.sums = SumsOverWorkers([tuple(each.shape) for each in totals.totals]) if workers else None

    def construct(self):
        gradients = self.totals
        if self.sums is not None:
            gradients = self.sums(gradients)
        if not self.probed:
            return self.step(gradients)
        seen, gradients = gradients[-1] + 0.0, gradients[:-1]  # not the total itself, which is cleared next
        if self.direction is not None:
            gradients = self.map(ops.partial(times, self.direction(seen[0])), gradients)
        return ops.depend(seen, self.step(gradients))


class _AddPart(nn.Cell):
    """Adds the gradient of share x (what `Weighted` makes of a part's losses), by weights and probe, to the totals."""

    def __init__(self, weighted: Weighted, weights: list[Parameter], totals: Totals):
        super().__init__(auto_prefix=False)
        self.weighted, self.weights, self.totals = weighted, ParameterTuple(weights), totals
        self.gradient = ops.GradOperation(get_by_list=True, sens_param=True)

    def construct(self, share, *inputs):
        return self.totals(self.gradient(self.weighted, self.weights)(*inputs, share))


class _One(nn.Cell):
    """The weight of every loss while a gradient is added up whose direction is not known yet."""

    def construct(self, losses):
        return ops.ones_like(losses)


class AccumulatedStep:
    """The training step of `flooding.FloodingTrainOneStepCell` or `WeightedTrainOneStepCell` on a batch in parts.

    Args:
        network: a cell whose output is the losses of a part, [part], or their mean.
        optimizer: over `network`'s trainable parameters.
        weighting: a cell that makes each example's weight of its loss; None floods the batch's mean J instead.
        max_grad_norm: largest global norm of the gradient; None does not clip.
        example_inputs: so many of the last inputs are the weighting's and not the network's.
        workers: whether the parts of other workers of the job belong to the batch.
    """

    def __init__(
        self,
        network: nn.Cell,
        optimizer: nn.Optimizer,
        weighting: nn.Cell | None,
        max_grad_norm: float | None,
        example_inputs: int = 0,
        workers: bool = True,
    ):
        probe = Parameter(Tensor([0.0, 0.0], ms.float32), name="probe")
        weights = [*optimizer.parameters, probe]
        totals = Totals(weights)
        self.direction = Direction() if weighting is None else None
        weighted = Weighted(network, weighting or _One(), probe, example_inputs, loss_scale_of(optimizer))
        self.add = _AddPart(weighted, weights, totals)
        self.apply = ApplyTotals(optimizer, totals, max_grad_norm, True, self.direction, workers)
        self.zero = Zero(totals.totals)

    def set_flood_level(self, flood_level: float | None) -> None:
        """Sets the level b of the batch's mean loss, or, with None, ends flooding."""
        assert self.direction is not None, "every example has a weight of its own here"
        self.direction.set(flood_level)

    def compile(self, *shapes: Any) -> None:
        """Compiles all graphs once; `shapes` stand for a part's inputs."""
        shapes = (Tensor(shape=[], dtype=ms.float32), *shapes)
        self.add.set_train()
        self.add.set_inputs(*shapes)
        self.add.compile(*shapes)
        self.apply.compile()
        self.zero.compile()

    def __call__(self, parts: Sequence[tuple[float, tuple[Tensor, ...]]]) -> tuple[float, float]:
        """Trains on a batch.

        Args:
            parts: this worker's, each its share of the whole batch and its inputs.

        Returns:
            the batch's mean loss J before the step, and the share of its losses with a negative weight.
        """
        self.add.set_train()
        for share, inputs in parts:
            self.add(Tensor(share, ms.float32), *inputs)
        seen = self.apply().asnumpy()
        self.zero()
        return float(seen[0]), float(seen[1])
