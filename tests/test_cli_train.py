"""The command: options, layers of settings, and how a run ends that is refused or stopped."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from training_files import command_line, make_training_files, rows

from mindspore_floodx import trainer
from mindspore_floodx.bert import BertForSequenceClassification
from mindspore_floodx.cli import train as command
from mindspore_floodx.device import use_device
from mindspore_floodx.errors import UserError
from mindspore_floodx.methods import NEEDED_BY
from mindspore_floodx.run_state import load
from mindspore_floodx.settings import TrainSettings

use_device("CPU", 1)
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def resolved(monkeypatch):
    """Settings that `main` would have trained with."""
    seen = []

    def train(settings):
        seen.append(settings)
        return Path(settings.output_dir)

    monkeypatch.setattr(trainer, "train", train)

    def settings_of(*words):
        assert command.main(list(words)) == 0
        return seen.pop()

    return settings_of


class TestOptions:
    def test_the_canonical_call_is_the_papers_setting(self, resolved):
        settings = resolved("--dataset", "mrpc", "--device", "GPU")
        assert settings == TrainSettings(dataset="mrpc", device="GPU")
        assert (settings.model, settings.epochs, settings.batch_size, settings.learning_rate) == (
            "bert-base-uncased",
            10,
            16,
            2e-5,
        )

    def test_every_setting_is_an_option(self, resolved, tmp_path):
        wanted = {
            "dataset": "d",
            "data_dir": "e",
            "train_file": "f",
            "eval_file": "g",
            "text_column": "h",
            "text_pair_column": "i",
            "label_column": "j",
            "eval_fraction": 0.25,
            "max_train_examples": 3,
            "min_words": 4,
            "model": "k",
            "method": "flooding",
            "flood_level": 0.5,
            "floodingx_runs": 2,
            "accordance": "snapshot",
            "sub_epochs": 13,
            "accordance_batches": 14,
            "accordance_every": 19,
            "accordance_parameters": "n",
            "flood_rule": "turns-negative",
            "flood_smoothing": 15,
            "flood_patience": 16,
            "flood_margin": 0.125,
            "flood_window": 17,
            "flood_deviations": 2.5,
            "checkpoint_every_minutes": 1.5,
            "checkpoint_every_steps": 20,
            "epochs": 6,
            "batch_size": 7,
            "learning_rate": 2e-3,
            "warmup_ratio": 0.5,
            "warmup_steps": 18,
            "weight_decay": 0.75,
            "adam_epsilon": 1e-6,
            "max_grad_norm": 1.5,
            "max_length": 9,
            "eval_batch_size": 10,
            "seed": 11,
            "device": "GPU",
            "threads": 12,
            "output_dir": "l",
            "gradient_accumulation_steps": 21,
            "precision": "float16",
            "loss_scale": 1024.0,
            "loss_scale_steps": 22,
            "track": "none",
        }
        given = ("save_every_epoch", "overwrite", "evaluate_sub_epochs", "bucket_by_length", "recompute")
        settings = resolved(*command_line(wanted), *(f"--{name.replace('_', '-')}" for name in given))
        of_other_methods = set(NEEDED_BY) - {"flood_level"} | {"options"}
        expected = wanted | dict.fromkeys(given, True) | dict.fromkeys(of_other_methods)
        assert settings.to_dict() == expected

    def test_every_setting_of_a_method_is_an_option(self, resolved):
        for setting, methods in NEEDED_BY.items():
            option, kind = "--" + setting.replace("_", "-"), TrainSettings.__dataclass_fields__[setting].type
            words = [option] if kind.startswith("bool") else [option, "2" if kind.startswith("int") else "0.75"]
            settings = resolved("--dataset", "sst2", "--method", methods[-1], *words)
            assert getattr(settings, setting) == (True if len(words) == 1 else float(words[1]))

    def test_a_file_under_the_options(self, resolved, tmp_path):
        (tmp_path / "my.yaml").write_text("dataset: sst2\nmethod: flooding\nlearning_rate: 3e-5\nsave_every_epoch: yes")
        settings = resolved("--config", str(tmp_path / "my.yaml"), "--learning-rate", "4e-5", "--no-save-every-epoch")
        assert (settings.dataset, settings.batch_size, settings.flood_level) == ("sst2", 32, 0.1)
        assert settings.learning_rate == 4e-5 and settings.save_every_epoch is False

    def test_own_files_name_no_data_set(self, resolved):
        settings = resolved("--train", "my.csv", "--text-column", "a", "--label-column", "b")
        assert (settings.dataset, settings.output_dir) == ("custom", "runs/custom-finetune-0")

    @pytest.mark.parametrize(
        "words, said",
        [
            ("--flod-level 1", r"--flod-level is not an option \(did you mean '--flood-level'\?\)"),
            ("--flood 1", "--flood is not an option"),
            ("--learning_rate 1", r"--learning_rate is not an option \(did you mean '--learning-rate'\?\)"),
            ("mrpc", "mrpc is not an option"),
            ("--method floodng", r"method is 'floodng' \(did you mean 'flooding'\?\)"),
            ("--seed -5", "seed must lie between"),
            ("--config none.yaml", r"none\.yaml: cannot be read"),
        ],
    )
    def test_refused(self, resolved, words, said):
        with pytest.raises(UserError, match=said):
            resolved(*words.split())

    def test_a_number_that_is_none(self, resolved, capsys):
        with pytest.raises(SystemExit) as ended:
            resolved("--epochs", "2.5")
        assert ended.value.code == 2
        assert "argument --epochs: '2.5' is not a whole number" in capsys.readouterr().err

    def test_the_examples_of_the_help_are_commands(self, resolved):
        examples = [line.strip() for line in command.EXAMPLES.splitlines() if line.strip().startswith("python")]
        assert len(examples) >= 3
        for example in examples:
            python, script, *words = shlex.split(example)
            assert (python, script) == ("python", "run/train.py")
            resolved(*words)


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "run").glob("*.py")))
def test_help_says_what_to_type(script):
    out = subprocess.run([sys.executable, ROOT / "run" / script, "--help"], capture_output=True, text=True, check=True)
    assert out.stdout.startswith("usage: ") and out.stderr == ""
    if script != "demo.py":  # it needs no option
        assert "example" in out.stdout
    if script == "train.py":
        assert all(
            f"--{name.replace('_', '-')}" in out.stdout or name in ("train_file", "options")
            for name in TrainSettings().to_dict()
        )
        assert "(default 2e-05)" in out.stdout and "bert-base-uncased" in out.stdout


@pytest.fixture(scope="module")
def given(minilm_folder, tmp_path_factory):
    return make_training_files(tmp_path_factory.mktemp("small"), minilm_folder)


def start(words, folder):
    return subprocess.Popen(
        [sys.executable, ROOT / "run" / "train.py", *words],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
    )


def sentence(process):
    """The one line that says what is wrong, after what MindSpore itself prints."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert "Traceback" not in err and out == ""
    *before, last = err.strip().splitlines()
    assert last.startswith("error: ") and all(line.startswith("[ERROR] ME(") for line in before), err
    return last


def test_a_gpu_that_is_not_there(given, tmp_path):
    import mindspore as ms

    if ms.hal.is_available("GPU"):
        pytest.skip("this machine has a GPU that MindSpore can use")
    message = sentence(start(command_line(given | {"device": "GPU"}), tmp_path))
    assert "driver" in message and "--device CPU works everywhere" in message
    assert list(tmp_path.iterdir()) == []  # no run folder of a run that never was


def test_the_canonical_call_without_a_hub(tmp_path):
    message = sentence(start(["--dataset", "mrpc", "--device", "GPU"], tmp_path))
    assert "mrpc" in message and "--data-dir" in message


def test_ctrl_c_keeps_the_state(given, tmp_path):
    process = start([*command_line(given | {"epochs": 100_000}), "--output-dir", "run"], tmp_path)
    run, patience = tmp_path / "run", time.monotonic() + 120
    while time.monotonic() < patience and process.poll() is None:
        if (run / "log.csv").exists() and len(rows(run / "log.csv")) > 3:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    steps = len(rows(run / "log.csv"))
    said = "the same command goes on, and the model as it is now is in run/checkpoint"
    assert f"\nstopped by Ctrl-C; after step {steps} of 500,000; {said}\n" in err
    assert "Traceback" not in err and not (run / "export").exists()
    state = load(run)
    assert state.path.name == f"step-{steps:09d}.safetensors"
    trained, fresh = (
        BertForSequenceClassification.from_pretrained(folder).state() for folder in (run / "checkpoint", given["model"])
    )
    changed = "bert.encoder.layer.0.output.dense.weight"
    assert (trained[changed] != fresh[changed]).any()
    assert (trained[changed] == state.arrays[f"model/{changed}"]).all()
    assert yaml.safe_load((run / "config.yaml").read_text())["epochs"] == 100_000
