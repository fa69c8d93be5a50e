"""LoopMeter: how long the hub's loop spends away from the wait for events."""

from __future__ import annotations

import math
from collections import Counter
from types import TracebackType

from ._coronet import Hub, get_hub

# A time is counted by its power of two and one of so many steps up to the next.
_STEPS = 16
_NO_TIME = -(10**6)  # the step of zero, far below all others


def _step_of(seconds: float) -> int:
    if seconds <= 0:
        return _NO_TIME
    mantissa, exponent = math.frexp(seconds)
    return exponent * _STEPS + math.ceil((mantissa * 2 - 1) * _STEPS)


def _end_of(step: int) -> float:
    exponent, part = divmod(step, _STEPS)
    return math.ldexp((part / _STEPS + 1) / 2, exponent)


class LoopMeter:
    """Measures the time between two looks for events: nobody else is heard meanwhile.

    That is the latency that coroutines and callbacks make for each other. The meter runs from
    its making until close(), or until a with block ends; what was measured stays. Memory does
    not grow with the number of turns. hub: None for that of this thread.

    Example::

        with LoopMeter() as meter:
            get_hub().run()
        print(meter.count, meter.mean, meter.max, meter.percentile(99))

    Source: libevent's watchers, which are there for it.
    """

    count: int  #: turns that were measured
    max: float  #: the longest, in seconds
    _total: float
    _counts: Counter[int]

    def __init__(self, hub: Hub | None = None) -> None:
        """Begin to measure [hub], or this thread's. Raises RuntimeError if it is closed."""
        self._hub = get_hub() if hub is None else hub
        self.reset()
        self._left: float | None = None
        self._hook = self._hub.add_hook(self._prepare, self._check)

    def _check(self) -> None:
        self._left = self._hub.time

    def _prepare(self, timeout: float | None) -> None:
        if self._left is None:
            return  # it began in the middle of a turn
        away = self._hub.time - self._left
        self.count += 1
        self._total += away
        self.max = max(self.max, away)
        self._counts[_step_of(away)] += 1

    def reset(self) -> None:
        """Forget what was measured. Never switches."""
        self.count = 0
        self.max = 0.0
        self._total = 0.0
        self._counts = Counter()

    @property
    def mean(self) -> float:
        """The mean time of a turn, in seconds; 0.0 without any."""
        return self._total / self.count if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """Return how many seconds so many percent of the turns took at most.

        At most 7 % above the true value and never below it, nor above max; 0.0 without any
        turn. Raises ValueError for what is not between 0 and 100. Never switches.
        """
        if not 0 <= percent <= 100:
            raise ValueError("a percentile lies between 0 and 100")
        wanted = math.ceil(self.count * percent / 100)
        for step in sorted(self._counts):
            wanted -= self._counts[step]
            if wanted <= 0:
                return min(_end_of(step), self.max)
        return 0.0

    def close(self) -> None:
        """Stop measuring. Never switches."""
        self._hook.cancel()

    def __enter__(self) -> LoopMeter:
        """Return the meter; the with block closes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop measuring."""
        self.close()
