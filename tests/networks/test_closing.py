"""Closing over a bad network: lost FINs, lingering output, aborts that nobody hears of."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import Any

import pytest
from hosts import Network
from transfers import CONTENT, Link, Received, Transfer, collect

from pycoronet import sleep


def collect_to_the_end(conn: Any) -> None:
    ARRIVED.clear()
    collect(conn, ARRIVED)


ARRIVED = Received()
UPLOAD = Transfer("upload", collect_to_the_end, lambda conn, received: None, b"")


@pytest.mark.parametrize("line", ["up", "down"])
def test_lost_fin_is_sent_again(network: Network, line: str) -> None:
    network.set(line, lose={"FIN": 1})
    with closing(Link(network, UPLOAD)) as link:
        link.conn.sendall(CONTENT)
        link.conn.shutdown(socket.SHUT_WR)
        assert link.conn.recv(1) == b""
        assert link.server.get() is None
        assert ARRIVED == CONTENT
    assert network.counts()[line]["lost"] == 1


def test_closed_connection_sends_what_waits_over_a_bad_line(network: Network) -> None:
    network.set(delay=0.005, loss=0.05, jitter=0.005)
    with closing(Link(network, UPLOAD)) as link:
        link.conn.enqueue(CONTENT)
        link.conn.close()
        assert link.conn.pending > 0
        assert link.server.get() is None
        assert ARRIVED == CONTENT


def test_closed_connection_sends_what_waits_once_a_hole_is_mended(network: Network) -> None:
    network.hole(after=20_000, heal_after=0.3)
    with closing(Link(network, UPLOAD)) as link:
        link.conn.enqueue(CONTENT)
        link.conn.close()
        assert link.server.get() is None
        assert ARRIVED == CONTENT
    assert network.counts()["swallowed"] > 0


@pytest.mark.parametrize("how", ["hole", "cut"])
def test_closed_connection_lingers_no_longer_than_it_may(network: Network, how: str) -> None:
    with closing(Link(network, UPLOAD)) as link:
        link.conn.linger = 0.3
        getattr(network, how)(after=20_000)
        link.conn.enqueue(CONTENT)
        link.conn.close()
        while link.conn.fileno() >= 0:  # it is kept for what waits, and then let go
            sleep(0.01)
        assert link.conn.pending == 0
        link.server.cancel()
        link.server.join()
        assert CONTENT.startswith(ARRIVED)
        assert len(ARRIVED) < len(CONTENT)


def test_peer_of_an_abort_that_was_lost_is_told_when_it_sends(network: Network) -> None:
    with closing(Link(network, UPLOAD)) as link:
        link.conn.sendall(b"hello")
        while not ARRIVED:
            sleep(0.01)
        network.hole()
        link.conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        link.conn.abort()
        while network.counts()["swallowed"] == 0:
            sleep(0.01)
        network.heal()
        link.peer.sendall(b"anybody?")
        assert isinstance(link.server.get(), ConnectionResetError)
        assert ARRIVED == b"hello"


def test_half_closed_connection_still_receives_all(network: Network) -> None:
    network.set(loss=0.05, jitter=0.01)

    def answer(conn: Any) -> None:
        collect_to_the_end(conn)
        conn.sendall(CONTENT)

    with closing(Link(network, Transfer("answer", answer, collect, CONTENT))) as link:
        link.conn.sendall(b"question")
        link.conn.shutdown(socket.SHUT_WR)
        link.fetch()
        assert ARRIVED == b"question"
        assert link.received == CONTENT
