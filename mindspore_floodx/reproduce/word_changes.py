"""Which words an attack changed: the spans of the original text that it replaced, and by what."""

from __future__ import annotations

import difflib
import re

_TOKEN = re.compile(r"\s+|\w+(?:['’\-_*@]\w+)*|[^\w\s]")  # noqa: RUF001 - the typographic apostrophe is meant
Change = tuple[int, int, str]


def word_changes(original: str, perturbed: str, expected: int | None = None) -> list[Change]:
    """Returns the changes that turn `original` into `perturbed`, word by word, from left to right.

    Args:
        original: the text before the attack.
        perturbed: the text after it.
        expected: how many words the attack says it changed. A comparison place by place that finds no more is taken;
            otherwise words were put in or taken out, and the texts are aligned, which is slow for long texts.

    Returns:
        Triples (start, end, replacement): original[start:end] became replacement, in UTF-16 code units, which is how
        JavaScript counts (a character beyond U+FFFF is two). An empty span is an insertion, an empty replacement a
        removal. Applied from right to left they give `perturbed` exactly, see `apply_changes`.
    """
    if original == perturbed:
        return []
    before, after = _TOKEN.findall(original), _TOKEN.findall(perturbed)
    places = _starts(before)
    if len(before) == len(after):
        differing = [at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
        if len(differing) <= max(1, expected or 0):
            return [(places[at], places[at + 1], after[at]) for at in differing]
    # The matcher's heuristic leaves out words that are frequent in a long text, blanks above all, as places to align
    # by, and without it a text of 230 words takes half a second.
    steps = difflib.SequenceMatcher(None, before, after).get_opcodes()
    return [
        (places[start], places[end], "".join(after[new_start:new_end]))
        for kind, start, end, new_start, new_end in steps
        if kind != "equal"
    ]


def apply_changes(original: str, changes: list[Change]) -> str:
    """Returns the text that `word_changes` compared `original` with."""
    units = original.encode("utf-16-le", "surrogatepass")
    for start, end, replacement in reversed(changes):
        units = units[: 2 * start] + replacement.encode("utf-16-le", "surrogatepass") + units[2 * end :]
    return units.decode("utf-16-le", "surrogatepass")


def _starts(tokens: list[str]) -> list[int]:
    """Returns where each token starts, and where the last one ends, in UTF-16 code units."""
    places = [0]
    for token in tokens:
        places.append(places[-1] + len(token) + sum(ord(character) > 0xFFFF for character in token))
    return places
