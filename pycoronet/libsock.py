"""libsock's functions by name: non-blocking sockets with an output queue, told by number.

Each socket is an `sk_conn` that the module keeps under its descriptor. `fd` is that number, or
its `uuid` (sock_fd2uuid()), which stays the identity of one connection when the number is given
out again; `reactor` is a `libreact.Reactor` that is to tell of the socket, or None::

    def on_data(reactor, fd):
        if fd == server:
            accept_all(reactor)
        elif data := sock_read(fd, 65536):
            sock_write(fd, data)

    server = sock_listen("127.0.0.1", 7000)
    reactor_add(reactor, server)

Nothing here waits, except for sock_flush_strong() and the name in sock_connect(). Where a C
function returns -1 the one here raises OSError; for a descriptor that is closed, was not opened
here, or is another one by now that is ClosedError. Where it returns 0 for success, so does this.

What sends or closes may be called from any thread: in another one than the socket's own it is
queued to that one's hub, in order. What fails there is only told by the reactor's on_close().

Source: libsock's functions of the same names.
"""

import errno
import fcntl
import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ._coronet import get_hub, sk_conn
from ._descriptors import Entry, add, find, find_open, number_of, open_entries
from ._names import getaddrinfo
from ._packets import (
    BUFFER_FILE_READ_SIZE,
    BUFFER_PACKET_POOL,
    BUFFER_PACKET_SIZE,
    Packet,
    PacketMetadata,
    Parcel,
    close_file,
    slice_of,
    sock_checkout_packet,
    sock_free_packet,
)
from ._sock_layers import (
    SockRWHook,
    SockTLC,
    sock_rw_hook_get,
    sock_rw_hook_set,
    sock_tlc_add,
    sock_tlc_get,
    sock_tlc_set,
)
from ._sockets import listen, max_capacity
from .errors import ClosedError
from .libreact import Reactor, reactor_add, reactor_remove

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "BUFFER_FILE_READ_SIZE",
    "BUFFER_PACKET_POOL",
    "BUFFER_PACKET_SIZE",
    "Packet",
    "PacketMetadata",
    "SockRWHook",
    "SockTLC",
    "init_socklib",
    "sock_accept",
    "sock_attach",
    "sock_checkout_packet",
    "sock_clear",
    "sock_close",
    "sock_connect",
    "sock_fd2uuid",
    "sock_flush",
    "sock_flush_all",
    "sock_flush_strong",
    "sock_force_close",
    "sock_free_packet",
    "sock_is_closed",
    "sock_isvalid",
    "sock_listen",
    "sock_max_capacity",
    "sock_open",
    "sock_packets_pending",
    "sock_read",
    "sock_rw_hook_get",
    "sock_rw_hook_set",
    "sock_send_packet",
    "sock_sendfile",
    "sock_set_non_block",
    "sock_status",
    "sock_tlc_add",
    "sock_tlc_get",
    "sock_tlc_set",
    "sock_touch",
    "sock_uuid2fd",
    "sock_write",
    "sock_write2",
]

# No function here waits, however much is queued.
_NO_HIGH_MARK = 1 << 62

Port = int | str


# General helpers.


def init_socklib(maxfd: int) -> int:
    """`init_socklib`: make this thread's hub ready; return 0.

    The seed's makes room for maxfd sockets. Here that grows by itself and maxfd is only looked
    at: ValueError if it is negative. Never switches.
    """
    if maxfd < 0:
        raise ValueError(f"maxfd must be 0 or more, not {maxfd}")
    get_hub()
    return 0


def sock_set_non_block(fd: int) -> int:
    """`sock_set_non_block`: for any descriptor; return 0. Raises OSError. Never switches."""
    os.set_blocking(number_of(fd), False)
    return 0


def sock_max_capacity() -> int:
    """`sock_max_capacity`: raise the limit of open files as far as allowed and return it.

    The same as `pycoronet.max_capacity()`. Never switches.
    """
    return max_capacity()


def sock_listen(address: str | None, port: Port) -> int:
    """`sock_listen`: open a listening socket, non-blocking and SO_REUSEADDR; return its number.

    address: None for all interfaces. port: a number, 0 for any free one, or a service's name.
    A reactor hears of connections after reactor_add() or sock_attach(). Raises OSError. Switches
    for a host's name only.
    """
    return _keep(listen((address or "", _port_number(port))), None, sk_conn.abort)


def _port_number(port: Port) -> int:
    if isinstance(port, int) or port.isdecimal():
        return int(port)
    return socket.getservbyname(port, "tcp")


# Opening.


def sock_accept(reactor: Reactor | None, server_fd: int) -> int:
    """`sock_accept`: accept one connection, open it and attach it; return its number.

    server_fd: any socket that listens. Raises BlockingIOError if nobody waits there now, OSError
    for other failures, and what reactor_add() raises. Never switches.
    """
    with _Borrowed(number_of(server_fd)) as server:
        accepted, _ = server.accept()
    _prepare(accepted)
    return _keep(sk_conn(accepted), reactor, sk_conn.abort)


def sock_connect(reactor: Reactor | None, address: str, port: Port) -> int:
    """`sock_connect`: begin to connect, and open and attach the socket; return its number.

    address, port: a host and a number or service. It returns before the connection is established.
    The reactor's on_ready() tells that it is, or on_close() that it failed; what is written before
    is sent then. Without a reactor, sock_read() raises the failure. Switches for a host's name
    only, which a callback cannot; only the first address is tried. Raises socket.gaierror,
    OSError.
    """
    family, kind, protocol, _, target = _look_up(address, port)
    sock = socket.socket(family, kind, protocol)
    try:
        _prepare(sock)
        status = sock.connect_ex(target)
        if status not in (0, errno.EINPROGRESS):
            # not reached: a network that refuses at once
            raise OSError(status, os.strerror(status))
    except BaseException:
        sock.close()
        raise
    conn = sk_conn(sock)
    fd = _keep(conn, reactor, sk_conn.abort)
    conn._await_room()
    return fd


def _look_up(address: str, port: Port) -> Any:
    """Return the first entry of getaddrinfo(); a numeric address needs no waiting."""
    with suppress(socket.gaierror):
        flags = socket.AI_NUMERICHOST
        return socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=flags)[0]
    return getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]


def sock_open(reactor: Reactor | None, fd: int) -> int:
    """`sock_open`: take a descriptor as a new socket, attach it, and return 0.

    If it is open here already, its queue, buffers and layers are dropped and it gets another
    uuid. It becomes non-blocking. If it cannot be attached it stays the caller's. Raises OSError
    and what sk_conn() and reactor_add() raise. Never switches.
    """
    number = number_of(fd)
    with suppress(ClosedError):
        sock_clear(number)
    _keep(sk_conn(number), reactor, sk_conn._forget)
    return 0


def sock_attach(reactor: Reactor, fd: int) -> int:
    """`sock_attach`: have the reactor tell of an open socket, whose buffers stay; return 0.

    It leaves the reactor that it was attached to before. Raises ClosedError, and what
    reactor_add() raises. Never switches.
    """
    conn = find_open(fd).conn
    owner = getattr(conn.callbacks, "reactor", None)
    if owner is not None and owner is not reactor:
        reactor_remove(owner, conn.sfd)
    return reactor_add(reactor, conn)


def sock_clear(fd: int) -> None:
    """`sock_clear`: drop what is known of a socket, queue and buffers, without closing it.

    The descriptor is the caller's from then on. Other than in C it also leaves its reactor,
    which calls nothing. Raises ClosedError. Never switches.
    """
    entry = find(fd)
    owner = getattr(entry.conn.callbacks, "reactor", None)
    if owner is not None and not entry.conn.closed:
        reactor_remove(owner, entry.number)
    entry.conn._forget()


def _keep(conn: sk_conn, reactor: Reactor | None, undo: Callable[[sk_conn], object]) -> int:
    """Put a new connection into the table and on the reactor, or undo it; return its number."""
    number = conn.fileno()
    try:
        conn.set_watermarks(write_high=_NO_HIGH_MARK)
        if reactor is not None:
            reactor_add(reactor, conn)
        add(conn)
    except BaseException:
        undo(conn)
        raise
    return number


class _Borrowed(socket.socket):
    """A socket object for a descriptor that stays somebody else's."""

    def __init__(self, fd: int) -> None:
        super().__init__(fileno=fd)
        self.setblocking(False)

    def __exit__(self, *exception: object) -> None:
        self.detach()


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


# State and identity.


def sock_status(fd: int) -> int:
    """`sock_status`: return the socket's flags as fcntl(F_GETFL). Raises ClosedError.

    Never switches.
    """
    return fcntl.fcntl(find_open(fd).number, fcntl.F_GETFL)


def sock_is_closed(fd: int) -> bool:
    """`sock_is_closed`: True for what sock_close() was called for, though it may still send.

    Raises nothing. Never switches.
    """
    return not sock_isvalid(fd)


def sock_isvalid(uuid: int) -> bool:
    """`sock_isvalid`: True if uuid's very connection is open; for a number, any one here.

    Raises nothing. Never switches.
    """
    try:
        find_open(uuid)
    except ClosedError:
        return False
    return True


def sock_fd2uuid(fd: int) -> int:
    """`sock_fd2uuid`: return the identity of an open socket. Raises ClosedError.

    Never switches.
    """
    return find_open(fd).uuid


def sock_uuid2fd(uuid: int) -> int:
    """`sock_uuid2fd`: return the number. Other than in C a uuid of the past: ClosedError.

    Never switches.
    """
    return find_open(uuid).number


def sock_touch(fd: int) -> None:
    """`sock_touch`: have the time of its timeout begin anew, as if something had come.

    That is the `settimeout()` of its connection, told by on_timeout() to callbacks that
    listen for it. Raises ClosedError. Never switches.
    """
    find_open(fd).run(_touch)


def _touch(entry: Entry) -> None:
    if not entry.conn.closed:
        entry.conn.settimeout(entry.conn.gettimeout())


# Reading.


def sock_read(fd: int, count: int) -> bytes:
    """`sock_read`: return what is there, at most count bytes; b"" if nothing is there yet.

    At the end of the stream, where C has -1, it closes the socket and raises ClosedError. Attached
    to a reactor it returns b"" there too, and the reactor closes it and calls on_close(). A
    failure of the connection closes it as well, and raises its OSError. For the socket's own
    thread; RuntimeError in another. Never switches.
    """
    conn = find_open(fd).conn
    try:
        data = _take(conn, count)
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            # not reached: systems other than Linux
            return b""  # some systems say so while it is being connected
        conn.abort()
        raise
    if data is None:
        conn.close()
        raise ClosedError(text=f"descriptor {fd} is closed: its stream has ended")
    return data


def _take(conn: sk_conn, count: int) -> bytes | None:
    """Return what is there, b"" if nothing is, None at the end."""
    data = conn.take(count)
    if data or count == 0:
        return data
    if conn.layers:
        return None if conn.layers[0].ended else data
    # Callbacks find the end by themselves.
    if conn.callbacks is not None or not _is_readable(conn.fileno()):
        return data
    # Something has come meanwhile; if there is nothing to take, it is the end.
    return conn.take(count) or None


def _is_readable(fd: int) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))


# Writing.


def sock_write(fd: int, buffer: "Buffer", count: int | None = None) -> int:
    """`sock_write`: queue a copy of count bytes of the buffer, None for all; return 0.

    Raises ClosedError, ValueError if the buffer has fewer, and the OSError of output that could
    not be sent before, which closes the socket. Never switches.
    """
    sock_write2(fd, buffer, length=count)
    return 0


def sock_write2(
    fd: int,
    buffer: Any,
    *,
    length: int | None = None,
    offset: int = 0,
    move: bool = False,
    urgent: bool = False,
    file: bool = False,
    is_fd: bool = False,
    dealloc: Callable[[Any], object] | None = None,
) -> int:
    """`sock_write2`: queue a buffer or a file; return the number of bytes.

    length: None for all that follows the offset. move: the buffer is kept instead of a copy and
    is not to be changed until it has left. dealloc: called as dealloc(buffer) when it has left or
    was dropped; C frees moved buffers itself. urgent: overtake what has not begun to leave.
    file: the buffer is a file object; is_fd: a descriptor. It is sent from the offset on, not
    from its position, and then closed. The bytes of a file that another thread gives count as 0.

    Raises as sock_write(), and for files as sk_conn.sendfile(); what was given is then still the
    caller's. Never switches.
    """
    if file or is_fd:
        if move or dealloc is not None:
            raise ValueError("move and dealloc are for buffers; a file is closed")
        return sock_sendfile(fd, buffer, offset, length, urgent=urgent)
    entry = find_open(fd)
    part = slice_of(buffer, offset, length)
    if not entry.is_ours and not move:
        part = bytes(part)
    release = None if dealloc is None else lambda _part: dealloc(buffer)

    def queue(entry: Entry) -> None:
        entry.conn.enqueue(part, urgent=urgent, move=move, dealloc=release)

    _queue(entry, queue, lambda: None if release is None else release(part))
    return memoryview(part).nbytes


def sock_sendfile(
    fd: int, file: Any, offset: int = 0, length: int | None = None, *, urgent: bool = False
) -> int:
    """`sock_sendfile`: queue a file object or descriptor, closed after that; return its bytes.

    By sendfile(2) where the system can. length: None for all that follows the offset. urgent: as
    for sock_write2(). Raises as sock_write2(). Never switches.
    """
    counts = [0]

    def queue(entry: Entry) -> None:
        counts[0] = entry.conn.sendfile(file, offset, length, close=True, urgent=urgent)

    _queue(find_open(fd), queue, lambda: close_file(file))
    return counts[0]


def _queue(entry: Entry, function: Callable[[Entry], object], drop: Callable[[], object]) -> None:
    """Have output queued, in the socket's own thread.

    drop: frees what another thread has given if nothing can be sent any more.
    """
    if entry.is_ours:
        _check_output(entry)
        function(entry)
    else:
        entry.hub.call_soon_threadsafe(_queue_late, entry, function, drop)


def _queue_late(
    entry: Entry, function: Callable[[Entry], object], drop: Callable[[], object]
) -> None:
    try:
        entry.check_open()
        _check_output(entry)
        function(entry)
    except BaseException:
        drop()
        if not entry.conn.closed:
            raise  # a file that cannot be sent: reported, for there is nobody to tell


def _check_output(entry: Entry) -> None:
    """Raise what became of earlier output, if that failed; the socket is closed then."""
    try:
        entry.conn.enqueue(())
    except OSError:
        entry.conn.abort()
        raise


def sock_send_packet(fd: int, packet: Packet) -> int:
    """`sock_send_packet`: queue a packet and its chain, as one message, and flush; return 0.

    The packets are the connection's from then on: using them again raises ValueError. If
    this raises they are still the caller's, and nothing of them was queued. Raises ClosedError,
    ValueError and TypeError for packets that do not fit together, OSError for their files; one
    that is noticed only in the middle of the chain closes the connection. Never switches.
    """
    entry = find_open(fd)
    parcel = Parcel(packet)

    def send(entry: Entry) -> None:
        parcel.queue(entry.conn)
        _flush_quietly(entry)  # that the connection has failed is for the next call to tell

    _queue(entry, send, parcel.drop)
    parcel.take()
    return 0


# Flushing and closing.


def sock_flush(fd: int) -> int:
    """`sock_flush`: send what the system takes now; return how many bytes that was.

    Also after sock_close(), whose socket is closed when all has left. Reactors and tasks
    flush by themselves. Raises ClosedError, and the OSError of output that could not be
    sent, which closes the socket. From another thread it returns 0. Never switches.
    """
    entry = find(fd)
    if entry.is_ours:
        return _flush(entry)
    entry.run(_flush_quietly)
    return 0


def _flush(entry: Entry) -> int:
    try:
        return entry.conn._flush_now()
    except ClosedError:
        raise
    except OSError:
        entry.conn.abort()
        raise


def _flush_quietly(entry: Entry) -> None:
    with suppress(Exception):  # of a layer it may be anything
        _flush(entry)


def sock_flush_strong(fd: int) -> None:
    """`sock_flush_strong`: return when everything has been sent. May switch, unlike the others.

    In a callback, which cannot wait, that is RuntimeError if it cannot leave at once. Raises
    ClosedError, OSError.
    """
    find_open(fd).conn.flush()


def sock_flush_all() -> int:
    """`sock_flush_all`: flush all sockets of this thread; return how many still have output.

    A failure concerns its own socket alone, which is closed. Never switches.
    """
    for entry in open_entries():
        _flush_quietly(entry)
    return sum(entry.conn.pending > 0 for entry in open_entries())


def sock_close(reactor: Reactor | None, fd: int) -> None:
    """`sock_close`: close a socket when its output has been sent; on_close() follows.

    reactor: not needed, for the socket knows its own. It counts as closed at once, and is for
    sending only. Raises ClosedError, also for one that was closed before. Never switches.
    """
    find_open(fd).run(_close)


def _close(entry: Entry) -> None:
    with suppress(OSError):
        entry.conn.close()


def sock_force_close(reactor: Reactor | None, fd: int) -> None:
    """`sock_force_close`: close a socket at once and drop its output; on_close() follows.

    Also after sock_close(). reactor: as there. Raises ClosedError. Never switches.
    """
    find(fd).run(_abort)


def _abort(entry: Entry) -> None:
    entry.conn.abort()


def sock_packets_pending(fd: int) -> bool:
    """`sock_packets_pending`: True if output waits, also after sock_close(). Raises ClosedError.

    Never switches.
    """
    return find(fd).conn.pending > 0
