"""Worker processes: each prepares a job once, takes examples one at a time and sends their results back.

They share nothing. Every worker has a pipe of its own, so that one which is killed can neither hold a lock that others
wait for nor take a result with it: what it had in hand is known here and given to the next. Processes are spawned, not
forked, since PyTorch and the fast tokenizers may hang in a fork.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, process, resource_tracker
from typing import Any, Protocol

from .errors import UserError

ENDS_ALLOWED = 3  # how often a worker may end on one example, or before it is ready, until the run gives up


_ENDING = (signal.SIGINT, signal.SIGTERM)


class Example(Protocol):
    """What a worker is given: `id` names it in messages."""

    @property
    def id(self) -> int: ...


class Job(Protocol):
    """What every worker prepares for itself; it is sent there, so it must be picklable."""

    def prepare(self, kept: dict[Any, Any]) -> Callable[[Any], dict[str, Any]]:
        """Returns the function example -> record; `kept` lasts from one job of a worker to its next."""


class ExampleError(UserError):
    """One example could not be attacked."""

    def __init__(self, id: int, reason: str) -> None:
        super().__init__(f"example {id} of the evaluation set {reason}")


def describe_failure(error: BaseException) -> str:
    """Returns what happened and where, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {os.path.basename(frames[-1].filename)}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}: {' '.join(str(error).split()) or 'no message'}"


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


@dataclass(eq=False)
class _Worker:
    process: process.BaseProcess
    pipe: connection.Connection
    started: float
    job: int = 0  # number of the job it was sent last
    ready: bool = False  # it has prepared that job
    example: Any = None  # what it has in hand

    def send(self, message: Any) -> None:
        with contextlib.suppress(OSError):  # it has ended: seen when its answer is read
            self.pipe.send(message)


class Workers:
    """Up to `count` processes for any number of jobs, one job after the other; a context that leaves none behind.

    `starting_seconds` says how long each worker of the last job took from its start, or from the job's, until it was
    ready for examples.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.starting_seconds: list[float] = []
        self._workers: list[_Worker] = []
        self._job_number = 0
        self._job: Job | None = None
        self._failed_starts = 0

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers there are now."""
        return [worker.process.pid for worker in self._workers if worker.process.pid is not None]

    def start(self, job: Job, wanted: int | None = None, wait_for: int = 1) -> None:
        """Starts as many workers as are `wanted` and not there yet, and waits until `wait_for` of them are ready.

        Raises:
            UserError: what the job raised, or the workers end before they are ready.
        """
        self._job, self._job_number, self._failed_starts = job, self._job_number + 1, 0
        self.starting_seconds = []
        try:
            for worker in self._workers:
                self._give_job(worker)
            self._fill(wanted or self.count)
            while sum(worker.ready for worker in self._workers) < min(wait_for, self.count):
                for worker, message in self._messages():
                    if message is None:
                        self._bury(worker)
                    else:
                        self._note(worker, message)
                self._fill(wanted or self.count)
        except BaseException:
            self.stop()
            raise

    def run(self, examples: Sequence[Any]) -> Iterator[dict[str, Any]]:
        """Yields the started job's records of `examples`, in the order in which they are finished.

        Raises:
            ExampleError: an example raised an exception, or has ended its worker `ENDS_ALLOWED` times.
            UserError: workers end again and again before they are ready.
        """
        waiting, left, ends = deque(examples), len(examples), Counter[int]()
        finished = False
        try:
            while left:
                self._fill(left)
                for worker in self._workers:
                    if worker.ready and worker.example is None and waiting:
                        worker.example = waiting.popleft()
                        worker.send(worker.example)
                for worker, message in self._messages():
                    if message is None:
                        example, reason = self._bury(worker)
                        if example is not None:
                            ends[example.id] += 1
                            if ends[example.id] == ENDS_ALLOWED:
                                raise ExampleError(
                                    example.id, f"has ended its worker process {ENDS_ALLOWED} times ({reason})"
                                )
                            waiting.appendleft(example)
                    elif (record := self._note(worker, message)) is not None:
                        left -= 1
                        yield record
            finished = True
        finally:
            if not finished:  # workers are in the midst of examples that nobody waits for any more
                self.stop()

    def stop(self) -> None:
        """Ends all workers at once, whatever they are doing."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.process.kill()
            worker.pipe.close()
        for worker in workers:
            worker.process.join()

    def _fill(self, wanted: int) -> None:
        while len(self._workers) < min(wanted, self.count):
            worker = _spawn()
            self._workers.append(worker)
            self._give_job(worker)

    def _give_job(self, worker: _Worker) -> None:
        worker.started, worker.job, worker.ready = time.perf_counter(), self._job_number, False
        worker.send((worker.job, self._job))

    def _messages(self) -> list[tuple[_Worker, Any]]:
        """Waits for workers that have something to say; None as a message says that the worker has ended."""
        by_pipe = {worker.pipe: worker for worker in self._workers}
        found: list[tuple[_Worker, Any]] = []
        for pipe in connection.wait(list(by_pipe)):
            worker = by_pipe[pipe]  # type: ignore[index]
            try:
                found.append((worker, worker.pipe.recv()))
            except (EOFError, OSError):
                found.append((worker, None))
        # Results come before what ends the run.
        return sorted(found, key=lambda each: each[1] is None or each[1][0] != "record")

    def _note(self, worker: _Worker, message: Any) -> dict[str, Any] | None:
        kind, content = message
        if kind == "record":
            worker.example = None
            return content
        if kind == "ready":
            if content == self._job_number:
                worker.ready = True
                self.starting_seconds.append(time.perf_counter() - worker.started)
            return None
        sentence, trace = content
        cause = RuntimeError(f"in a worker process:\n{trace}")
        if kind == "failed":
            raise ExampleError(worker.example.id, f"failed: {sentence}") from cause
        raise UserError(sentence) from cause

    def _bury(self, worker: _Worker) -> tuple[Any, str]:
        """Takes an ended worker off the list; returns the example it had in hand, and how it ended."""
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.join()
        code = worker.process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        if code == -signal.SIGKILL:
            how += ", which the system sends when memory runs out; try fewer --workers"
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts == ENDS_ALLOWED:
                raise UserError(
                    f"{ENDS_ALLOWED} worker processes ended before they were ready ({how}); a script that calls this "
                    "needs its calls under `if __name__ == '__main__':`"
                )
        return worker.example, how


def _spawn() -> _Worker:
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
    return _Worker(child, ours, started)


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
    kept: dict[Any, Any] = {}
    attack: Callable[[Any], dict[str, Any]] | None = None
    with contextlib.suppress(EOFError, OSError):  # the parent has gone
        while True:
            message = pipe.recv()
            try:
                if attack is None or isinstance(message, tuple):
                    number, job = message
                    attack = job.prepare(kept)
                    answer = ("ready", number)
                else:
                    answer = ("record", attack(message))
            except UserError as error:
                answer = ("refused", (str(error), traceback.format_exc()))
            except Exception as error:
                kind = "refused" if isinstance(message, tuple) else "failed"
                answer = (kind, (describe_failure(error), traceback.format_exc()))
            pipe.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
