"""What the tests of pycoronet.conet share: a hub driven by hand in virtual time."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pycoronet import ClosedError
from pycoronet.conet import (
    co_call,
    co_create,
    co_current,
    conet_events_dispatch,
    conet_events_wait,
    conet_new_conn,
)

Log = list[Any]


def start(function: Callable[..., object], *args: object) -> Any:
    """Make a coroutine, enter it and return it."""
    coroutine = co_create(function, *args)
    co_call(coroutine)
    return coroutine


def turn(evdmax: int = 0) -> int:
    """Fetch what is ready without waiting and dispatch; return how many were."""
    conet_events_wait(0)
    return conet_events_dispatch(evdmax)


def settle() -> None:
    """Turn until nothing happens: the events of new registrations are out of the way.

    A turn without events may have let a coroutine go on, which then waits for something new.
    """
    quiet_turns = 0
    while quiet_turns < 4:
        quiet_turns = 0 if turn() > 0 else quiet_turns + 1


def run_until(is_done: Callable[[], object]) -> None:
    """Drive the loop, letting time pass, until something is so."""
    for _ in range(10000):
        if is_done():
            return
        conet_events_wait(1000)
        conet_events_dispatch(0)
    raise AssertionError("it never happened")


class Readers:
    """Coroutines that each read lines from a connection of their own into one log."""

    def __init__(self, count: int) -> None:
        self.log: Log = []
        self.conns: list[Any] = []
        self.peers: list[socket.socket] = []
        for _ in range(count):
            left, right = socket.socketpair()
            self.peers.append(right)
            start(self._read, len(self.conns), left)
        settle()

    def _read(self, number: int, sock: socket.socket) -> None:
        conn = conet_new_conn(sock, co_current())
        self.conns.append(conn)
        with conn, suppress(ClosedError):
            for line in conn:
                self.log.append((number, line))

    def send(self, data: bytes = b"x\n") -> None:
        """Send the same to all of them."""
        for peer in self.peers:
            peer.send(data)

    def close(self) -> None:
        """Close the peers; what reads ends with the context."""
        for peer in self.peers:
            peer.close()
