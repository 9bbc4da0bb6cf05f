"""Which tensor is which: names of BERT's tensors in PyTorch (Hugging Face), in MindSpore and in older files.

PyTorch's current names are the common language: every file's names are translated to them, and from them to
MindSpore's. The two differ in the two cells that MindSpore names in its own way, nn.LayerNorm (gamma, beta) and
nn.Embedding (embedding_table).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mindspore_floodx.model_config import labels_of

# Added to names by what held the model when it was saved (torch's DataParallel, MindSpore's loss and training cells).
_WRAPPERS = ("module.", "network.", "_backbone.", "backbone.")

# Tensors that a classifier does not need, with the reason that the report gives.
_SKIPPED_PREFIXES = {
    "cls.": "head of pretraining",
    "qa_outputs.": "head of another task",
    "moments.": "state of the optimiser",
    "moment1.": "state of the optimiser",
    "moment2.": "state of the optimiser",
    "adam_m.": "state of the optimiser",
    "adam_v.": "state of the optimiser",
    "exp_avg.": "state of the optimiser",
    "exp_avg_sq.": "state of the optimiser",
    "accum.": "state of the optimiser",
}
_SKIPPED_NAMES = {
    "bert.embeddings.position_ids": "buffer of fixed positions",
    "bert.embeddings.token_type_ids": "buffer of fixed token types",
    **dict.fromkeys(
        ("global_step", "learning_rate", "beta1_power", "beta2_power", "weight_decay"), "state of the optimiser"
    ),
    **dict.fromkeys(
        (
            "epoch_num",
            "step_num",
            "batch_num",
            "loss_scale",
            "scale_sense",
            "current_iterator_step",
            "last_overflow_iterator_step",
        ),
        "state of the training loop",
    ),
}


def mindspore_name(pytorch_name: str) -> str:
    """Returns MindSpore's name of a tensor that has `pytorch_name` in a current Hugging Face file."""
    owner, _, kind = pytorch_name.rpartition(".")
    if owner.endswith(".LayerNorm"):
        return f"{owner}.{ {'weight': 'gamma', 'bias': 'beta'}[kind] }"
    if owner.endswith("_embeddings"):
        return f"{owner}.embedding_table"
    return pytorch_name


def pytorch_name(name: str) -> str:
    """Returns the current Hugging Face name for a current, an older or a MindSpore name; unknown names come back."""
    while wrapper := next((prefix for prefix in _WRAPPERS if name.startswith(prefix)), None):
        name = name[len(wrapper) :]
    if name.startswith(("embeddings.", "encoder.", "pooler.")):  # files of the bare encoder (AutoModel)
        name = f"bert.{name}"
    owner, _, kind = name.rpartition(".")
    if owner.endswith("LayerNorm") and kind in ("gamma", "beta"):
        return f"{owner}.{'weight' if kind == 'gamma' else 'bias'}"
    if owner.endswith("_embeddings") and kind == "embedding_table":
        return f"{owner}.weight"
    return name


def legacy_kind(name: str) -> str:
    """Says in a few words how a file's `name` differs from the current one of its framework."""
    kinds = []
    if name.startswith(_WRAPPERS):
        kinds.append("a wrapper's prefix")
    if not any(name.startswith(("bert.", "classifier.")) or f".{part}." in name for part in ("bert", "classifier")):
        kinds.append("no `bert.` prefix")
    if name.endswith((".gamma", ".beta")):
        kinds.append("gamma and beta for weight and bias")
    if name.endswith(".embedding_table"):
        kinds.append("embedding_table for weight")
    return ", ".join(kinds) or "the other framework's names"


def translate(names: Iterable[str]) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Sorts the names of a file.

    Returns:
        the file's name of each tensor by its PyTorch name; the reason for each name that is not needed; and a sentence
        for each pair of names that mean the same tensor.
    """
    found: dict[str, str] = {}
    skipped: dict[str, str] = {}
    clashes = []
    for name in names:
        standard = pytorch_name(name)
        if reason := _reason_to_skip(name) or _reason_to_skip(standard):
            skipped[name] = reason
        elif standard in found:
            clashes.append(f"{found[standard]} and {name} are the same tensor")
        else:
            found[standard] = name
    return found, skipped, clashes


def expected_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every tensor of the classifier that a checked config describes, by PyTorch name."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]

    def dense(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

    def norm(name: str) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (hidden,), f"{name}.bias": (hidden,)}

    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "bert.embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
        "bert.embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
        **norm("bert.embeddings.LayerNorm"),
    }
    for index in range(config["num_hidden_layers"]):
        layer = f"bert.encoder.layer.{index}"
        for part in ("query", "key", "value"):
            shapes |= dense(f"{layer}.attention.self.{part}", hidden, hidden)
        shapes |= dense(f"{layer}.attention.output.dense", hidden, hidden) | norm(f"{layer}.attention.output.LayerNorm")
        shapes |= dense(f"{layer}.intermediate.dense", inner, hidden)
        shapes |= dense(f"{layer}.output.dense", hidden, inner) | norm(f"{layer}.output.LayerNorm")
    shapes |= dense("bert.pooler.dense", hidden, hidden)
    return shapes | dense("classifier", len(labels_of(config)), hidden)


def _reason_to_skip(name: str) -> str | None:
    if name in _SKIPPED_NAMES:
        return _SKIPPED_NAMES[name]
    return next((reason for prefix, reason in _SKIPPED_PREFIXES.items() if name.startswith(prefix)), None)
