"""Gradient accordance of a model (Flooding-X, eqs. 6-13), measured in one pass, along the training or at one point.

`ClassGradients` gives the gradient of each class of a batch, from one forward and one backward pass; `Update` takes
those of one batch together: it returns their products, adds the unit gradients to the sums V_a and, online, gives the
optimizer their total, which is the batch's own gradient. The closed form in `accordance_result` makes the exact value
of products and sums.

Held beside the model are the k sums V_a and the k class gradients of the current batch, where plain training holds one
gradient. The word embeddings' gradient, half of MiniLM's, is 0 but for the words of the batch, and only their rows are
kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from .accordance_cells import ClassGradients, Sums, Update, Zero
from .accordance_result import Accordance, AccordanceSums
from .accordance_split import ClassRows, tapped
from .bert import BertForSequenceClassification
from .errors import UserError
from .run_state import set_values, values


class Measured:
    """The running sums of class gradients that were measured, and what they say."""

    num_classes: int
    _sums: Sums
    _update: Update
    _zero: Zero
    _counts: AccordanceSums

    def _take(self, words: np.ndarray, loss: Tensor, gradients: Sequence[Tensor]) -> float:
        """Takes a batch's mean loss and class gradients, as `Update` does; returns the loss."""
        loss, products = self._update(Tensor(words), loss, *gradients)
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

    Raises:
        UserError: the expression is broken or fits no parameter.
    """

    def __init__(
        self,
        model: BertForSequenceClassification,
        optimizer: nn.Optimizer | None = None,
        parameters: str | None = None,
        max_grad_norm: float | None = None,
    ):
        self.model, self.training = model, optimizer is not None
        self.num_classes: int = model.config.num_labels
        self.hidden_size: int = model.config.hidden_size
        trainable = list(model.trainable_params())
        names = [each.name for each in trainable]
        chosen = set(positions_of(parameters, names))
        tables = {each.name: table for table, each in _tables(model).items()}
        word = next((i for i, each in enumerate(trainable) if tables.get(each.name) == "words"), None)
        # in the measured ones and in the rest the word embeddings, which come as rows, have their place at an end
        measured = sorted(chosen, key=lambda i: (i != word, i))
        rest = sorted(set(range(len(trainable))) - chosen, key=lambda i: (i == word, i)) if self.training else []
        self._sums = Sums(self.num_classes, [trainable[i] for i in measured], word in chosen)
        by_taps = [place for place, i in enumerate(measured) if names[i] not in tables]
        taps = [[sums[place] for place in by_taps] for sums in self._sums.sums]
        self._taken = {names[measured[place]]: [sums[place] for sums in self._sums.sums] for place in by_taps}
        self._rows = ClassRows(self.num_classes)
        self._gradients = ClassGradients(
            model,
            [tables.get(names[i], "") for i in measured],
            taps,
            [trainable[i] for i in rest if i != word],
            word in rest,
        )
        places = {i: place for place, i in enumerate([*measured, *rest])}
        order = [places[i] for i in range(len(trainable))] if self.training else []
        self._update = Update(self._sums, order, optimizer, word, max_grad_norm)
        self._zero = Zero(self._parameters())
        self._counts = AccordanceSums(self.num_classes)
        self._shapes = [tuple(trainable[i].shape) for i in measured]
        self._rest_shapes = [tuple(trainable[i].shape) for i in rest if i != word]
        self._rest_words, self._has_words = word in rest, word in chosen
        self._compiled = False
        self._set_inputs()

    def _set_inputs(self) -> None:
        """Tells which sizes vary from batch to batch, so that each graph is compiled once."""
        ids, vector = Tensor(shape=[None, None], dtype=ms.int32), Tensor(shape=[None], dtype=ms.int32)
        words = Tensor(shape=[None, self.hidden_size], dtype=ms.float32)
        perturbation = Tensor(shape=[None, None, self.hidden_size], dtype=ms.float32)
        self._gradient_inputs = (vector, ids, perturbation, ids, ids, ids, vector)
        one, rest = (
            [Tensor(shape=list(shape), dtype=ms.float32) for shape in shapes]
            for shapes in (self._shapes, self._rest_shapes)
        )
        if self._has_words:
            one[0] = words
        if self._rest_words:
            rest.append(words)
        loss = Tensor(shape=[], dtype=ms.float32)
        self._update_inputs = (vector, loss, *(one * self.num_classes), *rest)
        self._gradients.set_inputs(*self._gradient_inputs)
        self._update.set_inputs(*self._update_inputs)

    def compile(self) -> None:
        """Compiles now rather than at the first batch."""
        self._gradients.set_train(self.training)
        with tapped(self.model, self._taken, self._rows):
            self._gradients.compile(*self._gradient_inputs)
        self._update.compile(*self._update_inputs)
        self._compiled = True

    def add(self, batch: Mapping[str, np.ndarray]) -> float:
        """Measures a batch and, with an optimizer, trains on it.

        Args:
            batch: input_ids, attention_mask, token_type_ids: int32 [batch, length]; labels: int32 [batch], as
                `encoding.make_batch` gives them.

        Returns:
            the mean loss J of the batch (before the step).
        """
        return self._take(*self._class_gradients(batch))

    def _class_gradients(self, batch: Mapping[str, np.ndarray]) -> tuple[np.ndarray, Tensor, Sequence[Tensor]]:
        """Returns the words of a batch (their ids, int32 [W]), J, and the gradients as `Update` takes them.

        That of a class is the gradient of the mean loss of its examples times their share of the batch; that of a
        class which the batch lacks is 0.
        """
        if not self._compiled:
            self.compile()
        # in MindSpore training is a mode of the cells, which several graphs share
        self._gradients.set_train(self.training)
        order = np.argsort(batch["labels"], kind="stable")
        batch = {name: np.ascontiguousarray(batch[name][order]) for name in (*_IDS, "labels")}
        words, places = np.unique(batch["input_ids"], return_inverse=True)
        words = words.astype(np.int32)
        self._rows.set(batch["labels"], batch["attention_mask"])
        loss, *gradients = self._gradients(
            Tensor(words),
            Tensor(places.reshape(batch["input_ids"].shape).astype(np.int32)),
            Tensor(np.zeros((*batch["input_ids"].shape, self.hidden_size), np.float32)),
            *(Tensor(batch[name]) for name in _IDS),
            Tensor(batch["labels"]),
        )
        number = len(self._shapes)
        for label in set(range(self.num_classes)) - set(batch["labels"].tolist()):
            for place in range(label * number, (label + 1) * number):
                gradients[place] = Tensor(np.zeros(gradients[place].shape, np.float32))
        return words, loss, gradients


_IDS = ("input_ids", "attention_mask", "token_type_ids")


def _tables(model: BertForSequenceClassification) -> dict[str, ms.Parameter]:
    """The tables whose rows are added up to the embeddings."""
    embeddings = model.bert.embeddings
    return {
        "words": embeddings.word_embeddings.embedding_table,
        "positions": embeddings.position_embeddings.embedding_table,
        "types": embeddings.token_type_embeddings.embedding_table,
    }


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
