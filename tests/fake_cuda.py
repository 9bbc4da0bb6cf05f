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


# A runtime whose one card has the host's memory. Offsets are those of CUDA 11's cudaDeviceProp.
RUNTIME = """
#include <stdlib.h>
#include <string.h>
int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetDeviceProperties(char *of, int device) {
    memset(of, 0, 712);
    strcpy(of, "Fake Card");
    *(size_t *)(of + 288) = (size_t)80 << 30;                       /* totalGlobalMem */
    *(size_t *)(of + 296) = 49152;                                  /* sharedMemPerBlock */
    *(int *)(of + 304) = 65536; *(int *)(of + 308) = 32;            /* regsPerBlock, warpSize */
    *(int *)(of + 320) = 1024;                                      /* maxThreadsPerBlock */
    for (int i = 0; i < 3; i++) ((int *)(of + 324))[i] = 64;        /* maxThreadsDim */
    for (int i = 0; i < 3; i++) ((int *)(of + 336))[i] = 65535;     /* maxGridSize */
    *(int *)(of + 360) = 9; *(int *)(of + 388) = 132;               /* major, multiProcessorCount */
    return 0;
}
int cudaMemGetInfo(size_t *free, size_t *all) { *free = (size_t)8 << 30; *all = (size_t)80 << 30; return 0; }
int cudaMalloc(void **at, size_t size) { return (*at = calloc(1, size ? size : 1)) ? 0 : 2; }
int cudaHostAlloc(void **at, size_t size, unsigned flags) { return cudaMalloc(at, size); }
int cudaFree(void *at) { free(at); return 0; }
int cudaFreeHost(void *at) { free(at); return 0; }
int cudaMemcpy(void *to, const void *from, size_t size, int kind) { memcpy(to, from, size); return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t n, int kind, void *stream) { memcpy(to, from, n); return 0; }
int cudaMemset(void *at, int value, size_t size) { memset(at, value, size); return 0; }
int cudaMemsetAsync(void *at, int value, size_t size, void *stream) { memset(at, value, size); return 0; }
const char *cudaGetErrorString(int error) { return "no error"; }
const char *cudaGetErrorName(int error) { return "none"; }
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


def make_libraries(folder: Path, names: list[str], plugin: Path, runtime: str | None = None) -> Path:
    """Writes libraries of these names, and a driver, that have every symbol MindSpore's GPU part wants of them.

    Every function fails, so nothing can be computed, but the loader is satisfied. With the code of a `runtime` every
    function that it lacks does nothing and succeeds, so that MindSpore can prepare kernels. Returns the folder.
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
        own = runtime if runtime is not None and name.startswith("libcudart.") else "#include <stdlib.h>\n"
        functions -= set(re.findall(r"(\w+)\(", own))
        code = own + "\n".join(_function(function, runtime is not None) for function in sorted(functions))
        compile_library(folder / name, code, f"-Wl,--version-script={versions}")
    known = set(re.findall(r"int (\w+)\(", DRIVER))
    driver = {symbol for symbol, _ in symbols if re.match(r"cu[A-Z]", symbol)} - known
    make_driver(folder, "\n".join(_function(symbol, runtime is not None) for symbol in sorted(driver)))
    return folder


def _function(name: str, succeeds: bool) -> str:
    if not succeeds:
        return f"int {name}(void) {{ return 999; }}"
    if "Create" in name:  # a handle or descriptor
        return f"int {name}(void **made) {{ *made = calloc(1, 4096); return 0; }}"
    if name in ("cudnnGetTensorSizeInBytes", "cudnnDropoutGetStatesSize"):
        return f"int {name}(void *of, size_t *size) {{ *size = 1024; return 0; }}"
    if name == "cublasGetMathMode":
        return f"int {name}(void *handle, int *mode) {{ *mode = 0; return 0; }}"
    if name == "nvrtcVersion":
        return f"int {name}(int *major, int *minor) {{ *major = 11; *minor = 8; return 0; }}"
    return f"int {name}(void) {{ return 0; }}"
