"""The models of the playground: one or two runs or exports with the same classes, opened to answer."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..attack_job import VictimSettings
from ..attack_savings import Savings
from ..attack_source import find_export, model_labels, recorded_settings
from ..errors import UserError
from ..model_config import read_model_config
from ..official import OFFICIAL
from ..pretrained import check_model_files

MAX_MODELS = 2
MAX_WORDS, MAX_CHARACTERS = 5_000, 100_000  # of a text


@dataclass(frozen=True, eq=False)
class PlayModel:
    """A model of the page.

    Attributes:
        title: what it is called on the page, unique there.
        about: its method, level, data set, encoder and seed, as far as config.yaml says; may be empty.
        folder: the exported model.
        run: the run folder that the export belongs to; None without one.
        settings: config.yaml of the run; {} without one.
        names: the classes in the order of the logits.
        order: for each class of the page its place in `names`.
        columns: names of the one or two texts it was trained on; None where nothing tells.
        victim: the opened model, see `attack_victims.build_victim`; only to be called with `lock` held.
        lock: a tokenizer must not be called by two threads at once.
    """

    title: str
    about: str
    folder: Path
    run: Path | None
    settings: dict[str, Any]
    names: list[str]
    order: list[int]
    columns: tuple[str, ...] | None
    victim: Any = None
    lock: Any = field(default_factory=threading.Lock)

    @property
    def labels(self) -> list[str]:
        """The classes in the page's order."""
        return [self.names[place] for place in self.order]


@dataclass(frozen=True)
class Prediction:
    """A model's answer: a probability for each class of the page, [classes], and how much of the text it read."""

    probabilities: np.ndarray
    tokens: int
    tokens_read: int


def open_models(folders: Sequence[str | os.PathLike], threads: int = 1) -> list[PlayModel]:
    """Opens the models of one or two run folders or exported folders.

    Args:
        threads: CPU threads of PyTorch.

    Raises:
        UserError: more than two; no model in a folder; a model that cannot be loaded; or two with different classes,
            or of which one reads a text and the other a pair.
    """
    if not 1 <= len(folders) <= MAX_MODELS:
        raise UserError(f"the playground shows one model or two side by side, not {len(folders)}; leave some out")
    described = [_describe(folder) for folder in folders]
    if len(described) == MAX_MODELS:
        described = _together(*described)
    savings = Savings().without(["repeats"])  # what is remembered for one visitor would be seen by others
    return [
        replace(
            model,
            victim=VictimSettings(
                model.folder, max_length=model.settings.get("max_length"), threads=threads, savings=savings
            ).load(),
        )
        for model in described
    ]


def _describe(folder: str | os.PathLike) -> PlayModel:
    """What is known of a model without opening it."""
    export = find_export(folder)
    check_model_files(export)
    settings = recorded_settings(folder)
    run = None
    if settings:
        run = Path(folder) if (Path(folder) / "config.yaml").is_file() else Path(folder).parent
    names = model_labels(export)
    where = (run or Path(folder)).resolve()
    columns = _columns(settings, export)
    return PlayModel(where.name, _about(settings), export, run, settings, names, list(range(len(names))), columns)


def _about(settings: dict[str, Any]) -> str:
    known = {name: settings.get(name) for name in ("method", "flood_level", "dataset", "model", "seed")}
    if known["flood_level"] is not None:
        known["flood_level"] = f"b = {known['flood_level']}"
    if known["seed"] is not None:
        known["seed"] = f"seed {known['seed']}"
    return ", ".join(str(value) for value in known.values() if value is not None)


def _columns(settings: dict[str, Any], export: Path) -> tuple[str, ...] | None:
    if settings.get("text_column"):
        pair = settings.get("text_pair_column")
        return (settings["text_column"], pair) if pair else (settings["text_column"],)
    if settings.get("dataset") in OFFICIAL:
        return OFFICIAL[settings["dataset"]].text_columns
    one = settings.get("dataset") == "demo" or read_model_config(export / "config.json").get("type_vocab_size") == 1
    return ("text",) if one else None


def _together(first: PlayModel, second: PlayModel) -> list[PlayModel]:
    """Two models with their classes in one order and the same kind of input."""
    if first.columns and second.columns and len(first.columns) != len(second.columns):
        pair, single = sorted((first, second), key=lambda model: -len(model.columns or ()))
        raise UserError(
            f"{pair.folder} reads pairs of texts and {single.folder} single texts; give two models of the same task"
        )
    columns = first.columns or second.columns
    if first.title == second.title:
        first, second = replace(first, title=str(first.folder)), replace(second, title=str(second.folder))
    if first.title == second.title:
        second = replace(second, title=f"{second.title} (again)")
    names = [_named_like(first.names, second.names), _named_like(second.names, first.names)]
    if names[0] == names[1]:
        order = list(range(len(names[0])))
    elif set(names[0]) == set(names[1]) and len(set(names[0])) == len(names[0]) == len(names[1]):
        order = [names[1].index(name) for name in names[0]]
    else:
        raise UserError(
            f"{first.folder} has the classes {', '.join(first.names)}, but {second.folder} has "
            f"{', '.join(second.names)}; give two models of the same classes"
        )
    return [
        replace(first, names=names[0], columns=columns),
        replace(second, names=names[1], columns=columns, order=order),
    ]


def _named_like(names: list[str], other: list[str]) -> list[str]:
    """The other model's names for classes that have none of their own (LABEL_0, ...)."""
    unnamed = names == [f"LABEL_{index}" for index in range(len(other))]
    return other if unnamed else names


def check_texts(first: str, second: str, columns: tuple[str, ...] | None) -> tuple[str, ...]:
    """Returns what was typed as the one or two texts that a model reads.

    Args:
        columns: names of the model's texts; None takes both one text and two.

    Raises:
        UserError: nothing typed, too much, half of a pair, or characters that no text has.
    """
    if not first.strip():
        what = "a sentence" if columns is None or len(columns) == 1 else "two texts"
        raise UserError(f"Type {what}, or pick an example.")
    if columns is not None and len(columns) == 2 and not second.strip():
        raise UserError(f"These models read two texts: fill in {columns[1]!r} as well.")
    if columns is not None and len(columns) == 1 and second.strip():
        raise UserError("These models read one text: leave the second empty.")
    texts = (first, second) if second.strip() else (first,)
    for text in texts:
        if len(text) > MAX_CHARACTERS:
            raise UserError(f"The text has {len(text):,} characters; at most {MAX_CHARACTERS:,} are taken.")
        if (words := len(text.split())) > MAX_WORDS:
            raise UserError(f"The text has {words:,} words; at most {MAX_WORDS:,} are taken.")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UserError("The text holds half of a surrogate pair, which is no character; type it again.")
    return texts


def predict(model: PlayModel, texts: tuple[str, ...]) -> Prediction:
    """Returns the model's answer to checked texts, see `check_texts`."""
    from scipy.special import softmax

    victim = model.victim
    with model.lock:
        tokens = len(victim.tokenizer(*texts, verbose=False)["input_ids"])  # verbose: warns of long texts
        logits = victim([texts if len(texts) == 2 else texts[0]]).numpy()[0]
    return Prediction(softmax(logits.astype(np.float64))[model.order], tokens, min(tokens, victim.max_tokens))
