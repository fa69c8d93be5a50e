"""Server: one handler, one set of settings, one statistics record, three ways to serve.

This file has the life cycle. What is done with connections is the strategy's (`_strategies.py`),
who is let in is said by `_limits.py`.
"""

import contextlib
import enum
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

from .._coronet import (
    Hub,
    ParkingLot,
    Scope,
    Traffic,
    _report,
    current,
    get_hub,
    sk_conn,
    spawn,
)
from .._coronet import timeout as time_limit
from ._acceptor import Acceptor
from ._addresses import open_listeners
from ._configuration import Configuration
from ._handling import has_answered
from ._imports import load_handler
from ._listeners import close_listener
from ._metrics import make_page
from ._processes import Processes, heeding_master
from ._registry import call_reported, close_all, servers, stop_all, wait_for_all
from ._settings import check_wait
from ._shared_stats import SharedStats
from ._signals import DrainSignals, raise_for
from ._stats import Stats
from ._strategies import CallbackStrategy, CoroutineStrategy, Strategy
from ._systemd import notify
from ._thread_strategy import ThreadStrategy
from ._tls import load_tls
from ._worker import Worker

if TYPE_CHECKING:
    import ssl  # loaded when it is used: many programs have no TLS

__all__ = ["Server"]

ShutdownFunction: TypeAlias = Callable[["Server"], object]

_STRATEGIES: dict[str, Callable[["Server"], Strategy]] = {
    "coroutine": CoroutineStrategy,
    "callback": CallbackStrategy,
    "threadpool": ThreadStrategy,
}


class _State(enum.Enum):
    """Where a server is in its life; from the last it may begin again."""

    CLOSED = enum.auto()
    LISTENING = enum.auto()
    SERVING = enum.auto()
    STOPPING = enum.auto()


# Asked for each request: an enumeration's members are slow to be found.
_OPEN_STATES = (_State.LISTENING, _State.SERVING)


class Server(Configuration):
    """Serve connections by one of three strategies.

    Example::

        def handler(conn, address):
            for line in conn:
                conn.write(line)

        Server(("127.0.0.1", 7000), handler).serve_forever()

    address: as for `listen()`, or a list of such. handler: called as handler(conn, address).
    strategy: "coroutine": in a task, once for each connection, which is closed when it
    returns. "threadpool": the same in a native thread, where it may also block. "callback":
    in the hub, each time there is something to take; then it may be a `Protocol` or a class
    of such as well. A text such as "app:handler" names one that start() is to import.

    Each setting is an attribute too; it is checked when it is set, and fixed after listen().

    tls: an ssl.SSLContext, a `CertificateFiles` or (certfile, keyfile); handshakes are done
    beside accepting, within handshake_timeout seconds.
    backlog: how many connections may wait in the system to be accepted, and to get a thread.
    delay: seconds between two rounds of housekeeping: idle threads of the pool leave, worker
    processes publish what they have counted.
    poolsize_min, poolsize_max: how many threads the pool has.
    owner: whatever the handlers want to find as `conn.server.owner`.
    max_connections: with so many open, accepting pauses. max_per_address: more of one client's
    address are closed at once.
    idle_timeout: seconds that a connection may wait for its peer; handlers may change it with
    `settimeout()`. total_timeout: seconds that a connection may last.
    drain_timeout: seconds that stop() gives to handlers, unless it is told otherwise.
    metrics: an address or several, where GET /metrics has `stats` as text in the OpenMetrics
    format; whoever can connect there may read it. Needs `pycoronet[http]`.
    processes: None serves in this process; a number has serve_forever() fork so many workers,
    replace those that die, and on SIGHUP replace all by new ones without refusing a connection.
    sharing: how workers share a TCP port: "reuse_port", a socket for each, or "exclusive", one
    for all; None is what is better on this system. handover: the path of a Unix socket, where a
    server that is started with the same setting takes over from the one that runs.

    Source: cp_socket's cp_socket_create, and what goes with it.
    """

    _state = _State.CLOSED

    def _set_up(self) -> None:
        self.tls_context: ssl.SSLContext | None = None
        self.addresses: list[Any] = []  # bound to, as getsockname() tells them
        self.stats: Stats = Stats()
        self._traffic = self.stats.traffic = Traffic()
        self._sockets: list[socket.socket] = []
        self._page: Server | None = None  # shows the statistics
        self._processes: Processes | None = None  # in a master that listens
        self._worker: Worker | None = None  # in a worker process
        self._shared_stats: SharedStats | None = None  # there, too
        self._shutdown_callbacks: list[ShutdownFunction] = []
        self._awaiting: dict[Scope, Hub] = {}  # handlers between two requests
        self._acceptor = Acceptor(self)
        self._failure: Exception | None = None  # what accepting ended with
        self._is_waited_for = False  # by serve_forever()
        self._cancelled = 0  # by the last stop()
        servers.add(self)

    # What it is doing.

    @property
    def is_listening(self) -> bool:
        """True from listen() until the end of stop() or close()."""
        return self._state is not _State.CLOSED

    @property
    def closing(self) -> bool:
        """True from the beginning of stop() on: handlers that loop are to come to an end."""
        return self._state not in _OPEN_STATES

    @property
    def is_in_this_thread(self) -> bool:
        """True if it is served by the hub of the calling thread, or by none yet."""
        if self._state in (_State.CLOSED, _State.LISTENING):
            return True
        return self._processes is None and self._is_in_its_hub()

    def __repr__(self) -> str:
        where = ", ".join(map(str, self.addresses or [self.address]))
        return f"<Server {self._state.name.lower()} {self.strategy} {where}>"

    # Beginning.

    def listen(self) -> None:
        """Open the listening sockets; connections wait in the system until start().

        Raises OSError in one line, ValueError for settings that contradict each other,
        RuntimeError if it listens already, ModuleNotFoundError for metrics without the parser.
        Never switches.
        """
        if self.is_listening:
            raise RuntimeError("the server is listening already")
        self._check()
        self.tls_context = load_tls(self.tls)
        self._page = self._make_page()
        if self.processes is not None:
            self._processes = Processes(self)
            self._listen_on(self._processes.sockets, self._processes.page_sockets)
            return
        try:
            if self._page is not None:
                self._page.listen()
            self._listen_on(
                open_listeners(self.address, backlog=self.backlog, reuse_port=self.reuse_port)
            )
        except BaseException:
            self._close_page()
            raise

    def _listen_on(
        self, sockets: list[socket.socket], page_sockets: list[socket.socket] | None = None
    ) -> None:
        if self._page is not None and page_sockets is not None:
            self._page._listen_on(page_sockets)
        self._sockets = sockets
        self.addresses = list(dict.fromkeys(sock.getsockname() for sock in sockets))
        self._state = _State.LISTENING

    def _make_page(self) -> "Server | None":
        if self.metrics is None:
            return None
        page = make_page(self.metrics, self._read_stats)
        servers.discard(page)  # it ends with this one, not before
        return page

    def _read_stats(self) -> Stats:
        """Return what this process has counted, or all workers of the server together."""
        if self._worker is None or self._shared_stats is None:
            return self.stats
        self._worker.row.publish(self.stats)
        return self._shared_stats.total()

    def _close_page(self) -> None:
        if self._page is not None:
            self._page.close()
            self._page = None

    @property
    def metrics_addresses(self) -> list[Any]:
        """Where the statistics are shown, as getsockname() tells it."""
        return [] if self._page is None else self._page.addresses

    def start(self) -> None:
        """Begin to accept, in tasks of this thread's hub; listen() first if that was not done.

        An error that ends accepting later stops the server. It is raised by serve_forever(), or
        else reported through sys.unraisablehook.

        Raises what listen() does, ImportError if the handler is a text that names none,
        RuntimeError if it serves already, or has processes. Never switches.
        """
        if self.processes is not None and self._worker is None:
            raise RuntimeError("a server with processes is run by serve_forever()")
        if self._state not in (_State.CLOSED, _State.LISTENING):
            raise RuntimeError("the server is serving already")
        if self._state is _State.LISTENING:
            self._start()
            return
        self.listen()
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        if isinstance(self.handler, str):
            handler = load_handler(self.handler)
            if self._state is not _State.LISTENING:
                return  # the module has waited for something, and a signal was quicker
            vars(self)["handler"] = handler  # it is fixed for others
            self._check_handler()
        self._failure = None
        self._cancelled = 0
        self._hub = get_hub()
        self._thread = threading.get_ident()
        self._over = ParkingLot()
        self._strategy = _STRATEGIES[self.strategy](self)
        self._strategy.start()
        try:
            self._acceptor.start(self._sockets, self._strategy)
        except BaseException:  # not reached: no more descriptors
            self._strategy.close()  # its threads would stay for ever
            raise
        self._sockets = []
        self._state = _State.SERVING
        if self._page is not None:
            self._page.start()

    def serve_forever(self) -> None:
        """Serve until stop() or close() is called, or a signal comes.

        In the main thread SIGTERM and SIGINT stop it and all other servers of the process as
        stop() does, unless the program has handlers of its own for them; when all have stopped,
        SIGINT raises KeyboardInterrupt here, and SIGTERM SystemExit. A second one ends them as
        close() does and is raised at once, whatever code is running. systemd is told of the
        beginning and of a signal, if it wants to know. Raises what start() does, and the error
        that ended accepting. Switches.
        """
        if self.processes is not None:
            self._run_master()
            return
        with DrainSignals(lambda: stop_all(wait=False), close_all) as signals:
            if self._state in (_State.CLOSED, _State.LISTENING):
                self.start()
            notify("READY=1")
            self._wait_until_closed()
            if signals.received is not None:
                wait_for_all()
        signals.raise_on()

    def _wait_until_closed(self) -> None:
        if self._state is not _State.CLOSED and not self._is_in_its_hub():
            raise RuntimeError("serve_forever() is for the thread that has called start()")
        self._is_waited_for = True
        try:
            while self._state is not _State.CLOSED:
                self._over.park("serve_forever")
        except BaseException:
            self.close()
            raise
        finally:
            self._is_waited_for = False
        if self._failure is not None:
            raise self._failure  # not reached: coverage.py loses sight of it at a switch

    # Processes.

    def _run_master(self) -> None:
        if self._state is _State.CLOSED:
            self.listen()
        if self._state is not _State.LISTENING or self._processes is None:
            raise RuntimeError("the server is serving already")
        self._state = _State.SERVING
        processes = self._processes
        try:
            processes.master.run()
        finally:
            self.stats = processes.shared_stats.total()
            self._finish()
        if processes.master.received is not None:
            raise_for(processes.master.received)

    def _run_worker(self, worker: Worker) -> None:
        """Serve as a worker process: all but the settings is the master's."""
        assert self._processes is not None
        page_sockets = self._processes.page_sockets
        self._shared_stats = self._processes.shared_stats
        self._processes = None
        self.stats = Stats()  # those of earlier runs are in the shared ones
        self.stats.traffic = self._traffic = Traffic()
        self._shutdown_callbacks = []
        self._worker = worker
        self.tls_context = load_tls(self.tls)  # a reload may be about new certificates
        self._listen_on(
            [sock for sock in worker.sockets if sock not in page_sockets],
            [sock for sock in worker.sockets if sock in page_sockets],
        )
        self.start()
        with heeding_master(self, worker):
            self._wait_until_closed()

    # Connections.

    def await_input(self, conn: sk_conn, timeout: float | None = None) -> bool:
        """Wait between two requests: True when there is something to read, or the end.

        conn: the handler's connection. False when timeout seconds have passed or the server is
        closing: then it is time to return. A client that has sent nothing yet is waited for all
        the same, so that each has its first request answered. Takes nothing. Raises what reading
        does. Switches.
        """
        scope = time_limit(None)
        try:
            with scope:
                if has_answered(conn):
                    self._awaiting[scope] = get_hub()
                    if self.closing:  # asked after _awaiting was told, so that none is missed
                        timeout = 0
                return conn.wait_input(timeout)
        except TimeoutError:
            if not scope.expired:
                raise  # not reached: a timeout of the caller's
            return False
        finally:
            self._awaiting.pop(scope, None)

    # The end.

    def stop(self, timeout: float | None = None, *, wait: bool = True) -> int:
        """Accept no more, let handlers finish, cancel what is left; return how many that were.

        timeout: seconds that they may take, None: `drain_timeout`. What has been accepted by
        the system is served first. wait: False does all that in a task and returns 0 at once:
        for handlers, which would wait for themselves, for callbacks and for other threads; they
        get RuntimeError otherwise. A second call waits for the first. Switches, if it waits.
        In a master it is to be wait=False, and timeout is None. In a worker process it ends that
        one alone, and the master starts another.
        """
        check_wait(timeout)
        if wait:
            self._check_may_wait()
        if self._state is _State.LISTENING:
            self.close()
        elif self._processes is not None:
            self._processes.master.stop()
        elif self._state is not _State.CLOSED:
            limit = self.drain_timeout if timeout is None else timeout
            self._call_in_hub(self._begin_stop, limit)
        while wait and self._state is not _State.CLOSED:
            self._over.park("stop")
        return self._cancelled if wait else 0

    def _check_may_wait(self) -> None:
        if self._state in (_State.CLOSED, _State.LISTENING):
            return
        if self._processes is not None:
            raise RuntimeError("stop() cannot wait in a master process: use stop(wait=False)")
        task = current() if self._is_in_its_hub() else None
        if task is None or self._strategy.is_serving(task):
            raise RuntimeError(
                "stop() cannot wait in a handler, a callback or another thread: "
                "use stop(wait=False)"
            )

    def _begin_stop(self, timeout: float | None) -> None:
        if self._state is _State.SERVING:
            self._state = _State.STOPPING
            if self._worker is not None:
                self._worker.notify_leaving()
            spawn(self._stop, self._strategy, timeout)

    def _stop(self, strategy: Strategy, timeout: float | None) -> None:
        deadline = None if timeout is None else self._hub.time + timeout
        try:
            if self._is_stopping(strategy):
                self._acceptor.stop()
            if self._is_stopping(strategy):
                self._notify_closing()
                self._close_listeners(deadline)
            rest = None if deadline is None else max(0.0, deadline - self._hub.time)
            if not strategy.wait(rest):
                cancelled = strategy.cancel()
                self.stats.cancelled += cancelled
                if strategy is self._strategy:
                    self._cancelled = cancelled
        finally:
            if self._is_stopping(strategy):
                self._finish()

    def _is_stopping(self, strategy: Strategy) -> bool:
        # Or close() was quicker, and it may even serve and stop again.
        return self._state is _State.STOPPING and strategy is self._strategy

    def _close_listeners(self, deadline: float | None) -> None:
        worker = self._worker
        takes_queues = worker is None or worker.takes_queues
        if self._page is not None and not takes_queues:
            self._page._acceptor.close()  # others show it, and maybe other figures
        self._acceptor.close_listeners(
            deadline, is_last=worker is None or worker.owns_sockets, takes_queues=takes_queues
        )
        if worker is not None:
            worker.notify_closed(were_emptied=takes_queues)

    def _notify_closing(self) -> None:
        for scope, hub in list(self._awaiting.items()):
            with contextlib.suppress(RuntimeError):  # that hub has been closed
                hub.call_soon_threadsafe(scope.cancel)
        self._strategy.notify_closing()

    def close(self) -> None:
        """End at once: close the listeners, cancel and cut off what is being served.

        In another thread than the server's, and that is all that may be done there, it only has
        it done soon. Never switches.
        """
        if self._state is _State.LISTENING:
            for sock in self._sockets:
                close_listener(sock)
            self._sockets = []
            self._finish()
        elif self._processes is not None:
            self._processes.master.close()
        elif self._state is not _State.CLOSED:
            if self._is_in_its_hub():
                self._close()
            else:
                self._call_in_hub(self._close)

    def _close_soon(self) -> None:
        """Do what close() does, but in the hub, whatever runs just now."""
        if self._state in (_State.SERVING, _State.STOPPING):
            self._call_in_hub(self._close)

    def _is_in_its_hub(self) -> bool:
        # No other thread is to get a hub for being asked.
        return threading.get_ident() == self._thread and get_hub() is self._hub

    def _call_in_hub(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._hub.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            self._forget_hub()

    def _forget_hub(self) -> None:
        """End after the hub has been closed, and with it what was served in it."""
        if self._state is not _State.CLOSED:
            self._state = _State.CLOSED
            self._close_page()
            self._acceptor.forget()
            self._strategy.forget()
            self._call_shutdown_callbacks()

    def _close(self) -> None:
        if self._state is not _State.CLOSED:
            self._finish()

    def _fail(self, error: Exception) -> None:
        """End because accepting did; serve_forever() raises it, if somebody is in it."""
        self._failure = error
        if not self._is_waited_for:
            _report(error, self)
        self.stop(wait=False)

    def _finish(self) -> None:
        """Give everything back and say so."""
        is_served_here = self._state is not _State.LISTENING and self._processes is None
        self._state = _State.CLOSED
        self._close_page()
        if self._processes is not None:
            self._processes.master.close_sockets()
            self._processes = None
        if is_served_here:
            self._acceptor.close()
            self._strategy.close()
            while self._over.unpark():
                pass
        self._call_shutdown_callbacks()

    def _call_shutdown_callbacks(self) -> None:
        for function in list(self._shutdown_callbacks):
            call_reported(function, self)

    def add_shutdown_callback(self, function: ShutdownFunction) -> None:
        """Have function(server) called once the server has ended, however it did.

        What it raises is reported through sys.unraisablehook. Never switches.
        """
        self._shutdown_callbacks.append(function)

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.stop()
        else:
            self.close()
