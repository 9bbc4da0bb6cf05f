"""A short run of `benchmarks/fuzz.py` on one reader, or a longer one: $FLOODX_FUZZ_SECONDS for all readers together."""

from __future__ import annotations

import importlib.util
import itertools
import os
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INPUTS = 150
_spec = importlib.util.spec_from_file_location("fuzz", ROOT / "benchmarks" / "fuzz.py")
assert _spec is not None and _spec.loader is not None
fuzz = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fuzz)


def nearly_right(reader: str) -> None:
    """Gives a reader files that are nearly right: a fixed number, then, with other seeds, until its time is over."""
    end = time.monotonic() + float(os.environ.get("FLOODX_FUZZ_SECONDS", "0")) / len(fuzz.READERS)
    with tempfile.TemporaryDirectory(dir=fuzz.memory_disk()) as folder:  # a journal waits for the disk
        for seed in itertools.count(1):
            run, taken = fuzz.with_hypothesis(reader, Path(folder), INPUTS, seed)
            assert run >= INPUTS and taken > 0 and (taken < run or reader == "journal")  # both ends are reached
            if time.monotonic() >= end:
                return
