"""The code blocks of a documentation page, so that tests execute what users read."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
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


LANGUAGES = ("", "bash", "console", "sh", "shell")  # of blocks that hold commands; any other block names its language
INLINE = re.compile(
    r"`((?:\.venv/bin/)?(?:python (?:run|benchmarks|docs|-m ckpt_convert)[^\s`]*|make|pytest|pip install)[^`]*)`"
)


@dataclass(frozen=True)
class Documented:
    """A command, or a block of Python, and where it stands."""

    page: str  # from the repository's root
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def pages() -> list[Path]:
    """Returns the README and all pages in docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def fenced(path: Path) -> Iterator[tuple[str, Documented]]:
    """Yields the language and the content of every fenced block of a page."""
    text = path.read_text(encoding="utf-8")
    page = path.relative_to(ROOT).as_posix()
    for found in re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, found.start()) + 2
        yield found[2], Documented(page, line, textwrap.dedent(found[3]))


def commands() -> list[Documented]:
    """Returns every command of the README and of docs/: in blocks, and in the text where it begins with a program."""
    found = []
    for path in pages():
        for language, block in fenced(path):
            if language in LANGUAGES:
                text = re.sub(r"\\\n\s*", " ", block.text)
                for number, line in enumerate(text.splitlines()):
                    line = line.removeprefix("$ ") if language == "console" else line
                    if line.strip() and not line.lstrip().startswith("#"):
                        found.append(Documented(block.page, block.line + number, line.strip()))
        prose = re.sub(
            r"^( *)```.*?^\1```$",
            lambda each: "\n" * each[0].count("\n"),
            path.read_text(encoding="utf-8"),
            flags=re.MULTILINE | re.DOTALL,
        )
        for each in INLINE.finditer(prose):
            line = prose.count("\n", 0, each.start()) + 1
            found.append(Documented(path.relative_to(ROOT).as_posix(), line, " ".join(each[1].split())))
    return found
