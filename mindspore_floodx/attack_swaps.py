"""Word swaps of TextAttack 0.3.11, mended so that the recipes which use them can be built and run, and repeated."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from .attack_library import textattack
from .attack_savings import Savings


class HomoglyphSwap(textattack.transformations.WordSwapHomoglyphSwap):
    """TextBugger's swap of look-alike letters, without the data file that the 0.3.11 wheel lacks.

    Only another recipe reads that file's content; the table this swap uses is set before the file is opened.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(*args, **kwargs)
        except FileNotFoundError:
            if not self.homos:
                raise


class MaskedLMSwap(textattack.transformations.WordSwapMaskedLM):
    """BERT-Attack's swap with its masked LM not padded and its product of sub-word candidates taken lazily.

    TextAttack builds all K^n combinations of a word of n sub-words, sorts them by perplexity, drops the sorted list
    and keeps the first K in product order. Taking the first K at once gives the same words.
    """

    def __init__(self, *args: Any, savings: Savings = Savings(), **kwargs: Any) -> None:  # noqa: B008 - frozen
        super().__init__(*args, **kwargs)
        self._savings = savings

    def _encode_text(self, text: str) -> Any:
        if not self._savings.padding:
            return super()._encode_text(text)
        encoded = self._lm_tokenizer(text, max_length=self.max_length, truncation=True, return_tensors="pt")
        return encoded.to(textattack.shared.utils.device)

    def _bert_attack_replacement_words(
        self, current_text: Any, index: int, id_preds: torch.Tensor, masked_lm_logits: torch.Tensor
    ) -> list[str]:
        if not self._savings.products:
            return super()._bert_attack_replacement_words(current_text, index, id_preds, masked_lm_logits)
        tokens = self._lm_tokenizer.encode(current_text.words[index], add_special_tokens=False)
        masked = self._encode_text(current_text.replace_word_at_index(index, self._lm_tokenizer.mask_token).text)
        ids = masked["input_ids"][0].tolist()
        if self._lm_tokenizer.mask_token_id not in ids:  # cut off at the model's maximum length
            return []
        first = ids.index(self._lm_tokenizer.mask_token_id)
        last = min(first + len(tokens), self.max_length)
        if last - first < 2:
            return super()._bert_attack_replacement_words(current_text, index, id_preds, masked_lm_logits)
        if last > len(id_preds):  # the word has fewer tokens in its text; TextAttack goes on into the padding
            id_preds = self._top_ids_with_padding(current_text.text)
        words = (
            "".join(self._lm_tokenizer.convert_ids_to_tokens(combination)).replace("##", "")
            for combination in itertools.product(*id_preds[first:last].tolist())
        )
        one_word = (word for word in words if textattack.shared.utils.is_one_word(word))
        return list(itertools.islice(one_word, self.max_candidates))

    @torch.no_grad()
    def _top_ids_with_padding(self, text: str) -> torch.Tensor:
        logits = self._language_model(**super()._encode_text(text))[0][0]
        return torch.topk(logits, self.max_candidates)[1].cpu()


_UNORDERED = ("WordSwapWordNet", "WordSwapInflections")  # by name: importing the second needs a further package


def in_fixed_order(transformation: Any) -> None:
    """Sorts the words of swaps, already built, that TextAttack takes from a set.

    The order of a set of strings is another one in each process; among equally good words the first one is taken.
    """
    for part in getattr(transformation, "transformations", [transformation]):
        kind = type(part)
        if kind.__name__ in _UNORDERED:
            part.__class__ = type(kind.__name__, (_Sorted, kind), {})


class _Sorted:
    def _get_replacement_words(self, *args: Any, **kwargs: Any) -> list[str]:
        return sorted(super()._get_replacement_words(*args, **kwargs))  # type: ignore[misc]
