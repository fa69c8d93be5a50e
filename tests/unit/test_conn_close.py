"""Closing: who waits is woken at once, nothing works afterwards, numbers may be reused."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest
from connections import MOMENT, Ends, attempt, drain_now, feed, fill, open_descriptors

import pycoronet
from pycoronet import ClosedError, sleep, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")

ALL_CALLS: dict[str, Callable[[Any], object]] = {
    "readsome": lambda conn: conn.readsome(1),
    "recv": lambda conn: conn.recv(1),
    "recv 0": lambda conn: conn.recv(0),
    "recv_into": lambda conn: conn.recv_into(bytearray(1)),
    "read": lambda conn: conn.read(1),
    "read 0": lambda conn: conn.read(0),
    "read_exactly": lambda conn: conn.read_exactly(1),
    "readln": lambda conn: conn.readln(),
    "wait_input": lambda conn: conn.wait_input(),
    "lines": lambda conn: next(conn.lines()),
    "readline": lambda conn: conn.readline(),
    "read_until": lambda conn: conn.read_until(b"x"),
    "read_frame": lambda conn: conn.read_frame(),
    "take_frame": lambda conn: conn.take_frame(),
    "next": next,
    "take": lambda conn: conn.take(1),
    "take_line": lambda conn: conn.take_line(),
    "set_callbacks": lambda conn: conn.set_callbacks(pycoronet.Protocol()),
    "set_callbacks None": lambda conn: conn.set_callbacks(None),
    "push_layer": lambda conn: conn.push_layer(pycoronet.TransportLayer()),
    "pop_layer": lambda conn: conn.pop_layer(),
    "start_tls": lambda conn: conn.start_tls(server_hostname="localhost"),
    "write": lambda conn: conn.write(b"x"),
    "write nothing": lambda conn: conn.write(b""),
    "sendall": lambda conn: conn.sendall(b"x"),
    "printf": lambda conn: conn.printf(b"x"),
    "flush": lambda conn: conn.flush(),
    "enqueue": lambda conn: conn.enqueue(b"x"),
    "sendfile": lambda conn: conn.sendfile(0),
    "mod": lambda conn: conn.mod(pycoronet.READ),
    "detach": lambda conn: conn.detach(),
    "accept": lambda conn: conn.accept(),
    "connect": lambda conn: conn.connect("/nowhere"),
    "getpeername": lambda conn: conn.getpeername(),
    "getsockname": lambda conn: conn.getsockname(),
    "getsockopt": lambda conn: conn.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE),
    "setsockopt": lambda conn: conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    "shutdown": lambda conn: conn.shutdown(socket.SHUT_WR),
    "recvfrom": lambda conn: conn.recvfrom(1),
    "sendto": lambda conn: conn.sendto(b"x", "/nowhere"),
    "recvmsg": lambda conn: conn.recvmsg(1),
    "sendmsg": lambda conn: conn.sendmsg([b"x"]),
    "enable": lambda conn: conn.enable(pycoronet.READ),
    "disable": lambda conn: conn.disable(pycoronet.READ),
    "peek": lambda conn: conn.peek(1),
    "search": lambda conn: conn.search(b"x"),
    "copyout": lambda conn: conn.copyout(bytearray(1)),
    "drain": lambda conn: conn.drain(1),
    "prepend": lambda conn: conn.prepend(b"x"),
    "set_rate_limit": lambda conn: conn.set_rate_limit(pycoronet.RateLimit(read_rate=1)),
    "decrement_rate": lambda conn: conn.decrement_rate(read=1),
    "trigger": lambda conn: conn.trigger(pycoronet.READ),
    "set_single_limits": lambda conn: conn.set_single_limits(read=10),
}
HARMLESS = {
    "close",
    "abort",
    "fileno",
    "set_timeo",
    "settimeout",
    "gettimeout",
    "set_watermarks",
    "get_single_limits",
    "get_watermarks",
    "set_timeouts",
    "get_timeouts",
}


def reset(peer: socket.socket) -> None:
    """Close with a reset instead of an end of file."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


# --- After close -----------------------------------------------------------------------------


def test_every_method_is_in_the_table() -> None:
    methods = {
        name
        for name, value in vars(pycoronet.sk_conn).items()
        if callable(value) and not name.startswith("_")
    }
    assert methods - HARMLESS <= set(ALL_CALLS)


@pytest.mark.parametrize("call", ALL_CALLS.values(), ids=ALL_CALLS)
@pytest.mark.parametrize("end", ["close", "abort"])
def test_use_after_close(ends: Ends, call: Callable[[Any], object], end: str) -> None:
    conn, peer = ends.pair()
    peer.sendall(b"line\n")
    getattr(conn, end)()
    with pytest.raises(ClosedError) as caught:
        call(conn)
    assert isinstance(caught.value, OSError)
    assert caught.value.errno == errno.EBADF


def test_what_still_works_after_close(ends: Ends) -> None:
    conn, _ = ends.pair()
    conn.timeo = 5
    conn.close()
    conn.close()
    conn.abort()
    assert conn.fileno() == conn.sfd == -1
    assert conn.closed
    assert conn.pending == 0
    assert conn.gettimeout() == 5
    conn.settimeout(None)
    conn.buffered = True
    conn.linger = 5
    conn.set_watermarks(write_high=5)
    assert "closed" in repr(conn)


def test_close_closes_the_descriptor(ends: Ends) -> None:
    before = open_descriptors()
    conn, peer = ends.pair()
    conn.close()
    peer.close()
    assert open_descriptors() == before


def test_buffered_input_is_gone_after_close(ends: Ends) -> None:
    conn, peer = ends.pair()
    peer.sendall(b"one\ntwo\n")
    assert conn.readln() == b"one\n"
    conn.close()
    with pytest.raises(ClosedError):
        conn.readln()


def test_the_with_block_closes(ends: Ends) -> None:
    conn, peer = ends.pair()
    with conn as same:
        assert same is conn
        conn.write(b"x")
    assert conn.closed
    assert peer.recv(10) == b"x"
    assert peer.recv(10) == b""
    other, _ = ends.pair()
    with pytest.raises(ZeroDivisionError), other:
        raise ZeroDivisionError
    assert other.closed


# --- Under those who wait --------------------------------------------------------------------

READERS = [
    *["recv", "recv_into", "read", "read_exactly", "readln", "lines", "read_until", "next"],
    "read_frame",
]


@pytest.mark.parametrize("verb", READERS)
@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_waiting_reader_wakes_at_once(ends: Ends, verb: str, end: str) -> None:
    conn, _ = ends.pair()
    task = spawn(ALL_CALLS[verb], conn)
    sleep(MOMENT)
    getattr(conn, end)()
    began = pycoronet.get_hub().time
    with pytest.raises(ClosedError):
        task.get()
    assert pycoronet.get_hub().time == began
    assert conn.fileno() == -1


def test_a_waiting_writer_and_reader_wake_at_once(ends: Ends) -> None:
    conn, _ = ends.pair()
    fill(conn)
    tasks = [spawn(attempt, conn.write, b"more"), spawn(attempt, conn.readln)]
    sleep(MOMENT)
    conn.close()
    for task in tasks:
        assert isinstance(task.get(), ClosedError)


def test_a_waiting_writer_is_told_how_much_it_wrote(ends: Ends) -> None:
    conn, peer = ends.pair()
    content = bytes(5_000_000)
    task = spawn(conn.write, content)
    sleep(MOMENT)
    conn.close()
    with pytest.raises(ClosedError) as caught:
        task.get()
    received = 0
    while piece := peer.recv(1 << 20):
        received += len(piece)
    assert 0 < received == caught.value.bytes_written < len(content)  # type: ignore[attr-defined]


def test_a_reader_that_closes_by_itself(ends: Ends) -> None:
    conn, peer = ends.pair()

    def handler() -> None:
        conn.readln()
        conn.close()
        with pytest.raises(ClosedError):
            conn.readln()

    task = spawn(handler)
    feed(peer.sendall, [b"bye\n"])
    task.get()


@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize("verb", READERS)
def test_closed_after_the_reader_was_woken_and_before_it_ran(
    ends: Ends, verb: str, end: str
) -> None:
    first, first_peer = ends.pair()
    second, second_peer = ends.pair()
    closer = spawn(lambda: (first.recv(1), getattr(second, end)()))
    reader = spawn(ALL_CALLS[verb], second)
    sleep(MOMENT)
    first_peer.send(b"x")
    second_peer.send(b"data")  # both events come in one turn, this one second
    with pytest.raises(ClosedError) as caught:
        reader.get()
    assert caught.value.errno == errno.EBADF
    closer.join()


def test_closed_after_the_writer_was_woken_and_before_it_ran(ends: Ends) -> None:
    first, first_peer = ends.pair()
    second, second_peer = ends.pair()
    fill(second)
    second.buffered = True
    closer = spawn(lambda: (first.recv(1), second.close()))
    writer = spawn(second.write, bytes(1_000_000))
    sleep(MOMENT)
    first_peer.send(b"x")
    while drain_now(second_peer):
        pass
    with pytest.raises(ClosedError):
        writer.get()
    closer.join()


@pytest.mark.parametrize("events", [pycoronet.READ, pycoronet.WRITE])
def test_closed_after_wait_fd_was_woken_and_before_it_ran(ends: Ends, events: int) -> None:
    first, first_peer = ends.pair()
    second, second_peer = ends.pair()
    fill(second)
    closer = spawn(lambda: (first.recv(1), second.close()))
    waiter = spawn(pycoronet.wait_fd, second, events)
    sleep(MOMENT)
    first_peer.send(b"x")
    second_peer.send(b"x")
    while drain_now(second_peer):
        pass
    with pytest.raises(ClosedError):
        waiter.get()
    closer.join()


def test_closed_in_the_same_turn_as_its_event(ends: Ends) -> None:
    # The second event is in the list already when its connection goes.
    conns = [ends.pair() for _ in range(2)]
    results: list[object] = []

    def read(mine: Any, other: Any) -> None:
        try:
            results.append(mine.recv(10))
            other.close()
        except ClosedError:
            results.append("closed")

    tasks = [
        spawn(read, conns[0][0], conns[1][0]),
        spawn(read, conns[1][0], conns[0][0]),
    ]
    sleep(MOMENT)
    for _, peer in conns:
        peer.send(b"x")
    for task in tasks:
        task.join()
    assert results == [b"x", "closed"]


def test_reset_with_reader_and_writer_parked(ends: Ends) -> None:
    conn, peer = ends.pair("tcp")
    fill(conn)
    reader, writer = spawn(attempt, conn.read, 10), spawn(attempt, conn.write, b"more")
    sleep(MOMENT)
    reset(peer)
    assert isinstance(reader.get(), ConnectionResetError)
    assert isinstance(writer.get(), ConnectionResetError | BrokenPipeError)
    assert conn.closed is False
    conn.close()


# --- Numbers that are used again -------------------------------------------------------------


def take_number(number: int, sock: socket.socket) -> socket.socket:
    """Give a socket this number, which is free."""
    if sock.fileno() == number:
        return sock
    os.dup2(sock.fileno(), number)
    sock.close()
    return socket.socket(fileno=number)


def test_a_number_we_closed_gets_no_stray_event(ends: Ends) -> None:
    hub = pycoronet.get_hub()
    first, first_peer = ends.pair()
    old, old_peer = ends.pair()
    number = old.fileno()
    new: list[Any] = []

    def replace() -> None:
        first.recv(1)
        old.close()  # its event is fetched already
        left, right = ends.sockets()
        new.extend([ends.conn(take_number(number, left)), right])
        new[0].mod(pycoronet.READ)  # watched from here on

    replacer = spawn(replace)
    old_reader = spawn(attempt, old.recv, 10)
    sleep(MOMENT)
    first_peer.send(b"x")
    old_peer.send(b"x")
    assert hub.wait(0) == 2
    assert hub.dispatch(1) == 1
    assert replacer.done
    assert new[0].fileno() == number
    assert hub.dispatch() == 0  # the second event has no owner any more
    assert new[0].revents == 0
    assert isinstance(old_reader.get(), ClosedError)
    new[1].send(b"proper")
    assert new[0].recv(10) == b"proper"


def test_closed_behind_our_back_and_reused_for_a_connection(ends: Ends) -> None:
    old, old_peer = ends.pair()
    number = old.fileno()
    fill(old)
    old_reader = spawn(attempt, old.recv, 10)
    old_writer = spawn(attempt, old.write, b"more")
    sleep(MOMENT)
    spare = os.dup(number)  # so that its file, with its events, lives on
    os.close(number)
    left, right = socket.socketpair()
    ends.keep(right)
    left = take_number(number, left)
    old_peer.send(b"stray")
    new = ends.conn(left)
    assert new.fileno() == number
    # Whoever waited on the old one learns of it at once; the new file is left alone.
    for task in (old_reader, old_writer):
        assert isinstance(task.get(), ClosedError)
    assert old.closed
    assert old.fileno() == -1
    new.timeo = 1
    with pytest.raises(TimeoutError):
        new.recv(10)
    right.send(b"proper")
    assert new.recv(10) == b"proper"
    old.close()
    new.write(b"still open")
    assert right.recv(100) == b"still open"
    os.close(spare)


def test_closed_behind_our_back_and_reused_by_accept(ends: Ends) -> None:
    listener = ends.conn(socket.create_server(("127.0.0.1", 0)))
    old, _ = ends.pair()
    number = old.fileno()
    reader = spawn(old.recv, 10)
    sleep(MOMENT)
    client = ends.keep(socket.socket())
    spare = os.dup(number)  # keeps the old file alive: its events go on
    client.connect(listener.getsockname())
    os.close(number)
    conn, _ = listener.accept()
    try:
        assert conn.fileno() == number
        with pytest.raises(ClosedError):
            reader.get()
        client.sendall(b"hello")
        assert conn.recv(10) == b"hello"
    finally:
        conn.close()
        os.close(spare)


def test_events_of_a_file_that_lives_on_elsewhere_are_dropped(ends: Ends) -> None:
    old, old_peer = ends.pair()
    number = old.fileno()
    reader = spawn(old.recv, 10)
    sleep(MOMENT)
    spare = os.dup(number)
    os.close(number)
    pycoronet.notify_closing(number)
    with pytest.raises(ClosedError):
        reader.get()
    left, right = socket.socketpair()
    ends.keep(right)
    left = take_number(number, left)
    new = ends.conn(left)
    waiting = spawn(new.recv, 10)
    sleep(MOMENT)
    switches = pycoronet.get_hub().switch_count
    old_peer.send(b"for nobody")  # the kernel still reports it, with the old token
    sleep(MOMENT)
    sleep(MOMENT)
    assert new.revents & pycoronet.READ == 0
    assert pycoronet.get_hub().switch_count - switches <= 4
    right.send(b"mine")
    assert waiting.get() == b"mine"
    os.close(spare)


# --- Threads ---------------------------------------------------------------------------------


def in_thread(call: Callable[[], object]) -> BaseException | None:
    """Return what the call raised in a thread of its own."""
    caught: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return caught[0] if caught else None


@pytest.mark.parametrize("name", [*ALL_CALLS, "close", "abort"])
def test_use_from_another_thread(ends: Ends, name: str) -> None:
    conn, peer = ends.pair()
    peer.sendall(b"line\n")
    call = ALL_CALLS.get(name, lambda conn: getattr(conn, name)())
    error = in_thread(lambda: call(conn))
    assert type(error) is RuntimeError
    assert "belongs to another thread" in str(error)
    assert conn.readln() == b"line\n"


def test_a_connection_outlives_its_thread(ends: Ends) -> None:
    made: list[Any] = []
    left, right = ends.sockets()
    error = in_thread(lambda: made.append(pycoronet.sk_conn(left)))
    assert error is None
    conn = made.pop()
    with pytest.raises(RuntimeError):
        conn.recv(1)
    conn.close()  # the hub is gone, so nobody else can do it
    assert conn.closed
    assert right.recv(10) == b""


def test_use_after_the_hub_was_closed(ends: Ends) -> None:
    conn, peer = ends.pair()
    peer.send(b"x")
    pycoronet.get_hub().close()
    for name, call in ALL_CALLS.items():
        with pytest.raises((RuntimeError, OSError), match="hub is closed") as caught:
            call(conn)
        assert caught.value is not None, name
    assert peer.send(b"still open") == 10
    conn.close()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        peer.send(b"x")
