"""Inputs that a model has already seen in this example are not computed again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch


class Remembered:
    """A function of a list of inputs that returns a row for each, computed once for equal inputs.

    Equal inputs are more frequent than equal texts: a tokenizer that lower-cases makes them, letters that its
    vocabulary lacks, and every change of a long text beyond the model's maximum length. `forget` has to be called
    between examples, so that no result depends on what was attacked before it (a row's last bits depend on the batch it
    is computed in).
    """

    def __init__(self, compute: Callable[[Sequence], torch.Tensor]) -> None:
        self._compute = compute
        self._rows: dict[Hashable, torch.Tensor] = {}

    def __call__(self, inputs: Sequence[Hashable]) -> torch.Tensor:
        """Returns the rows of `inputs`, [len(inputs), ...]."""
        new = [one for one in dict.fromkeys(inputs) if one not in self._rows]
        if new:
            self._rows.update(zip(new, self._compute(new), strict=True))
        return torch.stack([self._rows[one] for one in inputs])

    def forget(self) -> None:
        """Drops all rows."""
        self._rows.clear()
