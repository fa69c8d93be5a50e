"""Reading: every verb at every boundary, with data arriving in pieces, in virtual time."""

from __future__ import annotations

import array
import errno
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from connections import MOMENT, Ends, attempt, feed, read_all, reset, send_all

import pycoronet
from pycoronet import BusyError, IncompleteReadError, sleep, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")

KINDS = ["unix", "tcp", "pipe"]
BIG = 300_000  # more than the scratch area holds


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- Blocks -------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["readsome", "recv"])
class TestReadsome:
    def test_gives_what_is_there_up_to_n(self, ends: Ends, kind: str, verb: str) -> None:
        conn, send, _ = ends.reading(kind)
        send(b"abcdef")
        read = getattr(conn, verb)
        assert read(4) == b"abcd"
        assert read(4) == b"ef"

    def test_waits_for_the_first_byte(self, ends: Ends, kind: str, verb: str) -> None:
        def call(conn: Any) -> bytes:
            return bytes(getattr(conn, verb)(100))

        assert read_all(ends, kind, [b"one", b"\0", b"two"], call, call, call, call, call) == [
            b"one",
            b"\0",
            b"two",
            b"",
            b"",
        ]

    def test_of_nothing_takes_nothing(self, ends: Ends, kind: str, verb: str) -> None:
        conn, send, finish = ends.reading(kind)
        assert getattr(conn, verb)(0) == b""  # does not wait
        send(b"x")
        assert getattr(conn, verb)(0) == b""
        finish()
        assert conn.read(10) == b"x"

    def test_of_a_huge_n_gives_what_is_there(self, ends: Ends, kind: str, verb: str) -> None:
        conn, send, _ = ends.reading(kind)
        send(b"xyz")
        assert getattr(conn, verb)(1 << 100) == b"xyz"

    @pytest.mark.parametrize("n", [-1, -(1 << 80)])
    def test_of_a_negative_n_is_refused(self, ends: Ends, verb: str, n: int) -> None:
        conn, _ = ends.pair()
        with pytest.raises(ValueError, match="n must be at least 0"):
            getattr(conn, verb)(n)

    @pytest.mark.parametrize("n", [None, 1.0, "1", b"1"])
    def test_of_something_else_is_refused(self, ends: Ends, verb: str, n: object) -> None:
        conn, _ = ends.pair()
        with pytest.raises(TypeError, match="n must be an int"):
            getattr(conn, verb)(n)

    def test_takes_what_is_buffered_first(self, ends: Ends, kind: str, verb: str) -> None:
        conn, send, _ = ends.reading(kind)
        send(b"line\nabcdef")
        assert conn.readln() == b"line\n"
        assert getattr(conn, verb)(2) == b"ab"
        assert getattr(conn, verb)(100) == b"cdef"


def test_recv_into_fills_what_is_there(ends: Ends, kind: str) -> None:
    conn, send, finish = ends.reading(kind)
    room = bytearray(b"........")
    feeder = feed(send, [b"abc", b"\0" * 20], finish)
    assert conn.recv_into(room) == 3
    assert room == b"abc....."
    assert conn.recv_into(memoryview(room)[2:6]) == 4
    assert room == b"ab\0\0\0\0.."
    assert conn.recv_into(bytearray()) == 0
    assert conn.recv_into(array.array("i", [0] * 100)) == 16
    assert conn.recv_into(room) == 0
    feeder.join()


def test_recv_into_takes_what_is_buffered_first(ends: Ends, kind: str) -> None:
    conn, send, _ = ends.reading(kind)
    send(b"line\nabcdef")
    assert conn.readln() == b"line\n"
    room = bytearray(4)
    assert conn.recv_into(bytearray()) == 0
    assert conn.recv_into(room) == 4
    assert room == b"abcd"
    assert conn.recv_into(room) == 2
    assert room == b"efcd"


@pytest.mark.parametrize("target", [b"bytes", "text", 5, None, memoryview(b"x")])
def test_recv_into_needs_room_to_write(ends: Ends, target: object) -> None:
    conn, peer = ends.pair()
    peer.sendall(b"kept")
    with pytest.raises((TypeError, BufferError)):
        conn.recv_into(target)
    assert conn.recv(10) == b"kept"


def test_recv_into_holds_the_buffer_while_it_waits(ends: Ends) -> None:
    conn, peer = ends.pair()
    room = bytearray(5)
    task = spawn(conn.recv_into, room)
    sleep(MOMENT)
    with pytest.raises(BufferError):
        room.clear()
    peer.sendall(b"12345")
    assert task.get() == 5
    room.clear()  # and lets it go


def test_recv_into_a_large_buffer(ends: Ends, kind: str) -> None:
    conn, send, finish = ends.reading(kind)
    content = bytes(range(256)) * 2000
    sender = spawn(lambda: (send_all(send, content), finish()))
    room = bytearray(len(content) + 1)
    view = memoryview(room)
    count = 0
    while got := conn.recv_into(view[count:]):
        count += got
    assert room[:count] == content
    sender.join()
    view.release()


def test_read_collects_n_bytes(ends: Ends, kind: str) -> None:
    assert read_all(
        ends,
        kind,
        [b"a", b"bc", b"\0", b"efgh"],
        lambda conn: conn.read(4),
        lambda conn: conn.read(0),
        lambda conn: conn.read(3),
        lambda conn: conn.read(3),
        lambda conn: conn.read(3),
    ) == [b"abc\0", b"", b"efg", b"h", b""]


def test_read_of_a_huge_n_gives_all_until_the_end(ends: Ends, kind: str) -> None:
    assert read_all(ends, kind, [b"ab"] * 5, lambda conn: conn.read(1 << 90)) == [b"ab" * 5]


def test_read_of_more_than_the_scratch_area(ends: Ends, kind: str) -> None:
    conn, send, finish = ends.reading(kind)
    content = bytes(range(251)) * (2 * BIG // 251)
    sender = spawn(lambda: (send_all(send, content), finish()))
    assert conn.read(BIG) == content[:BIG]
    assert conn.read_exactly(len(content) - BIG) == content[BIG:]
    assert conn.read(1) == b""
    sender.join()


@pytest.mark.parametrize("verb", ["read", "read_exactly"])
@pytest.mark.parametrize(("n", "error"), [(-1, ValueError), (None, TypeError), (1.5, TypeError)])
def test_block_reads_refuse_what_is_no_size(
    ends: Ends, verb: str, n: object, error: type[Exception]
) -> None:
    conn, _ = ends.pair()
    with pytest.raises(error, match="n must be"):
        getattr(conn, verb)(n)


def test_read_exactly_at_the_end_of_file(ends: Ends, kind: str) -> None:
    results = read_all(
        ends,
        kind,
        [b"abc", b"def"],
        lambda conn: conn.read_exactly(4),
        lambda conn: conn.read_exactly(3),
        lambda conn: conn.read_exactly(1),
        lambda conn: conn.read_exactly(0),
        lambda conn: conn.read(1),
    )
    assert results[0] == b"abcd"
    assert isinstance(results[1], IncompleteReadError)
    assert isinstance(results[1], EOFError)
    assert results[1].partial == b"ef"
    assert results[2].partial == b""
    assert results[3:] == [b"", b""]


# --- Timeouts, cancelling, others ------------------------------------------------------------

PARTIAL_READS = [
    ("read", lambda conn: conn.read(10)),
    ("read_exactly", lambda conn: conn.read_exactly(10)),
    ("readln", lambda conn: conn.readln()),
    ("readline", lambda conn: conn.readline()),
    ("read_until", lambda conn: conn.read_until(b"END")),
    ("readln", next),
]


@pytest.mark.parametrize(("name", "call"), PARTIAL_READS)
def test_a_timeout_in_the_middle_keeps_what_came(
    ends: Ends, kind: str, name: str, call: Callable[[Any], object]
) -> None:
    conn, send, _ = ends.reading(kind)
    conn.timeo = 2.0
    hub = pycoronet.get_hub()
    feed(send, [b"par", b"tial"])
    began = hub.time
    with pytest.raises(TimeoutError, match=f"{name} timed out") as caught:
        call(conn)
    assert caught.value.errno == errno.ETIMEDOUT
    assert conn.error == errno.ETIMEDOUT
    # It bounds each wait, so it counts from the last piece.
    assert hub.time - began == pytest.approx(2 * MOMENT + 2.0)
    assert conn.recv(100) == b"partial"


@pytest.mark.parametrize(("name", "call"), PARTIAL_READS)
def test_a_cancel_in_the_middle_keeps_what_came(
    ends: Ends, kind: str, name: str, call: Callable[[Any], object]
) -> None:
    conn, send, _ = ends.reading(kind)
    task = spawn(call, conn)
    send(b"partial")
    sleep(MOMENT)
    task.cancel()
    with pytest.raises(pycoronet.Cancelled):
        task.get()
    assert conn.recv(100) == b"partial"


def test_a_read_cancelled_when_data_is_there_already_loses_nothing(ends: Ends, kind: str) -> None:
    conn, send, finish = ends.reading(kind)
    task = spawn(conn.recv, 100)
    sleep(MOMENT)
    send(b"data")
    task.cancel()
    with pytest.raises(pycoronet.Cancelled):
        task.get()
    finish()
    assert conn.read(100) == b"data"


def test_a_timeout_of_0_only_looks(ends: Ends, kind: str) -> None:
    conn, send, _ = ends.reading(kind)
    conn.timeo = 0
    for _ in range(2):
        with pytest.raises(TimeoutError):
            conn.recv(5)
    send(b"now")
    assert conn.recv(5) == b"now"


def test_a_second_reader_is_told_who_reads(ends: Ends) -> None:
    conn, peer = ends.pair()
    first = spawn(conn.readln)
    first.name = "first reader"
    sleep(MOMENT)
    for call in [
        lambda: conn.recv(1),
        lambda: conn.readsome(1),
        lambda: conn.recv_into(bytearray(1)),
        lambda: conn.read(1),
        lambda: conn.read_exactly(1),
        conn.readln,
        conn.readline,
        lambda: conn.read_until(b"x"),
        lambda: next(conn),
        lambda: pycoronet.wait_readable(conn),
    ]:
        with pytest.raises(BusyError, match=r"first reader.*is reading.*\(readln\)") as caught:
            call()
        assert isinstance(caught.value, RuntimeError)
    peer.sendall(b"line\n")
    sleep(MOMENT)
    assert first.get() == b"line\n"


def test_the_main_program_is_named_too(ends: Ends) -> None:
    conn, _ = ends.pair()

    def read_as_well() -> str:
        sleep(MOMENT)
        with pytest.raises(BusyError) as caught:
            conn.recv(1)
        return str(caught.value)

    task = spawn(read_as_well)
    conn.timeo = 1
    with pytest.raises(TimeoutError):
        conn.read(1)
    assert "main program" in task.get()


@pytest.mark.optimisation("calls that need not wait go on without giving way")
def test_a_reader_that_was_woken_still_has_the_connection(ends: Ends) -> None:
    first, first_peer = ends.pair()
    second, second_peer = ends.pair()

    def meddle() -> str:
        first.recv(1)
        with pytest.raises(BusyError) as caught:
            second.recv(10)  # woken in the same turn, but not run yet
        return str(caught.value)

    meddler = spawn(meddle)
    reader = spawn(second.recv, 10)
    sleep(MOMENT)
    first_peer.send(b"x")
    second_peer.send(b"mine")
    assert reader.get() == b"mine"
    assert "recv" in meddler.get()


def use_budget_up(conn: Any) -> None:
    """Do what need not wait so often that the next call gives way before it looks."""
    sleep(0)
    for _ in range(255):
        assert conn.recv(0) == b""


def test_who_gives_way_finds_the_reader_that_came_meanwhile(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.timeo = 5
    others: list[Any] = []

    def give_way_and_read() -> object:
        use_budget_up(conn)
        others.append(spawn(attempt, conn.recv, 1))
        return attempt(conn.recv, 1)

    task = spawn(give_way_and_read)
    sleep(MOMENT)
    peer.send(b"x")
    results = [task.get(), others[0].get()]
    assert b"x" in results
    assert any(isinstance(result, BusyError) for result in results)


def test_who_gives_way_forgets_the_reader_that_has_ended_meanwhile(ends: Ends) -> None:
    conn, peer = ends.pair()
    reader = spawn(attempt, conn.read, 1)
    sleep(MOMENT)
    other, _ = ends.pair()
    use_budget_up(other)
    reader.cancel()
    del reader
    peer.send(b"x")
    assert conn.recv(1) == b"x"


# --- The end of a read ----------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 5, 4096, 65536])
def test_bursts_of_exactly_the_size_asked(ends: Ends, size: int) -> None:
    conn, send, finish = ends.reading("tcp")
    bursts = [bytes([65 + i]) * size for i in range(5)]
    feed(send, bursts, finish)
    received = b""
    while piece := conn.recv(size):
        received += piece
    assert received == b"".join(bursts)


@pytest.mark.parametrize("pieces", [2, 3])
def test_several_times_the_size_asked_in_one_burst(ends: Ends, kind: str, pieces: int) -> None:
    conn, send, _ = ends.reading(kind)
    task = spawn(lambda: [conn.recv(5) for _ in range(pieces)])
    sleep(MOMENT)  # it is registered, and waits
    send(b"12345" * pieces)
    # Without a limit of time: it hangs if a full read is taken for all there was.
    assert task.get() == [b"12345"] * pieces


@pytest.mark.parametrize("rest", [0, 1, 100])
def test_an_end_right_behind_the_data_is_seen(ends: Ends, kind: str, rest: int) -> None:
    conn, send, finish = ends.reading(kind)
    with pytest.raises(TimeoutError):  # it is registered from here on
        with_timeout(conn, 0, lambda: conn.recv(1))
    send(b"x" * (100 + rest))
    finish()
    assert len(conn.recv(100)) == 100
    if rest:
        assert len(conn.recv(1000)) == rest
    assert conn.recv(1000) == b""


def with_timeout(conn: Any, seconds: float, call: Callable[[], object]) -> object:
    usual, conn.timeo = conn.timeo, seconds
    try:
        return call()
    finally:
        conn.timeo = usual


def test_an_end_that_comes_between_event_and_read(ends: Ends) -> None:
    conn, send, finish = ends.reading("tcp")
    task = spawn(lambda: (conn.recv(100), conn.recv(100)))
    sleep(MOMENT)
    send(b"last words")
    feed(send, [], finish)
    assert task.get() == (b"last words", b"")


@pytest.mark.parametrize("before", [b"", b"abc"])
def test_an_urgent_byte_in_mid_stream_hides_nothing(ends: Ends, before: bytes) -> None:
    conn, peer = ends.pair("tcp")
    task = spawn(conn.read_exactly, len(before) + 6)
    sleep(MOMENT)
    peer.send(before + b"!", socket.MSG_OOB)
    peer.sendall(b"defghi")
    # Without a limit of time: it hangs if the end of the short read is taken for the end.
    assert task.get() == before + b"defghi"


def test_urgent_bytes_again_and_again(ends: Ends) -> None:
    conn, peer = ends.pair("tcp")
    task = spawn(conn.read_exactly, 60)
    for i in range(20):
        sleep(MOMENT)
        peer.send(bytes([65 + i]) + b"!", socket.MSG_OOB)
        peer.sendall(b"..")
    assert task.get() == b"".join(bytes([65 + i]) + b".." for i in range(20))


def receive(conn: Any, length: int) -> bytes:
    received = b""
    while len(received) < length:
        received += conn.recv(100)
    return received


@pytest.mark.parametrize("verb", ["recv", "readln", "read_exactly"])
def test_passed_descriptors_in_mid_stream_hide_nothing(ends: Ends, verb: str) -> None:
    conn, peer = ends.pair("unix")
    gift, _ = ends.sockets()
    ends.keep(gift)
    calls = {
        "recv": lambda: receive(conn, 10),
        "readln": conn.readln,
        "read_exactly": lambda: conn.read_exactly(10),
    }
    task = spawn(calls[verb])
    sleep(MOMENT)
    peer.sendall(b"abc")
    rights = struct.pack("i", gift.fileno())
    peer.sendmsg([b"def"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    peer.sendall(b"ghi\n")
    # Without a limit of time, and without an end of file that would tell there is more.
    assert task.get() == b"abcdefghi\n"


def test_a_reset_wakes_the_reader(ends: Ends) -> None:
    conn, peer = ends.pair("tcp")
    task = spawn(conn.recv, 10)
    sleep(MOMENT)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    with pytest.raises(ConnectionResetError) as caught:
        task.get()
    assert caught.value.errno == conn.error == errno.ECONNRESET


def test_bytes_before_a_failure_stay_readable(ends: Ends) -> None:
    conn, peer = ends.pair("tcp")
    task = spawn(conn.read, 10)
    sleep(MOMENT)
    peer.sendall(b"early")
    sleep(MOMENT)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    with pytest.raises(ConnectionResetError):
        task.get()
    assert conn.recv(10) == b"early"


def test_half_close_with_data_in_flight(ends: Ends) -> None:
    conn, peer = ends.pair("tcp")
    content = b"q" * 200_000
    answers = []

    def talk() -> None:
        answers.append(conn.read(1 << 30))
        conn.write(b"answer")

    task = spawn(talk)
    for at in range(0, len(content), 50_000):
        peer.sendall(content[at : at + 50_000])
        sleep(MOMENT)
    peer.shutdown(socket.SHUT_WR)
    task.join()
    assert answers == [content]
    assert peer.recv(100) == b"answer"


# --- Costs -----------------------------------------------------------------------------------


@pytest.mark.optimisation("calls that need not wait go on without giving way")
def test_what_is_there_is_read_without_a_switch(ends: Ends, kind: str) -> None:
    conn, send, _ = ends.reading(kind)
    send(b"one\ntwo\nthree;four")
    hub = pycoronet.get_hub()
    before = hub.switch_count
    assert conn.readln() == b"one\n"
    assert conn.readln() == b"two\n"
    assert conn.read_until(b";") == b"three;"
    assert conn.recv(10) == b"four"
    assert hub.switch_count == before


def test_reading_what_is_always_there_gives_way(ends: Ends) -> None:
    conn, peer = ends.pair()
    peer.sendall(b"\n" * 3000)
    turns: list[int] = []

    def count_lines() -> None:
        for number in range(3000):
            conn.readln()
            if turns:
                turns.append(number)
                return

    task = spawn(count_lines)
    spawn(turns.append, -1)
    task.join()
    assert len(turns) == 2
    assert turns[1] < 1000


# --- Streams that broke off ---------------------------------------------------------------


@pytest.mark.parametrize("told", ["write", "shutdown"])
def test_reset_that_another_call_has_told_is_no_end_of_file(ends: Ends, told: str) -> None:
    """The kernel tells of it once: who read after that took what had come for the whole."""
    conn, peer = ends.pair("tcp")
    peer.sendall(b"half of it")
    assert conn.recv(4) == b"half"
    reset(peer)
    sleep(MOMENT)
    with pytest.raises(ConnectionError):  # or EPIPE
        if told == "write":
            conn.write(b"to nobody")
        else:
            conn.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionResetError):
        while conn.recv(100):
            pass  # what had come; not every system keeps it
    with pytest.raises(ConnectionResetError):
        conn.recv(100)
