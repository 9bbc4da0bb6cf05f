"""Workers on the nodes of a Ray cluster: what `attack_workers` is for one machine.

Ray starts the processes, carries messages and files, and says when a process or a node has ended. Which example is
whose, and what is repeated, is decided by the loop of `attack_pool` in this process, which keeps the journal: Ray's own
repetitions are off, so that no example is ever counted twice.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from . import ray_cluster
from .attack_job import AttackJob
from .attack_nodes import SentJob, must_be_same, places_of_files, read_files
from .attack_pool import ENDS_ALLOWED, Job, Worker, WorkerPool, in_order
from .attack_ray_worker import Served, processor
from .attack_workers import number_of_workers
from .errors import UserError

POLL_SECONDS = 2.0  # how often the cluster is looked at while nothing happens
NOTICE_SECONDS = 30.0  # without a node that works: how long until a line says so,
WAIT_SECONDS = 600.0  # and until the run gives up


@dataclasses.dataclass(eq=False, kw_only=True)
class _Actor(Worker):
    handle: Any
    answers: deque[Any]  # references to what is still to come, in its order
    node: str = ""  # where it runs, once that is known
    error: str = ""


class RayWorkers(WorkerPool[_Actor]):
    """At most `workers` processes on the nodes of a Ray cluster; the connection lasts as long as the context.

    A node that joins is given work, and one that leaves is missed by nobody. Without any node left the run waits for
    one, `WAIT_SECONDS` at most.
    """

    def __init__(self, address: str, workers: int | str = "auto", threads: int = 1, device: str = "CPU") -> None:
        """Does not connect yet.

        Args:
            address: see `ray_cluster.connect`.
            workers: a number, or ``auto``: as many as the nodes have CPUs for, of which each takes `threads`.
            device: with ``GPU`` each worker takes a GPU for itself.

        Raises:
            UserError: no such address, or number of workers.
        """
        super().__init__()
        ray_cluster.check_address(address)
        self.address = address
        self._most = None if workers == "auto" else number_of_workers(workers)
        self._threads, self._gpu = threads, device.upper() == "GPU"
        self._count = 0
        self._context = ExitStack()
        self._references: dict[Path, Any] = {}
        self._looked = self._working = 0.0
        self._noticed = False
        self._processors: set[str] = set()

    def __enter__(self) -> RayWorkers:
        with ExitStack() as context:
            self._ray = ray_cluster.import_ray()
            context.enter_context(ray_cluster.quiet())
            ray_cluster.connect(self.address)
            context.callback(ray_cluster.disconnect)
            self._head = ray_cluster.head_of(self._ray)
            self._look()
            if self._count == 0:
                gpu = " and a GPU" if self._gpu else ""
                raise UserError(
                    f"no node of the Ray cluster at {self.address} has {self._threads} CPU(s){gpu} for a worker; add "
                    "one with `ray start`"
                )
            self._working = time.monotonic()
            self._context = context.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        with self._context:
            self.stop()

    @property
    def count(self) -> int:
        """How many workers the nodes that are there now can hold, `workers` at most."""
        return self._count

    def start(self, job: Job, wanted: int | None = None, wait_for: int = 1) -> None:
        """See `attack_pool.WorkerPool.start`. An `AttackJob` travels with its files."""
        references: dict[str, Any] = {}
        if isinstance(job, AttackJob):
            references = {name: self._send_files(place) for name, place in places_of_files(job).items()}
            job = SentJob(job, must_be_same(job), {})
        self._packed, self._files = [self._ray.put(job)], references  # in a list Ray leaves it to the worker to unpack
        self._working = time.monotonic()
        super().start(job, wanted, wait_for)

    def _send_files(self, place: Path) -> Any:
        if place not in self._references:
            self._references[place] = self._ray.put(read_files(place))
        return self._references[place]

    def _spawn(self) -> _Actor:
        options = {"num_cpus": self._threads, "num_gpus": int(self._gpu), "max_restarts": 0, "max_task_retries": 0}
        # Each beside the others as far as there is room, so that the nodes end together.
        handle = self._ray.remote(Served).options(**options, scheduling_strategy="SPREAD").remote()
        return _Actor(started=time.perf_counter(), handle=handle, answers=deque([handle.where.remote()]))

    def _send_job(self, worker: _Actor, number: int, job: Job) -> None:
        worker.answers.append(worker.handle.prepare.remote(number, self._packed, self._files))

    def _send_example(self, worker: _Actor, example: Any) -> None:
        worker.answers.append(worker.handle.attack.remote(example))

    def _messages(self) -> list[tuple[_Actor, Any]]:
        by_answer = {worker.answers[0]: worker for worker in self._workers if worker.answers}
        ready: list[Any] = []
        if by_answer:
            ready, _ = self._ray.wait(list(by_answer), timeout=POLL_SECONDS)
            ready, _ = self._ray.wait(list(by_answer), num_returns=len(by_answer), timeout=0) if ready else (ready, [])
        else:
            time.sleep(POLL_SECONDS)
        found = []
        for answer in ready:
            worker = by_answer[answer]
            worker.answers.popleft()
            try:
                message = self._ray.get(answer)
            except self._ray.exceptions.RayError as error:
                worker.error = _reason(error)
                found.append((worker, None))
                continue
            if worker.node:
                found.append((worker, message))
            else:
                self._arrived(worker, *message)
        if any(worker.node for worker in self._workers):
            self._working, self._noticed = time.monotonic(), False
        if time.monotonic() - self._looked > POLL_SECONDS or any(message is None for _, message in found):
            self._look()
        return in_order(found)

    def _arrived(self, worker: _Actor, node: str, its_processor: str) -> None:
        worker.node = node
        if its_processor not in self._processors | {processor()}:
            self._processors.add(its_processor)
            _say(
                f"note: the node {node} has another processor ({its_processor}) than this machine ({processor()}), and "
                "may differ from it in the last digits of scores"
            )

    def _look(self) -> None:
        """Counts the places for workers; gives up when the cluster has gone."""
        if not ray_cluster.answers(self._head):
            raise UserError(
                f"the head of the Ray cluster at {self._head} has gone; what is finished is kept, and the same command "
                "goes on when there is a cluster again"
            )
        count = ray_cluster.places(self._ray, self._threads, self._gpu)
        self._count = count if self._most is None else min(self._most, count)
        self.failed_starts_allowed = ENDS_ALLOWED * max(1, self._count)  # a node may be short of memory for a while
        self._looked = time.monotonic()
        idle = self._looked - self._working
        if self._working and idle > WAIT_SECONDS:
            raise UserError(
                f"for {WAIT_SECONDS / 60:.0f} minutes no node of the Ray cluster at {self._head} has taken a worker; "
                "what is finished is kept, and the same command goes on when there are free CPUs"
            )
        if self._working and idle > NOTICE_SECONDS and not self._noticed:
            self._noticed = True
            _say(f"waiting for a node of the Ray cluster at {self._head}: it has {count} place(s), none of them free")

    def _note(self, worker: _Actor, message: Any) -> dict[str, Any] | None:
        record = super()._note(worker, message)
        if record is not None:
            self.examples_by_node[worker.node] += 1
        return record

    def _bury(self, worker: _Actor) -> tuple[Any, str]:
        example, how = super()._bury(worker)
        again = f"; example {example.id} is given to another" if example is not None else ""
        _say(f"note: a worker on the node {worker.node or 'it was sent to'} has ended ({how}){again}")
        return example, how

    def _end(self, workers: Sequence[_Actor]) -> None:
        if self._ray.is_initialized():
            for worker in workers:
                self._ray.kill(worker.handle)

    def _how_it_ended(self, worker: _Actor) -> str:
        self._end([worker])  # one that merely cannot be reached must not go on
        return worker.error


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


def _reason(error: Exception) -> str:
    """The part of Ray's long explanations that says what happened."""
    text = " ".join(str(error).split())
    for mark in ("Worker exit detail: ", "because its ", "because "):
        if mark in text:
            text = text.partition(mark)[2]
            break
    return text.partition(" Some common causes")[0][:300].rstrip(" .")
