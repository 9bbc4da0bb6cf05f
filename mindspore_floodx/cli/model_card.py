"""The command behind run/model_card.py: the model card of a run, and its upload."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..errors import UserError
from ..model_card import push_to_hub, write_model_card

EXAMPLES = """\
examples:
  # after the attacks whose figures the card shall have
  %(prog)s runs/mrpc-flooding-0
  %(prog)s runs/mrpc-flooding-0 --push-to-hub me/mrpc-flooded --private
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the card and, if asked to, uploads the export.

    Raises:
        UserError: as `model_card.write_model_card` and `model_card.push_to_hub` do.
    """
    parser = argparse.ArgumentParser(
        prog="model_card.py",
        description="Write the model card of a finished run, export/README.md, from the run's files.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("--push-to-hub", metavar="USER/NAME", help="upload the export to this repository as well")
    parser.add_argument("--private", action="store_true", help="a repository that is made for it is private")
    arguments = parser.parse_args(argv)
    if arguments.push_to_hub is None:
        if arguments.private:
            raise UserError("--private is of an upload; add --push-to-hub USER/NAME, or leave it out")
        print(f"wrote {write_model_card(arguments.run)}")
    else:
        print(f"uploaded to {push_to_hub(arguments.run, arguments.push_to_hub, arguments.private)}")
    return 0
