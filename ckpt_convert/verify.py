"""The proof that a conversion is right: both frameworks run on the same text and give the same logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mindspore_floodx.errors import UserError
from mindspore_floodx.model_config import labels_of
from mindspore_floodx.pretrained import WEIGHT_FILES

from .names import mindspore_name
from .state import State

# Sentences and pairs from two words to more than a hundred, so that padding and token types matter.
TEXTS: tuple[str | tuple[str, str], ...] = (
    "Hello world.",
    "A film that asks for little patience and repays all of it.",
    ("The board met on Tuesday.", "On Tuesday, the company's board held a meeting."),
    "Numbers such as 3.14159, names such as Zürich, and rare words - antediluvian, for one - are cut into pieces.",
    ("Is it raining?", "Nobody in the office had thought of bringing an umbrella, although the forecast was clear."),
    " ".join(["The train left late, the coffee was cold, and yet nobody in the carriage seemed to mind;"] * 8),
    "why",
    ("Shares rose by 4%.", "Shares fell by 4%."),
)
_BATCH = 8


def compare(
    state: State,
    pytorch_source: Path,
    texts: Sequence[str | tuple[str, str]] | None = None,
    drawn: State | None = None,
) -> float:
    """Returns the largest absolute difference of the logits of a model in MindSpore and in PyTorch.

    Args:
        state: the model that MindSpore runs.
        pytorch_source: the folder (read by Hugging Face itself) or weight file that PyTorch runs.
        texts: sentences or pairs; by default a built-in handful.
        drawn: where the PyTorch source lacks tensors, the state whose newly drawn ones it is given.

    Raises:
        UserError: no tokenizer files to read text with, or an empty list of texts.
    """
    batches = list(_batches(state, pytorch_source, texts))
    pytorch = _pytorch_logits(state, pytorch_source, drawn, batches)
    mindspore = _mindspore_logits(state, batches)
    return _largest_difference(mindspore, pytorch)


def compare_onnx(state: State, path: Path, texts: Sequence[str | tuple[str, str]] | None = None) -> float:
    """Returns the largest absolute difference of the logits of a model in PyTorch and of its ONNX file in onnxruntime.

    Args, Raises: as `compare`.
    """
    import onnxruntime

    batches = list(_batches(state, path, texts))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits = [
        session.run(["logits"], {name: ids.astype(np.int64) for name, ids in batch.items()})[0] for batch in batches
    ]
    return _largest_difference(logits, _pytorch_logits(state, path, None, batches))


def _largest_difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    # NumPy's maximum (unlike Python's) of anything with a NaN is NaN, which no limit accepts.
    return float(np.max([np.max(np.abs(one - other)) for one, other in zip(ours, theirs, strict=True)]))


def _batches(
    state: State, other: Path, texts: Sequence[str | tuple[str, str]] | None
) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches as the two models take them, int32 [batch, longest], with the tokenizer beside either model."""
    from transformers import BertTokenizerFast

    texts = list(TEXTS if texts is None else texts)
    if state.config["type_vocab_size"] < 2:
        texts = [text for text in texts if isinstance(text, str)]
    if not texts:
        raise UserError("verification needs at least one line of text")
    places = [other if other.is_dir() else other.parent, state.folder]
    folder = next((place for place in places if {"vocab.txt", "tokenizer.json"} & _names(place)), None)
    if folder is None:
        raise UserError(f"{state.folder} has no vocabulary, which verification needs; give --tokenizer FOLDER")
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    longest = state.config["max_position_embeddings"]
    singles = [(text,) for text in texts if isinstance(text, str)]
    pairs = [text for text in texts if not isinstance(text, str)]
    for kind in (singles, pairs):
        for start in range(0, len(kind), _BATCH):
            columns = map(list, zip(*kind[start : start + _BATCH], strict=True))
            batch = tokenizer(*columns, padding=True, truncation=True, max_length=longest, return_tensors="np")
            if batch["input_ids"].max() >= state.config["vocab_size"]:
                raise UserError(f"the vocabulary in {folder} has more words than the model; give its own")
            yield {name: batch[name].astype(np.int32) for name in ("input_ids", "attention_mask", "token_type_ids")}


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _pytorch_logits(
    state: State, source: Path, drawn: State | None, batches: list[dict[str, np.ndarray]]
) -> list[np.ndarray]:
    import torch
    from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification, logging

    given = {name: drawn.tensors[name] for name in drawn.initialised} if drawn is not None else {}
    if _names(source) & set(WEIGHT_FILES):
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # it would warn of the new head, which the report lists anyway
        try:
            model = AutoModelForSequenceClassification.from_pretrained(
                source,
                num_labels=len(labels_of(state.config)),
                ignore_mismatched_sizes=drawn is not None,
                torch_dtype=torch.float32,
                local_files_only=True,
            )
        finally:
            logging.set_verbosity(verbosity)
    else:  # a lone file, or a folder of ours: nothing that from_pretrained reads
        model = BertForSequenceClassification(BertConfig.from_dict(state.config))
        given = state.tensors
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in given.items():
            parameters[name].copy_(torch.from_numpy(tensor))
    model.eval()
    with torch.no_grad():
        return [
            model(**{key: torch.from_numpy(ids).long() for key, ids in batch.items()}).logits.numpy()
            for batch in batches
        ]


def _mindspore_logits(state: State, batches: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    import mindspore

    from mindspore_floodx.bert import BertConfig, BertForSequenceClassification

    model = BertForSequenceClassification(BertConfig.from_dict(state.config))
    parameters = {
        mindspore_name(name): mindspore.Parameter(mindspore.Tensor(tensor), name=mindspore_name(name))
        for name, tensor in state.tensors.items()
    }
    not_loaded, unused = mindspore.load_param_into_net(model, parameters, strict_load=True)
    if not_loaded or unused:
        raise AssertionError(f"parameters without a tensor: {not_loaded}; tensors without a parameter: {unused}")
    model.set_train(False)
    return [
        model(*(mindspore.Tensor(batch[key]) for key in ("input_ids", "attention_mask", "token_type_ids"))).asnumpy()
        for batch in batches
    ]
