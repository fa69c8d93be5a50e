"""Blocking calls in threads of a small pool, awaited like anything else."""

import contextvars
import os
import queue
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from ._coronet import ParkingLot, _count_idle_thread, _set_resolver, get_hub

__all__ = ["getaddrinfo", "to_thread"]

MAX_THREADS = min(32, (os.cpu_count() or 1) + 4)

Result = TypeVar("Result")


class _Call:
    """One function call on its way through the pool, and its outcome on the way back."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._hub = get_hub()
        self._lot = ParkingLot(external=True)
        self._is_done = False
        self._value: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Make the call; in a thread of the pool."""
        try:
            self._value = self._function()
        except BaseException as error:
            self._error = error

    def deliver(self) -> None:
        """Hand the outcome to the hub; in a thread of the pool."""
        try:
            self._hub.call_soon_threadsafe(self._finish)
        except RuntimeError:
            pass  # the hub has been closed: nobody waits for the result any more

    def _finish(self) -> None:
        self._is_done = True
        self._lot.unpark()

    def wait(self) -> Any:
        """Wait for the outcome; in the hub's thread."""
        while not self._is_done:
            self._lot.park("to_thread")
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # the traceback refers to this frame
        return self._value


class _Pool:
    """Daemon threads that take calls off a queue; started as they are needed."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0

    def submit(self, call: _Call) -> None:
        """Queue a call; start a thread for it if none is idle and one more is allowed."""
        with self._lock:
            starts = self._idle <= self._calls.qsize() and self._threads < MAX_THREADS
            self._threads += starts
        self._calls.put(call)
        if starts:
            try:
                threading.Thread(target=self._work, name="pycoronet", daemon=True).start()
            except RuntimeError:
                with self._lock:
                    self._threads -= 1
                if self._threads == 0:
                    raise

    def _work(self) -> None:
        self._count_idle(1)
        while True:
            call = self._calls.get()
            self._count_idle(-1)
            call.run()
            # Before the outcome is known, so that whoever has it finds this thread idle.
            self._count_idle(1)
            call.deliver()
            del call  # what it refers to must not live until the next one comes

    def _count_idle(self, change: int) -> None:
        with self._lock:
            self._idle += change
            _count_idle_thread(change)


_pool = _Pool()


def _forget_threads() -> None:
    """After a fork the child has none of the pool's threads."""
    global _pool
    _count_idle_thread(-_pool._idle)
    _pool = _Pool()


os.register_at_fork(after_in_child=_forget_threads)


def to_thread(function: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Result:
    """Call a function that blocks in a thread, and wait for it as for anything else.

    It runs with a copy of the caller's context variables. Returns what it returns, raises
    what it raises. If the waiting task is cancelled the call goes on in its thread and its
    outcome is dropped. At most `MAX_THREADS` calls run at once, more wait their turn.
    Switches.
    """
    context = contextvars.copy_context()
    call = _Call(lambda: context.run(function, *args, **kwargs))
    _pool.submit(call)
    result: Result = call.wait()
    return result


def getaddrinfo(
    host: str | bytes | None,
    port: str | int | None,
    family: int = 0,
    type: int = 0,
    proto: int = 0,
    flags: int = 0,
) -> list[tuple[int, int, int, str, Any]]:
    """`socket.getaddrinfo`, without blocking the hub. Switches. Raises socket.gaierror."""
    look_up: Callable[..., Any] = socket.getaddrinfo
    return to_thread(look_up, host, port, family, type, proto, flags)


def _resolve(host: str, port: int, family: int, type: int) -> Any:
    """Look up the first address of a host name, for sk_conn.connect() and sendto()."""
    return getaddrinfo(host, port, family, type)[0][4]


_set_resolver(_resolve)
