"""Writes the map of the code in docs/design.md: every file, with the first sentence of its docstring.

    python docs/site/code_map.py            # after a file was added, moved or described anew

A file stands in the first group one of whose patterns fits; what fits none stands at the end.
"""

from __future__ import annotations

import ast
import re
from fnmatch import fnmatch
from pathlib import Path

from mindspore_floodx.files import write_text

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "design.md"
FOLDERS = ("mindspore_floodx", "ckpt_convert")
GROUPS = {
    "Commands": "mindspore_floodx/cli/*",
    "Settings and run folders": "*/settings.py */methods.py */runs.py */run_*.py */lock.py */files.py",
    "Data": "*/data.py */official.py */hub.py */imdb.py */readers.py */splits.py */demo_corpus.py */encoding.py",
    "Model": "*/bert.py */layers.py */model_config.py */pretrained.py */optim.py */evaluation.py",
    "Training": "*/train*.py */monitor.py */accordance*.py */flood_level.py */callbacks.py *_floodx/flooding.py",
    "Several devices and machines": "*/distributed.py */collectives.py */parts.py */accumulation.py */ray_*.py",
    "Speed and memory": "*/prefetch.py */loss_scale.py",
    "Training methods": "mindspore_floodx/defences/*",
    "Device": "*/device.py */cuda_*.py */self_check.py */doctor.py",
    "Attacks": "*/attack*.py */textattack_files.py",
    "Resources of attacks": "*/resource_*.py */counter_fitted.py */standin_*.py",
    "Files from strangers": "*/untrusted.py */archives.py */safe_pickle.py */errors.py",
    "Measurements and pictures": "*/smoothness.py */timing.py */comparison.py */plots.py */model_card.py",
    "Tables and figures of the paper": "mindspore_floodx/reproduce/*",
    "Playground": "mindspore_floodx/playground/*",
    "Other tools": "*/mindnlp_*.py */mlflow_*.py",
    "Conversion": "ckpt_convert/*",
}
REST = "Others"


def sentence(path: Path) -> str:
    """Returns the first sentence of a module's docstring.

    Raises:
        ValueError: it has none.
    """
    words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if words is None:
        raise ValueError(f"{path} has no docstring; say in a sentence what it is for")
    return " ".join(words.split("\n\n")[0].split()).replace("|", "\\|")


def files() -> list[str]:
    """Returns the paths, from the root, of all modules; those with less than a docstring and a line are left out."""
    paths = (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))
    return [path.relative_to(ROOT).as_posix() for path in paths if path.name not in ("__init__.py", "__main__.py")]


def code_map() -> str:
    """Returns the map as Markdown: a table a group."""
    groups: dict[str, list[str]] = {name: [] for name in (*GROUPS, REST)}
    for path in files():
        names = (name for name, patterns in GROUPS.items() if any(fnmatch(path, each) for each in patterns.split()))
        groups[next(names, REST)].append(path)
    parts = []
    for name, paths in groups.items():
        if paths:
            rows = "\n".join(f"| `{path}` | {sentence(ROOT / path)} |" for path in paths)
            parts.append(f"### {name}\n\n| file | what it is for |\n|---|---|\n{rows}")
    return "\n\n".join(parts)


def mapped(text: str) -> str:
    """Returns the page with the map of today."""
    marked = re.compile(r"(<!-- code-map:begin[^>]*-->\n).*?(<!-- code-map:end -->)", re.DOTALL)
    if not marked.search(text):
        raise ValueError("docs/design.md has no place for the map of the code")
    return marked.sub(lambda found: f"{found[1]}{code_map()}\n{found[2]}", text)


if __name__ == "__main__":
    write_text(PAGE, mapped(PAGE.read_text(encoding="utf-8")))
