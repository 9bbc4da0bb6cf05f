"""Nothing that an archive says may write outside the folder it is unpacked into."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile

import pytest

from mindspore_floodx.archives import stage
from mindspore_floodx.errors import UserError


def write_zip(path, names):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in names:
            archive.writestr(name, content)
    return path


def write_tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for member, content in members:
            member = tarfile.TarInfo(member) if isinstance(member, str) else member
            member.size = len(content) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "deep" / "target"
    folder.mkdir(parents=True)
    return folder


def test_folders_and_archives_give_the_same_files(tmp_path, target):
    source = tmp_path / "source"
    (source / "a").mkdir(parents=True)
    (source / "a" / "b.txt").write_text("one")
    (source / "c").write_text("two")
    zipped = write_zip(tmp_path / "x.zip", [("a/", b""), ("a/b.txt", b"one"), ("c", b"two")])
    tarred = tmp_path / "x.tar.gz"
    with tarfile.open(tarred, "w:gz") as archive:
        archive.add(source, ".")
    for number, given in enumerate((source, zipped, tarred)):
        folder = target / str(number)
        folder.mkdir()
        stage(given, folder)
        assert (folder / "a" / "b.txt").read_text() == "one" and (folder / "c").read_text() == "two"
    alone = target / "alone"
    alone.mkdir()
    stage(source / "c", alone)
    assert (alone / "c").read_text() == "two"


BAD_NAMES = ["../out", "a/../../out", "/out", "..\\out", "C:\\out", "a\\..\\..\\out"]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_names_that_lead_elsewhere_are_refused(name, write, tmp_path, target):
    before = sorted(tmp_path.rglob("*"))
    archive = write(tmp_path / "bad", [(name, b"x")])
    with pytest.raises(UserError, match="leads out of the folder"):
        stage(archive, target)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, archive])


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(kind, tmp_path, target):
    link = tarfile.TarInfo("innocent")
    link.type, link.linkname = kind, "/etc/passwd"
    archive = write_tar(tmp_path / "bad.tar", [(link, b""), ("innocent/file", b"x")])
    with pytest.raises(UserError, match="link or a special file"):
        stage(archive, target)
    assert list(target.iterdir()) == []


def test_links_in_a_zip_and_in_a_folder_are_refused(tmp_path, target):
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    source = tmp_path / "source"
    source.mkdir()
    os.symlink("/etc/passwd", source / "link")
    for given in (tmp_path / "bad.zip", source):
        with pytest.raises(UserError, match="link or a special file"):
            stage(given, target)
    assert list(target.iterdir()) == []


def test_limits_count_what_comes_out(tmp_path, target):
    bomb = write_zip(tmp_path / "bomb.zip", [("zeros", bytes(3_000_000))])
    assert bomb.stat().st_size < 10_000
    with pytest.raises(UserError, match="--max-gigabytes"):
        stage(bomb, target, max_bytes=2_000_000)
    assert sum(path.stat().st_size for path in target.iterdir()) <= 2_000_000
    many = write_zip(tmp_path / "many.zip", [(f"f{i}", b"") for i in range(11)])
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(UserError, match="files"):
        stage(many, other, max_files=10)


def test_damaged_and_absent_sources(tmp_path, target):
    archive = write_tar(tmp_path / "x.tar.gz", [("a", os.urandom(100_000))])
    archive.write_bytes(archive.read_bytes()[:50_000])
    with pytest.raises(UserError, match=r"x\.tar\.gz"):
        stage(archive, target)
    zipped = write_zip(tmp_path / "y.zip", [("a", os.urandom(1000))])
    content = bytearray(zipped.read_bytes())
    content[200] ^= 255
    zipped.write_bytes(content)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(UserError, match=r"y\.zip"):
        stage(zipped, other)
    with pytest.raises(UserError, match="no such file"):
        stage(tmp_path / "nothing", target)
    twice = tmp_path / "twice"
    twice.mkdir()
    with pytest.warns(UserWarning, match="Duplicate"):
        double = write_zip(tmp_path / "z.zip", [("a", b"1"), ("a", b"2")])
    with pytest.raises(UserError, match="twice"):
        stage(double, twice)
