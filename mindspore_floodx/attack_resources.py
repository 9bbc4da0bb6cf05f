"""What each published recipe needs besides code, where that lies, and what is missing on this machine.

Nothing is fetched here or during an attack: a missing resource stops the command before anything runs.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

VECTOR_FILES = ("paragram.npy", "wordlist.pickle", "nn.npy", "mse_dist.p", "cos_sim.p")
# tensorflow_hub names a cached module by the SHA-1 of its address (universal-sentence-encoder/3).
SENTENCE_ENCODER_FOLDER = "42480c3c7f42bf87d36d4c58fc4374b08dae2909"
MASKED_LM = "bert-base-uncased"
# A short list of English function words in NLTK's folder layout. NLTK's own list, where installed, is found first.
BUILT_IN_NLTK_DATA = Path(__file__).parent / "nltk_data"


def cache_folder() -> Path:
    """Returns TextAttack's cache folder: ``$TA_CACHE_DIR``, or ``~/.cache/textattack``."""
    return Path(os.environ.get("TA_CACHE_DIR") or "~/.cache/textattack").expanduser()


@dataclass(frozen=True)
class Resource:
    """One thing a recipe reads: `missing()` says in a few words what is absent and where to put it, or is None."""

    title: str
    missing: Callable[[], str | None]


def _nltk_folder(place: str, title: str, package: str) -> Resource:
    def missing() -> str | None:
        if nltk_has(place):
            return None
        return f"{title} ($NLTK_DATA/{place}; on a machine with a network: python -m nltk.downloader {package})"

    return Resource(title, missing)


def nltk_has(place: str) -> bool:
    """Says whether NLTK's own data (not our built-in stop words) has the folder or archive `place`."""
    import nltk

    folders = [path for path in nltk.data.path if path != str(BUILT_IN_NLTK_DATA)]
    for name in (place, f"{place}.zip"):
        try:
            nltk.data.find(name, folders)
        except LookupError:
            continue
        return True
    return False


def _vectors_missing() -> str | None:
    folder = cache_folder() / "word_embeddings" / "paragramcf"
    absent = [name for name in VECTOR_FILES if not (folder / name).is_file()]
    return f"the counter-fitted word vectors ({', '.join(absent)} in {folder})" if absent else None


def _sentence_encoder_missing() -> str | None:
    absent = [name for name in ("tensorflow", "tensorflow_hub") if importlib.util.find_spec(name) is None]
    if absent:
        return f"the package {' and '.join(absent)}, which runs the Universal Sentence Encoder"
    # TextAttack points tensorflow_hub at its own cache folder where that is set.
    cache = os.environ.get("TFHUB_CACHE_DIR") or os.environ.get("TA_CACHE_DIR")
    if cache is None:
        return "the Universal Sentence Encoder (set TFHUB_CACHE_DIR to the folder that holds it)"
    folder = Path(cache) / SENTENCE_ENCODER_FOLDER
    return None if (folder / "saved_model.pb").is_file() else f"the Universal Sentence Encoder ({folder})"


STOPWORDS = _nltk_folder("corpora/stopwords", "NLTK's English stop words", "stopwords")
TAGGER = _nltk_folder(
    "taggers/averaged_perceptron_tagger_eng", "NLTK's part-of-speech tagger", "averaged_perceptron_tagger_eng"
)
TAGSET = _nltk_folder("taggers/universal_tagset", "NLTK's universal tag set", "universal_tagset")
WORDNET = _nltk_folder("corpora/wordnet", "NLTK's WordNet", "wordnet")
WORDNET_LANGUAGES = _nltk_folder("corpora/omw-1.4", "NLTK's Open Multilingual Wordnet", "omw-1.4")
VECTORS = Resource("counter-fitted word vectors", _vectors_missing)
SENTENCE_ENCODER = Resource("Universal Sentence Encoder", _sentence_encoder_missing)


def masked_lm(folder: str | os.PathLike | None) -> Resource:
    """The masked language model of BERT-Attack: a local folder, or bert-base-uncased in the Hugging Face cache."""

    def missing() -> str | None:
        if folder is not None:
            return None if (Path(folder) / "config.json").is_file() else f"a masked language model in {folder}"
        from huggingface_hub import try_to_load_from_cache

        names = ("config.json", "tokenizer_config.json")
        has_text = all(isinstance(try_to_load_from_cache(MASKED_LM, name), str) for name in names)
        has_weights = any(
            isinstance(try_to_load_from_cache(MASKED_LM, name), str)
            for name in ("model.safetensors", "pytorch_model.bin")
        )
        if has_text and has_weights:
            return None
        return f"the masked language model {MASKED_LM} (in the Hugging Face cache, or a folder given by --masked-lm)"

    return Resource("masked language model", missing)


def list_missing(resources: tuple[Resource, ...]) -> list[str]:
    """Returns one line for each resource that is absent."""
    return [line for resource in resources if (line := resource.missing()) is not None]
