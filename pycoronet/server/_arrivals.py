"""How new connections are kept away from a listening socket, without closing it.

What has arrived lies in the socket's queue, and closing the socket resets it. A server that
stops therefore lets nothing more arrive, takes what is there, and closes then.
"""

import select
import socket
import struct
import sys
from array import array

from .._coronet import sk_conn

__all__ = ["is_queued", "stop_arrivals"]

# Linux' number for it; Python has no name.
_SO_ATTACH_FILTER = 26

# A classic BPF program over the segment, which begins with the TCP header: one with SYN set
# asks for a new connection and is dropped. All others pass, so that a handshake that has
# begun goes on to its end.
_DROP_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte of flags
        (0x45, 0, 1, 0x02),  # is SYN set?
        (0x06, 0, 0, 0),  # yes: drop all of it
        (0x06, 0, 0, 0xFFFFFFFF),  # no: keep all of it
    )
)


def stop_arrivals(listener: socket.socket | sk_conn) -> bool:
    """Let no new connection into the queue of a listening socket; what is queued can be taken.

    Linux alone can do it. A client that comes later gets no answer over TCP, and is refused
    when the socket has been closed; over a Unix socket it is refused at once. It cannot be
    taken back, and it is the socket that changes: for all processes that share it.

    Returns False if the system cannot do it. Never switches.
    """
    if not sys.platform.startswith("linux"):
        return False
    sock = socket.socket(fileno=listener.fileno())
    try:
        if sock.family == socket.AF_UNIX:
            sock.shutdown(socket.SHUT_RD)
        else:
            program = array("B", _DROP_SYN)
            pointer, size = program.buffer_info()
            description = struct.pack("HP", size // 8, pointer)
            sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, description)
    except OSError:
        return False  # such as a sandbox that forbids filters
    finally:
        sock.detach()  # the descriptor is the caller's
    return True


def is_queued(sock: socket.socket) -> bool:
    """Tell whether a connection waits in the queue of a listening socket; True if unsure."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
