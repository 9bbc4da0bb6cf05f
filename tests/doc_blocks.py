"""The code blocks of a documentation page, so that tests execute what users read."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def blocks(page: str, language: str, heading: str) -> list[str]:
    """Returns the blocks of a language in the section of `heading` (without the #s) of docs/<page>."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    section = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None, f"docs/{page} has no section {heading!r}"
    found = re.findall(rf"^```{language}\n(.*?)^```$", section[1], re.MULTILINE | re.DOTALL)
    assert found, f"docs/{page}, section {heading!r}, has no {language} block"
    return found
