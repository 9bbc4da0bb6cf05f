"""The five readers under files that are nearly right: a value that is, or a `UserError`, and nothing else.

A short form of `benchmarks/fuzz.py`, which runs for as long as one likes; tests/hostile/ keeps inputs that readers once
failed on, or that a reader of its kind is likely to.
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
KEPT = {  # whether the reader takes it
    "checkpoint-40-dimensions": False,
    "checkpoint-bfloat16-scalar": True,
    "checkpoint-length-of-2-to-the-40": False,
    "checkpoint-packed-dimensions": False,
    "checkpoint-zero-times-2-to-the-72": False,
    "checkpoint-zero-times-enormous": False,
    "config-deep-value": False,
    "config-half-surrogate": False,
    "config-twice": False,
    "journal-counts-of-other-types": True,  # without its lines, as every journal
    "journal-ids-of-other-types": True,
    "journal-texts-of-other-types": True,
    "journal-times-that-are-results": True,
    "rows-csv-nul": False,
    "rows-jsonl-deep": False,
    "rows-jsonl-twice": False,
    "rows-tsv-label-of-controls": False,
    "safetensors-70-dimensions": False,
    "safetensors-bfloat16-strides": False,
    "safetensors-bfloat16-zero-times-2-to-the-63": False,
    "safetensors-overlapping": False,
    "safetensors-twice": False,
}


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz", ROOT / "benchmarks" / "fuzz.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("reader", ["rows", "config", "checkpoint", "safetensors", "journal"])
def test_files_that_are_nearly_right(fuzz, reader):
    with tempfile.TemporaryDirectory(dir=fuzz.memory_disk()) as folder:  # a journal waits for the disk
        run, taken = fuzz.with_hypothesis(reader, Path(folder), 150, 1)
    assert run >= 150 and taken > 0 and (taken < run or reader == "journal")  # both ends are reached


def test_no_kept_file_is_forgotten():
    assert {path.name for path in (ROOT / "tests" / "hostile").iterdir()} == KEPT.keys()


@pytest.mark.parametrize("name", KEPT)
def test_files_that_once_went_wrong(fuzz, name, tmp_path):
    content = (ROOT / "tests" / "hostile" / name).read_bytes()
    assert fuzz.read_hostile(name.partition("-")[0], tmp_path, content) is KEPT[name]
