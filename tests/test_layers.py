"""The hand-written gradients against PyTorch's automatic ones."""

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor, nn, ops

from mindspore_floodx.device import use_device
from mindspore_floodx.layers import (
    Attention,
    Dropout,
    Gelu,
    LayerNorm,
    Linear,
    Packing,
    TakeRows,
    Tanh,
    _AttentionFunction,
    dropout_clocks,
    padding_bias,
    set_dropout_clocks,
    share_dropout_masks,
)

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


@pytest.mark.parametrize("tokens, size", [(1, 4), (7, 384), (300, 12)])
def test_layer_norm_gradients(tokens, size, rng=np.random.default_rng(6)):
    layer = LayerNorm(size, 1e-12)
    gamma, beta = (rng.standard_normal(size).astype(np.float32) for _ in range(2))
    layer.gamma.set_data(Tensor(gamma))
    layer.beta.set_data(Tensor(beta))
    x, dy = (rng.standard_normal((tokens, size)).astype(np.float32) for _ in range(2))
    x = x * 3 + 10  # far from 0, where differences of large numbers would show
    reference = torch.nn.LayerNorm(size, 1e-12, dtype=torch.float64)
    reference.weight.data, reference.bias.data = torch.tensor(gamma).double(), torch.tensor(beta).double()
    x_reference = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y = reference(x_reference)
    (y * torch.tensor(dy)).sum().backward()
    close(layer(Tensor(x)).asnumpy(), y, 5e-6)
    by_input, by_weights = ops.GradOperation(get_all=True, get_by_list=True)(
        _Inner(layer, dy), ms.ParameterTuple([layer.gamma, layer.beta])
    )(Tensor(x))
    close(by_input[0].asnumpy(), x_reference.grad, 5e-6)
    close(by_weights[0].asnumpy(), reference.weight.grad, 2e-5)  # sums of 300 numbers around 1
    close(by_weights[1].asnumpy(), reference.bias.grad, 2e-5)


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
        self.function = _AttentionFunction(Dropout(dropout))

    def construct(self, query, key, value, bias, dy):
        clock = self.function.dropout.tick()
        out = self.function(query, key, value, bias, clock)
        return out, self.function.bprop(query, key, value, bias, clock, out, (dy, dy, dy))


def test_attention_gradient_under_dropout_equals_the_one_through_the_very_same_mask():
    query, key, value, dy, mask = attention_inputs(seed=3)
    ms.set_seed(3)
    kept = _Kept(0.5)
    kept.set_train()
    bias = padding_bias(Tensor(mask)).asnumpy()
    (context, _, dropped), ours = kept(*map(Tensor, (query, key, value, bias, dy)))
    references = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (query, key, value)]
    scores = references[0] @ references[1].transpose(-1, -2) + torch.tensor(bias)
    probabilities = scores.softmax(-1)
    ratio = torch.tensor(dropped.asnumpy()) / probabilities.detach().clamp_min(1e-30)
    factor = ratio.round()  # exactly 0 or 2: the mask that was drawn
    real = torch.tensor(mask, dtype=torch.bool)[:, None, None, :].expand_as(factor)
    assert set(factor[real].tolist()) == {0.0, 2.0}
    assert (ratio - factor)[real].abs().max() < 1e-4
    expected = (probabilities * factor) @ references[2]
    (expected * torch.tensor(dy)).sum().backward()
    compared = [(context, expected), *zip(ours[:3], (each.grad for each in references), strict=True)]
    for value, reference in compared:
        # MindSpore's CPU kernels of exp and log-softmax are off by 6e-6 (relative) and 4e-6 (measured over [-12, 0])
        error = np.abs(value.asnumpy() - reference.detach().numpy()).max()
        assert error <= 3e-5 * reference.abs().max().item()


def test_a_row_of_nothing_but_padding_gives_no_nan():
    mask = np.zeros((1, 4), np.int32)
    query, key, value = (x[:1, :, :4] for x in attention_inputs()[:3])
    bias = padding_bias(Tensor(mask)).asnumpy()
    assert np.isfinite(Attention(4, 0.0)(*map(Tensor, (query, key, value, bias))).asnumpy()).all()


def test_tanh_and_its_gradient_are_exact_on_the_flat_ends_too():
    x = np.concatenate([np.linspace(-12, 12, 2401), [0.0, -0.0, 60.0, -60.0, 1e-30, 3e-4, -1e-3]]).astype(np.float32)
    exact = np.tanh(x.astype(np.float64))
    assert np.abs(Tanh()(Tensor(x)).asnumpy() - exact).max() <= 5e-7
    assert np.abs(ops.GradOperation()(Tanh())(Tensor(x)).asnumpy() - (1 - exact**2)).max() <= 1e-6


def masks(seed, p=0.1, calls=20, shape=(60, 500)):
    """Returns the outputs for ones of two cells, one after the other, in each call."""
    ms.set_seed(seed)
    cells = [Dropout(p).set_train() for _ in range(2)]
    for cell in cells:
        cell.set_inputs(Tensor(shape=[None, None], dtype=ms.float32))
    ones = Tensor(np.ones(shape, np.float32))
    return np.array([[cell(ones).asnumpy() for cell in cells] for _ in range(calls)])


def test_dropout_draws_the_same_masks_for_the_same_seed_only():
    first = masks(0)
    np.testing.assert_array_equal(first, masks(0))
    assert len({mask.tobytes() for mask in first.reshape(40, -1)}) == 40
    assert (first != masks(1)).any(axis=(2, 3)).all()


def test_dropout_keeps_its_share_independently_and_scales():
    for p in (0.1, 0.5):
        drawn = masks(2, p)
        assert set(np.unique(drawn)) == {np.float32(0), np.float32(1 / (1 - p))}
        kept = drawn > 0
        deviation = np.sqrt(p * (1 - p) / kept.size)
        assert abs(kept.mean() - (1 - p)) < 4 * deviation
        flat = kept.reshape(40, -1) - (1 - p)
        correlation = np.corrcoef(flat) - np.eye(40)  # between calls and between cells
        assert np.abs(correlation).max() < 5 / np.sqrt(flat.shape[1])
        power = np.abs(np.fft.rfft(flat, 2 * flat.shape[1])) ** 2
        by_distance = np.fft.irfft(power)[:, 1 : flat.shape[1] - 1000]  # within a mask, for (nearly) all distances
        pairs = flat.shape[1] - np.arange(1, flat.shape[1] - 1000)
        assert np.abs(by_distance / (p * (1 - p) * np.sqrt(pairs))).max() < 7.5  # of a million such sums
        counts = kept.reshape(40, -1).mean(axis=0)  # of each place, over 40 masks
        assert abs(counts.var() / (p * (1 - p) / 40) - 1) < 5 * np.sqrt(2 / len(counts))


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 3, 7), (8, 2)])
def test_dropout_of_any_size_drops_any_of_its_elements(shape):
    ms.set_seed(4)
    cell, ones = Dropout(0.5).set_train(), Tensor(np.ones(shape, np.float32))
    kept = np.array([cell(ones).asnumpy() > 0 for _ in range(60)])
    assert kept.any(axis=0).all() and not kept.all(axis=0).any()


def test_dropout_in_pynative_mode():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        ms.set_seed(5)
        cell, ones = Dropout(0.1).set_train(), Tensor(np.ones((99, 101), np.float32))
        first, second = (cell(ones).asnumpy() for _ in range(2))
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)
    assert abs((first > 0).mean() - 0.9) < 4 * np.sqrt(0.09 / 9999) and (first != second).any()


def test_shared_masks_last_until_the_clock_moves_and_are_as_independent_as_drawn_ones():
    """Correlations of 192,000 zeros and ones are 0 with a standard deviation of 0.0023."""

    class Two(nn.Cell):
        def __init__(self):
            super().__init__()
            self.first, self.second = Dropout(0.1), Dropout(0.5)

        def construct(self, x):
            return self.first(x), self.second(x)

    network = Two().set_train()
    clock = share_dropout_masks(network)
    x = Tensor(np.ones((500, 384), np.float32))
    masks_at = {}
    for time in (0, 1, 2):
        clock.set_data(Tensor(time, ms.int32))
        once, again = network(x), network(x)
        for a, b in zip(once, again, strict=True):
            np.testing.assert_array_equal(a.asnumpy(), b.asnumpy())
        masks_at[time] = [each.asnumpy().ravel() > 0 for each in once]
    for place, p in enumerate((0.1, 0.5)):
        for time in masks_at:
            assert 1 - masks_at[time][place].mean() == pytest.approx(p, abs=0.005)
        kept = masks_at[0][place]
        for other in (masks_at[1][place], masks_at[2][place], masks_at[0][1 - place], np.roll(kept, 1)):
            assert abs(np.corrcoef(kept, other)[0, 1]) < 0.012


def test_the_random_state_of_dropout_can_be_read_and_set():
    """Also where one cell is called twice in a graph, and inside attention, whose gradient is written out by hand."""

    class Twice(nn.Cell):
        def __init__(self):
            super().__init__()
            self.dropout, self.attention = Dropout(0.5), Attention(4, 0.5)

        def construct(self, x):
            return self.dropout(x).sum() + self.dropout(x * 2.0).sum() + self.attention(x, x, x, x[..., :1]).sum()

    class Gradient(nn.Cell):  # a gradient taken outside a cell would not see that a parameter was set
        def __init__(self, network):
            super().__init__()
            self.network, self.gradient = network, ops.GradOperation()

        def construct(self, x):
            return self.gradient(self.network)(x)

    ms.set_seed(6)
    network = Twice()
    step = Gradient(network).set_train()
    x = Tensor(np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32))
    first, *later = (step(x).asnumpy() for _ in range(4))
    np.testing.assert_array_equal(dropout_clocks(network), [8, 4])
    assert all((first != each).any() for each in later)
    set_dropout_clocks(network, np.array([2, 1]))
    for each in later:
        np.testing.assert_array_equal(step(x).asnumpy(), each)
    set_dropout_clocks(network, 0)
    np.testing.assert_array_equal(step(x).asnumpy(), first)
    assert not list(network.get_parameters())  # no model is saved or trained with a clock


def test_dropout_of_nearly_nothing_and_of_nearly_all():
    ones = Tensor(np.ones((100, 100), np.float32))
    assert (Dropout(1e-6).set_train()(ones).asnumpy() > 0).all()
    assert (Dropout(0.9999).set_train()(ones).asnumpy() > 0).sum() < 20


def test_dropout_passes_the_gradient_of_what_was_kept_and_rests_outside_training():
    class Both(nn.Cell):
        def __init__(self):
            super().__init__()
            self.dropout = Dropout(0.5)

        def construct(self, x):
            y = self.dropout(x)
            return y.sum(), y

    cell = Both().set_train()
    gradient, y = ops.grad(cell, has_aux=True)(Tensor(np.full((40, 50), 3.0, np.float32)))
    np.testing.assert_array_equal(y[0].asnumpy() if isinstance(y, tuple) else y.asnumpy(), 3 * gradient.asnumpy())
    assert set(np.unique(gradient.asnumpy())) == {0.0, 2.0}
    x = Tensor(np.arange(6, dtype=np.float32))
    for still in (Dropout(0.5).set_train(False), Dropout(0.0).set_train()):
        np.testing.assert_array_equal(still(x).asnumpy(), x.asnumpy())


class _Packed(nn.Cell):
    def __init__(self, heads):
        super().__init__()
        self.packing, self.take = Packing(heads), TakeRows()

    def construct(self, mask, x, heads):  # (B, L), (B * L, H), (B * N * L, D)
        places, packed, to_heads, from_heads = self.packing(mask)
        tokens = self.take(x, places, packed)
        split = self.take(tokens.reshape((-1, heads.shape[1])), to_heads, from_heads)
        return tokens, self.take(tokens, packed, places), split, self.take(heads, from_heads, to_heads)


MASKS = {
    "padded": [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]],
    "full": [[1, 1, 1], [1, 1, 1]],
    "padded at the front": [[0, 0, 1], [0, 1, 1]],
    "holes": [[1, 0, 1, 0], [1, 1, 0, 1]],
    "nothing but padding": [[0, 0], [0, 0]],
    "one token": [[1]],
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_packing_keeps_what_is_no_padding_and_finds_it_again(mask, heads=3, size=2):
    mask = np.array(mask, np.int32)
    batch, length = mask.shape
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, length, heads, size)).astype(np.float32)
    by_heads = x.transpose(0, 2, 1, 3)
    cell = _Packed(heads)
    cell.set_inputs(
        Tensor(shape=[None, None], dtype=ms.int32),
        Tensor(shape=[None, None], dtype=ms.float32),
        Tensor(shape=[None, size], dtype=ms.float32),
    )
    arguments = mask, x.reshape(batch * length, -1), by_heads.reshape(-1, size)
    tokens, back, split, joined = (each.asnumpy() for each in cell(*map(Tensor, arguments)))
    wanted = (mask != 0) | (np.arange(length) == 0)
    positions = np.flatnonzero(wanted)
    if not wanted.all():  # and one of the others, for all of them to read
        stand_in = np.flatnonzero(~wanted)[0]
        positions = np.sort([*positions, stand_in])
    np.testing.assert_array_equal(tokens, arguments[1][positions])
    expected = np.where(wanted.reshape(-1, 1), arguments[1], arguments[1][0 if wanted.all() else stand_in])
    np.testing.assert_array_equal(back, expected)
    np.testing.assert_array_equal(
        split, expected.reshape(batch, length, heads, size).transpose(0, 2, 1, 3).reshape(-1, size)
    )
    np.testing.assert_array_equal(joined.reshape(tokens.shape), tokens)
