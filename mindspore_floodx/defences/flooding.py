"""Fine-tuning, flooding and Flooding-X: one step whose flood level can change while the run goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from mindspore import nn

from ..accumulation import AccumulatedStep
from ..flooding import ClassificationLoss, FloodingTrainOneStepCell
from .base import Batch, Defence, batch_shapes, tensors

if TYPE_CHECKING:
    from ..bert import BertForSequenceClassification
    from ..settings import TrainSettings


class Flooding(Defence):
    """The flooded loss |J - b| + b of the batch mean J (eq. 1); fine-tuning as long as there is no level b."""

    divides = True

    def __init__(self, model: BertForSequenceClassification, optimizer: nn.Optimizer, settings: TrainSettings):
        super().__init__(model, optimizer, settings)
        loss = ClassificationLoss(model)
        self.step: FloodingTrainOneStepCell | AccumulatedStep
        if self.division.is_whole:
            self.step = FloodingTrainOneStepCell(loss, optimizer, settings.flood_level, settings.max_grad_norm)
        else:
            self.step = AccumulatedStep(loss, optimizer, None, settings.max_grad_norm)
            self.step.set_flood_level(settings.flood_level)
        self.flood_level = settings.flood_level

    def set_flood_level(self, level: float) -> None:
        """Floods from now on at this level."""
        self.flood_level = level
        self.step.set_flood_level(level)

    def compile(self) -> None:
        if isinstance(self.step, AccumulatedStep):
            self.step.compile(*batch_shapes())
            return
        self.step.set_train()
        self.step.set_inputs(*batch_shapes())
        self.step.compile(*batch_shapes())

    def train_step(self, batch: Batch) -> float:
        if isinstance(self.step, AccumulatedStep):
            loss, _ = self.step([(part.share, tensors(part.batch)) for part in self.division.parts(batch)])
        else:
            self.step.set_train()
            loss = float(self.step(*tensors(batch)).asnumpy())
        level = self.flood_level
        self.flooded = float(level is not None and np.float32(loss) < np.float32(level))
        return loss
