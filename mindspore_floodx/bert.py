"""BERT (Devlin et al., 2019) for sequence classification in MindSpore, in one file.

Parameter names are MindSpore's for the layers (`gamma`, `beta`, `embedding_table`) and Hugging Face's for everything
else, so that a checkpoint of either side reads as the other's (package `ckpt_convert`).

Padding is not computed: from the embeddings on a batch is its T tokens, one below the other, and only inside the
attention are they laid out by rows and heads (`layers.Packing`). Of the last layer only the state of [CLS] is computed,
unless all hidden states are asked for.

Shapes in comments: B batch, L length, H hidden size, N heads, D = H / N, T tokens of a batch that are not padding.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import Normal

from . import model_config, pretrained
from .errors import UserError
from .layers import (
    Attention,
    Dropout,
    Gelu,
    LayerNorm,
    Linear,
    Packing,
    TakeRows,
    Tanh,
    derive_gradients,
    follow_clock,
    new_clock,
    padding_bias,
)


@dataclass
class BertConfig:
    """Sizes and rates of a BERT classifier, under the names that Hugging Face's config.json gives them.

    The defaults are BERT-base uncased with two classes.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None  # None: hidden_dropout_prob
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    id2label: dict[int, str] = field(default_factory=lambda: {0: "LABEL_0", 1: "LABEL_1"})

    def __post_init__(self):
        if self.hidden_act != "gelu":
            raise UserError(f"hidden_act is {self.hidden_act!r}, but only the exact 'gelu' of BERT is supported")
        model_config.check_config(self.to_dict(), "BertConfig")

    @property
    def num_labels(self) -> int:
        return len(self.id2label)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> BertConfig:
        """Takes the fields this class has from a config.json's content; the rest (versions, paths) is left aside."""
        known = {name: values[name] for name in cls.__dataclass_fields__ if values.get(name) is not None}
        return cls(**known | {"id2label": model_config.labels_of(values)})

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> BertConfig:
        """Reads a config.json, given its path or its folder.

        Raises:
            UserError: the file is missing or describes no BERT encoder of believable size; every wrong field is named.
        """
        return cls.from_dict(model_config.read_config(Path(path)))

    def to_dict(self) -> dict[str, Any]:
        """Returns a complete config.json content for Hugging Face's `BertForSequenceClassification`."""
        content = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "id2label"}
        return content | {
            "architectures": ["BertForSequenceClassification"],
            "model_type": "bert",
            "position_embedding_type": "absolute",
            "id2label": {str(index): label for index, label in self.id2label.items()},
            "label2id": {label: index for index, label in self.id2label.items()},
        }


def _embedding(rows: int, config: BertConfig) -> nn.Embedding:
    return nn.Embedding(rows, config.hidden_size, embedding_table=Normal(config.initializer_range))


def _layer_norm(config: BertConfig) -> LayerNorm:
    return LayerNorm(config.hidden_size, config.layer_norm_eps)


class BertEmbeddings(nn.Cell):
    """Word + position + token-type embeddings, LayerNorm, dropout."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.word_embeddings = _embedding(config.vocab_size, config)
        self.position_embeddings = _embedding(config.max_position_embeddings, config)
        self.token_type_embeddings = _embedding(config.type_vocab_size, config)
        self.LayerNorm = _layer_norm(config)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def words(self, input_ids, perturbation=None):  # (T,), (T, H) -> (T, H)
        words = self.word_embeddings(input_ids)
        return words if perturbation is None else words + perturbation

    def construct(self, words, token_type_ids, positions):  # (T, H), (T,), (T,) -> (T, H)
        hidden = words + self.token_type_embeddings(token_type_ids) + self.position_embeddings(positions)
        return self.dropout(self.LayerNorm(hidden))


class BertSelfAttention(nn.Cell):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.query = Linear(config.hidden_size, config.hidden_size)
        self.key = Linear(config.hidden_size, config.hidden_size)
        self.value = Linear(config.hidden_size, config.hidden_size)
        self.heads = config.num_attention_heads
        self.head_size = config.hidden_size // config.num_attention_heads
        self.attention = Attention(self.head_size, config.attention_probs_dropout_prob)
        self.take = TakeRows()

    def split(self, x, bias, to_heads, from_heads):  # (T, H) -> (B, N, L, D)
        rows = self.take(x.reshape((-1, self.head_size)), to_heads, from_heads)
        return rows.reshape((bias.shape[0], self.heads, bias.shape[3], self.head_size))

    def construct(self, hidden, bias, to_heads, from_heads, first=None):
        """Attends from every token of `hidden` (T, H), or only from [CLS] given its states `first` (B, H).

        Returns the shape of what attends; `bias` is (B, N, L, L) or (B, N, 1, L).
        """
        query = self.query(hidden if first is None else first)
        key = self.split(self.key(hidden), bias, to_heads, from_heads)
        value = self.split(self.value(hidden), bias, to_heads, from_heads)
        if first is None:
            query = self.split(query, bias, to_heads, from_heads)
            context = self.attention(query, key, value, bias)
            context = self.take(context.reshape((-1, self.head_size)), from_heads, to_heads)
        else:
            context = self.attention(query.reshape((-1, self.heads, 1, self.head_size)), key, value, bias)
        return context.reshape((-1, self.heads * self.head_size))


class BertOutput(nn.Cell):
    """Projection, dropout, residual connection, LayerNorm: the end of the attention and of the feed-forward block."""

    def __init__(self, in_size: int, config: BertConfig):
        super().__init__()
        self.dense = Linear(in_size, config.hidden_size)
        self.LayerNorm = _layer_norm(config)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def construct(self, x, residual):  # (T, in), (T, H) -> (T, H)
        return self.LayerNorm(self.dropout(self.dense(x).astype(residual.dtype)) + residual)


class BertAttention(nn.Cell):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.self = BertSelfAttention(config)
        self.output = BertOutput(config.hidden_size, config)

    def construct(self, hidden, bias, to_heads, from_heads, first=None):
        context = self.self(hidden, bias, to_heads, from_heads, first)
        return self.output(context, hidden if first is None else first)


class BertIntermediate(nn.Cell):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size)
        self.activation = Gelu()

    def construct(self, hidden):  # (T, H) -> (T, intermediate)
        return self.activation(self.dense(hidden))


class BertLayer(nn.Cell):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.attention = BertAttention(config)
        self.intermediate = BertIntermediate(config)
        self.output = BertOutput(config.intermediate_size, config)

    def construct(self, hidden, bias, to_heads, from_heads, first=None):  # as BertSelfAttention
        hidden = self.attention(hidden, bias, to_heads, from_heads, first)
        return self.output(self.intermediate(hidden), hidden)


class BertEncoder(nn.Cell):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.layer = nn.CellList([BertLayer(config) for _ in range(config.num_hidden_layers)])
        self.heads, self.layers = config.num_attention_heads, config.num_hidden_layers

    def recompute_activations(self) -> None:
        """Keeps of each layer but the last only its output, and computes the rest again for the gradient.

        The last layer is computed for [CLS] alone and has little to keep. To be called before the first use.
        """
        for layer in list(self.layer)[:-1]:  # a piece of a CellList would give the parameters new names
            derive_gradients(layer)
            layer.recompute()

    def construct(self, hidden, attention_mask, to_heads, from_heads, first, whole):
        """Returns the states (T, H) after each layer and that of [CLS] after the last one (B, H).

        Unless `whole`, the last layer is computed for [CLS] alone, and its other states are not returned.
        """
        # written out once for all heads and rows, since adding with a broadcast is ten times slower on a CPU
        row = ops.tile(padding_bias(attention_mask), (1, self.heads, 1, 1))  # (B, N, 1, L)
        bias = ops.tile(row, (1, 1, attention_mask.shape[1], 1))
        states = ()
        for index, layer in enumerate(self.layer):
            if whole or index < self.layers - 1:
                hidden = layer(hidden, bias, to_heads, from_heads)
                states = (*states, hidden)
        summary = ops.gather(hidden, first, 0)
        if not whole:
            summary = self.layer[self.layers - 1](hidden, row, to_heads, from_heads, summary)
        return states, summary


class BertPooler(nn.Cell):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.activation = Tanh()

    def construct(self, first):  # (B, H), the state of [CLS] -> (B, H)
        return self.activation(self.dense(first))


class BertModel(nn.Cell):
    """The encoder with its pooler."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertEncoder(config)
        self.pooler = BertPooler(config)
        self.packing = Packing(config.num_attention_heads)
        self.take = TakeRows()
        clock = new_clock()
        follow_clock(self, clock)
        self.clock, self.advances, self.one = [clock], True, Tensor(1, ms.int32)

    def construct(self, input_ids, attention_mask, token_type_ids, perturbation=None, whole=False, output_packed=False):
        """Returns the pooled state (B, H) and, if `whole`, all hidden states (B, L, H), 0 at padding.

        With `output_packed` the second is instead, without padding (see `Packing`): the word embeddings with the
        perturbation (T, H), the embeddings (T, H), the last state of [CLS] (B, H) and the tokens' places (T,).
        """
        batch, length = input_ids.shape
        # a row of nothing but padding attends to its first token: it has to attend to something
        empty = (attention_mask.sum(axis=1, keepdims=True) == 0).astype(attention_mask.dtype)
        alone = empty * (ops.arange(0, length).reshape((1, length)) == 0).astype(attention_mask.dtype)
        attention_mask = attention_mask + alone
        places, packed, to_heads, from_heads = self.packing(attention_mask)
        if perturbation is not None:
            perturbation = self.take(perturbation.reshape((batch * length, -1)), places, packed)
        words = self.embeddings.words(input_ids.reshape(-1)[places], perturbation)
        embedded = self.embeddings(words, token_type_ids.reshape(-1)[places], places % length)
        first = packed.reshape((batch, length))[:, 0]
        states, summary = self.encoder(embedded, attention_mask, to_heads, from_heads, first, whole)
        pooled = self.pooler(summary)
        if self.training and self.advances:  # here, not first: see `layers.follow_clock`
            ops.assign_add(self.clock[0], self.one)
        if output_packed:
            return pooled, (words, embedded, summary, places)
        hidden = ()
        if whole:
            real = (attention_mask != 0).astype(embedded.dtype).reshape((batch, length, 1))
            for state in (embedded, *states):
                hidden = (*hidden, self.take(state, packed, places).reshape((batch, length, -1)) * real)
        return pooled, hidden


class BertForSequenceClassification(nn.Cell):
    """BERT with a linear classifier on the pooled [CLS] state.

    Attributes:
        config: sizes and labels.
        tokenizer_folder: the folder whose tokenizer belongs to the weights, if they were loaded.
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        self.config = config
        self.tokenizer_folder: Path | None = None
        self.bert = BertModel(config)
        rate = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
        self.dropout = Dropout(rate)
        follow_clock(self.dropout, self.bert.clock[0])
        self.classifier = Linear(config.hidden_size, config.num_labels)
        for cell in self.cells_and_names():
            if isinstance(cell[1], Linear):
                cell[1].weight.set_data(_normal(cell[1].weight, config.initializer_range))

    def construct(self, input_ids, attention_mask, token_type_ids, perturbation=None, output_hidden_states=False):
        """Classifies a batch.

        Args:
            input_ids: int32 [batch, length].
            attention_mask: int32 [batch, length], 1 for a token and 0 for padding.
            token_type_ids: int32 [batch, length], 0 for the first text and 1 for the second of a pair.
            perturbation: float32 [batch, length, hidden], added to the word embeddings before everything else.
            output_hidden_states: also return the embeddings' and every layer's output.

        Returns:
            logits [batch, labels]; with `output_hidden_states` a pair of these and a tuple of num_hidden_layers + 1
            tensors [batch, length, hidden], which are 0 at padding.
        """
        pooled, states = self.bert(input_ids, attention_mask, token_type_ids, perturbation, whole=output_hidden_states)
        logits = self.classifier(self.dropout(pooled))
        if output_hidden_states:
            return logits, states
        return logits

    def summary_cells(self) -> list[nn.Cell]:
        """Returns the cells whose rows are the sentences' [CLS] states, unless all hidden states are asked for."""
        last = self.bert.encoder.layer[self.config.num_hidden_layers - 1]
        parts = (last.attention.self.query, last.attention.output, last.intermediate, last.output)
        whole = (*parts, self.bert.pooler, self.classifier)
        return [cell for part in whole for _, cell in part.cells_and_names()]

    @classmethod
    def from_pretrained(
        cls,
        folder_or_name: str | os.PathLike,
        num_labels: int | None = None,
        label_names: list[str] | None = None,
        seed: int = 0,
    ) -> BertForSequenceClassification:
        """Loads a model of either layout: `minilm`, a folder (ours or Hugging Face's), a run folder or a hub id.

        Args:
            num_labels: number of classes; a classifier of another size, or none, in the file is drawn from `seed`.
            label_names: the classes' names, which also give their number.

        Raises:
            UserError: the model cannot be found or does not fit; the message lists every tensor that is wrong.
        """
        from ckpt_convert.state import load_mindspore_state  # here, since the converter's check imports this module

        folder = pretrained.find_model(folder_or_name)
        wanted = len(label_names) if label_names else num_labels
        values, tensors = load_mindspore_state(folder, num_labels=wanted, seed=seed)
        config = BertConfig.from_dict(values)
        if label_names:
            config.id2label = dict(enumerate(label_names))
        model = cls(config)
        for name, parameter in model.parameters_and_names():
            parameter.set_data(Tensor(tensors[name]))
        model.tokenizer_folder = folder
        return model

    def save_pretrained(self, folder: str | os.PathLike, file_format: str = "safetensors") -> None:
        """Writes config.json, weights (`safetensors` or `ckpt`) and, if known, the tokenizer; whole or not at all.

        Raises:
            UserError: the folder cannot be written.
        """
        from ckpt_convert.convert import save_mindspore_folder

        save_mindspore_folder(folder, self.config.to_dict(), self.state(), self.tokenizer_folder, file_format)

    def state(self) -> dict[str, Any]:
        """Returns the parameters as NumPy arrays by name."""
        return {name: parameter.asnumpy() for name, parameter in self.parameters_and_names()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Sets the parameters to what `state` returned."""
        for name, parameter in self.parameters_and_names():
            parameter.set_data(Tensor(state[name]))


def _normal(parameter: Any, deviation: float) -> Tensor:
    return ms.common.initializer.initializer(Normal(deviation), parameter.shape, parameter.dtype)
