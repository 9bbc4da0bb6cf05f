"""AdaFlood (Bae et al., 2024): every example has a level of its own, by how hard it is for models that never saw it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from mindspore import nn, ops

from .base import WeightedDefence

if TYPE_CHECKING:
    from ..settings import TrainSettings
    from .preparation import Preparation


class _Weighting(nn.Cell):
    """sign(l_i - b_i)."""

    def construct(self, losses, flood_levels):
        return ops.sign(losses - flood_levels)


def flood_levels(losses: np.ndarray, gamma: float, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Returns b_i = -log((1 - gamma) exp(-(scale l_i + shift)) + gamma), of the shape of the auxiliary losses l_i.

    So the probability of the right class, exp(-b_i), lies between the auxiliary model's and 1, at a share gamma.
    """
    return -np.log((1 - gamma) * np.exp(-(scale * losses.astype(np.float64) + shift)) + gamma)


class AdaFlood(WeightedDefence):
    """mean_i |l_i - b_i| + b_i, with levels from auxiliary models that are trained on the other folds of the data."""

    divides = True

    example_inputs = ("flood_levels",)

    @classmethod
    def prepare(cls, preparation: Preparation) -> dict[str, np.ndarray]:
        settings = preparation.settings
        assert settings.adaflood_folds and settings.adaflood_epochs and settings.adaflood_gamma is not None
        assert settings.adaflood_scale is not None and settings.adaflood_shift is not None
        losses = preparation.held_out_losses(settings.adaflood_folds, settings.adaflood_epochs)
        levels = flood_levels(losses, settings.adaflood_gamma, settings.adaflood_scale, settings.adaflood_shift)
        return {"flood_levels": levels.astype(np.float32)}

    @classmethod
    def auxiliary_passes(cls, settings: TrainSettings) -> tuple[int, int]:
        assert settings.adaflood_folds and settings.adaflood_epochs
        trained = (settings.adaflood_folds - 1) * settings.adaflood_epochs
        return trained + 1, trained

    def weighting(self) -> Any:
        return _Weighting()
