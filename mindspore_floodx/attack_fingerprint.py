"""What a result depends on, as hashes: two runs with equal ones give equal results."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from .files import sha256_of

_MODEL_FILES = (".safetensors", ".ckpt", ".bin", ".json", ".txt")


def sha256_of_content(content: Any) -> str:
    """Returns the SHA-256 of JSON-ready `content`; the order of keys plays no role."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sha256_of_model(folder: str | os.PathLike) -> str:
    """Returns a SHA-256 over the names and contents of a model folder's weights, configuration and tokenizer."""
    files = sorted(path for path in Path(folder).iterdir() if path.is_file() and path.suffix in _MODEL_FILES)
    return sha256_of_content([(path.name, sha256_of(path)) for path in files])
