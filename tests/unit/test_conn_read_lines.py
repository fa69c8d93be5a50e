"""Reading lines and records: limits, ends, and separators split over reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from connections import Ends, read_all, send_all

from pycoronet import IncompleteReadError, LineTooLongError, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")

KINDS = ["unix", "tcp", "pipe"]
BIG = 300_000  # more than the scratch area holds


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- Lines --------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["readln", "readline"])
def test_lines_in_pieces(ends: Ends, kind: str, verb: str) -> None:
    def line(conn: Any) -> bytes:
        return bytes(getattr(conn, verb)())

    pieces = [b"on", b"e\n", b"\n", b"tw\0o", b"\nthree\nfo", b"ur\n\nfi", b"ve"]
    assert read_all(ends, kind, pieces, *[line] * 9) == [
        b"one\n",
        b"\n",
        b"tw\0o\n",
        b"three\n",
        b"four\n",
        b"\n",
        b"five",
        b"",
        b"",
    ]


def test_lines_without_their_ends(ends: Ends, kind: str) -> None:
    def line(conn: Any) -> bytes | None:
        got: bytes | None = conn.readln(keepends=False)
        return got

    pieces = [b"on", b"e\n\ntwo\r\nthr", b"ee"]
    assert read_all(ends, kind, pieces, *[line] * 6) == [
        b"one",
        b"",
        b"two\r",
        b"three",
        None,
        None,
    ]


def test_iteration_gives_lines_and_ends(ends: Ends, kind: str) -> None:
    pieces = [b"one\ntwo\n", b"\n", b"last"]
    assert read_all(ends, kind, pieces, list, list) == [
        [b"one\n", b"two\n", b"\n", b"last"],
        [],
    ]


def test_a_line_of_exactly_the_limit(ends: Ends, kind: str) -> None:
    assert read_all(
        ends,
        kind,
        [b"1234\n12", b"34\n1234"],
        lambda conn: conn.readln(5),
        lambda conn: conn.readline(5),
        lambda conn: conn.readln(4),  # ends with the file, not with a line feed
    ) == [b"1234\n", b"1234\n", b"1234"]


@pytest.mark.parametrize("pieces", [[b"12345\nrest"], [b"123", b"4", b"5\n", b"rest"]])
def test_a_line_over_the_limit_stays_readable(ends: Ends, kind: str, pieces: list[bytes]) -> None:
    results = read_all(
        ends,
        kind,
        pieces,
        lambda conn: conn.readln(5),
        lambda conn: conn.readln(1),
        lambda conn: conn.readln(limit=5, keepends=False),
        lambda conn: conn.readln(6),
        lambda conn: conn.read(100),
    )
    assert all(isinstance(error, LineTooLongError) for error in results[:3])
    assert isinstance(results[0], ValueError)
    assert "5 bytes" in str(results[0])
    assert results[3:] == [b"12345\n", b"rest"]


def test_an_endless_line_is_refused_and_can_be_taken_by_recv(ends: Ends, kind: str) -> None:
    results = read_all(
        ends,
        kind,
        [b"x" * 10, b"y" * 10],
        lambda conn: conn.readln(15),
        lambda conn: conn.recv(12),
        lambda conn: conn.readln(8),
        lambda conn: conn.readln(8),
    )
    assert isinstance(results[0], LineTooLongError)
    assert results[1:] == [b"x" * 10 + b"yy", b"y" * 8, b""]


def test_the_usual_limit_is_64_kib(ends: Ends) -> None:
    conn, send, finish = ends.reading("unix")
    sender = spawn(
        lambda: (send_all(send, b"a" * 65535 + b"\n" + b"b" * 65536 + b"\nrest"), finish())
    )
    assert conn.readln() == b"a" * 65535 + b"\n"
    for read in (conn.readln, conn.readline, lambda: next(iter(conn))):
        with pytest.raises(LineTooLongError):
            read()
    assert conn.readln(65537) == b"b" * 65536 + b"\n"
    assert list(conn) == [b"rest"]
    sender.join()


def test_a_line_longer_than_the_scratch_area(ends: Ends, kind: str) -> None:
    conn, send, finish = ends.reading(kind)
    line = b"z" * BIG + b"\n"
    sender = spawn(lambda: (send_all(send, line + b"next"), finish()))
    assert conn.readln(1 << 80) == line
    assert conn.readln() == b"next"
    sender.join()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda conn: conn.readln(0), ValueError, "limit must be at least 1"),
        (lambda conn: conn.readln(-5), ValueError, "limit must be at least 1"),
        (lambda conn: conn.readline(0), ValueError, "limit must be at least 1"),
        (lambda conn: conn.readln(None), TypeError, "limit must be an int"),
        (lambda conn: conn.readln("5"), TypeError, "limit must be an int"),
        (lambda conn: conn.readln(5, False), TypeError, "positional"),
        (lambda conn: conn.readln(nonsense=1), TypeError, "nonsense"),
        (lambda conn: conn.readln(5, limit=5), TypeError, "multiple values"),
        (lambda conn: conn.readline(5, 6), TypeError, "at most 1"),
        (lambda conn: conn.readline(1.5), TypeError, "limit must be an int"),
        (lambda conn: conn.read_until(), TypeError, "separator"),
        (lambda conn: conn.read_until(b"x", 1, 2), TypeError, "separator"),
        (lambda conn: conn.read_until(b""), ValueError, "must not be empty"),
        (lambda conn: conn.read_until("x"), TypeError, "bytes-like"),
        (lambda conn: conn.read_until(None), TypeError, "bytes-like"),
        (lambda conn: conn.read_until(b"x", 0), ValueError, "limit must be at least 1"),
    ],
)
def test_wrong_arguments_are_refused_and_take_nothing(
    ends: Ends, call: Callable[[Any], object], error: type[Exception], text: str
) -> None:
    conn, peer = ends.pair()
    peer.sendall(b"kept\n")
    with pytest.raises(error, match=text):
        call(conn)
    assert conn.readln() == b"kept\n"


# --- Separators ---------------------------------------------------------------------------


def test_read_until_with_the_separator_split_over_reads(ends: Ends, kind: str) -> None:
    def record(conn: Any) -> bytes:
        return bytes(conn.read_until(b"\r\n\r\n"))

    pieces = [b"one\r", b"\n\r", b"\ntwo\r\n\r\n\r\n\r\n", b"\r\n\r", b"x\r\n\r\n", b"tail\r\n"]
    results = read_all(ends, kind, pieces, *[record] * 5)
    assert results[:4] == [
        b"one\r\n\r\n",
        b"two\r\n\r\n",
        b"\r\n\r\n",
        b"\r\n\rx\r\n\r\n",
    ]
    assert isinstance(results[4], IncompleteReadError)
    assert results[4].partial == b"tail\r\n"


def test_read_until_takes_any_bytes(ends: Ends, kind: str) -> None:
    assert read_all(
        ends,
        kind,
        [b"a\0b", b"\0\0c"],
        lambda conn: conn.read_until(bytearray(b"\0")),
        lambda conn: conn.read_until(memoryview(b"\0\0")),
        lambda conn: conn.read(10),
    ) == [b"a\0", b"b\0\0", b"c"]


def test_read_until_at_its_limit(ends: Ends, kind: str) -> None:
    results = read_all(
        ends,
        kind,
        [b"123;;4", b"567;;"],
        lambda conn: conn.read_until(b";;", 4),
        lambda conn: conn.read_until(b";;", 5),
        lambda conn: conn.read_until(b";;", 5),
        lambda conn: conn.read_until(b";;", 6),
        lambda conn: conn.read_until(b";;", 1),
    )
    assert isinstance(results[0], LineTooLongError)
    assert results[1] == b"123;;"
    assert isinstance(results[2], LineTooLongError)
    assert results[3] == b"4567;;"
    assert isinstance(results[4], IncompleteReadError)
