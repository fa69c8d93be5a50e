"""The API of Davide Libenzi's coronet, by its own names and in its own units.

The 17 functions of coronet(3) and the five of pcl(3) that its programs use, over `sk_conn`
and `Hub`; what is said there of waiting, switching and errors holds here too. A program is
ported almost line for line::

    conet_init()
    co_call(co_create(acceptor, sfd))
    while not stop:
        conet_events_wait(1000)
        conet_events_dispatch(0)
    conet_cleanup()

Where a C function returns a negative number, the one here raises OSError (TimeoutError,
ConnectionRefusedError ...); where it returns 0 for success, so does this. Nothing prints.
Each function raises RuntimeError before `conet_init()` and after `conet_cleanup()`. As
hubs are, all this is per thread.

Source: coronet's functions of the same names.
"""

import socket
import struct
import threading
import weakref
from typing import TYPE_CHECKING, Any

from ._coronet import Hub, Task, co_call, co_create, co_delete, co_resume, get_hub, sk_conn
from ._coronet import current as co_current

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "co_call",
    "co_create",
    "co_current",
    "co_delete",
    "co_resume",
    "conet_accept",
    "conet_cleanup",
    "conet_close_conn",
    "conet_connect",
    "conet_create_conn",
    "conet_events_dispatch",
    "conet_events_wait",
    "conet_init",
    "conet_mod_conn",
    "conet_new_conn",
    "conet_printf",
    "conet_read",
    "conet_readln",
    "conet_readsome",
    "conet_set_timeo",
    "conet_socket",
    "conet_write",
]

# struct linger {0, 0}: close() leaves to the kernel what has not been sent.
_NO_LINGER = struct.pack("ii", 0, 0)


class _Context(threading.local):
    """What a thread's conet_init() set up."""

    hub: Hub | None = None
    # Weak: who forgets to close a connection hears of it, as everywhere in Python.
    connections: "weakref.WeakSet[sk_conn]"


_context = _Context()


def _hub() -> Hub:
    hub = _context.hub
    if hub is None:
        raise RuntimeError("call conet_init() first: there is no conet context in this thread")
    return hub


def conet_init() -> int:
    """Set up the calling thread's context: its hub. Returns 0. Never switches.

    A second call does nothing. Raises OSError if the engine cannot be opened.
    """
    if _context.hub is None:
        hub = get_hub()
        _context.connections = weakref.WeakSet()
        _context.hub = hub
    return 0


def conet_cleanup() -> None:
    """Cancel every coroutine, close every connection and the hub.

    The coroutines' finally blocks run first. For the main program; switches. Raises
    RuntimeError from a coroutine. Without a context it does nothing.
    """
    hub = _context.hub
    if hub is None:
        return
    # The hub goes first: a coroutine is to end by Cancelled, in silence, and not by an
    # error of the connection it happens to wait for.
    hub.close()
    _context.hub = None
    for conn in _context.connections:
        conn.abort()
    _context.connections.clear()


# Connections.


def conet_new_conn(sfd: int | socket.socket, co: Task | None) -> sk_conn:
    """Make a connection of a descriptor that can be waited for, bound to a coroutine.

    sfd: a descriptor, or a socket object, which is detached. It becomes non-blocking and
    belongs to the connection. co: whom `conet_mod_conn()` concerns, as a rule
    `co_current()`; None for nobody.

    Raises ValueError for a regular file or a descriptor in use, OSError for one that is
    not open. Never switches.
    """
    _hub()
    conn = sk_conn(sfd)
    try:
        conn.coroutine = co
    except BaseException:
        conn.abort()
        raise
    _context.connections.add(conn)
    return conn


def conet_create_conn(domain: int, type: int, protocol: int, co: Task | None) -> sk_conn:
    """Open a socket and make a connection of it, bound to a coroutine.

    domain, type, protocol: as for `conet_socket()`. co: as for `conet_new_conn()`. Raises
    OSError. Never switches.
    """
    # A fresh descriptor can be refused for co alone, and then it has been closed.
    return conet_new_conn(conet_socket(domain, type, protocol), co)


def conet_close_conn(conn: sk_conn) -> None:
    """Close conn and its descriptor; who waits on it gets ClosedError at once.

    Idempotent, never switches. Raises the OSError of collected output that was lost.
    """
    _hub()
    conn.close()


def conet_set_timeo(conn: sk_conn, timeo: float) -> int:
    """Bound each later wait on conn; return 0.

    timeo: seconds, with fractions; 0 or less: no bound. What takes longer raises TimeoutError,
    punctually: never early, and in the first `conet_events_dispatch()` after the deadline.
    Raises TypeError for what is no number. Never switches.
    """
    _hub()
    conn.set_timeo(None if timeo <= 0 else timeo)
    return 0


def conet_mod_conn(conn: sk_conn, events: int) -> int:
    """Set which readiness resumes conn's coroutine from co_resume(). Returns 0.

    events: EPOLLIN, EPOLLOUT ... of select, or-ed together; 0 for none. What is ready
    already counts at once. EPOLLET is allowed and always so. The other functions wait by
    themselves and need no call of this one.

    Raises ValueError for unknown bits. Never switches.
    """
    _hub()
    conn.mod(events)
    return 0


# Reading and writing.


def conet_readsome(conn: sk_conn, n: int) -> bytes:
    """Return what conn has got, at least one byte and at most n; b"" at the end of file.

    May switch. Raises OSError.
    """
    _hub()
    return conn.readsome(n)


def conet_read(conn: sk_conn, n: int) -> bytes:
    """Return n bytes of conn, or as many as came before the end of file or an error.

    The cause is in `conn.error`: an errno, or 0 for the end of file. Raises
    RuntimeError before `conet_init()`. May switch.
    """
    _hub()
    conn.error = 0
    try:
        return conn.read(n)
    except OSError:
        if conn.closed:
            return b""  # not reached: closed by somebody else just then
        received = conn.peek(n)
        conn.drain(len(received))
        return received


def conet_readln(conn: sk_conn, limit: int = 65536) -> bytes | None:
    """Return conn's next line with its line feed, a last one also without; None at the end.

    limit: the most bytes a line may have; LineTooLongError for more, with the bytes left
    readable. May switch. Raises OSError.
    """
    _hub()
    return conn.readln(limit) or None


def conet_write(conn: sk_conn, buf: "Buffer") -> int:
    """Write all of buf (bytes-like) on conn; return its length.

    May switch. Raises OSError, with `bytes_written` saying how much went out.
    """
    _hub()
    return conn.write(buf)


def conet_printf(conn: sk_conn, fmt: bytes, *args: object) -> int:
    """Write fmt % args on conn, where fmt is bytes; return the number of bytes.

    May switch. Raises OSError, and what the % operator raises.
    """
    _hub()
    return conn.printf(fmt, *args)


# Sockets.


def conet_socket(domain: int, type: int, protocol: int = 0) -> int:
    """Open a non-blocking socket and return its descriptor.

    domain, type, protocol: as for socket.socket. It does not linger and is close-on-exec.
    Raises OSError. Never switches.
    """
    _hub()
    with socket.socket(domain, type, protocol) as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        return sock.detach()


def conet_connect(conn: sk_conn, addr: tuple[Any, ...] | str | bytes) -> int:
    """Connect conn to addr, as Python's socket module writes it; return 0.

    May switch. Raises OSError with the network's own errno.
    """
    _hub()
    conn.connect(addr)
    return 0


def conet_accept(conn: sk_conn) -> tuple[int, Any]:
    """Wait for a client of conn; return its descriptor and address.

    The descriptor is non-blocking, close-on-exec and the caller's: give it to
    `conet_new_conn()`, or close it. May switch. Raises OSError.
    """
    _hub()
    accepted, addr = conn.accept()
    try:
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        return accepted.detach(), addr
    except BaseException:  # not reached: accept() has given a socket
        accepted.abort()
        raise


# Driving the loop.


def conet_events_wait(timeo: float) -> int:
    """Wait for events; return how many are ready to be dispatched.

    timeo: milliseconds; 0 only looks, less than 0 sets no limit. It may return earlier,
    also with 0: for a deadline, a signal, or a coroutine that is ready to run. Events that
    were not dispatched stay and count again, those of one connection as one.

    For the main program: it blocks the thread, runs no coroutine, and raises RuntimeError
    elsewhere. Never switches.
    """
    return _hub().wait(None if timeo < 0 else timeo / 1000)


def conet_events_dispatch(evdmax: int) -> int:
    """Hand ready events to the coroutines that wait for them; return how many.

    evdmax: how many at most; 0 or less means all that are ready. An event counts if it
    wakes a coroutine. Then those whose deadline has passed get their TimeoutError.

    For the main program: it switches but never waits, and raises RuntimeError elsewhere.
    """
    return _hub().dispatch(evdmax)
