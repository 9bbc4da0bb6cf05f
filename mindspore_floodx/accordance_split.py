"""The gradient of each class of a batch from one forward and one backward pass of the package's BERT.

A layer's weight gradient is a sum over rows, tokens or sentences: dW = sum_t dy_t x_t^T. Where the examples of a batch
are sorted by class, those of a class are neighbours, and the sum over them alone is the class's gradient: the same
number of multiplications as the whole gradient takes, and everything else is computed once for all classes. A `tap`
behind a layer leaves its output as it is and computes such a sum on the way back. It is handed out as the gradient by
the class's sum of unit gradients, which has the right shape and takes no part in the output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from .bert import BertForSequenceClassification
from .layers import LayerNorm, Linear, packed_tokens


class ClassRows(nn.Cell):
    """Which rows belong to each class, at one of two levels: a row for each token, or one for each sentence."""

    def __init__(self, num_classes: int):
        super().__init__(auto_prefix=False)
        self.num_classes = num_classes
        # [level][class][begin, end], each a parameter of its own, which the graphs read
        self.bounds = [
            [
                [
                    Parameter(Tensor(0, ms.int32), name=f"{level}{label}.{end}", requires_grad=False)
                    for end in ("begin", "end")
                ]
                for label in range(num_classes)
            ]
            for level in ("tokens", "sentences")
        ]
        self.range, self.one = ops.Range(), Tensor(1, ms.int32)

    def construct(self, level: int, label: int):  # -> int32 [rows of the class]
        begin, end = self.bounds[level][label]
        return self.range(begin, end, self.one)

    def set(self, classes: np.ndarray, attention_mask: np.ndarray) -> None:
        """Tells the rows of a batch.

        Args:
            classes: of each example, in rising order; none of the k may be absent.
            attention_mask: [B, L].
        """
        sentences = np.searchsorted(classes, np.arange(self.num_classes + 1))
        tokens = np.concatenate([[0], np.cumsum(packed_tokens(attention_mask))])[sentences]
        for level, ends in enumerate((tokens, sentences)):
            for label, bounds in enumerate(pairwise(ends)):
                for parameter, value in zip(self.bounds[level][label], bounds, strict=True):
                    parameter.set_data(Tensor(int(value), ms.int32))


def with_every_class(
    batch: Mapping[str, np.ndarray], num_classes: int, share: float
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns a batch sorted by class, and the weight of each example in the loss, which come to `share` together.

    For a class that the batch lacks there is an example of one token with a weight of 0, so that its gradient is 0:
    MindSpore's products of matrices without rows are not.
    """
    labels = batch["labels"]
    weights = np.full(len(labels), share / len(labels), np.float32)
    absent = np.setdiff1d(np.arange(num_classes), labels).astype(labels.dtype)
    if len(absent):
        batch = {name: np.concatenate([array, array[:1].repeat(len(absent), axis=0)]) for name, array in batch.items()}
        batch["labels"][-len(absent) :] = absent
        batch["attention_mask"][-len(absent) :, 1:] = 0
        weights = np.concatenate([weights, np.zeros(len(absent), np.float32)])
    order = np.argsort(batch["labels"], kind="stable")
    return {name: np.ascontiguousarray(array[order]) for name, array in batch.items()}, weights[order]


class _LinearTap(nn.Cell):
    """y; on the way back the gradient of y = x W^T + b by some rows alone, as that of `weight` and `bias`."""

    def __init__(self):
        super().__init__()
        self.gather, self.matmul = ops.Gather(), ops.MatMul()
        self.matmul_transpose_a = ops.MatMul(transpose_a=True)

    def construct(self, y, x, weight, bias, rows):  # (T, out), (T, in), (out, in), (out,), (rows,) -> (T, out)
        return y

    def bprop(self, y, x, weight, bias, rows, out, dy):
        mine = self.gather(dy, rows, 0)
        ones = ops.ones((1, mine.shape[0]), dy.dtype)
        dweight = self.matmul_transpose_a(mine, self.gather(x, rows, 0)).astype(weight.dtype)  # x may be float16
        dbias = self.matmul(ones, mine).reshape(bias.shape).astype(bias.dtype)
        return dy, ops.zeros_like(x), dweight, dbias, ops.zeros_like(rows)


class _LayerNormTap(nn.Cell):
    """y; on the way back the gradient of y = gamma x^ + beta by some rows alone, as that of `gamma` and `beta`."""

    def __init__(self, epsilon: float):
        super().__init__()
        self.epsilon = epsilon
        self.gather, self.matmul = ops.Gather(), ops.MatMul()

    def construct(self, y, x, mean, variance, gamma, beta, rows):
        return y

    def bprop(self, y, x, mean, variance, gamma, beta, rows, out, dy):
        # written as in the gradient by x (layers.LayerNorm), so that the compiler computes x^ once
        row = ops.ones((1, x.shape[1]), dy.dtype)
        inverses = self.matmul(ops.rsqrt(variance + self.epsilon), row)
        normalised = (x - self.matmul(mean, row)) * inverses
        mine = self.gather(dy, rows, 0)
        ones = ops.ones((1, mine.shape[0]), dy.dtype)
        dgamma = self.matmul(ones, self.gather(dy * normalised, rows, 0)).reshape(gamma.shape)
        dbeta = self.matmul(ones, mine).reshape(beta.shape)
        nothing = (ops.zeros_like(x), ops.zeros_like(mean), ops.zeros_like(variance))
        return dy, *nothing, dgamma, dbeta, ops.zeros_like(rows)


class _TappedLinear(nn.Cell):
    def __init__(self, function: nn.Cell, taken: list, rows: ClassRows, level: int):
        super().__init__(auto_prefix=False)
        self.function, self.tap, self.rows, self.level = function, _LinearTap(), rows, level
        self.weights, self.biases = taken  # of each class; None: not asked for
        self.classes = rows.num_classes

    def construct(self, x, weight, bias):
        y, fixed = self.function(x, weight, bias), ops.stop_gradient(x)
        for label in range(self.classes):
            of_weight = ops.stop_gradient(weight) if self.weights is None else self.weights[label]
            of_bias = ops.stop_gradient(bias) if self.biases is None else self.biases[label]
            y = self.tap(y, fixed, of_weight, of_bias, self.rows(self.level, label))
        return y


class _TappedLayerNorm(nn.Cell):
    def __init__(self, function: nn.Cell, taken: list, rows: ClassRows, level: int):
        super().__init__(auto_prefix=False)
        self.function, self.tap, self.rows, self.level = function, _LayerNormTap(function.epsilon), rows, level
        self.gammas, self.betas = taken
        self.classes = rows.num_classes

    def construct(self, x, gamma, beta):
        y, mean, variance = self.function(x, gamma, beta)
        fixed = (ops.stop_gradient(x), ops.stop_gradient(mean), ops.stop_gradient(variance))
        for label in range(self.classes):
            of_gamma = ops.stop_gradient(gamma) if self.gammas is None else self.gammas[label]
            of_beta = ops.stop_gradient(beta) if self.betas is None else self.betas[label]
            y = self.tap(y, *fixed, of_gamma, of_beta, self.rows(self.level, label))
        return y, mean, variance


@contextmanager
def tapped(
    model: BertForSequenceClassification, taps: Mapping[str, list[Parameter]], rows: ClassRows
) -> Iterator[None]:
    """A graph that is compiled in this block gives class gradients.

    Args:
        model: whose layers' parameters are meant.
        taps: for a parameter's name the k parameters as whose gradients the class gradients are handed out.
        rows: of the batch's classes.
    """
    summary = {id(cell) for cell in model.summary_cells()}
    changed = []
    try:
        for _, cell in model.cells_and_names():
            if isinstance(cell, Linear):
                own, kind = (cell.weight, cell.bias), _TappedLinear
            elif isinstance(cell, LayerNorm):
                own, kind = (cell.gamma, cell.beta), _TappedLayerNorm
            else:
                continue
            of_classes = [taps.get(each.name) for each in own]
            if any(of_classes):
                changed.append((cell, cell.function))
                cell.function = kind(cell.function, of_classes, rows, int(id(cell) in summary))
        yield
    finally:
        for cell, function in changed:
            cell.function = function
