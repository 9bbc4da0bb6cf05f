"""The documentation's image classifier under `mindspore.train.Model`, recounted in PyTorch step by step."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
import torch
from doc_blocks import blocks
from mindspore import Tensor, nn

from mindspore_floodx import accordance_from_gradients
from mindspore_floodx.accordance_of_cell import CellAccordance
from mindspore_floodx.accordance_result import Accordance
from mindspore_floodx.callbacks import AccordanceCallback
from mindspore_floodx.device import use_device
from mindspore_floodx.errors import UserError

use_device("CPU", 1)
STEPS, PER_SUB_EPOCH, CLASSES, LEVEL = 100, 5, 4, 0.1


@pytest.fixture(scope="module")
def documented(tmp_path_factory):
    """What the documentation's program has at its end, and the network's parameters at its start.

    MindSpore compiles cells from the source file of a module, so there has to be one.
    """
    first, second = blocks("ecosystems.md", "python", "MindSpore")
    between = "start = {name: p.asnumpy().copy() for name, p in network.parameters_and_names()}\n"
    path = tmp_path_factory.mktemp("documented") / "documented_network.py"
    path.write_text(first + between + second, encoding="utf-8")
    sys.path.insert(0, str(path.parent))
    try:
        return vars(importlib.import_module(path.stem))
    finally:
        sys.path.remove(str(path.parent))


class _Recount:
    """The same network in PyTorch, trained by hand with |J - b| + b and measured class by class."""

    def __init__(self, names: dict):
        torch.set_num_threads(1)
        self.names = names
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(128, CLASSES),
        )
        with torch.no_grad():
            for parameter, name in zip(
                self.body.parameters(), ("conv.weight", "conv.bias", "dense.weight", "dense.bias"), strict=True
            ):
                parameter.copy_(torch.from_numpy(names["start"][name]))

    def batch(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = slice(32 * (index % 10), 32 * (index % 10) + 32)
        return torch.from_numpy(self.names["images"][rows]), torch.from_numpy(self.names["labels"][rows]).long()

    def class_gradient(self, index: int, label: int) -> np.ndarray:
        images, labels = self.batch(index)
        mine = labels == label
        assert mine.any()
        loss = torch.nn.functional.cross_entropy(self.body(images[mine]), labels[mine])
        return torch.cat([g.ravel() for g in torch.autograd.grad(loss, list(self.body.parameters()))]).double().numpy()

    def train(self) -> tuple[list[float], list[float]]:
        optimizer = torch.optim.SGD(self.body.parameters(), lr=0.03, momentum=0.9)
        losses, accordance = [], []
        for step in range(STEPS):
            images, labels = self.batch(step)
            loss = torch.nn.functional.cross_entropy(self.body(images), labels)
            optimizer.zero_grad()
            ((loss - LEVEL).abs() + LEVEL).backward()  # eq. 1
            optimizer.step()
            losses.append(loss.item())
            if (step + 1) % PER_SUB_EPOCH == 0:
                batches = range(step + 1 - PER_SUB_EPOCH, step + 1)
                gradients = np.array([[self.class_gradient(i, label) for label in range(CLASSES)] for i in batches])
                accordance.append(accordance_from_gradients(gradients, np.ones(gradients.shape[:2], bool)).value)
        return losses, accordance


def test_losses_and_accordance_are_those_of_pytorch(documented):
    rows = documented["accordance"].rows
    recount = _Recount(documented)
    losses, accordance = recount.train()
    means = np.mean(np.reshape(losses, (-1, PER_SUB_EPOCH)), axis=1)
    np.testing.assert_allclose([row["train_loss"] for row in rows], means, atol=2e-4)
    np.testing.assert_allclose([row["accordance"] for row in rows], accordance, atol=2e-3)
    assert [row["step"] for row in rows] == list(range(PER_SUB_EPOCH, STEPS + 1, PER_SUB_EPOCH))
    assert rows[-1]["epoch"] == 10
    assert sum(loss < LEVEL for loss in losses) > 10  # steps uphill
    result = documented["model"].eval(documented["test_data"])
    with torch.no_grad():
        predicted = recount.body(torch.from_numpy(documented["images"][320:720])).argmax(1).numpy()
    assert result["accuracy"] == pytest.approx((predicted == documented["labels"][320:720]).mean(), abs=0.006)
    assert result["accuracy"] > 0.8


def test_the_training_step_measures_too(documented):
    """With an optimizer `add` trains as the step does: same loss, same parameters after it."""
    network = documented["Network"]()
    loss = nn.WithLossCell(network, nn.CrossEntropyLoss())
    images, labels = documented["images"][:32], documented["labels"][:32]
    weights = [p.asnumpy().copy() for p in network.get_parameters()]
    measured = CellAccordance(loss, CLASSES, nn.SGD(network.trainable_params(), 0.1), parameters="dense")
    value = measured.add(images, labels)
    body = _Recount(documented | {"start": dict(zip(documented["start"], weights, strict=True))}).body
    theirs = torch.nn.functional.cross_entropy(body(torch.from_numpy(images)), torch.from_numpy(labels).long())
    theirs.backward()
    assert value == pytest.approx(theirs.item(), abs=1e-5)
    for ours, before, other in zip(network.get_parameters(), weights, body.parameters(), strict=True):
        np.testing.assert_allclose(before - ours.asnumpy(), 0.1 * other.grad.numpy(), atol=1e-6)


def test_mistakes(documented):
    loss = documented["loss"]
    with pytest.raises(UserError, match="at least 2 classes"):
        CellAccordance(loss, 1)
    with pytest.raises(UserError, match="found in no parameter's name"):
        CellAccordance(loss, CLASSES, parameters="lstm")
    with pytest.raises(UserError, match="a label is 3, but num_classes is 3"):
        CellAccordance(loss, 3).add(documented["images"][:3], Tensor([1, 3, 0], ms.int32))


class _Given:
    """An accordance that is not measured but given, a value a sub-epoch."""

    def __init__(self, values):
        self.values, self.batches = iter(values), []

    def add(self, *batch):
        self.batches.append(int(batch[0]))

    def result(self):
        return Accordance(next(self.values), 0.9, np.zeros((2, 2)), 4)

    def reset(self):
        pass


class _Step:
    """Of a training step, the part that the callback sees."""

    flood_level = None

    def set_flood_level(self, level):
        self.flood_level = level


def _train(callback, steps, per_epoch, sink=False):
    """Calls the callback as `Model.train` does; step i has the batch i and the loss 1 / i."""
    for step in range(1, steps + 1):
        seen = {"dataset_sink_mode": sink, "cur_step_num": step, "batch_num": per_epoch}
        seen |= {"cur_epoch_num": (step - 1) // per_epoch + 1, "net_outputs": Tensor(1 / step, ms.float32)}
        seen["train_dataset_element"] = (np.int32(step), np.zeros(8))
        callback.on_train_step_end(SimpleNamespace(original_args=lambda seen=seen: SimpleNamespace(**seen)))


def test_the_turn_of_the_accordance_switches_flooding_on():
    accordance, step = _Given([-0.5, -0.5, -0.5, -0.5, 0.1, 0.2, 0.3, 0.3]), _Step()
    callback = AccordanceCallback(accordance, step, sub_epochs=2, batches=2, patience=1)
    _train(callback, 16, per_epoch=8)
    assert step.flood_level is None and callback.decision is None  # four sub-epochs on the plateau
    assert accordance.batches == [1, 3, 5, 7, 9, 11, 13, 15]
    _train(callback, 4, per_epoch=8)
    before = np.mean([1 / i for i in range(13, 17)])
    assert callback.decision.sub_epoch == 5
    assert step.flood_level == pytest.approx(before, abs=1e-6)
    _train(callback, 4, per_epoch=8)
    assert step.flood_level == pytest.approx(before, abs=1e-6)  # once is enough
    assert len(callback.rows) == 6


def test_a_step_with_a_level_keeps_it():
    step = _Step()
    step.flood_level = 0.1
    callback = AccordanceCallback(_Given([-0.5] * 4 + [0.1]), step, sub_epochs=2, patience=1)
    _train(callback, 20, per_epoch=8)
    assert step.flood_level == 0.1 and callback.decision is None


def test_data_sinking_is_refused():
    with pytest.raises(UserError, match="dataset_sink_mode=False"):
        _train(AccordanceCallback(_Given([])), 1, 8, sink=True)
