import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from run_files import write_run_files
from safetensors.numpy import load_file, save_file
from tiny_bert import save_tiny_bert

import ckpt_convert.convert
from ckpt_convert import load_mindspore_state, to_mindspore, to_pytorch
from ckpt_convert.checkpoint_file import read_ckpt
from mindspore_floodx.errors import UserError
from mindspore_floodx.pretrained import CARD_MARK


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("tiny") / "pytorch")


@pytest.fixture(scope="module")
def native(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("native") / "mindspore"
    to_mindspore(tiny, folder)
    return folder


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "ckpt_convert", *map(str, arguments)], capture_output=True, text=True, **options
    )


def test_verification_notices_one_changed_weight(native, tmp_path, monkeypatch):
    write = ckpt_convert.convert.write_safetensors

    def spoil(path, tensors, framework):
        wrong = {name: tensor.copy() for name, tensor in tensors.items()}
        wrong["classifier.bias"][1] += 2e-4
        write(path, wrong, framework)

    assert to_pytorch(native, tmp_path / "good", verify=True).max_logit_difference <= 1e-6
    monkeypatch.setattr(ckpt_convert.convert, "write_safetensors", spoil)
    with pytest.raises(UserError, match=r"logits differ by .*more than 0\.0001; nothing was written"):
        to_pytorch(native, tmp_path / "spoilt", verify=True)
    assert os.listdir(tmp_path) == ["good"]


def test_verification_of_a_model_that_gives_no_numbers_for_pairs(native, tmp_path):
    shutil.copytree(native, tmp_path / "nan")
    tensors = load_file(native / "mindspore_model.safetensors")
    tensors["bert.embeddings.token_type_embeddings.embedding_table"][1] = np.nan
    save_file(tensors, tmp_path / "nan" / "mindspore_model.safetensors")
    with pytest.raises(UserError, match="logits differ by nan"):
        to_pytorch(tmp_path / "nan", tmp_path / "out", verify=True)


def test_verification_of_sources_that_hugging_face_does_not_read(tiny, native, tmp_path):
    for number, source in enumerate((native, tiny / "model.safetensors")):
        report = to_mindspore(source, tmp_path / str(number), verify=True, texts=["a cab", ("a cab", "a bus")])
        assert report.max_logit_difference <= 1e-6


def test_verification_needs_a_fitting_vocabulary(native, tmp_path):
    shutil.copytree(native, tmp_path / "ms")
    with pytest.raises(UserError, match="has more words than the model"):
        to_pytorch(native, tmp_path / "out", tokenizer="minilm", verify=True)
    for name in ("vocab.txt", "tokenizer.json"):
        (tmp_path / "ms" / name).unlink()
    with pytest.raises(UserError, match="has no vocabulary, which verification needs"):
        to_pytorch(tmp_path / "ms", tmp_path / "out", verify=True)
    with pytest.raises(UserError, match="at least one line of text"):
        to_pytorch(native, tmp_path / "out", verify=True, texts=[])
    assert not (tmp_path / "out").exists()


def test_an_export_is_replaced_with_its_model_card_and_never_with_a_readme_of_ones_own(native, tmp_path):
    to_pytorch(native, tmp_path / "out")
    card = tmp_path / "out" / "README.md"
    card.write_text(f"---\nlibrary_name: transformers\n---\n\n{CARD_MARK}\n")
    to_pytorch(native, tmp_path / "out")
    assert not card.exists()
    card.write_text("# mine\n")
    with pytest.raises(UserError, match=r"holds other files \(README\.md\)"):
        to_pytorch(native, tmp_path / "out")


def test_the_export_of_a_finished_run_gets_its_model_card(native, tmp_path):
    run_folder = write_run_files(tmp_path / "run", 0.1)
    shutil.copytree(native, run_folder / "checkpoint")
    report = to_pytorch(run_folder, tmp_path / "out")
    assert "classifies texts as no or yes or maybe" in (tmp_path / "out" / "README.md").read_text()
    assert "wrote the model card README.md" in str(report)
    assert not (run_folder / "export" / "README.md").exists()
    shutil.rmtree(run_folder / "export")  # unfinished: the figures are of another model than the last epoch's
    to_pytorch(run_folder, tmp_path / "out")
    assert not (tmp_path / "out" / "README.md").exists()


def test_the_command_line(tiny, tmp_path):
    (tmp_path / "text.tsv").write_text("a cab\n\na bad cab\ta good cab\n" + "z " * 300 + "\n")
    text = tmp_path / "text.tsv"
    done = run("to-mindspore", tiny, tmp_path / "ms", "--format", "ckpt", "--num-labels", 2, "--verify-text", text)
    assert done.returncode == 0, done.stderr
    assert "newly initialised, to be trained (2): classifier.weight, classifier.bias" in done.stdout
    assert "classifier.weight (classifier for 3 classes, 2 wanted)" in done.stdout
    assert float(done.stdout.split("largest logit difference: ")[1].split()[0]) <= 1e-5
    assert set(read_ckpt(tmp_path / "ms" / "model.ckpt")) == set(load_mindspore_state(tiny)[1])
    done = run("to-pytorch", tmp_path / "ms", tmp_path / "pt", "--all-names")
    assert done.returncode == 0 and done.stdout.count(" -> ") == 1 + 13
    assert (tmp_path / "pt" / "model.safetensors").exists()


def test_mistakes_on_the_command_line_are_one_sentence(native, tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    for arguments, said in [
        (("to-pytorch", tmp_path / "absent", tmp_path / "out"), "there is no file or folder"),
        (("to-mindspore", "./absent", tmp_path / "out"), "there is no folder"),
        (("to-pytorch", native, tmp_path / "out", "--verify-text", tmp_path / "empty.txt"), "has no line of text"),
        (("to-pytorch", native, tmp_path / "out", "--verify-text", tmp_path), "cannot read"),
    ]:
        done = run(*arguments)
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and done.stdout == ""
    assert run("to-somewhere", native, tmp_path / "out").returncode == 2
    assert sorted(os.listdir(tmp_path)) == ["empty.txt"]
