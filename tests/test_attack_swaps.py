from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from mindspore_floodx.attack_library import textattack
from mindspore_floodx.attack_swaps import HomoglyphSwap, MaskedLMSwap
from mindspore_floodx.pretrained import find_model


def test_homoglyphs_without_the_file_that_the_wheel_lacks():
    words = HomoglyphSwap()._get_replacement_words("cat")
    assert len(words) == 3
    assert all(word != "cat" and len(word) == 3 for word in words)
    assert HomoglyphSwap().deterministic


@pytest.mark.parametrize(
    "sentence",
    [
        "an unbelievably gloomy tale of floodwaters and cats",
        "an odd tale\u2603unbelievably",  # the tokenizer makes one unknown token of what are two words to TextAttack
    ],
)
@pytest.mark.parametrize("candidates", [1, 3])
def test_lazy_product_gives_the_words_of_the_full_one(candidates, sentence):
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(find_model("minilm"))
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=32, **size)).eval()
    options = {"method": "bert-attack", "max_candidates": candidates, "max_length": 32}
    text = textattack.shared.AttackedText(sentence)
    stock = textattack.transformations.WordSwapMaskedLM(masked_language_model=model, tokenizer=tokenizer, **options)
    lazy = MaskedLMSwap(masked_language_model=model, tokenizer=tokenizer, **options)
    found = [[t.text for t in swap(text)] for swap in (stock, lazy)]
    assert found[0] == found[1]
    assert len(found[0]) > 0
    pieces = [len(tokenizer.tokenize(word)) for word in text.words]
    assert max(pieces) >= 3  # words of several sub-words were among them
