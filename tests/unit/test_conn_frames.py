"""Length-prefixed frames: formats, splits, limits, and lengths that cannot be right."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest
from connections import MOMENT, Ends, feed, read_all, send_all
from recorders import Recorder, turn

from pycoronet import IncompleteReadError, LineTooLongError, sleep, spawn
from pycoronet.layers import Tee

pytestmark = pytest.mark.usefixtures("virtual_hub")

ORDERS = ["", "@", "=", "<", ">", "!"]
LETTERS = "bBhHiIlLqQ"


def frame(payload: bytes, prefix: str = ">I") -> bytes:
    """Return the payload with its length before it."""
    return struct.pack(prefix, len(payload)) + payload


def read_frames(conn: Any, *arguments: Any) -> list[bytes]:
    frames = []
    while (payload := conn.read_frame(*arguments)) is not None:
        frames.append(payload)
    return frames


@pytest.mark.parametrize("letter", LETTERS)
@pytest.mark.parametrize("order", ORDERS)
def test_formats_are_those_of_the_struct_module(ends: Ends, order: str, letter: str) -> None:
    conn, peer = ends.pair()
    prefix = order + letter
    for length in (0, 1, 100):
        peer.sendall(frame(b"x" * length, prefix) + b"next")
        assert conn.read_frame(prefix) == b"x" * length
        assert conn.recv(10) == b"next"
        peer.sendall(frame(b"y" * length, prefix) + b"next")
        assert conn.take_frame(format=prefix) == b"y" * length
        assert conn.take(10) == b"next"


@pytest.mark.parametrize("kind", ["unix", "tcp", "pipe"])
def test_frames_split_everywhere(ends: Ends, kind: str) -> None:
    stream = frame(b"one") + frame(b"") + frame(b"three\n\0") + frame(b"4")
    for at in range(1, len(stream)):
        pieces = [stream[:at], stream[at:]]
        assert read_all(ends, kind, pieces, read_frames) == [[b"one", b"", b"three\n\0", b"4"]]
    single = [bytes([byte]) for byte in stream]
    assert read_all(ends, kind, single, read_frames) == [[b"one", b"", b"three\n\0", b"4"]]


def test_frames_through_a_layer(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.push_layer(Tee(bytearray().extend))
    stream = frame(b"one") + frame(b"two")
    feeder = feed(peer.sendall, [stream[:2], stream[2:9], stream[9:]], peer.close)
    assert read_frames(conn) == [b"one", b"two"]
    feeder.join()


def test_a_frame_longer_than_the_scratch_area(ends: Ends) -> None:
    conn, send, finish = ends.reading("unix")
    payload = bytes(range(256)) * 1200
    sender = spawn(lambda: (send_all(send, frame(payload) + frame(b"next")), finish()))
    assert conn.read_frame() == payload
    assert conn.read_frame() == b"next"
    assert conn.read_frame() is None
    sender.join()


@pytest.mark.parametrize("verb", ["read_frame", "take_frame"])
def test_a_frame_just_under_at_and_over_the_limit(ends: Ends, verb: str) -> None:
    conn, peer = ends.pair()
    read = getattr(conn, verb)
    for payload in (b"1234", b"12345"):
        peer.sendall(frame(payload))
        assert read(limit=5) == payload
    peer.sendall(frame(b"123456"))
    for limit in (5, 1):
        with pytest.raises(LineTooLongError, match=f"6 bytes is over the limit of {limit};"):
            read(limit=limit)
    # It stays readable, its length too.
    assert read(limit=6) == b"123456"


def test_the_usual_limit_is_a_mebibyte(ends: Ends) -> None:
    conn, peer = ends.pair()
    peer.sendall(struct.pack(">I", 1048577))
    with pytest.raises(LineTooLongError, match="1048577 bytes is over the limit of 1048576;"):
        conn.read_frame()
    assert conn.recv(10) == struct.pack(">I", 1048577)
    peer.sendall(struct.pack(">I", 1048576))
    conn.timeo = 0
    with pytest.raises(TimeoutError):
        conn.read_frame()


@pytest.mark.parametrize("verb", ["read_frame", "take_frame"])
@pytest.mark.parametrize(
    "prefix", [b"\xff" * 8, b"\x80" + bytes(7), b"\x7f" + b"\xff" * 7, b"\0\0\0\x01" + bytes(4)]
)
def test_a_huge_length_is_refused_at_once(ends: Ends, verb: str, prefix: bytes) -> None:
    conn, peer = ends.pair()
    peer.sendall(prefix)
    with pytest.raises(LineTooLongError, match="over the limit"):
        getattr(conn, verb)(">Q")
    assert conn.recv(10) == prefix


@pytest.mark.parametrize("verb", ["read_frame", "take_frame"])
@pytest.mark.parametrize("letter", "bhilq")
def test_a_negative_length_is_refused_and_stays_readable(
    ends: Ends, verb: str, letter: str
) -> None:
    conn, peer = ends.pair()
    lowest = -(1 << (8 * struct.calcsize("<" + letter) - 1))
    for length in (-1, -2, lowest):
        sent = struct.pack("<" + letter, length) + b"rest"
        peer.sendall(sent)
        for _ in range(2):
            with pytest.raises(ValueError, match=f"negative length {length};") as caught:
                getattr(conn, verb)("<" + letter)
            assert type(caught.value) is ValueError
        assert conn.read_exactly(len(sent)) == sent


def test_a_truncated_frame_is_given_with_its_length(ends: Ends) -> None:
    whole = frame(b"four")
    for at in range(1, len(whole)):
        for pieces in ([frame(b"one") + whole[:at]], [frame(b"one"), whole[:at]]):
            first, second, third = read_all(
                ends,
                "unix",
                pieces,
                lambda conn: conn.read_frame(),
                lambda conn: conn.read_frame(),
                lambda conn: conn.read_frame(),
            )
            assert first == b"one"
            assert isinstance(second, IncompleteReadError)
            assert second.partial == whole[:at]
            assert third is None


def test_take_frame_leaves_a_truncated_one_to_take(ends: Ends) -> None:
    conn, peer = ends.pair()
    for at in range(8):
        peer.sendall(frame(b"four")[:at])
        assert conn.take_frame() is None
        peer.sendall(frame(b"four")[at:])
        assert conn.take_frame() == b"four"
    peer.sendall(frame(b"four")[:7])
    peer.close()
    assert conn.take_frame() is None
    assert conn.take(100) == frame(b"four")[:7]
    assert conn.take_frame() is None


def test_a_frame_trickles_in_over_timeouts(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.timeo = MOMENT
    whole = frame(b"slow", "<H")
    for byte in whole[:-1]:
        peer.sendall(bytes([byte]))
        with pytest.raises(TimeoutError):
            conn.read_frame("<H")
    peer.sendall(whole[-1:] + b"next")
    assert conn.read_frame("<H") == b"slow"
    assert conn.recv(10) == b"next"


@pytest.mark.parametrize("verb", ["read_frame", "take_frame"])
@pytest.mark.parametrize("wrong", ["", ">", "x", "?", "e", "n", "s", ">II", "2I", "I ", "I\0", "ü"])
def test_other_formats_are_refused(ends: Ends, verb: str, wrong: str) -> None:
    conn, peer = ends.pair()
    peer.sendall(frame(b"kept"))
    read = getattr(conn, verb)
    with pytest.raises(ValueError, match="format must be one of bBhHiIlLqQ"):
        read(wrong)
    with pytest.raises(TypeError, match="format must be a str, not bytes"):
        read(b">I")
    with pytest.raises(ValueError, match="limit must be at least 1"):
        read(limit=0)
    with pytest.raises(TypeError, match="limit must be an int"):
        read(limit="5")
    with pytest.raises(TypeError, match="positional"):
        read(">I", 5)
    with pytest.raises(UnicodeEncodeError):
        read("\ud800")
    assert read(limit=1 << 80) == b"kept"


# --- Callbacks --------------------------------------------------------------------------------


def taker(frames: list[Any]) -> Recorder:
    def take_frames(conn: Any) -> None:
        try:
            while (payload := conn.take_frame()) is not None:
                frames.append(payload)
        except ValueError as error:
            frames.append(error)

    return Recorder(takes=False, data=take_frames)


def test_callbacks_take_frames_as_they_are_whole(ends: Ends) -> None:
    stream = frame(b"one") + frame(b"") + frame(b"three")
    for at in range(1, len(stream)):
        conn, peer = ends.pair()
        frames: list[Any] = []
        recorder = taker(frames)
        conn.set_callbacks(recorder)
        for piece in (stream[:at], stream[at:]):
            peer.sendall(piece)
            turn()
        assert frames == [b"one", b"", b"three"]
        peer.shutdown(socket.SHUT_WR)
        turn()
        assert recorder.log[-2:] == ["eof", "close"]


def test_callbacks_are_told_of_a_frame_that_can_never_be_held(ends: Ends) -> None:
    conn, peer = ends.pair()
    frames: list[Any] = []
    conn.set_callbacks(taker(frames))
    peer.setblocking(False)
    sent = peer.send(frame(bytes(100_000)))
    for _ in range(20):
        turn()
        try:
            sent += peer.send(bytes(100_004 - sent))
        except BlockingIOError:
            continue
    assert frames
    assert all(isinstance(error, LineTooLongError) for error in frames)
    # With room for it, it comes.
    frames.clear()
    conn.set_watermarks(read_high=200_000)
    while sent < 100_004:
        sent += peer.send(bytes(100_004 - sent))
        turn()
    sleep(MOMENT)
    turn()
    assert [len(payload) for payload in frames] == [100_000]
