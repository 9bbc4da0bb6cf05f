import json

import pytest
from safetensors.numpy import load_file
from tiny_bert import save_tiny_bert

from ckpt_convert import to_mindspore
from ckpt_convert.names import expected_shapes, mindspore_name, pytorch_name, translate


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("tiny") / "pytorch")


@pytest.fixture(scope="module")
def native(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("native") / "mindspore"
    to_mindspore(tiny, folder)
    return folder


def test_names_and_shapes_are_those_of_hugging_face(tiny):
    config = json.loads((tiny / "config.json").read_text())
    shapes = {name: tensor.shape for name, tensor in load_file(tiny / "model.safetensors").items()}
    assert expected_shapes(config) == shapes
    assert all(pytorch_name(mindspore_name(name)) == name for name in shapes)
    assert len({mindspore_name(name) for name in shapes}) == len(shapes)


def test_names_are_those_of_our_model(tiny, native):
    from mindspore_floodx.bert import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(native)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.parameters_and_names()}
    config = json.loads((tiny / "config.json").read_text())
    assert shapes == {mindspore_name(name): shape for name, shape in expected_shapes(config).items()}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.weight"),
        ("bert.encoder.layer.1.output.LayerNorm.beta", "bert.encoder.layer.1.output.LayerNorm.bias"),
        ("module.bert.pooler.dense.bias", "bert.pooler.dense.bias"),
        ("network._backbone.classifier.weight", "classifier.weight"),
        ("bert.embeddings.word_embeddings.embedding_table", "bert.embeddings.word_embeddings.weight"),
        ("pooler.dense.weight", "bert.pooler.dense.weight"),
        ("something.else", "something.else"),
    ],
)
def test_older_names(old, new):
    assert pytorch_name(old) == new


def test_what_is_skipped_and_what_clashes():
    found, skipped, clashes = translate(
        [
            "embeddings.position_ids",
            "cls.predictions.bias",
            "moment1.bert.pooler.dense.weight",
            "global_step",
            "epoch_num",
            "bert.embeddings.LayerNorm.gamma",
            "embeddings.LayerNorm.weight",
            "stranger",
        ]
    )
    assert skipped == {
        "embeddings.position_ids": "buffer of fixed positions",
        "cls.predictions.bias": "head of pretraining",
        "moment1.bert.pooler.dense.weight": "state of the optimiser",
        "global_step": "state of the optimiser",
        "epoch_num": "state of the training loop",
    }
    assert clashes == ["bert.embeddings.LayerNorm.gamma and embeddings.LayerNorm.weight are the same tensor"]
    assert found["stranger"] == "stranger"
