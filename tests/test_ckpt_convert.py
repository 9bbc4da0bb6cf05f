import json
import os
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_bert import bits, save_tiny_bert

import ckpt_convert.convert
from ckpt_convert import load_mindspore_state, save_mindspore_folder, to_mindspore, to_pytorch
from ckpt_convert.names import expected_shapes, mindspore_name
from mindspore_floodx.errors import UserError
from mindspore_floodx.pretrained import TOKENIZER_FILES, find_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("tiny") / "pytorch")


@pytest.fixture(scope="module")
def native(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("native") / "mindspore"
    to_mindspore(tiny, folder)
    return folder


@pytest.mark.parametrize("file_format", ["safetensors", "ckpt"])
def test_pytorch_to_mindspore_to_pytorch_is_bit_exact(tiny, tmp_path, file_format):
    there = to_mindspore(tiny, tmp_path / "ms", file_format=file_format)
    back = to_pytorch(tmp_path / "ms", tmp_path / "pt")
    before, after = load_file(tiny / "model.safetensors"), load_file(tmp_path / "pt" / "model.safetensors")
    assert bits(before) == bits(after)
    assert there.tensors == back.tensors == len(before) and there.bytes == sum(t.nbytes for t in before.values())
    assert there.renamed == {new: old for old, new in back.renamed.items()} and len(there.renamed) == 3 + 2 * 5
    assert there.skipped == there.upcast == there.legacy == {} and there.initialised == [] == there.notes
    for name in TOKENIZER_FILES:
        assert (tiny / name).exists() == (tmp_path / "pt" / name).exists()
        assert not (tiny / name).exists() or (tiny / name).read_bytes() == (tmp_path / "pt" / name).read_bytes()


def test_mindspore_to_pytorch_to_mindspore_is_bit_exact(tiny, tmp_path):
    config = json.loads((tiny / "config.json").read_text())
    random = np.random.default_rng(3)
    tensors = {
        mindspore_name(name): random.integers(0, 2**32, shape, dtype=np.uint32).view(np.float32)  # NaNs and all
        for name, shape in expected_shapes(config).items()
    }
    save_mindspore_folder(tmp_path / "a", config, tensors, tiny)
    to_pytorch(tmp_path / "a", tmp_path / "b")
    to_mindspore(tmp_path / "b", tmp_path / "c")
    assert bits(load_file(tmp_path / "c" / "mindspore_model.safetensors")) == bits(tensors)
    assert (tmp_path / "a" / "config.json").read_bytes() == (tmp_path / "c" / "config.json").read_bytes()
    assert bits(load_mindspore_state(tmp_path / "a")[1]) == bits(load_mindspore_state(tmp_path / "b")[1])


def test_the_real_minilm(tmp_path):
    report = to_mindspore("minilm", tmp_path / "ms", num_labels=4, verify=True)
    assert report.max_logit_difference <= 2e-5
    assert report.initialised == ["classifier.weight", "classifier.bias"]
    assert report.skipped == {"embeddings.position_ids": "buffer of fixed positions"}
    assert len(report.legacy) == 103 and all(name.startswith("bert.") for name in report.legacy.values())
    assert "older names, no `bert.` prefix (103)" in str(report)
    report = to_pytorch(tmp_path / "ms", tmp_path / "pt", verify=True)
    assert report.max_logit_difference <= 2e-5 and not report.skipped and not report.initialised
    before = load_file(find_model("minilm") / "model.safetensors")
    after = load_file(tmp_path / "pt" / "model.safetensors")
    assert after.pop("classifier.weight").shape == (4, 384) and not after.pop("classifier.bias").any()
    del before["embeddings.position_ids"]
    assert bits({f"bert.{name}": tensor for name, tensor in before.items()}) == bits(after)


def test_hugging_face_loads_the_result_with_no_argument(native, tiny, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    to_pytorch(native, tmp_path / "pt")
    model, info = AutoModelForSequenceClassification.from_pretrained(tmp_path / "pt", output_loading_info=True)
    assert not any(info.values()) and type(model).__name__ == "BertForSequenceClassification"
    assert model.config.id2label == {0: "no", 1: "yes", 2: "maybe"} and str(model.dtype) == "torch.float32"
    assert model.config.problem_type == "single_label_classification"
    assert AutoTokenizer.from_pretrained(tmp_path / "pt").is_fast
    (answer,) = pipeline("text-classification", model=str(tmp_path / "pt"))("a bad cab")
    (expected,) = pipeline("text-classification", model=str(tiny))("a bad cab")
    assert answer == expected and answer["label"] in ("no", "yes", "maybe")
    from safetensors import safe_open

    with safe_open(tmp_path / "pt" / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}


def test_our_model_saves_what_the_converter_reads(native, tiny, tmp_path):
    from mindspore_floodx.bert import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(native)
    for file_format, file in (("safetensors", "mindspore_model.safetensors"), ("ckpt", "model.ckpt")):
        model.save_pretrained(tmp_path / file_format, file_format)
        assert (tmp_path / file_format / file).exists()
        to_pytorch(tmp_path / file_format, tmp_path / f"{file_format}-pt")
        before, after = tiny / "model.safetensors", tmp_path / f"{file_format}-pt" / "model.safetensors"
        assert bits(load_file(before)) == bits(load_file(after))


def test_a_checkpoint_saved_by_mindspore_itself(native, tiny, tmp_path):
    import mindspore
    from mindspore import nn

    from mindspore_floodx.bert import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(native)
    optimiser = nn.Adam(model.trainable_params())
    step = nn.TrainOneStepCell(nn.WithLossCell(model, nn.CrossEntropyLoss()), optimiser)
    mindspore.save_checkpoint(step, str(tmp_path / "step.ckpt"), append_dict={"epoch_num": 3, "note": "kept"})
    report = to_pytorch(tmp_path / "step.ckpt", tmp_path / "pt", config=tiny / "config.json", tokenizer=tiny)
    assert bits(load_file(tmp_path / "pt" / "model.safetensors")) == bits(load_file(tiny / "model.safetensors"))
    assert set(report.skipped.values()) == {"state of the optimiser", "state of the training loop"}
    assert report.notes == []


def test_targets_that_would_destroy_something(native, tmp_path):
    with pytest.raises(UserError, match="same folder"):
        to_pytorch(native, native)
    shutil.copytree(native, tmp_path / "run" / "checkpoint")
    (tmp_path / "run" / "log.csv").write_text("step\n")
    with pytest.raises(UserError, match=r"holds other files \(checkpoint, log\.csv\)"):
        to_pytorch(tmp_path / "run", tmp_path / "run")
    with pytest.raises(UserError, match="is a file"):
        to_pytorch(native, tmp_path / "run" / "log.csv")
    to_pytorch(native, tmp_path / "out")
    to_pytorch(native, tmp_path / "out")  # a former conversion is replaced


def test_an_interrupted_conversion_leaves_the_former_result(native, tmp_path, monkeypatch):
    to_pytorch(native, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ckpt_convert.convert, "_copy_tokenizer", stop)  # after the weights, before the tokenizer
    with pytest.raises(KeyboardInterrupt):
        to_pytorch(native, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("direction", [to_pytorch, to_mindspore])
def test_a_full_disk_is_one_sentence(native, tiny, tmp_path, direction):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # the weights are larger, config.json is not
    try:
        with pytest.raises(UserError, match=r"cannot write .*choose another output folder"):
            direction(native if direction is to_pytorch else tiny, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []


def test_plain_conversion_imports_neither_framework(native, tmp_path):
    code = (
        "import sys, ckpt_convert; ckpt_convert.to_pytorch(*sys.argv[1:]);"
        "print([name for name in ('torch', 'mindspore', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(native), str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_bert_base_converts_in_5_seconds_and_twice_its_memory(tmp_path):
    """110 million random weights; processor time, so that other work does not count; memory of the whole process."""
    config = json.loads((find_model("minilm") / "config.json").read_text())
    config |= {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}
    block = np.random.default_rng(0).normal(size=1 << 20).astype(np.float32)
    tensors = {mindspore_name(n): np.resize(block, shape) for n, shape in expected_shapes(config).items()}
    save_mindspore_folder(tmp_path / "ms", config, tensors)
    size = sum(tensor.nbytes for tensor in tensors.values())
    del tensors
    assert size == 4 * 109_483_778
    code = (  # getrusage would give the parent's peak where that is larger
        "import json, re, sys, time, ckpt_convert; started = time.process_time();"
        "getattr(ckpt_convert, sys.argv[1])(*sys.argv[2:4], **json.loads(sys.argv[4]));"
        "print(time.process_time() - started, re.search(r'VmHWM:\\s*(\\d+) kB', open('/proc/self/status').read())[1])"
    )
    for direction, source, target, options in (
        ("to_pytorch", "ms", "pt", {}),
        ("to_mindspore", "pt", "ms", {}),
        ("to_mindspore", "pt", "ckpt", {"file_format": "ckpt"}),
        ("to_pytorch", "ckpt", "pt", {}),
    ):
        arguments = [direction, str(tmp_path / source), str(tmp_path / target), json.dumps(options)]
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        seconds, kilobytes = map(float, done.stdout.split())
        ratio = kilobytes * 1024 / size
        assert ratio < 2 and seconds < 5, f"{direction}: {seconds:.1f} s, {ratio:.2f} times the model's memory"
    for folder in ("ms", "pt", "ckpt"):  # pytest keeps the folders of its last three runs
        shutil.rmtree(tmp_path / folder)
