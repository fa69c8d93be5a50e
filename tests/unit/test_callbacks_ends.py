"""Connections with callbacks: how they end, and what is called then and how often."""

from __future__ import annotations

import errno
import os
import resource
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
from connections import Ends, drain_now, fill
from recorders import Recorder, queue_some, raise_error, reset, turn

import pycoronet

pytestmark = pytest.mark.usefixtures("virtual_hub")

STREAMS = ["unix", "tcp"]


# --- Ends ----------------------------------------------------------------------------------------


def by_peer(conn: Any, peer: socket.socket) -> None:
    peer.close()


def by_reset(conn: Any, peer: socket.socket) -> None:
    reset(peer)


def by_close(conn: Any, peer: socket.socket) -> None:
    conn.close()


def by_abort(conn: Any, peer: socket.socket) -> None:
    conn.abort()


def by_detach(conn: Any, peer: socket.socket) -> None:
    socket.socket(fileno=conn.detach()).close()


def by_stop(conn: Any, peer: socket.socket) -> None:
    pycoronet.get_hub().stop()
    pycoronet.get_hub().run()


def by_hub_close(conn: Any, peer: socket.socket) -> None:
    pycoronet.get_hub().close()


def by_exception(conn: Any, peer: socket.socket) -> None:
    conn.callbacks.actions["data"] = raise_error
    peer.sendall(b"x")


def by_failing_write(conn: Any, peer: socket.socket) -> None:
    conn.callbacks.actions["eof"] = lambda conn: conn.write(b"too late")
    peer.close()


def by_timeout(conn: Any, peer: socket.socket) -> None:
    conn.callbacks.actions["timeout"] = lambda conn: conn.close()
    conn.settimeout(0.0005)


ENDS: dict[Callable[..., None], list[str]] = {
    by_peer: ["eof", "close"],
    by_reset: ["error", "close"],
    by_close: ["close"],
    by_abort: ["close"],
    by_detach: ["close"],
    by_stop: ["shutdown", "close"],
    by_hub_close: ["shutdown", "close"],
    by_exception: ["data", "error", "close"],
    by_failing_write: ["eof", "error", "close"],
    by_timeout: ["timeout", "close"],
}


@pytest.mark.parametrize(
    ("end", "log"), ENDS.items(), ids=lambda value: getattr(value, "__name__", "")
)
@pytest.mark.parametrize("kind", STREAMS)
def test_on_close_comes_once_whatever_the_end(
    ends: Ends, reports: list[Any], kind: str, end: Callable[..., None], log: list[str]
) -> None:
    conn, peer = ends.pair(kind)
    recorder = Recorder()
    conn.set_callbacks(recorder)
    turn()
    if end is by_reset and kind == "unix":
        # A Unix socket is reset by closing it with bytes unread.
        conn.write(b"unread")
    end(conn, peer)
    if end is by_failing_write and kind == "tcp":
        turn()  # the answer of a closed socket is a reset
    turn()
    assert recorder.log == log
    assert conn.closed
    assert conn.callbacks is None
    turn()
    assert recorder.log == log
    assert len(reports) == (end is by_exception)


def test_a_reset_tells_the_error(ends: Ends) -> None:
    conn, peer = ends.pair("tcp")
    recorder = Recorder()
    conn.set_callbacks(recorder)
    reset(peer)
    turn()
    (error,) = recorder.errors
    assert isinstance(error, ConnectionResetError)
    assert error.errno == errno.ECONNRESET == conn.error


def test_on_close_waits_until_the_output_is_sent(ends: Ends) -> None:
    conn, peer = ends.pair()
    content = b"y" * 1_000_000

    def answer_and_close(conn: Any) -> None:
        conn.write(content)
        conn.close()

    recorder = Recorder(data=answer_and_close)
    conn.set_callbacks(recorder)
    peer.sendall(b"go")
    turn()
    assert conn.closed
    assert recorder.log == ["data"]
    got = 0
    while got < len(content):
        got += len(drain_now(peer))
        turn(1)
    turn()
    assert recorder.log == ["data", "close"]
    assert peer.recv(1) == b""


def test_half_closed_connections_can_still_write(ends: Ends) -> None:
    conn, peer = ends.pair("tcp")
    recorder = Recorder(eof=lambda conn: conn.write(b"all of " + recorder.received))
    conn.set_callbacks(recorder)
    peer.sendall(b"it")
    peer.shutdown(socket.SHUT_WR)
    turn()
    assert recorder.log == ["data", "eof"]
    assert peer.recv(100) == b"all of it"
    turn(5)
    assert recorder.log == ["data", "eof"]
    reset(peer)
    turn()
    assert recorder.log == ["data", "eof", "error", "close"]


def test_what_is_unread_can_be_taken_at_the_end_of_file(ends: Ends) -> None:
    conn, peer = ends.pair()
    rest = []
    recorder = Recorder(takes=False, eof=lambda conn: (rest.append(conn.take(100)), conn.close()))
    conn.set_callbacks(recorder)
    peer.sendall(b"no line feed")
    peer.close()
    turn()
    assert recorder.log == ["data", "eof", "close"]
    assert rest == [b"no line feed"]


def test_ten_thousand_closed_in_one_turn(ends: Ends) -> None:
    """They are told one after the other, not one inside another."""
    depths = set()

    def measure(_: object) -> None:
        frame, depth = sys._getframe(), 0
        while frame is not None:
            frame, depth = frame.f_back, depth + 1  # type: ignore[assignment]
        depths.add(depth)
        for other in still_open:
            other.close()
            break

    recorder = Recorder(close=measure)
    conns: list[Any] = []
    # Each descriptor is a pipe's reading end; the limit on descriptors is the system's.
    count = min(10_000, raise_limit() // 2 - 100)
    for _ in range(count):
        read_end, write_end = os.pipe()
        os.close(write_end)
        conn = pycoronet.sk_conn(read_end)
        conn.set_callbacks(recorder)
        conns.append(conn)
    still_open = iter(conns[count // 2 :])
    for conn in conns[: count // 2]:
        conn.close()
    turn(1)
    while not all(conn.callbacks is None for conn in conns):
        turn(1)
    assert recorder.log.count("close") == count
    assert len(depths) == 1


def raise_limit() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


# --- The idle timeout ----------------------------------------------------------------------------


def test_on_timeout_after_silence_and_again(ends: Ends) -> None:
    conn, peer = ends.pair()
    recorder = Recorder()
    conn.settimeout(10)
    conn.set_callbacks(recorder)
    hub = pycoronet.get_hub()
    start = hub.time
    pycoronet.sleep(9)
    peer.sendall(b"sign of life")
    pycoronet.sleep(9.5)
    assert recorder.log == ["data"]
    pycoronet.sleep(1)
    assert recorder.log == ["data", "timeout"]
    assert hub.time - start >= 19
    pycoronet.sleep(10)
    assert recorder.log == ["data", "timeout", "timeout"]


def test_the_timeout_can_be_changed_and_ended(ends: Ends) -> None:
    conn, _ = ends.pair()
    recorder = Recorder(timeout=lambda conn: conn.settimeout(None))
    conn.set_callbacks(recorder)
    pycoronet.sleep(100)
    assert recorder.log == []
    conn.timeo = 5
    pycoronet.sleep(100)
    assert recorder.log == ["timeout"]
    conn.settimeout(0)  # none either: nothing can be that idle
    turn()
    assert recorder.log == ["timeout"]


def test_a_peer_that_does_not_read_times_out(ends: Ends) -> None:
    conn, _ = ends.pair()
    fill(conn)
    recorder = Recorder(timeout=lambda conn: conn.abort())
    conn.settimeout(3)
    conn.set_callbacks(recorder)
    queue_some(conn)
    pycoronet.sleep(4)
    assert recorder.log == ["timeout", "close"]


def test_what_could_not_be_sent_is_told_before_more_is_written(
    ends: Ends, reports: list[Any]
) -> None:
    """It is the peer's doing: no method is at fault, and nothing is reported."""
    conn, peer = ends.pair("unix")
    recorder = Recorder(data=lambda conn: conn.write(b"answer"))
    conn.set_callbacks(recorder)
    peer.sendall(b"x" * 150_000)
    peer.close()
    turn()
    assert recorder.log == ["data", "error", "close"]
    assert isinstance(recorder.errors[0], BrokenPipeError)
    assert reports == []
