"""Driving the loop by hand: conet_events_wait() and conet_events_dispatch().

Hub.wait() and Hub.dispatch() are behind them; all in virtual time over real descriptors.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from conet_case import Readers, run_until, settle, start, turn
from connections import Ends

import pycoronet
from pycoronet.conet import (
    co_call,
    co_create,
    conet_cleanup,
    conet_events_dispatch,
    conet_events_wait,
    conet_init,
    conet_new_conn,
    conet_readsome,
    conet_set_timeo,
)


@pytest.fixture(autouse=True)
def hub(virtual_hub: pycoronet.Hub, ends: Ends) -> Iterator[pycoronet.Hub]:
    """Set conet up over a hub in virtual time."""
    conet_init()
    yield virtual_hub
    conet_cleanup()


@pytest.fixture
def readers(hub: pycoronet.Hub) -> Iterator[Readers]:
    """Return five coroutines that read lines, each from its own connection."""
    made = Readers(5)
    yield made
    made.close()


# Counting and carrying over.


def test_events_wait_counts_and_runs_nothing(readers: Readers) -> None:
    assert conet_events_wait(0) == 0
    readers.send()
    switches = pycoronet.get_hub().switch_count
    assert conet_events_wait(0) == 5
    assert conet_events_wait(1000) == 5
    assert pycoronet.get_hub().switch_count == switches
    assert readers.log == []


def test_events_dispatch_hands_out_each_event_once(readers: Readers) -> None:
    readers.send()
    assert conet_events_wait(0) == 5
    assert readers.log == []
    assert conet_events_dispatch(0) == 5
    assert sorted(readers.log) == [(number, b"x\n") for number in range(5)]
    assert conet_events_dispatch(0) == 0
    assert conet_events_wait(0) == 0


def test_events_dispatch_evdmax_is_a_real_bound(readers: Readers) -> None:
    readers.send()
    conet_events_wait(0)
    for done in range(1, 6):
        assert conet_events_dispatch(1) == 1
        assert len(readers.log) == done
        # What is left stays and counts again.
        assert conet_events_wait(0) == 5 - done
    assert conet_events_dispatch(1) == 0


def test_events_not_dispatched_are_joined_by_new_ones(readers: Readers) -> None:
    for peer in readers.peers[:3]:
        peer.send(b"early\n")
    assert conet_events_wait(0) == 3
    assert conet_events_dispatch(2) == 2
    for peer in readers.peers[3:]:
        peer.send(b"late\n")
    assert conet_events_wait(0) == 3
    assert conet_events_dispatch(-1) == 3
    assert sorted(readers.log) == [
        (0, b"early\n"),
        (1, b"early\n"),
        (2, b"early\n"),
        (3, b"late\n"),
        (4, b"late\n"),
    ]
    # The one left over came first.
    assert {line for _, line in readers.log[:3]} == {b"early\n"}


def test_events_of_one_connection_count_as_one(readers: Readers) -> None:
    for _ in range(3):
        readers.peers[0].send(b"more\n")
        assert conet_events_wait(0) == 1
    assert conet_events_dispatch(0) == 1
    settle()
    assert readers.log == [(0, b"more\n")] * 3


def test_events_of_a_listener_count_as_one_however_often_one_waits(ends: Ends) -> None:
    listener = ends.conn(socket.create_server(("127.0.0.1", 0)))
    accepted: list[Any] = []

    def accept() -> None:
        conn, _ = listener.accept()
        accepted.append(conn)

    start(accept)
    settle()
    clients = [ends.keep(socket.create_connection(listener.getsockname())) for _ in range(2)]
    for _ in range(300):  # more often than there is room for events
        assert conet_events_wait(0) == 1
    assert conet_events_dispatch(1) == 1
    assert len(accepted) == 1
    accepted[0].close()
    del clients


def test_event_without_a_waiter_is_not_counted_and_not_lost(ends: Ends) -> None:
    left, right = ends.sockets()
    conn = ends.conn(left)
    lines: list[Any] = []

    def read_twice() -> None:
        lines.append(conn.readln())
        pycoronet.sleep(10)
        lines.append(conn.readln())

    start(read_twice)
    settle()
    right.send(b"one\n")
    assert turn() == 1
    right.send(b"two\n")
    assert conet_events_wait(0) == 1
    assert conet_events_dispatch(0) == 0  # it sleeps: only the flag is set
    assert lines == [b"one\n"]
    run_until(lambda: len(lines) == 2)
    assert lines == [b"one\n", b"two\n"]


def test_event_without_a_waiter_leaves_the_budget_to_others(readers: Readers, ends: Ends) -> None:
    left, right = ends.sockets()
    idle = ends.conn(left)
    idle.timeo = 0
    with pytest.raises(TimeoutError):
        idle.readsome(1)  # registered, but nobody waits
    settle()
    right.send(b"unheard")
    assert conet_events_wait(0) == 1
    readers.peers[0].send(b"heard\n")
    assert conet_events_wait(0) == 2
    assert conet_events_dispatch(1) == 1
    assert readers.log == [(0, b"heard\n")]


def test_event_of_a_connection_closed_meanwhile_does_not_count(readers: Readers) -> None:
    readers.send()
    assert conet_events_wait(0) == 5
    readers.conns[2].close()
    assert conet_events_wait(0) == 4
    assert conet_events_dispatch(0) == 4


@pytest.mark.parametrize("evdmax", [0, -1, 10**6, 2**40])
def test_events_dispatch_more_than_one_array_of_events_loses_none(evdmax: int) -> None:
    readers = Readers(300)
    readers.send()
    first = conet_events_wait(0)
    assert 128 < first < 300  # the rest waits in the kernel
    assert conet_events_dispatch(evdmax) == first
    assert conet_events_wait(0) == 300 - first
    assert conet_events_dispatch(evdmax) == 300 - first
    assert sorted(readers.log) == [(number, b"x\n") for number in range(300)]
    readers.close()


def test_events_dispatch_one_by_one_of_more_than_one_array() -> None:
    readers = Readers(300)
    readers.send()
    count = 0
    while conet_events_wait(0) > 0:
        count += conet_events_dispatch(1)
        assert len(readers.log) == count
    assert sorted(number for number, _ in readers.log) == list(range(300))
    readers.close()


# What coroutines do while they are dispatched.


@pytest.mark.parametrize(
    ("evdmax", "counts"),
    [
        (1, [1, 1]),
        pytest.param(
            0,
            [2, 0],
            marks=pytest.mark.optimisation("calls that need not wait go on without giving way"),
        ),
    ],
)
def test_coroutine_that_parks_on_another_connection_within_a_dispatch(
    evdmax: int, counts: list[int], ends: Ends
) -> None:
    (first, first_peer), (second, second_peer) = ends.pair(), ends.pair()
    log: list[Any] = []
    second.timeo = 0
    with pytest.raises(TimeoutError):
        second.readsome(1)  # from here on it is known to have nothing
    second.timeo = None

    def read_both() -> None:
        log.append(first.readsome(1))
        log.append(second.readsome(1))

    start(read_both)
    settle()
    first_peer.send(b"1")
    assert conet_events_wait(0) == 1
    second_peer.send(b"2")
    assert conet_events_wait(0) == 2
    # The second event is behind the first and finds the coroutine where it parked next;
    # it is handed out only if there is room for it.
    handed_out = 0
    for count in counts:
        assert conet_events_dispatch(evdmax) == count
        handed_out += count
        assert log == [b"1", b"2"][:handed_out]


def test_coroutine_that_feeds_another_within_a_dispatch_keeps_to_fetched_events(
    readers: Readers,
) -> None:
    pycoronet.spawn(lambda: readers.peers[1].send(b"made within\n"))
    readers.peers[0].send(b"x\n")
    assert conet_events_wait(0) == 1
    assert conet_events_dispatch(0) == 1
    assert readers.log == [(0, b"x\n")]
    assert conet_events_wait(0) == 1
    assert conet_events_dispatch(0) == 1
    assert readers.log[1:] == [(1, b"made within\n")]


def test_task_spawned_without_an_idle_worker_starts_in_dispatch() -> None:
    log: list[str] = []
    for name in "abc":
        pycoronet.spawn(log.append, name)
    assert conet_events_wait(-1) == 0  # does not wait: there is something to run
    assert conet_events_dispatch(0) == 0
    assert log == ["a", "b", "c"]


@pytest.mark.parametrize("evdmax", [0, 1])
def test_task_spawned_in_a_dispatched_coroutine_starts_soon(evdmax: int, ends: Ends) -> None:
    conn, peer = ends.pair()
    log: list[Any] = []

    def read() -> None:
        for line in conn:
            for number in range(3):
                pycoronet.spawn(log.append, (line, number))

    start(read)
    settle()
    peer.send(b"x\n")
    assert turn(evdmax) == 1
    run_until(lambda: len(log) == 3)
    assert log == [(b"x\n", 0), (b"x\n", 1), (b"x\n", 2)]


def test_tasks_that_spawn_each_other_for_ever_do_not_hold_a_dispatch_up(
    readers: Readers,
) -> None:
    started = 0

    def breed() -> None:
        nonlocal started
        started += 1
        pycoronet.spawn(breed)

    pycoronet.spawn(breed)
    readers.send()
    conet_events_wait(0)
    assert conet_events_dispatch(0) == 5
    assert 1 <= started <= 4  # a round or two, not all of them
    assert conet_events_dispatch(0) == 0
    assert 2 <= started <= 8


def test_coroutine_called_in_a_dispatch_runs_at_once(ends: Ends) -> None:
    conn, peer = ends.pair()
    log: list[str] = []

    def serve(number: int) -> None:
        log.append(f"serve {number}")
        pycoronet.sleep(1)
        log.append(f"served {number}")

    def accept() -> None:
        for number, _ in enumerate(conn):
            co_call(co_create(serve, number))
            log.append(f"accepted {number}")

    start(accept)
    settle()
    peer.send(b"\n\n")
    assert turn(1) == 1
    assert log == ["serve 0", "accepted 0", "serve 1", "accepted 1"]
    run_until(lambda: len(log) == 6)
    assert log[4:] == ["served 0", "served 1"]


def test_coroutine_that_ends_in_a_dispatch_leaves_the_others_their_events(
    readers: Readers,
) -> None:
    readers.peers[1].close()
    readers.peers[3].close()
    for number in (0, 2, 4):
        readers.peers[number].send(b"x\n")
    assert conet_events_wait(0) == 5
    assert conet_events_dispatch(0) == 5
    assert sorted(readers.log) == [(0, b"x\n"), (2, b"x\n"), (4, b"x\n")]
    assert readers.conns[1].closed
    assert readers.conns[3].closed


def test_coroutine_that_raises_in_a_dispatch_is_reported_and_the_others_go_on(
    readers: Readers, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn, peer = ends.pair()
    reports: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", lambda report: reports.append(report.exc_value))

    def fail() -> None:
        raise LookupError(conn.readln())

    start(fail)
    settle()
    peer.send(b"why\n")
    readers.send()
    assert turn() == 6
    assert len(readers.log) == 5
    assert [error.args for error in reports] == [(b"why\n",)]


def test_coroutine_cancelled_in_a_dispatch_ends_in_it(readers: Readers, ends: Ends) -> None:
    conn, peer = ends.pair()
    victim_conn, _ = ends.pair()
    log: list[str] = []

    def wait() -> None:
        try:
            victim_conn.readln()
        finally:
            log.append("ended")

    victim = start(wait)

    def murder() -> None:
        conn.readln()
        victim.cancel()
        log.append("cancelled")

    start(murder)
    settle()
    peer.send(b"now\n")
    assert turn() == 1
    assert log == ["cancelled", "ended"]


def test_coroutine_cancelled_after_its_event_was_handed_out_is_not_also_cancelled(
    ends: Ends,
) -> None:
    conn, peer = ends.pair()
    log: list[Any] = []
    reader = start(lambda: log.append(conn.readln()))
    settle()
    peer.send(b"line\n")

    # Fetched, not handed out: the cancel comes first, and the bytes stay.
    conet_events_wait(0)
    reader.cancel()
    conet_events_dispatch(0)
    assert log == []
    assert conn.readln() == b"line\n"


def test_dispatch_takes_callbacks_too(hub: pycoronet.Hub) -> None:
    log: list[Any] = []
    hub.call_soon_threadsafe(log.append, "called")
    assert conet_events_wait(-1) == 0
    assert log == []
    assert conet_events_dispatch(1) == 0
    assert log == ["called"]


# Deadlines.


def test_deadline_expires_in_the_dispatch_of_its_turn_and_in_no_wait(
    hub: pycoronet.Hub, ends: Ends
) -> None:
    conn = conet_new_conn(ends.sockets()[0], None)
    log: list[Any] = []

    def read() -> None:
        conet_set_timeo(conn, 2)
        try:
            conet_readsome(conn, 1)
        except TimeoutError:
            log.append(hub.time)
        conn.close()

    began = hub.time
    start(read)
    settle()
    while hub.time < began + 2:
        assert log == []
        assert conet_events_wait(10_000) == 0
        assert log == []
        conet_events_dispatch(0)
    assert log == [began + 2]


def test_deadline_is_not_early(hub: pycoronet.Hub, ends: Ends) -> None:
    conn = ends.conn(ends.sockets()[0])
    log: list[float] = []

    def read() -> None:
        conn.timeo = 2
        try:
            conn.readsome(1)
        except TimeoutError:
            log.append(hub.time)

    start(read)
    settle()
    pycoronet._coronet._advance_time(1.999)
    assert turn() == 0
    assert log == []
    pycoronet._coronet._advance_time(0.001)
    conet_events_wait(0)
    assert log == []
    assert conet_events_dispatch(1) == 0
    assert len(log) == 1


def test_event_of_the_deadlines_turn_was_in_time(readers: Readers) -> None:
    settle()
    for conn in readers.conns:
        conn.timeo = 1
    readers.send(b"re-arm\n")
    assert turn() == 5
    readers.log.clear()
    readers.send(b"in time\n")
    pycoronet._coronet._advance_time(1)
    assert turn() == 5
    assert sorted(readers.log) == [(number, b"in time\n") for number in range(5)]


def test_events_wait_counts_milliseconds(hub: pycoronet.Hub) -> None:
    began = hub.time
    assert conet_events_wait(250) == 0
    assert hub.time - began == 0.25
    assert conet_events_wait(0) == 0
    assert hub.time - began == 0.25
    assert conet_events_wait(3_600_000) == 0  # no cap of a second
    assert hub.time - began == 3600.25


def test_events_wait_without_limit_lasts_until_something_comes(
    hub: pycoronet.Hub, readers: Readers
) -> None:
    began = hub.time
    task = pycoronet.spawn(pycoronet.sleep, 100)
    settle()
    run_until(lambda: task.done)
    assert hub.time - began == 100
    readers.send()
    assert conet_events_wait(-1) == 5


def test_events_wait_without_limit_is_no_deadlock_though_no_coroutine_waits(
    ends: Ends,
) -> None:
    conn, peer = ends.pair()
    conn.timeo = 0
    with pytest.raises(TimeoutError):
        conn.readsome(1)  # registers it
    settle()
    peer.send(b"x")
    assert conet_events_wait(-1) == 1


@pytest.mark.parametrize("timeo", [float("nan"), "1", None])
def test_events_wait_refuses_what_is_no_time(timeo: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        conet_events_wait(timeo)


@pytest.mark.parametrize("evdmax", [1.5, "1", None])
def test_events_dispatch_refuses_what_is_no_int(evdmax: Any) -> None:
    with pytest.raises(TypeError):
        conet_events_dispatch(evdmax)


# Everything at once.


@pytest.mark.parametrize("seed", range(20))
def test_random_driving_loses_and_repeats_nothing(seed: int) -> None:
    random = Random(seed)
    count = 30
    readers = Readers(count)
    sent: dict[int, list[bytes]] = {number: [] for number in range(count)}
    closed: set[int] = set()  # by us: what was on its way to them may be lost
    ended: set[int] = set()

    def dispatch() -> None:
        ready = conet_events_wait(random.choice((0, 0, 5)))
        evdmax = random.randrange(-1, 6)
        done = conet_events_dispatch(evdmax)
        assert 0 <= done <= ready
        assert evdmax <= 0 or done <= evdmax

    for step in range(400):
        number = random.randrange(count)
        action = random.random()
        if action < 0.3:
            dispatch()
        elif action < 0.9 and number not in ended:
            line = b"%d %d\n" % (number, step)
            readers.peers[number].send(line)
            sent[number].append(line)
        elif action < 0.93:
            pycoronet.spawn(readers.conns[number].close)
            closed.add(number)
            ended.add(number)
        elif action < 0.96:
            readers.peers[number].close()
            ended.add(number)
    run_until(lambda: conet_events_wait(0) == 0)
    for number in range(count):
        received = [line for reader, line in readers.log if reader == number]
        expected = sent[number][: len(received)] if number in closed else sent[number]
        assert received == expected, (seed, number)
    assert all(readers.conns[number].closed for number in ended)
    readers.close()
