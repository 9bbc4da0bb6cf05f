"""Jobs for worker processes without a model, and a command that runs one: workers start in half a second."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mindspore_floodx.errors import UserError, run_command, sigterm_raises


@dataclass(frozen=True)
class LightExample:
    id: int
    texts: tuple[str, ...]
    label: int


TEXTS = [f"text {'long ' * (id % 7)}{id}\x85 \u2028 end" for id in range(60)]
EXAMPLES = [LightExample(id, (text,), id % 2) for id, text in enumerate(TEXTS)]


@dataclass(frozen=True)
class LightJob:
    """Records say which process made them; `log` gets a line for each example that was begun."""

    seconds: float = 0.0
    log: Path | None = None
    fails_on: int | None = None
    ends_on: int | None = None  # the process kills itself
    refuses: str | None = None  # while it prepares
    ends_at_once: bool = False
    name: str = "first"

    def prepare(self, kept):
        if self.ends_at_once:
            os._exit(7)
        if self.refuses:
            raise UserError(self.refuses)
        kept[self.name] = kept.get(self.name, 0) + 1
        return lambda example: self.attack(example, kept)

    def attack(self, example, kept):
        if self.log:
            with open(self.log, "a") as file:
                file.write(f"{example.id}\n")
        time.sleep(self.seconds)
        if example.id == self.fails_on:
            raise ValueError("no such\nword")
        if example.id == self.ends_on:
            os.kill(os.getpid(), signal.SIGKILL)
        return {
            "id": example.id,
            "original": dict(zip(("text",), example.texts, strict=True)),
            "result": "failed",
            "queries": 1,
            "seconds": {"pid": os.getpid(), "kept": dict(kept)},  # what is left out of the result file
        }


def main(argv=None):
    """`light_jobs.py FOLDER WORKERS [SECONDS]`: attacks `EXAMPLES` with 15 milliseconds each, or so many seconds.

    WORKERS is a number, or the address of a Ray cluster.
    """
    from mindspore_floodx.attack_journal import Journal
    from mindspore_floodx.attack_loop import attack_examples
    from mindspore_floodx.attack_workers import open_workers
    from mindspore_floodx.lock import locked

    folder, given = Path(sys.argv[1]), sys.argv[2]
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 0.015
    job = LightJob(seconds, log=folder.parent / "log")
    with sigterm_raises(), locked(folder), contextlib.ExitStack() as stack:
        pool = open_workers("auto", ray=given) if ":" in given else open_workers(int(given))
        journal = Journal(folder, {}, "ff", [example.id for example in EXAMPLES])
        attack = (stack.enter_context(pool), job) if pool else job.prepare({})
        attack_examples(attack, EXAMPLES, journal, progress=False)
        journal.finish()


if __name__ == "__main__":
    run_command(main)
