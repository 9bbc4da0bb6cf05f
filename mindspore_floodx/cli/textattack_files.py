"""The command behind run/textattack_files.py: files with which TextAttack's own command attacks a run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..attack_resources import BUILT_IN_NLTK_DATA, STOPWORDS, nltk_has
from ..textattack_files import write_textattack_files

EXAMPLES = """\
example:
  %(prog)s runs/mrpc-flooding-0
      and then what it prints: textattack attack --model-from-file ... --recipe deepwordbug --num-examples 20
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the files and prints a command for each model of the run.

    Raises:
        UserError: as `textattack_files.write_textattack_files` does.
    """
    parser = argparse.ArgumentParser(
        prog="textattack_files.py",
        description="Write a model file and a data file into a run, for TextAttack's own command `textattack attack`.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    # TextAttack cannot be imported without stop words; with a network it fetches them, the first time
    words = "" if nltk_has(STOPWORDS.relative) else f"NLTK_DATA={BUILT_IN_NLTK_DATA} "
    *models, data = write_textattack_files(parser.parse_args(argv).run)
    for model in models:
        print(f"{words}textattack attack --model-from-file {model} --dataset-from-file {data} --recipe deepwordbug")
    return 0
