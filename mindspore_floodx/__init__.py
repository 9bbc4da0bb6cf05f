"""MindSpore-FloodX: robust fine-tuning of text classifiers with flooding.

Names are imported when they are first used, since MindSpore, transformers and TextAttack take seconds each.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .accordance import GradientAccordance
    from .accordance_of_cell import CellAccordance
    from .accordance_of_run import measure_accordance
    from .accordance_result import accordance_from_gradients
    from .attack_victim_mindspore import MindSporeModelWrapper
    from .attacks import attack
    from .bert import BertConfig, BertForSequenceClassification
    from .callbacks import AccordanceCallback
    from .flood_level import choose_flood_level
    from .flooding import FloodingTrainOneStepCell
    from .model_card import push_to_hub, write_model_card
    from .smoothness import measure_smoothness
    from .timing import measure_timing
    from .trainer import train

__version__ = "0.1.0"
_HOMES = {
    "AccordanceCallback": "callbacks",
    "BertConfig": "bert",
    "BertForSequenceClassification": "bert",
    "CellAccordance": "accordance_of_cell",
    "FloodingTrainOneStepCell": "flooding",
    "GradientAccordance": "accordance",
    "MindSporeModelWrapper": "attack_victim_mindspore",
    "accordance_from_gradients": "accordance_result",
    "attack": "attacks",
    "choose_flood_level": "flood_level",
    "measure_accordance": "accordance_of_run",
    "measure_smoothness": "smoothness",
    "measure_timing": "timing",
    "push_to_hub": "model_card",
    "train": "trainer",
    "write_model_card": "model_card",
}
__all__ = [
    "AccordanceCallback",
    "BertConfig",
    "BertForSequenceClassification",
    "CellAccordance",
    "FloodingTrainOneStepCell",
    "GradientAccordance",
    "MindSporeModelWrapper",
    "accordance_from_gradients",
    "attack",
    "choose_flood_level",
    "measure_accordance",
    "measure_smoothness",
    "measure_timing",
    "push_to_hub",
    "train",
    "write_model_card",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
