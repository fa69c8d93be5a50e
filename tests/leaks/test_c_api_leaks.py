"""Leaks of the C API: waiters, waits that end in each way, errors."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import pytest
from connections import attempt
from leak_case import check_rounds

from pycoronet import READ, _coronet, current, get_hub, notify_closing, sleep, spawn

pytestmark = [pytest.mark.leaks, pytest.mark.usefixtures("virtual_hub")]


def park_in_all_ways(probe: Any) -> None:
    waiter = probe.waiter_new()
    tasks = [spawn(attempt, probe.park, waiter, probe.deadline_after(n)) for n in (None, 1, 5, 5)]
    sleep(0)
    probe.wake(waiter)  # the first
    sleep(2)  # the second's deadline
    tasks[2].cancel()
    probe.wake(waiter)
    for task in tasks:
        task.join()
    probe.wake(waiter)
    probe.park(waiter)
    for wrong in ((), (5,), (waiter, -1)):
        with suppress(TypeError, ValueError):
            probe.park(*wrong)
    with suppress(TypeError):
        probe.wake(5)


def wait_in_all_ways(probe: Any) -> None:
    reader, writer = os.pipe()
    tasks = [spawn(attempt, probe.wait_fd, reader, READ) for _ in range(2)]  # the second is busy
    sleep(0)
    probe.notify_closing(reader)
    tasks += [spawn(attempt, probe.wait_fd, reader, READ, probe.deadline_after(1))]
    sleep(2)
    tasks += [spawn(attempt, probe.wait_fd, reader, READ)]
    sleep(0)
    tasks[-1].cancel()
    for task in tasks:
        task.join()
    os.write(writer, b"x")
    assert probe.wait_fd(reader, READ) == READ
    for wrong in ((reader, 0), (reader, READ, -1), (-1, READ)):
        with suppress(OSError, ValueError):
            probe.wait_fd(*wrong)
    for fd in (reader, writer):
        notify_closing(fd)
        os.close(fd)


def ask_for_little_things(probe: Any) -> None:
    assert probe.current_task() is current()
    get_hub().call_soon(probe.current_task)
    sleep(0)
    probe.now_ns()
    for seconds in (1, None, -1, "x"):
        with suppress(TypeError, ValueError):
            probe.deadline_after(seconds)


def import_other_versions(probe: Any) -> None:
    good = _coronet._C_API
    for capsule in (probe.table(9, 9), object(), good):
        _coronet._C_API = capsule  # type: ignore[misc]
        with suppress(ImportError):
            probe.import_()


@pytest.mark.parametrize(
    "case", [park_in_all_ways, wait_in_all_ways, ask_for_little_things, import_other_versions]
)
def test_c_api_leaks_nothing(case: Any, probe: Any) -> None:
    kind = type(probe.waiter_new())
    check_rounds(lambda: case(probe), counted=(kind,))
