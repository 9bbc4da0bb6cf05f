"""JSON, YAML and tables of others: read as plain data in bounded memory and time, or refused in one sentence."""

from __future__ import annotations

import time
import tracemalloc

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mindspore_floodx.errors import UserError, printable
from mindspore_floodx.untrusted import MAX_YAML_BYTES, parse_json, read_json, read_mapping, read_table, read_yaml, shown

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text("ab: -#'\"é\n", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)


def refused(read, path, *more):
    with pytest.raises(UserError) as error:
        read(path, *more)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


@given(PLAIN)
def test_yaml_that_is_plain_is_read_as_pyyaml_reads_it(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "plain.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    if "*" not in path.read_text(encoding="utf-8"):  # the dumper names a list that is there twice
        assert read_yaml(path) == content


@given(st.text("a:-?[]{}&*!|>'\"%@`,#\n 0x1.e+_=<~\t", max_size=40))
def test_any_text_is_yaml_or_a_user_error(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text)
    try:
        read_yaml(path)
    except UserError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("text", ["a: !!int ''", "a: !!float _", "a: !!bool x", "a: !!timestamp x", "? [1]"])
def test_values_that_pyyaml_stumbles_over(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    assert "not valid YAML" in refused(read_yaml, tmp_path / "a.yaml")


@pytest.mark.parametrize(
    "text",
    ["a: " + "1:" * 49_000 + "1", "[" + "a," * 20_000 + "]", "- " * 49_000, "a: 0x" + "F" * 90_000, "&a " * 9_999],
)
def test_yaml_that_is_made_to_be_slow(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    started = time.process_time()
    tracemalloc.start()
    try:
        shown(read_yaml(tmp_path / "a.yaml"))
    except UserError:
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.process_time() - started < 20 and peak < 300 << 20
    assert len(text) <= MAX_YAML_BYTES


def test_json(tmp_path):
    assert parse_json('{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    assert parse_json("[" * 50 + "]" * 50) and parse_json('"\\ud83d\\ude00"') == "😀"
    for text, said in (
        ('{"a": {"b": 1, "b": 2}}', "'b' is there twice"),
        ("[" * 51 + "]" * 51, "nested more than 50 deep"),
        ("[" * 200_000, "nested more than 50 deep"),
        ("1" * 5_000, "digits"),
        ('{"a": \n1,}', "at line 2, column 3"),
    ):
        with pytest.raises(ValueError, match=said):
            parse_json(text)
    (tmp_path / "a.json").write_text('"\\ud800"')
    assert "surrogate" in refused(read_json, tmp_path / "a.json")
    (tmp_path / "a.json").write_text("[1]")
    assert "larger than 2 bytes" in refused(read_json, tmp_path / "a.json", 2)
    assert "no names with values" in refused(read_mapping, tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert "has no 'b'" in refused(read_mapping, tmp_path / "a.json", ("a", "b"))


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "not a table"),
        (b"step,loss\n", "has no row"),
        (b"step\n1\n", "no column 'loss'"),
        (b"step,loss\n1,<script>\n", "'loss' holds something that is no number"),
        (b"step,loss\n1,\xff\n", "not a table"),
        (b'step,loss\n1,"2\n', "not a table"),
        (b"step,loss\n1,2,3,4\n1,2,3,4,5,6\n", "not a table"),
    ],
)
def test_tables(tmp_path, content, said):
    (tmp_path / "log.csv").write_bytes(content)
    assert said in refused(read_table, tmp_path / "log.csv", ("step", "loss"))


def test_what_is_shown_is_short_and_steers_no_terminal():
    deep = [1]
    for _ in range(100_000):
        deep = [deep, deep]
    assert (
        len(shown(deep)) < 300 and len(shown("x" * 10**6)) < 100 and len(shown({str(i): i for i in range(999)})) < 300
    )
    assert shown(10**5000) == "an enormous number" and shown(768.0) == "768.0"
    assert printable("a\x1b[31m\tb\x07\ud800é\u202e") == "a\\x1b[31m\\tb\\x07\\ud800é\\u202e"
