"""Acceptor: a server's listeners. Who comes is let in or sent away, and given to the strategy."""

import errno
import socket
from typing import TYPE_CHECKING, Any

from .._accepting import accept_all
from .._coronet import READ, Task, _report, get_hub, sk_conn, sleep, spawn
from ..errors import ClosedError
from ._addresses import is_borrowed
from ._arrivals import stop_arrivals
from ._limits import Admission, SpareDescriptor, accept_queued, send_away
from ._listeners import close_listener
from ._strategies import Strategy

if TYPE_CHECKING:
    from ._server import Server

__all__ = ["Acceptor"]

# How long a handshake may go on that began before nothing more was let in.
HANDSHAKE_SECONDS = 0.1


class Acceptor:
    """Accepts from a server's listeners, in a task for each; in its hub's thread alone.

    It outlives a restart of the server, for connections that were cut off may end later.
    """

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._admission = Admission()
        self._spare = SpareDescriptor()
        self._listeners: list[sk_conn] = []
        self._borrowed: set[sk_conn] = set()  # others have the socket too, and go on with it
        self._tasks: list[Task] = []
        self._is_open = False

    def start(self, sockets: list[socket.socket], strategy: Strategy) -> None:
        """Begin to accept from sockets, which become the acceptor's."""
        self._hub = get_hub()
        self._stats = self._server.stats
        self._strategy = strategy
        self._idle_timeout = self._server.idle_timeout
        self._listeners = [self._listener_of(sock) for sock in sockets]
        self._borrowed = {
            listener
            for listener, sock in zip(self._listeners, sockets, strict=True)
            if is_borrowed(sock)
        }
        self._admission.start(
            self._listeners, self._server.max_connections, self._server.max_per_address
        )
        self._is_open = True
        self._take_spare()
        self._tasks = [spawn(self._accept, listener) for listener in self._listeners]

    def _listener_of(self, sock: socket.socket) -> sk_conn:
        # The descriptor's mode is that of all processes that share the socket, and stays.
        sock.setblocking(False)
        listener = sk_conn(sock)
        listener.server = self._server  # what it accepts has both as well
        listener.traffic = self._server._traffic
        listener.exclusive = self._server._worker is not None
        return listener

    # --- Who comes ------------------------------------------------------------------------

    def _accept(self, listener: sk_conn) -> None:
        try:
            accept_all(listener, self._admit, self._note_accept_error)
        except Exception as error:
            self._server._fail(error)

    def _note_accept_error(self, listener: sk_conn, error: Exception) -> None:
        self._stats.errors["accept"] += 1
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            self._shed_queued(listener)

    def _shed_queued(self, listener: sk_conn) -> None:
        """Send away all that wait: no descriptor is left, and they would wait for nothing."""
        for _ in range(self._server.backlog):
            conn = self._spare.accept(listener)
            if conn is None:
                break
            self._stats.accepted += 1
            self._shed(conn, "descriptors")
            self._spare.take()
        self._take_spare()

    def _take_spare(self) -> None:
        """Have the spare descriptor back, as soon as there is one."""
        if self._is_open and not self._spare.take():
            self._hub.call_later(self._server.delay, self._take_spare)

    def _admit(self, conn: sk_conn, address: Any) -> None:
        self._stats.accepted += 1
        if not self._admission.enter(address):
            self._shed(conn, "address")
            return
        self._stats.open += 1
        try:
            if self._idle_timeout is not None:
                conn.settimeout(self._idle_timeout)
            self._strategy.begin(conn, address)
        except Exception as error:
            self._note_not_begun(conn, address, error)

    def _note_not_begun(self, conn: sk_conn, address: Any, error: Exception) -> None:
        """Forget a connection that the strategy failed to begin; the server goes on."""
        conn.abort()
        self._stats.open -= 1
        self._admission.leave(address)
        if isinstance(error, MemoryError):
            self._stats.errors["accept"] += 1
        else:
            self._stats.errors["handler"] += 1
            _report(error, self._server.handler)

    def _shed(self, conn: sk_conn, reason: str) -> None:
        self._stats.shed[reason] += 1
        send_away(conn.detach())

    def note_end(self, address: Any, *, is_served: bool = True) -> None:
        """Note that a connection that was begun is over; strategies call it."""
        self._stats.open -= 1
        self._stats.connections_served += is_served
        self._admission.leave(address)

    # --- The end --------------------------------------------------------------------------

    def stop(self) -> None:
        """Accept no more; the listeners stay open. Switches."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            task.join()

    def close_listeners(self, deadline: float | None, *, is_last: bool, takes_queues: bool) -> None:
        """Close the listeners, and let nothing get lost that is in their queues.

        is_last: no other process goes on with the sockets, so nothing more is let in.
        takes_queues: what is queued is for us to serve, until the deadline. Neither is so for
        sockets that were borrowed. Switches.
        """
        listeners = self._listeners  # close() may be quicker, and have others by then
        own = [listener for listener in listeners if listener not in self._borrowed]
        if is_last:
            for listener in own:
                if not listener.closed:
                    stop_arrivals(listener)
        if takes_queues and own:
            rest = self._rest(deadline)
            sleep(HANDSHAKE_SECONDS if rest is None else min(HANDSHAKE_SECONDS, rest))
            for listener in own:
                self._take_queue(listener, deadline)
        for listener in listeners:
            close_listener(listener)

    def _take_queue(self, listener: sk_conn, deadline: float | None) -> None:
        """Serve what the system has accepted on our behalf already.

        While there are max_connections, each waits until there is room or the time is over.
        """
        try:
            # Not for ever: while that lasts, more may come.
            for _ in range(self._server.backlog + 1):
                if self._admission.wait_for_room(self._rest(deadline)):
                    self._admit(*accept_queued(listener))
                else:
                    listener.enable(READ)
                    conn, _address = accept_queued(listener)
                    self._stats.accepted += 1
                    self._shed(conn, "closing")
        except (TimeoutError, ClosedError):
            pass  # that was all, or close() was quicker
        except (OSError, MemoryError) as error:
            self._note_accept_error(listener, error)

    def _rest(self, deadline: float | None) -> float | None:
        return None if deadline is None else max(0.0, deadline - self._hub.time)

    def close(self) -> None:
        """End at once, and give everything back. Never switches."""
        for task in self._tasks:
            task.cancel()
        self._give_back()

    def forget(self) -> None:
        """Give back what the hub, when it was closed, had not; in any thread."""
        self._admission.forget()
        self._give_back()

    def _give_back(self) -> None:
        self._is_open = False
        self._spare.give()
        for listener in self._listeners:
            close_listener(listener)
