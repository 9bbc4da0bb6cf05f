"""Choosing a method by name: ours, and one that another package brings along."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from training_files import command_line, make_training_files, rows

from mindspore_floodx.defences.preparation import Preparation, _Auxiliary
from mindspore_floodx.device import use_device
from mindspore_floodx.encoding import encode, load_tokenizer
from mindspore_floodx.errors import UserError
from mindspore_floodx.methods import NEEDED_BY, OWN, find_defence, method_names
from mindspore_floodx.settings import TrainSettings, config_folder, resolve
from mindspore_floodx.trainer import train
from mindspore_floodx.training_inputs import load_data

ROOT = Path(__file__).resolve().parent.parent
PERTURBED = ("pgd", "freelb", "tavat", "infobert")


def test_every_method_has_a_class_a_file_of_settings_and_only_real_settings():
    for method in OWN:
        assert find_defence(method).__doc__
        assert (config_folder() / "methods" / f"{method}.yaml").is_file()
    fields = TrainSettings.__dataclass_fields__
    for setting, methods in NEEDED_BY.items():
        assert setting in fields
        assert set(methods) <= set(OWN)


def test_an_unknown_method_is_refused():
    with pytest.raises(UserError, match=re.escape("there is no method 'freelbb' (did you mean 'freelb'?)")):
        find_defence("freelbb")


@pytest.fixture(scope="module")
def files(tmp_path_factory, minilm_folder):
    return make_training_files(tmp_path_factory.mktemp("methods"), minilm_folder)


OTHERS_COVER = ("iflood", "softad", "pgd", "tavat")  # in the ordinary run: their steps, in test_defences.py


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(method, marks=[pytest.mark.slow] * (method in OTHERS_COVER))
        for method in ("iflood", "softad", "adaflood", "selective", *PERTURBED)
    ],
)
def test_every_method_trains_and_converts(files, method, tmp_path):
    """Two epochs with batches of different lengths, the last one smaller; the export is verified by the run."""
    small = {"adversarial_steps": 2} if method in (*PERTURBED, "selective") else {}
    small |= {"adaflood": {"adaflood_folds": 2, "adaflood_epochs": 1}, "selective": {"selective_epochs": 1}}.get(
        method, {}
    )
    run = train(**files, method=method, **small, output_dir=str(tmp_path / "run"))
    assert (run / "export" / "model.safetensors").is_file()
    losses = [float(row["loss"]) for row in rows(run / "log.csv")]
    assert len(losses) == 10
    assert np.isfinite(losses).all()
    kept = run / "checkpoint" / "defence.safetensors"
    assert kept.is_file() == (method in ("tavat", "infobert"))
    if method == "tavat":
        from safetensors.numpy import load_file

        assert load_file(kept)["table"].shape == (30522, 32)


@pytest.fixture
def preparation(files, tmp_path, monkeypatch):
    monkeypatch.setenv("FLOODX_CACHE", str(tmp_path / "cache"))
    settings = resolve(files | {"method": "selective", "adversarial_steps": 2, "adversarial_step_size": 0.5})
    use_device("CPU", 1)
    dataset = load_data(settings)
    train_set = encode(dataset.train, load_tokenizer(settings.model), settings.max_length)
    return Preparation(settings, train_set, tuple(dataset.label_names), Path(settings.model))


def test_an_auxiliary_model_has_not_seen_the_examples_it_is_asked_about(preparation, monkeypatch):
    trained, asked = [], []
    train_on, losses_of = _Auxiliary.train, _Auxiliary.losses
    monkeypatch.setattr(
        _Auxiliary,
        "train",
        lambda self, examples, *more: (trained.append(set(examples)), train_on(self, examples, *more)),
    )
    monkeypatch.setattr(
        _Auxiliary, "losses", lambda self, examples: (asked.append(set(examples)), losses_of(self, examples))[1]
    )
    losses = preparation.held_out_losses(folds=3, epochs=2)
    assert losses.shape == (37,)
    assert len(trained) == 6 and len(asked) == 3
    assert set().union(*asked) == set(range(37)) and sum(map(len, asked)) == 37
    for fold, part in enumerate(asked):
        assert trained[2 * fold] == trained[2 * fold + 1] == set(range(37)) - part


def test_perturbed_losses_lie_above_the_plain_ones_of_the_same_model(preparation, monkeypatch):
    plain, losses_of = [], _Auxiliary.losses

    def spied(self, examples, title, perturbed):
        plain.append(losses_of(self, examples))
        return losses_of(self, examples, title, perturbed)

    monkeypatch.setattr(_Auxiliary, "losses", spied)
    perturbed = preparation.perturbed_losses(epochs=2)
    assert perturbed.shape == (37,)
    assert (perturbed > np.mean(plain, axis=0)).mean() > 0.9


def test_auxiliary_losses_are_computed_once(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FLOODX_CACHE", str(tmp_path / "cache"))
    options = files | {"adaflood_folds": 2, "adaflood_epochs": 1, "epochs": 1}
    first = train(**options, method="adaflood", output_dir=str(tmp_path / "first"))
    assert "auxiliary model" in capsys.readouterr().err
    again = train(**options, method="adaflood", output_dir=str(tmp_path / "again"))
    assert "auxiliary model" not in capsys.readouterr().err
    assert rows(first / "log.csv")[-1]["loss"] == rows(again / "log.csv")[-1]["loss"]
    cached = (tmp_path / "cache").glob("auxiliary-held-out-*.npy")
    kept = np.load(next(path for path in cached if "fold" not in path.name))  # beside those of each fold
    assert kept.shape == (37,)
    assert (kept > 0).all()


def test_the_example_of_the_documentation(files, tmp_path):
    """The page's package, installed in a folder of its own, trains by its name, with a setting of its own."""
    page = (ROOT / "docs" / "methods.md").read_text()
    code, settings = re.findall(r"```python\n(.*?)```", page, re.S)[0], re.findall(r"```yaml\n(.*?)```", page, re.S)[0]
    assert len(code.strip().splitlines()) <= 20
    (tmp_path / "focal_defence.py").write_text(code)
    installed = tmp_path / "focal_defence-0.1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: focal-defence\nVersion: 0.1\n")
    entry = re.findall(r"```toml\n.*?(\[project.entry-points[^\n]*)\n([^\n]*)\n```", page, re.S)[0]
    assert entry[0] == '[project.entry-points."mindspore_floodx.defences"]'
    (installed / "entry_points.txt").write_text(f"[mindspore_floodx.defences]\n{entry[1].replace(chr(34), '')}\n")
    (tmp_path / "focal.yaml").write_text(settings)
    options = command_line(files | {"epochs": 1, "output_dir": str(tmp_path / "run")})
    command = [sys.executable, str(ROOT / "run/train.py"), "--config", str(tmp_path / "focal.yaml"), *options]
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "focal, " in done.stdout
    assert (tmp_path / "run" / "export").is_dir()


def test_a_package_that_cannot_be_imported_is_named(tmp_path):
    installed = tmp_path / "broken_defence-0.1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-defence\nVersion: 0.1\n")
    (installed / "entry_points.txt").write_text("[mindspore_floodx.defences]\nbroken = not_there:Defence\n")
    code = "from mindspore_floodx.methods import find_defence; find_defence('broken')"
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert "method broken of the package broken-defence cannot be loaded: No module named 'not_there'" in done.stderr
    assert "broken" not in method_names()
