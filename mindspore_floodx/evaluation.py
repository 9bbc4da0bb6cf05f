"""Accuracy and loss of a classifier on a whole set, and its logits under noise on the word embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from . import distributed
from .encoding import EncodedSplit, make_batch


class _Logits(nn.Cell):
    def __init__(self, model: nn.Cell):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, input_ids, attention_mask, token_type_ids):
        return self.model(input_ids, attention_mask, token_type_ids)


class Evaluator:
    """Runs a classifier without dropout in a graph of its own, compiled once for every batch size and length."""

    def __init__(self, model: nn.Cell):
        self.forward = _Logits(model)
        self.ids = Tensor(shape=[None, None], dtype=ms.int32)
        self.forward.set_inputs(self.ids, self.ids, self.ids)

    def compile(self) -> None:
        """Compiles the graph now rather than at the first batch."""
        self.forward.set_train(False)
        self.forward.compile(self.ids, self.ids, self.ids)

    def logits(
        self, encoded: EncodedSplit, batch_size: int, before_each: Callable[[], None] | None = None
    ) -> np.ndarray:
        """Returns the logits of all examples in their order, float32 [examples, labels].

        Examples are taken by length, so that little is padded; padding does not change a logit. `before_each` is
        called before every batch. Workers of a job divide the batches among them, and each returns all logits.
        """
        self.forward.set_train(False)
        order = np.argsort(np.diff(encoded.offsets), kind="stable")
        if distributed.size() > 1:
            return self._divided(encoded, order, batch_size)
        rows: list[np.ndarray] = []
        for start in range(0, len(order), batch_size):
            if before_each is not None:
                before_each()
            rows.append(self._of(encoded, order[start : start + batch_size]))
        result = np.empty((len(order), rows[0].shape[1]), np.float32)
        result[order] = np.concatenate(rows)
        return result

    def _divided(self, encoded: EncodedSplit, order: np.ndarray, batch_size: int) -> np.ndarray:
        """The same, with the batches of a process alone, so that the logits are the same as well."""
        result = np.zeros((len(order), self.forward.model.config.num_labels), np.float32)
        for start in range(distributed.rank() * batch_size, len(order), distributed.size() * batch_size):
            examples = order[start : start + batch_size]
            result[examples] = self._of(encoded, examples)
        return distributed.total(result)

    def _of(self, encoded: EncodedSplit, examples: np.ndarray) -> np.ndarray:
        batch = make_batch(encoded, examples)
        inputs = (Tensor(batch[name]) for name in ("input_ids", "attention_mask", "token_type_ids"))
        return self.forward(*inputs).asnumpy()

    def evaluate(
        self,
        encoded: EncodedSplit,
        batch_size: int,
        f1: bool = False,
        before_each: Callable[[], None] | None = None,
    ) -> dict[str, float]:
        """Returns eval_loss (mean cross-entropy) and eval_accuracy, and eval_f1 of class 1 if asked for."""
        return scores(self.logits(encoded, batch_size, before_each), encoded.labels, f1)


class _PerturbedLogits(nn.Cell):
    def __init__(self, model: nn.Cell):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, input_ids, attention_mask, token_type_ids, perturbation):
        return self.model(input_ids, attention_mask, token_type_ids, perturbation)


class PerturbedEvaluator:
    """Runs a classifier without dropout on perturbed word embeddings; one graph for every batch size and length."""

    def __init__(self, model: nn.Cell):
        self.forward = _PerturbedLogits(model)
        ids = Tensor(shape=[None, None], dtype=ms.int32)
        noise = Tensor(shape=[None, None, model.config.hidden_size], dtype=ms.float32)
        self.forward.set_inputs(ids, ids, ids, noise)

    def logits(self, batch: Mapping[str, np.ndarray], perturbation: np.ndarray) -> np.ndarray:
        """Returns the logits of a batch of `make_batch`, float32 [batch, labels].

        `perturbation`, float32 [batch, length, hidden], is added to what the word embedding gives, before position and
        token type embeddings and LayerNorm; at padding it plays no role.
        """
        self.forward.set_train(False)
        inputs = (Tensor(batch[name]) for name in ("input_ids", "attention_mask", "token_type_ids"))
        return self.forward(*inputs, Tensor(perturbation)).asnumpy()


def scores(logits: np.ndarray, labels: np.ndarray, f1: bool = False) -> dict[str, float]:
    """Returns the metrics of logits [examples, labels] against labels [examples]; see `Evaluator.evaluate`."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    predicted = logits.argmax(axis=1)
    result = {"eval_loss": float(losses.mean()), "eval_accuracy": float((predicted == labels).mean())}
    if f1:
        hits = int(((predicted == 1) & (labels == 1)).sum())
        marked = int((predicted == 1).sum() + (labels == 1).sum())
        result["eval_f1"] = 2 * hits / marked if marked else 0.0
    return result
