"""The command behind run/resources.py: what the published attacks need, from the network or from another machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from ..archives import MAX_BYTES
from ..errors import UserError, run_command

EXAMPLES = """examples:
  python run/resources.py list textfooler              what TextFooler needs, and what of it is missing here
  python run/resources.py fetch                        on a machine with a network: the paper's three attacks
  python run/resources.py pack resources.zip           there: all of it in one file
  python run/resources.py import resources.zip         on the machine without
"""


def parser() -> argparse.ArgumentParser:
    """Returns the command's options."""
    options = argparse.ArgumentParser(
        prog="resources.py",
        description="List, fetch or import what the attacks of TextAttack need besides code (--resources official).",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = options.add_subparsers(dest="command", required=True, metavar="list|fetch|import|pack")
    listing = commands.add_parser("list", help="what each attack needs, where it is looked for, and what is missing")
    listing.add_argument("attacks", nargs="*", metavar="ATTACK", help="default: all")
    listing.add_argument("--verify", action="store_true", help="compare contents with the recorded hashes, not sizes")
    fetching = commands.add_parser("fetch", help="download what is missing")
    fetching.add_argument("attacks", nargs="*", metavar="ATTACK", help="default: textfooler textbugger bertattack")
    importing = commands.add_parser("import", help="put into place what a folder, an archive or a file holds")
    importing.add_argument("source", metavar="SOURCE", help="folder, zip, tar, or counter-fitted-vectors.txt")
    importing.add_argument("attacks", nargs="*", metavar="ATTACK", help="only what these need (default: all)")
    importing.add_argument(
        "--max-gigabytes",
        type=float,
        default=MAX_BYTES / (1 << 30),
        metavar="N",
        help="limit once unpacked (default 8)",
    )
    packing = commands.add_parser("pack", help="write an archive of what is here, for import on another machine")
    packing.add_argument("target", metavar="FILE.zip")
    packing.add_argument("attacks", nargs="*", metavar="ATTACK", help="only what these need (default: all)")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one of the four commands; `fetch` returns 2 if something could not be had."""
    options = parser().parse_args(argv)
    return {"list": _list, "fetch": _fetch, "import": _import, "pack": _pack}[options.command](options)


def _list(options: argparse.Namespace) -> int:
    from tabulate import tabulate

    from ..resource_listing import describe, needed_by

    rows = [describe(row, options.verify) for row in needed_by(options.attacks)]
    print(tabulate(rows, headers="keys", maxcolwidths=[34, None, None, 30, 60]))
    absent = sum(row["state"] != "present" for row in rows)
    print(f"\n{len(rows) - absent} of {len(rows)} present")
    return 0


def _fetch(options: argparse.Namespace) -> int:
    from ..attack_resources import Package
    from ..resource_fetch import fetch
    from ..resource_listing import needed_by, state

    rows = needed_by(options.attacks or ("textfooler", "textbugger", "bertattack"))
    failures = []
    for row in sorted(rows, key=lambda row: not isinstance(row.resource, Package)):  # packages first: they fail at once
        if state(row.resource) == "present":
            continue
        try:
            print(f"{row.resource.label}: {fetch(row.resource, _progress())}", flush=True)
        except UserError as error:  # the others may be had all the same
            failures.append(str(error))
    for line in failures:
        print(f"error: {line}", file=sys.stderr)
    if not failures:
        print("all present")
    return 2 if failures else 0


def _import(options: argparse.Namespace) -> int:
    from ..resource_import import import_resources
    from ..resource_listing import needed_by

    if not options.max_gigabytes > 0:
        raise UserError(f"--max-gigabytes must be above 0, not {options.max_gigabytes}")
    wanted = [row.resource for row in needed_by(options.attacks)]
    limit = int(options.max_gigabytes * (1 << 30))
    for resource, place in import_resources(options.source, wanted, max_bytes=limit, progress=_progress()):
        print(f"{resource.label}: {place}")
    return 0


def _pack(options: argparse.Namespace) -> int:
    from ..resource_listing import needed_by, pack

    for title in pack(options.target, needed_by(options.attacks)):
        print(title)
    return 0


def _progress() -> Callable[[int], None]:
    """Returns a bar of the words whose neighbours are known; it appears when it is first told of some."""
    from tqdm import tqdm

    from ..counter_fitted import WORDS

    bars: list[tqdm] = []

    def show(words: int) -> None:
        if not bars:
            bars.append(tqdm(total=WORDS, unit="word", desc="nearest words"))
        bars[0].update(words)

    return show


def console() -> None:
    """The installed command `floodx-resources`."""
    run_command(main)
