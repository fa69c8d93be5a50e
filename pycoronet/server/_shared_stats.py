"""SharedStats: what all workers of a server count, in memory that they share.

The master makes the memory before it forks and gives each worker a row of it. A worker alone
writes to its row, the master only before it starts and after it has ended, so nothing is
locked. Each value is one aligned machine word and never seen half written; the values of a row
may stem from two publications of it.

What a dead worker has counted stays in its row, and the next one to have that row counts on
from there: a sum of counters never goes down.
"""

from __future__ import annotations

import heapq
import mmap
from typing import NamedTuple

from ._stats import ERROR_KINDS, SHED_REASONS, Stats

__all__ = ["Row", "SharedStats"]

# The columns of a row, in this order; below them come the two that the master writes.
_COUNTERS = ("accepted", "connections_served", "cancelled", "bytes_read", "bytes_sent")
_GAUGES = ("open", "threads", "waiting")
_COUNTERS_END = len(_COUNTERS) + len(SHED_REASONS) + len(ERROR_KINDS)
_WORKERS = _COUNTERS_END + len(_GAUGES)
_WORKERS_STARTED = _WORKERS + 1
_COLUMNS = _WORKERS_STARTED + 1

_WORD = 8
_ROW_WORDS = 32  # more than the columns: no two workers write to one cache line

# Old workers that drain have rows too, so there are many more than processors. Pages that
# nobody has written to cost nothing.
MAX_ROWS = 4096


class _SharedTraffic(NamedTuple):
    bytes_read: int
    bytes_sent: int


def _counters_of(stats: Stats) -> list[int]:
    return [
        *(getattr(stats, name) for name in _COUNTERS),
        *(stats.shed[reason] for reason in SHED_REASONS),
        *(stats.errors[kind] for kind in ERROR_KINDS),
    ]


class Row:
    """The place of one worker; `SharedStats.take_row()` gives it."""

    def __init__(self, words: memoryview, number: int) -> None:
        start = (number + 1) * _ROW_WORDS
        self.number = number
        self._words = words[start : start + _ROW_WORDS]
        # What those have counted that had the row before.
        self._base = self._words[:_COUNTERS_END].tolist()
        self._words[_WORKERS] = 1
        self._words[_WORKERS_STARTED] += 1

    def publish(self, stats: Stats) -> None:
        """Write down what this worker has counted so far; in the worker."""
        words = self._words
        for column, (before, count) in enumerate(zip(self._base, _counters_of(stats), strict=True)):
            words[column] = before + count
        for column, name in enumerate(_GAUGES, start=_COUNTERS_END):
            words[column] = getattr(stats, name)

    def _end(self) -> None:
        for column in range(_COUNTERS_END, _WORKERS_STARTED):
            self._words[column] = 0


class SharedStats:
    """The rows of all workers. Made before the first fork; each worker inherits it."""

    def __init__(self, before: Stats) -> None:
        """Take the memory. before: what has been counted already, by workers of an earlier run."""
        self.created = before.created
        self._before = [*_counters_of(before), *([0] * len(_GAUGES)), 0, before.workers_started]
        memory = mmap.mmap(-1, (MAX_ROWS + 1) * _ROW_WORDS * _WORD)
        self._words = memoryview(memory).cast("q")  # the first: how many rows were ever used
        self._free: list[int] = []

    def take_row(self) -> Row:
        """Return a row for a worker that is about to be forked; in the master.

        Raises RuntimeError if there are `MAX_ROWS` workers already.
        """
        if self._free:
            return Row(self._words, heapq.heappop(self._free))
        number = self._words[0]
        if number == MAX_ROWS:
            raise RuntimeError(f"there are {MAX_ROWS} worker processes already")
        row = Row(self._words, number)
        self._words[0] = number + 1
        return row

    def retire(self, row: Row) -> None:
        """Take a row back, once its worker has ended; in the master.

        What the worker has counted stays in the sum; nothing is open or running there any more.
        """
        row._end()
        heapq.heappush(self._free, row.number)

    def total(self) -> Stats:
        """Return the sum of what all workers have published, dead ones too; in any process."""
        sums = self._before
        for number in range(self._words[0]):
            start = (number + 1) * _ROW_WORDS
            row = self._words[start : start + _COLUMNS]
            sums = [total + value for total, value in zip(sums, row, strict=True)]
        values = iter(sums)
        stats = Stats()
        stats.created = self.created
        stats.accepted = next(values)
        stats.connections_served = next(values)
        stats.cancelled = next(values)
        stats.traffic = _SharedTraffic(next(values), next(values))
        stats.shed = {reason: next(values) for reason in SHED_REASONS}
        stats.errors = {kind: next(values) for kind in ERROR_KINDS}
        for name in (*_GAUGES, "workers", "workers_started"):
            setattr(stats, name, next(values))
        return stats
