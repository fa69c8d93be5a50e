"""Connecting, listening and serving: the sockets around connections."""

import errno
import functools
import math
import os
import resource
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ._accepting import AcceptErrorFunction, accept_all
from ._binding import Address, bind, find_places, is_path, numeric_family
from ._coronet import READ, ParkingLot, Task, _listen, _socket, sk_conn, spawn, spawn_handler
from ._coronet import timeout as time_limit
from ._names import getaddrinfo

if TYPE_CHECKING:
    import ssl  # loaded when it is used: many programs have no TLS

    TLSClient: TypeAlias = ssl.SSLContext | Literal[True] | None

__all__ = ["connect", "listen", "max_capacity", "serve"]

# How long an attempt may take before the next address is tried beside it (RFC 8305).
ATTEMPT_DELAY = 0.25

# What the BSDs call "only when data has come": a struct accept_filter_arg, a name of 16 bytes
# and 240 for an argument that this filter has not.
_SO_ACCEPTFILTER = 0x1000
_DATA_READY = b"dataready".ljust(256, b"\0")

# What Linux' option, an int, can hold.
_LONGEST_DEFERRAL = 2**31 - 1

# How long a client of a TLS server may take to get ready.
HANDSHAKE_TIMEOUT = 10.0

# macOS lets no process have more than this, though it says that there is no limit.
_OPEN_MAX = 10240

Handler = Callable[[sk_conn, Any], object]


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

    Source: coronet's conet_connect; libevent's bufferevent_socket_connect_hostname.
    """
    with time_limit(timeout):
        conn = _connect(address)
        if tls is None:
            return conn
        if server_hostname is None and isinstance(address, tuple | list):
            server_hostname = address[0]
        try:
            conn.start_tls(None if tls is True else tls, server_hostname=server_hostname)
        except BaseException:
            if not conn.closed:
                conn.abort()  # not reached: a failed handshake has closed it
            raise
        return conn


def _connect(address: Any) -> sk_conn:
    if is_path(address):
        return _attempt(socket.AF_UNIX, os.fspath(address))
    host, port = address[:2]
    family = numeric_family(host)
    if family is not None and isinstance(port, int):
        return _attempt(family, address)  # nothing has to be looked up
    found = getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if len(found) == 1:
        return _attempt(found[0][0], found[0][4])
    return _race(_interleave_families(found))


def _attempt(family: int, address: Any) -> sk_conn:
    conn = _socket(family, socket.SOCK_STREAM)
    try:
        conn.connect(address)
    except BaseException:
        conn.abort()
        raise
    return conn


def _interleave_families(found: list[Any]) -> list[tuple[int, Any]]:
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

    def start(self, family: int, address: Any) -> None:
        self.attempts.append(spawn(self._run, family, address))

    def _run(self, family: int, address: Any) -> None:
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


def _race(addresses: list[tuple[int, Any]]) -> sk_conn:
    race = _Race()
    try:
        for count, (family, address) in enumerate(addresses, start=1):
            race.start(family, address)
            is_last = count == len(addresses)
            while race.winner is None and len(race.errors) < count:
                if not race.news.park("connect", None if is_last else ATTEMPT_DELAY):
                    # not reached: coverage.py loses sight of it at a switch
                    break  # it takes its time: try the next one beside it
            if race.winner is not None:
                return race.winner  # not reached: as above
        raise race.errors[-1]
    except BaseException:
        if race.winner is not None:
            race.winner.abort()
        raise
    finally:
        race.stop()


def listen(
    address: Address,
    *,
    backlog: int = 1024,
    reuse_port: bool = False,
    reuse_address: bool = True,
    close_on_exec: bool = True,
    defer_accept: float | None = None,
    ipv6_only: bool | None = None,
    enabled: bool = True,
) -> sk_conn:
    """Open a listening stream socket; `accept()` on it gives connections.

    address: (host, port) with port 0 for any free one and host "" for all interfaces (IPv4
    and IPv6 where the system can do both), or the path of a Unix socket, where a leading
    NUL byte means Linux' abstract namespace. A host name is looked up.
    backlog: how many connections may wait to be accepted.
    reuse_port: let several processes listen on the same port.
    reuse_address: TCP: let the port be taken while old connections of it are still dying.
    close_on_exec: False leaves the listening socket open in programs that are executed.
    defer_accept: TCP: a connection is accepted only when its client has sent something, or,
    on Linux, about so many seconds have passed (a fraction counts as a whole one). The BSDs
    know no such limit and need the accept filter accf_data; macOS and OpenBSD have neither.
    ipv6_only: for "::" and "", True: IPv6 clients alone; False: IPv4 clients on the same socket
    as well. None: both for "" and IPv6 alone for "::". Other hosts can have True: a name is
    looked up for an IPv6 address then.
    enabled: False leaves connections in the system's queue until `enable(READ)` is called.

    What is accepted is non-blocking and close-on-exec in any case. Raises OSError (the
    address is in use, the system has no such option ...), ValueError for options that the
    address cannot have. Switches only for a host name.

    Source: libsock's sock_listen; libevent's evconnlistener.
    """
    place = find_places(address, ipv6_only=ipv6_only, look_up=getaddrinfo)[0]
    if defer_accept is not None:
        _check_defer_accept(place.family, defer_accept)
    sock = bind(
        place,
        reuse_port=reuse_port,
        reuse_address=reuse_address,
        close_on_exec=close_on_exec,
    )
    try:
        listener = sk_conn(sock)
    except BaseException:
        sock.close()
        raise
    try:
        _listen(listener, backlog)
        if defer_accept is not None:
            _defer_accept(listener, defer_accept)
        if not enabled:
            listener.disable(READ)
    except BaseException:
        listener.abort()
        raise
    return listener


def _check_defer_accept(family: int, seconds: float) -> None:
    if family == socket.AF_UNIX:
        raise ValueError("defer_accept is for TCP, not for Unix sockets")
    if not 0 < seconds <= _LONGEST_DEFERRAL:
        raise ValueError(
            f"defer_accept must be more than 0 and at most {_LONGEST_DEFERRAL} seconds, "
            f"or None, not {seconds!r}"
        )


def _defer_accept(listener: sk_conn, seconds: float) -> None:
    if hasattr(socket, "TCP_DEFER_ACCEPT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, math.ceil(seconds))
    elif sys.platform.startswith(("freebsd", "netbsd", "dragonfly")):
        try:
            listener.setsockopt(socket.SOL_SOCKET, _SO_ACCEPTFILTER, _DATA_READY)
        except FileNotFoundError:
            raise OSError(errno.EOPNOTSUPP, "the accept filter accf_data is not loaded") from None
    else:
        raise OSError(errno.EOPNOTSUPP, "this system cannot defer accepting")


def serve(
    address: Address | sk_conn,
    handler: Handler,
    *,
    backlog: int = 1024,
    reuse_port: bool = False,
    tls: "ssl.SSLContext | None" = None,
    handshake_timeout: float | None = HANDSHAKE_TIMEOUT,
    on_accept_error: AcceptErrorFunction | None = None,
) -> None:
    """Serve connections, each in a task of its own, until stopped.

    address: as for `listen()`, or a connection that `listen()` returned.
    handler: called as handler(conn, address); conn is closed when it returns.
    tls: a server's ssl.SSLContext. Each client's handshake is done in its own task, within
    handshake_timeout seconds (None for no limit), before the handler is called. One that
    fails concerns that client alone; the logger "pycoronet.tls" is told, at INFO.
    on_accept_error: called as on_accept_error(listener, error) when accepting fails, also by
    a shortage, once for each pause. It may close or disable the listener. What it raises
    ends the server.

    Returns when the listener is closed; a cancel or KeyboardInterrupt ends it as well. The
    handlers that are running go on. What a handler raises is reported through
    sys.unraisablehook, with the task's name, and concerns nobody else. While the process
    is out of descriptors or memory, connections stay queued and are taken up later; any
    other error of accept() is raised. Switches.

    Source: pycoronet's own, after the acceptor of coronet's cnhttpd.
    """
    if not callable(handler):
        raise TypeError(f"serve() needs a callable handler, not {type(handler).__name__}")
    if on_accept_error is not None and not callable(on_accept_error):
        raise TypeError(
            f"on_accept_error must be callable or None, not {type(on_accept_error).__name__}"
        )
    if tls is not None:
        from .tls import shake_hands_first

        handler = shake_hands_first(handler, tls, handshake_timeout)
    if isinstance(address, sk_conn):
        listener = address
    else:
        listener = listen(address, backlog=backlog, reuse_port=reuse_port)
    with listener:
        accept_all(listener, functools.partial(spawn_handler, handler), on_accept_error)


def max_capacity() -> int:
    """Raise the soft limit of open files to the hard one; return how many may be open then.

    Never switches. Raises ValueError or OSError if the system refuses.

    Source: libsock's sock_max_capacity.
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
