"""FreeLB (Zhu et al., 2020): the mean gradient at all K perturbations of an ascent trains the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mindspore as ms
from mindspore import Parameter, Tensor, nn

from ..layers import share_dropout_masks
from ..loss_scale import LossScale
from .perturbation import AccumulatedGradient, PerturbationDefence, Totals, ascend, pass_shapes

if TYPE_CHECKING:
    from ..bert import BertForSequenceClassification
    from ..settings import TrainSettings


class _Pass(nn.Cell):
    """Adds share grad CE(e + delta) to the totals; returns CE and the next perturbation."""

    def __init__(
        self,
        model: BertForSequenceClassification,
        totals: Totals,
        weights: list[Parameter],
        loss_scale: LossScale | None,
    ):
        super().__init__(auto_prefix=False)
        self.gradient = AccumulatedGradient(model, totals, weights, loss_scale)

    def construct(self, perturbation, step_size, bound, share, *batch):
        loss, gradient = self.gradient(perturbation, share, *batch)
        return loss, ascend(perturbation, gradient, step_size, bound)


class FreeLB(PerturbationDefence):
    """K forward and K backward passes, each for the perturbation and the parameters at once, and one step.

    With `freelb_shared_dropout` all passes of a step have the same dropout masks, as in the original.
    """

    divides = True

    def __init__(self, model: BertForSequenceClassification, optimizer: nn.Optimizer, settings: TrainSettings):
        super().__init__(model, optimizer, settings)
        self.totals, self.apply = self.steps_along(optimizer, settings.max_grad_norm)
        self.clock = share_dropout_masks(model) if settings.freelb_shared_dropout else None
        passed = _Pass(model, self.totals, list(optimizer.parameters), self.loss_scale)
        perturbation, step_size, bound, *batch = pass_shapes(self)
        self.one_pass = self.graph(passed, perturbation, step_size, bound, [], *batch)

    def passes(self, start: Tensor, batch: tuple[Tensor, ...]) -> list[Tensor]:
        if self.clock is not None:
            time = self.steps_taken * self.division.micro_batches + self.part
            self.clock.set_data(Tensor(time, ms.int32))
        share = Tensor(self.share / self.steps, ms.float32)
        losses, following = [], start
        for _ in range(self.steps):
            self.perturbation = following
            loss, following = self.one_pass(self.perturbation, self.step_size, self.bound, share, *batch)
            losses.append(loss)
        self.apply()
        return losses
