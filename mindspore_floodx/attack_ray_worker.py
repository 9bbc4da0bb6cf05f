"""The process on a node of a Ray cluster; it imports what its job needs and nothing more."""

from __future__ import annotations

import dataclasses
import functools
import platform
from pathlib import Path
from typing import Any

from .attack_pool import Bench, failure


class Served:
    """A `Bench` behind Ray's calls, which come one after the other."""

    def __init__(self) -> None:
        self._bench = Bench()

    def where(self) -> tuple[str, str]:
        """Answers with the node (its address and the beginning of its id), and its processor."""
        import ray
        from ray.util import get_node_ip_address

        return f"{get_node_ip_address()} ({ray.get_runtime_context().get_node_id()[:6]})", processor()

    def prepare(self, number: int, packed: list[Any], files: dict[str, Any]) -> tuple[str, Any]:
        """Prepares the job that is referred to; `files` are references to what a `SentJob` may need."""
        import ray

        try:
            job = ray.get(packed[0])
        except Exception as error:  # a module that is not installed here
            return failure("refused", error)
        if files:
            fetch = {name: functools.partial(ray.get, reference) for name, reference in files.items()}
            job = dataclasses.replace(job, files=fetch)
        return self._bench.prepare(number, job)

    def attack(self, example: Any) -> tuple[str, Any]:
        """Attacks an example."""
        return self._bench.attack(example)


def processor() -> str:
    """Returns the name of this machine's processor, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
