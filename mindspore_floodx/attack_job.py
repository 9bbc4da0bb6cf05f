"""What it takes to attack examples in any process, and one example's attack."""

from __future__ import annotations

import functools
import os
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .attack_calibration import Calibrated
from .attack_metrics import FAILED, SKIPPED, SUCCEEDED, count_changed_words
from .attack_recipes import AttackSettings, build_attack
from .attack_savings import Savings
from .attack_victims import PYTORCH, build_victim


@dataclass(frozen=True)
class Example:
    """One text or pair of the evaluation set: its position there, its texts, its class."""

    id: int
    texts: tuple[str, ...]
    label: int


@dataclass(frozen=True)
class VictimSettings:
    """The attacked model: says how to load it, so that every process can do so for itself."""

    folder: Path
    kind: str = PYTORCH  # or MINDSPORE, see `attack_victims`
    max_length: int | None = None
    device: str = "CPU"
    threads: int = 1
    savings: Savings = Savings()  # noqa: RUF009 - frozen

    def load(self) -> Any:
        """Returns the victim; see `attack_victims.build_victim`, also for what it raises."""
        return build_victim(self.kind, self.folder, self.max_length, self.device, self.threads, self.savings)


@dataclass(frozen=True)
class AttackJob:
    """One attack on one model; picklable, so that worker processes can be sent it. See `attack_workers.Job`."""

    victim: VictimSettings
    settings: AttackSettings
    columns: tuple[str, ...]  # names of the text columns, for the records
    attackable: str = "both"
    seed: int = 0
    temperature: float | None = None  # of a calibrated attack, see `attack_calibration`

    def build(self, victim: Any) -> Any:
        """Returns TextAttack's `Attack` on the loaded victim."""
        if self.temperature is not None:
            victim = Calibrated(victim, self.temperature)
        return build_attack(self.settings, victim, self.attackable, self.victim.savings)

    def attacker(self, built: Any) -> Callable[[Example], dict[str, Any]]:
        """Returns the function that attacks an example with a built attack and returns its record."""
        return functools.partial(attack_example, built, seed=self.seed, columns=self.columns)

    def prepare(self, kept: dict[Any, Any]) -> Callable[[Example], dict[str, Any]]:
        """Returns `attacker` for this process, with the model that an earlier job left in `kept` if it is the same."""
        # Before PyTorch is imported: its pools of threads are made once.
        os.environ.setdefault("OMP_NUM_THREADS", str(self.victim.threads))
        if self.victim not in kept:
            kept.clear()
            kept[self.victim] = self.victim.load()
        return self.attacker(self.build(kept[self.victim]))


def attack_example(built: Any, example: Example, seed: int, columns: tuple[str, ...]) -> dict[str, Any]:
    """Attacks one example and returns its record for the results file.

    The record depends on the example and `seed` alone, not on which examples were attacked before, nor where.
    """
    import torch

    # A recipe that draws random numbers gives the same result for an example in whatever order examples are attacked.
    own_seed = int(np.random.SeedSequence([seed, example.id]).generate_state(1)[0])
    random.seed(own_seed)
    np.random.seed(own_seed)
    torch.manual_seed(own_seed)
    # TextAttack keeps its answers to a skipped example. One that is taken from there is one text fewer in a batch,
    # whose scores then differ in the last digits.
    built.clear_cache()
    # The names are ours, never premise/hypothesis, by which recipes would freeze a column on their own.
    inputs = OrderedDict(zip(("text", "text_pair"), example.texts, strict=False))
    started = time.perf_counter()
    result = built.attack(inputs, example.label)
    seconds = time.perf_counter() - started
    before, after = result.original_result, result.perturbed_result
    kind = {"SuccessfulAttackResult": SUCCEEDED, "FailedAttackResult": FAILED, "SkippedAttackResult": SKIPPED}
    original, perturbed = (_as_tuple(goal.attacked_text.tokenizer_input) for goal in (before, after))
    return {
        "id": example.id,
        "original": dict(zip(columns, original, strict=True)),
        "perturbed": dict(zip(columns, perturbed, strict=True)),
        "label": example.label,
        "original_output": before.output,
        "perturbed_output": after.output,
        "original_scores": [round(float(score), 6) for score in before.raw_output],
        "perturbed_scores": [round(float(score), 6) for score in after.raw_output],
        "queries": result.num_queries,
        "result": kind[type(result).__name__],
        "num_words": before.attacked_text.num_words,
        "num_words_changed": count_changed_words(after.attacked_text.attack_attrs),
        "seconds": round(seconds, 4),
    }


def _as_tuple(texts: str | tuple[str, ...]) -> tuple[str, ...]:
    return (texts,) if isinstance(texts, str) else texts
