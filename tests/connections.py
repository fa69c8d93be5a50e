"""What the tests of connections share: pairs of ends, and peers that act piece by piece."""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from typing import Any

import pycoronet
from pycoronet import IncompleteReadError, LineTooLongError

# Where all open descriptors are listed. FreeBSD's /dev/fd need not have them, so it is not here.
FD_FOLDER = {"linux": "/proc/self/fd", "darwin": "/dev/fd"}.get(sys.platform)
HIGHEST_DESCRIPTOR = 4096  # of a test, where there is no list
Keep = Callable[[Any], Any]
PEER_TIMEOUT = 10.0  # a failing test ends, too

# A moment of virtual time: it passes only when nothing else can go on.
MOMENT = 0.001


def open_descriptors() -> set[str]:
    """Return the numbers that are open, without the one that was needed to look."""
    names = map(str, range(HIGHEST_DESCRIPTOR))
    if FD_FOLDER is not None:
        names = os.listdir(FD_FOLDER)  # noqa: PTH208
    return {name for name in names if _is_open(int(name))}


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def count_descriptors() -> int:
    """Return how many are open, without the one that was needed to look."""
    return len(open_descriptors())


def unix_pair(keep: Keep, kind: int = socket.SOCK_STREAM) -> tuple[Any, socket.socket]:
    """Return an sk_conn and the other end of it as a socket."""
    left, right = socket.socketpair(socket.AF_UNIX, kind)
    right.settimeout(PEER_TIMEOUT)
    return keep(pycoronet.sk_conn(left)), keep(right)


class Ends:
    """Makes connections with the other end as a plain object; closes all of them."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def close(self) -> None:
        """Close everything that was made."""
        self._stack.close()

    def keep(self, closable: Any) -> Any:
        """Close [closable] in the end."""
        self._stack.callback(closable.close)
        return closable

    def conn(self, file: Any) -> Any:
        """Return an sk_conn, which is aborted in the end."""
        conn = pycoronet.sk_conn(file)
        self._stack.callback(conn.abort)
        return conn

    def sockets(self, kind: str = "unix") -> tuple[socket.socket, socket.socket]:
        """Return two connected sockets of a kind: unix, seqpacket, tcp, tcp6, udp."""
        if kind in ("unix", "seqpacket"):
            type_ = socket.SOCK_STREAM if kind == "unix" else socket.SOCK_SEQPACKET
            left, right = socket.socketpair(socket.AF_UNIX, type_)
        elif kind == "udp":
            left, right = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
            for sock in (left, right):
                sock.bind(("127.0.0.1", 0))
            left.connect(right.getsockname())
            right.connect(left.getsockname())
        else:
            family, host = (
                (socket.AF_INET6, "::1") if kind == "tcp6" else (socket.AF_INET, "127.0.0.1")
            )
            with socket.create_server((host, 0), family=family) as server:
                left = socket.create_connection(server.getsockname()[:2])
                right, _ = server.accept()
            for sock in (left, right):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        right.settimeout(PEER_TIMEOUT)
        return left, self.keep(right)

    def pair(self, kind: str = "unix") -> tuple[Any, socket.socket]:
        """Return an sk_conn and the socket at its other end."""
        left, right = self.sockets(kind)
        return self.conn(left), right

    def reading(self, kind: str) -> tuple[Any, Callable[[bytes], object], Callable[[], object]]:
        """Return an sk_conn to read from, and how to send to it and how to end the stream."""
        if kind == "pipe":
            read_end, write_end = os.pipe()
            writer = self.keep(os.fdopen(write_end, "wb", buffering=0))
            return self.conn(read_end), writer.write, writer.close
        conn, peer = self.pair(kind)
        return conn, peer.sendall, lambda: peer.shutdown(socket.SHUT_WR)


def feed(
    send: Callable[[bytes], object],
    pieces: Iterable[bytes],
    end: Callable[[], object] | None = None,
) -> Any:
    """Start a task that sends the pieces one by one, each when the last has been read."""

    def run() -> None:
        for piece in pieces:
            pycoronet.sleep(MOMENT)
            send(piece)
        pycoronet.sleep(MOMENT)
        if end is not None:
            end()

    return pycoronet.spawn(run)


def attempt(call: Callable[..., object], *args: object) -> object:
    """Return what the call returns or raises: for tasks whose failure is expected."""
    try:
        return call(*args)
    except Exception as error:
        return error


def drain_now(sock: socket.socket, size: int = 1 << 20) -> bytes:
    """Return what is there to be read, at most size bytes, without waiting."""
    timeout = sock.gettimeout()
    sock.settimeout(0)
    try:
        return sock.recv(size)
    except BlockingIOError:
        return b""
    finally:
        sock.settimeout(timeout)


def fill(conn: Any) -> int:
    """Write until the system takes no more; return how many bytes it took."""
    timeout, conn.timeo = conn.timeo, 0
    is_buffered, conn.buffered = conn.buffered, False
    total = 0
    try:
        while True:
            conn.write(b"f" * 65536)
            total += 65536
    except TimeoutError as error:
        return total + error.bytes_written  # type: ignore[attr-defined]
    finally:
        conn.timeo = timeout
        conn.buffered = is_buffered


def read_all(ends: Ends, kind: str, pieces: list[bytes], *calls: Callable[[Any], Any]) -> list[Any]:
    """Return what the calls gave, or raised, on a stream that comes in pieces and ends."""
    conn, send, finish = ends.reading(kind)
    feeder = feed(send, pieces, finish)
    results: list[Any] = []
    for call in calls:
        try:
            results.append(call(conn))
        except (IncompleteReadError, LineTooLongError) as error:
            results.append(error)
    feeder.join()
    return results


def send_all(send: Callable[[bytes], object], content: bytes) -> None:
    """Send in pieces that any pipe or socket takes at once, letting the reader go on."""
    for at in range(0, len(content), 30_000):
        send(content[at : at + 30_000])
        pycoronet.sleep(MOMENT)


def receive(peer: socket.socket, length: int) -> bytes:
    """Return that many bytes, or a few more, letting others run until they are there."""
    received = b""
    while len(received) < length:
        piece = drain_now(peer)
        received += piece
        if not piece:
            pycoronet.sleep(MOMENT)
    return received


def receive_all(sock: socket.socket) -> bytes:
    """Return all that comes; blocks.

    A reset is an end, too: the peer had not read all that it was sent when it closed.
    """
    received = b""
    with suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            received += piece
    return received


def receive_until(sock: socket.socket, end: bytes) -> bytes:
    """Return what comes up to what ends so, or all if the stream ends first; blocks."""
    received = b""
    while not received.endswith(end) and (piece := sock.recv(65536)):
        received += piece
    return received


def hold_input(conn: Any, peer: socket.socket, data: bytes) -> None:
    """Have a connection receive data, which is no whole line, and keep it for the next read."""
    peer.sendall(data)
    timeout, conn.timeo = conn.timeo, 0
    try:
        conn.readln()
    except TimeoutError:
        conn.timeo = timeout
    else:
        raise AssertionError("it was a whole line")


def behind_full(ends: Ends, kind: str = "unix") -> tuple[Any, socket.socket, int]:
    """Return a connection that takes no more now, its peer, and how much it took."""
    conn, peer = ends.pair(kind)
    taken = fill(conn)
    pycoronet.sleep(MOMENT)
    return conn, peer, taken


def reset(peer: socket.socket) -> None:
    """Close with a reset instead of an end of file."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
