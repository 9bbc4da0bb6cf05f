"""Runs cells: each trains, attacks and measures in processes of its own, and ends as a folder of small result files.

A cell's folder is locked while it is run, so that several processes, also on several machines with one shared folder,
take different cells. What a killed process left is used: finished runs are not trained again, attacks go on.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..attack_calibration import NO_TEMPERATURE
from ..cli.commands import command_line
from ..device import end_with_parent
from ..errors import Terminated, UserError
from ..files import write_json, write_text
from ..lock import Locked, locked
from .collect import collect, read_if_there
from .grid import Cell, Grid
from .rows import best_level

KEPT_OF_ERRORS = 8192  # bytes of a step's last output that are looked through for its error


@dataclass(frozen=True)
class Places:
    """Where a grid is run and what this machine has for it."""

    output: Path
    runs: Path  # run folders: large, not needed any more once a cell is finished
    data_dir: str | None = None
    device: str = "CPU"
    neighbours: str | None = None
    masked_lm: str | None = None
    workers: int | str = 1

    def cell(self, id: str) -> Path:
        return self.output / "cells" / id


@dataclass
class Outcome:
    """What became of a grid's cells, by their ids."""

    finished: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # and why
    elsewhere: list[str] = field(default_factory=list)  # another process has them
    waiting: list[str] = field(default_factory=list)  # for the levels of a sweep


class StepFailed(Exception):
    """A step of a cell ended with an error; says which, and its last words."""

    def __init__(self, step: str, message: str):
        super().__init__(f"{step}: {message}")
        self.step, self.message = step, message


def is_done(cell: Cell, places: Places) -> bool:
    return (places.cell(cell.id) / "result.json").exists()


def run_grid(grid: Grid, places: Places, say: Callable[[str], None]) -> Outcome:
    """Runs the cells that are not finished, one after the other; a failed cell does not stop the rest.

    Args:
        say: is told what is being done, a line at a time.

    Raises:
        UserError: the output folder cannot be written.
        KeyboardInterrupt: Ctrl-C; what is finished is kept.
    """
    outcome, number, tried = Outcome(), len(grid.cells) + len(grid.timing), set[str]()
    while True:
        before = len(tried)
        outcome.elsewhere, outcome.waiting = [], []
        for position, cell in enumerate(grid.cells, 1):
            if cell.id in tried:
                continue
            level = None
            if cell.variant == "best" and not is_done(cell, places):
                swept = sweep_of(cell, grid, places)
                level = best_level([each for each in swept if each]) if all(swept) else None
                if level is None:
                    outcome.waiting.append(cell.id)
                    continue
            try:
                with locked(places.cell(cell.id)):
                    tried.add(cell.id)
                    if not is_done(cell, places):
                        say(f"cell {position} of {number}: {cell.id}")
                        _attempt(
                            cell.id,
                            places,
                            outcome,
                            lambda cell=cell, level=level: run_cell(  # type: ignore[misc]
                                cell, places, grid.keep_texts, level
                            ),
                        )
                    if is_done(cell, places):
                        outcome.finished.append(cell.id)
            except Locked:
                outcome.elsewhere.append(cell.id)
        if len(tried) == before:
            break
    for position, (dataset, options) in enumerate(grid.timing.items(), len(grid.cells) + 1):
        id, target = f"{dataset}-timing", places.output / "timing" / f"{dataset}.json"
        try:
            with locked(places.output / "timing" / f".{dataset}"):
                if not target.exists():
                    say(f"cell {position} of {number}: {id}")
                    _attempt(id, places, outcome, lambda: time_methods(grid, dataset, options, target, places))  # noqa: B023
                if target.exists():
                    outcome.finished.append(id)
        except Locked:
            outcome.elsewhere.append(id)
    return outcome


def sweep_of(cell: Cell, grid: Grid, places: Places) -> list[dict[str, Any] | None]:
    """Returns the results of the sweep whose best level a cell takes; None for those that are not there yet."""
    swept = [
        other
        for other in grid.cells
        if (other.dataset, other.method, other.tag) == (cell.dataset, cell.method, cell.tag)
        and other.variant not in (None, "best")
    ]
    if not swept:  # of another call's --only
        return [None]
    return [read_if_there(places.cell(other.id) / "result.json") for other in swept]


def _attempt(id: str, places: Places, outcome: Outcome, work: Callable[[], None]) -> None:
    failed = places.cell(id) / "failed.json"
    failed.unlink(missing_ok=True)
    try:
        work()
    except (StepFailed, UserError) as error:
        step, message = (error.step, error.message) if isinstance(error, StepFailed) else ("collect", str(error))
        when = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        write_json(failed, {"step": step, "message": message, "time": when})
        outcome.failed[id] = f"{step}: {message} (see {places.runs / id}.log)"


def run_cell(cell: Cell, places: Places, keep_texts: bool, level: float | None = None) -> None:
    """Trains a cell's run, attacks it, measures what its plan says, and writes its result files.

    Raises:
        StepFailed: a step ended with an error.
    """
    run, log = places.runs / cell.id, places.runs / f"{cell.id}.log"
    settings = cell.train_settings(
        level,
        output_dir=str(run),
        data_dir=places.data_dir,
        device=places.device,
        save_every_epoch=True if cell.by_epoch else None,
    )
    write_text(places.runs / f"{cell.id}.yaml", _yaml(settings.to_dict()))
    seconds = {}
    if not (run / "export").exists():
        seconds["train"] = step("train", ["--config", str(places.runs / f"{cell.id}.yaml")], log)
    seconds["attack"] = step("attack", [str(run), *attack_options(cell, places, cell.plan.attacks)], log)
    uncalibrated = None
    if cell.plan.calibrated:
        try:
            step("attack", [str(run), *attack_options(cell, places, cell.plan.calibrated), "--calibrate"], log)
        except StepFailed as failed:
            if NO_TEMPERATURE not in failed.message:
                raise
            uncalibrated = failed.message  # a finding about the model, not a fault
    if cell.plan.smoothness is not None:
        step("smoothness", [str(run), *smoothness_options(cell, places, run)], log)
    if cell.by_epoch:
        for epoch in range(1, settings.epochs + 1):
            attack_epoch(cell, places, run, epoch, settings.max_length, log)
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
    collect(cell, run, settings, places.cell(cell.id), keep_texts, seconds, uncalibrated)


def attack_options(cell: Cell, places: Places, attacks: Sequence[str]) -> list[str]:
    """Returns the options of `run/attack.py` for these attacks of a cell's plan."""
    options = ["--attack", *attacks, "--num-examples", str(cell.plan.num_examples)]
    return [*options, "--seed", str(cell.plan.attack_seed), *resource_options(cell, places)]


def resource_options(cell: Cell, places: Places) -> list[str]:
    """Returns what an attack is told of this machine: its resources, workers, device and data."""
    options = ["--resources", cell.plan.resources, "--workers", str(places.workers), "--device", places.device]
    given = {
        "--neighbours": places.neighbours,
        "--masked-lm": places.masked_lm,
        "--data-dir": places.data_dir,
        "--max-candidates": cell.plan.max_candidates,
    }
    return [*options, *(str(word) for name, value in given.items() if value is not None for word in (name, value))]


def smoothness_options(cell: Cell, places: Places, run: Path) -> list[str]:
    """Returns the options of `run/smoothness.py` for a cell's plan."""
    options = ["--output-dir", str(run / "smoothness"), "--device", places.device]
    for name, value in (cell.plan.smoothness or {}).items():
        options += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    threads = cell.settings.get("threads")
    return [*options, *(["--threads", str(threads)] if threads else [])]


def attack_epoch(cell: Cell, places: Places, run: Path, epoch: int, max_length: int, log: Path) -> None:
    """Attacks the model as it was after an epoch; its export is removed again.

    Raises:
        StepFailed: the conversion or the attack ended with an error.
    """
    wanted = cell.by_epoch
    assert wanted is not None
    target = run / "by-epoch" / f"epoch-{epoch}"
    if (target / "attacks" / wanted["attack"] / "summary.json").exists():
        return
    export = target / "export"
    if not export.exists():
        step("convert", ["to-pytorch", str(run / "checkpoints" / f"epoch-{epoch}"), str(export)], log)
    options = ["--attack", wanted["attack"], "--num-examples", str(wanted["num_examples"])]
    options += ["--seed", str(cell.plan.attack_seed), "--dataset", cell.dataset, "--max-length", str(max_length)]
    step("attack", [str(export), *options, *resource_options(cell, places), "--output-dir", str(target)], log)
    shutil.rmtree(export)


def time_methods(grid: Grid, dataset: str, options: Mapping[str, Any], target: Path, places: Places) -> None:
    """Times the training steps of methods on a data set (Table 3).

    Raises:
        StepFailed: the timing ended with an error.
    """
    settings = grid.timing_settings[dataset]
    folder = places.runs / f"{dataset}-timing"
    given = {
        "data_dir": places.data_dir,
        "device": places.device,
        "output_dir": folder,
        **{name: settings[name] for name in ("model", "batch_size", "max_length", "threads") if name in settings},
        **{name: settings[name] for name in ("max_train_examples", "min_words") if name in settings},
        **options,
    }
    words = ["--dataset", dataset]
    for name, value in given.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    step("timing", words, places.runs / f"{dataset}-timing.log")
    write_text(target, (folder / "timing.json").read_text(encoding="utf-8"))


def step(name: str, options: Sequence[str], log: Path) -> float:
    """Runs one of our commands as a process of its own, whose output is shown and kept; returns the seconds it took.

    Raises:
        StepFailed: it ended with an error.
        KeyboardInterrupt: it was stopped, or this process was.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started, last = time.perf_counter(), b""
    with open(log, "ab") as file:
        file.write(f"\n$ floodx-{name} {' '.join(options)}\n".encode())
        file.flush()
        process = subprocess.Popen(  # noqa: S603  our own command
            command_line(name, options), stdout=file, stderr=subprocess.PIPE, preexec_fn=end_with_parent
        )
        assert process.stderr is not None
        try:
            while block := os.read(process.stderr.fileno(), 4096):
                file.write(block)
                last = (last + block)[-KEPT_OF_ERRORS:]
                with contextlib.suppress(OSError):  # whoever read our output is gone
                    sys.stderr.buffer.write(block)
                    sys.stderr.buffer.flush()
            code = process.wait()
        except KeyboardInterrupt as stop:
            if isinstance(stop, Terminated):
                process.terminate()  # Ctrl-C it gets by itself
            process.wait()  # it saves what it has
            raise
    if code in (130, 143):
        raise KeyboardInterrupt
    if code:
        lines = [line.strip() for line in last.decode(errors="replace").replace("\r", "\n").split("\n")]
        words = next((line for line in reversed(lines) if line), f"exit status {code}")
        raise StepFailed(name, words.removeprefix("error: "))
    return time.perf_counter() - started


def _yaml(settings: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump({key: value for key, value in settings.items() if value is not None}, sort_keys=False)
