"""Flooding's step against PyTorch: what it does at, above and below the level, and 200 steps of a real trajectory."""

import mindspore as ms
import numpy as np
import pytest
import torch
import transformers
from mindspore import Parameter, Tensor, nn, ops

from ckpt_convert.state import load_state
from mindspore_floodx.bert import BertForSequenceClassification
from mindspore_floodx.demo_corpus import generate
from mindspore_floodx.device import use_device
from mindspore_floodx.encoding import encode, epoch_order, load_tokenizer, make_batch
from mindspore_floodx.flooding import ClassificationLoss, FloodingTrainOneStepCell
from mindspore_floodx.optim import AdamW, linear_warmup_decay

use_device("CPU", 1)
LEARNING_RATE = 3e-4
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "labels")


class _Square(nn.Cell):
    """J(w) = mean(x * w^2), so that loss and gradient are known in the head."""

    def __init__(self, weight):
        super().__init__()
        self.weight = Parameter(Tensor(weight, ms.float32), name="w")

    def construct(self, x):
        return (x * self.weight * self.weight).mean()


def one_step(weight, x, level, learning_rate=0.1, max_grad_norm=None):
    network = _Square(weight)
    step = FloodingTrainOneStepCell(network, nn.SGD(network.trainable_params(), learning_rate), level, max_grad_norm)
    step.set_train()
    loss = float(step(Tensor(x, ms.float32)).asnumpy())
    return loss, network.weight.asnumpy()


def test_descends_above_the_level_ascends_below_and_stands_still_on_it():
    w, x = [2.0, 1.0], [1.0, 3.0]  # J = (4 + 3) / 2 = 3.5, gradient (2, 3)
    for level, direction in ((None, 1), (0.0, 1), (1.0, 1), (3.5, 0), (9.0, -1)):
        loss, after = one_step(w, x, level)
        assert loss == pytest.approx(3.5)
        np.testing.assert_allclose(after, np.array(w) - 0.1 * direction * np.array([2.0, 3.0]), rtol=1e-6)


def test_gradient_is_that_of_the_absolute_value():
    for level in (0.2, 3.5, 5.0):
        weight = torch.tensor([2.0, 1.0], requires_grad=True)
        loss = (torch.tensor([1.0, 3.0]) * weight * weight).mean()
        ((loss - level).abs() + level).backward()  # eq. 1
        _, after = one_step([2.0, 1.0], [1.0, 3.0], level)
        np.testing.assert_allclose(after, (weight - 0.1 * weight.grad).detach().numpy(), rtol=1e-6)


def test_a_negative_loss_and_clipping():
    loss, after = one_step([2.0, 1.0], [-1.0, -3.0], None)
    assert loss == pytest.approx(-3.5)
    np.testing.assert_allclose(after, [2.2, 1.3], rtol=1e-6)
    _, after = one_step([2.0, 1.0], [1.0, 3.0], None, max_grad_norm=1.0)
    np.testing.assert_allclose(np.linalg.norm(np.array([2.0, 1.0]) - after), 0.1, rtol=1e-5)


class _Dropped(nn.Cell):
    """A loss that draws a dropout mask: J = sum(dropout(w))."""

    def __init__(self):
        super().__init__()
        self.weight = Parameter(ops.ones(1000), name="w")
        self.dropout = nn.Dropout(p=0.5)

    def construct(self, x):
        return (self.dropout(self.weight) * x).sum()


def test_loss_and_gradient_come_from_one_dropout_mask():
    network = _Dropped()
    step = FloodingTrainOneStepCell(network, nn.SGD(network.trainable_params(), 1.0), None)
    step.set_train()
    loss = float(step(Tensor(np.ones(1000, np.float32))).asnumpy())
    kept = 1.0 - network.weight.asnumpy()  # the gradient: 2 where kept, 0 where dropped
    assert set(np.unique(kept)) == {0.0, 2.0}
    assert loss == pytest.approx(kept.sum())


def test_the_level_changes_without_compiling_again():
    network = _Square([2.0, 1.0])
    step = FloodingTrainOneStepCell(network, nn.SGD(network.trainable_params(), 0.1), None)
    x = Tensor([1.0, 3.0], ms.float32)
    step(x)
    graphs = len(step.compile_cache)
    below = network.weight.asnumpy().copy()
    step.set_flood_level(100.0)
    step(x)
    assert (network.weight.asnumpy() > below).all()
    assert len(step.compile_cache) == graphs


@pytest.fixture(scope="module")
def small(minilm_folder, tmp_path_factory):
    """A BERT of two layers that has learned a little, saved as Hugging Face does, and real batches of the corpus."""
    folder = tmp_path_factory.mktemp("small") / "model"
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    tokenizer = load_tokenizer(minilm_folder)
    encoded = encode(generate(seed=0, n_train=320, n_eval=20).train, tokenizer, 64)
    batches = [
        make_batch(encoded, epoch_order(len(encoded), 0, epoch)[start : start + 16])
        for epoch in range(10)
        for start in range(0, 320, 16)
    ]
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    _, model = theirs(folder, batches, None, learning_rate=1e-3)  # flooding needs a loss that can go below the level
    model.save_pretrained(folder)
    return folder, batches


def ours(folder, batches, level):
    model = BertForSequenceClassification.from_pretrained(folder)
    optimizer = AdamW(model.trainable_params(), linear_warmup_decay(LEARNING_RATE, 0.1, len(batches)))
    step = FloodingTrainOneStepCell(ClassificationLoss(model), optimizer, level)
    step.set_train()
    ids = Tensor(shape=[None, None], dtype=ms.int32)
    step.set_inputs(ids, ids, ids, Tensor(shape=[None], dtype=ms.int32))
    return np.array([float(step(*(Tensor(batch[name]) for name in INPUTS)).asnumpy()) for batch in batches])


def theirs(folder, batches, level, learning_rate=LEARNING_RATE):
    """An ordinary PyTorch loop: transformers' model and schedule, torch's optimiser, the loss as eq. 1 has it."""
    torch.set_num_threads(1)
    config = transformers.BertConfig(**load_state(folder).config)
    model = transformers.BertForSequenceClassification.from_pretrained(folder, config=config).train()
    exempt = ("bias", "LayerNorm.weight")
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in model.named_parameters() if not n.endswith(exempt)], "weight_decay": 0.01},
            {"params": [p for n, p in model.named_parameters() if n.endswith(exempt)], "weight_decay": 0.0},
        ],
        lr=learning_rate,
        eps=1e-8,
    )
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 20, len(batches))
    losses = []
    for batch in batches:
        loss = model(**{name: torch.from_numpy(batch[name]).long() for name in INPUTS}).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        (loss if level is None else (loss - level).abs() + level).backward()
        optimizer.step()
        schedule.step()
    return np.array(losses), model


@pytest.mark.parametrize("level", [pytest.param(None, marks=pytest.mark.slow), 0.3])
def test_two_hundred_real_steps_follow_pytorch(small, level):
    folder, batches = small
    assert len(batches) == 200
    a, b = ours(folder, batches, level), theirs(folder, batches, level)[0]
    assert np.abs(a - b).max() <= 1e-4
    if level is None:
        assert a[-20:].mean() < 0.75 * a[:20].mean()  # it learns
    else:
        assert 0.3 <= (a < level).mean() <= 0.7
