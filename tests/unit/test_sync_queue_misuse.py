"""Queues: subclasses that keep the items, wrong arguments, misuse, lifetime."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from connections import MOMENT
from sync_case import in_callback

from pycoronet import (
    DeadlockError,
    LifoQueue,
    PriorityQueue,
    Queue,
    SimpleQueue,
    get_hub,
    sleep,
    spawn,
)

pytestmark = pytest.mark.usefixtures("virtual_hub")

ALL: list[Any] = [Queue, LifoQueue, PriorityQueue, SimpleQueue]


# --- Subclasses -------------------------------------------------------------------------


class Unique(Queue[Any]):
    """Keeps no item twice."""

    def _init(self, maxsize: int) -> None:
        self.items: dict[Any, None] = {}

    def _qsize(self) -> int:
        return len(self.items)

    def _put(self, item: Any) -> None:
        self.items[item] = None

    def _get(self) -> Any:
        return self.items.pop(next(iter(self.items))) or "item"


def test_subclass_keeps_items_in_its_own_way() -> None:
    queue = Unique(2)
    for item in (1, 1, 1, 2):
        queue.put(item)
    assert queue.qsize() == 2
    assert queue.full()
    first, second = spawn(queue.get), spawn(queue.get)
    third = spawn(queue.get)
    sleep(0)
    assert (first.get(), second.get()) == ("item", "item")
    assert not third.done
    queue.put(3)
    assert third.get() == "item"


def test_subclass_without_a_place_to_keep_items_cannot_be_made() -> None:
    class Placeless(Queue[Any]):
        @property
        def _init(self) -> Any:  # type: ignore[override]
            raise LookupError("no place")

    with pytest.raises(LookupError, match="no place"):
        Placeless()


@pytest.mark.usefixtures("reports")
def test_subclass_that_fails_leaves_the_queue_in_order() -> None:
    class Failing(Unique):
        failures: list[str]

        def _put(self, item: Any) -> None:
            if "put" in self.failures:
                raise LookupError("put")
            super()._put(item)

        def _get(self) -> Any:
            if "get" in self.failures:
                raise LookupError("get")
            return super()._get()

    queue = Failing(1)
    queue.failures = ["put"]
    with pytest.raises(LookupError):
        queue.put(1)
    queue.failures = []
    queue.put(1)
    first, second = spawn(queue.put, 2), spawn(queue.put, 3)
    sleep(0)
    queue.failures = ["put"]
    queue.get()
    with pytest.raises(LookupError):
        first.get()
    with pytest.raises(LookupError):
        second.get()
    queue.failures = []
    getters = [spawn(queue.get) for _ in range(2)]
    sleep(0)
    queue.failures = ["get"]
    queue.put(4)
    with pytest.raises(LookupError):
        getters[0].get()
    with pytest.raises(LookupError):
        getters[1].get()  # the item stayed, and it was the next one's turn
    queue.failures = []
    assert queue.get_nowait() == "item"


@pytest.mark.parametrize("size", [-1, "1", None])
def test_subclass_with_a_wrong_size_is_told(size: Any) -> None:
    class Wrong(Unique):
        def _qsize(self) -> Any:
            return size

    queue = Wrong(1)
    for call in (queue.qsize, queue.get, queue.full, queue.empty, lambda: queue.put(1)):
        with pytest.raises((TypeError, ValueError)):
            call()


def test_queue_that_is_used_by_its_own_method_is_an_error() -> None:
    class Recursive(Unique):
        def _put(self, item: Any) -> None:
            self.put(item)

    with pytest.raises(RuntimeError, match="its own _put"):
        Recursive().put(1)


def test_comparing_items_of_a_priority_queue_may_fail() -> None:
    queue: PriorityQueue[Any] = PriorityQueue()
    queue.put(1)
    with pytest.raises(TypeError):
        queue.put("text")
    assert queue.get() == 1


# --- Misuse and lifetime ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: Queue("1"), TypeError),
        (lambda: Queue(1, 2), TypeError),
        (lambda: LifoQueue(size=1), TypeError),
        (lambda: SimpleQueue(1), TypeError),
        (lambda: Queue().put(), TypeError),
        (lambda: Queue().put(1, True, 1, 1), TypeError),
        (lambda: Queue().put(1, timeout="1"), TypeError),
        (lambda: Queue().get(timeout=-1), ValueError),
        (lambda: Queue().get(timeout=float("nan")), ValueError),
        (lambda: Queue().get(wait=True), TypeError),
        (lambda: Queue().shutdown(now=True), TypeError),
        (lambda: setattr(Queue(), "maxsize", "1"), TypeError),
        (lambda: delattr(Queue(), "maxsize"), TypeError),
        (lambda: setattr(Queue(), "is_shutdown", True), AttributeError),
        (lambda: Queue()._get(), IndexError),
    ],
)
def test_wrong_arguments_are_refused(call: Callable[[], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        call()


def test_simple_queue_ignores_what_it_does_not_need() -> None:
    queue: SimpleQueue[int] = SimpleQueue()
    queue.put(1, False, -1)
    queue.put(2, block=True, timeout=None)
    assert queue.get(False, -1) == 1
    assert Queue[int] is not None
    assert SimpleQueue[int] is not None


def test_waiting_in_a_callback_is_refused_and_takes_no_place() -> None:
    queue: Queue[int] = Queue(1)
    with pytest.raises(RuntimeError, match="hub callback cannot"):
        in_callback(queue.get)
    in_callback(lambda: queue.put(1))
    for call in (lambda: queue.put(2), queue.join):
        with pytest.raises(RuntimeError, match="hub callback cannot"):
            in_callback(call)
    assert in_callback(queue.get) == 1
    queue.put_nowait(3)
    assert queue.get_nowait() == 3


@pytest.mark.usefixtures("reports")
def test_deadlock_names_the_queue() -> None:
    queue: Queue[int] = Queue(1)
    spawn(lambda: (queue.put(1), queue.put(2))).name = "putter"
    sleep(MOMENT)
    spawn(queue.join).name = "joiner"
    sleep(MOMENT)
    empty: Queue[int] = Queue()
    with pytest.raises(DeadlockError) as caught:
        empty.get()
    assert caught.value.waiters == [
        f"Task 'main program': get {empty!r}",
        f"Task 'putter': put {queue!r}",
        f"Task 'joiner': join {queue!r}",
    ]
    queue.shutdown(immediate=True)
    sleep(MOMENT)


@pytest.mark.parametrize("kind", ALL)
def test_queue_in_a_cycle_with_its_items_is_freed(kind: Any) -> None:
    class Item:
        pass

    queue = kind()
    item = Item()
    item.queue = queue  # type: ignore[attr-defined]
    queue.put(item)
    gone = weakref.ref(queue), weakref.ref(item)
    del queue, item
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_items_are_let_go_of_as_they_are_got() -> None:
    queue: Queue[object] = Queue()
    item = object()
    count = sys.getrefcount(item)
    for _ in range(100):
        queue.put(item)
    for _ in range(100):
        queue.get()
    assert sys.getrefcount(item) == count
    task = spawn(queue.get)
    sleep(0)
    queue.put(item)
    task.join()
    del task
    assert sys.getrefcount(item) == count


def test_calls_that_never_switch() -> None:
    queue: Queue[int] = Queue(2)
    task = spawn(queue.get)
    sleep(MOMENT)
    before = get_hub().switch_count
    queue.put_nowait(1)
    queue.put(2, False)
    queue.put(3, block=False)
    assert queue.get_nowait() == 2
    repr((queue, queue.qsize(), queue.full(), queue.empty()))
    queue.task_done()
    queue.shutdown()
    assert get_hub().switch_count == before
    assert task.get() == 1


def test_item_whose_end_uses_the_queue() -> None:
    queue: SimpleQueue[Any] = SimpleQueue()

    class Item:
        def __del__(self) -> None:
            queue.put("from the end")

    queue.put(Item())
    queue.put(Item())
    assert type(queue.get()) is Item
    queue.get()
    gc.collect()
    assert [queue.get(), queue.get()] == ["from the end", "from the end"]
