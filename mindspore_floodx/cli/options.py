"""What several commands' options have in common."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..errors import UserError, nearest


def number_or_all(text: str) -> int | str:
    """Reads a whole number or the word ``all``."""
    if text == "all":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'all'") from None


def number_or_auto(text: str) -> int | str:
    """Reads a whole number or the word ``auto``."""
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'auto'") from None


def refuse_unknown(parser: argparse.ArgumentParser, unknown: Sequence[str]) -> None:
    """Names the first word that the parser did not know, and the option that was perhaps meant.

    Raises:
        UserError: there is such a word.
    """
    if unknown:
        options = [option for action in parser._actions for option in action.option_strings]
        word = next((word for word in unknown if word.startswith("-")), unknown[0])
        raise UserError(f"{word} is not an option{nearest(word, options)}; --help lists them")
