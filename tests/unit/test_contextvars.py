"""Context variables: inherited by spawn, apart between tasks, not left in workers."""

from __future__ import annotations

import contextvars
import decimal
import gc
import weakref
from collections.abc import Iterator

import pytest

import pycoronet
from pycoronet import Pool, sleep, spawn, spawn_later, to_thread

pytestmark = pytest.mark.usefixtures("virtual_hub")

variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable", default="unset")


def test_a_task_inherits_what_the_spawner_had_at_that_time() -> None:
    def run() -> None:
        variable.set("mine")
        task = spawn(variable.get)
        variable.set("later")
        assert task.get() == "mine"
        assert spawn(lambda: spawn(variable.get).get()).get() == "later"

    contextvars.copy_context().run(run)
    assert variable.get() == "unset"


def test_what_a_task_sets_stays_its_own() -> None:
    def work(value: int) -> None:
        variable.set(value)
        for _ in range(3):
            sleep(1)
            assert variable.get() == value

    tasks = [spawn(work, number) for number in range(20)]
    for task in tasks:
        task.get()
    assert variable.get() == "unset"


def test_nothing_is_left_in_a_pooled_worker() -> None:
    class Value:
        pass

    def leave() -> weakref.ref[Value]:
        value = Value()
        variable.set(value)
        return weakref.ref(value)

    reference = spawn(leave).get()
    sleep(0)
    gc.collect()
    assert reference() is None
    assert spawn(variable.get).get() == "unset"


def test_standard_library_contexts_are_apart() -> None:
    def work(precision: int) -> str:
        with decimal.localcontext() as context:
            context.prec = precision
            sleep(1)
            return str(decimal.Decimal(1) / 3)

    tasks = [spawn(work, number) for number in (3, 5)]
    assert [task.get() for task in tasks] == ["0.333", "0.33333"]


def test_a_thread_call_runs_in_a_copy() -> None:
    def call() -> object:
        before = variable.get()
        variable.set("changed in the thread")
        return before

    def work() -> tuple[object, object]:
        variable.set("task")
        return to_thread(call), variable.get()

    assert spawn(work).get() == ("task", "task")


def test_later_tasks_pools_and_results_inherit_the_caller_s() -> None:
    def work() -> list[object]:
        variable.set("task")
        pool = Pool(2)
        later, in_pool = spawn_later(5, variable.get), pool.spawn(variable.get)
        found = pool.imap(lambda _: variable.get(), range(2))
        mapped = spawn(pool.map, lambda _: variable.get(), range(2))
        variable.set("changed")
        return [later.get(), in_pool.get(), *found, *mapped.get(), pool.apply(variable.get)]

    assert spawn(work).get() == ["task"] * 6 + ["changed"]
    assert variable.get() == "unset"


def test_what_an_iterable_sets_is_seen_by_its_pool_s_calls_alone() -> None:
    def give() -> Iterator[int]:
        for number in range(3):
            variable.set(number)
            yield number

    found = Pool(1).map(lambda _: variable.get(), give())
    assert found == [0, 1, 2]
    assert variable.get() == "unset"


def test_a_linked_function_has_no_task_s_context() -> None:
    seen: list[object] = []

    def work() -> None:
        variable.set("task")
        task = spawn(sleep, 1)
        task.link(lambda _: seen.append(variable.get()))
        task.join()

    spawn(work).join()
    sleep(0)
    assert seen == ["unset"]


def test_a_hub_callback_has_no_task_s_context() -> None:
    seen: list[object] = []

    def work() -> None:
        variable.set("task")
        pycoronet.get_hub().call_soon_threadsafe(lambda: seen.append(variable.get()))
        sleep(1)

    spawn(work).join()
    assert seen == ["unset"]
