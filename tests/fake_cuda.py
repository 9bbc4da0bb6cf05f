"""Stand-ins for NVIDIA's driver and for the libraries of CUDA 11, compiled from C, for machines without a card."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

DRIVER = """
#include <stdlib.h>
#include <string.h>
static int told(const char *name, int otherwise) {
    const char *value = getenv(name);
    return value ? atoi(value) : otherwise;
}
int cuDriverGetVersion(int *version) { *version = told("FAKE_CUDA", 12020); return 0; }
int cuInit(unsigned flags) { return told("FAKE_INIT", 0); }
int cuDeviceGetCount(int *count) { *count = told("FAKE_COUNT", 1); return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Fake Card", size); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)80 << 30; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? told("FAKE_MAJOR", 9) : attribute == 76 ? told("FAKE_MINOR", 0) : -1;
    return 0;
}
"""


def demand_tools(*names: str) -> None:
    """Skips the test where a program is missing."""
    for name in names:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")


def compile_library(path: Path, code: str, *options: str) -> Path:
    """Compiles C to a shared library that goes by its file's name, and returns it."""
    demand_tools("gcc")
    command = [
        "gcc",
        "-shared",
        "-fPIC",
        "-w",
        f"-Wl,-soname,{path.name}",
        "-o",
        str(path),
        "-x",
        "c",
        "-",
        "-x",
        "none",
    ]
    subprocess.run([*command, *options], input=code, text=True, check=True)
    return path


def make_driver(folder: Path, more: str = "") -> Path:
    """Writes a libcuda.so.1 that answers what the variables FAKE_CUDA, FAKE_INIT, FAKE_COUNT, ... say."""
    return compile_library(folder / "libcuda.so.1", DRIVER + more)


def make_libraries(folder: Path, names: list[str], plugin: Path) -> Path | None:
    """Writes libraries of these names, and a driver, that have every symbol MindSpore's GPU part wants of them.

    Every function fails, so nothing can be computed, but the loader is satisfied. Returns the folder.
    """
    demand_tools("nm", "gcc")
    kernels = plugin.parent / "gpu" / "libcuda_ops.so.11"  # which relies on what the GPU part is linked against
    command = ["nm", "-D", "--undefined-only", plugin, kernels]
    wanted = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    symbols = set(re.findall(r" U ((?:cu|nvrtc|__cuda)\w+)(?:@+(\S+))?$", wanted, re.MULTILINE))
    of_file: dict[str, set[str]] = {name: set() for name in names}
    for symbol, file in symbols:
        if re.match(r"cu[A-Z]", symbol):
            continue
        stem = re.match(r"cublas|cudnn|cuda|curand|cusolver|cusparse|cufft|nvrtc|__cuda", symbol)
        assert stem is not None, symbol
        start = {"cuda": "libcudart.", "__cuda": "libcudart."}.get(stem.group(), f"lib{stem.group()}.")
        of_file[file or next(name for name in names if name.startswith(start))].add(symbol)
    for name, functions in of_file.items():
        versions = folder / f"{name}.map"
        versions.write_text(f"{name} {{ global: *; }};\n")
        code = "\n".join(f"int {function}(void) {{ return 999; }}" for function in functions)
        compile_library(folder / name, code, f"-Wl,--version-script={versions}")
    known = set(re.findall(r"int (\w+)\(", DRIVER))
    driver = {symbol for symbol, _ in symbols if re.match(r"cu[A-Z]", symbol)} - known
    make_driver(folder, "\n".join(f"int {symbol}(void) {{ return 999; }}" for symbol in driver))
    return folder
