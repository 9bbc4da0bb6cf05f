"""The command behind run/doctor.py: whether this machine can train, and what it lacks."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from ..device import DEVICES
from ..doctor import examine, report_rows
from .options import refuse_unknown

EXAMPLES = """\
examples:
  %(prog)s                  # packages, CPU, and the GPU where there is an NVIDIA driver
  %(prog)s --device GPU     # a GPU is demanded
  %(prog)s --json           # everything that was found, for a program or a report of a fault

On each device a tiny BERT is trained for 30 steps, as a run would: the loss has to fall, to be the one NumPy computes
of the logits, and below the flood level a step has to go exactly the other way. Exit status 0: all is well, 1: it is
not. What each message means is in docs/gpu.md.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a table, or JSON, and what is wrong; returns 1 if anything is."""
    parser = argparse.ArgumentParser(
        prog="doctor",
        description="Print what this machine has and lacks for training, and check a training step.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--device", choices=DEVICES, metavar="CPU|GPU", help="leave a GPU out, or demand one; by default as installed"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads; by default all cores")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options, unknown = parser.parse_known_args(argv)
    refuse_unknown(parser, unknown)
    print("checking the machine and a training step, which takes some seconds ...", file=sys.stderr)
    report = examine(options.device, options.threads)
    if options.json:
        print(json.dumps(report, indent=2))
        return 0 if report["ok"] else 1
    rows = report_rows(report)
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for what, state, found in rows:
        print(f"{what:{widths[0]}}  {state:{widths[1]}}  {found}".rstrip())
    if not report["gpu"]["demanded"] and report["gpu"]["problems"]:
        print(f"\nno GPU is used here: {report['gpu']['problems'][0]}")
    print("\nall is well" if report["ok"] else "\nwhat is wrong:")
    for problem in report["problems"]:
        print(f"- {problem}")
    return 0 if report["ok"] else 1
