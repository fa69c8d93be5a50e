"""Connecting over a bad network: lost handshakes, nobody there, a cut in the middle of one."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from connections import attempt
from hosts import NOBODY, NOBODY6, SERVER, SERVER6, STRANGER, Network

import pycoronet
from pycoronet import Protocol, sleep, spawn

TIMEOUT = 1.0


@pytest.fixture
def listener(network: Network) -> Iterator[Any]:
    """Return a listener on the server's host."""
    with network.server, pycoronet.listen((SERVER, 0)) as listener:
        yield listener


@pytest.fixture
def at_client(network: Network, listener: Any) -> Iterator[None]:
    """Have what the test makes be the client's."""
    with network.client:
        yield


@pytest.mark.parametrize("line", ["up", "down"])
def test_lost_syn_is_sent_again(
    network: Network, listener: Any, at_client: None, line: str
) -> None:
    network.set(line, lose={"SYN": 1})
    with pycoronet.connect(listener.getsockname()) as conn, listener.accept()[0] as peer:
        conn.sendall(b"hello")
        assert peer.read_exactly(5) == b"hello"
    assert network.counts()[line]["lost"] == 1


@pytest.mark.parametrize("host", [NOBODY, NOBODY6])
def test_connect_to_nobody_times_out_in_its_own_time(
    network: Network, at_client: None, host: str
) -> None:
    with pytest.raises(TimeoutError, match="not done in"):
        pycoronet.connect((host, 7), timeout=0.3)


def test_connect_to_nobody_times_out_in_the_kernels_time(network: Network, at_client: None) -> None:
    network.client.set("ipv4/tcp_syn_retries", "1")
    with pytest.raises(TimeoutError) as told, pycoronet._coronet._socket(2, 1) as conn:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)
        conn.connect((NOBODY, 7))
    assert told.value.errno == errno.ETIMEDOUT


def test_connect_to_a_host_that_nobody_knows_is_told_as_unreachable(
    network: Network, at_client: None
) -> None:
    with pytest.raises(OSError, match="No route") as told:
        pycoronet.connect((STRANGER, 7))
    assert told.value.errno == errno.EHOSTUNREACH


def test_connect_without_a_route_is_told_at_once(network: Network, at_client: None) -> None:
    with pytest.raises(OSError, match="unreachable") as told:
        pycoronet.connect(("192.0.2.1", 7))
    assert told.value.errno == errno.ENETUNREACH


def test_connect_to_a_port_where_nobody_listens_is_refused(
    network: Network, at_client: None
) -> None:
    network.set(delay=0.02)
    with pytest.raises(ConnectionRefusedError):
        pycoronet.connect((SERVER, 7))


def test_refusal_that_is_lost_is_asked_for_again(network: Network, at_client: None) -> None:
    network.set("down", lose={"RST": 1})
    with pytest.raises(ConnectionRefusedError):
        pycoronet.connect((SERVER, 7))


def test_connect_that_timed_out_leaves_no_connection_behind(
    network: Network, listener: Any, at_client: None
) -> None:
    network.hole("down")
    with pytest.raises(TimeoutError):
        pycoronet.connect(listener.getsockname(), timeout=0.2)
    network.heal()
    # The server's answer to the SYN is sent again now, and answered with a reset.
    with pycoronet.connect(listener.getsockname()) as conn:
        listener.settimeout(None)
        peer, address = listener.accept()
        with peer:
            assert address == conn.getsockname()


def test_connect_by_callbacks_to_nobody_times_out(network: Network, at_client: None) -> None:
    class Watchful(Protocol):
        def on_open(self, conn: Any) -> None:
            told.append("open")

        def on_error(self, conn: Any, error: Exception, direction: int) -> None:
            told.append((type(error), direction))

    told: list[Any] = []
    conn = pycoronet._coronet._socket(socket.AF_INET, socket.SOCK_STREAM)
    conn.set_timeouts(write=0.3)
    conn.set_callbacks(Watchful())
    conn.connect((NOBODY, 7))
    conn.enqueue(b"queued before")
    while not conn.closed:
        sleep(0.01)
    assert told == [(TimeoutError, pycoronet.WRITE)]


@pytest.mark.parametrize("addresses", [(NOBODY, SERVER), (NOBODY6, SERVER), (NOBODY, SERVER6)])
def test_second_address_is_tried_beside_one_that_is_silent(
    network: Network, monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, str]
) -> None:
    with network.server:
        listener = pycoronet.listen(("::", 0), ipv6_only=False)
    port = listener.getsockname()[1]

    def look_up(*_: Any, **__: Any) -> list[Any]:
        families = [socket.AF_INET6 if ":" in host else socket.AF_INET for host in addresses]
        return [
            (family, socket.SOCK_STREAM, 0, "", (host, port))
            for family, host in zip(families, addresses, strict=True)
        ]

    monkeypatch.setattr("pycoronet._sockets.getaddrinfo", look_up)
    with listener, network.client, pycoronet.connect(("two.example", port)) as conn:
        assert conn.getpeername()[0] == addresses[1]
        listener.accept()[0].close()


# TLS: the handshake breaks off in the middle, after so many bytes of both ends.


@pytest.mark.parametrize("after", [0, 1, 600])
def test_handshake_through_a_hole_times_out_at_both_ends(
    network: Network, listener: Any, at_client: None, certificates: Any, after: int
) -> None:
    conn = pycoronet.connect(listener.getsockname())
    peer, _ = listener.accept()
    network.hole(after=after)
    with closing(conn), closing(peer):
        context = certificates.server_context()
        server = spawn(attempt, lambda: peer.start_tls(context, server_side=True, timeout=TIMEOUT))
        client_context = certificates.client_context()
        with pytest.raises(TimeoutError):
            conn.start_tls(client_context, server_hostname="localhost", timeout=TIMEOUT)
        assert isinstance(server.get(), TimeoutError)
        assert conn.closed
        assert peer.closed


@pytest.mark.parametrize("after", [1, 600, 1500])
def test_handshake_through_a_hole_that_is_mended_succeeds(
    network: Network, listener: Any, at_client: None, certificates: Any, after: int
) -> None:
    conn = pycoronet.connect(listener.getsockname())
    peer, _ = listener.accept()
    network.hole(after=after, heal_after=0.1)
    with closing(conn), closing(peer):
        server = spawn(peer.start_tls, certificates.server_context(), server_side=True)
        conn.start_tls(certificates.client_context(), server_hostname="localhost")
        server.get()
        conn.sendall(b"hello")
        assert peer.read_exactly(5) == b"hello"


def test_stream_that_is_cut_off_by_a_reset_is_no_end_of_tls(
    network: Network, listener: Any, at_client: None, certificates: Any
) -> None:
    conn = pycoronet.connect(listener.getsockname())
    peer, _ = listener.accept()
    with closing(conn), closing(peer):
        server = spawn(peer.start_tls, certificates.server_context(), server_side=True)
        conn.start_tls(certificates.client_context(), server_hostname="localhost")
        server.get()
        network.hole("down")
        peer.sendall(b"lost")
        peer.abort()
        network.heal()
        with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
            while conn.recv(65536):
                pass


def test_connection_that_was_reset_in_the_queue_is_accepted_and_told_so(
    network: Network, listener: Any, at_client: None
) -> None:
    conn = pycoronet.connect(listener.getsockname())
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    conn.close()
    with pycoronet.connect(listener.getsockname()) as good:
        good.sendall(b"hello")
        outcomes = []
        for _ in range(2):
            with listener.accept()[0] as peer:
                outcomes.append(attempt(peer.recv, 5))
    assert isinstance(outcomes[0], ConnectionResetError)
    assert outcomes[1] == b"hello"
