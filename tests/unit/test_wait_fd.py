"""wait_fd() and its kin: on files of others, and on those of connections."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from connections import MOMENT, Ends, attempt, drain_now, fill, open_descriptors

import pycoronet
from pycoronet import (
    HANGUP,
    PRIORITY,
    READ,
    WRITE,
    BusyError,
    ClosedError,
    notify_closing,
    sleep,
    spawn,
    wait_fd,
    wait_readable,
    wait_writable,
)

pytestmark = pytest.mark.usefixtures("virtual_hub")
needs_urgent_events = pytest.mark.skipif(
    "freebsd" in sys.platform, reason="FreeBSD's kqueue tells of no urgent data"
)


@pytest.fixture(params=["foreign", "conn"])
def files(request: pytest.FixtureRequest, ends: Ends) -> tuple[Any, socket.socket]:
    """Return what is waited for (a plain socket, or an sk_conn) and the socket behind it."""
    if request.param == "conn":
        return ends.pair()
    left, right = ends.sockets()
    ends.keep(left).setblocking(False)
    return left, right


def fill_any(file: Any) -> None:
    if isinstance(file, socket.socket):
        try:
            while True:
                file.send(b"f" * 65536)
        except BlockingIOError:
            return
    fill(file)


def empty(peer: socket.socket) -> None:
    while drain_now(peer):
        pass


Files = tuple[Any, socket.socket]


# --- What it gives ---------------------------------------------------------------------------


def test_what_is_ready_comes_at_once(files: Files) -> None:
    file, peer = files
    assert wait_writable(file) == WRITE
    assert wait_fd(file, READ | WRITE) == WRITE
    peer.send(b"x")
    assert wait_readable(file) == READ
    assert wait_readable(file.fileno()) == READ  # nothing was taken
    assert wait_fd(file, READ | WRITE, 0) == READ | WRITE
    assert file.recv(10) == b"x"


def test_it_waits_for_reading(files: Files) -> None:
    file, peer = files
    task = spawn(wait_readable, file)
    sleep(MOMENT)
    assert not task.done
    peer.send(b"x")
    assert task.get() & READ


def test_it_waits_for_writing(files: Files) -> None:
    file, peer = files
    fill_any(file)
    task = spawn(wait_writable, file)
    sleep(MOMENT)
    assert not task.done
    empty(peer)
    assert task.get() & WRITE


@pytest.mark.parametrize("first", [READ, WRITE])
def test_it_waits_for_either(files: Files, first: int) -> None:
    file, peer = files
    fill_any(file)
    task = spawn(wait_fd, file, READ | WRITE)
    sleep(MOMENT)
    assert not task.done
    if first == READ:
        peer.send(b"x")
    else:
        empty(peer)
    assert task.get() & (READ | WRITE) == first


@needs_urgent_events
def test_it_waits_for_urgent_data(ends: Ends) -> None:
    left, right = ends.sockets("tcp")
    ends.keep(left)
    task = spawn(wait_fd, left, PRIORITY)
    sleep(MOMENT)
    right.sendall(b"x")
    sleep(MOMENT)
    assert not task.done
    right.send(b"!", socket.MSG_OOB)
    assert task.get() & PRIORITY
    conn, peer = ends.pair("tcp")
    task = spawn(wait_fd, conn, PRIORITY)
    sleep(MOMENT)
    peer.sendall(b"x")
    sleep(MOMENT)
    assert not task.done
    peer.send(b"!", socket.MSG_OOB)
    assert task.get() & PRIORITY


def test_a_hang_up_ends_any_wait(files: Files) -> None:
    file, peer = files
    fill_any(file)
    tasks = [spawn(attempt, wait_readable, file), spawn(attempt, wait_writable, file)]
    sleep(MOMENT)
    peer.close()
    for task in tasks:
        ready = task.get()
        assert isinstance(ready, int)
        assert ready & HANGUP


def test_a_half_close_is_readable_and_does_not_wake_a_writer(files: Files) -> None:
    file, peer = files
    fill_any(file)
    writer = spawn(wait_writable, file)
    reader = spawn(wait_readable, file)
    sleep(MOMENT)
    peer.shutdown(socket.SHUT_WR)
    assert reader.get() & READ
    sleep(MOMENT)
    assert not writer.done
    empty(peer)
    assert writer.get() & WRITE


def test_both_directions_at_once_get_what_they_asked_for(files: Files) -> None:
    file, peer = files
    fill_any(file)
    reader, writer = spawn(wait_readable, file), spawn(wait_writable, file)
    sleep(MOMENT)
    assert not reader.done
    assert not writer.done
    empty(peer)
    sleep(MOMENT)
    assert writer.get() == WRITE
    assert not reader.done
    peer.send(b"x")
    assert reader.get() == READ


def test_both_ready_in_one_turn(files: Files) -> None:
    file, peer = files
    fill_any(file)
    reader, writer = spawn(wait_readable, file), spawn(wait_writable, file)
    sleep(MOMENT)
    peer.send(b"x")
    empty(peer)
    assert (reader.get(), writer.get()) == (READ, WRITE)


def test_lines_that_are_buffered_count_as_readable(ends: Ends) -> None:
    conn, peer = ends.pair()
    peer.send(b"one\ntwo\n")
    assert conn.readln() == b"one\n"
    assert wait_readable(conn, 0) == READ
    assert conn.readln() == b"two\n"
    with pytest.raises(TimeoutError):
        wait_readable(conn, 0)


def test_a_read_after_the_wait_finds_the_bytes(files: Files) -> None:
    file, peer = files
    for number in range(5):
        task = spawn(lambda: (wait_readable(file), file.recv(10))[1])
        sleep(MOMENT)
        peer.send(b"%d" % number)
        assert task.get() == b"%d" % number


def test_a_listener(ends: Ends) -> None:
    listener = ends.conn(socket.create_server(("127.0.0.1", 0)))
    task = spawn(wait_readable, listener)
    sleep(MOMENT)
    client = ends.keep(socket.create_connection(listener.getsockname()))
    assert task.get() & READ
    conn, address = listener.accept()
    assert address == client.getsockname()
    conn.close()


# --- Timeouts --------------------------------------------------------------------------------


def test_timeouts(files: Files) -> None:
    file, _ = files
    fill_any(file)
    hub = pycoronet.get_hub()
    for call, seconds in [
        (lambda: wait_readable(file, 2.5), 2.5),
        (lambda: wait_writable(file, timeout=1), 1),
        (lambda: wait_fd(file, READ | WRITE, 3), 3),
        (lambda: wait_readable(file, 0), 0),
    ]:
        began = hub.time
        with pytest.raises(TimeoutError):
            call()
        assert hub.time - began == pytest.approx(seconds, abs=1e-6)


def test_its_timeout_is_not_the_connections(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.timeo = 100
    fill(conn)
    reading = spawn(attempt, wait_readable, conn, 1)
    writing = spawn(attempt, wait_writable, conn, 2)
    sleep(MOMENT)
    assert conn.timeo == 100
    conn.timeo = 50
    sleep(1.5)
    assert isinstance(reading.get(), TimeoutError)
    # A verb that waits meanwhile has the connection's own time.
    reader = spawn(attempt, conn.recv, 1)
    sleep(1)
    assert isinstance(writing.get(), TimeoutError)
    sleep(40)
    assert not reader.done
    assert conn.timeo == 50
    peer.send(b"x")
    assert reader.get() == b"x"


@needs_urgent_events
def test_events_that_mean_nothing_do_not_lengthen_it(ends: Ends) -> None:
    conn, peer = ends.pair("tcp")
    hub = pycoronet.get_hub()
    task = spawn(attempt, wait_fd, conn, PRIORITY, 10)
    began = hub.time
    for _ in range(3):
        sleep(3)
        peer.sendall(b"x")
    assert isinstance(task.get(), TimeoutError)
    assert hub.time - began == pytest.approx(10, abs=0.01)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda fd: wait_readable(fd, -1), ValueError, "negative"),
        (lambda fd: wait_readable(fd, float("nan")), ValueError, "NaN"),
        (lambda fd: wait_readable(fd, "1"), TypeError, "timeout"),
        (lambda fd: wait_fd(fd, 0), ValueError, "READ, WRITE or PRIORITY"),
        (lambda fd: wait_fd(fd, HANGUP), ValueError, "READ, WRITE or PRIORITY"),
        (lambda fd: wait_fd(fd, 1 << 40), ValueError, "READ, WRITE or PRIORITY"),
        (lambda fd: wait_fd(fd, "r"), TypeError, "int"),
        (lambda fd: wait_fd(fd), TypeError, "events"),
        (lambda fd: wait_fd(fd, READ, 1, 2), TypeError, "positional"),
        (lambda fd: wait_readable(fd, nonsense=1), TypeError, "nonsense"),
        (lambda _: wait_readable(), TypeError, "fd"),
        (lambda _: wait_readable(None), TypeError, "fileno"),
        (lambda _: wait_readable("x"), TypeError, "fileno"),
        (lambda _: wait_readable(-1), ValueError, "negative"),
        (lambda _: wait_readable(1_000_000), OSError, "Bad file descriptor"),
        (lambda _: notify_closing("x"), TypeError, "fileno"),
    ],
)
def test_wrong_arguments(
    files: Files, call: Callable[[Any], object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        call(files[0])


@pytest.mark.parametrize("wait", [wait_readable, wait_writable])
def test_a_regular_file_is_refused(tmp_path: Path, wait: Callable[[Any], object]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with path.open("rb") as file, pytest.raises(ValueError, match=r"regular file.*to_thread"):
        wait(file)


# --- Others who wait -------------------------------------------------------------------------


@pytest.mark.parametrize("events", [READ, WRITE, READ | WRITE])
def test_a_second_wait_for_the_same_is_refused(files: Files, events: int) -> None:
    file, peer = files
    fill_any(file)
    first = spawn(wait_fd, file, events)
    first.name = "first"
    sleep(MOMENT)
    with pytest.raises(BusyError, match="first"):
        wait_fd(file, events)
    peer.send(b"x")
    empty(peer)
    assert first.get() & events


def test_a_wait_and_a_verb_on_one_connection(ends: Ends) -> None:
    conn, peer = ends.pair()
    waiter = spawn(wait_readable, conn)
    waiter.name = "waiter"
    sleep(MOMENT)
    with pytest.raises(BusyError, match="waiter"):
        conn.recv(1)
    peer.send(b"x")
    assert waiter.get() & READ
    assert conn.recv(1) == b"x"


# --- Closing ---------------------------------------------------------------------------------


def test_notify_closing_wakes_who_waits(files: Files) -> None:
    file, _ = files
    fill_any(file)
    fd = file.fileno()
    tasks = [spawn(attempt, wait_readable, file), spawn(attempt, wait_writable, file)]
    sleep(MOMENT)
    notify_closing(fd)
    for task in tasks:
        assert isinstance(task.get(), ClosedError)
    os.fstat(fd)  # it is not closed by that
    if not isinstance(file, socket.socket):
        assert file.closed
        os.close(fd)


def test_notify_closing_for_what_nobody_waits_for(ends: Ends) -> None:
    left, _ = ends.sockets()
    ends.keep(left)
    notify_closing(left)
    notify_closing(1_000_000)
    wait_writable(left)


def test_close_of_a_connection_wakes_who_waits(ends: Ends) -> None:
    conn, _ = ends.pair()
    fill(conn)
    tasks = [spawn(attempt, wait_readable, conn), spawn(attempt, wait_writable, conn.fileno())]
    sleep(MOMENT)
    conn.close()
    for task in tasks:
        assert isinstance(task.get(), ClosedError)


def reuse(number: int) -> tuple[socket.socket, socket.socket]:
    """Return a new pair of sockets whose first has this number, which is free."""
    left, right = socket.socketpair()
    if left.fileno() != number:
        os.dup2(left.fileno(), number)
        left.close()
        left = socket.socket(fileno=number)
    left.setblocking(False)
    return left, right


@pytest.mark.parametrize("events", [READ, WRITE])
def test_closed_behind_our_back_and_reused_in_a_foreign_wait(ends: Ends, events: int) -> None:
    old, old_peer = ends.sockets()
    old.setblocking(False)
    fill_any(old)
    old_waits = spawn(attempt, wait_readable, old)
    sleep(MOMENT)
    spare = os.dup(old.fileno())
    number = old.detach()
    os.close(number)
    new, right = reuse(number)
    ends.keep(new)
    ends.keep(right)
    if events == READ:
        task = spawn(attempt, wait_readable, new)
        sleep(MOMENT)
        old_peer.send(b"stray")
        sleep(MOMENT)
        assert not task.done
        right.send(b"x")
        assert task.get() == READ
    else:
        assert wait_writable(new) == WRITE
    # Whoever waited for the old file learns that it is gone.
    assert isinstance(old_waits.get(), ClosedError)
    os.close(spare)


def test_a_connection_closed_behind_our_back_and_reused(ends: Ends) -> None:
    conn, _ = ends.pair()
    reader = spawn(attempt, conn.recv, 1)
    sleep(MOMENT)
    number = conn.fileno()
    os.close(number)
    new, right = reuse(number)
    ends.keep(new)
    ends.keep(right)
    right.send(b"x")
    assert wait_readable(new) == READ
    assert isinstance(reader.get(), ClosedError)
    assert conn.closed
    conn.close()
    assert new.recv(1) == b"x"  # and it is still open


def test_cancelled_and_timed_out_waits_leave_nothing(ends: Ends) -> None:
    left, right = ends.sockets()
    ends.keep(left)
    sleep(MOMENT)  # what the hub itself opens is open
    before = open_descriptors()
    for _ in range(50):
        task = spawn(wait_readable, left)
        sleep(0)
        task.cancel()
        task.join()
        with pytest.raises(TimeoutError):
            wait_fd(left, READ | PRIORITY, 0)
    assert open_descriptors() == before
    conn = ends.conn(left)  # nobody waits for it any more
    right.send(b"x")
    assert conn.recv(1) == b"x"


def test_a_level_that_stays_does_not_spin(ends: Ends) -> None:
    left, right = ends.sockets()
    ends.keep(left)
    right.send(b"x")
    assert wait_readable(left) == READ
    hub = pycoronet.get_hub()
    switches = hub.switch_count
    sleep(1)
    assert hub.switch_count - switches <= 2
