"""Files and folders appear whole or not at all."""

import json
import os
import stat

import pytest

from mindspore_floodx.errors import UserError
from mindspore_floodx.files import replacing, replacing_folder, sha256_of, write_json, write_text


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path):
    target = tmp_path / "new" / "a.csv"
    with replacing(target) as temporary:
        assert temporary.suffix == ".csv" and temporary.parent == target.parent
        temporary.write_text("old")
        assert not target.exists()
    assert target.read_text() == "old"
    with pytest.raises(ZeroDivisionError), replacing(target) as temporary:
        temporary.write_text("half")
        1 // 0
    assert target.read_text() == "old"
    assert os.listdir(target.parent) == ["a.csv"]


def test_a_file_gets_ordinary_rights(tmp_path):
    (tmp_path / "plain").touch()
    write_text(tmp_path / "ours", "x")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_folder_is_replaced_only_when_it_is_whole(tmp_path):
    target = tmp_path / "new" / "model"
    with replacing_folder(target) as temporary:
        (temporary / "one").write_text("1")
        assert not target.exists()
    with pytest.raises(ZeroDivisionError), replacing_folder(target) as temporary:
        (temporary / "two").write_text("2")
        1 // 0
    assert os.listdir(target.parent) == ["model"] and os.listdir(target) == ["one"]
    with replacing_folder(target) as temporary:
        (temporary / "two").write_text("2")
    assert os.listdir(target.parent) == ["model"] and os.listdir(target) == ["two"]
    assert os.access(target, os.R_OK | os.X_OK) and stat.S_IMODE(target.stat().st_mode) == 0o755


@pytest.mark.parametrize("write", [replacing, replacing_folder])
def test_what_cannot_be_written_is_said(tmp_path, write):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"cannot write .*choose another output folder"), write(tmp_path / "file" / "a"):
        pass
    with pytest.raises(UserError, match="No space left"), write(tmp_path / "b") as temporary:
        raise OSError(28, "No space left on device", str(temporary))
    assert os.listdir(tmp_path) == ["file"]


def test_text_and_json_are_utf8(tmp_path):
    write_json(tmp_path / "a.json", {"é": [1, None]})
    raw = (tmp_path / "a.json").read_bytes()
    assert "é".encode() in raw and raw.endswith(b"}\n") and json.loads(raw) == {"é": [1, None]}
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert (tmp_path / "a.json").read_bytes() == raw


def test_sha256_is_the_known_one(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # the example of FIPS 180-2
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
