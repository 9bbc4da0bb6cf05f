"""The loss scale: its rule, what a scaled step does, and that one that overflows is skipped and nothing else."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from mindspore_floodx.device import use_device
from mindspore_floodx.errors import UserError
from mindspore_floodx.flooding import FloodingTrainOneStepCell
from mindspore_floodx.loss_scale import LARGEST, LossScale, next_scale
from mindspore_floodx.optim import AdamW
from mindspore_floodx.settings import TrainSettings

use_device("CPU", 1)


class TestTheRule:
    def test_half_after_an_overflow_and_double_after_enough_good_steps(self):
        scale, good, seen = 8.0, 0, []
        for overflowed in (False, True, False, False, False, True, True):
            scale, good = next_scale(scale, good, overflowed, 3)
            seen.append((scale, good))
        assert seen == [(8, 1), (4, 0), (4, 1), (4, 2), (8, 0), (4, 0), (2, 0)]

    def test_it_has_a_largest_and_a_smallest_value(self):
        assert next_scale(LARGEST, 9, False, 10) == (LARGEST, 0)
        assert next_scale(2.0, 0, True, 10) == (1.0, 0)
        with pytest.raises(UserError, match="even at a loss scale of 1; use --precision float32"):
            next_scale(1.0, 0, True, 10)


class Square(nn.Cell):
    def __init__(self):
        super().__init__()
        self.weight = Parameter(Tensor(np.linspace(-1, 1, 5), ms.float32), name="w.weight")

    def construct(self, x):
        return ((self.weight * x) ** 2).mean()


def trained(scale, inputs, level=None, norm=0.5):
    network = Square()
    optimizer = AdamW(network.trainable_params(), [0.1, 0.2, 0.3, 0.4, 0.5], weight_decay=0.1, loss_scale=scale)
    step = FloodingTrainOneStepCell(network, optimizer, level, norm)
    losses = []
    for x in inputs:
        losses.append(float(step(Tensor(x, ms.float32)).asnumpy()))
        if scale is not None:
            scale.end_step()
    values = {each.name: each.asnumpy() for each in step.get_parameters() if not each.name.startswith("loss_scale")}
    return losses, values


INPUTS = np.random.default_rng(0).normal(size=(4, 5)) * 0.5


@pytest.mark.parametrize("level", [None, 0.1])
def test_a_scale_that_is_a_power_of_two_changes_no_bit(level):
    plain, scaled = trained(None, INPUTS, level), trained(LossScale(2.0**16, 3), INPUTS, level)
    assert plain[0] == scaled[0]  # and so the comparison with the level is that of the loss without the scale
    assert plain[1].keys() == scaled[1].keys() and len(plain[1]) > 5
    for name, value in plain[1].items():
        np.testing.assert_array_equal(value, scaled[1][name], err_msg=name)
    assert level is None or min(plain[0]) < level < max(plain[0])


def test_a_step_that_overflows_is_skipped_and_the_schedule_waits():
    scale = LossScale(2.0**100, 2)
    # (w x)^2 is a number, but 2^100 times its gradient is none
    inputs = [INPUTS[0], np.full(5, 1e9), *INPUTS[1:]]
    losses, with_overflow = trained(scale, inputs)
    without = trained(None, INPUTS)
    assert np.isfinite(losses).all() and losses[1] > 1e16
    assert losses[:1] + losses[2:] == without[0]
    for name, value in without[1].items():  # weights, moments, powers of beta, the optimiser's own step
        np.testing.assert_array_equal(value, with_overflow[name], err_msg=name)
    assert int(scale.skipped.asnumpy()) == 1 and float(scale.overflowed.asnumpy()) == 0
    assert float(scale.scale.asnumpy()) == 2.0**24  # halved once, and at its largest after two good steps
    assert int(scale.good_steps.asnumpy()) == 1


def test_all_that_the_next_scale_depends_on_is_in_the_state_of_a_run():
    optimizer = AdamW(Square().trainable_params(), 0.1, loss_scale=LossScale(8.0, 2))
    names = {each.name for each in optimizer.get_parameters()}  # these are written, see trainer._of_optimizer
    assert names >= {"loss_scale", "loss_scale_overflowed", "loss_scale_good_steps", "loss_scale_skipped"}
    assert {each.name for each in optimizer.parameters} == {"w.weight"}


@pytest.mark.parametrize(
    "given, said",
    [
        ({"precision": "half"}, "precision is 'half'; choose one of float32, float16"),
        ({"loss_scale": 1024.0}, "loss_scale is only for float16; leave --loss-scale out, or add --precision float16"),
        ({"loss_scale_steps": 5}, "loss_scale_steps is only for float16"),
        ({"precision": "float16", "loss_scale": 1000.0}, "must be a power of 2 from 1 to 16777216"),
        ({"precision": "float16", "loss_scale": 0.5}, "must be a power of 2 from 1"),
        ({"precision": "float16", "loss_scale_steps": 0}, "loss_scale_steps is 0; it must be at least 1"),
    ],
)
def test_settings_that_are_refused(given, said):
    with pytest.raises(UserError, match=said):
        TrainSettings(**given)


def test_the_settings_of_float16_have_values():
    settings = TrainSettings(precision="float16")
    assert (settings.loss_scale, settings.loss_scale_steps) == (65536.0, 2000)
    assert TrainSettings(**settings.to_dict()) == settings
    assert TrainSettings().loss_scale is None
