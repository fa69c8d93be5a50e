"""Writing straight to the kernel: all of it, or a number of bytes and the reason."""

from __future__ import annotations

import array
import errno
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from connections import MOMENT, Ends, attempt, drain_now, feed, fill

import pycoronet
from pycoronet import BusyError, sleep, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")

KINDS = ["unix", "tcp", "pipe"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def writing(ends: Ends, kind: str) -> tuple[Any, Callable[[int], bytes]]:
    """Return an sk_conn to write to, and how to read at its other end, without waiting."""
    if kind == "pipe":
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        reader = ends.keep(os.fdopen(read_end, "rb", buffering=0))
        return ends.conn(write_end), lambda size: reader.read(size) or b""
    conn, peer = ends.pair(kind)
    return conn, lambda size: drain_now(peer, size)


def receive_all(read: Callable[[int], bytes], length: int) -> bytes:
    """Return so many bytes, letting the writer go on in between."""
    received = b""
    while len(received) < length:
        received += read(length - len(received))
        sleep(MOMENT)
    return received


@pytest.mark.parametrize(
    "data",
    [
        b"bytes\0\n",
        bytearray(b"array"),
        memoryview(b"a view")[2:],
        array.array("H", [1, 2, 3]),
        b"",
    ],
)
def test_write_takes_any_bytes(ends: Ends, kind: str, data: Any) -> None:
    conn, read = writing(ends, kind)
    raw = bytes(data)
    assert conn.write(data) == len(raw)
    assert read(100) == raw
    assert conn.sendall(data) is None
    assert read(100) == raw


@pytest.mark.parametrize("data", ["text", None, 5, [b"x"], memoryview(b"abcd")[::2]])
@pytest.mark.parametrize("verb", ["write", "sendall"])
def test_write_refuses_other_things(ends: Ends, data: object, verb: str) -> None:
    conn, peer = ends.pair()
    with pytest.raises((TypeError, BufferError)):
        getattr(conn, verb)(data)
    assert drain_now(peer) == b""


def test_printf(ends: Ends) -> None:
    conn, peer = ends.pair()
    assert conn.printf(b"HTTP/1.1 %d %s\r\n", 200, b"OK") == 17
    assert conn.printf(b"100%%") == 4
    assert peer.recv(100) == b"HTTP/1.1 200 OK\r\n100%"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), TypeError),
        (("%d", 1), TypeError),
        ((b"%d", "x"), TypeError),
        ((b"%d",), TypeError),
        ((b"x", 1), TypeError),
        ((b"%q", 1), ValueError),
    ],
)
def test_printf_refuses_what_does_not_fit(
    ends: Ends, arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    conn, peer = ends.pair()
    with pytest.raises(error):
        conn.printf(*arguments)
    assert drain_now(peer) == b""


def test_a_write_larger_than_the_kernels_buffer(ends: Ends, kind: str) -> None:
    conn, read = writing(ends, kind)
    content = bytes(range(256)) * 8000  # more than the sockets take at once
    task = spawn(conn.write, content)
    assert receive_all(read, len(content)) == content
    assert task.get() == len(content)


def test_a_huge_write_does_not_hold_up_others(ends: Ends) -> None:
    conn, peer = ends.pair("tcp")
    content = bytes(20_000_000)
    task = spawn(conn.write, content)
    ticks = 0
    received = 0
    while not task.done:
        received += len(drain_now(peer, 100_000))
        sleep(MOMENT)
        ticks += 1
    while received < len(content):
        received += len(peer.recv(1 << 20))
    assert task.get() == received == len(content)
    assert ticks > 10


# --- Timeouts -----------------------------------------------------------------------------


def test_a_timeout_in_the_middle_tells_how_much_went_out(ends: Ends, kind: str) -> None:
    conn, read = writing(ends, kind)
    conn.timeo = 3
    content = bytes(range(256)) * 40_000
    hub = pycoronet.get_hub()
    began = hub.time
    with pytest.raises(TimeoutError, match="write timed out") as caught:
        conn.write(content)
    assert hub.time - began == pytest.approx(3)
    assert caught.value.errno == conn.error == errno.ETIMEDOUT
    written = caught.value.bytes_written  # type: ignore[attr-defined]
    assert 0 < written < len(content)
    assert receive_all(read, written) == content[:written]
    # It can go on from there.
    task = spawn(conn.sendall, content[written:])
    assert receive_all(read, len(content) - written) == content[written:]
    task.get()


def test_each_wait_of_a_write_has_the_whole_time(ends: Ends) -> None:
    conn, peer = ends.pair()
    fill(conn)
    conn.timeo = 3
    task = spawn(attempt, conn.write, bytes(1_000_000))
    for _ in range(4):
        sleep(2)
        while drain_now(peer):
            pass
    sleep(2)
    while not task.done:
        drain_now(peer)
        sleep(MOMENT)
    assert task.get() == 1_000_000


@pytest.mark.parametrize("verb", ["write", "sendall", "printf"])
def test_a_timeout_of_0_only_tries(ends: Ends, verb: str) -> None:
    conn, _ = ends.pair()
    fill(conn)
    conn.timeo = 0
    with pytest.raises(TimeoutError, match=f"{verb} timed out") as caught:
        getattr(conn, verb)(b"more")
    assert caught.value.bytes_written == 0  # type: ignore[attr-defined]


def test_a_cancelled_write_tells_how_much_went_out(ends: Ends) -> None:
    conn, peer = ends.pair()
    results: list[int] = []

    def write() -> None:
        try:
            conn.write(bytes(5_000_000))
        except pycoronet.Cancelled as error:
            results.append(error.bytes_written)  # type: ignore[attr-defined]
            raise

    task = spawn(write)
    sleep(MOMENT)
    task.cancel()
    task.join()
    received = len(drain_now(peer, 10_000_000))
    while piece := drain_now(peer, 10_000_000):
        received += len(piece)
    assert results == [received]


# --- Others -------------------------------------------------------------------------------


def test_a_second_writer_is_told_who_writes(ends: Ends) -> None:
    conn, peer = ends.pair()
    fill(conn)
    first = spawn(conn.write, b"first")
    first.name = "first writer"
    sleep(MOMENT)
    for call in [
        lambda: conn.write(b"x"),
        lambda: conn.sendall(b"x"),
        lambda: conn.printf(b"x"),
        conn.flush,
        lambda: pycoronet.wait_writable(conn),
        lambda: conn.shutdown(socket.SHUT_WR),
    ]:
        with pytest.raises(BusyError, match=r"first writer.*is writing.*\(write\)"):
            call()
    conn.buffered = True
    with pytest.raises(BusyError, match="first writer"):
        conn.write(b"not past the other's bytes")
    received = b""
    while not received.endswith(b"first"):
        received += drain_now(peer)
        sleep(MOMENT)
    assert first.get() == 5


def test_one_reads_while_another_writes(ends: Ends) -> None:
    conn, peer = ends.pair()
    fill(conn)
    reader, writer = spawn(conn.readln), spawn(conn.write, b"out")
    sleep(MOMENT)
    peer.send(b"in\n")
    sleep(MOMENT)
    assert reader.get() == b"in\n"
    assert writer.done is False
    while not writer.done:
        drain_now(peer)
        sleep(MOMENT)
    assert writer.get() == 3


# --- Failures -----------------------------------------------------------------------------


def test_a_peer_that_is_gone(ends: Ends, kind: str) -> None:
    if kind == "pipe":
        read_end, write_end = os.pipe()
        conn = ends.conn(write_end)
        os.close(read_end)
    else:
        conn, peer = ends.pair(kind)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
    with pytest.raises((BrokenPipeError, ConnectionResetError)) as caught:
        conn.write(b"hello?")
    assert conn.error == caught.value.errno
    assert caught.value.bytes_written == 0  # type: ignore[attr-defined]
    with pytest.raises(BrokenPipeError):
        conn.write(b"hello?")
    conn.close()


@pytest.mark.parametrize("verb", ["write", "sendall", "buffered", "sendto", "sendmsg", "closed"])
def test_no_sigpipe_on_sockets(verb: str) -> None:
    """In a process of its own, where SIGPIPE would kill."""
    code = f"""if 1:
        import signal, socket
        import pycoronet
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        left, right = socket.socketpair()
        conn = pycoronet.sk_conn(left)
        right.close()
        conn.buffered = {verb in ("buffered", "closed")}
        try:
            if {verb!r} == "sendmsg":
                conn.sendmsg([b"x"])
            elif {verb!r} == "sendto":
                conn.sendto(b"x", "/nowhere")
            elif {verb!r} == "closed":
                conn.write(b"x")
                conn.close()
            elif {verb!r} == "buffered":
                conn.write(b"x")
                conn.flush()
            else:
                conn.{verb if verb in ("write", "sendall") else "write"}(b"x")
        except OSError as error:
            print(type(error).__name__)
        conn.abort()
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != -signal.SIGPIPE
    assert done.returncode == 0, done.stderr
    assert done.stdout in ("BrokenPipeError\n", "OSError\n")


def test_a_reset_wakes_the_writer(ends: Ends) -> None:
    conn, peer = ends.pair("tcp")
    fill(conn)
    writer = spawn(attempt, conn.write, b"more")
    sleep(MOMENT)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    error = writer.get()
    assert isinstance(error, ConnectionResetError | BrokenPipeError)
    assert error.bytes_written == 0  # type: ignore[attr-defined]


def test_a_pipe_whose_reader_goes_wakes_the_writer(ends: Ends) -> None:
    read_end, write_end = os.pipe()
    conn = ends.conn(write_end)
    fill(conn)
    writer = spawn(attempt, conn.write, b"more")
    sleep(MOMENT)
    os.close(read_end)
    assert isinstance(writer.get(), BrokenPipeError)


def test_the_peer_may_half_close_and_still_get_everything(ends: Ends) -> None:
    conn, peer = ends.pair("tcp")
    peer.shutdown(socket.SHUT_WR)
    assert conn.recv(10) == b""
    content = bytes(4_000_000)
    writer = spawn(conn.write, content)
    received = 0
    while not writer.done:
        received += len(drain_now(peer))
        sleep(MOMENT)
    conn.close()
    while piece := peer.recv(1 << 20):
        received += len(piece)
    assert received == len(content)


# --- Costs --------------------------------------------------------------------------------


@pytest.mark.optimisation("calls that need not wait go on without giving way")
def test_what_fits_is_written_without_a_switch(ends: Ends, kind: str) -> None:
    conn, read = writing(ends, kind)
    hub = pycoronet.get_hub()
    before = hub.switch_count
    conn.write(b"one")
    conn.printf(b"%d", 2)
    conn.sendall(b"three")
    conn.flush()
    assert hub.switch_count == before
    assert read(100) == b"one2three"


def test_writing_that_never_blocks_gives_way(ends: Ends) -> None:
    conn, peer = ends.pair()
    turns: list[int] = []

    def write_on() -> None:
        for number in range(3000):
            conn.write(b"")
            if turns:
                turns.append(number)
                return

    task = spawn(write_on)
    spawn(turns.append, -1)
    task.join()
    assert len(turns) == 2
    assert turns[1] < 1000
    assert drain_now(peer) == b""


def test_ping_pong_between_two_connections(ends: Ends) -> None:
    left, right = ends.sockets()
    a, b = ends.conn(left), ends.conn(right.dup())

    def serve() -> None:
        for line in b:
            b.write(line.upper())

    server = spawn(serve)
    for number in range(1000):
        a.write(b"x%d\n" % number)
        assert a.readln() == b"X%d\n" % number
    feed(a.write, [], a.close)
    right.close()
    server.join()


def test_a_write_that_is_cancelled_as_it_gives_way_says_that_nothing_was_written(
    ends: Ends,
) -> None:
    conn, _ = ends.pair("tcp")
    written: list[int] = []

    def write() -> None:
        pycoronet.current().cancel()
        for _ in range(300):  # so many do not wait, and then one gives way
            conn.write(b"x")

    def write_and_look() -> None:
        try:
            write()
        except pycoronet.Cancelled as error:
            written.append(error.bytes_written)  # type: ignore[attr-defined]

    pycoronet.spawn(write_and_look).join()
    assert written == [0]
