"""Worker processes: each prepares a job once, takes examples one at a time and sends their results back.

They share nothing. Every worker has a pipe of its own, so that one which is killed can neither hold a lock that others
wait for nor take a result with it. Processes are spawned, not forked, since PyTorch and the fast tokenizers may hang in
a fork. The loop is that of `attack_pool`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, process, resource_tracker
from typing import Any

from .attack_pool import Bench, Job, Worker, WorkerPool, in_order
from .errors import UserError

_ENDING = (signal.SIGINT, signal.SIGTERM)


def number_of_workers(workers: int | str, threads: int = 1) -> int:
    """Returns how many workers ``auto`` means (the cores this process may use, by `threads`), or the number given.

    Raises:
        UserError: neither a number of at least 1 nor ``auto``.
    """
    if workers == "auto":
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, usable // threads)
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise UserError(f"workers must be a number of at least 1, or 'auto', not {workers!r}")
    return workers


def open_workers(
    workers: int | str | None, threads: int = 1, device: str = "CPU", ray: str | None = None
) -> WorkerPool | None:
    """Returns the workers that are asked for, not started yet, or None where this process is to attack alone.

    Args:
        workers: how many at most, or ``auto``; by default 1, and ``auto`` with `ray`.
        device: ``CPU`` or ``GPU``, of the attacked model.
        ray: address of a Ray cluster, see `ray_cluster.connect`; by default they are processes of this machine.

    Raises:
        UserError: `workers` is neither a number of at least 1 nor ``auto``.
    """
    if ray is not None:
        from .attack_ray import RayWorkers

        return RayWorkers(ray, "auto" if workers is None else workers, threads, device)
    count = number_of_workers(1 if workers is None else workers, threads)
    return Workers(count) if count > 1 else None


@dataclass(eq=False, kw_only=True)
class _Process(Worker):
    process: process.BaseProcess
    pipe: connection.Connection


class Workers(WorkerPool[_Process]):
    """Up to `count` processes of this machine; see `attack_pool.WorkerPool`."""

    hint = "; a script that calls this needs its calls under `if __name__ == '__main__':`"

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    @property
    def count(self) -> int:
        """The number that was given."""
        return self._count

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers there are now."""
        return [worker.process.pid for worker in self._workers if worker.process.pid is not None]

    def _spawn(self) -> _Process:
        return _spawn()

    def _send_job(self, worker: _Process, number: int, job: Job) -> None:
        with contextlib.suppress(OSError):  # it has ended
            worker.pipe.send((number, job))

    def _send_example(self, worker: _Process, example: Any) -> None:
        with contextlib.suppress(OSError):
            worker.pipe.send(example)

    def _messages(self) -> list[tuple[_Process, Any]]:
        by_pipe = {worker.pipe: worker for worker in self._workers}
        found: list[tuple[_Process, Any]] = []
        for pipe in connection.wait(list(by_pipe)):
            worker = by_pipe[pipe]  # type: ignore[index]
            try:
                found.append((worker, worker.pipe.recv()))
            except (EOFError, OSError):
                found.append((worker, None))
        return in_order(found)

    def _end(self, workers: Sequence[_Process]) -> None:
        for worker in workers:
            worker.process.kill()
            worker.pipe.close()
        for worker in workers:
            worker.process.join()

    def _how_it_ended(self, worker: _Process) -> str:
        worker.pipe.close()
        worker.process.join()
        code = worker.process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        if code == -signal.SIGKILL:
            how += ", which the system sends when memory runs out; try fewer --workers"
        return how


def _spawn() -> _Process:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    started = time.perf_counter()
    child = context.Process(target=_serve, args=(theirs,), daemon=True)
    # Ctrl-C reaches all processes of a terminal. Here it ends the run; workers never see it, not even while they start.
    resource_tracker.ensure_running()  # first, since starting it unblocks the signal
    with _interrupts_held():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            child.start()
        finally:
            theirs.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return _Process(process=child, pipe=ours, started=started)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Has Ctrl-C and SIGTERM wait until the end of the block.

    A child that is started half way prints a stack trace. Blocking the signal in this thread alone is not enough:
    the system may give it to another thread, and Python then runs its handler here.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    ours = [each for each in _ENDING if signal.getsignal(each) is not None]  # None: a library's in C, left alone
    handlers = {each: signal.signal(each, lambda number, frame: came.append(number)) for each in ours}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def _serve(pipe: connection.Connection) -> None:
    """The worker's side: a pair (number, job) is prepared, anything else is an example of the last job."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    bench = Bench()
    with contextlib.suppress(EOFError, OSError):  # the parent has gone
        while True:
            message = pipe.recv()
            pipe.send(bench.prepare(*message) if isinstance(message, tuple) else bench.attack(message))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
