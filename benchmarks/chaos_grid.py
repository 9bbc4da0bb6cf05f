"""run/reproduce.py in a process that has imported everything, whose steps are forks of it: see chaos.py.

What a grid does is unchanged but for the start of its steps, whose imports take longer than all their work here.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from typing import Any

from mindspore_floodx.cli import commands, reproduce
from mindspore_floodx.reproduce import cells

PIPE = -1


class ForkedStep:
    """As much of `subprocess.Popen` as a grid uses, for words that `commands.command_line` made."""

    def __init__(self, words: Sequence[str], stdout: Any, stderr: int, preexec_fn: Callable[[], None]):
        assert stderr == PIPE
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                os.close(reading)
                os.dup2(stdout.fileno(), 1)
                os.dup2(writing, 2)
                preexec_fn()
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
                status = _run(words)
            finally:
                os._exit(status)
        os.close(writing)
        self.stderr = open(reading, "rb", buffering=0)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)


def _run(words: Sequence[str]) -> int:
    """Does what a new interpreter would; returns its exit status."""
    name = words[2].rpartition("; ")[2].removesuffix("()")
    sys.argv = [name, *words[3:]]
    sys.stdout = open(1, "w", buffering=1, closefd=False)
    sys.stderr = open(2, "w", buffering=1, closefd=False)
    try:
        getattr(commands, name)()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
    return 0


def main(words: Sequence[str]) -> int:
    cells.subprocess = types.SimpleNamespace(Popen=ForkedStep, PIPE=PIPE)  # there alone
    return reproduce.main(words)
