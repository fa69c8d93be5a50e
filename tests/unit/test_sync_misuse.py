"""Locks, events and semaphores: wrong arguments, misuse, subclasses, lifetime, many waiters."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from connections import MOMENT
from sync_case import hold, in_callback

from pycoronet import (
    BoundedSemaphore,
    Event,
    Lock,
    RLock,
    Semaphore,
    current,
    get_hub,
    sleep,
    spawn,
)

pytestmark = pytest.mark.usefixtures("virtual_hub")


def test_lock_that_is_not_held_is_not_released() -> None:
    for lock in (Lock(), RLock()):
        for call in (lock.release, lambda lock=lock: lock.__exit__(None, None, None)):
            with pytest.raises(RuntimeError, match="not locked"):
                call()
        assert lock.acquire(False)
    bounded = BoundedSemaphore(2)
    with pytest.raises(ValueError, match="more often"):
        bounded.release()
    bounded.acquire()
    with pytest.raises(ValueError, match="more often"):
        bounded.release(2)
    bounded.release()
    full = Semaphore(sys.maxsize)
    with pytest.raises(OverflowError):
        full.release()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: Lock(1), TypeError),
        (lambda: RLock(blocking=True), TypeError),
        (lambda: Event(1), TypeError),
        (lambda: Semaphore("1"), TypeError),
        (lambda: Semaphore(-1), ValueError),
        (lambda: BoundedSemaphore(-1), ValueError),
        (lambda: Semaphore(1, 2), TypeError),
        (lambda: Semaphore().release(0), ValueError),
        (lambda: Semaphore().release("1"), TypeError),
        (lambda: Semaphore().acquire(False, 1), ValueError),
        (lambda: Semaphore().acquire(timeout="1"), TypeError),
        (lambda: Semaphore().acquire(True, 1, 1), TypeError),
        (lambda: Event().wait("1"), TypeError),
        (lambda: Event().wait(float("nan")), ValueError),
        (lambda: Event().wait(1, 2), TypeError),
        (lambda: Lock().acquire(timeout=None), TypeError),
        (lambda: Lock().acquire(timeout=float("nan")), ValueError),
        (lambda: Lock().acquire(True, -2), ValueError),
        (lambda: Lock().acquire(False, 1), ValueError),
        (lambda: Lock().acquire(wait=1), TypeError),
        (lambda: RLock()._acquire_restore("1"), TypeError),
        (lambda: setattr(Lock(), "owner", None), AttributeError),
    ],
)
def test_wrong_arguments_are_refused(call: Callable[[], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        call()


def test_waiting_in_a_callback_is_refused_and_takes_no_place() -> None:
    lock, event, semaphore = Lock(), Event(), Semaphore(0)
    lock.acquire()
    for call in (lock.acquire, event.wait, semaphore.acquire):
        with pytest.raises(RuntimeError, match="hub callback cannot"):
            in_callback(call)
    semaphore.release()
    assert semaphore.acquire(False)
    lock.release()
    assert in_callback(lock.acquire) is True


def test_subclasses_take_arguments_of_their_own() -> None:
    class Named(Event):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    class Permits(Semaphore):
        def __init__(self, name: str, value: int) -> None:
            super().__init__(value)
            self.name = name

    event, permits = Named("event"), Permits(name="permits", value=0)
    task = spawn(lambda: (event.wait(), permits.acquire()))
    sleep(0)
    event.set()
    permits.release()
    assert task.get() == (True, True)
    assert "Named at" in repr(event)
    assert "Permits at" in repr(permits)
    assert isinstance(BoundedSemaphore(), Semaphore)


@pytest.mark.parametrize("kind", [Lock, RLock, Semaphore, BoundedSemaphore, Event])
def test_they_are_freed_when_nobody_refers_to_them(kind: Any) -> None:
    thing = kind()
    gone = weakref.ref(thing)
    del thing
    assert gone() is None


def test_lock_that_its_owner_alone_knows_is_freed() -> None:
    def work(lock: Lock) -> None:
        lock.acquire()
        task = current()
        assert task is not None
        tasks.append(weakref.ref(task))

    tasks: list[Any] = []
    spawn(work, Lock()).join()
    gc.collect()
    assert tasks[0]() is None


def test_calls_that_never_switch() -> None:
    lock, event, semaphore = RLock(), Event(), Semaphore()
    tasks = [spawn(event.wait), spawn(hold, lock, [], "")]
    sleep(MOMENT)
    before = get_hub().switch_count
    event.set()
    event.clear()
    assert semaphore.acquire(False)
    assert not semaphore.acquire(False)
    semaphore.release(5)
    lock.acquire(False)
    repr((lock, event, semaphore, lock.owner))
    assert get_hub().switch_count == before
    for task in tasks:
        task.join()


@pytest.mark.slow
def test_hundred_thousand_tasks_wait_for_one_event() -> None:
    event = Event()
    seen = [0]

    def work() -> None:
        result = event.wait()
        seen[0] += result

    tasks = [spawn(work) for _ in range(100_000)]
    sleep(0)
    tasks[500].cancel()
    tasks[99_999].cancel()
    event.set()
    for task in tasks:
        task.join()
    assert seen == [99_998]
