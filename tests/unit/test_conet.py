"""pycoronet.conet: the 17 functions of coronet(3), in its units and meanings."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from conet_case import run_until, settle, start, turn
from connections import Ends, drain_now, hold_input, open_descriptors

import pycoronet
from pycoronet import conet
from pycoronet.conet import (
    co_current,
    conet_accept,
    conet_cleanup,
    conet_close_conn,
    conet_connect,
    conet_create_conn,
    conet_events_dispatch,
    conet_events_wait,
    conet_init,
    conet_mod_conn,
    conet_new_conn,
    conet_printf,
    conet_read,
    conet_readln,
    conet_readsome,
    conet_set_timeo,
    conet_socket,
    conet_write,
)

SEED_FUNCTIONS = [
    "conet_init",
    "conet_cleanup",
    "conet_readsome",
    "conet_read",
    "conet_readln",
    "conet_write",
    "conet_printf",
    "conet_new_conn",
    "conet_close_conn",
    "conet_set_timeo",
    "conet_mod_conn",
    "conet_socket",
    "conet_connect",
    "conet_accept",
    "conet_create_conn",
    "conet_events_wait",
    "conet_events_dispatch",
    "co_create",
    "co_call",
    "co_resume",
    "co_current",
    "co_delete",
]

NO_LINGER = struct.pack("ii", 0, 0)


@pytest.fixture(autouse=True)
def context(virtual_hub: pycoronet.Hub, ends: Ends) -> Iterator[pycoronet.Hub]:
    """Set conet up over a hub in virtual time."""
    assert conet_init() == 0
    yield virtual_hub
    conet_cleanup()


def new_pair(ends: Ends, kind: str = "unix") -> tuple[Any, socket.socket]:
    """Return a connection of the main program and the socket at its other end."""
    left, right = ends.sockets(kind)
    return ends.keep(conet_new_conn(left, co_current())), right


def test_conet_offers_exactly_the_functions_of_the_seed() -> None:
    assert sorted(conet.__all__) == sorted(SEED_FUNCTIONS)
    assert all(callable(getattr(conet, name)) for name in SEED_FUNCTIONS)
    assert all(getattr(conet, name).__doc__ for name in SEED_FUNCTIONS)


# Setting up and cleaning up.


def uses_of_the_context(conn: Any) -> dict[str, Any]:
    address = ("127.0.0.1", 9)
    return {
        "conet_readsome": lambda: conet_readsome(conn, 1),
        "conet_read": lambda: conet_read(conn, 1),
        "conet_readln": lambda: conet_readln(conn),
        "conet_write": lambda: conet_write(conn, b"x"),
        "conet_printf": lambda: conet_printf(conn, b"x"),
        "conet_new_conn": lambda: conet_new_conn(0, None),
        "conet_close_conn": lambda: conet_close_conn(conn),
        "conet_set_timeo": lambda: conet_set_timeo(conn, 1),
        "conet_mod_conn": lambda: conet_mod_conn(conn, 1),
        "conet_socket": lambda: conet_socket(socket.AF_INET, socket.SOCK_STREAM),
        "conet_connect": lambda: conet_connect(conn, address),
        "conet_accept": lambda: conet_accept(conn),
        "conet_create_conn": lambda: conet_create_conn(socket.AF_INET, socket.SOCK_STREAM, 0, None),
        "conet_events_wait": lambda: conet_events_wait(0),
        "conet_events_dispatch": lambda: conet_events_dispatch(0),
    }


@pytest.mark.parametrize("name", [n for n in SEED_FUNCTIONS if n.startswith("conet_")][2:])
def test_conet_function_without_context_says_to_call_conet_init(name: str, ends: Ends) -> None:
    conn, _ = new_pair(ends)
    conet_cleanup()
    with pytest.raises(RuntimeError, match=r"conet_init\(\)"):
        uses_of_the_context(conn)[name]()


def test_conet_init_twice_keeps_the_context(ends: Ends) -> None:
    conn, peer = new_pair(ends)
    assert conet_init() == 0
    assert conet_write(conn, b"still") == 5
    conet_cleanup()
    assert drain_now(peer) == b"still"
    assert conn.closed


def test_conet_cleanup_twice_does_nothing() -> None:
    conet_cleanup()
    conet_cleanup()


def test_conet_init_after_cleanup_gives_a_working_context(ends: Ends) -> None:
    conet_cleanup()
    conet_init()
    conn, peer = new_pair(ends)
    peer.send(b"again\n")
    assert conet_readln(conn) == b"again\n"
    conet_cleanup()


def test_conet_cleanup_closes_every_connection_and_ends_coroutines(
    ends: Ends, capfd: pytest.CaptureFixture[str]
) -> None:
    before = open_descriptors()
    log = []

    def wait_for_a_line(sock: socket.socket) -> None:
        conn = conet_new_conn(sock, co_current())
        try:
            conet_readln(conn)
        finally:
            log.append("finally")

    pairs = [socket.socketpair() for _ in range(5)]
    for left, _ in pairs[:3]:
        start(wait_for_a_line, left)
    idle = [conet_new_conn(left, None) for left, _ in pairs[3:]]
    conet_cleanup()
    assert log == ["finally"] * 3
    assert all(conn.closed for conn in idle)
    assert all(right.recv(1) == b"" for _, right in pairs)  # the other end knows
    for _, right in pairs:
        right.close()
    # The hub's own descriptors were open before.
    assert open_descriptors() <= before
    assert capfd.readouterr() == ("", "")


def test_conet_cleanup_in_a_coroutine_is_refused() -> None:
    errors = []

    def clean_up() -> None:
        try:
            conet_cleanup()
        except RuntimeError as error:
            errors.append(str(error))

    start(clean_up)
    assert len(errors) == 1
    assert "main program" in errors[0]
    assert conet_events_wait(0) == 0  # the context is as it was


def test_conet_context_is_per_thread() -> None:
    errors = []

    def run() -> None:
        try:
            conet_events_wait(0)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(errors) == 1
    assert "conet_init()" in errors[0]


# Reading and writing.


def test_conet_readsome_gives_what_is_there_then_the_end(ends: Ends) -> None:
    conn, peer = new_pair(ends)
    peer.send(b"hello")
    assert conet_readsome(conn, 3) == b"hel"
    assert conet_readsome(conn, 100) == b"lo"
    peer.shutdown(socket.SHUT_WR)
    assert conet_readsome(conn, 100) == b""
    assert conet_readsome(conn, 100) == b""


def test_conet_read_gives_n_bytes_and_fewer_at_the_end(ends: Ends) -> None:
    conn, peer = new_pair(ends)
    peer.send(b"12345678")
    assert conet_read(conn, 5) == b"12345"
    peer.shutdown(socket.SHUT_WR)
    assert conet_read(conn, 5) == b"678"
    assert conn.error == 0
    assert conet_read(conn, 5) == b""
    assert conn.error == 0


def test_conet_read_error_gives_what_came_and_the_cause(ends: Ends) -> None:
    conn, peer = new_pair(ends, "tcp")
    conet_set_timeo(conn, 2)
    peer.send(b"abc")
    assert conet_read(conn, 5) == b"abc"
    assert conn.error == errno.ETIMEDOUT
    assert conet_read(conn, 5) == b""
    assert conn.error == errno.ETIMEDOUT
    # The next cause takes the place of the last one.
    peer.send(b"de")
    assert conet_read(conn, 2) == b"de"
    assert conn.error == 0
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    assert conet_read(conn, 5) == b""
    assert conn.error == errno.ECONNRESET


def test_conet_read_cancelled_leaves_the_bytes_readable(ends: Ends) -> None:
    conn, peer = new_pair(ends)
    peer.send(b"abc")
    task = start(conet_read, conn, 10)
    turn()
    task.cancel()
    run_until(lambda: task.done)
    assert conet_readsome(conn, 10) == b"abc"


def test_conet_readln_gives_lines_the_rest_and_none(ends: Ends) -> None:
    conn, peer = new_pair(ends)
    peer.send(b"one\r\n\nthree\nrest")
    peer.shutdown(socket.SHUT_WR)
    assert [conet_readln(conn) for _ in range(6)] == [
        b"one\r\n",
        b"\n",
        b"three\n",
        b"rest",
        None,
        None,
    ]


def test_conet_write_gives_the_count(ends: Ends) -> None:
    conn, peer = new_pair(ends)
    assert conet_write(conn, b"abc") == 3
    assert conet_write(conn, memoryview(b"defg")) == 4
    assert drain_now(peer) == b"abcdefg"


def test_conet_write_waits_until_everything_is_written(ends: Ends) -> None:
    conn, peer = new_pair(ends)
    data = os.urandom(1 << 20)
    counts = []
    start(lambda: counts.append(conet_write(conn, data)))
    assert counts == []  # control came back at its first wait
    received = b""
    while not counts:
        received += drain_now(peer)
        turn()
    assert counts == [len(data)]
    assert received + drain_now(peer, 2 << 20) == data


def test_conet_write_error_says_how_much_went_out(ends: Ends) -> None:
    conn, peer = new_pair(ends)
    peer.close()
    with pytest.raises(BrokenPipeError) as caught:
        conet_write(conn, b"x")
    assert caught.value.bytes_written == 0  # type: ignore[attr-defined]


def test_conet_printf_formats_bytes(ends: Ends) -> None:
    conn, peer = new_pair(ends)
    assert conet_printf(conn, b"%s %d OK\r\n", b"HTTP/1.1", 200) == 17
    assert drain_now(peer) == b"HTTP/1.1 200 OK\r\n"


# Connections.


def test_conet_new_conn_is_bound_and_not_blocking(ends: Ends) -> None:
    left, _ = ends.sockets()
    fd = left.fileno()
    conn = ends.keep(conet_new_conn(left.detach(), co_current()))
    assert (conn.sfd, conn.coroutine) == (fd, co_current())
    assert not os.get_blocking(fd)


def test_conet_new_conn_takes_a_pipe(ends: Ends) -> None:
    read_end, write_end = os.pipe()
    reader, writer = (ends.keep(conet_new_conn(fd, None)) for fd in (read_end, write_end))
    conet_write(writer, b"through\n")
    assert conet_readln(reader) == b"through\n"
    conet_close_conn(writer)
    assert conet_readln(reader) is None


def test_conet_new_conn_bad_descriptor_raises() -> None:
    with pytest.raises(OSError, match="Bad file") as caught:
        conet_new_conn(10000, None)
    assert caught.value.errno == errno.EBADF


def test_conet_new_conn_with_something_else_than_a_coroutine_closes(ends: Ends) -> None:
    left, right = ends.sockets()
    with pytest.raises(TypeError, match="coroutine"):
        conet_new_conn(left.detach(), "me")  # type: ignore[arg-type]
    assert right.recv(1) == b""


def test_conet_close_conn_closes_the_descriptor_at_once(ends: Ends) -> None:
    conn, peer = new_pair(ends)
    fd = conn.sfd
    conet_close_conn(conn)
    assert conn.sfd == -1
    assert peer.recv(1) == b""
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    conet_close_conn(conn)
    with pytest.raises(pycoronet.ClosedError):
        conet_readsome(conn, 1)


def test_conet_set_timeo_counts_seconds(context: pycoronet.Hub, ends: Ends) -> None:
    conn, _ = new_pair(ends)
    assert conet_set_timeo(conn, 3) == 0
    assert conn.timeo == 3.0
    began = context.time
    with pytest.raises(TimeoutError) as caught:
        conet_readsome(conn, 1)
    assert context.time - began == 3.0
    assert (caught.value.errno, conn.error) == (errno.ETIMEDOUT, errno.ETIMEDOUT)


@pytest.mark.parametrize("timeo", [0, -1, -0.5])
def test_conet_set_timeo_of_zero_or_less_is_none(timeo: float, ends: Ends) -> None:
    conn, _ = new_pair(ends)
    conet_set_timeo(conn, 5)
    conet_set_timeo(conn, timeo)
    assert conn.timeo is None


@pytest.mark.parametrize(("timeo", "error"), [(None, TypeError), (float("nan"), ValueError)])
def test_conet_set_timeo_refuses_what_is_no_time(
    timeo: Any, error: type[Exception], ends: Ends
) -> None:
    conn, _ = new_pair(ends)
    with pytest.raises(error):
        conet_set_timeo(conn, timeo)


def test_conet_mod_conn_sets_events(ends: Ends) -> None:
    conn, _ = new_pair(ends)
    assert conet_mod_conn(conn, select.POLLIN | select.POLLOUT) == 0
    assert conn.events == select.POLLIN | select.POLLOUT
    assert conet_mod_conn(conn, 0) == 0
    assert conn.events == 0
    with pytest.raises(ValueError, match="bits 262144"):
        conet_mod_conn(conn, 0x40000)


@pytest.mark.linux_only
def test_conet_mod_conn_takes_the_bits_of_epoll(ends: Ends) -> None:
    conn, _ = new_pair(ends)
    conet_mod_conn(conn, select.EPOLLIN | select.EPOLLPRI | select.EPOLLRDHUP | select.EPOLLET)
    assert conn.events == select.EPOLLIN | select.EPOLLPRI | select.EPOLLRDHUP


# Sockets.


def test_conet_socket_is_not_blocking_and_does_not_linger() -> None:
    fd = conet_socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    with socket.socket(fileno=fd) as sock:
        assert not os.get_blocking(fd)
        assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == NO_LINGER


def test_conet_socket_impossible_raises() -> None:
    before = open_descriptors()
    with pytest.raises(OSError, match="rotocol"):
        conet_socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_UDP)
    assert open_descriptors() == before


def test_conet_create_conn_is_socket_and_new_conn(ends: Ends) -> None:
    conn = ends.keep(conet_create_conn(socket.AF_INET, socket.SOCK_DGRAM, 0, co_current()))
    assert conn.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_DGRAM
    assert conn.coroutine is co_current()
    before = open_descriptors()
    with pytest.raises(TypeError):
        conet_create_conn(socket.AF_INET, socket.SOCK_DGRAM, 0, 1)  # type: ignore[arg-type]
    assert open_descriptors() == before


def test_conet_accept_and_connect_meet(ends: Ends) -> None:
    listener = ends.keep(conet_new_conn(socket.create_server(("127.0.0.1", 0)), co_current()))
    accepted = []
    start(lambda: accepted.append(conet_accept(listener)))
    client = ends.keep(conet_create_conn(socket.AF_INET, socket.SOCK_STREAM, 0, co_current()))
    assert conet_connect(client, listener.getsockname()) == 0
    run_until(lambda: accepted)
    fd, address = accepted[0]
    assert isinstance(fd, int)
    assert address == client.getsockname()
    assert not os.get_blocking(fd)
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    # The descriptor is open and the caller's, and takes part under a new connection.
    served = ends.keep(conet_new_conn(fd, co_current()))
    assert served.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == NO_LINGER
    conet_write(client, b"hello\n")
    assert conet_readln(served) == b"hello\n"


def test_conet_accept_without_a_listener_raises(ends: Ends) -> None:
    conn = ends.keep(conet_create_conn(socket.AF_INET, socket.SOCK_STREAM, 0, None))
    with pytest.raises(OSError, match="Invalid") as caught:
        conet_accept(conn)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.linux_only
def test_conet_accept_on_a_unix_socket(ends: Ends) -> None:
    path = "\0pycoronet-conet-test" + str(os.getpid())
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    listener = ends.keep(conet_new_conn(sock, None))
    client = ends.keep(conet_create_conn(socket.AF_UNIX, socket.SOCK_STREAM, 0, None))
    conet_connect(client, path)
    fd, _ = conet_accept(listener)
    os.close(fd)
    assert conet_readsome(client, 1) == b""


# detach(), on which conet_accept stands.


def test_detach_gives_the_descriptor_up_and_wakes_who_waits(ends: Ends) -> None:
    conn, peer = new_pair(ends)
    errors = []

    def wait_for_a_line() -> None:
        try:
            conet_readln(conn)
        except pycoronet.ClosedError as error:
            errors.append(error.errno)

    start(wait_for_a_line)
    settle()
    fd = conn.sfd
    assert conn.detach() == fd
    assert (conn.sfd, conn.closed) == (-1, True)
    run_until(lambda: errors)
    assert errors == [errno.EBADF]
    assert not os.get_blocking(fd)
    os.write(fd, b"alive")
    assert drain_now(peer) == b"alive"
    os.close(fd)
    with pytest.raises(pycoronet.ClosedError):
        conn.detach()


def test_detach_refuses_to_lose_bytes(ends: Ends) -> None:
    conn, peer = new_pair(ends)
    hold_input(conn, peer, b"rest")
    with pytest.raises(RuntimeError, match="4 bytes not read and 0 not sent"):
        conn.detach()
    assert conet_readsome(conn, 10) == b"rest"
    conn.buffered = True
    conet_write(conn, b"collected")
    with pytest.raises(RuntimeError, match="0 bytes not read and 9 not sent"):
        conn.detach()
    conn.flush()
    os.close(conn.detach())
    assert drain_now(peer) == b"collected"
