from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROBE = """
import os, socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("the network was asked for")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from mindspore_floodx.attack_library import textattack
print(textattack.name, os.environ["TOKENIZERS_PARALLELISM"], os.environ.get("HF_HOME"), os.environ["XDG_CACHE_HOME"])
rule = textattack.constraints.pre_transformation.StopwordModification()
print("the" in rule.stopwords, "movie" in rule.stopwords)
"""


def test_import_without_nltk_data_and_network(tmp_path):
    """A machine with nothing: no NLTK data, no network, an empty cache; and nobody else's settings are touched."""
    cache = tmp_path / "cache"
    environment = {name: value for name, value in os.environ.items() if name not in ("NLTK_DATA", "HF_HOME")}
    environment |= {"HOME": str(tmp_path), "TA_CACHE_DIR": str(cache), "XDG_CACHE_HOME": str(tmp_path / "xdg")}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    run = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [f"textattack false None {tmp_path / 'xdg'}", "True False"]
    assert "Downloading" not in run.stderr
    assert not (cache / "post_install_check_3").exists()  # TextAttack's own first import stays as it is


def test_built_in_stopwords_of_a_clone_that_a_group_can_write_to(tmp_path, monkeypatch):
    """As a clone is where the umask is 002; NLTK refuses such data."""
    import nltk

    from mindspore_floodx import attack_library

    folder = tmp_path / "nltk_data"
    shutil.copytree(attack_library.BUILT_IN_NLTK_DATA, folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | 0o020)
    monkeypatch.setattr(attack_library, "BUILT_IN_NLTK_DATA", folder)
    monkeypatch.setattr(nltk.data, "path", [])
    attack_library.use_built_in_stopwords()
    assert nltk.data.find("corpora/stopwords/english").open().read().startswith(b"a")


def test_the_package_does_not_import_textattack_until_it_attacks():
    probe = "import sys, mindspore_floodx.cli.attack; print(any(m in sys.modules for m in ('textattack', 'torch')))"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    run = subprocess.run([sys.executable, "-c", probe], env=environment, capture_output=True, text=True, timeout=300)
    assert run.stdout.strip() == "False", run.stderr


def test_built_in_stopwords_are_sorted_distinct_words():
    from mindspore_floodx.attack_resources import BUILT_IN_NLTK_DATA

    words = (BUILT_IN_NLTK_DATA / "corpora" / "stopwords" / "english").read_text(encoding="utf-8").split("\n")[:-1]
    assert words == sorted(set(words))
    assert {"the", "not", "don't", "of"} <= set(words)
    assert len(words) > 200
