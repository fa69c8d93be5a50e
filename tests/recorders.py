"""What the tests of callbacks share: protocols that write down what they are told."""

from __future__ import annotations

import itertools
import socket
import struct
from typing import Any

from connections import MOMENT

import pycoronet
from pycoronet import Protocol, _coronet

EVENTS = ("open", "data", "ready", "eof", "error", "timeout", "shutdown", "close")


class Recorder(Protocol):
    """Writes down each call, in order; takes what comes unless told to leave it.

    What is given for an event by name is called with the connection, after it was noted.
    """

    def __init__(self, *, takes: bool = True, **actions: Any) -> None:
        self.log: list[Any] = []
        self.takes = takes
        self.actions = {name: actions.pop(name) for name in EVENTS if name in actions}
        self.errors: list[BaseException] = []
        self.directions: list[int] = []  # of errors and time-outs, in order
        self.received = b""
        assert not actions

    def note(self, name: str, conn: Any) -> None:
        self.log.append(name)
        # In a callback there is no task that could wait.
        assert pycoronet.current() is None
        if name in self.actions:
            self.actions[name](conn)

    def on_open(self, conn: Any) -> None:
        self.note("open", conn)

    def on_data(self, conn: Any) -> None:
        if self.takes:
            self.received += conn.take(1 << 20)
        self.note("data", conn)

    def on_ready(self, conn: Any) -> None:
        self.note("ready", conn)

    def on_eof(self, conn: Any) -> None:
        self.note("eof", conn)
        if "eof" not in self.actions:
            super().on_eof(conn)

    def on_error(self, conn: Any, error: Exception, direction: int) -> None:
        self.errors.append(error)
        self.directions.append(direction)
        self.note("error", conn)

    def on_timeout(self, conn: Any, direction: int) -> None:
        self.directions.append(direction)
        self.note("timeout", conn)

    def on_shutdown(self, conn: Any) -> None:
        self.note("shutdown", conn)

    def on_close(self, conn: Any) -> None:
        assert conn.closed
        assert conn.fileno() == -1
        self.note("close", conn)


def turn(times: int = 3) -> None:
    """Let the hub poll and run callbacks: a moment of virtual time, a few times over."""
    for _ in range(times):
        pycoronet.sleep(MOMENT)


def told(log: list[str]) -> list[str]:
    """Return the log; in hard mode without repetitions.

    There all news come a second time, and what comes through layers comes piece by piece.
    """
    if not _coronet.HARD_MODE:
        return log
    return [name for name, _ in itertools.groupby(log)]


def reset(peer: socket.socket) -> None:
    """Close with a reset instead of an end of file."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def raise_error(*_: object) -> None:
    """Fail, as a callback may."""
    raise ZeroDivisionError("on purpose")


def queue_some(conn: Any) -> None:
    """Have a few bytes wait in a connection that takes no more."""
    conn.buffered = True
    conn.write(b"queued")
