"""Task.link() and unlink(): what is called when a task has ended; spawn_later()."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import greenlet
import pytest
from processes import lines_of
from sync_case import in_callback

import pycoronet
from pycoronet import (
    Cancelled,
    DeadlockError,
    Event,
    Task,
    current,
    get_hub,
    shield,
    sleep,
    spawn,
    spawn_later,
)
from pycoronet.conet import co_create

pytestmark = pytest.mark.usefixtures("virtual_hub")


def fail(error: BaseException) -> None:
    raise error


# --- What is called, and when ---------------------------------------------------------------


def test_what_is_linked_is_called_in_order_in_the_hub() -> None:
    task = spawn(sleep, 5)
    seen: list[Any] = []
    for name in "abc":
        task.link(lambda ended, name=name: seen.append((name, ended, ended.done, current())))
    sleep(4)
    assert seen == []
    sleep(2)
    assert seen == [(name, task, True, None) for name in "abc"]


@pytest.mark.parametrize(
    "end", [lambda task: None, lambda task: task.cancel(), lambda task: sleep(0) or task.cancel()]
)
def test_it_is_called_however_the_task_ends(end: Callable[[Task], Any]) -> None:
    task = spawn(sleep, 5)
    seen: list[Task] = []
    task.link(seen.append)
    end(task)
    sleep(6)
    assert seen == [task]


def test_after_the_end_it_is_called_soon_and_not_at_once() -> None:
    task = spawn(int)
    task.join()
    seen: list[Task] = []
    task.link(seen.append)
    assert seen == []
    sleep(0)
    assert seen == [task]


def test_who_links_again_is_called_in_a_later_round() -> None:
    task = spawn(int)
    others: list[int] = []

    def link_again(ended: Task) -> None:
        others.append(0)
        if len(others) < 1000:
            ended.link(link_again)

    task.link(link_again)
    spawn(sleep, 1).join()  # it would never come if they were called in a row for ever
    get_hub().run()
    assert len(others) == 1000


def test_linked_twice_is_called_twice() -> None:
    task = spawn(int)
    seen: list[Task] = []
    task.link(seen.append)
    task.link(seen.append)
    sleep(1)
    assert seen == [task, task]


def test_a_task_that_is_linked_to_need_not_be_kept() -> None:
    ended: list[bool] = []
    spawn(sleep, 1).link(lambda task: ended.append(task.done))
    gc.collect()
    sleep(2)
    assert ended == [True]


def test_hub_run_waits_until_all_were_called() -> None:
    seen: list[Task] = []
    task = spawn(sleep, 1)
    task.link(lambda ended: ended.link(seen.append))
    get_hub().run()
    assert seen == [task]


def test_closing_the_hub_calls_what_is_linked_to_the_tasks_that_it_ends() -> None:
    seen: list[Task] = []
    tasks = [spawn(sleep, 5), spawn_later(5, int)]
    for task in tasks:
        task.link(seen.append)
    sleep(1)
    get_hub().close()
    assert set(seen) == set(tasks)


# --- Failures -------------------------------------------------------------------------------


def test_an_exception_in_a_callback_is_reported_and_all_goes_on(reports: list[Any]) -> None:
    task = spawn(int)
    seen: list[Task] = []
    error = LookupError("in a callback")
    task.link(lambda ended: fail(error))
    task.link(seen.append)
    sleep(1)
    assert seen == [task]
    assert reports == [error]
    assert spawn(lambda: 5).get() == 5


def test_what_ends_programs_goes_to_the_main_program(reports: list[Any]) -> None:
    spawn(int).link(lambda ended: fail(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        sleep(1)
    assert reports == []


def test_a_callback_cannot_wait(reports: list[Any]) -> None:
    spawn(int).link(lambda ended: sleep(1))
    sleep(1)
    assert [type(report) for report in reports] == [RuntimeError]


def test_a_failure_is_reported_unless_a_callback_handles_it(reports: list[Any]) -> None:
    errors = [ValueError(number) for number in range(4)]
    tasks = [spawn(fail, error) for error in errors]
    seen: list[BaseException | None] = []

    def look(task: Task) -> None:
        seen.append(task.exception)

    tasks[1].link(look)
    tasks[2].link(look)
    tasks[2].link(look, handles_failure=True)
    tasks[3].link(look, handles_failure=True)
    assert tasks[3].unlink(look)
    sleep(1)
    assert reports == [errors[0], errors[1], errors[3]]
    assert seen == [errors[1], errors[2], errors[2]]


def test_exception_is_what_a_task_ended_with() -> None:
    error = ValueError()
    succeeded, failed, cancelled = spawn(int), spawn(fail, error), spawn(sleep, 9)
    assert [task.exception for task in (succeeded, failed, cancelled)] == [None] * 3
    cancelled.cancel("why")
    failed.link(int, handles_failure=True)
    failed.unlink(int)
    failed.link(lambda task: None, handles_failure=True)
    sleep(1)
    assert succeeded.exception is None
    assert failed.exception is error
    assert isinstance(cancelled.exception, Cancelled)
    assert cancelled.exception.reason == "why"


# --- Unlinking ------------------------------------------------------------------------------


def test_what_was_unlinked_is_not_called() -> None:
    task = spawn(sleep, 1)
    seen: list[Any] = []
    functions = [lambda ended, number=number: seen.append(number) for number in range(4)]
    for function in functions:
        task.link(function)
    assert task.unlink(functions[1])
    assert task.unlink(functions[0])
    sleep(2)
    assert seen == [2, 3]


def test_a_method_is_found_although_it_is_another_object_each_time() -> None:
    task = spawn(sleep, 1)
    seen: list[Task] = []
    task.link(seen.append)
    assert task.unlink(seen.append)
    sleep(2)
    assert seen == []


def test_unlinking_twice_or_after_the_call_is_false() -> None:
    task = spawn(sleep, 1)
    seen: list[Task] = []
    assert not task.unlink(seen.append)
    task.link(seen.append)
    assert task.unlink(seen.append)
    assert not task.unlink(seen.append)
    task.link(seen.append)
    sleep(2)
    assert not task.unlink(seen.append)
    assert not task.unlink(5)  # type: ignore[arg-type]
    assert seen == [task]


def test_of_two_the_first_is_unlinked() -> None:
    task = spawn(sleep, 1)
    seen: list[Any] = []

    def note(_: Task) -> None:
        seen.append("note")

    task.link(note)
    task.link(lambda ended: seen.append("other"))
    task.link(note)
    assert task.unlink(note)
    sleep(2)
    assert seen == ["other", "note"]


def test_unlinked_by_a_callback_or_after_the_end_it_is_not_called() -> None:
    task = spawn(int)
    seen: list[Task] = []
    task.link(lambda ended: ended.unlink(seen.append))
    task.link(seen.append)
    sleep(1)
    assert seen == []
    task.link(seen.append)
    assert task.unlink(seen.append)
    sleep(1)
    assert seen == []


class Odd:
    """Something callable whose comparison does what it should not."""

    def __init__(self, compare: Callable[[], bool]) -> None:
        self._compare = compare

    def __call__(self, _: Task) -> None:
        pass

    def __eq__(self, other: object) -> bool:
        return self._compare()

    __hash__ = None  # type: ignore[assignment]


def test_odd_comparisons_do_no_harm() -> None:
    task = spawn(sleep, 1)
    task.link(Odd(lambda: bool(1 // 0)))
    with pytest.raises(ZeroDivisionError):
        task.unlink(int)
    odd = Odd(lambda: task.unlink(odd))
    task = spawn(sleep, 1)
    task.link(odd)
    task.link(repr)
    other = Odd(bool)
    assert not task.unlink(other)
    sleep(2)


# --- What is refused ------------------------------------------------------------------------


def test_wrong_arguments_are_refused() -> None:
    task = spawn(sleep, 1)
    for call in (
        lambda: task.link(),
        lambda: task.link(None),
        lambda: task.link(print, True),
        lambda: task.link(print, wrong=True),
        lambda: task.unlink(),
        lambda: task.unlink(print, print),
    ):
        with pytest.raises(TypeError):
            call()


def test_the_main_program_cannot_be_linked_to() -> None:
    me = current()
    assert me is not None
    with pytest.raises(RuntimeError, match="main program"):
        me.link(print)


def test_another_thread_may_not_link() -> None:
    task = spawn(sleep, 1)
    errors: list[Exception] = []

    def work() -> None:
        for call in (task.link, task.unlink):
            try:
                call(print)
            except RuntimeError as error:
                errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(errors) == 2


def test_a_closed_hub_takes_no_links() -> None:
    task = spawn(int)
    task.join()
    get_hub().close()
    with pytest.raises(RuntimeError, match="closed"):
        task.link(print)


def test_a_task_may_link_to_itself_and_in_a_callback() -> None:
    seen: list[Any] = []

    def work() -> None:
        me = current()
        assert me is not None
        me.link(seen.append)

    task = spawn(work)
    in_callback(lambda: task.link(seen.append))
    sleep(1)
    assert seen == [task, task]


# --- Lifetime -------------------------------------------------------------------------------


class Mark:
    """Something that can be seen to go, and to be called."""

    def __init__(self, log: list[Task]) -> None:
        self._log = log

    def __call__(self, task: Task) -> None:
        self._log.append(task)


def test_links_go_with_the_call_and_with_the_task() -> None:
    log: list[Task] = []
    called, never = Mark(log), Mark(log)
    task = spawn(int)
    task.link(called)
    coroutine = co_create(int)
    coroutine.link(never)
    coroutine.link(lambda _, coroutine=coroutine: None)  # a cycle
    references = [weakref.ref(called), weakref.ref(never)]
    del called, never, coroutine
    task.join()
    sleep(0)
    gc.collect()
    assert [reference() for reference in references] == [None, None]
    assert log == [task]


def test_links_of_a_task_that_outlives_its_hub_are_dropped(reports: list[Any]) -> None:
    greenlets: list[Any] = []

    def outlive() -> None:
        greenlets.append(greenlet.getcurrent())
        with shield():
            sleep(60)

    log: list[Task] = []
    mark = Mark(log)
    reference = weakref.ref(mark)
    task = spawn(outlive)
    task.link(mark)
    del mark
    sleep(1)
    get_hub().close()  # after five seconds it is tired of waiting
    assert reference() is not None
    greenlets.pop().throw(ValueError)
    assert task.done
    assert reference() is None
    assert log == []


def test_a_child_does_not_call_what_is_the_parent_s() -> None:
    assert (
        lines_of(
            """
        parent = os.getpid()
        note = lambda task: say("called in", "parent" if os.getpid() == parent else "child")
        waiting, ended, later = spawn(sleep, 0.01), spawn(int), spawn_later(0.01, int)
        ended.join()
        for task in (waiting, ended, later):
            task.link(note)
        if os.fork() == 0:
            sleep(0.03)
            task = spawn(int)
            task.link(lambda task: say("own"))
            sleep(0.001)
            say("child ends")
            os._exit(0)
        os.wait()
        waiting.join()
        later.join()
        sleep(0)
        """
        )
        == ["own", "child ends"] + ["called in parent"] * 3
    )


# --- spawn_later() --------------------------------------------------------------------------


def test_a_later_task_begins_in_time_with_its_arguments() -> None:
    hub = get_hub()
    begun: list[Any] = []

    def work(*arguments: Any, **keywords: Any) -> str:
        begun.append((hub.time, arguments, keywords))
        return "result"

    start = hub.time
    second, first = spawn_later(3, work, 2, a=5), spawn_later(1, work, 1)
    zero = spawn_later(0, work)
    assert isinstance(zero, Task)
    assert begun == []
    assert [task.get() for task in (first, second, zero)] == ["result"] * 3
    assert [entry[1:] for entry in begun] == [((), {}), ((1,), {}), ((2,), {"a": 5})]
    for entry, delay in zip(begun, (0, 1, 3), strict=True):
        assert delay <= entry[0] - start < delay + 0.01


def test_a_later_task_has_its_name_and_is_in_reports() -> None:
    task = spawn_later(3, sleep)
    assert task.name.startswith("sleep-")
    assert get_hub().waiters() == [f"Task {task.name!r}: spawn_later"]
    assert get_hub().task_count == 1


@pytest.mark.parametrize("before", [0, 1])
def test_a_later_task_that_is_cancelled_ends_at_once_and_is_never_called(before: float) -> None:
    hub, called = get_hub(), []
    task = spawn_later(3, called.append, 1)
    if before:
        sleep(before)
    start = hub.time
    task.cancel("no")
    with pytest.raises(Cancelled, match="no"):
        task.get()
    assert hub.time == start
    sleep(5)
    assert called == []
    assert task.done


def test_a_later_task_that_is_cancelled_leaves_no_timer() -> None:
    hub = get_hub()
    task = spawn_later(3600, int)
    task.cancel()
    task.join()
    start = hub.time
    with pytest.raises(DeadlockError):
        Event().wait()
    assert hub.time == start


def test_a_later_task_that_is_due_and_cancelled_in_one_turn() -> None:
    called: list[int] = []
    task = spawn_later(1, called.append, 1)
    get_hub().call_later(1, task.cancel)
    sleep(5)
    assert task.done
    assert called == []


def test_a_shield_around_the_spawner_is_not_inherited_by_a_later_task() -> None:
    with shield():
        task = spawn_later(1, int)
    task.cancel()
    task.join()
    assert isinstance(task.exception, Cancelled)


@pytest.mark.parametrize(
    ("seconds", "error"),
    [
        (-1, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        ("1", TypeError),
        (None, TypeError),
    ],
)
def test_bad_seconds_are_refused(seconds: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        spawn_later(seconds, int)
    assert get_hub().task_count == 0


@pytest.mark.parametrize("arguments", [(), (1,), (1, None), (1, "print")])
def test_a_later_task_needs_something_callable(arguments: Any) -> None:
    with pytest.raises(TypeError):
        spawn_later(*arguments)


def test_a_later_task_begins_when_the_loop_is_driven_by_hand() -> None:
    hub = get_hub()
    seen: list[int] = []
    spawn_later(1, seen.append, 1)
    while not seen:
        hub.wait()
        hub.dispatch()
    assert hub.task_count == 0


def test_ten_thousand_later_tasks_begin_in_their_order() -> None:
    seen: list[int] = []
    for number in range(10_000):
        spawn_later(number % 100, seen.append, number)
    pycoronet.get_hub().run()
    assert seen == sorted(range(10_000), key=lambda number: (number % 100, number))
