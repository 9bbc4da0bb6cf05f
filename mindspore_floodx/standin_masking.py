"""From text to what a masked language model is trained on: pieces of tokens, batches, and words that are hidden."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

_POOL = 50  # batches whose pieces are sorted by length together
_BLOCK = 256  # texts tokenised together
_LEAST = 3  # tokens of a piece without [CLS] and [SEP]


def cut(tokenizer: Any, texts: Sequence[str], max_length: int, tokens: int | None = None) -> list[list[int]]:
    """Tokenises texts and cuts each into pieces ``[CLS] ... [SEP]`` of at most `max_length` tokens.

    Args:
        tokens: stop as soon as the pieces have so many tokens; None for all texts.
    """
    pieces: list[list[int]] = []
    total = 0
    for start in range(0, len(texts), _BLOCK):
        block = list(texts[start : start + _BLOCK])
        for ids in tokenizer(block, add_special_tokens=False, verbose=False)["input_ids"]:
            for first in range(0, len(ids), max_length - 2):
                if tokens is not None and total >= tokens:
                    return pieces
                part = ids[first : first + max_length - 2]
                if len(part) >= _LEAST:
                    pieces.append([tokenizer.cls_token_id, *part, tokenizer.sep_token_id])
                    total += len(part) + 2
    return pieces


def equal_shares(sizes: Sequence[int], total: int) -> list[int]:
    """Divides `total` equally among sources of the given sizes; what a small one lacks goes to the larger ones."""
    shares = [0] * len(sizes)
    for left, source in zip(range(len(sizes), 0, -1), sorted(range(len(sizes)), key=sizes.__getitem__), strict=True):
        shares[source] = min(sizes[source], (total - sum(shares)) // left)
    return shares


def make_batches(pieces: Sequence[list[int]], batch_tokens: int, rng: np.random.Generator) -> Iterator[list[list[int]]]:
    """Yields every piece once, in random batches of similar lengths with at most `batch_tokens` tokens once padded."""
    order = rng.permutation(len(pieces))
    pool = max(1, _POOL * batch_tokens * len(pieces) // sum(map(len, pieces)))
    for start in range(0, len(order), pool):
        batches: list[list[list[int]]] = [[]]
        for index in sorted(order[start : start + pool], key=lambda index: len(pieces[index])):
            if batches[-1] and (len(batches[-1]) + 1) * len(pieces[index]) > batch_tokens:
                batches.append([])
            batches[-1].append(pieces[index])
        for position in rng.permutation(len(batches)):
            yield batches[position]


def pad(batch: Sequence[Sequence[int]], padding: int) -> np.ndarray:
    """Returns the pieces as int64 [batch, tokens of the longest], filled up with the id `padding`."""
    ids = np.full((len(batch), max(map(len, batch))), padding, dtype=np.int64)
    for row, piece in zip(ids, batch, strict=True):
        row[: len(piece)] = piece
    return ids


class Masker:
    """Chooses words to be guessed, all their sub-words together, and hides them as BERT does.

    A chosen word becomes [MASK]s, or random tokens, or stays as it is. The last two teach the model to doubt the words
    it sees, which BERT-Attack depends on: it asks for replacements of words that are in full view.
    """

    def __init__(
        self, tokenizer: Any, replacements: np.ndarray, chosen: float, masked: float = 1.0, random: float = 0.0
    ) -> None:
        """Args:
        replacements: ids from which random tokens are drawn, each as likely as the others.
        chosen: share of the words to be guessed.
        masked: share of the chosen words that become [MASK]s.
        random: share of the chosen words that become random tokens.
        """
        vocabulary = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        self._continues = np.array([token.startswith("##") for token in vocabulary])
        self._special = np.array(tokenizer.all_special_ids)
        self._mask = tokenizer.mask_token_id
        self._replacements = replacements
        self._chosen, self._masked, self._random = chosen, masked, random

    def __call__(self, ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Hides words of `ids`, int64 [batch, tokens].

        Returns:
            The ids with words hidden, and where they were chosen: bool [batch, tokens], at least one word.
        """
        real = ~np.isin(ids, self._special)
        words = np.cumsum(real & ~self._continues[ids], axis=1)  # number of the word that a token belongs to
        draws, ways = (np.take_along_axis(rng.random((len(ids), ids.shape[1] + 1)), words, axis=1) for _ in range(2))
        chosen = real & (draws < self._chosen)
        if not chosen.any():
            chosen = real & (draws == draws[real].min())
        masked = chosen & (ways < self._masked)
        random = chosen & ~masked & (ways < self._masked + self._random)
        hidden = np.where(masked, self._mask, ids)
        hidden[random] = rng.choice(self._replacements, int(random.sum()))
        return hidden, chosen
