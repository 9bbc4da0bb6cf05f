"""The names users rely on, and that they cost nothing until they are used."""

import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import mindspore_floodx
from mindspore_floodx.cli import commands

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("mindspore", "torch", "transformers", "textattack", "numpy")


def test_public_names():
    from ckpt_convert import to_mindspore, to_onnx, to_pytorch

    names = {
        "AccordanceCallback",
        "BertConfig",
        "BertForSequenceClassification",
        "CellAccordance",
        "FloodingTrainOneStepCell",
        "GradientAccordance",
        "MindSporeModelWrapper",
        "accordance_from_gradients",
        "attack",
        "choose_flood_level",
        "measure_accordance",
        "measure_smoothness",
        "measure_timing",
        "push_to_hub",
        "train",
        "write_model_card",
    }
    assert names == set(mindspore_floodx.__all__)
    for each in (to_mindspore, to_onnx, to_pytorch, *(getattr(mindspore_floodx, name) for name in names)):
        assert callable(each) and each.__doc__, each
    with pytest.raises(AttributeError, match="no attribute 'Bert'"):
        mindspore_floodx.Bert


def test_importing_the_package_or_a_command_loads_no_framework():
    code = (
        "import sys, mindspore_floodx, mindspore_floodx.cli.train, mindspore_floodx.cli.commands;"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert out == "[]\n"


def test_version_is_the_installed_one():
    assert mindspore_floodx.__version__ == importlib.metadata.version("mindspore-floodx")


@pytest.mark.parametrize(
    "name",
    [
        "train",
        "data",
        "attack",
        "accordance",
        "sweep",
        "smoothness",
        "timing",
        "reproduce",
        "compare",
        "textattack-files",
        "model-card",
        "resources",
        "standin-mlm",
        "demo",
        "doctor",
        "convert",
    ],
)
def test_console_commands(monkeypatch, name):
    """Every installed command leads to a module with a `main`, and run/ has a thin script for it."""
    (entry,) = [
        point for point in importlib.metadata.entry_points(group="console_scripts") if point.name == f"floodx-{name}"
    ]
    module_name = name.replace("-", "_")
    assert entry.value == f"mindspore_floodx.cli.commands:{module_name}"
    opened = []
    monkeypatch.setattr(commands, "_run", opened.append)
    entry.load()()
    (module,) = opened
    found = importlib.util.find_spec(module)
    assert found is not None and found.origin is not None, f"{module} is missing"
    assert "def main(" in Path(found.origin).read_text(encoding="utf-8")
    if name != "convert":
        script = (ROOT / "run" / f"{module_name}.py").read_text(encoding="utf-8")
        assert f"from {module} import main" in script and len(script.splitlines()) < 10
