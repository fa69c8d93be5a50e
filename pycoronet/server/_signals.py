"""SIGTERM and SIGINT while a server serves: the first drains it, the second ends it at once."""

import signal
import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from .._coronet import SignalHandle, signal_handler
from ._signal_watch import DEFAULTS
from ._systemd import notify

if TYPE_CHECKING:
    from ._server import Server

__all__ = ["DrainSignals", "raise_for"]


class DrainSignals:
    """Within this block the two signals stop the server; signals the user handles are left alone.

    In other threads than the main one it does nothing, for signals are handled there only.
    """

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._handles: list[SignalHandle] = []
        self.received: int | None = None

    def __enter__(self) -> "DrainSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) in DEFAULTS:
                    self._handles.append(signal_handler(number, self._receive))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.cancel()

    def _receive(self, number: int) -> None:
        if self.received is None:
            self.received = number
            notify("STOPPING=1")
            self._server.stop(wait=False)
        else:
            self._server.close()

    def raise_on(self) -> None:
        """Raise what the signal stands for, if one has come: the program is to end."""
        if self.received is not None:
            raise_for(self.received)


def raise_for(number: int) -> NoReturn:
    """Raise what a signal that has ended a server stands for: the program is to end."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(0)  # it has been asked to end, and has ended well
