"""What is chosen once in a process, and what is refused."""

import os

import mindspore as ms
import pytest

from mindspore_floodx import cuda_driver, cuda_libraries, device
from mindspore_floodx.device import use_device
from mindspore_floodx.errors import UserError

use_device("CPU", 1)


def test_the_choice_holds():
    assert ms.get_context("mode") == ms.GRAPH_MODE
    assert ms.get_context("device_target") == "CPU"
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_the_same_again_is_fine_and_another_choice_is_not():
    use_device("CPU", 1)
    use_device("CPU")
    for target, threads in (("CPU", 2), ("GPU", None), ("GPU", 1)):
        with pytest.raises(UserError, match=r"already computes on CPU with 1 threads.*another process"):
            use_device(target, threads)


def test_unknown_devices_and_threads(monkeypatch):
    with pytest.raises(UserError, match=r"'gpu' is not known \(did you mean 'GPU'\?\); use CPU or GPU"):
        use_device("gpu")
    with pytest.raises(UserError, match="'Ascend' is not known"):
        use_device("Ascend")
    monkeypatch.setattr(device, "_chosen", None)
    with pytest.raises(UserError, match="threads is 0"):
        use_device("CPU", 0)


def test_a_device_that_mindspore_refuses(monkeypatch):
    """This process has imported MindSpore without its GPU part, so the GPU comes too late."""

    def refuse(target):
        raise RuntimeError("Unsupported device target GPU. This process only supports CPU. Please check.\nMore.")

    monkeypatch.setattr(device, "_chosen", None)
    monkeypatch.setattr(ms, "set_device", refuse)
    monkeypatch.setattr(cuda_libraries, "query_driver", lambda: None)
    with pytest.raises(UserError) as refused:
        use_device("GPU", 1)
    message = str(refused.value)
    assert message.startswith("MindSpore cannot use the device GPU (Unsupported device target GPU); ")
    assert message.endswith("MindSpore was imported before: call device.use_device first, before any model is imported")
    assert device._chosen is None  # a later choice is free


def test_a_gpu_without_a_driver(monkeypatch):
    monkeypatch.setattr(device, "_chosen", None)
    monkeypatch.setattr(cuda_driver, "DRIVER_PLACES", ("libno-such-driver.so.1",))
    with pytest.raises(UserError, match="there is no NVIDIA driver .*--device CPU works everywhere"):
        use_device("GPU", 1)
    assert device._chosen is None


def test_a_tensor_that_does_not_fit_is_one_sentence():
    """MindSpore's own error; 256 TiB are more than a process can address."""

    class Grow(ms.nn.Cell):
        def construct(self, x):
            return ms.ops.tile(x, (1 << 23, 1 << 23)) + 1

    with pytest.raises(RuntimeError) as failed:
        Grow()(ms.Tensor([[1.0]], ms.float32)).asnumpy()
    told = cuda_driver.explain_failure(failed.value)
    assert told is not None and told.startswith("the device's memory does not suffice; give a smaller --batch-size")


def test_another_c_library_needs_no_tuning(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(device.ctypes, "CDLL", missing)
    device._keep_freed_memory()
