"""Context variables: inherited by spawn, apart between tasks, not left in workers."""

from __future__ import annotations

import contextvars
import decimal
import gc
import weakref

import pytest

import pycoronet
from pycoronet import sleep, spawn, to_thread

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


def test_a_hub_callback_has_no_task_s_context() -> None:
    seen: list[object] = []

    def work() -> None:
        variable.set("task")
        pycoronet.get_hub().call_soon_threadsafe(lambda: seen.append(variable.get()))
        sleep(1)

    spawn(work).join()
    assert seen == ["unset"]
