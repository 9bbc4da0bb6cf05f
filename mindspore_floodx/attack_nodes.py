"""A job for machines that share no disk: its files travel with it, and all else that decides results is compared.

Sent are the model's folder and the files that the command names. What is found by its place on each machine, such as
the packages and the official resources, must be there and the same.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import attack_resources as needs
from .attack_catalogue import RECIPES, SYNONYM
from .attack_fingerprint import sha256_of_content
from .attack_job import AttackJob, Example
from .attack_recipes import OFFICIAL, AttackSettings
from .attack_victims import MINDSPORE
from .errors import UserError
from .files import sha256_of
from .resource_manifest import files_of

PACKAGES = ("textattack", "torch", "transformers", "tokenizers", "nltk", "numpy")
MISSING = "missing"
_DIGITS = 64  # of a fingerprint; the others are versions
_GROWING = ("mse_dist.p", "cos_sim.p")  # TextAttack's own notes of distances, different after every attack
Files = dict[str, bytes]


def read_files(place: Path) -> Files:
    """Returns the contents of a file, or of the files of a folder without those of its folders, by name."""
    paths = [place] if place.is_file() else sorted(path for path in place.iterdir() if path.is_file())
    try:
        return {path.name: path.read_bytes() for path in paths if not path.name.startswith(".")}
    except OSError as error:
        raise UserError(f"cannot read {place}: {error.strerror}") from error


@dataclasses.dataclass(frozen=True)
class SentJob:
    """An `AttackJob` on its way to other machines."""

    job: AttackJob
    same: dict[str, str]  # what `must_be_same` says where it comes from
    # The contents of the model's folder ("model"), the neighbour lists and the masked language model, each called for
    # only where it is not known yet.
    files: dict[str, Callable[[], Files]]

    def prepare(self, kept: dict[Any, Any]) -> Callable[[Example], dict[str, Any]]:
        """As `AttackJob.prepare` does it, after a comparison of this machine with the one that the job comes from.

        Raises:
            UserError: something on this machine is missing or another.
        """
        demand_same(self.same, must_be_same(self.job))
        with tempfile.TemporaryDirectory(prefix="floodx-") as scratch:
            places: dict[str, Any] = {name: self._unpack(name, Path(scratch)) for name in self.files if name != "model"}
            job = dataclasses.replace(self.job, settings=dataclasses.replace(self.job.settings, **places))
            if self.job.victim not in kept:
                kept.clear()
                kept[self.job.victim] = dataclasses.replace(
                    self.job.victim, folder=self._unpack("model", Path(scratch))
                ).load()
            return job.attacker(job.build(kept[self.job.victim]))

    def _unpack(self, name: str, scratch: Path) -> Path:
        folder = scratch / name
        files = self.files[name]()
        try:
            folder.mkdir()
            for each, content in files.items():
                (folder / each).write_bytes(content)
        except OSError as error:
            raise UserError(
                f"{socket.gethostname()} cannot write {folder}: {error.strerror}; make room there"
            ) from error
        return folder / next(iter(files)) if name == "neighbours" else folder


def places_of_files(job: AttackJob) -> dict[str, Path]:
    """Returns what has to be sent with a job: the names under which `SentJob` takes it, and where it lies here."""
    settings = job.settings
    recipe = RECIPES.get(settings.attack)
    found = {"model": job.victim.folder}
    if settings.neighbours is not None and (recipe is None or recipe.has_neighbours):
        found["neighbours"] = Path(settings.neighbours)
    if settings.masked_lm is not None and recipe is not None and recipe.has_masked_lm:
        found["masked_lm"] = Path(settings.masked_lm)
    return found


def must_be_same(job: AttackJob) -> dict[str, str]:
    """Returns what a result depends on besides the job and its files: versions, and fingerprints of what is installed.

    Ray itself sees to it that Python is the same.
    """
    packages = (*PACKAGES, "mindspore") if job.victim.kind == MINDSPORE else PACKAGES
    found = {name: _version(name) for name in packages}
    found["this project's code"] = _fingerprint(Path(__file__).parent, "*.py")
    for resource in _resources(job.settings):
        place = resource.place()
        if isinstance(resource, needs.SentenceEncoder | needs.Package):
            package = needs.HUB_PACKAGES if isinstance(resource, needs.SentenceEncoder) else resource
            found |= {name: _version(name) for name in package.modules if name != "pkg_resources"}
        if place is not None:
            found[resource.label] = MISSING if resource.lacks() else _fingerprint(place)
    return found


def demand_same(there: dict[str, str], here: dict[str, str]) -> None:
    """Compares this machine with the one that a job comes from.

    Raises:
        UserError: names this machine, the first difference and the remedy.
    """
    machine = socket.gethostname()
    for name, wanted in there.items():
        found = here[name]
        if found == wanted:
            continue
        if len(wanted) != _DIGITS:
            has = "lacks" if found == MISSING else f"has {found} of"
            raise UserError(f"the node {machine} {has} the package {name}; install {name}=={wanted} there")
        has = "lacks" if found == MISSING else "has another content of"
        raise UserError(
            f"the node {machine} {has} {name}; copy it there from the machine of the command, to where `ray start` "
            "finds it (docs/attacks.md, Several machines)"
        )


def _resources(settings: AttackSettings) -> tuple[needs.Resource, ...]:
    if settings.attack == SYNONYM:
        return ()
    recipe = RECIPES[settings.attack]
    if settings.resources == OFFICIAL:
        own = (needs.BERT,) if recipe.has_masked_lm and settings.masked_lm is None else ()
        return recipe.official + own
    stopwords = (needs.STOPWORDS,) if needs.STOPWORDS in recipe.official else ()  # else the built-in ones
    return (recipe.standin or ()) + stopwords


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return MISSING


@functools.cache  # some are of a gigabyte
def _fingerprint(place: Path, pattern: str = "*") -> str:
    files = {name: path for name, path in files_of(place).items() if path.match(pattern) and path.name not in _GROWING}
    return sha256_of_content([(name, sha256_of(path)) for name, path in files.items()])
