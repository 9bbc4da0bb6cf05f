"""The graphs behind gradient accordance: the gradient of one class's examples, and what is done with a batch's."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from .collectives import SumsOverWorkers
from .flooding import ClassificationLoss
from .loss_scale import GuardedStep, LossScale, loss_scale_of


class _Weighted(nn.Cell):
    """(1 + probe) share J with a `probe` that is always 0: share J' by the weights, share J by `probe`.

    So loss and gradient come from one forward pass (as in `flooding`). A loss scale takes the place of the 1.
    """

    def __init__(self, loss: nn.Cell, probe: Parameter, loss_scale: LossScale | None):
        super().__init__(auto_prefix=False)
        self.loss, self.probe, self.loss_scale = loss, probe, loss_scale

    def construct(self, perturbation, share, input_ids, attention_mask, token_type_ids, labels):
        scale = 1.0 if self.loss_scale is None else self.loss_scale.scale
        return (scale + self.probe) * share * self.loss(input_ids, attention_mask, token_type_ids, labels, perturbation)


class ClassGradients(nn.Cell):
    """The gradient of share x (mean loss of some examples).

    That by the word embeddings is the one by a perturbation added to them, summed over equal words.
    """

    def __init__(self, model: nn.Cell, weights: list[Parameter], loss_scale: LossScale | None = None):
        super().__init__(auto_prefix=False)
        probe = Parameter(Tensor(0.0, ms.float32), name="probe")
        self.weighted = _Weighted(ClassificationLoss(model), probe, loss_scale)
        self.weights_and_probe = ParameterTuple((*weights, probe))
        self.gradient = ops.GradOperation(get_all=True, get_by_list=True)

    def construct(self, words, places, perturbation, share, input_ids, attention_mask, token_type_ids, labels):
        """Returns the gradient by the embeddings of `words` [W, H], by each weight, and share x loss at the end.

        words: int32 [W], different ones; places: int32 [B * L], each token's place in them; perturbation: zeros
        [B, L, H]; share: scalar; the rest as for the model.
        """
        of_inputs, of_weights = self.gradient(self.weighted, self.weights_and_probe)(
            perturbation, share, input_ids, attention_mask, token_type_ids, labels
        )
        of_tokens = of_inputs[0].reshape((-1, perturbation.shape[2]))
        return (ops.unsorted_segment_sum(of_tokens, places, words.shape[0]), *of_weights)


class _WeightedLoss(nn.Cell):
    """As `_Weighted`, around a cell that returns the mean loss itself."""

    def __init__(self, network: nn.Cell, probe: Parameter):
        super().__init__(auto_prefix=False)
        self.network, self.probe = network, probe

    def construct(self, share, *inputs):
        return (1.0 + self.probe) * share * self.network(*inputs)


class CellGradients(nn.Cell):
    """The gradient of share x (mean loss of some examples) of any network that returns a mean loss."""

    def __init__(self, network: nn.Cell, weights: list[Parameter]):
        super().__init__(auto_prefix=False)
        probe = Parameter(Tensor(0.0, ms.float32), name="probe")
        self.weighted = _WeightedLoss(network, probe)
        self.weights_and_probe = ParameterTuple((*weights, probe))
        self.gradient = ops.GradOperation(get_by_list=True)

    def construct(self, share, *inputs):
        """Returns what `ClassGradients` does, with an array of zeros, [1, 1], in the place of the words' rows."""
        return (ops.zeros((1, 1), ms.float32), *self.gradient(self.weighted, self.weights_and_probe)(share, *inputs))


_row_products = ops.MultitypeFuncGraph("row_products")
_accumulate = ops.MultitypeFuncGraph("accumulate")
_add = ops.MultitypeFuncGraph("add")
_clear = ops.MultitypeFuncGraph("clear")
_descend = ops.ApplyProximalGradientDescent()
_ZERO = Tensor(0.0, ms.float32)


@_row_products.register("Tensor", "Tensor")
def _row_products_of(first, second):
    # Rows are summed in float32 and their sums later in float64: one float32 sum over millions of numbers loses digits.
    product = first * second if len(first.shape) < 2 else (first * second).sum(-1)
    return product if len(first.shape) in (1, 2) else product.reshape((-1,))


@_accumulate.register("Tensor", "Tensor", "Tensor")
def _accumulate_one(step, total, gradient):
    # total - step * gradient in one kernel and without an array between: half the time of assign_add
    return _descend(total, step, _ZERO, _ZERO, gradient)


@_add.register("Tensor", "Tensor")
def _add_one(first, second):
    return first + second


@_clear.register("Tensor")
def _clear_one(parameter):
    return ops.assign(parameter, ops.zeros_like(parameter))


class _Products(nn.Cell):
    """The scalar products of k gradients: the lower triangle of [k, k], row by row, float64 [k (k + 1) / 2]."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.map = ops.HyperMap()

    def construct(self, gradients):  # k tuples of tensors
        products = ()
        for a in range(len(gradients)):
            for b in range(a + 1):
                rows = ops.concat(self.map(_row_products, gradients[a], gradients[b]))
                products = (*products, rows.astype(ms.float64).sum())
        return ops.stack(products)


class Sums(nn.Cell):
    """The k sums of unit gradients V_a."""

    def __init__(self, num_classes: int, measured: list[Parameter], has_words: bool):
        super().__init__(auto_prefix=False)
        self.has_words = has_words  # whether the first of the measured is the word embeddings
        self.sums = [
            ParameterTuple(
                Parameter(Tensor(np.zeros(p.shape, np.float32)), name=f"class{c}.{p.name}", requires_grad=False)
                for p in measured
            )
            for c in range(num_classes)
        ]
        self.products, self.map = _Products(), ops.HyperMap()

    def add(self, gradients, words):
        """Adds the gradients, each scaled to length 1, and returns their products."""
        products = self.products(gradients)
        for c in range(len(self.sums)):
            square = products[c * (c + 3) // 2]  # the diagonal
            scale = ops.select(square > 0, ops.rsqrt(ops.maximum(square, 1e-300)), ops.zeros_like(square))
            scale = scale.astype(ms.float32)
            if self.has_words:
                ops.scatter_add(self.sums[c][0], words, gradients[c][0] * scale)
                self.map(ops.partial(_accumulate, -scale), self.sums[c][1:], gradients[c][1:])
            else:
                self.map(ops.partial(_accumulate, -scale), self.sums[c], gradients[c])
        return products

    def construct(self):
        """Returns the products V_a . V_b."""
        return self.products(self.sums)


class GradientSum(nn.Cell):
    """The sum of several gradients of the same class, over the parts of a batch and over all workers.

    Args:
        shapes: of what `ClassGradients` returns.
    """

    def __init__(self, shapes: list[tuple[int | None, ...]]):
        super().__init__(auto_prefix=False)
        self.count, self.map, self.sums = len(shapes), ops.HyperMap(), SumsOverWorkers(shapes)

    def construct(self, *gradients):
        total = gradients[: self.count]
        for start in range(self.count, len(gradients), self.count):
            total = self.map(_add, total, gradients[start : start + self.count])
        return self.sums(total)


class Zero(nn.Cell):
    def __init__(self, parameters: list[Parameter]):
        super().__init__(auto_prefix=False)
        self.parameters, self.map = ParameterTuple(parameters), ops.HyperMap()

    def construct(self):
        return self.map(_clear, self.parameters)


class Update(nn.Cell):
    """What is done with the class gradients of a batch: products, sums, and a step of the optimizer if there is one."""

    def __init__(self, sums: Sums, runs: list[tuple[int, int]], per_class: int, optimizer, word, max_grad_norm):
        super().__init__(auto_prefix=False)
        self.sums, self.runs, self.per_class = sums, runs, per_class
        # the class gradients are those of all workers, and so is an overflow in them
        self.step = None if optimizer is None else GuardedStep(optimizer, max_grad_norm, workers=False)
        self.loss_scale, self.word = loss_scale_of(optimizer), word
        self.map = ops.HyperMap()
        if optimizer is not None and word is not None:
            shape = optimizer.parameters[word].shape
            # the optimizer moves all words (decay, moments), so it gets a whole gradient, 0 between two steps
            self.of_words = Parameter(Tensor(np.zeros(shape, np.float32)), name="of_words", requires_grad=False)

    def construct(self, words, *gradients):
        """Returns the batch's loss J and the products of its class gradients (see `_Products`).

        words: int32 [W]; gradients: what `ClassGradients` returned for each class, one after the other.
        """
        classes, loss = (), 0.0
        for start in range(0, len(gradients), self.per_class):
            loss = loss + gradients[start + self.per_class - 1]
            classes = (*classes, gradients[start : start + self.per_class - 1])
        measured = ()
        for each in classes:
            chosen = ()
            for start, stop in self.runs:
                chosen = (*chosen, *each[start:stop])
            measured = (*measured, chosen)
        if self.loss_scale is not None:
            return loss, self.guarded(words, classes, measured)
        products = self.sums.add(measured, words)
        if self.step is not None:
            loss = ops.depend(loss, self.train(words, classes))
        return loss, products

    def guarded(self, words, classes, measured):
        """Measures and trains unless a gradient overflowed; returns the products, 0 of a step that was skipped."""
        k, flat = len(classes), ()
        for each in classes:
            flat = (*flat, *each)
        overflowed = self.loss_scale.watch(flat)
        products = ops.zeros((k * (k + 1) // 2,), ms.float64)
        if overflowed == 0:
            unscaled = ()
            for each in measured:
                unscaled = (*unscaled, self.loss_scale.unscaled(each))
            products = ops.depend(self.sums.add(unscaled, words), self.train(words, classes))
        return products

    def train(self, words, classes):
        total = classes[0]
        for each in classes[1:]:
            total = self.map(_add, total, each)
        if self.word is None:
            return self.step(total[1:])
        ops.scatter_update(self.of_words, words, total[0])
        done = self.step((*total[1 : self.word + 1], self.of_words, *total[self.word + 1 :]))
        return ops.depend(done, ops.scatter_update(self.of_words, words, ops.zeros_like(total[0])))
