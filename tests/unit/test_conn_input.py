"""What is held: peek, search, copyout, drain, prepend, available."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
from connections import MOMENT, Ends
from layer_case import Named
from recorders import Recorder, turn

import pycoronet
from pycoronet import BusyError, ClosedError, IncompleteReadError, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")


@pytest.fixture
def held(ends: Ends) -> Callable[[bytes], tuple[Any, socket.socket]]:
    """Return a maker of connections that hold bytes, with their peers."""

    def make(content: bytes) -> tuple[Any, socket.socket]:
        conn, peer = ends.pair()
        peer.sendall(b"\n" + content)
        conn.timeo = 0
        with pytest.raises(TimeoutError):
            conn.read(len(content) + 2)  # what has come by then is held
        conn.timeo = None
        assert conn.readln() == b"\n"
        return conn, peer

    return make


def fresh(ends: Ends, content: bytes, look: Callable[[Any], object]) -> Any:
    """Return what a function gives within on_data(), where the bytes have just come."""
    conn, peer = ends.pair()
    results: list[object] = []
    conn.set_callbacks(Recorder(takes=False, data=lambda conn: results.append(look(conn))))
    peer.sendall(content)
    turn()
    (result,) = results
    return result


# --- Looking --------------------------------------------------------------------------------------


def look_around(conn: Any) -> list[Any]:
    """Return what each way of looking gives on the bytes 0123456789."""
    small, large = bytearray(4), bytearray(b"." * 12)
    results = [
        conn.available,
        *(conn.peek(n) for n in (0, 3, 10, 1 << 40)),
        (conn.copyout(small), bytes(small)),
        (conn.copyout(large), bytes(large)),
        (conn.copyout(memoryview(large)[11:]), bytes(large)),
        conn.copyout(bytearray()),
        *(conn.search(pattern) for pattern in (b"0", b"9", b"345", b"354", b"0123456789", b"9a")),
        conn.search(memoryview(b"xx5")[2:]),
        *(conn.search(b"5", start) for start in (5, 6, 1 << 40)),
        *(conn.search(b"56", 0, end) for end in (7, 6, None, 0)),
        conn.search(b"56", start=5, end=7),
    ]
    assert conn.available == 10
    return results


LOOKS = [
    *(10, b"", b"012", b"0123456789", b"0123456789"),
    *((4, b"0123"), (10, b"0123456789.."), (1, b"0123456789.0"), 0),
    *(0, 9, 3, -1, 0, -1, 5),
    *(5, -1, -1),
    *(5, -1, 5, -1, 5),
]


def test_looking_takes_nothing(held: Any) -> None:
    conn, _ = held(b"0123456789")
    assert look_around(conn) == LOOKS
    assert conn.read_exactly(10) == b"0123456789"


def test_looking_at_what_has_just_come_takes_nothing(ends: Ends) -> None:
    assert fresh(ends, b"0123456789", look_around) == LOOKS
    assert fresh(ends, b"0123456789", lambda conn: (look_around(conn), conn.take(99))) == (
        LOOKS,
        b"0123456789",
    )


def test_looking_at_what_a_callback_has_left(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.set_callbacks(Recorder(takes=False))
    peer.sendall(b"01234")
    turn()
    assert conn.peek(99) == b"01234"
    peer.sendall(b"56789")
    turn()
    assert look_around(conn) == LOOKS


def test_nothing_is_received_by_looking(ends: Ends) -> None:
    conn, peer = ends.pair()
    peer.sendall(b"in the system still")
    assert conn.available == 0
    assert conn.peek(99) == b""
    assert conn.search(b"s") == -1
    assert conn.copyout(bytearray(9)) == 0
    assert conn.drain(9) == 0
    assert conn.recv(99) == b"in the system still"


def test_nul_bytes_are_found_like_others(held: Any) -> None:
    conn, _ = held(b"a\0b\0\0c")
    assert conn.search(b"\0\0") == 3
    assert conn.search(b"\0", 2, 4) == 3


def test_nothing_of_this_switches(virtual_hub: pycoronet.Hub, held: Any) -> None:
    conn, _ = held(b"0123456789")
    other = spawn(pycoronet.sleep)
    before = virtual_hub.switch_count
    look_around(conn)
    conn.drain(5)
    conn.prepend(b"put back")
    assert virtual_hub.switch_count == before
    assert not other.done


def test_looking_while_a_task_waits(ends: Ends) -> None:
    conn, peer = ends.pair()
    reader = spawn(conn.read_exactly, 6)
    peer.sendall(b"abc")
    turn()
    assert conn.peek(9) == b"abc"
    assert conn.search(b"c") == 2
    peer.sendall(b"def")
    assert reader.get() == b"abcdef"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda conn: conn.search(b""), ValueError),
        (lambda conn: conn.search(b"a", -1), ValueError),
        (lambda conn: conn.search(b"a", 0, -1), ValueError),
        (lambda conn: conn.search("a"), TypeError),
        (lambda conn: conn.search(), TypeError),
        (lambda conn: conn.peek(-1), ValueError),
        (lambda conn: conn.peek("1"), TypeError),
        (lambda conn: conn.drain(-1), ValueError),
        (lambda conn: conn.copyout(b"read-only"), (TypeError, BufferError)),
        (lambda conn: conn.prepend("text"), TypeError),
    ],
)
def test_bad_arguments_change_nothing(held: Any, call: Any, error: Any) -> None:
    conn, _ = held(b"abc")
    with pytest.raises(error):
        call(conn)
    assert conn.take(9) == b"abc"


@pytest.mark.parametrize(
    "call",
    [
        lambda conn: conn.peek(1),
        lambda conn: conn.search(b"a"),
        lambda conn: conn.copyout(bytearray(1)),
        lambda conn: conn.drain(1),
        lambda conn: conn.prepend(b"a"),
    ],
)
def test_closed_connections_hold_nothing(held: Any, call: Any) -> None:
    conn, _ = held(b"abc")
    conn.close()
    assert conn.available == 0
    with pytest.raises(ClosedError):
        call(conn)


def test_layers_may_not_look_at_their_connection(ends: Ends) -> None:
    class Curious(pycoronet.TransportLayer):
        def unwrap(self, data: bytes) -> bytes:
            conn.peek(1)
            return data

    conn, peer = ends.pair()
    conn.push_layer(Curious())
    peer.sendall(b"x")
    with pytest.raises(RuntimeError, match="layer"):
        conn.recv(1)


# --- Dropping -------------------------------------------------------------------------------------


def test_drain_drops_what_is_there(held: Any) -> None:
    conn, _ = held(b"abcdef")
    assert conn.drain(0) == 0
    assert conn.drain(2) == 2
    assert conn.peek(9) == b"cdef"
    assert conn.drain(1 << 40) == 4
    assert conn.drain(1) == 0
    assert conn.available == 0


def test_drain_drops_what_has_just_come(ends: Ends) -> None:
    def drop(conn: Any) -> list[Any]:
        return [conn.drain(2), conn.peek(9), conn.drain(99), conn.drain(1), conn.take(9)]

    assert fresh(ends, b"abcdef", drop) == [2, b"cdef", 4, 0, b""]


def test_lines_are_found_behind_what_was_drained(held: Any) -> None:
    conn, peer = held(b"one\ntwo\nthr")
    assert conn.drain(conn.search(b"\n") + 2) == 5
    assert conn.readln() == b"wo\n"
    peer.sendall(b"ee\n")
    assert conn.readln() == b"three\n"


def test_drain_while_a_task_reads_is_refused(ends: Ends) -> None:
    conn, peer = ends.pair()
    reader = spawn(conn.read_until, b";")
    peer.sendall(b"abc")
    turn()
    with pytest.raises(BusyError):
        conn.drain(1)
    peer.sendall(b";")
    assert reader.get() == b"abc;"


def test_reading_that_stopped_goes_on_when_input_was_drained(ends: Ends) -> None:
    conn, peer = ends.pair()
    recorder = Recorder(takes=False)
    conn.set_callbacks(recorder)
    sent = 0
    peer.setblocking(False)
    while True:  # until it is paused, and the system's buffers are full
        try:
            sent += peer.send(b"x" * 65536)
        except BlockingIOError:
            turn()
            if conn.available >= 65536:
                break
    calls, dropped = len(recorder.log), 0
    turn()
    assert len(recorder.log) == calls
    while dropped < sent:
        dropped += conn.drain(sent)
        turn()
    assert len(recorder.log) > calls
    assert dropped == sent


# --- Putting back ---------------------------------------------------------------------------------


READS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "readsome": (lambda conn: conn.readsome(99), b"front;\n"),
    "recv": (lambda conn: conn.recv(2), b"fr"),
    "recv_into": (lambda conn: _recv_into(conn), b"front;\n"),
    "read": (lambda conn: conn.read(7), b"front;\n"),
    "read_exactly": (lambda conn: conn.read_exactly(5), b"front"),
    "readln": (lambda conn: conn.readln(), b"front;\n"),
    "readline": (lambda conn: conn.readline(), b"front;\n"),
    "iteration": (lambda conn: next(conn), b"front;\n"),
    "read_until": (lambda conn: conn.read_until(b";"), b"front;"),
}
SOCKET_READS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "recvfrom": (lambda conn: conn.recvfrom(99), (b"front;\n", None)),
    "recvmsg": (lambda conn: conn.recvmsg(99)[0], b"front;\n"),
    "wait_readable": (lambda conn: pycoronet.wait_readable(conn), pycoronet.READ),
    "wait_fd": (
        lambda conn: pycoronet.wait_fd(conn, pycoronet.READ | pycoronet.PRIORITY),
        pycoronet.READ,
    ),
}
ALL_READS = READS | SOCKET_READS


def _recv_into(conn: Any) -> bytes:
    place = bytearray(9)
    return bytes(place[: conn.recv_into(place)])


@pytest.mark.parametrize("name", ALL_READS)
def test_what_is_prepended_is_read_first(held: Any, name: str) -> None:
    call, expected = ALL_READS[name]
    conn, peer = held(b";\n")
    conn.prepend(b"front")
    assert call(conn) == expected
    assert peer.send(b"x") == 1


@pytest.mark.parametrize("name", ALL_READS)
def test_prepend_wakes_a_task_that_waits(ends: Ends, name: str) -> None:
    call, expected = ALL_READS[name]
    conn, _ = ends.pair()
    reader = spawn(call, conn)
    turn()
    conn.prepend(b"front;\n")
    assert reader.get() == expected


@pytest.mark.parametrize("name", READS)
def test_prepend_wakes_a_task_that_waits_for_layers(ends: Ends, name: str) -> None:
    call, expected = READS[name]
    conn, peer = ends.pair()
    conn.push_layer(Named(b""))
    reader = spawn(call, conn)
    turn()
    conn.prepend(b"front;\n")
    assert reader.get() == expected
    conn.drain(99)
    peer.sendall(b"X")
    assert conn.recv(1) == b"x"


@pytest.mark.parametrize("name", ["read", "read_exactly", "readln", "read_until"])
@pytest.mark.parametrize("layers", [0, 1])
def test_a_task_goes_on_waiting_if_that_is_not_enough(ends: Ends, name: str, layers: int) -> None:
    call, expected = READS[name]
    conn, peer = ends.pair()
    if layers:
        conn.push_layer(Named(b""))
    reader = spawn(call, conn)
    peer.sendall(b"NT" if layers else b"nt")
    turn()
    for piece in (b"o", b"r"):
        conn.prepend(piece)
        turn()
        assert not reader.done
    conn.prepend(b"f")
    peer.sendall(b";\n")
    assert reader.get() == expected


@pytest.mark.parametrize("eol", ["lf", "crlf", "crlf_strict", "any", "nul"])
def test_prepend_wakes_a_task_that_waits_for_a_line(ends: Ends, eol: Any) -> None:
    end = b"\0" if eol == "nul" else b"\r\n"
    conn, peer = ends.pair()
    reader = spawn(conn.readln, eol=eol)
    turn()
    conn.prepend(b"line" + end + b"next")
    assert reader.get() == b"line" + end
    peer.sendall(end)
    # Of a run that comes in parts the line has the first.
    assert conn.readln(eol=eol).rstrip(end) == b"next"


def test_prepend_wakes_a_task_that_waits_for_a_frame(ends: Ends) -> None:
    conn, peer = ends.pair()
    reader = spawn(conn.read_frame, ">H")
    turn()
    conn.prepend(b"\x04")
    turn()
    conn.prepend(b"\x00")
    peer.sendall(b"four")
    assert reader.get() == b"four"


def test_what_was_searched_moves_back(ends: Ends) -> None:
    # The search has passed the bytes that come to lie behind what is put in front.
    conn, _ = ends.pair()
    conn.prepend(b"aaaa")
    reader = spawn(conn.read_until, b"bb")
    turn()
    conn.prepend(b"xbbx")
    assert reader.get() == b"xbb"
    assert conn.take(9) == b"xaaaa"
    conn.prepend(b"b")
    reader = spawn(conn.read_until, b"bb")
    turn()
    conn.prepend(b"b")
    assert reader.get() == b"bb"


def test_a_longer_line_is_searched_from_its_new_beginning(held: Any) -> None:
    conn, _ = held(b"one\n")
    assert conn.take_line() == b"one\n"
    conn.prepend(b"two\nthree\n")
    conn.prepend(b"one and ")
    with pytest.raises(ValueError, match="within 11 bytes"):
        conn.readln(11)
    assert conn.readln(12) == b"one and two\n"
    conn.prepend(b"\n")
    assert [conn.readln(), conn.readln()] == [b"\n", b"three\n"]


def test_two_tasks_one_that_waits_and_one_that_puts_back(ends: Ends) -> None:
    conn, _ = ends.pair()

    def put_back() -> None:
        conn.prepend(b"a")
        pycoronet.sleep(MOMENT)
        with pytest.raises(BusyError):
            conn.take(1)  # the reader has what was put back
        conn.prepend(memoryview(b"_bc_")[1:3])

    reader = spawn(conn.read_exactly, 3)
    spawn(put_back).join()
    assert reader.get() == b"bca"


def test_what_was_taken_can_be_put_back_again_and_again(held: Any) -> None:
    content = bytes(range(256)) * 40
    conn, peer = held(content)
    for size in (1, 7, 500, len(content)):
        for _ in range(20):
            taken = conn.take(size)
            assert len(taken) == size
            conn.prepend(taken)
    peer.close()
    assert conn.read(1 << 20) == content


def test_prepending_nothing_is_no_news(ends: Ends) -> None:
    conn, peer = ends.pair()
    reader = spawn(conn.recv, 9)
    turn()
    conn.prepend(b"")
    turn()
    assert not reader.done
    peer.sendall(b"x")
    assert reader.get() == b"x"


def test_after_the_end_of_file_it_is_readable(ends: Ends) -> None:
    conn, peer = ends.pair()
    peer.close()
    assert conn.recv(9) == b""
    conn.prepend(b"unread")
    assert conn.read(99) == b"unread"
    assert conn.recv(9) == b""
    conn.prepend(b"part")
    with pytest.raises(IncompleteReadError) as caught:
        conn.read_exactly(5)
    assert caught.value.partial == b"part"


def test_prepend_of_more_than_is_ever_received(ends: Ends) -> None:
    conn, peer = ends.pair()
    large = bytes(range(256)) * 4096
    conn.prepend(large)
    peer.sendall(b"end")
    assert conn.available == len(large)
    assert conn.read_exactly(len(large) + 3) == large + b"end"


def test_only_streams_can_be_put_before(ends: Ends, listener: Any) -> None:
    conn, peer = ends.pair("udp")
    for wrong in (conn, listener):
        with pytest.raises(ValueError, match="streams"):
            wrong.prepend(b"x")
    peer.send(b"packet")
    assert conn.recv(99) == b"packet"


def test_a_layer_pushed_later_gets_what_was_put_back(ends: Ends) -> None:
    conn, peer = ends.pair()
    peer.sendall(b"STARTPLAIN")
    first = conn.read_exactly(10)
    conn.prepend(first[5:])
    conn.push_layer(Named(b""))
    assert conn.recv(99) == b"plain"


# --- Putting back, with callbacks -----------------------------------------------------------------


@pytest.mark.parametrize("receive", [True, False])
def test_on_data_becomes_due(ends: Ends, receive: bool) -> None:
    conn, _ = ends.pair()
    recorder = Recorder()
    conn.set_callbacks(recorder, receive=receive)
    turn()
    recorder.log.clear()
    conn.prepend(b"put back")
    assert recorder.log == []  # not from inside
    turn()
    assert recorder.log == ["data"]
    assert recorder.received == b"put back"


def test_on_data_becomes_due_for_what_another_callback_puts_back(ends: Ends) -> None:
    conn, peer = ends.pair()
    recorder = Recorder(timeout=lambda conn: conn.prepend(b"late "))
    conn.settimeout(5)
    conn.set_callbacks(recorder)
    pycoronet.sleep(7)
    peer.sendall(b"data")
    turn()
    assert recorder.log[:2] == ["timeout", "data"]
    assert recorder.received == b"late data"


def test_more_than_the_high_mark_can_be_put_back(ends: Ends) -> None:
    conn, peer = ends.pair()
    recorder = Recorder(takes=False)
    conn.set_callbacks(recorder)
    conn.set_watermarks(read_high=100)
    conn.prepend(b"p" * 150)
    peer.sendall(b"behind it")
    turn()
    assert conn.available == 150  # nothing is received above it
    assert recorder.log == ["data"]
    assert conn.drain(150) == 150
    turn()
    assert conn.take(99) == b"behind it"


def test_what_on_data_puts_back_waits_for_more(ends: Ends) -> None:
    conn, peer = ends.pair()

    def need_four(conn: Any) -> None:
        piece = conn.take(4)
        if len(piece) < 4:
            conn.prepend(piece)
        else:
            whole.append(piece)

    whole: list[bytes] = []
    recorder = Recorder(takes=False, data=need_four)
    conn.set_callbacks(recorder)
    for count, byte in enumerate((b"a", b"b", b"c"), start=1):
        peer.sendall(byte)
        turn()
        assert recorder.log == ["data"] * count
    peer.sendall(b"defg")
    turn()
    assert whole == [b"abcd"]
    assert conn.take(9) == b"efg"


def test_put_back_in_on_data_it_comes_first(ends: Ends) -> None:
    def shuffle(conn: Any) -> tuple[bytes, bytes, bytes]:
        first = conn.take(2)
        conn.prepend(b"<" + first)
        seen = conn.peek(99)
        line = conn.take_line()
        conn.prepend(b">")
        return seen, line, conn.take(99)

    assert fresh(ends, b"ab\ncd", shuffle) == (b"<ab\ncd", b"<ab\n", b">cd")


def test_after_on_eof_only_taking_gives_it(ends: Ends) -> None:
    conn, peer = ends.pair()
    recorder = Recorder(eof=lambda conn: None)
    conn.set_callbacks(recorder)
    peer.shutdown(socket.SHUT_WR)
    turn()
    conn.prepend(b"behind the end")
    turn()
    assert recorder.log == ["eof"]
    assert conn.take(99) == b"behind the end"
