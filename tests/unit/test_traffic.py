"""bytes_read, bytes_sent, created, server and traffic: what a connection counts, on every path."""

from __future__ import annotations

import gc
import os
import socket
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from connections import Ends, attempt, fill, receive
from recorders import Recorder, turn

import pycoronet
from pycoronet import RateLimit, Traffic, layers, listen, sk_conn, sleep, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")


def counts(counted: Any) -> tuple[int, int]:
    return counted.bytes_read, counted.bytes_sent


@pytest.fixture(params=["plain", "rate limit", "single limits"])
def watched(request: pytest.FixtureRequest, ends: Ends) -> tuple[Any, socket.socket, Traffic]:
    """Return a connection with a Traffic, with and without a valve, and its peer."""
    conn, peer = ends.pair("tcp")
    traffic = Traffic()
    conn.traffic = traffic
    if request.param == "rate limit":
        conn.set_rate_limit(RateLimit(read_rate=1 << 30, write_rate=1 << 30))
    elif request.param == "single limits":
        conn.set_single_limits(read=3, write=3)
    return conn, peer, traffic


# --- Every path -------------------------------------------------------------------------


def test_a_new_connection_has_moved_nothing(ends: Ends) -> None:
    before = time.time()
    conn, _ = ends.pair()
    assert counts(conn) == (0, 0)
    assert counts(Traffic()) == (0, 0)
    assert before - 0.001 <= conn.created <= time.time() + 0.001
    assert (conn.server, conn.traffic) == (None, None)


READS: dict[str, Callable[[Any], object]] = {
    "recv": lambda conn: conn.recv(100),
    "recv_into": lambda conn: conn.recv_into(bytearray(100)),
    "readln": lambda conn: conn.readln(),
    "read": lambda conn: conn.read(1),
    "read_until": lambda conn: conn.read_until(b"\n"),
    "take": lambda conn: conn.take(100),
    "recvfrom": lambda conn: conn.recvfrom(100),
    "recvmsg": lambda conn: conn.recvmsg(100),
}


@pytest.mark.parametrize("way", READS)
def test_what_is_received_is_counted_once(
    watched: tuple[Any, socket.socket, Traffic], way: str
) -> None:
    conn, peer, traffic = watched
    peer.sendall(b"word\n")
    while conn.bytes_read < 5:
        assert conn.wait_input()
        READS[way](conn)
    conn.timeo = 0
    attempt(conn.recv, 100)
    assert counts(conn) == counts(traffic) == (5, 0)


WRITES: dict[str, Callable[[Any], object]] = {
    "write": lambda conn: conn.write(b"word\n"),
    "enqueue": lambda conn: (conn.enqueue([b"wo", b"rd\n"]), conn.flush()),
    "printf": lambda conn: conn.printf(b"%s\n", b"word"),
    "sendmsg": lambda conn: conn.sendmsg([b"wo", b"rd\n"]),
}


@pytest.mark.parametrize("way", WRITES)
def test_what_is_sent_is_counted_once(
    watched: tuple[Any, socket.socket, Traffic], way: str
) -> None:
    conn, peer, traffic = watched
    WRITES[way](conn)
    assert receive(peer, 5) == b"word\n"
    assert counts(conn) == counts(traffic) == (0, 5)


def test_a_file_is_counted(watched: tuple[Any, socket.socket, Traffic], tmp_path: Path) -> None:
    conn, peer, traffic = watched
    path = tmp_path / "file"
    path.write_bytes(b"x" * 2000)
    with path.open("rb") as file:
        conn.write(b"head")
        conn.sendfile(file)
    conn.flush()
    assert len(receive(peer, 2004)) == 2004
    assert counts(conn) == counts(traffic) == (0, 2004)


def test_only_what_the_system_took_is_counted(ends: Ends) -> None:
    conn, peer = ends.pair()
    sent = fill(conn)
    conn.enqueue(b"waits")
    assert conn.bytes_sent == sent
    assert len(receive(peer, sent + 5)) == sent + 5 == conn.bytes_sent


def test_pipes_and_datagrams_are_counted(ends: Ends) -> None:
    fd, other = os.pipe()
    reader, writer = ends.conn(fd), ends.conn(other)
    writer.write(b"12345")
    assert reader.recv(3) == b"123"
    assert (counts(reader), counts(writer)) == ((3, 0), (0, 5))
    conn, peer = ends.pair("udp")
    peer.send(b"datagram")
    assert conn.recvfrom(100)[0] == b"datagram"
    conn.sendto(b"answer", peer.getsockname())
    conn.write(b"more")
    assert counts(conn) == (8, 10)


def test_what_is_only_looked_at_does_not_count(ends: Ends) -> None:
    conn, peer = ends.pair()
    peer.sendall(b"word")
    conn.recvmsg(100, 0, socket.MSG_PEEK)
    assert conn.bytes_read == 0
    assert conn.wait_input()
    assert conn.bytes_read == 0


def test_below_layers_wire_bytes_are_counted(ends: Ends) -> None:
    left, right = (ends.conn(end) for end in socket.socketpair())
    left.push_layer(layers.Zlib())
    right.push_layer(layers.Zlib())
    left.write(b"x" * 10_000)
    assert right.read(10_000) == b"x" * 10_000
    left.shutdown(socket.SHUT_WR)
    assert right.recv(1) == b""  # what ends the compressed data was received, too
    assert 0 < left.bytes_sent < 1000
    assert right.bytes_read == left.bytes_sent


def test_callbacks_are_counted(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.set_callbacks(Recorder(data=lambda conn: conn.enqueue(b"wordword")))
    peer.sendall(b"word")
    assert receive(peer, 8) == b"wordword"
    assert counts(conn) == (4, 8)


def test_what_is_sent_after_close_is_counted(ends: Ends) -> None:
    conn, peer = ends.pair()
    traffic = conn.traffic = Traffic()
    sent = fill(conn)
    conn.enqueue(b"last")
    conn.close()
    receive(peer, sent + 4)
    assert conn.closed
    assert counts(conn) == (0, sent + 4)
    assert traffic.bytes_sent == 4 + sent


def test_an_error_counts_nothing(ends: Ends) -> None:
    conn, peer = ends.pair()
    peer.close()
    assert isinstance(attempt(conn.write, b"word"), BrokenPipeError)
    assert conn.recv(10) == b""
    assert counts(conn) == (0, 0)


# --- Traffic, server ---------------------------------------------------------------------


def test_traffic_sums_over_connections_from_when_it_is_set(ends: Ends) -> None:
    traffic = Traffic()
    (left, left_peer), (right, right_peer) = ends.pair(), ends.pair()
    left.write(b"before")
    left.traffic = right.traffic = traffic
    left.write(b"one")
    right.write(b"three")
    right_peer.sendall(b"in")
    right.recv(10)
    right.traffic = None
    right.write(b"after")
    del left.traffic
    assert left.traffic is None
    left.write(b"after")
    assert left_peer.recv(100) == b"beforeoneafter"
    assert counts(traffic) == (2, 8)
    assert (left.bytes_sent, right.bytes_sent) == (14, 10)
    assert repr(traffic) == "<Traffic 2 read, 8 sent>"


def test_traffic_must_be_one(ends: Ends) -> None:
    conn, _ = ends.pair()
    with pytest.raises(TypeError, match="traffic must be a Traffic or None, not int"):
        conn.traffic = 5
    with pytest.raises(TypeError):
        Traffic(5)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Traffic().bytes_read = 5  # type: ignore[misc]
    for name in ("bytes_read", "bytes_sent", "created"):
        with pytest.raises(AttributeError):
            setattr(conn, name, 5)


@pytest.mark.parametrize("way", ["accept", "callbacks"])
def test_what_a_listener_accepts_has_its_server_and_traffic(ends: Ends, way: str) -> None:
    listener = ends.keep(listen(("127.0.0.1", 0)))
    listener.server, listener.traffic = "the server", Traffic()
    client = ends.keep(socket.create_connection(listener.getsockname()))
    before = time.time()
    accepted: list[Any] = []
    if way == "accept":
        accepted.append(ends.keep(listener.accept()[0]))
    else:
        listener.set_callbacks(Recorder(open=accepted.append))
        turn()
        ends.keep(accepted[0])
    (conn,) = accepted
    assert conn.server == "the server"
    assert conn.traffic is listener.traffic
    assert conn.created >= before - 0.001
    if way == "callbacks":
        conn.set_callbacks(None)
    client.sendall(b"word")
    conn.recv(10)
    assert counts(listener.traffic) == (4, 0)
    assert counts(listener) == (0, 0)


def test_server_may_be_anything_and_its_cycle_is_collected() -> None:
    class Server:
        conn: Any

    fd, other = os.pipe()
    os.close(other)
    server = Server()
    server.conn = sk_conn(fd)
    server.conn.server = server
    assert server.conn.server is server
    server.conn.close()
    gone = weakref.ref(server)
    del server
    gc.collect()
    assert gone() is None


def test_server_can_be_taken_off(ends: Ends) -> None:
    conn, _ = ends.pair()
    conn.server = 5
    del conn.server
    assert conn.server is None


def test_a_busy_connection_can_be_looked_at(ends: Ends) -> None:
    conn, peer = ends.pair()
    reader = spawn(conn.recv, 10)
    sleep(0)
    assert counts(conn) == (0, 0)
    peer.sendall(b"word")
    assert reader.get() == b"word"
    conn.close()
    assert counts(conn) == (4, 0)
    assert conn.created > 0
    assert pycoronet.get_hub().task_count == 0
