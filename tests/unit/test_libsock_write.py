"""pycoronet.libsock: writing, flushing, closing; from other threads too."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from connections import PEER_TIMEOUT, drain_now

import pycoronet
from pycoronet import ClosedError, libsock
from pycoronet.libreact import Reactor, reactor_review
from pycoronet.libsock import (
    sock_attach,
    sock_clear,
    sock_close,
    sock_flush,
    sock_flush_all,
    sock_flush_strong,
    sock_force_close,
    sock_is_closed,
    sock_isvalid,
    sock_open,
    sock_packets_pending,
    sock_read,
    sock_sendfile,
    sock_touch,
    sock_write,
    sock_write2,
)

pytestmark = pytest.mark.usefixtures("virtual_hub")

BIG = 4_000_000  # more than any socket takes at once


def receive_all(fd: int, peer: socket.socket, length: int) -> bytes:
    """Return that many bytes, flushing in between."""
    received = b""
    while len(received) < length:
        if sock_isvalid(fd) or not sock_is_gone(fd):
            sock_flush(fd)
        received += drain_now(peer)
    return received


def sock_is_gone(fd: int) -> bool:
    try:
        sock_packets_pending(fd)
    except ClosedError:
        return True
    return False


# Writing.


def test_write_copies_and_returns_nought(opened: Any) -> None:
    fd, peer = opened()
    data = bytearray(b"abc")
    assert sock_write(fd, data) == 0
    data[:] = b"xyz"
    assert sock_write(fd, b"defgh", 2) == 0
    assert drain_now(peer) == b""
    assert sock_packets_pending(fd)
    assert sock_flush(fd) == 5
    assert not sock_packets_pending(fd)
    assert sock_flush(fd) == 0
    assert peer.recv(100) == b"abcde"
    with pytest.raises(ValueError, match="not in a buffer of 2"):
        sock_write(fd, b"ab", 3)
    with pytest.raises(TypeError):
        sock_write(fd, 5)
    with pytest.raises(TypeError):
        sock_write(fd, "text")


def test_write2_offset_length_urgent_move_dealloc(opened: Any, virtual_hub: pycoronet.Hub) -> None:
    fd, peer = opened()
    released: list[Any] = []
    data = bytearray(b"0123456789" * 500)
    assert sock_write2(fd, b"first ") == 6
    assert sock_write2(fd, data, offset=1, length=3000, move=True, dealloc=released.append) == 3000
    with pytest.raises(BufferError):
        data.append(0)
    assert sock_write2(fd, b"urgent ", urgent=True) == 7
    assert released == []
    sock_flush(fd)
    got = receive_all(fd, peer, 3013)
    assert got == b"urgent first " + bytes(data[1:3001])
    virtual_hub.dispatch()
    assert len(released) == 1
    assert released[0] is data
    for wrong in ({"offset": -1}, {"offset": 4}, {"length": -1}, {"offset": 2, "length": 2}):
        with pytest.raises(ValueError, match="buffer of 3"):
            sock_write2(fd, b"abc", **wrong)  # type: ignore[arg-type]
    assert not sock_packets_pending(fd)


def test_write2_of_files(opened: Any, tmp_path: Path) -> None:
    fd, peer = opened()
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 5000)
    file = path.open("rb")
    assert sock_write2(fd, file, file=True, offset=3, length=4) == 4
    assert file.closed
    number = os.open(path, os.O_RDONLY)
    assert sock_write2(fd, number, is_fd=True) == 50_000
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    got = receive_all(fd, peer, 50_004)
    assert got == b"3456" + path.read_bytes()
    with path.open("rb") as file:
        for wrong in ({"move": True}, {"dealloc": print}):
            with pytest.raises(ValueError, match="are for buffers"):
                sock_write2(fd, file, file=True, **wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="0 or more"):
            sock_sendfile(fd, file, -1)
        assert not file.closed


def test_sendfile_never_waits(opened: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * BIG)
    fd, peer = opened()
    counts: list[int] = []

    def send() -> None:
        counts.append(sock_sendfile(fd, path.open("rb")))
        counts.append(sock_sendfile(fd, path.open("rb"), 10, 20))

    task = pycoronet.spawn(send)
    pycoronet.sleep(0)
    assert task.done
    assert counts == [BIG, 20]
    receive_all(fd, peer, BIG + 20)


def test_output_that_failed_closes(opened: Any) -> None:
    fd, peer = opened()
    peer.close()
    sock_write(fd, b"x")
    with pytest.raises(BrokenPipeError):
        sock_flush(fd)
    assert sock_is_closed(fd)
    fd, peer = opened()
    peer.close()
    sock_write(fd, b"x")
    assert pycoronet.flush_all() == 0
    with pytest.raises(BrokenPipeError):
        sock_write(fd, b"x")
    with pytest.raises(ClosedError):
        sock_write(fd, b"x")


# Flushing and closing.


def test_flush_strong_waits(opened: Any) -> None:
    fd, peer = opened()
    sock_write(fd, b"x" * BIG)
    got: list[int] = []

    def read() -> None:
        while sum(got) < BIG:
            got.append(len(drain_now(peer)))
            pycoronet.sleep(0.001)

    task = pycoronet.spawn(read)
    sock_flush_strong(fd)
    assert not sock_packets_pending(fd)
    task.join()
    with pytest.raises(ClosedError):
        sock_flush_strong(10_000)


def test_flush_all_counts_what_is_left(opened: Any) -> None:
    assert sock_flush_all() == 0
    small, small_peer = opened()
    big, _ = opened()
    broken, broken_peer = opened()
    broken_peer.close()
    for fd, size in ((small, 1), (big, BIG), (broken, 1)):
        sock_write(fd, b"x" * size)
    assert sock_flush_all() == 1
    assert small_peer.recv(10) == b"x"
    assert sock_is_closed(broken)
    assert sock_packets_pending(big)


def test_close_sends_first_and_force_close_does_not(
    opened: Any, reactors: Callable[..., Reactor]
) -> None:
    closed: list[int] = []
    reactor = reactors(on_close=lambda _reactor, fd: closed.append(fd))
    fd, peer = opened()
    sock_attach(reactor, fd)
    sock_write(fd, b"x" * BIG)
    sock_close(reactor, fd)
    reactor_review(reactor)
    assert closed == []
    assert sock_packets_pending(fd)
    with pytest.raises(ClosedError):
        sock_write(fd, b"more")
    with pytest.raises(ClosedError):
        sock_close(reactor, fd)
    assert receive_all(fd, peer, BIG) == b"x" * BIG
    assert peer.recv(1) == b""
    reactor_review(reactor)
    assert closed == [fd]
    other, peer = opened()
    sock_attach(reactor, other)
    sock_write(other, b"x" * BIG)
    sock_close(reactor, other)
    sock_force_close(reactor, other)
    reactor_review(reactor)
    assert closed == [fd, other]
    with pytest.raises(ClosedError):
        sock_force_close(reactor, other)


# Threads.


def in_thread(function: Callable[[], object]) -> object:
    """Return what the function gives in a thread of its own, or raise what it raises."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PEER_TIMEOUT)
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def test_writes_of_another_thread_are_queued_to_the_hub(
    opened: Any, virtual_hub: pycoronet.Hub, tmp_path: Path
) -> None:
    fd, peer = opened()
    path = tmp_path / "file"
    path.write_bytes(b"file")
    data = bytearray(b"one ")
    released: list[Any] = []

    def write() -> list[int]:
        results = [
            sock_write(fd, data),
            sock_write2(fd, data, move=True, dealloc=released.append),
            sock_sendfile(fd, path.open("rb")),
            sock_flush(fd),
        ]
        data[:] = b"two "
        sock_touch(fd)
        sock_close(None, fd)
        return results

    assert in_thread(write) == [0, 4, 0, 0]
    assert drain_now(peer) == b""
    assert sock_isvalid(fd)
    virtual_hub.wait(0)
    virtual_hub.dispatch()
    assert peer.recv(100) == b"one two file"
    assert peer.recv(1) == b""
    assert sock_is_closed(fd)
    virtual_hub.dispatch()
    assert released == [data]


def test_writes_of_a_thread_reach_a_running_hub(opened: Any) -> None:
    fd, peer = opened()
    thread = threading.Thread(target=lambda: [sock_write(fd, b"%d " % i) for i in range(100)])
    wanted = b"".join(b"%d " % i for i in range(100))
    got = b""
    conn = pycoronet.sk_conn(peer)
    thread.start()
    while len(got) < len(wanted):
        got += conn.readsome(1000)
    thread.join(PEER_TIMEOUT)
    conn.close()
    assert got == wanted


def test_what_another_thread_gave_too_late_is_freed(
    opened: Any, virtual_hub: pycoronet.Hub, tmp_path: Path, reports: list[Any]
) -> None:
    fd, _ = opened()
    path = tmp_path / "file"
    path.write_bytes(b"file")
    file = path.open("rb")
    released: list[Any] = []
    packet = libsock.sock_checkout_packet()
    packet.buffer, packet.metadata.is_fd = os.open(path, os.O_RDONLY), True
    number = packet.buffer

    def write() -> None:
        sock_write(fd, b"x")
        sock_write2(fd, b"y", dealloc=released.append)
        sock_sendfile(fd, file)
        libsock.sock_send_packet(fd, packet)
        sock_flush(fd)
        sock_close(None, fd)
        sock_force_close(None, fd)

    in_thread(write)
    sock_force_close(None, fd)
    virtual_hub.wait(0)
    virtual_hub.dispatch()
    assert released == [b"y"]
    assert file.closed
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    assert reports == []


def test_a_file_that_another_thread_gave_and_cannot_be_sent_is_reported(
    opened: Any, virtual_hub: pycoronet.Hub, tmp_path: Path, reports: list[Any]
) -> None:
    fd, _ = opened()
    folder = os.open(tmp_path, os.O_RDONLY)
    in_thread(lambda: sock_sendfile(fd, folder))
    virtual_hub.wait(0)
    virtual_hub.dispatch()
    assert [type(report) for report in reports] == [IsADirectoryError]
    assert sock_isvalid(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(folder)


def test_what_only_the_own_thread_may_do(opened: Any) -> None:
    fd, _ = opened()
    for call in (lambda: sock_read(fd, 1), lambda: sock_open(None, fd), lambda: sock_clear(fd)):
        with pytest.raises(RuntimeError, match="thread"):
            in_thread(call)
    assert in_thread(sock_flush_all) == 0
    with pytest.raises(ClosedError):
        in_thread(lambda: sock_write(10_000, b"x"))
    assert sock_isvalid(fd)
