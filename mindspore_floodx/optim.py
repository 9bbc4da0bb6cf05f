"""Adam with decoupled weight decay and bias correction, and the linear schedule the paper trains with."""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from .loss_scale import LossScale

_update = ops.MultitypeFuncGraph("adamw_update")


@_update.register(
    "Function", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor", "Number"
)
def _update_one(adam, lr, beta1, beta2, epsilon, decay_scale, parameter, moment1, moment2, gradient, decay):
    return adam(parameter, moment1, moment2, lr, beta1, beta2, epsilon, decay * decay_scale, gradient)


class AdamW(nn.Optimizer):
    """Adam with decoupled weight decay and bias correction (Loshchilov and Hutter, 2019, algorithm 2).

    p <- p - lr * decay * p, then p <- p - lr * m^ / (sqrt(v^) + epsilon), with m^ = m / (1 - beta1^t) and
    v^ = v / (1 - beta2^t); the arithmetic of torch.optim.AdamW. MindSpore's own `AdamWeightDecay` has no bias
    correction.

    Args:
        parameters: the trainable parameters.
        learning_rate: a number, a rate for each step (the last one holds afterwards), or a `LearningRateSchedule`.
        betas: decay rates of the two moments.
        epsilon: added to the root of the second moment.
        weight_decay: decay of every parameter that `decays` accepts.
        decays: tells by a parameter's name whether it decays; by default all but biases and LayerNorm.
        loss_scale: what the gradients are scaled by that training steps (`loss_scale.GuardedStep`) get for it.
    """

    def __init__(
        self,
        parameters,
        learning_rate,
        betas=(0.9, 0.999),
        epsilon=1e-8,
        weight_decay=0.01,
        decays=None,
        loss_scale: LossScale | None = None,
    ):
        super().__init__(learning_rate, parameters)
        self.dynamic_loss_scale = loss_scale  # `loss_scale` is a fixed number that every MindSpore optimizer has
        self.beta1, self.beta2 = (Tensor(beta, ms.float32) for beta in betas)
        self.epsilon = Tensor(epsilon, ms.float32)
        self.power1 = Parameter(Tensor(1.0, ms.float32), name="beta1_power")
        self.power2 = Parameter(Tensor(1.0, ms.float32), name="beta2_power")
        self.moment1 = self.parameters.clone(prefix="moment1", init="zeros")
        self.moment2 = self.parameters.clone(prefix="moment2", init="zeros")
        decays = decays or decays_by_name
        self.decay_rates = tuple(weight_decay if decays(parameter.name) else 0.0 for parameter in self.parameters)
        self.adam = ops.AdamWeightDecay()
        self.map = ops.HyperMap()

    def construct(self, gradients):
        lr = self.get_lr()
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        power1 = self.power1 * self.beta1
        power2 = self.power2 * self.beta2
        self.power1 = power1
        self.power2 = power2
        # The kernel does p -= lr (m / (sqrt(v) + epsilon) + decay p), without bias correction. With these three scaled
        # that is p -= lr (m^ / (sqrt(v^) + epsilon) + decay p), in one pass over the memory.
        root2 = ops.sqrt(1.0 - power2)
        scale = (1.0 - power1) / root2
        step = ops.partial(_update, self.adam, lr / scale, self.beta1, self.beta2, self.epsilon * root2, scale)
        return self.map(step, self.parameters, self.moment1, self.moment2, gradients, self.decay_rates)


def decays_by_name(name: str) -> bool:
    """Returns whether a parameter decays by the usual rule: everything but biases and LayerNorm."""
    return not name.endswith((".bias", ".gamma", ".beta"))


def linear_warmup_decay(peak: float, warmup_ratio: float, total_steps: int) -> list[float]:
    """Returns the learning rate of every step: linear from 0 to `peak`, then linear to 0 (the paper, section 4).

    The warm-up is the first `int(warmup_ratio * total_steps)` steps; with one, the first step has rate 0.
    """
    warmup = int(warmup_ratio * total_steps + 1e-9)  # 500 / n * n may lie just below 500
    rising = (step / max(warmup, 1) for step in range(warmup))
    falling = ((total_steps - step) / max(total_steps - warmup, 1) for step in range(warmup, total_steps))
    return [peak * factor for factor in (*rising, *falling)]
