"""Connecting, listening and serving: the sockets around connections."""

import errno
import os
import resource
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ._coronet import ParkingLot, Task, _socket, sk_conn, sleep, spawn, spawn_handler
from ._coronet import timeout as time_limit
from ._threads import getaddrinfo
from .errors import ClosedError

if TYPE_CHECKING:
    import ssl  # loaded when it is used: many programs have no TLS

    TLSClient: TypeAlias = ssl.SSLContext | Literal[True] | None

__all__ = ["connect", "listen", "max_capacity", "serve"]

# How long an attempt may take before the next address is tried beside it (RFC 8305).
ATTEMPT_DELAY = 0.25

# accept() fails with these while the system is short of something; the connections stay
# queued, and after a pause there may be room again.
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
SHORTAGE_PAUSE = 0.1

# FreeBSD spreads connections over the listeners of a port only by an option of its own.
_SHARED_PORT = getattr(socket, "SO_REUSEPORT_LB", socket.SO_REUSEPORT)

# How long a client of a TLS server may take to get ready.
HANDSHAKE_TIMEOUT = 10.0

# macOS lets no process have more than this, though it says that there is no limit.
_OPEN_MAX = 10240

Address = Any
Handler = Callable[[sk_conn, Address], object]


def _is_path(address: Address) -> bool:
    return isinstance(address, str | bytes | os.PathLike)


def connect(
    address: Address,
    *,
    timeout: float | None = None,
    tls: "TLSClient" = None,
    server_hostname: str | None = None,
) -> sk_conn:
    """Connect to a stream server and return the connection.

    address: (host, port), or the path of a Unix socket. A host name is looked up without
    blocking the hub, and its addresses are tried in turn, each a quarter of a second after
    the one before (RFC 8305); the first to answer wins.
    timeout: seconds for everything together, None for no limit.
    tls: True, or a client's ssl.SSLContext, encrypts. With True the server has to have a
    certificate that the system trusts, for server_hostname, which is the host of address
    unless it is given.

    Raises TimeoutError, socket.gaierror for an unknown name, or the OSError of the last
    attempt that failed; ssl.SSLError is one. Switches.
    """
    with time_limit(timeout):
        conn = _connect(address)
        if tls is None:
            return conn
        if server_hostname is None and not _is_path(address):
            server_hostname = address[0]
        try:
            conn.start_tls(None if tls is True else tls, server_hostname=server_hostname)
        except BaseException:
            if not conn.closed:
                conn.abort()
            raise
        return conn


def _connect(address: Address) -> sk_conn:
    if _is_path(address):
        return _attempt(socket.AF_UNIX, os.fspath(address))
    host, port = address[:2]
    family = _numeric_family(host)
    if family is not None and isinstance(port, int):
        return _attempt(family, address)  # nothing has to be looked up
    found = getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if len(found) == 1:
        return _attempt(found[0][0], found[0][4])
    return _race(_interleave_families(found))


def _numeric_family(host: Any) -> int | None:
    """Return the family that a numeric address belongs to, None for a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError, TypeError, ValueError):
            socket.inet_pton(family, host)
            return family
    return None


def _attempt(family: int, address: Address) -> sk_conn:
    conn = _socket(family, socket.SOCK_STREAM)
    try:
        conn.connect(address)
    except BaseException:
        conn.abort()
        raise
    return conn


def _interleave_families(found: list[Any]) -> list[tuple[int, Address]]:
    """Return the addresses in the resolver's order, but the families taking turns."""
    first = [entry for entry in found if entry[0] == found[0][0]]
    others = [entry for entry in found if entry[0] != found[0][0]]
    ordered = []
    while first or others:
        ordered += first[:1] + others[:1]
        first, others = first[1:], others[1:]
    return [(entry[0], entry[4]) for entry in ordered]


class _Race:
    """Attempts to connect side by side; the first success ends the others."""

    def __init__(self) -> None:
        self.winner: sk_conn | None = None
        self.errors: list[Exception] = []
        self.news = ParkingLot()
        self.attempts: list[Task] = []
        self.is_over = False

    def start(self, family: int, address: Address) -> None:
        self.attempts.append(spawn(self._run, family, address))

    def _run(self, family: int, address: Address) -> None:
        try:
            conn = _attempt(family, address)
        except Exception as error:
            self.errors.append(error)
        else:
            if self.winner is None and not self.is_over:
                self.winner = conn
            else:
                conn.abort()
        self.news.unpark()

    def stop(self) -> None:
        # An attempt that has been woken already is not cancelled any more: it ends well,
        # and has to know that nobody wants its connection.
        self.is_over = True
        for attempt in self.attempts:
            attempt.cancel()


def _race(addresses: list[tuple[int, Address]]) -> sk_conn:
    race = _Race()
    try:
        for count, (family, address) in enumerate(addresses, start=1):
            race.start(family, address)
            is_last = count == len(addresses)
            while race.winner is None and len(race.errors) < count:
                if not race.news.park("connect", None if is_last else ATTEMPT_DELAY):
                    break  # it takes its time: try the next one beside it
            if race.winner is not None:
                return race.winner
        raise race.errors[-1]
    except BaseException:
        if race.winner is not None:
            race.winner.abort()
        raise
    finally:
        race.stop()


def listen(address: Address, *, backlog: int = 1024, reuse_port: bool = False) -> sk_conn:
    """Open a listening stream socket; `accept()` on it gives connections.

    address: (host, port) with port 0 for any free one and host "" for all interfaces (IPv4
    and IPv6 where the system can do both), or the path of a Unix socket, where a leading
    NUL byte means Linux' abstract namespace. A host name is looked up.
    backlog: how many connections may wait to be accepted.
    reuse_port: let several processes listen on the same port.

    SO_REUSEADDR is set for TCP. Raises OSError (the address is in use ...). Switches only
    for a host name.
    """
    family: int
    if _is_path(address):
        family, bound_to = socket.AF_UNIX, os.fspath(address)
    else:
        family, bound_to = _address_to_bind(*address[:2])
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address[0] != "")
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, _SHARED_PORT, 1)
        sock.bind(bound_to)
        sock.listen(backlog)
        return sk_conn(sock)
    except BaseException:
        sock.close()
        raise


def _address_to_bind(host: str, port: int) -> tuple[int, Address]:
    if host == "":
        return (
            (socket.AF_INET6, ("::", port))
            if socket.has_dualstack_ipv6()
            else (
                socket.AF_INET,
                ("0.0.0.0", port),
            )
        )
    family = _numeric_family(host)
    if family is not None:
        return family, (host, port)
    found = getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return found[0][0], found[0][4]


def serve(
    address: Address,
    handler: Handler,
    *,
    backlog: int = 1024,
    reuse_port: bool = False,
    tls: "ssl.SSLContext | None" = None,
    handshake_timeout: float | None = HANDSHAKE_TIMEOUT,
) -> None:
    """Serve connections, each in a task of its own, until stopped.

    address: as for `listen()`, or a connection that `listen()` returned.
    handler: called as handler(conn, address); conn is closed when it returns.
    tls: a server's ssl.SSLContext. Each client's handshake is done in its own task, within
    handshake_timeout seconds (None for no limit), before the handler is called. One that
    fails concerns that client alone; the logger "pycoronet.tls" is told, at INFO.

    Returns when the listener is closed; a cancel or KeyboardInterrupt ends it as well. The
    handlers that are running go on. What a handler raises is reported through
    sys.unraisablehook, with the task's name, and concerns nobody else. While the process
    is out of descriptors or memory, connections stay queued and are taken up later.
    """
    if not callable(handler):
        raise TypeError(f"serve() needs a callable handler, not {type(handler).__name__}")
    if tls is not None:
        from .tls import shake_hands_first

        handler = shake_hands_first(handler, tls, handshake_timeout)
    if isinstance(address, sk_conn):
        listener = address
    else:
        listener = listen(address, backlog=backlog, reuse_port=reuse_port)
    with listener:
        while True:
            try:
                conn, peer = listener.accept()
            except ClosedError:
                return
            except OSError as error:
                if error.errno not in _SHORTAGES:
                    raise
                sleep(SHORTAGE_PAUSE)
                if listener.closed:
                    return
            except MemoryError:
                sleep(SHORTAGE_PAUSE)
            else:
                spawn_handler(handler, conn, peer)


def max_capacity() -> int:
    """Raise the soft limit of open files to the hard one; return how many may be open then.

    Never switches. Raises ValueError or OSError if the system refuses.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard
    if sys.platform == "darwin" or hard == resource.RLIM_INFINITY:
        wanted = _OPEN_MAX if hard == resource.RLIM_INFINITY else min(hard, _OPEN_MAX)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)
