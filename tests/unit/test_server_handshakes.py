"""Server with TLS: what becomes of handshakes, by each strategy that serves in the hub."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from connections import count_descriptors
from recorders import Recorder, reset, turn
from server_case import counts
from tls_peer import TlsPeer

from pycoronet import Protocol, sleep, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")


class Broken(Protocol):
    def __init__(self) -> None:
        raise LookupError("no protocol today")


def echo(conn: Any, _: object) -> None:
    if conn.server.strategy == "callback":
        conn.write(conn.take(100))
    else:
        for line in conn:
            conn.write(line)


both = pytest.mark.parametrize("strategy", ["coroutine", "callback"])


@pytest.fixture
def secure(serve: Any, certificates: Any) -> Callable[..., Any]:
    """Return a function that starts a server that talks TLS."""

    def start(strategy: str, handler: Any = echo, **settings: Any) -> Any:
        return serve(handler, strategy, tls=certificates.server_context(), **settings)

    return start


@both
def test_tls_is_served_by_each_strategy(
    secure: Any, call: Any, certificates: Any, strategy: str
) -> None:
    server = secure(strategy)
    peer = TlsPeer(call(server), certificates.client_context())
    peer.shake_hands()
    for _ in range(3):
        peer.send(peer.encrypted(b"hello\n"))
        assert peer.read(6) == b"hello\n"
    peer.send(peer.end())
    peer.sock.close()
    turn()
    assert counts(server) == (0, 1, {})


@both
def test_what_comes_with_the_end_of_the_handshake_is_served(
    secure: Any, call: Any, certificates: Any, strategy: str
) -> None:
    server = secure(strategy)
    peer = TlsPeer(call(server), certificates.client_context())
    peer.sock.sendall(peer.hello())
    turn()
    while True:
        try:
            peer.tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            peer.take_in()
    peer.send(peer.outgoing.read() + peer.encrypted(b"hello\n"))
    assert peer.read(6) == b"hello\n"
    assert counts(server)[0] == 1


@both
@pytest.mark.leaves_something("the traceback of an error that was logged")
@pytest.mark.parametrize("fault", ["nonsense", "end", "reset", "silence"])
def test_a_handshake_that_fails_concerns_that_client_alone(
    secure: Any,
    call: Any,
    certificates: Any,
    strategy: str,
    fault: str,
    reports: list[Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "pycoronet")
    server = secure(strategy, handshake_timeout=5, max_connections=2, total_timeout=60)
    before = count_descriptors()
    other = TlsPeer(call(server), certificates.client_context())
    other.shake_hands()
    peer = call(server)
    turn()
    assert server.stats.open == 2
    if fault == "nonsense":
        peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
    elif fault == "end":
        peer.close()
    elif fault == "reset":
        reset(peer)
    else:
        sleep(4)
        assert server.stats.open == 2
        sleep(2)
    turn()
    assert counts(server) == (1, 1, {"tls": 1})
    assert reports == []
    (record,) = caplog.records
    assert record.name == "pycoronet.tls"
    other.send(other.encrypted(b"hello\n"))
    assert other.read(6) == b"hello\n"
    peer.close()
    assert count_descriptors() == before + 2


@both
def test_clients_that_never_begin_the_handshake_go_by_the_total_timeout(
    secure: Any, call: Any, certificates: Any, strategy: str
) -> None:
    server = secure(strategy, handshake_timeout=None, total_timeout=20)
    silent = [call(server) for _ in range(50)]
    sleep(15)
    peer = TlsPeer(call(server), certificates.client_context())
    peer.shake_hands()
    assert server.stats.open == 51
    sleep(6)
    assert counts(server) == (1, 50, {"timeout": 50})
    assert {client.recv(1) for client in silent} == {b""}
    peer.send(peer.encrypted(b"hello\n"))
    assert peer.read(6) == b"hello\n"
    sleep(15)
    assert counts(server) == (0, 51, {"timeout": 51})


@both
@pytest.mark.parametrize("way", ["stop", "close"])
def test_clients_in_the_handshake_end_with_the_server(
    secure: Any, call: Any, strategy: str, way: str, reports: list[Any]
) -> None:
    server = secure(strategy, handshake_timeout=100)
    peers = [call(server) for _ in range(3)]
    turn()
    assert server.stats.open == 3
    if way == "stop":
        assert server.stop(5) == 3
    else:
        server.close()
    turn()
    assert server.stats.open == 0
    assert [peer.recv(1) for peer in peers] == [b""] * 3
    assert reports == []


def test_one_that_ends_its_handshake_while_the_server_stops_is_told(
    secure: Any, call: Any, certificates: Any
) -> None:
    protocol = Recorder(shutdown=lambda conn: conn.close())
    server = secure("callback", protocol)
    peer = TlsPeer(call(server), certificates.client_context())
    turn()
    stopping = spawn(server.stop, 50)
    turn()
    peer.shake_hands()
    turn()
    assert protocol.log == ["open", "shutdown", "close"]
    assert stopping.get() == 0


@pytest.mark.parametrize("kind", ["raises", "incomplete"])
def test_a_protocol_that_cannot_be_installed_after_the_handshake(
    secure: Any, call: Any, certificates: Any, kind: str, reports: list[Any]
) -> None:
    class Changed(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.on_ready = None  # type: ignore[method-assign,assignment]

    server = secure("callback", Broken if kind == "raises" else Changed)
    peer = TlsPeer(call(server), certificates.client_context())
    peer.shake_hands()
    turn()
    assert counts(server) == (0, 1, {"handler": 1})
    assert [type(error) for error in reports] == [LookupError if kind == "raises" else TypeError]
    peer.take_in()
    while peer.sock.recv(1000):
        pass


def test_a_client_that_cuts_tls_off_is_counted_and_not_reported(
    secure: Any, call: Any, certificates: Any, reports: list[Any]
) -> None:
    for strategy in ("coroutine", "callback"):
        server = secure(strategy)
        peer = TlsPeer(call(server), certificates.client_context())
        peer.shake_hands()
        peer.sock.close()
        turn()
        # A reset if there was something unread.
        assert counts(server) in [(0, 1, {"tls": 1}), (0, 1, {"reset": 1})]
    assert reports == []
