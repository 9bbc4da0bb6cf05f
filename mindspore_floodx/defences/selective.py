"""Selective flooding (Zheng et al., 2023): only the examples that an attack moves most easily are flooded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from .base import WeightedDefence

if TYPE_CHECKING:
    from ..settings import TrainSettings
    from .preparation import Preparation


class _Weighting(nn.Cell):
    """m_i sign(l_i - b) + (1 - m_i) beta."""

    def __init__(self, flood_level, beta):
        super().__init__(auto_prefix=False)
        self.flood_level, self.beta = Tensor(flood_level, ms.float32), beta

    def construct(self, losses, selected):
        return selected * ops.sign(losses - self.flood_level) + (1.0 - selected) * self.beta


def least_robust(losses: np.ndarray, share: float) -> np.ndarray:
    """Returns 1.0 for the share of examples with the highest losses and 0.0 for the rest, float32 [examples]."""
    selected = np.zeros(len(losses), np.float32)
    selected[np.argsort(-losses, kind="stable")[: round(share * len(losses))]] = 1.0
    return selected


class Selective(WeightedDefence):
    """mean_i [m_i (|l_i - b| + b) + (1 - m_i) beta l_i]; m_i marks the least robust examples.

    These are the ones with the highest loss under an adversarial perturbation, averaged over the epochs of a
    fine-tuning that comes before.
    """

    divides = True

    example_inputs = ("selected",)

    @classmethod
    def prepare(cls, preparation: Preparation) -> dict[str, np.ndarray]:
        settings = preparation.settings
        assert settings.selective_epochs and settings.selective_share is not None
        losses = preparation.perturbed_losses(settings.selective_epochs)
        return {"selected": least_robust(losses, settings.selective_share)}

    @classmethod
    def auxiliary_passes(cls, settings: TrainSettings) -> tuple[int, int]:
        assert settings.selective_epochs and settings.adversarial_steps
        epochs, ascents = settings.selective_epochs, settings.adversarial_steps
        return epochs * (1 + ascents + 1), epochs * (1 + ascents)

    def weighting(self) -> Any:
        return _Weighting(self.settings.flood_level, self.settings.selective_beta)
