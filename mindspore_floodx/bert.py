"""BERT (Devlin et al., 2019) for sequence classification in MindSpore, in one file.

Parameter names are MindSpore's for the layers (`gamma`, `beta`, `embedding_table`) and Hugging Face's for everything
else, so that a checkpoint of either side reads as the other's (package `ckpt_convert`).

Shapes in comments: B batch, L length, H hidden size, N heads, D = H / N, T = B * L.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import Normal

from . import model_config, pretrained
from .errors import UserError
from .layers import Attention, Dropout, Gelu, Linear, Tanh, padding_bias


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


def _layer_norm(config: BertConfig) -> nn.LayerNorm:
    return nn.LayerNorm((config.hidden_size,), epsilon=config.layer_norm_eps)


class BertEmbeddings(nn.Cell):
    """Word + position + token-type embeddings, LayerNorm, dropout."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.word_embeddings = _embedding(config.vocab_size, config)
        self.position_embeddings = _embedding(config.max_position_embeddings, config)
        self.token_type_embeddings = _embedding(config.type_vocab_size, config)
        self.LayerNorm = _layer_norm(config)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def construct(self, input_ids, token_type_ids, perturbation=None):  # (B, L) -> (B, L, H)
        words = self.word_embeddings(input_ids)
        if perturbation is not None:
            words = words + perturbation
        positions = ops.arange(0, input_ids.shape[1]).astype(ms.int32)
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

    def split(self, x, batch, length):  # (T, H) -> (B, N, L, D)
        return x.reshape((batch, length, self.heads, self.head_size)).transpose((0, 2, 1, 3))

    def construct(self, hidden, bias):  # (T, H), (B, N, L, L) -> (T, H)
        batch, length = bias.shape[0], bias.shape[3]
        context = self.attention(
            self.split(self.query(hidden), batch, length),
            self.split(self.key(hidden), batch, length),
            self.split(self.value(hidden), batch, length),
            bias,
        )
        return context.transpose((0, 2, 1, 3)).reshape((batch * length, self.heads * self.head_size))


class BertOutput(nn.Cell):
    """Projection, dropout, residual connection, LayerNorm: the end of the attention and of the feed-forward block."""

    def __init__(self, in_size: int, config: BertConfig):
        super().__init__()
        self.dense = Linear(in_size, config.hidden_size)
        self.LayerNorm = _layer_norm(config)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def construct(self, x, residual):  # (T, in), (T, H) -> (T, H)
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class BertAttention(nn.Cell):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.self = BertSelfAttention(config)
        self.output = BertOutput(config.hidden_size, config)

    def construct(self, hidden, bias):  # (T, H), (B, N, L, L) -> (T, H)
        return self.output(self.self(hidden, bias), hidden)


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

    def construct(self, hidden, bias):  # (T, H), (B, N, L, L) -> (T, H)
        hidden = self.attention(hidden, bias)
        return self.output(self.intermediate(hidden), hidden)


class BertEncoder(nn.Cell):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.layer = nn.CellList([BertLayer(config) for _ in range(config.num_hidden_layers)])
        self.heads = config.num_attention_heads

    def construct(self, hidden, attention_mask):  # (T, H), (B, L) -> tuple of (T, H), one for each layer
        # written out once for all heads and rows, since adding with a broadcast is ten times slower on a CPU
        bias = ops.tile(padding_bias(attention_mask), (1, self.heads, attention_mask.shape[1], 1))
        states = ()
        for layer in self.layer:
            hidden = layer(hidden, bias)
            states = (*states, hidden)
        return states


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

    def construct(self, input_ids, attention_mask, token_type_ids, perturbation=None):
        """Returns the pooled state (B, H) and all hidden states: the embeddings (B, L, H), then (T, H) a layer."""
        embedded = self.embeddings(input_ids, token_type_ids, perturbation)
        batch, length, size = embedded.shape
        states = self.encoder(embedded.reshape((batch * length, size)), attention_mask)
        first = states[-1].reshape((batch, length, size))[:, 0]
        return self.pooler(first), (embedded, *states)


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
            tensors [batch, length, hidden].
        """
        pooled, states = self.bert(input_ids, attention_mask, token_type_ids, perturbation)
        logits = self.classifier(self.dropout(pooled))
        if output_hidden_states:
            hidden = ()
            for state in states:
                hidden = (*hidden, state.reshape(states[0].shape))
            return logits, hidden
        return logits

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


def _normal(parameter: Any, deviation: float) -> Tensor:
    return ms.common.initializer.initializer(Normal(deviation), parameter.shape, parameter.dtype)
