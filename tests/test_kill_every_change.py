"""SIGKILL before every single change that a write makes to files and folders: the former content or the new one."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import warnings

import numpy as np
import pytest
from killed_runs import kill_at_change

from mindspore_floodx import run_state
from mindspore_floodx.attack_journal import Journal, read_records
from mindspore_floodx.files import replacing_folder, write_json
from mindspore_floodx.lock import locked

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def kills(work, prepare):
    """Prepares, does the work in a process that is killed before a change, and yields; so for every change in turn."""
    for change in itertools.count(1):
        prepare()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the child runs no other thread's code
            process = os.fork()
        if process == 0:
            kill_at_change(change)
            work()
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if status == 0:
            assert change > 1
            return
        assert status == -signal.SIGKILL
        yield change


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can let two folders change places")
def test_a_folder_is_the_former_or_the_new_one(tmp_path):
    target = tmp_path / "model"

    def write(content):
        with replacing_folder(target) as folder:
            for name, text in content.items():
                (folder / name).write_text(text)

    former, new = {"config": "1", "weights": "2"}, {"config": "3", "weights": "4", "more": "5"}
    found = []
    for _ in kills(lambda: write(new), lambda: write(former)):
        found.append({path.name: path.read_text() for path in target.iterdir()})
        assert found[-1] in (former, new)
    assert former in found and new in found


def test_a_file_is_the_former_or_the_new_one(tmp_path):
    path = tmp_path / "summary.json"
    found = []
    for _ in kills(lambda: write_json(path, {"a": 2}), lambda: write_json(path, {"a": 1})):
        found.append(path.read_text())
    assert {text.split()[2] for text in found} <= {"1", "2"} and len(found) >= 3


def test_a_state_is_there_whatever_is_killed(tmp_path):
    import safetensors.numpy  # noqa: F401  imported once, not in every child

    def save(step):
        run_state.save(tmp_path, step, {"step": step}, {"model/weight": np.full(1000, step, np.float32)})

    def prepare():
        shutil.rmtree(tmp_path / "state", ignore_errors=True)
        save(1)
        save(2)

    found = []
    for _ in kills(lambda: save(3), prepare):
        state = run_state.load(tmp_path)
        found.append(state.progress["step"])
        assert (state.arrays["model/weight"] == found[-1]).all()
    assert set(found) == {2, 3}


RECORDS = [{"id": id, "result": "failed", "queries": 3, "num_words": 4, "seconds": 0.5} for id in range(4)]


def attack(folder, fingerprint="ff"):
    """As much of an attack as writes files: those examples are added that are not done."""
    with locked(folder):
        journal = Journal(folder, {}, fingerprint, [record["id"] for record in RECORDS])
        for record in RECORDS:
            if record["id"] not in journal.done:
                journal.add(record)
        journal.finish()


def test_a_journal_keeps_what_is_finished_and_ends_the_same(tmp_path):
    attack(tmp_path / "whole")
    folder = tmp_path / "killed"

    def prepare():
        shutil.rmtree(folder, ignore_errors=True)
        Journal(folder, {}, "ff", [0, 1, 2, 3]).add(RECORDS[0])

    for _ in kills(lambda: attack(folder), prepare):
        assert read_records(folder / "examples.jsonl")[0]["result"] == "failed"
        attack(folder)
        for name in ("examples.jsonl", "examples.parquet", "settings.json"):
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
        assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


def test_older_results_are_somewhere_whatever_is_killed(tmp_path):
    folder = tmp_path / "attacks" / "synonym"

    def prepare():
        shutil.rmtree(tmp_path / "attacks", ignore_errors=True)
        attack(folder, "aa")

    for _ in kills(lambda: attack(folder, "bb"), prepare):
        places = [folder, *(tmp_path / "attacks" / "previous").glob("[!.]*")]
        kept = [place for place in places if '"aa"' in (place / "settings.json").read_text()]
        assert any(len(read_records(place / "examples.jsonl")) == len(RECORDS) for place in kept)
