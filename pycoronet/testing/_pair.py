"""Two connections with a network between them, in memory."""

import math
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress

from .._coronet import get_hub, sk_conn
from .._protocol import Protocol

# What each socket may hold, about: little, so that a writer has to wait soon.
_SOCKET_BUFFER = 4096

# What is taken at once where nothing bounds it.
_PIECE = 65536


class _Way:
    """What goes from one end to the other: taken from the source, given to the sink later.

    At most `capacity` bytes are on it, those included that wait in the sink's output.
    """

    back: "_Way"  # the other direction

    def __init__(self, source: sk_conn, sink: sk_conn, latency: float, capacity: int) -> None:
        self._hub = get_hub()
        self._source = source
        self._sink = sink
        self._latency = latency
        self._capacity = capacity
        self._under_way: deque[tuple[float, bytes]] = deque()  # when due, b"" for the end
        self._held = 0
        self._is_awaited = False  # a timer is set for the first of them
        self._has_end = False  # the source has no more
        self._is_broken = False  # nor will it take any more: it is closed
        self._is_over = False  # the end has arrived
        self.is_stalled = False

    def take(self) -> None:
        """Take from the source what there is room for."""
        while not self.is_stalled and not self._source.closed:
            room = self._capacity - self._held - self._sink.pending
            try:
                data = self._source.take(room) if room > 0 else b""
            except OSError:  # not reached: the end is reset while it is read
                self._source.abort()  # the end was reset; on_close() comes
                return
            if not data:
                return
            self._send(data)

    def take_end(self) -> None:
        """Note that the source has no more."""
        self._has_end = True
        if not self.is_stalled:
            self._send(b"")

    def resume(self) -> None:
        """Go on taking."""
        self.is_stalled = False
        self.take()
        if self._has_end and not self._is_over:
            self._send(b"")

    def break_off(self) -> None:
        """Note that the source's end is gone: what it has sent still arrives, then that."""
        self._is_broken = True
        with suppress(OSError):
            while data := self._source.take(_PIECE):
                self._send(data)  # not reached: on_close() comes after the last bytes
        self._send(b"")

    def drop(self) -> None:
        """Forget what is under way: it could not arrive any more."""
        self._under_way.clear()
        self._held = 0

    def deliver(self) -> None:
        """Give the sink what is due; come back for the rest."""
        while self._under_way and self._under_way[0][0] <= self._hub.time:
            data = self._under_way[0][1]
            if not data and not self._flush():
                return  # the end goes behind all else: on_ready() comes back
            self._under_way.popleft()
            self._held -= len(data)
            with suppress(OSError):  # on_error() tells
                self._sink.enqueue(data) if data else self._end()
        self._flush()
        if self._under_way and not self._is_awaited:
            self._is_awaited = True
            self._hub.call_later(self._under_way[0][0] - self._hub.time, self._come_back)

    def _send(self, data: bytes) -> None:
        if not self._sink.closed:
            self._under_way.append((self._hub.time + self._latency, data))
            self._held += len(data)
            self.deliver()

    def _flush(self) -> bool:
        """Have the sink send what it can; return whether that is all. If not, it tells later."""
        if not self._sink.closed:
            try:
                self._sink._flush_now()
            except OSError:
                self._sink.abort()  # on_close() comes
        return self._sink.pending == 0

    def _come_back(self) -> None:
        self._is_awaited = False
        self.deliver()
        self.take()

    def _end(self) -> None:
        self._is_over = True
        if self._is_broken or self.back._is_over:
            self._sink.close()
            self._source.close()
        else:
            self._sink.shutdown(socket.SHUT_WR)


class _Relay(Protocol):
    """Serves the inner ends of both sockets: what comes from one goes to the other."""

    def __init__(
        self, conns: tuple[sk_conn, sk_conn], latencies: tuple[float, float], capacity: int
    ) -> None:
        left, right = conns
        there = _Way(left, right, latencies[0], capacity)
        there.back = _Way(right, left, latencies[1], capacity)
        there.back.back = there
        self.ways: dict[sk_conn, _Way] = {left: there, right: there.back}  # by where they begin
        for conn in conns:
            conn.set_watermarks(write_low=0)
            conn.set_callbacks(self, receive=False)

    def on_data(self, conn: sk_conn) -> None:
        self.ways[conn].take()

    def on_ready(self, conn: sk_conn) -> None:
        way = self.ways[conn].back
        way.deliver()
        way.take()

    def on_eof(self, conn: sk_conn) -> None:
        self.ways[conn].take_end()

    def on_error(self, conn: sk_conn, error: Exception, direction: int) -> None:
        self._break(conn)

    def on_close(self, conn: sk_conn) -> None:
        self._break(conn)

    def _break(self, conn: sk_conn) -> None:
        self.ways[conn].back.drop()
        self.ways[conn].break_off()


class Pair:
    """Two connections with a network between them, made by `pair()`; it unpacks to the two.

    As a context manager it closes both, dropping what is under way.

    Source: pycoronet's own.
    """

    def __init__(
        self, ends: tuple[sk_conn, sk_conn], inner: tuple[sk_conn, sk_conn], relay: _Relay
    ) -> None:
        self._ends = ends
        self._inner = inner
        self._relay = relay

    def __iter__(self) -> Iterator[sk_conn]:
        return iter(self._ends)

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def partner(self, conn: sk_conn) -> sk_conn:
        """Return the end that conn is connected to. Raises ValueError if it is neither.

        Never switches.
        """
        return self._ends[1 - self._index(conn)]

    def stall(self, conn: sk_conn) -> None:
        """Let nothing more out of this end, conn: after some KiB its writers have to wait.

        What has left it already still arrives; so does what comes from the other end. Raises
        ValueError if conn is neither end. Never switches.
        """
        self._way(conn).is_stalled = True

    def resume(self, conn: sk_conn) -> None:
        """End a `stall()` of conn; what waits goes on its way.

        Raises ValueError as stall(). Never switches.
        """
        self._way(conn).resume()

    def short_reads(self, n: int | None) -> None:
        """Have both ends receive at most n bytes at a time; None for no limit any more.

        Raises ValueError for less than 1. Never switches.
        """
        for conn in self._ends:
            if not conn.closed:
                conn.set_single_limits(read=n, write=conn.get_single_limits()["write"])

    def reset(self) -> None:
        """Break the connection: what is under way is lost, both ends get ECONNRESET.

        Never switches.
        """
        for conn in self._ends:
            if not conn.closed:
                conn._expect_reset()
        for conn in self._inner:
            conn.abort()

    def close(self) -> None:
        """Close both ends at once, dropping what they still hold and what is under way.

        Never switches.
        """
        for conn in self._ends + self._inner:
            conn.abort()

    def _index(self, conn: sk_conn) -> int:
        for index, end in enumerate(self._ends):
            if end is conn:
                return index
        raise ValueError(f"{conn!r} is not of this pair")

    def _way(self, conn: sk_conn) -> _Way:
        return self._relay.ways[self._inner[self._index(conn)]]


def pair(*, latency: float | tuple[float, float] = 0.0, capacity: int = 65536) -> Pair:
    """Return a Pair: two connected connections, with nothing but this process between them.

    latency: seconds that bytes take from one end to the other, also an end of file; a tuple
    for those from the first end to the second and those back. capacity: how many bytes may be
    on their way in either direction; whoever has written so many, and some KiB that the
    system's buffers hold, waits until the other end reads.

    Half-close passes through; when one end is closed, the other one reads what was sent, then
    the end of file, and its writing fails with BrokenPipeError some bytes later. `stall()`,
    `short_reads()` and `reset()` of the Pair do what a network does on bad days.

    Both ends belong to this thread's hub; virtual_time() makes them deterministic. Close them,
    or the Pair: until then Hub.run() goes on. Never switches. Raises ValueError for a latency
    below 0 or a capacity below 1, and the OSError of a lack of descriptors: it needs four.

    Source: libevent's bufferevent_pair_new.
    """
    latencies = latency if isinstance(latency, tuple) else (latency, latency)
    if len(latencies) != 2 or not all(0 <= seconds < math.inf for seconds in latencies):
        raise ValueError(f"latency must be seconds, or two of them, not {latency!r}")
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, not {capacity}")
    with ExitStack() as stack:
        conns = []
        for sock in [*socket.socketpair(), *socket.socketpair()]:
            stack.callback(sock.close)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
            conns.append(sk_conn(sock))
            stack.callback(conns[-1].abort)
        left, inner_left, inner_right, right = conns
        relay = _Relay((inner_left, inner_right), latencies, capacity)
        stack.pop_all()
    return Pair((left, right), (inner_left, inner_right), relay)
