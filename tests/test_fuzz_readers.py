"""The five readers under files that are nearly right: a value that is, or a `UserError`, and nothing else.

A short form of `benchmarks/fuzz.py`, which runs for as long as one likes; tests/hostile/ keeps inputs that readers once
failed on, or that a reader of its kind is likely to.
"""

from __future__ import annotations

import pytest
from fuzzed import ROOT, fuzz, nearly_right

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


@pytest.mark.parametrize("reader", ["rows", "journal"])
def test_files_that_are_nearly_right(reader):
    nearly_right(reader)


def test_no_kept_file_is_forgotten():
    assert {path.name for path in (ROOT / "tests" / "hostile").iterdir()} == KEPT.keys()


@pytest.mark.parametrize("name", KEPT)
def test_files_that_once_went_wrong(name, tmp_path):
    content = (ROOT / "tests" / "hostile" / name).read_bytes()
    assert fuzz.read_hostile(name.partition("-")[0], tmp_path, content) is KEPT[name]
