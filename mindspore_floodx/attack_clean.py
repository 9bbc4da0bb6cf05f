"""Logits and accuracy of the attacked model on the whole evaluation set: one pass for a model, then kept on disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from .attack_metrics import share_interval
from .data import TextSplit
from .errors import UserError
from .files import replacing, sha256_of, write_json
from .untrusted import read_json


def clean_results(
    victim: Any, split: TextSplit, folder: Path, fingerprint: str, name: str = "clean", progress: bool = False
) -> tuple[dict[str, Any], np.ndarray]:
    """Returns what is known of the model without an attack, and its logits, float32 [len(split), labels].

    Both are read from ``<name>.json`` and ``<name>_logits.npy`` of `folder` where an earlier attack on the same model
    left them, and written there otherwise.

    Args:
        victim: called with a list of texts or pairs, it returns logits as a tensor.
        fingerprint: equal exactly if model and data are.

    Returns:
        ``clean_accuracy``, a fraction of all examples, ``clean_accuracy_interval`` (see
        `attack_metrics.share_interval`), ``num_examples`` and ``seconds``; and the logits.
    """
    path, logits_path = folder / f"{name}.json", folder / f"{name}_logits.npy"
    if known := _known(path, logits_path, fingerprint, len(split)):
        return known
    started = time.perf_counter()
    logits = predict_logits(victim, inputs_of(split), progress=progress)
    seconds = time.perf_counter() - started
    correct = int((logits.argmax(axis=1) == split.labels).sum())
    with replacing(logits_path) as temporary:
        np.save(temporary, logits)
    clean = {
        "fingerprint": fingerprint,
        "clean_accuracy": correct / len(split),
        "clean_accuracy_interval": share_interval(correct, len(split)),
        "num_examples": len(split),
        "seconds": round(seconds, 3),
        "logits_sha256": sha256_of(logits_path),
    }
    write_json(path, clean)
    return clean, logits


def _known(path: Path, logits_path: Path, fingerprint: str, count: int) -> tuple[dict[str, Any], np.ndarray] | None:
    """What an earlier attack left, or None: where there is nothing, or it is damaged, all is measured anew."""
    try:
        known = read_json(path)
        if known["fingerprint"] != fingerprint or known["logits_sha256"] != sha256_of(logits_path):
            return None
        logits = np.array(np.load(logits_path, mmap_mode="r", allow_pickle=False))  # mapped, a shape cannot lie
        low, high = known["clean_accuracy_interval"]
        whole = 0 <= low <= known["clean_accuracy"] <= high <= 1 and known["num_examples"] == count
        fits = logits.ndim == 2 and len(logits) == count and logits.dtype == np.float32
        return (known, logits) if whole and fits and known["seconds"] >= 0 else None
    except (UserError, OSError, ValueError, KeyError, TypeError, OverflowError):
        return None


def inputs_of(split: TextSplit) -> list[Any]:
    """Returns the texts of a split, or its pairs of texts, as a victim takes them."""
    return split.texts if split.pairs is None else list(zip(split.texts, split.pairs, strict=True))


def predict_logits(victim: Any, inputs: Sequence[Any], batch_size: int = 64, progress: bool = False) -> np.ndarray:
    """Returns the victim's logits in the order of the inputs, float32; inputs of like length share a batch."""
    length = [len(text) if isinstance(text, str) else len(text[0]) + len(text[1]) for text in inputs]
    order = np.argsort(length, kind="stable")[::-1]  # longest first: a batch that does not fit in memory fails at once
    rows = []
    starts = range(0, len(order), batch_size)
    for start in tqdm(starts, desc="clean accuracy", unit="batch", disable=not progress):
        rows.append(victim([inputs[i] for i in order[start : start + batch_size]]).numpy())
        victim.forget()
    logits = np.empty((len(order), rows[0].shape[1]), np.float32)
    logits[order] = np.concatenate(rows)
    return logits
