"""Leaks of servers in the hub: what is served, what fails, and each way to end.

Those of the thread-pool strategy are in test_thread_leaks.py.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from leak_case import check_rounds

import pycoronet
from pycoronet import Protocol, Server, Task, sk_conn, sleep
from pycoronet.server import Stats

pytestmark = pytest.mark.usefixtures("virtual_hub")

LOCAL = ("127.0.0.1", 0)
TYPES = (sk_conn, Task, Server, Stats)
MOMENT = 0.001

# To begin and end a server takes a while.
ROUNDS = 30


@contextmanager
def peer_of(server: Any) -> Iterator[socket.socket]:
    """Give a client of a server, gone after it."""
    with socket.create_connection(server.addresses[0], 20) as peer:
        yield peer


def turn(times: int = 3) -> None:
    for _ in range(times):
        sleep(MOMENT)


def echo(conn: Any, _: object) -> None:
    for line in conn:
        conn.write(line)


def echo_what_is_there(conn: Any, _: object) -> None:
    conn.write(conn.take(65536))


class Echo(Protocol):
    def on_data(self, conn: Any) -> None:
        conn.write(conn.take(65536))


def fail(conn: Any, _: object) -> None:
    if conn.callbacks is not None:
        conn.take(10)
    raise LookupError


class Failing(Protocol):
    def __init__(self) -> None:
        raise LookupError


HANDLERS: dict[str, tuple[str, Any]] = {
    "coroutine": ("coroutine", echo),
    "callback": ("callback", echo_what_is_there),
    "protocol": ("callback", Echo),
}
each_kind = pytest.mark.parametrize("kind", list(HANDLERS))


def make(kind: str, handler: Any = None, **settings: Any) -> Any:
    strategy, usual = HANDLERS[kind]
    return Server(LOCAL, handler or usual, strategy=strategy, **settings)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pass over what is reported."""
    monkeypatch.setattr("sys.unraisablehook", lambda _: None)


# --- A life ------------------------------------------------------------------------------------


@each_kind
def test_a_server_that_is_used_and_stopped(kind: str) -> None:
    def case() -> None:
        with make(kind, max_connections=5, max_per_address=5, total_timeout=1e5) as server:
            with peer_of(server) as peer:
                peer.sendall(b"hello\n")
                while not server.stats.bytes_sent:
                    turn(1)
                assert peer.recv(10) == b"hello\n"
            turn()

    check_rounds(case, types=TYPES, rounds=ROUNDS)


@pytest.mark.parametrize("kind", ["coroutine", "callback"])
def test_a_server_that_is_only_made_or_only_listens(kind: str) -> None:
    def case() -> None:
        server = make(kind)
        server.add_shutdown_callback(print)
        del server
        server = make(kind)
        server.listen()
        server.close()

    check_rounds(case, types=TYPES, rounds=ROUNDS)


@pytest.mark.parametrize("kind", ["coroutine", "callback"])
def test_a_server_that_serves_again_and_again(kind: str) -> None:
    server = make(kind)

    def case() -> None:
        with server:
            turn(1)

    check_rounds(case, types=TYPES, rounds=ROUNDS)


# --- Ends --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["coroutine", "callback"])
@pytest.mark.parametrize("way", ["stop", "close", "close before it is begun"])
def test_clients_that_stay_until_the_end(kind: str, way: str) -> None:
    def case() -> None:
        server = make(kind, total_timeout=1e5)
        server.start()
        with peer_of(server) as peer:
            if way == "stop":
                turn()
                assert server.stop(1) == 1
            else:
                turn(0 if way == "close before it is begun" else 3)
                server.close()
            turn()
            try:
                assert peer.recv(1) == b""
            except ConnectionResetError:
                assert way == "close before it is begun"

    check_rounds(case, types=TYPES, rounds=ROUNDS)


def test_waiting_between_two_requests() -> None:
    def handler(conn: Any, _: object) -> None:
        while conn.server.await_input(conn) and (line := conn.readln()):
            conn.write(line)

    def case() -> None:
        with make("coroutine", handler) as server, peer_of(server) as peer:
            peer.sendall(b"hello\n")
            turn()
            assert server.stop(10) == 0

    check_rounds(case, types=TYPES, rounds=ROUNDS)


# --- Failures ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize(
    ("kind", "handler"),
    [("coroutine", fail), ("callback", fail), ("protocol", Failing)],
)
def test_handlers_that_raise(kind: str, handler: Any) -> None:
    def case() -> None:
        with make(kind, handler, total_timeout=1e5) as server, peer_of(server) as peer:
            peer.sendall(b"hello\n")
            turn()
            assert server.stats.errors["handler"] == 1

    check_rounds(case, types=TYPES, rounds=ROUNDS)


@pytest.mark.parametrize("kind", ["coroutine", "callback"])
def test_clients_that_break_off(kind: str) -> None:
    def case() -> None:
        with make(kind) as server:
            with peer_of(server) as peer:
                turn()
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            turn()
            assert server.stats.errors["reset"] == 1

    check_rounds(case, types=TYPES, rounds=ROUNDS)


@pytest.mark.parametrize("kind", ["coroutine", "callback"])
@pytest.mark.parametrize("limit", ["idle_timeout", "total_timeout"])
def test_times_that_are_over(kind: str, limit: str) -> None:
    settings: dict[str, Any] = {limit: 2}

    def case() -> None:
        with make(kind, **settings) as server, peer_of(server) as peer:
            sleep(5)
            assert peer.recv(1) == b""

    check_rounds(case, types=TYPES, rounds=ROUNDS)


@pytest.mark.parametrize("kind", ["coroutine", "callback"])
def test_clients_that_are_sent_away(kind: str) -> None:
    def case() -> None:
        with make(kind, max_per_address=1) as server, peer_of(server), peer_of(server) as peer:
            peer.sendall(b"hello\n")
            turn()
            assert peer.recv(1) == b""

    check_rounds(case, types=TYPES, rounds=ROUNDS)


def test_clients_for_whom_there_is_no_descriptor(few_descriptors: Callable[[int], None]) -> None:
    def case() -> None:
        few_descriptors(100)
        with make("coroutine") as server:
            turn()
            few_descriptors(1)
            with peer_of(server) as peer:
                sleep(0.2)
                assert peer.recv(1) == b""
            assert server.stats.shed["descriptors"] == 1

    check_rounds(case, types=TYPES, rounds=ROUNDS)


def test_connections_that_cannot_be_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    for name, kind in (("spawn_handler", "coroutine"), ("_Watched", "callback")):
        with monkeypatch.context() as patch:
            patch.setattr(f"pycoronet.server._strategies.{name}", no_memory)

            def case(kind: str = kind) -> None:
                with make(kind, total_timeout=1e5) as server, peer_of(server) as peer:
                    turn()
                    assert peer.recv(1) == b""

            check_rounds(case, types=TYPES, rounds=ROUNDS)


def test_what_cannot_listen() -> None:
    with socket.create_server(LOCAL) as taken:
        settings: list[dict[str, Any]] = [
            {"address": taken.getsockname()},
            {"address": [LOCAL, taken.getsockname()]},
            {"tls": ("/nowhere.pem", None)},
            {"poolsize_min": 100},
        ]

        def case() -> None:
            for values in settings:
                server = make("coroutine")
                for name, value in values.items():
                    setattr(server, name, value)
                with pytest.raises((OSError, ValueError)):
                    server.start()

        check_rounds(case, types=TYPES, rounds=ROUNDS)


# --- TLS ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["coroutine", "callback"])
@pytest.mark.parametrize("fault", [None, "nonsense", "silence"])
def test_tls(kind: str, fault: str | None, certificates: Any) -> None:
    context, trusting = certificates.server_context(), certificates.client_context()

    def case() -> None:
        with make(kind, tls=context, handshake_timeout=3, total_timeout=1e5) as server:
            if fault is None:
                talk(server)
            else:
                with peer_of(server) as peer:
                    if fault == "nonsense":
                        peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    sleep(5)
                assert server.stats.errors["tls"] == 1

    def talk(server: Any) -> None:
        address = server.addresses[0]
        with pycoronet.connect(address, tls=trusting, server_hostname="localhost") as conn:
            conn.write(b"hello\n")
            assert conn.readln() == b"hello\n"
        turn()

    check_rounds(case, types=(*TYPES, ssl.SSLObject), rounds=ROUNDS)
