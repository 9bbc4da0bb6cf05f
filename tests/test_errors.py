"""How a command ends, and the nearest valid name."""

import subprocess
import sys

import pytest

from mindspore_floodx.errors import UserError, nearest, run_command


def ends(main):
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    return ended.value.code


def raising(error):
    def main():
        raise error

    return main


def test_exit_codes(capsys):
    assert ends(lambda: None) == 0
    assert ends(lambda: 3) == 3
    assert capsys.readouterr().err == ""
    assert ends(raising(UserError("a.csv, line 3: no label; add one"))) == 2
    assert capsys.readouterr().err == "error: a.csv, line 3: no label; add one\n"
    assert ends(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "stopped by Ctrl-C\n"
    assert ends(raising(BrokenPipeError())) == 141
    assert capsys.readouterr().err == ""


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0)


def test_a_reader_that_goes_away_is_no_traceback():
    code = (
        "import os, sys; from mindspore_floodx.errors import run_command\n"
        "def main():\n    for _ in range(100000): print('line')\n"
        "run_command(main)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait() == 141


def test_nearest():
    assert nearest("flod_level", ["flood_level", "epochs"]) == " (did you mean 'flood_level'?)"
    assert nearest("zzz", ["flood_level", "epochs"]) == ""
    assert nearest("x", []) == ""
