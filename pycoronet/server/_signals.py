"""SIGTERM and SIGINT while a server serves: the first drains all, the second ends at once."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, NoReturn

from .._coronet import _interrupt_main, get_hub
from ._signal_watch import DEFAULTS
from ._systemd import notify

__all__ = ["DrainSignals", "raise_for"]

# The hub stands in for Python's own handler of SIGINT once it has run.
_DEFAULTS = (*DEFAULTS, _interrupt_main)


class DrainSignals:
    """Within this block the two signals end the servers; those that the user handles do not.

    drain: called in the hub for the first signal. end: called for each later one, wherever the
    program is just then, which is what that one raises: it may be a handler that never waits.
    In other threads than the main one it does nothing, for signals are handled there only.
    Blocks that overlap share what has been received, and one of them raises it.
    """

    _holder: "DrainSignals | None" = None

    def __init__(self, drain: Callable[[], object], end: Callable[[], object]) -> None:
        self._drain = drain
        self._end = end
        self._users = 0
        self._before: dict[int, Any] = {}  # handlers, by the number of the signal
        self._handler = self._receive  # one object, to be told from others
        self._process = os.getpid()
        self._is_raised = False
        self.received: int | None = None

    def __enter__(self) -> "DrainSignals":
        if threading.current_thread() is not threading.main_thread():
            return self
        holder = DrainSignals._holder
        if holder is not None and holder._process != os.getpid():
            # not reached: a child that a handler has forked
            holder._give_back()  # it was the parent's
            holder = None
        if holder is None:
            holder = DrainSignals._holder = self
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) in _DEFAULTS:
                    self._before[number] = signal.signal(number, self._handler)
        holder._users += 1
        return holder

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        holder = DrainSignals._holder
        if holder is not None and threading.current_thread() is threading.main_thread():
            holder._users -= 1
            if not holder._users:
                DrainSignals._holder = None
                holder._give_back()

    def _give_back(self) -> None:
        for number, before in self._before.items():
            if signal.getsignal(number) is self._handler:
                signal.signal(number, before)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A child that a handler has forked: there the signals mean what they did before.
            self._give_back()  # not reached: a child that a handler has forked
            os.kill(os.getpid(), number)
        elif self.received is None:
            self.received = number
            get_hub().call_soon_threadsafe(self._begin)
        else:
            self._end()
            raise_for(number)

    def _begin(self) -> None:
        notify("STOPPING=1")
        self._drain()

    def raise_on(self) -> None:
        """Raise what the signal stands for, if one has come: the program is to end."""
        if self.received is not None and not self._is_raised:
            self._is_raised = True
            raise_for(self.received)


def raise_for(number: int) -> NoReturn:
    """Raise what a signal that has ended a server stands for: the program is to end."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(0)  # it has been asked to end, and has ended well
