"""The forward pass of a BERT on sequences of different lengths without any padding, in float32 on the CPU.

An attack asks for thousands of short texts that differ in a word. Here the tokens of all texts of a batch lie one after
the other in one matrix, so that no product is spent on padding; only attention looks at one text at a time, texts of
equal length together. The weights are laid out for oneDNN once. Two layers are cheaper than the others: the first,
whose queries, keys and values depend on a token and its position alone, which texts share; and a classifier's last,
computed for the first token alone, the only one its head reads. The mathematics is that of transformers' BERT; the last
bits differ.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import BertForSequenceClassification, BertModel

Tokens = tuple[tuple[int, ...], tuple[int, ...]]  # a text's token ids and its token type ids, of equal length
Groups = list[tuple[int, int]]  # (length, number of texts of that length), in the texts' order
Linear = Callable[[torch.Tensor], torch.Tensor]

_TOKENS_AT_ONCE = 2048  # more of them do not fit into a core's cache


def tokens_of(encoded: Any) -> list[Tokens]:
    """Returns what a tokenizer gave for some texts, with token types and without padding, a pair of tuples a text."""
    rows = zip(encoded["input_ids"], encoded["token_type_ids"], strict=True)
    return [(tuple(ids), tuple(types)) for ids, types in rows]


def can_be_packed(model: Any, device: str = "cpu") -> bool:
    """Returns whether `PackedBert` computes what `model` (a BertModel or a BERT classifier of transformers) does."""
    if not isinstance(model, BertModel | BertForSequenceClassification) or device != "cpu":
        return False
    config = model.config
    return (
        config.hidden_act == "gelu"
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
        and not config.is_decoder
        and all(weight.dtype == torch.float32 for weight in model.parameters())
    )


class PackedBert:
    """The weights of a transformers BERT, which may be a classifier, and its forward pass in evaluation mode."""

    def __init__(self, model: BertModel | BertForSequenceClassification) -> None:
        """Takes the weights of a model that `can_be_packed`; later changes of the model's own weights are not seen."""
        bert = model.bert if isinstance(model, BertForSequenceClassification) else model
        self._size = bert.config.hidden_size
        self._heads = bert.config.num_attention_heads
        self._epsilon = bert.config.layer_norm_eps
        table = bert.embeddings
        self._words, self._types = table.word_embeddings.weight.detach(), table.token_type_embeddings.weight.detach()
        self._positions = table.position_embeddings.weight.detach()
        self._norm = _norm(table.LayerNorm)
        self._layers = [_Layer(layer) for layer in bert.encoder.layer]
        self._head = None
        if isinstance(model, BertForSequenceClassification):
            self._head = (_linear(model.bert.get_submodule("pooler.dense")), _linear(model.classifier))

    @torch.inference_mode()
    def logits(self, texts: Sequence[Tokens]) -> torch.Tensor:
        """Returns a classifier's logits of tokenised texts, [len(texts), labels] float32."""
        assert self._head is not None
        pooler, classifier = self._head

        def logits_of(hidden: torch.Tensor, lengths: list[int]) -> torch.Tensor:
            return classifier(torch.tanh(pooler(hidden)))

        return self._in_batches(texts, True, logits_of)

    @torch.inference_mode()
    def means(self, texts: Sequence[Tokens]) -> torch.Tensor:
        """Returns the mean of the last hidden states of each text's tokens, [len(texts), hidden size] float32."""

        def means_of(hidden: torch.Tensor, lengths: list[int]) -> torch.Tensor:
            return torch.stack([part.mean(dim=0) for part in hidden.split(lengths)])

        return self._in_batches(texts, False, means_of)

    def _in_batches(self, texts: Sequence[Tokens], first_token: bool, result_of: Callable) -> torch.Tensor:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i][0]))  # equal lengths side by side
        parts = []
        for batch in _batches([texts[i] for i in order]):
            lengths = [len(ids) for ids, _ in batch]
            parts.append(result_of(self._hidden(batch, lengths, first_token), lengths))
        result = torch.cat(parts)
        return result[torch.argsort(torch.tensor(order))]

    def _hidden(self, batch: list[Tokens], lengths: list[int], first_token: bool) -> torch.Tensor:
        """Returns the last hidden states, [tokens, hidden size], or of first tokens alone, [texts, hidden size]."""
        ids = torch.tensor(list(itertools.chain.from_iterable(ids for ids, _ in batch)))
        types = torch.tensor(list(itertools.chain.from_iterable(types for _, types in batch)))
        places = torch.cat([torch.arange(length) for length in lengths])
        # What texts share, and where it is: each token id at each place with each type once.
        num_places, num_types = len(self._positions), len(self._types)
        shared, kind = torch.unique((ids * num_places + places) * num_types + types, return_inverse=True)
        word, place, type = shared // num_types // num_places, shared // num_types % num_places, shared % num_types
        embedded = self._norm_of(self._words[word] + self._types[type] + self._positions[place], self._norm)
        groups = [(length, len(list(same))) for length, same in itertools.groupby(lengths)]
        states = embedded[kind]
        for number, layer in enumerate(self._layers):
            if first_token and number == len(self._layers) - 1:
                asking = states[places == 0]
                attended = self._attend_from_first(layer, asking, states, groups)
            else:
                asking, projections = states, (layer.query, layer.key, layer.value)
                if number == 0:
                    parts = [projection(embedded)[kind] for projection in projections]
                else:
                    parts = [projection(states) for projection in projections]
                attended = self._attend(parts, groups)
            middle = self._norm_of(asking + layer.output(attended), layer.first_norm)
            states = self._norm_of(middle + layer.down(layer.up(middle)), layer.second_norm)
        return states

    def _attend(self, projections: list[torch.Tensor], groups: Groups) -> torch.Tensor:
        """Attention of all tokens by their queries, keys and values, each within its text, [tokens, hidden size]."""
        parts, start = [], 0
        for length, texts in groups:
            queries, keys, values = (
                part[start : start + length * texts].view(texts, length, self._heads, -1).transpose(1, 2)
                for part in projections
            )
            attended = functional.scaled_dot_product_attention(queries, keys, values)  # [texts, heads, length, size]
            parts.append(attended.transpose(1, 2).reshape(-1, self._size))
            start += length * texts
        return torch.cat(parts)

    def _attend_from_first(
        self, layer: _Layer, asking: torch.Tensor, states: torch.Tensor, groups: Groups
    ) -> torch.Tensor:
        """Attention of the texts' first tokens `asking`, [texts, hidden size], without every token's key and value.

        A key's product with a query is that of the token's state with the query taken back through the keys' weights;
        the keys' bias adds the same to all and falls out of the softmax. Likewise the values' weights come last.
        """
        size = self._size // self._heads
        queries = layer.query(asking).view(-1, self._heads, size) / size**0.5
        queries = torch.einsum("thd,hdk->thk", queries, layer.key_weight.view(self._heads, size, -1))
        mixed, start, first = [], 0, 0
        for length, texts in groups:
            rows = states[start : start + length * texts].view(texts, length, self._size)
            weights = torch.softmax(queries[first : first + texts] @ rows.transpose(1, 2), dim=-1)
            mixed.append(weights @ rows)  # [texts, heads, hidden size]
            start, first = start + length * texts, first + texts
        values = torch.einsum("thk,hdk->thd", torch.cat(mixed), layer.value_weight.view(self._heads, size, -1))
        return values.reshape(-1, self._size) + layer.value_bias

    def _norm_of(self, states: torch.Tensor, norm: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return functional.layer_norm(states, (self._size,), *norm, self._epsilon)


class _Layer:
    """The weights of one encoder layer."""

    def __init__(self, layer: Any) -> None:
        attention = layer.attention
        self.query, self.key, self.value = (
            _linear(getattr(attention.self, name)) for name in ("query", "key", "value")
        )
        self.key_weight, self.value_weight = attention.self.key.weight.detach(), attention.self.value.weight.detach()
        self.value_bias = attention.self.value.bias.detach()
        self.output, self.first_norm = _linear(attention.output.dense), _norm(attention.output.LayerNorm)
        self.up, self.down = _linear(layer.intermediate.dense, gelu=True), _linear(layer.output.dense)
        self.second_norm = _norm(layer.output.LayerNorm)


def _norm(module: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return module.weight.detach(), module.bias.detach()


def _linear(module: Any, gelu: bool = False) -> Linear:
    """The product with a linear layer's weights, which oneDNN gets in its own layout where PyTorch has oneDNN."""
    weight, bias = module.weight.detach(), module.bias.detach()
    if not torch.backends.mkldnn.is_available():
        plain = functools.partial(functional.linear, weight=weight, bias=bias)
        return (lambda rows: functional.gelu(plain(rows))) if gelu else plain
    laid_out = torch.ops.mkldnn._reorder_linear_weight(weight, _TOKENS_AT_ONCE)
    name, exactly = ("gelu", "none") if gelu else ("none", "")  # none: not the tanh approximation
    return lambda rows: torch.ops.mkldnn._linear_pointwise(rows, laid_out, bias, name, [], exactly)


def _batches(texts: list[Tokens]) -> Iterator[list[Tokens]]:
    """Splits texts, in their order, into batches of at most `_TOKENS_AT_ONCE` tokens (or one longer text)."""
    batch: list[Tokens] = []
    tokens = 0
    for text in texts:
        if batch and tokens + len(text[0]) > _TOKENS_AT_ONCE:
            yield batch
            batch, tokens = [], 0
        batch.append(text)
        tokens += len(text[0])
    if batch:
        yield batch
