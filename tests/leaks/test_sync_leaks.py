"""Leaks of locks, events, semaphores, queues and what is made of them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from connections import MOMENT
from leak_case import Case, check_rounds

import pycoronet
from pycoronet import (
    Barrier,
    BoundedSemaphore,
    Cancelled,
    Channel,
    Condition,
    Event,
    LifoQueue,
    Lock,
    PriorityQueue,
    Queue,
    RLock,
    Semaphore,
    ShutDown,
    SimpleQueue,
    Task,
    sleep,
    spawn,
)

pytestmark = [pytest.mark.leaks, pytest.mark.usefixtures("virtual_hub")]

TYPES = (Task, Lock, RLock, Queue, SimpleQueue, LifoQueue, PriorityQueue, Condition, Channel)


class Sentinel:
    """Goes through every queue."""

    def __lt__(self, other: object) -> bool:
        return False


SENTINEL = Sentinel()


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "unraisablehook", lambda report: None)
    return iter([None])


def attempt(error: type[BaseException], call: Any, *arguments: Any) -> None:
    try:
        call(*arguments)
    except error:
        return
    raise AssertionError(error)


def lock_and_wait() -> None:
    for lock in (Lock(), RLock(), Semaphore(), BoundedSemaphore()):
        lock.acquire()
        tasks = [spawn(lock.acquire), spawn(lock.acquire), spawn(lock.acquire, True, 1)]
        sleep(MOMENT)
        tasks[0].cancel()
        sleep(2)
        lock.release()
        tasks[1].join()
        repr(lock)
        attempt(Cancelled, tasks[0].get)


def lock_and_forget() -> None:
    spawn(Lock().acquire).join()
    lock = RLock()
    lock._acquire_restore(2)
    lock._release_save()
    attempt(RuntimeError, lock.release)
    attempt(TypeError, Lock, 1)


def set_and_wait() -> None:
    event = Event()
    tasks = [spawn(event.wait) for _ in range(3)]
    sleep(MOMENT)
    tasks[0].cancel()
    event.set()
    for task in tasks:
        task.join()


def put_and_get() -> None:
    for kind in (Queue, LifoQueue, PriorityQueue):
        queue: Any = kind(2)
        tasks = [spawn(queue.put, SENTINEL) for _ in range(4)]
        sleep(MOMENT)
        tasks[3].cancel()
        for _ in range(3):
            assert queue.get() is SENTINEL
        getter = spawn(queue.get)
        sleep(MOMENT)
        getter.cancel()
        for _ in range(2):
            queue.put_nowait(SENTINEL)
        attempt(Exception, queue.put_nowait, SENTINEL)
        attempt(Exception, queue.put, SENTINEL, True, 1)
        queue.get()


def fill_and_drop() -> None:
    for queue in (Queue(), SimpleQueue(), PriorityQueue()):
        for _ in range(100):
            queue.put(SENTINEL)
        for _ in range(80):
            queue.get()
    own: Queue[Any] = Queue()
    own.put(own)


def shut_down() -> None:
    queue: Any = Queue(1)
    tasks = [spawn(queue.put, SENTINEL) for _ in range(3)]
    sleep(MOMENT)
    queue.shutdown(immediate=True)
    for task in tasks[1:]:
        attempt(ShutDown, task.get)
    attempt(ShutDown, queue.get)


def fail_in_a_subclass() -> None:
    queue: Any = PriorityQueue()
    queue.put("text")
    attempt(TypeError, queue.put, 1)
    attempt(TypeError, PriorityQueue, "1")


def meet() -> None:
    condition, barrier = Condition(), Barrier(2)
    channel: Channel[Any] = Channel()

    def wait() -> None:
        with condition:
            condition.wait(1)

    tasks = [spawn(wait), spawn(wait), spawn(barrier.wait), spawn(channel.put, SENTINEL)]
    sleep(MOMENT)
    with condition:
        condition.notify()
    barrier.wait()
    assert channel.get() is SENTINEL
    cancelled = spawn(channel.put, SENTINEL)
    sleep(MOMENT)
    cancelled.cancel()
    channel.close()
    assert list(channel) == []
    for task in tasks:
        task.join()


def exchange_with_a_thread() -> None:
    requests: Queue[Any] = Queue(1)
    replies: SimpleQueue[Any] = SimpleQueue()

    def work() -> None:
        for _ in range(3):
            replies.put(requests.get())

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(3):
        requests.put(SENTINEL)
        assert replies.get() is SENTINEL
    thread.join()


CASES: list[Case] = [
    lock_and_wait,
    lock_and_forget,
    set_and_wait,
    put_and_get,
    fill_and_drop,
    shut_down,
    fail_in_a_subclass,
    meet,
]


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_left(case: Case) -> None:
    check_rounds(case, types=TYPES, counted=(SENTINEL,))


def test_nothing_is_left_of_threads() -> None:
    pycoronet.get_hub().close()  # real time: what comes from a thread comes when it comes
    check_rounds(exchange_with_a_thread, types=TYPES, counted=(SENTINEL,))
