"""The graphs behind gradient accordance: the gradients of a batch's classes, and what is done with them."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from .collectives import SumsOverWorkers
from .flooding import ExampleLosses
from .loss_scale import GuardedStep, LossScale, loss_scale_of


class _Probed(nn.Cell):
    """(1 + probe) J with a `probe` that is always 0: J' by the weights, J by `probe`; J is a weighted sum of losses.

    So loss and gradient come from one forward pass (as in `flooding`). A loss scale takes the place of the 1.
    """

    def __init__(self, losses: nn.Cell, probe: Parameter, loss_scale: LossScale | None):
        super().__init__(auto_prefix=False)
        self.losses, self.probe, self.loss_scale = losses, probe, loss_scale

    def construct(self, perturbation, weights, input_ids, attention_mask, token_type_ids, labels):
        losses = self.losses(input_ids, attention_mask, token_type_ids, labels, perturbation)
        scale = 1.0 if self.loss_scale is None else self.loss_scale.scale
        return (scale + self.probe) * (weights * losses).sum()


class ClassGradients(nn.Cell):
    """The gradients of a batch's mean loss by the examples of each class, in one pass.

    Those of layers are handed out by taps (`accordance_split`, inside whose `tapped` this has to be compiled). The
    embeddings are added up, so the gradient by a perturbation of the sum is that by each: summed over equal words,
    positions or token types.

    Args:
        model: the package's BERT.
        tables: which embeddings are measured, of "words", "positions" and "types"; they come first, in this order.
        taps: for each class the parameters as whose gradients those of the measured layers are handed out.
        rest: what is trained and not measured; without the word embeddings.
        rest_words: whether the word embeddings are trained and not measured.
        loss_scale: multiplies the gradients.
    """

    def __init__(
        self,
        model: nn.Cell,
        tables: list[str],
        taps: list[list[Parameter]],
        rest: list[Parameter],
        rest_words: bool,
        loss_scale: LossScale | None = None,
    ):
        super().__init__(auto_prefix=False)
        probe = Parameter(Tensor(0.0, ms.float32), name="probe")
        self.probed = _Probed(ExampleLosses(model), probe, loss_scale)
        self.weights = ParameterTuple((*(each for of_class in taps for each in of_class), *rest, probe))
        self.gradient = ops.GradOperation(get_all=True, get_by_list=True)
        self.words, self.positions, self.types = (each in tables for each in ("words", "positions", "types"))
        self.tapped, self.rest, self.rest_words, self.classes = len(taps[0]), len(rest), rest_words, len(taps)
        self.number_of_positions = model.config.max_position_embeddings
        self.number_of_types = model.config.type_vocab_size
        self.sum = ops.UnsortedSegmentSum()

    def construct(self, words, places, perturbation, weights, input_ids, attention_mask, token_type_ids, labels):
        """Returns J, then the gradient of each class by each measured parameter, class by class, then by the rest.

        That by the word embeddings is by those of `words`, [W, H]; if they are of the rest, it is the last.

        words: int32 [W], different ones; places: int32 [B, L], each token's place in them; perturbation: zeros
        [B, L, H]; weights: of each example in J, float32 [B]; the rest as for the model, the examples sorted by class.
        """
        of_inputs, of_weights = self.gradient(self.probed, self.weights)(
            perturbation, weights, input_ids, attention_mask, token_type_ids, labels
        )
        tokens = of_inputs[0].reshape((-1, perturbation.shape[2]))
        number = words.shape[0]
        columns = ops.zeros_like(places) + ops.arange(0, places.shape[1]).astype(ms.int32).reshape((1, -1))
        found = (of_weights[len(of_weights) - 1],)
        for c in range(self.classes):
            others = (labels != c).astype(ms.int32).reshape((-1, 1)) * _OUT  # places below 0 are left out of sums
            if self.words:
                found = (*found, self.sum(tokens, (places + others).reshape(-1), number))
            if self.positions:
                found = (*found, self.sum(tokens, (columns + others).reshape(-1), self.number_of_positions))
            if self.types:
                found = (*found, self.sum(tokens, (token_type_ids + others).reshape(-1), self.number_of_types))
            found = (*found, *of_weights[c * self.tapped : (c + 1) * self.tapped])
        found = (*found, *of_weights[self.classes * self.tapped : self.classes * self.tapped + self.rest])
        if self.rest_words:
            found = (*found, self.sum(tokens, places.reshape(-1), number))
        return found


class _Weighted(nn.Cell):
    """share x `_Probed`, around a cell that returns the mean loss itself."""

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
        self.weighted = _Weighted(network, probe)
        self.weights_and_probe = ParameterTuple((*weights, probe))
        self.gradient = ops.GradOperation(get_by_list=True)

    def construct(self, share, *inputs):
        """Returns the gradient by each weight, and share x loss at the end."""
        return self.gradient(self.weighted, self.weights_and_probe)(share, *inputs)


_row_products = ops.MultitypeFuncGraph("row_products")
_accumulate = ops.MultitypeFuncGraph("accumulate")
_add = ops.MultitypeFuncGraph("add")
_clear = ops.MultitypeFuncGraph("clear")
_descend = ops.ApplyProximalGradientDescent()
_ZERO = Tensor(0.0, ms.float32)
_OUT = -(2**30)


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
    """The sum of what `ClassGradients` returns, over the parts of a batch and over all workers.

    Args:
        shapes: of the tensors; those whose first size varies come first.
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
    """What is done with the class gradients of a batch: products, sums, and a step of the optimizer if there is one.

    Args:
        sums: of what is measured.
        order: ranges of the places of the optimizer's parameters, one after the other, in the measured ones and,
            counted on from there, in the rest.
        optimizer: None only measures.
        word: the place of the word embeddings among the optimizer's parameters, whose gradient comes as rows.
        max_grad_norm: clips the optimizer's gradient.
    """

    def __init__(self, sums: Sums, order: list[tuple[int, int]], optimizer, word, max_grad_norm):
        super().__init__(auto_prefix=False)
        self.sums, self.order = sums, tuple(order)
        self.classes, self.measured = len(sums.sums), len(sums.sums[0])
        # the class gradients are those of all workers, and so is an overflow in them
        self.step = None if optimizer is None else GuardedStep(optimizer, max_grad_norm, workers=False)
        self.loss_scale, self.word = loss_scale_of(optimizer), word
        self.map = ops.HyperMap()
        if optimizer is not None and word is not None:
            shape = optimizer.parameters[word].shape
            # the optimizer moves all words (decay, moments), so it gets a whole gradient, 0 between two steps
            self.of_words = Parameter(Tensor(np.zeros(shape, np.float32)), name="of_words", requires_grad=False)

    def construct(self, words, loss, *gradients):
        """Returns the batch's loss J and the products of its class gradients (see `_Products`).

        words: int32 [W]; loss: J; gradients: as `ClassGradients` returns them.
        """
        classes = ()
        for start in range(0, self.classes * self.measured, self.measured):
            classes = (*classes, gradients[start : start + self.measured])
        rest = gradients[self.classes * self.measured :]
        if self.loss_scale is not None:
            return loss, self.guarded(words, classes, rest, gradients)
        products = self.sums.add(classes, words)
        if self.step is not None:
            loss = ops.depend(loss, self.train(words, classes, rest))
        return loss, products

    def guarded(self, words, classes, rest, gradients):
        """Measures and trains unless a gradient overflowed; returns the products, 0 of a step that was skipped."""
        overflowed = self.loss_scale.watch(gradients)
        products = ops.zeros((self.classes * (self.classes + 1) // 2,), ms.float64)
        if overflowed == 0:
            unscaled = ()
            for each in classes:
                unscaled = (*unscaled, self.loss_scale.unscaled(each))
            products = ops.depend(self.sums.add(unscaled, words), self.train(words, classes, rest))
        return products

    def train(self, words, classes, rest):
        total = classes[0]
        for each in classes[1:]:
            total = self.map(_add, total, each)
        found, gradients = (*total, *rest), ()
        for start, stop in self.order:
            gradients = (*gradients, *found[start:stop])
        if self.word is None:
            return self.step(gradients)
        rows = gradients[self.word]
        ops.scatter_update(self.of_words, words, rows)
        done = self.step((*gradients[: self.word], self.of_words, *gradients[self.word + 1 :]))
        return ops.depend(done, ops.scatter_update(self.of_words, words, ops.zeros_like(rows)))


class MeasuredStep(nn.Cell):
    """`ClassGradients` and `Update` in one graph: handing hundreds of tensors over takes longer than their sums."""

    def __init__(self, gradients: ClassGradients, update: Update):
        super().__init__(auto_prefix=False)
        self.gradients, self.update = gradients, update

    def construct(self, words, places, perturbation, weights, input_ids, attention_mask, token_type_ids, labels):
        """Returns what `Update` does."""
        found = self.gradients(words, places, perturbation, weights, input_ids, attention_mask, token_type_ids, labels)
        return self.update(words, *found)
