"""Attacks, conversions and grids that are killed with SIGKILL and given again; see chaos.py.

Each function runs a command once undisturbed and once killed so many times, and returns a row of the result file.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from killed_runs import Command, lines, wait_for_progress
from training_files import make_training_files

from mindspore_floodx.pretrained import find_model

ATTACK, CONVERT = "mindspore_floodx.cli.attack", "ckpt_convert.command"
REPRODUCE = "chaos_grid"  # mindspore_floodx.cli.reproduce, with forks for its steps
TABLE_OF_TIMES = "table3b"
Contents = dict[str, Any]


def kill_until_done(
    start: Callable[[int], Command],
    kill: Callable[[Command, int], str],
    progress: Callable[[], int],
    total: int,
    kills: int,
    seed: int,
    longest: float,
) -> list[str]:
    """Starts a command and kills it, again and again, at moments spread over its work; then lets it end.

    Of four kills three come up to 0.1 s after a piece of work that was yet to be done, and one at any time within the
    first `longest` seconds of the process, its start included.

    Args:
        start: starts the command; is told the number of kills so far.
        kill: kills it and says how.
        progress: how many of `total` pieces of work are done.

    Returns:
        what was killed, a line each; fewer than `kills` where the command ended before.
    """
    moments, killed = random.Random(seed), list[str]()
    for turn in range(kills):
        command = start(turn)
        if turn % 4 == 3:
            time.sleep(moments.uniform(0, longest))
        else:
            wait_for_progress(command, progress, round(total * (turn + moments.random()) / kills))
            time.sleep(moments.uniform(0, 0.1))
        before, how = progress(), kill(command, turn)
        if command.process.exitcode == 0:
            break
        killed.append(f"after {before} of {total}{how}")
    for turn in range(3):  # one that met the last one's child as it ended may say so, and be given once more
        command = start(kills + turn)
        if command.end() == 0:
            return killed
    raise RuntimeError(command.said())


def compared(first: Contents, second: Contents) -> dict[str, Any]:
    names = first.keys() | second.keys()
    different = sorted(name for name in names if first.get(name) != second.get(name))
    return {"files": len(names), "equal": len(names) - len(different), "different": different}


def without_times(content: Any) -> Any:
    """Returns JSON content without the fields that are times."""
    if isinstance(content, dict):
        kept = {name: each for name, each in content.items() if "seconds" not in name and name != "tokens_per_second"}
        return {name: without_times(each) for name, each in kept.items()}
    return [without_times(each) for each in content] if isinstance(content, list) else content


# ---- attack


def kill_attacks(kills: int, seed: int, victim: Path, examples: int, folder: Path) -> dict[str, Any]:
    """Attacks a trained model with two attacks by one command, every fifth time with two workers."""
    started = time.monotonic()
    names = ["synonym", "deepwordbug"]
    common = [str(victim), "--attack", *names, "--resources", "standin", "--num-examples", str(examples)]
    whole, output, said = folder / "whole", folder / "killed", folder / "said.txt"

    def start(turn: int) -> Command:
        workers = "2" if turn % 5 == 4 else "1"
        return Command([*common, "--output-dir", str(output), "--workers", workers], said, ATTACK)

    def kill(command: Command, turn: int) -> str:
        alone = not command.children()
        command.kill() if turn % 2 else command.kill_all()
        return "" if alone else " with workers"

    def progress() -> int:
        return sum(lines(output / "attacks" / name / "examples.jsonl") for name in names)

    if Command([*common, "--output-dir", str(whole), "--workers", "1"], said, ATTACK).end() != 0:
        raise RuntimeError(said.read_text())
    killed = list[str]()
    row: dict[str, Any] = {"kills": 0, "rounds": 0}
    while len(killed) < kills:
        shutil.rmtree(output, ignore_errors=True)
        killed += kill_until_done(start, kill, progress, len(names) * examples, kills - len(killed), seed, 10.0)
        row = {"kills": len(killed), "rounds": row["rounds"] + 1}
        row |= compared(attack_files(whole), attack_files(output))
        if row["different"]:
            break
        seed += 1000
    queries = {name: json.loads((whole / "attacks" / name / "summary.json").read_text()) for name in names}
    return row | {
        "examples": len(names) * examples,
        "queries": {name: summary["avg_queries"] for name, summary in queries.items()},
        "killed": killed,
        "seconds": round(time.monotonic() - started),
    }


def attack_files(output: Path) -> Contents:
    """Returns the content of an attack's files; of those with times in them, the rest."""
    found: Contents = {}
    for path in sorted((output / "attacks").rglob("*")):
        name = str(path.relative_to(output))
        if path.name in ("summary.json", "clean.json"):
            found[name] = without_times(json.loads(path.read_text()) | {"workers": None})
        elif path.name == "seconds.jsonl":
            found[name] = sorted(json.loads(line)["id"] for line in path.read_text().splitlines())
        elif path.is_file() and path.name != ".lock":
            found[name] = path.read_bytes()
    return found


# ---- conversion


def kill_conversions(kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Converts MiniLM over a former result, in both directions and formats; the result is the former or the new one."""
    minilm = find_model("minilm")
    models = {}
    for number, name in enumerate(("former", "new")):
        models[name] = folder / f"{name}-mindspore"
        words = ["to-mindspore", str(minilm), str(models[name]), "--num-labels", "2", "--seed", str(number)]
        if Command(words, folder / "said.txt", CONVERT).end() != 0:
            raise RuntimeError((folder / "said.txt").read_text())
    rows = {"to-pytorch": _kill_conversion(["to-pytorch"], models, kills, seed, folder / "to-pytorch")}
    for name, model in models.items():
        target = folder / f"{name}-pytorch"
        if Command(["to-pytorch", str(model), str(target)], folder / "said.txt", CONVERT).end() != 0:
            raise RuntimeError((folder / "said.txt").read_text())
        models[name] = target
    for number, form in enumerate(("safetensors", "ckpt"), 1):
        words, place = ["to-mindspore", "--format", form], folder / f"to-mindspore-{form}"
        rows[place.name] = _kill_conversion(words, models, kills, seed + number, place)
    return rows


def _kill_conversion(words: list[str], sources: dict[str, Path], kills: int, seed: int, folder: Path) -> dict[str, Any]:
    started, moments = time.monotonic(), random.Random(seed)
    folder.mkdir()
    target, said = folder / "target", folder / "said.txt"

    def convert(name: str, place: Path, change: int | None = None) -> Command:
        return Command([words[0], str(sources[name]), str(place), *words[1:]], said, CONVERT, change)

    wholes = {}
    for name in sources:
        if convert(name, folder / name).end() != 0:
            raise RuntimeError(said.read_text())
        wholes[name] = folder_content(folder / name)
    assert wholes["former"] != wholes["new"]

    def put_former() -> None:  # links, since a conversion writes no file twice
        shutil.copytree(folder / "former", target, copy_function=os.link)

    put_former()
    begun = time.monotonic()
    if convert("new", target).end() != 0 or folder_content(target) != wholes["new"]:
        raise RuntimeError(said.read_text())
    longest = time.monotonic() - begun
    seen, left, change = Counter[str](), 0, 0
    while True:  # at random times, and then at every change that the command makes to a file
        shutil.rmtree(target)
        put_former()
        at_random = sum(count for name, count in seen.items() if name.endswith("random time")) < kills
        if at_random:
            command = convert("new", target)
            time.sleep(moments.uniform(0, longest))
            status, kind = command.kill(), "at a random time"
        else:
            change += 1
            status, kind = convert("new", target, change).end(), "at every change of a file"
        if status not in (0, -signal.SIGKILL):
            raise RuntimeError(said.read_text())
        if status == 0 and not at_random:
            break
        found = folder_content(target) if target.is_dir() else {}
        what = next((name for name, content in wholes.items() if content == found), "neither")
        seen[f"{what}, killed {kind}" if status else "new, had ended"] += 1
        for path in folder.glob(".*"):
            left += 1
            shutil.rmtree(path)
    killed = sum(count for name, count in seen.items() if "killed" in name)
    bad = sum(count for name, count in seen.items() if name.startswith("neither"))
    return {
        "kills": killed,
        "former result or new one whole": killed - bad,
        "neither": bad,
        "found": dict(sorted(seen.items())),
        "hidden temporary folders left": left,
        "milliseconds undisturbed": round(1000 * longest),
        "seconds": round(time.monotonic() - started),
    }


def folder_content(folder: Path) -> Contents:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- grid


def kill_grids(kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Runs a grid of one cell: training, attack, tables, figures and report.

    In turn the grid with everything that it started is killed, or the grid alone, or the step that it waits for.
    """
    started = time.monotonic()
    model = make_training_files(folder, find_model("minilm"))["model"]
    settings = {"model": model, "max_length": 64, "max_train_examples": 80, "batch_size": 8, "threads": 1}
    settings |= {"epochs": 3, "learning_rate": 1e-3, "checkpoint_every_steps": 2}
    examples, steps = 30, 30
    grid = {
        "name": "chaos",
        "settings": settings,
        "attacks": ["synonym"],
        "num_examples": examples,
        "calibrate": False,
        "datasets": {"demo": {"methods": {"flooding": {"seeds": [0], "settings": {"flood_level": 0.6}}}}},
    }
    (folder / "grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False), encoding="utf-8")
    whole, output, said = folder / "whole", folder / "killed", folder / "said.txt"
    run, cell = output / "runs" / "demo-flooding-0", output / "cells" / "demo-flooding-0"

    def start(turn: int, place: Path = output) -> Command:
        return Command(["--preset", str(folder / "grid.yaml"), "--output-dir", str(place)], said, REPRODUCE)

    def kill(command: Command, turn: int) -> str:
        children = command.children()
        if turn % 3 == 0 or not children:
            command.kill_all()
            return ", all processes" if children else ""
        if turn % 3 == 1:
            command.kill()
            return ", the grid alone"
        with contextlib.suppress(ProcessLookupError):
            os.kill(children[0], signal.SIGKILL)
        command.end()
        return ", its step alone"

    def progress() -> int:
        trained = max(lines(run / "log.csv") - 1, 0)
        attacked = lines(run / "attacks" / "synonym" / "examples.jsonl")
        files = [cell / "result.json", *(output / name for name in ("tables", "figures", "claims.md", "report.html"))]
        return trained + attacked + sum(path.exists() for path in files)

    if start(0, whole).end() != 0:
        raise RuntimeError(said.read_text())
    killed = list[str]()
    row: dict[str, Any] = {"kills": 0, "rounds": 0}
    while len(killed) < kills:
        shutil.rmtree(output, ignore_errors=True)
        killed += kill_until_done(start, kill, progress, steps + examples + 5, kills - len(killed), seed, 20.0)
        row = {"kills": len(killed), "rounds": row["rounds"] + 1}
        row |= compared(grid_files(whole), grid_files(output))
        if row["different"]:
            break
        seed += 1000
    return row | {"killed": killed, "seconds": round(time.monotonic() - started)}


def grid_files(output: Path) -> Contents:
    """Returns the content of a grid's results, tables, figures and pages; of those with times in them, the rest."""
    found: Contents = {}
    for path in sorted(output.rglob("*")):
        name = str(path.relative_to(output))
        if name.startswith("runs") or not path.is_file() or path.name == ".lock":
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            found[name] = without_times(json.loads(text))
        elif path.name == "report.html":
            found[name] = re.sub(f'<details[^>]*id="{TABLE_OF_TIMES}">.*?</details>', "", text, flags=re.DOTALL)
        else:
            found[name] = None if path.stem == TABLE_OF_TIMES else text
    return found
