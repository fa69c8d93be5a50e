"""Who is let in: how many connections at once, and from one address; and who is sent away."""

import contextlib
import os
import socket
from collections.abc import Hashable
from typing import Any

from .._coronet import READ, ParkingLot, sk_conn
from .._deadlines import deadline_after, seconds_until

__all__ = ["Admission", "SpareDescriptor", "accept_queued", "host_of", "send_away"]

# How much of what a client has sent already is taken before it is sent away.
UNREAD_LIMIT = 256 * 1024
PIECE = 64 * 1024


def host_of(address: Any) -> Hashable:
    """Return what counts as one client's address; None for Unix sockets, which have none.

    IPv4 clients of a dual-stack listener count by their IPv4 address.
    """
    if not isinstance(address, tuple):
        return None
    host: str = address[0]
    return host.removeprefix("::ffff:") if "." in host else host


class Admission:
    """Counts a server's connections; pauses its listeners while there are enough.

    It outlives a restart of the server, for connections that were cut off may end later.
    """

    def __init__(self) -> None:
        self._listeners: list[sk_conn] = []
        self._most: int | None = None
        self._per_host: int | None = None
        self._by_host: dict[Hashable, int] = {}
        self._is_paused = False
        self.open = 0

    def start(self, listeners: list[sk_conn], most: int | None, per_host: int | None) -> None:
        """Begin with new listeners and limits."""
        self._listeners = listeners
        self._most = most
        self._per_host = per_host
        self._is_paused = False
        self._room = ParkingLot()  # belongs to a hub: a master has a server, and may have none
        self._pause_if_full()

    @property
    def is_full(self) -> bool:
        """True while there is no room for one more."""
        return self._most is not None and self.open >= self._most

    def enter(self, address: Any) -> bool:
        """Count one more, unless its address has as many as it may."""
        if self._per_host is not None:
            host = host_of(address)
            count = self._by_host.get(host, 0)
            if host is not None:
                if count >= self._per_host:
                    return False
                self._by_host[host] = count + 1
        self.open += 1
        if self._most is not None:
            self._pause_if_full()
        return True

    def leave(self, address: Any) -> None:
        """Count one less; there is room again."""
        if self._by_host:
            host = host_of(address)
            count = self._by_host.pop(host, 0)
            if count > 1:
                self._by_host[host] = count - 1
        self.open -= 1
        if self._is_paused and not self.is_full:
            self._is_paused = False
            for listener in self._listeners:
                if not listener.closed:
                    listener.enable(READ)
            self._room.unpark()

    def forget(self) -> None:
        """Tell nobody that there is room: the hub has been closed, where they have waited."""
        self._is_paused = False

    def _pause_if_full(self) -> None:
        if self.is_full and not self._is_paused:
            self._is_paused = True
            for listener in self._listeners:
                if not listener.closed:
                    listener.disable(READ)

    def wait_for_room(self, timeout: float | None) -> bool:
        """Wait until one more may come; False if that is not so after timeout seconds."""
        deadline = deadline_after(timeout)
        while self.is_full:
            if not self._room.park("room for one more", seconds_until(deadline)):
                return not self.is_full
        return True


class SpareDescriptor:
    """A descriptor kept for when there are none: with its place, clients can be sent away.

    Otherwise they would wait in the queue, for what nobody can tell them.
    """

    def __init__(self) -> None:
        self._fd = -1

    def take(self) -> bool:
        """Have it; False if there is none to be had now."""
        if self._fd < 0:
            with contextlib.suppress(OSError):
                # Needs no file, which a changed root might not have.
                self._fd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach()
        return self._fd >= 0

    def give(self) -> bool:
        """Make room for another; False if it is not there."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):  # whatever it says, the place is free
                os.close(fd)
        return fd >= 0

    def __del__(self) -> None:
        self.give()

    def accept(self, listener: sk_conn) -> sk_conn | None:
        """Accept with the place of this one, if a connection waits; take() it again after that."""
        if not self.give():
            return None
        try:
            conn, _ = accept_queued(listener)
        except (OSError, MemoryError):
            return None  # nobody waits, or somebody else has taken the place
        return conn


def accept_queued(listener: sk_conn) -> tuple[sk_conn, Any]:
    """Accept what has come by now; raises TimeoutError if nothing has."""
    before = listener.gettimeout()
    listener.settimeout(0)
    try:
        return listener.accept()
    finally:
        if not listener.closed:
            listener.settimeout(before)


def send_away(fd: int) -> None:
    """Close a connection that is not to be served, so that its client sees an end of file.

    Closing a connection with something unread in it would reset it.
    """
    with socket.socket(fileno=fd) as sock, contextlib.suppress(OSError):
        for _ in range(UNREAD_LIMIT // PIECE):
            if not sock.recv(PIECE, socket.MSG_DONTWAIT):
                break
