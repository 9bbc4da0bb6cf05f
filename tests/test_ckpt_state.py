import json
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_bert import VOCABULARY, bits, save_tiny_bert

from ckpt_convert import load_mindspore_state, to_mindspore, to_pytorch
from ckpt_convert.checkpoint_file import write_ckpt
from ckpt_convert.names import mindspore_name
from mindspore_floodx.errors import UserError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("tiny") / "pytorch")


@pytest.fixture(scope="module")
def native(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("native") / "mindspore"
    to_mindspore(tiny, folder)
    return folder


def variant(tiny, folder, change):
    """A copy of the tiny model whose tensors went through `change`."""
    shutil.copytree(tiny, folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(change(dict(tensors)), folder / "model.safetensors")
    return folder


def test_a_run_folder_and_single_files(native, tiny, tmp_path):
    shutil.copytree(native, tmp_path / "run" / "checkpoint")
    (tmp_path / "run" / "log.csv").write_text("step\n")
    expected = bits(load_file(tiny / "model.safetensors"))
    write_ckpt(tmp_path / "lonely.ckpt", load_file(native / "mindspore_model.safetensors"))
    for number, (source, config) in enumerate(
        [
            (tmp_path / "run", None),
            (native / "mindspore_model.safetensors", None),
            (tmp_path / "lonely.ckpt", tiny / "config.json"),
        ]
    ):
        report = to_pytorch(source, tmp_path / str(number), config=config)
        assert bits(load_file(tmp_path / str(number) / "model.safetensors")) == expected
    assert "no vocabulary" in report.notes[0]  # the last source has no tokenizer beside it
    with pytest.raises(UserError, match=r"config\.json is missing"):
        to_pytorch(tmp_path / "lonely.ckpt", tmp_path / "none")


def test_old_pytorch_files_of_pretraining(tiny, tmp_path):
    """As BERT was published in 2018: gamma and beta, pretraining heads, pickled; no classifier."""
    import torch

    shutil.copytree(tiny, tmp_path / "old")
    tensors = load_file(tmp_path / "old" / "model.safetensors")
    (tmp_path / "old" / "model.safetensors").unlink()
    state = {}
    for name, tensor in tensors.items():
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        state[old] = torch.from_numpy(tensor)
    del state["classifier.weight"], state["classifier.bias"], state["bert.pooler.dense.weight"]
    state["cls.predictions.bias"] = torch.zeros(len(VOCABULARY))
    state["bert.embeddings.position_ids"] = torch.arange(64)[None]
    torch.save(state, tmp_path / "old" / "pytorch_model.bin")
    report = to_mindspore(tmp_path / "old", tmp_path / "ms", seed=5)
    assert report.skipped == {
        "cls.predictions.bias": "head of pretraining",
        "bert.embeddings.position_ids": "buffer of fixed positions",
    }
    assert report.initialised == ["bert.pooler.dense.weight", "classifier.weight", "classifier.bias"]
    assert len(report.legacy) == 2 * 5 and "gamma and beta for weight and bias (10)" in str(report)
    written = load_file(tmp_path / "ms" / "mindspore_model.safetensors")
    for name, tensor in tensors.items():
        if mindspore_name(name) not in report.initialised:
            assert bits({"": written[mindspore_name(name)]}) == bits({"": tensor})
    drawn = written["classifier.weight"]
    assert drawn.shape == (3, 32) and 0.015 < drawn.std() < 0.025 and not written["classifier.bias"].any()
    same, other = load_mindspore_state(tmp_path / "old", seed=5)[1], load_mindspore_state(tmp_path / "old", seed=6)[1]
    assert np.array_equal(same["classifier.weight"], drawn) and not np.array_equal(other["classifier.weight"], drawn)


@pytest.mark.parametrize("file_format", ["safetensors", "ckpt"])
def test_tensors_that_lie_transposed_in_memory(tiny, tmp_path, file_format):
    import torch

    shutil.copytree(tiny, tmp_path / "strided")
    (tmp_path / "strided" / "model.safetensors").unlink()
    state = {name: torch.from_numpy(tensor) for name, tensor in load_file(tiny / "model.safetensors").items()}
    strided = {name: tensor.T.contiguous().T if tensor.ndim == 2 else tensor for name, tensor in state.items()}
    torch.save(strided, tmp_path / "strided" / "pytorch_model.bin")
    to_mindspore(tmp_path / "strided", tmp_path / "ms", file_format=file_format)
    assert bits(load_mindspore_state(tmp_path / "ms")[1]) == bits(load_mindspore_state(tiny)[1])


def test_two_names_of_one_tensor(tiny, tmp_path):
    def double(tensors):
        return tensors | {"bert.embeddings.LayerNorm.gamma": tensors["bert.embeddings.LayerNorm.weight"]}

    with pytest.raises(UserError, match=r"embeddings\.LayerNorm\.\w+ and .*are the same tensor"):
        load_mindspore_state(variant(tiny, tmp_path / "double", double))


def test_number_of_classes_decides_the_classifier(tiny):
    config, tensors = load_mindspore_state(tiny, num_labels=5)
    assert tensors["classifier.weight"].shape == (5, 32) and list(config["id2label"].values())[4] == "LABEL_4"
    assert 0.015 < tensors["classifier.weight"].std() < 0.025
    config, tensors = load_mindspore_state(tiny, num_labels=3)  # as many as the file has: its own classifier
    assert np.array_equal(tensors["classifier.weight"], load_file(tiny / "model.safetensors")["classifier.weight"])
    assert config["id2label"] == {"0": "no", "1": "yes", "2": "maybe"}


def test_half_precision_is_widened_and_reported(tiny, tmp_path):
    half = variant(tiny, tmp_path / "half", lambda tensors: {n: t.astype(np.float16) for n, t in tensors.items()})
    report = to_mindspore(half, tmp_path / "ms")
    assert set(report.upcast.values()) == {"float16"} and len(report.upcast) == report.tensors
    assert "converted to float32" in str(report)
    assert all(t.dtype == np.float32 for t in load_file(tmp_path / "ms" / "mindspore_model.safetensors").values())


def test_everything_wrong_is_listed_at_once_and_nothing_is_written(native, tmp_path):
    shutil.copytree(native, tmp_path / "bad")
    tensors = load_file(native / "mindspore_model.safetensors")
    del tensors["classifier.bias"], tensors["bert.encoder.layer.1.attention.self.query.weight"]
    tensors["bert.pooler.dense.weight"] = tensors["bert.pooler.dense.weight"][:, :7].copy()
    tensors["bert.pooler.dense.bias"] = np.zeros(32, dtype=np.int32)
    tensors["bert.encoder.layer.2.output.dense.bias"] = np.zeros(32, dtype=np.float32)
    save_file(tensors, tmp_path / "bad" / "mindspore_model.safetensors")
    with pytest.raises(UserError) as error:
        to_pytorch(tmp_path / "bad", tmp_path / "out")
    message = str(error.value)
    assert "2 missing: bert.encoder.layer.1.attention.self.query.weight, classifier.bias" in message
    assert "1 extra: bert.encoder.layer.2.output.dense.bias" in message
    assert "bert.pooler.dense.weight is float32 [32, 7], expected float32 [32, 32]" in message
    assert "bert.pooler.dense.bias is int32 [32], expected float32 [32]" in message
    assert os.listdir(tmp_path) == ["bad"]


def test_a_model_without_classifier_is_no_classifier_for_pytorch(native, tmp_path):
    shutil.copytree(native, tmp_path / "encoder")
    tensors = load_file(native / "mindspore_model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier.")}
    save_file(kept, tmp_path / "encoder" / "mindspore_model.safetensors")
    with pytest.raises(UserError, match=r"2 missing: classifier\.weight, classifier\.bias"):
        to_pytorch(tmp_path / "encoder", tmp_path / "out")


def test_an_encoder_tensor_is_never_made_up(tiny, tmp_path):
    def cut(tensors):
        del tensors["bert.encoder.layer.0.output.dense.weight"]
        return tensors

    with pytest.raises(UserError, match=r"1 missing: bert\.encoder\.layer\.0\.output\.dense\.weight"):
        to_mindspore(variant(tiny, tmp_path / "cut", cut), tmp_path / "out", num_labels=3)


def test_an_absurd_config_is_refused_before_memory_is_taken(native, tmp_path):
    shutil.copytree(native, tmp_path / "huge")
    config = json.loads((native / "config.json").read_text())
    (tmp_path / "huge" / "config.json").write_text(json.dumps(config | {"vocab_size": 10**12}))
    with pytest.raises(UserError, match=r"config\.json .*vocab_size is 1000000000000"):
        to_pytorch(tmp_path / "huge", tmp_path / "out")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "has no weights"),
        (["mindspore_model.safetensors", "model.ckpt"], "several models"),
        (["model.safetensors", "model.ckpt"], "several models"),
    ],
)
def test_folders_with_nothing_or_too_much(tmp_path, files, said):
    (tmp_path / "config.json").write_text("{}")
    for name in files:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=said):
        load_mindspore_state(tmp_path)
