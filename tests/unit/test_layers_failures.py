"""Layers that fail, or do what they may not do."""

from __future__ import annotations

import socket
import zlib
from typing import Any

import pytest
from connections import Ends, attempt, drain_now, fill
from layer_case import Failing, Named, read_behind

import pycoronet
from pycoronet import WRITE, ClosedError, TransportLayer, spawn
from pycoronet.layers import ExpansionError, Zlib, accept_proxy

# Failures.


def test_unwrap_that_raises_closes_with_that_error(ends: Ends) -> None:
    conn, peer = ends.pair()
    layer = Failing("unwrap")
    conn.push_layer(layer)
    peer.sendall(b"x")
    with pytest.raises(ZeroDivisionError):
        conn.recv(10)
    assert conn.closed
    with pytest.raises(ClosedError):
        conn.recv(10)
    conn.close()
    assert layer.cleared == 1
    assert peer.recv(10) == b""


def test_what_was_emitted_before_a_failure_is_sent(ends: Ends) -> None:
    class Alert(TransportLayer):
        def unwrap(self, data: bytes) -> bytes:
            self.emit(b"alert")
            raise ZeroDivisionError

    conn, peer = ends.pair()
    below = Named(b"below")
    conn.push_layer(below)
    conn.push_layer(Alert())
    peer.sendall(b"x")
    with pytest.raises(ZeroDivisionError):
        conn.readln()
    assert peer.recv(100) == b"below(alert)"
    assert peer.recv(100) == b""
    assert below.calls[-1] == "on_clear"


def test_wrap_that_raises_closes_with_that_error(ends: Ends) -> None:
    conn, peer = ends.pair()
    layer = Failing("wrap")
    conn.push_layer(layer)
    reader = spawn(attempt, conn.recv, 10)
    pycoronet.sleep(0)
    with pytest.raises(ZeroDivisionError):
        conn.write(b"x")
    assert conn.closed
    assert isinstance(reader.get(), ClosedError)
    assert layer.cleared == 1
    assert peer.recv(10) == b""


def test_leftover_that_cannot_be_had_closes_with_that_error(ends: Ends) -> None:
    class Lost(TransportLayer):
        @property
        def leftover(self) -> bytes:
            raise ZeroDivisionError

    conn, peer = ends.pair()
    conn.push_layer(Lost())
    with pytest.raises(ZeroDivisionError):
        conn.pop_layer()  # what it holds is missing from the stream
    assert conn.closed
    assert peer.recv(10) == b""


def test_failure_in_the_background_is_told_to_the_reader_that_waits(ends: Ends) -> None:
    conn, _ = ends.pair()
    conn.push_layer(Failing("wrap"))
    conn.buffered = True
    conn.write(b"x")
    with pytest.raises(ZeroDivisionError):
        conn.recv(10)  # waiting sends what was collected
    with pytest.raises(ClosedError):
        conn.write(b"x")


@pytest.mark.parametrize("verb", ["recv", "write", "close"])
def test_failure_in_the_background_is_told_to_the_next_user(ends: Ends, verb: str) -> None:
    conn, _ = ends.pair()
    conn.push_layer(Failing("wrap"))
    conn.buffered = True
    conn.write(b"x")
    pycoronet.sleep(0)
    assert conn.closed
    arguments = {"recv": [10], "write": [b"y"], "close": []}[verb]
    with pytest.raises(ZeroDivisionError):
        getattr(conn, verb)(*arguments)
    conn.close()
    with pytest.raises(ClosedError):
        conn.recv(1)


def test_finish_that_raises_is_told_by_close(ends: Ends) -> None:
    conn, peer = ends.pair()
    layer = Failing("finish")
    conn.push_layer(layer)
    conn.buffered = True
    conn.write(b"sent before")
    with pytest.raises(ZeroDivisionError):
        conn.close()
    assert peer.recv(100) == b"sent before"
    assert peer.recv(100) == b""
    assert layer.cleared == 1


def test_started_that_raises_closes(ends: Ends) -> None:
    conn, _ = ends.pair()
    layer = Failing("started")
    with pytest.raises(ZeroDivisionError):
        conn.push_layer(layer)
    assert conn.closed
    assert layer.cleared == 1


def test_on_clear_that_raises_is_reported(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", lambda report: reports.append(report.exc_value))
    conn, peer = ends.pair()
    conn.push_layer(Failing("on_clear"))
    conn.close()
    assert [type(report) for report in reports] == [ZeroDivisionError]
    assert peer.recv(10) == b""


@pytest.mark.parametrize("result", [None, "text", 5, [1, 2]])
def test_layer_that_returns_no_bytes_fails(ends: Ends, result: Any) -> None:
    class Wrong(TransportLayer):
        def wrap(self, data: bytes) -> Any:
            return result

    conn, _ = ends.pair()
    conn.push_layer(Wrong())
    with pytest.raises(TypeError, match="wrap"):
        conn.write(b"x")
    assert conn.closed


def test_layer_may_return_any_buffer(ends: Ends) -> None:
    class Buffers(TransportLayer):
        def wrap(self, data: bytes) -> Any:
            return bytearray(data)

        def unwrap(self, data: bytes) -> Any:
            return memoryview(data)

    conn, peer = ends.pair()
    conn.push_layer(Buffers())
    conn.write(b"x")
    assert peer.recv(10) == b"x"
    peer.sendall(b"y")
    assert conn.recv(10) == b"y"


# What a layer may not do.


def test_layer_that_waits_is_refused(ends: Ends) -> None:
    other, _ = ends.pair()

    class Waiting(TransportLayer):
        def unwrap(self, data: bytes) -> bytes:
            return bytes(other.recv(1))

    conn, peer = ends.pair()
    conn.push_layer(Waiting())
    peer.sendall(b"x")
    with pytest.raises(RuntimeError, match="layer"):
        conn.recv(10)
    assert conn.closed
    assert not other.closed


@pytest.mark.parametrize(
    "wait",
    [lambda: pycoronet.sleep(1), lambda: spawn(int).join(), lambda: pycoronet.get_hub().run()],
)
def test_layer_that_waits_for_others_is_refused(ends: Ends, wait: Any) -> None:
    class Waiting(TransportLayer):
        def wrap(self, data: bytes) -> bytes:
            wait()
            return data

    conn, _ = ends.pair()
    conn.push_layer(Waiting())
    with pytest.raises(RuntimeError):
        conn.write(b"x")


@pytest.mark.parametrize(
    "use",
    [
        lambda conn: conn.recv(1),
        lambda conn: conn.write(b"x"),
        lambda conn: conn.flush(),
        lambda conn: conn.push_layer(TransportLayer()),
        lambda conn: conn.pop_layer(),
    ],
)
def test_layer_that_uses_its_own_connection_is_refused(ends: Ends, use: Any) -> None:
    class Using(TransportLayer):
        def unwrap(self, data: bytes) -> bytes:
            use(conn)
            return data

    conn, peer = ends.pair()
    conn.push_layer(Using())
    peer.sendall(b"x")
    with pytest.raises(RuntimeError, match="part of"):
        conn.recv(10)


def test_layer_may_use_other_connections_without_waiting(ends: Ends) -> None:
    other, other_peer = ends.pair("tcp")

    class Copying(TransportLayer):
        def unwrap(self, data: bytes) -> bytes:
            for _ in range(600):  # more than makes others get their turn elsewhere
                other.write(b"c")
            return data

    conn, peer = ends.pair()
    conn.push_layer(Copying())
    peer.sendall(b"x")
    assert conn.recv(10) == b"x"
    other.close()
    assert read_behind(other_peer, 0) == b"c" * 600


@pytest.mark.parametrize("method", ["wrap", "unwrap", "started", "finish"])
@pytest.mark.parametrize("verb", ["close", "abort"])
def test_layer_may_close_its_connection(ends: Ends, method: str, verb: str) -> None:
    conn, peer = ends.pair()
    layer = Failing()

    def close(*arguments: object) -> bytes:
        getattr(conn, verb)()
        return b"gone"

    setattr(layer, method, close)

    def use() -> None:
        conn.push_layer(layer)
        peer.sendall(b"x")
        conn.recv(10)
        conn.write(b"y")

    if method == "finish":
        use()
        conn.close()
    else:
        with pytest.raises(ClosedError):
            use()
    assert conn.closed
    assert layer.cleared == 1


# Two that ship, on real connections.


@pytest.mark.optimisation("much is received at once")
def test_zlib_bomb_closes_the_connection(ends: Ends) -> None:
    conn, peer = ends.pair()
    layer = Zlib(limit=1_000_000)
    conn.push_layer(layer)
    peer.sendall(zlib.compress(bytes(20_000_000), 9))
    with pytest.raises(ExpansionError):
        conn.recv(100)
    assert conn.closed


def test_proxy_header_comes_off_and_leaves_a_plain_connection(ends: Ends) -> None:
    conn, peer = ends.pair()
    peer.sendall(b"PROXY TCP4 192.0.2.1 198.51.100.2 50000 443\r\nGET / HTTP/1.1\r\n")
    header = accept_proxy(conn)
    assert header.source == ("192.0.2.1", 50000)
    assert conn.layers == ()
    assert conn.readln() == b"GET / HTTP/1.1\r\n"


def test_proxy_header_that_comes_too_late(ends: Ends, virtual_hub: pycoronet.Hub) -> None:
    conn, peer = ends.pair()
    peer.sendall(b"PROXY TC")
    with pytest.raises(TimeoutError):
        accept_proxy(conn, timeout=5)
    assert conn.closed
    peer.close()


# Interrupted.


def shut_down_in_vain(conn: Any) -> None:
    conn.timeo = 0
    with pytest.raises(TimeoutError):
        conn.shutdown(socket.SHUT_WR)
    conn.timeo = None


def read_to_end(peer: socket.socket) -> bytes:
    return b"".join(iter(lambda: peer.recv(1 << 20), b""))


def test_shutdown_that_is_interrupted_ends_no_layer(ends: Ends) -> None:
    conn, peer = ends.pair()
    taken = fill(conn)
    layer = Named(b"n")
    conn.push_layer(layer)
    conn.enqueue([b"first"])
    shut_down_in_vain(conn)
    conn.enqueue([b" second"])
    shut_down_in_vain(conn)
    while taken > 0:
        taken -= len(drain_now(peer, taken))
    conn.shutdown(socket.SHUT_WR)
    assert read_to_end(peer) == b"n(first second)n."
    assert layer.calls.count("finish") == 1


def test_shutdown_that_is_held_and_interrupted_ends_no_layer(ends: Ends) -> None:
    conn, peer = ends.pair()
    layer = Named(b"n")
    conn.push_layer(layer)
    conn.disable(WRITE)
    shut_down_in_vain(conn)
    conn.enable(WRITE)
    conn.write(b"x")
    conn.shutdown(socket.SHUT_WR)
    assert read_to_end(peer) == b"n(x)n."


def test_shutdown_that_is_interrupted_in_the_last_words_goes_on_with_them(ends: Ends) -> None:
    class Verbose(Named):
        def finish(self) -> bytes:
            super().finish()
            return bytes(8_000_000)

    conn, peer = ends.pair()
    layer = Verbose(b"n")
    conn.push_layer(layer)
    shut_down_in_vain(conn)
    ending = spawn(conn.shutdown, socket.SHUT_WR)
    reader = ends.keep(pycoronet.sk_conn(peer.detach()))
    assert reader.read(9_000_000) == bytes(8_000_000)
    assert ending.get() is None
    assert layer.calls.count("finish") == 1
