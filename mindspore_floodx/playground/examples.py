"""Sentences to pick: some of the evaluation set that a run was made with, with their true classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..attack_source import choose_examples, load_evaluation, match_columns, match_labels
from ..errors import UserError
from .models import MAX_CHARACTERS, MAX_WORDS, PlayModel

COUNT = 50
_SHORT = 90  # characters of a sentence in the list


@dataclass(frozen=True)
class Picked:
    """An example: its texts, and its class in the page's order."""

    texts: tuple[str, ...]
    true_class: int

    @property
    def short(self) -> str:
        """The texts in one line that fits into a list."""
        line = " | ".join(" ".join(text.split()) for text in self.texts)
        return line if len(line) <= _SHORT else f"{line[: _SHORT - 4]} ..."


def load_examples(
    models: Sequence[PlayModel], dataset: str | None = None, data_dir: str | None = None
) -> tuple[list[Picked], str]:
    """Returns up to `COUNT` random examples, and a sentence where there are none to be had.

    Data that would have to be downloaded is left out.

    Args:
        dataset, data_dir: replace what config.yaml tells.

    Raises:
        UserError: data that was asked for by `dataset` or `data_dir` cannot be loaded, or has other classes.
    """
    model, given = models[0], {"dataset": dataset, "data_dir": data_dir}
    asked = dataset is not None or data_dir is not None
    try:
        return _load(model, given), ""
    except UserError as error:
        if asked:
            raise
        return [], f"There are no sentences to pick: {error}."


def _load(model: PlayModel, given: dict[str, Any]) -> list[Picked]:
    chosen = {**model.settings, **{name: value for name, value in given.items() if value is not None}}
    if not chosen.get("text_column") and chosen.get("dataset") != "demo" and not chosen.get("data_dir"):
        raise UserError("give the data's folder with --data-dir, and its name with --dataset where no run tells it")
    data = load_evaluation(model.settings, given)
    split = match_labels(data, model.names, model.folder)
    match_columns(model.folder, split)
    if model.columns is not None and len(model.columns) != len(data.text_columns):
        raise UserError(f"{data.name} has {len(data.text_columns)} texts in an example, the model reads another number")
    found = []
    for place in choose_examples(len(split), COUNT, seed=0):
        texts = (split.texts[place],) if split.pairs is None else (split.texts[place], split.pairs[place])
        if all(text.strip() and len(text) <= MAX_CHARACTERS and len(text.split()) <= MAX_WORDS for text in texts):
            found.append(Picked(texts, model.order.index(int(split.labels[place]))))
    return found
