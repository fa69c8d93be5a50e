"""Connections with callbacks: which way what a callback writes leaves, however it ends."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from connections import Ends, behind_full, drain_now
from recorders import Recorder, turn

pytestmark = pytest.mark.usefixtures("virtual_hub")


def tell(ends: Ends, data: Any) -> tuple[Any, socket.socket, Recorder]:
    """Return both ends of a connection whose on_data() has run `data`, and its protocol."""
    conn, peer = ends.pair("tcp")
    recorder = Recorder(data=data)
    conn.set_callbacks(recorder)
    peer.sendall(b"go")
    turn()
    return conn, peer, recorder


def test_close_sends_what_was_written_before(ends: Ends) -> None:
    def write_and_close(conn: Any) -> None:
        conn.write(b"last ")
        conn.write(b"words")
        conn.close()

    _, peer, recorder = tell(ends, write_and_close)
    assert recorder.log == ["data", "close"]
    assert peer.recv(100) == b"last words"
    assert peer.recv(100) == b""


def test_an_exception_sends_what_was_written_before_and_by_on_error(
    ends: Ends, reports: list[Any]
) -> None:
    def write_and_fail(conn: Any) -> None:
        conn.write(b"before")
        raise ValueError("of the test")

    conn, peer = ends.pair("tcp")
    recorder = Recorder(data=write_and_fail, error=lambda conn: conn.write(b" after"))
    conn.set_callbacks(recorder)
    peer.sendall(b"go")
    turn()
    assert recorder.log == ["data", "error", "close"]
    assert peer.recv(100) == b"before after"
    assert peer.recv(100) == b""
    assert [type(each) for each in reports] == [ValueError]


def test_pending_counts_what_was_written_until_it_is_flushed(ends: Ends) -> None:
    seen = []

    def write_and_flush(conn: Any) -> None:
        conn.write(b"12345")
        seen.append(conn.pending)
        conn.write(b"67")
        seen.append(conn.pending)
        conn.flush()
        seen.append(conn.pending)
        conn.write(b"8")
        seen.append(conn.pending)

    conn, peer, _ = tell(ends, write_and_flush)
    assert seen == [5, 7, 0, 1]
    assert conn.pending == 0
    assert drain_now(peer) == b"12345678"


def test_what_is_queued_keeps_its_order(ends: Ends) -> None:
    def write_and_queue(conn: Any) -> None:
        conn.write(b"a")
        conn.enqueue(b"b")
        conn.write(b"c")
        conn.enqueue((b"d", b"e"))
        conn.enqueue(b"!", urgent=True)

    _, peer, _ = tell(ends, write_and_queue)
    assert drain_now(peer) == b"!abcde"


def test_what_goes_on_a_stream_may_be_overtaken_as_what_begins_one(ends: Ends) -> None:
    # The second packet of a long stream is a part of its first one's message; what is
    # written to its memory later is not.
    conn, peer = ends.pair("tcp")

    def write(conn: Any) -> None:
        if recorder.received == b"long":
            for _ in range(30):
                conn.write(b"-" * 50)
        else:
            conn.write(b"later")
            conn.enqueue(b"urgent ", urgent=True)

    recorder = Recorder(data=write)
    conn.set_callbacks(recorder)
    peer.sendall(b"long")
    turn()
    assert drain_now(peer) == b"-" * 1500
    peer.sendall(b"short")
    turn()
    assert drain_now(peer) == b"urgent later"


def test_what_cannot_leave_is_not_written_over_by_others(ends: Ends) -> None:
    other, other_peer = ends.pair("tcp")
    conn, peer, filled = behind_full(ends)
    waiting = conn.pending

    def write_to_both(asker: Any) -> None:
        conn.write(b"mine")
        other.write(b"your")
        asker.write(b"s")

    echo = Recorder(data=write_to_both)
    other.set_callbacks(echo)
    for _ in range(5):
        other_peer.sendall(b"go")
        turn()
        assert drain_now(other_peer) == b"yours"
    assert conn.pending == waiting + 20
    received = b""
    while len(received) < filled + waiting + 20:
        received += drain_now(peer)
        turn()
    assert received[filled + waiting :] == b"mine" * 5


def test_what_others_have_written_and_can_leave_stops_no_reading(ends: Ends) -> None:
    conn, peer = ends.pair()
    other, other_peer = ends.pair()
    other.set_callbacks(Recorder(data=lambda _: conn.write(b"x" * 100_000)))
    recorder = Recorder()
    conn.set_callbacks(recorder)
    other_peer.sendall(b"go")
    peer.sendall(b"ping")
    turn()
    assert recorder.log == ["data"]
    assert len(drain_now(peer)) == 100_000
