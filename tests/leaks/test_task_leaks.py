"""Leaks of the scheduler: nothing is left after many rounds of each operation."""

from __future__ import annotations

import contextvars
import gc
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import greenlet
import pytest
from connections import count_descriptors

import pycoronet
from pycoronet import (
    Cancelled,
    TaskGroup,
    current,
    get_hub,
    move_on_after,
    shield,
    sleep,
    spawn,
    timeout,
    to_thread,
)

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

pytestmark = [pytest.mark.leaks, pytest.mark.usefixtures("virtual_hub")]

WARM_UP = 30
ROUNDS = 200
TYPES = (
    "Task",
    "TaskGroup",
    "Scope",
    "ParkingLot",
    "greenlet",
    "Context",
    "Hub",
    "Cancelled",
    "frame",
    "cell",
)


class Sentinel:
    """Goes through every operation as argument, result, reason ..."""

    def __call__(self) -> None:
        """Do nothing."""


SENTINEL = Sentinel()
REAL_ENGINE = "epoll" if sys.platform.startswith("linux") else "kqueue"
variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "unraisablehook", lambda report: None)
    return iter([None])


def expect(error: type[BaseException], call: Callable[[], object]) -> None:
    """Call and see [error] raised; pytest.raises() would keep it until the next collection."""
    try:
        call()
    except error:
        return
    raise AssertionError(error)


def fail(error: BaseException) -> None:
    raise error


def spawn_and_get() -> None:
    assert spawn(lambda first, second: second, 1, second=SENTINEL).get() is SENTINEL


def spawn_and_drop() -> None:
    spawn(lambda it: it, SENTINEL)
    sleep(0)
    sleep(0)


def fail_with_and_without_joiner() -> None:
    expect(LookupError, spawn(fail, LookupError(SENTINEL)).get)
    spawn(fail, LookupError(SENTINEL))
    sleep(0)
    sleep(0)


def exit_from_a_task() -> None:
    spawn(fail, SystemExit(SENTINEL))
    spawn(fail, KeyboardInterrupt(SENTINEL))
    expect(SystemExit, lambda: sleep(1))


def cancel_in_each_state() -> None:
    queued, parked, ended = spawn(sleep, 5), spawn(sleep, 5), spawn(int)
    queued.cancel(SENTINEL)
    sleep(0)
    parked.cancel(SENTINEL)
    parked.cancel(SENTINEL)
    ended.cancel(SENTINEL)
    for task in (queued, parked):
        expect(Cancelled, task.get)


def swallow_many_cancels() -> None:
    def work() -> None:
        for _ in range(300):
            try:
                sleep(1)
            except Cancelled:
                pass

    task = spawn(work)
    sleep(0)
    task.cancel(SENTINEL)
    task.join()


def time_out() -> None:
    def work() -> None:
        with timeout(1), timeout(2):
            sleep(5)

    expect(TimeoutError, spawn(work).get)
    expect(TimeoutError, lambda: spawn(sleep, 2).join(1))
    sleep(2)


def shield_and_leave_wrongly() -> None:
    outer, inner = timeout(1), shield(1)
    outer.__enter__()
    inner.__enter__()
    expect(RuntimeError, lambda: outer.__exit__(None, None, None))
    inner.__exit__(None, None, None)
    spawn(lambda: timeout(1).__enter__()).join()


def move_on() -> None:
    with move_on_after(1):
        sleep(5)
    with move_on_after(None) as scope:
        scope.cancel(SENTINEL)
        sleep(5)


def group_ends_well() -> None:
    with TaskGroup() as group:
        group.spawn(lambda: group.spawn(lambda it: it, SENTINEL))
        group.spawn(sleep, 1).cancel(SENTINEL)
    with TaskGroup() as group:
        group.spawn(sleep, 5)
        group.cancel(SENTINEL)
        sleep(5)


def group_fails() -> None:
    def work() -> None:
        with TaskGroup() as group:
            group.spawn(fail, LookupError(SENTINEL))
            group.spawn(fail, LookupError(SENTINEL))
            group.spawn(sleep, 5)
            sleep(0)
            fail(LookupError(SENTINEL))

    def interrupt() -> None:
        with TaskGroup() as group:
            group.spawn(fail, KeyboardInterrupt(SENTINEL))
            group.spawn(sleep, 5)

    expect(ExceptionGroup, work)
    expect(ExceptionGroup, spawn(work).get)
    expect(KeyboardInterrupt, interrupt)


def group_is_cancelled() -> None:
    def work() -> None:
        with TaskGroup() as group:
            group.spawn(sleep, 5)

    task = spawn(work)
    sleep(0)
    task.cancel(SENTINEL)
    expect(Cancelled, task.get)

    def time_out() -> None:
        with timeout(1):
            work()

    expect(TimeoutError, time_out)


def group_is_misused() -> None:
    group = TaskGroup()
    expect(RuntimeError, lambda: group.spawn(sleep))
    expect(RuntimeError, lambda: group.__exit__(None, None, None))
    with group:
        expect(TypeError, lambda: group.spawn(SENTINEL.__class__.__name__))
        expect(RuntimeError, spawn(lambda: group.spawn(sleep)).get)
        expect(RuntimeError, group.__enter__)
    # Never left: its task ends in it.
    group_of_nobody = TaskGroup()
    spawn(group_of_nobody.__enter__).join()


def group_is_given_up() -> None:
    def stay() -> None:
        with shield(5):
            pycoronet.Event().wait()

    def work() -> None:
        with TaskGroup() as group:
            group.spawn(stay)
            spawn(main_program.cancel)

    main_program = spawn(work)
    sleep(0)
    main_program.cancel()
    main_program.join()


def wrong_arguments() -> None:
    task = spawn(int)
    for error, call in (
        (TypeError, lambda: spawn(SENTINEL.__class__.__name__)),
        (TypeError, lambda: sleep(SENTINEL)),
        (TypeError, lambda: timeout(SENTINEL)),
        (TypeError, lambda: task.join(SENTINEL)),
        (ValueError, lambda: task.get(-1)),
        (TypeError, lambda: task.cancel(SENTINEL, SENTINEL)),
        (TypeError, lambda: setattr(task, "name", SENTINEL)),
        (TypeError, lambda: get_hub().call_soon_threadsafe(1, SENTINEL)),
        (RuntimeError, lambda: spawn(lambda: current().join()).get()),
    ):
        expect(error, call)
    task.join()


def callbacks() -> None:
    get_hub().call_soon_threadsafe(lambda it: it, SENTINEL)
    get_hub().call_soon_threadsafe(fail, LookupError(SENTINEL))
    get_hub().call_soon_threadsafe(lambda: expect(RuntimeError, lambda: sleep(SENTINEL and 1)))
    sleep(0)


def park_and_unpark() -> None:
    lot = pycoronet._coronet.ParkingLot()
    tasks = [spawn(lot.park, "park", 1) for _ in range(3)]
    sleep(0)
    lot.unpark()
    tasks[1].cancel(SENTINEL)
    for task in tasks:
        task.join()


def nest_greenlets() -> None:
    def nested(it: object) -> object:
        greenlet.getcurrent().mine = it  # type: ignore[attr-defined]
        sleep(1)
        return it

    def work() -> None:
        assert greenlet.greenlet(nested).switch(SENTINEL) is SENTINEL
        spawn(greenlet.getcurrent().switch)
        greenlet.greenlet(nested).switch(SENTINEL)

    spawn(work).join()
    sleep(2)


def throw_into_greenlets() -> None:
    waiting: list[Any] = []

    def work() -> None:
        waiting.append(greenlet.getcurrent())
        sleep(5)

    for error in (LookupError(SENTINEL), greenlet.GreenletExit(SENTINEL)):
        task = spawn(work)
        spawn(lambda error=error: waiting.pop().throw(error))
        task.join()
    sleep(0)


def set_context_variables() -> None:
    spawn(variable.set, SENTINEL).join()


def deadlock() -> None:
    task = spawn(sleep, None)
    expect(pycoronet.DeadlockError, task.join)
    task.cancel()
    task.join()


def wait_for_descriptors() -> None:
    read_end, write_end = os.pipe()
    task = spawn(pycoronet.wait_readable, read_end)
    os.write(write_end, b"x")
    task.get()
    os.read(read_end, 1)
    expect(TimeoutError, lambda: pycoronet.wait_readable(read_end, 1))
    os.close(read_end)
    os.close(write_end)


def call_in_threads() -> None:
    assert to_thread(lambda it: it, SENTINEL) is SENTINEL
    expect(LookupError, lambda: to_thread(fail, LookupError(SENTINEL)))
    assert to_thread(int) == 0  # the thread has let go of the calls before this one


def hub_of_a_thread() -> None:
    def work() -> None:
        spawn(sleep, 0.0001).join()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def hub_closed_and_made() -> None:
    spawn(sleep, 100, *()).name = "pending"
    sleep(0)
    get_hub().close()
    get_hub(backend="fake")


def engine_refused() -> None:
    expect(RuntimeError, lambda: get_hub(backend=REAL_ENGINE))
    get_hub().close()
    expect(ValueError, lambda: get_hub(backend="nonsense"))
    expect(TypeError, lambda: get_hub(backend=SENTINEL))
    get_hub(backend="fake")


OPERATIONS = [
    spawn_and_get,
    spawn_and_drop,
    fail_with_and_without_joiner,
    exit_from_a_task,
    cancel_in_each_state,
    swallow_many_cancels,
    time_out,
    move_on,
    group_ends_well,
    group_fails,
    group_is_cancelled,
    group_is_misused,
    group_is_given_up,
    shield_and_leave_wrongly,
    wrong_arguments,
    callbacks,
    park_and_unpark,
    nest_greenlets,
    throw_into_greenlets,
    set_context_variables,
    deadlock,
    wait_for_descriptors,
    call_in_threads,
    hub_of_a_thread,
    hub_closed_and_made,
    engine_refused,
]


def take_stock() -> Counter[str]:
    """Count what is alive: objects of the types concerned, references, descriptors."""
    gc.collect()
    stock = Counter(type(it).__name__ for it in gc.get_objects() if type(it).__name__ in TYPES)
    for name, it in (("SENTINEL", SENTINEL), ("None", None), ("Cancelled", Cancelled)):
        stock["references to " + name] = sys.getrefcount(it)
    stock["descriptors"] = count_descriptors()
    if hasattr(sys, "gettotalrefcount"):
        stock["all references"] = sys.gettotalrefcount()
    return stock


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_nothing_is_left_after_many_rounds(operation: Callable[[], None]) -> None:
    for _ in range(WARM_UP):
        operation()
    before = take_stock()
    for _ in range(ROUNDS):
        operation()
    after = take_stock()
    # A handful may come and go with caches and the pool of workers; a leak is one a round.
    grown = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert all(growth < ROUNDS // 4 for growth in grown.values()), grown
    assert after["references to SENTINEL"] == before["references to SENTINEL"]
    get_hub().close()
