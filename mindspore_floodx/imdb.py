"""The IMDB reviews (Maas et al., 2011) from the official folder or straight from its archive, nothing unpacked.

The layout is ``aclImdb/{train,test}/{neg,pos}/<id>_<rating>.txt``, one review a file; the reviews without labels
(``train/unsup``) are left out. A folder has no order of its own, so reviews are sorted by the SHA-256 of their text:
folder, archive and hub then give the same data set, and the first N examples are a fair sample of both classes.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from .errors import UserError
from .splits import TextSplit
from .untrusted import read_bytes

LABEL_NAMES = ("neg", "pos")
MAX_REVIEW = 1_000_000  # bytes; the longest real one has 14,000
MAX_REVIEWS = 1_000_000  # of all four folders; there are 50,000
ARCHIVES = ("aclImdb_v1.tar.gz", "aclImdb.tar.gz", "aclImdb.tar.xz", "aclImdb.tar.bz2", "aclImdb.tar")
_MEMBER = re.compile(r"(?:\./)?aclImdb/(train|test)/(neg|pos)/[^/]+\.txt")


def read_imdb(data_dir: str | Path) -> tuple[TextSplit, TextSplit]:
    """Returns the training and test splits found under a folder (or in an archive file).

    Raises:
        UserError: neither the folder nor the archive is there, an archive is damaged, a review is empty or not UTF-8,
            or a part is missing.
    """
    data_dir = Path(data_dir)
    if data_dir.is_file():
        where = data_dir
    else:
        bases = (data_dir, data_dir / "imdb")
        folders = [folder for base in bases for folder in (base / "aclImdb", base) if (folder / "train/pos").is_dir()]
        archives = [base / name for base in bases for name in ARCHIVES if (base / name).is_file()]
        if not folders and not archives:
            raise UserError(
                f"{data_dir}: no IMDB reviews; put the folder aclImdb or the archive {ARCHIVES[0]} there, or point "
                "--data-dir to the folder that holds it"
            )
        where = (folders + archives)[0]
    reviews = _archive_reviews(where) if where.is_file() else _folder_reviews(where)
    return splits_of(reviews, where)


def splits_of(reviews: Iterable[tuple[str, str, str, bytes]], where: Path) -> tuple[TextSplit, TextSplit]:
    """Makes the two splits of (split, class, file name, content) tuples.

    Raises:
        UserError: see `read_imdb`.
    """
    found: dict[str, list[tuple[bytes, str, int]]] = {"train": [], "test": []}
    bad: list[str] = []
    for number, (split, label, member, content) in enumerate(reviews):
        if number == MAX_REVIEWS:
            raise UserError(f"{where}: there are more than {MAX_REVIEWS:,} reviews; copy the real data set there")
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            bad.append(f"{member}, line {line}: not UTF-8")
            continue
        if not text.strip() or "\0" in text:
            bad.append(f"{member}, line 1: {'a NUL character' if text.strip() else 'empty'}")
            continue
        found[split].append((hashlib.sha256(text.encode()).digest(), text, LABEL_NAMES.index(label)))
    if bad:
        more = f" (the first of {len(bad)} bad reviews)" if len(bad) > 1 else ""
        raise UserError(f"{where}: {min(bad)}; mend or delete the review{more}")
    splits = []
    for name, rows in found.items():
        if {label for _, _, label in rows} != {0, 1}:
            raise UserError(
                f"{where}: {name}/neg and {name}/pos must both hold reviews; copy the whole data set there again"
            )
        rows.sort()
        texts, labels = [text for _, text, _ in rows], np.array([label for _, _, label in rows], np.int32)
        splits.append(TextSplit(name, texts, None, labels, f"{where.name}/{name}"))
    return splits[0], splits[1]


def _folder_reviews(folder: Path) -> Iterator[tuple[str, str, str, bytes]]:
    for split in ("train", "test"):
        for label in LABEL_NAMES:
            for path in sorted((folder / split / label).glob("*.txt")):
                yield split, label, f"{split}/{label}/{path.name}", read_bytes(path, MAX_REVIEW)


def _archive_reviews(archive: Path) -> Iterator[tuple[str, str, str, bytes]]:
    try:
        with tarfile.open(archive, "r|*") as tar:  # a stream: one pass, nothing is written, names are only matched
            for member in tar:
                match = _MEMBER.fullmatch(member.name)
                if not match:
                    continue
                file = tar.extractfile(member) if member.isreg() else None
                if file is None:
                    raise UserError(f"{archive}: {member.name} is not a plain file; download the archive again")
                if member.size > MAX_REVIEW:
                    raise UserError(
                        f"{archive}: {member.name} has {member.size:,} bytes, which is no review; delete it"
                    )
                yield match[1], match[2], member.name, file.read()
    except UserError:
        raise
    except Exception as error:  # tarfile's, zlib's, lzma's and bz2's own, and what a damaged number raises
        raise UserError(f"{archive}: the archive cannot be read ({error}); download it again") from error
