"""The hand-written gradients against PyTorch's automatic ones."""

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor, nn, ops

from mindspore_floodx.device import use_device
from mindspore_floodx.layers import Attention, Gelu, Linear, _AttentionFunction, padding_bias

use_device("CPU", 1)


class _Inner(nn.Cell):
    """The inner product of a cell's output with fixed numbers: its gradient is the cell's, weighted by them."""

    def __init__(self, cell, weights):
        super().__init__()
        self.cell, self.weights = cell, Tensor(weights)

    def construct(self, *inputs):
        return (self.cell(*inputs) * self.weights).sum()


def gradients(cell, weights, *inputs):
    return [g.asnumpy() for g in ops.GradOperation(get_all=True)(_Inner(cell, weights))(*map(Tensor, inputs))]


def close(ours, theirs, tolerance=2e-6):
    assert ours.shape == tuple(theirs.shape)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=tolerance, rtol=tolerance)


def test_gelu_is_exact_also_far_out(rng=np.random.default_rng(0)):
    x = np.concatenate([np.linspace(-12, 12, 401), [0.0, 1e-30, -1e-30, 60, -60]]).astype(np.float32)
    dy = rng.standard_normal(x.shape).astype(np.float32)
    reference = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y = torch.nn.functional.gelu(reference)
    (y * torch.tensor(dy)).sum().backward()
    close(Gelu()(Tensor(x)).asnumpy(), y.float(), 1e-6)
    close(gradients(Gelu(), dy, x)[0], reference.grad.float(), 1e-6)


@pytest.mark.parametrize("tokens", [1, 7])
def test_linear_gradients(tokens, rng=np.random.default_rng(1)):
    layer = Linear(5, 3)
    reference = torch.nn.Linear(5, 3)
    layer.weight.set_data(Tensor(reference.weight.detach().numpy()))
    layer.bias.set_data(Tensor(reference.bias.detach().numpy()))
    x, dy = (rng.standard_normal((tokens, size)).astype(np.float32) for size in (5, 3))
    x_reference = torch.tensor(x, requires_grad=True)
    (reference(x_reference) * torch.tensor(dy)).sum().backward()
    network = _Inner(layer, dy)
    by_input, by_weights = ops.GradOperation(get_all=True, get_by_list=True)(
        network, ms.ParameterTuple([layer.weight, layer.bias])
    )(Tensor(x))
    close(by_input[0].asnumpy(), x_reference.grad)
    close(by_weights[0].asnumpy(), reference.weight.grad)
    close(by_weights[1].asnumpy(), reference.bias.grad)


def attention_inputs(batch=3, heads=2, length=6, size=4, seed=2):
    rng = np.random.default_rng(seed)
    query, key, value, dy = (rng.standard_normal((batch, heads, length, size)).astype(np.float32) for _ in range(4))
    mask = (np.arange(length) < np.array([[length], [3], [1]])).astype(np.int32)
    return query, key, value, dy, mask


def test_attention_gradients_with_padding():
    query, key, value, dy, mask = attention_inputs()
    references = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (query, key, value)]
    context = torch.nn.functional.scaled_dot_product_attention(
        *references, attn_mask=torch.tensor(mask, dtype=torch.bool)[:, None, None, :]
    )
    (context * torch.tensor(dy)).sum().backward()
    bias = padding_bias(Tensor(mask)).asnumpy()
    attention = Attention(4, dropout=0.0)
    close(attention(*map(Tensor, (query, key, value, bias))).asnumpy(), context, 5e-6)
    for ours, theirs in zip(gradients(attention, dy, query, key, value, bias)[:3], references, strict=True):
        close(ours, theirs.grad, 5e-6)  # float32 against float64, sums of 24 numbers around 1


class _Kept(nn.Cell):
    """The attention function with everything it keeps for its gradient, and that gradient, from one forward pass."""

    def __init__(self, dropout):
        super().__init__()
        self.function = _AttentionFunction(dropout)

    def construct(self, query, key, value, bias, dy):
        out = self.function(query, key, value, bias)
        return out, self.function.bprop(query, key, value, bias, out, (dy, dy, dy))


def test_attention_gradient_under_dropout_equals_the_one_through_the_very_same_mask():
    query, key, value, dy, mask = attention_inputs(seed=3)
    kept = _Kept(0.5)
    kept.set_train()
    bias = padding_bias(Tensor(mask)).asnumpy()
    (context, log_probabilities, dropped), ours = kept(*map(Tensor, (query, key, value, bias, dy)))
    references = [torch.tensor(x, requires_grad=True) for x in (query, key, value)]
    scores = references[0] @ references[1].transpose(-1, -2) + torch.tensor(bias)
    probabilities = scores.softmax(-1)
    factor = torch.tensor(dropped.asnumpy()) / probabilities.detach().clamp_min(
        1e-30
    )  # 0 or 2: the mask that was drawn
    real = torch.tensor(mask, dtype=torch.bool)[:, None, None, :].expand_as(factor)
    assert set(factor[real].round(decimals=3).tolist()) == {0.0, 2.0}
    expected = (probabilities * factor) @ references[2]
    (expected * torch.tensor(dy)).sum().backward()
    close(context.asnumpy(), expected, 1e-5)
    close(np.exp(log_probabilities.asnumpy()), probabilities)
    for gradient, reference in zip(ours[:3], references, strict=True):
        close(gradient.asnumpy(), reference.grad, 1e-5)


def test_a_row_of_nothing_but_padding_gives_no_nan():
    mask = np.zeros((1, 4), np.int32)
    query, key, value = (x[:1, :, :4] for x in attention_inputs()[:3])
    bias = padding_bias(Tensor(mask)).asnumpy()
    assert np.isfinite(Attention(4, 0.0)(*map(Tensor, (query, key, value, bias))).asnumpy()).all()
