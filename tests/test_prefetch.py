"""Items made in advance by a thread: the same ones in the same order, and its end."""

import itertools
import threading
import time

import pytest

from mindspore_floodx.errors import UserError
from mindspore_floodx.prefetch import prefetched


def threads():
    return [each for each in threading.enumerate() if each.name == "prefetch"]


def test_the_same_items_in_the_same_order():
    assert list(prefetched(range(1000))) == list(range(1000))
    assert list(prefetched([])) == [] and threads() == []


def test_no_more_than_asked_for_are_made_in_advance():
    made = []
    items = prefetched((made.append(number) or number for number in itertools.count()), ahead=3)
    assert [next(items) for _ in range(4)] == [0, 1, 2, 3]
    deadline = time.monotonic() + 10
    while len(made) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert made == list(range(8))  # four were taken, three wait, and one is in the thread's hand
    items.close()
    assert threads() == []


def test_an_error_comes_where_its_item_would_have():
    def items():
        yield from "ab"
        raise UserError("the third is broken")

    taken = []
    with pytest.raises(UserError, match="the third is broken"):
        for item in prefetched(items()):
            taken.append(item)
    assert taken == ["a", "b"] and threads() == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_the_thread_ends_when_the_loop_is_left(stop):
    items = prefetched(itertools.count())
    with pytest.raises(stop):
        for item in items:
            if item == 5:
                raise stop
    items.close()
    assert threads() == []
