"""Flooding (Ishida et al., 2020; Flooding-X, eqs. 1-5) as a training step around any network and loss."""

from __future__ import annotations

import math

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops


class _Flooded(nn.Cell):
    """Turns a loss J into the function whose gradient is flooding's, and which also tells J.

    With a number `probe` that is always 0, the value (sign(J - b) + probe) J has, by the parameters, the gradient
    sign(J - b) grad J of the flooded loss |J - b| + b (eq. 1), and by `probe` the gradient J. So one forward and one
    backward pass, with one set of dropout masks, give the loss that is compared with b, the loss that is logged and
    the gradient. The sign is data (its gradient is not taken).
    """

    def __init__(self, network: nn.Cell, flood_level: Parameter, probe: Parameter):
        super().__init__(auto_prefix=False)
        self.network, self.flood_level, self.probe = network, flood_level, probe

    def construct(self, *inputs):
        loss = self.network(*inputs)
        direction = ops.stop_gradient(ops.sign(loss - self.flood_level))
        return (direction + self.probe) * loss


class FloodingTrainOneStepCell(nn.TrainOneStepCell):
    """One training step with the flooded loss |J - b| + b; without a level, ordinary fine-tuning.

    Above the level b the step descends; below it the step ascends the mini-batch mean J (method of the paper,
    section 2; at J = b exactly the gradient is 0, as that of the absolute value).

    Args:
        network: a cell whose output is the scalar mean loss J of a mini-batch.
        optimizer: a MindSpore optimizer over `network`'s trainable parameters.
        flood_level: b, in units of the loss; None trains without flooding. `set_flood_level` changes it at any time
            without compiling again.
        max_grad_norm: largest global norm of the gradient (clipped above it); None does not clip.
        sens: unused, kept so that the cell stands wherever a `TrainOneStepCell` does.

    Returns (when called):
        the scalar loss J before flooding, float32.
    """

    def __init__(
        self,
        network: nn.Cell,
        optimizer: nn.Cell,
        flood_level: float | None = None,
        max_grad_norm: float | None = None,
        sens: float = 1.0,
    ):
        super().__init__(network, optimizer, sens)
        self.flood_level = Parameter(Tensor(-math.inf, ms.float32), name="flood_level", requires_grad=False)
        probe = Parameter(Tensor(0.0, ms.float32), name="probe")
        self.flooded = _Flooded(network, self.flood_level, probe)
        self.gradient = ops.GradOperation(get_by_list=True)
        self.weights_and_probe = ParameterTuple((*self.weights, probe))
        self.max_grad_norm = max_grad_norm
        self.set_flood_level(flood_level)

    def set_flood_level(self, flood_level: float | None) -> None:
        """Sets the level b, or, with None, ends flooding."""
        self.flood_level.set_data(Tensor(-math.inf if flood_level is None else flood_level, ms.float32))

    def construct(self, *inputs):
        gradients = self.gradient(self.flooded, self.weights_and_probe)(*inputs)
        loss = gradients[-1]
        gradients = self.grad_reducer(gradients[:-1])
        if self.max_grad_norm is not None:
            gradients = ops.clip_by_global_norm(gradients, self.max_grad_norm)
        return ops.depend(loss, self.optimizer(gradients))


class ClassificationLoss(nn.Cell):
    """The mean cross-entropy of a classifier on a batch, a scalar."""

    def __init__(self, model: nn.Cell):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, input_ids, attention_mask, token_type_ids, labels, perturbation=None):
        logits = self.model(input_ids, attention_mask, token_type_ids, perturbation)  # [batch, labels]
        return ops.cross_entropy(logits.astype(ms.float32), labels)
