"""The ONNX file gives PyTorch's logits in onnxruntime, for every batch size and length."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import numpy as np
import pytest
from doc_blocks import blocks
from tiny_bert import save_tiny_bert

import ckpt_convert.onnx_file
from ckpt_convert import to_mindspore, to_onnx
from ckpt_convert.command import main
from mindspore_floodx.errors import UserError

RUN = "runs/mrpc-flooding-0"  # in the documentation
PACKAGES = "the extra `onnx` is not installed"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A tiny classifier in MindSpore's layout, and the Hugging Face folder it was made from."""
    folder = tmp_path_factory.mktemp("onnx")
    tiny = save_tiny_bert(folder / "pytorch")
    to_mindspore(tiny, folder / "mindspore")
    return folder


@pytest.fixture(scope="module")
def exported(source):
    """The file that the documented command writes, here of the MindSpore folder."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=PACKAGES)
    (line,) = "".join(blocks("ecosystems.md", "bash", "ONNX")).splitlines()
    words = shlex.split(line.replace("runs/mrpc-flooding-0/", f"{source}/out/").replace(RUN, str(source / "mindspore")))
    assert words[:4] == ["python", "-m", "ckpt_convert", "to-onnx"]
    assert main(words[3:]) == 0
    return Path(words[5])


def test_logits_are_those_of_hugging_face(source, exported):
    import onnxruntime
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    model = AutoModelForSequenceClassification.from_pretrained(source / "pytorch").eval()
    tokenizer = AutoTokenizer.from_pretrained(source / "pytorch")
    for texts in (["a"], ["a cab", "x" * 200, ""], [("a cab", "a bus"), ("no", "z z z")] * 9):
        batch = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="np")
        (logits,) = session.run(["logits"], {name: ids.astype(np.int64) for name, ids in batch.items()})
        with torch.no_grad():
            theirs = model(**{name: torch.from_numpy(ids).long() for name, ids in batch.items()}).logits.numpy()
        assert logits.shape == (len(texts), 3) and logits.dtype == np.float32
        np.testing.assert_allclose(logits, theirs, rtol=0, atol=1e-5)


def test_sizes_are_free_and_the_classes_are_named(exported):
    import onnxruntime

    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    assert [(each.name, each.shape) for each in session.get_inputs()] == [
        (name, ["batch", "length"]) for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    names = json.loads(session.get_modelmeta().custom_metadata_map["id2label"])
    assert names == {"0": "no", "1": "yes", "2": "maybe"}
    assert os.listdir(exported.parent) == ["model.onnx"]  # the weights are in it


def test_verification_notices_other_weights(source, exported, tmp_path, monkeypatch):
    from ckpt_convert.state import load_state
    from ckpt_convert.verify import compare_onnx

    state = load_state(source / "mindspore")
    assert compare_onnx(state, exported) <= 1e-5
    state.tensors["classifier.bias"] = state.tensors["classifier.bias"] + np.float32(2e-4)
    assert compare_onnx(state, exported) == pytest.approx(2e-4, rel=0.1)


def test_mistakes(source, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"does not end in \.onnx"):
        to_onnx(source / "mindspore", tmp_path / "model")
    monkeypatch.setattr(ckpt_convert.onnx_file, "_PACKAGES", ("onnx_of_nobody",))
    with pytest.raises(UserError, match=r"ONNX needs onnx_of_nobody; pip install 'mindspore-floodx\[onnx\]'"):
        to_onnx(source / "mindspore", tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
