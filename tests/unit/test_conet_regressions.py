"""Where the original coronet is wrong, ours is right: a test for each defect.

What the original does stands at the head of each section. Time is virtual.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import pytest
from conet_case import Readers, run_until, settle, start, turn
from connections import Ends

import pycoronet
from pycoronet.conet import (
    co_current,
    conet_cleanup,
    conet_close_conn,
    conet_connect,
    conet_create_conn,
    conet_events_dispatch,
    conet_events_wait,
    conet_init,
    conet_new_conn,
    conet_readln,
    conet_readsome,
    conet_set_timeo,
    conet_write,
)

advance_time = pycoronet._coronet._advance_time


@pytest.fixture(autouse=True)
def hub(virtual_hub: pycoronet.Hub, ends: Ends) -> Iterator[pycoronet.Hub]:
    """Set conet up over a hub in virtual time."""
    conet_init()
    yield virtual_hub
    conet_cleanup()


class Waiter:
    """A coroutine that waits for a byte, within so many seconds, and notes what happens."""

    def __init__(self, ends: Ends, timeo: float) -> None:
        left, self.peer = ends.sockets()
        self.outcome: Any = None
        self.timeo = timeo
        start(self._run, ends, left)

    def _run(self, ends: Ends, sock: socket.socket) -> None:
        self.conn = ends.keep(conet_new_conn(sock, co_current()))
        conet_set_timeo(self.conn, self.timeo)
        try:
            self.outcome = conet_readsome(self.conn, 1)
        except OSError as error:
            self.outcome = error
        self.after()

    def after(self) -> None:
        """Do something more in the coroutine."""


# The original compares deadlines the wrong way round: what is not due yet expires, what
# is overdue stays.


@pytest.mark.parametrize("timeo", [1, 2, 5, 60, 255, 256, 257, 3600, 86400])
def test_expiry_not_yet_due_never_fires_and_overdue_does(timeo: int, ends: Ends) -> None:
    waiter = Waiter(ends, timeo)
    settle()
    for _ in range(10):
        advance_time((timeo - 0.001) / 10)
        turn()
        assert waiter.outcome is None
    advance_time(0.002)
    turn()
    assert isinstance(waiter.outcome, TimeoutError)


def test_expiry_long_overdue_fires_in_the_next_dispatch(ends: Ends) -> None:
    waiters = [Waiter(ends, timeo) for timeo in (1, 30, 300, 3000)]
    settle()
    advance_time(100_000)
    turn()
    assert all(isinstance(waiter.outcome, TimeoutError) for waiter in waiters)
    # Nothing of them is left in the wheel, and new deadlines hold.
    late = Waiter(ends, 10)
    settle()
    advance_time(9.9)
    turn()
    assert late.outcome is None
    advance_time(0.2)
    turn()
    assert isinstance(late.outcome, TimeoutError)


def test_expiry_of_one_leaves_what_is_due_later(ends: Ends) -> None:
    waiters = [Waiter(ends, timeo) for timeo in (5, 1, 3)]
    settle()
    for second in range(1, 6):
        advance_time(1)
        turn()
        expired = [waiter.timeo for waiter in waiters if waiter.outcome is not None]
        assert sorted(expired) == [timeo for timeo in (1, 3, 5) if timeo <= second]


# The original closes a connection without waking the coroutine that waits for it.


def test_close_wakes_who_waits(ends: Ends) -> None:
    waiter = Waiter(ends, 0)
    settle()
    conet_close_conn(waiter.conn)
    assert waiter.outcome is None  # not on the closer's back
    conet_events_dispatch(0)
    assert isinstance(waiter.outcome, pycoronet.ClosedError)
    assert waiter.outcome.errno == errno.EBADF


def test_close_wakes_a_reader_and_a_writer(ends: Ends) -> None:
    left, _ = ends.sockets()
    conn = ends.keep(conet_new_conn(left, None))
    outcomes: list[Any] = []

    def wait(function: Any, argument: Any) -> None:
        try:
            function(conn, argument)
        except pycoronet.ClosedError as error:
            outcomes.append((function, error.errno))

    start(wait, conet_readsome, 1)
    start(wait, conet_write, b"x" * (1 << 22))
    settle()
    assert outcomes == []
    conet_close_conn(conn)
    turn()
    assert sorted(outcomes, key=repr) == sorted(
        [(conet_readsome, errno.EBADF), (conet_write, errno.EBADF)], key=repr
    )


# The original takes the time of day for its deadlines.


def test_deadlines_do_not_look_at_the_time_of_day(
    hub: pycoronet.Hub, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiter = Waiter(ends, 5)
    settle()
    for name in ("time", "time_ns", "monotonic", "monotonic_ns"):
        monkeypatch.setattr(time, name, lambda: 1 << 62)
    turn()
    assert waiter.outcome is None
    run_until(lambda: waiter.outcome)
    assert isinstance(waiter.outcome, TimeoutError)


def test_clock_of_the_real_engine_is_the_monotonic_one() -> None:
    conet_cleanup()
    conet_init()
    hub = pycoronet.get_hub()
    assert hub.backend != "fake"
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    now = hub.time
    after = time.clock_gettime(time.CLOCK_MONOTONIC)
    # Were it the time of day, it would lie decades from here.
    assert before - 1e-6 <= now <= after + 1e-6
    hub.close()


# The original guesses from EPOLLERR that a connect failed, and gives no errno.


def test_connect_refused_has_the_networks_errno(ends: Ends) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    conn = ends.keep(conet_create_conn(socket.AF_INET, socket.SOCK_STREAM, 0, co_current()))
    with pytest.raises(ConnectionRefusedError) as caught:
        conet_connect(conn, address)
    assert (caught.value.errno, conn.error) == (errno.ECONNREFUSED, errno.ECONNREFUSED)


def test_connect_refused_in_a_coroutine_has_it_too(ends: Ends) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    outcomes: list[Any] = []

    def connect() -> None:
        conn = ends.keep(conet_create_conn(socket.AF_INET, socket.SOCK_STREAM, 0, co_current()))
        conet_set_timeo(conn, 100)
        try:
            conet_connect(conn, address)
        except OSError as error:
            outcomes.append(error.errno)

    start(connect)
    run_until(lambda: outcomes)
    assert outcomes == [errno.ECONNREFUSED]


# The original reads a line of any length into memory.


def test_line_without_an_end_is_bounded(ends: Ends) -> None:
    left, peer = ends.sockets()
    conn = ends.keep(conet_new_conn(left, co_current()))
    peer.setblocking(False)
    sent = 0

    def flood() -> None:
        nonlocal sent
        while True:
            try:
                sent += peer.send(b"a" * 4096)
            except BlockingIOError:
                return

    flood()
    errors: list[Any] = []

    def read() -> None:
        try:
            conet_readln(conn)
        except pycoronet.LineTooLongError as error:
            errors.append(error)

    start(read)
    run_until(lambda: flood() or errors)
    assert "65536" in str(errors[0])
    # All that was received is still there.
    received = 0
    conn.timeo = 0
    while received < sent:
        received += len(conet_readsome(conn, 1 << 20))
    assert received == sent


def test_line_limit_can_be_given(ends: Ends) -> None:
    left, peer = ends.sockets()
    conn = ends.keep(conet_new_conn(left, None))
    peer.send(b"12345\n123456\n")
    assert conet_readln(conn, 6) == b"12345\n"
    with pytest.raises(pycoronet.LineTooLongError):
        conet_readln(conn, 6)
    assert conet_readln(conn, 7) == b"123456\n"


# The original's functions print by perror().

ERROR_WALK = """
    import os, select, socket, struct
    import pycoronet
    from pycoronet.conet import *

    errors = []

    def attempt(function, *arguments):
        try:
            function(*arguments)
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            errors.append(type(error).__name__)
        else:
            raise SystemExit(f"{function.__name__} did not fail")

    attempt(conet_events_wait, 0)
    conet_init()
    attempt(conet_new_conn, 9999, None)
    attempt(conet_new_conn, os.open("/", os.O_RDONLY), None)
    attempt(conet_socket, 9999, 9999, 9999)
    left, right = socket.socketpair()
    conn = conet_new_conn(left, co_current())
    conet_set_timeo(conn, 0.001)
    attempt(conet_readsome, conn, 1)
    attempt(conet_readln, conn)
    attempt(conet_mod_conn, conn, 1 << 20)
    attempt(conet_accept, conn)
    attempt(conet_connect, conn, "/nowhere")
    right.send(b"no end of line")
    attempt(conet_readln, conn, 3)
    attempt(conet_write, conn, b"x" * (1 << 22))
    right.close()
    attempt(conet_write, conn, b"x")
    attempt(conet_printf, conn, b"x")
    assert conet_read(conn, 5) == b"no en"
    conet_close_conn(conn)
    attempt(conet_readsome, conn, 1)
    attempt(conet_write, conn, b"x")
    attempt(conet_mod_conn, conn, 1)

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    refused = conet_create_conn(socket.AF_INET, socket.SOCK_STREAM, 0, None)
    attempt(conet_connect, refused, address)
    conet_close_conn(refused)

    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    accepted, _ = listener.accept()
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    reset = conet_new_conn(client, None)
    accepted.close()
    attempt(conet_readsome, reset, 1)
    conet_close_conn(reset)
    listener.close()

    attempt(co_resume)
    ended = co_create(int)
    co_call(ended)
    attempt(co_call, ended)

    def wait_for_ever(sock):
        waiting = conet_new_conn(sock, co_current())
        conet_readln(waiting)

    left, right = socket.socketpair()
    co_call(co_create(wait_for_ever, left))
    conet_events_wait(1)
    conet_events_dispatch(0)
    conet_cleanup()
    right.close()
    attempt(conet_write, conn, b"x")
    assert len(errors) == 21, errors
"""


def test_library_prints_nothing_whatever_goes_wrong() -> None:
    program = textwrap.dedent(ERROR_WALK)
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


# The original dispatches at most 128 events, whatever is asked for.


def test_dispatch_of_all_has_no_cap_of_128() -> None:
    readers = Readers(200)
    readers.send()
    assert conet_events_wait(0) == 200
    assert conet_events_dispatch(0) == 200
    assert sorted(readers.log) == [(number, b"x\n") for number in range(200)]
    readers.close()


def test_events_beyond_the_fetched_ones_come_with_the_next_wait() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("needs 2,048 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    try:
        readers = Readers(700)
        readers.send()
        counts = []
        while count := conet_events_wait(0):
            counts.append(count)
            assert conet_events_dispatch(0) == count
        assert sum(counts) == 700
        assert sorted(readers.log) == [(number, b"x\n") for number in range(700)]
        readers.close()
        run_until(lambda: all(conn.closed for conn in readers.conns))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# The original keeps a pointer to the next timer while a callback may free it.


@pytest.mark.parametrize("order", [1, -1])
def test_expiry_that_closes_the_others_due_in_the_same_turn(order: int, ends: Ends) -> None:
    waiters = [Waiter(ends, 5) for _ in range(50)][::order]
    settle()

    def close_all() -> None:
        for waiter in waiters:
            waiter.conn.close()

    waiters[0].after = close_all  # type: ignore[method-assign]
    waiters[25].after = close_all  # type: ignore[method-assign]
    advance_time(5)
    turn()
    assert all(isinstance(waiter.outcome, TimeoutError) for waiter in waiters)
    settle()
    assert all(waiter.conn.closed for waiter in waiters)


def test_expiry_whose_coroutine_closes_and_opens_others(ends: Ends) -> None:
    waiters = [Waiter(ends, timeo) for timeo in (1, 1, 2, 2, 3, 3)]
    fresh: list[Waiter] = []
    settle()

    def replace() -> None:
        waiters[2].conn.close()
        fresh.append(Waiter(ends, 1))

    waiters[0].after = replace  # type: ignore[method-assign]
    waiters[1].after = replace  # type: ignore[method-assign]
    advance_time(1)
    turn()
    turn()  # whom the close woke
    assert [type(waiter.outcome) for waiter in waiters] == [
        TimeoutError,
        TimeoutError,
        pycoronet.ClosedError,
        type(None),
        type(None),
        type(None),
    ]
    advance_time(1)
    turn()
    assert [type(waiter.outcome) for waiter in fresh] == [TimeoutError] * 2
    assert isinstance(waiters[3].outcome, TimeoutError)


# The original's events point at connections, and those are used again once closed: an
# event of the old one reaches the new one.


def test_event_of_a_closed_connection_does_not_reach_the_next_with_its_number(
    ends: Ends,
) -> None:
    first = Waiter(ends, 0)
    settle()
    number = first.conn.sfd
    first.peer.send(b"old")
    assert conet_events_wait(0) == 1  # queued
    left, right = socket.socketpair()
    ends.keep(right)
    conet_close_conn(first.conn)
    os.dup2(left.fileno(), number)
    left.close()
    second_outcomes: list[Any] = []

    def wait() -> None:
        conn = ends.keep(conet_new_conn(number, co_current()))
        second_outcomes.append(conet_readsome(conn, 10))

    start(wait)
    assert conet_events_dispatch(1) == 0  # the queued event has nobody
    assert isinstance(first.outcome, pycoronet.ClosedError)
    settle()
    assert second_outcomes == []
    right.send(b"new")
    assert turn() == 1
    assert second_outcomes == [b"new"]


def test_event_of_a_number_reused_behind_our_back_does_not_reach_the_next(ends: Ends) -> None:
    first = Waiter(ends, 0)
    settle()
    number = first.conn.sfd
    first.peer.send(b"old")
    assert conet_events_wait(0) == 1
    left, right = socket.socketpair()
    ends.keep(right)
    os.dup2(left.fileno(), number)  # the first one's file is closed without a word
    left.close()
    conn = ends.keep(conet_new_conn(number, None))
    outcomes: list[Any] = []
    start(lambda: outcomes.append(conet_readsome(conn, 10)))
    settle()
    assert outcomes == []
    assert isinstance(first.outcome, pycoronet.ClosedError)
    right.send(b"new")
    assert turn() == 1
    assert outcomes == [b"new"]
