"""A run for TextAttack's own command line: a model file and a data file that `textattack attack` imports.

The files lie in the run, <run>/textattack/, and find it by their own place, so a run can be moved with them.
TextAttack 0.3.11 looks for the variables `model` and `dataset`; the form FILE^NAME works for data alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .attack_savings import Savings
from .attack_source import load_evaluation, match_columns, match_labels, model_labels, recorded_settings
from .attack_victims import MINDSPORE, PYTORCH, build_victim, find_victim
from .attack_workers import number_of_workers
from .errors import UserError
from .files import write_text

_FOLDER = "textattack"
_MODELS = {PYTORCH: "model.py", MINDSPORE: "model_mindspore.py"}
_DATA = "dataset.py"
_HEAD = '''"""For `textattack attack`; written by MindSpore-FloodX. The run is the folder above this file's."""

from mindspore_floodx.textattack_files import {function}

'''


def write_textattack_files(run: str | os.PathLike) -> list[Path]:
    """Writes <run>/textattack/: dataset.py, and model.py (PyTorch) and model_mindspore.py, whichever the run has.

    Returns:
        the model files, and dataset.py at the end.

    Raises:
        UserError: no run folder, or it has neither export/ nor checkpoint/.
    """
    run = Path(run)
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run} has no config.yaml that names its evaluation data; give a run folder")
    kinds = [kind for kind, name in ((PYTORCH, "export"), (MINDSPORE, "checkpoint")) if (run / name).is_dir()]
    if not kinds:
        raise UserError(f"{run} has neither export/ nor checkpoint/; finish the training first")
    written = []
    for kind in kinds:
        written.append(run / _FOLDER / _MODELS[kind])
        write_text(written[-1], _HEAD.format(function="model_of_run") + f"model = model_of_run(__file__, {kind!r})\n")
    written.append(run / _FOLDER / _DATA)
    write_text(written[-1], _HEAD.format(function="dataset_of_run") + "dataset = dataset_of_run(__file__)\n")
    return written


def model_of_run(file: str, victim: str) -> Any:
    """Returns the TextAttack model wrapper of the run that `file` lies in: ``pytorch`` or ``mindspore``.

    It takes all cores that the process may use. What `attack_victim` keeps of an example's queries is not kept here,
    since TextAttack does not tell where the next example begins.

    Raises:
        SystemExit: as `attack_victims.build_victim` raises UserError, with its message. TextAttack replaces every
            other exception by "Failed to import file".
    """
    run = Path(file).resolve().parents[1]
    try:
        longest = recorded_settings(run).get("max_length")
        threads = number_of_workers("auto", 1)
        return build_victim(victim, find_victim(run, victim), longest, "CPU", threads, Savings().without(["repeats"]))
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


def dataset_of_run(file: str) -> Any:
    """Returns the evaluation set of the run that `file` lies in, with its labels in the model's order of classes.

    Its columns are called text and text_pair, so that both texts of a pair may be changed.

    Raises:
        SystemExit: as `model_of_run`; the data cannot be read, or its classes are not the model's.
    """
    from .attack_library import textattack

    run = Path(file).resolve().parents[1]
    try:
        folder = find_victim(run, MINDSPORE)  # the checkpoint, or whatever model there is
    except UserError:
        folder = run / "export"
    try:
        labels = model_labels(folder)
        split = match_labels(load_evaluation(recorded_settings(run), {}), labels, folder)
        match_columns(folder, split)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    texts = split.texts if split.pairs is None else list(zip(split.texts, split.pairs, strict=True))
    columns = ["text"] if split.pairs is None else ["text", "text_pair"]
    examples = list(zip(texts, map(int, split.labels), strict=True))
    return textattack.datasets.Dataset(examples, input_columns=columns, label_names=labels)
