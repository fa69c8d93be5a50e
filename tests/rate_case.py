"""What the tests of rate limits share: connections that always want more, and how much moved."""

from __future__ import annotations

import socket
from typing import Any

from connections import Ends

import pycoronet
from pycoronet import RateLimit, sleep, spawn

READING, WRITING = "read", "write"
DIRECTIONS = [READING, WRITING]


def limit(direction: str, rate: int, burst: int | None = None) -> RateLimit:
    """Return a limit for one direction."""
    numbers = {f"{direction}_rate": rate, f"{direction}_burst": burst}
    return RateLimit(**numbers)


def remaining(owner: Any, direction: str) -> int:
    """Return the tokens that a connection or a group has."""
    tokens: int = getattr(owner, f"{direction}_remaining")
    return tokens


class Flow:
    """A connection that moves as much as it may, in pieces of a size, from one task.

    [conn] is the end that limits are for: it writes, or it reads what comes without end.
    """

    def __init__(self, ends: Ends, direction: str, piece: int = 16384) -> None:
        self.left, self.right = (ends.conn(end) for end in socket.socketpair())
        self.conn = self.left if direction == WRITING else self.right
        self.piece = piece
        self.arrived = 0
        self.sizes: list[int] = []
        self.is_writing_small = direction == WRITING

    def start(self) -> Flow:
        """Begin to write at the one end and to read at the other."""
        self.tasks = [spawn(self._write), spawn(self._read)]
        return self

    def _write(self) -> None:
        data = b"x" * (self.piece if self.is_writing_small else 16384)
        while True:
            self.left.write(data)

    def _read(self) -> None:
        size = 1 << 20 if self.is_writing_small else self.piece
        while got := len(self.right.recv(size)):
            self.arrived += got
            self.sizes.append(got)

    def stop(self) -> None:
        """End both tasks."""
        for task in self.tasks:
            task.cancel()
        sleep(0)


def seconds(call: Any, *arguments: object) -> float:
    """Return how long a call takes in virtual time."""
    hub = pycoronet.get_hub()
    begin = hub.time
    call(*arguments)
    return hub.time - begin
