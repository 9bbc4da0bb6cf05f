"""Streaming accordance against brute force: every class gradient from PyTorch, every pair of them in float64."""

import re

import mindspore as ms
import numpy as np
import pytest
import torch
import transformers
from mindspore import Parameter, Tensor, nn, ops
from tiny_bert import VOCABULARY, save_tiny_bert

from ckpt_convert import to_pytorch
from mindspore_floodx import BertForSequenceClassification, GradientAccordance, accordance_from_gradients
from mindspore_floodx.data import load_dataset
from mindspore_floodx.device import use_device
from mindspore_floodx.encoding import encode, epoch_order, load_tokenizer, make_batch
from mindspore_floodx.errors import UserError
from mindspore_floodx.flooding import ClassificationLoss, FloodingTrainOneStepCell
from mindspore_floodx.optim import AdamW

use_device("CPU", 1)
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "labels")


def random_batches(number, classes, seed=0, batch=6, present=None):
    """Batches of random tokens with padding and token types; `present` are the classes that each batch may have."""
    rng = np.random.default_rng(seed)
    batches = []
    for index in range(number):
        lengths = rng.integers(3, 12, batch)
        mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int32)
        ids = rng.integers(5, len(VOCABULARY), mask.shape).astype(np.int32) * mask
        types = (np.arange(mask.shape[1]) >= lengths[:, None] // 2).astype(np.int32) * mask
        labels = rng.choice(present[index] if present else classes, batch).astype(np.int32)
        batches.append({"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "labels": labels})
    return batches


def class_gradients(export, batches, classes, counts=lambda name: True, training=False):
    """[batches, classes, parameters] and [batches, classes], by PyTorch with Hugging Face's model."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(export).train(training)
    chosen = [parameter for name, parameter in model.named_parameters() if counts(name)]
    gradients, present = [], []
    for batch in batches:
        for label in range(classes):
            rows = batch["labels"] == label
            present.append(rows.any())
            model.zero_grad()
            if rows.any():
                model(**{name: torch.from_numpy(batch[name][rows]).long() for name in INPUTS}).loss.backward()
                gradients.append(np.concatenate([p.grad.numpy().ravel() for p in chosen]))
            else:
                gradients.append(np.zeros(sum(p.numel() for p in chosen), np.float32))
    return np.stack(gradients).reshape(len(batches), classes, -1), np.reshape(present, (-1, classes))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A random BERT of k classes: ours, a folder of Hugging Face's with its weights, and ours measured (reset).

    One for each k, since compiling is what takes the time.
    """
    made = {}

    def make(classes):
        if classes not in made:
            folder = tmp_path_factory.mktemp(f"classes{classes}")
            source = save_tiny_bert(folder / "source")
            ours = BertForSequenceClassification.from_pretrained(source, num_labels=classes, seed=1)
            ours.save_pretrained(folder / "ours")
            to_pytorch(folder / "ours", folder / "export", verify=False)
            made[classes] = folder, GradientAccordance(ours)
        folder, measure = made[classes]
        measure.reset()
        return folder, measure

    return make


def fresh(folder, dropout=True):
    """The model of a folder of `tiny` as it was saved."""
    model = BertForSequenceClassification.from_pretrained(folder / "ours")
    for _, cell in model.cells_and_names():
        if hasattr(cell, "p") and not dropout:
            cell.p = 0.0
    return model


@pytest.mark.parametrize(
    ("classes", "present"),
    [
        (2, None),
        (3, [(0, 1, 2), (0, 2), (1,), (0, 1), (2,)]),
        (4, [(0, 1), (2, 3), (0, 1, 2, 3), (3,), (1, 2)]),
    ],
)
def test_snapshot_is_that_of_all_pairs_by_pytorch(tiny, classes, present):
    folder, measure = tiny(classes)
    batches = random_batches(5, classes, present=present)
    for batch in batches:
        measure.add(batch)
    result = measure.result()
    gradients, there = class_gradients(folder / "export", batches, classes)
    reference = accordance_from_gradients(gradients, there)
    assert result.value == pytest.approx(reference.value, abs=1e-5)
    np.testing.assert_allclose(result.class_matrix, reference.class_matrix, atol=1e-5)
    assert result.batches == 5 and result.undefined == ""
    pairs = there.sum(0) * (there.sum(0) - 1)  # of two batches that have the class
    same = np.nan_to_num(reference.class_matrix.diagonal()) @ pairs / pairs.sum()
    assert result.same_class == pytest.approx(same, abs=1e-5)
    assert measure.result().value == result.value  # asking changes nothing


def test_loss_reset_and_one_graph_for_all_batches(tiny):
    folder, measure = tiny(3)
    batches = random_batches(4, 3, present=[(0, 1, 2), (0,), (1, 2), (0, 2)])
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "export").eval()
    for batch in batches:
        with torch.no_grad():
            expected = model(**{name: torch.from_numpy(batch[name]).long() for name in INPUTS}).loss.item()
        assert measure.add(batch) == pytest.approx(expected, abs=1e-6)
    first = measure.result()
    measure.reset()
    assert measure.result().batches == 0
    for batch in batches:
        measure.add(batch)
    again = measure.result()
    assert again.value == first.value
    np.testing.assert_array_equal(again.class_matrix, first.class_matrix)
    assert len(measure._step.compile_cache) == 1


def test_undefined_is_said_and_is_no_crash(tiny):
    _, measure = tiny(3)
    assert np.isnan(measure.result().value) and "there is none" in measure.result().undefined
    one, two, three = random_batches(3, 3, present=[(0, 1), (1,), (1,)])
    measure.add(one)
    assert np.isnan(measure.result().value) and "only one" in measure.result().undefined
    measure.reset()
    for batch in (two, three):
        measure.add(batch)
    result = measure.result()
    assert np.isnan(result.value) and "no two classes" in result.undefined
    assert -1 <= result.same_class <= 1 and result.class_matrix[1, 1] == result.same_class
    assert np.isnan(result.class_matrix[0]).all()


@pytest.mark.parametrize("number", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_batches_keep_five_digits(tiny, number):
    """The sums grow to many unit gradients of much the same direction, and the closed form subtracts them."""
    folder, measure = tiny(2)
    batches = random_batches(number, 2, batch=4)
    for batch in batches:
        measure.add(batch)
    gradients, present = class_gradients(folder / "export", batches, 2)
    units = gradients.astype(np.float64)
    norms = np.linalg.norm(units, axis=2, keepdims=True)
    units = np.divide(units, norms, out=np.zeros_like(units), where=norms > 0)
    sums = units.sum(axis=0)  # all pairs would be 4 million: the definition, with the sums taken in float64
    inner, both = np.einsum("iap,ibp->ab", units, units), present.T.astype(int) @ present
    pairs = np.outer(present.sum(0), present.sum(0)) - both
    matrix = (sums @ sums.T - inner) / pairs
    np.testing.assert_allclose(measure.result().class_matrix, matrix, atol=1e-5)
    assert measure.result().value == pytest.approx(matrix[0, 1], abs=1e-5)


@pytest.mark.parametrize("expression", [r"layer\.1|pooler", r"(embedding_table|weight|gamma)$"])
def test_named_parameters_alone(tiny, expression):
    folder, _ = tiny(2)
    ours, batches = fresh(folder), random_batches(4, 2)
    counted = {
        name.replace("gamma", "weight").replace("beta", "bias").replace("embedding_table", "weight")
        for name in (parameter.name for parameter in ours.trainable_params())
        if re.search(expression, name)
    }
    measure = GradientAccordance(ours, parameters=expression)
    for batch in batches:
        measure.add(batch)
    reference = accordance_from_gradients(*class_gradients(folder / "export", batches, 2, lambda name: name in counted))
    assert measure.result().value == pytest.approx(reference.value, abs=1e-5)


def test_an_expression_that_fits_nothing_or_is_none(tiny):
    ours = fresh(tiny(2)[0])
    with pytest.raises(UserError, match=r"accordance_parameters is 'encodr'.*names look like classifier.bias"):
        GradientAccordance(ours, parameters="encodr")
    with pytest.raises(UserError, match="no regular expression"):
        GradientAccordance(ours, parameters="(")


def test_frozen_word_embeddings(tiny):
    folder, _ = tiny(2)
    ours, batches = fresh(folder, dropout=False), random_batches(4, 2)
    ours.bert.embeddings.word_embeddings.embedding_table.requires_grad = False
    measure = GradientAccordance(ours, nn.SGD(ours.trainable_params(), 0.0))
    for batch in batches:
        measure.add(batch)
    theirs = class_gradients(folder / "export", batches, 2, lambda name: "word_embeddings" not in name)
    assert measure.result().value == pytest.approx(accordance_from_gradients(*theirs).value, abs=1e-5)


class _Keep(nn.Cell):
    """An optimizer that keeps the gradient and takes no step."""

    def __init__(self, parameters):
        super().__init__(auto_prefix=False)
        self.parameters = ms.ParameterTuple(parameters)
        self.kept = ms.ParameterTuple(
            Parameter(Tensor(np.zeros(p.shape, np.float32)), name=f"kept.{p.name}", requires_grad=False)
            for p in parameters
        )

    def construct(self, gradients):
        done = True
        for kept, gradient in zip(self.kept, gradients):  # noqa: B905  compiled by MindSpore
            done = ops.depend(done, ops.assign(kept, gradient))
        return done

    def flat(self):
        return np.concatenate([each.asnumpy().ravel() for each in self.kept]).astype(np.float64)


def plain_step(model, optimizer, max_grad_norm=None):
    """The ordinary training step, as a function of a batch."""
    cell = FloodingTrainOneStepCell(ClassificationLoss(model), optimizer, max_grad_norm=max_grad_norm)
    cell.set_train()
    ids, labels = Tensor(shape=[None, None], dtype=ms.int32), Tensor(shape=[None], dtype=ms.int32)
    cell.set_inputs(ids, ids, ids, labels)
    return lambda batch: float(cell(*(Tensor(batch[name]) for name in INPUTS)).asnumpy())


@pytest.mark.parametrize("max_grad_norm", [pytest.param(None, marks=pytest.mark.slow), 0.05])
def test_the_online_gradient_is_the_training_gradient(tiny, max_grad_norm):
    ours = fresh(tiny(3)[0], dropout=False)
    online, plain = _Keep(ours.trainable_params()), _Keep(ours.trainable_params())
    measure = GradientAccordance(ours, online, max_grad_norm=max_grad_norm)
    step = plain_step(ours, plain, max_grad_norm)
    for batch in random_batches(4, 3, present=[(0, 1, 2), (0, 2), (1,), (0, 1, 2)]):
        assert measure.add(batch) == pytest.approx(step(batch), rel=1e-6)
        assert np.linalg.norm(online.flat() - plain.flat()) <= 1e-6 * np.linalg.norm(plain.flat())
        if max_grad_norm:
            assert np.linalg.norm(online.flat()) == pytest.approx(max_grad_norm, rel=1e-5)


@pytest.mark.parametrize("steps", [60, pytest.param(200, marks=pytest.mark.slow)])
def test_steps_with_and_without_monitoring(tiny, steps):
    folder, _ = tiny(3)
    batches, losses = random_batches(10, 3, batch=8) * (steps // 10), []
    for monitored in (True, False):
        ours = fresh(folder, dropout=False)
        optimizer = AdamW(ours.trainable_params(), 1e-4)
        step = GradientAccordance(ours, optimizer).add if monitored else plain_step(ours, optimizer)
        losses.append(np.array([step(batch) for batch in batches]))
    assert np.abs(losses[0] - losses[1]).max() <= 1e-5
    assert losses[0][-20:].mean() < losses[0][:20].mean()


@pytest.mark.parametrize("name", ["sst2", pytest.param("ag_news", marks=pytest.mark.slow)])
def test_minilm_on_real_sentences(shared_data, minilm_folder, tmp_path, name):
    part = {"train_file": "train_partial.jsonl"} if name == "ag_news" else {}
    data = load_dataset(name, shared_data, max_train_examples=64, min_words=5, **part)
    encoded = encode(data.train, load_tokenizer(minilm_folder), 64)
    batches = [make_batch(encoded, epoch_order(64, 0, 0)[start : start + 16]) for start in range(0, 64, 16)]
    ours = BertForSequenceClassification.from_pretrained("minilm", num_labels=data.num_labels)
    ours.save_pretrained(tmp_path / "ours")
    to_pytorch(tmp_path / "ours", tmp_path / "export", verify=False)
    measure = GradientAccordance(ours)
    for batch in batches:
        measure.add(batch)
    reference = accordance_from_gradients(*class_gradients(tmp_path / "export", batches, data.num_labels))
    assert measure.result().value == pytest.approx(reference.value, abs=1e-5)
    np.testing.assert_allclose(measure.result().class_matrix, reference.class_matrix, atol=1e-5)
