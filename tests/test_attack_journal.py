from __future__ import annotations

import json

import pytest

from mindspore_floodx.attack_journal import Journal
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


def test_a_damaged_settings_file_makes_nothing_known(tmp_path):
    first = Journal(tmp_path / "a", {}, "cc", [1])
    first.add(record(1))
    (tmp_path / "a" / "settings.json").write_text("{")
    assert Journal(tmp_path / "a", {}, "cc", [1]).done == {}


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        Journal(tmp_path / "file" / "a", {}, "cc", [1])
