"""Commands that are killed and given again, and what has to be equal in the end.

The processes are forked from one that has imported everything, since the imports take longer than these runs.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mindspore_floodx.errors import run_command

TIMES = ("tokens_per_second", "seconds")  # columns that are no result
TRAIN = "mindspore_floodx.cli.train"
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# Python's audit events of what changes a folder; writing into a file that is open has none
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "shutil.rmtree")
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["mindspore", "transformers", "tensorboard.summary", "mindspore_floodx.trainer"])


def kill_at_change(number: int) -> None:
    """Lets this process kill itself before the change of that number, from 1, that it makes to files and folders."""
    made = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal made
        if event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES):
            made += 1
            if made == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def _command(module: str, words: list[str], output: str, change: int | None) -> None:
    os.setsid()  # so that it can be killed with its children
    with open(output, "w", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the server of the forks ignores it
        main = importlib.import_module(module).main
        if change is not None:
            kill_at_change(change)
        run_command(lambda: main(words))


class Command:
    """A command in a process of its own; what it prints is in `output`.

    Args:
        words: its options.
        module: whose `main` it is.
        change: it kills itself at this change of a file, see `kill_at_change`.
    """

    def __init__(self, words: list[str], output: Path, module: str = TRAIN, change: int | None = None):
        self.output = output
        output.write_text("")
        self.process: Any = context.Process(target=_command, args=(module, words, str(output), change))
        self.process.start()

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Sends a signal and waits; returns the exit status (negative: the signal that ended the process)."""
        if self.process.is_alive():
            os.kill(self.process.pid, number)
        return self.end()

    def kill_all(self) -> int:
        """As `kill`, with every process that it has started."""
        if self.process.is_alive():
            with contextlib.suppress(ProcessLookupError):  # it has no group of its own yet
                os.killpg(self.process.pid, signal.SIGKILL)
        return self.kill()

    def children(self) -> list[int]:
        """Returns the numbers of the processes that it has started and that live."""
        with contextlib.suppress(OSError):
            listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
            return [int(number) for number in listed.split()]
        return []

    def end(self) -> int:
        self.process.join()
        return self.process.exitcode

    def said(self) -> str:
        return self.output.read_text()


def steps(run: Path) -> int:
    """Returns the rows of the log so far."""
    return max(lines(run / "log.csv") - 1, 0)


def lines(path: Path) -> int:
    """Returns the lines of a file so far; 0 where there is none."""
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def wait_for_steps(command: Command, run: Path, number: int, more: float = 0.0) -> bool:
    """Waits until so many steps were logged (the log of a run that goes on is cut first); False at its end."""
    going_on = "going on" if (run / "state").exists() else "compiled in"
    while going_on not in command.said() or steps(run) < number:
        if not command.process.is_alive():
            return False
        time.sleep(0.002)
    time.sleep(more)
    return command.process.is_alive()


def kill_at_random(words: list[str], run: Path, total: int, kills: int, seed: int, folder: Path) -> list[str]:
    """Gives a training command again and again, killed at moments spread over the run; returns what was killed.

    One kill in four is at any time of the process's life, its start included; the others are within a few
    milliseconds of the end of a step that is yet to come: in a step, an evaluation, or the writing of a state.
    """
    moments, killed = random.Random(seed), []
    for turn in range(kills):
        command = Command(words, folder / "said.txt")
        if turn % 4 == 3:
            time.sleep(moments.uniform(0, 8))
        else:
            aim = round(total * (turn + moments.random()) / kills)
            wait_for_steps(command, run, max(aim, 1), moments.uniform(0, 0.1))
        before = steps(run)
        status = command.kill()
        if status == 0 or "holds a finished run" in command.said():
            break
        assert status == -signal.SIGKILL, command.said()
        half = any(path.name.startswith(".step-") for path in (run / "state").glob("*"))
        killed.append(f"at step {before}" + (" while a state was written" if half else ""))
    return killed


def wait_for_progress(command: Command, progress: Callable[[], int], aim: int) -> None:
    """Waits until `progress` has come that far, or the command has ended."""
    while command.process.is_alive() and progress() < aim:
        time.sleep(0.002)


def artefacts(run: Path) -> dict[str, Any]:
    """Returns the content of everything that the same run has to leave equal, by file name."""
    found: dict[str, Any] = {"": sorted(path.name for path in run.iterdir() if path.name != ".lock")}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.name == "README.md":  # the model card has the folder's name in it
            continue
        if path.suffix == ".csv":
            with open(path, newline="", encoding="utf-8") as file:
                found[name] = [
                    {key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)
                ]
        elif (name.startswith(("checkpoint", "export")) and path.is_file()) or name == "flood_level.json":
            found[name] = path.read_bytes()
    return found


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Returns the names of the files that differ."""
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
