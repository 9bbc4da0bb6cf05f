"""A model read from any of the forms we know: its config and its tensors, checked against each other."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mindspore_floodx.errors import UserError
from mindspore_floodx.model_config import labels_of, read_config, with_labels
from mindspore_floodx.pretrained import MINDSPORE_FILES, WEIGHT_FILES, read_weight_file, read_weights

from .checkpoint_file import read_ckpt
from .names import expected_shapes, mindspore_name, translate

# What may be missing in a file of pretrained weights: a fine-tuned model learns it.
_HEAD = ("bert.pooler.", "classifier.")


@dataclass
class State:
    """A BERT classifier as arrays.

    Attributes:
        folder: where config.json was found; tokenizer files lie there too.
        config: the content of config.json.
        tensors: float32 arrays by PyTorch name, exactly those that the config demands, in its order.
        names: the name that each tensor had in the file, by PyTorch name.
        skipped: reason by name, for tensors of the file that are not used.
        initialised: PyTorch names of tensors that the file lacked and that were drawn at random.
        upcast: type in the file, for tensors (by name in the file) that were not float32.
    """

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, np.ndarray]
    names: dict[str, str]
    skipped: dict[str, str] = field(default_factory=dict)
    initialised: list[str] = field(default_factory=list)
    upcast: dict[str, str] = field(default_factory=dict)

    def origins(self) -> list[tuple[str, str]]:
        """Returns (name in the file, PyTorch name) of every tensor that came from the file."""
        return [(self.names[name], name) for name in self.tensors if name in self.names]


def load_mindspore_state(
    source: str | os.PathLike, *, num_labels: int | None = None, seed: int = 0
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns config and tensors, by MindSpore name, of a native or Hugging Face folder, run folder or weight file.

    `num_labels` decides the classifier: with another number of classes than the file's, or none in the file, it is
    drawn from the seed. Without it the file's own classes hold.

    Raises:
        UserError: as `load_state` does.
    """
    state = load_state(source, num_labels=num_labels, new_head=True, seed=seed)
    return state.config, {mindspore_name(name): tensor for name, tensor in state.tensors.items()}


def load_state(
    source: str | os.PathLike,
    *,
    config_file: str | os.PathLike | None = None,
    num_labels: int | None = None,
    new_head: bool = False,
    seed: int = 0,
) -> State:
    """Reads a model and checks it.

    Args:
        source: a folder (ours, Hugging Face's or a run's) or a weight file with config.json beside it.
        config_file: a config.json that lies elsewhere.
        num_labels: number of classes wanted; a classifier of another size is drawn anew.
        new_head: whether a missing pooler or classifier is drawn anew; else it is an error.
        seed: of what is drawn: normal with the config's initializer_range, biases zero.

    Raises:
        UserError: nothing readable there, or a message that lists every missing, extra and misshapen tensor.
    """
    weights, folder = find_weights(Path(source))
    config = read_config(Path(config_file) if config_file else folder)
    upcast: dict[str, str] = {}
    raw = _read(weights, upcast)
    found, skipped, clashes = translate(raw)
    tensors = {standard: raw[name] for standard, name in found.items()}

    if num_labels is not None:
        asked = num_labels != len(labels_of(config))
        config = with_labels(config, num_labels)
        for name in ("classifier.weight", "classifier.bias") if asked and new_head else ():
            if name in tensors:
                skipped[found.pop(name)] = f"classifier for {len(tensors.pop(name))} classes, {num_labels} wanted"

    shapes = expected_shapes(config)
    missing = [name for name in shapes if name not in tensors]
    initialised = [name for name in missing if new_head and name.startswith(_HEAD)]
    _demand_fit(weights, tensors, shapes, found, [name for name in missing if name not in initialised], clashes)
    tensors |= _draw(initialised, shapes, config, seed)
    return State(
        folder=folder,
        config=config,
        tensors={name: tensors[name] for name in shapes},
        names=found,
        skipped=skipped,
        initialised=initialised,
        upcast={name: kind for name, kind in upcast.items() if name not in skipped},
    )


def find_weights(source: Path) -> tuple[Path, Path]:
    """Returns the weight file, or the Hugging Face folder that holds the weights, and the folder of config.json.

    Raises:
        UserError: there is nothing, or more than one thing, to read.
    """
    if source.is_file():
        return source, source.parent
    if not source.is_dir():
        raise UserError(f"there is no file or folder {source}")
    folder = source / "checkpoint" if (source / "checkpoint").is_dir() else source
    ours = [folder / name for name in MINDSPORE_FILES if (folder / name).exists()]
    theirs = [folder / name for name in WEIGHT_FILES if (folder / name).exists()]
    if not ours and not theirs:
        ours = sorted(folder.glob("*.ckpt"))
    if len(ours) > 1 or (ours and theirs):
        names = ", ".join(path.name for path in ours + theirs)
        raise UserError(f"{folder} holds several models ({names}); give the path of the file that is meant")
    if not ours and not theirs:
        raise UserError(f"{folder} has no weights; expected one of {', '.join(MINDSPORE_FILES + WEIGHT_FILES)}")
    return (ours[0] if ours else folder), folder


def _read(weights: Path, upcast: dict[str, str]) -> dict[str, np.ndarray]:
    if weights.is_dir():
        return read_weights(weights, upcast)
    return read_ckpt(weights, upcast) if weights.suffix == ".ckpt" else read_weight_file(weights, upcast)


def _demand_fit(
    weights: Path,
    tensors: dict[str, np.ndarray],
    shapes: dict[str, tuple[int, ...]],
    found: dict[str, str],
    missing: list[str],
    clashes: list[str],
) -> None:
    extra = [found[name] for name in tensors if name not in shapes]
    misshapen = [
        f"{found[name]} is {tensor.dtype} {list(tensor.shape)}, expected float32 {list(shapes[name])}"
        for name, tensor in tensors.items()
        if name in shapes and (tensor.shape != shapes[name] or tensor.dtype != np.float32)
    ]
    problems = [f"{len(missing)} missing: {', '.join(missing)}"] if missing else []
    problems += [f"{len(extra)} extra: {', '.join(extra)}"] if extra else []
    problems += [f"{len(misshapen)} misshapen: {', '.join(misshapen)}"] if misshapen else []
    problems += clashes
    if problems:
        raise UserError(f"the tensors of {weights} do not fit its config.json; " + "; ".join(problems))


def _draw(
    names: list[str], shapes: dict[str, tuple[int, ...]], config: dict[str, Any], seed: int
) -> dict[str, np.ndarray]:
    """Draws new tensors: weights normal(0, initializer_range), biases zero."""
    random = np.random.default_rng(seed)
    scale = 0.02 if config.get("initializer_range") is None else config["initializer_range"]
    return {
        name: np.zeros(shapes[name], np.float32)
        if name.endswith(".bias")
        else random.normal(0.0, scale, shapes[name]).astype(np.float32)
        for name in names
    }
