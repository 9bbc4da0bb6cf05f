"""Flooding (Ishida et al., 2020; Flooding-X, eqs. 1-5) as a training step around any network and loss."""

from __future__ import annotations

import math

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from .loss_scale import GuardedStep, LossScale, loss_scale_of


class Weighted(nn.Cell):
    """Turns the losses of a batch into the function whose gradient a method trains with, and which also tells J.

    Every flooding loss has as its gradient the mean of w_i grad l_i, with weights w_i that are data: sign(J - b) for
    flooding, sign(l_i - b) for iFlood. With numbers `probe` that are always 0, the mean of (w_i + probe_0) l_i +
    probe_1 [w_i < 0] has that gradient by the parameters, and by `probe` J, the mean of l_i, and the share of losses
    that rise. So one forward and one backward pass, with one set of dropout masks, give the loss that is compared with
    b, the loss that is logged and the gradient.

    A loss scale is a factor of the weights alone: what the probe tells, and what is compared with b, is not scaled.
    """

    def __init__(
        self,
        network: nn.Cell,
        weighting: nn.Cell,
        probe: Parameter,
        example_inputs: int,
        loss_scale: LossScale | None = None,
    ):
        super().__init__(auto_prefix=False)
        self.loss_scale = loss_scale
        self.network, self.weighting, self.probe, self.example_inputs = network, weighting, probe, example_inputs

    def construct(self, *inputs):
        own = len(inputs) - self.example_inputs
        losses = self.network(*inputs[:own])  # [batch] or a scalar
        weights = ops.stop_gradient(self.weighting(losses, *inputs[own:]))
        rising = (weights < 0).astype(ms.float32)
        if self.loss_scale is not None:
            weights = weights * self.loss_scale.scale
        return ((weights + self.probe[0]) * losses).mean() + (self.probe[1] * rising).mean()


class WeightedTrainOneStepCell(nn.TrainOneStepCell):
    """One training step along the mean of w_i grad l_i.

    Args:
        network: a cell whose output is the losses l of a mini-batch, [batch] or their mean, a scalar.
        optimizer: a MindSpore optimizer over `network`'s trainable parameters.
        weighting: a cell that makes weights w of the losses, of their shape or a scalar; no gradient is taken of it.
        max_grad_norm: largest global norm of the gradient (clipped above it); None does not clip.
        example_inputs: so many of the last inputs, each [batch], are the weighting's and not the network's.
        sens: unused, kept so that the cell stands wherever a `TrainOneStepCell` does.

    Returns (when called):
        the mean loss J and the share of losses with a negative weight, which the step raises, both in a float32 [2].
    """

    def __init__(
        self,
        network: nn.Cell,
        optimizer: nn.Cell,
        weighting: nn.Cell,
        max_grad_norm: float | None = None,
        example_inputs: int = 0,
        sens: float = 1.0,
    ):
        super().__init__(network, optimizer, sens)
        probe = Parameter(Tensor([0.0, 0.0], ms.float32), name="probe")
        self.weighted = Weighted(network, weighting, probe, example_inputs, loss_scale_of(optimizer))
        self.gradient = ops.GradOperation(get_by_list=True)
        self.weights_and_probe = ParameterTuple((*self.weights, probe))
        self.step = GuardedStep(optimizer, max_grad_norm)

    def construct(self, *inputs):
        gradients = self.gradient(self.weighted, self.weights_and_probe)(*inputs)
        seen = gradients[-1]
        return ops.depend(seen, self.step(self.grad_reducer(gradients[:-1])))


class Direction(nn.Cell):
    """sign(J - b): the gradient of the flooded loss |J - b| + b by J (eq. 1)."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.flood_level = Parameter(Tensor(-math.inf, ms.float32), name="flood_level", requires_grad=False)

    def construct(self, losses):
        return ops.sign(losses.mean() - self.flood_level)

    def set(self, flood_level: float | None) -> None:
        level = -math.inf if flood_level is None else flood_level
        self.flood_level.set_data(Tensor(level, ms.float32))


class FloodingTrainOneStepCell(WeightedTrainOneStepCell):
    """One training step with the flooded loss |J - b| + b; without a level, ordinary fine-tuning.

    Above the level b the step descends; below it the step ascends the mini-batch mean J (method of the paper,
    section 2; at J = b exactly the gradient is 0, as that of the absolute value).

    Args:
        network: a cell whose output is the mean loss J of a mini-batch, a scalar, or its losses.
        optimizer: a MindSpore optimizer over `network`'s trainable parameters.
        flood_level: b, in units of the loss; None trains without flooding. `set_flood_level` changes it at any time
            without compiling again.
        max_grad_norm: largest global norm of the gradient (clipped above it); None does not clip.
        sens: unused, kept so that the cell stands wherever a `TrainOneStepCell` does.

    Returns (when called):
        the mean loss J before flooding, a scalar, float32.
    """

    def __init__(
        self,
        network: nn.Cell,
        optimizer: nn.Cell,
        flood_level: float | None = None,
        max_grad_norm: float | None = None,
        sens: float = 1.0,
    ):
        direction = Direction()
        super().__init__(network, optimizer, direction, max_grad_norm, sens=sens)
        self.direction = direction
        self.set_flood_level(flood_level)

    def construct(self, *inputs):
        return super().construct(*inputs)[0]

    @property
    def flood_level(self) -> float | None:
        """The level b, rounded to float32; None without flooding."""
        level = float(self.direction.flood_level.asnumpy())
        return None if level == -math.inf else level

    def set_flood_level(self, flood_level: float | None) -> None:
        """Sets the level b, or, with None, ends flooding."""
        self.direction.set(flood_level)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the cross-entropy of logits [batch, labels] with labels int32 [batch]: float32 [batch], in a graph.

    `ops.cross_entropy` gives losses whose last bit depends on what the process has computed before: it ends in
    MindSpore's float32 logarithm, which rounds differently in a process's first call than in later ones. Log1p was
    never seen to. The gradient has no logarithm in it.
    """
    logits = logits.astype(ms.float32)
    shifted = logits - ops.stop_gradient(ops.amax(logits, 1, True))
    chosen = ops.gather_elements(shifted, 1, labels.expand_dims(1)).reshape(-1)
    return ops.log1p(ops.exp(shifted).sum(axis=1) - 1.0) - chosen  # the largest of the terms is exp(0)


class ExampleLosses(nn.Cell):
    """The cross-entropy of a classifier on every example of a batch, [batch]."""

    def __init__(self, model: nn.Cell):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, input_ids, attention_mask, token_type_ids, labels, perturbation=None):
        logits = self.model(input_ids, attention_mask, token_type_ids, perturbation)  # [batch, labels]
        return cross_entropy(logits, labels)


class ClassificationLoss(nn.Cell):
    """The mean cross-entropy of a classifier on a batch, a scalar."""

    def __init__(self, model: nn.Cell):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, input_ids, attention_mask, token_type_ids, labels, perturbation=None):
        logits = self.model(input_ids, attention_mask, token_type_ids, perturbation)  # [batch, labels]
        return cross_entropy(logits, labels).mean()
