"""The loop that gives examples to workers one at a time, whatever carries them, and the workers' side of it.

Workers share nothing. What each has in hand is known here, so that one which ends loses nothing: its example is given
to the next. `attack_workers` carries messages to processes of this machine, `attack_ray` to those of a Ray cluster.
"""

from __future__ import annotations

import os
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from .errors import UserError

ENDS_ALLOWED = 3  # how often a worker may end on one example, or before it is ready, until the run gives up


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


class Bench:
    """The worker's side: it prepares the job that it is sent, and attacks examples of the last one.

    Answers are pairs (kind, content), whose content can be sent anywhere: ready, record, failed or refused.
    """

    def __init__(self) -> None:
        self._kept: dict[Any, Any] = {}
        self._attack: Callable[[Any], dict[str, Any]] | None = None

    def prepare(self, number: int, job: Job) -> tuple[str, Any]:
        """Answers ("ready", `number`) when examples of the job can come."""
        try:
            self._attack = job.prepare(self._kept)
        except Exception as error:
            return failure("refused", error)
        return "ready", number

    def attack(self, example: Any) -> tuple[str, Any]:
        """Answers with the example's record."""
        assert self._attack is not None
        try:
            return "record", self._attack(example)
        except Exception as error:
            return failure("refused" if isinstance(error, UserError) else "failed", error)


def failure(kind: str, error: Exception) -> tuple[str, Any]:
    """Returns the answer that tells of an exception: a sentence, and where it was raised."""
    sentence = str(error) if isinstance(error, UserError) else describe_failure(error)
    return kind, (sentence, traceback.format_exc())


@dataclass(eq=False, kw_only=True)
class Worker:
    """What the loop knows of a worker."""

    started: float
    job: int = 0  # number of the job it was sent last
    ready: bool = False  # it has prepared that job
    example: Any = None  # what it has in hand


W = TypeVar("W", bound=Worker)


class WorkerPool(ABC, Generic[W]):
    """Up to `count` workers for any number of jobs, one job after the other; a context that leaves none behind.

    `starting_seconds` says how long each worker of the last job took from its start, or from the job's, until it was
    ready for examples. `examples_by_node` counts records by the machine that made them, where there are several.
    """

    failed_starts_allowed = ENDS_ALLOWED  # one after the other
    hint = ""  # what may be the matter when workers end before they are ready

    def __init__(self) -> None:
        self.starting_seconds: list[float] = []
        self.examples_by_node: Counter[str] = Counter()
        self._workers: list[W] = []
        self._job_number = 0
        self._job: Job | None = None
        self._failed_starts = 0

    def __enter__(self) -> WorkerPool[W]:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    @abstractmethod
    def count(self) -> int:
        """How many workers there may be now."""

    @abstractmethod
    def _spawn(self) -> W:
        """Starts a worker, without waiting for it."""

    @abstractmethod
    def _send_job(self, worker: W, number: int, job: Job) -> None:
        """Has the worker prepare a job; whether it still lives is seen when its answer is read."""

    @abstractmethod
    def _send_example(self, worker: W, example: Any) -> None:
        """Has the worker attack an example."""

    @abstractmethod
    def _messages(self) -> list[tuple[W, Any]]:
        """Waits, though not for ever, for workers with something to say; None says that the worker has ended."""

    @abstractmethod
    def _end(self, workers: Sequence[W]) -> None:
        """Ends workers at once, whatever they are doing."""

    @abstractmethod
    def _how_it_ended(self, worker: W) -> str:
        """Says in a few words how a worker ended, and lets go of what it held."""

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
                        self._send_example(worker, worker.example)
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
        self._end(workers)

    def _fill(self, wanted: int) -> None:
        while len(self._workers) < min(wanted, self.count):
            worker = self._spawn()
            self._workers.append(worker)
            self._give_job(worker)

    def _give_job(self, worker: W) -> None:
        assert self._job is not None
        worker.started, worker.job, worker.ready = time.perf_counter(), self._job_number, False
        self._send_job(worker, worker.job, self._job)

    def _note(self, worker: W, message: Any) -> dict[str, Any] | None:
        kind, content = message
        if kind == "record":
            worker.example = None
            return content
        if kind == "ready":
            if content == self._job_number:
                worker.ready, self._failed_starts = True, 0
                self.starting_seconds.append(time.perf_counter() - worker.started)
            return None
        sentence, trace = content
        cause = RuntimeError(f"in a worker process:\n{trace}")
        if kind == "failed":
            raise ExampleError(worker.example.id, f"failed: {sentence}") from cause
        raise UserError(sentence) from cause

    def _bury(self, worker: W) -> tuple[Any, str]:
        """Takes an ended worker off the list; returns the example it had in hand, and how it ended."""
        self._workers.remove(worker)
        how = self._how_it_ended(worker)
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= self.failed_starts_allowed:
                raise UserError(
                    f"{self._failed_starts} worker processes ended before they were ready ({how}){self.hint}"
                )
        return worker.example, how


def in_order(messages: list[tuple[W, Any]]) -> list[tuple[W, Any]]:
    """Returns messages with the results before what ends the run."""
    return sorted(messages, key=lambda each: each[1] is None or each[1][0] != "record")
