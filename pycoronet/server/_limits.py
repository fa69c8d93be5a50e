"""Who is let in: how many connections at once, and from one address."""

from collections.abc import Hashable
from typing import Any

from .._coronet import READ, sk_conn

__all__ = ["Admission", "host_of"]


def host_of(address: Any) -> Hashable:
    """Return what counts as one client's address; None for Unix sockets, which have none.

    IPv4 clients of a dual-stack listener count by their IPv4 address.
    """
    if not isinstance(address, tuple):
        return None
    host: str = address[0]
    return host.removeprefix("::ffff:") if "." in host else host


class Admission:
    """Counts a server's connections; pauses its listeners while there are enough."""

    def __init__(self, listeners: list[sk_conn], most: int | None, per_host: int | None) -> None:
        self._listeners = listeners
        self._most = most
        self._per_host = per_host
        self._by_host: dict[Hashable, int] = {}
        self.open = 0

    def enter(self, address: Any) -> bool:
        """Count one more, unless its address has as many as it may."""
        if self._per_host is not None:
            host = host_of(address)
            count = self._by_host.get(host, 0)
            if host is not None and count >= self._per_host:
                return False
            self._by_host[host] = count + 1
        self.open += 1
        if self.open == self._most:
            for listener in self._listeners:
                if not listener.closed:
                    listener.disable(READ)
        return True

    def leave(self, address: Any) -> None:
        """Count one less; there is room again."""
        if self._per_host is not None:
            host = host_of(address)
            self._by_host[host] -= 1
            if not self._by_host[host]:
                del self._by_host[host]
        self.open -= 1
        if self._most is not None and self.open == self._most - 1:
            for listener in self._listeners:
                if not listener.closed:
                    listener.enable(READ)
