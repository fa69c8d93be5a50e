"""TaskGroup: what ends programs, misuse, lifetime, deep nesting, forks."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from typing import Any

import greenlet
import pytest
from processes import lines_of
from sync_case import in_callback

from pycoronet import (
    Cancelled,
    DeadlockError,
    Event,
    TaskGroup,
    get_hub,
    shield,
    sleep,
    spawn,
)

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

pytestmark = pytest.mark.usefixtures("virtual_hub")


def fail(error: BaseException, seconds: float = 0) -> None:
    sleep(seconds)
    raise error


# --- What ends programs -----------------------------------------------------------------


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_what_ends_programs_goes_to_the_main_program(ending: Any, reports: list[Any]) -> None:
    with pytest.raises(ending), TaskGroup() as group:
        group.spawn(fail, ending(3), 1)
        task = group.spawn(sleep, 100)
    assert task.done
    assert reports == []


def test_what_ends_programs_cancels_a_group_of_another_task(reports: list[Any]) -> None:
    def work() -> None:
        with TaskGroup() as group:
            group.spawn(fail, SystemExit(3), 1)
            group.spawn(sleep, 100)
        raise AssertionError("not reached")

    parent = spawn(work)
    with pytest.raises(SystemExit):
        sleep(5)
    with pytest.raises(Cancelled):
        parent.get()
    assert reports == []


def test_failures_beside_an_ending_are_reported(reports: list[Any]) -> None:
    lost = LookupError("lost")
    with pytest.raises(KeyboardInterrupt), TaskGroup() as group:
        group.spawn(fail, lost)
        with pytest.raises(Cancelled):
            sleep(1)
        raise KeyboardInterrupt
    assert reports == [lost]


def test_second_interruption_gives_the_waiting_up(reports: list[Any]) -> None:
    go_on = Event()

    def stay() -> None:
        with shield():
            go_on.wait()
        raise LookupError("late")

    with pytest.raises(DeadlockError) as caught, TaskGroup() as group:
        task = group.spawn(stay)
    assert "TaskGroup of 1 tasks" in str(caught.value)
    assert not task.done
    assert len(reports) == 1  # the second of the two
    go_on.set()
    sleep(0)
    assert isinstance(reports[1], LookupError)  # nobody else heard of it


def test_group_in_a_greenlet_that_is_killed_cancels_its_tasks() -> None:
    children: list[Any] = []

    def work() -> None:
        waiting.append(greenlet.getcurrent())
        with TaskGroup() as group:
            children.append(group.spawn(sleep, 100))
            sleep(50)

    waiting: list[Any] = []
    task = spawn(work)
    sleep(0)
    spawn(lambda: waiting.pop().throw(greenlet.GreenletExit))
    task.join()
    assert children[0].done
    with pytest.raises(greenlet.GreenletExit):
        task.get()


def test_group_in_a_nested_greenlet_that_is_let_go_of_cancels_its_tasks() -> None:
    children: list[Any] = []

    def nested() -> None:
        with TaskGroup() as group:
            children.append(group.spawn(sleep, 100))
            main.switch()

    main = greenlet.getcurrent()
    inner = greenlet.greenlet(nested)
    inner.switch()
    sleep(1)
    del inner
    gc.collect()
    assert children[0].done


@pytest.mark.leaves_something("tasks of a thread that has ended")
def test_group_of_a_thread_that_ends_is_abandoned(reports: list[Any]) -> None:
    def work() -> None:
        with TaskGroup() as group:
            group.spawn(sleep, 100)
            sleep(100)

    def run() -> None:
        spawn(work)
        sleep(0)
        sleep(0)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    gc.collect()
    assert reports == []


def test_hub_closed_within_the_block_ends_the_tasks() -> None:
    with TaskGroup() as group:
        task = group.spawn(sleep, 100)
        sleep(0)
        get_hub().close()
        assert task.done


# --- Misuse -----------------------------------------------------------------------------


def test_group_is_used_within_its_block_only() -> None:
    group = TaskGroup()
    with pytest.raises(RuntimeError, match="not entered"):
        group.spawn(sleep)
    with pytest.raises(RuntimeError, match="not entered"):
        group.__exit__(None, None, None)
    group.cancel()
    with group:
        with pytest.raises(RuntimeError, match="new one"):
            group.__enter__()
        group.spawn(sleep, 1)
    for call in (lambda: group.spawn(sleep), lambda: group.__exit__(None, None, None)):
        with pytest.raises(RuntimeError, match="left"):
            call()
    with pytest.raises(RuntimeError, match="new one"):
        group.__enter__()
    group.cancel()


def test_stranger_cannot_spawn_into_a_group_or_leave_it() -> None:
    def intrude() -> None:
        with pytest.raises(RuntimeError, match="tasks in it"):
            group.spawn(sleep)
        leave()

    def leave() -> None:
        with pytest.raises(RuntimeError, match="the task that entered it"):
            group.__exit__(None, None, None)

    with TaskGroup() as group:
        spawn(intrude).get()
        with pytest.raises(RuntimeError, match="tasks in it"):
            in_callback(lambda: group.spawn(sleep))
        group.spawn(leave).get()

    def enter_another(function: Any) -> None:
        with TaskGroup() as another:
            another.spawn(function).get()

    with TaskGroup() as group:
        spawn(enter_another, intrude).get()  # in a group, but not in this one


def test_group_cannot_be_entered_in_a_callback() -> None:
    with pytest.raises(RuntimeError, match="callback"):
        in_callback(TaskGroup().__enter__)


def test_group_of_another_thread_is_refused() -> None:
    errors: list[BaseException] = []

    def intrude() -> None:
        for call in (
            lambda: group.spawn(sleep),
            group.cancel,
            lambda: group.__exit__(None, None, None),
        ):
            try:
                call()
            except RuntimeError as error:
                errors.append(error)

    with TaskGroup() as group:
        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()
    assert len(errors) == 3
    assert all("another thread" in str(error) for error in errors)


@pytest.mark.parametrize(
    "call",
    [
        lambda group: TaskGroup(1),
        lambda group: TaskGroup(name=1),
        lambda group: group.spawn(),
        lambda group: group.spawn(None),
        lambda group: group.spawn("print", 1),
        lambda group: group.cancel(1, 2),
        lambda group: group.cancel(why=1),
    ],
)
def test_wrong_arguments_are_refused(call: Any) -> None:
    with TaskGroup() as group:
        with pytest.raises(TypeError):
            call(group)
        assert repr(group) == "<TaskGroup of 0 tasks>"


def test_failure_after_the_owner_has_ended_is_reported(reports: list[Any]) -> None:
    error = LookupError("x")

    def work() -> None:
        group = TaskGroup()
        groups.append(group)
        group.__enter__()
        group.spawn(fail, error, 1)

    groups: list[Any] = []
    spawn(work).join()
    with pytest.raises(RuntimeError, match="left"):
        groups[0].spawn(sleep)
    sleep(5)
    assert reports == [error]


def test_repr_tells_how_many_there_are() -> None:
    group = TaskGroup()
    assert repr(group) == "<TaskGroup of 0 tasks, new>"
    with group:
        group.spawn(sleep, 1)
        assert repr(group) == "<TaskGroup of 1 tasks>"
    assert repr(group) == "<TaskGroup of 0 tasks, left>"


# --- Lifetime ---------------------------------------------------------------------------


def test_groups_that_failed_or_were_given_up_are_freed() -> None:
    class Witness:
        pass

    def work(witness: object) -> None:
        group = TaskGroup()
        group.__enter__()
        group.spawn(fail, LookupError(witness, group))
        with pytest.raises(Cancelled):
            sleep(1)
        if witness is witnesses[0]:
            with pytest.raises(ExceptionGroup):
                group.__exit__(None, None, None)

    witnesses = [Witness(), Witness()]
    for witness in witnesses:
        spawn(work, witness).join()
    references = [weakref.ref(witness) for witness in witnesses]
    del witness
    witnesses.clear()
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_deep_nesting_of_groups_in_tasks() -> None:
    def work(depth: int) -> None:
        if depth == 0:
            raise LookupError("deep")
        with TaskGroup() as group:
            group.spawn(work, depth - 1)

    with pytest.raises(ExceptionGroup) as caught:
        work(200)
    error: Any = caught.value
    for _ in range(199):
        (error,) = error.exceptions
    assert isinstance(error.exceptions[0], LookupError)


def test_forked_child_does_not_wait_for_the_parents_tasks() -> None:
    lines = lines_of(
        """
        with TaskGroup() as group:
            group.spawn(sleep, 0.01)
            sleep(0)
            group.spawn(sleep, 0.01)
            child = os.fork()
            say("child" if child == 0 else "parent", group)
        if child == 0:
            os._exit(7)
        say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    )
    assert sorted(lines) == [
        "7",
        "child <TaskGroup of 0 tasks>",
        "parent <TaskGroup of 2 tasks>",
    ]
