"""Rows and line numbers of TSV, CSV and JSON lines, and that every kind of damage is a `UserError`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mindspore_floodx.errors import UserError
from mindspore_floodx.readers import Problems, read_rows


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def failure(path: Path, columns=("text", "label"), header=None) -> str:
    """The message that reading the file ends with."""
    with pytest.raises(UserError) as caught:
        read_rows(path, columns, header=header).problems.raise_any()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestTsv:
    def test_quotation_marks_are_text(self, tmp_path):
        path = write(tmp_path, "a.tsv", 'text\tlabel\n"begins\t1\n" a "" b "\t0\n')
        rows = read_rows(path, ["text", "label"])
        assert rows.fields == {"text": ['"begins', '" a "" b "'], "label": ["1", "0"]}
        assert rows.lines == [2, 3]

    def test_only_line_feeds_end_lines(self, tmp_path):
        text = "a\x0bb\x0cc\x1cd\x85e\u2028f"
        rows = read_rows(write(tmp_path, "a.tsv", f"text\tlabel\n{text}\t1\n"), ["text"])
        assert rows.fields["text"] == [text]

    def test_windows_line_ends_and_trailing_empty_lines(self, tmp_path):
        rows = read_rows(write(tmp_path, "a.tsv", "text\tlabel\r\ngood\t1\r\n\r\n\n"), ["text", "label"])
        assert rows.fields == {"text": ["good"], "label": ["1"]}

    def test_byte_order_mark(self, tmp_path):
        rows = read_rows(write(tmp_path, "a.txt", b"\xef\xbb\xbftext\tlabel\nx\t1\n"), ["text"])
        assert rows.fields["text"] == ["x"]

    @pytest.mark.parametrize("row, said", [("a\tb\t1", "3 fields"), ("a", "1 field instead"), ("", "empty line")])
    def test_wrong_number_of_fields(self, tmp_path, row, said):
        message = failure(write(tmp_path, "a.tsv", f"text\tlabel\nx\t1\n{row}\ny\t0\n"))
        assert "line 3" in message and said in message and "2 fields" in message and "quoting" in message


class TestCsv:
    def test_quoting_and_line_numbers(self, tmp_path):
        path = write(tmp_path, "a.csv", 'text,label\n"two\nlines, ""quoted""",1\nplain "inside",0\n')
        rows = read_rows(path, ["label", "text"])
        assert rows.fields["text"] == ['two\nlines, "quoted"', 'plain "inside"']
        assert rows.lines == [2, 4]

    def test_line_breaks_inside_quotes_are_kept(self, tmp_path):
        rows = read_rows(write(tmp_path, "a.csv", 'text,label\r\n"a\r\nb",1\r\n'), ["text"])
        assert rows.fields["text"] == ["a\r\nb"]

    def test_no_header_line(self, tmp_path):
        path = write(tmp_path, "a.csv", '"3","title","words"\n')
        assert read_rows(path, ["title"], header=["class", "title", "words"]).fields == {"title": ["title"]}

    def test_open_quotation_mark_names_the_line_where_it_opens(self, tmp_path):
        message = failure(write(tmp_path, "a.csv", 'text,label\nx,1\n"open,1\ny,0\nz,1\n'))
        assert "line 3" in message and "quoting" in message

    def test_broken_header(self, tmp_path):
        assert "line 1: the quoting is broken" in failure(write(tmp_path, "a.csv", '"text,label\na,1\n'))

    def test_too_few_fields_after_a_field_of_two_lines(self, tmp_path):
        message = failure(write(tmp_path, "a.csv", 'text,label\n"a\nb",1\nalone\n'))
        assert "line 4" in message and "1 field instead of 2" in message

    def test_empty_line_in_the_middle(self, tmp_path):
        assert "line 3: empty line" in failure(write(tmp_path, "a.csv", "text,label\na,1\n\nb,0\n"))

    def test_nul_character(self, tmp_path):
        message = failure(write(tmp_path, "a.csv", b"text,label\na,1\nb\0b,0\n"))
        assert "line 3" in message and "NUL" in message

    @given(
        st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), st.text("01")))
    )
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_gives_back_what_the_csv_module_wrote(self, tmp_path, table):
        buffer = io.StringIO(newline="")
        csv.writer(buffer).writerows([("text", "label"), *((text, f"l{label}") for text, label in table)])
        rows = read_rows(write(tmp_path, "a.csv", buffer.getvalue()), ["text"])
        rows.problems.raise_any()
        assert rows.fields["text"] == [text for text, _ in table]


class TestJsonLines:
    def test_values_are_kept_as_they_are(self, tmp_path):
        path = write(tmp_path, "a.jsonl", '{"text": "a\\nb", "label": 1, "more": null}\n{"label": "x", "text": 5}\n')
        assert read_rows(path, ["text", "label"]).fields == {"text": ["a\nb", 5], "label": [1, "x"]}

    @pytest.mark.parametrize(
        "row, said",
        [
            ("{broken", "not a JSON object"),
            ('["a", 1]', "not a JSON object"),
            ("", "not a JSON object"),
            ("[" * 100_000, "not a JSON object"),
            ('{"text": "a"}', "no field 'label'"),
            ('{"text": "a", "lable": 1}', "did you mean 'lable'"),
        ],
    )
    def test_bad_row(self, tmp_path, row, said):
        good = json.dumps({"text": "a", "label": 1})
        message = failure(write(tmp_path, "a.jsonl", f"{good}\n{row}\n{good}\n"))
        assert "line 2" in message and said in message


def test_column_that_is_missing_or_twice(tmp_path):
    message = failure(write(tmp_path, "a.csv", "txet,label\na,1\n"))
    assert "line 1" in message and "'text'" in message and "did you mean 'txet'" in message
    assert "more than one column 'text'" in failure(write(tmp_path, "b.csv", "text,text,label\na,b,1\n"))


def test_bytes_that_are_not_utf8_name_the_line_and_the_count(tmp_path):
    message = failure(write(tmp_path, "a.tsv", b"text\tlabel\nok\t1\nbad \xff\t0\nbad \xe9\t1\n"))
    assert "line 3" in message and "UTF-8" in message and "first of 2 bad rows" in message


def test_first_bad_row_and_the_count(tmp_path):
    problems = Problems(Path("f.csv"))
    for line in (9, 4, 4, 12):
        problems.add(line, f"wrong {line}")
    with pytest.raises(UserError, match=r"f\.csv, line 4: wrong 4 \(the first of 3 bad rows\)"):
        problems.raise_any()


def test_empty_absent_and_unknown_files(tmp_path):
    assert "empty" in failure(write(tmp_path, "a.csv", ""))
    assert "cannot be read" in failure(tmp_path / "absent.csv")
    assert "cannot be read" in failure((tmp_path / "folder.csv").mkdir() or tmp_path / "folder.csv")
    assert ".jsonl" in failure(write(tmp_path, "a.xlsx", "text,label"))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
@given(content=st.binary(max_size=200) | st.text('text,label\t\n\r"{}[]:0\\ ', max_size=60).map(str.encode))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_rows_or_a_user_error(tmp_path, suffix, content):
    path = write(tmp_path, f"any{suffix}", content)
    try:
        rows = read_rows(path, ["text", "label"])
        rows.problems.raise_any()
    except UserError:
        return
    assert len(rows.lines) == len(rows.fields["text"]) == len(rows.fields["label"])
