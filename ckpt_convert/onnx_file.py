"""A classifier as an ONNX file, for onnxruntime and everything else that reads the format."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mindspore_floodx.errors import UserError
from mindspore_floodx.files import replacing
from mindspore_floodx.model_config import labels_of

from .convert import demand_small
from .state import State, load_state

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def to_onnx(
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    config: str | os.PathLike | None = None,
    verify: bool = False,
    texts: Sequence[str | tuple[str, str]] | None = None,
) -> float | None:
    """Writes a model of either framework as an ONNX file, through PyTorch's exporter.

    The file maps input_ids, attention_mask and token_type_ids, int64 [batch, length] of any size, to logits, float32
    [batch, labels]; its metadata has id2label as JSON. The tokenizer is not part of it.

    Args:
        source: a run folder, a model folder of either layout, or a weight file with config.json beside it.
        target: the file to write, ending in .onnx; it appears whole or not at all.
        config: a config.json that lies elsewhere than beside the weights.
        verify: whether onnxruntime and PyTorch are run on text; a difference above 1e-4 is an error and nothing is
            written.
        texts: sentences, or pairs of them, for `verify`; by default a built-in handful.

    Returns:
        the largest absolute difference of logits, if it was measured.

    Raises:
        UserError: a package of the extra `onnx` is missing, the source is not a whole BERT classifier, the target is
            no .onnx file, or verification failed.
    """
    target = Path(target)
    if target.suffix != ".onnx":
        raise UserError(f"{target} does not end in .onnx; name the file to write, such as model.onnx")
    absent = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        raise UserError(f"ONNX needs {' and '.join(absent)}; pip install 'mindspore-floodx[onnx]'")
    state = load_state(source, config_file=config)
    program = _export(state)
    labels = {str(i): label for i, label in labels_of(state.config).items()}
    program.model.metadata_props["id2label"] = json.dumps(labels, ensure_ascii=False)
    difference = None
    with replacing(target) as temporary:
        program.save(temporary, external_data=False)
        if verify:
            from .verify import compare_onnx

            difference = demand_small(compare_onnx(state, temporary, texts), source)
    return difference


def _export(state: State) -> Any:
    """The exported program of a BERT classifier with these tensors."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = BertForSequenceClassification(BertConfig.from_dict(state.config, attn_implementation="eager"))

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            return self.model(input_ids, attention_mask, token_type_ids).logits

    module = Logits().eval()
    module.model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in state.tensors.items()})
    longest = module.model.config.max_position_embeddings
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=longest)}
    # three tensors: one that is given twice is traced as one input
    ids, mask, types = (torch.full((2, 3), value, dtype=torch.int64) for value in (1, 1, 0))
    with _quiet():
        return torch.onnx.export(
            module,
            (ids, mask, types),
            input_names=list(INPUTS),
            output_names=["logits"],
            dynamic_shapes=(sizes,) * len(INPUTS),
            dynamo=True,
            verbose=False,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on torchvision's operators and on its own deprecated calls."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
