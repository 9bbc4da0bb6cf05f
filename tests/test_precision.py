"""Training in float16 and with activations that are computed again, held against plain training in float32.

The gradient of the first step is what Adam's first moment holds after it, divided by 1 - beta1.
"""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from small_model import random_batches, save_small_bert

from mindspore_floodx.accordance import GradientAccordance
from mindspore_floodx.bert import BertForSequenceClassification
from mindspore_floodx.device import use_device
from mindspore_floodx.layers import compute_in_half, dropout_clocks
from mindspore_floodx.methods import find_defence
from mindspore_floodx.settings import resolve
from mindspore_floodx.training_inputs import build_model

use_device("CPU", 1)
RATE = 2e-3
LEVELS = {"flooding": 0.6, "iflood": 0.6}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {dropout: save_small_bert(folder / f"dropout{dropout}", dropout) for dropout in (0.0, 0.1)}


class Trained:
    """A few steps of a method on a small BERT: their losses, the first gradient, and the objects."""

    def __init__(self, folder, method="finetune", steps=1, overflow_at=None, **given):
        level = {"flood_level": LEVELS[method]} if method in LEVELS else {}
        shared = {"dataset": "demo", "model": str(folder), "method": method, "max_length": 16, "learning_rate": RATE}
        self.settings = resolve(shared | {"warmup_ratio": 0.0, "epochs": 1} | level | given)
        self.model, self.optimizer, _ = build_model(self.settings, ["a", "b", "c"], folder, 50)
        if self.settings.accordance == "online":
            self.measure = GradientAccordance(self.model, self.optimizer)
            step, compile_all = self.measure.add, self.measure.compile
        else:
            self.defence = find_defence(method)(self.model, self.optimizer, self.settings)
            step, compile_all = self.defence.train_step, self.defence.compile
        compile_all()
        self.losses, self.skipped, self.gradient = [], [], None
        for number, batch in enumerate(random_batches(steps, seed=1)):
            scale = self.optimizer.dynamic_loss_scale
            if number == overflow_at:
                before = self.values()
                scale.scale.set_data(Tensor(2.0**40, ms.float32))  # too much for any gradient in float16
            self.losses.append(step(batch))
            if self.gradient is None:
                self.gradient = {each.name: each.asnumpy() * 10.0 for each in self.optimizer.moment1}
            if number == overflow_at:
                self.changed = [
                    name for name, value in self.values().items() if not np.array_equal(value, before[name])
                ]
                scale.scale.set_data(Tensor(2.0**11, ms.float32))  # so that the next one is 2^10
            if scale is not None:
                self.skipped.append(scale.end_step())

    def values(self):
        """All that a step changes but what belongs to the scale, and the time of dropout."""
        cells = [self.optimizer, *([self.defence.own_optimizer] if self.settings.method == "infobert" else [])]
        found = {each.name: each.asnumpy().copy() for cell in cells for each in cell.get_parameters()}
        if self.settings.method == "tavat":
            found |= {name: array.copy() for name, array in self.defence.state().items()}
        if self.settings.accordance == "online":
            found |= {name: array.copy() for name, array in self.measure.state().items() if name.startswith("class")}
        return {name: array for name, array in found.items() if not name.startswith("loss_scale")}


def difference(first, second):
    """The norm of the difference of two gradients, as a share of the first's."""
    square = sum(float(((first[name] - second[name]).astype(np.float64) ** 2).sum()) for name in first)
    return (square / sum(float((each.astype(np.float64) ** 2).sum()) for each in first.values())) ** 0.5


class Logits(nn.Cell):
    def __init__(self, model):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, ids, mask, types):
        return self.model(ids, mask, types)


def test_logits_in_float16_are_near_those_in_float32(folders):
    model = BertForSequenceClassification.from_pretrained(folders[0.0])
    (batch,) = random_batches(1, size=32)
    inputs = [Tensor(batch[name]) for name in ("input_ids", "attention_mask", "token_type_ids")]
    single = Logits(model).set_train()(*inputs).asnumpy()
    compute_in_half(model.bert.encoder)
    half = Logits(model).set_train()(*inputs)
    assert half.dtype == ms.float32
    largest = np.abs(half.asnumpy() - single).max()
    assert 1e-6 < largest < 4e-3 < np.abs(single).max()  # not the same, and near
    evaluated = Logits(model).set_train(False)(*inputs).asnumpy()
    np.testing.assert_array_equal(evaluated, single)  # no dropout here: what is evaluated is float32


def test_fifty_steps_in_float16_are_near_those_in_float32(folders):
    single = Trained(folders[0.0], steps=50)
    half = Trained(folders[0.0], steps=50, precision="float16")
    assert 1e-5 < difference(single.gradient, half.gradient) < 5e-3
    apart = np.abs(np.array(single.losses) - half.losses)
    assert apart[0] < 2e-3 and apart.max() < 0.05 and apart.mean() < 0.01
    assert np.mean(half.losses[-10:]) < 0.85 * np.mean(half.losses[:10])  # it learns
    assert not any(half.skipped)


def test_an_activation_computed_again_gives_the_same_gradient_and_the_same_masks(folders):
    plain, again = Trained(folders[0.1], steps=3), Trained(folders[0.1], steps=3, recompute=True)
    assert [each.name for each in again.optimizer.parameters] == [each.name for each in plain.optimizer.parameters]
    assert difference(plain.gradient, again.gradient) < 1e-6
    np.testing.assert_allclose(again.losses, plain.losses, rtol=1e-5)
    np.testing.assert_array_equal(dropout_clocks(plain.model), dropout_clocks(again.model))


def test_an_overflow_skips_one_step(folders):
    half = Trained(folders[0.1], "flooding", steps=4, overflow_at=1, precision="float16", loss_scale_steps=2)
    assert half.skipped == [False, True, False, False] and half.changed == []
    assert np.isfinite(half.losses).all()
    assert int(half.optimizer.global_step.asnumpy().item()) == 3
    scale = half.optimizer.dynamic_loss_scale
    assert float(scale.scale.asnumpy()) == 2.0**11  # 2^10, and doubled after two good steps


MORE = [
    {"method": "flooding", "gradient_accumulation_steps": 2},
    {"method": "iflood"},
    {"method": "iflood", "gradient_accumulation_steps": 3},
    {"method": "pgd"},
    {"method": "pgd", "gradient_accumulation_steps": 2},
    {"method": "freelb", "recompute": True},
    {"method": "tavat"},
    {"method": "infobert"},
    {"method": "finetune", "accordance": "online"},
]


@pytest.mark.slow
@pytest.mark.parametrize("given", MORE, ids=lambda given: "-".join(map(str, given.values())))
def test_every_kind_of_step(folders, given):
    """Near float32, and an overflow, of whichever part or pass, skips the step and nothing else."""
    single = Trained(folders[0.1], steps=4, **given)
    half = Trained(folders[0.1], steps=4, precision="float16", **given)
    np.testing.assert_allclose(half.losses, single.losses, atol=0.02)
    bound = 0.03 if given["method"] in ("pgd", "freelb", "tavat", "infobert") else 5e-3
    assert difference(single.gradient, half.gradient) < bound
    assert not any(half.skipped)
    overflowed = Trained(folders[0.1], steps=4, overflow_at=2, precision="float16", **given)
    assert overflowed.skipped == [False, False, True, False] and overflowed.changed == []
    assert np.isfinite(overflowed.losses).all()
    assert all(np.isfinite(each).all() for each in overflowed.values().values())
