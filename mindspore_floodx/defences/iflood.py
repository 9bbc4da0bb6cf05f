"""iFlood (Xie et al., 2022): flooding of every example's own loss."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from .base import WeightedDefence


class _Weighting(nn.Cell):
    """sign(l_i - b), the gradient of |l_i - b| + b by l_i."""

    def __init__(self, flood_level):
        super().__init__(auto_prefix=False)
        self.flood_level = Tensor(flood_level, ms.float32)

    def construct(self, losses):
        return ops.sign(losses - self.flood_level)


class IFlood(WeightedDefence):
    """mean_i |l_i - b| + b."""

    divides = True

    def weighting(self) -> Any:
        return _Weighting(self.settings.flood_level)
