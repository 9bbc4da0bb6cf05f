"""A connection to a Ray cluster: opened with clear refusals, and looked after while it lasts."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from .errors import UserError

AUTO = "auto"
CODE = ("mindspore_floodx", "ckpt_convert")  # packages that are sent to the nodes
_CONNECT_SECONDS = 5.0
# HTTP/2's opening words and an empty frame of settings: what speaks gRPC, as Ray does, answers with such a frame.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS_FRAME = 4


def import_ray() -> Any:
    """Returns the package ray, imported with its usage reports and its terminal colours off.

    Raises:
        UserError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_COLOR_PREFIX", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError(
            f"attacks over several machines need the package ray ({error}); install it on each of them with "
            "`pip install -c constraints.txt 'mindspore-floodx[ray]'`"
        ) from None
    return ray


def connect(address: str) -> None:
    """Connects this process to a cluster; the package's code is sent to whatever node works for it.

    Args:
        address: ``host:port`` of the cluster's head, or ``auto`` for $RAY_ADDRESS or the cluster of which this machine
            is a node.

    Raises:
        UserError: ray is not installed, nothing or something else answers at the address, this machine is no node of
            that cluster, or the versions of Ray or Python differ.
    """
    ray = import_ray()
    if ray.is_initialized():
        raise UserError("this process is connected to a Ray cluster already; call ray.shutdown() before the attack")
    check_address(address)
    if address == AUTO:
        address = os.environ.get("RAY_ADDRESS") or _only_one(_clusters_here())
        check_address(address)
    if address != AUTO:
        _demand_server(address)
        _demand_node(address)
    code = [str(Path(spec.origin).parent) for name in CODE if (spec := importlib.util.find_spec(name)) and spec.origin]
    environment = {"py_modules": code, "excludes": ["__pycache__/", "*.pyc"]}
    try:
        with _handlers_kept():
            ray.init(address, log_to_driver=False, logging_level="CRITICAL", runtime_env=environment)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        disconnect()  # what came into being before the failure
        raise UserError(_explain(error, address)) from error


def check_address(address: str) -> None:
    """Refuses what is no address.

    Raises:
        UserError: neither ``auto`` nor ``host:port``.
    """
    if address == AUTO:
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(
            f"the Ray address must be auto or host:port, not {address!r}; `ray start --head` prints host:port"
        )


def _demand_server(address: str) -> None:
    """Ray itself waits for minutes where there is nothing, or something else."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS) as connection:
            connection.sendall(_PREFACE)
            answer = connection.recv(9)
    except socket.gaierror:
        raise UserError(f"there is no host {host!r}; give the Ray cluster's address as host:port with --ray") from None
    except OSError as error:
        raise UserError(
            f"no Ray cluster answers at {address} ({error.strerror or error}); start one with `ray start --head`, or "
            "give its address with --ray"
        ) from None
    if len(answer) < 4 or answer[3] != _SETTINGS_FRAME:
        raise UserError(
            f"what answers at {address} is no Ray cluster; give the address that `ray start --head` printed, with --ray"
        )


def _clusters_here() -> set[str] | None:
    """The heads, as host:port, of the clusters of which this machine is a node; None where the system has no /proc."""
    if not Path("/proc/self/cmdline").exists():
        return None
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text(encoding="utf-8", errors="replace").split("\0")
        except OSError:  # it has ended
            continue
        if Path(words[0]).name == "raylet":
            found |= {word.partition("=")[2] for word in words if word.startswith("--gcs-address=")}
    return found


def _only_one(clusters: set[str] | None) -> str:
    if clusters is None:
        return AUTO
    if not clusters:
        raise UserError("this machine is no node of a Ray cluster; make it one with `ray start`, or leave --ray out")
    if len(clusters) > 1:
        raise UserError(
            f"this machine is a node of {len(clusters)} Ray clusters; give the address of one of them with --ray: "
            f"{', '.join(sorted(clusters))}"
        )
    return clusters.pop()


def _demand_node(address: str) -> None:
    """On a machine that is no node of the cluster Ray aborts the process, with a stack trace in C++."""
    clusters = _clusters_here()
    if clusters is None:
        return
    host, _, port = address.rpartition(":")
    for known in clusters:
        its_host, _, its_port = known.rpartition(":")
        if port == its_port and (_numbers(host) & _numbers(its_host) or _is_loopback(host)):
            return
    raise UserError(
        f"this machine is no node of the Ray cluster at {address}; make it one with `ray start --address={address}` "
        "(with --num-cpus=0 it does no work)"
    )


def _numbers(host: str) -> set[str]:
    with contextlib.suppress(OSError):
        return {str(each[4][0]) for each in socket.getaddrinfo(host.strip("[]"), None)}
    return {host}


def _is_loopback(host: str) -> bool:
    return any(number.startswith("127.") or number == "::1" for number in _numbers(host))


def _explain(error: Exception, address: str) -> str:
    text = str(error)
    if "Version mismatch" in text:
        versions = "; ".join(" ".join(line.split()) for line in text.splitlines() if line.strip())
        return f"{versions}; install the same Ray and Python on this machine and on the cluster's"
    return f"cannot connect to Ray at {address}: {' '.join(text.split())[:300]}"


def disconnect() -> None:
    """Leaves the cluster."""
    with _handlers_kept():
        import_ray().shutdown()


def head_of(ray: Any) -> str:
    """Returns ``host:port`` of the connected cluster's head."""
    return ray.get_runtime_context().gcs_address


def answers(address: str) -> bool:
    """Says whether the cluster's head can be reached; Ray itself notices after a minute, and then ends the process."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def places(ray: Any, threads: int, gpu: bool) -> int:
    """Returns how many workers of `threads` CPUs (and a GPU each) the nodes that live can hold when nothing else runs.

    A GPU is counted whole.
    """
    total = 0
    for node in ray.nodes():
        if node["Alive"]:
            cpus, gpus = (int(node["Resources"].get(name, 0)) for name in ("CPU", "GPU"))
            total += min(cpus // threads, gpus) if gpu else cpus // threads
    return total


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps off standard output what Ray prints there when workers and nodes end, some of it pages long."""
    import_ray()
    import ray._private.worker as inner

    with mock.patch.object(inner, "print_to_stdstream", lambda *args, **kwargs: None, create=True):
        yield


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray puts a handler of its own in the place of the one for SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)
