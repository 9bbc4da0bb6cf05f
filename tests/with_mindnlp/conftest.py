"""These tests run where mindnlp is installed: `make test-mindnlp`. Elsewhere they are skipped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mindspore_floodx.mindnlp_models import _is_installed

TESTS = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items):
    if _is_installed():
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="mindnlp is not installed; run `make test-mindnlp`"))


@pytest.fixture
def in_mindnlp():
    """Runs a script of this folder, which imports mindnlp, in a process of its own."""

    def run(script, *arguments):
        command = [sys.executable, str(Path(__file__).parent / script), *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(TESTS.parent)}
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run
