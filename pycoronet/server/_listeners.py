"""Which listening sockets there are for which address, and who of the workers gets which."""

import socket
from dataclasses import dataclass, field

__all__ = ["Listeners", "share_out"]


@dataclass
class Listeners:
    """The listening sockets of one address: one that all workers share, or one for each.

    address: the address as the setting names it; a handover knows the sockets by it.
    """

    address: str
    sockets: list[socket.socket] = field(default_factory=list)

    def close(self) -> None:
        """Close all sockets."""
        for sock in self.sockets:
            sock.close()


def _group_by_name(sockets: list[socket.socket]) -> list[list[socket.socket]]:
    """Return the sockets that are bound to the same address together: a name may have several."""
    groups: dict[object, list[socket.socket]] = {}
    for sock in sockets:
        groups.setdefault((sock.family, sock.getsockname()), []).append(sock)
    return list(groups.values())


def share_out(listeners: list[Listeners], index: int, processes: int) -> list[socket.socket]:
    """Return the sockets for worker number [index] out of [processes].

    Each socket is somebody's, and each worker has one of each address at least.
    """
    own: list[socket.socket] = []
    for entry in listeners:
        for group in _group_by_name(entry.sockets):
            own += group[index::processes] or [group[index % len(group)]]
    return own
