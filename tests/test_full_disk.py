"""A disk that is really full: one sentence, the former results stay, and with room the same command goes on."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from ckpt_convert import command
from mindspore_floodx import run_state
from mindspore_floodx.attack_journal import Journal, read_records
from mindspore_floodx.errors import UserError
from mindspore_floodx.files import write_json
from mindspore_floodx.pretrained import read_weights
from mindspore_floodx.reproduce import cells
from mindspore_floodx.reproduce.cells import Places, run_grid
from mindspore_floodx.reproduce.grid import read_grid

SIZE = 1 << 20


@pytest.fixture
def disk(tmp_path):
    """A file system of one megabyte in memory, mounted for one test."""
    place = tmp_path / "disk"
    place.mkdir()
    if not sys.platform.startswith("linux") or shutil.which("mount") is None:
        pytest.skip("no small disk: mounting needs Linux and its command mount")
    options = ["-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small disk: {done.stderr.strip() or 'mounting is not allowed'}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk, free=0):
    """Leaves so many bytes of the disk; returns the file that takes the rest."""
    filler = disk / "filler"
    with open(filler, "wb") as file:
        status = os.statvfs(disk)
        file.write(b"\1" * max(status.f_bavail * status.f_bsize - free, 0))
    return filler


def hidden(folder):
    return [path.name for path in folder.rglob(".*") if path.name not in (".lock", ".lock-owner")]


def test_the_disk_is_full_when_it_is_filled(disk):
    fill(disk)
    with pytest.raises(OSError) as full, open(disk / "more", "wb", buffering=0) as file:
        file.write(b"\1" * 10_000)
    assert full.value.errno == errno.ENOSPC


def test_under_a_state(disk):
    arrays = {"model/weight": np.arange(50_000, dtype=np.float32)}
    run_state.save(disk, 1, {"step": 1}, arrays)
    filler = fill(disk, 100_000)
    with pytest.raises(UserError) as refused:
        run_state.save(disk, 2, {"step": 2}, arrays)
    said = str(refused.value)
    assert said.startswith(f"cannot write the run's state to {disk / 'state'}: ") and "\n" not in said
    assert "No space left" in said and "the last good one is of step 1" in said
    assert run_state.load(disk).progress == {"step": 1} and hidden(disk) == []
    filler.unlink()
    run_state.save(disk, 2, {"step": 2}, arrays)
    assert run_state.load(disk).progress == {"step": 2}


def test_under_a_journal(disk):
    records = [{"id": id, "result": "failed", "queries": 1, "text": "x" * 20_000, "seconds": 1.0} for id in range(30)]

    def attack(folder):
        journal = Journal(folder, {}, "ff", list(range(30)))
        for record in records:
            if record["id"] not in journal.done:
                journal.add(record)
        return journal.finish()

    filler = fill(disk, 300_000)
    with pytest.raises(UserError, match=r"cannot write .*examples.jsonl: No space left.*; make room and run the same"):
        attack(disk / "a")
    kept = read_records(disk / "a" / "examples.jsonl")
    assert 5 < len(kept) < 30 and all(record["text"] == "x" * 20_000 for record in kept.values())
    filler.unlink()
    shutil.copytree(disk / "a", disk.parent / "a")  # the sorted copy needs twice the room
    assert attack(disk.parent / "a") == records
    attack(disk.parent / "whole")
    whole = (disk.parent / "whole" / "examples.jsonl").read_bytes()
    assert (disk.parent / "a" / "examples.jsonl").read_bytes() == whole


@pytest.mark.parametrize("form", ["safetensors", "ckpt"])
def test_under_a_conversion(disk, tmp_path, form):
    rng = np.random.default_rng(0)
    config = {"model_type": "bert", "vocab_size": 500, "hidden_size": 16, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 16, "type_vocab_size": 2}
    from ckpt_convert.convert import save_mindspore_folder
    from ckpt_convert.names import expected_shapes, mindspore_name
    from mindspore_floodx.model_config import with_labels

    shapes = expected_shapes(with_labels(config, 2))
    for name in ("former", "new"):
        tensors = {mindspore_name(key): rng.random(shape, dtype=np.float32) for key, shape in shapes.items()}
        save_mindspore_folder(tmp_path / name, with_labels(config, 2), tensors)
        assert command.main(["to-pytorch", str(tmp_path / name), str(tmp_path / f"{name}-pytorch")]) == 0

    def convert(name):
        words = ["to-mindspore", str(tmp_path / f"{name}-pytorch"), str(disk / "model"), "--format", form]
        return command.main(words)

    assert convert("former") == 0
    before = {path.name: path.read_bytes() for path in (disk / "model").iterdir()}
    filler = fill(disk, 20_000)
    with pytest.raises(UserError) as refused:
        convert("new")
    assert str(refused.value).startswith("cannot write ") and "No space left" in str(refused.value)
    assert {path.name: path.read_bytes() for path in (disk / "model").iterdir()} == before and hidden(disk) == []
    filler.unlink()
    assert convert("new") == 0
    assert {path.name: path.read_bytes() for path in (disk / "model").iterdir()} != before
    assert read_weights(tmp_path / "new-pytorch").keys() == set(shapes)


def test_under_the_results_of_a_grid(disk, tmp_path, monkeypatch):
    """The cell's work is a stand-in; what runs it and writes is not."""
    cell = {"demo": {"methods": {"finetune": {"seeds": [0]}}}}
    grid = {"name": "small", "settings": {"model": "minilm"}, "attacks": ["synonym"], "num_examples": 1}
    (tmp_path / "grid.yaml").write_text(json.dumps(grid | {"datasets": cell}))
    content = {"id": "demo-finetune-0", "texts": ["x" * 1000] * 200}
    monkeypatch.setattr(
        cells, "run_cell", lambda cell, places, *_: write_json(places.cell(cell.id) / "result.json", content)
    )
    places = Places(disk / "out", tmp_path / "runs")
    (disk / "out").mkdir()
    filler = fill(disk, 50_000)
    outcome = run_grid(read_grid(tmp_path / "grid.yaml"), places, print)
    assert "No space left" in outcome.failed["demo-finetune-0"] and "result.json" in outcome.failed["demo-finetune-0"]
    assert not (places.cell("demo-finetune-0") / "result.json").exists() and hidden(disk) == []
    (places.cell("demo-finetune-0") / "failed.json").unlink()
    more = (disk / "more").open("wb")
    more.write(b"\1" * (os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize))
    more.close()
    with pytest.raises(UserError, match="cannot write .*No space left"):  # not even what went wrong can be written
        run_grid(read_grid(tmp_path / "grid.yaml"), places, print)
    assert hidden(disk) == []
    filler.unlink()
    assert run_grid(read_grid(tmp_path / "grid.yaml"), places, print).finished == ["demo-finetune-0"]
    assert json.loads((places.cell("demo-finetune-0") / "result.json").read_text()) == content
