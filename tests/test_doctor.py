"""The doctor: what it reports, what it calls wrong, and that its check of a training step tells right from wrong."""

import importlib.metadata
import json
import subprocess

import fake_cuda
import numpy as np
import pytest

from mindspore_floodx import cuda_driver, cuda_libraries, doctor
from mindspore_floodx.cli.commands import command_line
from mindspore_floodx.cli.doctor import main
from mindspore_floodx.self_check import find_problems

NAMES = [library.name for library in cuda_libraries.LIBRARIES]
CHECK = {
    "device": "CPU",
    "compile_seconds": 5.0,
    "first_step_seconds": 0.1,
    "seconds_per_step": 0.01,
    "losses": [0.7, 0.7, 0.7, 0.5, 0.3, 0.2, 0.1],
    "loss_error": 1e-7,
    "flood_error": 1e-5,
    "moved": 1.0,
}


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine whose CUDA folder, driver and checks the test decides on; nothing is computed."""
    folder = tmp_path / "cuda"
    folder.mkdir()
    for name in NAMES:
        (folder / name).touch()
    monkeypatch.setenv("FLOODX_CACHE", str(tmp_path))
    for name in doctor.CUDA_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cuda_libraries, "folders", lambda: [folder])
    monkeypatch.setattr(cuda_libraries, "unresolved", lambda plugin, found: [])
    monkeypatch.setattr(cuda_libraries, "plugin_path", lambda: folder / "libmindspore_gpu.so.11.6")
    monkeypatch.setattr(cuda_driver, "DRIVER_PLACES", ("libno-such-driver.so.1",))
    monkeypatch.setattr(cuda_driver, "driver_release", lambda: "535.104.05")
    monkeypatch.setattr(cuda_driver, "free_memory_mib", lambda: (70 * 1024,))
    monkeypatch.setattr(doctor, "run_check", lambda device, threads: CHECK | {"device": device, "problems": []})
    return folder


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    return fake_cuda.make_driver(tmp_path_factory.mktemp("driver"))


def table(capsys, *options):
    status = main(options)
    return status, capsys.readouterr().out


def line(out, start):
    (found,) = [line.split() for line in out.splitlines() if line.startswith(start + "  ")]
    return found[len(start.split()) :]


def test_the_check_on_this_machine(tmp_path):
    """The whole command: a tiny BERT is trained on the CPU, its loss falls and is NumPy's, flooding mirrors a step."""
    command = command_line("doctor", ["--device", "CPU", "--threads", "1", "--json"])
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads(ended.stdout)
    assert report["ok"] and report["problems"] == [] and list(report["checks"]) == ["CPU"]
    check = report["checks"]["CPU"]
    assert len(check["losses"]) == 30
    assert np.log(2) - 0.1 < check["losses"][0] < np.log(2) + 0.1 and check["losses"][-1] < 0.1
    assert 0 < check["loss_error"] < 1e-5 and check["flood_error"] < 1e-3 and check["moved"] == pytest.approx(1, 1e-3)
    assert 0 < check["seconds_per_step"] < check["first_step_seconds"] + 10
    assert report["packages"]["mindspore"] == importlib.metadata.version("mindspore")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"losses": [0.7] * 9}, "the loss does not fall: 0.700 in the first steps, 0.700 in the last"),
        ({"losses": [0.7, 0.6, float("nan"), 0.1, 0.1, 0.1]}, "a loss is not finite"),
        ({"loss_error": 0.01}, "the loss is off by 1.0e-02 from NumPy's"),
        ({"loss_error": float("nan")}, "the loss is off by nan from NumPy's"),
        ({"flood_error": 2.0}, "a flooded step below the level is not the mirrored step: off by 2.0e+00"),
        ({"moved": 0.0, "flood_error": 0.0}, "Adam's first step is 0.000 of the learning rate instead of 1"),
    ],
)
def test_a_step_that_is_wrong(wrong, sentence):
    assert find_problems(CHECK) == []
    (problem,) = find_problems(CHECK | wrong)
    assert problem == sentence


def test_no_driver_is_well_unless_a_gpu_is_demanded(machine, capsys):
    (machine / "libcudnn.so.8").unlink()
    status, out = table(capsys)
    assert status == 0 and out.endswith("\nall is well\n")
    assert line(out, "NVIDIA driver") == ["none"] and line(out, "training step on GPU") == ["not", "run"]
    assert "no GPU is used here: there is no NVIDIA driver" in out
    assert line(out, "libcudnn.so.8") == ["missing", "package", "nvidia-cudnn-cu11"]
    status, out = table(capsys, "--device", "GPU")
    assert status == 1 and line(out, "NVIDIA driver") == ["missing"]
    first, second = out.split("what is wrong:\n")[1].splitlines()
    assert first.startswith("- there is no NVIDIA driver") and second.startswith("- the GPU needs libcudnn.so.8, not")


def test_a_card(machine, driver, monkeypatch, capsys):
    monkeypatch.setattr(cuda_driver, "DRIVER_PLACES", (str(driver),))
    status, out = table(capsys)
    assert status == 0 and line(out, "NVIDIA driver") == ["ok", "535.104.05,", "for", "CUDA", "up", "to", "12.2"]
    about = " ".join(line(out, "GPU"))
    assert about.startswith("ok Fake Card, 80 GiB (70 free), compute capability 9.0; the driver compiles MindSpore's")
    assert line(out, "losses, GPU against CPU") == ["ok", "differ", "by", "0.0e+00", "at", "most"]
    assert "CUDA_MODULE_LOADING" in out
    report = doctor.examine()
    assert report["gpu"]["demanded"] and set(report["checks"]) == {"CPU", "GPU"}
    assert not doctor.examine("CPU")["gpu"]["demanded"]  # a driver, but a GPU is left out
    monkeypatch.setenv("FAKE_MAJOR", "8")
    assert "compiles" not in table(capsys)[1]


def test_a_driver_that_cannot_be_used_is_wrong(machine, driver, monkeypatch, capsys):
    monkeypatch.setattr(cuda_driver, "DRIVER_PLACES", (str(driver),))
    monkeypatch.setenv("FAKE_CUDA", "10020")
    status, out = table(capsys)
    assert status == 1 and line(out, "NVIDIA driver")[0] == "wrong" and line(out, "NVIDIA driver")[-1] == "10.2"
    assert "- the NVIDIA driver is too old" in out and line(out, "training step on GPU") == ["not", "run"]
    monkeypatch.delenv("FAKE_CUDA")
    (machine / NAMES[0]).unlink()
    status, out = table(capsys)
    assert status == 1 and "- the GPU needs libcudart.so.11.0, not found here; run: pip install" in out
    monkeypatch.setattr(cuda_libraries, "unresolved", lambda plugin, found: ["libcuda.so.1", NAMES[0], "libgomp.so.1"])
    assert "- MindSpore's GPU part needs libgomp.so.1; install" in table(capsys)[1]


def test_a_gpu_that_computes_otherwise(machine, driver, monkeypatch, capsys):
    monkeypatch.setattr(cuda_driver, "DRIVER_PLACES", (str(driver),))

    def run_check(device, threads):
        losses = [loss + 0.01 * (device == "GPU") for loss in CHECK["losses"]]
        return CHECK | {"device": device, "losses": losses, "problems": []}

    monkeypatch.setattr(doctor, "run_check", run_check)
    status, out = table(capsys)
    assert status == 1 and "- GPU: the losses of the check differ from those on the CPU by 1.0e-02" in out
    monkeypatch.setattr(doctor, "run_check", lambda device, threads: {"device": device, "problems": ["it is broken"]})
    status, out = table(capsys)
    assert status == 1 and "- CPU: it is broken\n- GPU: it is broken\n" in out
    assert line(out, "training step on CPU") == ["wrong"]


def test_a_check_that_fails(monkeypatch):
    monkeypatch.setenv("FLOODX_CUDA_LIBRARIES", "/no/such/folder")  # where there is a card, this is what is wrong
    (problem,) = doctor.run_check("GPU")["problems"]
    assert "NVIDIA driver" in problem or "which is no folder" in problem
    assert doctor._why_it_ended(-11, "") == "the check of a training step was ended by SIGSEGV"
    assert (
        doctor._why_it_ended(2, "[WARNING] a\nerror: no driver; install it\n[ERROR] late\n") == "no driver; install it"
    )
    assert doctor._why_it_ended(1, "Traceback:\nModuleNotFoundError: No module named 'mindspore'\n").endswith("spore'")


def test_packages_are_compared_with_what_is_required(monkeypatch):
    assert doctor.package_problems() == []
    required = ["numpy<1", "no-such-package>=2", "also-none; extra == 'gpu'", "pytest"]
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: required)
    numpy, none = doctor.package_problems()
    assert numpy == f"numpy {np.__version__} does not suit; run: pip install 'numpy<1'"
    assert none == "no-such-package is not installed; run: pip install 'no-such-package>=2'"
