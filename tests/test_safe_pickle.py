from __future__ import annotations

import codecs
import os
import pickle
import tracemalloc
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


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02Nr\xff\xff\xff\x3f.",  # an object to be remembered under the number 2^30
        b"\x80\x04\x8d" + (1 << 60).to_bytes(8, "little") + b"x.",  # a text of 2^60 bytes
        b"\x80\x04\x96" + (1 << 60).to_bytes(8, "little") + b"x.",  # the same as bytes that can be changed
        b"\x80\x04\x95" + (1 << 60).to_bytes(8, "little") + b"N.",  # a frame of that length
    ],
)
def test_what_a_pickle_announces_takes_no_memory(content, tmp_path):
    (tmp_path / "x.p").write_bytes(content)
    tracemalloc.start()
    try:
        assert load_plain(tmp_path / "x.p") is None
    except UserError as error:
        assert "x.p is refused" in str(error)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 << 20


@pytest.mark.parametrize("kind", ["O", "V8", "U1", "f3", ("f4", (1000, 1000)), [("a", "f4")]])
def test_array_types_that_are_no_numbers(kind, tmp_path):
    scalar = np.float64(0).__reduce__()[0]
    with (tmp_path / "x.p").open("wb") as file:
        pickle.dump(Evil(scalar, np.dtype("f8"), b"12345678"), file)
    assert isinstance(load_plain(tmp_path / "x.p"), float)
    content = (tmp_path / "x.p").read_bytes()
    name = pickle.dumps(kind, protocol=2)[2:-1]
    at = content.index(b"\x8c\x02f8")
    start = content.rindex(b"\x95", 0, at)  # the frame's length no longer holds, so that it goes
    bad = content[:start] + content[start + 9 : at] + name + content[at + 4 :]
    (tmp_path / "x.p").write_bytes(bad)
    with pytest.raises(UserError, match=r"x\.p is refused"):
        load_plain(tmp_path / "x.p")
