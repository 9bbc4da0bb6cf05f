"""One way to tell a user what to mend, and one way for a command to end because of it."""

from __future__ import annotations

import contextlib
import difflib
import signal
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator

_LONGEST = 4_000  # characters of a message


class UserError(Exception):
    """A mistake that the user can mend: its message is one sentence naming the file, the field and the remedy.

    Commands print it to stderr and exit with status 2; from Python it is an ordinary exception.
    """


class Terminated(KeyboardInterrupt):
    """SIGTERM, where `sigterm_raises` holds: everything that is put in order after Ctrl-C is so after this too."""


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Makes SIGTERM raise `Terminated` in the main thread, unless the process handles it in another way already."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def nearest(name: str, valid: Iterable[str]) -> str:
    """Returns ``" (did you mean 'x'?)"`` for the valid name closest to `name`, or an empty string if none is close."""
    found = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""


def has_controls(text: str) -> bool:
    """Says whether `text` has control characters (also tabs and ends of lines) or halves of surrogate pairs."""
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def printable(text: str) -> str:
    """Returns `text` with its control characters escaped, so that what a file holds cannot steer the terminal."""
    return "".join(each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in text)


def _one_line(message: str) -> str:
    """A message as one line of bearable length: it may quote names and values from a hostile file."""
    line = printable(message).replace("\n", "\\n")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 100]} ... {line[-90:]}"


def run_command(main: Callable[[], int | None]) -> None:
    """Runs `main` as a command: a `UserError` becomes one line on stderr and exit status 2.

    So does an error of MindSpore's that `cuda_driver.explain_failure` knows, such as a device without enough memory.

    Ctrl-C gives exit status 130 and `Terminated` 143, each with one line, to which their message is added.
    """
    try:
        status = main() or 0
    except UserError as error:
        print(f"error: {_one_line(str(error))}", file=sys.stderr)
        status = 2
    except RuntimeError as error:
        from .cuda_driver import explain_failure

        sentence = explain_failure(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt as stop:
        by, status = ("SIGTERM", 143) if isinstance(stop, Terminated) else ("Ctrl-C", 130)
        print(f"stopped by {by}" + (f"; {stop}" if str(stop) else ""), file=sys.stderr)
    except BrokenPipeError:  # the reader of our output went away (`... | head`): nobody is left to tell
        status = 141
    sys.exit(status)
