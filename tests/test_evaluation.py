"""Metrics against scikit-learn and PyTorch; logits of a ragged set against one row at a time."""

import mindspore as ms
import numpy as np
import pytest
import sklearn.metrics
import torch
from mindspore import Tensor

from mindspore_floodx.bert import BertConfig, BertForSequenceClassification
from mindspore_floodx.device import use_device
from mindspore_floodx.encoding import EncodedSplit
from mindspore_floodx.evaluation import Evaluator, scores

use_device("CPU", 1)


@pytest.mark.parametrize("classes, examples", [(2, 200), (4, 37), (2, 1)])
def test_scores_equal_sklearn_and_torch(classes, examples):
    rng = np.random.default_rng(classes)
    logits = (10 * rng.standard_normal((examples, classes))).astype(np.float32)
    labels = rng.integers(0, classes, examples).astype(np.int32)
    ours = scores(logits, labels, f1=True)
    predicted = logits.argmax(1)
    target = torch.from_numpy(labels).long()
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(logits).double(), target).item()
    assert ours["eval_loss"] == pytest.approx(loss, rel=1e-9)
    assert ours["eval_accuracy"] == sklearn.metrics.accuracy_score(labels, predicted)
    assert ours["eval_f1"] == pytest.approx(
        sklearn.metrics.f1_score(labels == 1, predicted == 1, zero_division=0), abs=1e-12
    )
    assert list(scores(logits, labels)) == ["eval_loss", "eval_accuracy"]


def test_scores_of_certain_and_of_no_predictions():
    logits = np.array([[1e4, -1e4], [1e4, -1e4]], np.float32)
    assert scores(logits, np.array([0, 0]), f1=True) == {"eval_loss": 0.0, "eval_accuracy": 1.0, "eval_f1": 0.0}
    assert scores(logits, np.array([0, 1]), f1=True) == {"eval_loss": 1e4, "eval_accuracy": 0.5, "eval_f1": 0.0}


@pytest.fixture(scope="module")
def model():
    ms.set_seed(3)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=50,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=20,
            max_position_embeddings=40,
            initializer_range=0.4,
            id2label={0: "a", 1: "b", 2: "c"},
        )
    )


def test_logits_of_a_ragged_set_in_its_order_from_one_graph(model):
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 40, 23)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    split = EncodedSplit(
        input_ids=rng.integers(1, 50, offsets[-1]).astype(np.int32),
        token_type_ids=rng.integers(0, 2, offsets[-1]).astype(np.int8),
        offsets=offsets,
        labels=rng.integers(0, 3, 23).astype(np.int32),
    )
    evaluator = Evaluator(model)
    evaluator.compile()
    model.set_train()  # as in the middle of a training run
    logits = evaluator.logits(split, batch_size=5)
    assert logits.shape == (23, 3) and logits.dtype == np.float32 and np.ptp(logits, axis=0).min() > 0.1
    for row in range(0, 23, 4):
        part = slice(offsets[row], offsets[row + 1])
        ids, types = (Tensor(each[part][None].astype(np.int32)) for each in (split.input_ids, split.token_type_ids))
        alone = evaluator.forward(ids, Tensor(np.ones(ids.shape, np.int32)), types).asnumpy()[0]
        assert np.abs(alone - logits[row]).max() <= 1e-5
    np.testing.assert_array_equal(evaluator.logits(split, batch_size=5), logits)  # no dropout
    assert np.abs(evaluator.logits(split, batch_size=23) - logits).max() <= 1e-5
    assert len(evaluator.forward.compile_cache) == 1
    assert evaluator.evaluate(split, 5, f1=True) == scores(logits, split.labels, f1=True)
