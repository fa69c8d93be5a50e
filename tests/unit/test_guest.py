"""Guest: another event loop's part of the hub, as it is without asyncio."""

from __future__ import annotations

import math
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import pycoronet
from pycoronet import PRIORITY, READ, WRITE, Hub, get_hub, sleep, spawn
from pycoronet._coronet import Guest
from pycoronet.testing import virtual_time

Log = list[Any]
Make = Callable[..., Guest]


@pytest.fixture
def log() -> Log:
    return []


@pytest.fixture
def make(virtual_hub: Hub, log: Log) -> Iterator[Make]:
    """Return a maker of guests that note what happens to them."""
    guests: list[Guest] = []

    def make(on_close: Callable[[], object] = lambda: None) -> Guest:
        guests.append(Guest(lambda: log.append(guests[0].take()), on_close))
        return guests[-1]

    yield make
    for guest in guests:
        guest.close()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


Both = tuple[socket.socket, socket.socket]


def look() -> None:
    """Let the hub poll, without having time pass."""
    for _ in range(200):
        sleep(0)


def test_step_comes_for_each_turn_that_a_descriptor_is_ready(
    make: Make, log: Log, ends: Both
) -> None:
    guest = make()
    guest.watch(ends[0], READ)
    sleep(1)
    assert log == []
    ends[1].send(b"x")
    look()
    assert len(log) >= 2
    assert log[0] == [(ends[0].fileno(), READ)]
    ends[0].recv(1)
    look()
    log.clear()
    sleep(1)
    assert log == []


def test_events_are_those_asked_for(make: Make, log: Log, ends: Both) -> None:
    guest = make()
    number = ends[0].fileno()
    ends[1].send(b"x")
    guest.watch(number, READ | WRITE)
    look()
    assert log[0] == [(number, READ | WRITE)]
    guest.watch(number, WRITE)
    log.clear()
    look()
    assert [(number, WRITE)] in log
    assert [(number, READ | WRITE)] not in log


def test_events_collected_before_a_change_are_looked_at_after_it(
    virtual_hub: Hub, log: Log, ends: Both
) -> None:
    guest = Guest(lambda: None, lambda: None)
    guest.watch(ends[0], WRITE)
    look()
    guest.watch(ends[0], READ)
    assert guest.take() == []
    guest.watch(ends[0], WRITE)
    look()
    guest.unwatch(ends[0])
    assert guest.take() == []
    guest.close()


def test_end_of_the_peer_is_something_to_read(make: Make, log: Log, ends: Both) -> None:
    guest = make()
    guest.watch(ends[0], READ)
    ends[1].close()
    look()
    assert log[0] == [(ends[0].fileno(), READ)]


def test_wake_is_one_step(make: Make, log: Log) -> None:
    guest = make()
    guest.wake()
    guest.wake()
    sleep(1)
    assert log == [[]]


def test_wake_from_a_thread_ends_the_wait() -> None:
    came = pycoronet.Event()
    guest = Guest(came.set, lambda: None)
    thread = threading.Thread(target=guest.wake)
    thread.start()
    assert came.wait(10)
    thread.join()
    guest.close()


@pytest.mark.parametrize("delay", [0, 0.5, 3600.25])
def test_wake_at_is_not_early(virtual_hub: Hub, delay: float) -> None:
    times: Log = []
    guest = Guest(lambda: times.append(virtual_hub.time), lambda: None)
    when = virtual_hub.time + delay
    guest.wake_at(when)
    sleep(10000)
    assert len(times) == 1
    assert when <= times[0] <= when + 0.002
    guest.close()


def test_wake_at_replaces_and_takes_back(make: Make, log: Log, virtual_hub: Hub) -> None:
    guest = make()
    guest.wake_at(virtual_hub.time + 1)
    guest.wake_at(virtual_hub.time + 50)
    sleep(10)
    assert log == []
    guest.wake_at(None)
    guest.wake_at(None)
    sleep(100)
    assert log == []


@pytest.mark.parametrize("when", [-1.0, -math.inf, 0.0, math.nan])
def test_time_that_has_passed_is_now(make: Make, log: Log, when: float) -> None:
    make().wake_at(when)
    sleep(0.01)
    assert log == [[]]


@pytest.mark.parametrize("when", [math.inf, 1e300, 2**70])
def test_time_without_end_is_far_away(make: Make, log: Log, when: float) -> None:
    guest = make()
    guest.wake_at(when)
    sleep(1e6)
    assert log == []


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda guest: guest.wake_at("soon"), TypeError),
        (lambda guest: guest.watch(0), TypeError),
        (lambda guest: guest.watch("x", READ), TypeError),
        (lambda guest: guest.watch(-1, READ), ValueError),
        (lambda guest: guest.watch(0, 0), ValueError),
        (lambda guest: guest.watch(0, 1 << 9), ValueError),
        (lambda guest: guest.watch(0, PRIORITY), ValueError),
        (lambda guest: guest.watch(0, "x"), TypeError),
        (lambda guest: guest.watch(10**6, READ), OSError),
        (lambda guest: guest.unwatch("x"), TypeError),
        (lambda guest: Guest(), TypeError),
        (lambda guest: Guest(1, print), TypeError),
        (lambda guest: Guest(print, None), TypeError),
    ],
)
def test_wrong_arguments_are_refused(
    make: Make, call: Callable[[Guest], object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        call(make())


def test_regular_file_is_refused_and_not_kept(make: Make, virtual_hub: Hub) -> None:
    guest = make()
    with open(__file__) as file:  # noqa: PTH123 - its number is what counts
        with pytest.raises(OSError, match="not permitted"):
            guest.watch(file, READ)
        guest.unwatch(file)
    virtual_hub.run()


def test_two_guests_do_not_share_a_descriptor(make: Make, ends: Both) -> None:
    first, second = make(), make()
    first.watch(ends[0], READ)
    with pytest.raises(pycoronet.BusyError):
        second.watch(ends[0], READ)
    second.unwatch(ends[0])
    assert [fd for fd, *_ in get_hub().registrations()] == [ends[0].fileno()]
    first.unwatch(ends[0])
    second.watch(ends[0], READ)


def test_closed_guest_does_nothing(make: Make, log: Log, virtual_hub: Hub, ends: Both) -> None:
    guest = make()
    ends[1].send(b"x")
    guest.watch(ends[0], READ)
    guest.wake_at(virtual_hub.time + 1)
    guest.wake()
    guest.close()
    guest.close()
    guest.wake()
    guest.unwatch(ends[0])
    sleep(5)
    assert log == []
    for call in (guest.take, lambda: guest.wake_at(1), lambda: guest.watch(ends[0], READ)):
        with pytest.raises(RuntimeError, match="has ended"):
            call()
    virtual_hub.run()


def test_another_thread_is_refused(make: Make, ends: Both) -> None:
    guest = make()

    def attempt() -> int:
        refused = 0
        for call in (
            guest.take,
            guest.close,
            lambda: guest.wake_at(1),
            lambda: guest.watch(ends[0], READ),
            lambda: guest.unwatch(ends[0]),
        ):
            try:
                call()
            except RuntimeError as error:
                refused += "another thread" in str(error)
        return refused

    assert pycoronet.to_thread(attempt) == 5


def test_failure_of_a_step_is_reported(virtual_hub: Hub, reports: Log) -> None:
    guest = Guest(lambda: 1 // 0, lambda: None)
    guest.wake()
    sleep(1)
    assert [type(error) for error in reports] == [ZeroDivisionError]
    guest.close()


def test_step_may_close_its_guest(virtual_hub: Hub) -> None:
    def step() -> None:
        guests.pop().close()

    guests = [Guest(step, lambda: None)]
    guests[0].wake()
    sleep(1)
    assert guests == []
    virtual_hub.run()


def test_run_goes_on_for_descriptors_and_times(make: Make, virtual_hub: Hub, ends: Both) -> None:
    guest = make()
    began = virtual_hub.time
    guest.wake_at(began + 5)
    virtual_hub.run()
    assert virtual_hub.time >= began + 5
    guest.watch(ends[0], READ)
    virtual_hub.call_later(5, guest.unwatch, ends[0])
    virtual_hub.run()
    assert virtual_hub.time >= began + 10


def test_watched_descriptor_is_no_deadlock(virtual_hub: Hub, ends: Both) -> None:
    came = pycoronet.Event()
    guest = Guest(came.set, lambda: None)
    guest.watch(ends[0], READ)
    thread = threading.Timer(0, ends[1].send, [b"x"])
    thread.start()
    thread.join()
    assert came.wait()
    guest.unwatch(ends[0])
    came.clear()
    sleep(1)
    with pytest.raises(pycoronet.DeadlockError):
        pycoronet.Event().wait()
    guest.close()


def test_closing_hub_tells_its_guests_and_waits_for_them() -> None:
    log: Log = []

    def leave(guest: Guest, name: str) -> None:
        sleep_task = spawn(log.append, "spawned too late to begin")
        log.append(f"told {name}")
        get_hub().call_soon(lambda: (log.append(f"closed {name}"), guest.close()))
        del sleep_task

    with virtual_time():
        first = Guest(print, lambda: leave(first, "first"))
        second = Guest(print, lambda: leave(second, "second"))
    assert log == ["told first", "told second", "closed first", "closed second"]
    with pytest.raises(RuntimeError, match="has ended"):
        first.take()


def test_guest_that_stays_is_ended_after_a_while(reports: Log) -> None:
    def fail() -> None:
        raise KeyError

    with virtual_time():
        guest = Guest(print, fail)
    assert [type(error) for error in reports] == [KeyError]
    with pytest.raises(RuntimeError, match="has ended"):
        guest.take()


def test_closing_hub_takes_no_new_guests() -> None:
    log: Log = []

    def attempt() -> None:
        with pytest.raises(RuntimeError, match="closing"):
            Guest(print, print)
        log.append("refused")
        guest.close()

    with virtual_time():
        guest = Guest(print, attempt)
    assert log == ["refused"]


def test_forked_child_has_no_guests(make: Make, log: Log, virtual_hub: Hub, ends: Both) -> None:
    guest = make()
    guest.watch(ends[0], READ)
    guest.wake_at(virtual_hub.time + 1)
    guest.wake()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            virtual_hub.run()  # nothing is left there
            sleep(5)
            guest.wake()
            guest.close()
            fresh = Guest(lambda: None, lambda: None)
            fresh.watch(ends[0], READ)
            status = 0 if log == [] and len(virtual_hub.registrations()) <= 2 else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    sleep(5)
    assert len(log) == 2
