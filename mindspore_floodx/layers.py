"""What BERT is made of where MindSpore's own operation is slow, not exact or not reproducible on a CPU.

`Linear`, `Gelu` and `Attention` have gradients written out by hand: the derived ones go through MindSpore's CPU kernels
for scalar division, broadcast subtraction, row sums and bias gradients, each ten times slower than the kernels used
here (docs/performance.md has the profile). `Tanh` is exact, and `Dropout` draws the same masks in every run.

The mathematics is the textbook's; tests/test_layers.py holds every gradient against PyTorch. Shapes: T tokens = batch x
length, B batch, N heads, L length, D head size.

In training a network can compute its matrix products in float16 (`compute_in_half`): a `Linear` takes and gives
float16 then, and what lies between two products (softmax, GELU, dropout, LayerNorm, residuals) is computed in float32.
A network whose activations are to be computed again for the gradient needs `derive_gradients`.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.ops.operations import _grad_ops


class _PlainLinear(nn.Cell):
    """y = x W^T + b."""

    def __init__(self):
        super().__init__()
        self.matmul_transpose_b = ops.MatMul(transpose_b=True)
        self.bias_add = ops.BiasAdd()

    def construct(self, x, weight, bias):  # (T, in), (out, in), (out,) -> (T, out)
        return self.bias_add(self.matmul_transpose_b(x, weight), bias)


class _LinearFunction(_PlainLinear):
    """The bias gradient is a product with a row of ones, not the slow BiasAddGrad kernel."""

    def __init__(self):
        super().__init__()
        self.matmul = ops.MatMul()
        self.matmul_transpose_a = ops.MatMul(transpose_a=True)

    def bprop(self, x, weight, bias, y, dy):
        ones = ops.ones((1, dy.shape[0]), dy.dtype)
        dbias = self.matmul(ones, dy).reshape(bias.shape)
        return self.matmul(dy, weight), self.matmul_transpose_a(dy, x), dbias


class Linear(nn.Dense):
    """`nn.Dense` for inputs of shape [T, in_channels]: the same parameters, a faster gradient.

    Attributes:
        half: whether the product is computed in float16 in training, the parameters being float32.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, weight_init="zeros", bias_init="zeros")
        self.function: Any = _LinearFunction()
        self.half = False

    def construct(self, x):
        if self.half and self.training:
            return self.function(x.astype(ms.float16), self.weight.astype(ms.float16), self.bias.astype(ms.float16))
        return self.function(x, self.weight, self.bias)


class _PlainGelu(nn.Cell):
    """Exact GELU, x Phi(x) (Hendrycks and Gimpel, 2016)."""

    def __init__(self):
        super().__init__()
        self.erf = ops.Erf()

    def construct(self, x):  # any shape -> (y, Phi), both of that shape
        cdf = self.erf(x * (1.0 / math.sqrt(2.0))) * 0.5 + 0.5
        return x * cdf, cdf


class _GeluFunction(_PlainGelu):
    """Phi is kept for the gradient Phi(x) + x phi(x)."""

    def __init__(self):
        super().__init__()
        self.exp = ops.Exp()

    def bprop(self, x, out, dout):
        cdf = out[1]
        pdf = self.exp(x * x * -0.5) * (1.0 / math.sqrt(2.0 * math.pi))
        return (dout[0] * (cdf + x * pdf),)


class Gelu(nn.Cell):
    """Exact GELU, computed in float32; input and output of any one shape and type."""

    def __init__(self):
        super().__init__()
        self.function = _GeluFunction()

    def construct(self, x):
        return self.function(x.astype(ms.float32))[0].astype(x.dtype)


class _PlainLayerNorm(nn.Cell):
    """y = gamma x^ + beta with x^ = (x - mean) / deviation, for rows of x."""

    def __init__(self, epsilon: float):
        super().__init__()
        self.epsilon = epsilon
        self.layer_norm = ops.LayerNorm(epsilon=epsilon)

    def construct(self, x, gamma, beta):  # (T, H), (H,), (H,) -> (T, H), (T, 1), (T, 1)
        return self.layer_norm(x, gamma, beta)


class _LayerNormFunction(_PlainLayerNorm):
    """The gradient's sums are matrix products.

    With g = gamma dy:  dx = (g - mean(g) - x^ mean(g x^)) / deviation,  dgamma = sum(dy x^),  dbeta = sum(dy), the
    means over a row and the sums over all rows. A number of a row is spread over it by a product too, since
    element-wise operations with a broadcast are slow.
    """

    def __init__(self, epsilon: float):
        super().__init__(epsilon)
        self.matmul = ops.MatMul()

    def bprop(self, x, gamma, beta, out, dout):
        _, mean, variance = out
        dy = dout[0]
        tokens, size = x.shape
        inverse = ops.rsqrt(variance + self.epsilon)  # (T, 1)
        ones = ops.ones((1, tokens), dy.dtype)
        row = ops.ones((1, size), dy.dtype)
        weights = gamma.reshape((size, 1)) * (1.0 / size)
        inverses = self.matmul(inverse, row)  # (T, H)
        normalised = (x - self.matmul(mean, row)) * inverses
        product = dy * normalised
        mean_g = self.matmul(dy, weights) * inverse  # (T, 1)
        mean_gx = self.matmul(product, weights) * inverse
        dx = (
            dy * self.matmul(inverse, gamma.reshape((1, size)))
            - normalised * self.matmul(mean_gx, row)
            - self.matmul(mean_g, row)
        )
        return dx, self.matmul(ones, product).reshape(gamma.shape), self.matmul(ones, dy).reshape(beta.shape)


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` for inputs of shape [T, size]: the same parameters, a faster gradient."""

    def __init__(self, size: int, epsilon: float):
        super().__init__((size,), epsilon=epsilon)
        self.function: Any = _LayerNormFunction(epsilon)

    def construct(self, x):
        return self.function(x, self.gamma, self.beta)[0]


class _TanhFunction(nn.Cell):
    """tanh |x| = (1 - e) / (1 + e) with e = exp(-2 |x|), which cannot overflow; the gradient is 1 - tanh^2."""

    def __init__(self):
        super().__init__()
        self.expm1 = ops.Expm1()

    def construct(self, x):
        below = self.expm1(ops.abs(x) * -2.0)  # e - 1, exact near 0 too
        return ops.sign(x) * (-below / (below + 2.0))

    def bprop(self, x, y, dy):
        return (dy * (1.0 - y * y),)


class Tanh(nn.Cell):
    """tanh; any shape. MindSpore's CPU kernel is off by up to 1e-4 where a trained pooler works, beyond |x| = 4."""

    def __init__(self):
        super().__init__()
        self.function = _TanhFunction()

    def construct(self, x):
        return self.function(x)


class Dropout(nn.Cell):
    """Dropout whose masks depend on nothing but the seed and the number of the call; any shape.

    The random state of MindSpore's own generators lies inside the kernels, where it can neither be read nor set, so a
    stopped training could not go on with the masks that it would have had. Here it is one number, the clock, which
    every call in training moves on by one (`dropout_clocks`, `set_dropout_clocks`).

    A mask is put together from blocks of 64 elements. A hash of clock, seed and place (the finalizer of MurmurHash3,
    Appleby, 2011) picks a row in each of two tables of 8192 random rows, and the rows' product is the block: an
    element is kept where both rows keep it. So 67 million blocks are possible, two blocks share a row once in 4096
    times, and two elements of a block have a correlation of 0.01 (at most 0.05). To hash once for a block and to fetch
    rows is faster than to draw every element.

    Args:
        p: probability of an element to become 0, to 1 / 500,000 (to 1 / 4,000 at each of the 64 places of a block); the
            others are divided by 1 - p. The seed of the masks is drawn from NumPy's global generator, which
            `mindspore.set_seed` seeds.

    Attributes:
        clock: calls in training so far, an int32 parameter alone in a list, so that it is none of the model's.
        advances: whether a call moves the clock (see `follow_clock`).
    """

    def __init__(self, p: float):
        super().__init__()
        self.p, self.start = p, int(np.random.randint(1, 2**31 - 1))
        self.clock, self.advances, self.one = [new_clock()], True, Tensor(1, ms.int32)
        self.tables = _tables(p) if p > 0 else []
        self.factors = [_signed(factor) for factor in (0x85EBCA6B, 0xC2B2AE35)]
        self.stride, self.sixteen, self.thirteen = _signed(0x165667B1), Tensor(16, ms.int32), Tensor(13, ms.int32)
        self.lowest = Tensor(_ROWS - 1, ms.int32)
        self.shift, self.xor, self.bits = ops.RightShift(), ops.BitwiseXor(), ops.BitwiseAnd()
        self.gather = ops.Gather()
        self.slice = ops.Slice()  # the x[:n] of tensors takes thirty times as long

    def tick(self):  # the time of a call
        if self.advances:
            return ops.assign_add(self.clock[0], self.one) + 0
        return self.clock[0] + 0

    def mask(self, x, clock):  # 0 for what is dropped and 1 / (1 - p) for the rest, of the shape and type of x
        size = 1
        for side in ops.shape(x):
            size = size * side
        places = ops.arange(0, (size + _WIDTH - 1) // _WIDTH).astype(ms.int32) + (clock * self.stride + self.start)
        mixed = self.xor(places, self.shift(places, self.sixteen)) * self.factors[0]
        mixed = self.xor(mixed, self.shift(mixed, self.thirteen)) * self.factors[1]
        mixed = self.xor(mixed, self.shift(mixed, self.sixteen))
        first = self.gather(self.tables[0], self.bits(mixed, self.lowest), 0)
        second = self.gather(self.tables[1], self.bits(self.shift(mixed, self.sixteen), self.lowest), 0)
        blocks = (first * second).reshape(-1)
        return ops.stop_gradient(self.slice(blocks, (0,), (size,)).reshape(ops.shape(x)).astype(x.dtype))

    def at(self, x, clock):
        if not self.training or self.p == 0:
            return x
        return x * self.mask(x, clock)

    def construct(self, x):
        if not self.training or self.p == 0:
            return x
        return x * self.mask(x, self.tick())


_ROWS, _WIDTH = 8192, 64
_numbers = itertools.count()  # parameters that meet in one graph need different names


@functools.cache
def _tables(p: float) -> list[Parameter]:
    """Two tables [rows, width] of 0 and 1, and of 0 and 1 / (1 - p): the product of two rows keeps a share 1 - p."""
    generator = np.random.default_rng(64)
    dropped = _ROWS * (1.0 - math.sqrt(1.0 - p))
    # whole numbers for the columns, whose mean is as close as it gets: every place is dropped equally often
    zeros = np.floor(dropped + (np.arange(_WIDTH) + 0.5) / _WIDTH).astype(int)
    tables = []
    for number, kept in enumerate((1.0, 1.0 / (1.0 - p))):
        table = np.where(np.arange(_ROWS)[:, None] < zeros, 0.0, kept).astype(np.float32)
        table = generator.permuted(table[:, generator.permutation(_WIDTH)], axis=0)
        tables.append(Parameter(Tensor(table), name=f"dropout_table.{next(_numbers)}.{number}", requires_grad=False))
    return tables


def _signed(number: int) -> int:
    """The int32 with the same lowest 32 bits."""
    number &= 0xFFFFFFFF
    return number - 2**32 if number >= 2**31 else number


def _dropouts(network: nn.Cell) -> list[Dropout]:
    return [cell for _, cell in network.cells_and_names() if isinstance(cell, Dropout)]


def new_clock() -> Parameter:
    """Returns a clock for dropout: an int32 number, 0."""
    return Parameter(Tensor(0, ms.int32), name=f"dropout_clock.{next(_numbers)}", requires_grad=False)


def follow_clock(network: nn.Cell, clock: Parameter) -> None:
    """Makes every `Dropout` in a network read a clock that somebody else moves.

    MindSpore copies a weight that a graph reads both before and after it changes any parameter, and a dropout table
    too. So a model moves one clock once, when nearly all of a pass is done.
    """
    for _, cell in network.cells_and_names():
        if hasattr(cell, "clock"):
            cell.clock, cell.advances = [clock], False


def _clocks(network: nn.Cell) -> list[Parameter]:
    found = [cell.clock[0] for _, cell in network.cells_and_names() if hasattr(cell, "clock")]
    return list({id(clock): clock for clock in found}.values())


def dropout_clocks(network: nn.Cell) -> np.ndarray:
    """Returns the random state of a network's dropout: its clocks, int32 [clocks]."""
    return np.array([clock.asnumpy() for clock in _clocks(network)], np.int32)


def set_dropout_clocks(network: nn.Cell, values: np.ndarray | int) -> None:
    """Sets what `dropout_clocks` returned, or all clocks to one number; the next masks are those of that time.

    Raises:
        ValueError: the network has another number of clocks.
    """
    clocks = _clocks(network)
    for clock, value in zip(clocks, np.broadcast_to(values, len(clocks)), strict=True):
        clock.set_data(Tensor(int(value), ms.int32))


def part_dropout_masks(network: nn.Cell, rank: int) -> None:
    """Gives a worker of several masks of its own; those of rank 0 are the ones of a process alone. Before compiling."""
    for each in _dropouts(network):
        each.start = _signed(each.start + rank * 0x9E3779B1)


def share_dropout_masks(network: nn.Cell) -> Parameter:
    """Makes every `Dropout` in a network repeat its mask until the returned clock, an int32 number, is changed."""
    clock = new_clock()
    follow_clock(network, clock)
    return clock


class _PlainAttention(nn.Cell):
    """Scaled dot-product attention with dropout on the probabilities (Vaswani et al., 2017, eq. 1)."""

    def __init__(self, dropout: Dropout):
        super().__init__()
        self.matmul = ops.BatchMatMul()
        self.matmul_transpose_b = ops.BatchMatMul(transpose_b=True)
        self.log_softmax = ops.LogSoftmax(-1)
        self.exp = ops.Exp()
        self.dropout = dropout

    def construct(self, query, key, value, bias, clock):  # (B, N, L, D) three times, (B, N, L, L), () -> (B, N, L, D)
        scores = self.matmul_transpose_b(query, key).astype(ms.float32)
        log_probabilities = self.log_softmax(scores + bias)  # (B, N, L, L)
        dropped = self.dropout.at(self.exp(log_probabilities), clock).astype(value.dtype)
        return self.matmul(dropped, value), log_probabilities, dropped


class _AttentionFunction(_PlainAttention):
    """The gradient without a mask.

    With S = Q K^T + bias, P = softmax(S) and P' = dropout(P), the gradient needs no dropout mask, because
    P * (mask * dP') = P' * dP' element by element:  dS = P' * dP' - P * rowsum(P' * dP'), which is the gradient of
    the log-softmax at log P for the incoming gradient P' * dP'.
    """

    def __init__(self, dropout: Dropout):
        super().__init__(dropout)
        self.matmul_transpose_a = ops.BatchMatMul(transpose_a=True)
        self.log_softmax_grad = _grad_ops.LogSoftmaxGrad(-1)

    def bprop(self, query, key, value, bias, clock, out, dout):
        _, log_probabilities, dropped = out
        dcontext = dout[0]
        ddropped = self.matmul_transpose_b(dcontext, value).astype(ms.float32)
        dscores = self.log_softmax_grad(log_probabilities, dropped.astype(ms.float32) * ddropped).astype(key.dtype)
        return (
            self.matmul(dscores, key),
            self.matmul_transpose_a(dscores, query),
            self.matmul_transpose_a(dropped, dcontext),
            ops.zeros_like(bias),  # the padding mask is data
            ops.zeros_like(clock),
        )


class Attention(nn.Cell):
    """Multi-head attention over heads that are already split; see `_AttentionFunction`."""

    def __init__(self, head_size: int, dropout: float):
        super().__init__()
        self.function: Any = _AttentionFunction(Dropout(dropout))
        self.scale, self.zero = 1.0 / math.sqrt(head_size), Tensor(0, ms.int32)

    def construct(self, query, key, value, bias):
        # a cell with a gradient of its own must not change a parameter, so the clock moves here
        clock = self.function.dropout.tick() if self.training else self.zero
        return self.function(query * self.scale, key, value, bias, clock)[0]


def padding_bias(attention_mask: Tensor) -> Tensor:
    """Returns what is added to the attention scores: 0 where `attention_mask` [B, L] is 1, else -1e30.

    Shape [B, 1, 1, L]. A padded position then has probability exactly 0, so padding cannot change a logit.
    """
    batch, length = attention_mask.shape
    # Not the lowest float32: added to a negative score that would overflow to -inf, and -inf in a whole row
    # (a row of nothing but padding) would make NaN.
    lowest = -1e30
    return ((1.0 - attention_mask.astype(ms.float32)) * lowest).reshape((batch, 1, 1, length))


class Packing(nn.Cell):
    """Where the tokens of a padded batch are when padding is left out.

    Packed are, row by row, the tokens that are not padding, the first of each row in any case, and the batch's first
    padded position, if any, as the stand-in that all padded positions read: some state has to be there, but none
    reaches a logit, since the attention gives padding the weight 0. For the same reason the gradient at padding is 0,
    so that each of the two arrangements is the gradient of the other.

    Args:
        heads: N.
    """

    def __init__(self, heads: int):
        super().__init__()
        self.heads = heads
        self.nonzero = ops.NonZero()
        self.cumsum = ops.CumSum()

    def construct(self, attention_mask):  # (B, L)
        """Returns four int32 vectors of row numbers for `TakeRows`; T is the number of packed tokens.

        places: for each packed token its position in the batch, below B * L.
        packed: for each position of the batch its packed token, below T.
        to_heads, from_heads: the same between packed heads (T, N) and heads as the attention has them, (B, N, L).
        """
        batch, length = attention_mask.shape
        heads = ops.arange(0, self.heads).astype(ms.int32)
        columns = ops.arange(0, length).astype(ms.int32).reshape((1, -1))
        real = ops.logical_or(attention_mask != 0, columns == 0).astype(ms.int32).reshape(-1)
        padding_so_far = self.cumsum(1 - real, 0)
        computed = ops.maximum(real, (padding_so_far == 1).astype(ms.int32) * (1 - real))
        stand_in = (padding_so_far == 0).astype(ms.int32).sum()  # all before it are computed
        places = self.nonzero(computed).astype(ms.int32).reshape(-1)
        packed = computed * (self.cumsum(computed, 0) - 1) + (1 - computed) * stand_in
        to_heads = packed.reshape((batch, 1, length)) * self.heads + heads.reshape((1, -1, 1))
        from_heads = (places // length * (self.heads - 1) * length + places).reshape((-1, 1)) + heads * length
        return places, packed, to_heads.reshape(-1), from_heads.reshape(-1)


def packed_tokens(attention_mask: np.ndarray) -> np.ndarray:
    """Returns how many tokens `Packing` takes of each row of a mask, int [B]."""
    computed = attention_mask != 0
    computed[:, 0] = True
    padding = np.flatnonzero(~computed.ravel())
    tokens = computed.sum(axis=1)
    if len(padding):
        tokens[padding[0] // attention_mask.shape[1]] += 1
    return tokens


class _PlainTakeRows(nn.Cell):
    def __init__(self):
        super().__init__()
        self.gather = ops.Gather()

    def construct(self, x, rows, back):  # (n, size), (m,), (n,) -> (m, size)
        return self.gather(x, rows, 0)


class _TakeRowsFunction(_PlainTakeRows):
    def bprop(self, x, rows, back, out, dout):
        return self.gather(dout, back, 0), ops.zeros_like(rows), ops.zeros_like(back)


class TakeRows(nn.Cell):
    """x[rows] with the gradient dy[back], for the pairs of vectors that `Packing` makes: no slow scattered sum."""

    def __init__(self):
        super().__init__()
        self.function = _TakeRowsFunction()

    def construct(self, x, rows, back):
        return self.function(x, rows, back)


def compute_in_half(network: nn.Cell) -> None:
    """Makes every `Linear` in a network, and the attention between them, compute its products in float16 in training.

    Before compiling.
    """
    for _, cell in network.cells_and_names():
        if isinstance(cell, Linear):
            cell.half = True


def derive_gradients(network: nn.Cell) -> None:
    """Makes MindSpore derive the gradients in a network that are written by hand otherwise. Before compiling.

    That is slower on a CPU, but MindSpore's `Cell.recompute` finds nothing to compute again where one gradient that is
    written by hand uses what another such cell made.
    """
    for _, cell in network.cells_and_names():
        if isinstance(cell, Linear):
            cell.function = _PlainLinear()
        elif isinstance(cell, Gelu):
            cell.function = _PlainGelu()
        elif isinstance(cell, LayerNorm):
            cell.function = _PlainLayerNorm(cell.function.epsilon)
        elif isinstance(cell, TakeRows):
            cell.function = _PlainTakeRows()
        elif isinstance(cell, Attention):
            cell.function = _PlainAttention(cell.function.dropout)
