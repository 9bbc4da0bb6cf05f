"""Models and tokenizers that transformers opens: only from plain files, and refused before they take memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from .encoding import check_tokenizer
from .errors import UserError
from .model_config import SIZES, check_sizes, read_model_config

_PLAIN: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}  # without the latter it would ask


def load_transformer(folder: str | os.PathLike, kind: Any, what: str) -> tuple[Any, Any]:
    """Returns the tokenizer and the model of a folder, or of a name in the hub's cache.

    No code that the folder may contain is run: neither modules of its own nor what a pickle asks for.

    Args:
        kind: a class of transformers, such as `AutoModelForSequenceClassification`.
        what: what the folder should hold, for the message.

    Raises:
        UserError: config.json has sizes that are not believable, or the folder cannot be loaded as `what`.
    """
    path = Path(folder) / "config.json"
    if path.is_file():
        read_model_config(path)
    try:
        config = AutoConfig.from_pretrained(folder, **_PLAIN)
        # once more under BERT's names, which transformers gives to the sizes of every architecture
        check_sizes({name: getattr(config, name, None) for name in SIZES}, path)
        tokenizer = AutoTokenizer.from_pretrained(folder, **_PLAIN)
        model = kind.from_pretrained(folder, config=config, **_PLAIN)
    except UserError:
        raise
    except Exception as error:  # of transformers, tokenizers, safetensors and torch, which share no base class
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{folder} cannot be loaded as {what}: {reason}") from error
    check_tokenizer(tokenizer, folder, getattr(model.config, "vocab_size", None))
    if tokenizer.pad_token_id is None:
        raise UserError(f"{folder}: the tokenizer has no padding token; name one in tokenizer_config.json")
    return tokenizer, model
