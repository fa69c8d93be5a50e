"""The listening sockets of a server with worker processes: one for all workers, or one for each.

The master has them all, for as long as it lives. So when a worker ends, what is queued in its
socket stays there until the next worker with that number takes it.
"""

import socket
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from .._binding import SHARED_PORT
from .._coronet import sk_conn
from ._addresses import (
    borrow,
    format_address,
    is_borrowed,
    open_listeners,
    parse_addresses,
)
from ._handover import Predecessor
from ._unix_paths import adopt_path, disown_path, unlink_path

__all__ = ["Listeners", "close_listener", "open_for_workers", "share_out"]


@dataclass
class Listeners:
    """The listening sockets of one address.

    address: as the setting names it, in words; a handover knows the sockets by it.
    """

    address: str
    sockets: list[socket.socket]
    is_drained: bool = True  # what is queued is served before they are closed

    @property
    def are_borrowed(self) -> bool:
        """True if somebody else goes on with the sockets in any case."""
        return any(map(is_borrowed, self.sockets))

    def adopt(self) -> None:
        """Make the file of a Unix socket ours to remove."""
        for sock in self.sockets:
            adopt_path(sock)

    def close(self) -> None:
        """Close the sockets, and remove their files if they are ours."""
        for sock in self.sockets:
            close_listener(sock)

    def leave(self) -> None:
        """Close the sockets in this process, because another one goes on with them."""
        for sock in self.sockets:
            disown_path(sock)
            sock.close()


def close_listener(listener: socket.socket | sk_conn) -> None:
    """Close a listening socket, and remove its file if it is ours."""
    if listener.fileno() >= 0:
        with suppress(OSError):  # the directory does not allow it any more
            unlink_path(listener)
    with suppress(OSError):  # whatever it says, the descriptor is gone
        listener.close()


def open_for_workers(
    addresses: Any,
    *,
    count: int,
    kind: str = "",
    predecessor: Predecessor | None = None,
    reuse_port: bool = False,
    **options: Any,
) -> list[Listeners]:
    """Open what workers listen on; take it from an earlier master where it has it.

    count: so many sockets for each TCP address; the system spreads the connections over them.
    kind: what they are for, if not for the handler. reuse_port: others, who are not of this
    server, may listen there too. options: for open_listeners(), which also says what is raised.
    """
    opened: list[Listeners] = []
    with ExitStack() as undo:
        for address in parse_addresses(addresses):
            name = f"{kind} {format_address(address)}".lstrip()
            entry = Listeners(name, [], is_drained=not kind)
            if predecessor is not None:
                entry.sockets = predecessor.take(name)
                for sock in entry.sockets:
                    borrow(sock, address)
            undo.callback(entry.close)
            if not entry.sockets:
                entry.sockets = open_listeners(address, reuse_port=reuse_port, **options)
            if isinstance(address, tuple):
                _add_sockets(entry, address, count, options)
            opened.append(entry)
        undo.pop_all()
    return opened


def _add_sockets(
    entry: Listeners, address: tuple[Any, ...], count: int, options: dict[str, Any]
) -> None:
    """Open more sockets at the address, until there are [count].

    The first was bound as if it were the only one: had it said that it shares its port, it
    would have got in beside another server that says so too, and taken connections from it.
    """
    missing = count - min(map(len, _group_by_name(entry.sockets)))
    if missing <= 0:
        return
    for sock in entry.sockets:
        sock.setsockopt(socket.SOL_SOCKET, SHARED_PORT, 1)
    port = entry.sockets[0].getsockname()[1]
    place = (address[0], port, *address[2:])
    entry.sockets += open_listeners(place, reuse_port=True, count=missing, **options)


def _group_by_name(sockets: list[socket.socket]) -> list[list[socket.socket]]:
    """Return sockets of the same bound address together: a host's name may have several."""
    groups: dict[object, list[socket.socket]] = {}
    for sock in sockets:
        groups.setdefault((sock.family, sock.getsockname()), []).append(sock)
    return list(groups.values())


def share_out(listeners: list[Listeners], index: int, processes: int) -> list[socket.socket]:
    """Return the sockets for worker number [index] out of [processes].

    Each socket is somebody's, and each worker has one of each bound address at least.
    """
    own: list[socket.socket] = []
    for entry in listeners:
        for group in _group_by_name(entry.sockets):
            own += group[index::processes] or [group[index % len(group)]]
    return own
