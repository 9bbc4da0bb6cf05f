"""What several commands' options have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from ..errors import UserError, nearest


def number_or(word: str) -> Callable[[str], int | str]:
    """Returns what reads a whole number or this word."""

    def read(text: str) -> int | str:
        if text == word:
            return text
        try:
            return int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor {word!r}") from None

    return read


def refuse_unknown(parser: argparse.ArgumentParser, unknown: Sequence[str]) -> None:
    """Names the first word that the parser did not know, and the option that was perhaps meant.

    Raises:
        UserError: there is such a word.
    """
    if unknown:
        options = [option for action in parser._actions for option in action.option_strings]
        word = next((word for word in unknown if word.startswith("-")), unknown[0])
        raise UserError(f"{word} is not an option{nearest(word, options)}; --help lists them")
