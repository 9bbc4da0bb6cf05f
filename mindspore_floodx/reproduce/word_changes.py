"""Which words an attack changed: the spans of the original text that it replaced, and by what."""

from __future__ import annotations

import difflib
import re

# A word with the blanks after it: blanks of their own would be what a text has most of, and slow to align by.
_TOKEN = re.compile(r"(?:\w+(?:['’\-_*@]\w+)*|[^\w\s])\s*|\s+")  # noqa: RUF001 - the typographic apostrophe is meant
Change = tuple[int, int, str]


def word_changes(original: str, perturbed: str, expected: int | None = None) -> list[Change]:
    """Returns the changes that turn `original` into `perturbed`, word by word, from left to right.

    Args:
        original: the text before the attack.
        perturbed: the text after it.
        expected: how many words the attack says it changed. A comparison place by place that finds no more is taken;
            otherwise words were put in or taken out, and the texts are aligned, which takes longer.

    Returns:
        Triples (start, end, replacement): original[start:end] became replacement, in UTF-16 code units, which is how
        JavaScript counts (a character beyond U+FFFF is two). An empty span is an insertion, an empty replacement a
        removal. Applied from right to left they give `perturbed` exactly, see `apply_changes`.
    """
    if original == perturbed:
        return []
    before, after = _TOKEN.findall(original), _TOKEN.findall(perturbed)
    steps = [(at, at + 1, at, at + 1) for at, (old, new) in enumerate(zip(before, after, strict=False)) if old != new]
    if len(before) != len(after) or len(steps) > max(1, expected or 0):
        matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
        steps = [(a, b, c, d) for kind, a, b, c, d in matcher.get_opcodes() if kind != "equal"]
    places = _starts(before)
    changes = []
    for a, b, c, d in steps:
        old, new = "".join(before[a:b]), "".join(after[c:d])
        blanks = len(old) - len(old.rstrip())
        while blanks and not new.endswith(old[len(old) - blanks :]):
            blanks -= 1
        changes.append((places[a], places[b] - blanks, new[: len(new) - blanks]))
    return changes


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
