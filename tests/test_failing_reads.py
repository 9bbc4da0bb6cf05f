"""Files that cannot be read, or not to their end: one sentence that names the file, exit code 2, nothing written."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ckpt_convert.checkpoint_file import write_ckpt
from mindspore_floodx.attack_journal import read_records
from mindspore_floodx.attack_standin import read_neighbours
from mindspore_floodx.counter_fitted import read_text as read_vectors
from mindspore_floodx.errors import UserError
from mindspore_floodx.files import sha256_of
from mindspore_floodx.model_config import read_config
from mindspore_floodx.pretrained import read_weight_file, safetensors_types
from mindspore_floodx.readers import read_rows
from mindspore_floodx.safe_pickle import load_plain
from mindspore_floodx.untrusted import read_yaml

ROOT = Path(__file__).resolve().parents[1]
READERS = {
    "rows.csv": lambda path: read_rows(path, ["text"]),
    "rows.jsonl": lambda path: read_rows(path, ["text"]),
    "config.json": read_config,
    "settings.yaml": read_yaml,
    "lists.json": read_neighbours,
    "examples.jsonl": read_records,
    "model.safetensors": safetensors_types,
    "pytorch_model.bin": read_weight_file,
    "vectors.txt": lambda path: read_vectors(path, 2, 2),
    "pairs.pickle": load_plain,
    "vocab.txt": sha256_of,
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has /proc/self/mem")
@pytest.mark.parametrize("name", READERS)
def test_a_file_whose_first_byte_cannot_be_read(tmp_path, name):
    """The system's own error: a process has no memory at address 0, and reading there is an input/output error."""
    (tmp_path / name).symlink_to("/proc/self/mem")
    with pytest.raises(UserError) as refused:
        READERS[name](tmp_path / name)
    said = str(refused.value)
    assert name in said and "\n" not in said
    assert "nput/output error" in said or name == "pytorch_model.bin"  # PyTorch has words of its own


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A tiny model in three forms, data, settings and lists of words, by name."""
    import torch
    from safetensors.numpy import load_file
    from tiny_victim import NEIGHBOURS, export_tiny

    folder = tmp_path_factory.mktemp("files")
    model = export_tiny(folder / "model")
    weights = load_file(model / "model.safetensors")
    for name in ("bin", "ckpt"):
        shutil.copytree(model, folder / name, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save({name: torch.from_numpy(each) for name, each in weights.items()}, folder / "bin" / "pytorch_model.bin")
    (folder / "ckpt" / "vocab.txt").write_text("word\n" * 1000)
    write_ckpt(folder / "ckpt" / "model.ckpt", {name: np.ascontiguousarray(each) for name, each in weights.items()})
    rows = [("a plain text of some words", "positive"), ("and another text", "negative")] * 200
    (folder / "rows.csv").write_text("text,label\n" + "".join(f'"{text}",{label}\n' for text, label in rows))
    shutil.copy(folder / "rows.csv", folder / "test.csv")
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": a, "label": b}) + "\n" for a, b in rows))
    (folder / "lists.json").write_text(json.dumps(NEIGHBOURS))
    (folder / "run.yaml").write_text("epochs: 1\n" + "# nothing more is said here\n" * 200)
    return folder


def cases(files, output):
    """Commands by what fails in them."""
    own = ["--text-column", "text", "--label-column", "label"]

    def train(rows="rows.jsonl", *more):
        words = ["--train", str(files / rows), "--eval-file", str(files / "test.csv"), *own]
        words += ["--model", str(files / "model"), "--output-dir", str(output), "--method", "finetune"]
        return "mindspore_floodx.cli.train", [*words, *more]

    def attack(*more):
        words = [str(files / "model"), "--attack", "synonym", "--eval-file", str(files / "rows.csv"), *own]
        return "mindspore_floodx.cli.attack", [*words, "--output-dir", str(output), *more]

    def convert(direction, source):
        return "ckpt_convert.command", [direction, str(files / source), str(output)]

    return {
        "training, data": (*train(), "rows.jsonl"),
        "training, data as CSV": (*train("rows.csv"), "rows.csv"),
        "training, settings": (*train("rows.csv", "--config", str(files / "run.yaml")), "run.yaml"),
        "training, configuration": (*train(), "model/config.json"),
        "training, weights": (*train(), "model/model.safetensors"),
        "training, tokenizer": (*train(), "model/tokenizer.json"),
        "training, vocabulary": (*train(), "model/vocab.txt"),
        "attack, data": (*attack(), "rows.csv"),
        "attack, weights": (*attack(), "model/model.safetensors"),
        "attack, tokenizer": (*attack(), "model/tokenizer.json"),
        "attack, near words": (*attack("--neighbours", str(files / "lists.json")), "lists.json"),
        "conversion, weights": (*convert("to-mindspore", "model"), "model/model.safetensors"),
        "conversion, tokenizer": (*convert("to-mindspore", "model"), "model/tokenizer.json"),
        "conversion, configuration": (*convert("to-mindspore", "model"), "model/config.json"),
        "conversion, PyTorch file": (*convert("to-mindspore", "bin"), "bin/pytorch_model.bin"),
        "conversion, MindSpore file": (*convert("to-pytorch", "ckpt"), "ckpt/model.ckpt"),
    }


@pytest.fixture(scope="module")
def outcomes(files, tmp_path_factory):
    """What each command did whose file fails in its middle, and twice the same one, at first undisturbed, then slow."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler on Linux: reads that fail in the middle of a file are not injected")
    folder = tmp_path_factory.mktemp("outcomes")
    library = folder / "failing_reads.so"
    source = ROOT / "tests" / "failing_reads.c"
    subprocess.run([compiler, "-O", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    given = {}
    for name in cases(files, folder):
        output = folder / name.replace(" ", "-").replace(",", "")
        module, words, file = cases(files, output)[name]
        path = (files / file).resolve()
        given[name] = {"module": module, "words": words, "file": str(path), "after": path.stat().st_size // 2}
        given[name]["output"] = str(output)
    for name, delay in (("undisturbed", 0), ("slow", 400_000)):
        _, words, file = cases(files, folder / name)["training, data as CSV"]
        given[name] = {"module": "mindspore_floodx.cli.data", "words": words[:8], "file": str(files / file)}
        given[name] |= {"delay": delay, "output": str(folder / name)}
    found = subprocess.run(
        [sys.executable, ROOT / "tests" / "failing_reads.py"],
        input=json.dumps(list(given.values())),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT)},
    )
    results = json.loads(found.stdout)
    return {name: case | each for (name, case), each in zip(given.items(), results, strict=True)}


def test_a_file_that_fails_in_its_middle(files, outcomes):
    for name in cases(files, files):
        outcome = outcomes[name]
        file = Path(outcome["file"]).name
        assert outcome["status"] == 2, (name, outcome)
        assert outcome["err"].startswith("error: ") and outcome["err"].count("\n") == 1, (name, outcome["err"])
        assert file in outcome["err"], (name, outcome["err"])
        assert not Path(outcome["output"]).exists(), (name, list(Path(outcome["output"]).iterdir()))
    told = [outcome["err"] for outcome in outcomes.values() if "nput/output error" in outcome["err"]]
    assert len(told) >= len(cases(files, files)) - 1  # PyTorch's reader has words of its own


def test_a_slow_file_is_only_slow(outcomes):
    quick, slow = outcomes["undisturbed"], outcomes["slow"]
    assert quick["status"] == slow["status"] == 0, slow["err"]
    assert quick["out"] == slow["out"] != ""
    assert slow["seconds"] > 0.4
