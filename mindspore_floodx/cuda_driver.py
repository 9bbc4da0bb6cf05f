"""NVIDIA's driver, as its library libcuda.so.1 describes it: what it supports, which cards there are, what it lacks.

Numbers and names are those of the CUDA driver API (cuda.h): CUresult, CUdevice_attribute.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .errors import UserError

# Tried in turn: by name as the system's loader finds it, then where WSL and container images keep it.
DRIVER_LIBRARY = "libcuda.so.1"
DRIVER_PLACES = (
    DRIVER_LIBRARY,
    "/usr/lib/wsl/lib/libcuda.so.1",
    "/usr/local/nvidia/lib64/libcuda.so.1",
    "/usr/local/nvidia/lib/libcuda.so.1",
)
LEAST_CUDA = (11, 0)  # any driver of CUDA 11 runs programs of a later CUDA 11 ("minor version compatibility")
LEAST_DRIVER = "450.80.02"
LEAST_CAPABILITY = (6, 0)  # MindSpore's kernels hold machine code from here ...
LAST_WITH_CODE = 8  # ... to 8.0, which also runs on 8.6 and 8.9; for later cards the driver compiles their PTX
ANYWHERE = "--device CPU works everywhere"

_NO_DEVICE, _STUB, _NOT_READY, _MISMATCH, _NOT_FOR_THIS_CARD = 100, 34, 802, 803, 804
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@dataclass(frozen=True)
class Card:
    """One GPU: its name, its compute capability, and its memory in MiB."""

    name: str
    capability: tuple[int, int]
    memory_mib: int

    @property
    def compiles(self) -> bool:
        """Whether the driver has to compile MindSpore's kernels for this card when they are first used."""
        return self.capability[0] > LAST_WITH_CODE


@dataclass(frozen=True)
class Driver:
    """A driver that can be used: the highest CUDA version it supports, and the cards it shows to this process."""

    cuda: tuple[int, int]
    cards: tuple[Card, ...]


def load_driver() -> ctypes.CDLL:
    """Loads libcuda.so.1.

    Raises:
        UserError: there is none, or it cannot be loaded.
    """
    broken = ""
    for place in DRIVER_PLACES:
        try:
            return ctypes.CDLL(place)
        except OSError as error:
            if Path(place).exists():
                broken = str(error)
    if broken:
        raise UserError(
            f"the NVIDIA driver's library cannot be loaded ({broken}); install the driver again; {ANYWHERE}"
        )
    raise UserError(
        "there is no NVIDIA driver (libcuda.so.1 was not found); install your system's NVIDIA driver, or, in a "
        f"container, start it with its GPUs (docker run --gpus all); {ANYWHERE}"
    )


def supported_cuda(library: ctypes.CDLL) -> tuple[int, int]:
    """Returns the highest CUDA version that the driver supports.

    Raises:
        UserError: the driver does not tell.
    """
    version = ctypes.c_int()
    _demand(library.cuDriverGetVersion(ctypes.byref(version)))
    return version.value // 1000, version.value % 1000 // 10


def query_driver() -> Driver:
    """Returns the driver and its cards, and makes sure that they can run the CUDA 11 part of MindSpore.

    Raises:
        UserError: there is no driver, it is too old or does not work, or there is no card or only one that is too old.
    """
    library = load_driver()
    cuda = supported_cuda(library)
    if cuda < LEAST_CUDA:
        raise UserError(
            f"the NVIDIA driver is too old: it supports CUDA {dotted(cuda)}, and {dotted(LEAST_CUDA)} or later is "
            f"needed; update it to {LEAST_DRIVER} or later; {ANYWHERE}"
        )
    _demand(library.cuInit(0))
    count = ctypes.c_int()
    _demand(library.cuDeviceGetCount(ctypes.byref(count)))
    cards = tuple(_card(library, index) for index in range(count.value))
    if not cards:
        _demand(_NO_DEVICE)
    if cards[0].capability < LEAST_CAPABILITY:  # the first one is what MindSpore computes on
        raise UserError(
            f"the card {cards[0].name} is too old: its compute capability is {dotted(cards[0].capability)}, and "
            f"{dotted(LEAST_CAPABILITY)} or later is needed; choose another one with CUDA_VISIBLE_DEVICES; {ANYWHERE}"
        )
    return Driver(cuda, cards)


def _card(library: ctypes.CDLL, index: int) -> Card:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    _demand(library.cuDeviceGet(ctypes.byref(device), index))
    _demand(library.cuDeviceGetName(name, len(name), device))
    _demand(library.cuDeviceTotalMem_v2(ctypes.byref(memory), device))
    _demand(library.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device))
    _demand(library.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device))
    return Card(name.value.decode(errors="replace"), (major.value, minor.value), memory.value >> 20)


def _demand(result: int) -> None:
    """Turns what a call to the driver returned into an error, unless it is 0.

    Raises:
        UserError: it is not 0.
    """
    if result == 0:
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if result == _NO_DEVICE and visible is not None:
        sentence = f"CUDA_VISIBLE_DEVICES is {visible!r}, which leaves no GPU; unset it, or name a card (nvidia-smi -L)"
    elif result == _NO_DEVICE:
        sentence = "the NVIDIA driver finds no GPU; look whether nvidia-smi lists one, and, in a container, start it "
        sentence += "with its GPUs (docker run --gpus all)"
    elif result == _STUB:
        sentence = "the libcuda.so.1 that was found is only a stub to link against; take the CUDA toolkit's folder "
        sentence += "`stubs` out of LD_LIBRARY_PATH, and install your system's NVIDIA driver"
    elif result == _NOT_READY:
        sentence = "the NVIDIA driver is not ready; start the service nvidia-fabricmanager, or wait for it"
    elif result == _MISMATCH:
        sentence = "the NVIDIA driver's library and its kernel module have different versions; restart the machine"
    elif result == _NOT_FOR_THIS_CARD:
        sentence = "a package cuda-compat replaces the NVIDIA driver's library, but this card does not allow that; "
        sentence += "remove it from LD_LIBRARY_PATH, and update the driver itself"
    else:
        sentence = f"the NVIDIA driver does not work (error {result}); look at nvidia-smi and the system's log, or "
        sentence += "restart the machine"
    raise UserError(f"{sentence}; {ANYWHERE}")


def driver_release() -> str | None:
    """Returns the driver's own version, such as 535.104.05, as the kernel module or nvidia-smi tells it."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = _ask("--query-gpu=driver_version", "--format=csv,noheader")
    found = re.search(r"\d{3,}\.\d+(\.\d+)?", text)
    return found.group() if found else None


def free_memory_mib() -> tuple[int, ...]:
    """Returns the free memory of every card as nvidia-smi tells it, in MiB; nothing where it cannot be asked."""
    text = _ask("--query-gpu=memory.free", "--format=csv,noheader,nounits")
    return tuple(int(line) for line in text.split() if line.isdigit())


def _ask(*options: str) -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        asked = subprocess.run([program, *options], capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout if asked.returncode == 0 else ""


def dotted(version: tuple[int, int]) -> str:
    """Returns a version as it is written: `11.8`."""
    return f"{version[0]}.{version[1]}"


# what MindSpore, CUDA, cuBLAS and cuDNN say in their errors, and what it means
_FAILURES = (
    (
        r"memory not enough|memory isn't enough|out of memory|cudaMalloc failed|STATUS_ALLOC_FAILED",
        "the device's memory does not suffice; give a smaller --batch-size or --max-length, or end other processes on "
        "the card (nvidia-smi lists them)",
    ),
    (
        r"driver version is insufficient|unsupported toolchain|not supported in the installed CUDA driver",
        f"the NVIDIA driver is too old for MindSpore's kernels; update it; {ANYWHERE}",
    ),
    (
        r"no kernel image is available|device kernel image is invalid|PTX JIT compil",
        "the NVIDIA driver cannot compile MindSpore's kernels for this card; update it (python run/doctor.py tells its "
        f"version); {ANYWHERE}",
    ),
    (r"no CUDA-capable device", f"the GPU is gone; look whether nvidia-smi lists it; {ANYWHERE}"),
    (
        r"uncorrectable ECC|unspecified launch failure|fell off the bus|illegal memory access",
        "the GPU stopped with an error of its own ({0}); look at nvidia-smi and the system's log, and start again",
    ),
)


def explain_failure(error: BaseException) -> str | None:
    """Returns one sentence with a remedy for an error of MindSpore's that comes from the device, else None."""
    text = str(error)
    for pattern, sentence in _FAILURES:
        found = re.search(pattern, text, re.IGNORECASE)
        if found:
            return sentence.format(found.group())
    return None
