"""Plain text for a stand-in masked language model: from data sets and files, with a part held out for measuring."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .data import load_dataset
from .errors import UserError
from .readers import read_rows, read_text
from .splits import wrong_text

MIN_WORDS = 4  # a shorter text gives a model nothing to guess a word from
RUN_OF_WORDS = 8  # training text that shares so many words in a row with held-out text is left out
_BREAK = re.compile(r"<br\s*/?>|[\r\n]+")  # IMDB marks paragraphs as HTML does


@dataclass(frozen=True)
class Source:
    """Texts of one origin: its name without path, and its n distinct texts."""

    name: str
    texts: list[str]


@dataclass(frozen=True)
class Division:
    """A source in two parts, each in random order, and how many texts were left out for sharing held-out words."""

    name: str
    training: list[str]
    held_out: list[str]
    left_out: int


def read_sources(
    datasets: Sequence[str],
    data_dir: str | os.PathLike | None,
    files: Sequence[str | os.PathLike],
    text_column: str = "text",
) -> list[Source]:
    """Reads the training texts of data sets (both texts of a pair, labels unused) and of the user's own files.

    Texts are divided at line breaks; parts of fewer than `MIN_WORDS` words and repetitions are dropped.

    Args:
        datasets: names of `data.DATASETS`.
        data_dir: the folder with their official layouts; without it the hub.
        files: .txt with one text a line and no header, or .csv, .tsv, .jsonl with the column `text_column`.

    Raises:
        UserError: nothing given, something given twice or missing, or a source without usable text.
    """
    if not datasets and not files:
        raise UserError("there is no text to train on; name data sets with --dataset or files with --text-file")
    names = [*datasets, *(os.path.realpath(file) for file in files)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{twice[0]} is given twice; name each data set and each file once")
    if missing := [str(file) for file in files if not Path(file).is_file()]:  # before a large data set is read
        raise UserError(f"the text file {missing[0]} does not exist; give an existing one with --text-file")
    sources = []
    for name in datasets:
        train = load_dataset(name, None if data_dir is None else Path(data_dir), allow_partial=True).train
        sources.append(_source(f"{name} ({train.source})", [*train.texts, *(train.pairs or [])]))
    return sources + [_source(Path(file).name, _read_file(Path(file), text_column)) for file in files]


def _read_file(path: Path, text_column: str) -> list[str]:
    if path.suffix.lower() == ".txt":
        return read_text(path).split("\n")
    rows = read_rows(path, [text_column])
    for line, value in zip(rows.lines, rows.fields[text_column], strict=True):
        if (wrong := wrong_text(value)) is not None:
            rows.problems.add(line, f"column {text_column!r} {wrong}; mend or delete the row")
    rows.problems.raise_any()
    return rows.fields[text_column]


def _source(name: str, texts: Iterable[str]) -> Source:
    parts = (" ".join(part.split()) for text in texts for part in _BREAK.split(text))
    kept = list(dict.fromkeys(part for part in parts if len(part.split()) >= MIN_WORDS))
    if len(kept) < 2:
        raise UserError(f"{name} has fewer than two texts of {MIN_WORDS} words or more; give more text")
    return Source(name, kept)


def divide(sources: Sequence[Source], held_out_words: int, seed: int) -> list[Division]:
    """Holds out random texts of every source, and leaves training texts out that share words with any of them.

    Args:
        held_out_words: words held out of each source, but never more than a tenth of its texts (rounded up).
        seed: of the order of the texts.

    Returns:
        A division for each source. A training text shares words with held-out text if `RUN_OF_WORDS` words in a row
        are the same, letter case aside; a shorter one if all of it is found there.

    Raises:
        UserError: nothing is left to train on.
    """
    chosen = []
    for position, source in enumerate(sources):
        order = np.random.default_rng([seed, position]).permutation(len(source.texts))
        texts = [source.texts[index] for index in order]
        count, words = 0, 0
        while words < held_out_words and count < (len(texts) + 9) // 10:
            words += len(texts[count].split())
            count += 1
        chosen.append((source.name, texts[:count], texts[count:]))
    known = {run for _, held_out, _ in chosen for text in held_out for run in _runs(text)}
    divisions = []
    for name, held_out, rest in chosen:
        training = [text for text in rest if known.isdisjoint(_runs(text, whole_only=True))]
        if not training:
            raise UserError(f"all text of {name} repeats what is held out of the text for measuring; give more text")
        divisions.append(Division(name, training, held_out, len(rest) - len(training)))
    return divisions


def _runs(text: str, whole_only: bool = False) -> set[tuple[str, ...]]:
    """All runs of up to `RUN_OF_WORDS` words; with `whole_only` the longest ones alone."""
    words = text.lower().split()
    longest = min(len(words), RUN_OF_WORDS)
    lengths = (longest,) if whole_only else range(min(MIN_WORDS, longest), longest + 1)
    return {tuple(words[start : start + n]) for n in lengths for start in range(len(words) - n + 1)}
