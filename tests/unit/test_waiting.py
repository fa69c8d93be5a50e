"""joinall, wait and iwait: waiting for many tasks."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from sync_case import in_callback

from pycoronet import (
    Cancelled,
    DeadlockError,
    Task,
    current,
    get_hub,
    iwait,
    joinall,
    sleep,
    spawn,
    timeout,
    wait,
)

pytestmark = pytest.mark.usefixtures("virtual_hub")

# Each as a function of tasks and a timeout that waits for all of them.
WAYS: dict[str, Callable[..., Any]] = {
    "joinall": joinall,
    "wait": wait,
    "iwait": lambda tasks, timeout=None: list(iwait(tasks, timeout)),
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def fail(seconds: float, error: BaseException) -> None:
    sleep(seconds)
    raise error


def sleepers(*seconds: float) -> list[Task]:
    return [spawn(sleep, number) for number in seconds]


# --- What all of them do --------------------------------------------------------------------


@ways
def test_all_wait_until_the_last_has_ended(way: Any) -> None:
    start = get_hub().time
    tasks = sleepers(3, 1, 2)
    way(tasks)
    assert all(task.done for task in tasks)
    assert get_hub().time - start < 3.1
    way(tasks)  # they have ended: no time passes
    way([])
    way(iter(()))
    assert get_hub().time - start < 3.1


@ways
def test_a_task_given_twice_counts_once(way: Any) -> None:
    task = spawn(sleep, 1)
    way([task, task])
    assert task.done
    assert list(iwait([task, task])) == [task]


@ways
def test_while_they_wait_no_failure_is_reported(way: Any, reports: list[Any]) -> None:
    error = LookupError()
    tasks = [spawn(fail, 1, error), *sleepers(2)]
    way(tasks)
    assert reports == []
    assert tasks[0].exception is error


@ways
def test_cancelled_they_leave_the_tasks_alone(way: Any, reports: list[Any]) -> None:
    error = LookupError()
    tasks = [spawn(fail, 2, error), *sleepers(3)]
    waiter = spawn(way, tasks)
    sleep(1)
    waiter.cancel()
    waiter.join()
    assert isinstance(waiter.exception, Cancelled)
    assert not any(task.done for task in tasks)
    del waiter  # the traceback refers to the iterator of iwait()
    gc.collect()
    sleep(5)
    assert all(task.done for task in tasks)
    assert reports == [error]  # for nobody was joining any more


@ways
def test_a_deadline_around_them_leaves_the_tasks_alone(way: Any) -> None:
    tasks = sleepers(2)
    with pytest.raises(TimeoutError) as caught, timeout(1) as scope:
        way(tasks)
    assert caught.value.scope is scope  # type: ignore[attr-defined]
    way(tasks)
    assert tasks[0].done


@ways
def test_nobody_waits_for_itself(way: Any) -> None:
    for task in (current(), spawn(lambda: way([spawn(int), current()]))):
        assert task is not None
        with pytest.raises(RuntimeError, match="itself"):
            way([task]) if task is current() else task.get()


@ways
def test_the_main_program_is_not_waited_for(way: Any) -> None:
    with pytest.raises(RuntimeError, match="main program"):
        spawn(way, [current()]).get()


@ways
@pytest.mark.parametrize("is_done", [False, True])
def test_tasks_of_another_thread_are_refused(way: Any, is_done: bool, reports: list[Any]) -> None:
    task = spawn(sleep, 1)
    if is_done:
        task.join()
    errors: list[str] = []
    failure = LookupError()

    def work() -> None:
        own = spawn(fail, 0, failure)
        try:
            way([own, task])
        except RuntimeError as error:
            errors.append(str(error))
        get_hub().run()
        assert own.done

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(errors) == 1
    assert "another thread" in errors[0]
    assert reports == [failure]  # for nobody is joining that one
    task.join()


@ways
@pytest.mark.parametrize("tasks", [[None], [1, 2], 5, [print]])
def test_what_is_no_task_is_refused(way: Any, tasks: Any) -> None:
    with pytest.raises(TypeError):
        way(tasks)


@ways
@pytest.mark.parametrize(
    ("seconds", "error"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)]
)
def test_bad_timeouts_are_refused(way: Any, seconds: Any, error: type[Exception]) -> None:
    for tasks in ([], sleepers(1)):
        with pytest.raises(error):
            way(tasks, seconds)


@ways
def test_an_iterable_that_raises_harms_nobody(way: Any, reports: list[Any]) -> None:
    error = LookupError()

    def give() -> Any:
        yield spawn(fail, 1, error)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        way(give())
    sleep(2)
    assert reports == [error]


@ways
def test_a_hub_callback_cannot_wait(way: Any) -> None:
    tasks = sleepers(1)
    with pytest.raises(RuntimeError, match="cannot"):
        in_callback(lambda: way(tasks))
    way(tasks)
    in_callback(lambda: way(tasks))  # which has nothing to wait for


@ways
def test_a_deadlock_is_told(way: Any) -> None:
    with pytest.raises(DeadlockError, match=r"joinall|wait"):
        way(sleepers(None))  # type: ignore[arg-type]


# --- joinall --------------------------------------------------------------------------------


def test_joinall_says_how_many_are_late() -> None:
    tasks = sleepers(1, 3, 5)
    with pytest.raises(TimeoutError, match="2 of 3"):
        joinall(tasks, 2)
    with pytest.raises(TimeoutError, match="2 of 3"):
        joinall(tasks, 0)
    joinall(tasks, timeout=10)


def test_a_failure_that_is_raised_keeps_nothing_alive() -> None:
    class Value:
        pass

    def fail_with(value: Value) -> None:
        raise LookupError(value)

    value = Value()
    seen = weakref.ref(value)
    task = spawn(fail_with, value)
    gc.disable()
    try:
        try:
            joinall([task], raise_error=True)
        except LookupError:
            pass
        del value, task
        sleep(0)
        assert seen() is None
    finally:
        gc.enable()


def test_joinall_raises_the_first_failure_as_soon_as_it_comes(reports: list[Any]) -> None:
    first, second = LookupError(), ArithmeticError()
    tasks = [spawn(fail, 5, second), spawn(fail, 2, first), *sleepers(9)]
    start = get_hub().time
    with pytest.raises(LookupError) as caught:
        joinall(tasks, raise_error=True)
    assert caught.value is first
    assert get_hub().time - start < 2.1
    assert [task.done for task in tasks] == [False, True, False]
    sleep(9)
    assert reports == [second]  # for nobody was joining any more
    with pytest.raises(ArithmeticError):
        joinall(tasks, raise_error=True)  # the first one given


def test_joinall_takes_no_cancelled_task_for_a_failure() -> None:
    tasks = sleepers(5, 1)
    sleep(0)
    tasks[0].cancel()
    joinall(tasks, raise_error=True)
    assert isinstance(tasks[0].exception, Cancelled)


def test_a_timeout_error_of_a_task_is_no_timeout_of_joinall() -> None:
    error = TimeoutError("the task's")
    with pytest.raises(TimeoutError) as caught:
        joinall([spawn(fail, 1, error)], 5, raise_error=True)
    assert caught.value is error
    joinall([spawn(fail, 1, error)], 5)


# --- wait -----------------------------------------------------------------------------------


def test_wait_returns_who_has_ended_and_who_has_not() -> None:
    tasks = sleepers(1, 3, 5)
    assert wait(tasks, 0) == (set(), set(tasks))
    assert wait(tasks, 2) == ({tasks[0]}, set(tasks[1:]))
    assert wait(tasks, count=2) == (set(tasks[:2]), {tasks[2]})
    assert wait(tasks, count=0) == (set(tasks[:2]), {tasks[2]})
    assert wait(tasks, count=99) == (set(tasks), set())
    assert wait([]) == (set(), set())
    with pytest.raises(ValueError, match="count"):
        wait(tasks, count=-1)


def test_wait_for_one_of_ten_thousand_wakes_once() -> None:
    tasks = sleepers(*range(1, 10_001))
    done, pending = wait(tasks, count=9_000)
    assert done == set(tasks[:9_000])
    for task in pending:
        task.cancel()
    assert wait(pending) == (pending, set())


# --- iwait ----------------------------------------------------------------------------------


def test_iwait_gives_tasks_as_they_end() -> None:
    tasks = sleepers(3, 1, 2)
    sleep(1.5)
    start = get_hub().time
    times = [(task, round(get_hub().time - start, 1)) for task in iwait(tasks)]
    assert times == [(tasks[1], 0), (tasks[2], 0.5), (tasks[0], 1.5)]


def test_iwait_watches_from_its_call_on(reports: list[Any]) -> None:
    tasks = [spawn(fail, 2, LookupError()), *sleepers(1)]
    ended = iwait(tasks)
    sleep(5)
    assert list(ended) == tasks[::-1]
    assert reports == []
    with pytest.raises(StopIteration):
        next(ended)


def test_iwait_that_times_out_has_lost_nothing() -> None:
    tasks = sleepers(1, 3)
    ended = iwait(tasks, 2)
    assert next(ended) is tasks[0]
    for _ in range(2):
        with pytest.raises(TimeoutError, match="1 tasks"):
            next(ended)
    sleep(2)
    assert list(ended) == [tasks[1]]


def test_iwait_cancelled_has_lost_nothing() -> None:
    tasks = sleepers(1, 2)
    ended = iwait(tasks)
    for _ in range(5):
        with pytest.raises(TimeoutError), timeout(0.1):
            next(ended)
    assert list(ended) == tasks


def test_many_may_take_from_one_iwait() -> None:
    tasks = sleepers(1, 2, 3)
    ended = iwait(tasks)
    takers = [spawn(list, ended) for _ in range(5)]
    found = [task for taker in takers for task in taker.get()]
    assert sorted(found, key=tasks.index) == tasks


def test_iwait_dropped_early_lets_go_of_the_tasks(reports: list[Any]) -> None:
    error = LookupError()
    tasks = [*sleepers(1), spawn(fail, 3, error)]
    for task in iwait(tasks):
        assert task is tasks[0]
        break
    gc.collect()
    sleep(3)
    assert reports == [error]


def test_iwait_may_be_dropped_in_another_thread_and_after_its_hub(reports: list[Any]) -> None:
    held = [iwait(sleepers(5)), iwait(sleepers(5))]
    thread = threading.Thread(target=held.pop)
    thread.start()
    thread.join()
    get_hub().close()
    held.clear()
    gc.collect()
    assert reports == []
