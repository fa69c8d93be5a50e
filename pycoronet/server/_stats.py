"""Stats: what a server counts."""

from __future__ import annotations

import time
from typing import Any, Protocol

__all__ = ["ERROR_KINDS", "SHED_REASONS", "Stats"]

SHED_REASONS = ("address", "closing", "descriptors", "pool")
ERROR_KINDS = ("accept", "handler", "input", "reset", "timeout", "tls")


class Traffic(Protocol):
    """What has gone over the wire."""

    @property
    def bytes_read(self) -> int:
        """Bytes received."""
        ...

    @property
    def bytes_sent(self) -> int:
        """Bytes sent."""
        ...


class Stats:
    """What a server has done since it was made, and what it is doing now.

    shed: connections that were closed unserved, by the reason: "address", which had too many;
    "closing": the server ended; "descriptors": none was left; "pool": all threads were busy, and
    enough waited for one.
    errors: what went wrong, by the kind: "accept", accepting; "handler", one that raised;
    "input": a line or frame over its limit, or one that the peer did not finish; "reset": the
    peer broke off; "timeout": a limit in seconds has passed; "tls": a handshake.

    All of it may be read at any time, from any thread. The server counts in its hub's thread
    alone: nothing here is locked.

    Source: cp_socket's connections_served and created; the others are pycoronet's own.
    """

    __slots__ = {  # with what help() says of each
        "accepted": "Connections taken from the system, shed ones too.",
        "cancelled": "Handlers that stop() had to cancel.",
        "connections_served": "Connections that are over, however they ended; not shed ones.",
        "created": "When the server was made, in seconds since the epoch.",
        "errors": "What went wrong, by the kind.",
        "open": "Connections that are being served or wait for a thread, now.",
        "shed": "Connections that were closed unserved, by the reason.",
        "threads": "Threads of the pool, now.",
        "traffic": "What counts the bytes.",
        "waiting": "Connections that wait for a thread, now.",
        "workers": "Worker processes, now; 0 for a server that has none.",
        "workers_started": "Worker processes started, those after a crash or a reload too.",
    }

    created: float
    accepted: int
    connections_served: int
    open: int
    shed: dict[str, int]
    errors: dict[str, int]
    cancelled: int
    threads: int
    waiting: int
    workers: int
    workers_started: int
    traffic: Traffic | None

    def __init__(self) -> None:
        self.created = time.time()
        self.accepted = 0
        self.connections_served = 0
        self.open = 0
        self.shed = dict.fromkeys(SHED_REASONS, 0)
        self.errors = dict.fromkeys(ERROR_KINDS, 0)
        self.cancelled = 0
        self.threads = 0
        self.waiting = 0
        self.workers = 0
        self.workers_started = 0
        self.traffic = None

    @property
    def bytes_read(self) -> int:
        """Bytes received over the wire, by all connections so far."""
        return 0 if self.traffic is None else self.traffic.bytes_read

    @property
    def bytes_sent(self) -> int:
        """Bytes sent over the wire, by all connections so far."""
        return 0 if self.traffic is None else self.traffic.bytes_sent

    def as_dict(self) -> dict[str, Any]:
        """Return a copy of all values by name; `shed` and `errors` are dicts themselves.

        Never switches.
        """
        values: dict[str, Any] = {
            name: getattr(self, name) for name in self.__slots__ if name != "traffic"
        }
        values["shed"] = dict(self.shed)
        values["errors"] = dict(self.errors)
        values["bytes_read"] = self.bytes_read
        values["bytes_sent"] = self.bytes_sent
        return values

    def __repr__(self) -> str:
        return (
            f"<Stats open={self.open} accepted={self.accepted} served={self.connections_served}"
            f" shed={sum(self.shed.values())} errors={sum(self.errors.values())}>"
        )
