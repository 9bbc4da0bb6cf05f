"""A stand-in for BERT's masked language model: a head trained on top of the MiniLM encoder, on text the user gives.

The encoder that comes with the package makes sentence vectors; its token states have moved away from what a masked
language model needs. So all its layers are trained along with the head, whose decoder is the word embeddings.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from .attack_fingerprint import sha256_of_content, sha256_of_model
from .errors import UserError
from .files import replacing_folder, write_json
from .model_config import read_model_config
from .pretrained import find_model
from .standin_masking import Masker, cut, equal_shares, make_batches, pad
from .standin_settings import MaskedLMSettings, check_settings
from .standin_text import divide, read_sources

RECORD = "standin_mlm.json"
NOTE = "stand-in masked language model: attack figures obtained with it compare models with each other, not with papers"
MEASURED_SHARE = 0.15  # of the held-out words, all of them hidden behind [MASK]
_WARMUP_SHARE = 0.06
_HEAD_RATE = 3  # the head starts from random weights, so it learns faster than the encoder by this factor
_PACKAGES = ("torch", "transformers", "tokenizers", "numpy")


def train_standin_mlm(
    output_dir: str | os.PathLike,
    datasets: Sequence[str] = (),
    files: Sequence[str | os.PathLike] = (),
    *,
    data_dir: str | os.PathLike | None = None,
    text_column: str = "text",
    encoder: str | os.PathLike = "minilm",
    settings: MaskedLMSettings | None = None,
    threads: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Trains a masked language model and writes it as a Hugging Face folder, which appears only when it is whole.

    Args:
        output_dir: the new folder: BertForMaskedLM, tokenizer, and `RECORD` with the returned figures.
        datasets, files, data_dir, text_column: the text, see `standin_text.read_sources`. All sources get an equal
            share of `settings.tokens`, as far as their text goes.
        encoder: ``minilm`` or a folder with another BERT.
        threads: CPU threads; by default all cores.
        progress: whether a progress bar is shown (on stderr).

    Returns:
        ``before`` and ``after``: ``top1``, ``top5`` (shares of hidden held-out tokens guessed) and ``perplexity``, for
        each source and for all; settings, sources, fingerprints, versions and seconds.

    Raises:
        UserError: a wrong setting, no text, or an output folder that is not empty, before anything is trained.
    """
    settings = settings or MaskedLMSettings()
    check_settings(settings, threads)
    demand_new_folder(output_dir)
    folder = find_model(encoder)
    config = _read_config(folder, settings)
    divisions = divide(read_sources(datasets, data_dir, files, text_column), settings.held_out_words, settings.seed)

    started = time.perf_counter()
    torch.set_num_threads(threads or os.cpu_count() or 1)
    tokenizer, model = _build(folder, config, settings.seed)
    training = [cut(tokenizer, each.training, settings.max_length, settings.tokens) for each in divisions]
    held_out = {each.name: cut(tokenizer, each.held_out, settings.max_length) for each in divisions}
    if empty := [each.name for each, pieces in zip(divisions, training, strict=True) if not pieces]:
        raise UserError(f"{empty[0]} has no text that the tokenizer of {folder} knows; give other text")
    shares = equal_shares([sum(map(len, pieces)) for pieces in training], settings.tokens)
    training = [_first(pieces, share) for pieces, share in zip(training, shares, strict=True)]
    pieces = [piece for source in training for piece in source]
    counts = np.bincount([id for piece in pieces for id in piece[1:-1]], minlength=config.vocab_size)
    _start_with_frequencies(model, counts)
    seen = np.flatnonzero(counts)
    before = measure(model, tokenizer, held_out, settings)
    seconds, losses = _train(model, tokenizer, pieces, seen, settings, progress)
    record = {
        "note": NOTE,
        "before": before,
        "after": measure(model, tokenizer, held_out, settings),
        "training_loss": losses,
        "settings": asdict(settings),
        "encoder": str(encoder) if str(encoder) == "minilm" else folder.name,
        "encoder_sha256": sha256_of_model(folder),
        "sources": [
            {
                "name": each.name,
                "training_texts": len(each.training),
                "training_tokens": sum(map(len, pieces)),
                "held_out_texts": len(each.held_out),
                "held_out_tokens": sum(map(len, held_out[each.name])),
                "left_out_for_shared_words": each.left_out,
            }
            for each, pieces in zip(divisions, training, strict=True)
        ],
        "data_fingerprint": sha256_of_content([[each.name, each.training, each.held_out] for each in divisions]),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "threads": torch.get_num_threads(),
        "seconds_training": round(seconds, 1),
        "seconds": round(time.perf_counter() - started, 1),
    }
    with replacing_folder(output_dir) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_json(temporary / RECORD, record)
    return record


def demand_new_folder(output_dir: str | os.PathLike) -> None:
    """Refuses an output folder that has something in it or could not be made, without making anything.

    Raises:
        UserError: see above.
    """
    folder = Path(output_dir)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; choose a new folder with --output-dir")
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UserError(f"{folder} cannot be made because {above} is no writable folder; choose another --output-dir")


def masked_logits(model: Any, input_ids: torch.Tensor, padding: int, chosen: torch.Tensor) -> torch.Tensor:
    """Logits of the chosen positions alone, [positions, vocabulary]; the vocabulary is a large part of all work.

    Args:
        model: a BertForMaskedLM.
        input_ids: int64 [batch, tokens], filled up with the id `padding`.
        chosen: bool [batch, tokens].
    """
    states = model.bert(input_ids, (input_ids != padding).long()).last_hidden_state
    return model.cls(states[chosen])


def measure(
    model: Any, tokenizer: Any, held_out: dict[str, list[list[int]]], settings: MaskedLMSettings
) -> dict[str, dict[str, float]]:
    """Guesses held-out tokens that are hidden behind [MASK]: whole words, the same ones for every model.

    Returns:
        For each source and for ``all``: ``top1`` and ``top5``, the shares of tokens that are the first guess or among
        the first five, ``perplexity``, and ``masked_tokens``, their number.
    """
    masker = Masker(tokenizer, np.arange(len(tokenizer)), MEASURED_SHARE)
    was_training = model.training
    model.eval()
    found: dict[str, torch.Tensor] = {}
    for name, pieces in held_out.items():
        rng = np.random.default_rng(settings.seed)
        parts = []
        for batch in make_batches(pieces, settings.batch_tokens, rng):
            ids = pad(batch, tokenizer.pad_token_id)
            hidden, chosen = (torch.from_numpy(array) for array in masker(ids, rng))
            targets = torch.from_numpy(ids)[chosen]
            with torch.inference_mode():
                logits = masked_logits(model, hidden, tokenizer.pad_token_id, chosen)
                better = (logits > logits.gather(1, targets[:, None])).sum(dim=1)
                losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
            parts.append(torch.stack([losses.double(), (better < 1).double(), (better < 5).double()]))
        found[name] = torch.cat(parts, dim=1)
    model.train(was_training)
    found["all"] = torch.cat(list(found.values()), dim=1)
    figures = {}
    for name, values in found.items():
        loss, top1, top5 = values.mean(dim=1).tolist()
        figures[name] = {
            "top1": round(top1, 4),
            "top5": round(top5, 4),
            "perplexity": round(math.exp(loss), 2),
            "masked_tokens": values.shape[1],
        }
    return figures


def _read_config(folder: Path, settings: MaskedLMSettings) -> Any:
    from transformers import AutoConfig

    kind = read_model_config(folder / "config.json").get("model_type")
    if kind != "bert":
        raise UserError(f"{folder} is a model of type {kind!r}, and the masked language model is built on BERT only")
    # One pass over the text or hardly more: nothing to guard against with dropout.
    config = AutoConfig.from_pretrained(
        folder, local_files_only=True, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    if settings.max_length > config.max_position_embeddings:
        raise UserError(
            f"max_length is {settings.max_length}, and {folder} takes {config.max_position_embeddings} tokens at most"
        )
    return config


def _build(folder: Path, config: Any, seed: int) -> tuple[Any, Any]:
    """Returns the tokenizer, and the encoder with a new head that shares its decoder with the word embeddings."""
    from transformers import AutoTokenizer, BertForMaskedLM, BertModel
    from transformers.utils import logging

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = BertForMaskedLM(config)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it would warn of weights that have no place here, such as the pooler's
    try:
        encoder = BertModel.from_pretrained(folder, local_files_only=True, add_pooling_layer=False)
    finally:
        logging.set_verbosity(verbosity)
    model.bert.load_state_dict(encoder.state_dict())
    return tokenizer, model


def _first(pieces: list[list[int]], tokens: int) -> list[list[int]]:
    """The first pieces, until they have so many tokens."""
    ends = np.cumsum([len(piece) for piece in pieces])
    return pieces[: int(np.searchsorted(ends, tokens)) + 1]


def _start_with_frequencies(model: Any, counts: np.ndarray) -> None:
    """Sets the decoder's bias to the logarithm of the tokens' frequencies, so that nothing is spent on learning them.

    Args:
        counts: how often each token of the vocabulary is in the text.
    """
    smoothed = counts + 0.05
    with torch.no_grad():
        model.cls.predictions.bias.copy_(torch.from_numpy(np.log(smoothed / smoothed.sum())))


def _train(
    model: Any,
    tokenizer: Any,
    pieces: list[list[int]],
    seen: np.ndarray,
    settings: MaskedLMSettings,
    progress: bool,
) -> tuple[float, list[float]]:
    """Trains the model and returns the seconds and ten means of the loss over equal parts of the training."""
    rng = np.random.default_rng(settings.seed)
    batches: list[list[list[int]]] = []
    planned = 0
    while planned < settings.tokens:
        for batch in make_batches(pieces, settings.batch_tokens, rng):
            batches.append(batch)
            planned += sum(map(len, batch))
            if planned >= settings.tokens:
                break
    masker = Masker(tokenizer, seen, settings.chosen_share, settings.masked_share, settings.random_share)
    optimizer, schedule = _optimizer(model, settings, len(batches))
    losses = []
    started = time.perf_counter()
    model.train()
    with tqdm(total=planned, unit="tok", unit_scale=True, desc="masked LM", disable=not progress) as bar:
        for batch in batches:
            ids = pad(batch, tokenizer.pad_token_id)
            hidden, chosen = (torch.from_numpy(array) for array in masker(ids, rng))
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
                logits = masked_logits(model, hidden, tokenizer.pad_token_id, chosen)
            loss = torch.nn.functional.cross_entropy(logits.float(), torch.from_numpy(ids)[chosen])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            bar.set_postfix_str(f"loss {np.mean(losses[-50:]):.3f}", refresh=False)
            bar.update(sum(map(len, batch)))
    parts = [part for part in np.array_split(losses, 10) if len(part)]
    return time.perf_counter() - started, [round(float(part.mean()), 4) for part in parts]


def _optimizer(model: Any, settings: MaskedLMSettings, steps: int) -> tuple[Any, Any]:
    """AdamW with the head faster than the encoder, no decay of biases and LayerNorms, linear warm-up and decay."""
    groups = []
    for module, rate in ((model.bert, settings.learning_rate), (model.cls, settings.learning_rate * _HEAD_RATE)):
        # The decoder is the word embeddings, and belongs to the encoder here.
        own = [value for value in module.parameters() if value is not model.bert.embeddings.word_embeddings.weight]
        own += [model.bert.embeddings.word_embeddings.weight] if module is model.bert else []
        groups += [
            {"params": [value for value in own if value.ndim > 1], "lr": rate, "weight_decay": settings.weight_decay},
            {"params": [value for value in own if value.ndim == 1], "lr": rate, "weight_decay": 0.0},
        ]
    optimizer = torch.optim.AdamW(groups, eps=1e-6)
    warmup = max(1, round(_WARMUP_SHARE * steps))
    falling = max(1, steps - warmup)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / falling)
    )
    return optimizer, schedule
