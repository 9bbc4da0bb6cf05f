"""What is said of a driver, good or bad, and of MindSpore's errors; no card is needed."""

import mmap
import os
from pathlib import Path

import fake_cuda
import pytest

from mindspore_floodx import cuda_driver, cuda_libraries
from mindspore_floodx.cuda_driver import Card, Driver, explain_failure, query_driver
from mindspore_floodx.errors import UserError, run_command


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return fake_cuda.make_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def driver(library, monkeypatch):
    monkeypatch.setattr(cuda_driver, "DRIVER_PLACES", ("libno-such-driver.so.1", str(library)))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_driver_and_its_cards(driver, monkeypatch):
    hopper = Card("Fake Card", (9, 0), 80 * 1024)
    assert query_driver() == Driver((12, 2), (hopper,))
    assert hopper.compiles
    for name, value in (("FAKE_CUDA", "11080"), ("FAKE_COUNT", "2"), ("FAKE_MAJOR", "8"), ("FAKE_MINOR", "6")):
        monkeypatch.setenv(name, value)
    ampere = Card("Fake Card", (8, 6), 80 * 1024)
    assert query_driver() == Driver((11, 8), (ampere, ampere))
    assert not ampere.compiles


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"FAKE_CUDA": "10020"}, r"too old: it supports CUDA 10\.2, and 11\.0 or later.*update it to 450\.80\.02"),
        ({"FAKE_INIT": "100"}, "the NVIDIA driver finds no GPU; .*nvidia-smi.*--gpus all"),
        ({"FAKE_COUNT": "0"}, "the NVIDIA driver finds no GPU"),
        ({"FAKE_COUNT": "0", "CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES is '', which leaves no GPU; unset it"),
        ({"FAKE_INIT": "34"}, "only a stub to link against; take .*`stubs` out of LD_LIBRARY_PATH"),
        ({"FAKE_INIT": "802"}, "not ready; start the service nvidia-fabricmanager"),
        ({"FAKE_INIT": "803"}, "different versions; restart the machine"),
        ({"FAKE_INIT": "804"}, "cuda-compat .*; remove it from LD_LIBRARY_PATH"),
        ({"FAKE_INIT": "999"}, r"does not work \(error 999\); look at nvidia-smi"),
        ({"FAKE_MAJOR": "5"}, r"Fake Card is too old: its compute capability is 5\.0, and 6\.0 or later"),
    ],
)
def test_a_driver_that_cannot_be_used(driver, monkeypatch, environment, sentence):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=sentence) as refused:
        query_driver()
    assert str(refused.value).endswith("; --device CPU works everywhere") and "\n" not in str(refused.value)


def test_no_driver_and_a_broken_one(monkeypatch, tmp_path):
    monkeypatch.setattr(cuda_driver, "DRIVER_PLACES", ("libno-such-driver.so.1",))
    with pytest.raises(UserError, match=r"no NVIDIA driver \(libcuda.so.1 was not found\); install .*--gpus all"):
        query_driver()
    broken = tmp_path / "libcuda.so.1"
    broken.write_text("no library")
    monkeypatch.setattr(cuda_driver, "DRIVER_PLACES", (str(broken),))
    with pytest.raises(UserError, match=r"cannot be loaded \(.*libcuda.so.1.*\); install the driver again"):
        query_driver()


def test_nvidia_smi_tells_release_and_free_memory(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\ncase "$1" in *driver*) echo 535.104.05;; *free*) echo 70000; echo 9;; esac\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    if not Path("/proc/driver/nvidia/version").exists():
        assert cuda_driver.driver_release() == "535.104.05"
    assert cuda_driver.free_memory_mib() == (70000, 9)
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    assert cuda_driver.free_memory_mib() == ()
    monkeypatch.setenv("PATH", "")
    assert cuda_driver.free_memory_mib() == ()


def test_errors_of_the_device_are_explained(capsys):
    memory = (
        "----\n- Memory not enough:\n----\nAlloc device memory[2147483648] failed.\n----\n- C++ Call Stack:\na.cc:1 Run"
    )
    cases = {
        memory: "memory does not suffice; give a smaller --batch-size or --max-length",
        "cudaMalloc failed, ret[2], out of memory": "memory does not suffice",
        "CUBLAS_STATUS_ALLOC_FAILED: Resource allocation failed": "memory does not suffice",
        "CUDA driver version is insufficient for CUDA runtime version": "driver is too old",
        "the provided PTX was compiled with an unsupported toolchain.": "driver is too old",
        "no kernel image is available for execution on the device": "cannot compile MindSpore's kernels for this card",
        "no CUDA-capable device is detected": "the GPU is gone",
        "CUDA error: an illegal memory access was encountered": r"error of its own (illegal memory access)",
    }
    for text, sentence in cases.items():
        told = explain_failure(RuntimeError(text))
        assert told is not None and sentence in told and "\n" not in told, text
    assert explain_failure(RuntimeError("The shapes do not match")) is None

    def main():
        raise RuntimeError(memory)

    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: the device's memory does not suffice; ")


def test_those_are_the_words_of_the_gpu_part():
    plugin = cuda_libraries.plugin_path()
    if plugin is None:
        pytest.skip("this MindSpore has no GPU part")
    with plugin.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for words in (b"Memory not enough:", b"cudaMalloc failed, ret[", b"CUBLAS_STATUS_ALLOC_FAILED"):
            assert content.find(words) >= 0, words
            assert explain_failure(RuntimeError(words.decode())) is not None
