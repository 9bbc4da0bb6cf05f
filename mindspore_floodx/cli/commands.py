"""The console commands: `floodx-train` is `python run/train.py`, and so on. Each module is imported when it is run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from ..errors import run_command


def _run(module: str) -> None:
    run_command(importlib.import_module(module).main)


def command_line(name: str, options: Sequence[str] = ()) -> list[str]:
    """Returns what starts one of these commands as a process of its own, with this interpreter."""
    return [sys.executable, "-c", f"from mindspore_floodx.cli.commands import {name}; {name}()", *options]


def train() -> None:
    _run("mindspore_floodx.cli.train")


def data() -> None:
    _run("mindspore_floodx.cli.data")


def attack() -> None:
    _run("mindspore_floodx.cli.attack")


def resources() -> None:
    _run("mindspore_floodx.cli.resources")


def compare() -> None:
    _run("mindspore_floodx.cli.compare")


def textattack_files() -> None:
    _run("mindspore_floodx.cli.textattack_files")


def model_card() -> None:
    _run("mindspore_floodx.cli.model_card")


def track() -> None:
    _run("mindspore_floodx.cli.track")


def accordance() -> None:
    _run("mindspore_floodx.cli.accordance")


def sweep() -> None:
    _run("mindspore_floodx.cli.sweep")


def smoothness() -> None:
    _run("mindspore_floodx.cli.smoothness")


def timing() -> None:
    _run("mindspore_floodx.cli.timing")


def standin_mlm() -> None:
    _run("mindspore_floodx.cli.standin_mlm")


def reproduce() -> None:
    _run("mindspore_floodx.cli.reproduce")


def demo() -> None:
    _run("mindspore_floodx.cli.demo")


def doctor() -> None:
    _run("mindspore_floodx.cli.doctor")


def playground() -> None:
    _run("mindspore_floodx.cli.playground")


def convert() -> None:
    _run("ckpt_convert.command")
