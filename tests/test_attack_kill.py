"""Commands that are killed at random moments: the same command goes on and ends with the same file.

$FLOODX_CHAOS_KILLS says how many kills of the real command there are (default 2; each takes seconds of imports).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from light_jobs import EXAMPLES
from test_attack_workers import gone
from tiny_victim import LABELS, NEIGHBOURS, SENTENCES, export_tiny

from mindspore_floodx.attack_journal import read_records
from mindspore_floodx.cli.attack import main
from mindspore_floodx.lock import locked

ROOT = Path(__file__).resolve().parent.parent
KILLS = int(os.environ.get("FLOODX_CHAOS_KILLS", "2"))


class Command:
    """A command in a process group of its own, as in a terminal."""

    def __init__(self, *words):
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        self.process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path, "TQDM_MININTERVAL": "60"},
            start_new_session=True,
            # A shell makes its background jobs ignore Ctrl-C, and their children with them.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def children(self):
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in listed.split()]

    def workers(self):
        return [pid for pid in self.children() if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def signal_all(self, number):
        os.killpg(self.process.pid, number)

    def end(self):
        """Waits for the end; returns exit status and stderr."""
        _, err = self.process.communicate(timeout=300)
        return self.process.returncode, err


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_lines(command, path, number):
    """Waits until there are `number` finished examples; False if the command has ended before."""
    while lines(path) < number:
        if command.process.poll() is not None:
            return False
        time.sleep(0.002)
    return True


def test_a_light_command_killed_again_and_again(tmp_path):
    """No model, so there can be many kills; at any moment of the command's life, the start included."""
    moments = random.Random(5)
    folder, log = tmp_path / "killed" / "a", tmp_path / "killed" / "log"
    done, kills = set(), 0
    for turn in range(200):
        begun = lines(log)
        command = Command(ROOT / "tests" / "light_jobs.py", folder, 1 + turn % 2)
        if turn % 4 == 3:
            time.sleep(moments.uniform(0, 1))
        else:
            wait_for_lines(command, folder / "examples.jsonl", len(done) + moments.randint(1, 9))
            time.sleep(moments.uniform(0, 0.02))
        orphans = command.workers() if command.process.poll() is None else []
        command.process.kill()
        status, err = command.end()
        assert all(gone(pid) for pid in orphans)
        attacked = [int(id) for id in log.read_text().split()][begun:] if log.exists() else []
        assert not done & set(attacked)  # no example twice
        assert len(attacked) == len(set(attacked))
        done_before, done = done, read_records(folder / "examples.jsonl").keys() if folder.exists() else set()
        assert done_before <= done  # none lost
        if status == 0:
            break
        assert status == -signal.SIGKILL, err
        kills += 1
    assert kills >= 8
    assert set(done) == {example.id for example in EXAMPLES}
    assert Command(ROOT / "tests" / "light_jobs.py", tmp_path / "whole" / "a", 1).end()[0] == 0
    whole = (tmp_path / "whole" / "a" / "examples.jsonl").read_bytes()
    assert (folder / "examples.jsonl").read_bytes() == whole
    names = {"examples.jsonl", "examples.parquet", "seconds.jsonl", "settings.json", ".lock"}
    assert {path.name for path in folder.iterdir()} == names  # no half-written file stays
    assert read_records(folder / "seconds.jsonl").keys() == set(done)


def test_workers_end_with_their_parent_in_the_midst_of_a_long_example(tmp_path):
    command = Command(ROOT / "tests" / "light_jobs.py", tmp_path / "a", 2, 60)
    assert wait_for_lines(command, tmp_path / "log", 2)
    pids = command.workers()
    assert len(pids) == 2
    command.process.kill()
    assert all(gone(pid) for pid in pids)
    command.end()


@pytest.mark.parametrize("number, status, said", [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_light_command_that_is_told_to_stop(tmp_path, number, status, said, workers):
    command = Command(ROOT / "tests" / "light_jobs.py", tmp_path / "a", workers)
    assert wait_for_lines(command, tmp_path / "a" / "examples.jsonl", 3)
    pids = command.workers()
    assert len(pids) == (2 if workers == 2 else 0)
    asked = time.monotonic()
    # Ctrl-C reaches the whole group; SIGTERM is sent to one process
    command.signal_all(number) if number == signal.SIGINT else command.process.send_signal(number)
    assert command.end() == (status, f"stopped by {said}\n")
    assert time.monotonic() - asked < 3
    assert all(gone(pid) for pid in pids)
    assert len(read_records(tmp_path / "a" / "examples.jsonl")) >= 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with a tiny victim, and as many sentences as the kills will need."""
    run = tmp_path_factory.mktemp("run")
    export_tiny(run / "export")
    texts = [text for text in SENTENCES if text]
    texts = [f"{texts[i % len(texts)]} Part\x85{i // 18}\u2028 ." for i in range(80 + 40 * KILLS)]  # each text twice
    (run / "test.csv").write_text(
        "text,label\n" + "".join(f'"{text}",{LABELS[i % 2]}\n' for i, text in enumerate(texts)), encoding="utf-8"
    )
    (run / "lists.json").write_text(json.dumps(NEIGHBOURS))
    (run / "config.yaml").write_text(
        f"train_file: {run}/test.csv\neval_file: {run}/test.csv\ntext_column: text\nlabel_column: label\n"
    )
    return run


def arguments(run, output, workers):
    return [
        *(run, "--attack", "synonym", "--neighbours", run / "lists.json", "--num-examples", "all"),
        *("--output-dir", output, "--workers", workers),
    ]


def test_the_real_command_killed_again_and_again(run, tmp_path):
    """SIGKILL with two workers and with one process, in turn; then a worker is killed, then Ctrl-C; then the end."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    path = Path("attacks") / "synonym" / "examples.jsonl"
    main([str(word) for word in arguments(run, whole, 1)])
    total = lines(whole / path)
    moments = random.Random(7)
    done, kills = {}, 0

    def keeps():
        records = read_records(killed / path)
        assert all(records[id] == record for id, record in done.items())
        assert lines(killed / path) - len(records) in (0, 1)  # one cut short
        return records

    for kill in range(KILLS):
        command = Command(ROOT / "run/attack.py", *arguments(run, killed, 2 - kill % 2))
        if not wait_for_lines(command, killed / path, len(done) + moments.randint(1, 30)):
            pytest.fail(command.end()[1])
        time.sleep(moments.uniform(0, 0.03))
        pids = command.workers()
        assert len(pids) == (0 if kill % 2 else 2)
        command.process.kill()
        assert command.end()[0] == -signal.SIGKILL
        assert all(gone(pid) for pid in pids)
        done, kills = keeps(), kills + 1
        print(f"kill {kill + 1}: {2 - kill % 2} workers, {len(done)} of {total} examples finished", flush=True)
    assert kills == KILLS and len(done) < total

    command = Command(ROOT / "run/attack.py", *arguments(run, killed, 2))
    assert wait_for_lines(command, killed / path, len(done) + 2)
    os.kill(moments.choice(command.workers()), signal.SIGKILL)
    now = lines(killed / path)
    assert wait_for_lines(command, killed / path, now + 5)
    pids = command.workers()
    command.signal_all(signal.SIGINT)
    status, err = command.end()
    assert status == 130
    assert err.endswith("\nstopped by Ctrl-C; finished examples are kept and the same command goes on\n")
    assert "Traceback" not in err
    assert all(gone(pid) for pid in pids)
    done = keeps()
    assert len(done) < total

    main([str(word) for word in arguments(run, killed, 1)])
    assert (killed / path).read_bytes() == (whole / path).read_bytes()
    figures = [json.loads((each / path.with_name("summary.json")).read_text()) for each in (whole, killed)]
    for summary in figures:
        for name in ("seconds_attacking", "seconds_clean", "seconds_this_call"):
            assert summary.pop(name) > 0
    assert figures[0] == figures[1]


def test_a_second_command_on_the_same_folder_is_refused(run, tmp_path):
    with locked(tmp_path / "attacks" / "synonym"):
        status, err = Command(ROOT / "run/attack.py", *arguments(run, tmp_path, 1)).end()
    assert status == 2
    assert err.startswith(f"error: process {os.getpid()} on ")
    assert "is writing to" in err and err.count("\n") == 1
    assert not (tmp_path / "attacks" / "synonym" / "examples.jsonl").exists()
