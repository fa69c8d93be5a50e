"""Where held input meets what else a connection has: layers, callbacks, co_resume()."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
from connections import MOMENT, Ends
from recorders import Recorder, turn

import pycoronet
from pycoronet import READ, sleep, spawn
from pycoronet.conet import co_resume
from pycoronet.layers import Filter, Tee
from pycoronet.testing import pair
from pycoronet.tls import TLSLayer

pytestmark = pytest.mark.usefixtures("virtual_hub")


def blocks_of(size: int) -> Filter:
    """Return a layer that lets through blocks of so many bytes."""

    def cut(source: bytearray, is_end: bool) -> bytes:
        length = len(source) // size * size
        content = bytes(source[:length])
        del source[:length]
        return content

    return Filter(cut)


def take_all(source: bytearray) -> bytes:
    content = bytes(source)
    source.clear()
    return content


# --- Layers ---------------------------------------------------------------------------------------


def test_a_layer_that_takes_all_that_is_held_makes_room_for_more(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.set_watermarks(read_high=4)
    recorder = Recorder(takes=False)
    conn.set_callbacks(recorder)
    peer.sendall(b"01234567")
    turn()
    assert conn.peek(99) == b"0123"
    conn.push_layer(blocks_of(8))
    turn()
    assert conn.peek(99) == b"01234567"
    assert recorder.log == ["data", "data"]


def test_take_goes_on_while_layers_give_nothing(ends: Ends) -> None:
    # Whoever is told takes until nothing is left: no edge comes for the rest.
    size = 150_000
    conn, peer = ends.pair()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * size)
    conn.push_layer(blocks_of(size))
    recorder = Recorder()
    conn.set_callbacks(recorder, receive=False)
    turn()
    peer.sendall(bytes(size))
    turn()
    assert len(recorder.received) == size


@pytest.mark.parametrize("change", ["push", "pop"])
def test_a_run_ends_where_the_layers_change(ends: Ends, change: str) -> None:
    conn, peer = ends.pair()
    if change == "pop":
        conn.push_layer(Tee())
    peer.sendall(b"START\r")
    assert conn.readln(eol="any") == b"START\r"
    if change == "pop":
        conn.pop_layer()
    else:
        conn.push_layer(Tee())
    peer.sendall(b"\nnext\n")
    assert conn.readln(eol="any") == b"\n"


def test_a_layer_pushed_at_the_end_hears_of_it(ends: Ends) -> None:
    conn, peer = ends.pair()

    def push(conn: Any) -> None:
        if not conn.layers:
            conn.push_layer(Filter(lambda source, is_end: take_all(source) if is_end else b""))

    recorder = Recorder(takes=False, eof=push)
    conn.set_callbacks(recorder)
    peer.sendall(b"held")
    turn()
    peer.shutdown(socket.SHUT_WR)
    turn()
    assert conn.take(99) == b"held"
    assert recorder.log == ["data", "eof", "data", "eof"]


@pytest.mark.parametrize("size", [None, 1, 7])
def test_tls_can_be_pushed_after_a_look_at_what_came(certificates: Any, size: int | None) -> None:
    def data(conn: Any) -> None:
        if not conn.layers:
            first = conn.take(1)
            assert first == b"\x16"  # a record of the handshake
            conn.prepend(first)
            conn.push_layer(TLSLayer(certificates.server_context(), server_side=True))
        while (line := conn.take_line(eol="any", keepends=False)) is not None:
            conn.write(line + b"!\r\n")

    with pair(latency=MOMENT) as ends_of_pair:
        client, server = ends_of_pair
        ends_of_pair.short_reads(size)
        server.set_callbacks(Recorder(takes=False, data=data))
        client.start_tls(certificates.client_context(), server_hostname="localhost")
        client.write(b"one\r")
        assert client.readln() == b"one!\r\n"
        client.write(b"\ntwo\n")
        assert client.readln() == b"two!\r\n"


# --- co_resume() ----------------------------------------------------------------------------------


@pytest.fixture
def resumed(ends: Ends) -> Callable[[int], tuple[Any, socket.socket, list[bytes]]]:
    """Return a maker of connections with a coroutine in co_resume(), and what it then sees."""

    def make(events: int) -> tuple[Any, socket.socket, list[bytes]]:
        conn, peer = ends.pair()
        seen: list[bytes] = []

        def run() -> None:
            conn.coroutine = pycoronet.current()
            conn.mod(events)
            co_resume()
            seen.append(conn.recv(99))

        spawn(run)
        sleep(MOMENT)
        assert seen == []
        return conn, peer, seen

    return make


def test_bytes_put_back_resume_the_coroutine(resumed: Any) -> None:
    conn, _, seen = resumed(READ)
    conn.prepend(b"back")
    sleep(MOMENT)
    assert seen == [b"back"]


def test_mod_by_another_resumes_the_coroutine_at_once(resumed: Any) -> None:
    conn, peer, seen = resumed(0)
    peer.sendall(b"there")
    sleep(MOMENT)
    assert seen == []
    conn.mod(READ)
    sleep(MOMENT)
    assert seen == [b"there"]


def test_mod_by_another_sees_what_is_held(resumed: Any) -> None:
    conn, _, seen = resumed(0)
    conn.prepend(b"back")
    sleep(MOMENT)
    assert seen == []
    conn.mod(READ)
    sleep(MOMENT)
    assert seen == [b"back"]
