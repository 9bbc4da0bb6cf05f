"""The graphs that workers of a job send and add up numbers with."""

from __future__ import annotations

import math

from mindspore import nn, ops

from . import distributed


class SumOverWorkers(nn.Cell):
    """The sum of a float32 tensor over all workers, equal on each of them; of any shape."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.all_reduce = ops.AllReduce(ops.ReduceOp.SUM)

    def construct(self, x):
        return self.all_reduce(x)


class FromMain(nn.Cell):
    """The int32 tensor of rank 0; the others give one of the same shape."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.broadcast = ops.Broadcast(0)

    def construct(self, x):
        return self.broadcast((x,))[0]


class SumsOverWorkers(nn.Cell):
    """The sums of float32 tensors over all workers, sent as one; without other workers the tensors themselves.

    Args:
        shapes: of the tensors; those that may vary, whose first size is None, come first and are sent one by one.
    """

    def __init__(self, shapes: list[tuple[int | None, ...]]):
        super().__init__(auto_prefix=False)
        self.alone = distributed.size() == 1
        self.sum, self.slice = SumOverWorkers(), ops.Slice()
        self.varying = sum(None in shape for shape in shapes)
        fixed = shapes[self.varying :]
        self.shapes = [tuple(shape) for shape in fixed]
        self.sizes = [math.prod(each or 0 for each in shape) for shape in fixed]
        self.starts = [sum(self.sizes[:index]) for index in range(len(fixed))]

    def construct(self, tensors):
        if self.alone:
            return tensors
        sums, flat = (), ()
        for each in tensors[: self.varying]:
            sums = (*sums, self.sum(each))
        for each in tensors[self.varying :]:
            flat = (*flat, each.reshape((-1,)))
        added = self.sum(ops.concat(flat))
        for index in range(len(self.shapes)):
            one = self.slice(added, (self.starts[index],), (self.sizes[index],))
            sums = (*sums, one.reshape(self.shapes[index]))
        return sums
