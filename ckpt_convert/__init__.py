"""Models between MindSpore and PyTorch, bit for bit."""

from .convert import Report, save_mindspore_folder, to_mindspore, to_pytorch
from .onnx_file import to_onnx
from .state import State, load_mindspore_state, load_state

__all__ = [
    "Report",
    "State",
    "load_mindspore_state",
    "load_state",
    "save_mindspore_folder",
    "to_mindspore",
    "to_onnx",
    "to_pytorch",
]
