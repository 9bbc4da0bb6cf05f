"""What each published recipe needs besides code, where that lies, and what is missing on this machine.

Nothing is fetched here or during an attack: a missing resource stops the command before anything runs.
`python run/resources.py` fetches and imports (`resource_fetch`, `resource_import`).
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .resource_manifest import cache_folder, damaged

VECTOR_FILES = ("paragram.npy", "wordlist.pickle", "nn.npy", "mse_dist.p", "cos_sim.p")
# tensorflow_hub names a cached module by the SHA-1 of its address.
SENTENCE_ENCODER_ADDRESS = "https://tfhub.dev/google/universal-sentence-encoder/3"
SENTENCE_ENCODER_FOLDER = "42480c3c7f42bf87d36d4c58fc4374b08dae2909"
MASKED_LM = "bert-base-uncased"
# A short list of English function words in NLTK's folder layout. NLTK's own list, where installed, is found first.
BUILT_IN_NLTK_DATA = Path(__file__).parent / "nltk_data"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # a Hugging Face model has one of them


@dataclass(frozen=True)
class Resource(ABC):
    """One thing that a recipe reads."""

    title: str

    @property
    def label(self) -> str:
        """The title, and the name where there are several of the kind."""
        return self.title

    @abstractmethod
    def place(self) -> Path | None:
        """Where it lies, or where it has to be put if it is absent; None for a Python package."""

    @abstractmethod
    def lacks(self) -> str | None:
        """Says in a few words what is absent and where it belongs, or None if all is there."""

    def missing(self) -> str | None:
        """The same, or says that what is there is not what was fetched or imported."""
        if (line := self.lacks()) is not None:
            return line
        place = self.place()
        if place is not None and (changed := damaged(place)):
            return f"{self.label} ({place} is damaged: {changed[0]})"
        return None


@dataclass(frozen=True)
class NltkData(Resource):
    """A package of NLTK's data: ``kind/package`` below a folder of NLTK's search path."""

    kind: str
    package: str

    @property
    def relative(self) -> str:
        return f"{self.kind}/{self.package}"

    def place(self) -> Path:
        return nltk_place(self.relative) or nltk_folder() / self.relative

    def lacks(self) -> str | None:
        return None if nltk_has(self.relative) else f"{self.title} ($NLTK_DATA/{self.relative})"


@dataclass(frozen=True)
class CachedFiles(Resource):
    """A folder, or a single file if `files` is empty, that TextAttack keeps in its cache and loads from its server."""

    address: str  # in the cache, and on the server
    files: tuple[str, ...] = ()

    def place(self) -> Path:
        return cache_folder() / self.address

    def lacks(self) -> str | None:
        place = self.place()
        absent = [name for name in self.files if not (place / name).is_file()]
        if not self.files:
            return None if place.is_file() else f"{self.title} ({place})"
        return f"{self.title} ({', '.join(absent)} in {place})" if absent else None


@dataclass(frozen=True)
class HubModel(Resource):
    """A model of the Hugging Face hub, in the hub's cache; those of flair in the cache that flair keeps."""

    repository: str
    files: tuple[str, ...] = ("config.json", "tokenizer_config.json")  # besides the weights
    weights: tuple[str, ...] = WEIGHTS
    of_flair: bool = False

    @property
    def label(self) -> str:
        return f"{self.title} {self.repository}"

    @property
    def folder_name(self) -> str:
        """What the hub's cache calls the model's folder."""
        return f"models--{self.repository.replace('/', '--')}"

    def home(self) -> Path:
        """The model's folder in the cache."""
        from huggingface_hub import constants

        return Path(self.cache() or constants.HF_HUB_CACHE) / self.folder_name

    def cache(self) -> str | None:
        """The folder of the hub's cache; None for the usual one."""
        if not self.of_flair:
            return None
        root = Path(os.environ.get("FLAIR_CACHE_ROOT") or "~/.flair").expanduser()
        return str(root / "models" / self.repository.rpartition("/")[2])

    def locate(self, name: str) -> Path | None:
        """Where a file of the model lies in the cache."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.repository, name, cache_dir=self.cache())
        return Path(found) if isinstance(found, str) else None

    def place(self) -> Path:
        for name in (*self.files, *self.weights):
            if (found := self.locate(name)) is not None:
                return found.parent
        return self.home()

    def lacks(self) -> str | None:
        has_files = all(self.locate(name) is not None for name in self.files)
        if has_files and any(self.locate(name) is not None for name in self.weights):
            return None
        cache = "flair's cache" if self.of_flair else "the Hugging Face cache"
        own = ", or a folder given by --masked-lm" if self.repository == MASKED_LM else ""
        return f"{self.label} (in {cache}{own})"


@dataclass(frozen=True)
class ModelFolder(Resource):
    """A masked language model in a folder that the user names."""

    folder: str | os.PathLike

    def place(self) -> Path:
        return Path(self.folder)

    def lacks(self) -> str | None:
        return None if (Path(self.folder) / "config.json").is_file() else f"a masked language model in {self.folder}"


@dataclass(frozen=True)
class Package(Resource):
    """Python packages that are no requirement of this project."""

    modules: tuple[str, ...]
    remedy: str

    def place(self) -> None:
        return None

    def lacks(self) -> str | None:
        absent = [name for name in self.modules if importlib.util.find_spec(name) is None]
        return f"the package {' and '.join(absent)}, {self.title} ({self.remedy})" if absent else None

    def versions(self) -> dict[str, str]:
        """The installed versions, by distribution."""
        found = {}
        for name in self.modules:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[name] = importlib.metadata.version(name)
        return found


@dataclass(frozen=True)
class SentenceEncoder(Resource):
    """The Universal Sentence Encoder in the cache of tensorflow_hub, and the packages that run it."""

    def place(self) -> Path:
        return tfhub_cache() / SENTENCE_ENCODER_FOLDER

    def lacks_files(self) -> str | None:
        names = ("saved_model.pb", "variables/variables.index")
        absent = [name for name in names if not (self.place() / name).is_file()]
        return f"the Universal Sentence Encoder ($TFHUB_CACHE_DIR, here {self.place()})" if absent else None

    def lacks(self) -> str | None:
        lines = [line for line in (HUB_PACKAGES.lacks(), self.lacks_files()) if line is not None]
        return " and ".join(lines) or None


def tfhub_cache() -> Path:
    """Returns where tensorflow_hub looks: ``$TFHUB_CACHE_DIR``, or TextAttack's own cache folder."""
    return Path(os.environ.get("TFHUB_CACHE_DIR") or cache_folder()).expanduser()


def nltk_folder() -> Path:
    """Returns the folder that gets new NLTK data: the first of ``$NLTK_DATA``, or ``~/nltk_data``."""
    given = [path for path in os.environ.get("NLTK_DATA", "").split(os.pathsep) if path]
    return Path(given[0] if given else "~/nltk_data").expanduser()


def nltk_place(relative: str) -> Path | None:
    """Returns the folder or archive `relative` of NLTK's own data (not our built-in stop words), or None."""
    import nltk

    folders = [path for path in nltk.data.path if path != str(BUILT_IN_NLTK_DATA)]
    for folder in folders:
        for name in (relative, f"{relative}.zip"):
            if (Path(folder) / name).exists():
                return Path(folder) / name
    return None


def nltk_has(relative: str) -> bool:
    """Says whether NLTK's own data has the folder or archive `relative`."""
    return nltk_place(relative) is not None


STOPWORDS = NltkData("NLTK's English stop words", "corpora", "stopwords")
TAGGER = NltkData("NLTK's part-of-speech tagger", "taggers", "averaged_perceptron_tagger_eng")
TAGSET = NltkData("NLTK's universal tag set", "taggers", "universal_tagset")
WORDNET = NltkData("NLTK's WordNet", "corpora", "wordnet")
WORDNET_LANGUAGES = NltkData("NLTK's Open Multilingual Wordnet", "corpora", "omw-1.4")
VECTORS = CachedFiles("the counter-fitted word vectors", "word_embeddings/paragramcf", VECTOR_FILES)
_EXTRA = "pip install 'mindspore-floodx[use]'"
HUB_PACKAGES = Package(
    "which runs the Universal Sentence Encoder", ("tensorflow", "tensorflow_hub", "pkg_resources"), _EXTRA
)
SENTENCE_ENCODER = SentenceEncoder("the Universal Sentence Encoder")
BERT = HubModel("the masked language model", MASKED_LM)
HOWNET = CachedFiles("HowNet's lists of words", "transformations/hownet/word_candidates_sense.pkl")
FLAIR_TAGGER = HubModel(
    "flair's part-of-speech tagger", "flair/upos-english-fast", (), ("pytorch_model.bin",), of_flair=True
)
FLAIR_NAMES = HubModel("flair's tagger of names", "flair/ner-english", (), ("pytorch_model.bin",), of_flair=True)
FLAIR_FRENCH_NAMES = HubModel(
    "flair's French tagger of names", "flair/ner-french", (), ("pytorch_model.bin",), of_flair=True
)
DISTILROBERTA = HubModel("the masked language model", "distilroberta-base")
GPT2 = HubModel("the language model", "gpt2", ("config.json", "vocab.json", "merges.txt"))
SENTENCE_BERT = HubModel("the sentence encoder", "sentence-transformers/stsb-distilbert-base", ("modules.json",))
GOOGLE_LM = CachedFiles(
    "the Google language model of Alzantot et al.",
    "constraints/semantics/language-models/alzantot-goog-lm",
    ("graph-2016-09-10-gpu.pbtxt", "vocab-2016-09-10.txt"),
)
LEARNING_TO_WRITE = CachedFiles(
    "the language model of Holtzman et al.",
    "constraints/grammaticality/language-models/learning-to-write",
    ("word_map.th7", "word_freq.th7", "lm-state-dict.pt"),
)
TENSORFLOW = Package("which runs the Google language model", ("tensorflow",), _EXTRA)
TORCHFILE = Package("which reads the vocabulary of the language model", ("torchfile",), "pip install torchfile")


def masked_lm(folder: str | os.PathLike | None) -> Resource:
    """The masked language model of BERT-Attack and BAE: a local folder, or bert-base-uncased in the hub's cache."""
    return BERT if folder is None else ModelFolder("masked language model", folder)


def list_missing(resources: Iterable[Resource]) -> list[str]:
    """Returns one line for each resource that is absent or damaged."""
    return [line for resource in resources if (line := resource.missing()) is not None]
