"""Blocking calls in threads of small pools, awaited like anything else."""

import contextvars
import os
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from ._coronet import ParkingLot, get_hub
from ._thread_pool import ThreadPool

__all__ = ["call_in_pool", "get_thread_limits", "name_pool", "set_thread_limits", "to_thread"]

MAX_THREADS = min(32, (os.cpu_count() or 1) + 4)

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class _Call:
    """One function call on its way through a pool, and its outcome on the way back."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function: Callable[[], Any] | None = function
        self._hub = get_hub()
        self._lot = ParkingLot(external=True)
        self._is_done = False
        self._value: Any = None
        self._error: BaseException | None = None

    def run(self) -> Callable[[], None] | None:
        """Make the call, unless nobody waits any more; in a thread of the pool."""
        function = self._function
        if function is None:
            return None
        try:
            self._value = function()
        except BaseException as error:
            self._error = error
        return self._deliver

    def _deliver(self) -> None:
        """Hand the outcome to the hub; in a thread of the pool."""
        try:
            self._hub.call_soon_threadsafe(self._finish)
        except RuntimeError:  # not reached: the hub is closed first
            pass  # the hub has been closed: nobody waits for the result any more

    def _finish(self) -> None:
        self._is_done = True
        self._lot.unpark()

    def wait(self) -> Any:
        """Wait for the outcome; in the hub's thread."""
        try:
            while not self._is_done:
                self._lot.park("to_thread")
        finally:
            self._function = None
        if self._error is not None:
            # not reached: coverage.py loses sight of it at a switch
            try:
                raise self._error
            finally:
                self._error = None  # the traceback refers to this frame
        return self._value


_pool = ThreadPool(0, MAX_THREADS)

# Apart, so that servers of names that do not answer hold up nothing but names.
name_pool = ThreadPool(0, MAX_THREADS, name="pycoronet names")


def call_in_pool(
    pool: ThreadPool,
    function: Callable[Parameters, Result],
    /,
    *args: Parameters.args,
    **kwargs: Parameters.kwargs,
) -> Result:
    """`to_thread()` with another pool."""
    context = contextvars.copy_context()
    call = _Call(lambda: context.run(function, *args, **kwargs))
    pool.submit(call.run)
    result: Result = call.wait()
    return result


def to_thread(
    function: Callable[Parameters, Result],
    /,
    *args: Parameters.args,
    **kwargs: Parameters.kwargs,
) -> Result:
    """Call a function that blocks in a thread, and wait for it as for anything else.

    It runs with a copy of the caller's context variables. Returns what it returns, raises
    what it raises. If the waiting task is cancelled, a call that has begun goes on in its
    thread and its outcome is dropped; one that still waits for a thread is not made. So many
    calls run at once as `set_thread_limits()` says, more wait their turn. RuntimeError: there
    is no thread yet and the system gives none. Switches.

    Source: Python's asyncio.to_thread.
    """
    return call_in_pool(_pool, function, *args, **kwargs)


def set_thread_limits(calls: int | None = None, names: int | None = None) -> None:
    """Say how many threads there may be, in this process; None leaves a limit as it is.

    calls: for `to_thread()`. names: for looking up names, which have threads of their own, so
    that slow names do not hold up files, nor files names. Both are a few more than there are
    processors unless they are set. Threads start when they are needed; those that are too many
    end when they are through with their calls.

    Raises ValueError for a limit below 1, TypeError for what is no int. For any thread, at
    any time; never switches.

    Source: pycoronet's own.
    """
    limits = ((_pool, calls), (name_pool, names))
    for _, limit in limits:
        if limit is not None and not isinstance(limit, int):
            raise TypeError(f"a limit of threads must be an int, not {type(limit).__name__}")
        if limit is not None and limit < 1:
            raise ValueError(f"a limit of threads must be 1 or more, not {limit}")
    for pool, limit in limits:
        if limit is not None:
            pool.set_maximum(limit)


def get_thread_limits() -> dict[str, int]:
    """Return what `set_thread_limits()` sets, by its names. Never switches.

    Source: pycoronet's own.
    """
    return {"calls": _pool.maximum, "names": name_pool.maximum}
