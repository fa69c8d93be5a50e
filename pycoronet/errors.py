"""The exceptions of pycoronet that Python does not have already.

A timeout is the builtin TimeoutError. Everything that the system refuses is an OSError
with its errno.
"""

import errno
import sys
from queue import Empty as Empty
from queue import Full as Full

__all__ = [
    "AwaitedCancelledError",
    "BusyError",
    "Cancelled",
    "ClosedError",
    "DeadlockError",
    "IncompleteReadError",
    "LineTooLongError",
    "ShutDown",
]


class Cancelled(BaseException):
    """The task was cancelled, or a `timeout()` around this wait is over.

    Raised by waits, again and again until the block concerned has been left. It is no
    Exception, so that `except Exception` does not swallow it: clean up and let it go on.
    """

    def __init__(self, reason: object = None, scope: object = None) -> None:
        super().__init__(*(() if reason is None else (reason,)))
        self.reason = reason  # what was given to cancel(), of a TaskGroup the Task that failed
        self.scope = scope  # the Scope whose deadline has passed or that was cancelled, or None


class ClosedError(OSError):
    """The connection or descriptor has been closed, perhaps while this call waited."""

    def __init__(self, number: int = errno.EBADF, text: str = "closed") -> None:
        super().__init__(number, text)


class AwaitedCancelledError(RuntimeError):
    """What `await_()` waited for was cancelled inside asyncio; the task that waited was not."""


class BusyError(RuntimeError):
    """Another task is reading, or writing, the same connection; the message names it."""


class LineTooLongError(ValueError):
    """No end of line, or separator, came within the limit. The bytes stay readable."""


class IncompleteReadError(EOFError):
    """The stream ended before everything asked for was there."""

    def __init__(self, partial: bytes) -> None:
        super().__init__(f"the stream ended after {len(partial)} bytes")
        self.partial = partial  # what was there; it has been taken


class DeadlockError(RuntimeError):
    """All tasks wait, and nothing is left that could wake one of them."""

    def __init__(self, waiters: list[str]) -> None:
        lines = "".join(f"\n  {waiter}" for waiter in waiters)
        super().__init__(f"every task waits and nothing can wake them:{lines}")
        self.waiters = waiters  # "Task 'name': operation subject", a str each


if sys.version_info >= (3, 13):
    from queue import ShutDown as ShutDown
else:

    class ShutDown(Exception):  # noqa: N818 - as queue calls it from Python 3.13 on
        """The queue or channel was shut down: nothing more goes in, or nothing is left."""
