"""The connections that pycoronet.libsock knows by number, each with an identity of its own.

One table for the process, for so are descriptors; each entry knows its hub and its thread. A
number that was closed and given out again belongs to another entry: whoever has the `uuid` of
the first, number and generation in one, gets ClosedError and never the second connection.
"""

import itertools
import operator
import threading
from collections.abc import Callable

from ._coronet import Hub, get_hub, sk_conn
from .errors import ClosedError

__all__ = ["Entry", "add", "find", "find_open", "known_conn", "number_of", "open_entries"]

_NUMBER_BITS = 32
_NUMBER_MASK = (1 << _NUMBER_BITS) - 1

_table: "dict[int, Entry]" = {}
_generations = itertools.count(1)


class Entry:
    """A connection in the table."""

    __slots__ = ("_thread", "conn", "hub", "number", "uuid")

    def __init__(self, conn: sk_conn) -> None:
        self.conn = conn
        self.number = conn.fileno()
        self.uuid = next(_generations) << _NUMBER_BITS | self.number
        self.hub: Hub = get_hub()
        self._thread = threading.get_ident()

    @property
    def is_gone(self) -> bool:
        """True if the descriptor is closed, and not only about to be."""
        return self.conn.fileno() != self.number

    @property
    def is_ours(self) -> bool:
        """True if its hub is this thread's."""
        return self._thread == threading.get_ident()

    def check_open(self) -> None:
        """Raise ClosedError if the connection is closed, even if it still sends."""
        if self.conn.closed:
            raise ClosedError(text=f"descriptor {self.number} is closed")

    def run(self, function: Callable[["Entry"], object]) -> None:
        """Call the function with the entry, in its hub: now, or soon if that is another's."""
        if self.is_ours:
            function(self)
        else:
            self.hub.call_soon_threadsafe(function, self)


def add(conn: sk_conn) -> Entry:
    """Put a connection of this thread's hub into the table."""
    entry = _table[conn.fileno()] = Entry(conn)
    return entry


def find(fd: int) -> Entry:
    """Return the entry of a number or a uuid. Raises ClosedError if there is none (any more)."""
    fd = operator.index(fd)
    number = fd & _NUMBER_MASK
    entry = _table.get(number)
    if entry is None or fd not in (entry.number, entry.uuid):
        raise ClosedError(text=f"descriptor {number if fd >= 0 else fd} is not open here")
    if entry.is_gone:
        if entry.is_ours:
            _table.pop(number, None)
        raise ClosedError(text=f"descriptor {number} is closed")
    return entry


def find_open(fd: int) -> Entry:
    """Return the entry of an open connection. Raises ClosedError."""
    entry = find(fd)
    entry.check_open()
    return entry


def number_of(fd: int) -> int:
    """Return the number of a uuid, which has to be valid, or of any descriptor."""
    return fd if operator.index(fd) <= _NUMBER_MASK else find(fd).number


def known_conn(fd: int) -> sk_conn | None:
    """Return the open connection that this thread has for a number, if there is one."""
    entry = _table.get(fd)
    if entry is None or entry.is_gone or entry.conn.closed or not entry.is_ours:
        return None
    return entry.conn


def open_entries() -> list[Entry]:
    """Return what this thread's hub has, without what is gone."""
    hub = get_hub()
    return [entry for entry in list(_table.values()) if entry.hub is hub and not entry.is_gone]
