"""How a batch is divided: over the workers of a job and, within a worker, over the micro-batches of a step.

Whatever is divided, a step is that of the whole batch: a part's mean loss and its gradient count by the part's share of
the batch, so that the sums over all parts are the batch's own mean loss J and its gradient, also where the parts have
different sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from . import distributed
from .settings import TrainSettings

Batch = Mapping[str, np.ndarray]
TOKENS = ("input_ids", "attention_mask", "token_type_ids")


class Part(NamedTuple):
    """A part of a batch: its rows there, int64 [n], their content, and their share of the batch's examples."""

    rows: np.ndarray
    batch: dict[str, np.ndarray]
    share: float


class Division(NamedTuple):
    """The parts that one worker computes of every batch.

    Attributes:
        micro_batches: parts of a worker, one after the other.
        rank, workers: which worker this is, of how many.
    """

    micro_batches: int = 1
    rank: int = 0
    workers: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether a batch stays in one piece."""
        return self.micro_batches * self.workers == 1

    def rows(self, examples: int) -> list[np.ndarray]:
        """Returns, for each part of this worker, its rows of a batch of so many examples; a part may be empty."""
        parts = np.array_split(np.arange(examples), self.workers * self.micro_batches)
        return parts[self.rank * self.micro_batches : (self.rank + 1) * self.micro_batches]

    def parts(self, batch: Batch) -> list[Part]:
        """Returns this worker's parts, each padded to its own longest row.

        An empty part is the batch's first example with a share of 0: workers take part in every sum, and their dropout
        is called equally often, whatever the size of a batch.
        """
        examples = len(batch["labels"])
        found = []
        for rows in self.rows(examples):
            share = len(rows) / examples
            chosen = rows if len(rows) else np.zeros(1, np.int64)
            found.append(Part(chosen, rows_of(batch, chosen), share))
        return found


def rows_of(batch: Batch, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Returns these rows of a batch, padded to the longest of them."""
    length = int(np.flatnonzero(batch["attention_mask"][rows].any(axis=0)).max(initial=0)) + 1
    return {
        name: np.ascontiguousarray(of[rows][:, :length] if name in TOKENS else of[rows]) for name, of in batch.items()
    }


def division_of(settings: TrainSettings) -> Division:
    """Returns how this process divides its batches: by the settings and by the job that it is a worker of."""
    return Division(settings.gradient_accumulation_steps, distributed.rank(), distributed.size())
