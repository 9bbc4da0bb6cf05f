from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter

import pytest
from light_jobs import EXAMPLES, LightJob

from mindspore_floodx.attack_job import Example
from mindspore_floodx.attack_journal import Journal
from mindspore_floodx.attack_loop import attack_examples, fair_order
from mindspore_floodx.attack_pool import ExampleError, describe_failure
from mindspore_floodx.attack_workers import Workers, number_of_workers
from mindspore_floodx.errors import UserError


def gone(pid, within=5.0):
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def test_every_example_once_by_processes_that_are_reused_and_do_not_stay():
    with Workers(2) as workers:
        workers.start(LightJob(seconds=0.02), wait_for=2)
        assert len(workers.starting_seconds) == 2 and min(workers.starting_seconds) > 0
        pids = workers.pids
        assert len(set(pids) | {os.getpid()}) == 3
        records = list(workers.run(EXAMPLES[:20]))
        assert sorted(record["id"] for record in records) == list(range(20))
        shares = Counter(record["seconds"]["pid"] for record in records)
        assert set(shares) == set(pids) and min(shares.values()) >= 5
        # another job: the same processes, which still have what the first one left
        workers.start(LightJob(name="second"))
        assert list(workers.run([])) == []
        again = list(workers.run(EXAMPLES[:6]))
        assert workers.pids == pids
        assert [record["seconds"]["kept"] for record in again] == [{"first": 1, "second": 1}] * 6
    assert workers.pids == [] and all(gone(pid) for pid in pids)


def test_no_more_workers_than_examples():
    with Workers(5) as workers:
        workers.start(LightJob(), wanted=1)
        assert len(list(workers.run(EXAMPLES[:1]))) == 1
        assert len(workers.pids) == 1


def test_a_killed_worker_loses_no_example():
    with Workers(2) as workers:
        workers.start(LightJob(seconds=0.05), wait_for=2)
        records = []
        for record in workers.run(EXAMPLES[:16]):
            records.append(record)
            if len(records) in (3, 8):
                victim = workers.pids[0]
                os.kill(victim, signal.SIGKILL)
        assert sorted(record["id"] for record in records) == list(range(16))
        assert victim not in workers.pids


def test_a_stopped_pipe_is_no_hang_when_all_workers_are_killed_at_once():
    with Workers(2) as workers:
        workers.start(LightJob(seconds=0.3), wait_for=2)
        threading.Timer(0.1, lambda: [os.kill(pid, signal.SIGKILL) for pid in workers.pids]).start()
        assert sorted(record["id"] for record in workers.run(EXAMPLES[:3])) == [0, 1, 2]


def test_an_example_that_ends_every_worker_is_named_and_the_others_are_kept():
    with Workers(1) as workers:
        workers.start(LightJob(ends_on=2))
        records = []
        with pytest.raises(ExampleError, match=r"example 2 .* 3 times \(signal SIGKILL, .* memory .* --workers\)"):
            for record in workers.run(EXAMPLES[:5]):
                records.append(record["id"])
        assert records == [0, 1]
        assert workers.pids == []


def test_an_exception_is_one_sentence_that_names_the_example():
    with Workers(2) as workers:
        workers.start(LightJob(fails_on=4))
        records = []
        with pytest.raises(ExampleError) as error:
            for record in workers.run(EXAMPLES[:5]):
                records.append(record["id"])
        assert str(error.value).startswith("example 4 of the evaluation set failed: ValueError in light_jobs.py, line ")
        assert str(error.value).endswith(": no such word")
        assert 'raise ValueError("no such\\nword")' in str(error.value.__cause__)  # for who debugs it
        assert sorted(records) == [0, 1, 2, 3][: len(records)]
        assert workers.pids == []
        # and the workers can be used again
        workers.start(LightJob())
        assert len(list(workers.run(EXAMPLES[:3]))) == 3


def test_a_full_disk_ends_the_run_and_its_workers(tmp_path):
    journal = Journal(tmp_path / "a", {}, "aa", list(range(20)))
    with Workers(2) as workers:
        with pytest.raises(UserError, match="No space left on device; make room and run the same command"):
            journal.path.unlink()
            journal.path.symlink_to("/dev/full")
            attack_examples((workers, LightJob(seconds=0.05)), EXAMPLES[:20], journal, progress=False)
        assert workers.pids == []


def test_the_loop_says_how_many_results_are_kept(tmp_path):
    attack = LightJob(fails_on=3).prepare({})
    journal = Journal(tmp_path / "a", {}, "aa", list(range(20)))
    with pytest.raises(UserError, match=r"^example 3 .*: no such word; the results of 3 examples are kept$"):
        attack_examples(attack, EXAMPLES[:20], journal, progress=False)
    assert journal.done.keys() == {0, 1, 2}


@pytest.mark.parametrize(
    "job, message",
    [
        (LightJob(ends_at_once=True), r"ended before they were ready \(exit status 7\)"),
        (LightJob(refuses="no GPU here"), "^no GPU here$"),
        (LightJob(name=[]), "^TypeError in light_jobs.py"),  # no key of a dict
    ],
)
def test_a_job_that_cannot_be_prepared(job, message):
    with Workers(1) as workers, pytest.raises(UserError, match=message):
        workers.start(job)
    assert workers.pids == []


def test_number_of_workers(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert [number_of_workers("auto", threads) for threads in (1, 2, 9)] == [8, 4, 1]
    assert number_of_workers(3) == 3
    for wrong in (0, True, "all", 1.5):
        with pytest.raises(UserError, match="at least 1, or 'auto'"):
            number_of_workers(wrong)


def test_the_shortest_come_last_and_the_others_keep_their_order():
    examples = [Example(id, ("x" * length,), 0) for id, length in enumerate([5, 9, 1, 7, 2, 8, 3, 6])]
    assert [example.id for example in fair_order(examples)] == [0, 1, 3, 5, 6, 7, 4, 2]
    assert fair_order(examples[:3]) == examples[:3] and fair_order([]) == []


def test_workers_end_together():
    """Simulated: the times of reviews, each proportional to its length, on two workers."""
    import numpy as np

    for seed in range(20):
        lengths = np.random.default_rng(seed).lognormal(5, 0.8, 60).astype(int)
        examples = [Example(id, ("x" * length,), 0) for id, length in enumerate(lengths)]
        ends = [0, 0]
        for example in fair_order(examples):
            ends[int(np.argmin(ends))] += len(example.texts[0])
        assert sum(ends) / (2 * max(ends)) > 0.99


def test_describe_failure():
    try:
        raise KeyError("a")
    except KeyError as error:
        assert describe_failure(error).startswith("KeyError in test_attack_workers.py, line ")
    assert describe_failure(ValueError()) == "ValueError: no message"
