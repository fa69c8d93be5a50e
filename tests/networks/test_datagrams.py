"""Datagrams over a bad network: each arrives whole or not at all, and refusals are told."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from connections import attempt
from hosts import CLIENT, SERVER, Network

from pycoronet import sk_conn, sleep, spawn

COUNT = 60  # as many as a socket holds if they come all at once
LINES = {
    "loss": {"loss": 0.1},
    "disorder": {"jitter": 0.01},
    "duplicates": {"duplicate": 0.2, "jitter": 0.002},
    "everything": {"loss": 0.05, "jitter": 0.01, "duplicate": 0.1},
}


def message(number: int) -> bytes:
    """Return a datagram that is like no other, of a length between 4 and 1400."""
    return number.to_bytes(4, "big") + bytes([number % 251]) * (number * 7 % 1397)


@contextmanager
def sockets(network: Network) -> Iterator[tuple[Any, Any]]:
    """Have a client's and a server's socket, each connected to the other."""
    made = []
    for host, address in ((network.client, CLIENT), (network.server, SERVER)):
        with host:
            sock = socket.socket(type=socket.SOCK_DGRAM)
            sock.bind((address, 0))
            made.append(sk_conn(sock))
    client, server = made
    client.connect(server.getsockname())
    server.connect(client.getsockname())
    try:
        yield client, server
    finally:
        client.abort()
        server.abort()


@contextmanager
def meanwhile(function: Callable[[], None]) -> Iterator[None]:
    """Run a function that has no end in a task beside the block."""
    task = spawn(function)
    try:
        yield
    finally:
        task.cancel()
        task.join()


@pytest.mark.parametrize("line", LINES)
def test_datagrams_arrive_whole_or_not_at_all(network: Network, line: str) -> None:
    network.set(**LINES[line])
    messages = [message(number) for number in range(COUNT)]
    arrived: list[bytes] = []

    def receive() -> None:
        while True:
            arrived.append(server.recvfrom(2000)[0])

    with sockets(network) as (client, server), meanwhile(receive):
        for one in messages:
            client.sendto(one, server.getsockname())
            sleep(0)
        counts = network.counts()["up"]
        while counts["frames"] < COUNT or len(arrived) < COUNT + counts["doubled"] - counts["lost"]:
            sleep(0.01)
            counts = network.counts()["up"]
    assert set(arrived) <= set(messages)
    if line == "disorder":
        assert arrived != messages
        assert sorted(arrived) == sorted(messages)


def test_answers_that_are_lost_are_asked_for_again(network: Network) -> None:
    network.set(loss=0.2, jitter=0.005, duplicate=0.1)

    def answer() -> None:
        while True:
            data, address = server.recvfrom(2000)
            server.sendto(data[::-1], address)

    with sockets(network) as (client, server), meanwhile(answer):
        client.settimeout(0.1)
        for number in range(30):
            question = message(number)
            answered = b""
            while answered != question[::-1]:
                client.sendto(question, server.getsockname())
                try:
                    answered = client.recvfrom(2000)[0]
                except TimeoutError:
                    pass  # once more


def test_datagrams_into_a_hole_time_out(network: Network) -> None:
    with sockets(network) as (client, server):
        network.hole()
        client.settimeout(0.2)
        client.sendto(b"anybody?", server.getsockname())
        with pytest.raises(TimeoutError):
            client.recvfrom(100)


def test_refused_datagram_is_told_to_who_waits_for_the_answer(network: Network) -> None:
    network.set(delay=0.02)
    with sockets(network) as (client, server):
        address = server.getsockname()
        server.close()
        receiver = spawn(attempt, client.recvfrom, 100)
        sleep(0)
        client.sendto(b"anybody?", address)
        assert isinstance(receiver.get(), ConnectionRefusedError)


def test_datagram_that_is_too_long_for_the_way_is_told(network: Network) -> None:
    with sockets(network) as (client, server):
        client.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
        with pytest.raises(OSError, match="too long"):
            client.sendto(bytes(3000), server.getsockname())
        client.sendto(b"short", server.getsockname())
        assert server.recvfrom(100)[0] == b"short"


def test_datagram_in_fragments_is_whole_or_lost(network: Network) -> None:
    network.set("up", loss=0.15)
    with sockets(network) as (client, server):
        long = [message(number) + bytes(4000) for number in range(20)]
        for one in long:
            client.sendto(one, server.getsockname())
        arrived = []
        server.settimeout(0.5)
        while True:
            try:
                arrived.append(server.recvfrom(9000)[0])
            except TimeoutError:
                break
    assert set(arrived) <= set(long)
    assert network.counts()["up"]["lost"] > 0


def test_datagrams_over_a_pulled_cable_are_lost_and_go_on_when_it_is_back(
    network: Network,
) -> None:
    with sockets(network) as (client, server):
        network.cut()
        for _ in range(10):
            attempt(client.sendto, b"lost", server.getsockname())
        network.heal()
        server.settimeout(0.1)
        while True:
            client.sendto(b"there", server.getsockname())
            try:
                assert server.recvfrom(100)[0] in (b"there", b"lost")
                break
            except TimeoutError:
                pass  # the carrier is not back yet
