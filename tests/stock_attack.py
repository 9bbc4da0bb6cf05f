"""TextAttack 0.3.11 as it comes: its own recipes, model wrapper and Attacker, with nothing replaced but the resources.

The tests and benchmarks/attack.py compare ours with this.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from unittest import mock

import torch

from mindspore_floodx.attack_library import no_nltk_downloads, textattack
from mindspore_floodx.attack_standin import NeighbourLists
from mindspore_floodx.attack_swaps import HomoglyphSwap
from mindspore_floodx.pretrained import find_model

RECIPES = textattack.attack_recipes
CLASSES = {"textfooler": "TextFoolerJin2019", "textbugger": "TextBuggerLi2018", "bertattack": "BERTAttackLi2020"}


class StockEncoder(textattack.constraints.semantics.sentence_encoders.SentenceEncoder):
    """The stand-in encoder without any saving: every sentence every time, in TextAttack's order."""

    def __init__(self, threshold=0.8, large=False, metric="angular", **kwargs):
        super().__init__(threshold=threshold, metric=metric, **kwargs)
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(find_model("minilm"))
        self.bert = AutoModel.from_pretrained(find_model("minilm")).eval()
        self.encoded = 0

    def encode(self, sentences):
        self.encoded += len(sentences)
        rows = []
        with torch.no_grad():
            for start in range(0, len(sentences), 32):
                part = sentences[start : start + 32]
                batch = self.tokenizer(part, padding=True, max_length=256, truncation=True, return_tensors="pt")
                hidden = self.bert(**batch)[0]
                for vectors, mask in zip(hidden, batch["attention_mask"], strict=True):
                    rows.append(vectors[mask.bool()].mean(dim=0))
        return torch.stack(rows)


def stock_attack(recipe, folder, lists, masked_lm=None, max_candidates=8):
    """The recipe on TextAttack's own model wrapper, only the resources replaced.

    `lists` maps a word to near words; `masked_lm` is a folder, for BERT-Attack, with `max_candidates` as its K.
    """
    from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

    victim = textattack.models.wrappers.HuggingFaceModelWrapper(
        AutoModelForSequenceClassification.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    )
    module = __import__(recipe.__module__, fromlist=["_"])
    embedding = textattack.shared.WordEmbedding
    swap = textattack.transformations.WordSwapMaskedLM

    def masked_lm_swap(method, **_):
        model, tokenizer = AutoModelForMaskedLM.from_pretrained(masked_lm), AutoTokenizer.from_pretrained(masked_lm)
        return swap(method, model, tokenizer, max_candidates=max_candidates)

    with (
        no_nltk_downloads(),
        mock.patch.object(embedding, "counterfitted_GLOVE_embedding", staticmethod(lambda: NeighbourLists(lists))),
        mock.patch.object(module, "UniversalSentenceEncoder", StockEncoder, create=True),
        mock.patch.object(module, "WordSwapHomoglyphSwap", HomoglyphSwap, create=True),
        mock.patch.object(module, "WordSwapMaskedLM", masked_lm_swap, create=True),
    ):
        return recipe.build(victim)


def with_attacker(attack, inputs, labels):
    """Attacks through TextAttack's Attacker."""
    columns = list(inputs[0]) if isinstance(inputs[0], OrderedDict) else ["text"]
    rows = [(tuple(texts.values()) if isinstance(texts, OrderedDict) else texts) for texts in inputs]
    dataset = textattack.datasets.Dataset(list(zip(rows, labels, strict=True)), input_columns=columns)
    settings = textattack.AttackArgs(num_examples=len(rows), silent=True, disable_stdout=True)
    return list(textattack.Attacker(attack, dataset, settings).attack_dataset())


def essence(results):
    return [
        (type(result).__name__, result.perturbed_result.attacked_text.tokenizer_input, result.num_queries)
        for result in results
    ]


def as_pairs(pairs):
    """Pairs of texts in the form in which attacks take them, with the column names of this project."""
    return [OrderedDict([("text", first), ("text_pair", second)]) for first, second in pairs]


def write_masked_lm(folder: Path) -> Path:
    """Writes the MiniLM encoder with an untrained head, its output tied to the word embeddings, as a masked LM."""
    from transformers import AutoModel, AutoTokenizer, BertForMaskedLM

    torch.manual_seed(0)
    encoder = AutoModel.from_pretrained(find_model("minilm"))
    model = BertForMaskedLM(encoder.config)
    model.bert.load_state_dict(encoder.state_dict(), strict=False)  # all but the pooler, which a masked LM has not
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(find_model("minilm")).save_pretrained(folder)
    return folder
