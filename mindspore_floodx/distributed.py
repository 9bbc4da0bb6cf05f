"""Several workers that train one model: processes that `msrun` starts, each on a device of its own.

Every worker runs the same program. The first, rank 0, reads and writes the run folder; what the others have to know of
it they get from there (`from_main`). Sums over all workers are the same, bit for bit, on each of them, so models that
start equal stay equal. A process that msrun did not start is alone, and nothing here costs it anything.

MindSpore's collective library for CPUs sums float32 alone and broadcasts int32.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .device import end_with_parent
from .errors import UserError

CHUNKS = (1 << 23, 1 << 12, 2)  # int32 numbers sent at a time: each size is a graph of its own
# seconds that a worker waits for another one; msrun ends all of them as soon as one has ended
PATIENCE = "86400"

_rank, _size, _joined = 0, 1, False


def launched() -> bool:
    """Says whether msrun started this process."""
    return os.environ.get("MS_ROLE") in ("MS_WORKER", "MS_SCHED")


def prepare() -> None:
    """Sets what MindSpore reads when it is imported; nothing if msrun did not start this process."""
    if launched():
        os.environ.setdefault("GLOG_v", "3")  # without it a hundred lines about connections that are being made
        os.environ.setdefault("MS_CPU_COMM_OP_TIMEOUT", PATIENCE)


def join(target: str) -> None:
    """Joins the job that msrun started this process for; does not return in the job's scheduler, nor if there is none.

    Args:
        target: `CPU` or `GPU`, which was chosen by `device.use_device`.

    Raises:
        UserError: the workers do not find each other.
    """
    global _rank, _size, _joined
    if not launched() or _joined:
        return
    from mindspore.communication import get_group_size, get_rank, init

    if os.environ["MS_ROLE"] == "MS_WORKER":
        end_with_parent()  # a worker without its msrun would go on for ever
    try:
        init("nccl" if target == "GPU" else "mccl")
    except (RuntimeError, ValueError) as error:
        if os.environ["MS_ROLE"] == "MS_SCHED":  # which stays in `init` until the job has ended
            raise UserError(f"this job has ended before its time ({_first_line(error)})") from error
        raise UserError(
            f"the {os.environ.get('MS_WORKER_NUM', '?')} workers of this job did not find each other at "
            f"{os.environ.get('MS_SCHED_HOST')}:{os.environ.get('MS_SCHED_PORT')} ({_first_line(error)}); see "
            "docs/several_devices.md"
        ) from error
    _rank, _size, _joined = get_rank(), get_group_size(), True


def rank() -> int:
    """Returns the number of this worker, from 0."""
    return _rank


def size() -> int:
    """Returns the number of workers."""
    return _size


def is_main() -> bool:
    """Says whether this worker writes files and speaks; a process on its own is it too."""
    return _rank == 0


def total(values: Any) -> np.ndarray:
    """Returns the sum of an array over all workers, float32."""
    array = np.asarray(values, np.float32)
    if _size == 1:
        return array
    from mindspore import Tensor

    return _cells()[0](Tensor(array.reshape(-1))).asnumpy().reshape(array.shape)


def wait_for_all() -> None:
    """Waits until every worker is here."""
    total([0.0])


def from_main(make: Callable[[], bytes]) -> bytes:
    """Returns, on every worker, what rank 0 makes."""
    if _size == 1:
        return make()
    content = np.frombuffer(make(), np.uint8) if is_main() else np.zeros(0, np.uint8)
    length = int(_sent(np.array([len(content) >> 30, len(content) & (2**30 - 1)], np.int32)) @ [2**30, 1])
    numbers = np.zeros(-(-length // (4 * CHUNKS[1])) * CHUNKS[1], np.int32)
    numbers.view(np.uint8)[: len(content)] = content
    start = 0
    while start < len(numbers):
        size = CHUNKS[0] if start + CHUNKS[0] <= len(numbers) else CHUNKS[1]
        numbers[start : start + size] = _sent(numbers[start : start + size])
        start += size
    return numbers.tobytes()[:length]


def json_from_main(make: Callable[[], Any]) -> Any:
    """Returns, on every worker, what rank 0 makes and JSON can hold."""
    return json.loads(from_main(lambda: json.dumps(make()).encode())) if _size > 1 else make()


def demand_same(content: dict[str, Any], remedy: str) -> None:
    """Checks that something is equal on all workers.

    Args:
        content: what JSON can hold, by a name that tells the user what it is.
        remedy: what the user can do where it is not.

    Raises:
        UserError: on a worker on which something differs from rank 0.
    """
    if _size == 1:
        return
    theirs = json_from_main(lambda: content)
    for name, value in content.items():
        if theirs.get(name) != value:
            raise UserError(f"{name} of worker {_rank} differs from that of worker 0; {remedy}")


@contextlib.contextmanager
def explained(last_good: Callable[[], str]) -> Iterator[None]:
    """Makes one sentence of MindSpore's error when a worker of the job is no longer there.

    Args:
        last_good: says from which state the run can go on.
    """
    try:
        yield
    except RuntimeError as error:
        said = str(error)
        if _size == 1 or not any(word in said for word in ("AllReduce", "Broadcast", "timed out", "NCCL", "scheduler")):
            raise
        raise UserError(
            f"worker {_rank} of {_size} lost the others: one has ended, and its own log in msrun's --log_dir says why; "
            f"give the same command again to go on ({last_good()})"
        ) from error


def _sent(numbers: np.ndarray) -> np.ndarray:
    from mindspore import Tensor

    return _cells()[1](Tensor(numbers)).asnumpy()


_made: list[Any] = []


def _cells() -> list[Any]:
    if not _made:
        import mindspore as ms

        from .collectives import FromMain, SumOverWorkers

        total_of = SumOverWorkers()
        total_of.set_inputs(ms.Tensor(shape=[None], dtype=ms.float32))  # one graph for every size; Broadcast cannot
        _made.extend((total_of, FromMain()))
    return _made


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
