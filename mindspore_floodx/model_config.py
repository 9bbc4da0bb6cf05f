"""A model's config.json, checked before anything is allocated by its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import UserError, has_controls
from .untrusted import read_json, shown

# What the encoder needs to know, with the largest value that is believed. The bounds lie far above every published
# BERT; they exist so that a damaged or hostile file is refused before memory is taken.
SIZES = {
    "vocab_size": 5_000_000,
    "hidden_size": 65_536,
    "num_hidden_layers": 1_000,
    "num_attention_heads": 4_096,
    "intermediate_size": 1_000_000,
    "max_position_embeddings": 1_000_000,
    "type_vocab_size": 1_000,
}
MAX_PARAMETERS = 5_000_000_000  # BERT-large has 0.34e9; the largest BERT ever published about 4e9
MAX_LABELS = 10_000
_MAX_FILE_BYTES = 10_000_000


def read_config(path: str | Path) -> dict[str, Any]:
    """Reads and checks config.json, given its path or the folder that holds it.

    Raises:
        UserError: the file is missing, is no JSON object, or fails `check_config`.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "config.json"
    if not path.exists():
        raise UserError(f"{path} is missing: a model folder needs its config.json")
    config = read_json(path, _MAX_FILE_BYTES)
    check_config(config, path)
    return config


def read_model_config(path: Path) -> dict[str, Any]:
    """Reads the config.json of a Hugging Face classifier of any architecture.

    Raises:
        UserError: it is no JSON object, or its classes or sizes are not believable; see `check_sizes`.
    """
    config = read_json(path, _MAX_FILE_BYTES)
    if not isinstance(config, dict):
        raise UserError(f"{path} holds a {type(config).__name__} where a JSON object with the model's fields belongs")
    if problems := label_problems(config):
        raise UserError(f"{path}: {problems[0]}; export the model again")
    check_sizes(config, path)
    return config


def check_sizes(config: Mapping[str, Any], path: str | Path) -> None:
    """Checks those of BERT's fields that a model of any architecture has, and the number of parameters they make.

    Raises:
        UserError: names every field that is out of bounds.
    """
    given = {name: config[name] for name in SIZES if config.get(name) is not None}
    wrong = [problem for name, value in given.items() if (problem := _size_problem(name, value, SIZES[name]))]
    wrong += _value_problems(config)
    if not wrong and (count := parameter_count({**dict.fromkeys(SIZES, 1), **given, "num_labels": 1})) > MAX_PARAMETERS:
        wrong.append(f"its sizes make {count:.2g} parameters, more than {MAX_PARAMETERS:.2g}")
    if wrong:
        raise UserError(f"{path} is no usable model configuration: " + "; ".join(wrong))


def check_config(config: Any, path: str | Path) -> None:
    """Checks that `config` describes a BERT encoder of believable size; `path` is named in the message.

    Raises:
        UserError: names every field that is missing, of the wrong type, out of bounds or not supported.
    """
    if not isinstance(config, dict):
        raise UserError(f"{path} holds a {type(config).__name__} where a JSON object with the model's fields belongs")
    model_type = config.get("model_type", "bert")  # files from before 2020 have no model_type
    if model_type != "bert":
        raise UserError(f"{path} describes a model of type {shown(model_type)}, but only 'bert' is supported")
    sizes = [_size_problem(name, config.get(name), largest) for name, largest in SIZES.items()]
    wrong = [problem for problem in sizes if problem]
    wrong += _value_problems(config)
    if config.get("position_embedding_type", "absolute") != "absolute":
        wrong.append(
            f"position_embedding_type is {shown(config['position_embedding_type'])}, only 'absolute' is supported"
        )
    wrong += [
        f"{name} is true, only a plain encoder is supported"
        for name in ("is_decoder", "add_cross_attention")
        if config.get(name)
    ]
    wrong += label_problems(config)
    if not wrong and config["hidden_size"] % config["num_attention_heads"]:
        wrong.append(
            f"hidden_size {config['hidden_size']} is not a multiple of num_attention_heads "
            f"{config['num_attention_heads']}"
        )
    if not wrong and parameter_count(config) > MAX_PARAMETERS:
        wrong.append(f"its sizes make {parameter_count(config):.2g} parameters, more than {MAX_PARAMETERS:.2g}")
    if wrong:
        raise UserError(f"{path} is no usable BERT configuration: " + "; ".join(wrong))


def parameter_count(config: dict[str, Any]) -> int:
    """Returns the number of parameters of BERT with pooler and classifier that a checked `config` describes."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    embeddings = (config["vocab_size"] + config["max_position_embeddings"] + config["type_vocab_size"] + 2) * hidden
    layer = 4 * hidden * (hidden + 1) + hidden * inner + inner + inner * hidden + hidden + 4 * hidden
    pooler_and_classifier = (hidden + len(labels_of(config))) * (hidden + 1)
    return embeddings + config["num_hidden_layers"] * layer + pooler_and_classifier


def labels_of(config: dict[str, Any]) -> dict[int, str]:
    """Returns the classes' names in order: `id2label`, or LABEL_0, LABEL_1, ... (two, unless `num_labels` says)."""
    if config.get("id2label"):
        return {int(key): config["id2label"][key] for key in sorted(config["id2label"], key=int)}
    return {index: f"LABEL_{index}" for index in range(config.get("num_labels") or 2)}


def with_labels(config: dict[str, Any], num_labels: int) -> dict[str, Any]:
    """Returns a copy of `config` for `num_labels` classes; names of classes are kept when their number is the same."""
    labels = labels_of(config)
    if len(labels) != num_labels:
        labels = {index: f"LABEL_{index}" for index in range(num_labels)}
    config = {key: value for key, value in config.items() if key != "num_labels"}
    return config | {
        "id2label": {str(index): label for index, label in labels.items()},
        "label2id": {label: index for index, label in labels.items()},
    }


def _size_problem(name: str, value: Any, largest: int) -> str | None:
    if value is None:
        return f"{name} is missing"
    if isinstance(value, bool) or not isinstance(value, int):
        return f"{name} is {shown(value)}, expected a whole number"
    if not 1 <= value <= largest:
        return f"{name} is {shown(value)}, expected 1 to {largest:,}"
    return None


def _value_problems(config: Mapping[str, Any]) -> list[str]:
    bounds = {
        "hidden_dropout_prob": (0, 1),
        "attention_probs_dropout_prob": (0, 1),
        "classifier_dropout": (0, 1),
        "initializer_range": (0, 100),
        "layer_norm_eps": (0, 1),
    }
    act = config.get("hidden_act")
    wrong = [] if act is None or isinstance(act, str) else [f"hidden_act is {shown(act)}, expected a name"]
    for name, (low, high) in bounds.items():
        value = config.get(name)
        if value is None:  # absent or null: the standard value holds
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            wrong.append(f"{name} is {shown(value)}, expected a number from {low} to {high}")
    pad, words = config.get("pad_token_id"), config.get("vocab_size")
    if pad is not None and isinstance(words, int) and not (type(pad) is int and 0 <= pad < words):
        wrong.append(f"pad_token_id is {shown(pad)}, expected 0 to {words - 1}")
    return wrong


def label_problems(config: dict[str, Any]) -> list[str]:
    """Returns what is wrong with `num_labels` and `id2label`."""
    id2label, num_labels = config.get("id2label"), config.get("num_labels")
    if num_labels is not None and (problem := _size_problem("num_labels", num_labels, MAX_LABELS)):
        return [problem]
    if id2label is None:
        return []
    if not isinstance(id2label, dict) or not 1 <= len(id2label) <= MAX_LABELS:
        return [f"id2label is not an object with 1 to {MAX_LABELS:,} labels"]
    if set(id2label) != {str(index) for index in range(len(id2label))}:
        return [f'id2label does not number its {len(id2label)} labels from "0" to "{len(id2label) - 1}"']
    if not all(isinstance(label, str) and not has_controls(label) for label in id2label.values()):
        return ["id2label has a label that is not text, or has control characters"]
    return []
