"""The CUDA 11 libraries that MindSpore's GPU part is linked against: found, loaded, and shown to MindSpore.

MindSpore's wheel for Linux on x86-64 contains a GPU part for CUDA 11.6, which any CUDA 11 serves, but nothing of CUDA
itself. Two things make it work without an installed CUDA (seen with MindSpore 2.10, whose sources are not needed):

* The part is opened when `mindspore` is imported. Libraries that are in the process by then satisfy it by their names,
  wherever they lie, so LD_LIBRARY_PATH, which the loader reads only when a process starts, need not be set before.
* Which part is opened, if any, MindSpore decides by the output of `$CUDA_HOME/bin/nvcc --version`, and later it asks
  `ldd` and file names for the version of CUDA's runtime. For the time of the import both are given a temporary folder
  that answers with the version the part was built for.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .cuda_driver import ANYWHERE, query_driver
from .errors import UserError

FOLDER_VARIABLE = "FLOODX_CUDA_LIBRARIES"
SYSTEM_FOLDERS = ("/usr/local/cuda/lib64", "/usr/local/cuda-11*/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib64")
PLUGIN_CUDA = "11.6"  # what the GPU part was built for


@dataclass(frozen=True)
class Library:
    """A library by the name that MindSpore asks for, and the package that brings it (extra `gpu` in setup.py)."""

    name: str
    package: str
    version: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


# In the order in which they are loaded: what others need comes first.
LIBRARIES = (
    Library("libcudart.so.11.0", "nvidia-cuda-runtime-cu11", "11.8.89"),
    Library("libcublasLt.so.11", "nvidia-cublas-cu11", "11.11.3.6"),
    Library("libcublas.so.11", "nvidia-cublas-cu11", "11.11.3.6"),
    Library("libcurand.so.10", "nvidia-curand-cu11", "10.3.0.86"),
    Library("libcufft.so.10", "nvidia-cufft-cu11", "10.9.0.58"),
    Library("libcusparse.so.11", "nvidia-cusparse-cu11", "11.7.5.86"),
    Library("libcusolver.so.11", "nvidia-cusolver-cu11", "11.4.1.48"),
    Library("libnvrtc.so.11.2", "nvidia-cuda-nvrtc-cu11", "11.8.89"),
    Library("libcudnn.so.8", "nvidia-cudnn-cu11", "8.9.6.50"),
)
RUNTIME, CUDNN = "libcudart.so.11.0", "libcudnn.so.8"


@contextlib.contextmanager
def ready_for_mindspore() -> Iterator[None]:
    """Loads all that MindSpore's GPU part needs; inside, `import mindspore` finds it and takes the GPU.

    In a process that has imported MindSpore before only the driver is checked: the part is loaded or never will be.

    Raises:
        UserError: no driver, a driver that is too old, no card, a missing or broken library, or a MindSpore without a
            GPU part.
    """
    use_cuda_settings()
    query_driver()
    if "mindspore" in sys.modules:
        yield
        return
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the run
        os.makedirs(os.environ["CUDA_CACHE_PATH"], exist_ok=True)
    found = demand_libraries()
    demand_plugin()
    for library in LIBRARIES:
        load(library, found[library.name])
    with _shown_to_mindspore(found[RUNTIME], found[CUDNN]):
        yield


def use_cuda_settings() -> None:
    """Sets what CUDA reads from the environment when it starts, unless the user has set it.

    A card newer than MindSpore's machine code runs kernels that the driver compiles from PTX and keeps in a cache.
    Older drivers keep 256 MiB for all programs, of which these kernels take about 140; what is driven out is compiled
    again. So the cache gets 4 GB, as MindSpore itself asks for once it is imported, in the folder of this project's
    other caches, which may be elsewhere than in a home folder. Loading lazily leaves in their files the kernels of
    CUDA's libraries that are not used, which are most of 2 GB.
    """
    from .encoding import default_cache_dir  # here: it brings NumPy

    os.environ.setdefault("CUDA_CACHE_MAXSIZE", "4000000000")  # bytes; the driver's limit is 4 GiB
    os.environ.setdefault("CUDA_CACHE_PATH", str(default_cache_dir() / "cuda-kernels"))
    os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")


def folders() -> list[Path]:
    """Returns where the libraries are looked for, first to last.

    These are the folder that $FLOODX_CUDA_LIBRARIES names (or lib, lib64 or */lib in it), the installed packages,
    LD_LIBRARY_PATH, and an installed CUDA.

    Raises:
        UserError: the variable names no folder.
    """
    found: list[Path] = []
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        if not Path(named).is_dir():
            raise UserError(f"{FOLDER_VARIABLE} is {named}, which is no folder; name the one with libcudart.so.11.0")
        found += [Path(named), Path(named, "lib64"), Path(named, "lib"), *sorted(Path(named).glob("*/lib"))]
    spec = importlib.util.find_spec("nvidia")  # a folder that all of NVIDIA's packages share
    for place in (spec.submodule_search_locations if spec else None) or ():
        found += sorted(Path(place).glob("*/lib"))
    found += [Path(each) for each in os.environ.get("LD_LIBRARY_PATH", "").split(":") if each]
    home = os.environ.get("CUDA_HOME")
    found += [Path(home, "lib64")] if home else []
    return found + [Path(each) for pattern in SYSTEM_FOLDERS for each in sorted(glob.glob(pattern), reverse=True)]


def find_libraries() -> dict[str, Path | None]:
    """Returns for the name of every library the first file of that name, or None.

    Raises:
        UserError: as `folders` does.
    """
    places = folders()
    return {
        library.name: next((place / library.name for place in places if (place / library.name).is_file()), None)
        for library in LIBRARIES
    }


def demand_libraries() -> dict[str, Path]:
    """Returns the file of every library.

    Raises:
        UserError: some are missing; the message has the command that installs them.
    """
    found = find_libraries()
    missing = [library for library in LIBRARIES if found[library.name] is None]
    if missing:
        raise UserError(f"{missing_sentence(missing)}; {ANYWHERE}")
    return {name: path for name, path in found.items() if path is not None}


def missing_sentence(missing: Sequence[Library]) -> str:
    """Returns what these missing libraries are, and the command that installs them."""
    names = ", ".join(library.name for library in missing)
    if len(missing) == len(LIBRARIES):
        names = f"CUDA 11 ({LIBRARIES[0].name} and {len(missing) - 1} other libraries)"
    packages = " ".join(dict.fromkeys(library.requirement for library in missing))
    return (
        f"the GPU needs {names}, not found here; run: pip install {packages} "
        f"(or name a folder of CUDA 11 with {FOLDER_VARIABLE})"
    )


def load(library: Library, path: Path) -> None:
    """Loads a library into the process, where later ones that ask for its name find it.

    Its symbols stay its own (RTLD_LOCAL): who is linked against it finds them all the same, and a PyTorch with another
    CUDA in the same process does not.

    Raises:
        UserError: the loader refuses the file.
    """
    try:
        ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
    except OSError as error:
        raise UserError(
            f"{path} cannot be loaded ({error}); run: pip install --force-reinstall {library.requirement}; {ANYWHERE}"
        ) from None


def found_version(path: Path) -> str | None:
    """Returns a library's version: of the package that the file belongs to, or from the file that a link leads to."""
    for library in LIBRARIES:
        if library.name == path.name and path.parent.parent.parent.name == "nvidia":
            here = [str(path.parent.parent.parent.parent)]
            for distribution in importlib.metadata.distributions(name=library.package, path=here):
                return distribution.version
    numbers = re.search(r"\.so\.(\d+\.\d+\.\d[\d.]*)$", path.resolve().name)
    return numbers.group(1) if numbers else None


def plugin_path() -> Path | None:
    """Returns the file of MindSpore's GPU part, or None if this MindSpore has none; MindSpore is not imported."""
    spec = importlib.util.find_spec("mindspore")
    for place in (spec.submodule_search_locations if spec else None) or ():
        path = Path(place, "lib", "plugin", f"libmindspore_gpu.so.{PLUGIN_CUDA}")
        if path.is_file():
            return path
    return None


def demand_plugin() -> Path:
    """Returns the file of MindSpore's GPU part.

    Raises:
        UserError: this MindSpore has none.
    """
    path = plugin_path()
    if path is None:
        raise UserError(
            f"the installed MindSpore has no GPU part for CUDA {PLUGIN_CUDA}; the packages for Linux on x86-64 have it "
            f"(pip install mindspore==2.10.0); {ANYWHERE}"
        )
    return path


def unresolved(plugin: Path, found: Iterable[Path]) -> list[str]:
    """Returns the libraries that MindSpore's GPU part asks for and ldd finds neither in the system nor beside `found`.

    Without a card all but the driver's libcuda.so.1 should be found. Nothing is returned where there is no ldd.
    """
    places = [str(place) for place in dict.fromkeys(path.parent for path in found)]
    search = ":".join([*places, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
    program = shutil.which("ldd")
    if program is None:
        return []
    try:
        told = subprocess.run(  # noqa: S603  ldd itself
            [program, str(plugin)],
            env=os.environ | {"LD_LIBRARY_PATH": search},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    return re.findall(r"^\s*(\S+) => not found", told, re.MULTILINE)


def refusal(error: BaseException) -> str:
    """Returns why MindSpore refused a device: what kept its GPU part from loading, or the error's first sentence."""
    text = str(error)
    reason = re.search(r"libmindspore_gpu\S* failed\. (.+)", text)
    if reason:
        return f"its GPU part was not loaded: {reason.group(1).strip()}"
    return text.splitlines()[0].split(". ")[0] if text else type(error).__name__


@contextlib.contextmanager
def _shown_to_mindspore(runtime: Path, cudnn: Path) -> Iterator[None]:
    """Answers what MindSpore asks about CUDA while it is imported; afterwards the environment is as before.

    The runtime goes by the name of the part's own CUDA version. MindSpore takes from it the name of the folder with
    what else belongs to the part, and would warn of any other, though one CUDA 11 serves for another.
    """
    with tempfile.TemporaryDirectory(prefix="floodx-cuda-") as name:
        home = Path(name)
        (home / "bin").mkdir()
        (home / "lib64").mkdir()
        compiler = home / "bin" / "nvcc"
        compiler.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {PLUGIN_CUDA}, V{PLUGIN_CUDA}.0'\n")
        compiler.chmod(0o755)
        for link, file in (
            (RUNTIME, runtime),
            (f"libcudart.so.{PLUGIN_CUDA}.0", runtime),
            (CUDNN, cudnn),
        ):
            (home / "lib64" / link).symlink_to(file.resolve())
        before = os.environ.get("LD_LIBRARY_PATH", "")
        with _restored(("CUDA_HOME", "LD_LIBRARY_PATH", "PATH")):
            os.environ["CUDA_HOME"] = str(home)
            os.environ["LD_LIBRARY_PATH"] = f"{home / 'lib64'}:{before}".rstrip(":")
            yield


@contextlib.contextmanager
def _restored(names: Sequence[str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
