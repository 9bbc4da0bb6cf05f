"""Fetches missing resources from where their publishers keep them, through the same checks as an import.

NLTK's data by NLTK's downloader, TextAttack's files from TextAttack's server, the Universal Sentence Encoder by
tensorflow_hub, models by huggingface_hub.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import attack_resources as needs
from .errors import UserError
from .resource_import import Progress, can_be_imported, check_published, import_resources
from .resource_manifest import record, scratch_folder

TIMEOUT = (5.0, 20.0)  # seconds to connect, seconds without an answer
TEXTATTACK_SERVER = "https://textattack.s3.amazonaws.com/"


def fetch(resource: needs.Resource, progress: Progress | None = None) -> Path | None:
    """Downloads one resource, checks it, puts it into place and records its hashes.

    Returns:
        Its place.

    Raises:
        UserError: no network, the publisher does not deliver it, it is not what it should be, or it is a Python
            package, which pip installs.
    """
    if isinstance(resource, needs.Package):
        raise UserError(f"{resource.lacks() or resource.label}: a package is not fetched here; install it first")
    if isinstance(resource, needs.NltkData):
        return _fetch_nltk(resource)
    if isinstance(resource, needs.CachedFiles):
        return _fetch_from_server(resource, progress)
    if isinstance(resource, needs.SentenceEncoder):
        return _fetch_sentence_encoder(resource)
    if isinstance(resource, needs.HubModel):
        return _fetch_model(resource)
    raise UserError(f"{resource.label} is a folder of your own: {resource.missing() or resource.place()}")


def demand_network(address: str, resource: needs.Resource) -> None:
    """Refuses a fetch whose server does not answer: asked once, because the libraries try again for a long time.

    Raises:
        UserError: names the server and the way round.
    """
    import requests

    try:
        requests.head(address, timeout=TIMEOUT, allow_redirects=True)
    except requests.RequestException as error:
        raise _undelivered(resource, address, "there is no network, or it does not let one there") from error


def _undelivered(resource: needs.Resource, address: str, reason: str) -> UserError:
    return UserError(
        f"{resource.label} cannot be fetched from {urlsplit(address).netloc} ({reason}); fetch it on another machine, "
        f"pack it there with `python run/resources.py pack FILE`, and bring it here with `... import FILE`"
    )


def _fetch_nltk(resource: needs.NltkData) -> Path:
    from nltk.downloader import Downloader

    demand_network(Downloader.DEFAULT_URL, resource)
    with scratch_folder() as name:
        try:  # NLTK compares the size and the checksum of its index
            Downloader().download(resource.package, download_dir=name, quiet=True, raise_on_error=True)
        except Exception as error:  # NLTK's own, urllib's, zipfile's
            raise _undelivered(resource, Downloader.DEFAULT_URL, _first_line(error)) from error
        return import_resources(name, [resource], note="NLTK's downloader")[0][1]


def _fetch_from_server(resource: needs.CachedFiles, progress: Progress | None) -> Path:
    """The file of TextAttack's server that TextAttack would load itself, but unpacked and checked before it counts."""
    import requests
    from tqdm import tqdm

    address = TEXTATTACK_SERVER + resource.address
    demand_network(address, resource)
    with scratch_folder() as name:
        # A single file keeps its name; a folder comes as a zip archive.
        target = Path(name) / (Path(resource.address).name + (".zip" if resource.files else ""))
        try:
            with requests.get(address, stream=True, timeout=TIMEOUT) as answer, target.open("wb") as file:
                answer.raise_for_status()
                total = int(answer.headers.get("Content-Length", 0))
                with tqdm(total=total or None, unit="B", unit_scale=True, desc=resource.label) as bar:
                    for block in answer.iter_content(1 << 20):
                        file.write(block)
                        bar.update(len(block))
            if total and target.stat().st_size != total:
                raise _undelivered(resource, address, f"{target.stat().st_size} of {total} bytes arrived")
        except requests.RequestException as error:
            raise _undelivered(resource, address, _first_line(error)) from error
        if can_be_imported(resource):
            return import_resources(target, [resource], note=address, progress=progress)[0][1]
        return import_resources(target, [resource], note=address, trusted=True)[0][1]


def _fetch_sentence_encoder(resource: needs.SentenceEncoder) -> Path:
    import importlib

    if (line := needs.HUB_PACKAGES.lacks()) is not None:
        raise UserError(f"the Universal Sentence Encoder is fetched by tensorflow_hub: install {line} first")
    demand_network(needs.SENTENCE_ENCODER_ADDRESS, resource)
    os.environ["TFHUB_CACHE_DIR"] = str(needs.tfhub_cache())
    hub: Any = importlib.import_module("tensorflow_hub")
    try:
        place = Path(hub.resolve(needs.SENTENCE_ENCODER_ADDRESS))
    except Exception as error:  # tensorflow's, urllib's, tarfile's
        raise _undelivered(resource, needs.SENTENCE_ENCODER_ADDRESS, _first_line(error)) from error
    if (line := resource.lacks_files()) is not None:
        raise _undelivered(resource, needs.SENTENCE_ENCODER_ADDRESS, f"{place} is not {line}")
    record(place, needs.SENTENCE_ENCODER_ADDRESS)
    return place


def _fetch_model(resource: needs.HubModel) -> Path:
    from huggingface_hub import constants, snapshot_download

    address = f"{constants.ENDPOINT}/{resource.repository}"
    demand_network(address, resource)
    # Not the other frameworks' weights, and of PyTorch's two forms the one without code where there is one.
    wanted = ["*.json", "*.txt", "*.model", *resource.weights]
    try:
        from huggingface_hub import HfApi

        names = {file.rfilename for file in HfApi().model_info(resource.repository).siblings or []}
        if len(kept := [name for name in resource.weights if name in names]) > 1:
            wanted.remove(kept[-1])
        place = Path(snapshot_download(resource.repository, allow_patterns=wanted, cache_dir=resource.cache()))
    except Exception as error:  # the hub's, requests'
        raise _undelivered(resource, address, _first_line(error)) from error
    check_published(resource, place)
    record(place, address)
    return place


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
