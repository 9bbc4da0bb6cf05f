import os
import signal
import socket
import subprocess
import sys

import pytest

from mindspore_floodx.errors import UserError
from mindspore_floodx.lock import locked

HOLD = """
import sys
from mindspore_floodx.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_is_named_until_it_has_finished(tmp_path):
    folder = tmp_path / "run" / "a"
    with holder(folder) as process:
        for _ in range(2):  # the first refusal changes nothing
            with pytest.raises(UserError, match=f"process {process.pid} on {socket.gethostname()} is writing to"):
                with locked(folder):
                    pytest.fail("locked twice")
        process.stdin.close()
        assert process.wait() == 0
    with locked(folder):
        assert (folder / ".lock-owner").read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    assert not (folder / ".lock-owner").exists()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert f"process {process.pid} " in (tmp_path / ".lock-owner").read_text()
    with locked(tmp_path):
        assert f"process {os.getpid()} " in (tmp_path / ".lock-owner").read_text()


def test_within_one_process_too_and_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        with pytest.raises(UserError, match=f"process {os.getpid()} "), locked(tmp_path):
            pytest.fail("locked twice")
        1 // 0
    with locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*file/a: "), locked(tmp_path / "file" / "a"):
        pytest.fail("locked")
