"""Calls from a thread into the hub of another one.

Example::

    from pycoronet import Queue, from_thread, get_hub, to_thread

    def work(hub, jobs):  # blocks, in a thread
        return from_thread.run(hub, jobs.get)  # waits there, as a task

    to_thread(work, get_hub(), Queue())
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ._coronet import Hub, ParkingLot, Task, get_hub, spawn
from ._coronet import timeout as time_limit
from .errors import Cancelled

__all__ = ["run"]

if TYPE_CHECKING:
    from typing_extensions import TypeVarTuple, Unpack

    Arguments = TypeVarTuple("Arguments")

Result = TypeVar("Result")


class _Request:
    """A call that one thread has made and another one's hub answers."""

    def __init__(self, hub: Hub, function: Callable[[], Any]) -> None:
        self._hub = hub
        self._caller = get_hub()
        self._function = function
        self._lot = ParkingLot(external=True, hub=hub)
        self._task: Task | None = None
        self._is_done = False
        self._value: Any = None
        self._error: BaseException | None = None

    def wait(self) -> Any:
        """Have the call made and wait for its outcome; in the caller's thread."""
        self._hub.call_soon_threadsafe(self._start)
        try:
            self._park()
        except BaseException:
            self._abandon()
            raise
        try:
            if isinstance(self._error, Cancelled):
                raise RuntimeError("the call was cancelled in its hub, or that was closed")
            if self._error is not None:
                raise self._error
            return self._value
        finally:
            self._error = None  # the traceback refers to this frame

    def _park(self) -> None:
        try:
            while not self._is_done:
                self._lot.park("from_thread.run")
        except RuntimeError:
            if not self._is_done:  # the last that the hub did
                raise  # not reached: the hub is closed first

    def _abandon(self) -> None:
        """Have the task cancelled; if it has not begun it never does."""
        try:
            self._hub.call_soon_threadsafe(self._cancel)
        except RuntimeError:
            pass  # the hub is closed, and so nothing goes on there

    # In the hub's thread.

    def _start(self) -> None:
        self._task = spawn(self._run)

    def _cancel(self) -> None:
        if self._task is not None:  # unless _start() has failed
            self._task.cancel()

    def _run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:
            self._error = error
        self._is_done = True
        # By the caller's hub, so that the caller is waiting or has seen that it is done.
        try:
            self._caller.call_soon_threadsafe(self._lot.unpark)
        except RuntimeError:
            pass  # the caller's hub is closed: nobody waits


def run(
    hub: Hub,
    function: Callable[[Unpack[Arguments]], Result],
    /,
    *args: Unpack[Arguments],
    timeout: float | None = None,
) -> Result:
    """Call function(*args) in a task of another thread's hub, and wait for it in this thread.

    The function may wait as any task. It runs with a copy of the caller's context variables.
    Returns what it returns, raises what it raises. Coroutines of the calling thread go on
    meanwhile. The hub has to run: its thread waits for something, or is in `Hub.run()`.
    timeout: seconds, None for no limit. After it, and if the caller is cancelled, the task is
    cancelled, or not begun; its clean-up is not waited for.

    Raises TimeoutError; RuntimeError in the hub's own thread, where the function can be called
    as it is, and when the hub is closed, before or meanwhile, or the task is cancelled there.
    For any thread but the hub's own. Switches.

    Source: pycoronet's own.
    """
    if get_hub() is hub:
        raise RuntimeError(
            "from_thread.run() is for other threads than the hub's own: there, call the "
            "function or spawn() it"
        )
    context = contextvars.copy_context()
    request = _Request(hub, lambda: context.run(function, *args))
    with time_limit(timeout):
        result: Result = request.wait()
    return result
