"""TextAttack, imported without network access and without moving any other library's cache.

Importing TextAttack 0.3.11 as it comes needs NLTK's stop words (LookupError without them), downloads NLTK data the
first time, and sets environment variables that slow down or hang other libraries. Every module of ours takes the
package from here, and reaches its classes as attributes, so that this preparation always comes first.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any
from unittest import mock

import nltk

from .attack_resources import BUILT_IN_NLTK_DATA, tfhub_cache
from .errors import UserError
from .resource_manifest import cache_folder

_MARKER = "post_install_check_3"  # TextAttack's "my downloads were tried" file
_MOVED_BY_TEXTATTACK = ("HF_HOME", "XDG_CACHE_HOME", "PYTORCH_TRANSFORMERS_CACHE")


@contextlib.contextmanager
def no_nltk_downloads() -> Iterator[None]:
    """Makes `nltk.download` do nothing: some TextAttack classes call it whenever they are built."""
    with mock.patch.object(nltk, "download", lambda *args, **kwargs: False):
        yield


@contextlib.contextmanager
def no_hub_downloads() -> Iterator[None]:
    """Makes models of the Hugging Face hub come from its cache: both libraries read their variable only at import."""
    import transformers.utils.hub
    from huggingface_hub import constants

    with (
        mock.patch.object(constants, "HF_HUB_OFFLINE", True),
        mock.patch.object(transformers.utils.hub, "_is_offline_mode", True),
    ):
        yield


def prepare_tensorflow(threads: int) -> None:
    """Lets TensorFlow find the sentence encoder and take as many threads as PyTorch; before it is first imported."""
    os.environ.setdefault("TFHUB_CACHE_DIR", str(tfhub_cache()))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, str(threads))


def use_built_in_stopwords() -> None:
    """Lets NLTK fall back on our own stop words where its own are not installed."""
    # NLTK refuses what others can write to, which a clone is where the umask is 002.
    for path in (BUILT_IN_NLTK_DATA, *BUILT_IN_NLTK_DATA.rglob("*")):
        mode = path.stat().st_mode
        if mode & 0o022:
            with contextlib.suppress(OSError):  # not ours to change
                path.chmod(mode & 0o7755)
    if str(BUILT_IN_NLTK_DATA) not in nltk.data.path:
        nltk.data.path.append(str(BUILT_IN_NLTK_DATA))


def _import_textattack() -> ModuleType:
    on_its_own = "textattack" in sys.modules  # its own command line came first, and keeps its messages
    use_built_in_stopwords()
    marker = cache_folder() / _MARKER
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        already_there = marker.exists()
        marker.touch()
    except OSError as error:
        raise UserError(
            f"cannot write TextAttack's cache folder {marker.parent}: {error.strerror}; set TA_CACHE_DIR to a folder "
            f"that can be written"
        ) from error
    before = {name: os.environ.get(name) for name in (*_MOVED_BY_TEXTATTACK, "TFHUB_CACHE_DIR")}
    try:
        with no_nltk_downloads():
            import textattack
    except ModuleNotFoundError as error:
        raise UserError(f"attacks need the package {error.name}; install the requirements of setup.py") from error
    finally:
        if not already_there:  # the user's own first `import textattack` may still do its downloads
            marker.unlink(missing_ok=True)
    for name, value in before.items():
        if value is not None:
            os.environ[name] = value
        elif name in _MOVED_BY_TEXTATTACK:
            os.environ.pop(name, None)
    # TextAttack sets it to true; forked workers then hang in the fast tokenizers.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if not on_its_own:
        textattack.shared.utils.logger.setLevel(logging.WARNING)
    return textattack


textattack: Any = _import_textattack()  # without types, so its attributes are not checked
