"""Signals as something to iterate over."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ._coronet import SignalHandle, SimpleQueue, signal_handler
from .errors import ShutDown

__all__ = ["SignalReceiver", "open_signal_receiver"]


class SignalReceiver:
    """What `open_signal_receiver()` gives: an iterator of the signals that have come."""

    def __init__(self) -> None:
        self._handles: list[SignalHandle] = []
        self._pending: set[int] = set()  # what is in the queue
        self._queue: SimpleQueue[int] = SimpleQueue()

    def _listen(self, signum: int) -> SignalHandle:
        self._handles.append(signal_handler(signum, self._take))
        return self._handles[-1]

    def _take(self, signum: int) -> None:
        if signum not in self._pending:
            self._pending.add(signum)
            self._queue.put(signum)

    def _end(self) -> None:
        self._queue.shutdown(immediate=True)

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        """Wait for the next signal and return its number. Switches unless one has come."""
        if not any(handle.active for handle in self._handles):
            raise StopIteration
        try:
            signum = self._queue.get()
        except ShutDown:
            raise StopIteration from None  # not reached: closed while a task waits
        self._pending.discard(signum)
        return signum


@contextmanager
def open_signal_receiver(*signums: int) -> Iterator[SignalReceiver]:
    """Give an iterator of the numbers of the signals that come while the block runs.

        with open_signal_receiver(signal.SIGHUP, signal.SIGTERM) as signals:
            for signum in signals:
                if signum == signal.SIGTERM:
                    break
                reload()

    A signal that comes again before it was taken counts once; different ones are given in the
    order in which they came. Tasks that share a receiver get each signal once between them;
    each of several receivers gets all. In the end the handlers from before are back, what was
    not taken is dropped, and who waits for the next one stops iterating; likewise when the hub
    closes, and in a forked child. For SIGINT it stands in the place of KeyboardInterrupt.

    Raises TypeError without a signal; RuntimeError in any other thread than the main one;
    ValueError, OSError for what is no signal or cannot be caught. Entering never switches.

    Source: pycoronet's own.
    """
    if not signums:
        raise TypeError("open_signal_receiver() needs at least one signal")
    receiver = SignalReceiver()
    with ExitStack() as stack:
        stack.callback(receiver._end)
        for signum in signums:
            stack.callback(receiver._listen(signum).cancel)
        yield receiver
