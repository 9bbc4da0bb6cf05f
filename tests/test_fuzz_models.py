"""Files of models that are nearly right; a file of its own, so that it runs beside test_fuzz_readers.py."""

import pytest
from fuzzed import nearly_right


@pytest.mark.parametrize("reader", ["config", "checkpoint", "safetensors"])
def test_files_that_are_nearly_right(reader):
    nearly_right(reader)
