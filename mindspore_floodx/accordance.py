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
from collections.abc import Mapping

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from .accordance_cells import ClassGradients, GradientSum, MeasuredStep, Sums, Update, Zero
from .accordance_result import Accordance, AccordanceSums
from .accordance_split import ClassRows, tapped, with_every_class
from .bert import BertForSequenceClassification
from .errors import UserError
from .loss_scale import loss_scale_of
from .parts import TOKENS, Division, Part
from .run_state import set_values, values


class Measured:
    """The running sums of class gradients that were measured, and what they say."""

    num_classes: int
    _sums: Sums
    _zero: Zero
    _counts: AccordanceSums

    def _take(self, loss: Tensor, products: Tensor) -> float:
        """Takes what `Update` returns of a batch; returns the loss."""
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
        names = [each.name for each in trainable]
        chosen = set(positions_of(parameters, names))
        tables = {each.name: table for table, each in _tables(model).items()}
        word = next((i for i, each in enumerate(trainable) if tables.get(each.name) == "words"), None)
        # the order in which `ClassGradients` gives them
        measured = sorted(chosen, key=lambda i: (_TABLES.index(tables[names[i]]) if names[i] in tables else 3, i))
        rest = sorted(set(range(len(trainable))) - chosen, key=lambda i: (i == word, i)) if self.training else []
        self._sums = Sums(self.num_classes, [trainable[i] for i in measured], word in chosen)
        self._rows = ClassRows(self.num_classes)
        measured_tables = [tables[names[i]] for i in measured if names[i] in tables]
        taps = [list(sums[len(measured_tables) :]) for sums in self._sums.sums]
        tapped_names = [names[i] for i in measured[len(measured_tables) :]]
        self._taps = dict(zip(tapped_names, map(list, zip(*taps, strict=True)), strict=True))
        self._gradients = ClassGradients(
            model,
            measured_tables,
            taps,
            [trainable[i] for i in rest if i != word],
            word in rest,
            loss_scale_of(optimizer),
        )
        places = {i: place for place, i in enumerate([*measured, *rest])}
        order = ranges([places[i] for i in range(len(trainable))]) if self.training else []
        self._update = Update(self._sums, order, optimizer, word, max_grad_norm)
        self._zero = Zero(self._parameters())
        self._counts = AccordanceSums(self.num_classes)
        ids, vector = Tensor(shape=[None, None], dtype=ms.int32), Tensor(shape=[None], dtype=ms.int32)
        perturbation = Tensor(shape=[None, None, self.hidden_size], dtype=ms.float32)
        weights = Tensor(shape=[None], dtype=ms.float32)
        self._inputs = (vector, ids, perturbation, weights, ids, ids, ids, vector)
        self._step = MeasuredStep(self._gradients, self._update)
        self._compiled = self._gives_gradients = False
        shapes: list[tuple[int | None, ...]] = [()]
        for i in [*measured * self.num_classes, *rest]:
            shapes.append((None, self.hidden_size) if i == word else tuple(trainable[i].shape))
        self._set_parts_inputs(shapes)

    def _set_parts_inputs(self, shapes: list[tuple[int | None, ...]]) -> None:
        """Prepares the sum over a batch's parts, given the shapes of what a part gives."""
        self._sum: GradientSum | None = None
        if self.division.is_whole:
            return
        self._order = sorted(range(len(shapes)), key=lambda i: (None not in shapes[i], i))
        self._sum = GradientSum([shapes[i] for i in self._order])
        given = [Tensor(shape=list(shape), dtype=ms.float32) for shape in shapes]
        self._sum_inputs = [given[i] for i in self._order] * self.division.micro_batches
        self._update_inputs = (Tensor(shape=[None], dtype=ms.int32), *given)
        self._sum.set_inputs(*self._sum_inputs)
        self._update.set_inputs(*self._update_inputs)

    def compile(self) -> None:
        """Compiles now rather than at the first batch."""
        if self._sum is None:
            self._compile_tapped(self._step)
        else:
            self._compile_tapped(self._gradients)
            self._sum.compile(*self._sum_inputs)
            self._update.compile(*self._update_inputs)
        self._compiled = True

    def _compile_tapped(self, cell: nn.Cell) -> None:
        cell.set_inputs(*self._inputs)  # what varies from batch to batch, so that it is compiled once
        cell.set_train(self.training)
        with tapped(self.model, self._taps, self._rows):
            cell.compile(*self._inputs)

    def add(self, batch: Mapping[str, np.ndarray]) -> float:
        """Measures a batch and, with an optimizer, trains on it.

        Args:
            batch: input_ids, attention_mask, token_type_ids: int32 [batch, length]; labels: int32 [batch], as
                `encoding.make_batch` gives them.

        Returns:
            the mean loss J of the batch (before the step).
        """
        if not self._compiled:
            self.compile()
        # in MindSpore training is a mode of the cells, which several graphs share
        self._step.set_train(self.training)
        words = np.unique(batch["input_ids"]).astype(np.int32)
        parts = self.division.parts({name: batch[name] for name in (*TOKENS, "labels")})
        if self._sum is None:
            (part,) = parts
            loss, products = self._step(*self._inputs_of(part, words))
        else:
            found: list[Tensor] = []
            for part in parts:
                gradients = self._gradients(*self._inputs_of(part, words))
                found += [gradients[i] for i in self._order]
            total = dict(zip(self._order, self._sum(*found), strict=True))
            loss, products = self._update(Tensor(words), *(total[i] for i in range(len(total))))
        return self._take(loss, products)

    def class_gradients(self, batch: Mapping[str, np.ndarray]) -> tuple[np.ndarray, list[list[Tensor]]]:
        """Returns the words of a batch (their ids, int32 [W]) and, for each class, its gradient by each measured
        parameter; nothing is measured, and the batch is not divided.

        A gradient is that of the mean loss of the class's examples times their share of the batch; that of a class
        which the batch lacks is 0. The gradient by the word embeddings, if they are measured, comes first and is that
        by the embeddings of the words [W, hidden].
        """
        if not self._gives_gradients:
            self._compile_tapped(self._gradients)
            self._gives_gradients = True
        self._gradients.set_train(self.training)
        words = np.unique(batch["input_ids"]).astype(np.int32)
        (part,) = Division().parts({name: batch[name] for name in (*TOKENS, "labels")})
        _, *gradients = self._gradients(*self._inputs_of(part, words))
        size = len(self._sums.sums[0])
        return words, [gradients[label * size : (label + 1) * size] for label in range(self.num_classes)]

    def _inputs_of(self, part: Part, words: np.ndarray) -> list[Tensor]:
        """What `ClassGradients` takes."""
        batch, weights = with_every_class(part.batch, self.num_classes, part.share)
        self._rows.set(batch["labels"], batch["attention_mask"])
        places = np.searchsorted(words, batch["input_ids"]).astype(np.int32)
        perturbation = np.zeros((*places.shape, self.hidden_size), np.float32)
        ids = [Tensor(batch[name]) for name in (*TOKENS, "labels")]
        return [Tensor(words), Tensor(places), Tensor(perturbation), Tensor(weights), *ids]


_TABLES = ("words", "positions", "types")


def _tables(model: BertForSequenceClassification) -> dict[str, ms.Parameter]:
    """The tables whose rows are added up to the embeddings."""
    parts = model.bert.embeddings
    cells = (parts.word_embeddings, parts.position_embeddings, parts.token_type_embeddings)
    return {table: cell.embedding_table for table, cell in zip(_TABLES, cells, strict=True)}


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
