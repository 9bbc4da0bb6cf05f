"""Resources from a folder or an archive, through the command, to where the recipes find them."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import zipfile

import numpy as np
import pytest

from mindspore_floodx import attack_resources as needs
from mindspore_floodx import counter_fitted, resource_fetch, resource_import
from mindspore_floodx.cli.resources import main
from mindspore_floodx.errors import UserError
from mindspore_floodx.resource_import import can_be_imported, import_resources
from mindspore_floodx.resource_listing import needed_by, pack, state
from mindspore_floodx.resource_manifest import NAME

COUNT = 120


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty machine: NLTK's data, TextAttack's cache and the hub's cache in folders of their own."""
    import nltk
    from huggingface_hub import constants, file_download

    home = tmp_path / "home"
    monkeypatch.setenv("NLTK_DATA", str(home / "nltk"))
    monkeypatch.setattr(nltk.data, "path", [str(home / "nltk"), str(needs.BUILT_IN_NLTK_DATA)])
    monkeypatch.setenv("TA_CACHE_DIR", str(home / "ta"))
    monkeypatch.delenv("TFHUB_CACHE_DIR", raising=False)
    monkeypatch.setenv("FLAIR_CACHE_ROOT", str(home / "flair"))
    for module in (constants, file_download):
        if hasattr(module, "HF_HUB_CACHE"):
            monkeypatch.setattr(module, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(counter_fitted, "WORDS", COUNT)
    return home


@pytest.fixture
def source(tmp_path):
    """What another machine prepared: small files of the right form."""
    source = tmp_path / "source"
    stopwords = source / "nltk_data" / "corpora" / "stopwords"
    stopwords.mkdir(parents=True)
    (stopwords / "english").write_text("the\nof\n")
    with zipfile.ZipFile(source / "universal_tagset.zip", "w") as archive:  # as NLTK's server has it
        archive.writestr("universal_tagset/en-ptb.map", "NN\tNOUN\n")
    random = np.random.default_rng(1)
    rows = random.normal(size=(COUNT, counter_fitted.WIDTH))
    rows[0, 0] = -0.022007
    names = ["fawn", *(f"word{i}" for i in range(1, COUNT))]
    lines = [f"{name} {' '.join(f'{x:.6f}' for x in row)}\n" for name, row in zip(names, rows, strict=True)]
    (source / "counter-fitted-vectors.txt").write_text("".join(lines))
    encoder = source / "encoder"
    (encoder / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"):
        (encoder / name).write_bytes(name.encode())
    (source / "word_candidates_sense.pkl").write_bytes(pickle.dumps({"fawn": {"noun": ["deer"]}}))
    return source


@pytest.fixture
def bert(source):
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    folder = source / "bert-base-uncased"
    folder.mkdir()
    (folder / "words.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertForMaskedLM(BertConfig(vocab_size=6, **size)).save_pretrained(folder)
    BertTokenizer(folder / "words.txt").save_pretrained(folder)
    (folder / "run_me.py").write_text("1 / 0")
    return folder


def everything():
    return [row.resource for row in needed_by() if can_be_imported(row.resource)]


def as_folder(source, tmp_path):
    return source


def as_zip(source, tmp_path):
    return shutil.make_archive(str(tmp_path / "packed"), "zip", source)


def as_tar(source, tmp_path):
    return shutil.make_archive(str(tmp_path / "packed"), "gztar", source)


@pytest.mark.parametrize("form", [as_folder, as_zip, as_tar])
def test_all_that_is_there_goes_into_place(form, source, home, tmp_path, capsys, monkeypatch):
    wanted = [needs.STOPWORDS, needs.TAGSET, needs.VECTORS, needs.SENTENCE_ENCODER, needs.HOWNET]
    assert {state(resource) for resource in wanted} == {"missing"}
    assert main(["import", str(form(source, tmp_path))]) == 0
    assert {state(resource, verify=True) for resource in wanted} == {"present"}
    printed = capsys.readouterr().out
    assert str(home / "ta" / "word_embeddings" / "paragramcf") in printed
    assert (home / "nltk" / "taggers" / "universal_tagset" / "en-ptb.map").is_file()
    assert sorted(path.name for path in needs.VECTORS.place().iterdir()) == sorted(needs.VECTOR_FILES)
    assert [path.name for path in (home / "ta").glob(".*")] == []  # nothing temporary is left
    manifest = json.loads((home / "ta" / NAME).read_text())
    assert len(manifest) == len(wanted) and str(tmp_path) not in "".join(e["source"] for e in manifest.values())
    monkeypatch.setattr(needs.Package, "lacks", lambda self: "absent")
    main(["list", "textbugger"])
    printed = capsys.readouterr().out
    assert "3 of 4 present" in printed and "tensorflow_hub" in printed and "missing" in printed


def test_a_model_goes_into_the_hub_s_cache_and_loads_offline(bert, home, monkeypatch):
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    weights = {("bert-base-uncased", name): value for name, value in (("model.safetensors", "0" * 64),)}
    monkeypatch.setattr(resource_import, "KNOWN_SHA256", weights)
    with pytest.raises(UserError, match=r"model\.safetensors is not the published one"):
        import_resources(bert, [needs.BERT])
    assert state(needs.BERT) == "missing"
    monkeypatch.setattr(resource_import, "KNOWN_SHA256", {})
    ((_, place),) = import_resources(bert, [needs.BERT])
    assert state(needs.BERT) == "present" and not (place / "run_me.py").exists()
    cache = {"local_files_only": True, "cache_dir": home / "hub"}
    assert AutoModelForMaskedLM.from_pretrained("bert-base-uncased", **cache).config.vocab_size == 6
    assert AutoTokenizer.from_pretrained("bert-base-uncased", **cache).mask_token == "[MASK]"


def test_published_hashes_are_compared_for_the_real_names():
    assert {name for _, name in resource_import.KNOWN_SHA256} == {"pytorch_model.bin", "model.safetensors", "vocab.txt"}
    assert all(len(value) == 64 for value in resource_import.KNOWN_SHA256.values())


def test_a_packed_archive_is_imported_on_another_machine(bert, source, home, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(resource_import, "KNOWN_SHA256", {})
    import_resources(source, everything())
    snapshot = needs.BERT.place()
    blob = snapshot.parents[1] / "blobs" / "x"
    blob.parent.mkdir()
    (snapshot / "config.json").rename(blob)
    os.symlink(blob, snapshot / "config.json")  # as the hub's cache has it
    titles = pack(tmp_path / "all.zip", needed_by())
    assert len(titles) == 6
    before = {r: (r.place().relative_to(home), state(r, verify=True)) for r in everything()}
    home.rename(tmp_path / "first")
    import_resources(tmp_path / "all.zip", everything())
    assert {r: (r.place().relative_to(home), state(r, verify=True)) for r in everything()} == before
    assert needs.BERT.place() == snapshot  # the same revision
    with pytest.raises(UserError, match="none of the resources"):
        pack(tmp_path / "none.zip", needed_by(["leap"])[1:])


def test_damage_is_noticed(source, home):
    import_resources(source, everything())
    path = needs.VECTORS.place() / "nn.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert (state(needs.VECTORS), state(needs.VECTORS, verify=True)) == ("present", "damaged")
    assert needs.VECTORS.missing() is None
    path.write_bytes(content[:-4])
    assert state(needs.VECTORS) == "damaged"
    assert "nn.npy has" in needs.VECTORS.missing()  # so an attack does not begin
    with pytest.raises(UserError, match="is damaged"):
        pack(home / "x.zip", needed_by(["iga"]))
    import_resources(source, [needs.VECTORS])
    assert state(needs.VECTORS, verify=True) == "present"


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil_was_here",)


@pytest.mark.parametrize("name", ["wordlist.pickle", "cos_sim.p", "mse_dist.p"])
def test_code_in_a_pickle_is_refused_and_what_was_there_stays(name, source, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    import_resources(source, [needs.VECTORS])
    bad = tmp_path / "bad" / "paragramcf"
    shutil.copytree(needs.VECTORS.place(), bad)
    import_resources(bad, [needs.VECTORS])  # as it is, it is taken
    (bad / name).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match=f"{name} is refused"):
        import_resources(bad.parent, [needs.VECTORS])
    assert not (tmp_path / "evil_was_here").exists()
    assert state(needs.VECTORS, verify=True) == "present"


def test_what_does_not_fit_is_refused_before_anything_is_put_into_place(source, home):
    (source / "word_candidates_sense.pkl").write_bytes(pickle.dumps({"fawn": ["deer"]}))
    with pytest.raises(UserError, match="word_candidates_sense"):
        main(["import", str(source)])
    assert {state(resource) for resource in everything()} == {"missing"}
    (source / "encoder" / "variables" / "variables.index").unlink()
    with pytest.raises(UserError, match=r"variables\.index"):
        main(["import", str(source), "bertattack"])
    with pytest.raises(UserError, match="holds none of"):
        main(["import", str(source / "nltk_data"), "french"])
    with pytest.raises(UserError, match="--max-gigabytes"):
        main(["import", str(source), "--max-gigabytes", "0.0000001"])


def test_models_with_code_are_not_imported(home, tmp_path):
    folder = tmp_path / "upos-english-fast"
    folder.mkdir()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    assert not can_be_imported(needs.FLAIR_TAGGER)
    with pytest.raises(UserError, match="holds none of"):
        import_resources(folder, [needs.FLAIR_TAGGER])


def test_the_vectors_alone_and_the_command_as_users_call_it(source, home):
    text = source / "counter-fitted-vectors.txt"
    assert main(["import", str(text)]) == 0
    assert state(needs.VECTORS) == "present"
    shutil.rmtree(home)
    import sys
    from pathlib import Path

    root = Path(__file__).parents[1]
    command = [sys.executable, str(root / "run" / "resources.py"), "import", str(text)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 2 and "has 120 words instead of 65,713" in run.stderr  # the real number of words
    assert run.stderr.count("\n") == 1


def test_fetch_without_a_network_says_so_in_one_sentence(home, monkeypatch, capsys):
    import requests

    def refuse(*arguments, **options):
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(requests, "head", refuse)
    monkeypatch.setattr(requests, "get", lambda *a, **o: pytest.fail("asked after the network was found absent"))
    for resource in (needs.STOPWORDS, needs.VECTORS, needs.GPT2):
        with pytest.raises(UserError, match="cannot be fetched from .* no network") as caught:
            resource_fetch.fetch(resource)
        assert "\n" not in str(caught.value) and "import FILE" in str(caught.value)
    assert main(["fetch", "deepwordbug"]) == 2
    assert capsys.readouterr().err.count("error:") == 1


def test_fetch_goes_through_the_checks_of_an_import(source, home, monkeypatch, tmp_path):
    """A server of our own in the place of TextAttack's: a good archive, a truncated one, and one with code."""
    import threading
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    import_resources(source, [needs.VECTORS])
    served = tmp_path / "served"
    (served / "word_embeddings").mkdir(parents=True)
    (served / "transformations" / "hownet").mkdir(parents=True)
    place = needs.VECTORS.place()
    shutil.make_archive(str(served / "word_embeddings" / "paragramcf"), "zip", place.parent, place.name)
    (served / "word_embeddings" / "paragramcf.zip").rename(served / "word_embeddings" / "paragramcf")
    lists = served / needs.HOWNET.address
    shutil.copy(source / "word_candidates_sense.pkl", lists)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(resource_fetch, "TEXTATTACK_SERVER", address)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        shutil.rmtree(home)
        assert resource_fetch.fetch(needs.VECTORS) == place
        assert resource_fetch.fetch(needs.HOWNET) == needs.HOWNET.place()
        assert state(needs.VECTORS, verify=True) == state(needs.HOWNET, verify=True) == "present"
        assert json.loads((home / "ta" / NAME).read_text())[str(place)]["source"] == address + needs.VECTORS.address
        shutil.rmtree(home)
        lists.write_bytes(pickle.dumps(Evil()))
        with pytest.raises(UserError, match="is refused"):
            resource_fetch.fetch(needs.HOWNET)
        lists.unlink()
        with pytest.raises(UserError, match="404"):
            resource_fetch.fetch(needs.HOWNET)
        archive = served / "word_embeddings" / "paragramcf"
        archive.write_bytes(archive.read_bytes()[:1000])
        with pytest.raises(UserError, match="paragramcf"):
            resource_fetch.fetch(needs.VECTORS)
        assert state(needs.VECTORS) == state(needs.HOWNET) == "missing"
    finally:
        server.shutdown()
        server.server_close()
