"""Gradient accordance and Flooding-X for those who train with `mindspore.train.Model`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mindspore.train import Callback

from .errors import UserError
from .flood_level import FloodLevel, choose_flood_level
from .monitor import sub_epoch_ends

if TYPE_CHECKING:
    from .accordance_of_cell import CellAccordance
    from .flooding import FloodingTrainOneStepCell


class AccordanceCallback(Callback):
    """Measures accordance at the end of every sub-epoch of `Model.train`, and floods as soon as it turns.

    What is measured are the sub-epoch's batches at its last parameters, dropout off.

    Args:
        accordance: over the network that is trained.
        step: what `Model` trains with, ``Model(step)``; it gets the flood level at the turn (Flooding-X), unless it has
            one. None only measures.
        sub_epochs: parts of an epoch, each of at least two steps.
        batches: at most so many of a sub-epoch's batches are measured, evenly spaced; None: all.
        rule: options of `choose_flood_level`, such as ``rule="turns-positive"``.

    Attributes:
        rows: of each sub-epoch: sub_epoch, step, epoch, accordance, same_class, train_loss (nats).
        decision: the turn, if it was found.

    Raises:
        UserError: from `Model.train`, with dataset_sink_mode=True, which shows no batches.
    """

    def __init__(
        self,
        accordance: CellAccordance,
        step: FloodingTrainOneStepCell | None = None,
        sub_epochs: int = 4,
        batches: int | None = None,
        **rule: Any,
    ):
        super().__init__()
        self.accordance, self.step, self.sub_epochs, self.batches, self.rule = (
            accordance,
            step,
            sub_epochs,
            batches,
            rule,
        )
        self.rows: list[dict[str, Any]] = []
        self.decision: FloodLevel | None = None
        self._seen: list[tuple[Any, ...]] = []
        self._loss, self._examples = 0.0, 0

    def on_train_step_end(self, run_context: Any) -> None:
        """Takes note of a batch and its loss; at the end of a sub-epoch measures and decides."""
        seen = run_context.original_args()
        if seen.dataset_sink_mode:
            raise UserError("AccordanceCallback needs each batch; call Model.train with dataset_sink_mode=False")
        batch = tuple(seen.train_dataset_element)
        self._seen.append(batch)
        self._loss += float(seen.net_outputs.asnumpy()) * len(batch[-1])
        self._examples += len(batch[-1])
        within = (seen.cur_step_num - 1) % seen.batch_num + 1
        if within in sub_epoch_ends(seen.batch_num, self.sub_epochs):
            self._end_sub_epoch(seen.cur_step_num, seen.cur_epoch_num)

    def _end_sub_epoch(self, step: int, epoch: int) -> None:
        every = 1 if self.batches is None else math.ceil(len(self._seen) / self.batches)
        for batch in self._seen[::every]:
            self.accordance.add(*batch)
        result = self.accordance.result()
        self.accordance.reset()
        self.rows.append(
            {
                "sub_epoch": len(self.rows) + 1,
                "step": step,
                "epoch": epoch,
                "accordance": result.value,
                "same_class": result.same_class,
                "train_loss": self._loss / self._examples,
            }
        )
        self._seen, self._loss, self._examples = [], 0.0, 0
        if self.step is None or self.decision is not None or self.step.flood_level is not None:
            return
        values, losses = ([row[name] for row in self.rows] for name in ("accordance", "train_loss"))
        decision = choose_flood_level(values, losses, **self.rule, fallback="none")
        if decision.fired:
            self.decision = decision
            self.step.set_flood_level(decision.level)
