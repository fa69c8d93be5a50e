"""Breaks that are not mended: who waits is told, what has arrived is right, and nothing is left."""

from __future__ import annotations

import errno
import socket
from contextlib import closing
from typing import Any

import pytest
from connections import attempt
from hosts import Network
from transfers import CONTENT, STREAMS, Link, Transfer

from pycoronet import spawn

TIMEOUT = 1.0  # seconds that our connections wait: long enough for a busy machine

ARRIVED: list[bytes] = []


def keep_all(conn: Any) -> None:
    ARRIVED.append(conn.read(len(CONTENT)))


UPLOAD = Transfer("upload", keep_all, lambda conn, received: None, b"")


def check_broken_off(link: Link, transfer: Transfer) -> None:
    """Have both ends end in TimeoutError, in the middle of the transfer."""
    with pytest.raises(TimeoutError):
        link.fetch()
    assert transfer.expected.startswith(link.received)
    assert len(link.received) < len(transfer.expected)
    assert isinstance(link.server.get(), TimeoutError)


@pytest.mark.parametrize("lines", [(), ("up",), ("down",)], ids=["both", "up", "down"])
def test_transfer_through_a_hole_times_out_at_both_ends(
    network: Network, transfer: Transfer, lines: tuple[str, ...]
) -> None:
    with closing(Link(network, transfer, TIMEOUT)) as link:
        network.hole(*lines, after=40_000)
        check_broken_off(link, transfer)
    assert network.counts()["swallowed"] > 0


def test_transfer_over_a_cable_that_is_pulled_times_out_at_both_ends(
    network: Network, transfer: Transfer
) -> None:
    with closing(Link(network, transfer, TIMEOUT)) as link:
        network.cut(after=40_000)
        check_broken_off(link, transfer)


def test_transfer_on_a_path_too_narrow_for_its_packets_times_out(
    network: Network, transfer: Transfer
) -> None:
    """What is small arrives, such as the handshake, and the FIN of who gives up."""
    with closing(Link(network, transfer, TIMEOUT)) as link:
        network.set(largest=200)
        outcomes = [attempt(link.fetch), link.server.get()]
        assert all(isinstance(outcome, OSError) for outcome in outcomes)
        assert any(isinstance(outcome, TimeoutError) for outcome in outcomes)
        assert transfer.expected.startswith(link.received)


@pytest.mark.parametrize("how", ["hole", "cut"])
def test_what_the_kernel_finds_by_itself_is_told_to_both_ends(
    network: Network, transfer: Transfer, how: str
) -> None:
    """TCP_USER_TIMEOUT and keepalive find a silent peer, whoever has output and whoever waits."""
    with closing(Link(network, transfer)) as link:
        for conn in (link.conn, link.peer):
            give_up_soon(conn)
        getattr(network, how)(after=40_000)
        with pytest.raises(TimeoutError) as told:
            link.fetch()
        for error in (told.value, link.server.get()):
            assert isinstance(error, TimeoutError)
            assert error.errno == errno.ETIMEDOUT
            assert "timed out" in str(error)
        assert transfer.expected.startswith(link.received)


def test_who_reads_beside_a_writer_is_told_of_the_break_as_well(network: Network) -> None:
    """The kernel tells one of them, and the other one only of an end of file."""
    with closing(Link(network, UPLOAD)) as link:
        give_up_soon(link.conn)
        network.hole(after=40_000)
        reader = spawn(attempt, link.conn.recv, 1)
        writer = attempt(link.conn.sendall, CONTENT)
        assert isinstance(writer, OSError)
        assert isinstance(reader.get(), TimeoutError)
        with pytest.raises(TimeoutError):
            link.conn.recv(1)


def give_up_soon(conn: Any) -> None:
    """Have the kernel give up a peer that has been silent for about a second."""
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)


@pytest.mark.parametrize("how", ["hole", "cut"])
def test_write_that_is_stuck_tells_how_much_it_has_written(network: Network, how: str) -> None:
    """And the bytes that it tells of arrive, once the way is mended; no other does."""
    with closing(Link(network, UPLOAD)) as link:
        getattr(network, how)(after=40_000)
        link.conn.settimeout(TIMEOUT)
        with pytest.raises(TimeoutError) as told:
            link.conn.sendall(CONTENT)
        written = told.value.bytes_written  # type: ignore[attr-defined]
        network.heal()
        link.conn.shutdown(socket.SHUT_WR)
        assert link.server.get() is None
        assert ARRIVED[-1] == CONTENT[:written]
        assert 40_000 <= written < len(CONTENT)


def test_transfer_that_timed_out_goes_on_where_it_was(network: Network) -> None:
    """A timeout loses nothing: who tries again reads and writes on, to the byte."""
    echo = STREAMS[0]
    with closing(Link(network, echo)) as link:
        network.hole(after=100_000)
        link.conn.settimeout(TIMEOUT / 4)
        rest = CONTENT
        while rest:
            try:
                link.conn.sendall(rest[:20_000])
                rest = rest[20_000:]
                while len(link.received) < len(CONTENT) - len(rest):
                    link.received += link.conn.recv(7000)
            except TimeoutError as error:
                rest = rest[getattr(error, "bytes_written", 0) :]
                network.heal()
        link.conn.shutdown(socket.SHUT_WR)
        while len(link.received) < len(CONTENT):
            try:
                link.received += link.conn.recv(65536)
            except TimeoutError:
                pass  # a busy machine
        assert link.received == CONTENT
        assert network.counts()["swallowed"] > 0
