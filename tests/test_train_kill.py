"""Training that is killed or told to stop: the same command goes on and ends with the same weights.

$FLOODX_CHAOS_KILLS says how many kills there are (default 1; each costs a compilation). benchmarks/chaos.py kills every
method often.
"""

from __future__ import annotations

import os
import signal

import pytest
from killed_runs import Command, artefacts, differences, kill_at_random, steps, wait_for_steps
from training_files import command_line, make_training_files, rows

KILLS = int(os.environ.get("FLOODX_CHAOS_KILLS", "1"))
STEPS = 5 * max(3, KILLS // 2)


@pytest.fixture(scope="module")
def words(minilm_folder, tmp_path_factory):
    """A run with dropout whose accordance is measured online, and which evaluates in its sub-epochs."""
    given = make_training_files(tmp_path_factory.mktemp("files"), minilm_folder)
    more = {"epochs": STEPS // 5, "accordance": "online", "sub_epochs": 2, "checkpoint_every_steps": 2}
    return [*command_line(given | more), "--evaluate-sub-epochs", "--output-dir"]


def test_a_killed_run_ends_like_one_that_was_not(words, tmp_path):
    kill_and_go_on(words, tmp_path)


@pytest.mark.slow
def test_a_killed_run_in_float16_goes_on_with_its_loss_scale(words, tmp_path):
    """A scale that is too large at first and soon again, so that steps before and after a kill are skipped."""
    half = ["--precision", "float16", "--loss-scale", "16777216", "--loss-scale-steps", "2", "--bucket-by-length"]
    kill_and_go_on([*words[:-1], *half, words[-1]], tmp_path)
    skipped = [row["skipped"] for row in rows(tmp_path / "killed" / "log.csv")]
    assert skipped[0] == "1" and {"0", "1"} == set(skipped[5:])


def kill_and_go_on(words, tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "killed"
    assert Command([*words, str(whole)], tmp_path / "whole.txt").end() == 0, (tmp_path / "whole.txt").read_text()
    command = [*words, str(run)]
    killed = kill_at_random(command, run, STEPS, KILLS, seed=8, folder=tmp_path)
    assert len(killed) == KILLS
    print(*killed, sep="\n", flush=True)
    stopped = Command(command, tmp_path / "said.txt")
    assert wait_for_steps(stopped, run, steps(run) + 1)
    assert stopped.kill(signal.SIGTERM) == 143
    assert "stopped by SIGTERM; after step " in stopped.said() and "the same command goes on" in stopped.said()
    last = Command(command, tmp_path / "said.txt")
    assert last.end() == 0 and "going on at step " in last.said()
    assert differences(artefacts(whole), artefacts(run)) == []  # every byte, but for columns with times
