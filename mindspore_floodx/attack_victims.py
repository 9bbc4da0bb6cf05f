"""The two forms of a run's model that can be attacked, opened in one way: the PyTorch export, or MindSpore itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .attack_savings import Savings
from .attack_source import find_export
from .errors import UserError, nearest

PYTORCH, MINDSPORE = VICTIMS = ("pytorch", "mindspore")
DEVICES = {"CPU": "cpu", "GPU": "cuda"}  # as PyTorch calls them


def check_victim(victim: str, device: str, threads: int) -> None:
    """Refuses a victim, device or number of threads that there cannot be.

    Raises:
        UserError: one of them is unknown or out of range.
    """
    if victim not in VICTIMS:
        raise UserError(f"the victim must be pytorch or mindspore, not {victim!r}{nearest(victim, VICTIMS)}")
    if threads < 1:
        raise UserError(f"threads must be at least 1, not {threads}")
    if device not in DEVICES:
        raise UserError(f"the device must be CPU or GPU, not {device}{nearest(device, DEVICES)}")


def find_victim(run_or_export: str | os.PathLike, victim: str) -> Path:
    """Returns the folder of the attacked model: a run's ``export/`` or, of a MindSpore victim, its ``checkpoint/``.

    A folder with a model of its own is that folder; MindSpore reads both layouts.

    Raises:
        UserError: no such folder, or no model in it.
    """
    if victim == PYTORCH:
        return find_export(run_or_export)
    folder = Path(run_or_export)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; give a run folder or a model folder")
    for candidate in (folder / "checkpoint", folder):
        if (candidate / "config.json").is_file():
            return candidate
    raise UserError(f"{folder} has neither checkpoint/config.json nor config.json; finish the training first")


def build_victim(
    victim: str,
    folder: str | os.PathLike,
    max_length: int | None,
    device: str,
    threads: int,
    savings: Savings = Savings(),  # noqa: B008 - frozen
) -> Any:
    """Loads the model of `folder` as a TextAttack model wrapper that returns logits.

    Both kinds have ``model`` (with ``config``), ``tokenizer``, ``max_tokens``, the longest input in tokens, and
    ``__call__``: texts or pairs of texts in, logits out, a float32 tensor [texts, labels] on the CPU; and ``forget()``,
    which drops what was kept of earlier calls.

    Raises:
        UserError: no classifier in the folder, a tokenizer of another model, or a device that cannot be used.
    """
    opened: Any
    if victim == MINDSPORE:
        from .attack_victim_mindspore import MindSporeVictim

        opened = MindSporeVictim(folder, max_length, device, threads)
    else:
        from .attack_victim import Victim  # imports PyTorch and TextAttack: seconds

        opened = Victim(folder, max_length, DEVICES[device], threads, savings)
    try:
        logits = opened(["a"])
    except Exception as error:  # what a model of odd settings does when it is run
        raise UserError(f"the model in {folder} cannot read a text: {str(error).partition(chr(10))[0]}") from error
    opened.forget()
    if not logits.isfinite().all():
        raise UserError(f"the model in {folder} gives logits that are no numbers; its weights are damaged")
    return opened


def demand_no_gradients(attack: Any, name: str, victim: str, calibrated: bool) -> None:
    """Refuses an attack that asks the victim for gradients, where there are none to be had.

    Raises:
        UserError: the attack is no black-box attack, and the victim runs in MindSpore or is calibrated.
    """
    if not attack.is_black_box and (victim == MINDSPORE or calibrated):
        option = "--victim mindspore" if victim == MINDSPORE else "--calibrate"
        raise UserError(f"{name} uses the model's gradients, which {option} does not offer; leave that option out")
