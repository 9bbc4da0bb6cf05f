"""Gradient accordance of a model (Flooding-X, eqs. 6-13), measured in one pass, along the training or at one point.

A batch is split by class. `ClassGradients` gives each class's gradient; `Update` takes those of one batch together:
it returns their products, adds the unit gradients to the sums V_a and, online, gives the optimizer their total, which
is the batch's own gradient. The closed form in `accordance_result` makes the exact value of products and sums.

Held beside the model are the k sums V_a and the k class gradients of the current batch, where plain training holds one
gradient. The word embeddings' gradient, half of MiniLM's, is 0 but for the words of the batch, and only their rows are
kept.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from .accordance_cells import ClassGradients, GradientSum, Sums, Update, Zero
from .accordance_result import Accordance, AccordanceSums
from .bert import BertForSequenceClassification
from .errors import UserError
from .loss_scale import loss_scale_of
from .parts import TOKENS, Division
from .run_state import set_values, values


class Measured:
    """The running sums of class gradients that were measured, and what they say."""

    num_classes: int
    _sums: Sums
    _update: Update
    _zero: Zero
    _counts: AccordanceSums

    def _take(self, words: np.ndarray, classes: list[list[Tensor]]) -> float:
        """Takes a batch's class gradients, the loss share at the end of each; returns the batch's mean loss."""
        loss, products = self._update(Tensor(words), *(each for gradients in classes for each in gradients))
        self._counts.add(self._square(products))
        return float(loss.asnumpy())

    def _square(self, products: Tensor) -> np.ndarray:
        """The symmetric matrix [k, k] of a lower triangle."""
        matrix = np.zeros((self.num_classes, self.num_classes))
        matrix[np.tril_indices(self.num_classes)] = products.asnumpy()
        return matrix + np.tril(matrix, -1).T

    def result(self) -> Accordance:
        """Returns the accordance of the batches since the start or the last `reset`."""
        return self._counts.result(self._square(self._sums()))

    def state(self) -> dict[str, np.ndarray]:
        """Returns what was measured since the start or the last `reset`, by name: the sums V_a and the counts."""
        return self._counts.state() | values(self._parameters())

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on measuring from what `state` returned.

        Raises:
            UserError: it is another model's.
        """
        self._counts.load_state(state)
        set_values(self._parameters(), state)

    def reset(self) -> None:
        """Forgets all batches; what follows is a new (sub-)epoch."""
        self._zero()
        self._counts = AccordanceSums(self.num_classes)

    def _parameters(self) -> list[ms.Parameter]:
        return [each for sums in self._sums.sums for each in sums]


class GradientAccordance(Measured):
    r"""Measures gradient accordance on a stream of batches, exactly and in one pass (eqs. 11-13).

    Without an optimizer every batch is measured at the model's present parameters, dropout off ("snapshot"). With one,
    the class gradients of a batch are added up to the gradient of its mean loss and the optimizer takes its step
    ("online"): every example goes through one forward and one backward pass for training and measuring together.

    Args:
        model: the classifier; its own number of classes is k. Any k from 2 on.
        optimizer: over `model.trainable_params()`; None only measures.
        parameters: a regular expression; only trainable parameters in whose name it is found count, such as
            ``r"layer\.11|classifier"``. None: all.
        max_grad_norm: clips the optimizer's gradient to this global norm; the accordance is that of the class
            gradients, which clipping does not turn.
        division: how a batch is divided; a class's gradient is that of its examples in all parts.

    Raises:
        UserError: the expression is broken or fits no parameter.
    """

    def __init__(
        self,
        model: BertForSequenceClassification,
        optimizer: nn.Optimizer | None = None,
        parameters: str | None = None,
        max_grad_norm: float | None = None,
        division: Division = Division(),  # noqa: B008 - a tuple of numbers
    ):
        self.model, self.training, self.division = model, optimizer is not None, division
        self.num_classes: int = model.config.num_labels
        self.hidden_size: int = model.config.hidden_size
        trainable = list(model.trainable_params())
        embedding = model.bert.embeddings.word_embeddings.embedding_table
        word = next((i for i, each in enumerate(trainable) if each is embedding), None)
        weights = [each for each in trainable if each is not embedding]
        # places in what ClassGradients returns: the words' rows, then the other weights
        order = ([] if word is None else [trainable[word]]) + weights
        first = 1 if word is None else 0
        chosen = positions_of(parameters, [each.name for each in order])
        self._gradients = ClassGradients(model, weights, loss_scale_of(optimizer))
        self._sums = Sums(self.num_classes, [order[i] for i in chosen], word is not None and 0 in chosen)
        self._update = Update(
            self._sums, ranges([first + i for i in chosen]), len(weights) + 2, optimizer, word, max_grad_norm
        )
        self._zero = Zero(self._parameters())
        self._counts = AccordanceSums(self.num_classes)
        self._shapes = [tuple(each.shape) for each in weights]
        self._sum: GradientSum | None = None
        if not division.is_whole:
            self._sum = GradientSum([(None, self.hidden_size), *self._shapes, ()])
        self._set_inputs()

    def _set_inputs(self) -> None:
        """Tells which sizes vary from batch to batch, so that each graph is compiled once."""
        ids, vector = Tensor(shape=[None, None], dtype=ms.int32), Tensor(shape=[None], dtype=ms.int32)
        words = Tensor(shape=[None, self.hidden_size], dtype=ms.float32)
        perturbation = Tensor(shape=[None, None, self.hidden_size], dtype=ms.float32)
        scalar = Tensor(shape=[], dtype=ms.float32)
        self._gradient_inputs = (vector, vector, perturbation, scalar, ids, ids, ids, vector)
        one = (words, *(Tensor(shape=list(shape), dtype=ms.float32) for shape in self._shapes), scalar)
        self._update_inputs = (vector, *(one * self.num_classes))
        self._gradients.set_inputs(*self._gradient_inputs)
        self._update.set_inputs(*self._update_inputs)
        self._sum_inputs = one * self.division.micro_batches
        if self._sum is not None:
            self._sum.set_inputs(*self._sum_inputs)

    def compile(self) -> None:
        """Compiles now rather than at the first batch."""
        self._gradients.set_train(self.training)
        self._gradients.compile(*self._gradient_inputs)
        self._update.compile(*self._update_inputs)
        if self._sum is not None:
            self._sum.compile(*self._sum_inputs)

    def add(self, batch: Mapping[str, np.ndarray]) -> float:
        """Measures a batch and, with an optimizer, trains on it.

        Args:
            batch: input_ids, attention_mask, token_type_ids: int32 [batch, length]; labels: int32 [batch], as
                `encoding.make_batch` gives them.

        Returns:
            the mean loss J of the batch (before the step).
        """
        words, classes = self.class_gradients(batch)
        return self._take(words, classes)

    def class_gradients(self, batch: Mapping[str, np.ndarray]) -> tuple[np.ndarray, list[list[Tensor]]]:
        """Returns the words of a batch (their ids, int32 [W]) and, for each class, its gradient in the batch.

        A gradient is that of the mean loss of the class's examples times their share of the batch: by the embeddings
        of the words [W, hidden], by every other trainable parameter, and share x loss at the end. That of a class
        which the batch lacks is 0. With an optimizer that has a loss scale, gradients are multiplied by it.
        """
        # in MindSpore training is a mode of the cells, which several graphs share
        self._gradients.set_train(self.training)
        labels = batch["labels"]
        words, places = np.unique(batch["input_ids"], return_inverse=True)
        words = words.astype(np.int32)
        places = places.reshape(batch["input_ids"].shape).astype(np.int32)
        classes = []
        for label in range(self.num_classes):
            of_parts = [
                self._class_gradient(batch, words, places, part[labels[part] == label])
                for part in self.division.rows(len(labels))
            ]
            classes.append(of_parts[0] if self._sum is None else self._sum(*itertools.chain(*of_parts)))
        return words, classes

    def _class_gradient(
        self, batch: Mapping[str, np.ndarray], words: np.ndarray, places: np.ndarray, rows: np.ndarray
    ) -> list[Tensor]:
        """The gradient of these rows' mean loss times their share of the batch; see `class_gradients`."""
        share = len(rows) / len(batch["labels"])
        if len(rows) == 0:
            rows = np.zeros(1, np.int64)  # some example with a share of 0
        length = int(np.flatnonzero(batch["attention_mask"][rows].any(axis=0)).max(initial=0)) + 1
        return self._gradients(
            Tensor(words),
            Tensor(places[rows][:, :length].ravel()),
            Tensor(np.zeros((len(rows), length, self.hidden_size), np.float32)),
            Tensor(share, ms.float32),
            *(Tensor(np.ascontiguousarray(batch[name][rows][:, :length])) for name in TOKENS),
            Tensor(batch["labels"][rows]),
        )


def positions_of(expression: str | None, names: list[str]) -> list[int]:
    """The positions of the names in which the expression is found."""
    try:
        positions = [i for i, name in enumerate(names) if expression is None or re.search(expression, name)]
    except re.error as error:
        raise UserError(f"accordance_parameters is {expression!r}, no regular expression ({error})") from None
    if not positions:
        raise UserError(
            f"accordance_parameters is {expression!r}, which is found in no parameter's name; "
            f"names look like {names[-1]}"
        )
    return positions


def ranges(positions: list[int]) -> list[tuple[int, int]]:
    """Positions as half-open ranges of neighbours: slicing a few times compiles 50 times faster than 100 look-ups."""
    runs: list[tuple[int, int]] = []
    for each in positions:
        if runs and runs[-1][1] == each:
            runs[-1] = (runs[-1][0], each + 1)
        else:
            runs.append((each, each + 1))
    return runs
