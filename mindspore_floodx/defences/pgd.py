"""Adversarial training with projected gradient ascent (Madry et al., 2018) on the word embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mindspore as ms
from mindspore import Tensor, nn

from ..flooding import ClassificationLoss, FloodingTrainOneStepCell
from .base import batch_shapes
from .perturbation import AccumulatedGradient, Ascent, PerturbationDefence, pass_shapes

if TYPE_CHECKING:
    from ..bert import BertForSequenceClassification
    from ..settings import TrainSettings


class PGD(PerturbationDefence):
    """K steps of ascent without a gradient by the parameters, then one training step at the last perturbation.

    K + 1 forward and K + 1 backward passes; the first K backward passes stop at the embeddings' gradient.
    """

    divides = True

    def __init__(self, model: BertForSequenceClassification, optimizer: nn.Optimizer, settings: TrainSettings):
        super().__init__(model, optimizer, settings)
        self.forward_passes = self.backward_passes = self.steps + 1
        self.ascent = self.graph(Ascent(ClassificationLoss(model), self.loss_scale), *pass_shapes(self))
        if self.division.is_whole:
            self.step = self.graph(
                FloodingTrainOneStepCell(ClassificationLoss(model), optimizer, max_grad_norm=settings.max_grad_norm),
                *batch_shapes(),
                self.perturbation_shape(),
            )
        else:
            totals, self.apply = self.steps_along(optimizer, settings.max_grad_norm)
            last_pass = AccumulatedGradient(model, totals, list(optimizer.parameters), self.loss_scale)
            self.last_pass = self.graph(last_pass, self.perturbation_shape(), [], *batch_shapes())

    def passes(self, start: Tensor, batch: tuple[Tensor, ...]) -> list[Tensor]:
        self.perturbation = start
        for _ in range(self.steps):
            self.perturbation = self.ascent(self.perturbation, self.step_size, self.bound, *batch)
        if self.division.is_whole:
            return [self.step(*batch, self.perturbation)]
        loss, _ = self.last_pass(self.perturbation, Tensor(self.share, ms.float32), *batch)
        self.apply()
        return [loss]
