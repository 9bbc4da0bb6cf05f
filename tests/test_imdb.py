"""IMDB reviews from a folder and from archives, good and damaged."""

from __future__ import annotations

import io
import itertools
import tarfile

import pytest

from mindspore_floodx import imdb
from mindspore_floodx.data import load_dataset
from mindspore_floodx.errors import UserError

REVIEWS = {
    f"{part}/{label}/{number}_{rating}.txt": f"{part} review {number} is {label}<br />\nline two"
    for part in ("train", "test")
    for label, rating in (("neg", 2), ("pos", 9))
    for number in range(3)
}


@pytest.fixture
def folder(tmp_path):
    for name, text in REVIEWS.items():
        path = tmp_path / "aclImdb" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "aclImdb" / "train" / "unsup").mkdir()
    (tmp_path / "aclImdb" / "train" / "unsup" / "0_0.txt").write_text("no label")
    return tmp_path


def archive(folder, name="aclImdb_v1.tar.gz", members=()):
    target = folder / name
    with tarfile.open(target, "w:" + name.rpartition(".tar")[2].lstrip(".")) as tar:
        tar.add(folder / "aclImdb", "aclImdb")
        for member, content in members:
            tar.addfile(member, content)
    return target


def check(data):
    assert sorted(data.train.texts) == sorted(text for name, text in REVIEWS.items() if name.startswith("train"))
    assert sorted(data.evaluation.texts) == sorted(text for name, text in REVIEWS.items() if name.startswith("test"))
    for split in (data.train, data.evaluation):
        assert all(("is pos" in text) == label for text, label in zip(split.texts, split.labels, strict=True))
    assert data.label_names == ["neg", "pos"] and data.train.partial


@pytest.mark.parametrize("below", ["", "aclImdb"])
def test_folder(folder, below):
    check(load_dataset("imdb", folder / below))


@pytest.mark.parametrize("name", ["aclImdb_v1.tar.gz", "aclImdb.tar.xz", "aclImdb.tar.bz2", "aclImdb.tar"])
def test_archive_gives_what_the_folder_gives(folder, tmp_path, name):
    (tmp_path / "data" / "imdb").mkdir(parents=True)
    packed = archive(folder, name).rename(tmp_path / "data" / "imdb" / name)
    expected = load_dataset("imdb", folder)
    for place in (tmp_path / "data", packed.parent, packed):
        data = load_dataset("imdb", place)
        check(data)
        assert (data.train.texts, data.train.fingerprint) == (expected.train.texts, expected.train.fingerprint)
    assert sorted(path.name for path in (tmp_path / "data").rglob("*")) == sorted(["imdb", name])  # nothing unpacked


def test_names_that_lead_out_of_the_archive_are_only_names(folder, tmp_path):
    outside = tarfile.TarInfo("aclImdb/train/pos/../../../../evil.txt")
    packed = archive(folder, members=[(outside, io.BytesIO()), (tarfile.TarInfo("/evil.txt"), io.BytesIO())])
    check(load_dataset("imdb", packed))
    assert not list(tmp_path.parent.rglob("evil.txt"))


def test_links_are_refused(folder):
    link = tarfile.TarInfo("aclImdb/train/pos/9_9.txt")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    with pytest.raises(UserError, match=r"9_9\.txt is not a plain file"):
        load_dataset("imdb", archive(folder, members=[(link, None)]))


@pytest.mark.parametrize("name", ["aclImdb_v1.tar.gz", "aclImdb.tar.xz", "aclImdb.tar"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_truncated_archive(folder, name, share):
    packed = archive(folder, name)
    content = packed.read_bytes()
    packed.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match="aclImdb"):
        load_dataset("imdb", packed)


@pytest.mark.parametrize("name", ["aclImdb_v1.tar.gz", "aclImdb.tar.xz", "aclImdb.tar.bz2"])
def test_damaged_or_unreadable_archive(folder, name):
    packed = archive(folder, name)
    content = bytearray(packed.read_bytes())
    for position in range(len(content) // 4, len(content), 40):
        content[position] ^= 0x55
    packed.write_bytes(content)
    with pytest.raises(UserError, match="download it again"):
        load_dataset("imdb", packed)
    packed.write_bytes(b"")
    with pytest.raises(UserError, match="download it again"):
        load_dataset("imdb", packed)


@pytest.mark.parametrize(
    "content, said", [(b"ok\nbad \xff", "line 2: not UTF-8"), (b" \n", "line 1: empty"), (b"a\0b", "NUL character")]
)
def test_bad_reviews(folder, content, said):
    for name in ("0_2", "1_2"):
        (folder / "aclImdb" / "train" / "neg" / f"{name}.txt").write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_dataset("imdb", folder)
    assert "train/neg/0_2.txt" in str(caught.value) and said in str(caught.value)
    assert "first of 2 bad reviews" in str(caught.value)


def test_missing_part_and_missing_data(folder, tmp_path):
    for path in (folder / "aclImdb" / "test" / "pos").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="test/neg and test/pos must both hold reviews"):
        load_dataset("imdb", folder)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no IMDB reviews; put the folder aclImdb"):
        load_dataset("imdb", tmp_path / "none")
    with pytest.raises(UserError, match="not from single files"):
        load_dataset("imdb", folder, train_file="train.tsv")


def test_real_archive_begins_with_test_reviews(shared_data):
    packed = shared_data / "imdb" / "aclImdb.tar.xz"
    if not packed.is_file():
        pytest.skip("the real data has no IMDB archive")
    first = list(itertools.islice(imdb._archive_reviews(packed), 300))
    assert {(split, label) for split, label, _, _ in first} <= set(itertools.product(("train", "test"), ("neg", "pos")))
    assert all(content.decode().strip() for *_, content in first)


def test_real_archive_is_whole(shared_data):
    data = load_dataset("imdb", shared_data)
    for split in (data.train, data.evaluation):
        assert len(split) == 25000 and int(split.labels.sum()) == 12500 and not split.partial
