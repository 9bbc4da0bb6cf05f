"""Items of an iterator made in advance by a thread, while what was yielded before is used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

Item = TypeVar("Item")
POLL = 0.1  # seconds after which a thread whose items nobody takes looks whether it is to end


def prefetched(items: Iterable[Item], ahead: int = 2) -> Generator[Item, None, None]:
    """Yields the items in their order, of which up to `ahead` wait and one more is being made.

    An exception of the iterable's is raised where its item would have been yielded. The thread ends with the iterable,
    or when this generator is closed.
    """
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(ahead)
    unwanted = threading.Event()

    def put(kind: str, content: Any) -> None:
        while not unwanted.is_set():
            try:
                ready.put((kind, content), timeout=POLL)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put("item", item)
                if unwanted.is_set():
                    return
        except BaseException as error:  # whatever it is, it belongs to whoever takes the items
            put("error", error)
        else:
            put("end", None)

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            kind, content = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise content
            yield content
    finally:
        unwanted.set()
        thread.join()
