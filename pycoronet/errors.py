"""The exceptions of pycoronet that Python does not have already.

A timeout is the builtin TimeoutError. Everything that the system refuses is an OSError
with its errno.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable
from queue import Empty as Empty
from queue import Full as Full
from traceback import StackSummary
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._coronet import Task

__all__ = [
    "AwaitedCancelledError",
    "BusyError",
    "Cancelled",
    "ClosedError",
    "DeadlockError",
    "IncompleteReadError",
    "LineTooLongError",
    "ShutDown",
    "StalledError",
]


class Cancelled(BaseException):
    """The task was cancelled, or a `timeout()` around this wait is over.

    Raised by waits, again and again until the block concerned has been left. It is no
    Exception, so that `except Exception` does not swallow it: clean up and let it go on.

    Source: pycoronet's own.
    """

    def __init__(self, reason: object = None, scope: object = None) -> None:
        super().__init__(*(() if reason is None else (reason,)))
        self.reason = reason  # what was given to cancel(), of a TaskGroup the Task that failed
        self.scope = scope  # the Scope whose deadline has passed or that was cancelled, or None


class ClosedError(OSError):
    """The connection or descriptor has been closed, perhaps while this call waited.

    Source: pycoronet's own.
    """

    def __init__(self, number: int = errno.EBADF, text: str = "closed") -> None:
        super().__init__(number, text)


class AwaitedCancelledError(RuntimeError):
    """What `await_()` waited for was cancelled inside asyncio; the task that waited was not.

    Source: pycoronet's own.
    """


class BusyError(RuntimeError):
    """Another task is reading, or writing, the same connection; the message names it.

    Source: pycoronet's own.
    """


class LineTooLongError(ValueError):
    """No end of line, or separator, came within the limit. The bytes stay readable.

    Source: pycoronet's own.
    """


class IncompleteReadError(EOFError):
    """The stream ended before everything asked for was there.

    Source: Python's asyncio.IncompleteReadError.
    """

    def __init__(self, partial: bytes) -> None:
        super().__init__(f"the stream ended after {len(partial)} bytes")
        self.partial = partial  # what was there; it has been taken


class DeadlockError(RuntimeError):
    """All tasks wait, and nothing is left that could wake one of them.

    Source: pycoronet's own.
    """

    def __init__(self, waiters: Iterable[str], circles: Iterable[str] = ()) -> None:
        self.waiters: list[str] = list(waiters)  # "Task 'name': operation subject", a str each
        self.circles: list[str] = list(circles)  # those who wait for one another, in words
        lines = [f"\n  {waiter}" for waiter in self.waiters]
        lines += [f"\n{circle}" for circle in self.circles]
        super().__init__("every task waits and nothing can wake them:" + "".join(lines))


class StalledError(RuntimeError):
    """Somebody keeps the hub for longer than Hub.set_stall_limit() allows.

    It is never raised, but given to that function, or else to sys.unraisablehook.

    Source: pycoronet's own.
    """

    def __init__(self, task: Task | None, seconds: float, stack: StackSummary) -> None:
        self.task = task  # who keeps it; None: a callback
        self.seconds = seconds  # how long so far
        self.stack = stack  # where that one is, the innermost call last
        who = "a callback" if task is None else f"Task {task.name!r}"
        lines = "".join(stack.format()).rstrip("\n")
        super().__init__(f"{who} has kept the hub for {seconds:.3f} s:\n{lines}")


if sys.version_info >= (3, 13):
    from queue import ShutDown as ShutDown  # not reached: Python 3.13
else:

    class ShutDown(Exception):  # noqa: N818 - as queue calls it from Python 3.13 on
        """The queue or channel was shut down: nothing more goes in, or nothing is left.

        Source: Python's queue.ShutDown.
        """
