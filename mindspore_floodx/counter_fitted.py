"""The counter-fitted word vectors: TextAttack's files checked, or made from the original text format.

The text format has one line a word: the word and its 300 numbers, separated by spaces (counter-fitted-vectors.txt of
Mrksic et al., NAACL 2016). TextAttack reads arrays instead: ``paragram.npy`` (the vectors in the order of the lines),
``wordlist.pickle`` (word -> row), ``nn.npy`` (row i: i itself, then the rows nearest to it), and two caches of
distances, which it fills itself where they are empty.
"""

from __future__ import annotations

import os
import pickle
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .errors import UserError
from .safe_pickle import load_plain

WORDS, WIDTH = 65_713, 300
NEIGHBOURS = 100  # kept for each word; no recipe asks for more than 50
LANDMARK = ("fawn", -0.022007)  # a word and its first number, which TextAttack's own tests expect
_LONGEST_LINE = 20_000  # characters; a longer one is cut, and then no word with its numbers
_SPARE = 32  # more candidates than wanted, before they are sorted by exact distances


def read_text(path: str | os.PathLike, words: int = WORDS, width: int = WIDTH) -> tuple[list[str], np.ndarray]:
    """Reads the original text format.

    Returns:
        The words, and their vectors [words, width] float32.

    Raises:
        UserError: names the line that is not a new word and `width` finite numbers, or says how many lines there are.
    """
    path = Path(path)
    names: dict[str, None] = {}
    vectors = np.empty((words, width), dtype=np.float32)
    with path.open(encoding="utf-8") as file:
        try:
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), ""), start=1):
                word, *values = line.rstrip("\n").rstrip(" ").split(" ")
                if number > words:
                    raise UserError(f"{path.name} has more than {words:,} lines; these are other vectors")
                if len(values) != width or not word or word in names:
                    raise UserError(
                        f"line {number} of {path.name} is not a new word and {width} numbers, separated by spaces"
                    )
                try:
                    vectors[number - 1] = np.array(values, dtype=np.float32)
                except ValueError:
                    raise UserError(f"line {number} of {path.name} holds something that is not a number") from None
                names[word] = None
        except UnicodeDecodeError:
            raise UserError(f"{path.name} is not a text in UTF-8") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error}); copy it there again") from None
    if len(names) != words:
        raise UserError(
            f"{path.name} has {len(names):,} words instead of {words:,}; these are other vectors, or a part"
        )
    if not np.isfinite(vectors).all():
        first = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0]) + 1
        raise UserError(f"line {first} of {path.name} holds a number that is not finite")
    return list(names), vectors


def nearest_rows(
    vectors: np.ndarray, count: int = NEIGHBOURS, block: int = 256, progress: Callable[[int], None] | None = None
) -> np.ndarray:
    """Returns for each row itself and then the `count` rows nearest to it in Euclidean distance.

    That is the distance by which TextAttack looks for neighbours where it has no table of them (for vectors of length
    1 the cosine gives the same order). Equal distances: the smaller row first.

    Args:
        vectors: [rows, width] float.
        block: rows compared with all others at a time; memory grows with block * rows * 8 bytes.
        progress: is told how many rows are done, after each block.

    Returns:
        [rows, 1 + min(count, rows - 1)] int32.
    """
    rows = len(vectors)
    count = min(count, rows - 1)
    kept = min(rows, count + 1 + _SPARE)
    exact = vectors.astype(np.float64)
    squares = np.einsum("ij,ij->i", exact, exact).astype(np.float32)
    single = np.ascontiguousarray(vectors, dtype=np.float32)
    found = np.empty((rows, 1 + count), dtype=np.int32)
    for start in range(0, rows, block):
        own = np.arange(start, min(start + block, rows))
        rough = squares - 2 * (single[own] @ single.T)  # the squared distance, less what is equal within a row
        candidates = np.sort(np.argpartition(rough, kept - 1, axis=1)[:, :kept], axis=1)
        for row, near in zip(own, candidates, strict=True):
            near = near[near != row]
            distances = ((exact[near] - exact[row]) ** 2).sum(axis=1)
            found[row, 0] = row
            found[row, 1:] = near[np.argsort(distances, kind="stable")[:count]]
        if progress is not None:
            progress(len(own))
    return found


def build(
    text: str | os.PathLike, folder: Path, words: int = WORDS, progress: Callable[[int], None] | None = None
) -> None:
    """Writes TextAttack's five files into `folder`, an existing one, from the original text format.

    Raises:
        UserError: the text is not what `read_text` takes.
    """
    names, vectors = read_text(text, words)
    np.save(folder / "paragram.npy", vectors)
    np.save(folder / "nn.npy", nearest_rows(vectors, progress=progress))
    with (folder / "wordlist.pickle").open("wb") as file:
        pickle.dump({word: row for row, word in enumerate(names)}, file)
    write_empty_caches(folder)


def write_empty_caches(folder: Path) -> None:
    """Writes the two caches of distances where they are absent: TextAttack computes what it does not find in them."""
    for name in ("mse_dist.p", "cos_sim.p"):
        if not (folder / name).exists():
            with (folder / name).open("wb") as file:
                pickle.dump(defaultdict(dict), file)


def check(folder: Path, words: int = WORDS) -> None:
    """Refuses files that are not TextAttack's counter-fitted vectors; runs no code that a file may contain.

    Raises:
        UserError: a wrong shape or type, a word list that does not fit, other vectors, or a pickle with code.
    """
    vectors = _array(folder / "paragram.npy", "f")
    near = _array(folder / "nn.npy", "iu")
    if vectors.shape != (words, WIDTH):
        raise UserError(f"paragram.npy has the shape {vectors.shape} instead of ({words}, {WIDTH})")
    if near.ndim != 2 or len(near) != words or near.shape[1] < 51:
        raise UserError(f"nn.npy has the shape {near.shape} instead of ({words}, 51 or more)")
    # Of two words with the same vector, a table may list the other first.
    if near.min() < 0 or near.max() >= words or np.mean(near[:, 0] == np.arange(words)) < 0.99:
        raise UserError("nn.npy does not list for each row that row and then others")
    rows = load_plain(folder / "wordlist.pickle")
    if not isinstance(rows, dict) or not all(isinstance(word, str) for word in rows):
        raise UserError("wordlist.pickle does not map words to rows")
    if len(rows) != words or not set(rows.values()) == set(range(words)):
        raise UserError(f"wordlist.pickle does not give each of {words:,} words a row of its own")
    word, value = LANDMARK
    if word not in rows or abs(float(vectors[rows[word], 0]) - value) > 1e-5:
        raise UserError(f"the vector of {word!r} does not begin with {value}; these are not the counter-fitted vectors")
    for name in ("mse_dist.p", "cos_sim.p"):
        if (folder / name).exists():
            cache = load_plain(folder / name)
            if not isinstance(cache, defaultdict) or not all(isinstance(row, dict) for row in cache.values()):
                raise UserError(f"{name} is not a table of tables")


def _array(path: Path, kinds: str) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path.name} is not an array: {error}") from error
    if array.dtype.kind not in kinds:
        raise UserError(f"{path.name} holds {array.dtype} instead of {'floating' if 'f' in kinds else 'whole'} numbers")
    return array
