"""The forward pass without padding gives what transformers' BERT gives, whatever the lengths and their order."""

from __future__ import annotations

import random

import pytest
import torch
from tiny_victim import export_tiny
from transformers import AutoModel, AutoModelForSequenceClassification, BertConfig, BertModel

from mindspore_floodx import attack_forward
from mindspore_floodx.attack_forward import PackedBert, can_be_packed
from mindspore_floodx.pretrained import find_model

LENGTHS = (5, 17, 5, 3, 40, 17, 64, 5, 2)


def texts_of(lengths, vocabulary=30000):
    draw = random.Random(0)
    texts = [tuple(draw.randrange(1000, vocabulary) for _ in range(length)) for length in lengths]
    texts[2] = (*texts[0][:3], *texts[2][3:])  # shares tokens at their places with another
    return [(ids, tuple(int(place > len(ids) // 2) for place in range(len(ids)))) for ids in texts]


def one_by_one(model, texts, result_of):
    with torch.inference_mode():
        outputs = [model(input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([types])) for ids, types in texts]
    return torch.cat([result_of(output) for output in outputs])


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    model = AutoModelForSequenceClassification.from_pretrained(export_tiny(tmp_path_factory.mktemp("victim"))).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):  # a new model's are zero, so that a forgotten one would not show
                weight.normal_(0, 0.5)
    return model


@pytest.mark.parametrize("tokens_at_once", [1, 60, 2048])
@pytest.mark.parametrize("onednn", [True, False])
def test_logits_equal_those_of_transformers(classifier, tokens_at_once, onednn, monkeypatch):
    monkeypatch.setattr(attack_forward, "_TOKENS_AT_ONCE", tokens_at_once)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    texts = texts_of(LENGTHS)
    expected = one_by_one(classifier, texts, lambda output: output.logits)
    torch.testing.assert_close(PackedBert(classifier).logits(texts), expected, rtol=0, atol=1e-5)


def test_means_equal_those_of_transformers():
    encoder = AutoModel.from_pretrained(find_model("minilm")).eval()
    texts = texts_of(LENGTHS)
    expected = one_by_one(encoder, texts, lambda output: output.last_hidden_state.mean(dim=1))
    torch.testing.assert_close(PackedBert(encoder).means(texts), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "changed", [{"hidden_act": "relu"}, {"position_embedding_type": "relative_key"}, {"is_decoder": True}]
)
def test_other_models_are_left_to_transformers(changed):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    assert can_be_packed(BertModel(BertConfig(**sizes)))
    assert not can_be_packed(BertModel(BertConfig(**sizes, **changed)))
    assert not can_be_packed(BertModel(BertConfig(**sizes)).half())
    assert not can_be_packed(BertModel(BertConfig(**sizes)), "cuda")
