"""Layers and TLS over many rounds: no layer, connection, descriptor or memory stays behind."""

from __future__ import annotations

import gc
import socket
import ssl
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from certificates import Certificates
from connections import MOMENT, attempt, drain_now, fill, open_descriptors
from leak_case import (
    ROUNDS,
    SPARE_BLOCKS,
    WARM_UP,
    count_objects,
    least_growth,
    pair,
    run_rounds,
)
from recorders import Recorder

from pycoronet import TransportLayer, _coronet, sk_conn, sleep, spawn
from pycoronet.layers import Filter, Tee, Zlib, accept_proxy
from pycoronet.tls import TLSLayer

pytestmark = [pytest.mark.leaks, pytest.mark.usefixtures("virtual_hub")]

BULK = b"x" * (1000 if _coronet.HARD_MODE else 100_000)  # where each byte comes alone, fewer


class Failing(TransportLayer):
    def __init__(self, method: str) -> None:
        setattr(self, method, self.fail)

    def fail(self, *arguments: object) -> bytes:
        self.emit(b"last words")
        raise ZeroDivisionError


def read_and_write() -> None:
    with pair() as (conn, peer):
        conn.push_layer(Zlib())
        conn.push_layer(Tee())
        conn.buffered = True
        conn.write(b"x" * 1000)
        conn.flush()
        peer.sendall(peer.recv(1000))
        assert conn.read_exactly(1000) == b"x" * 1000
        conn.pop_layer()
        conn.write(b"y")
        conn.pop_layer()
        conn.close()


def take_two(source: bytearray, is_end: bool) -> bytes:
    used = len(source) // 2 * 2
    result = bytes(source[:used])
    del source[:used]
    return result


def filtering() -> None:
    for written, received in ((b"abcd", b"ef"), (b"abc", b"efg"), (b"x" * 9, b"y" * 9)):
        with pair() as (conn, peer):
            conn.push_layer(Filter(take_two, take_two, limit=4))
            attempt(conn.write, written)
            attempt(peer.sendall, received)
            peer.shutdown(socket.SHUT_WR)
            attempt(conn.read, 99)
            attempt(conn.close)


def failing() -> None:
    for method in ("started", "wrap", "unwrap", "finish", "on_clear"):
        with pair() as (conn, peer):
            attempt(conn.push_layer, Failing(method))
            attempt(peer.send, b"x")
            attempt(conn.recv, 1)
            attempt(conn.write, b"y")
            attempt(conn.close)


def failing_in_the_background() -> None:
    with pair() as (conn, _):
        conn.push_layer(Failing("wrap"))
        conn.buffered = True
        conn.write(b"x")
        sleep(0)


def draining() -> None:
    with pair() as (conn, peer):
        fill(conn)
        conn.push_layer(Zlib())
        conn.push_layer(TransportLayer())
        conn.enqueue(b"x" * 1000)
        conn.pop_layer()
        conn.close()
        peer.close()
        sleep(MOMENT)


def dropped_in_a_cycle() -> None:
    with pair() as (conn, _):
        layer = Tee()
        layer.conn = conn  # type: ignore[attr-defined]
        conn.push_layer(layer)


def proxied() -> None:
    with pair() as (conn, peer):
        peer.send(b"PROXY TCP4 1.2.3.4 1.2.3.5 1 2\r\nx")
        accept_proxy(conn)
        assert conn.recv(1) == b"x"
    with pair() as (conn, peer):
        peer.send(b"GET / HTTP/1.0\r\n")
        attempt(accept_proxy, conn)


def failing_in_callbacks() -> None:
    for method in ("started", "wrap", "unwrap", "finish", "on_clear"):
        for times in (1, 2):
            with pair() as (conn, peer):
                recorder = Recorder(takes=False, data=partial(use, times))
                conn.set_callbacks(recorder)
                attempt(conn.push_layer, Failing(method))
                attempt(peer.send, b"x")
                sleep(MOMENT)
                attempt(conn.close)
                sleep(MOMENT)
                assert recorder.log[-1] == "close"


def use(times: int, conn: Any) -> None:
    for _ in range(times):
        conn.take(1)
        conn.write(b"y")
        conn.close()


def pushed_in_mid_stream() -> None:
    def push(conn: Any) -> None:
        conn.take(1)
        conn.push_layer(Tee())
        conn.set_callbacks(None)

    with pair() as (conn, peer):
        conn.set_callbacks(Recorder(takes=False, data=push))
        peer.send(b"x" * 1000)
        sleep(MOMENT)
        conn.pop_layer()
        assert conn.read_exactly(999) == b"x" * 999


class Encrypted:
    """Rounds with TLS, which need certificates."""

    def __init__(self, certificates: Certificates) -> None:
        self.server_context = certificates.server_context()
        self.client_context = certificates.client_context()

    def talk(self) -> None:
        with pair() as (server, peer):
            client = sk_conn(peer.dup())
            handshake = spawn(server.start_tls, self.server_context, server_side=True)
            client.start_tls(self.client_context, server_hostname="localhost")
            handshake.get()
            server.write(BULK)
            assert client.read_exactly(len(BULK)) == BULK
            client.close()
            assert server.recv(1) == b""
            server.close()

    def fail(self) -> None:
        for garbage in (b"GET / HTTP/1.0\r\n\r\n", b""):
            with pair() as (conn, peer):
                peer.send(garbage)
                peer.shutdown(1)
                result = attempt(
                    lambda conn: conn.start_tls(self.server_context, server_side=True), conn
                )
                assert isinstance(result, ssl.SSLError)

    def time_out(self) -> None:
        with pair() as (conn, _):
            attempt(
                lambda conn: conn.start_tls(self.server_context, server_side=True, timeout=1), conn
            )

    def by_callbacks(self) -> None:
        recorder = Recorder(data=lambda conn: conn.write(recorder.received))
        with pair() as (server, peer):
            server.push_layer(TLSLayer(self.server_context, server_side=True))
            server.set_callbacks(recorder)
            client = sk_conn(peer.dup())
            client.start_tls(self.client_context, server_hostname="localhost")
            client.write(b"x" * 1000)
            assert client.read_exactly(1000) == b"x" * 1000
            client.close()
            sleep(MOMENT)
            assert recorder.log == ["data", "eof", "close"]

    def failing_callbacks(self) -> None:
        for garbage in (b"GET / HTTP/1.0\r\n\r\n", b""):
            with pair() as (conn, peer):
                recorder = Recorder()
                conn.push_layer(TLSLayer(self.server_context, server_side=True))
                conn.set_callbacks(recorder)
                peer.sendall(garbage)
                peer.shutdown(1)
                sleep(MOMENT)
                assert recorder.log == ["error", "close"]

    def cancel(self) -> None:
        with pair() as (conn, _):
            task = spawn(conn.start_tls, self.client_context, server_hostname="localhost")
            sleep(0)
            task.cancel()
            task.join()


def count_layers() -> int:
    gc.collect()
    return sum(isinstance(item, TransportLayer) for item in gc.get_objects())


def check(case: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    # A failure to clear is reported, and the report would keep what it is about.
    monkeypatch.setattr(sys, "unraisablehook", lambda report: None)
    sleep(MOMENT)
    run_rounds(case, WARM_UP // 2)
    descriptors, objects, layers = open_descriptors(), count_objects(), count_layers()
    more_blocks = least_growth(case, sys.getallocatedblocks)
    assert open_descriptors() == descriptors
    assert count_objects() == objects
    assert count_layers() == layers
    assert more_blocks < SPARE_BLOCKS <= ROUNDS


@pytest.mark.parametrize(
    "case",
    [
        read_and_write,
        filtering,
        failing,
        failing_in_the_background,
        failing_in_callbacks,
        pushed_in_mid_stream,
        draining,
        dropped_in_a_cycle,
        proxied,
    ],
    ids=lambda case: case.__name__,
)
def test_no_layer_stays_behind(case: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    check(case, monkeypatch)


@pytest.mark.parametrize(
    "name", ["talk", "fail", "time_out", "cancel", "by_callbacks", "failing_callbacks"]
)
def test_no_tls_stays_behind(
    name: str, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(getattr(Encrypted(certificates), name), monkeypatch)


def test_what_layers_are_given_keeps_its_reference_count() -> None:
    data = bytes(bytearray(b"some bytes"))
    seen: list[Any] = [None]

    class Holding(TransportLayer):
        def wrap(self, data: bytes) -> bytes:
            seen[0] = data
            return data

    with pair() as (conn, peer):
        conn.push_layer(Holding())
        before = sys.getrefcount(data), sys.getrefcount(conn)
        for _ in range(50):
            conn.write(data)
            conn.enqueue(data)
            peer.send(data)
            assert conn.read_exactly(len(data)) == data
            drain_now(peer)
        count = sys.getrefcount(seen[0])  # an assert would keep one more
        assert count == 2
        assert (sys.getrefcount(data), sys.getrefcount(conn)) == before


@pytest.mark.parametrize("size", [20_000, 100_000], ids=["whole", "views"])
def test_long_bytes_given_to_layers_keep_their_reference_count(size: int) -> None:
    class Shrinking(TransportLayer):
        _takes_views = True

        def wrap(self, data: bytes) -> bytes:
            return b"x"

    data = bytes(size)
    with pair() as (conn, peer):
        conn.push_layer(Shrinking())
        before = sys.getrefcount(data)
        for _ in range(50):
            conn.write(data)
            conn.enqueue(data)
            conn.flush()
            assert peer.recv(1000)
        assert sys.getrefcount(data) == before


def test_layer_object_is_given_back_by_pop() -> None:
    layer = TLSLayer(ssl.create_default_context(), server_hostname="x")
    before = sys.getrefcount(layer)
    with pair() as (conn, _):
        conn.push_layer(layer)
        assert sys.getrefcount(layer) == before + 1
        assert conn.pop_layer() is layer
        assert sys.getrefcount(layer) == before
