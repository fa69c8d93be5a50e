"""Two hubs in two threads, each with thousands of connections, and traffic across by all ways.

Every byte is checked, and nothing is left: no descriptor, no connection, no task, no memory.
"""

from __future__ import annotations

import gc
import resource
import threading
from typing import Any

import pytest
from connections import count_descriptors
from leak_case import count_objects, heap_bytes

from pycoronet import (
    Event,
    Hub,
    Queue,
    Semaphore,
    Task,
    connect,
    from_thread,
    get_hub,
    joinall,
    listen,
    sleep,
    spawn,
    timeout,
)

CONNECTIONS = 2000  # that each hub serves; it has as many to the other one's
NEEDED_DESCRIPTORS = 4 * CONNECTIONS + 200
PIECES = 3  # that each connection sends
CONNECTING_AT_ONCE = 100
LIMIT_SECONDS = 240  # of a test that fails
MOST_ROUNDS = 6
CALL_EVERY = 20  # so many clients make one call into the other hub

# A round leaves less than this for each connection: no object, no block of malloc's.
SPARE_BYTES = 8 * 4 * CONNECTIONS


class Meeting:
    """Where so many tasks of any thread wait for one another."""

    def __init__(self, size: int) -> None:
        self._is_complete = Event()
        self._size = size
        self._guard = threading.Lock()

    def arrive(self) -> None:
        """Wait until all have come."""
        with self._guard:
            self._size -= 1
            if self._size == 0:
                self._is_complete.set()
        self._is_complete.wait()


class Side:
    """One thread's hub: what it serves, and its clients of the other one."""

    def __init__(self, number: int, first: Meeting, last: Meeting) -> None:
        self.number = number
        self.first = first  # where all clients are connected
        self.last = last  # where all of them are through
        self.other: Side
        self.is_open = threading.Event()
        self.hub: Hub
        self.address: Any
        self.items = Queue[int]()  # by the other one's tasks
        self.calls: list[int] = []  # by call_soon_threadsafe()
        self.answers: list[int] = []  # of from_thread.run()
        self.errors: list[BaseException] = []
        self._connecting = Semaphore(CONNECTING_AT_ONCE)

    def run(self) -> None:
        """Do all of it, in a thread of its own."""
        self.hub = get_hub()
        listener = listen(("127.0.0.1", 0))
        self.address = listener.getsockname()
        self.is_open.set()
        try:
            assert self.other.is_open.wait(LIMIT_SECONDS)
            with timeout(LIMIT_SECONDS):
                self.work(listener)
        except BaseException as error:
            self.errors.append(error)
        finally:
            listener.close()
            self.hub.close()

    def work(self, listener: Any) -> None:
        """Serve the other one's clients, and be its own."""
        serving = spawn(self.serve, listener)
        joinall([spawn(self.ask, key) for key in range(CONNECTIONS)], raise_error=True)
        got = [self.items.get() for _ in range(CONNECTIONS)]
        assert sorted(got) == list(range(CONNECTIONS))
        joinall(serving.get(), raise_error=True)
        self.last.arrive()  # the other hub may still have been calling into this one
        sleep(0)

    def serve(self, listener: Any) -> list[Task]:
        """Accept all that come, and return their tasks."""
        return [spawn(self.echo, listener.accept()[0]) for _ in range(CONNECTIONS)]

    def echo(self, conn: Any) -> None:
        with conn:
            while data := conn.recv(65536):
                conn.write(data)

    def ask(self, key: int) -> None:
        """Be one client: have all pieces echoed, before and after everybody has come."""
        with self._connecting:
            conn = connect(self.other.address)
        with conn:
            for piece in range(PIECES):
                data = b"%d/%d/%d." % (self.number, key, piece) * (key % 97 + 1)
                conn.write(data)
                assert conn.read_exactly(len(data)) == data
                if piece == 0:
                    self.first.arrive()
            self.other.hub.call_soon_threadsafe(self.other.calls.append, key)
            self.other.items.put(key)
            if key % CALL_EVERY == 0:
                self.answers.append(from_thread.run(self.other.hub, self.other.answer, key))

    def answer(self, key: int) -> int:
        """Wait as a task of this hub, for the other one's."""
        assert get_hub() is self.hub
        sleep(0)
        return key


def run_round() -> None:
    first, last = Meeting(2 * CONNECTIONS), Meeting(2)
    sides = [Side(number, first, last) for number in range(2)]
    for side, other in zip(sides, reversed(sides), strict=True):
        side.other = other
    threads = [threading.Thread(target=side.run) for side in sides]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for side in sides:
        assert side.errors == []
        assert sorted(side.calls) == list(range(CONNECTIONS))
        assert sorted(side.answers) == list(range(0, CONNECTIONS, CALL_EVERY))


def heap_after_round() -> int:
    run_round()
    gc.collect()
    return heap_bytes()


def test_two_hubs_with_thousands_of_connections_each() -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < NEEDED_DESCRIPTORS:
        pytest.skip(f"needs {NEEDED_DESCRIPTORS} descriptors (ulimit -n)")
    sleep(0)
    descriptors, objects = count_descriptors(), count_objects()
    heaps = [heap_after_round() for _ in range(2)]
    # Tables that have grown with the most that ever waited at once are no leak. What is left
    # by each round is more in each.
    while heaps[-1] - min(heaps) >= SPARE_BYTES and len(heaps) < MOST_ROUNDS:
        heaps.append(heap_after_round())
    assert count_descriptors() == descriptors
    assert count_objects() == objects
    assert heaps[-1] - min(heaps) < SPARE_BYTES, heaps
