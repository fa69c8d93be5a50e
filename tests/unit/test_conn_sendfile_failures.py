"""sendfile: what becomes of files that change, and of connections that end, in the middle."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from connections import MOMENT, Ends, attempt, drain_now, open_descriptors, receive, reset
from sendfile_case import CONTENT, LARGE, begin, send_path

import pycoronet
from pycoronet import ClosedError, sleep, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")


# --- What goes wrong meanwhile -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_file_that_shrinks_cuts_the_stream_off(ends: Ends, large: Path, kind: str) -> None:
    conn, peer = ends.pair(kind)
    task = spawn(attempt, send_path, conn, large)
    sleep(MOMENT)
    os.truncate(large, 10)
    received = 0
    with pytest.raises((ConnectionResetError, StopIteration)):
        while not task.done:
            received += len(drain_now(peer))
            sleep(MOMENT)
        error = task.get()
        assert isinstance(error, OSError)
        assert error.errno == errno.EIO
        assert "cut off" in str(error)
        assert error.bytes_written <= received + 5_000_000  # type: ignore[attr-defined]
        for call in (conn.write, conn.enqueue, conn.sendall):
            with pytest.raises(BrokenPipeError, match="cut off"):
                call(b"not a part of the file")
        with pytest.raises(BrokenPipeError):
            conn.shutdown(socket.SHUT_WR)
        conn.close()
        while piece := peer.recv(1 << 20):
            received += len(piece)
        assert kind == "unix"
        raise StopIteration
    assert received < len(LARGE)


def test_a_file_that_shrinks_in_the_background(ends: Ends, small: Path) -> None:
    conn, _ = ends.pair()
    send_path(conn, small)
    conn.enqueue(b"never sent")
    os.truncate(small, 1000)
    sleep(0)
    assert conn.pending == 0
    with pytest.raises(OSError, match="cut off in the middle") as caught:
        conn.close()
    assert caught.value.errno == errno.EIO
    assert conn.fileno() == -1


@pytest.mark.parametrize("waits", [False, True])
def test_reset_in_mid_file(ends: Ends, large: Path, waits: bool) -> None:
    conn, peer = ends.pair("tcp")
    sleep(MOMENT)  # what the hub itself opens is open
    before = open_descriptors()
    if waits:
        task = spawn(attempt, send_path, conn, large)
    else:
        pycoronet.get_hub().call_soon_threadsafe(send_path, conn, large)
    sleep(MOMENT)
    assert conn.pending > 0
    peer.recv(1000)
    reset(peer)
    sleep(MOMENT)
    error = task.get() if waits else attempt(conn.flush)
    assert isinstance(error, OSError)
    assert error.errno in (errno.ECONNRESET, errno.EPIPE)
    assert conn.pending == 0
    assert len(open_descriptors()) == len(before) - 1  # the peer's


@pytest.mark.linux_only
def test_a_closed_peer_raises_no_signal(ends: Ends, small: Path) -> None:
    import signal

    conn, peer = ends.pair()
    peer.close()
    seen: list[int] = []
    before = signal.signal(signal.SIGPIPE, lambda number, _: seen.append(number))
    try:
        send_path(conn, small)
        sleep(0)
        sleep(MOMENT)
    finally:
        signal.signal(signal.SIGPIPE, before)
    assert seen == []
    with pytest.raises(BrokenPipeError):
        conn.close()


def test_close_sends_the_rest_of_the_file(ends: Ends, large: Path) -> None:
    conn, peer = ends.pair()
    pycoronet.get_hub().call_soon_threadsafe(send_path, conn, large)
    sleep(MOMENT)
    conn.close()
    assert receive(peer, len(LARGE)) == LARGE
    assert peer.recv(10) == b""
    assert conn.fileno() == -1


@pytest.mark.parametrize("way", ["close", "abort", "cancel", "time"])
def test_who_waits_for_a_file_takes_it_back(ends: Ends, large: Path, way: str) -> None:
    conn, peer = ends.pair()
    sleep(MOMENT)  # what the hub itself opens is open
    before = open_descriptors()
    if way == "time":
        conn.timeo = 5
    task = spawn(attempt, send_path, conn, large)
    sleep(MOMENT)
    conn.enqueue(b"tail")
    if way == "cancel":
        task.cancel()
        with pytest.raises(pycoronet.Cancelled) as caught:
            task.get()
        written = caught.value.bytes_written  # type: ignore[attr-defined]
    else:
        if way != "time":
            getattr(conn, way)()
        error = task.get()
        assert isinstance(error, TimeoutError if way == "time" else ClosedError)
        written = error.bytes_written
    assert 0 < written < len(LARGE)
    conn.close()
    received = b""
    while piece := peer.recv(1 << 20):
        received += piece
        sleep(MOMENT)
    tail = b"" if way == "abort" else b"tail"
    assert received == LARGE[:written] + tail
    assert len(open_descriptors()) == len(before) - 1  # the connection's


def test_progress_extends_the_time(ends: Ends, large: Path) -> None:
    conn, peer = ends.pair()
    conn.timeo = 1
    task = spawn(send_path, conn, large)
    for _ in range(100):
        sleep(0.9)
        drain_now(peer)
    assert task.get() == len(LARGE)


def test_two_who_want_to_wait(ends: Ends, large: Path, small: Path) -> None:
    conn, peer, task = begin(ends, large)
    before = open_descriptors()
    with pytest.raises(pycoronet.BusyError):
        send_path(conn, large)
    assert open_descriptors() == before
    assert receive(peer, len(LARGE)) == LARGE
    task.get()
    assert send_path(conn, small) == len(CONTENT)


def test_a_hub_callback_queues_and_does_not_wait(ends: Ends, large: Path) -> None:
    conn, peer = ends.pair()
    results: list[object] = []
    pycoronet.get_hub().call_soon_threadsafe(
        lambda: results.append(attempt(send_path, conn, large))
    )
    sleep(MOMENT)
    assert results == [len(LARGE)]
    assert receive(peer, len(LARGE)) == LARGE


def test_one_file_does_not_hold_up_the_others(ends: Ends, tmp_path: Path) -> None:
    # A device takes everything at once.
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(20_000_000)
    conn = ends.conn(os.open("/dev/null", os.O_WRONLY))
    conn.set_watermarks(write_high=1 << 40)
    seen = [send_path(conn, sparse)]
    while seen[-1] > 0:
        pycoronet.get_hub().wait(0)
        seen.append(conn.pending)
    assert len(seen) > 10


@pytest.mark.linux_only
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_send_it(ends: Ends, large: Path) -> None:
    conn, peer = ends.pair()
    pycoronet.get_hub().call_soon_threadsafe(send_path, conn, large)
    sleep(MOMENT)
    before = len(open_descriptors())
    child = os.fork()
    if child == 0:
        status = 1
        try:
            sleep(MOMENT)
            # Of the file, and of the engine that is made anew when it is needed.
            status = 10 if conn.pending == 0 and len(open_descriptors()) <= before else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 10
    assert receive(peer, len(LARGE)) == LARGE


def closes(call: Callable[[], object]) -> bool:
    """Return whether the call leaves fewer descriptors than it found."""
    before = len(open_descriptors())
    call()
    return len(open_descriptors()) < before


def test_dropped_connections_close_their_files(ends: Ends, large: Path) -> None:
    left, peer = ends.sockets()
    conn = pycoronet.sk_conn(left)
    conn.linger = 0
    pycoronet.get_hub().call_soon_threadsafe(send_path, conn, large)
    sleep(MOMENT)
    assert closes(conn.close)
    peer.close()
