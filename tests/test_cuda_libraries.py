"""The libraries of CUDA 11: where they are found, how they are loaded, and that MindSpore's GPU part is content."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import fake_cuda
import pytest

from mindspore_floodx import cuda_driver, cuda_libraries
from mindspore_floodx.cuda_libraries import FOLDER_VARIABLE, LIBRARIES, demand_libraries, find_libraries
from mindspore_floodx.errors import UserError

NAMES = [library.name for library in LIBRARIES]


@pytest.fixture
def nothing_installed(monkeypatch, tmp_path):
    """No CUDA from this machine: no packages, variables or system folders."""
    monkeypatch.setattr(cuda_libraries.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(cuda_libraries, "SYSTEM_FOLDERS", (str(tmp_path / "system"),))
    for name in (FOLDER_VARIABLE, "LD_LIBRARY_PATH", "CUDA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def plugin():
    path = cuda_libraries.plugin_path()
    if path is None:
        pytest.skip("this MindSpore has no GPU part")
    return path


@pytest.fixture(scope="module")
def fakes(tmp_path_factory, plugin):
    """A folder with a driver and libraries that have all symbols the GPU part is linked against."""
    return fake_cuda.make_libraries(tmp_path_factory.mktemp("cuda"), NAMES, plugin)


def fill(folder, names=NAMES):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_the_packages_are_those_of_the_extra():
    required = importlib.metadata.requires("mindspore-floodx") or ()
    extra = {text.split(";")[0].strip() for text in required if re.search(r"extra == .gpu.", text)}
    assert {library.requirement for library in LIBRARIES} == extra


def test_the_libraries_are_those_of_the_gpu_part(plugin):
    fake_cuda.demand_tools("readelf")
    told = subprocess.run(["readelf", "-d", plugin], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"NEEDED.*\[(lib(?:cu|nv).*)\]", told)) - {"libcuda_ops.so.11"}
    assert needed == {"libcuda.so.1", *NAMES} - {"libcublasLt.so.11"}  # which libcublas needs


def test_where_they_are_looked_for(nothing_installed, monkeypatch):
    folder = nothing_installed
    assert set(find_libraries().values()) == {None}
    fill(folder / "system", NAMES[:5])
    assert find_libraries()[NAMES[0]] == folder / "system" / NAMES[0]
    fill(folder / "home" / "lib64", NAMES[:4])
    monkeypatch.setenv("CUDA_HOME", str(folder / "home"))
    fill(folder / "path", NAMES[:3])
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere::{folder / 'path'}")
    fill(folder / "site" / "nvidia" / "cuda_runtime" / "lib", NAMES[:2])
    monkeypatch.undo()
    monkeypatch.setattr(cuda_libraries, "SYSTEM_FOLDERS", (str(folder / "system"),))
    monkeypatch.setenv("CUDA_HOME", str(folder / "home"))
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere::{folder / 'path'}")
    monkeypatch.setattr(sys, "path", [str(folder / "site")])
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    fill(folder / "named", NAMES[:1])
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder / "named"))
    homes = [path and path.relative_to(folder).parts[0] for path in find_libraries().values()]
    assert homes == ["named", "site", "path", "home", "system", None, None, None, None]


@pytest.mark.parametrize("inside", ["", "lib64", "lib", "cublas/lib"])
def test_the_named_folder_may_be_a_whole_cuda(nothing_installed, monkeypatch, inside):
    fill(nothing_installed / "cuda" / inside)
    monkeypatch.setenv(FOLDER_VARIABLE, str(nothing_installed / "cuda"))
    assert {path.parent for path in demand_libraries().values()} == {nothing_installed / "cuda" / inside}
    monkeypatch.setenv(FOLDER_VARIABLE, str(nothing_installed / "none"))
    with pytest.raises(UserError, match=r"FLOODX_CUDA_LIBRARIES is .*none, which is no folder; name the one with"):
        find_libraries()


def test_missing_libraries(nothing_installed, monkeypatch):
    with pytest.raises(UserError, match=r"CUDA 11 \(libcudart.so.11.0 and 8 other libraries\)") as refused:
        demand_libraries()
    for library in LIBRARIES:
        assert str(refused.value).count(library.requirement) == 1
    monkeypatch.setenv(FOLDER_VARIABLE, str(fill(nothing_installed / "cuda", NAMES[:-1])))
    with pytest.raises(UserError, match=r"needs libcudnn.so.8, not found here; run: pip install nvidia-cudnn-cu11=="):
        demand_libraries()


def test_a_broken_library(tmp_path):
    path = tmp_path / "libcudnn.so.8"
    path.write_text("no library")
    with pytest.raises(UserError, match=r"libcudnn.so.8 cannot be loaded \(.*\); run: pip install --force-reinstall"):
        cuda_libraries.load(LIBRARIES[-1], path)


def test_versions(tmp_path):
    lib = fill(tmp_path / "nvidia" / "cudnn" / "lib")
    info = tmp_path / "nvidia_cudnn_cu11-8.9.6.50.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nvidia-cudnn-cu11\nVersion: 8.9.6.50\n")
    assert cuda_libraries.found_version(lib / "libcudnn.so.8") == "8.9.6.50"
    assert cuda_libraries.found_version(lib / "libcublas.so.11") is None  # its package is not there
    (tmp_path / "libcudart.so.11.6.55").touch()
    (tmp_path / "libcudart.so.11.0").symlink_to("libcudart.so.11.6.55")
    assert cuda_libraries.found_version(tmp_path / "libcudart.so.11.0") == "11.6.55"


def test_the_settings_of_the_user_hold(monkeypatch):
    monkeypatch.setenv("CUDA_CACHE_MAXSIZE", "1")
    monkeypatch.delenv("CUDA_CACHE_PATH", raising=False)
    monkeypatch.delenv("CUDA_MODULE_LOADING", raising=False)
    monkeypatch.setenv("FLOODX_CACHE", "/cache")
    cuda_libraries.use_cuda_settings()
    assert os.environ["CUDA_CACHE_MAXSIZE"] == "1"
    assert os.environ["CUDA_CACHE_PATH"] == "/cache/cuda-kernels"
    assert os.environ["CUDA_MODULE_LOADING"] == "LAZY"


def test_a_mindspore_without_a_gpu_part(nothing_installed):
    assert cuda_libraries.plugin_path() is None
    with pytest.raises(UserError, match="no GPU part for CUDA 11.6; the packages for Linux on x86-64 have it"):
        cuda_libraries.demand_plugin()


def test_loaded_in_this_order_each_finds_what_it_needs(tmp_path):
    """cuSOLVER needs cuBLAS, which needs cuBLASLt; no path leads from one to the other, as between packages."""
    order = ["libcublasLt.so.11", "libcublas.so.11", "libcusolver.so.11"]
    assert [name for name in NAMES if name in order] == order
    before: list[Path] = []
    for name in order:
        (tmp_path / name).mkdir()
        before.append(fake_cuda.compile_library(tmp_path / name / name, "", "-Wl,--no-as-needed", *map(str, before)))
    code = "import ctypes, sys\nfor path in sys.argv[1:]: ctypes.CDLL(path, mode=ctypes.RTLD_LOCAL)"
    for paths, status in ((before, 0), (before[::-1], 1)):
        ended = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True)
        assert ended.returncode == status, ended.stderr
    assert re.search(r"libcublas(Lt)?\.so\.11: cannot open shared object file", ended.stderr)


def test_ldd_finds_everything_but_the_driver(fakes, plugin):
    fake_cuda.demand_tools("ldd")
    paths = [fakes / name for name in NAMES]
    hidden = fakes / "libcuda.so.1"
    away = hidden.rename(fakes / "away")
    try:
        assert cuda_libraries.unresolved(plugin, paths) == ["libcuda.so.1"]
    finally:
        away.rename(hidden)
    assert cuda_libraries.unresolved(plugin, paths) == []


def test_mindspore_takes_its_gpu_part(fakes, plugin):
    """With libraries that satisfy the loader, the real GPU part is loaded and chosen, and the environment is restored.

    Nothing can be computed with them: that takes a card.
    """
    code = (
        "import os\n"
        "from mindspore_floodx import cuda_driver\n"
        f"cuda_driver.DRIVER_PLACES = ({str(fakes / 'libcuda.so.1')!r},)\n"
        "before = dict(os.environ)\n"
        "from mindspore_floodx.device import use_device\n"
        "use_device('GPU')\n"
        "import mindspore as ms\n"
        "print(ms.get_context('device_target'))\n"
        "print('libmindspore_gpu.so.11.6' in open('/proc/self/maps').read())\n"
        "print(sorted(name for name in {**before, **os.environ} if os.environ.get(name) != before.get(name)))\n"
        "os._exit(0)  # at its end MindSpore would ask the card\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CUDA", "LD_LIBRARY"))}
    environment |= {FOLDER_VARIABLE: str(fakes), "PYTHONUNBUFFERED": "1"}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    target, loaded, changed = ended.stdout.splitlines()
    assert (target, loaded) == ("GPU", "True")
    expected = {"CUDA_CACHE_MAXSIZE", "CUDA_CACHE_PATH", "CUDA_MODULE_LOADING"}
    assert expected <= set(eval(changed)) and not {"CUDA_HOME", "LD_LIBRARY_PATH", "PATH"} & set(eval(changed))
    assert "cuda" not in ended.stderr.lower(), ended.stderr  # MindSpore warns of other versions, and of missing files


def test_the_reason_of_a_refusal():
    text = (
        "Unsupported device target GPU. This process only supports one of the ['CPU']. Please check.\n\n"
        "Load dynamic library: libmindspore_ascend.so.2 failed. libge_runner.so: cannot open shared object file\n"
        "Load dynamic library: libmindspore_gpu.so.11.6 failed. libz.so.1: cannot open shared object file\n"
    )
    told = cuda_libraries.refusal(RuntimeError(text))
    assert told == "its GPU part was not loaded: libz.so.1: cannot open shared object file"
    assert cuda_libraries.refusal(RuntimeError("Not now. Really.")) == "Not now"
    assert cuda_libraries.refusal(RuntimeError()) == "RuntimeError"


def test_a_driver_is_the_first_thing_that_is_demanded(nothing_installed, monkeypatch):
    monkeypatch.setattr(cuda_driver, "DRIVER_PLACES", ("libno-such-driver.so.1",))
    with pytest.raises(UserError, match="no NVIDIA driver"), cuda_libraries.ready_for_mindspore():
        pass
