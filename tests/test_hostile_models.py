"""Models of others: nothing of theirs is run but their weights, and what cannot work is refused when it is opened."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_bert import save_tiny_bert

from mindspore_floodx.attack_victims import build_victim
from mindspore_floodx.encoding import load_tokenizer
from mindspore_floodx.errors import UserError


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("sound") / "model")


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "model")


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def victim(folder):
    return build_victim("pytorch", folder, None, "CPU", 1)


def refused(open_it, folder, *said):
    with pytest.raises(UserError) as error:
        open_it(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
    for part in said:
        assert part in str(error.value)


def test_a_sound_model(folder):
    assert victim(folder)(["a word"]).shape == (1, 3) and len(load_tokenizer(folder)) > 50


def test_code_beside_the_weights_is_not_run(folder, tmp_path):
    import torch

    change(folder / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModel": "evil.M"})
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')")
    refused(victim, folder, "custom code")
    shutil.copy(folder / "config.json", tmp_path)
    change(folder / "config.json", model_type="bert", auto_map={})
    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(2), "b": Evil(tmp_path / "mark")}, folder / "pytorch_model.bin")
    refused(victim, folder, "cannot be loaded")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "values, said",
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"model_type": "distilbert", "n_layers": 10**9}, "n"),
        ({"num_attention_heads": 5}, "cannot be loaded"),
        ({"hidden_act": "nonsense"}, "cannot be loaded"),
        ({"layer_norm_eps": "x"}, "layer_norm_eps is 'x'"),
        ({"model_type": ["x"]}, "cannot be loaded"),
    ],
)
def test_configurations(folder, values, said):
    change(folder / "config.json", **values)
    refused(victim, folder, said)


def test_weights_that_are_no_numbers(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.bias"] = np.full(3, np.nan, np.float32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    refused(victim, folder, "no numbers")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"", b"[1]", b"[" * 100_000, b"\xff\0", b'{"version": "1.0"'])
def test_tokenizer_files_that_are_none(folder, name, content):
    (folder / name).write_bytes(content)
    for open_it in (victim, load_tokenizer):
        refused(open_it, folder)


def test_a_tokenizer_whose_ids_the_model_does_not_have(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["a"] = 10**8
    (folder / "tokenizer.json").write_text(json.dumps(content))
    for open_it in (victim, load_tokenizer):
        refused(open_it, folder, "ids up to 100000000", "has 86 words")


def test_tokenizers_that_fail_only_when_they_are_used(folder):
    whole = json.loads((folder / "tokenizer.json").read_text())
    no_unknown = whole | {"model": whole["model"] | {"unk_token": "nothing"}}
    no_special = whole | {"post_processor": whole["post_processor"] | {"special_tokens": {}}}  # the library panics
    for content in (no_unknown, no_special):
        (folder / "tokenizer.json").write_text(json.dumps(content))
        for open_it in (victim, load_tokenizer):
            refused(open_it, folder, "cannot read a text")
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    for length in (-5, "x", True):
        change(folder / "tokenizer_config.json", model_max_length=length)
        for open_it in (victim, load_tokenizer):
            refused(open_it, folder, "model_max_length")
