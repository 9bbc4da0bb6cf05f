"""Brings resources from a folder or an archive to where the recipes look for them.

What a resource is, is told by its names and its structure; what does not fit is refused before anything is put into
place. No code is run that a file may contain.
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from . import archives, counter_fitted
from . import attack_resources as needs
from .errors import UserError
from .files import replacing, replacing_folder, sha256_of
from .resource_manifest import record, scratch_folder
from .safe_pickle import load_plain

TEXT_NAME = "counter-fitted-vectors.txt"
# As the hub publishes them with the files.
KNOWN_SHA256 = {
    ("bert-base-uncased", "pytorch_model.bin"): "097417381d6c7230bd9e3557456d726de6e83245ec8b24f529f60198a67b203a",
    ("bert-base-uncased", "model.safetensors"): "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3",
    ("bert-base-uncased", "vocab.txt"): "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
_MODEL_SUFFIXES = (".json", ".txt", ".safetensors", ".bin", ".model")
Progress = Callable[[int], None]


def import_resources(
    source: str | os.PathLike,
    wanted: Iterable[needs.Resource],
    *,
    note: str | None = None,
    max_bytes: int = archives.MAX_BYTES,
    progress: Progress | None = None,
    trusted: bool = False,
) -> list[tuple[needs.Resource, Path]]:
    """Checks what `source` holds of the `wanted` resources and puts all of it into place.

    Args:
        source: a folder, a zip or tar archive, or a single file such as counter-fitted-vectors.txt.
        note: what the manifest says about where it came from; by default the source's name.
        max_bytes: limit for what is unpacked.
        progress: told how many word vectors have got their neighbours, where those are computed.
        trusted: whether the source is the publisher's own server, so that files are taken which cannot be checked.

    Returns:
        The resources, with their places.

    Raises:
        UserError: an unsafe or unreadable source, a resource that is not what its name says, or none found.
    """
    wanted = list(wanted)
    note = note or f"imported from {Path(source).name}"
    with scratch_folder() as name:
        tree = Path(name) / "tree"
        inside = tree / _stem(Path(source))  # a folder's own name may tell what it holds
        inside.mkdir(parents=True)
        archives.stage(source, inside, max_bytes)
        found = []
        for resource in wanted:
            if (trusted or can_be_imported(resource)) and (piece := _find(resource, tree)) is not None:
                found.append((resource, _checked(resource, piece, Path(name), max_bytes, progress)))
        if not found:
            titles = ", ".join(resource.label for resource in wanted)
            raise UserError(f"{source} holds none of: {titles}; `python run/resources.py list` names the files")
        return [(resource, _put(resource, piece, note)) for resource, piece in found]


def can_be_imported(resource: needs.Resource) -> bool:
    """Says whether a resource's files can be checked; those that run code when they are loaded cannot."""
    return not (isinstance(resource, needs.Package) or resource in _WITH_CODE)


_WITH_CODE = (needs.FLAIR_TAGGER, needs.FLAIR_NAMES, needs.FLAIR_FRENCH_NAMES, needs.LEARNING_TO_WRITE)


def _stem(source: Path) -> str:
    return re.sub(r"\.(zip|tgz|tar(\.\w+)?)$", "", source.absolute().name) or "source"


def _folders(tree: Path) -> Iterator[Path]:
    yield tree
    yield from sorted(path for path in tree.rglob("*") if path.is_dir())


def _file(tree: Path, name: str) -> Path | None:
    return next((path for path in sorted(tree.rglob(name)) if path.is_file()), None)


def _find(resource: needs.Resource, tree: Path) -> Path | None:
    """Returns the file or folder of the staged tree that holds the resource."""
    if resource == needs.VECTORS:
        arrays = (folder for folder in _folders(tree) if (folder / "paragram.npy").is_file())
        return next(arrays, None) or _file(tree, TEXT_NAME)
    if isinstance(resource, needs.NltkData):
        has_files = (
            folder
            for folder in _folders(tree)
            if folder.name == resource.package and any(path.is_file() for path in folder.iterdir())
        )
        return next(has_files, None) or _file(tree, f"{resource.package}.zip")
    if isinstance(resource, needs.SentenceEncoder):
        return next((folder for folder in _folders(tree) if (folder / "saved_model.pb").is_file()), None)
    if isinstance(resource, needs.HubModel):
        return next((folder for folder in _folders(tree) if _is_model(folder, tree, resource)), None)
    if isinstance(resource, needs.CachedFiles):
        if not resource.files:
            return _file(tree, Path(resource.address).name)
        has_all = (folder for folder in _folders(tree) if all((folder / name).is_file() for name in resource.files))
        return next(has_all, None)
    return None


def _is_model(folder: Path, tree: Path, resource: needs.HubModel) -> bool:
    """A folder of the model's name, or a snapshot in the layout of the hub's cache, with the model's weights."""
    names = {resource.repository.rpartition("/")[2], resource.folder_name}
    parts = folder.relative_to(tree).parts
    return bool(names & set(parts)) and any((folder / name).is_file() for name in resource.weights)


def _checked(resource: needs.Resource, piece: Path, scratch: Path, max_bytes: int, progress: Progress | None) -> Path:
    """Returns the resource in the form in which it is put into place, after its checks."""
    if resource == needs.VECTORS:
        if piece.is_file():
            made = scratch / "paragramcf"
            made.mkdir()
            counter_fitted.build(piece, made, counter_fitted.WORDS, progress)
            piece = made
        counter_fitted.check(piece, counter_fitted.WORDS)
        counter_fitted.write_empty_caches(piece)
        _keep_only(piece, needs.VECTOR_FILES)
    elif isinstance(resource, needs.NltkData):
        if piece.is_file():  # as NLTK's server has it: an archive with one folder
            if not zipfile.is_zipfile(piece):
                raise UserError(f"{piece.name} is not a zip archive")
            opened = scratch / f"{resource.package}-opened"
            opened.mkdir()
            archives.stage(piece, opened, max_bytes)
            piece = opened / resource.package
        _check_nltk(resource, piece)
    elif isinstance(resource, needs.SentenceEncoder):
        for name in ("variables/variables.index", "variables/variables.data-00000-of-00001"):
            if not (piece / name).is_file():
                raise UserError(f"the Universal Sentence Encoder lacks {name} beside saved_model.pb")
    elif isinstance(resource, needs.HubModel):
        _check_model(resource, piece)
    elif resource == needs.HOWNET:
        _check_hownet(piece)
    return piece


def _keep_only(folder: Path, names: Iterable[str]) -> None:
    for path in folder.iterdir():
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


_NLTK_FILES = {
    "stopwords": ("english",),
    "averaged_perceptron_tagger_eng": tuple(
        f"averaged_perceptron_tagger_eng.{part}.json" for part in ("weights", "tagdict", "classes")
    ),
    "universal_tagset": ("en-ptb.map",),
    "wordnet": ("data.noun", "index.noun", "lexnames"),
}


def _check_nltk(resource: needs.NltkData, folder: Path) -> None:
    if not folder.is_dir() or not any(folder.iterdir()):
        raise UserError(f"the archive of {resource.label} does not hold a folder {resource.package}")
    absent = [name for name in _NLTK_FILES.get(resource.package, ()) if not (folder / name).is_file()]
    if absent:
        raise UserError(f"{resource.label} lacks {', '.join(absent)}")
    pickles = sorted(path.name for path in folder.rglob("*.pickle"))
    if pickles:
        raise UserError(f"{resource.label} holds the pickle {pickles[0]}, which NLTK does not read any more")


def _check_model(resource: needs.HubModel, folder: Path) -> None:
    absent = [name for name in resource.files if not (folder / name).is_file()]
    if absent:
        raise UserError(f"{resource.label} lacks {', '.join(absent)}")
    check_published(resource, folder)
    for path in [path for path in folder.rglob("*") if path.is_file() and path.suffix not in _MODEL_SUFFIXES]:
        path.unlink()  # other frameworks' weights, and programs


def check_published(resource: needs.HubModel, folder: Path) -> None:
    """Compares files with the hashes of `KNOWN_SHA256`.

    Raises:
        UserError: a file has another content than the published one.
    """
    for path in folder.iterdir():
        expected = KNOWN_SHA256.get((resource.repository, path.name))
        if expected is not None and sha256_of(path) != expected:
            raise UserError(f"{path.name} is not the published one of {resource.repository} (SHA-256 {expected})")


def _check_hownet(path: Path) -> None:
    lists = load_plain(path)
    good = isinstance(lists, dict) and all(
        isinstance(word, str) and isinstance(kinds, dict) and all(isinstance(near, list) for near in kinds.values())
        for word, kinds in lists.items()
    )
    if not good or not lists:
        raise UserError(f"{path.name} does not map words to lists of words by their part of speech")


def _put(resource: needs.Resource, piece: Path, note: str) -> Path:
    """Copies a checked resource to its place, whole or not at all, and writes down its hashes."""
    if isinstance(resource, needs.HubModel):
        place = _put_model(resource, piece)
    else:
        where = needs.nltk_folder() / resource.relative if isinstance(resource, needs.NltkData) else resource.place()
        assert where is not None  # a package is never found in an archive
        place = where
        if piece.is_dir():
            with replacing_folder(place) as folder:
                shutil.copytree(piece, folder, dirs_exist_ok=True)
        else:
            with replacing(place) as target:
                shutil.copyfile(piece, target)
    record(place, note)
    return place


def _put_model(resource: needs.HubModel, piece: Path) -> Path:
    """Puts a model into the hub's cache: a snapshot named by its content, to which the reference ``main`` points."""
    from .attack_fingerprint import sha256_of_model

    given = re.fullmatch(r"[0-9a-f]{40}", piece.name)  # the snapshot's own name, where it came from such a cache
    revision = piece.name if given else sha256_of_model(piece)[:40]
    root = resource.home()
    with replacing_folder(root / "snapshots" / revision) as folder:
        shutil.copytree(piece, folder, dirs_exist_ok=True)
    with replacing(root / "refs" / "main") as target:
        target.write_text(revision, encoding="utf-8")
    return root / "snapshots" / revision
