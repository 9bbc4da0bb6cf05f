"""SoftAD (Holland and Nakatani, 2024): flooding with a smooth turn at the level."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from .base import WeightedDefence


class _Weighting(nn.Cell):
    """rho'(l_i - b) with rho(x) = sqrt(x^2 + 1) - 1."""

    def __init__(self, flood_level):
        super().__init__(auto_prefix=False)
        self.flood_level = Tensor(flood_level, ms.float32)

    def construct(self, losses):
        above = losses - self.flood_level
        return above / ops.sqrt(above * above + 1.0)


class SoftAD(WeightedDefence):
    """b + mean_i rho(l_i - b)."""

    divides = True

    def weighting(self) -> Any:
        return _Weighting(self.settings.flood_level)
