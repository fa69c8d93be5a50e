"""The third way to serve a connection: a native thread out of a pool, where a handler may block.

The hub accepts and hands the connection over. The thread goes on with it on a hub of its own,
which it keeps as long as it lives. There a task does the handshake, calls the handler and
closes the connection. What became of it goes back to the server's hub, where everything is
counted: in one call for all that have ended meanwhile.
"""

import collections
import contextvars
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from .._coronet import Hub, Task, _report, get_hub, sk_conn, sleep, spawn
from .._thread_pool import ThreadPool
from ._handling import Handler, log_failure, with_limits
from ._limits import send_away
from ._strategies import CLEAN_UP_SECONDS, Running

if TYPE_CHECKING:
    from ._server import Server

__all__ = ["ThreadStrategy"]

# How often a thread looks whether all is sent that a closed connection has left to send.
DRAIN_LOOK_SECONDS = 0.02


class _Job:
    """One connection: from the hub to a thread, and what became of it on the way back."""

    __slots__ = (
        "_conn",
        "_fd",
        "_hub",
        "_is_cancelled",
        "_strategy",
        "address",
        "end",
        "errors",
        "shed_by",
    )

    def __init__(self, strategy: "ThreadStrategy", conn: sk_conn, address: Any) -> None:
        self._strategy = strategy
        self._conn = conn
        self._fd = conn.detach()  # it goes on in the thread
        self.address = address
        self._hub: Hub | None = None  # of the thread, while it serves the connection
        self._is_cancelled = False
        self.shed_by: str | None = None  # the reason, if it was not served
        self.errors: list[str] = []  # by their kinds
        self.end: BaseException | None = None  # SystemExit: the handler ends the program

    # In the hub's thread.

    def drop(self) -> None:
        """Close a connection that no thread has begun with."""
        send_away(self._fd)

    def cancel(self) -> None:
        """Have the thread cancel what runs in its hub, soon."""
        self._is_cancelled = True
        hub = self._hub
        if hub is not None:
            try:
                hub.call_soon_threadsafe(hub.stop)
            except RuntimeError:
                pass  # it has just been closed

    # In the pool's thread.

    def __call__(self) -> Callable[[], None]:
        """Serve the connection; raises nothing."""
        try:
            hub = get_hub()
            self._conn._attach(self._fd)
        except Exception as error:
            if isinstance(error, OSError):
                self.shed_by = "descriptors"  # there are none for the thread's hub
            else:
                self._note(None, error)
            # Last: whoever sees the connection end may have the server count at once.
            os.close(self._fd)
        else:
            self._run(hub, self._conn)
        return self._return

    def _run(self, hub: Hub, conn: sk_conn) -> None:
        self._hub = hub
        if self._is_cancelled:  # asked after _hub was set, so that it is not missed
            hub.stop()
        try:
            spawn(self._serve, conn)
            hub.run()  # until the tasks that the handler has left behind have ended as well
            while conn.closed and conn.pending:
                # not reached: a client that takes its time to the last byte
                sleep(DRAIN_LOOK_SECONDS)
                if self._is_cancelled:
                    conn.abort()
        except BaseException as error:
            self.end = error
        self._hub = None
        if self._is_cancelled or self.end is not None:
            hub.close()
            conn.abort()  # if the handler was cancelled before it began

    def _serve(self, conn: sk_conn) -> None:
        """Do what the task does."""
        try:
            self._strategy.serve(conn, self.address)
        except Exception as error:
            if self._note(conn, error) == "timeout":
                conn.abort()  # what it has not taken by now it need not take
        finally:
            if self._is_cancelled:
                conn.abort()
            try:
                conn.close()
            except Exception as error:
                self._note(conn, error)

    def _note(self, conn: sk_conn | None, error: Exception) -> str:
        kind = log_failure(conn, self.address, error)
        self.errors.append(kind)
        if kind == "handler":
            _report(error, self._strategy.handler)
        return kind

    def _return(self) -> None:
        self._strategy.give_back(self)


class ThreadStrategy:
    """A native thread for each connection; the handler may block as it likes."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._stats = server.stats
        self._running = Running()
        self._entries: dict[_Job, Any] = self._running.entries
        self._returned: collections.deque[_Job] = collections.deque()
        self._is_told = False  # the hub will look at _returned
        self._hub = get_hub()
        self.handler = cast(Handler, server.handler)
        self._handle = with_limits(
            self.handler,
            tls=server.tls_context,
            handshake_timeout=server.handshake_timeout,
            total_timeout=server.total_timeout,
        )
        # What the program has set before it began to serve, handlers find, as tasks do.
        self._context = contextvars.copy_context()
        self._pool = ThreadPool(
            server.poolsize_min,
            server.poolsize_max,
            limit=server.backlog,
            name="pycoronet server",
        )

    def start(self) -> None:
        try:
            self._pool.start()
        except BaseException:
            self._pool.close()
            raise
        self._count_threads()
        self._sweeper = self._hub.call_every(self._server.delay, self._sweep)

    def _count_threads(self) -> None:
        self._stats.threads = self._pool.threads
        self._stats.waiting = self._pool.waiting

    def _sweep(self) -> None:
        self._pool.shrink()
        self._count_threads()

    def begin(self, conn: sk_conn, address: Any) -> None:
        job = _Job(self, conn, address)
        self._entries[job] = True
        try:
            is_taken = self._pool.submit(job)
        except (RuntimeError, MemoryError):
            is_taken = False  # the system has no thread for us
        if not is_taken:
            self._shed(job, "pool")
        self._count_threads()

    def _shed(self, job: _Job, reason: str) -> None:
        job.shed_by = reason
        self._note_end(job)
        job.drop()

    def _note_end(self, job: _Job) -> None:
        if self._running.remove(job):  # or it was abandoned
            self._count_end(job)

    def _count_end(self, job: _Job) -> None:
        if job.shed_by is not None:
            self._stats.shed[job.shed_by] += 1
        for kind in job.errors:
            self._stats.errors[kind] += 1
        self._server._acceptor.note_end(job.address, is_served=job.shed_by is None)

    def is_serving(self, task: Task) -> bool:
        return False  # their tasks are those of other hubs

    # In the pool's threads.

    def serve(self, conn: sk_conn, address: Any) -> None:
        """Do the handshake and call the handler."""
        self._context.copy().run(self._handle, conn, address)

    def give_back(self, job: _Job) -> None:
        """Have the hub note what became of a connection."""
        self._returned.append(job)
        if not self._is_told:
            self._is_told = True
            try:
                self._hub.call_soon_threadsafe(self._take_back)
            except RuntimeError:
                pass  # the hub has been closed: nobody counts any more

    # In the hub's thread again.

    def _take_back(self) -> None:
        self._is_told = False  # first, so that none is missed
        end: BaseException | None = None
        while self._returned:
            job = self._returned.popleft()
            self._note_end(job)
            end = end or job.end
        self._count_threads()
        if end is not None:
            raise end  # in the main program, as that of a task

    def notify_closing(self) -> None:
        pass  # the server knows who waits in await_input()

    def wait(self, timeout: float | None) -> bool:
        return self._running.wait(timeout)

    def cancel(self) -> int:
        self._shed_waiting()
        left = list(self._entries)
        for job in left:
            job.cancel()
        self._running.wait(CLEAN_UP_SECONDS)
        return len(left)

    def close(self) -> None:
        self._sweeper.cancel()
        self._shed_waiting()
        for job in list(self._entries):
            job.cancel()
            self._note_end(job)  # for us: a thread that is blocked cannot be ended
        self._count_threads()

    def forget(self) -> None:
        for job in cast(list[_Job], self._pool.close()):
            job.shed_by = "closing"  # not reached: jobs that wait as a second signal comes
            job.drop()
        for job in self._running.forget():
            job.cancel()  # if it has not ended already
            self._count_end(job)
        self._count_threads()

    def _shed_waiting(self) -> None:
        for job in self._pool.close():
            self._shed(cast(_Job, job), "closing")
