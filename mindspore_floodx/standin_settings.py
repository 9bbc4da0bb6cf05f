"""Settings of the training of a stand-in masked language model."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import UserError


@dataclass(frozen=True)
class MaskedLMSettings:
    """How the model is trained; shares are fractions of 1.

    Attributes:
        tokens: tokens read in training, [CLS] and [SEP] included; text is read again where there is less.
        batch_tokens: most tokens of a batch, padding included.
        max_length: longest piece of text in tokens.
        learning_rate: the encoder's highest, of AdamW; it rises from 0 and falls to 0 linearly.
        weight_decay: of AdamW, for weight matrices.
        chosen_share: share of the words that have to be guessed.
        masked_share: share of the chosen words that become [MASK].
        random_share: share of the chosen words that become random tokens; the others stay as they are.
        held_out_words: words of each source that are kept for measuring.
        bfloat16: multiply matrices in bfloat16, twice as fast on processors that have it.
        seed: of the held-out text, the order, the hidden words and the head's first weights.
    """

    tokens: int = 600_000
    batch_tokens: int = 1024
    max_length: int = 128
    learning_rate: float = 4e-4
    weight_decay: float = 0.01
    chosen_share: float = 0.2
    masked_share: float = 0.8
    random_share: float = 0.1
    held_out_words: int = 8_000
    bfloat16: bool = False
    seed: int = 0


def check_settings(settings: MaskedLMSettings, threads: int | None = None) -> None:
    """Refuses settings that make no sense.

    Raises:
        UserError: naming the setting.
    """
    for name in ("tokens", "held_out_words", "learning_rate"):
        if not getattr(settings, name) > 0:
            raise UserError(f"{name} must be above 0, not {getattr(settings, name)}")
    if settings.max_length < 8:
        raise UserError(f"max_length must be at least 8 tokens, not {settings.max_length}")
    if settings.batch_tokens < settings.max_length:
        raise UserError(
            f"batch_tokens is {settings.batch_tokens}, too few for a text of max_length = {settings.max_length} tokens"
        )
    if not 0 < settings.chosen_share < 1:
        raise UserError(f"chosen_share must lie between 0 and 1, not {settings.chosen_share}")
    if min(settings.masked_share, settings.random_share) < 0 or settings.masked_share + settings.random_share > 1:
        raise UserError("masked_share and random_share must be 0 or more and together at most 1")
    if settings.weight_decay < 0 or settings.seed < 0:
        raise UserError("weight_decay and seed must be 0 or more")
    if threads is not None and threads < 1:
        raise UserError(f"threads must be at least 1, not {threads}")
