"""What a labelled data set is here: `TextSplit` and `TextDataset`, and how rows of a file become a split."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .errors import UserError, has_controls
from .readers import Rows

MAX_LABEL = 1_000  # characters of a label
MAX_TEXT = 1_000_000  # characters of a text; a model reads some thousand of them, and the longest review has 14,000


@dataclass(frozen=True, eq=False)
class TextSplit:
    """One part of a data set: n examples.

    Attributes:
        name: "train", "validation" or "test".
        texts: n texts.
        pairs: n second texts, or None if the task has one text.
        labels: int32 [n], positions in the data set's `label_names`.
        source: the file or hub repository it came from, without absolute paths.
        partial: whether the source holds less than the official data set does.
        fingerprint: SHA-256 over texts, pairs and labels, whatever file they came from; filled in when left out.
    """

    name: str
    texts: list[str]
    pairs: list[str] | None
    labels: np.ndarray
    source: str
    partial: bool = False
    fingerprint: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", np.asarray(self.labels, dtype=np.int32))
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", _fingerprint(self.texts, self.pairs, self.labels))

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Sequence[int] | np.ndarray, source: str | None = None) -> TextSplit:
        """Returns the examples at `indices`, in that order, as a split with its own fingerprint."""
        return replace(
            self,
            texts=[self.texts[i] for i in indices],
            pairs=None if self.pairs is None else [self.pairs[i] for i in indices],
            labels=self.labels[np.asarray(indices, dtype=np.int64)],
            source=source or self.source,
            fingerprint="",
        )

    def word_counts(self) -> np.ndarray:
        """Words of each example, both texts of a pair together, int64 [n]; white space separates words."""
        counts = [len(text.split()) for text in self.texts]
        if self.pairs is not None:
            counts = [count + len(text.split()) for count, text in zip(counts, self.pairs, strict=True)]
        return np.array(counts, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class TextDataset:
    """A data set: what to train on, what to evaluate on, and what the labels are called.

    Attributes:
        name: the data set's name, or the training file's for the user's own data.
        train: the training split.
        evaluation: the split for Clean% and for attacks (GLUE: validation; IMDB, AG News: test).
        label_names: the names of labels 0, 1, ...
        text_columns: the names of the one or two text columns.
    """

    name: str
    train: TextSplit
    evaluation: TextSplit
    label_names: list[str]
    text_columns: tuple[str, ...]

    @property
    def num_labels(self) -> int:
        return len(self.label_names)


def split_from_rows(
    name: str,
    rows: Rows,
    text_columns: Sequence[str],
    label_column: str,
    label_ids: Mapping[str, int],
    *,
    join: bool = False,
    source: str | None = None,
    partial: bool = False,
    labels_of: str | None = None,
) -> TextSplit:
    """Makes a split of rows, checking every text and label.

    Args:
        name: the split's name.
        rows: what `read_rows` returned.
        text_columns: one column, or two for pairs; with `join`, columns that make up one text with spaces between.
        label_column: the column of the label.
        label_ids: the label that each text in the label column stands for.
        join: see `text_columns`.
        source: what to call the origin; by default the file's name.
        partial: whether this is less than the official data set.
        labels_of: the file that `label_ids` came from, for the message about an unknown label.

    Raises:
        UserError: for the first bad row of the file, with the number of bad rows.
    """
    for column in text_columns:
        for line, value in zip(rows.lines, rows.fields[column], strict=True):
            if (wrong := wrong_text(value)) is not None:
                rows.problems.add(line, f"column {column!r} {wrong}; mend or delete the row")
    labels = np.zeros(len(rows.lines), dtype=np.int32)
    for position, (line, value) in enumerate(zip(rows.lines, rows.fields[label_column], strict=True)):
        label = label_text(value)
        if label in label_ids:
            labels[position] = label_ids[label]
        elif label:
            known = ", ".join(map(repr, list(label_ids)[:20])) + (", ..." if len(label_ids) > 20 else "")
            unknown = (
                f"the unknown label {label!r}" if labels_of is None else f"the label {label!r}, unknown in {labels_of}"
            )
            rows.problems.add(line, f"column {label_column!r} has {unknown}; use one of {known}")
        else:
            rows.problems.add(
                line, f"column {label_column!r} has no label (a line of text or a number); add one or delete the row"
            )
    rows.problems.raise_any()
    columns = [rows.fields[column] for column in text_columns]
    texts = [" ".join(parts) for parts in zip(*columns, strict=True)] if join else columns[0]
    pairs = columns[1] if len(columns) > 1 and not join else None
    return TextSplit(name, texts, pairs, labels, source or rows.path.name, partial)


def label_text(value: Any) -> str:
    """Returns a label of a file as text: JSON's 1, true and "1 " are "1", "true" and "1"; what is no label is "".

    A label names a class in files and tables, so it has no control characters and at most `MAX_LABEL` characters.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    if not isinstance(value, str) or wrong_text(value) is not None:
        return ""
    label = value.strip()
    return "" if has_controls(label) or len(label) > MAX_LABEL else label


def require_two_classes(split: TextSplit, label_names: Sequence[str], remedy: str) -> None:
    """Raises `UserError` if the split is empty or all its examples have one label."""
    found = np.unique(split.labels)
    if len(found) == 0:
        raise UserError(f"{split.source}: no examples are left for the {split.name} split; {remedy}")
    if len(found) == 1:
        label = label_names[found[0]]
        raise UserError(
            f"{split.source}: all {len(split):,} examples of the {split.name} split have the label {label!r}, and a "
            f"classifier needs at least two; {remedy}"
        )


def wrong_text(value: Any) -> str | None:
    if not isinstance(value, str):
        return "is not text" if value is not None else "is empty (null)"
    if len(value) > MAX_TEXT:
        return f"has {len(value):,} characters, more than {MAX_TEXT:,}"
    if not value.strip():
        return "is empty"
    if "\0" in value:
        return "holds a NUL character"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair (a broken \\u escape)"
    return None


def _fingerprint(texts: Sequence[str], pairs: Sequence[str] | None, labels: np.ndarray) -> str:
    digest = hashlib.sha256()
    for column in (texts, pairs):
        # no text holds a NUL, so it separates them without doubt
        digest.update(b"none" if column is None else "\0".join(["", *column, ""]).encode())
        digest.update(b"\0\0")
    digest.update(labels.astype("<i4").tobytes())
    return digest.hexdigest()
