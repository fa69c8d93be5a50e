"""What a server counts, whatever becomes of a connection, by each of the strategies."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import pytest
from connections import PEER_TIMEOUT, receive
from recorders import reset, turn
from thread_case import threads_of_servers
from tls_peer import TlsPeer

from pycoronet import Server, sleep

pytestmark = pytest.mark.usefixtures("virtual_hub")

LOCAL = ("127.0.0.1", 0)
TIME_LIMIT = 0.2  # virtual, but in threads


def answer(conn: Any, line: bytes) -> None:
    """Do what a line says: fail, close or say the same."""
    if line == b"fail\n":
        raise LookupError("on purpose")
    if line == b"close\n":
        conn.close()
    else:
        conn.write(line)


def serve_lines(conn: Any, _: object) -> None:
    while not conn.closed and (line := conn.readln()):
        answer(conn, line)


def serve_lines_that_came(conn: Any, _: object) -> None:
    while not conn.closed and (line := conn.take_line()):
        answer(conn, line)


HANDLERS = {
    "coroutine": serve_lines,
    "callback": serve_lines_that_came,
    "threadpool": serve_lines,
}


@pytest.fixture(params=list(HANDLERS))
def strategy(request: pytest.FixtureRequest) -> Any:
    """Name each of the strategies."""
    return request.param


@pytest.fixture
def start(strategy: Any, reports: list[Any]) -> Any:
    """Return a function that starts a server of the strategy; it is closed in the end.

    Threads that a stop has left behind, because its time is virtual, may report until then.
    """
    made: list[Any] = []

    def make(**settings: Any) -> Any:
        made.append(Server(LOCAL, HANDLERS[strategy], strategy=strategy, **settings))
        made[-1].start()
        return made[-1]

    yield make
    for server in made:
        server.close()
    end_threads()


def end_threads() -> None:
    for thread in threads_of_servers():
        thread.join()


def say(peer: socket.socket, line: bytes) -> None:
    peer.sendall(line)
    turn()


def exchange(peer: socket.socket) -> None:
    """Have a line answered."""
    peer.sendall(b"hello\n")
    assert receive(peer, 6) == b"hello\n"


def counts_of(server: Any) -> dict[str, Any]:
    """Return what is not zero, the errors and sheds by their names; no bytes and no times."""
    values = server.stats.as_dict()
    for name in ("created", "bytes_read", "bytes_sent", "threads"):
        del values[name]
    values.update(values.pop("errors"))
    values.update({f"shed_{reason}": count for reason, count in values.pop("shed").items()})
    return {name: value for name, value in values.items() if value}


def expect(server: Any, **counts: int) -> None:
    """Wait until it has counted that, as it has to sooner or later; for threads take their time."""
    deadline = time.monotonic() + PEER_TIMEOUT
    turn()
    while counts_of(server) != counts and time.monotonic() < deadline:
        turn()
    assert counts_of(server) == counts


ENDS: dict[str, tuple[Callable[[socket.socket], object], dict[str, float], str | None]] = {
    "its end of file": (socket.socket.close, {}, None),
    "half an end": (lambda peer: peer.shutdown(socket.SHUT_WR), {}, None),
    "the handler's close": (lambda peer: say(peer, b"close\n"), {}, None),
    "a failure": (lambda peer: say(peer, b"fail\n"), {}, "handler"),
    "a line without end": (lambda peer: say(peer, b"x" * 65537), {}, "input"),
    "a reset": (reset, {}, "reset"),
    "silence": (lambda _: sleep(2 * TIME_LIMIT), {"idle_timeout": TIME_LIMIT}, "timeout"),
    "its time": (lambda _: sleep(2 * TIME_LIMIT), {"total_timeout": TIME_LIMIT}, "timeout"),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_connection_is_counted_once_however_it_ends(
    start: Any, call: Any, reports: list[Any], end: str
) -> None:
    finish, settings, error = ENDS[end]
    server = start(**settings)
    peers = [call(server) for _ in range(3)]
    if not settings:
        for peer in peers:
            exchange(peer)
        expect(server, accepted=3, open=3)
    finish(peers[0])
    over = 3 if settings else 1  # a time concerns all of them
    expected = {"accepted": 3, "open": 3 - over, "connections_served": over}
    if error is not None:
        expected[error] = over
    expect(server, **{name: count for name, count in expected.items() if count})
    assert [type(report) for report in reports] == [LookupError] * (error == "handler")


def test_a_peer_that_ends_in_the_middle_has_no_traceback_written(
    call: Any, reports: list[Any]
) -> None:
    with closing(Server(LOCAL, lambda conn, _: conn.read_exactly(10))) as server:
        server.start()
        peer = call(server)
        peer.sendall(b"half")
        peer.close()
        expect(server, accepted=1, connections_served=1, input=1)
    assert reports == []


def test_a_connection_that_fails_before_it_has_said_anything_is_counted(
    start: Any, call: Any
) -> None:
    server = start()
    for _ in range(3):
        reset(call(server))
    expect(server, accepted=3, connections_served=3, reset=3)


def test_a_connection_of_an_address_that_has_enough_is_shed(start: Any, call: Any) -> None:
    server = start(max_per_address=2)
    peers = [call(server) for _ in range(5)]
    expect(server, accepted=5, open=2, shed_address=3)
    for peer in peers:
        peer.close()
    expect(server, accepted=5, connections_served=2, shed_address=3)


def test_handlers_that_stop_has_to_cancel_are_counted(start: Any, call: Any) -> None:
    server = start()
    peers = [call(server) for _ in range(4)]
    for peer in peers:
        exchange(peer)
    peers.pop().close()
    expect(server, accepted=4, open=3, connections_served=1)
    server.stop(1)
    counts = counts_of(server)
    # A callback connection that is idle is closed by the stop.
    assert counts.pop("cancelled", 0) == (0 if server.strategy == "callback" else 3)
    assert counts == {"accepted": 4, "connections_served": 4}


def test_bytes_are_those_on_the_wire(start: Any, call: Any) -> None:
    server = start()
    for _ in range(3):
        peer = call(server)
        exchange(peer)
        say(peer, b"close\n")
    expect(server, accepted=3, connections_served=3)
    assert (server.stats.bytes_read, server.stats.bytes_sent) == (3 * 12, 3 * 6)


def test_handlers_that_close_cuts_off_with_half_a_line_report_nothing(
    call: Any, reports: list[Any]
) -> None:
    def handle(conn: Any, _: object) -> None:
        if conn.readln() == b"close\n":
            server.close()

    server = Server(LOCAL, handle)
    server.start()
    peers = [call(server) for _ in range(3)]
    turn()
    # One poll finds them all, so that some have been woken by their input when it is closed.
    for peer, data in zip(peers, (b"ha", b"close\n", b"ha"), strict=True):
        peer.sendall(data)
    turn()
    expect(server, accepted=3, connections_served=3)
    assert reports == []


def test_statistics_survive_a_restart(start: Any, call: Any) -> None:
    server = start()
    created = server.stats.created
    for number in (1, 2):
        say(call(server), b"close\n")
        expect(server, accepted=number, connections_served=number)
        server.stop()
        server.start()
    assert (server.stats.bytes_read, server.stats.created) == (12, created)


def test_threads_of_the_pool_and_who_waits_for_one_are_told(call: Any) -> None:
    with Server(
        LOCAL, serve_lines, strategy="threadpool", poolsize_min=1, poolsize_max=2, backlog=3
    ) as server:
        assert server.stats.threads == 1
        peers = []
        for _ in range(7):
            peers.append(call(server))
            turn()  # no more than backlog may wait to be accepted
        expect(server, accepted=7, open=5, waiting=3, shed_pool=2)
        assert server.stats.threads == 2
        for peer in peers:
            peer.close()
        expect(server, accepted=7, connections_served=5, shed_pool=2)


# --- TLS --------------------------------------------------------------------------------------


def test_a_handshake_that_fails_is_counted(start: Any, call: Any, certificates: Any) -> None:
    server = start(tls=certificates.server_context())
    nonsense, gone = call(server), call(server)
    say(nonsense, b"GET / HTTP/1.0\r\n\r\n")
    expect(server, accepted=2, open=1, connections_served=1, tls=1)
    gone.close()
    expect(server, accepted=2, connections_served=2, tls=2)


def test_a_handshake_that_takes_too_long_is_counted(
    start: Any, call: Any, certificates: Any
) -> None:
    server = start(tls=certificates.server_context(), handshake_timeout=TIME_LIMIT)
    silent = call(server)
    sleep(TIME_LIMIT)
    expect(server, accepted=1, connections_served=1, tls=1)
    assert silent.recv(1) == b""


def test_bytes_of_tls_are_those_on_the_wire(start: Any, call: Any, certificates: Any) -> None:
    server = start(tls=certificates.server_context())
    peer = TlsPeer(call(server), certificates.client_context())
    peer.shake_hands()
    before = server.stats.as_dict()
    assert before["bytes_read"] > 100
    assert before["bytes_sent"] > 500  # a certificate
    peer.send(peer.encrypted(b"hello\n"))
    assert peer.read(6) == b"hello\n"
    after = server.stats.as_dict()
    assert after["bytes_read"] - before["bytes_read"] > 6
    assert after["bytes_sent"] - before["bytes_sent"] > 6


# --- One connection ---------------------------------------------------------------------------


def test_a_connection_knows_its_own_figures(strategy: Any, call: Any) -> None:
    seen: list[Any] = []

    def handler(conn: Any, address: object) -> None:
        HANDLERS[strategy](conn, address)
        seen.append((conn.bytes_read, conn.bytes_sent, conn.created))
        seen.append(conn.server.stats.connections_served)

    with Server(LOCAL, handler, strategy=strategy) as server:
        before = time.time()
        say(call(server), b"hello\nclose\n")
        expect(server, accepted=1, connections_served=1)
        (read, sent, created), served = seen[:2]
        assert (read, sent, served) == (12, 6, 0)
        assert before <= created <= time.time()
        say(call(server), b"close\n")
        expect(server, accepted=2, connections_served=2)
        assert seen[3] == 1


# --- Everything at random ---------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_what_is_accepted_is_open_or_over_or_was_shed(
    start: Any, call: Any, reports: list[Any], seed: int
) -> None:
    chance = random.Random(seed)
    server = start(max_per_address=8, idle_timeout=50, max_connections=7, poolsize_max=6)
    peers: list[socket.socket] = []
    finishers = [finish for finish, settings, _ in ENDS.values() if not settings]
    for _ in range(150):
        with suppress(OSError):  # it was shed, or is over since
            if not peers or chance.random() < 0.5:
                peers.append(call(server))
            elif chance.random() < 0.5:
                say(chance.choice(peers), b"hello\n")
            else:
                chance.choice(finishers)(peers.pop(chance.randrange(len(peers))))
        if chance.random() < 0.05:
            sleep(60)
        turn(chance.randrange(3))
        stats = server.stats
        assert stats.accepted == stats.open + stats.connections_served + sum(stats.shed.values())
        assert 0 <= stats.open <= 7
    server.stop(1)
    stats = server.stats
    assert stats.open == 0
    assert stats.accepted == stats.connections_served + sum(stats.shed.values())
    assert sum(stats.errors.values()) <= stats.connections_served
    counted = stats.errors["handler"]
    end_threads()
    assert stats.errors["handler"] == counted
    if server.strategy == "threadpool":
        assert counted <= len(reports)  # who was left behind is over already, and reports still
    else:
        assert counted == len(reports)
