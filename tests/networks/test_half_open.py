"""Peers that are gone and have not said so: how each way to serve finds them."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from connections import attempt, reset
from hosts import SERVER, Network
from transfers import CONTENT, STREAMS, Link

import pycoronet
from pycoronet import Server, sleep

LIMIT = 1.0  # seconds of each limit that is to find the peer
STRATEGIES = ["coroutine", "callback", "threadpool"]


def echo(conn: Any, address: Any) -> None:
    while data := conn.recv(65536):
        conn.sendall(data)


def echo_what_is_there(conn: Any, address: Any) -> None:
    conn.write(conn.take(65536))


def pour(conn: Any, address: Any) -> None:
    conn.recv(1)
    conn.sendall(CONTENT)


def pour_by_callback(conn: Any, address: Any) -> None:
    conn.take(1)
    conn.enqueue(CONTENT)


ECHOES = {"coroutine": echo, "callback": echo_what_is_there, "threadpool": echo}
POURERS = {"coroutine": pour, "callback": pour_by_callback, "threadpool": pour}


@contextmanager
def serving(network: Network, handler: Any, **settings: Any) -> Iterator[Server]:
    """Have a server on the server's host."""
    with network.server:
        server = Server((SERVER, 0), handler, poolsize_min=1, poolsize_max=2, **settings)
        server.start()
    try:
        yield server
    finally:
        server.stop(0)


@contextmanager
def client_of(network: Network, server: Server) -> Iterator[Any]:
    """Have a client on its host, connected."""
    with network.client:
        conn = pycoronet.connect(server.addresses[0])
    try:
        yield conn
    finally:
        conn.abort()


def wait_until_alone(server: Server, timeouts: int = 1) -> None:
    """Wait until the server has given up its only client, for the reason that it has."""
    while server.stats.open or not server.stats.connections_served:
        sleep(0.01)
    errors = {kind: count for kind, count in server.stats.errors.items() if count}
    assert errors == ({"timeout": timeouts} if timeouts else {})


@pytest.mark.parametrize("how", ["hole", "cut"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_idle_timeout_finds_a_client_that_has_vanished(
    network: Network, strategy: str, how: str
) -> None:
    settings = {"strategy": strategy, "idle_timeout": LIMIT}
    with (
        serving(network, ECHOES[strategy], **settings) as server,
        client_of(network, server) as conn,
    ):
        conn.sendall(b"hello")
        assert conn.read_exactly(5) == b"hello"
        getattr(network, how)()
        wait_until_alone(server)


@pytest.mark.parametrize("limit", ["idle_timeout", "total_timeout"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_limits_find_a_client_that_vanished_while_it_was_sent_to(
    network: Network, strategy: str, limit: str
) -> None:
    settings = {"strategy": strategy, limit: LIMIT}
    with (
        serving(network, POURERS[strategy], **settings) as server,
        client_of(network, server) as conn,
    ):
        network.hole(after=40_000)
        conn.sendall(b"?")
        wait_until_alone(server)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_handshake_timeout_finds_a_client_that_vanishes_in_the_handshake(
    network: Network, certificates: Any, strategy: str
) -> None:
    settings = {"strategy": strategy, "handshake_timeout": LIMIT}
    context = certificates.server_context()
    with serving(network, ECHOES[strategy], tls=context, **settings) as server:
        network.hole("down", after=1, of="down")
        with client_of(network, server) as conn:
            with pytest.raises(TimeoutError):
                conn.start_tls(
                    certificates.client_context(), server_hostname="localhost", timeout=LIMIT
                )
            network.hole()
            while server.stats.open or not server.stats.connections_served:
                sleep(0.01)
            assert server.stats.errors["tls"] == 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_stopping_server_does_not_wait_for_a_client_that_has_vanished(
    network: Network, strategy: str
) -> None:
    with (
        serving(network, ECHOES[strategy], strategy=strategy) as server,
        client_of(network, server) as conn,
    ):
        conn.sendall(b"hello")
        assert conn.read_exactly(5) == b"hello"
        network.hole()
        assert server.stop(0.2) in (0, 1)  # an echo by callbacks is idle, and simply closed
        assert server.stats.open == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_server_that_a_client_stopped_reading_from_serves_the_others(
    network: Network, strategy: str
) -> None:
    settings = {"strategy": strategy, "idle_timeout": LIMIT}
    with (
        serving(network, ECHOES[strategy], **settings) as server,
        client_of(network, server) as stuck,
    ):
        with pytest.raises(TimeoutError), pycoronet.timeout(0.2):
            stuck.sendall(CONTENT * 3)
        with client_of(network, server) as conn:
            for _ in range(20):
                conn.sendall(b"hello")
                assert conn.read_exactly(5) == b"hello"


# A peer that was started anew: its kernel knows the connection no more, and says so by a reset.


def forget(network: Network, conn: Any) -> None:
    """Have a host lose a connection, as by a restart: the other one hears nothing of it."""
    network.hole()
    with socket.socket(fileno=conn.detach()) as sock:
        reset(sock)
    while network.counts()["swallowed"] == 0:
        sleep(0.01)
    network.heal()


def test_write_to_a_peer_that_was_started_anew_is_told_of_the_reset(network: Network) -> None:
    with closing(Link(network, STREAMS[0], 5.0)) as link:
        link.conn.sendall(b"hello")
        assert link.conn.read_exactly(5) == b"hello"
        link.server.cancel()
        link.server.join()
        forget(network, link.peer)
        link.conn.sendall(b"hello")  # which is answered with a reset
        with pytest.raises(ConnectionResetError):
            link.conn.recv(5)
        with pytest.raises(BrokenPipeError):
            link.conn.sendall(b"hello")


def test_keepalive_finds_a_peer_that_was_started_anew(network: Network) -> None:
    with closing(Link(network, STREAMS[0])) as link:
        link.server.cancel()
        link.server.join()
        link.conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        link.conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
        forget(network, link.peer)
        with pytest.raises(ConnectionResetError):
            link.conn.recv(5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_server_whose_client_was_started_anew_counts_a_reset(
    network: Network, strategy: str
) -> None:
    with (
        serving(network, POURERS[strategy], strategy=strategy) as server,
        client_of(network, server) as conn,
    ):
        network.hole("up", after=10_000)
        conn.sendall(b"?")
        while network.counts()["swallowed"] == 0:
            sleep(0.01)
        forget(network, conn)
        while server.stats.open:
            sleep(0.01)
        assert server.stats.errors["reset"] == 1


# A host that is not there: nobody has its address.


def test_host_that_leaves_while_it_is_sent_to_is_told_as_unreachable(network: Network) -> None:
    """The neighbour is not found any more: the kernel says so instead of only waiting."""
    with closing(Link(network, STREAMS[0])) as link:
        link.conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000)
        with network.client:
            network.forget_neighbour(SERVER)
        network.hole()
        error = attempt(link.conn.sendall, CONTENT)
        assert isinstance(error, OSError)
        assert error.errno == errno.EHOSTUNREACH


# Callbacks, told by direction.


@pytest.mark.parametrize("direction", ["read", "write"])
def test_timeouts_of_callbacks_find_a_peer_that_has_vanished(
    network: Network, direction: str
) -> None:
    told: list[int] = []

    class Watchful(pycoronet.Protocol):
        def on_timeout(self, conn: Any, direction: int) -> None:
            told.append(direction)
            conn.abort()

    with closing(Link(network, STREAMS[0])) as link:
        link.conn.set_timeouts(**{direction: 0.3})
        link.conn.set_callbacks(Watchful())
        network.hole()
        if direction == "write":
            link.conn.enqueue(CONTENT)
        while not link.conn.closed:
            sleep(0.01)
        assert told == [pycoronet.READ if direction == "read" else pycoronet.WRITE]
