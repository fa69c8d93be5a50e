"""Blocking calls in threads of a small pool, awaited like anything else."""

import contextvars
import os
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from ._coronet import ParkingLot, _set_resolver, get_hub
from ._thread_pool import ThreadPool

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

    def run(self) -> Callable[[], None]:
        """Make the call; in a thread of the pool."""
        try:
            self._value = self._function()
        except BaseException as error:
            self._error = error
        return self._deliver

    def _deliver(self) -> None:
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


_pool = ThreadPool(0, MAX_THREADS)


def to_thread(function: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Result:
    """Call a function that blocks in a thread, and wait for it as for anything else.

    It runs with a copy of the caller's context variables. Returns what it returns, raises
    what it raises. If the waiting task is cancelled the call goes on in its thread and its
    outcome is dropped. At most `MAX_THREADS` calls run at once, more wait their turn.
    Switches.
    """
    context = contextvars.copy_context()
    call = _Call(lambda: context.run(function, *args, **kwargs))
    _pool.submit(call.run)
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
