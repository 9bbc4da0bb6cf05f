"""Runs commands in this process, with files whose reads fail or are slow (failing_reads.c): JSON in, JSON out.

Each case has the command's `module`, its `words`, the `file` and the byte `after` which it fails, or the `delay` of a
read in microseconds.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
import time
from typing import Any

from mindspore_floodx.errors import run_command


def run(case: dict[str, Any]) -> dict[str, Any]:
    """Returns the command's exit status, what it said, and the seconds that it took."""
    for name in ("file", "after", "delay"):
        os.environ.pop(f"FAILING_{name.upper()}", None)
        if name in case:
            os.environ[f"FAILING_{name.upper()}"] = str(case[name])
    out, err, started = io.StringIO(), io.StringIO(), time.monotonic()
    status: Any = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_command(lambda: importlib.import_module(case["module"]).main(case["words"]))
        except SystemExit as end:
            status = end.code
        except BaseException as error:
            err.write(f"{type(error).__name__}: {error}\n")
    return {"status": status, "out": out.getvalue(), "err": err.getvalue(), "seconds": time.monotonic() - started}


if __name__ == "__main__":
    cases = json.load(sys.stdin)
    results = [run(case) for case in cases]
    sys.__stdout__.write(json.dumps(results))
