"""What wrap() is given of long bytes objects: pieces of the object itself, not copies."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from connections import Ends, fill
from layer_case import read_behind

from pycoronet import TransportLayer, sk_conn

LONG = 300_000


class Keeping(TransportLayer):
    """Keeps all it is given, as it is."""

    def __init__(self) -> None:
        self.pieces: list[Any] = []

    def wrap(self, data: bytes) -> bytes:
        self.pieces.append(data)
        return data


class Viewing(Keeping):
    _takes_views = True


def send(conn: sk_conn, peer: Any, send: Callable[[], object], length: int) -> bytes:
    """Call `send` while a thread receives; return what that has got."""
    received = bytearray()

    def receive() -> None:
        peer.settimeout(20)
        while len(received) < length and (data := peer.recv(65536)):
            received.extend(data)

    thread = threading.Thread(target=receive)
    thread.start()
    send()
    conn.flush()
    thread.join()
    return bytes(received)


def enqueue_and_flush(conn: sk_conn, data: Any) -> None:
    conn.enqueue(data)
    conn.flush()


VERBS = pytest.mark.parametrize(
    "verb", [sk_conn.write, sk_conn.sendall, enqueue_and_flush], ids=["write", "sendall", "enqueue"]
)


@VERBS
def test_views_are_of_the_bytes_that_were_written(ends: Ends, verb: Any) -> None:
    conn, peer = ends.pair()
    layer = Viewing()
    conn.push_layer(layer)
    data = os.urandom(LONG)
    assert send(conn, peer, lambda: verb(conn, data), LONG) == data
    views = [piece for piece in layer.pieces if isinstance(piece, memoryview)]
    assert len(views) > 1
    assert all(view.obj is data for view in views)
    assert b"".join(layer.pieces) == data


def test_views_can_be_kept(ends: Ends) -> None:
    conn, peer = ends.pair()
    layer = Viewing()
    conn.push_layer(layer)
    expected = os.urandom(LONG)
    # Nobody else has this object once it is written.
    send(conn, peer, lambda: conn.write(expected[:1] + expected[1:]), LONG)
    conn.close()
    assert b"".join(layer.pieces) == expected


@VERBS
def test_other_layers_get_bytes(ends: Ends, verb: Any) -> None:
    conn, peer = ends.pair()
    above, below = Viewing(), Viewing()
    plain = Keeping()
    for layer in (below, plain):
        conn.push_layer(layer)
    data = os.urandom(LONG)
    assert send(conn, peer, lambda: verb(conn, data), LONG) == data
    conn.push_layer(above)
    assert send(conn, peer, lambda: verb(conn, data), LONG) == data
    assert {type(piece) for piece in plain.pieces} == {bytes}
    # What a layer gives is bytes, and so it is what the one below is given.
    assert {type(piece) for piece in below.pieces} == {bytes}
    assert memoryview in {type(piece) for piece in above.pieces}
    assert b"".join(plain.pieces) == data * 2


def test_bytes_of_one_piece_are_handed_on_as_they_are(ends: Ends) -> None:
    conn, peer = ends.pair()
    layer = Keeping()
    conn.push_layer(layer)
    data = os.urandom(20_000)
    assert send(conn, peer, lambda: conn.write(data), 20_000) == data
    assert layer.pieces[0] is data


@pytest.mark.parametrize("is_moved", [False, True], ids=["copied", "moved"])
def test_memory_that_may_change_is_never_handed_out(ends: Ends, is_moved: bool) -> None:
    conn, peer = ends.pair()
    layer = Viewing()
    conn.push_layer(layer)
    data = bytearray(os.urandom(LONG))
    expected = bytes(data)
    assert send(conn, peer, lambda: conn.enqueue(data, move=is_moved), LONG) == expected
    assert send(conn, peer, lambda: conn.write(data), LONG) == expected
    data[:] = b""  # no view of it is held, so it can be resized
    assert {type(piece) for piece in layer.pieces} == {bytes}
    assert b"".join(layer.pieces) == expected * 2


def test_order_of_long_and_short(ends: Ends) -> None:
    conn, peer = ends.pair()
    layer = Viewing()
    conn.push_layer(layer)
    parts = [os.urandom(size) for size in (10, 70_000, 5, 1, 16_384, 16_383, 65_536, 65_537, 3)]

    def queue_all() -> None:
        for part in parts:
            conn.enqueue(part)

    length = sum(map(len, parts))
    assert send(conn, peer, queue_all, length) == b"".join(parts)
    assert b"".join(layer.pieces) == b"".join(parts)


def test_bytes_from_before_the_push_go_to_no_layer(ends: Ends) -> None:
    conn, peer = ends.pair()
    filled = fill(conn)
    layer = Viewing()
    early, late = os.urandom(LONG), os.urandom(LONG)
    conn.enqueue(early)
    conn.push_layer(layer)
    conn.enqueue(late)
    conn.close()
    assert read_behind(peer, filled) == early + late
    assert b"".join(layer.pieces) == late


def test_error_of_the_flag_is_told(ends: Ends) -> None:
    class Broken(TransportLayer):
        @property
        def _takes_views(self) -> bool:
            raise ZeroDivisionError

    conn, peer = ends.pair()
    with pytest.raises(ZeroDivisionError):
        conn.push_layer(Broken())
    assert conn.layers == ()
    conn.write(b"x")
    assert peer.recv(1) == b"x"
