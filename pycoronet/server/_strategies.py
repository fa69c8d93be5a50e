"""Two of the ways to serve a connection: a task for each, and callbacks in the hub.

The third, a thread for each, is in `_thread_strategy.py`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast
from typing import Protocol as Interface

from .._coronet import READ, WRITE, ParkingLot, Task, get_hub, sk_conn, spawn, spawn_handler
from .._deadlines import deadline_after, seconds_until
from .._protocol import Protocol
from ..errors import ClosedError
from ._handling import Handler, error_kind, has_answered, note_failure, with_limits

if TYPE_CHECKING:
    from ._server import Server

__all__ = ["METHODS", "CallbackStrategy", "CoroutineStrategy", "Running", "Strategy"]

# What a protocol has to have.
METHODS = tuple(name for name in vars(Protocol) if name.startswith("on_"))

# How long handlers that were cancelled may take to clean up.
CLEAN_UP_SECONDS = 5.0


class Strategy(Interface):
    """What a server asks of a way to serve connections; always in its hub's thread."""

    def __init__(self, server: "Server") -> None: ...

    def start(self) -> None:
        """Get ready for the first connection."""

    def begin(self, conn: sk_conn, address: Any) -> None:
        """Take over a connection that was let in. Never waits.

        The acceptor is told by `note_end(address)`, once, when it is over. If this raises, the
        strategy knows nothing of it, and the server closes it.
        """

    def is_serving(self, task: Task) -> bool:
        """Return whether a task is one of those that serve a connection."""
        ...

    def notify_closing(self) -> None:
        """Have those that wait for another request know that the server is closing."""

    def wait(self, timeout: float | None) -> bool:
        """Wait until all have ended; False if some have not after timeout seconds."""
        ...

    def cancel(self) -> int:
        """End what is left and wait a moment for it; return how many that were."""
        ...

    def close(self) -> None:
        """Give back what start() took; who has not ended by now is abandoned."""

    def forget(self) -> None:
        """Do what close() does for what outlives the hub, which is closed; in any thread."""


class Running:
    """The connections being served, each with what is known of it; and who waits for their end."""

    def __init__(self) -> None:
        self.entries: dict[Any, Any] = {}
        self._lot = ParkingLot()

    def remove(self, one: object) -> Any:
        """Forget one; return its entry, None if it was forgotten before."""
        entry = self.entries.pop(one, None)
        if not self.entries:
            while self._lot.unpark():
                pass
        return entry

    def forget(self) -> list[Any]:
        """Forget and return all of them, when the hub is closed and nobody waits."""
        left = list(self.entries)
        self.entries.clear()
        return left

    def wait(self, timeout: float | None) -> bool:
        deadline = deadline_after(timeout)
        while self.entries:
            if not self._lot.park("stop", seconds_until(deadline)) and self.entries:
                return False
        return True


class CoroutineStrategy:
    """A task for each connection; the handler may wait as it likes."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._stats = server.stats
        self._running = Running()
        self._entries = self._running.entries
        self._serve = with_limits(
            cast(Handler, server.handler),
            tls=server.tls_context,
            handshake_timeout=server.handshake_timeout,
            total_timeout=server.total_timeout,
        )

    def start(self) -> None:
        pass

    def begin(self, conn: sk_conn, address: Any) -> None:
        self._entries[conn] = (spawn_handler(self._run, conn, address), address)

    def _run(self, conn: sk_conn, address: Any) -> None:
        try:
            self._serve(conn, address)
        except Exception as error:
            if isinstance(error, ClosedError) and conn not in self._entries:
                return  # by close(), before it could look at what had woken it
            if note_failure(self._stats, conn, address, error):
                raise
        finally:
            self._end(conn, address)

    def _end(self, conn: sk_conn, address: Any) -> None:
        if self._running.remove(conn) is not None:
            self._server._acceptor.note_end(address)

    def is_serving(self, task: Task) -> bool:
        return any(task is entry for entry, _ in self._entries.values())

    def notify_closing(self) -> None:
        pass  # the server knows who waits in await_input()

    def wait(self, timeout: float | None) -> bool:
        return self._running.wait(timeout)

    def cancel(self) -> int:
        left: list[tuple[Task, Any]] = list(self._entries.values())
        for task, _ in left:
            task.cancel("the server is closing")
        self._running.wait(CLEAN_UP_SECONDS)
        return len(left)

    def close(self) -> None:
        for conn, (task, address) in list(self._entries.items()):
            task.cancel("the server is closed")
            conn.abort()
            self._end(conn, address)

    def forget(self) -> None:
        pass  # the tasks have ended with the hub


class _Function(Protocol):
    """A handler function in the place of a protocol: called each time there is data."""

    __slots__ = ("_address", "_handler", "_server")

    def __init__(self, server: "Server", address: Any) -> None:
        self._server = server
        self._address = address
        self._handler = cast(Handler, server.handler)

    def on_data(self, conn: sk_conn) -> None:
        self._handler(conn, self._address)
        if self._server.closing:
            _close_if_idle(conn)

    def on_eof(self, conn: sk_conn) -> None:
        if conn.available:
            self._handler(conn, self._address)  # what is left now is all that there is
        if isinstance(conn.callbacks, _Watched):
            conn.close()


def _close_if_idle(conn: sk_conn) -> None:
    """Close a connection that has had an answer and asks for nothing more."""
    if not conn.closed and has_answered(conn) and not conn.available and not conn.pending:
        conn.close()


class _Watched:
    """A protocol, with the server told of failures, silence and the end.

    What the server need not hear of goes straight to the protocol's own methods.
    """

    __slots__ = (
        "_strategy",
        "on_data",
        "on_eof",
        "on_open",
        "on_ready",
        "on_shutdown",
        "protocol",
    )

    def __init__(self, protocol: Any, strategy: "CallbackStrategy") -> None:
        self.protocol = protocol
        self.on_open = protocol.on_open
        self.on_data = protocol.on_data
        self.on_ready = protocol.on_ready
        self.on_eof = protocol.on_eof
        self.on_shutdown = protocol.on_shutdown
        self._strategy = strategy

    def on_error(self, conn: sk_conn, error: Exception, direction: int) -> None:
        self._strategy.count_error(error, direction)
        self.protocol.on_error(conn, error, direction)

    def on_timeout(self, conn: sk_conn, direction: int) -> None:
        self.protocol.on_timeout(conn, direction)
        if direction == READ | WRITE:  # and not a limit that the protocol has set for one
            self._strategy.idle(conn)

    def on_close(self, conn: sk_conn) -> None:
        self._strategy.end(conn)
        self.protocol.on_close(conn)


class CallbackStrategy:
    """No coroutine: the hub calls the handler, or a protocol's methods, when data has come.

    The handler is a function, called as handler(conn, address) each time there is something
    to take; a `Protocol` for all connections; or a class of such, an object to each.
    """

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._running = Running()
        self._entries = self._running.entries
        self._total_timeout = server.total_timeout
        self._has_handshake = server.tls_context is not None
        if self._has_handshake:
            self._handshake = with_limits(
                self._install,
                tls=server.tls_context,
                handshake_timeout=server.handshake_timeout,
                total_timeout=None,
            )
        self._watch: Callable[[Any], _Watched]
        handler: Any = server.handler
        if isinstance(handler, type) and hasattr(handler, "on_data"):
            self._watch = lambda address: _Watched(handler(), self)
        elif hasattr(handler, "on_data"):
            shared = _Watched(handler, self)
            self._watch = lambda address: shared
        else:
            self._watch = lambda address: _Watched(_Function(server, address), self)

    def start(self) -> None:
        self._sweeper = get_hub().call_every(self._server.delay, self._sweep)

    def begin(self, conn: sk_conn, address: Any) -> None:
        limit = None
        if self._total_timeout is not None:
            limit = get_hub().call_later(self._total_timeout, self.expire, conn)
        self._entries[conn] = (address, limit)
        try:
            if self._has_handshake:
                # In a task of its own, which ends when the callbacks take over.
                spawn(self._install_after_handshake, conn, address)
            else:
                self._install(conn, address)
        except BaseException:
            self._forget(conn)
            raise

    def _install_after_handshake(self, conn: sk_conn, address: Any) -> None:
        try:
            self._handshake(conn, address)
        except Exception as error:
            if self.end(conn) and note_failure(self._server.stats, conn, address, error):
                raise
        finally:
            if not isinstance(conn.callbacks, _Watched):
                if not conn.closed:  # a handshake that failed may have an alert to send
                    conn.abort()
                self.end(conn)

    def _install(self, conn: sk_conn, address: Any) -> None:
        watched = self._watch(address)
        conn.set_callbacks(watched, opened=True)
        if self._server.closing:  # and has said so to the others before
            get_hub().call_soon(self._say_goodbye, conn, watched)

    def _forget(self, conn: sk_conn) -> Any:
        entry = self._running.remove(conn)
        if entry is not None and entry[1] is not None:
            entry[1].cancel()
        return entry

    def end(self, conn: sk_conn) -> bool:
        """Note that a connection is over; False if that is known."""
        entry = self._forget(conn)
        if entry is None:
            return False
        self._server._acceptor.note_end(entry[0])
        return True

    def count_error(self, error: Exception, direction: int) -> None:
        """Note what a connection failed with, or, without a direction, a callback."""
        kind = error_kind(error)
        if not direction and kind not in ("input", "tls"):
            kind = "handler"
        self._server.stats.errors[kind] += 1

    def idle(self, conn: sk_conn) -> None:
        """End a connection on which nothing moves, if the server has a limit for that."""
        if self._server.idle_timeout is not None:
            self.expire(conn)

    def expire(self, conn: sk_conn) -> None:
        """End a connection whose time is over."""
        if not conn.closed:
            self._server.stats.errors["timeout"] += 1
            self._cut_off(conn)

    def _cut_off(self, conn: sk_conn) -> None:
        is_told = isinstance(conn.callbacks, _Watched)  # it will say when it has ended
        conn.abort()
        if not is_told:
            self.end(conn)

    def _sweep(self) -> None:
        """Note the end of connections that were given other callbacks, which tell us nothing."""
        for conn in list(self._entries):
            if conn.closed and not isinstance(conn.callbacks, _Watched):
                self.end(conn)

    def is_serving(self, task: Task) -> bool:
        return False

    def notify_closing(self) -> None:
        """Say so to each protocol; what is idle and has no word in it, is closed."""
        for conn in list(self._entries):
            watched = conn.callbacks
            if not isinstance(watched, _Watched):
                continue
            get_hub().call_soon(self._say_goodbye, conn, watched)

    def _say_goodbye(self, conn: sk_conn, watched: _Watched) -> None:
        if conn.closed:
            return
        watched.on_shutdown(conn)
        if getattr(type(watched.protocol), "on_shutdown", None) is Protocol.on_shutdown:
            _close_if_idle(conn)

    def wait(self, timeout: float | None) -> bool:
        return self._running.wait(timeout)

    def cancel(self) -> int:
        left = list(self._entries)
        for conn in left:
            self._cut_off(conn)
        self._running.wait(CLEAN_UP_SECONDS)
        return len(left)

    def close(self) -> None:
        self._sweeper.cancel()
        for conn in list(self._entries):
            conn.abort()
            self.end(conn)

    def forget(self) -> None:
        pass  # the hub has closed the connections, and on_close() has told
