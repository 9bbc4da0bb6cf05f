"""Gradient accordance while a model trains: sub-epochs, their rows in the run folder, and Flooding-X's decision."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .files import write_json
from .flood_level import FloodLevel, choose_flood_level
from .parts import division_of
from .run_state import part
from .runs import CsvTable
from .settings import TrainSettings

if TYPE_CHECKING:
    from mindspore import nn

    from .accordance import GradientAccordance
    from .accordance_result import Accordance
    from .bert import BertForSequenceClassification

Batch = Mapping[str, np.ndarray]
COLUMNS = (
    "sub_epoch",
    "step",
    "epoch",
    "accordance",
    "same_class",
    "snapshot",
    "snapshot_same_class",
    "train_loss",
    "eval_loss",
    "eval_accuracy",
)
CLASS_COLUMNS = ("sub_epoch", "measured", "class_a", "class_b", "accordance")


def sub_epoch_ends(steps_per_epoch: int, sub_epochs: int) -> list[int]:
    """Returns the steps of an epoch, counted from 1, at which its sub-epochs end; each has at least two steps."""
    parts = max(1, min(sub_epochs, steps_per_epoch // 2))
    return [round(steps_per_epoch * part / parts) for part in range(1, parts + 1)]


class AccordanceMonitor:
    """Measures a run's accordance and writes accordance.csv, a row a sub-epoch, and accordance_classes.csv.

    Args:
        settings: `accordance` says how it is measured: online, snapshot or both.
        folder: the run folder.
        model, optimizer: what is trained; online, the optimizer's steps are taken by `train_step`.
        kept: bytes of the two files that stay, by name, of a run that goes on.
    """

    def __init__(
        self,
        settings: TrainSettings,
        folder: Path,
        model: BertForSequenceClassification,
        optimizer: nn.Optimizer,
        kept: Mapping[str, int] | None = None,
    ):
        from .accordance import GradientAccordance

        self.settings, self.folder = settings, folder
        names, division = settings.accordance_parameters, division_of(settings)
        self.online: GradientAccordance | None = None
        self.snapshot: GradientAccordance | None = None
        if settings.accordance in ("online", "both"):
            self.online = GradientAccordance(model, optimizer, names, settings.max_grad_norm, division)
        if settings.accordance in ("snapshot", "both"):
            self.snapshot = GradientAccordance(model, parameters=names, division=division)
        kept = kept or {}
        self._rows = CsvTable(folder / "accordance.csv", COLUMNS, kept.get("accordance.csv"))
        self._classes = CsvTable(folder / "accordance_classes.csv", CLASS_COLUMNS, kept.get("accordance_classes.csv"))
        self._batches: list[Batch] = []
        self._loss, self._examples = 0.0, 0
        self.accordance: list[float] = []
        self.train_loss: list[float] = []

    def compile(self) -> None:
        """Compiles the graphs of what is measured."""
        for each in (self.online, self.snapshot):
            if each is not None:
                each.compile()

    def stop_training(self) -> None:
        """Leaves the training steps to others; what was measured online ends here."""
        self.online = None

    def measures(self, step: int) -> bool:
        """Says whether this training step, counted from 1, is to be measured online."""
        return self.online is not None and (step - 1) % self.settings.accordance_every == 0

    def saw(self, batch: Batch, loss: float) -> None:
        """Takes note of a training step and its mean loss."""
        if self.snapshot is not None:
            self._batches.append(batch)
        self._loss += loss * len(batch["labels"])
        self._examples += len(batch["labels"])

    def end_sub_epoch(self, step: int, epoch: int, scores: Mapping[str, float] | None) -> None:
        """Writes the sub-epoch's row and begins the next one.

        Args:
            step: number of the last training step.
            epoch: counted from 1.
            scores: eval_loss and eval_accuracy at this point, if they were measured.
        """
        number = len(self.train_loss) + 1
        row: dict[str, Any] = dict.fromkeys(COLUMNS, "")
        row |= {"sub_epoch": number, "step": step, "epoch": epoch, "train_loss": self._loss / self._examples}
        row |= {name: scores[name] for name in ("eval_loss", "eval_accuracy") if scores}
        value = float("nan")
        if self.snapshot is not None:
            for index in _spaced(len(self._batches), self.settings.accordance_batches):
                self.snapshot.add(self._batches[index])
            result = self._take(self.snapshot, number, "snapshot")
            row |= {"snapshot": result.value, "snapshot_same_class": result.same_class}
            if self.settings.accordance == "snapshot":
                row |= {"accordance": result.value, "same_class": result.same_class}
                value = result.value
        if self.online is not None:
            result = self._take(self.online, number, "online")
            row |= {"accordance": result.value, "same_class": result.same_class}
            value = result.value
        self._rows.add(row)
        self.accordance.append(value)
        self.train_loss.append(row["train_loss"])
        self._batches, self._loss, self._examples = [], 0.0, 0

    def state(self) -> dict[str, np.ndarray]:
        """Returns what was measured so far, by name; the batches of the sub-epoch under way are the caller's."""
        state = {
            "loss": np.array(self._loss),
            "examples": np.array(self._examples),
            "accordance": np.array(self.accordance, np.float64),
            "train_loss": np.array(self.train_loss, np.float64),
        }
        if self.online is not None:
            state |= {f"online/{name}": array for name, array in self.online.state().items()}
        return state

    def load_state(self, state: Mapping[str, np.ndarray], batches: Iterable[Batch]) -> None:
        """Goes on from what `state` returned.

        Args:
            batches: those of the sub-epoch under way that were trained on.
        """
        self._loss, self._examples = float(state["loss"]), int(state["examples"])
        self.accordance, self.train_loss = state["accordance"].tolist(), state["train_loss"].tolist()
        if self.snapshot is not None:
            self._batches = list(batches)
        if self.online is not None:
            self.online.load_state(part(state, "online"))

    def sizes(self) -> dict[str, int]:
        """Returns the bytes of accordance.csv and accordance_classes.csv, which are safe on the disk then."""
        return {"accordance.csv": self._rows.size(), "accordance_classes.csv": self._classes.size()}

    def decide(self) -> FloodLevel:
        """Returns what the flood rule says of the sub-epochs so far; a run that has no turn gets no level."""
        return choose_flood_level(
            self.accordance, self.train_loss, **self.settings.flood_rule_options(), fallback="none"
        )

    def write_decision(self, decision: FloodLevel) -> None:
        """Writes flood_level.json for a run that decides about itself."""
        write_decision(self.folder, decision, self.settings, self.accordance, self.train_loss)

    def close(self) -> None:
        self._rows.close()
        self._classes.close()

    def _take(self, measure: GradientAccordance, number: int, name: str) -> Accordance:
        result = measure.result()
        for a, values in enumerate(result.class_matrix):
            for b, value in enumerate(values):
                row = {"sub_epoch": number, "measured": name, "class_a": a, "class_b": b, "accordance": float(value)}
                self._classes.add(row)
        measure.reset()
        return result


def _spaced(number: int, wanted: int | None) -> list[int]:
    """So many positions of 0 .. number - 1, evenly spaced; all if None."""
    if wanted is None or wanted >= number:
        return list(range(number))
    return [int(index) for index in np.linspace(0, number - 1, wanted).round()]


def write_decision(
    folder: Path,
    decision: FloodLevel,
    settings: TrainSettings,
    accordance: Sequence[float],
    train_loss: Sequence[float],
) -> None:
    """Writes flood_level.json: the decision, what it was made of, and the rule's options."""
    write_json(
        folder / "flood_level.json",
        dataclasses.asdict(decision)
        | {
            "runs": settings.floodingx_runs,
            "measured": "snapshot" if settings.accordance == "snapshot" else "online",
            "options": settings.flood_rule_options(),
            "accordance": [None if math.isnan(value) else value for value in accordance],
            "train_loss": list(train_loss),
        },
    )
