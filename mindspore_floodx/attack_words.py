"""TextAttack's splitting of texts into words, and its tags, with what has been found once kept.

TextAttack splits every candidate into words anew, and with it each of its words. Here the words of a piece of text
between two spaces are remembered; a text's words are those of its pieces, one after the other.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator
from typing import Any
from unittest import mock

from .attack_library import textattack

_split = textattack.shared.utils.words_from_text
_CHINESE = re.compile("[\u4e00-\u9fff]")  # such texts are split by a segmenter, which looks beyond spaces


@functools.lru_cache(maxsize=2**16)
def _words_of_piece(piece: str) -> tuple[str, ...]:
    return tuple(_split(piece))


def words_from_text(s: str, words_to_ignore: Any = ()) -> list[str]:
    """TextAttack's `words_from_text`: the same words, in the same order."""
    if words_to_ignore or not isinstance(s, str) or _CHINESE.search(s):
        return _split(s, list(words_to_ignore))
    return [word for piece in s.split() for word in _words_of_piece(piece)]


@contextlib.contextmanager
def words_kept() -> Iterator[None]:
    """Within it, TextAttack splits texts with `words_from_text` of this module.

    In the whole process: attacks side by side belong into processes of their own.
    """
    strings = textattack.shared.utils.strings
    with (
        mock.patch.object(textattack.shared.attacked_text, "words_from_text", words_from_text),
        mock.patch.object(strings, "words_from_text", words_from_text),
    ):
        yield


class KeepTags(textattack.constraints.grammaticality.PartOfSpeech):
    """TextAttack's constraint, which forgets the tags of the last 16,384 contexts after each example; this does not."""

    def clear_cache(self) -> None:
        """Keeps the tags: a tag depends on its context alone."""
