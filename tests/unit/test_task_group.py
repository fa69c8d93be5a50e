"""TaskGroup: who is waited for, who is cancelled, what comes out of the block."""

from __future__ import annotations

import sys
from typing import Any

import pytest

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
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

pytestmark = pytest.mark.usefixtures("virtual_hub")


def fail(error: BaseException, seconds: float = 0) -> None:
    sleep(seconds)
    raise error


def elapsed_since(started: float) -> float:
    return round(get_hub().time - started, 6)


def caught_reason(reasons: list[Any]) -> None:
    """Wait until cancelled; note the reason."""
    try:
        sleep(100)
    except Cancelled as error:
        reasons.append(error.reason)
        raise


# --- Ending well ------------------------------------------------------------------------


def test_block_ends_when_the_last_task_has_ended() -> None:
    started = get_hub().time
    with TaskGroup() as group:
        tasks = [group.spawn(lambda n=n: sleep(n) or n) for n in (3, 1, 2)]
        assert not any(task.done for task in tasks)
    assert [task.get() for task in tasks] == [3, 1, 2]
    assert elapsed_since(started) == 3


@pytest.mark.optimisation("a block that has nothing to wait for does not give way")
def test_group_without_tasks_ends_at_once() -> None:
    begun: list[int] = []
    spawn(begun.append, 1)
    with TaskGroup():
        pass
    assert begun == []


def test_tasks_spawn_into_their_group() -> None:
    seen: list[int] = []

    def count(n: int) -> None:
        sleep(1)
        seen.append(n)
        if n > 0:
            group.spawn(count, n - 1)

    with TaskGroup() as group:
        group.spawn(count, 5)
    assert seen == [5, 4, 3, 2, 1, 0]


def test_spawn_passes_arguments_names_and_context() -> None:
    def work(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs, current().name  # type: ignore[union-attr]

    with TaskGroup() as group:
        task = group.spawn(work, 1, function=2)
    assert task.get()[:2] == ((1,), {"function": 2})
    assert "work" in task.get()[2]


def test_results_may_be_awaited_within_the_block() -> None:
    with TaskGroup() as group:
        assert group.spawn(lambda: 5).get() == 5


def test_groups_nest() -> None:
    order: list[str] = []

    def inner() -> None:
        with TaskGroup() as group:
            group.spawn(lambda: sleep(2) or order.append("inner task"))
        order.append("inner")

    with TaskGroup() as group:
        group.spawn(inner)
        with TaskGroup() as second:
            second.spawn(lambda: sleep(1) or order.append("second task"))
            group.spawn(lambda: sleep(3) or order.append("outer task"))
        order.append("second")
    assert order == ["second task", "second", "inner task", "inner", "outer task"]


def test_a_task_of_an_inner_group_spawns_into_the_outer_one() -> None:
    done: list[str] = []

    def innermost() -> None:
        outer.spawn(lambda: sleep(5) or done.append("late"))

    def work() -> None:
        with TaskGroup() as group:
            group.spawn(innermost)
        done.append("work")

    with TaskGroup() as outer:
        outer.spawn(work)
    assert done == ["work", "late"]


def test_return_out_of_the_block_waits_as_well() -> None:
    def work() -> int:
        with TaskGroup() as group:
            group.spawn(sleep, 2)
            return 7
        return 8

    started = get_hub().time
    assert work() == 7
    assert elapsed_since(started) == 2


# --- Failing ----------------------------------------------------------------------------


def test_first_failure_cancels_the_others_and_comes_out(reports: list[Any]) -> None:
    started, reasons, error = get_hub().time, [], LookupError("x")
    with pytest.raises(ExceptionGroup) as caught, TaskGroup() as group:
        group.spawn(caught_reason, reasons)
        failed = group.spawn(fail, error, 1)
        never = group.spawn(sleep, 100)
    assert caught.value.exceptions == (error,)
    assert elapsed_since(started) == 1
    assert reasons == [failed]
    assert never.cancel_reason is failed
    with pytest.raises(Cancelled):
        never.get()
    with pytest.raises(LookupError):
        failed.get()
    assert reports == []


def test_failure_cancels_the_block_where_it_waits() -> None:
    with pytest.raises(ExceptionGroup) as caught, TaskGroup() as group:
        group.spawn(fail, LookupError("x"))
        with pytest.raises(Cancelled) as cancelled:
            sleep(100)
        raise cancelled.value
    assert isinstance(caught.value.exceptions[0], LookupError)
    assert caught.value.__suppress_context__


def test_block_that_swallows_its_cancel_still_fails() -> None:
    with pytest.raises(ExceptionGroup) as caught, TaskGroup() as group:
        group.spawn(fail, LookupError("x"))
        with pytest.raises(Cancelled):
            sleep(100)
    assert len(caught.value.exceptions) == 1


def test_block_that_fails_cancels_its_tasks() -> None:
    started, reasons, error = get_hub().time, [], LookupError("body")
    with pytest.raises(ExceptionGroup) as caught, TaskGroup() as group:
        group.spawn(caught_reason, reasons)
        sleep(1)
        raise error
    assert caught.value.exceptions == (error,)
    assert reasons == [current()]
    assert elapsed_since(started) == 1


def test_all_failures_come_out_in_their_order() -> None:
    def fail_late(number: int) -> None:
        try:
            sleep(100)
        except Cancelled:
            raise LookupError(number) from None

    with pytest.raises(ExceptionGroup, match="4 failed") as caught, TaskGroup() as group:
        for number in range(3):
            group.spawn(fail_late, number)
        sleep(0)
        raise LookupError("body")
    assert [error.args[0] for error in caught.value.exceptions] == ["body", 0, 1, 2]


def test_groups_of_failures_nest() -> None:
    def inner() -> None:
        with TaskGroup() as group:
            group.spawn(fail, KeyError("k"))

    with pytest.raises(ExceptionGroup) as caught, TaskGroup() as group:
        group.spawn(inner)
    (within,) = caught.value.exceptions
    assert isinstance(within, ExceptionGroup)
    assert isinstance(within.exceptions[0], KeyError)


def test_exceptions_that_are_no_exception_make_a_base_group() -> None:
    class Odd(BaseException):
        pass

    with pytest.raises(BaseExceptionGroup) as caught, TaskGroup() as group:
        group.spawn(fail, Odd())
    assert not isinstance(caught.value, ExceptionGroup)


def test_failure_is_told_to_joiners_too() -> None:
    outcomes: list[Any] = []

    def watch(task: Any) -> None:
        try:
            task.get()
        except LookupError as error:
            outcomes.append(error)

    error = LookupError("x")
    with pytest.raises(ExceptionGroup), TaskGroup() as group:
        spawn(watch, group.spawn(fail, error, 1))
        sleep(0)
    sleep(0)
    assert outcomes == [error]


def test_many_failures_take_linear_time() -> None:
    def work(number: int) -> None:
        try:
            sleep(100)
        finally:
            raise LookupError(number)

    with pytest.raises(ExceptionGroup) as caught, TaskGroup() as group:
        for number in range(5000):
            group.spawn(work, number)
        sleep(1)
        raise KeyError
    assert len(caught.value.exceptions) == 5001


# --- Cancelling -------------------------------------------------------------------------


def test_cancelled_task_just_ends() -> None:
    with TaskGroup() as group:
        gone, done = group.spawn(sleep, 100), group.spawn(sleep, 1)
        sleep(0)
        gone.cancel()
    assert gone.done
    assert done.get() is None


@pytest.mark.parametrize("by_task", [False, True])
def test_cancel_of_the_group_ends_its_block_quietly(by_task: bool) -> None:
    started, reasons = get_hub().time, []
    with TaskGroup() as group:
        group.spawn(caught_reason, reasons)
        if by_task:
            group.spawn(group.cancel, "enough")
        else:
            sleep(0)
            group.cancel("enough")
            group.cancel("more")
        with pytest.raises(Cancelled) as caught:
            sleep(100)
        assert caught.value.reason == "enough"
        group.cancel("once more")
        late = group.spawn(sleep)
        sleep(100)
    assert reasons == ["enough"]
    assert late.cancel_reason == "enough"
    assert elapsed_since(started) == 0


def test_task_spawned_into_a_cancelled_group_never_begins() -> None:
    begun: list[int] = []
    with TaskGroup() as group:
        group.cancel("no more")
        task = group.spawn(begun.append, 1)
        task.name = "late"
    assert begun == []
    assert task.cancel_reason == "no more"


@pytest.mark.parametrize("waits_in_body", [False, True])
def test_cancel_of_the_parent_cancels_the_tasks_and_waits_for_them(waits_in_body: bool) -> None:
    reasons: list[Any] = []
    steps: list[str] = []

    def clean_up_slowly() -> None:
        try:
            caught_reason(reasons)
        finally:
            with shield():
                sleep(5)
            steps.append("clean")

    def work() -> None:
        with TaskGroup() as group:
            group.spawn(clean_up_slowly)
            if waits_in_body:
                sleep(100)
        steps.append("never")

    started = get_hub().time
    parent = spawn(work)
    sleep(1)
    parent.cancel("parent")
    with pytest.raises(Cancelled, match="parent"):
        parent.get()
    assert elapsed_since(started) == 6
    assert steps == ["clean"]
    assert reasons == ["parent"]


def test_timeout_around_a_group_cancels_its_tasks() -> None:
    started = get_hub().time
    with pytest.raises(TimeoutError) as caught, timeout(2) as scope, TaskGroup() as group:
        task = group.spawn(sleep, 100)
    assert caught.value.scope is scope
    assert task.done
    assert elapsed_since(started) == 2
    with move_on_after(2) as scope, TaskGroup() as group:
        task = group.spawn(sleep, 100)
        sleep(50)
    assert scope.expired
    assert task.done


def test_timeout_within_a_group_is_the_blocks_own() -> None:
    with pytest.raises(ExceptionGroup) as caught, TaskGroup() as group:
        task = group.spawn(sleep, 100)
        with timeout(1) as scope:
            sleep(10)
    assert caught.value.exceptions[0].scope is scope  # type: ignore[attr-defined]
    assert task.done


def test_shield_around_a_group_protects_its_tasks() -> None:
    def work() -> list[Any]:
        with shield():
            with TaskGroup() as group:
                task = group.spawn(lambda: sleep(5) or "done")
            return [task.get()]

    parent = spawn(work)
    sleep(1)
    parent.cancel()
    assert parent.get() == ["done"]


def test_failure_on_the_way_out_of_a_cancel_is_not_lost() -> None:
    def clean_up() -> None:
        try:
            sleep(100)
        finally:
            raise LookupError("in finally")

    def work() -> None:
        with TaskGroup() as group:
            group.spawn(clean_up)

    parent = spawn(work)
    sleep(1)
    parent.cancel()
    with pytest.raises(ExceptionGroup) as caught:
        parent.get()
    assert isinstance(caught.value.exceptions[0], LookupError)
    with pytest.raises(ExceptionGroup), timeout(1), TaskGroup() as group:
        group.spawn(clean_up)


def test_cancel_while_the_others_clean_up_is_told_afterwards() -> None:
    def clean_up() -> None:
        try:
            sleep(100)
        finally:
            with shield():
                sleep(10)

    def work() -> str:
        with pytest.raises(ExceptionGroup), TaskGroup() as group:
            group.spawn(clean_up)
            sleep(1)
            raise LookupError
        with pytest.raises(Cancelled):
            sleep(0)
        return "told"

    parent = spawn(work)
    sleep(2)
    parent.cancel()
    assert parent.get() == "told"


def test_scope_that_was_not_left_in_the_block_is_told_after_all_have_ended() -> None:
    with pytest.raises(ExceptionGroup) as caught, TaskGroup() as group:
        task = group.spawn(sleep, 5)
        timeout(50).__enter__()
    assert "innermost" in str(caught.value.exceptions[0])
    assert task.done
    with pytest.raises(RuntimeError):
        sleep(0)
        timeout(1).__exit__(None, None, None)
