from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_victim import PAIRS, SENTENCES, export_tiny
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from mindspore_floodx.attack_clean import predict_logits
from mindspore_floodx.attack_victim import Victim
from mindspore_floodx.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return export_tiny(tmp_path_factory.mktemp("victim"))


@pytest.mark.parametrize("inputs", [SENTENCES, PAIRS])
def test_logits_equal_the_model_padded_to_its_maximum(folder, inputs):
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(list(inputs), padding="max_length", truncation=True, max_length=64, return_tensors="pt")
    if inputs is PAIRS:
        assert batch["token_type_ids"].max() == 1
    with torch.no_grad():
        expected = model.eval()(**batch).logits
    torch.testing.assert_close(Victim(folder)(list(inputs)), expected, rtol=0, atol=1e-4)


def test_maximum_length_is_the_smallest_of_the_limits(folder):
    assert Victim(folder).max_tokens == 64
    assert Victim(folder, max_length=512).max_tokens == 64
    short = Victim(folder, max_length=6)
    assert short.max_tokens == 6
    same = short(["one two three four five six", "one two three four and something else"])
    assert torch.equal(same[0], same[1])


def test_predictions_come_back_in_order_whatever_the_batches(folder):
    victim = Victim(folder)
    one_by_one = np.array([victim([text]).argmax(1).item() for text in SENTENCES])
    assert len(set(one_by_one)) == 2
    for batch_size in (1, 3, 64):
        assert np.array_equal(predict_logits(victim, SENTENCES, batch_size).argmax(1), one_by_one)
    assert predict_logits(victim, PAIRS).shape == (4, 2)


def test_a_folder_that_holds_no_classifier_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=str(tmp_path)):
        Victim(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_refused(folder):
    with pytest.raises(UserError, match="GPU"):
        Victim(folder, device="cuda")
