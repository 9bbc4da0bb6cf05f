"""What an attack leaves out of TextAttack's work without changing a result; each saving can be switched off."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from .errors import UserError, nearest


@dataclass(frozen=True)
class Savings:
    """Switches, all on by default. With all of them off an attack does what TextAttack 0.3.11 does, as it does it."""

    padding: bool = True  # victim and masked LM: texts padded to the longest of their batch, not to the model's maximum
    runtime: bool = True  # victim and MiniLM encoder, on the CPU: `attack_forward.PackedBert`, float32
    repeats: bool = True  # victim and MiniLM encoder: inputs with equal tokens computed once within an example
    encodings: bool = (
        True  # sentence encoder: each distinct sentence once, none whose score the recipe does not ask for
    )
    products: bool = True  # BERT-Attack: combinations of sub-words made one by one until there are enough
    words: bool = True  # the words of a piece of text found once
    tags: bool = True  # part-of-speech tags kept from one example to the next

    def without(self, names: Iterable[str]) -> Savings:
        """Returns these savings with those called `names` switched off.

        Raises:
            UserError: there is no saving of that name.
        """
        for name in names:
            if name not in NAMES:
                raise UserError(f"there is no saving {name!r}{nearest(name, NAMES)}; choose among {', '.join(NAMES)}")
        return replace(self, **dict.fromkeys(names, False))

    def off(self) -> list[str]:
        """Returns the names of the savings that are switched off."""
        return [name for name in NAMES if not getattr(self, name)]


NAMES = tuple(field.name for field in fields(Savings))
NO_SAVINGS = Savings().without(NAMES)
