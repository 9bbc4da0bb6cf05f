"""BERT in MindSpore against Hugging Face's: logits, hidden states, every gradient, and both layouts on disk."""

from __future__ import annotations

import json

import mindspore as ms
import numpy as np
import pytest
import torch
import transformers
from mindspore import Tensor, nn, ops
from tiny_bert import bits, save_tiny_bert

from mindspore_floodx.bert import BertConfig, BertForSequenceClassification, BertPooler
from mindspore_floodx.device import use_device
from mindspore_floodx.encoding import load_tokenizer
from mindspore_floodx.errors import UserError

use_device("CPU", 1)
torch.set_num_threads(1)

LOGITS = 2e-5  # largest absolute difference allowed
GRADIENTS = 1e-4  # largest relative difference allowed
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TEXTS = (
    "A thoughtful, beautifully acted film that stays with you.",
    "Dull.",
    "The plot makes no sense, the jokes are old, and nobody in the cast seems to believe a word of it.",
)
PAIRS = (
    "The company reported a loss for the third quarter.",
    "Shares rose.",
    "He said the talks, which began on Monday in Geneva, had made little progress so far.",
)


def pytorch_name(name):
    for ours, theirs in ((".gamma", ".weight"), (".beta", ".bias"), (".embedding_table", ".weight")):
        name = name.replace(ours, theirs)
    return name


def twins(config):
    """A random Hugging Face model without dropout at work, and ours with the same weights."""
    torch.manual_seed(0)
    theirs = transformers.BertForSequenceClassification(config).eval()
    ours = BertForSequenceClassification(BertConfig.from_dict(json.loads(theirs.config.to_json_string(False))))
    return theirs, with_weights_of(theirs, ours)


def with_weights_of(theirs, ours):
    state = theirs.state_dict()
    names = {pytorch_name(parameter.name): parameter for parameter in ours.get_parameters()}
    assert set(names) == set(state) - {"bert.embeddings.position_ids"}
    for name, parameter in names.items():
        parameter.set_data(Tensor(state[name].numpy()))
    return ours.set_train(False)


def random_batch(config, batch, length, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, length + 1, batch)
    lengths[0] = length
    mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
    return {
        "input_ids": rng.integers(1, config.vocab_size, (batch, length)).astype(np.int32) * mask,
        "attention_mask": mask,
        "token_type_ids": rng.integers(0, config.type_vocab_size, (batch, length)).astype(np.int32) * mask,
        "labels": rng.integers(0, config.num_labels, batch).astype(np.int32),
    }


class _Loss(nn.Cell):
    def __init__(self, model):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, input_ids, attention_mask, token_type_ids, labels):
        logits = self.model(input_ids, attention_mask, token_type_ids)
        return ops.cross_entropy(logits, labels), logits


class Backward(nn.Cell):
    """Loss, logits and the gradient of every parameter, in one graph for batches of any size and length."""

    def __init__(self, model):
        super().__init__(auto_prefix=False)
        self.weights = ms.ParameterTuple(model.trainable_params())
        self.gradient = ms.value_and_grad(_Loss(model), None, self.weights, has_aux=True)
        ids = Tensor(shape=[None, None], dtype=ms.int32)
        self.set_inputs(ids, ids, ids, Tensor(shape=[None], dtype=ms.int32))

    def construct(self, *inputs):
        return self.gradient(*inputs)

    def run(self, batch):
        (loss, logits), gradients = self(*(Tensor(batch[name]) for name in (*INPUTS, "labels")))
        names = [pytorch_name(weight.name) for weight in self.weights]
        return float(loss.asnumpy()), logits.asnumpy(), dict(zip(names, (g.asnumpy() for g in gradients), strict=True))


def assert_same(ours, theirs, batch):
    """Holds logits, loss and all gradients of a `Backward` graph against PyTorch's.

    A gradient's error is relative to its own largest entry. What is below 1e-6 of the model's largest gradient is
    rounding and is measured by that instead: the key's bias shifts all scores of a row alike, so that its true gradient
    is 0.
    """
    theirs.zero_grad()
    reference = theirs(**{name: torch.from_numpy(value).long() for name, value in batch.items()})
    reference.loss.backward()
    loss, logits, gradients = ours.run(batch)
    assert np.abs(logits - reference.logits.detach().numpy()).max() <= LOGITS
    assert loss == pytest.approx(reference.loss.item(), abs=LOGITS)
    expected = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
    assert set(gradients) == set(expected)
    floor = 1e-6 * max(np.abs(gradient).max() for gradient in expected.values())
    errors = {
        name: np.abs(gradients[name] - gradient).max() / max(np.abs(gradient).max(), floor)
        for name, gradient in expected.items()
        if not name.endswith("self.key.bias")
    }
    assert max(errors.values()) <= GRADIENTS, max(errors.items(), key=lambda item: item[1])
    for name, gradient in gradients.items():
        if name.endswith("self.key.bias"):
            assert np.abs(gradient).max() <= floor and np.abs(expected[name]).max() <= floor
    return logits


@pytest.fixture(scope="module")
def minilm(minilm_folder):
    torch.manual_seed(0)
    theirs = transformers.BertForSequenceClassification.from_pretrained(minilm_folder, attn_implementation="eager")
    theirs.eval()
    ours = with_weights_of(theirs, BertForSequenceClassification.from_pretrained(minilm_folder))
    return theirs, Backward(ours), load_tokenizer(minilm_folder)


def encoded(tokenizer, *texts, **options):
    tokens = tokenizer(*texts, return_tensors="np", padding=options.pop("padding", True), **options)
    return {name: tokens[name].astype(np.int32) for name in INPUTS} | {"labels": np.array([1, 0, 1], np.int32)}


def test_minilm_on_real_sentences_and_pairs_and_with_padding(minilm):
    theirs, ours, tokenizer = minilm
    sentences, pairs = encoded(tokenizer, list(TEXTS)), encoded(tokenizer, list(TEXTS), list(PAIRS))
    assert pairs["token_type_ids"].max() == 1 and sentences["attention_mask"].min() == 0
    logits = assert_same(ours, theirs, sentences)
    assert_same(ours, theirs, pairs)
    assert np.ptp(logits, axis=0).min() > 1e-3  # the sentences are told apart, so agreement says something
    longer = ours.run(encoded(tokenizer, list(TEXTS), padding="max_length", max_length=80))[1]
    assert np.abs(longer - logits).max() <= 1e-6
    for row, text in enumerate(TEXTS):
        alone = {name: value[:1] for name, value in encoded(tokenizer, [text]).items()}
        assert np.abs(ours.run(alone)[1] - logits[row]).max() <= 1e-6
    assert len(ours.compile_cache) == 1  # six shapes, one graph


def test_bert_base_with_random_weights():
    config = transformers.BertConfig(attn_implementation="eager")
    theirs, ours = twins(config)
    assert sum(parameter.size for parameter in ours.get_parameters()) == 109_483_778
    assert_same(Backward(ours), theirs, random_batch(config, 2, 12))


ODD = {
    "one head, one token": (dict(hidden_size=12, num_attention_heads=1, num_labels=3), 1, 1),
    "wide head, sdpa": (dict(hidden_size=40, num_attention_heads=2, num_labels=2, attn_implementation="sdpa"), 3, 7),
    "heads of one": (dict(hidden_size=8, num_attention_heads=8, num_hidden_layers=3, num_labels=5), 5, 2),
}


@pytest.mark.parametrize("sizes, batch, length", ODD.values(), ids=ODD)
def test_odd_shapes(sizes, batch, length):
    config = transformers.BertConfig(
        **{
            "vocab_size": 50,
            "num_hidden_layers": 1,
            "intermediate_size": 20,
            "max_position_embeddings": 9,
            "initializer_range": 0.3,
            "attn_implementation": "eager",
        }
        | sizes
    )
    theirs, ours = twins(config)
    assert_same(Backward(ours), theirs, random_batch(config, batch, length))


def test_the_pooler_saturates_as_tanh_does():
    """Trained models live on the flat ends of tanh, where MindSpore's own CPU kernel is off by up to 1e-4."""
    config = BertConfig(hidden_size=4, num_attention_heads=1)
    pooler = BertPooler(config)
    pooler.dense.weight.set_data(Tensor(np.eye(4, dtype=np.float32)))
    x = np.concatenate([np.linspace(-12, 12, 2401), [0.0, -0.0, 60.0, -60.0, 1e-30, 3e-4, -1e-3]]).astype(np.float32)
    exact = np.tanh(x.astype(np.float64)).reshape(-1, 4)
    tensor = Tensor(x.reshape(-1, 4))
    assert np.abs(pooler(tensor).asnumpy() - exact).max() <= 5e-7
    gradient = ops.GradOperation()(pooler)(tensor).asnumpy()
    assert np.abs(gradient - (1 - exact**2)).max() <= 1e-6


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("bert") / "tiny")


@pytest.fixture(scope="module")
def tiny(tiny_folder):
    theirs = transformers.BertForSequenceClassification.from_pretrained(tiny_folder, attn_implementation="eager").eval()
    return theirs, BertForSequenceClassification.from_pretrained(tiny_folder).set_train(False)


def call(model, batch, **more):
    return model(*(Tensor(batch[name]) for name in INPUTS), **more)


def test_one_graph_serves_every_batch_size_and_length(tiny):
    theirs, ours = tiny
    ids = Tensor(shape=[None, None], dtype=ms.int32)
    forward = BertForSequenceClassification(ours.config).set_train(False)
    ms.load_param_into_net(forward, ours.parameters_dict())
    forward.set_inputs(ids, ids, ids)
    for batch, length in ((3, 5), (1, 1), (4, 64), (2, 2), (1, 30)):
        inputs = random_batch(ours.config, batch, length)
        expected = theirs(**{name: torch.from_numpy(inputs[name]).long() for name in INPUTS}).logits.detach().numpy()
        assert np.abs(call(forward, inputs).asnumpy() - expected).max() <= LOGITS
        assert len(forward.compile_cache) == 1


def test_perturbation_and_hidden_states(tiny):
    theirs, ours = tiny
    batch = random_batch(ours.config, 3, 6)
    tensors = {name: torch.from_numpy(batch[name]).long() for name in INPUTS}
    plain = call(ours, batch).asnumpy()
    logits, states = call(ours, batch, output_hidden_states=True)
    assert np.abs(logits.asnumpy() - plain).max() <= 1e-6  # the last layer is another product when it is for [CLS] only
    reference = theirs(**tensors, output_hidden_states=True)
    assert len(states) == len(reference.hidden_states) == 3
    for state, expected in zip(states, reference.hidden_states, strict=True):
        assert state.shape == (3, 6, 32)
        real = batch["attention_mask"][..., None]
        assert np.abs(state.asnumpy() - expected.detach().numpy() * real).max() <= LOGITS  # 0 at padding
    noise = np.random.default_rng(1).standard_normal((3, 6, 32)).astype(np.float32)
    words = theirs.bert.embeddings.word_embeddings(tensors.pop("input_ids"))
    expected = theirs(inputs_embeds=words + torch.from_numpy(noise), **tensors).logits.detach().numpy()
    perturbed = call(ours, batch, perturbation=Tensor(noise)).asnumpy()
    assert np.abs(perturbed - expected).max() <= LOGITS
    assert np.abs(perturbed - plain).max() > 1e-2
    np.testing.assert_array_equal(call(ours, batch, perturbation=Tensor(0 * noise)).asnumpy(), plain)


class _ByPerturbation(nn.Cell):
    """The gradient of the loss by the perturbation, which adversarial training climbs."""

    def __init__(self, model):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, perturbation, input_ids, attention_mask, token_type_ids, labels):
        return ops.cross_entropy(self.model(input_ids, attention_mask, token_type_ids, perturbation), labels)


def test_the_gradient_by_the_perturbation(tiny):
    theirs, ours = tiny
    batch = random_batch(ours.config, 3, 6)
    tensors = {name: torch.from_numpy(value).long() for name, value in batch.items()}
    embedded = theirs.bert.embeddings.word_embeddings(tensors.pop("input_ids")).detach().requires_grad_()
    theirs(inputs_embeds=embedded, **tensors).loss.backward()
    inputs = (Tensor(np.zeros((3, 6, 32), np.float32)), *(Tensor(batch[name]) for name in (*INPUTS, "labels")))
    gradient = ops.GradOperation()(_ByPerturbation(ours))(*inputs).asnumpy()
    expected = embedded.grad.numpy()
    assert np.abs(gradient - expected).max() <= GRADIENTS * np.abs(expected).max()


def test_masks_with_holes_front_padding_and_an_empty_row(tiny):
    """Against Hugging Face row by row; a row of nothing but padding has no meaning, and must not touch the others."""
    theirs, ours = tiny
    batch = random_batch(ours.config, 5, 7)
    rng = np.random.default_rng(5)
    batch["input_ids"] = rng.integers(1, ours.config.vocab_size, (5, 7)).astype(np.int32)
    batch["attention_mask"] = (rng.random((5, 7)) < 0.6).astype(np.int32)
    batch["attention_mask"][0, :3] = 0
    batch["attention_mask"][1:4, 0] = 1
    backward = Backward(ours)
    assert_same(backward, theirs, batch)
    loss, logits, gradients = backward.run(batch)
    empty = {name: np.concatenate([value[:1], value]) for name, value in batch.items()}
    empty["attention_mask"][0] = 0
    loss_with, logits_with, gradients_with = backward.run(empty)
    assert np.isfinite(logits_with).all() and np.abs(logits_with[1:] - logits).max() <= 1e-6
    alone = {name: value[:1] for name, value in empty.items()}
    loss_alone, logits_alone, gradients_alone = backward.run(alone)
    assert np.abs(logits_alone - logits_with[:1]).max() <= 1e-6
    assert 6 * loss_with == pytest.approx(5 * loss + loss_alone, rel=1e-5)
    for name, gradient in gradients_with.items():
        expected = (5 * gradients[name] + gradients_alone[name]) / 6
        if not name.endswith("self.key.bias"):  # rounding, see assert_same
            assert np.abs(gradient - expected).max() <= GRADIENTS * np.abs(expected).max(), name
    assert len(backward.compile_cache) == 1


def test_the_gradient_by_the_perturbation_is_0_at_padding(tiny):
    _, ours = tiny
    batch = random_batch(ours.config, 3, 6)
    inputs = (Tensor(np.ones((3, 6, 32), np.float32)), *(Tensor(batch[name]) for name in (*INPUTS, "labels")))
    gradient = ops.GradOperation()(_ByPerturbation(ours))(*inputs).asnumpy()
    real = batch["attention_mask"] != 0
    assert (gradient[~real] == 0).all() and (np.abs(gradient[real]).max(axis=1) > 0).all()


def test_pynative_mode_gives_the_same_logits_and_gradients(tiny):
    theirs, ours = tiny
    batch = random_batch(ours.config, 3, 6)
    graph = call(ours, batch).asnumpy()
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        eager = call(ours, batch).asnumpy()
        assert_same(Backward(ours), theirs, batch)
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)
    assert np.abs(eager - graph).max() <= 1e-6


def test_dropout_only_in_training(tiny):
    _, ours = tiny
    batch = random_batch(ours.config, 3, 6)
    plain = call(ours, batch).asnumpy()
    np.testing.assert_array_equal(call(ours, batch).asnumpy(), plain)
    ours.set_train()
    try:
        first, second = call(ours, batch).asnumpy(), call(ours, batch).asnumpy()
    finally:
        ours.set_train(False)
    assert np.abs(first - second).max() > 1e-4 and np.abs(first - plain).max() > 1e-4


@pytest.mark.parametrize("file_format", ["safetensors", "ckpt"])
def test_saved_and_loaded_again_every_bit_is_the_same(tiny, tmp_path, file_format):
    _, ours = tiny
    ours.save_pretrained(tmp_path / "saved", file_format)
    back = BertForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert bits(back.state()) == bits(ours.state())
    assert back.config == ours.config and back.config.id2label == {0: "no", 1: "yes", 2: "maybe"}
    assert (
        load_tokenizer(tmp_path / "saved")("abc")["input_ids"]
        == load_tokenizer(ours.tokenizer_folder)("abc")["input_ids"]
    )


def test_number_and_names_of_classes(tiny_folder):
    named = BertForSequenceClassification.from_pretrained(tiny_folder, label_names=["a", "b"])
    assert named.config.id2label == {0: "a", 1: "b"} and named.classifier.weight.shape == (2, 32)
    again, other = (BertForSequenceClassification.from_pretrained(tiny_folder, num_labels=2, seed=s) for s in (0, 1))
    np.testing.assert_array_equal(again.classifier.weight.asnumpy(), named.classifier.weight.asnumpy())
    assert (other.classifier.weight.asnumpy() != named.classifier.weight.asnumpy()).any()
    kept = BertForSequenceClassification.from_pretrained(tiny_folder, label_names=["x", "y", "z"])
    assert kept.classifier.weight.shape == (3, 32)
    stored = BertForSequenceClassification.from_pretrained(tiny_folder)
    np.testing.assert_array_equal(kept.classifier.weight.asnumpy(), stored.classifier.weight.asnumpy())


def test_new_models_are_drawn_as_bert_draws_them():
    model = BertForSequenceClassification(
        BertConfig(vocab_size=500, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    )
    for name, parameter in model.parameters_and_names():
        values = parameter.asnumpy()
        if name.endswith((".bias", ".beta")):
            assert (values == 0).all(), name
        elif name.endswith(".gamma"):
            assert (values == 1).all(), name
        elif values.size > 1000:
            assert 0.018 < values.std() < 0.022 and abs(values.mean()) < 0.003, name


class TestConfig:
    def test_defaults_are_bert_base_of_transformers(self):
        theirs = transformers.BertConfig().to_dict()
        for name, value in BertConfig().to_dict().items():
            if name not in ("architectures", "id2label", "label2id"):
                assert theirs.get(name) == value, name
        assert BertConfig().num_labels == 2

    def test_round_trip_through_a_file(self, tmp_path):
        config = BertConfig(
            vocab_size=77,
            hidden_size=24,
            num_attention_heads=3,
            classifier_dropout=0.3,
            id2label={0: "sad", 1: "glad", 2: "mad"},
        )
        (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
        assert BertConfig.from_file(tmp_path) == BertConfig.from_file(tmp_path / "config.json") == config
        theirs = transformers.AutoConfig.from_pretrained(tmp_path)
        assert isinstance(theirs, transformers.BertConfig) and theirs.id2label == config.id2label
        assert theirs.classifier_dropout == 0.3 and theirs.num_labels == 3

    def test_a_file_that_transformers_wrote(self, tiny_folder):
        config = BertConfig.from_file(tiny_folder)
        assert (config.hidden_size, config.num_attention_heads, config.intermediate_size) == (32, 4, 48)
        assert config.id2label == {0: "no", 1: "yes", 2: "maybe"} and config.layer_norm_eps == 1e-12

    @pytest.mark.parametrize(
        "wrong, said",
        [
            ({"hidden_act": "gelu_new"}, "'gelu_new'"),
            ({"hidden_act": "relu"}, "'relu'"),
            ({"hidden_size": 30, "num_attention_heads": 4}, "hidden_size 30"),
            ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
            ({"vocab_size": "many"}, "vocab_size is 'many'"),
            ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob is 1.5"),
            ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
            ({"model_type": "roberta"}, "'roberta'"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path, wrong, said):
        (tmp_path / "config.json").write_text(json.dumps(BertConfig().to_dict() | wrong))
        with pytest.raises(UserError, match=said):
            BertConfig.from_file(tmp_path)

    def test_no_file(self, tmp_path):
        with pytest.raises(UserError, match=r"config\.json is missing"):
            BertConfig.from_file(tmp_path)
