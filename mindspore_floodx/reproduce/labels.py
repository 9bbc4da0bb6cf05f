"""What data sets, methods, attacks and encoders are called in tables and figures, and in which order they stand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

BASELINE = "finetune"
FLOODING = "flooding"
FLOODINGX = "floodingx"
ADVERSARIAL = {"pgd": "PGD", "freelb": "FreeLB", "tavat": "TAVAT", "infobert": "InfoBERT"}
PAPER = {BASELINE: "fine-tuning", **ADVERSARIAL, FLOODING: "flooding", FLOODINGX: "Flooding-X"}
BEYOND = {"iflood": "iFlood", "softad": "SoftAD", "adaflood": "AdaFlood", "selective": "selective flooding"}
METHODS = PAPER | BEYOND
DATASETS = {"sst2": "SST-2", "mrpc": "MRPC", "qnli": "QNLI", "imdb": "IMDB", "ag_news": "AG News"}
ATTACKS = {"textfooler": "TextFooler", "bertattack": "BERT-Attack", "textbugger": "TextBugger"}
KINDS = {"raw": "raw", "calibrated": "calibrated"}
RESOURCES = {
    "official": "official resources",
    "standin": "stand-in resources",
    "built-in": "the project's own attack",
}
_MODELS = {"minilm": "MiniLM"}


def label(names: Mapping[str, str], name: str) -> str:
    """Returns what `name` is called; one that is not in `names` keeps its name."""
    return names.get(name, name)


def ordered(names: Mapping[str, str], present: Iterable[str]) -> list[str]:
    """Returns the distinct `present` names in the order of `names`, then the others by alphabet."""
    found = set(present)
    return [name for name in names if name in found] + sorted(found - set(names))


def encoder(model: str) -> str:
    """Returns the name of an encoder; of a folder, its last part."""
    return _MODELS.get(model, Path(model).name)
