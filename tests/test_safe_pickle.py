from __future__ import annotations

import codecs
import os
import pickle
from collections import OrderedDict, defaultdict

import numpy as np
import pytest

from mindspore_floodx.errors import UserError
from mindspore_floodx.safe_pickle import load_plain


class Evil:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_is_read(protocol, tmp_path):
    table = defaultdict(dict)
    table[1][2] = 0.5
    table[1][3] = np.float64(0.25)
    for content in (table, {"fawn": 0, "deer": np.int64(1)}, {"a": {"noun": ["b"]}}):
        path = tmp_path / "x.p"
        path.write_bytes(pickle.dumps(content, protocol=protocol))
        found = load_plain(path)
        assert found == content and type(found) is type(content)
    assert found is not content


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_is_refused_and_not_run(protocol, tmp_path):
    mark = tmp_path / "mark"
    for evil in (
        Evil(os.system, f"touch {mark}"),
        Evil(exec, f"open({str(mark)!r}, 'w')"),
        Evil(getattr, "text", "upper"),
        Evil(codecs.encode, "text", "utf-16"),
        Evil(open, str(mark), "w"),
        {"a": [Evil(os.mkdir, str(mark))]},
        OrderedDict(),
    ):
        path = tmp_path / "x.p"
        path.write_bytes(pickle.dumps(evil, protocol=protocol))
        with pytest.raises(UserError, match=r"x\.p is refused"):
            load_plain(path)
        assert not mark.exists()


def test_no_pickle_at_all(tmp_path):
    path = tmp_path / "x.p"
    for content in (b"", b"\x93NUMPY", b"\x80\x05\x95", b"not a pickle"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="refused"):
            load_plain(path)
