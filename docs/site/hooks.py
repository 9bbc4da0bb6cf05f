"""What MkDocs does beyond docs/: pages made of the README and of results/, and links that lead to such files.

Pages are written so that their links work in a clone and on a forge: `../results/accordance.md` from docs/. Here each
link is resolved there, and what it names becomes a part of the site. A link to nothing fails the build (`--strict`).
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import posixpath
import re
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
REPORT = "results/reproduce-cpu"
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
LOADED = re.compile(
    r"""<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//[^"'\s>]+|url\(["']?https?:[^)]*"""
)
log = logging.getLogger("mkdocs.hooks")


def on_config(config: Any) -> Any:
    """Puts pages that mkdocs.yml does not name at the end of the section they belong to."""
    config.nav = completed(config.nav)
    return config


def completed(nav: list[Any]) -> list[Any]:
    """Returns the navigation with every page of docs/, docs/how-to/ and results/; new ones are under their titles."""
    shown = str(nav)
    new: dict[str, list[str]] = {}
    for section, pattern in (("How to", "docs/how-to/*.md"), ("Guides", "docs/*.md"), ("Results", "results/*.md")):
        uris = [uri_of(path.relative_to(ROOT).as_posix()) for path in sorted(ROOT.glob(pattern))]
        new[section] = [uri for uri in uris if f"'{uri}'" not in shown]
    return [{name: [*each, *new[name]] if name in new else each} for entry in nav for name, each in entry.items()]


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages and files that are made of, or lie in, the rest of the repository."""
    pages = {"readme.md": ("README.md", (ROOT / "README.md").read_text(encoding="utf-8"))}
    for path in sorted((ROOT / "results").glob("**/*.md")):
        if path.parent.name not in ("tables", "figures"):  # which are parts of the report
            name = path.relative_to(ROOT).as_posix()
            pages[name] = (name, path.read_text(encoding="utf-8"))
    pages["reproduction-report.md"] = ("docs/reproduction-report.md", report())
    pages["reference/commands.md"] = ("docs/reference/commands.md", commands())
    for page in (each for each in files.documentation_pages() if each.src_uri not in pages):
        page_text = Path(page.abs_src_path).read_text(encoding="utf-8")
        pages[page.src_uri] = (f"docs/{page.src_uri}", page_text)
    for uri, (place, text) in pages.items():
        new = File.generated(config, uri, content=relinked(text, place, uri))
        if old := files.get_file_from_path(uri):
            files.remove(old)
        files.append(new)
        for target in sorted(targets(text, place)):
            site_uri = uri_of(target)
            if files.get_file_from_path(site_uri) is None and (ROOT / target).is_file() and site_uri not in pages:
                files.append(File.generated(config, site_uri, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> None:
    """A page that is a section of its own needs no list of its section's pages beside it."""
    if page.file.src_uri in ("index.md", "design.md"):
        page.meta["hide"] = ["navigation"]


def targets(text: str, place: str) -> set[str]:
    """Returns the paths, from the repository's root, that a text at this place links to."""
    found = (
        each for _, each, _ in LINK.findall(without_code(text)) if "://" not in each and not each.startswith("mailto:")
    )
    return {posixpath.normpath(posixpath.join(posixpath.dirname(place), each)) for each in found}


def uri_of(path: str) -> str:
    """Returns where a file of the repository is in the site."""
    return {"README.md": "readme.md"}.get(path, path.removeprefix("docs/"))


def relinked(text: str, place: str, uri: str) -> str:
    """Returns a text that lay at `place` in the repository with links that hold at `uri` of the site."""

    def link(found: re.Match[str]) -> str:
        if "://" in found[2] or found[2].startswith("mailto:"):
            return found[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(place), found[2]))
        return f"{found[1]}{posixpath.relpath(uri_of(target), posixpath.dirname(uri) or '.')}{found[3]}"

    parts = re.split(r"(^```.*?^```$|`[^`\n]+`)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if number % 2 else LINK.sub(link, part) for number, part in enumerate(parts))


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$|`[^`\n]+`", "", text, flags=re.MULTILINE | re.DOTALL)


def report() -> str:
    """The tables and figures that `run/reproduce.py` wrote, on one page."""
    folder = ROOT / REPORT
    place = "docs/reproduction-report.md"

    def part(name: str) -> str:
        text = relative((folder / name).read_text(encoding="utf-8"), f"{REPORT}/{name}", place)
        text = re.sub(r"^#+ ", "### ", text, flags=re.MULTILINE)
        return re.sub(r"^### ([^\n]*)\n\n(Table \w+)", r"### \2: \1\n\n\2", text, flags=re.MULTILINE)

    tables = "\n\n".join(part(f"tables/{path.name}") for path in sorted((folder / "tables").glob("*.md")))
    return f"""# Reproduction report

Every table and figure here was written by `python run/reproduce.py --preset cpu` from the result files in
`{REPORT}/`. What of the grid has been run, and with what, each caption says. How the grid works:
[Reproducing the paper](reproduction.md). The same with every attacked sentence, on one page of its own:
[report.html](../{REPORT}/report.html). What the paper claims and what these runs say of it:
[claims](../{REPORT}/claims.md).

## Tables

{tables}

## Figures

{part("figures/figures.md")}
"""


def relative(text: str, place: str, new_place: str) -> str:
    """Returns a text that lay at `place` with links that hold at `new_place`, both in the repository."""

    def link(found: re.Match[str]) -> str:
        if "://" in found[2]:
            return found[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(place), found[2]))
        return f"{found[1]}{posixpath.relpath(target, posixpath.dirname(new_place))}{found[3]}"

    return LINK.sub(link, text)


def commands() -> str:
    """The `--help` of every command, as its own parser writes it."""
    parts = [
        "# Commands\n\nWhat `--help` prints of each. In a clone a command is `python run/NAME.py`, after `pip install` "
        "it is `floodx-NAME`; `floodx-convert` is `python -m ckpt_convert`.\n"
    ]
    for name in sorted(path.stem for path in (ROOT / "run").glob("*.py")):
        parts.append(f"## {name}\n\n```text\n{help_of(f'mindspore_floodx.cli.{name}', f'run/{name}.py')}\n```\n")
    parts.append(f"## convert\n\n```text\n{help_of('ckpt_convert.command', 'ckpt_convert')}\n```\n")
    return "\n".join(parts)


def help_of(module: str, program: str) -> str:
    """Returns what the command of this module prints for --help, on every machine in the same width."""
    printed = io.StringIO()
    main = importlib.import_module(module).main
    with (
        mock.patch.dict(os.environ, COLUMNS="90"),
        mock.patch.object(sys, "argv", [program]),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        main(["--help"])
    return printed.getvalue().rstrip()


def on_post_build(config: Any) -> None:
    """Warns, which ends a strict build, of everything that a page would load from the network."""
    for path in sorted(Path(config.site_dir).rglob("*")):
        if path.suffix in (".html", ".css"):
            for found in loaded(path.read_text(encoding="utf-8")):
                log.warning("%s would be loaded from the network by %s", found, path.relative_to(config.site_dir))


def loaded(content: str) -> list[str]:
    """Returns what a page or style sheet loads from elsewhere; a link that a reader may follow is none of it."""
    return LOADED.findall(content)
