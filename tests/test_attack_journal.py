from __future__ import annotations

import json
import os

import pytest

from mindspore_floodx import attack_journal
from mindspore_floodx.attack_journal import Journal, read_records
from mindspore_floodx.errors import UserError


def record(id, **more):
    return {"id": id, "result": "failed", "queries": 5, **more}


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_record_is_on_disk_at_once_and_the_final_file_is_sorted(tmp_path):
    journal = Journal(tmp_path / "textfooler", {"seed": 0}, "aa", [1, 4, 7])
    for id in (7, 1, 4):
        journal.add(record(id))
        assert lines(journal.path)[-1]["id"] == id
    assert [r["id"] for r in journal.finish()] == [1, 4, 7]
    assert [r["id"] for r in lines(journal.path)] == [1, 4, 7]


def test_a_killed_run_goes_on_without_its_torn_line(tmp_path):
    first = Journal(tmp_path / "a", {"seed": 0}, "aa", [1, 2, 3])
    first.add(record(1, original={"text": "naïve"}))
    first.add(record(2))
    whole = first.path.read_bytes()
    first.path.write_bytes(whole[:-9])
    second = Journal(tmp_path / "a", {"seed": 0}, "aa", [1, 2, 3])
    assert set(second.done) == {1}
    second.add(record(2))
    second.add(record(3))
    second.finish()
    assert [r["id"] for r in lines(second.path)] == [1, 2, 3]


def test_a_larger_sample_takes_over_what_is_there(tmp_path):
    first = Journal(tmp_path / "a", {}, "aa", [1, 2])
    first.add(record(1))
    first.add(record(2))
    assert set(Journal(tmp_path / "a", {}, "aa", [1, 2, 3]).done) == {1, 2}
    assert not (tmp_path / "previous").exists()


def test_results_of_other_settings_are_set_aside_not_mixed_and_not_lost(tmp_path):
    first = Journal(tmp_path / "a", {"seed": 0}, "aa" * 8, [1, 2])
    first.add(record(1, queries=99))
    (tmp_path / "a" / "summary.json").write_text("{}")
    second = Journal(tmp_path / "a", {"seed": 1}, "bb" * 8, [1, 2])
    assert second.done == {}
    assert lines(second.path) == []
    assert not (tmp_path / "a" / "summary.json").exists()
    kept = tmp_path / "previous" / ("a-" + ("aa" * 8)[:12])
    assert lines(kept / "examples.jsonl")[0]["queries"] == 99
    assert json.loads((kept / "settings.json").read_text())["seed"] == 0


def test_a_smaller_sample_keeps_the_larger_one_aside(tmp_path):
    first = Journal(tmp_path / "a", {}, "cc", [1, 2])
    first.add(record(1))
    first.add(record(2))
    second = Journal(tmp_path / "a", {}, "cc", [2])
    assert [r["id"] for r in lines(second.path)] == [2]
    assert len(lines(tmp_path / "previous" / "a-cc" / "examples.jsonl")) == 2


def test_results_set_aside_are_never_replaced(tmp_path):
    for fingerprint, ids in (("aa", [1, 2]), ("bb", [1]), ("aa", [1]), ("bb", [1])):
        journal = Journal(tmp_path / "a", {}, fingerprint, ids)
        for id in ids:
            journal.add(record(id, by=fingerprint))
    kept = {path.name: len(lines(path / "examples.jsonl")) for path in (tmp_path / "previous").iterdir()}
    assert kept == {"a-aa": 2, "a-bb": 1, "a-aa-2": 1}


def test_a_kill_while_results_are_set_aside_loses_none(tmp_path, monkeypatch):
    """Stopped before each step that writes to the disk, in turn; then the call is repeated."""
    steps = [
        (attack_journal, "replacing_folder"),
        (attack_journal.os, "replace"),
        (attack_journal.Path, "unlink"),
        (attack_journal, "replacing"),
        (attack_journal, "write_json"),
    ]
    for number, (place, name) in enumerate(steps):
        folder = tmp_path / str(number) / "a"
        Journal(folder, {}, "aa", [1]).add(record(1))
        with monkeypatch.context() as patch:
            patch.setattr(place, name, lambda *args, **more: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                Journal(folder, {}, "bb", [1])
        assert Journal(folder, {}, "bb", [1]).done == {}
        kept = [read_records(path) for path in folder.parent.glob("previous/a-aa*/examples.jsonl")]
        assert {1: record(1)} in kept
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_files_that_a_kill_left_half_written_go_and_the_lock_stays(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    for name in (".examples-x_1.jsonl", ".summary-ab.json", ".lock", ".lock-owner"):
        (folder / name).write_text("{")
    Journal(folder, {}, "aa", [1])
    hidden = {path.name for path in folder.iterdir() if path.name.startswith(".")}
    assert hidden == {".lock", ".lock-owner"}


def test_texts_may_hold_what_python_takes_for_ends_of_lines(tmp_path):
    text = "one\x85two\u2028three\x0bfour\rfive\nsix"
    first = Journal(tmp_path / "a", {}, "aa", [1, 2])
    first.add(record(1, original={"text": text}))
    again = Journal(tmp_path / "a", {}, "aa", [1, 2])
    assert again.done[1]["original"]["text"] == text


def test_the_time_is_kept_but_not_in_the_result_file(tmp_path):
    first = Journal(tmp_path / "a", {}, "aa", [1, 2])
    first.add({"seconds": 0.25, **record(2)})
    first.add(record(1, seconds=0.5))
    assert [r["seconds"] for r in first.finish()] == [0.5, 0.25]
    assert lines(first.path) == [record(1), record(2)]
    again = Journal(tmp_path / "a", {}, "aa", [1, 2])
    assert [again.done[id]["seconds"] for id in (1, 2)] == [0.5, 0.25]
    (tmp_path / "a" / "seconds.jsonl").unlink()  # a result is worth more than its time
    assert [r["seconds"] for r in Journal(tmp_path / "a", {}, "aa", [1, 2]).finish()] == [None, None]


@pytest.mark.parametrize("name", ["examples.jsonl", "seconds.jsonl"])
def test_a_full_disk_is_said_and_loses_nothing(tmp_path, name):
    journal = Journal(tmp_path / "a", {}, "aa", [1, 2])
    journal.add(record(1))
    path = tmp_path / "a" / name
    kept = path.read_bytes()
    path.unlink()
    path.symlink_to("/dev/full")
    with pytest.raises(UserError, match="examples.jsonl: No space left on device; make room and run the same command"):
        journal.add(record(2))
    path.unlink()
    path.write_bytes(kept)
    assert set(Journal(tmp_path / "a", {}, "aa", [1, 2]).done) == {1}


def test_many_results_a_second_share_a_sync(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "a", {}, "aa", list(range(50)))
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(number) or real(number))
    for id in range(50):
        journal.add(record(id))
        assert len(lines(journal.path)) == id + 1  # with the system at once
    assert 2 <= len(synced) < 50
    monkeypatch.setattr(attack_journal, "SYNC_SECONDS", 0.0)
    before = len(synced)
    journal.add(record(0))
    assert len(synced) == before + 2


def test_a_damaged_settings_file_makes_nothing_known(tmp_path):
    first = Journal(tmp_path / "a", {}, "cc", [1])
    first.add(record(1))
    (tmp_path / "a" / "settings.json").write_text("{")
    assert Journal(tmp_path / "a", {}, "cc", [1]).done == {}
    assert len(lines(tmp_path / "previous" / "a-unknown" / "examples.jsonl")) == 1


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        Journal(tmp_path / "file" / "a", {}, "cc", [1])
