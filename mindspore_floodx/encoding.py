"""Text to token ids, once: ragged arrays, a cache on disk keyed by content, and batches padded to their longest row.

A data set is tokenised in one go and kept as flat arrays with offsets, so that a batch is two vectorised look-ups and
nothing is padded before it is known which rows meet in a batch.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import UserError
from .files import replacing
from .model_config import read_model_config
from .untrusted import shown

if TYPE_CHECKING:
    from .data import TextSplit

FORMAT = 1  # raise it when the meaning of a cached file changes
POOL = 32  # batches whose examples are sorted together where batches are of similar lengths
CHUNK = 4096  # texts per tokeniser call: large enough to be quick, small enough to keep memory flat
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")

# One tokeniser thread and no warning when a process forks later; a user's own setting wins.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@dataclass(frozen=True, eq=False)
class EncodedSplit:
    """A tokenised data set of n rows as ragged arrays: row i is ``input_ids[offsets[i]:offsets[i + 1]]``.

    Attributes:
        input_ids: int32 [total tokens], with [CLS] and [SEP], without padding.
        token_type_ids: int8 [total tokens], 0 for the first text and 1 for the second of a pair.
        offsets: int64 [n + 1].
        labels: int32 [n].
        pad_id: the id that fills a batch's shorter rows.
    """

    input_ids: np.ndarray
    token_type_ids: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    pad_id: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per row, int64 [n]."""
        return np.diff(self.offsets)


def load_tokenizer(folder: str | os.PathLike) -> Any:
    """Returns the `transformers.BertTokenizerFast` of a model folder (tokenizer.json or vocab.txt).

    Raises:
        UserError: the folder has neither file, they cannot be read, or they belong to a model with another vocabulary
            than that of the config.json beside them.
    """
    from transformers import BertTokenizerFast  # imported late: it takes seconds

    folder = Path(folder)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise UserError(
            f"{folder}: no vocabulary (tokenizer.json or vocab.txt); copy it there from the folder the model came from"
        )
    try:
        tokenizer = BertTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise UserError(f"{folder}: the tokenizer files cannot be read ({error}); copy them there again") from error
    config = folder / "config.json"
    check_tokenizer(tokenizer, folder, read_model_config(config).get("vocab_size") if config.is_file() else None)
    return tokenizer


def check_tokenizer(tokenizer: Any, folder: str | os.PathLike, vocab_size: int | None) -> None:
    """Refuses a tokenizer of `folder` that cannot read a text, or gives ids that a model has no embedding for.

    Raises:
        UserError: names the folder and what is wrong.
    """
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if vocab_size is not None and largest >= vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has ids up to {largest}, but the model in config.json has {vocab_size} words; "
            "copy there the tokenizer that the model was trained with"
        )
    longest = tokenizer.model_max_length
    if isinstance(longest, bool) or not isinstance(longest, (int, float)) or not longest >= 5:
        raise UserError(f"{folder}: tokenizer_config.json has the model_max_length {shown(longest)}; expected a length")
    try:
        found = tokenizer("a word, and \u2603 and \U0001f9ff", "a pair")["input_ids"]  # two that no vocabulary has
    except BaseException as error:  # bare Exception here too, and a panic of the library, which is no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise UserError(f"{folder}: the tokenizer cannot read a text ({error}); copy its files there again") from error
    if not found:
        raise UserError(f"{folder}: the tokenizer makes nothing of a text; copy its files there again")


def encode(
    split: TextSplit, tokenizer: Any, max_length: int, cache_dir: str | os.PathLike | None = None
) -> EncodedSplit:
    """Tokenises a split, or takes it from the cache if the same content was tokenised before.

    Pairs are given to the tokeniser as pairs (token types 0 and 1) and truncated longest first.

    Args:
        split: texts, pairs and labels.
        tokenizer: a fast tokeniser of transformers.
        max_length: most tokens per row, special tokens included.
        cache_dir: where encoded splits are kept; by default `default_cache_dir()`.

    Raises:
        UserError: `max_length` leaves no room for text.
    """
    room = tokenizer.num_special_tokens_to_add(pair=split.pairs is not None)
    least = room + (1 if split.pairs is None else 2)
    if max_length < least:
        raise UserError(f"max_length is {max_length}, which leaves no room for text; set it to {least} or more")
    key = _key(split, tokenizer, max_length)
    path = Path(cache_dir or default_cache_dir()) / f"encoded-{key}.npz"
    encoded = _read(path, split)
    if encoded is None:
        encoded = _tokenise(split, tokenizer, max_length)
        _write(path, encoded)
    return encoded


def default_cache_dir() -> Path:
    """Returns the folder of cached encodings: $FLOODX_CACHE, or mindspore-floodx in the user's cache folder."""
    if os.environ.get("FLOODX_CACHE"):
        return Path(os.environ["FLOODX_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mindspore-floodx"


def make_batch(encoded: EncodedSplit, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    """Returns the rows `indices`, padded to the longest of them.

    Returns:
        input_ids, attention_mask, token_type_ids: int32 [batch, longest]; labels: int32 [batch].
    """
    indices = np.asarray(indices, dtype=np.int64)
    starts = encoded.offsets[indices]  # [batch]
    lengths = encoded.offsets[indices + 1] - starts  # [batch]
    columns = np.arange(lengths.max(initial=0))  # [longest]
    real = columns < lengths[:, None]  # [batch, longest]
    # where a row has ended, look at its first token: any valid position will do, the value is replaced
    places = np.where(real, starts[:, None] + columns, starts[:, None])  # [batch, longest]
    return {
        "input_ids": np.where(real, encoded.input_ids[places], np.int32(encoded.pad_id)).astype(np.int32),
        "attention_mask": real.astype(np.int32),
        "token_type_ids": np.where(real, encoded.token_type_ids[places], 0).astype(np.int32),
        "labels": encoded.labels[indices],
    }


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the order in which epoch number `epoch` (from 0) of a run with `seed` visits `n` examples, int64 [n]."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def bucketed_order(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Returns an order of an epoch, as `epoch_order` does, in which examples of similar length share a batch.

    The examples in random order are sorted by length within pools of `POOL` batches, and the batches so made are
    visited in random order. Those that fill no batch come last, whatever their length.

    Args:
        lengths: tokens of each example, int64 [n].
        batch_size: every so many examples of the result are a batch.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    whole = len(order) // batch_size * batch_size
    batches = []
    for start in range(0, whole, POOL * batch_size):
        pool = order[start : min(start + POOL * batch_size, whole)]
        batches.append(pool[np.argsort(lengths[pool], kind="stable")].reshape(-1, batch_size))
    if not batches:
        return order
    return np.concatenate([generator.permutation(np.concatenate(batches)).ravel(), order[whole:]])


def _tokenise(split: TextSplit, tokenizer: Any, max_length: int) -> EncodedSplit:
    ids, types, lengths = [], [], []
    for start in range(0, len(split.texts), CHUNK):
        texts = split.texts[start : start + CHUNK]
        pairs = split.pairs[start : start + CHUNK] if split.pairs is not None else None
        encodings = tokenizer(
            texts,
            pairs,
            truncation="longest_first",
            max_length=max_length,
            padding=False,
            return_token_type_ids=True,
            return_attention_mask=False,
            verbose=False,
        )
        lengths += [len(row) for row in encodings["input_ids"]]
        ids.append(np.concatenate([np.asarray(row, dtype=np.int32) for row in encodings["input_ids"]]))
        types.append(np.concatenate([np.asarray(row, dtype=np.int8) for row in encodings["token_type_ids"]]))
    return EncodedSplit(
        input_ids=np.concatenate(ids) if ids else np.zeros(0, np.int32),
        token_type_ids=np.concatenate(types) if types else np.zeros(0, np.int8),
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
        labels=np.asarray(split.labels, dtype=np.int32),
        pad_id=int(tokenizer.pad_token_id or 0),
    )


def _key(split: TextSplit, tokenizer: Any, max_length: int) -> str:
    """What the encoding depends on, and nothing else: the same text in another file is the same encoding."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content.pop("truncation", None)  # these two follow from the last call, not from the tokeniser
    content.pop("padding", None)
    parts = [FORMAT, split.fingerprint, json.dumps(content, sort_keys=True), tokenizer.padding_side, max_length]
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]


def _read(path: Path, split: TextSplit) -> EncodedSplit | None:
    """The cached encoding, or None if there is none or it cannot be used: then it is made again."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            encoded = EncodedSplit(
                input_ids=stored["input_ids"],
                token_type_ids=stored["token_type_ids"],
                offsets=stored["offsets"],
                labels=stored["labels"],
                pad_id=int(stored["pad_id"]),
            )
    except (OSError, ValueError, KeyError, EOFError, TypeError, MemoryError, zipfile.BadZipFile, zlib.error):
        return None
    whole = (
        np.array_equal(encoded.labels, split.labels)
        and len(encoded.offsets) == len(split.texts) + 1
        and encoded.offsets[-1] == len(encoded.input_ids) == len(encoded.token_type_ids)
    )
    return encoded if whole else None


def _write(path: Path, encoded: EncodedSplit) -> None:
    try:
        with replacing(path) as temporary:
            np.savez(
                temporary,
                input_ids=encoded.input_ids,
                token_type_ids=encoded.token_type_ids,
                offsets=encoded.offsets,
                labels=encoded.labels,
                pad_id=encoded.pad_id,
            )
    except UserError:
        pass  # a cache that cannot be written costs time at the next start, not this run
