"""libreact's functions by name: a reactor that tells of descriptors, in libreact's units.

A Reactor holds functions that are called as f(reactor, fd), by edges: `on_data` once when
there is something new to read or to accept, so take it until nothing is left; `on_ready` when
there is room to write again; `on_shutdown` for each descriptor before the reactor stops;
`on_close` once for each that is closed by the peer or by reactor_close(). Descriptors are read
and written with whatever suits them: os.read(), socket objects, `reactor_conn(reactor, fd)`.

They run in the hub, like all callbacks: nothing in them may wait. Tasks run beside them.
Where a function gives a negative number in C it raises OSError here, with one exception:
reactor_review() gives -1 when the reactor has stopped, for that is how a loop is written.

Source: libreact's functions of the same names.
"""

import errno
import os
import time
from collections.abc import Callable

from ._coronet import TimerHandle, get_hub, sk_conn
from ._descriptors import known_conn

__all__ = [
    "REACTOR_MAX_EVENTS",
    "REACTOR_TICK",
    "Reactor",
    "reactor_add",
    "reactor_add_timer",
    "reactor_close",
    "reactor_conn",
    "reactor_init",
    "reactor_make_timer",
    "reactor_remove",
    "reactor_reset_timer",
    "reactor_review",
    "reactor_stop",
]

REACTOR_MAX_EVENTS = 64  # a cycle
REACTOR_TICK = 1000  # the longest a cycle waits, in milliseconds

Callback = Callable[["Reactor", int], object]


class Reactor:
    """The functions to be called, and what they are called for.

    maxfd: the greatest descriptor that may be added, None for any.
    """

    def __init__(
        self,
        *,
        on_data: Callback | None = None,
        on_ready: Callback | None = None,
        on_shutdown: Callback | None = None,
        on_close: Callback | None = None,
        maxfd: int | None = None,
    ) -> None:
        """Keep the functions; None: nothing is called. maxfd is the highest fd, None: any."""
        self.on_data = on_data
        self.on_ready = on_ready
        self.on_shutdown = on_shutdown
        self.on_close = on_close
        self.maxfd = maxfd
        self.last_tick: float = 0.0  # when the last cycle began, in seconds since the epoch
        self._conns: dict[int, _Watch | _Timer] = {}
        self._must_stop = False
        self._has_stopped = False


class _Watch:
    """The callbacks of one descriptor."""

    __slots__ = ("conn", "fd", "is_ours", "reactor")

    def __init__(self, reactor: Reactor, conn: sk_conn, is_ours: bool) -> None:
        self.reactor = reactor
        self.conn = conn
        self.fd = conn.fileno()
        self.is_ours = is_ours

    def _call(self, function: Callback | None) -> None:
        if function is not None:
            function(self.reactor, self.fd)

    def on_data(self, conn: sk_conn) -> None:
        self._call(self.reactor.on_data)

    def on_ready(self, conn: sk_conn) -> None:
        self._call(self.reactor.on_ready)

    def on_shutdown(self, conn: sk_conn) -> None:
        self._call(self.reactor.on_shutdown)  # not reached: no Server is over a reactor

    def on_eof(self, conn: sk_conn) -> None:
        conn.close()

    def on_close(self, conn: sk_conn) -> None:
        if self.reactor._conns.get(self.fd) is self:
            del self.reactor._conns[self.fd]
        self._call(self.reactor.on_close)

    def on_open(self, conn: sk_conn) -> None: ...
    def on_error(self, conn: sk_conn, error: Exception, direction: int) -> None: ...
    def on_timeout(self, conn: sk_conn, direction: int) -> None: ...

    def shut_down(self) -> None:
        """Say that the reactor stops, and close."""
        try:
            self._call(self.reactor.on_shutdown)
        finally:
            self.conn.close()

    def close(self) -> None:
        self.conn.close()


class _Timer:
    """A descriptor that stands for a timer. Nothing can be read from it."""

    __slots__ = ("fd", "handle", "milliseconds", "reactor")

    def __init__(self, reactor: Reactor, fd: int, milliseconds: float) -> None:
        self.reactor = reactor
        self.fd = fd
        self.milliseconds = milliseconds
        self.handle = self.start()

    def start(self) -> TimerHandle:
        return get_hub().call_every(self.milliseconds / 1000, self._fire)

    def _fire(self) -> None:
        if self.reactor.on_data is not None:
            self.reactor.on_data(self.reactor, self.fd)

    def shut_down(self) -> None:
        try:
            if self.reactor.on_shutdown is not None:
                self.reactor.on_shutdown(self.reactor, self.fd)
        finally:
            self.close()

    def close(self) -> None:
        if not self.handle.active:
            # not reached: closed by a callback before
            return  # closed already
        self.handle.cancel()
        del self.reactor._conns[self.fd]
        os.close(self.fd)
        if self.reactor.on_close is not None:
            # In the hub, as for every other descriptor.
            get_hub().call_soon(self.reactor.on_close, self.reactor, self.fd)


def _check_running(reactor: Reactor) -> None:
    if reactor._has_stopped:
        raise OSError(errno.ESHUTDOWN, "the reactor has stopped")


def _find(reactor: Reactor, fd: int) -> "_Watch | _Timer":
    found = reactor._conns.get(fd)
    if found is None:
        raise OSError(errno.EBADF, f"descriptor {fd} is not the reactor's")
    return found


def reactor_init(reactor: Reactor) -> int:
    """Make the reactor ready, again if it has stopped; return 0. The others do it if need be.

    Raises OSError. Never switches.
    """
    get_hub()
    reactor._has_stopped = reactor._must_stop = False
    reactor.last_tick = time.time()
    return 0


def reactor_add(reactor: Reactor, fd: "int | sk_conn") -> int:
    """Have the reactor tell of a descriptor, which becomes its own; return 0.

    fd: a descriptor; or an sk_conn, or a socket of libsock's, whose queue and buffers stay.
    Raises OSError: EBADF for one that is not open or beyond maxfd, EEXIST for one that was
    added, ESHUTDOWN after reactor_stop(); ValueError for a regular file. Never switches.
    """
    _check_running(reactor)
    known = known_conn(fd) if isinstance(fd, int) else fd
    number = fd if isinstance(fd, int) else fd.fileno()
    if number < 0 or (reactor.maxfd is not None and number > reactor.maxfd):
        raise OSError(errno.EBADF, f"descriptor {number} is closed or beyond maxfd")
    if number in reactor._conns:
        raise OSError(errno.EEXIST, f"descriptor {number} is the reactor's already")
    conn = sk_conn(number) if known is None else known
    watch = _Watch(reactor, conn, is_ours=known is None)
    conn.set_callbacks(watch, receive=False)
    reactor._conns[number] = watch
    return 0


def reactor_remove(reactor: Reactor, fd: int) -> int:
    """Have the reactor forget fd, which stays open; return 0. Calls nothing.

    Raises OSError with EBADF if it is not the reactor's, RuntimeError while output that was
    written through its connection has not been sent. Never switches.
    """
    watch = _find(reactor, fd)
    if isinstance(watch, _Timer):
        raise OSError(errno.EINVAL, "a timer is closed, not removed")
    watch.conn.set_callbacks(None)
    if watch.is_ours:
        watch.conn.detach()
    del reactor._conns[fd]
    return 0


def reactor_close(reactor: Reactor, fd: int) -> int:
    """Close fd, a timer too, after what its connection has to send; return 0.

    on_close() follows. Raises OSError with EBADF if it is not the reactor's. Never switches.
    """
    _find(reactor, fd).close()
    return 0


def reactor_conn(reactor: Reactor, fd: int) -> sk_conn:
    """Return the connection that the reactor has for fd: take(), write(), enqueue().

    Raises OSError with EBADF if it has none. Never switches.
    """
    watch = _find(reactor, fd)
    if isinstance(watch, _Timer):
        raise OSError(errno.ENOTSOCK, "a timer has no connection")
    return watch.conn


def reactor_review(reactor: Reactor) -> int:
    """Wait for events, at most a second, and call the functions; return how many there were.

    -1 when the reactor has stopped, at the first call after reactor_stop() with on_shutdown()
    and on_close() called for each descriptor that was left. For the main program; tasks that
    are ready run, too. Raises what a signal handler raised. Switches.
    """
    if reactor._has_stopped:
        return -1
    hub = get_hub()
    reactor.last_tick = time.time()
    if not reactor._must_stop:
        hub.wait(REACTOR_TICK / 1000)
        count = hub.dispatch(REACTOR_MAX_EVENTS)
        if not reactor._must_stop:
            return count
    _shut_down(reactor)
    return -1


def _shut_down(reactor: Reactor) -> None:
    reactor._has_stopped = True
    hub = get_hub()
    hub.call_soon(_shut_down_all, list(reactor._conns.values()))
    hub.dispatch()
    # What is closed is heard of when its output has been sent, or has lingered enough.
    while reactor._conns:  # not reached: coverage.py loses sight of it at a switch
        hub.wait(REACTOR_TICK / 1000)
        hub.dispatch(REACTOR_MAX_EVENTS)
    hub.dispatch()


def _shut_down_all(watches: "list[_Watch | _Timer]") -> None:
    for watch in watches:
        # Each in a call of its own, so that one that raises is reported and keeps none back.
        get_hub().call_soon(watch.shut_down)


def reactor_stop(reactor: Reactor) -> int:
    """Have the reactor stop: reactor_review() gives -1 from now on. Return 0.

    It only takes a note, so a signal handler may call it, too. Raises nothing. Never switches.
    """
    reactor._must_stop = True
    return 0


def reactor_make_timer() -> int:
    """Return a new descriptor that can stand for a timer. Never switches."""
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def reactor_add_timer(reactor: Reactor, fd: int, milliseconds: float) -> int:
    """Have on_data() called for the descriptor every so many milliseconds; return 0.

    fd: of reactor_make_timer(). Raises ValueError for a time of 0 or less, OSError with EEXIST
    if the reactor has it already. Never switches.
    """
    _check_running(reactor)
    os.fstat(fd)
    if fd in reactor._conns:
        raise OSError(errno.EEXIST, f"descriptor {fd} is the reactor's already")
    reactor._conns[fd] = _Timer(reactor, fd, milliseconds)
    return 0


def reactor_reset_timer(reactor: Reactor, fd: int) -> int:
    """Have the time of a timer, fd, begin anew; return 0. Without it a timer repeats all the same.

    Raises OSError with EINVAL if the descriptor is not a timer of the reactor's. Never switches.
    """
    timer = reactor._conns.get(fd)
    if not isinstance(timer, _Timer):
        raise OSError(errno.EINVAL, f"descriptor {fd} is no timer of the reactor's")
    timer.handle.cancel()
    timer.handle = timer.start()
    return 0
