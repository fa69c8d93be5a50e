"""Server's limits: how many at once, from one address, how long; and short descriptors."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from connections import PEER_TIMEOUT, count_descriptors, drain_now
from recorders import Recorder, turn
from server_case import HANDLERS, LOCAL, echo

import pycoronet
from pycoronet import Server, sleep, spawn
from pycoronet.server._limits import host_of

pytestmark = pytest.mark.usefixtures("virtual_hub")

each_strategy = pytest.mark.parametrize("strategy", list(HANDLERS))


@pytest.fixture
def serve() -> Any:
    """Return a function that starts an echo server with settings; all are closed in the end."""
    made: list[Any] = []

    def start(strategy: str, address: Any = LOCAL, handler: Any = None, **settings: Any) -> Any:
        handler = HANDLERS[strategy] if handler is None else handler
        made.append(Server(address, handler, strategy=strategy, **settings))
        made[-1].start()
        return made[-1]

    yield start
    for server in made:
        server.close()
    turn()


def answer(peer: socket.socket, line: bytes = b"hello\n") -> bytes:
    """Send a line and return what there is after a turn of the server."""
    peer.sendall(line)
    turn()
    return drain_now(peer)


# --- max_connections ---------------------------------------------------------------------------


@each_strategy
def test_max_connections_leaves_the_rest_queued_and_takes_them_as_others_end(
    serve: Any, call: Any, strategy: str
) -> None:
    server = serve(strategy, max_connections=3)
    peers = [call(server) for _ in range(5)]
    # If a listener were still watched, no virtual time would pass at all.
    sleep(10)
    assert [answer(peer) for peer in peers] == [b"hello\n"] * 3 + [b""] * 2
    assert server.stats.open == server.stats.accepted == 3
    peers[1].close()
    turn()
    assert server.stats.open == 3
    assert server.stats.accepted == 4
    assert drain_now(peers[3]) == b"hello\n"
    assert drain_now(peers[4]) == b""
    for peer in peers[:1] + peers[2:4]:
        peer.close()
    turn()
    assert drain_now(peers[4]) == b"hello\n"
    assert server.stats.open == 1
    assert sum(server.stats.shed.values()) == 0


@each_strategy
def test_max_connections_counts_over_all_addresses(serve: Any, call: Any, strategy: str) -> None:
    server = serve(strategy, [LOCAL, LOCAL], max_connections=2)
    peers = [call(server, which) for which in (0, 1, 0, 1)]
    sleep(10)
    assert sum(answer(peer) == b"hello\n" for peer in peers) == 2
    assert server.stats.open == 2
    for peer in peers:
        peer.close()
    turn()
    assert server.stats.accepted == server.stats.connections_served == 4
    assert server.stats.open == 0


def test_those_queued_behind_max_connections_are_served_while_the_server_stops(
    serve: Any, call: Any
) -> None:
    most = []

    def handler(conn: Any, _: object) -> None:
        most.append(conn.server.stats.open)
        sleep(1)
        conn.write(b"done")

    server = serve("coroutine", handler=handler, max_connections=2)
    peers = [call(server) for _ in range(7)]
    turn()
    assert server.stop(100) == 0
    assert [peer.recv(10) for peer in peers] == [b"done"] * 7
    assert max(most) == 2


@each_strategy
def test_those_that_never_get_in_are_sent_away_in_order_when_the_time_is_over(
    serve: Any, call: Any, strategy: str
) -> None:
    server = serve(strategy, handler=Recorder() if strategy == "callback" else None)
    server.close()
    server.max_connections = 1
    server.start()
    peers = [call(server) for _ in range(3)]
    for peer in peers:
        peer.sendall(b"hello")
    turn()
    assert server.stats.open == 1
    assert server.stop(5) == 1
    assert server.stats.shed["closing"] == 2
    # An end of file; a reset would raise.
    assert [peer.recv(10) for peer in peers] == [b""] * 3


@pytest.mark.leaves_something("handlers that refuse to end")
def test_a_server_that_begins_again_still_counts_those_that_are_not_done(
    serve: Any, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pycoronet.server._strategies.CLEAN_UP_SECONDS", 1)
    settings: dict[str, Any] = {"max_connections": 2, "max_per_address": 2}

    def stubborn(conn: Any, _: object) -> None:
        try:
            conn.readln()
        finally:
            with pycoronet.shield():
                sleep(50)

    server = serve("coroutine", handler=stubborn, **settings)
    call(server)
    turn()
    assert server.stop(1) == 1
    server.start()
    peers = [call(server) for _ in range(2)]
    turn()
    assert server.stats.open == 2
    server.close()
    sleep(60)
    assert server.stats.open == 0
    server.start()
    assert [call(server) for _ in peers]
    turn()
    assert server.stats.open == 2
    assert server.stats.shed["address"] == 0


# --- max_per_address ---------------------------------------------------------------------------


@each_strategy
def test_max_per_address_sends_the_rest_away_in_order(serve: Any, call: Any, strategy: str) -> None:
    server = serve(strategy, max_per_address=2)
    peers = [call(server) for _ in range(4)]
    for peer in peers:
        peer.sendall(b"hello\n")
    turn()
    # Who is sent away gets an end of file though he has sent something: no reset.
    assert [peer.recv(10) for peer in peers] == [b"hello\n"] * 2 + [b""] * 2
    assert server.stats.shed["address"] == 2
    assert server.stats.accepted == 4
    assert server.stats.open == 2
    peers[0].close()
    turn()
    assert answer(call(server)) == b"hello\n"
    assert server.stats.connections_served == 1


@each_strategy
def test_max_per_address_tells_clients_apart_and_spares_unix_sockets(
    serve: Any, ends: Any, call: Any, strategy: str, tmp_path: Path
) -> None:
    server = serve(strategy, [LOCAL, str(tmp_path / "socket")], max_per_address=1)
    for host in ("127.0.0.2", "127.0.0.3"):
        peer = ends.keep(socket.socket())
        peer.settimeout(PEER_TIMEOUT)
        peer.bind((host, 0))
        peer.connect(server.addresses[0])
        assert answer(peer) == b"hello\n"
    for _ in range(3):
        assert answer(call(server, 1)) == b"hello\n"
    assert server.stats.shed["address"] == 0


@pytest.mark.parametrize(
    ("address", "host"),
    [
        (("192.0.2.1", 5), "192.0.2.1"),
        (("::ffff:192.0.2.1", 5, 0, 0), "192.0.2.1"),
        (("2001:db8::1", 5, 0, 0), "2001:db8::1"),
        (("::ffff:0:1", 5, 0, 0), "::ffff:0:1"),
        ("/path", None),
        ("", None),
        (b"\0abstract", None),
    ],
)
def test_what_counts_as_one_address(address: Any, host: Any) -> None:
    assert host_of(address) == host


# --- Times -------------------------------------------------------------------------------------


@each_strategy
def test_500_silent_clients_go_by_the_idle_timeout_while_others_are_served(
    serve: Any, call: Any, strategy: str
) -> None:
    server = serve(strategy, idle_timeout=20)
    silent = [call(server) for _ in range(500)]
    peer = call(server)
    for _ in range(6):
        assert answer(peer) == b"hello\n"
        assert server.stats.open == 501
        sleep(3)
    sleep(5)
    assert server.stats.open == 1
    assert server.stats.errors["timeout"] == 500
    assert {client.recv(1) for client in silent} == {b""}
    assert answer(peer) == b"hello\n"


@each_strategy
def test_a_byte_a_second_is_held_off_by_the_total_timeout_while_others_are_served(
    serve: Any, call: Any, strategy: str
) -> None:
    server = serve(strategy, idle_timeout=5, total_timeout=30, max_connections=20)
    slow = [call(server) for _ in range(10)]

    def drip() -> None:
        while True:
            for peer in slow:
                try:
                    peer.send(b"x")
                except OSError:
                    return
            sleep(1)

    dripping = spawn(drip)
    for _ in range(29):
        # Each at once, however slow the others are.
        peer = call(server)
        assert answer(peer) == b"hello\n"
        peer.close()
        sleep(0.9)
    assert server.stats.open == 10
    sleep(5)
    assert server.stats.open == 0
    assert server.stats.errors["timeout"] == 10
    dripping.cancel()


@each_strategy
def test_a_client_that_takes_nothing_is_idle(serve: Any, call: Any, strategy: str) -> None:
    def pour(conn: Any, _: object) -> None:
        if strategy == "callback":
            conn.take(10)
        conn.write(bytes(64 << 20))

    server = serve(strategy, handler=pour, idle_timeout=5)
    peer = call(server)
    peer.sendall(b"x")
    sleep(4)
    assert server.stats.open == 1
    sleep(8)
    assert server.stats.open == 0
    assert server.stats.errors["timeout"] == 1


def test_the_idle_timeout_is_a_start_that_handlers_may_change(serve: Any, call: Any) -> None:
    def patient(conn: Any, _: object) -> None:
        assert conn.gettimeout() == 5
        conn.settimeout(50)
        conn.write(conn.readln())

    server = serve("coroutine", handler=patient, idle_timeout=5)
    peer = call(server)
    sleep(40)
    assert answer(peer) == b"hello\n"


def test_a_limit_of_the_protocol_s_own_for_one_direction_is_its_own_affair(
    serve: Any, call: Any
) -> None:
    protocol = Recorder(open=lambda conn: conn.set_timeouts(2, None))
    server = serve("callback", handler=protocol, idle_timeout=7)
    peer = call(server)
    sleep(5)
    assert "timeout" in protocol.log
    assert server.stats.open == 1
    sleep(5)
    assert protocol.log[-2:] == ["timeout", "close"]
    assert server.stats.open == 0
    assert server.stats.errors["timeout"] == 1
    assert peer.recv(1) == b""


# --- Descriptors -------------------------------------------------------------------------------


@each_strategy
def test_without_descriptors_all_that_wait_are_sent_away_and_later_ones_served_again(
    serve: Any, call: Any, strategy: str, few_descriptors: Callable[[int], None]
) -> None:
    server = serve(strategy)
    held = [call(server) for _ in range(3)]
    turn()
    peers = [call(server) for _ in range(20)]
    for peer in peers:
        peer.sendall(b"hello\n")
    few_descriptors(0)
    turn()
    # An end of file; a reset would raise.
    assert [peer.recv(10) for peer in peers] == [b""] * 20
    assert server.stats.shed["descriptors"] == 20
    assert server.stats.accepted == 23
    assert server.stats.open == 3
    # Once for the shortage; then it waits, and is not short of anything while nobody comes.
    assert server.stats.errors["accept"] == 1
    sleep(10)
    assert server.stats.errors["accept"] == 1
    assert [answer(peer) for peer in held] == [b"hello\n"] * 3
    few_descriptors(100)
    peer = call(server)
    assert answer(peer) == b"hello\n"
    few_descriptors(0)
    assert answer(held[0]) == b"hello\n"
    assert server.stats.shed["descriptors"] == 20


def test_a_shortage_that_lasts_sends_away_in_rounds_with_pauses(
    serve: Any, ends: Any, few_descriptors: Callable[[int], None]
) -> None:
    server = serve("coroutine")
    turn()
    ready = [ends.keep(socket.socket()) for _ in range(30)]
    few_descriptors(0)
    for peer in ready:
        peer.settimeout(PEER_TIMEOUT)
        peer.connect(server.addresses[0])
        sleep(0.03)
    sleep(1)
    assert [peer.recv(1) for peer in ready] == [b""] * 30
    assert server.stats.shed["descriptors"] == 30
    # 0.9 seconds of clients, and a round each 0.1 seconds at most.
    assert server.stats.errors["accept"] <= 11


def test_a_spare_descriptor_that_somebody_else_has_taken_is_taken_back(
    serve: Any, call: Any, ends: Any, few_descriptors: Callable[[int], None]
) -> None:
    server = serve("coroutine", delay=3)
    turn()
    peer = call(server)
    before = count_descriptors()
    few_descriptors(0)
    # Another thread may be quicker while somebody is being sent away.
    server._acceptor._spare.give()
    thief = ends.keep(socket.socket())
    turn()
    assert server.stats.shed["descriptors"] == 0
    sleep(10)
    assert drain_now(peer) == b""
    thief.close()
    # The server takes the place for the client, or for itself and sends the client away.
    sleep(10)
    assert server.stats.accepted == 1
    few_descriptors(10)
    sleep(10)
    server.close()
    turn()
    assert count_descriptors() == before - 2  # without the listener and the spare one


def test_a_server_that_starts_without_a_spare_descriptor_serves(
    call: Any, ends: Any, few_descriptors: Callable[[int], None]
) -> None:
    server = ends.keep(Server(LOCAL, echo, delay=2))
    server.listen()
    turn()
    peer = call(server)
    few_descriptors(1)
    placeholder = ends.keep(socket.socket())
    server.start()
    few_descriptors(1)
    placeholder.close()
    turn()
    assert answer(peer) == b"hello\n"
    few_descriptors(5)
    sleep(5)
    few_descriptors(0)
    peer = call_late(ends, server, few_descriptors)
    turn()
    assert server.stats.shed["descriptors"] == 1
    assert peer.recv(1) == b""


def call_late(ends: Any, server: Any, few_descriptors: Callable[[int], None]) -> socket.socket:
    """Connect to a server that has no descriptor left."""
    few_descriptors(1)
    peer = ends.keep(socket.socket())
    peer.settimeout(PEER_TIMEOUT)
    peer.connect(server.addresses[0])
    return peer


# --- What cannot be begun ----------------------------------------------------------------------


@each_strategy
@pytest.mark.parametrize("kind", [MemoryError, LookupError])
def test_a_connection_that_cannot_be_begun_counts_no_more_and_the_next_one_is_served(
    serve: Any,
    call: Any,
    strategy: str,
    kind: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    reports: list[Any],
) -> None:
    server = serve(strategy, max_connections=1, max_per_address=1, total_timeout=10)
    name = {"coroutine": "spawn_handler", "callback": "_Watched"}[strategy]

    def fail(*_: object) -> None:
        raise kind

    with monkeypatch.context() as patch:
        patch.setattr(f"pycoronet.server._strategies.{name}", fail)
        for _ in range(3):
            peer = call(server)
            turn()
            assert peer.recv(1) == b""
    assert server.stats.open == 0
    assert server.stats.accepted == 3
    assert server.stats.connections_served == 0
    assert server.stats.errors["accept" if kind is MemoryError else "handler"] == 3
    assert [type(error) for error in reports] == ([] if kind is MemoryError else [kind] * 3)
    assert answer(call(server)) == b"hello\n"
    sleep(20)
    # And nothing of those before:
    assert server.stats.errors["timeout"] == 1
    assert server.stats.open == 0
    assert server.stats.connections_served == 1


def test_other_errors_of_accepting_send_nobody_away(serve: Any, call: Any) -> None:
    server = serve("coroutine")
    call(server)
    for number in (errno.ENOBUFS, errno.ENOMEM):
        server._acceptor._note_accept_error(server._acceptor._listeners[0], OSError(number, "none"))
    assert server.stats.accepted == 0
    assert server.stats.errors["accept"] == 2
