"""Leaks of links, later tasks, Locals, pools and waiting for many tasks."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from leak_case import Case, check_rounds

from pycoronet import (
    Local,
    Pool,
    Task,
    get_hub,
    iwait,
    joinall,
    sleep,
    spawn,
    spawn_later,
    timeout,
    wait,
)
from pycoronet._pools import _Calls
from pycoronet._waiting import Watch
from pycoronet.conet import co_create

pytestmark = [pytest.mark.leaks, pytest.mark.usefixtures("virtual_hub")]

TYPES = (Task, Local, Pool, Watch, _Calls)


class Sentinel:
    """Goes through everything; also a function to link."""

    def __call__(self, _: Task) -> None:
        pass


SENTINEL = Sentinel()


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "unraisablehook", lambda report: None)
    return iter([None])


def attempt(error: type[BaseException], call: Any, *arguments: Any, **keywords: Any) -> None:
    try:
        call(*arguments, **keywords)
    except error:
        return
    raise AssertionError(error)


def fail(*arguments: Any) -> None:
    sleep(1)
    raise LookupError(SENTINEL)


def link_and_unlink() -> None:
    task = spawn(int)
    for _ in range(5):
        task.link(SENTINEL)
    task.unlink(SENTINEL)
    task.link(lambda ended: 1 // 0)
    task.link(lambda ended: ended.link(SENTINEL))
    attempt(TypeError, task.link, None)
    task.join()
    task.link(SENTINEL)
    sleep(1)
    spawn(fail).link(SENTINEL, handles_failure=True)
    coroutine = co_create(int)
    coroutine.link(SENTINEL)
    coroutine.link(lambda _: coroutine)


def close_the_hub() -> None:
    for task in (spawn(sleep, 5), spawn_later(5, sleep, 5)):
        task.link(SENTINEL)
    in_callbacks = Local()
    get_hub().call_soon(setattr, in_callbacks, "value", SENTINEL)
    sleep(1)
    get_hub().close()
    get_hub(backend="fake")


def begin_later() -> None:
    tasks = [spawn_later(number, list, (SENTINEL,)) for number in range(3)]
    tasks[2].cancel(SENTINEL)
    joinall(tasks)
    attempt(ValueError, spawn_later, -1, int)
    attempt(TypeError, spawn_later, 1, None)


class Kept(Local):
    """Has an __init__()."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Refusing(Local):
    """Cannot be had by any task."""

    def __init__(self) -> None:
        self.value = SENTINEL
        raise LookupError


KEPT = Kept(None)


def keep_in_locals() -> None:
    local, kept = Local(), Kept(SENTINEL)

    def work() -> None:
        local.value = kept.value
        KEPT.value = SENTINEL
        local.me = local
        attempt(AttributeError, lambda: local.missing)
        sleep(1)

    tasks = [spawn(work) for _ in range(3)]
    work()
    get_hub().call_soon(work)
    thread = threading.Thread(target=lambda: setattr(local, "value", SENTINEL))
    thread.start()
    thread.join()
    joinall(tasks)
    attempt(LookupError, Refusing)
    attempt(TypeError, Local, SENTINEL)


def wait_for_many() -> None:
    tasks = [spawn(sleep, number) for number in range(4)] + [spawn(fail)]
    attempt(TimeoutError, joinall, tasks, 0.5)
    attempt(LookupError, joinall, tasks, raise_error=True)
    wait(tasks, count=3)
    for task in iwait(tasks):
        del task
        break
    list(iwait(tasks))
    attempt(TypeError, joinall, [spawn(int), None])
    waiter = spawn(joinall, [spawn(sleep, 2)])
    sleep(0)
    waiter.cancel()
    waiter.join()


def run_a_pool() -> None:
    with Pool(2) as pool:
        pool.spawn(fail)
        attempt(TypeError, pool.spawn, None)
        assert pool.map(lambda it: it, [SENTINEL] * 5) == [SENTINEL] * 5
        attempt(LookupError, pool.map, fail, [SENTINEL] * 5)
        attempt(LookupError, pool.apply, fail, SENTINEL)
        for name in ("imap", "imap_unordered"):
            assert list(getattr(pool, name)(lambda it: it, [SENTINEL] * 9)) == [SENTINEL] * 9
            found = getattr(pool, name)(fail, [SENTINEL] * 9)
            attempt(LookupError, next, found)
            del found
            pool.imap(fail, [SENTINEL])


def cut_a_pool_short() -> None:
    pool = Pool(2)
    try:
        with timeout(0.5):
            pool.map(fail, [SENTINEL] * 5)
    except TimeoutError:
        pass
    found = pool.imap(fail, [SENTINEL] * 9)
    sleep(2)
    pool.cancel(SENTINEL)
    try:
        with timeout(0.5), pool:
            pool.spawn(fail)
            pool.apply(fail)
    except TimeoutError:
        pass
    del found
    sleep(1)


CASES: list[Case] = [
    link_and_unlink,
    close_the_hub,
    begin_later,
    keep_in_locals,
    wait_for_many,
    run_a_pool,
    cut_a_pool_short,
]


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_left(case: Case) -> None:
    check_rounds(case, types=TYPES, counted=(SENTINEL,), rounds=50)
