"""Where the computation runs: target, threads and memory settings, made before the first tensor."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from .cuda_libraries import ready_for_mindspore, refusal
from .errors import Terminated, UserError, nearest

DEVICES = ("CPU", "GPU")
_chosen: tuple[str, int | None] | None = None  # MindSpore takes these once in a process


def use_device(target: str = "CPU", threads: int | None = None) -> None:
    """Chooses the device for everything that follows in this process, in graph mode.

    For a GPU it loads the libraries of CUDA 11 (`cuda_libraries`), which has to come before MindSpore is imported.

    Args:
        target: `CPU` or `GPU`.
        threads: CPU threads of one operator, but at least two of a matrix product; None leaves the choice to MindSpore
            (all cores).

    Raises:
        UserError: the name is unknown, the device or what it needs is missing, MindSpore was imported too early for a
            GPU, or the process computes otherwise already.
    """
    if target not in DEVICES:
        raise UserError(f"device {target!r} is not known{nearest(target.upper(), DEVICES)}; use CPU or GPU")
    global _chosen
    if _chosen is not None and _chosen[0] == target and threads in (None, _chosen[1]):
        return
    if _chosen is not None:
        raise UserError(
            f"this process already computes on {_chosen[0]} with {_chosen[1] or 'all'} threads; "
            "MindSpore cannot change that, so start another process"
        )
    _keep_freed_memory()
    if threads is not None:
        if threads < 1:
            raise UserError(f"threads is {threads}; give a whole number from 1")
        os.environ["OMP_NUM_THREADS"] = str(threads)  # read when the kernels are loaded
    early = "mindspore" in sys.modules
    with ready_for_mindspore() if target == "GPU" else contextlib.nullcontext():
        import mindspore as ms

        try:
            ms.set_device(target)
        except (RuntimeError, ValueError) as error:
            remedy = "python run/doctor.py tells what is missing; --device CPU works everywhere"
            if early:
                remedy = "MindSpore was imported before: call device.use_device first, before any model is imported"
            raise UserError(f"MindSpore cannot use the device {target} ({refusal(error)}); {remedy}") from error
    ms.set_context(mode=ms.GRAPH_MODE)
    if threads is not None:
        ms.runtime.dispatch_threads_num(1)
        ms.set_context(runtime_num_threads=threads)
    _chosen = (target, threads)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Makes Ctrl-C a KeyboardInterrupt also while MindSpore computes, after the operation that is under way.

    During a graph's run MindSpore takes SIGINT itself and sends its own process SIGTERM, which would end it at once.
    """
    if threading.current_thread() is not threading.main_thread():  # only there may signals be handled
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def held_signals() -> Iterator[Callable[[], None]]:
    """Holds Ctrl-C and SIGTERM back; yields what ends the work in hand if one of them came, at a moment that suits.

    That function raises KeyboardInterrupt after Ctrl-C and `errors.Terminated` after SIGTERM. So that MindSpore does
    not take the one for the other (see `stoppable`), both are blocked in this thread, and with it in all threads that
    are started meanwhile: a signal waits in the system until it is asked for. Where MindSpore's threads are older, as
    in a program that has computed before, Ctrl-C may be taken for SIGTERM. Signals that are ignored stay so.
    """
    numbers = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) != signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():  # only there may signals be handled
        yield lambda: None
        return
    arrived: list[int] = []

    def demand_none() -> None:
        for number in signal.sigpending() & set(numbers):
            arrived.append(signal.sigwait([number]))  # taken without its handler, which may be MindSpore's by now
        if arrived:
            raise Terminated if arrived[0] == signal.SIGTERM else KeyboardInterrupt

    before = {each: signal.signal(each, lambda number, frame: arrived.append(number)) for each in numbers}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield demand_none
        demand_none()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for each, handler in before.items():
            signal.signal(each, signal.SIG_DFL if handler is None else handler)  # None: not from Python


def _keep_freed_memory() -> None:
    """Lets the C library keep large freed blocks instead of returning them to the system after every operator.

    With shapes known only at run time MindSpore allocates each operator's output anew; giving pages back and
    faulting them in again took a third of a training step (docs/performance.md).
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library: nothing to tune
        return
    m_trim_threshold, m_mmap_threshold = -1, -3
    mallopt(m_mmap_threshold, 1 << 30)
    mallopt(m_trim_threshold, 2**31 - 1)


def end_with_parent() -> None:
    """In a new process, as `preexec_fn`: lets the system end it when the process that started it ends, also by SIGKILL.

    Only Linux can; elsewhere nothing happens.
    """
    if sys.platform.startswith("linux"):
        pr_set_pdeathsig = 1
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
