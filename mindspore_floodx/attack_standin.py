"""Stand-ins for the word vectors and the sentence encoder of the published recipes, for machines without a network.

Figures obtained with them compare models with each other, not with papers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer

from .attack_forward import PackedBert, Tokens, can_be_packed, tokens_of
from .attack_library import textattack
from .attack_repeats import Remembered
from .attack_savings import Savings
from .errors import UserError
from .pretrained import find_model
from .untrusted import read_json, shown


class NeighbourLists(textattack.shared.AbstractWordEmbedding):
    """Lists of near words in the place of word vectors: all that word swaps and their distance constraint ask for.

    A list holds only words near enough (that is how it was made), nearest first. So the distance constraint is implied
    by the list: listed pairs count as near (similarity 1), all others as far (-1).
    """

    def __init__(self, lists: dict[str, list[str]]) -> None:
        words = dict.fromkeys(word for head, near in lists.items() for word in (head, *near))
        self._words = list(words)
        self._index = {word: index for index, word in enumerate(self._words)}
        self._near = {self._index[head]: [self._index[word] for word in near] for head, near in lists.items()}

    def __getitem__(self, index: int | str) -> None:
        return None  # "no vector": there are none

    def word2index(self, word: str) -> int:
        return self._index[word]

    def index2word(self, index: int) -> str:
        return self._words[index]

    def nearest_neighbours(self, index: int, topn: int) -> list[int]:
        return self._near.get(index, [])[:topn]

    def get_cos_sim(self, a: int, b: int) -> float:
        return 1.0 if a == b or b in self._near.get(a, []) else -1.0

    def get_mse_dist(self, a: int, b: int) -> float:
        return 1.0 - self.get_cos_sim(a, b)


def read_neighbours(path: str | os.PathLike) -> dict[str, list[str]]:
    """Reads a JSON file that maps each word to the list of its near words, nearest first.

    Raises:
        UserError: no such file, not JSON, or not of that form.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"the neighbour file {path} does not exist; give another one with --neighbours")
    lists = read_json(path)
    if not isinstance(lists, dict):
        raise UserError(f"the neighbour file {path} must hold a JSON object that maps a word to a list of words")
    for word, near in lists.items():
        if not isinstance(near, list) or not all(isinstance(other, str) for other in near):
            raise UserError(f"in the neighbour file {path} the entry {shown(word)} is not a list of words")
    return lists


class MiniLMEncoder(textattack.constraints.semantics.sentence_encoders.SentenceEncoder):
    """The sentence-similarity constraint with all-MiniLM-L6-v2 (mean of the token vectors) as its encoder.

    Takes the arguments of TextAttack's UniversalSentenceEncoder, so that a recipe's thresholds and windows apply.
    """

    def __init__(
        self,
        threshold: float = 0.8,
        large: bool = False,
        metric: str = "angular",
        savings: Savings = Savings(),  # noqa: B008 - frozen
        **kwargs: Any,
    ) -> None:
        super().__init__(threshold=threshold, metric=metric, **kwargs)
        self.model = _MeanPooled(find_model("minilm"), savings)

    def encode(self, sentences: list[str]) -> torch.Tensor:
        """Returns the sentences' vectors, [len(sentences), 384] float32."""
        return self.model.encode(sentences)


class _MeanPooled:
    """A sentence's vector: the mean of the last hidden states of its tokens."""

    max_tokens = 256  # what the encoder was trained with
    batch_size = 64

    def __init__(self, folder: Path, savings: Savings) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True  # no warning about `pad`
        self.encoder = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        self._packed = PackedBert(self.encoder) if savings.runtime and can_be_packed(self.encoder) else None
        self._remembered = Remembered(self.vectors) if savings.repeats else None

    def encode(self, sentences: list[str]) -> torch.Tensor:
        encoded = self.tokenizer(sentences, truncation=True, max_length=self.max_tokens)
        tokens = tokens_of(encoded)
        return self.vectors(tokens) if self._remembered is None else self._remembered(tokens)

    def forget(self) -> None:
        if self._remembered is not None:
            self._remembered.forget()

    @torch.inference_mode()
    def vectors(self, tokens: Sequence[Tokens]) -> torch.Tensor:
        if self._packed is not None:
            return self._packed.means(tokens)
        parts = []
        for start in range(0, len(tokens), self.batch_size):
            rows = [{"input_ids": list(ids)} for ids, _ in tokens[start : start + self.batch_size]]
            batch = self.tokenizer.pad(rows, return_tensors="pt")
            hidden = self.encoder(**batch).last_hidden_state  # [batch, tokens, 384]
            mask = batch["attention_mask"].unsqueeze(-1).float()
            parts.append((hidden * mask).sum(dim=1) / mask.sum(dim=1))
        return torch.cat(parts)
