"""The optimiser and the schedule against PyTorch and transformers."""

import numpy as np
import torch
import transformers
from mindspore import Parameter, Tensor, nn

from mindspore_floodx.device import use_device
from mindspore_floodx.optim import AdamW, decays_by_name, linear_warmup_decay

use_device("CPU", 1)


class _Step(nn.Cell):
    def __init__(self, optimizer):
        super().__init__()
        self.optimizer = optimizer

    def construct(self, *gradients):
        return self.optimizer(gradients)


def test_one_hundred_steps_equal_torch_adamw_with_warmup_and_decay():
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(shape).astype(np.float32) * 0.05 for shape in ((50, 7), (7,), (7,))]
    ours = [Parameter(Tensor(x), name=n) for x, n in zip(start, ("a.weight", "a.bias", "norm.gamma"), strict=True)]
    theirs = [torch.nn.Parameter(torch.tensor(x)) for x in start]
    # rates and decay far above the usual ones, so that a mistake in either shows
    step = _Step(AdamW(ours, linear_warmup_decay(1e-2, 0.1, 100), weight_decay=0.1))
    optimizer = torch.optim.AdamW(
        [{"params": theirs[:1], "weight_decay": 0.1}, {"params": theirs[1:], "weight_decay": 0.0}], lr=1e-2, eps=1e-8
    )
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 10, 100)
    for index in range(100):
        # from gradients as small as epsilon to large ones: epsilon must stand where PyTorch has it
        gradients = [
            rng.standard_normal(x.shape).astype(np.float32) * np.float32(10.0 ** rng.integers(-9, 2)) for x in start
        ]
        step(*map(Tensor, gradients))
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = torch.tensor(gradient)
        optimizer.step()
        schedule.step()
        for a, b in zip(ours, theirs, strict=True):
            reference = b.detach().numpy()
            assert np.abs(a.asnumpy() - reference).max() <= 1e-5 * np.abs(reference).max(), f"step {index}, {a.name}"
    assert np.abs(ours[0].asnumpy() - start[0]).max() > 0.05  # it went somewhere


def test_schedule_equals_transformers_for_every_step():
    for ratio, total in ((0.0, 7), (0.1, 15), (0.35, 10), (1.0, 10)):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-5)
        reference = transformers.get_linear_schedule_with_warmup(optimizer, int(ratio * total), total)
        rates = linear_warmup_decay(2e-5, ratio, total)
        assert len(rates) == total
        for rate in rates:
            assert abs(rate - reference.get_last_lr()[0]) <= 1e-18
            optimizer.step()
            reference.step()


def test_biases_and_layer_norms_do_not_decay():
    assert decays_by_name("bert.encoder.layer.0.output.dense.weight")
    assert decays_by_name("bert.embeddings.word_embeddings.embedding_table")
    assert not decays_by_name("classifier.bias")
    assert not decays_by_name("bert.embeddings.LayerNorm.gamma")
    assert not decays_by_name("bert.embeddings.LayerNorm.beta")
