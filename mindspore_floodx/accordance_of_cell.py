"""Gradient accordance of any classifier in MindSpore: a network that returns the mean loss of a batch."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from .accordance import Measured, positions_of, ranges
from .accordance_cells import CellGradients, Sums, Update, Zero
from .accordance_result import AccordanceSums
from .errors import UserError


class CellAccordance(Measured):
    """Measures gradient accordance on a stream of batches, as `GradientAccordance` does for BERT (eqs. 11-13).

    Every batch is split by class, so the network sees smaller batches: where examples influence each other (batch
    normalisation), measure without an optimizer, which is done in evaluation mode.

    Args:
        network: a cell that maps inputs and labels to their mean loss, a scalar, such as
            ``nn.WithLossCell(backbone, nn.CrossEntropyLoss())``.
        num_classes: k, at least 2.
        optimizer: over `network.trainable_params()`: a batch's class gradients add up to the gradient of its mean loss
            and the optimizer takes its step, dropout on; None only measures, dropout off.
        parameters: a regular expression; only trainable parameters in whose name it is found count. None: all.
        max_grad_norm: clips the optimizer's gradient to this global norm.

    Raises:
        UserError: fewer than two classes, or the expression is broken or fits no parameter.
    """

    def __init__(
        self,
        network: nn.Cell,
        num_classes: int,
        optimizer: nn.Optimizer | None = None,
        parameters: str | None = None,
        max_grad_norm: float | None = None,
    ):
        if num_classes < 2:
            raise UserError(f"num_classes is {num_classes}, but accordance compares at least 2 classes")
        self.network, self.num_classes, self.training = network, num_classes, optimizer is not None
        weights = list(network.trainable_params())
        chosen = positions_of(parameters, [each.name for each in weights])
        self._gradients = CellGradients(network, weights)
        self._sums = Sums(num_classes, [weights[i] for i in chosen], False)
        self._order = [*chosen, *sorted(set(range(len(weights))) - set(chosen))]  # measured ones, then the rest
        self._measured = len(chosen)
        places = [self._order.index(i) for i in range(len(weights))]
        self._update = Update(self._sums, ranges(places), optimizer, None, max_grad_norm)
        self._zero = Zero(self._parameters())
        self._counts = AccordanceSums(num_classes)
        self._known = False  # the inputs' shapes

    def add(self, *batch: Any) -> float:
        """Measures a batch and, with an optimizer, trains on it.

        Args:
            batch: what the network takes, arrays or tensors whose first axis counts the examples; the labels, integers
                from 0 to k - 1, at the end.

        Returns:
            the mean loss of the batch (before the step).

        Raises:
            UserError: a label that is none of the classes.
        """
        arrays = [each.asnumpy() if isinstance(each, Tensor) else np.asarray(each) for each in batch]
        labels = arrays[-1]
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise UserError(
                f"a label is {int(labels.min() if labels.min() < 0 else labels.max())}, but num_classes is "
                f"{self.num_classes}; labels count from 0"
            )
        if not self._known:  # classes of every size, in one graph
            shapes = [Tensor(shape=[None, *each.shape[1:]], dtype=Tensor(each[:1]).dtype) for each in arrays]
            self._gradients.set_inputs(Tensor(shape=[], dtype=ms.float32), *shapes)
            self._known = True
        before = self.network.training
        self._gradients.set_train(self.training)
        found: list[Tensor] = []
        loss, rest = Tensor(0.0, ms.float32), None
        for label in range(self.num_classes):
            rows = np.flatnonzero(labels == label)
            share = Tensor(len(rows) / len(labels), ms.float32)
            if len(rows) == 0:
                rows = np.zeros(1, np.int64)  # some example with a share of 0
            *gradients, mean = self._gradients(share, *(Tensor(np.ascontiguousarray(each[rows])) for each in arrays))
            gradients, loss = [gradients[i] for i in self._order], loss + mean
            found += gradients[: self._measured]
            others = gradients[self._measured :]
            rest = others if rest is None else [a + b for a, b in zip(rest, others, strict=True)]
        value = self._take(*self._update(Tensor([0], ms.int32), loss, *found, *(rest or [])))
        self.network.set_train(before)  # the mode belongs to the network, which others train
        return value
