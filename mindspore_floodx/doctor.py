"""What this machine has and lacks for training: packages, driver, cards, CUDA libraries, and a check of a step."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from . import cuda_driver, cuda_libraries
from .errors import UserError

CHECK_SECONDS = 1800  # a check takes seconds, but the driver of a new card may first compile all of MindSpore's kernels
SAME_LOSSES = 1e-3  # how far the losses of the check may differ between CPU and GPU in float32
CUDA_SETTINGS = ("CUDA_VISIBLE_DEVICES", "CUDA_CACHE_PATH", "CUDA_CACHE_MAXSIZE", "CUDA_MODULE_LOADING")

T = TypeVar("T")


def examine(device: str | None = None, threads: int | None = None) -> dict[str, Any]:
    """Examines the machine and trains a tiny BERT for some steps, on each device in a process of its own.

    Args:
        device: `CPU` leaves a GPU out; `GPU` demands one; None demands one where there is an NVIDIA driver.
        threads: CPU threads of the check; None takes all cores.

    Returns:
        ok; problems: a sentence for each thing that is wrong; python, platform, cores; packages: versions by name, or
        None; gpu: what `examine_gpu` returns, and `demanded`; checks: for each device that was checked what
        `self_check.check_training` returns, or only device and problems; loss_difference: the largest one between the
        losses on CPU and GPU, or None.
    """
    from .runs import package_versions

    gpu = examine_gpu()
    gpu["demanded"] = device == "GPU" or (device is None and gpu["driver"] is not None)
    problems = [*package_problems(), *(gpu["problems"] if gpu["demanded"] else ())]
    devices = ["CPU", "GPU"] if gpu["demanded"] and not gpu["problems"] else ["CPU"]
    checks = {each: run_check(each, threads) for each in devices}
    problems += [f"{each}: {problem}" for each, check in checks.items() for problem in check["problems"]]
    difference = loss_difference(checks)
    if difference is not None and not difference < SAME_LOSSES:
        problems.append(f"GPU: the losses of the check differ from those on the CPU by {difference:.1e}")
    return {
        "ok": not problems,
        "problems": problems,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "packages": package_versions(),
        "gpu": gpu,
        "checks": checks,
        "loss_difference": difference,
    }


def package_problems() -> list[str]:
    """Returns a sentence for each package that the project requires and that is missing or has another version."""
    from packaging.requirements import Requirement

    problems = []
    for text in importlib.metadata.requires("mindspore-floodx") or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{requirement.name} is not installed; run: pip install '{requirement}'")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{requirement.name} {version} does not suit; run: pip install '{requirement}'")
    return problems


def examine_gpu() -> dict[str, Any]:
    """Examines driver, cards, libraries and MindSpore's GPU part, without computing anything.

    Returns:
        problems: what keeps a GPU from being used; driver: release and cuda (the highest version that it supports), or
        None; cards: name, capability, memory_mib, free_mib, compiles_kernels; libraries: name, package, version and
        path, both None for one that is missing; plugin: the file of MindSpore's GPU part, or None; unresolved: what
        ldd does not find of what that is linked against; settings: the environment variables that CUDA reads.
    """
    cuda_libraries.use_cuda_settings()  # CUDA reads them when the driver starts
    problems: list[str] = []

    def attempt(do: Callable[[], T]) -> T | None:
        try:
            return do()
        except UserError as error:
            problems.append(str(error))
            return None

    library = attempt(cuda_driver.load_driver)
    cuda = library and attempt(lambda: cuda_driver.supported_cuda(library))
    driver = cuda and attempt(cuda_driver.query_driver)
    found = attempt(cuda_libraries.find_libraries)
    missing = [each for each in cuda_libraries.LIBRARIES if found and found[each.name] is None]
    if missing:
        problems.append(cuda_libraries.missing_sentence(missing))
    plugin = attempt(cuda_libraries.demand_plugin)
    files = {name: path for name, path in (found or {}).items() if path is not None}
    unresolved = cuda_libraries.unresolved(plugin, files.values()) if plugin else []
    told = {cuda_driver.DRIVER_LIBRARY, *(each.name for each in cuda_libraries.LIBRARIES)}
    others = [name for name in unresolved if name not in told]
    if others:
        problems.append(f"MindSpore's GPU part needs {', '.join(others)}; install them with your system's packages")
    return {
        "problems": problems,
        "driver": library and {"release": cuda_driver.driver_release(), "cuda": cuda and cuda_driver.dotted(cuda)},
        "cards": _cards(driver) if driver else [],
        "libraries": [_library(each, files.get(each.name)) for each in cuda_libraries.LIBRARIES],
        "plugin": plugin and str(plugin),
        "unresolved": unresolved,
        "settings": {name: os.environ[name] for name in CUDA_SETTINGS if name in os.environ},
    }


def _cards(driver: cuda_driver.Driver) -> list[dict[str, Any]]:
    free = cuda_driver.free_memory_mib()
    alone = len(free) == len(driver.cards) == 1  # nvidia-smi lists in its own order, and also what is not visible
    return [
        {
            "name": card.name,
            "capability": cuda_driver.dotted(card.capability),
            "memory_mib": card.memory_mib,
            "free_mib": free[0] if alone else None,
            "compiles_kernels": card.compiles,
        }
        for card in driver.cards
    ]


def _library(library: cuda_libraries.Library, path: Path | None) -> dict[str, Any]:
    version = path and cuda_libraries.found_version(path)
    return {"name": library.name, "package": library.package, "version": version, "path": path and str(path)}


def run_check(device: str, threads: int | None = None) -> dict[str, Any]:
    """Runs `self_check.check_training` in a process of its own; one that fails has only device and problems."""
    command = [sys.executable, "-m", "mindspore_floodx.self_check", device]
    command += [] if threads is None else ["--threads", str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return {"device": device, "problems": [f"the check of a training step took more than {CHECK_SECONDS} s"]}
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    return {"device": device, "problems": [_why_it_ended(done.returncode, done.stderr)]}


def _why_it_ended(status: int, stderr: str) -> str:
    if status < 0:
        return f"the check of a training step was ended by {signal.Signals(-status).name}"
    lines = [line for line in stderr.splitlines() if line.strip()]
    told = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else "no message")
    return told.removeprefix("error: ")


def loss_difference(checks: dict[str, Any]) -> float | None:
    """Returns the largest difference between the losses on CPU and GPU, or None if one of them has none."""
    if not all("losses" in checks.get(each, ()) for each in ("CPU", "GPU")):
        return None
    return max(abs(a - b) for a, b in zip(checks["CPU"]["losses"], checks["GPU"]["losses"], strict=True))


def report_rows(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Returns the report of `examine` as rows: what, its state (ok, missing, wrong or nothing), what was found."""
    gpu = report["gpu"]
    rows = [
        ("Python", "", f"{report['python']}, {report['platform']}, {report['cores']} cores"),
        *((name, "ok" if version else "missing", version or "") for name, version in report["packages"].items()),
        *_gpu_rows(gpu),
    ]
    for device, check in report["checks"].items():
        if "losses" not in check:
            rows.append((f"training step on {device}", "wrong", ""))
            continue
        state = "wrong" if check["problems"] else "ok"
        losses = check["losses"]
        rows += [
            (f"training step on {device}", state, f"{1000 * check['seconds_per_step']:.1f} ms"),
            ("  compiling, first step", "", f"{check['compile_seconds']:.1f} s, {check['first_step_seconds']:.1f} s"),
            ("  loss", "", f"{losses[0]:.3f} -> {losses[-1]:.3f} in {len(losses)} steps"),
            ("  off NumPy's loss by", "", f"{check['loss_error']:.1e}"),
            ("  flooded step off by", "", f"{check['flood_error']:.1e} of the learning rate"),
        ]
    if report["loss_difference"] is not None:
        state = "ok" if report["loss_difference"] < SAME_LOSSES else "wrong"
        rows.append(("losses, GPU against CPU", state, f"differ by {report['loss_difference']:.1e} at most"))
    elif "GPU" not in report["checks"]:
        rows.append(("training step on GPU", "not run", ""))
    return rows


def _gpu_rows(gpu: dict[str, Any]) -> list[tuple[str, str, str]]:
    driver = gpu["driver"]
    if driver is None:
        rows = [("NVIDIA driver", "missing" if gpu["demanded"] else "none", "")]
    else:
        about = f"{driver['release'] or 'release not known'}, for CUDA up to {driver['cuda'] or '?'}"
        rows = [("NVIDIA driver", "ok" if gpu["cards"] else "wrong", about)]
    for card in gpu["cards"]:
        about = f"{card['name']}, {card['memory_mib'] / 1024:.0f} GiB"
        about += "" if card["free_mib"] is None else f" ({card['free_mib'] / 1024:.0f} free)"
        about += f", compute capability {card['capability']}"
        if card["compiles_kernels"]:
            about += "; the driver compiles MindSpore's kernels at the first use"
        rows.append(("GPU", "ok", about))
    rows.append(("MindSpore's GPU part", "ok" if gpu["plugin"] else "missing", gpu["plugin"] or ""))
    for library in gpu["libraries"]:
        if library["path"] is None:
            rows.append((library["name"], "missing", f"package {library['package']}"))
        else:
            rows.append((library["name"], "ok", f"{library['version'] or '?'}, {Path(library['path']).parent}"))
    return [*rows, *((name, "", value) for name, value in gpu["settings"].items() if driver is not None)]
