"""Labelled text by name or from files: `load_dataset` and `load_files`, each giving a `TextDataset`.

Known by name are the five data sets of the paper (sst2, mrpc, qnli, imdb, ag_news), from their official layouts or the
Hugging Face hub, and demo, which the project generates itself. Text is kept exactly as it stands in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from . import demo_corpus, hub, official
from .errors import UserError, nearest
from .model_config import MAX_LABELS
from .readers import read_rows
from .splits import TextDataset, TextSplit, label_text, require_two_classes, split_from_rows

__all__ = ["DATASETS", "TextDataset", "TextSplit", "describe", "load_dataset", "load_files"]

DATASETS = (*official.OFFICIAL, "demo")


def load_dataset(
    name: str,
    data_dir: str | Path | None = None,
    *,
    train_file: str | None = None,
    eval_file: str | None = None,
    allow_partial: bool = False,
    max_train_examples: int | None = None,
    min_words: int | None = None,
) -> TextDataset:
    """Returns a data set by its name.

    Args:
        name: one of `DATASETS`.
        data_dir: a folder with the official layout (or with several: glue/, imdb/, ag_news/); without it, the hub.
        train_file: another training file in the data set's folder, such as train_partial.tsv.
        eval_file: likewise for evaluation.
        allow_partial: take a train_partial file if the whole training file is not there.
        max_train_examples: only the first so many training examples.
        min_words: only training examples of at least so many words (counted before `max_train_examples`).

    Raises:
        UserError: an unknown name, missing files, an unreachable hub, a bad row, or a training split of one class.
    """
    if name not in DATASETS:
        raise UserError(f"there is no data set {name!r}{nearest(name, DATASETS)}; choose one of {', '.join(DATASETS)}")
    if name == "demo":
        if data_dir is not None or train_file or eval_file:
            raise UserError("the demo data set is generated and read from nowhere; leave --data-dir and --train out")
        dataset = demo_corpus.generate()
    elif data_dir is not None:
        dataset = official.read_official(
            name, data_dir, train_file=train_file, eval_file=eval_file, allow_partial=allow_partial
        )
    else:
        if train_file or eval_file:
            raise UserError(f"--train and --eval-file name files in {name}'s folder; set --data-dir to find them")
        dataset = hub.read_hub(name)
    return _finished(dataset, max_train_examples, min_words)


def load_files(
    train: str | Path,
    evaluation: str | Path | None = None,
    *,
    text_column: str,
    label_column: str,
    text_pair_column: str | None = None,
    eval_fraction: float | None = None,
    seed: int = 0,
    max_train_examples: int | None = None,
    min_words: int | None = None,
    name: str | None = None,
) -> TextDataset:
    """Returns the user's own data, from .csv, .tsv or .jsonl files (see `readers`).

    Label names are the distinct labels of the training file, sorted, numbers by value.

    Args:
        train: the training file.
        evaluation: the evaluation file, with labels that the training file has.
        text_column: the column of the text.
        label_column: the column of the label.
        text_pair_column: the column of the second text, for tasks on pairs.
        eval_fraction: without an evaluation file, the share of each class's training examples to evaluate on instead.
        seed: draws that share.
        max_train_examples: only the first so many training examples (after the share is taken out).
        min_words: only training examples of at least so many words (counted before `max_train_examples`).
        name: the data set's name; by default the training file's.

    Raises:
        UserError: a missing file or column, a bad row, one class only, nothing to evaluate on, or both ways at once.
    """
    if (evaluation is None) == (eval_fraction is None):
        raise UserError(
            f"{train}: give either an evaluation file (--eval-file FILE) or a share of the training file to evaluate "
            f"on (--eval-fraction 0.1){'' if evaluation is None else ', not both'}"
        )
    if eval_fraction is not None and not 0 < eval_fraction < 1:
        raise UserError(f"--eval-fraction is {eval_fraction}; choose a share between 0 and 1, such as 0.1")
    text_columns = (text_column,) if text_pair_column is None else (text_column, text_pair_column)
    columns = [*text_columns, label_column]
    if len(set(columns)) < len(columns):
        raise UserError(f"the text and label columns must differ, and {columns} has one twice; name another column")
    rows = read_rows(train, columns)
    label_names = _sorted_labels(label_text(value) for value in rows.fields[label_column])
    label_ids = {label: position for position, label in enumerate(label_names)}
    if len(label_names) > MAX_LABELS:
        raise UserError(
            f"{train}: column {label_column!r} has {len(label_names):,} different labels, more than {MAX_LABELS:,}; "
            "name the column of the labels"
        )
    split = split_from_rows("train", rows, text_columns, label_column, label_ids)
    require_two_classes(split, label_names, f"check the label column {label_column!r}")
    if evaluation is not None:
        held_out = split_from_rows(
            "test", read_rows(evaluation, columns), text_columns, label_column, label_ids, labels_of=Path(train).name
        )
        require_two_classes(held_out, label_names, "evaluate on a file with examples of every label")
    elif eval_fraction is not None:
        split, held_out = _hold_out(split, label_names, eval_fraction, seed)
    dataset = TextDataset(name or _slug(Path(train).stem), split, held_out, label_names, text_columns)
    return _finished(dataset, max_train_examples, min_words)


def _finished(dataset: TextDataset, max_train_examples: int | None, min_words: int | None) -> TextDataset:
    """The data set with the training split cut as asked, if it still has two classes."""
    for option, value in (("max_train_examples", max_train_examples), ("min_words", min_words)):
        if value is not None and value < 1:
            raise UserError(f"{option} is {value}; set it to 1 or more, or leave it out")
    train = dataset.train
    if min_words is not None:
        kept = np.flatnonzero(train.word_counts() >= min_words)
        train = train.take(kept, f"{train.source}, of at least {min_words} words")
    if max_train_examples is not None and max_train_examples < len(train):
        train = train.take(range(max_train_examples), f"{train.source}, first {max_train_examples}")
    if train is not dataset.train:
        require_two_classes(train, dataset.label_names, "take more with max_train_examples or min_words")
    return replace(dataset, train=train)


def _sorted_labels(labels: Iterable[str]) -> list[str]:
    """The distinct labels in order: by value if all are numbers, otherwise by character."""
    found = sorted({label for label in labels if label})
    if all(re.fullmatch(r"[+-]?\d+(\.\d+)?", label, re.ASCII) for label in found):
        found.sort(key=float)
    return found


def _hold_out(split: TextSplit, label_names: list[str], fraction: float, seed: int) -> tuple[TextSplit, TextSplit]:
    """Splits a training file in two, each class in the same proportion, both parts in the order of the file."""
    rng = np.random.default_rng(seed)
    chosen = []
    for label, label_name in enumerate(label_names):
        members = np.flatnonzero(split.labels == label)
        count = round(len(members) * fraction)
        if not 0 < count < len(members):
            raise UserError(
                f"{split.source}: a share of {fraction} of the {len(members)} examples of label {label_name!r} leaves "
                "training or evaluation without any; give more examples, another --eval-fraction or --eval-file FILE"
            )
        chosen.append(rng.permutation(members)[:count])
    held_out = np.sort(np.concatenate(chosen))
    kept = np.setdiff1d(np.arange(len(split)), held_out)
    share = f"{fraction:g} of {split.source}, seed {seed}"
    evaluation = replace(split.take(held_out, share), name="test")
    return split.take(kept, f"{split.source} without {share}"), evaluation


def _slug(stem: str) -> str:
    """A file's stem as the name of a data set, which also names run folders."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "custom"


def describe(dataset: TextDataset) -> dict[str, str | int | float | bool]:
    """Returns a row of Table 1: sizes, classes, and mean words per training example (both texts of a pair together)."""
    return {
        "dataset": dataset.name,
        "train_examples": len(dataset.train),
        "train_partial": dataset.train.partial,
        "evaluation_examples": len(dataset.evaluation),
        "evaluation_partial": dataset.evaluation.partial,
        "evaluation_split": dataset.evaluation.name,
        "classes": dataset.num_labels,
        "label_names": ", ".join(dataset.label_names),
        "train_mean_words": round(float(dataset.train.word_counts().mean()), 2),
        "evaluation_mean_words": round(float(dataset.evaluation.word_counts().mean()), 2),
        "train_source": dataset.train.source,
        "evaluation_source": dataset.evaluation.source,
        "train_fingerprint": dataset.train.fingerprint,
        "evaluation_fingerprint": dataset.evaluation.fingerprint,
    }
