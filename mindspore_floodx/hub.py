"""The data sets from the Hugging Face hub, or from what the `datasets` library has kept of it, without long waits."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from .errors import UserError
from .official import OFFICIAL
from .splits import TextDataset, TextSplit

TIMEOUT = (5.0, 10.0)  # seconds to connect, seconds to answer


def read_hub(name: str) -> TextDataset:
    """Downloads a data set of `official.OFFICIAL`, or takes it from the cache of the `datasets` library.

    Raises:
        UserError: the hub cannot be reached and the cache does not have it.
    """
    import datasets  # imported late: it takes seconds and most runs read local files

    known = OFFICIAL[name]
    repository, config = known.hub
    online = _reachable(repository)
    try:
        with contextlib.nullcontext() if online else _offline():
            loaded = {
                part: datasets.load_dataset(repository, config, split=part) for part in ("train", known.evaluation)
            }
    except Exception as error:  # the library raises its own, urllib3's, requests', pyarrow's and the system's errors
        layout, what = known.layouts[0], "cannot be reached"
        if online:
            what = f"could not deliver it ({str(error).partition(chr(10))[0] or type(error).__name__})"
        raise UserError(
            f"{name}: the Hugging Face hub {what}; get a network, or put the official {layout.train} and "
            f"{layout.evaluation} into a folder {known.folders[0]} and name the folder above it with --data-dir"
        ) from error
    train, evaluation = (
        _split(part, rows, known.text_columns, f"{repository} on the hub") for part, rows in loaded.items()
    )
    if name == "imdb":  # the same order as from the folder or the archive
        train, evaluation = (_by_content(split) for split in (train, evaluation))
    return TextDataset(name, train, evaluation, list(known.label_names), known.text_columns)


def _split(part: str, rows: Any, columns: tuple[str, ...], source: str) -> TextSplit:
    texts = list(rows[columns[0]])
    pairs = list(rows[columns[1]]) if len(columns) > 1 else None
    return TextSplit(part, texts, pairs, np.array(rows["label"], dtype=np.int32), f"{source}, {part}")


def _by_content(split: TextSplit) -> TextSplit:
    rows = zip(split.texts, split.labels.tolist(), strict=True)
    keys = [(hashlib.sha256(text.encode()).digest(), label) for text, label in rows]
    return split.take(sorted(range(len(split)), key=keys.__getitem__))


def _reachable(repository: str) -> bool:
    """Whether the hub has the data set for us: asked once, because the library itself retries for half a minute."""
    import requests
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        answer = requests.head(f"{constants.ENDPOINT}/api/datasets/{repository}", timeout=TIMEOUT)
    except requests.RequestException:
        return False
    return answer.ok  # a proxy that forbids the hub answers too


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Puts the two libraries into offline mode for a while: they read its environment variable only when imported."""
    import datasets.config
    from huggingface_hub import constants

    modules: tuple[Any, ...] = (datasets.config, constants)
    before = [module.HF_HUB_OFFLINE for module in modules]
    try:
        for module in modules:
            module.HF_HUB_OFFLINE = True
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value
