"""The training methods: each says what it does to a batch's loss and gradient, and the one training loop uses it."""

from __future__ import annotations

from .base import Defence, WeightedDefence
from .perturbation import PerturbationDefence

__all__ = ["Defence", "PerturbationDefence", "WeightedDefence"]
