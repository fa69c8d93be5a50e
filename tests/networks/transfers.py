"""The kinds of transfer, each as two functions: what the server does and what the client does.

Each moves CONTENT: there and back again as an echo, or down only. `fetch(conn, received)` puts
what has arrived into `received` as it comes, and returns when that is all, or raises. Every wait
is bounded by the connections' timeouts, if they have any.
"""

from __future__ import annotations

import contextlib
import random
import socket
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from connections import attempt

import pycoronet
from pycoronet import Event, Protocol, spawn
from pycoronet.layers import Zlib

CONTENT = random.Random(1).randbytes(400_000)
PIECE = 1000  # of a transfer that is made of many small parts
SHORT = CONTENT[:40_000]  # for those
LINES = [SHORT[at : at + 500].hex().encode() + b"\n" for at in range(0, 20_000, 500)]

Received = bytearray
Serve = Callable[[Any], None]
Fetch = Callable[[Any, Received], None]


class Transfer(NamedTuple):
    """A kind of transfer over a stream."""

    name: str
    serve: Serve
    fetch: Fetch
    expected: bytes


@contextlib.contextmanager
def beside(function: Callable[..., object], *arguments: object) -> Iterator[None]:
    """Run a function in a task beside the block; its exception is raised if there is no other."""
    task = spawn(attempt, function, *arguments)
    try:
        yield
        outcome = task.get()
        if isinstance(outcome, Exception):
            raise outcome
    finally:
        task.cancel()
        task.join()


def collect(conn: Any, received: Received) -> None:
    """Receive to the end of the stream."""
    while data := conn.recv(65536):
        received += data


def send_and_end(conn: Any, content: bytes) -> None:
    """Send all, and say that it is all."""
    conn.sendall(content)
    conn.shutdown(socket.SHUT_WR)


# Coroutines.


def echo(conn: Any) -> None:
    while data := conn.recv(65536):
        conn.sendall(data)


def fetch_echo(conn: Any, received: Received) -> None:
    with beside(send_and_end, conn, CONTENT):
        collect(conn, received)


# Lines and frames: a question waits for the answer to the one before.


def echo_lines(conn: Any) -> None:
    for line in conn:
        conn.write(line)


def fetch_lines(conn: Any, received: Received) -> None:
    for line in LINES:
        conn.write(line)
        received += conn.readln()


def echo_frames(conn: Any) -> None:
    while (frame := conn.read_frame()) is not None:
        conn.write(len(frame).to_bytes(4, "big") + frame)


def fetch_frames(conn: Any, received: Received) -> None:
    for at in range(0, len(SHORT), PIECE):
        conn.write(PIECE.to_bytes(4, "big") + SHORT[at : at + PIECE])
        frame = conn.read_frame()
        if frame is None:
            return
        received += frame


# Output that is collected and queued.


def echo_buffered(conn: Any) -> None:
    conn.buffered = True
    while data := conn.recv(PIECE):
        conn.write(data)
    conn.flush()


def fetch_buffered(conn: Any, received: Received) -> None:
    conn.buffered = True

    def send() -> None:
        for at in range(0, len(CONTENT), PIECE):
            conn.write(CONTENT[at : at + PIECE])
        conn.shutdown(socket.SHUT_WR)

    with beside(send):
        collect(conn, received)


def enqueue_all(conn: Any) -> None:
    """Queue everything at once, then wait until it has left."""
    conn.recv(1)
    for at in range(0, len(CONTENT), 2 * PIECE):
        conn.enqueue([CONTENT[at : at + PIECE], bytearray(CONTENT[at + PIECE : at + 2 * PIECE])])
    conn.flush()


def send_file(conn: Any) -> None:
    conn.recv(1)
    with tempfile.TemporaryFile() as file:
        file.write(CONTENT)
        file.flush()
        conn.sendfile(file)
        conn.flush()


def fetch_download(conn: Any, received: Received) -> None:
    conn.sendall(b"?")
    collect(conn, received)


# Callbacks at both ends.


class EchoProtocol(Protocol):
    """Sends back what comes."""

    def __init__(self) -> None:
        self.over = Event()
        self.error: Exception | None = None

    def on_data(self, conn: Any) -> None:
        conn.write(conn.take(65536))

    def on_error(self, conn: Any, error: Exception, direction: int) -> None:
        self.error = error

    def on_timeout(self, conn: Any, direction: int) -> None:
        self.error = TimeoutError(f"nothing has moved: {direction}")
        self.over.set()

    def on_close(self, conn: Any) -> None:
        self.over.set()


class FetchProtocol(EchoProtocol):
    """Sends CONTENT, and takes what comes into `received`.

    It sends as much as has come and a bit: who has too much to be sent does not receive.
    """

    AHEAD = 50_000

    def __init__(self, received: Received) -> None:
        super().__init__()
        self.received = received

    def on_open(self, conn: Any) -> None:
        conn.enqueue(CONTENT[: self.AHEAD])

    def on_data(self, conn: Any) -> None:
        sent = len(self.received) + self.AHEAD
        self.received += conn.take(65536)
        conn.write(CONTENT[sent : len(self.received) + self.AHEAD])
        if len(self.received) == len(CONTENT):
            conn.close()


def use_callbacks(conn: Any, protocol: EchoProtocol) -> None:
    """Have a protocol serve until the connection is closed; raise what it was told of."""
    conn.set_timeouts(conn.timeo, conn.timeo)
    conn.settimeout(None)
    conn.set_callbacks(protocol, opened=True)
    protocol.over.wait()
    if protocol.error is not None:
        raise protocol.error


def echo_by_callbacks(conn: Any) -> None:
    use_callbacks(conn, EchoProtocol())


def fetch_by_callbacks(conn: Any, received: Received) -> None:
    use_callbacks(conn, FetchProtocol(received))


# Layers.


def echo_zipped(conn: Any) -> None:
    conn.push_layer(Zlib())
    echo(conn)


def fetch_zipped(conn: Any, received: Received) -> None:
    conn.push_layer(Zlib())
    for at in range(0, len(SHORT), PIECE):
        conn.sendall(SHORT[at : at + PIECE])
        received += conn.read_exactly(PIECE)


STREAMS = [
    Transfer("coroutines", echo, fetch_echo, CONTENT),
    Transfer("lines", echo_lines, fetch_lines, b"".join(LINES)),
    Transfer("frames", echo_frames, fetch_frames, SHORT),
    Transfer("buffered", echo_buffered, fetch_buffered, CONTENT),
    Transfer("enqueue", enqueue_all, fetch_download, CONTENT),
    Transfer("sendfile", send_file, fetch_download, CONTENT),
    Transfer("callbacks", echo_by_callbacks, fetch_by_callbacks, CONTENT),
    Transfer("zlib", echo_zipped, fetch_zipped, SHORT),
]


def over_tls(transfer: Transfer, server: Any, client: Any) -> Transfer:
    """Return the same transfer, encrypted; the arguments are contexts."""

    def serve(conn: Any) -> None:
        conn.start_tls(server, server_side=True, timeout=conn.timeo)
        transfer.serve(conn)

    def fetch(conn: Any, received: Received) -> None:
        conn.start_tls(client, server_hostname="localhost", timeout=conn.timeo)
        transfer.fetch(conn, received)

    return Transfer(f"{transfer.name} over TLS", serve, fetch, transfer.expected)


class Link:
    """A client's connection with what serves it, between two hosts; closed by close() alone."""

    def __init__(
        self, network: Any, transfer: Transfer, timeout: float | None = None, *, ipv6: bool = False
    ) -> None:
        self._transfer = transfer
        self._timeout = timeout
        address = network.server.address6 if ipv6 else network.server.address
        with network.server, pycoronet.listen((address, 0)) as listener:
            with network.client:
                self.conn = pycoronet.connect(listener.getsockname())
            self.peer, _ = listener.accept()
        for conn in (self.conn, self.peer):
            conn.settimeout(timeout)
        self.received = Received()
        self.server = spawn(attempt, self._serve)

    def _serve(self) -> None:
        self._transfer.serve(self.peer)
        self.peer.close()

    def fetch(self) -> None:
        """Do what the client does, to its end."""
        self._transfer.fetch(self.conn, self.received)

    def close(self) -> None:
        """End everything that is left."""
        self.conn.abort()
        self.peer.abort()
        self.server.cancel()
        self.server.join()
