"""SignalWatch: signals as something to select on, for a process that has no hub.

A signal leaves its number in a socket, so that one that comes between a look and the next
wait ends that wait. Only what would do the system's default is taken over: a handler of the
user's stays, and is called as ever.
"""

import signal
import socket
from collections.abc import Iterable
from types import FrameType
from typing import Any

__all__ = ["DEFAULTS", "SignalWatch", "all_signals_blocked", "ignore_defaults"]

# What a signal does when nobody has said otherwise.
DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


def _pass_over(signum: int, frame: FrameType | None) -> None:
    """Handle a signal whose number is read elsewhere, or which is not meant for this process.

    SIG_IGN would do for the second, but programs that are executed inherit that one.
    """


def ignore_defaults(signums: Iterable[int]) -> None:
    """Let signals have no effect, unless the user has a handler for them."""
    for signum in signums:
        if signal.getsignal(signum) in DEFAULTS:
            signal.signal(signum, _pass_over)


class all_signals_blocked:
    """Holds signals back: none is handled within. What comes is handled at the end.

    A process that is forked within has them blocked as well, until `unblock()` there.
    """

    def __enter__(self) -> "all_signals_blocked":
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        return self

    def unblock(self) -> None:
        """Handle signals again, as before."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def __exit__(self, *_: object) -> None:
        self.unblock()


class SignalWatch:
    """Waits for some signals; used in a with block, in the main thread.

    fileno(): readable when there is something to take().
    """

    def __init__(self, signums: Iterable[int]) -> None:
        self._signums = list(signums)
        self._replaced: dict[int, Any] = {}
        self._posted: list[int] = []
        self._writer: socket.socket | None = None

    def __enter__(self) -> "SignalWatch":
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._earlier_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for signum in self._signums:
            handler = signal.getsignal(signum)
            # The kernel would reap children whose signal is ignored, and nobody knew which.
            if handler in DEFAULTS or (signum == signal.SIGCHLD and handler == signal.SIG_IGN):
                self._replaced[signum] = handler
                signal.signal(signum, _pass_over)
        return self

    def fileno(self) -> int:
        """Return the descriptor to select on."""
        return self._reader.fileno()

    def post(self, signum: int) -> None:
        """Act as if a signal had come. May be called from a signal handler."""
        self._posted.append(signum)
        if self._writer is not None:
            try:
                self._writer.send(b"\0")  # no signal's number
            except OSError:
                pass  # it is full, so there is something to read; or closed, and nobody waits

    def take(self) -> list[int]:
        """Return the signals that have come since the last call, in their order."""
        numbers = b""
        while True:
            try:
                numbers += self._reader.recv(4096)
            except BlockingIOError:
                break
        posted, self._posted = self._posted, []
        return [number for number in numbers if number in self._replaced] + posted

    def forget(self) -> None:
        """Undo in a forked child what was done here, without touching what is the parent's."""
        signal.set_wakeup_fd(-1)
        for signum, handler in self._replaced.items():
            signal.signal(signum, handler)
        self._close()

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._replaced.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(self._earlier_fd)
        self._close()

    def _close(self) -> None:
        self._reader.close()
        if self._writer is not None:
            self._writer.close()
