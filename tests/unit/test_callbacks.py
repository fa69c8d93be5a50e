"""Connections with callbacks: what comes and what is written."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from connections import Ends, drain_now
from recorders import Recorder, reset, turn

from pycoronet import BusyError, LineTooLongError, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")

STREAMS = ["unix", "tcp"]


# --- Data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STREAMS)
def test_what_comes_is_told_of_and_what_is_written_leaves(ends: Ends, kind: str) -> None:
    conn, peer = ends.pair(kind)
    echo = Recorder(data=lambda conn: conn.write(echo.received))
    conn.set_callbacks(echo)
    assert conn.callbacks is echo
    turn()
    assert echo.log == []
    peer.sendall(b"ping")
    turn()
    assert echo.log == ["data"]
    assert peer.recv(100) == b"ping"


@pytest.mark.parametrize("kind", STREAMS)
def test_opened_has_on_open_called_first(ends: Ends, kind: str) -> None:
    conn, peer = ends.pair(kind)
    recorder = Recorder()
    peer.sendall(b"early")
    conn.set_callbacks(recorder, opened=True)
    assert recorder.log == []
    turn()
    assert recorder.log == ["open", "data"]
    conn.set_callbacks(recorder)
    turn()
    assert recorder.log == ["open", "data"]


@pytest.mark.parametrize("kind", STREAMS)
def test_one_piece_is_one_call(ends: Ends, kind: str) -> None:
    conn, peer = ends.pair(kind)
    recorder = Recorder()
    conn.set_callbacks(recorder)
    for piece in (b"a", b"b", b"c"):
        peer.sendall(piece)
        turn()
    assert recorder.log == ["data"] * 3
    assert recorder.received == b"abc"


@pytest.mark.parametrize("kind", STREAMS)
def test_what_is_left_stays_for_the_next_time(ends: Ends, kind: str) -> None:
    conn, peer = ends.pair(kind)
    taken = []
    recorder = Recorder(takes=False, data=lambda conn: taken.append(conn.take(2)))
    conn.set_callbacks(recorder)
    peer.sendall(b"abcde")
    turn()
    # No news, no call: what was left is known of.
    assert taken == [b"ab"]
    peer.sendall(b"f")
    turn()
    assert taken == [b"ab", b"cd"]
    assert conn.take(100) == b"ef"
    assert conn.take(100) == b""


def test_bytes_that_were_buffered_before_are_told_of(ends: Ends) -> None:
    conn, peer = ends.pair()
    peer.sendall(b"line\nrest")
    assert conn.readln() == b"line\n"
    recorder = Recorder()
    conn.set_callbacks(recorder)
    turn()
    assert recorder.received == b"rest"


@pytest.mark.parametrize("kind", STREAMS)
def test_bytes_whose_edge_is_over_are_told_of(ends: Ends, kind: str) -> None:
    conn, peer = ends.pair(kind)
    peer.sendall(b"first")
    assert conn.recv(5) == b"first"
    conn.timeo = 0
    with pytest.raises(TimeoutError):
        conn.recv(1)  # registered from now on
    peer.sendall(b"second")
    turn()  # the event finds nobody
    recorder = Recorder()
    conn.set_callbacks(recorder)
    turn()
    assert recorder.received == b"second"


def test_a_pipe_has_callbacks_too(ends: Ends) -> None:
    conn, send, finish = ends.reading("pipe")
    recorder = Recorder()
    conn.set_callbacks(recorder)
    send(b"through a pipe")
    turn()
    assert recorder.received == b"through a pipe"
    finish()
    turn()
    assert recorder.log == ["data", "eof", "close"]


def test_reading_stops_while_too_much_is_left(ends: Ends) -> None:
    conn, peer = ends.pair()
    recorder = Recorder(takes=False)
    conn.set_callbacks(recorder)
    peer.setblocking(False)
    sent = 0
    for _ in range(100):
        try:
            sent += peer.send(b"x" * 65536)
        except BlockingIOError:
            turn()
    turn()
    calls = len(recorder.log)
    assert sent > 65536  # more than is held, or nothing is tried here
    turn(10)
    assert len(recorder.log) == calls
    peer.shutdown(socket.SHUT_WR)
    turn()
    assert "eof" not in recorder.log
    # Taking goes on where it stopped.
    recorder.takes = True
    recorder.received = conn.take(1 << 20)
    assert len(recorder.received) == 65536
    turn(30)
    assert len(recorder.received) == sent
    assert recorder.log[-2:] == ["eof", "close"]


def test_take_line_gives_lines_as_they_are_complete(ends: Ends) -> None:
    conn, peer = ends.pair()
    lines: list[Any] = []

    def take_lines(conn: Any) -> None:
        while (line := conn.take_line()) is not None:
            lines.append(line)

    conn.set_callbacks(Recorder(takes=False, data=take_lines))
    for piece in (b"one\ntw", b"o\nthree\n\n", b"end"):
        peer.sendall(piece)
        turn()
    assert lines == [b"one\n", b"two\n", b"three\n", b"\n"]
    assert conn.take(100) == b"end"


def test_take_line_without_line_feeds_and_with_a_limit(ends: Ends) -> None:
    conn, peer = ends.pair()
    peer.sendall(b"one\ntoo long\nmore")
    assert conn.take_line(4, keepends=False) == b"one"
    with pytest.raises(LineTooLongError):
        conn.take_line(4)
    assert conn.take_line() == b"too long\n"
    assert conn.take_line(keepends=False) is None
    assert conn.take(10) == b"more"
    with pytest.raises(ValueError, match="limit"):
        conn.take_line(0)
    with pytest.raises(TypeError):
        conn.take_line(5, nonsense=1)


@pytest.mark.parametrize("name", ["take", "take_line"])
def test_taking_until_nothing_is_left_ends_though_the_peer_goes_on(ends: Ends, name: str) -> None:
    conn, peer = ends.pair("unix")
    taken: list[int] = []

    def take_all(conn: Any) -> None:
        taken.append(0)
        while getattr(conn, name)(100):
            taken[-1] += 1
            if sum(taken) < 20:
                peer.sendall(b"more\n")

    conn.set_callbacks(Recorder(takes=False, data=take_all))
    peer.sendall(b"first\n")
    turn()
    assert taken == [1] * 20


def test_take_line_too_long_in_a_callback_stays_readable(ends: Ends) -> None:
    conn, peer = ends.pair()
    errors = []

    def take(conn: Any) -> None:
        try:
            conn.take_line(4)
        except LineTooLongError as error:
            errors.append(error)

    conn.set_callbacks(Recorder(takes=False, data=take))
    peer.sendall(b"12345678\n")
    turn()
    assert len(errors) == 1
    assert conn.take(100) == b"12345678\n"


def test_take_line_too_long_that_is_not_caught_is_told_to_on_error_alone(
    ends: Ends, reports: list[Any]
) -> None:
    conn, peer = ends.pair()
    protocol = Recorder(takes=False, data=lambda conn: conn.take_line(4))
    conn.set_callbacks(protocol)
    peer.sendall(b"12345678\n")
    turn()
    assert protocol.log == ["data", "error", "close"]
    assert [type(error) for error in protocol.errors] == [LineTooLongError]
    assert reports == []


def test_line_too_long_when_nobody_is_left_to_be_told_is_reported(
    ends: Ends, reports: list[Any]
) -> None:
    conn, peer = ends.pair()
    other, other_peer = ends.pair()
    other_peer.sendall(b"12345678\n")
    assert other.wait_input(0)
    protocol = Recorder(close=lambda _: other.readln(4))
    conn.set_callbacks(protocol)
    peer.close()
    turn()
    assert protocol.log == ["eof", "close"]
    assert [type(error) for error in reports] == [LineTooLongError]


def test_take_in_the_main_program_and_of_wrong_arguments(ends: Ends) -> None:
    conn, peer = ends.pair()
    assert conn.take(10) == b""
    peer.sendall(b"abc")
    assert conn.take(0) == b""
    assert conn.take(2) == b"ab"
    assert conn.take(10) == b"c"
    peer.close()
    assert conn.take(10) == b""
    with pytest.raises(ValueError, match="n"):
        conn.take(-1)
    with pytest.raises(TypeError):
        conn.take("1")


def test_take_raises_what_the_network_did(ends: Ends) -> None:
    conn, peer = ends.pair("tcp")
    reset(peer)
    with pytest.raises(ConnectionResetError):
        conn.take(10)


def test_take_while_a_task_reads_is_refused(ends: Ends) -> None:
    conn, peer = ends.pair()
    reader = spawn(conn.recv, 10)
    turn()
    for call in (lambda: conn.take(1), conn.take_line):
        with pytest.raises(BusyError, match="recv"):
            call()
    peer.sendall(b"x")
    assert reader.get() == b"x"


def test_another_connection_can_be_read_in_a_callback(ends: Ends) -> None:
    """What has just come is not mixed up with what is received for others meanwhile."""
    conn, peer = ends.pair()
    other, other_peer = ends.pair()
    got = []

    def read_both(conn: Any) -> None:
        got.append(conn.take(2))
        got.append(other.take(100))
        got.append(conn.take(100))

    conn.set_callbacks(Recorder(takes=False, data=read_both))
    other_peer.sendall(b"other")
    peer.sendall(b"first")
    turn()
    assert got == [b"fi", b"other", b"rst"]


def test_verbs_read_what_is_there_in_a_callback(ends: Ends) -> None:
    conn, peer = ends.pair()
    got = []

    def read(conn: Any) -> None:
        got.append(conn.readln())
        got.append(conn.read_exactly(3))
        got.append(conn.recv(100))

    conn.set_callbacks(Recorder(takes=False, data=read))
    peer.sendall(b"line\n123rest")
    turn()
    assert got == [b"line\n", b"123", b"rest"]


def test_what_is_written_in_one_callback_leaves_in_one_go(ends: Ends) -> None:
    conn, peer = ends.pair("seqpacket")
    stream, stream_peer = ends.pair()

    def write(conn: Any) -> None:
        if conn.take(10) == b"":
            return  # no news
        for letter in b"abc":
            stream.write(bytes([letter]))
        assert drain_now(stream_peer) == b""

    conn.set_callbacks(Recorder(takes=False, data=write))
    peer.sendall(b"go")
    turn()
    assert drain_now(stream_peer) == b"abc"


def test_a_packet_is_one_call_and_one_take(ends: Ends) -> None:
    conn, peer = ends.pair("seqpacket")
    got: list[bytes] = []

    def take_all(conn: Any) -> None:
        while data := conn.take(100):
            got.append(data)

    conn.set_callbacks(Recorder(takes=False, data=take_all))
    peer.send(b"one")
    peer.send(b"two")
    turn()
    assert got == [b"one", b"two"]
    peer.send(b"three")
    turn()
    assert got == [b"one", b"two", b"three"]


# --- Writing and on_ready ------------------------------------------------------------------------


def test_on_ready_when_all_has_been_sent(ends: Ends) -> None:
    conn, peer = ends.pair()
    content = bytes(range(256)) * 8192

    recorder = Recorder(data=lambda conn: conn.write(content))
    conn.set_callbacks(recorder)
    peer.sendall(b"go")
    turn()
    assert conn.pending > 0
    assert recorder.log == ["data"]
    got = b""
    while len(got) < len(content):
        got += drain_now(peer)
        turn(1)
    turn()
    assert got == content
    assert recorder.log == ["data", "ready"]


def test_no_on_ready_when_everything_left_at_once(ends: Ends) -> None:
    conn, peer = ends.pair("tcp")
    recorder = Recorder(data=lambda conn: conn.write(b"answer"))
    conn.set_callbacks(recorder)
    for _ in range(3):
        peer.sendall(b"go")
        turn()
        assert drain_now(peer) == b"answer"
    assert recorder.log == ["data"] * 3


def test_nothing_is_received_while_too_much_waits_to_be_sent(ends: Ends) -> None:
    """A peer that sends and never reads does not fill the memory."""
    conn, peer = ends.pair()
    echo = Recorder(data=lambda conn: (conn.write(echo.received), setattr(echo, "received", b"")))
    conn.set_callbacks(echo)
    peer.setblocking(False)
    sent = stuck = 0
    while stuck < 5:
        try:
            sent += peer.send(b"x" * 65536)
            stuck = 0
        except BlockingIOError:
            stuck += 1
            turn()
    assert conn.pending < 300_000
    assert sent < 4_000_000
    got = 0
    while got < sent:
        piece = len(drain_now(peer))
        got += piece
        turn(1)
    assert echo.log[-1] in ("ready", "data")
    assert "ready" in echo.log


def test_a_task_may_write_to_it_and_wait(ends: Ends) -> None:
    conn, peer = ends.pair()
    recorder = Recorder()
    conn.set_callbacks(recorder)
    content = b"z" * 1_000_000
    writer = spawn(conn.sendall, content)
    got = 0
    while got < len(content):
        got += len(drain_now(peer))
        turn(1)
    writer.get()
    peer.sendall(b"still told of")
    turn()
    assert recorder.received == b"still told of"
