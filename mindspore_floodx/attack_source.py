"""What is attacked: the evaluation set a run was made with, matched against the classes of its exported model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .data import TextDataset, TextSplit, load_dataset, load_files
from .errors import UserError, nearest
from .model_config import labels_of, read_model_config
from .settings import DATA_SETTINGS, demand_types
from .untrusted import read_yaml

_ENTAILMENT = ("premise", "hypothesis")


def find_export(run_or_export: str | os.PathLike) -> Path:
    """Returns the Hugging Face folder of a run (its ``export/``) or the folder itself.

    Raises:
        UserError: no such folder, or neither it nor its ``export/`` holds a model.
    """
    folder = Path(run_or_export)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; give a run folder or an exported model")
    for candidate in (folder / "export", folder):
        if (candidate / "config.json").is_file():
            return candidate
    raise UserError(
        f"{folder} has neither export/config.json nor config.json; finish the training, or export its checkpoint with "
        f"`python -m ckpt_convert to-pytorch {folder}/checkpoint {folder}/export`"
    )


def recorded_settings(run_or_export: str | os.PathLike) -> dict[str, Any]:
    """Returns the settings of a run (config.yaml), given it, its ``export/`` or its ``checkpoint/``; {} without one.

    Raises:
        UserError: config.yaml cannot be read, or a setting in it that is used here is of the wrong type.
    """
    folder = Path(run_or_export)
    path = folder / "config.yaml"
    if not path.is_file() and folder.name in ("export", "checkpoint"):
        path = folder.parent / "config.yaml"
    if not path.is_file():
        return {}
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a list of settings; was it written by run/train.py?")
    demand_types({name: content[name] for name in (*DATA_SETTINGS, "max_length", "seed") if name in content}, path)
    return content


def load_evaluation(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> TextDataset:
    """Loads the data set of a run whose evaluation part is attacked; the training part plays no role here.

    Args:
        recorded: the run's settings; what counts are dataset, data_dir, train_file, eval_file, text_column,
            text_pair_column, label_column, and eval_fraction with seed.
        given: values under the same names that replace them. Another data set, or text_column for a file of one's
            own, replaces all of them.

    Raises:
        UserError: neither of both names a data set, or the data cannot be loaded.
    """
    given = {name: value for name, value in given.items() if value is not None}
    same = given.get("dataset", recorded.get("dataset")) == recorded.get("dataset") and "text_column" not in given
    chosen = {**(recorded if same else {}), **given}
    if chosen.get("text_column"):
        if not chosen.get("label_column") or not (chosen.get("eval_file") or chosen.get("train_file")):
            raise UserError("a file of one's own needs --eval-file, --text-column and --label-column")
        return load_files(
            # Only the evaluation part is attacked; where the training file is not known, it stands in for it.
            chosen.get("train_file") or chosen["eval_file"],
            chosen.get("eval_file"),
            text_column=chosen["text_column"],
            text_pair_column=chosen.get("text_pair_column"),
            label_column=chosen["label_column"],
            eval_fraction=None if chosen.get("eval_file") else chosen.get("eval_fraction"),
            seed=chosen.get("seed", 0),
            name=chosen.get("dataset"),
        )
    if not chosen.get("dataset"):
        raise UserError(
            "the folder has no config.yaml that names a data set; give --dataset NAME (with --data-dir), or a file of "
            "one's own with --eval-file, --text-column and --label-column"
        )
    return load_dataset(
        chosen["dataset"],
        chosen.get("data_dir"),
        train_file=chosen.get("train_file"),
        eval_file=chosen.get("eval_file"),
        allow_partial=True,  # of the training part
    )


def model_labels(export: Path) -> list[str]:
    """Returns the names of an exported model's classes in the order of its logits, from its config.json.

    Raises:
        UserError: config.json is damaged, of absurd size, or has no complete id2label.
    """
    path = export / "config.json"
    return list(labels_of(read_model_config(path)).values())


def match_labels(dataset: TextDataset, names: list[str], export: Path) -> TextSplit:
    """Returns the evaluation set with its labels in the model's order of classes.

    Classes are matched by name; a model whose classes have no names (LABEL_0, ...) must have as many as the data.

    Raises:
        UserError: the model's classes are not the data's.
    """
    split = dataset.evaluation
    if names == dataset.label_names or (
        len(names) == dataset.num_labels and all(name == f"LABEL_{i}" for i, name in enumerate(names))
    ):
        return split
    if not set(dataset.label_names) <= set(names):
        raise UserError(
            f"the model in {export} has the {len(names)} classes {', '.join(names)}, but the data set {dataset.name} "
            f"has {', '.join(dataset.label_names)}; give the data set the model was trained on"
        )
    order = np.array([names.index(name) for name in dataset.label_names])
    return replace(split, labels=order[split.labels], fingerprint="")


def match_columns(model_folder: Path, split: TextSplit) -> None:
    """Refuses pairs for a model without a second token type.

    Raises:
        UserError: pairs, and config.json says ``type_vocab_size`` 1.
    """
    config = read_model_config(model_folder / "config.json")
    if split.pairs is not None and config.get("type_vocab_size", 2) == 1:
        raise UserError(f"the model in {model_folder} reads one text (type_vocab_size 1), but the data has pairs")


def choose_attackable(column: str | None, columns: tuple[str, ...]) -> str:
    """Returns which text of a pair the attack may change: ``first``, ``second`` or ``both``.

    Args:
        column: one of these three, the name of a text column, or None for the default: ``both``, except that of
            (premise, hypothesis) only the hypothesis is changed, as the published recipes have it.

    Raises:
        UserError: no such column, or a column chosen where there is only one text.
    """
    if len(columns) == 1:
        if column not in (None, "both", columns[0]):
            raise UserError(f"the data has one text column, {columns[0]!r}; leave --attack-column out")
        return "both"
    if column is None:
        return "second" if columns == _ENTAILMENT else "both"
    known = {"first": "first", "second": "second", "both": "both", columns[0]: "first", columns[1]: "second"}
    if column not in known:
        raise UserError(f"there is no text column {column!r}{nearest(column, known)}; choose one of {', '.join(known)}")
    return known[column]


def choose_examples(total: int, num_examples: int | str, seed: int) -> list[int]:
    """Returns the attacked examples' positions in the evaluation set, ascending.

    They are the first `num_examples` of a random order that depends on `total` and `seed` alone, so every model is
    attacked on the same ones, and a larger sample contains a smaller one. ``all``, or more than there are: all.

    Raises:
        UserError: `num_examples` is neither a positive number nor ``all``, or `seed` is negative.
    """
    if seed < 0:
        raise UserError(f"the seed must not be negative, but is {seed}")
    if num_examples == "all":
        return list(range(total))
    if isinstance(num_examples, bool) or not isinstance(num_examples, int) or num_examples < 1:
        raise UserError(f"the number of examples must be a positive number or 'all', not {num_examples!r}")
    return sorted(example_order(total, seed)[:num_examples].tolist())


def example_order(total: int, seed: int) -> np.ndarray:
    """Returns the random order of an evaluation set of `total` examples that samples are taken from, int64 [total]."""
    return np.random.default_rng(seed).permutation(total)
