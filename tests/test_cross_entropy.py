"""The cross-entropy that is trained with: its value and gradient, and that its bits depend on its input alone."""

from collections import defaultdict

import mindspore as ms
import numpy as np
import torch
from mindspore import Tensor, nn, ops

from mindspore_floodx.device import use_device
from mindspore_floodx.flooding import cross_entropy

use_device("CPU", 1)
SHAPES = Tensor(shape=[None, None], dtype=ms.float32), Tensor(shape=[None], dtype=ms.int32)


class _Losses(nn.Cell):
    def construct(self, logits, labels):
        return cross_entropy(logits, labels)


class _Weighted(nn.Cell):
    def construct(self, logits, labels, weights):
        return (cross_entropy(logits, labels) * weights).sum()


class _Gradient(nn.Cell):
    def __init__(self):
        super().__init__()
        self.losses, self.weighted, self.gradient = _Losses(), _Weighted(), ops.GradOperation()

    def construct(self, logits, labels, weights):
        return self.losses(logits, labels), self.gradient(self.weighted)(logits, labels, weights)


def test_it_is_pytorchs_in_float64():
    rng = np.random.default_rng(0)
    step = _Gradient()
    step.set_inputs(*SHAPES, Tensor(shape=[None], dtype=ms.float32))
    for size, classes, scale in ((1, 2, 1.0), (7, 2, 3.0), (5, 4, 20.0), (9, 3, 1000.0), (6, 2, 0.0)):
        logits = (rng.normal(size=(size, classes)) * scale).astype(np.float32)
        labels = rng.integers(0, classes, size).astype(np.int32)
        weights = rng.normal(size=size).astype(np.float32)
        losses, gradient = (each.asnumpy() for each in step(*map(Tensor, (logits, labels, weights))))
        given = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
        expected = torch.nn.functional.cross_entropy(given, torch.tensor(labels).long(), reduction="none")
        (expected * torch.tensor(weights)).sum().backward()
        np.testing.assert_allclose(losses, expected.detach().numpy(), rtol=2e-6, atol=2e-7)
        np.testing.assert_allclose(gradient, given.grad.numpy(), rtol=1e-5, atol=3e-7)
        assert losses.dtype == np.float32


def test_the_same_logits_give_the_same_bits_whatever_was_computed_before():
    """With `ops.cross_entropy` a loss of four, five or six examples is another one after the first call."""
    rng = np.random.default_rng(0)
    losses = _Losses()
    losses.set_inputs(*SHAPES)
    inputs = {size: rng.normal(size=(size, 2)).astype(np.float32) for size in (*range(1, 10), 16, 17, 32)}
    labels = {size: rng.integers(0, 2, size).astype(np.int32) for size in inputs}
    seen = defaultdict(set)
    for _ in range(25):
        for size in rng.permutation(list(inputs)):
            seen[size].add(losses(Tensor(inputs[size]), Tensor(labels[size])).asnumpy().tobytes())
    assert {size: len(results) for size, results in seen.items()} == dict.fromkeys(inputs, 1)
