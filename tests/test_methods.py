"""Choosing a method by name: ours, and one that another package brings along."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from training_files import command_line, make_training_files, rows

from mindspore_floodx.errors import UserError
from mindspore_floodx.methods import NEEDED_BY, OWN, find_defence, method_names
from mindspore_floodx.settings import TrainSettings, config_folder
from mindspore_floodx.trainer import train

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


@pytest.mark.parametrize("method", ["iflood", "softad", "adaflood", "selective", *PERTURBED])
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


def test_auxiliary_losses_are_computed_once(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FLOODX_CACHE", str(tmp_path / "cache"))
    options = files | {"adaflood_folds": 2, "adaflood_epochs": 1, "epochs": 1}
    first = train(**options, method="adaflood", output_dir=str(tmp_path / "first"))
    assert "auxiliary model" in capsys.readouterr().err
    again = train(**options, method="adaflood", output_dir=str(tmp_path / "again"))
    assert "auxiliary model" not in capsys.readouterr().err
    assert rows(first / "log.csv")[-1]["loss"] == rows(again / "log.csv")[-1]["loss"]
    kept = np.load(next((tmp_path / "cache").glob("auxiliary-held-out-*.npy")))
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
