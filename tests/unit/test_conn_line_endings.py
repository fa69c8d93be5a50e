"""The five kinds of line endings: at each split, each limit, and with a CR that comes alone."""

from __future__ import annotations

import gc
import socket
from collections.abc import Callable
from typing import Any

import pytest
from connections import MOMENT, Ends, feed, read_all
from recorders import Recorder, turn

import pycoronet
from pycoronet import LineTooLongError, sleep, spawn
from pycoronet.layers import Filter, Tee

pytestmark = pytest.mark.usefixtures("virtual_hub")

EOLS = ["lf", "crlf", "crlf_strict", "any", "nul"]

# One stream, and what each kind makes of it; what is left at the end comes last.
STREAM = b"a\r\nb\nc\rd\n\re\r\r\nf\0\0\r\0g\r\n\n\nh"
LINES = {
    "lf": [b"a\r", b"b", b"c\rd", b"\re\r\r", b"f\0\0\r\0g\r", b"", b"", b"h"],
    "crlf": [b"a", b"b", b"c\rd", b"\re\r", b"f\0\0\r\0g", b"", b"", b"h"],
    "crlf_strict": [b"a", b"b\nc\rd\n\re\r", b"f\0\0\r\0g", b"\n\nh"],
    "any": [b"a", b"b", b"c", b"d", b"e", b"f\0\0", b"\0g", b"h"],
    "nul": [b"a\r\nb\nc\rd\n\re\r\r\nf", b"", b"\r", b"g\r\n\n\nh"],
}
# What ends a line of each kind, once in each way; at least as long as it has to be.
ENDS = [
    ("lf", b"\n"),
    ("crlf", b"\n"),
    ("crlf", b"\r\n"),
    ("crlf_strict", b"\r\n"),
    ("any", b"\r"),
    ("any", b"\n"),
    ("nul", b"\0"),
]


def split_everywhere(content: bytes) -> list[list[bytes]]:
    """Return the content in two pieces, for each place, and in single bytes."""
    places = range(1, len(content))
    return [[content[:at], content[at:]] for at in places] + [[bytes([b]) for b in content]]


@pytest.fixture(params=EOLS)
def eol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def readln_all(conn: Any, eol: str) -> list[bytes]:
    lines = []
    while (line := conn.readln(eol=eol, keepends=False)) is not None:
        lines.append(line)
    return lines


READERS: dict[str, Callable[[Any, str], list[bytes]]] = {
    "readln": readln_all,
    "lines": lambda conn, eol: list(conn.lines(eol=eol, keepends=False)),
}


@pytest.mark.parametrize("verb", READERS)
def test_lines_do_not_depend_on_how_packets_fall(ends: Ends, eol: str, verb: str) -> None:
    for pieces in split_everywhere(STREAM):
        assert read_all(ends, "unix", pieces, lambda conn: READERS[verb](conn, eol)) == [LINES[eol]]


def test_lines_do_not_depend_on_how_packets_fall_for_callbacks(ends: Ends, eol: str) -> None:
    for pieces in split_everywhere(STREAM):
        conn, peer = ends.pair()
        lines: list[bytes] = []

        def take_lines(conn: Any, lines: list[bytes] = lines) -> None:
            while (line := conn.take_line(eol=eol, keepends=False)) is not None:
                lines.append(line)

        conn.set_callbacks(Recorder(takes=False, data=take_lines))
        for piece in pieces:
            peer.sendall(piece)
            turn()
        assert [*lines, conn.take(100)] == LINES[eol]


def test_lines_without_callbacks_are_taken_as_they_come(ends: Ends, eol: str) -> None:
    for pieces in split_everywhere(STREAM):
        conn, peer = ends.pair()
        lines = []
        for piece in pieces:
            peer.sendall(piece)
            while (line := conn.take_line(eol=eol, keepends=False)) is not None:
                lines.append(line)
        assert [*lines, conn.take(100)] == LINES[eol]


def test_lines_through_a_layer(ends: Ends, eol: str) -> None:
    conn, peer = ends.pair()
    conn.push_layer(Tee(bytearray().extend))
    feeder = feed(peer.sendall, [STREAM[:5], STREAM[5:]], lambda: peer.shutdown(socket.SHUT_WR))
    assert list(conn.lines(eol=eol, keepends=False)) == LINES[eol]
    feeder.join()


def test_kept_ends_are_what_was_sent(ends: Ends, eol: str) -> None:
    if eol == "any":
        return  # drops what comes late of an end
    for pieces in split_everywhere(STREAM):
        [lines] = read_all(ends, "unix", pieces, lambda conn: list(conn.lines(eol=eol)))
        assert b"".join(lines) == STREAM
        assert len(lines) == len(LINES[eol])


@pytest.mark.optimisation("what comes behind a line is received with it")
def test_kept_ends_of_any_are_what_came_with_the_line(ends: Ends) -> None:
    got = read_all(
        ends,
        "unix",
        [b"one\r\n\r\ntwo\n\n", b"\nthree\r", b"\n\n"],
        lambda conn: list(conn.lines(eol="any")),
    )
    assert got == [[b"one\r\n\r\n", b"two\n\n", b"three\r"]]


# --- Limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("eol", "end"), ENDS)
def test_a_line_just_under_at_and_over_the_limit(ends: Ends, eol: str, end: bytes) -> None:
    line = b"12345" + end
    stream = line + b"12345" + end + b"rest"
    for pieces in split_everywhere(stream):
        results = read_all(
            ends,
            "unix",
            pieces,
            lambda conn: conn.readln(len(line) - 1, eol=eol),
            lambda conn: conn.readln(1, eol=eol),
            lambda conn: conn.readln(len(line), eol=eol),
            lambda conn: conn.readln(len(line) + 1, eol=eol),
            lambda conn: conn.readln(3, eol=eol),
            lambda conn: conn.readln(4, eol=eol),
            lambda conn: conn.readln(4, eol=eol, keepends=False),
        )
        assert [type(result) for result in results[:2]] == [LineTooLongError] * 2
        assert results[2:4] == [line, line]
        assert isinstance(results[4], LineTooLongError)
        assert results[5:] == [b"rest", None]


@pytest.mark.parametrize(("eol", "end"), ENDS)
def test_the_limit_of_take_line(ends: Ends, eol: str, end: bytes) -> None:
    conn, peer = ends.pair()
    line = b"12345" + end
    for split in range(len(line)):
        peer.sendall(line[:split])
        assert conn.take_line(len(line), eol=eol) is None
        peer.sendall(line[split:] + b"x")
        with pytest.raises(LineTooLongError, match=f"within {len(line) - 1} bytes"):
            conn.take_line(len(line) - 1, eol=eol)
        assert conn.take_line(len(line), eol=eol) == line
        assert conn.take(10) == b"x"


def test_the_limit_cuts_a_run_whose_rest_is_dropped(ends: Ends) -> None:
    run = b"\r\n" * 40_000
    got = read_all(
        ends,
        "unix",
        [b"one" + run + b"two\n"],
        lambda conn: conn.readln(3, eol="any"),
        lambda conn: conn.readln(4, eol="any"),
        lambda conn: conn.readln(4, eol="any"),
        lambda conn: conn.readln(4, eol="any"),
    )
    assert isinstance(got[0], LineTooLongError)
    assert got[1:] == [b"one\r", b"two\n", b""]


# --- A CR at the end of a packet ----------------------------------------------------------------


def test_any_gives_a_line_with_its_first_byte_of_an_end(ends: Ends) -> None:
    conn, peer = ends.pair()
    for end in (b"\r", b"\n"):
        peer.sendall(b"one" + end)
        # The peer may wait for the answer: nothing more comes.
        assert conn.readln(eol="any", keepends=False) == b"one"


@pytest.mark.parametrize("eol", ["crlf", "crlf_strict"])
def test_a_cr_at_the_end_of_a_packet_may_be_half_an_end(ends: Ends, eol: str) -> None:
    conn, peer = ends.pair()
    task = spawn(conn.readln, eol=eol, keepends=False)
    peer.sendall(b"one\r")
    sleep(MOMENT)
    assert not task.done
    peer.sendall(b"\ntwo\r")
    assert task.get() == b"one"
    task = spawn(conn.readln, eol=eol, keepends=False)
    sleep(MOMENT)
    assert not task.done
    peer.sendall(b"x\r\n")
    assert task.get() == b"two\rx"


@pytest.mark.parametrize("eol", ["lf", "crlf", "crlf_strict", "nul"])
def test_a_cr_at_the_end_of_the_stream_is_data(ends: Ends, eol: str) -> None:
    assert read_all(ends, "unix", [b"one\r"], lambda conn: readln_all(conn, eol)) == [[b"one\r"]]


def read_into(conn: Any) -> bytes:
    room = bytearray(1)
    conn.recv_into(room)
    return bytes(room)


OTHERS: dict[str, Callable[[Any], bytes]] = {
    "recv": lambda conn: conn.recv(1),
    "recv all": lambda conn: conn.recv(100),
    "recv_into": read_into,
    "read": lambda conn: conn.read(1),
    "read_exactly": lambda conn: conn.read_exactly(1),
    "readln": lambda conn: conn.readln(),
    "read_until": lambda conn: conn.read_until(b"\n"),
    "read_frame": lambda conn: b"\n" + conn.read_frame("B", limit=20)[10:],
    "recvfrom": lambda conn: conn.recvfrom(1)[0],
    "recvmsg": lambda conn: conn.recvmsg(1)[0],
    "take": lambda conn: conn.take(1),
    "take all": lambda conn: conn.take(100),
    "take_line": lambda conn: conn.take_line(),
}


@pytest.mark.parametrize("verb", OTHERS)
@pytest.mark.parametrize("is_held", [False, True])
def test_others_see_what_comes_late_of_a_run(ends: Ends, verb: str, is_held: bool) -> None:
    conn, peer = ends.pair()
    peer.sendall(b"one\r")
    assert conn.readln(eol="any") == b"one\r"
    late = b"\n" + b"0123456789" * (verb == "read_frame")
    peer.sendall(late)
    if is_held:
        with pytest.raises(LineTooLongError):
            conn.read_until(b"x", 1)
    assert OTHERS[verb](conn) == b"\n"
    # It is over then: what comes next is an end of its own.
    peer.sendall(b"\n\rtwo\n")
    assert conn.readln(eol="any", keepends=False) == b""
    assert conn.readln(eol="any", keepends=False) == b"two"


def test_callbacks_see_what_comes_late_of_a_run(ends: Ends) -> None:
    conn, peer = ends.pair()
    for late in (b"\n", b"\n\n"):
        conn.set_callbacks(Recorder(takes=False))
        peer.sendall(b"one\r")
        turn()
        assert conn.take_line(eol="any") == b"one\r"
        taken: list[bytes] = []
        conn.set_callbacks(
            Recorder(takes=False, data=lambda conn, taken=taken: taken.append(conn.take(1)))
        )
        peer.sendall(late)
        turn()
        assert taken == [b"\n"]
        assert conn.take_line(eol="any") == (late[1:] or None)


def test_a_peek_at_what_comes_late_does_not_end_a_run(ends: Ends) -> None:
    conn, peer = ends.pair()
    peer.sendall(b"one\r")
    assert conn.readln(eol="any") == b"one\r"
    peer.sendall(b"\n")
    assert conn.recvmsg(1, 0, socket.MSG_PEEK)[0] == b"\n"
    peer.sendall(b"\ntwo\n")
    assert conn.readln(eol="any") == b"two\n"


# --- Time-outs, mixed kinds, wrong arguments ------------------------------------------------------


def test_lines_trickle_in_over_timeouts(ends: Ends, eol: str) -> None:
    conn, peer = ends.pair()
    conn.timeo = MOMENT
    end = dict(ENDS)[eol]
    for byte in b"slow" + end[:-1]:
        peer.sendall(bytes([byte]))
        with pytest.raises(TimeoutError):
            conn.readln(eol=eol)
    peer.sendall(end[-1:] + b"next")
    assert conn.readln(eol=eol, keepends=False) == b"slow"
    assert conn.recv(10) == b"next"


def test_kinds_may_be_mixed_line_by_line(ends: Ends) -> None:
    stream = b"one\ntwo\r\nthree\n\r\nfour\rfive\0six\nseven"
    for pieces in split_everywhere(stream):
        got = read_all(
            ends,
            "unix",
            pieces,
            lambda conn: conn.readln(eol="lf"),
            lambda conn: conn.readln(eol="crlf", keepends=False),
            lambda conn: conn.readln(eol="crlf_strict"),
            lambda conn: conn.readln(eol="any"),
            lambda conn: conn.readln(eol="nul"),
            lambda conn: conn.readln(eol="any"),
            lambda conn: conn.readln(eol="nul"),
        )
        lines = [b"one\n", b"two", b"three\n\r\n", b"four\r", b"five\0", b"six\n", b"seven"]
        assert got == lines


@pytest.mark.parametrize("wrong", ["", "cr", "LF", "\n", "crlf_stric", "lf\0", "ü", "lfx"])
@pytest.mark.parametrize("verb", ["readln", "take_line", "lines"])
def test_another_kind_is_refused_by_a_list_of_those_there_are(
    ends: Ends, verb: str, wrong: str
) -> None:
    conn, peer = ends.pair()
    peer.sendall(b"kept\n")
    with pytest.raises(ValueError, match="eol must be") as caught:
        getattr(conn, verb)(eol=wrong)
    for eol in EOLS:
        assert repr(eol) in str(caught.value)
    with pytest.raises(TypeError, match="eol must be a str, not bytes"):
        getattr(conn, verb)(eol=b"lf")
    with pytest.raises(ValueError, match="limit must be at least 1"):
        getattr(conn, verb)(0)
    with pytest.raises(TypeError, match="positional"):
        getattr(conn, verb)(5, "lf")
    assert conn.readln() == b"kept\n"


# --- Iteration ------------------------------------------------------------------------------------


def test_an_iteration_goes_on_after_what_it_raised(ends: Ends) -> None:
    conn, send, finish = ends.reading("unix")
    lines = conn.lines(5, keepends=False)
    assert iter(lines) is lines
    send(b"one\n\ntoo long\nfour\nla")
    assert next(lines) == b"one"
    assert next(lines) == b""
    with pytest.raises(LineTooLongError):
        next(lines)
    assert conn.readln() == b"too long\n"  # nothing was read ahead
    assert next(lines) == b"four"
    conn.timeo = 0
    with pytest.raises(TimeoutError):
        next(lines)
    send(b"st")
    finish()
    assert list(lines) == [b"last"]
    assert list(lines) == []


def test_an_iterator_keeps_its_connection(ends: Ends) -> None:
    left, right = socket.socketpair()
    lines = pycoronet.sk_conn(left).lines()
    ends.keep(right).sendall(b"line\n")
    gc.collect()
    assert next(lines) == b"line\n"
    with pytest.raises(TypeError, match="cannot create"):
        type(lines)()
    right.close()
    assert list(lines) == []
    kept = [lines]
    del lines
    with pytest.warns(ResourceWarning):
        kept.clear()


def test_a_layer_begins_with_the_next_byte(ends: Ends) -> None:
    conn, peer = ends.pair()
    peer.sendall(b"go\r")
    assert conn.readln(eol="any", keepends=False) == b"go"
    conn.push_layer(Filter())
    peer.sendall(b"\nlast\n")
    assert conn.readln(eol="any", keepends=False) == b""
    assert conn.readln(eol="any", keepends=False) == b"last"
