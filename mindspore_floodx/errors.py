"""One way to tell a user what to mend, and one way for a command to end because of it."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """A mistake that the user can mend: its message is one sentence naming the file, the field and the remedy.

    Commands print it to stderr and exit with status 2; from Python it is an ordinary exception.
    """


def nearest(name: str, valid: Iterable[str]) -> str:
    """Returns ``" (did you mean 'x'?)"`` for the valid name closest to `name`, or an empty string if none is close."""
    found = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""


def run_command(main: Callable[[], int | None]) -> None:
    """Runs `main` as a command: a `UserError` becomes one line on stderr and exit status 2, Ctrl-C exit status 130."""
    try:
        status = main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of our output went away (`... | head`): nobody is left to tell
        status = 141
    sys.exit(status)
