"""The attacked examples of all cells, packed so that a page can hold them and unpack only those that are looked at."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .word_changes import word_changes

COLUMNS = (  # of a packed example
    "id",
    "text",  # number of the text in the data set's block, or the hash of a text that was left out
    "label",
    "before",  # predicted class
    "after",
    "result",  # its first letter: s, f or k
    "queries",
    "words",
    "words_changed",
    "score_before",  # probability of the class that was predicted, in hundredths
    "score_after",
    "changes",  # [text column, start, end, replacement], or [old words, new words] where texts were left out
)
RESULTS = {"succeeded": "s", "failed": "f", "skipped": "k"}


def pack(content: Any) -> str:
    """Returns `content` as JSON, compressed with gzip, in base64: no character of it means anything to HTML."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    data = gzip.compress(text.encode("utf-8", "surrogatepass"), compresslevel=9, mtime=0)
    return base64.b64encode(data).decode("ascii")


@dataclass
class Samples:
    """Packed examples: one block for each attack on each cell, and one for each data set's texts.

    Methods of one data set are attacked on the same texts, so a text is held once, and each example only has what was
    changed of it.
    """

    blocks: list[str] = field(default_factory=list)
    _texts: dict[str, dict[tuple[str, ...], int]] = field(default_factory=dict)

    def add(self, dataset: str, examples: Iterable[Mapping[str, Any]]) -> int:
        """Packs the examples of one attack on one cell and returns the number of their block.

        Args:
            examples: lines of an examples file, with or without texts.
        """
        texts = self._texts.setdefault(dataset, {})
        self.blocks.append(pack([_row(example, texts) for example in examples]))
        return len(self.blocks) - 1

    def add_texts(self) -> dict[str, int]:
        """Packs the texts of every data set; returns the number of each one's block. To be called last."""
        numbers = {}
        for dataset, texts in self._texts.items():
            self.blocks.append(pack([list(columns) for columns in texts]))
            numbers[dataset] = len(self.blocks) - 1
        return numbers


def _row(example: Mapping[str, Any], texts: dict[tuple[str, ...], int]) -> list[Any]:
    original: Mapping[str, str] | None = example.get("original")
    if original is None:
        text: int | str = str(example["original_sha256"])
        changes: Sequence[Sequence[Any]] = example["changes"]
    else:
        text = texts.setdefault(tuple(original.values()), len(texts))
        changes = [
            [number, *change]
            for number, (column, words) in enumerate(original.items())
            for change in word_changes(words, example["perturbed"][column], example.get("num_words_changed"))
        ]
    before, after = example["original_output"], example["perturbed_output"]
    return [
        example["id"],
        text,
        example["label"],
        before,
        after,
        RESULTS[example["result"]],
        example["queries"],
        example.get("num_words"),
        example.get("num_words_changed"),
        _hundredths(example.get("original_scores"), before),
        _hundredths(example.get("perturbed_scores"), after),
        changes,
    ]


def _hundredths(scores: Sequence[float] | None, label: int) -> int | None:
    return None if scores is None else round(100 * scores[label])
