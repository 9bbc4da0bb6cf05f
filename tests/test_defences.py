"""Every training method, step by step, against a PyTorch implementation that was written from the formulas alone."""

from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
import pytorch_defences as reference
import torch
import transformers
from mindspore import Parameter, Tensor, nn, ops
from small_model import random_batches, random_noise, save_small_bert

from mindspore_floodx.bert import BertForSequenceClassification
from mindspore_floodx.defences.adaflood import flood_levels
from mindspore_floodx.defences.base import tensors
from mindspore_floodx.device import use_device
from mindspore_floodx.flooding import Direction
from mindspore_floodx.methods import find_defence
from mindspore_floodx.optim import AdamW, linear_warmup_decay
from mindspore_floodx.settings import resolve

use_device("CPU", 1)
STEPS, LEARNING_RATE = 50, 1e-3
ADVERSARIAL = ("pgd", "freelb", "tavat", "infobert")
LEVEL = {"flooding": 0.9, "iflood": 0.8, "softad": 0.8, "selective": 0.9}  # about half of the steps or examples below
TORCH = {
    "finetune": reference.FineTuning,
    "flooding": reference.Flooding,
    "iflood": reference.IFlood,
    "adaflood": reference.AdaFlood,
    "softad": reference.SoftAD,
    "selective": reference.Selective,
    "pgd": reference.PGD,
    "freelb": reference.FreeLB,
    "tavat": reference.TAVAT,
    "infobert": reference.InfoBERT,
}


class Counted(nn.Cell):
    """An encoder that counts how often it runs, whatever graph it runs in."""

    def __init__(self, encoder):
        super().__init__(auto_prefix=False)
        self.encoder = encoder
        self.runs = Parameter(Tensor(0, ms.int32), name="runs", requires_grad=False)

    def construct(self, *inputs):
        counted = ops.assign_add(self.runs, Tensor(1, ms.int32))
        return self.encoder(ops.depend(inputs[0], counted), *inputs[1:])


class Ours:
    """A method of ours that can start again, so that its graphs are compiled once for many comparisons."""

    def __init__(self, folder, method, steps=STEPS, **settings):
        self.settings = resolve({"method": method, "dataset": "custom", **settings})
        self.model = BertForSequenceClassification.from_pretrained(folder)
        self.model.bert.encoder = self.counted = Counted(self.model.bert.encoder)
        self.optimizer = AdamW(self.model.trainable_params(), linear_warmup_decay(LEARNING_RATE, 0.1, steps))
        self.defence = find_defence(method)(self.model, self.optimizer, self.settings)
        owners = (self.model, self.optimizer, *vars(self.defence).values(), *(c for c, _ in self.cells()))
        found = {id(p): p for each in owners if isinstance(each, nn.Cell) for p in each.get_parameters()}
        if method == "tavat":
            found[id(self.defence.table)] = self.defence.table
        self.start = [(each, each.asnumpy().copy()) for each in found.values()]
        self.defence.compile()

    def cells(self):
        return getattr(self.defence, "cells", [])

    def restart(self, **options):
        for parameter, value in self.start:
            parameter.set_data(Tensor(value))
        for name, value in options.items():
            setattr(self.defence, name, value)

    def estimators(self):
        """InfoBERT's networks under PyTorch's names."""
        gaussian, scorer = self.defence.gaussian, self.defence.scorer
        pairs = {"mean": gaussian.mean, "logvar": gaussian.log_variance, "score": (scorer.hidden, scorer.output)}
        return {
            f"{name}.{2 * place}.{kind}": getattr(layer, kind).asnumpy()
            for name, layers in pairs.items()
            for place, layer in enumerate(layers)
            for kind in ("weight", "bias")
        }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_small_bert(tmp_path_factory.mktemp("small") / "model")


@pytest.fixture(scope="module")
def ours(folder):
    """Gives each method, compiled once."""
    made = {}

    def get(method):
        if method not in made:
            options = {"flood_level": LEVEL[method]} if method in LEVEL else {}
            made[method] = Ours(folder, method, **options)
        made[method].restart()
        return made[method]

    return get


def theirs(folder, method, **options):
    torch.set_num_threads(1)
    model = transformers.BertForSequenceClassification.from_pretrained(folder, attn_implementation="eager").train()
    optimizer, schedule = reference.adamw(model, LEARNING_RATE, 0.01, STEPS, STEPS // 10)
    return SimpleNamespace(method=TORCH[method](model, **options), model=model, optimizer=optimizer, schedule=schedule)


def compare(mine, other, batches, clip):
    """Trains both; returns the largest difference of the losses and of the perturbations.

    The norms of the gradients are compared too: Adam would not notice a factor.
    """
    worst_loss = worst_delta = 0.0
    sizes, step = [], getattr(mine.defence, "apply", None)
    if step is not None:
        totals = mine.defence.totals.totals
        mine.defence.apply = lambda: (sizes.append(np.sqrt(sum((t.asnumpy() ** 2).sum() for t in totals))), step())
    for number, batch in enumerate(batches):
        noise = random_noise(batch, number)
        adversarial = mine.settings.method in ADVERSARIAL
        loss = mine.defence.train_step(batch, noise) if adversarial else mine.defence.train_step(batch)
        expected, delta = other.method.step(batch, noise)
        if sizes:
            size = np.sqrt(sum((p.grad.numpy() ** 2).sum() for p in other.model.parameters()))
            np.testing.assert_allclose(sizes[-1], size, rtol=1e-3)
        reference.optimise(other.model, other.optimizer, other.schedule, clip)
        worst_loss = max(worst_loss, abs(loss - expected))
        if adversarial:
            difference = mine.defence.perturbation.asnumpy() - delta
            worst_delta = max(worst_delta, np.abs(difference).max())
    if step is not None:
        mine.defence.apply = step
    return worst_loss, worst_delta


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("steps", "bound"),
    [pytest.param(1, 0.03, marks=SLOW), pytest.param(3, 0.0, marks=SLOW), pytest.param(5, 0.0, marks=SLOW), (5, 0.06)],
)
@pytest.mark.parametrize("method", ADVERSARIAL)
def test_adversarial_training_follows_pytorch(folder, ours, method, steps, bound):
    mine = ours(method)
    settings = mine.settings
    mine.restart(steps=steps, bound=Tensor(bound or np.inf, ms.float32))
    options = {"steps": steps, "bound": bound, "step_size": settings.adversarial_step_size}
    options["init"] = settings.adversarial_init
    if method == "tavat":
        options["table"] = mine.defence.table.asnumpy()
    if method == "infobert":
        options["estimators"] = mine.estimators()
    other = theirs(folder, method, **options)
    worst_loss, worst_delta = compare(mine, other, random_batches(STEPS), clip=1.0)
    assert worst_loss <= 1e-4
    assert worst_delta <= 1e-4
    assert {len(cell.compile_cache) for cell, _ in mine.cells()} == {1}  # whatever the batches' lengths
    if method == "tavat":
        np.testing.assert_allclose(mine.defence.table.asnumpy(), other.method.table.numpy(), atol=1e-4)
    if method == "infobert":
        far = {
            name: np.abs(value - other.method.estimators[name].detach().numpy()) > 1e-4
            for name, value in mine.estimators().items()
        }
        # Rounding moves a few of the millions of inputs of the scorer's ReLU across 0. That turns the tiny gradient of
        # that unit, and Adam makes steps of 1e-3 of it. So whole units may differ, a few of the 300, and nothing else.
        units = far.pop("score.0.weight").any(axis=1) | far.pop("score.0.bias") | far.pop("score.2.weight")[0]
        assert units.sum() <= 12
        assert not any(each.any() for each in far.values())


@pytest.mark.parametrize("method", ["finetune", "flooding", "iflood", "adaflood", "softad", "selective"])
def test_the_flooding_family_follows_pytorch(folder, ours, method):
    mine = ours(method)
    options = {"level": LEVEL[method]} if method in LEVEL else {}
    other = theirs(folder, method, **options)
    batches = random_batches(STEPS)
    for number, batch in enumerate(batches):
        generator = np.random.default_rng(number)
        batch["selected"] = (generator.random(len(batch["labels"])) < 0.5).astype(np.float32)
        batch["auxiliary_losses"] = generator.exponential(1.5, len(batch["labels"])).astype(np.float32)
        batch["flood_levels"] = flood_levels(batch["auxiliary_losses"], 0.5).astype(np.float32)
    worst_loss, _ = compare(mine, other, batches, clip=None)
    assert worst_loss <= 1e-4


def test_the_share_of_examples_whose_loss_is_raised(ours):
    batch = one_batch(size=12)
    logits = ours("finetune").model
    logits.set_train(False)
    names = ("input_ids", "attention_mask", "token_type_ids")
    losses = ops.cross_entropy(
        logits(*(Tensor(batch[name]) for name in names)), Tensor(batch["labels"]), reduction="none"
    ).asnumpy()
    for method in ("iflood", "softad"):
        mine = ours(method)
        mine.defence.train_step(batch)
        assert mine.defence.flooded == pytest.approx((losses < LEVEL[method]).mean(), abs=1e-6)
    assert 0 < mine.defence.flooded < 1


def one_batch(seed=3, size=6):
    return random_batches(1, seed, size)[0]


@pytest.mark.parametrize("method", ADVERSARIAL)
def test_the_encoder_runs_as_often_as_the_method_says(ours, method):
    mine = ours(method)
    mine.restart(steps=3)
    before = int(mine.counted.runs.asnumpy())
    mine.defence.train_step(one_batch())
    assert int(mine.counted.runs.asnumpy()) - before == {"pgd": 4}.get(method, 3)
    assert mine.defence.forward_passes == {"pgd": 6}.get(method, 5)  # of the settings' K = 5


def test_one_pass_is_enough_for_the_flooding_family(ours):
    for method in ("flooding", "iflood", "softad"):
        mine = ours(method)
        mine.defence.train_step(one_batch())
        assert int(mine.counted.runs.asnumpy()) == mine.defence.forward_passes == 1


@pytest.mark.parametrize("method", ADVERSARIAL)
def test_no_initial_size_a_batch_of_one_and_no_gradient(ours, method):
    mine = ours(method)
    mine.restart(steps=3, size=0.0)
    mine.defence.train_step(one_batch(size=1))
    mine.restart(steps=3, size=0.0)
    mine.model.classifier.weight.set_data(Tensor(np.zeros((3, 32), np.float32)))  # no gradient reaches the embeddings
    batch = one_batch()
    loss = mine.defence.train_step(batch)
    assert loss == pytest.approx(np.log(3), abs=1e-5)
    perturbation = mine.defence.perturbation.asnumpy()
    assert np.isfinite(perturbation).all()
    if method in ("pgd", "freelb"):
        np.testing.assert_array_equal(perturbation, 0)
    for each in mine.model.get_parameters():
        assert np.isfinite(each.asnumpy()).all(), each.name
    mine.restart(size=mine.settings.adversarial_init)


@pytest.mark.parametrize("method", ADVERSARIAL)
def test_perturbations_stay_off_the_padding_and_within_the_bound(ours, method):
    mine, batch = ours(method), one_batch()
    mine.restart(steps=3, bound=Tensor(0.02, ms.float32))
    mine.defence.train_step(batch)
    perturbation = mine.defence.perturbation.asnumpy()
    assert np.linalg.norm(perturbation.reshape(len(perturbation), -1), axis=1).max() <= 0.02 * (1 + 1e-5)
    np.testing.assert_array_equal(perturbation[batch["attention_mask"] == 0], 0)
    assert (perturbation[batch["attention_mask"] == 1] != 0).any()
    mine.restart(bound=Tensor(mine.settings.adversarial_bound or np.inf, ms.float32))


@pytest.mark.parametrize("shared", [True, False])
def test_freelb_can_keep_its_dropout_masks_through_the_passes_of_a_step(tmp_path, shared):
    mine = Ours(save_small_bert(tmp_path / "model", dropout=0.3), "freelb", freelb_shared_dropout=shared)
    mine.restart(steps=3, size=0.0, step_size=Tensor(0.0, ms.float32))  # so that only masks can change a loss
    start, batch = Tensor(np.zeros(random_noise(one_batch(), 0).shape, np.float32)), tensors(one_batch())
    mine.model.set_train()
    first = [float(each.asnumpy()) for each in mine.defence.passes(start, batch)]
    assert (len(set(first)) == 1) == shared
    mine.restart(steps=3, steps_taken=1)
    assert float(mine.defence.passes(start, batch)[0].asnumpy()) not in first


def test_the_noise_depends_on_seed_and_step_alone(ours):
    defence, batch = ours("pgd").defence, one_batch()
    defence.steps_taken = 7
    first = defence.noise(batch)
    defence.train_step(batch)
    second = defence.noise(batch)
    defence.steps_taken = 7
    np.testing.assert_array_equal(defence.noise(batch), first)
    assert first.shape == (*batch["input_ids"].shape, 32)
    assert -1 <= first.min() < -0.9
    assert 0.9 < first.max() < 1
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("method", ["flooding", "iflood", "softad", "selective", "adaflood"])
def test_a_loss_exactly_at_the_level_moves_nothing(method):
    level = np.float32(0.3)
    losses = Tensor(np.float32([level, level + 1, level - 1]))
    settings = SimpleNamespace(flood_level=0.3, selective_beta=0.5)
    if method == "flooding":
        direction = Direction()
        direction.flood_level.set_data(Tensor(level))
        assert [float(direction(Tensor(level + shift)).asnumpy()) for shift in (0, 1, -1)] == [0, 1, -1]
        return
    weighting = find_defence(method).weighting(SimpleNamespace(settings=settings))
    more = {"selective": [Tensor(np.float32([1, 1, 0]))], "adaflood": [Tensor(np.full(3, level))]}.get(method, [])
    expected = {"softad": [0, np.sqrt(0.5), -np.sqrt(0.5)], "selective": [0, 1, 0.5]}.get(method, [0, 1, -1])
    np.testing.assert_allclose(weighting(losses, *more).asnumpy(), expected, atol=1e-6)


def test_adaflood_levels_lie_between_no_loss_and_the_auxiliary_one():
    losses = np.array([0.0, 0.1, 1.0, 20.0])
    np.testing.assert_allclose(flood_levels(losses, 0.0), losses, atol=1e-9)
    np.testing.assert_allclose(flood_levels(losses, 1.0), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.exp(-flood_levels(losses, 0.5)), 0.5 * np.exp(-losses) + 0.5)
