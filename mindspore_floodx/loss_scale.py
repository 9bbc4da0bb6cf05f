"""Dynamic loss scaling (Micikevicius et al., 2018, section 3.2): what keeps small gradients above float16's smallest.

The loss is multiplied by a power of 2 before the backward pass and the gradient is divided by it before it is used, so
nothing changes but the range that float16 has to hold. Where that is too large and a gradient is no longer finite, the
step is skipped: weights, moments and schedule stay as they were.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from . import distributed
from .collectives import SumOverWorkers
from .errors import UserError

LARGEST = 2.0**24

_finite = ops.MultitypeFuncGraph("finite")
times = ops.MultitypeFuncGraph("times")


@_finite.register("Tensor")
def _finite_one(gradient):
    return ops.isfinite(gradient).all()


@times.register("Tensor", "Tensor")
def _times_one(factor, gradient):
    return gradient * factor


def next_scale(scale: float, good_steps: int, overflowed: bool, growth_steps: int) -> tuple[float, int]:
    """Returns the scale and the number of good steps at it after a step: half of it if that overflowed, twice as much
    (at most `LARGEST`) after `growth_steps` good ones in a row.

    Raises:
        UserError: the gradient overflowed at a scale of 1 or less, where scaling cannot be why.
    """
    if overflowed:
        if scale <= 1:
            raise UserError(
                f"the gradient is too large for float16 even at a loss scale of {scale:g}; use --precision float32, or "
                "a smaller --learning-rate"
            )
        return scale / 2, 0
    if good_steps + 1 < growth_steps:
        return scale, good_steps + 1
    return min(scale * 2, LARGEST), 0


class LossScale(nn.Cell):
    """The factor of the loss, and whether a gradient of the step in hand overflowed.

    It belongs to an optimizer (`AdamW`), whose steps `GuardedStep` takes or skips; all its numbers are among the
    optimizer's parameters, and so in the state of a run.

    Args:
        start: the factor at first, a power of 2.
        growth_steps: good steps in a row after which it is doubled.

    Attributes:
        scale: the factor, float32.
        overflowed: float32, above 0 as soon as a gradient of this step was not finite.
        good_steps, skipped: int32; good steps since the scale last changed, and steps that were skipped so far.
    """

    def __init__(self, start: float, growth_steps: int):
        super().__init__(auto_prefix=False)
        self.growth_steps = growth_steps
        self.scale = _number("loss_scale", start, ms.float32)
        self.overflowed = _number("loss_scale_overflowed", 0.0, ms.float32)
        self.good_steps = _number("loss_scale_good_steps", 0, ms.int32)
        self.skipped = _number("loss_scale_skipped", 0, ms.int32)
        self.map = ops.HyperMap()

    def watch(self, gradients):
        """Takes note of gradients; returns `overflowed`."""
        bad = Tensor(0.0, ms.float32)
        for each in self.map(_finite, gradients):
            bad = bad + (1.0 - each.astype(ms.float32))
        return ops.assign_add(self.overflowed, bad)

    def unscaled(self, gradients):
        return self.map(ops.partial(times, 1.0 / self.scale), gradients)

    def of_perturbation(self, gradient):
        """Unscales the gradient by a perturbation; one that overflowed becomes 0, so that the perturbation stays."""
        finite = ops.isfinite(gradient)
        good = finite.all().astype(ms.float32)
        known = ops.select(finite, gradient, ops.zeros_like(gradient)) * (good / self.scale)
        return ops.depend(known, ops.assign_add(self.overflowed, 1.0 - good))

    def end_step(self) -> bool:
        """Adapts the scale after a step; returns whether that was skipped.

        Raises:
            UserError: as `next_scale`.
        """
        overflowed = bool(self.overflowed.asnumpy() > 0)
        scale, good_steps = next_scale(
            float(self.scale.asnumpy()), int(self.good_steps.asnumpy()), overflowed, self.growth_steps
        )
        self.scale.set_data(Tensor(scale, ms.float32))
        self.good_steps.set_data(Tensor(good_steps, ms.int32))
        if overflowed:
            self.overflowed.set_data(Tensor(0.0, ms.float32))
            self.skipped.set_data(Tensor(int(self.skipped.asnumpy()) + 1, ms.int32))
        return overflowed


class GuardedStep(nn.Cell):
    """An optimizer's step along a gradient, clipped first; with a loss scale it is unscaled before, or skipped.

    Args:
        optimizer: its `dynamic_loss_scale`, if it has one, is what the gradient is scaled by.
        max_grad_norm: largest global norm of the gradient (clipped above it); None does not clip.
        workers: whether an overflow of another worker of the job counts too.
    """

    def __init__(self, optimizer: nn.Optimizer, max_grad_norm: float | None, workers: bool = True):
        super().__init__(auto_prefix=False)
        self.optimizer, self.max_grad_norm, self.loss_scale = optimizer, max_grad_norm, loss_scale_of(optimizer)
        self.sum = SumOverWorkers() if workers and distributed.size() > 1 else None

    def overflow(self, gradients):
        """Whether one of the gradients, or another one of this step, is not finite on any worker, as a number > 0."""
        overflowed = self.loss_scale.watch(gradients)
        if self.sum is not None:
            overflowed = ops.assign(self.loss_scale.overflowed, self.sum(overflowed.reshape((1,))).reshape(()))
        return overflowed

    def construct(self, gradients):
        if self.loss_scale is None:
            return self.step(gradients)
        done = self.overflow(gradients)
        if done == 0:
            done = ops.depend(done, self.step(self.loss_scale.unscaled(gradients)))
        return done

    def step(self, gradients):
        if self.max_grad_norm is not None:
            gradients = ops.clip_by_global_norm(gradients, self.max_grad_norm)
        return self.optimizer(gradients)


def loss_scale_of(optimizer: nn.Optimizer | None) -> LossScale | None:
    """Returns the loss scale that belongs to an optimizer; None where there is none, as with any but ours."""
    return getattr(optimizer, "dynamic_loss_scale", None)


def _number(name: str, value: float, kind: Any) -> Parameter:
    return Parameter(Tensor(np.array(value), kind), name=name, requires_grad=False)
