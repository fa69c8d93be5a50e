"""SharedStats: the sum over worker processes, dead ones too."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from pycoronet.server import _shared_stats
from pycoronet.server._shared_stats import SharedStats
from pycoronet.server._stats import Stats

# From 3.12 on Python warns of a fork beside threads, which other tests may have left.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

CREATED = 1_000_000.5


def make_stats(scale: int = 1) -> Stats:
    """Return statistics in which every value is another multiple of [scale]."""
    stats = Stats()
    numbers = iter(range(1, 100))
    for name in ("accepted", "connections_served", "open", "cancelled", "threads", "waiting"):
        setattr(stats, name, scale * next(numbers))
    stats.shed = {reason: scale * next(numbers) for reason in stats.shed}
    stats.errors = {kind: scale * next(numbers) for kind in stats.errors}
    stats.traffic = SimpleNamespace(
        bytes_read=scale * next(numbers) << 40, bytes_sent=scale * next(numbers) << 40
    )
    return stats


def made_before(scale: int = 0) -> Stats:
    """Return statistics of a server that was made at a known time."""
    stats = make_stats(scale)
    stats.created = CREATED
    return stats


def in_child(function: Callable[[], object]) -> None:
    """Run a function in a forked process, and wait for its end."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def expect_sum(shared: SharedStats, scale: int, **others: int) -> None:
    values = shared.total().as_dict()
    expected = make_stats(scale).as_dict()
    expected.update(others, created=CREATED)
    assert values == expected


def test_shared_total_of_nobody_is_nothing() -> None:
    values = SharedStats(made_before()).total().as_dict()
    expected = Stats().as_dict()
    expected["created"] = CREATED
    assert values == expected


def test_shared_total_has_every_value_of_every_worker() -> None:
    shared = SharedStats(made_before())
    rows = [shared.take_row() for _ in range(3)]
    for scale, row in enumerate(rows, start=1):
        row.publish(make_stats(100))  # replaced by what comes later
        row.publish(make_stats(scale))
    expect_sum(shared, 1 + 2 + 3, workers=3, workers_started=3)


def test_shared_total_is_seen_across_processes_of_any_age() -> None:
    shared = SharedStats(made_before())
    first = shared.take_row()
    in_child(lambda: first.publish(make_stats(1)))
    ready, wake = os.pipe()
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:  # an old worker, which hears of a row that was taken after its start
        os.read(ready, 1)
        os.write(tell, shared.total().accepted.to_bytes(4, "big"))
        os._exit(0)
    second = shared.take_row()
    in_child(lambda: second.publish(make_stats(7)))
    os.write(wake, b"x")
    assert os.read(told, 4) == (8).to_bytes(4, "big")
    assert os.waitpid(pid, 0)[1] == 0
    for fd in (ready, wake, told, tell):
        os.close(fd)
    expect_sum(shared, 8, workers=2, workers_started=2)


def test_shared_retired_row_keeps_its_counters_and_loses_its_gauges() -> None:
    shared = SharedStats(made_before())
    row = shared.take_row()
    row.publish(make_stats(5))
    shared.retire(row)
    gauges = dict.fromkeys(("open", "threads", "waiting", "workers"), 0)
    expect_sum(shared, 5, workers_started=1, **gauges)


def test_shared_row_taken_again_counts_on_from_its_predecessor() -> None:
    shared = SharedStats(made_before())
    other = shared.take_row()
    for scale in (1, 2, 3):
        row = shared.take_row()
        assert row.number == 1  # it is used again
        row.publish(make_stats(1))
        row.publish(make_stats(scale))
        shared.retire(row)
    other.publish(make_stats(4))
    gauges = {name: getattr(make_stats(4), name) for name in ("open", "threads", "waiting")}
    expect_sum(shared, 1 + 2 + 3 + 4, workers=1, workers_started=4, **gauges)


def test_shared_more_workers_than_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_shared_stats, "MAX_ROWS", 2)
    shared = SharedStats(made_before())
    row = shared.take_row()
    last = shared.take_row()
    with pytest.raises(RuntimeError, match="2 worker processes"):
        shared.take_row()
    last.publish(make_stats(3))
    shared.retire(row)
    shared.take_row()
    expect_sum(shared, 3, workers=2, workers_started=3)


def test_shared_total_goes_on_from_what_was_counted_before() -> None:
    before = made_before(3)
    before.workers_started = 2
    shared = SharedStats(before)
    # Nobody is open or running any more.
    nobody = {"open": 0, "threads": 0, "waiting": 0}
    expect_sum(shared, 3, **nobody, workers_started=2)
    row = shared.take_row()
    row.publish(make_stats(4))
    shared.retire(row)
    expect_sum(shared, 7, **nobody, workers_started=3)
