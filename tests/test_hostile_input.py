"""Every command with every kind of file that means harm: one sentence with file and field, exit code 2, no trace."""

from __future__ import annotations

import json
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_bert import VOCABULARY

from ckpt_convert import checkpoint_file
from ckpt_convert.command import main as convert
from ckpt_convert.names import expected_shapes
from mindspore_floodx.cli.attack import main as attack
from mindspore_floodx.cli.data import main as data
from mindspore_floodx.cli.resources import main as resources
from mindspore_floodx.cli.train import main as train
from mindspore_floodx.errors import run_command

CONFIG = {
    **{"vocab_size": len(VOCABULARY), "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2},
    **{"intermediate_size": 12, "max_position_embeddings": 32, "type_vocab_size": 2, "model_type": "bert"},
    "id2label": {"0": "negative", "1": "positive"},
}
TENSORS = {name: np.zeros(shape, np.float32) for name, shape in expected_shapes(CONFIG).items()}
LONG = "x" * 10_000_000
GOOD = "text,label\nfine,a\nbad,b\n"


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def refused(main, arguments, capsys, *said):
    """Runs a command that must fail, with everything that is to be seen from outside checked."""
    folder = Path(arguments[0])
    before = tree(folder)
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: main([str(each) for each in arguments[1:]]))
    message = capsys.readouterr().err
    errors = [line for line in message.splitlines() if line.startswith("error: ")]
    assert ended.value.code == 2 and len(errors) == 1 and "Traceback" not in message, message
    assert errors[0].isprintable() and len(errors[0]) < 5_000
    for part in said:
        assert part in errors[0]
    assert tree(folder) == before, "something was written"
    return errors[0]


def tree(folder):
    return {path: path.lstat().st_size for path in folder.rglob("*") if "caches" not in path.parts}


@pytest.fixture
def model(tmp_path):
    """A sound model folder in Hugging Face's layout."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    save_file(TENSORS, folder / "model.safetensors", {"format": "pt"})
    return folder


class TestText:
    """CSV, TSV and JSON lines."""

    @pytest.mark.parametrize(
        "name, content, said",
        [
            ("a.csv", b"text,label\nfi\0ne,a\nbad,b\n", ["line 2", "NUL character"]),
            ("a.tsv", b"text\tlabel\nfi\0ne\ta\nbad\tb\n", ["line 2", "'text'", "NUL character"]),
            ("a.csv", f"{GOOD}{LONG},a\n".encode(), ["line 4", "'text'", "10,000,000 characters"]),
            ("a.tsv", f"text\tlabel\n{LONG}\ta\n".encode(), ["line 2", "'text'", "10,000,000 characters"]),
            ("a.jsonl", json.dumps({"text": LONG, "label": 1}).encode(), ["line 1", "'text'", "10,000,000 characters"]),
            ("a.csv", f"text,label\n{LONG}\n".encode(), ["line 2", "1 field "]),
            ("a.csv", LONG.encode(), ["line 1", "no column 'text'"]),
            ("a.csv", GOOD.encode() + "naïve,a\n".encode("latin-1"), ["line 4", "byte 3", "not UTF-8"]),
            ("a.csv", GOOD.encode("utf-16"), ["line 1", "byte 1", "not UTF-8"]),
            ("a.csv", b'text,label\n"fine,a\nbad,b\n', ["line 2", "quoting"]),
            ("a.csv", b"text,text,label\na,b,c\n", ["line 1", "more than one column 'text'"]),
            ("a.csv", b"text,label\nfine,\x1b[31m\nbad,b\n", ["line 2", "'label'", "no label"]),
            (
                "a.csv",
                b"text,label\n" + b"".join(b"t,%d\n" % i for i in range(10_001)),
                ["'label'", "10,001 different"],
            ),
            ("a.jsonl", b"[" * 100_000, ["line 1", "nested"]),
            ("a.jsonl", b'{"text": "a", "text": "b", "label": 1}', ["line 1", "'text' is there twice"]),
            ("a.jsonl", b'{"text": "a", "label": ' + b"9" * 5_000 + b"}", ["line 1", "not a JSON object"]),
            ("a.jsonl", b'{"text": "\\ud800", "label": 1}', ["line 1", "'text'", "surrogate"]),
        ],
    )
    def test_own_files(self, tmp_path, capsys, name, content, said):
        path = tmp_path / name
        path.write_bytes(content)
        columns = ("--text-column", "text", "--label-column", "label", "--output", tmp_path / "out.json")
        refused(data, [tmp_path, "--train", path, "--eval-file", path, *columns], capsys, name, *said)

    def test_a_device_and_a_pipe_are_no_files(self, tmp_path, capsys):
        (tmp_path / "a.csv").symlink_to("/dev/zero")
        os.mkfifo(tmp_path / "b.csv")
        for name in ("a.csv", "b.csv"):
            own = ["--train", tmp_path / name, "--eval-fraction", "0.5", "--text-column", "t", "--label-column", "l"]
            refused(data, [tmp_path, *own], capsys, name, "no plain file")

    @pytest.mark.parametrize("dataset, name, row", [("sst2", "dev.tsv", "fine\t2"), ("ag_news", "test.csv", "5,a,b")])
    def test_labels_out_of_range(self, tmp_path, capsys, dataset, name, row):
        head = "sentence\tlabel\ngood\t1\nbad\t0\n" if dataset == "sst2" else "1,a,b\n2,a,b\n"
        for file in ("train.tsv", "dev.tsv", "train.csv", "test.csv"):
            (tmp_path / file).write_text(head)
        (tmp_path / name).write_text(f"{head}{row}\n")
        message = refused(data, [tmp_path, "--dataset", dataset, "--data-dir", tmp_path], capsys, name, "unknown label")
        assert "line 4" in message or "line 3" in message

    def test_a_review_that_is_a_bomb(self, tmp_path, capsys):
        archive = tmp_path / "aclImdb_v1.tar.gz"
        with tarfile.open(archive, "w:gz") as tar, open("/dev/zero", "rb") as zeros:
            member = tarfile.TarInfo("aclImdb/test/neg/0_1.txt")
            member.size = 30_000_000
            tar.addfile(member, zeros)
        assert archive.stat().st_size < 100_000
        said = (archive.name, "test/neg/0_1.txt", "30,000,000 bytes")
        refused(data, [tmp_path, "--dataset", "imdb", "--data-dir", tmp_path], capsys, *said)

    def test_sentences_cannot_steer_the_terminal(self, tmp_path, capsys):
        path = tmp_path / "a.csv"
        path.write_text("text,label\n\x1b]0;owned\x07<script>alert(1)</script>,a\nbad,b\n")
        own = ("--train", path, "--eval-file", path, "--text-column", "text", "--label-column", "label", "--show", "2")
        assert data([str(each) for each in own]) == 0
        shown = capsys.readouterr().out
        assert "\x1b" not in shown and "\\x1b]0;owned\\x07<script>alert(1)</script>" in shown


class TestModels:
    """config.json, weights and archives."""

    @pytest.mark.parametrize(
        "change, said",
        [
            ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
            ({"hidden_size": 10**12}, "hidden_size is 1000000000000"),
            ({"hidden_size": -8}, "hidden_size is -8"),
            ({"hidden_size": 8.0}, "hidden_size is 8.0"),
            ({"num_hidden_layers": "1"}, "num_hidden_layers is '1'"),
            ({"layer_norm_eps": float("nan")}, "layer_norm_eps is nan"),
            ({"num_labels": 10**9, "id2label": None}, "num_labels is 1000000000"),
            ({"pad_token_id": 10**9}, "pad_token_id is 1000000000"),
            ({"id2label": {"0": "no\x1b[31m", "1": "yes"}}, "id2label has a label"),
            ({"id2label": {"0": "\ud800", "1": "yes"}}, "surrogate"),
            ({"hidden_act": [1]}, "hidden_act is [1]"),
        ],
    )
    @pytest.mark.parametrize("command", ["convert", "attack"])
    def test_absurd_configurations(self, model, tmp_path, capsys, change, said, command):
        (model / "config.json").write_text(json.dumps(CONFIG | change))
        if command == "convert":
            arguments = ["to-mindspore", model, tmp_path / "out"]
        else:
            arguments = [model, "--attack", "synonym", "--dataset", "demo"]
        refused(convert if command == "convert" else attack, [tmp_path, *arguments], capsys, "config.json", said)

    @pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b'{"a": 1, "a": 2}', b"null"])
    def test_a_configuration_that_is_none(self, model, tmp_path, capsys, content):
        (model / "config.json").write_bytes(content)
        refused(convert, [tmp_path, "to-mindspore", model, tmp_path / "out"], capsys, "config.json")

    @pytest.mark.parametrize(
        "header, length, said",
        [
            (None, 1 << 60, "header too large"),
            ({"a": ("F32", [4], [0, 16]), "b": ("F32", [4], [0, 16])}, None, "offset"),
            ({"a": ("F32", [4], [0, 1 << 40])}, None, "offset"),
            ({"a": ("F32", [5], [0, 16])}, None, "shape"),
            ({"a": ("I64", [4], [0, 16])}, None, "shape"),
            ({"a": ("F32", [1 << 62, 4], [0, 16])}, None, "overflow"),
            ({"a": ("BF16", [0, 1 << 63], [0, 0])}, None, ""),
            ('{"a": %s, "a": %s}' % (('{"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}',) * 2), None, "twice"),
        ],
    )
    def test_safetensors_whose_header_lies(self, model, tmp_path, capsys, header, length, said):
        if isinstance(header, dict):
            names = ("dtype", "shape", "data_offsets")
            header = json.dumps({name: dict(zip(names, values, strict=True)) for name, values in header.items()})
        text = (header or "{}").encode()
        (model / "model.safetensors").write_bytes(struct.pack("<Q", length or len(text)) + text + b"\0" * 16)
        where = "not a whole safetensors file"
        refused(convert, [tmp_path, "to-mindspore", model, tmp_path / "out"], capsys, "model.safetensors", where, said)
        refused(
            attack, [tmp_path, model, "--attack", "synonym", "--dataset", "demo"], capsys, "model.safetensors", said
        )

    def test_checkpoints_that_are_cut_damaged_or_of_another_model(self, model, tmp_path, capsys):
        (model / "model.safetensors").unlink()
        path = model / "model.ckpt"
        checkpoint_file.write_ckpt(path, TENSORS)
        whole = path.read_bytes()
        for content in (whole[:-5], whole[:100], b"", b"PK\x03\x04", whole.replace(b"Float32", b"Float16")):
            path.write_bytes(content)
            refused(convert, [tmp_path, "to-pytorch", model, tmp_path / "out"], capsys, "model.ckpt", "not a whole")
        checkpoint_file.write_ckpt(path, dict(list(TENSORS.items())[:-1]))
        said = ("model.ckpt", "missing: classifier.bias")
        refused(convert, [tmp_path, "to-pytorch", model, tmp_path / "out"], capsys, *said)

    def test_code_in_a_pickle_is_not_run(self, model, tmp_path, capsys):
        (model / "model.safetensors").unlink()
        mark = tmp_path / "mark"
        (model / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Evil(mark)}, protocol=2))
        refused(convert, [tmp_path, "to-mindspore", model, tmp_path / "out"], capsys, "pytorch_model.bin", "code")
        pickle.loads((model / "pytorch_model.bin").read_bytes())
        assert mark.exists(), "the file is not as malicious as it claims"

    @pytest.mark.parametrize("name", ["../../out", "/tmp/out", "a/../../out"])
    def test_archives_with_names_that_lead_elsewhere(self, tmp_path, capsys, monkeypatch, name):
        monkeypatch.setenv("TA_CACHE_DIR", str(tmp_path / "caches"))
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
            archive.writestr(name, "x")
        refused(resources, [tmp_path, "import", tmp_path / "bad.zip"], capsys, "bad.zip", "leads out of the folder")


class TestSettings:
    """YAML files of the user's, and those of a run folder."""

    BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40)) + "epochs: *a39"
    MERGE = "a0: &a0 {x: 1}\n" + "".join(
        f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12)
    )

    @pytest.mark.parametrize(
        "text, said",
        [
            ("epochs: !!python/object/apply:os.system ['touch mark']", "tag"),
            ("epochs: !!python/name:os.system", "tag"),
            (BOMB, "aliases are not taken"),
            (MERGE, "aliases are not taken"),
            ("epochs: " + "[" * 5_000, "nested more than 50 deep"),
            ("epochs: 1\nepochs: 2", "'epochs' is there twice"),
            ("epochs: 2001-13-45", "month"),
            ("epochs: " + "9" * 5_000, "digits"),
            ("epochs: 0x" + "f" * 5_000, "epochs is an enormous number"),
            ("learning_rate: " + "9" * 400, "learning_rate is"),
            ("epochs: 1000000000000", "epochs is 1000000000000"),
            ('output_dir: "a\\0b"', "output_dir is"),
            ('output_dir: "\\ud800"', ""),
            ("model: [[1]]", "model is [[1]]; expected text"),
            ("method: ../../../etc/passwd", "method is"),
            ("method: [a]", "method is ['a']"),
            ("options: 3", "options is 3"),
            ("x" * 200_000, "larger than"),
            ("a: \0", "not valid YAML"),
        ],
    )
    def test_settings_files(self, tmp_path, capsys, monkeypatch, text, said):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "my.yaml").write_text(text)
        refused(train, [tmp_path, "--config", tmp_path / "my.yaml"], capsys, "my.yaml", said)

    @pytest.mark.parametrize(
        "text, said",
        [
            ("dataset: [1]", "dataset is [1]; expected text"),
            ("dataset: demo\nmax_length: x", "max_length is 'x'"),
            ("dataset: demo\ndata_dir: 5", "data_dir is 5"),
            ("- a", "not a list of settings"),
            (BOMB, "aliases are not taken"),
            ("a: !!python/object:x.Y {}", "tag"),
        ],
    )
    def test_the_settings_of_a_run_folder(self, model, tmp_path, capsys, text, said):
        (model / "config.yaml").write_text(text)
        refused(attack, [tmp_path, model, "--attack", "synonym"], capsys, "config.yaml", said)

    @pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ["b"], "a": []}', '{"a": "b"}', "[]", '{"a": ["\\ud800"]}'])
    def test_lists_of_near_words(self, model, tmp_path, capsys, text):
        (tmp_path / "near.json").write_text(text)
        arguments = [model, "--attack", "synonym", "--dataset", "demo", "--neighbours", tmp_path / "near.json"]
        refused(attack, [tmp_path, *arguments], capsys, "near.json")
