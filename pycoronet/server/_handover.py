"""Listening sockets that go from a running master to one that was started to replace it.

The running one listens on a Unix socket. The new one connects, and they say lines:

    new    take                 old    {"address": ADDRESS, "count": N}   with N descriptors
                                       ... more of these ...
                                       end
    new    ready [ADDRESS, ...]        it serves these; the old one may go

Until "ready" both have the sockets and nothing else has happened: if the new one fails, its
end of the connection closes and the old one goes on; if the old one fails, the new one goes
on. Each looks at the other's user before it trusts it.
"""

import json
import os
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from ._worker_process import logger

__all__ = ["HandoverPoint", "Predecessor", "addresses_of", "take_over"]

Sockets: TypeAlias = dict[str, list[socket.socket]]  # by their address, in words

# How long the other master may take to answer.
TIMEOUT_SECONDS = 10.0

# The kernels take about 250 descriptors a message at most.
DESCRIPTORS_A_LINE = 64

# Where the BSDs and macOS tell who connected: a struct xucred, whose second word is the user.
_SOL_LOCAL = 0
_LOCAL_PEERCRED = 1
_XUCRED_BYTES = 88


def _peer_uid(conn: socket.socket) -> int | None:
    """Return the user at the other end, or None where the system does not tell."""
    if sys.platform.startswith("linux"):
        credentials = conn.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("iII", credentials)[1])
    # not reached: macOS and the BSDs
    if sys.platform == "darwin" or sys.platform.startswith(("freebsd", "dragonfly")):
        credentials = conn.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES)
        return int(struct.unpack_from("II", credentials)[1])
    return None


def _is_trusted(conn: socket.socket) -> bool:
    """Tell whether the peer runs as our user or as root."""
    # Where the system does not tell, the mode of the path has to do.
    return _peer_uid(conn) in (None, os.geteuid(), 0)


def _check_path(path: str) -> None:
    """Raise FileExistsError if something else than a socket lies there."""
    if Path(path).exists() and not Path(path).is_socket():
        raise FileExistsError(f"the handover path {path!r} is there and is no socket")


class Predecessor:
    """The master whose sockets this process has got, and which still serves."""

    def __init__(self, conn: socket.socket, sockets: Sockets) -> None:
        self._conn = conn
        self._sockets = sockets
        self._taken: list[str] = []

    def take(self, address: str) -> list[socket.socket]:
        """Return the sockets of an address, which are the caller's now; none if it has none."""
        sockets = self._sockets.pop(address, [])
        if sockets:
            self._taken.append(address)
        return sockets

    def release(self) -> None:
        """Tell it that we serve, so that it may go. What was not taken stays its own."""
        try:
            self._conn.sendall(f"ready {json.dumps(self._taken)}\n".encode())
        except OSError:
            pass  # it has gone already
        self.close()

    def close(self) -> None:
        """Close the connection and what was not taken; before `release()`, it goes on."""
        self._conn.close()
        for sockets in self._sockets.values():
            for sock in sockets:
                sock.close()


def take_over(path: str) -> Predecessor | None:
    """Get the sockets of the master that listens at [path]; None if there is no such master.

    Waits at most `TIMEOUT_SECONDS` each time. Raises OSError if the path is not a socket, the
    master is another user's, or it does not answer.
    """
    _check_path(path)
    conn = socket.socket(socket.AF_UNIX)
    try:
        conn.settimeout(TIMEOUT_SECONDS)
        try:
            conn.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            conn.close()
            return None  # a path that nobody listens on was left behind by a crash
        if not _is_trusted(conn):
            # not reached: another user's master
            raise PermissionError(f"the master at {path!r} belongs to another user")
        conn.sendall(b"take\n")
        return Predecessor(conn, _receive(conn, path))
    except TimeoutError:
        conn.close()
        raise TimeoutError(f"the master at {path!r} does not answer") from None
    except BaseException:  # not reached: a master that does not answer
        conn.close()
        raise


def _receive(conn: socket.socket, path: str) -> Sockets:
    received: list[socket.socket] = []
    text = b""
    try:
        while not text.endswith(b"end\n"):
            data, fds, flags, _ = socket.recv_fds(conn, 4096, 2 * DESCRIPTORS_A_LINE)
            received += [socket.socket(fileno=fd) for fd in fds]
            if not data or flags & socket.MSG_CTRUNC:
                # not reached: another program's socket
                raise ConnectionError(f"the master at {path!r} does not hand its sockets over")
            text += data
        for sock in received:
            sock.set_inheritable(False)
        return _join(text, received)
    except BaseException:
        for sock in received:
            sock.close()  # not reached: another program's answer
        raise


def _join(text: bytes, received: list[socket.socket]) -> Sockets:
    """Return the sockets under their addresses: they come in the order of the lines."""
    by_address: Sockets = {}
    rest = list(received)
    for line in text.splitlines()[:-1]:
        header = json.loads(line)
        by_address.setdefault(header["address"], []).extend(rest[: header["count"]])
        del rest[: header["count"]]
    return by_address


def addresses_of(line: str) -> list[str]:
    """Return what a new master serves from now on, as it says. Raises ValueError if it does not."""
    word, _, addresses = line.partition(" ")
    if word != "ready":
        raise ValueError("what connected is no master")
    return [str(address) for address in json.loads(addresses)]


class HandoverPoint:
    """Where a running master hands its sockets over to a new one, one at a time.

    path: of the Unix socket, which is ours from `publish()` on. `listener` and, while there
    is a new master, `successor` are for the master to select on. has_sent: that one has the
    sockets, too.
    """

    def __init__(self, path: str) -> None:
        _check_path(path)
        self.successor: socket.socket | None = None
        self.has_sent = False
        self._rest = b""
        self._path = Path(path)
        # Under a name of its own first: it replaces the path in one step, so that there is
        # always somebody to connect to.
        self._own_path = Path(f"{path}.{os.getpid()}")
        self._inode = 0
        self.listener = socket.socket(socket.AF_UNIX)
        try:
            self._own_path.unlink(missing_ok=True)
            self.listener.bind(str(self._own_path))
            self._inode = self._own_path.stat().st_ino
            self._own_path.chmod(0o600)  # nobody can connect before listen()
            self.listener.listen(4)
            self.listener.setblocking(False)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise type(error)(
                    error.errno, f"handover: {error.strerror or error}", path
                ) from None
            raise  # not reached: interrupted as it listens

    def publish(self) -> None:
        """Take the path, from an earlier master or from one that crashed. Raises OSError."""
        self._own_path.replace(self._path)
        self._own_path = self._path

    def accept(self) -> socket.socket | None:
        """Take up a connection; return it if it is a new master that may have the sockets."""
        try:
            conn, _ = self.listener.accept()
        except OSError:  # not reached: a successor that leaves at once
            return None  # it has gone again, or there is no descriptor for it
        if self.successor is not None or not _is_trusted(conn):
            logger.warning("a handover was refused")
            conn.close()
            return None
        conn.setblocking(False)
        self.successor = conn
        self._rest = b""
        return conn

    def read_lines(self) -> list[str]:
        """Return what the new master has said. Raises OSError when it has gone."""
        assert self.successor is not None
        try:
            data = self.successor.recv(65536)
        except BlockingIOError:
            return []  # not reached: a readiness that was none
        if not data:
            raise ConnectionError("the new master has gone")
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def send(self, sockets: Sockets) -> None:
        """Hand the sockets over. Raises OSError."""
        assert self.successor is not None
        self.has_sent = True
        for address, all_of_it in sockets.items():
            for start in range(0, len(all_of_it), DESCRIPTORS_A_LINE):
                some = all_of_it[start : start + DESCRIPTORS_A_LINE]
                header = json.dumps({"address": address, "count": len(some)})
                fds = [sock.fileno() for sock in some]
                socket.send_fds(self.successor, [header.encode() + b"\n"], fds)
        self.successor.sendall(b"end\n")

    def drop_successor(self) -> None:
        """Close the connection to the new master."""
        if self.successor is not None:
            self.successor.close()
            self.successor = None
            self.has_sent = False

    def forget(self) -> None:
        """Close the sockets in a forked process; the path stays."""
        self.drop_successor()
        self.listener.close()

    def close(self) -> None:
        """Close everything, and remove the path unless it is another master's now."""
        with suppress(OSError):
            if self._own_path.stat().st_ino == self._inode:
                self._own_path.unlink()
        self.forget()
