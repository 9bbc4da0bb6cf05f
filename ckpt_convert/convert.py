"""Conversion between MindSpore and PyTorch: the same tensors, bit for bit, under the other framework's names."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mindspore_floodx.errors import UserError
from mindspore_floodx.files import replacing_folder, write_json
from mindspore_floodx.model_config import labels_of, with_labels
from mindspore_floodx.pretrained import CARD, CARD_MARK, MINDSPORE_FILES, TOKENIZER_FILES, WEIGHT_FILES, find_model
from mindspore_floodx.untrusted import MAX_JSON_BYTES, read_bytes

from .checkpoint_file import write_ckpt
from .names import legacy_kind, mindspore_name
from .state import State, load_state

LARGEST_LOGIT_DIFFERENCE = 1e-4
FORMATS = {"safetensors": "mindspore_model.safetensors", "ckpt": "model.ckpt"}


@dataclass
class Report:
    """What a conversion did.

    Attributes:
        renamed: name in the target by name in the source, where they differ.
        legacy: name in the target by name in the source, where that is not the source framework's current name.
        skipped: reason by name, for tensors of the source that are not in the target.
        initialised: names in the target of tensors that the source lacked (drawn at random).
        upcast: type in the source by name in the source, for tensors that were not float32.
        tensors: number of tensors in the target.
        bytes: their size in memory.
        seconds: time taken, verification excluded.
        max_logit_difference: largest absolute difference of the two models' logits, if it was measured.
        notes: what else the user should know.
    """

    source: str
    target: str
    renamed: dict[str, str] = field(default_factory=dict)
    legacy: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    initialised: list[str] = field(default_factory=list)
    upcast: dict[str, str] = field(default_factory=dict)
    tensors: int = 0
    bytes: int = 0
    seconds: float = 0.0
    max_logit_difference: float | None = None
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{self.source} -> {self.target}: {self.tensors} tensors, {self.bytes / 1e6:.1f} MB, {self.seconds:.2f} s"
        ]
        lines += _listing("renamed", list(self.renamed), limit=3)
        for kind in dict.fromkeys(map(legacy_kind, self.legacy)):
            names = [name for name in self.legacy if legacy_kind(name) == kind]
            lines += _listing(f"older names, {kind}", names, limit=3)
        lines += _listing("skipped", [f"{name} ({reason})" for name, reason in self.skipped.items()])
        lines += _listing("newly initialised, to be trained", self.initialised)
        lines += _listing("converted to float32", [f"{name} ({kind})" for name, kind in self.upcast.items()])
        lines += self.notes
        if self.max_logit_difference is not None:
            lines.append(f"largest logit difference: {self.max_logit_difference:.2e}")
        return "\n".join(lines)


def to_pytorch(
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    config: str | os.PathLike | None = None,
    tokenizer: str | os.PathLike | None = None,
    verify: bool = False,
    texts: Sequence[str | tuple[str, str]] | None = None,
) -> Report:
    """Converts a MindSpore model to a folder that Hugging Face's from_pretrained and pipeline load.

    That of a finished run also gets its model card.

    Args:
        source: a run folder, a folder in MindSpore form, or a .ckpt or .safetensors file with config.json beside it.
        target: the folder to write; it appears whole or not at all.
        config: a config.json that lies elsewhere than beside the weights.
        tokenizer: a model folder or name whose tokenizer files are used, where the source has none.
        verify: whether both models are run on text; a difference above 1e-4 is an error and nothing is written.
        texts: sentences, or pairs of them, for `verify`; by default a built-in handful.

    Raises:
        UserError: the source is not a whole BERT classifier, the target is not ours to replace, or verification failed.
    """
    started = time.perf_counter()
    state = load_state(source, config_file=config)
    _demand_free(Path(target), state.folder)
    report = _report(source, target, state, {name: name for name in state.tensors})
    report.legacy = {old: new for old, new in state.origins() if old != mindspore_name(new)}
    with replacing_folder(target) as folder:
        write_json(folder / "config.json", _hugging_face_config(state.config))
        write_safetensors(folder / "model.safetensors", state.tensors, framework="pt")
        report.notes += _copy_tokenizer(folder, state.folder, tokenizer)
        report.seconds = time.perf_counter() - started
        if verify:
            from .verify import compare

            report.max_logit_difference = demand_small(compare(state, folder, texts), source)
        if (run := _run_of(state.folder)) is not None:
            from mindspore_floodx.model_card import card_or_reason

            report.notes.append(card_or_reason(run, folder))
    return report


def _run_of(folder: Path | None) -> Path | None:
    """The finished run whose last checkpoint lies in this folder; None for any other folder."""
    if folder is None or folder.name != "checkpoint":
        return None
    run = folder.parent
    return run if (run / "config.yaml").is_file() and (run / "export" / "config.json").is_file() else None


def to_mindspore(
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    config: str | os.PathLike | None = None,
    tokenizer: str | os.PathLike | None = None,
    num_labels: int | None = None,
    seed: int = 0,
    file_format: str = "safetensors",
    verify: bool = False,
    texts: Sequence[str | tuple[str, str]] | None = None,
) -> Report:
    """Converts a Hugging Face model to a folder in MindSpore form.

    Args:
        source: a Hugging Face folder, the id of a model on the hub, `minilm`, or a weight file.
        target: the folder to write; it appears whole or not at all.
        config: a config.json that lies elsewhere than beside the weights.
        tokenizer: a model folder or name whose tokenizer files are used, where the source has none.
        num_labels: number of classes; a classifier that is missing or has another number is drawn from `seed`.
        file_format: `safetensors` or `ckpt`.
        verify: whether both models are run on text; a difference above 1e-4 is an error and nothing is written.
        texts: sentences, or pairs of them, for `verify`; by default a built-in handful.

    Raises:
        UserError: the source is not a BERT encoder, the target is not ours to replace, or verification failed.
    """
    if file_format not in FORMATS:
        raise UserError(f"there is no format {file_format!r}; choose one of {', '.join(FORMATS)}")
    started = time.perf_counter()
    path = find_model(source) if str(source) == "minilm" or not Path(source).exists() else Path(source)
    state = load_state(path, config_file=config, num_labels=num_labels, new_head=True, seed=seed)
    _demand_free(Path(target), state.folder)
    tensors = {mindspore_name(name): tensor for name, tensor in state.tensors.items()}
    report = _report(source, target, state, {name: mindspore_name(name) for name in state.tensors})
    report.legacy = {old: mindspore_name(new) for old, new in state.origins() if old != new}
    with replacing_folder(target) as folder:
        report.notes += write_mindspore_folder(folder, state.config, tensors, state.folder, tokenizer, file_format)
        report.seconds = time.perf_counter() - started
        if verify:
            from .verify import compare

            written = load_state(folder)
            report.max_logit_difference = demand_small(compare(written, path, texts, state), source)
    return report


def save_mindspore_folder(
    target: str | os.PathLike,
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    tokenizer_from: str | os.PathLike | None = None,
    file_format: str = "safetensors",
) -> None:
    """Writes a model folder in MindSpore form: config.json, weights under MindSpore names, tokenizer files.

    Args:
        tokenizer_from: the folder whose tokenizer files are copied, if any.
        file_format: `safetensors` (mindspore_model.safetensors) or `ckpt` (model.ckpt).

    Raises:
        UserError: the target holds other files, or cannot be written.
    """
    _demand_free(Path(target), None)
    with replacing_folder(target) as folder:
        write_mindspore_folder(folder, config, tensors, tokenizer_from, None, file_format)


def write_mindspore_folder(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    tokenizer_from: str | os.PathLike | None,
    other_tokenizer: str | os.PathLike | None,
    file_format: str,
) -> list[str]:
    """Writes the files of `save_mindspore_folder` into an existing folder; returns notes for the user."""
    write_json(folder / "config.json", _hugging_face_config(dict(config)))
    path = folder / FORMATS[file_format]
    if file_format == "ckpt":
        write_ckpt(path, tensors)
    else:
        write_safetensors(path, tensors, framework="ms")
    return _copy_tokenizer(folder, Path(tokenizer_from) if tokenizer_from else None, other_tokenizer)


def _report(source: str | os.PathLike, target: str | os.PathLike, state: State, targets: dict[str, str]) -> Report:
    return Report(
        source=str(source),
        target=str(target),
        renamed={old: targets[name] for old, name in state.origins() if old != targets[name]},
        skipped=state.skipped,
        initialised=[targets[name] for name in state.initialised],
        upcast=state.upcast,
        tensors=len(state.tensors),
        bytes=sum(tensor.nbytes for tensor in state.tensors.values()),
    )


def _hugging_face_config(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the config.json of a BertForSequenceClassification in float32 with its labels spelt out."""
    drop = ("_name_or_path", "dtype", "transformers_version")  # a path of another machine; an older name; another file
    config = {key: value for key, value in with_labels(config, len(labels_of(config))).items() if key not in drop}
    if len(labels_of(config)) > 1:
        config.setdefault("problem_type", "single_label_classification")
    return config | {
        "model_type": "bert",
        "architectures": ["BertForSequenceClassification"],
        "torch_dtype": "float32",
    }


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], framework: str) -> None:
    """Writes tensors into a model folder, which has its config.json already.

    Raises:
        UserError: the disk is full.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        # save_file writes memory as it lies, whatever the strides
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path, {"format": framework})
    except SafetensorError as error:  # a full disk ends here too
        raise UserError(f"cannot write {path.parent}: {error}; choose another output folder") from None
    shutil.copymode(path.parent / "config.json", path)  # the library makes the file readable by its owner only


def _copy_tokenizer(folder: Path, beside: Path | None, other: str | os.PathLike | None) -> list[str]:
    if other is not None:
        beside = find_model(other) if not Path(other).is_dir() else Path(other)
    names = [name for name in TOKENIZER_FILES if beside is not None and (beside / name).is_file()]
    for name in names:
        (folder / name).write_bytes(read_bytes(beside / name, MAX_JSON_BYTES))  # type: ignore[operator]
    if not {"vocab.txt", "tokenizer.json"} & set(names):
        where = "the source" if beside is None else beside
        return [f"no vocabulary in {where}: a pipeline needs tokenizer files; give --tokenizer MODEL"]
    return []


def _demand_free(target: Path, source: Path | None) -> None:
    """Refuses a target that holds anything but a converted model, since it would be replaced."""
    if source is not None and target.resolve() == source.resolve():
        raise UserError(f"source and target are the same folder, {target}; choose another target")
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError(f"{target} is a file; the target of a conversion is a folder")
    ours = {"config.json", *MINDSPORE_FILES, *WEIGHT_FILES, *TOKENIZER_FILES}
    card = target / CARD
    if card.is_file() and CARD_MARK in card.read_text(encoding="utf-8", errors="replace"):
        ours.add(CARD)
    others = sorted(path.name for path in target.iterdir() if path.name not in ours)
    if others:
        raise UserError(
            f"{target} holds other files ({', '.join(others[:5])}) that a conversion would replace; choose a new folder"
        )


def demand_small(difference: float, source: str | os.PathLike) -> float:
    """Returns the largest difference of two models' logits.

    Raises:
        UserError: it is above 1e-4, or not a number.
    """
    if not difference <= LARGEST_LOGIT_DIFFERENCE:  # also when it is not a number
        raise UserError(
            f"{source}: the two models' logits differ by {difference:.2e}, more than {LARGEST_LOGIT_DIFFERENCE:g}; "
            "nothing was written"
        )
    return difference


def _listing(title: str, items: list[str], limit: int | None = None) -> list[str]:
    if not items:
        return []
    shown = items if limit is None else items[:limit]
    return [f"{title} ({len(items)}): {', '.join(shown)}{', ...' if len(shown) < len(items) else ''}"]
