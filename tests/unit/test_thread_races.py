"""Threads reach into a hub while it polls, and stay there as it wakes up.

Nothing may be lost here; whether anything is touched outside the GIL is what `make tsan` sees.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pycoronet import Event, Queue, aio, from_thread, get_hub, sleep, spawn
from pycoronet._inspection import take_snapshot

ROUNDS = 30
THREADS = 2
LIMIT_SECONDS = 60  # of a test that fails
HOLD_SECONDS = 0.0005  # a thread that has woken the hub keeps the GIL for so long


@pytest.fixture
def long_turns() -> Iterator[None]:
    """Let a thread keep the GIL until it gives it up."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1)
    yield
    sys.setswitchinterval(interval)


def hold() -> None:
    end = time.monotonic() + HOLD_SECONDS
    while time.monotonic() < end:
        pass


def reach_from_threads(reach: Callable[[], object]) -> None:
    """Have threads call reach(), twice in each round; wait for them as tasks do."""
    left = Queue[None]()
    hub = get_hub()

    def work() -> None:
        for _ in range(ROUNDS):
            reach()
            hold()
            reach()
            time.sleep(0)  # now the hub may have its turn
        hub.call_soon_threadsafe(left.put, None)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for _ in threads:
        left.get(timeout=LIMIT_SECONDS)
    for thread in threads:
        thread.join(LIMIT_SECONDS)
        assert not thread.is_alive()


EXPECTED = 2 * ROUNDS * THREADS


@pytest.mark.usefixtures("long_turns")
def test_calls_reach_a_hub_that_polls() -> None:
    calls: list[int] = []
    hub = get_hub()
    reach_from_threads(lambda: hub.call_soon_threadsafe(calls.append, 1))
    sleep(0.001)
    assert len(calls) == EXPECTED


@pytest.mark.usefixtures("long_turns")
def test_items_reach_a_task_of_a_hub_that_polls() -> None:
    queue = Queue[int]()
    consumer = spawn(lambda: [queue.get() for _ in range(EXPECTED)])
    reach_from_threads(lambda: queue.put(1))
    assert consumer.get() == [1] * EXPECTED


@pytest.mark.usefixtures("long_turns")
def test_events_reach_a_task_of_a_hub_that_polls() -> None:
    event = Event()
    seen: list[int] = []

    def wait() -> None:
        while len(seen) < 2:
            event.wait()
            event.clear()
            seen.append(1)

    waiting = spawn(wait)
    reach_from_threads(event.set)
    event.set()
    sleep(0)
    event.set()
    waiting.join()


@pytest.mark.usefixtures("long_turns")
def test_asyncio_calls_reach_a_guest_of_a_hub_that_polls() -> None:
    calls: list[int] = []
    loop = aio.get_loop()
    reach_from_threads(lambda: loop.call_soon_threadsafe(calls.append, 1))
    sleep(0.001)
    assert len(calls) == EXPECTED
    loop.close()


@pytest.mark.usefixtures("long_turns")
def test_tasks_of_a_hub_that_polls_are_looked_at() -> None:
    hub = get_hub()
    sleepers = [spawn(sleep, 60) for _ in range(3)]
    sleep(0)

    def look() -> None:
        hub._measure_cpu(True)
        take_snapshot()
        hub._progress()
        hub._holder()
        hub._measure_cpu(False)

    reach_from_threads(look)
    for sleeper in sleepers:
        sleeper.cancel()


@pytest.mark.usefixtures("long_turns")
def test_calls_into_a_hub_that_polls_are_answered() -> None:
    hub = get_hub()
    answers: list[int] = []
    reach_from_threads(lambda: answers.append(from_thread.run(hub, lambda: 1)))
    assert len(answers) == EXPECTED
