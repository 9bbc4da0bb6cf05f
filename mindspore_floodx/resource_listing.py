"""Which resources attacks need, which of them are here, and an archive of those for another machine."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import attack_resources as needs
from .attack_catalogue import RECIPES, SYNONYM, canonical_name, demand_known
from .errors import UserError
from .files import replacing
from .resource_manifest import damaged, files_of, size_of


@dataclass(frozen=True)
class Row:
    """A resource and the attacks that need it with ``--resources official``."""

    resource: needs.Resource
    attacks: tuple[str, ...]


def needed_by(attacks: Iterable[str] = ()) -> list[Row]:
    """Returns the resources of the named attacks, of all attacks if none is named, each with those that need it.

    Raises:
        UserError: an unknown attack, or one that is not offered.
    """
    names = [canonical_name(name) for name in attacks]
    for name in names:
        demand_known(name)
    users: dict[needs.Resource, list[str]] = {}
    for name in names or RECIPES:
        if name != SYNONYM:
            recipe = RECIPES[name]
            for resource in (*recipe.official, *((needs.BERT,) if recipe.has_masked_lm else ())):
                users.setdefault(resource, []).append(name)
            if needs.SENTENCE_ENCODER in recipe.official:
                users.setdefault(needs.HUB_PACKAGES, []).append(name)
    return [Row(resource, tuple(dict.fromkeys(names))) for resource, names in users.items()]


def state(resource: needs.Resource, verify: bool = False) -> str:
    """Returns present, missing or damaged; the latter by size, with `verify` by content too."""
    place = resource.place()
    line = resource.lacks_files() if isinstance(resource, needs.SentenceEncoder) else resource.lacks()
    if line is not None:
        return "missing"
    return "damaged" if place is not None and damaged(place, hashes=verify) else "present"


def describe(row: Row, verify: bool = False) -> dict[str, str]:
    """Returns a line of the listing: resource, state, size, attacks, place."""
    place = row.resource.place()
    shown = state(row.resource, verify)
    name = row.resource.label.removeprefix("the ")
    if isinstance(row.resource, needs.Package):
        name, where = " and ".join(row.resource.modules), row.resource.remedy
    else:
        where = str(place)
    size = "" if place is None or shown == "missing" else _size(size_of(place))
    return {"resource": name, "state": shown, "size": size, "needed by": " ".join(row.attacks), "place": where}


def pack(target: str | os.PathLike, rows: Iterable[Row]) -> list[str]:
    """Writes those of the resources that are here into a zip archive that `import` takes on another machine.

    Returns:
        The titles of what it holds.

    Raises:
        UserError: none of them is here, one is damaged, or the archive cannot be written.
    """
    from .resource_import import can_be_imported

    present = [row.resource for row in rows if can_be_imported(row.resource) and state(row.resource) != "missing"]
    if not present:
        raise UserError("none of the resources is here; `python run/resources.py fetch` gets them")
    for resource in present:
        if state(resource, verify=True) == "damaged":
            raise UserError(f"{resource.label} is damaged; fetch it again before it is packed")
    with replacing(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for resource in present:
            place = resource.place()
            assert place is not None
            for name, path in files_of(place).items():  # links of the hub's cache become files
                archive.write(path, name if place.is_file() else f"{_folder(resource, place)}/{name}")
    return [resource.label for resource in present]


def _folder(resource: needs.Resource, place: Path) -> str:
    if isinstance(resource, needs.HubModel):
        return f"{resource.folder_name}/snapshots/{place.name}"
    return resource.relative if isinstance(resource, needs.NltkData) else place.name


def _size(count: int) -> str:
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
