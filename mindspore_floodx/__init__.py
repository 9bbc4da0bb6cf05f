"""MindSpore-FloodX: robust fine-tuning of text classifiers with flooding.

Names are imported when they are first used, since MindSpore, transformers and TextAttack take seconds each.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .attacks import attack
    from .bert import BertConfig, BertForSequenceClassification
    from .flooding import FloodingTrainOneStepCell
    from .trainer import train

__version__ = "0.1.0"
_HOMES = {
    "BertConfig": "bert",
    "BertForSequenceClassification": "bert",
    "FloodingTrainOneStepCell": "flooding",
    "attack": "attacks",
    "train": "trainer",
}
__all__ = ["BertConfig", "BertForSequenceClassification", "FloodingTrainOneStepCell", "attack", "train"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
