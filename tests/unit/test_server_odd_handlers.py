"""Server with handlers that do what they like: with their connection, their callbacks, their time.

Whatever they do, nothing stays counted, open or unreported.
"""

from __future__ import annotations

import gc
import os
import socket
import weakref
from typing import Any

import pytest
from recorders import Recorder, turn
from server_case import counts

import pycoronet
from pycoronet import Protocol, Server, get_hub, sleep, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")

LOCAL = ("127.0.0.1", 0)


# --- Protocols that end, leave or change ---------------------------------------------------------


def test_a_protocol_may_close_in_on_open(serve: Any, call: Any, reports: list[Any]) -> None:
    for name in ("close", "abort"):
        protocol = Recorder(open=lambda conn, name=name: getattr(conn, name)())
        server = serve(protocol, max_connections=1, total_timeout=5)
        for _ in range(3):
            peer = call(server)
            turn()
            assert peer.recv(1) == b""
        assert counts(server) == (0, 3, {})
        assert protocol.log == ["open", "close"] * 3
        sleep(10)
        assert counts(server) == (0, 3, {})
    assert reports == []


def test_a_protocol_may_take_the_descriptor(serve: Any, call: Any) -> None:
    taken: list[int] = []

    class Taker(Recorder):
        def on_data(self, conn: Any) -> None:
            super().on_data(conn)
            taken.append(conn.detach())

    protocol = Taker()
    server = serve(protocol, total_timeout=5)
    peer = call(server)
    peer.sendall(b"x")
    turn()
    assert counts(server) == (0, 1, {})
    sleep(10)
    os.write(taken[0], b"still open")
    os.close(taken[0])
    assert peer.recv(20) == b"still open"
    assert protocol.log == ["open", "data", "close"]


def test_a_function_may_take_the_descriptor(serve: Any, call: Any, reports: list[Any]) -> None:
    taken: list[int] = []

    def handler(conn: Any, _: object) -> None:
        conn.take(10)
        taken.append(conn.detach())

    server = serve(handler)
    peer = call(server)
    peer.sendall(b"x")
    turn()
    assert counts(server) == (0, 1, {})
    os.close(taken.pop())
    assert peer.recv(1) == b""
    assert reports == []


def test_callbacks_replaced_by_others_are_called_and_the_end_is_noted(
    serve: Any, call: Any
) -> None:
    second = Recorder()

    def handler(conn: Any, _: object) -> None:
        conn.take(1)
        conn.set_callbacks(second)

    server = serve(handler, delay=2, total_timeout=50)
    peer = call(server)
    peer.sendall(b"xyz")
    turn()
    assert second.received == b"yz"
    assert counts(server)[0] == 1
    peer.close()
    turn()
    assert second.log[-1] == "close"
    sleep(3)
    assert counts(server) == (0, 1, {})
    sleep(100)
    assert counts(server) == (0, 1, {})


@pytest.mark.parametrize("way", ["stop", "close", "total_timeout"])
def test_replaced_callbacks_do_not_outlive_the_server_s_limits(
    serve: Any, call: Any, way: str
) -> None:
    second = Recorder()
    server = serve(
        lambda conn, _: conn.set_callbacks(second),
        delay=100,
        total_timeout=20 if way == "total_timeout" else None,
    )
    peer = call(server)
    peer.sendall(b"x")
    turn()
    began = get_hub().time
    if way == "stop":
        assert server.stop(3) == 1
        # Nobody is there who would say that it has ended, and so nobody is waited for.
        assert get_hub().time - began < 4
    elif way == "close":
        server.close()
    else:
        sleep(30)
        assert counts(server)[2] == {"timeout": 1}
    turn()
    assert server.stats.open == 0
    assert second.log[-1] == "close"
    assert peer.recv(1) == b""


def test_a_task_may_take_over_from_a_function_at_the_end_of_the_stream(
    serve: Any, call: Any
) -> None:
    def answer(conn: Any) -> None:
        with conn:
            sleep(1)
            conn.write(conn.read(100))

    calls: list[int] = []

    def handler(conn: Any, _: object) -> None:
        calls.append(conn.available)
        if len(calls) == 2:  # the last time
            conn.set_callbacks(None)
            spawn(answer, conn)

    server = serve(handler, delay=0.5)
    peer = call(server)
    peer.sendall(b"abc")
    peer.shutdown(socket.SHUT_WR)
    sleep(2)
    assert peer.recv(10) == b"abc"
    assert counts(server) == (0, 1, {})


def test_the_total_timeout_does_not_keep_what_has_ended(serve: Any, call: Any) -> None:
    ended: list[Any] = []
    server = serve(Recorder(close=lambda conn: ended.append(weakref.ref(conn))), total_timeout=1e6)
    call(server).close()
    turn()
    assert counts(server) == (0, 1, {})
    gc.collect()
    assert [each() for each in ended] == [None]


def test_a_protocol_that_closes_later_is_counted_until_then(serve: Any, call: Any) -> None:
    protocol = Recorder(data=lambda conn: get_hub().call_later(3, conn.close))
    server = serve(protocol)
    call(server).sendall(b"x")
    turn()
    assert counts(server) == (1, 0, {})
    sleep(4)
    assert counts(server) == (0, 1, {})


# --- Protocols that cannot be made ---------------------------------------------------------------


class Broken(Protocol):
    def __init__(self) -> None:
        raise LookupError("no protocol today")


class Incomplete:
    def on_data(self, conn: Any) -> None:
        pass


def test_a_factory_that_raises_costs_one_connection_each_time(
    serve: Any, call: Any, reports: list[Any]
) -> None:
    server = serve(Broken, max_connections=1, max_per_address=1, total_timeout=5)
    for _ in range(3):
        peer = call(server)
        turn()
        assert peer.recv(1) == b""
    assert counts(server) == (0, 0, {"handler": 3})
    assert [type(error) for error in reports] == [LookupError] * 3
    sleep(10)
    assert counts(server) == (0, 0, {"handler": 3})


@pytest.mark.parametrize("handler", [Incomplete, Incomplete()])
def test_a_protocol_without_all_methods_is_refused_by_listen(handler: Any) -> None:
    with pytest.raises(TypeError, match="on_open"):
        Server(LOCAL, handler, strategy="callback").listen()


def test_callbacks_that_cannot_be_installed_cost_one_connection(
    serve: Any, call: Any, reports: list[Any]
) -> None:
    class Changed(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.on_ready = None  # type: ignore[method-assign,assignment]

    server = serve(Changed)
    peer = call(server)
    turn()
    assert peer.recv(1) == b""
    assert counts(server) == (0, 0, {"handler": 1})
    assert [type(error) for error in reports] == [TypeError]


@pytest.mark.parametrize("event", ["open", "data", "eof", "close"])
def test_a_callback_that_raises_ends_its_connection_and_is_reported(
    serve: Any, call: Any, reports: list[Any], event: str
) -> None:
    def fail(_: object) -> None:
        raise ConnectionRefusedError("by somebody else")

    protocol = Recorder(**{event: fail})
    server = serve(protocol)
    peer = call(server)
    peer.sendall(b"x")
    peer.shutdown(socket.SHUT_WR)
    turn()
    assert server.stats.open == 0
    # It is the handler's error, though a broken connection of its own would be "reset".
    errors = {} if event == "close" else {"handler": 1}
    assert counts(server) == (0, 1, errors)
    assert [type(error) for error in reports] == [ConnectionRefusedError]


# --- Coroutines ----------------------------------------------------------------------------------


def test_a_handler_may_detach_its_connection_and_return(serve: Any, call: Any) -> None:
    taken: list[int] = []
    server = serve(lambda conn, _: taken.append(conn.detach()), "coroutine")
    peer = call(server)
    turn()
    assert counts(server) == (0, 1, {})
    os.write(taken[0], b"mine")
    os.close(taken.pop())
    assert peer.recv(10) == b"mine"


def test_a_handler_that_keeps_its_connection_finds_it_closed(serve: Any, call: Any) -> None:
    kept: list[Any] = []
    server = serve(lambda conn, _: kept.append(conn), "coroutine")
    peer = call(server)
    turn()
    assert kept[0].closed
    assert peer.recv(1) == b""
    assert counts(server) == (0, 1, {})


def test_what_a_handler_leaves_to_be_sent_is_sent_though_the_server_has_stopped(
    serve: Any, call: Any
) -> None:
    content = bytes(range(256)) * 40_000

    def handler(conn: Any, _: object) -> None:
        conn.enqueue(content)

    for way in ("stop", "stop and close"):
        server = serve(handler, "coroutine")
        peer = call(server)
        turn()
        assert server.stop() == 0
        if way == "stop and close":
            server.close()
        received = b""
        while len(received) < len(content):
            piece = peer.recv(1 << 20)
            assert piece
            received += piece
            turn(1)
        assert received == content


@pytest.mark.parametrize("strategy", ["coroutine", "callback"])
def test_a_handler_that_never_returns_is_cancelled_by_stop(
    serve: Any, call: Any, strategy: str
) -> None:
    ended: list[Any] = []

    def never(conn: Any, _: object) -> None:
        try:
            while True:
                sleep(1000)
        except pycoronet.Cancelled as reason:
            ended.append(str(reason))
            raise

    handler = never if strategy == "coroutine" else Recorder(close=ended.append)
    server = serve(handler, strategy)
    peers = [call(server) for _ in range(5)]
    turn()
    began = get_hub().time
    assert server.stop(10) == 5
    assert 10 <= get_hub().time - began < 11
    assert counts(server) == (0, 5, {})
    assert server.stats.cancelled == 5
    assert len(ended) == 5
    assert [peer.recv(1) for peer in peers] == [b""] * 5


def test_a_handler_that_refuses_to_end_is_abandoned(serve: Any, call: Any) -> None:
    def stubborn(conn: Any, _: object) -> None:
        while True:
            try:
                sleep(1)
            except pycoronet.Cancelled:
                if conn.closed:
                    break
                with pycoronet.shield():
                    sleep(100)

    server = serve(stubborn, "coroutine")
    peer = call(server)
    turn()
    began = get_hub().time
    assert server.stop(2) == 1
    assert 2 <= get_hub().time - began < 10
    assert counts(server) == (0, 1, {})
    assert peer.recv(1) == b""
    sleep(200)
    assert counts(server) == (0, 1, {})


def test_stop_without_time_does_not_wait_for_those_that_have_not_begun(
    serve: Any, call: Any
) -> None:
    server = serve(lambda conn, _: conn.readln(), "coroutine")
    turn()
    peers = [call(server) for _ in range(3)]
    began = get_hub().time
    assert server.stop(0) == 3
    assert get_hub().time - began < 1
    assert counts(server)[0] == 0
    assert [peer.recv(1) for peer in peers] == [b""] * 3


def test_close_before_a_handler_has_begun_leaves_nothing_counted(serve: Any, call: Any) -> None:
    server = serve(lambda conn, _: conn.readln(), "coroutine")
    server.close()

    def handler(conn: Any, _: object) -> None:
        # The next one is accepted before this returns, and has not begun.
        conn.server.close()

    server = serve(handler, "coroutine")
    peers = [call(server) for _ in range(3)]
    turn()
    assert counts(server)[0] == 0
    assert [attempt_to_read(peer) for peer in peers] == [b""] * 3


def attempt_to_read(peer: socket.socket) -> bytes:
    try:
        return peer.recv(1)
    except ConnectionResetError:
        return b""


def test_failures_of_other_connections_are_the_handler_s_own(
    serve: Any, call: Any, reports: list[Any]
) -> None:
    def handler(conn: Any, _: object) -> None:
        conn.readln()
        raise ConnectionRefusedError("the database is down")

    server = serve(handler, "coroutine")
    call(server).sendall(b"\n")
    turn()
    assert [type(error) for error in reports] == [ConnectionRefusedError]
    assert counts(server) == (0, 1, {"handler": 1})


def test_a_time_limit_of_the_handler_s_own_is_its_own(
    serve: Any, call: Any, reports: list[Any]
) -> None:
    def handler(conn: Any, _: object) -> None:
        with pycoronet.timeout(3):
            sleep(10)

    server = serve(handler, "coroutine", total_timeout=50, idle_timeout=50)
    call(server)
    sleep(5)
    assert [type(error) for error in reports] == [TimeoutError]
    assert counts(server) == (0, 1, {"handler": 1})
