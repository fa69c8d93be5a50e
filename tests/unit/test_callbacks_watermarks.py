"""Watermarks for reading: when on_data() is called, and when reading stops."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from connections import Ends, behind_full, receive
from recorders import Recorder, told, turn

from pycoronet import LineTooLongError, TransportLayer, get_hub, sleep
from pycoronet.layers import Zlib

pytestmark = pytest.mark.usefixtures("virtual_hub")

FIRST = {"read_low": 1, "read_high": 65536, "write_low": 16384, "write_high": 65536}
KINDS = ["unix", "tcp"]


def held(conn: Any) -> int:
    """Return how much is held now, without receiving."""
    length = conn.available
    assert isinstance(length, int)
    return length


# --- The low mark --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layered", [False, True])
def test_on_data_waits_for_the_low_mark(ends: Ends, kind: str, layered: bool) -> None:
    conn, peer = ends.pair(kind)
    if layered:
        conn.push_layer(TransportLayer())
    recorder = Recorder()
    conn.set_watermarks(read_low=10)
    conn.set_callbacks(recorder)
    for piece in (b"123", b"456", b"789"):
        peer.sendall(piece)
        turn()
        assert recorder.log == []
    peer.sendall(b"0")
    turn()
    assert recorder.log == ["data"]
    assert recorder.received == b"1234567890"
    peer.sendall(b"abc")
    turn()
    assert recorder.log == ["data"]
    # In hard mode a layer gives it out byte by byte, so that it is told of twice.
    peer.sendall(b"0123456789defghij")
    turn()
    assert told(recorder.log) == told(["data", "data"])
    assert recorder.received == b"1234567890abc0123456789defghij"


@pytest.mark.parametrize("layered", [False, True])
def test_the_end_comes_below_the_low_mark(ends: Ends, layered: bool) -> None:
    conn, peer = ends.pair()
    if layered:
        conn.push_layer(TransportLayer())
    left: list[bytes] = []
    recorder = Recorder(eof=lambda conn: left.append(conn.take(100)))
    conn.set_watermarks(read_low=10)
    conn.set_callbacks(recorder)
    peer.sendall(b"short")
    peer.shutdown(socket.SHUT_WR)
    turn()
    assert recorder.log == ["eof"]
    assert left == [b"short"]


def test_what_on_data_leaves_counts(ends: Ends) -> None:
    conn, peer = ends.pair()
    pieces: list[bytes] = []
    recorder = Recorder(takes=False, data=lambda conn: pieces.append(conn.take(4)))
    conn.set_watermarks(read_low=6)
    conn.set_callbacks(recorder)
    peer.sendall(b"abcdefgh")  # four are left
    turn()
    peer.sendall(b"i")
    turn()
    assert pieces == [b"abcd"]
    peer.sendall(b"j")
    turn()
    assert pieces == [b"abcd", b"efgh"]


def test_a_lower_low_mark_tells_of_what_is_held(ends: Ends) -> None:
    conn, peer = ends.pair()
    recorder = Recorder()
    conn.set_watermarks(read_low=10)
    conn.set_callbacks(recorder)
    peer.sendall(b"four")
    turn()
    conn.set_watermarks(read_low=5)
    turn()
    assert recorder.log == []
    conn.set_watermarks(read_low=4)
    turn()
    assert recorder.received == b"four"


def test_callbacks_that_come_later_wait_for_the_low_mark_too(ends: Ends) -> None:
    conn, peer = ends.pair()
    peer.sendall(b"line\nfour")
    assert conn.readln() == b"line\n"
    recorder = Recorder()
    conn.set_watermarks(read_low=6)
    conn.set_callbacks(recorder)
    turn()
    assert recorder.log == []
    peer.sendall(b"56")
    turn()
    assert recorder.received == b"four56"


# --- The high mark -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layered", [False, True])
def test_never_more_than_the_high_mark_is_held(ends: Ends, kind: str, layered: bool) -> None:
    conn, peer = ends.pair(kind)
    if layered:
        conn.push_layer(TransportLayer())
    most: list[int] = []
    recorder = Recorder(takes=False, data=lambda conn: most.append(held(conn)))
    conn.set_watermarks(read_high=100)
    conn.set_callbacks(recorder)
    peer.sendall(bytes(range(250)) + b"end")
    turn(10)
    if not layered:
        assert max(most) == held(conn) == 100
    calls = len(recorder.log)
    turn(10)
    assert len(recorder.log) == calls  # it rests until some are taken
    received = conn.take(30)
    turn(10)
    if not layered:
        assert held(conn) == 100
    while piece := conn.take(100):
        received += piece
        turn()
    assert received == bytes(range(250)) + b"end"


@pytest.mark.parametrize("outside", [False, True])
def test_what_a_layer_gives_past_the_high_mark_comes_bit_by_bit(ends: Ends, outside: bool) -> None:
    left, right = (ends.conn(end) for end in socket.socketpair())
    for conn in (left, right):
        conn.push_layer(Zlib())
    received = bytearray()

    def take(conn: Any) -> None:
        received.extend(conn.take(100))

    def take_later(conn: Any) -> None:
        get_hub().call_later(1, take, conn)

    recorder = Recorder(takes=False, data=take_later if outside else take)
    right.set_watermarks(read_low=100, read_high=100)
    right.set_callbacks(recorder)
    content = bytes(range(250)) * 4
    left.write(content)  # comes out at once, ten times what may be held
    sleep(20)
    assert received == content
    assert recorder.log == ["data"] * 10


def test_who_takes_nothing_past_the_high_mark_is_not_told_again(ends: Ends) -> None:
    left, right = (ends.conn(end) for end in socket.socketpair())
    for conn in (left, right):
        conn.push_layer(Zlib())
    recorder = Recorder(takes=False, data=lambda conn: conn.take(0))
    right.set_watermarks(read_high=100)
    right.set_callbacks(recorder)
    left.write(bytes(1000))
    sleep(20)
    assert told(recorder.log) == ["data"]


def test_one_byte_at_a_time(ends: Ends) -> None:
    conn, peer = ends.pair()
    recorder = Recorder()
    conn.set_watermarks(read_high=1)
    conn.set_callbacks(recorder)
    peer.sendall(b"some bytes")
    peer.shutdown(socket.SHUT_WR)
    turn(20)
    assert recorder.received == b"some bytes"
    assert recorder.log == ["data"] * 10 + ["eof", "close"]


def test_more_than_the_usual_mark_may_be_held(ends: Ends) -> None:
    conn, peer = ends.pair()
    recorder = Recorder()
    conn.set_watermarks(read_low=150_000, read_high=200_000)
    conn.set_callbacks(recorder)
    for _ in range(15):
        peer.sendall(b"x" * 10_000)
        turn()
    assert recorder.log == ["data"]
    assert len(recorder.received) == 150_000


def test_a_higher_high_mark_goes_on_reading(ends: Ends) -> None:
    conn, peer = ends.pair()
    recorder = Recorder(takes=False)
    conn.set_watermarks(read_high=10)
    conn.set_callbacks(recorder)
    peer.sendall(b"x" * 50)
    turn()
    assert held(conn) == 10
    conn.set_watermarks(read_high=40)
    turn()
    assert held(conn) == 40


def test_take_line_holds_no_more_either(ends: Ends) -> None:
    conn, peer = ends.pair()
    lines: list[Any] = []

    def take_lines(conn: Any) -> None:
        try:
            while (line := conn.take_line()) is not None:
                lines.append(line)
        except LineTooLongError as error:
            lines.append(conn.take(100))
            assert "read_high" in str(error)

    conn.set_watermarks(read_high=10)
    conn.set_callbacks(Recorder(takes=False, data=take_lines))
    peer.sendall(b"one\ntwo\n123456789\n1234567890x\n")
    turn(10)
    assert lines == [b"one\n", b"two\n", b"123456789\n", b"1234567890", b"x\n"]


def test_a_last_line_as_long_as_the_high_mark(ends: Ends) -> None:
    conn, peer = ends.pair()
    ends_with: list[Any] = []
    recorder = Recorder(
        takes=False, eof=lambda conn: ends_with.extend([conn.take_line(), conn.take(100)])
    )
    conn.set_watermarks(read_high=10)
    conn.set_callbacks(recorder)
    peer.sendall(b"123456789")
    peer.shutdown(socket.SHUT_WR)
    turn()
    assert ends_with == [None, b"123456789"]


# --- Setting them --------------------------------------------------------------------------------


def test_get_watermarks_gives_what_was_set(ends: Ends) -> None:
    conn, _ = ends.pair()
    assert conn.get_watermarks() == FIRST
    conn.set_watermarks(read_low=5, read_high=10)
    assert conn.get_watermarks() == FIRST | {"read_low": 5, "read_high": 10}
    other, _ = ends.pair()
    other.set_watermarks(**conn.get_watermarks())
    assert other.get_watermarks() == conn.get_watermarks()
    conn.set_watermarks(read_high=3)  # the low one comes down with it
    assert conn.get_watermarks()["read_low"] == 3


@pytest.mark.parametrize(
    "marks",
    [
        {"read_low": 65537},
        {"read_low": 11, "read_high": 10},
        {"read_high": 0},
        {"read_low": 0, "read_high": 0},
        {"read_low": -1},
        {"read_high": -1},
        {"write_low": 65537},
        {"read_low": 5, "write_low": 11, "write_high": 10},
    ],
)
def test_marks_that_contradict_each_other(ends: Ends, marks: dict[str, int]) -> None:
    conn, peer = ends.pair()
    recorder = Recorder()
    conn.set_callbacks(recorder)
    with pytest.raises(ValueError, match=r"mark|at least"):
        conn.set_watermarks(**marks)
    assert conn.get_watermarks() == FIRST
    peer.sendall(b"x")
    turn()
    assert recorder.received == b"x"


def test_tasks_and_callbacks_share_the_options(ends: Ends) -> None:
    conn, peer, taken = behind_full(ends)
    conn.set_watermarks(read_low=3, read_high=5, write_low=0, write_high=100)
    conn.set_timeouts(read=2, write=3)
    with pytest.raises(TimeoutError):
        conn.recv(1)
    peer.sendall(b"12345678\n")
    assert conn.readln() == b"12345678\n"  # what a task asks for is its own bound
    recorder = Recorder()
    conn.set_callbacks(recorder)
    peer.sendall(b"ab")
    turn()
    assert recorder.log == []
    peer.sendall(b"c")
    turn()
    assert recorder.received == b"abc"
    conn.enqueue(b"tail")
    turn()
    assert len(receive(peer, taken + 4)) == taken + 4
    turn()
    assert recorder.log == ["data", "ready"]
