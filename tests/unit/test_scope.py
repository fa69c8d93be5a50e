"""timeout() and shield(): nesting, whose deadline it was, leaving in the wrong order."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import greenlet
import pytest

import pycoronet
from pycoronet import Cancelled, current, get_hub, shield, sleep, spawn, timeout

pytestmark = pytest.mark.usefixtures("virtual_hub")


def elapsed_since(started: float) -> float:
    return round(get_hub().time - started, 6)


# --- timeout() --------------------------------------------------------------------------


def test_timeout_bounds_a_whole_block_of_waits() -> None:
    started = get_hub().time
    with pytest.raises(TimeoutError) as caught, timeout(1) as scope:
        for _ in range(100):
            sleep(0.3)
    assert caught.value.scope is scope
    assert scope.expired
    assert elapsed_since(started) == 1
    sleep(5)  # the scope is over


def test_block_that_is_done_in_time_is_left_alone() -> None:
    with timeout(1) as scope:
        sleep(0.9)
    assert not scope.expired
    sleep(5)
    assert not scope.expired


def test_none_and_infinity_set_no_bound() -> None:
    for seconds in (None, float("inf")):
        with timeout(seconds):
            sleep(3600)


def test_timeout_0_ends_the_first_real_wait() -> None:
    started = get_hub().time
    with pytest.raises(TimeoutError), timeout(0):
        sleep(1)
    assert elapsed_since(started) == 0
    with timeout(0):
        pass


@pytest.mark.optimisation("the clock is not looked at between two hand-offs")
def test_timeout_0_lets_a_task_that_is_ready_run_first() -> None:
    with timeout(0):
        assert spawn(lambda: 5).get() == 5


def test_timeout_0_ends_a_loop_that_only_yields() -> None:
    with pytest.raises(TimeoutError), timeout(0):
        while True:
            sleep(0)


def test_inner_deadline_first() -> None:
    started = get_hub().time
    with timeout(5) as outer:
        with pytest.raises(TimeoutError) as caught, timeout(1) as inner:
            sleep(10)
        assert caught.value.scope is inner
        assert elapsed_since(started) == 1
        sleep(1)
    assert inner.expired
    assert not outer.expired


def test_outer_deadline_first() -> None:
    started = get_hub().time
    with pytest.raises(TimeoutError) as caught, timeout(1) as outer, timeout(5) as inner:
        sleep(10)
    assert caught.value.scope is outer
    assert not inner.expired
    assert elapsed_since(started) == 1


def test_both_deadlines_at_once() -> None:
    with pytest.raises(TimeoutError) as caught, timeout(1) as outer:
        with pytest.raises(TimeoutError) as inner_caught, timeout(1) as inner:
            sleep(10)
        assert inner_caught.value.scope is inner
        sleep(10)
    assert caught.value.scope is outer


def test_expired_scope_raises_at_each_wait_until_it_is_left() -> None:
    count = 0
    with pytest.raises(TimeoutError), timeout(1):
        while True:
            try:
                sleep(1)
            except Cancelled as error:
                count += 1
                if count == 3:
                    raise
                assert error.scope.expired
    assert count == 3


def test_swallowed_expiry_ends_the_block_quietly() -> None:
    with timeout(1) as scope, pytest.raises(Cancelled):
        sleep(2)
    assert scope.expired
    sleep(1)


def test_timeout_error_of_the_block_itself_is_not_the_scopes() -> None:
    own = TimeoutError("own")
    with pytest.raises(TimeoutError) as caught, timeout(1):
        raise own
    assert caught.value is own
    with pytest.raises(TimeoutError, match="join") as caught, timeout(10):
        spawn(sleep, 100).join(1)
    assert not hasattr(caught.value, "scope")


def test_other_errors_after_the_deadline_pass_unchanged() -> None:
    with pytest.raises(LookupError), timeout(1):
        try:
            sleep(5)
        except Cancelled:
            raise LookupError from None


def test_cancelled_of_somebody_else_passes_an_expired_scope() -> None:
    other = spawn(sleep, 100)
    sleep(0)
    other.cancel()
    with pytest.raises(Cancelled) as caught, timeout(1) as scope, shield():
        sleep(2)
        assert scope.expired
        other.get()
    assert caught.value.scope is None


def test_cancel_of_the_task_passes_a_timeout() -> None:
    def work() -> None:
        with timeout(100):
            sleep(1000)

    task = spawn(work)
    sleep(1)
    task.cancel()
    with pytest.raises(Cancelled):
        task.get()


def test_scope_may_be_used_again_but_not_twice_at_once() -> None:
    scope = timeout(1)
    for _ in range(2):
        with pytest.raises(TimeoutError), scope:
            sleep(2)
    with scope:
        assert not scope.expired
        with pytest.raises(RuntimeError, match="already"):
            scope.__enter__()


def test_timeouts_of_many_tasks_are_apart() -> None:
    def work(limit: float) -> float:
        started = get_hub().time
        with pytest.raises(TimeoutError), timeout(limit):
            sleep(1000)
        return elapsed_since(started)

    tasks = [spawn(work, number / 10) for number in range(1, 200)]
    for number, task in enumerate(tasks, start=1):
        assert 0 <= task.get() - number / 10 <= 0.001


# --- shield() ---------------------------------------------------------------------------


def test_shield_holds_a_cancel_back_for_its_block() -> None:
    steps: list[str] = []

    def work() -> None:
        try:
            sleep(100)
        finally:
            with shield():
                sleep(50)
                steps.append("cleaned")
            try:
                sleep(1)
            except Cancelled:
                steps.append("again")

    task = spawn(work)
    sleep(1)
    task.cancel()
    with pytest.raises(Cancelled):
        task.get()
    assert steps == ["cleaned", "again"]


def test_shield_ends_after_its_time() -> None:
    def work() -> float:
        started = get_hub().time
        with pytest.raises(Cancelled), shield(2):
            current().cancel()
            sleep(100)
        return elapsed_since(started)

    assert spawn(work).get() == 2


def test_shield_does_not_hold_its_own_timeouts_back() -> None:
    with shield(), pytest.raises(TimeoutError), timeout(1):
        sleep(100)


def test_shield_holds_an_outer_timeout_back() -> None:
    started = get_hub().time
    with pytest.raises(TimeoutError), timeout(1):
        with shield():
            sleep(3)
        sleep(0)
    assert elapsed_since(started) == 3


def test_shield_inside_an_expired_shield_still_holds() -> None:
    def work() -> None:
        current().cancel()
        with shield(1):
            with shield():
                sleep(5)
            with pytest.raises(Cancelled):
                sleep(1)

    spawn(work).get()


def test_shield_without_a_cancel_changes_nothing() -> None:
    with shield(1) as scope:
        sleep(5)
    assert scope.expired


# --- In the wrong order, in the wrong place ---------------------------------------------


def test_leaving_in_the_wrong_order_is_refused_and_forgotten() -> None:
    outer, inner = timeout(1), timeout(2)
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(RuntimeError, match="innermost"):
        outer.__exit__(None, None, None)
    inner.__exit__(None, None, None)
    sleep(10)  # neither deadline strikes any more
    assert not outer.expired


def test_leaving_what_was_not_entered_is_refused() -> None:
    for scope in (timeout(1), shield()):
        with pytest.raises(RuntimeError):
            scope.__exit__(None, None, None)
        with scope:
            pass
        with pytest.raises(RuntimeError):
            scope.__exit__(None, None, None)
        with pytest.raises(TypeError):
            scope.__exit__(None)


def test_leaving_in_another_task_is_refused_and_forgotten() -> None:
    scope = timeout(1)

    def leave() -> None:
        with pytest.raises(RuntimeError, match="the task that entered"):
            scope.__exit__(None, None, None)

    scope.__enter__()
    spawn(leave).get()
    sleep(10)


def test_leaving_in_another_thread_is_refused() -> None:
    errors: list[Exception] = []

    def leave() -> None:
        try:
            scope.__exit__(None, None, None)
        except RuntimeError as error:
            errors.append(error)

    with timeout(1) as scope:
        thread = threading.Thread(target=leave)
        thread.start()
        thread.join()
    assert "another thread" in str(errors[0])


def test_task_that_ends_leaves_its_scopes() -> None:
    scopes = [timeout(5), shield(7)]

    def work() -> None:
        for scope in scopes:
            scope.__enter__()

    spawn(work).get()
    with pytest.raises(pycoronet.DeadlockError):  # no timer of theirs is left
        sleep(None)
    assert not scopes[0].expired
    with scopes[0]:
        pass


def test_scopes_and_their_tasks_are_freed() -> None:
    task = spawn(lambda: timeout(5).__enter__())
    task.join()
    reference = weakref.ref(task)
    del task
    gc.collect()
    assert reference() is None


def test_scope_cannot_be_entered_in_a_callback() -> None:
    errors: list[Exception] = []

    def callback() -> None:
        try:
            timeout(1).__enter__()
        except RuntimeError as error:
            errors.append(error)

    get_hub().call_soon_threadsafe(callback)
    sleep(1)
    assert "callback" in str(errors[0])


def test_closing_the_hub_inside_an_expired_scope() -> None:
    ended: list[bool] = []

    def work() -> None:
        try:
            sleep(100)
        finally:
            ended.append(True)

    spawn(work)
    with timeout(1):
        with pytest.raises(Cancelled):
            sleep(2)
        get_hub().close()
    assert ended == [True]


# --- cancel() ---------------------------------------------------------------------------


def test_cancel_ends_the_block_with_a_timeout_error() -> None:
    started = get_hub().time
    with pytest.raises(TimeoutError, match=r"ended by cancel\(\)") as caught, timeout(50) as scope:
        spawn(scope.cancel)
        for _ in range(3):
            with pytest.raises(Cancelled):
                sleep(100)
        sleep(100)
    assert caught.value.scope is scope
    assert scope.expired
    assert elapsed_since(started) == 0
    sleep(100)  # neither the scope nor its deadline is left


def test_cancel_reaches_a_block_without_a_deadline() -> None:
    with pytest.raises(TimeoutError), timeout(None) as scope:
        get_hub().call_later(5, scope.cancel)
        sleep(100)


def test_cancel_by_the_block_itself_is_told_by_its_next_wait() -> None:
    with timeout(50) as scope:
        scope.cancel()
        scope.cancel()
    assert scope.expired
    with pytest.raises(TimeoutError), timeout(50) as scope:
        scope.cancel()
        sleep(0)


def test_a_wait_that_has_completed_is_not_cancelled() -> None:
    def work() -> str:
        with timeout(None) as scope:
            scopes.append(scope)
            sleep(1)
            return "done"

    scopes: list[Any] = []
    task = spawn(work)
    sleep(0)

    def cancel_behind_it() -> None:
        sleep(1)  # the sleep of the task is over, too, and it is to run next
        scopes[0].cancel()

    spawn(cancel_behind_it)
    assert task.get() == "done"


def test_cancel_of_an_outer_scope_passes_through_the_inner_one() -> None:
    with pytest.raises(TimeoutError) as caught, timeout(50) as outer:
        spawn(outer.cancel)
        with timeout(50) as inner:
            sleep(100)
    assert caught.value.scope is outer
    assert not inner.expired


def test_cancel_of_the_inner_scope_leaves_the_outer_one() -> None:
    with timeout(50) as outer:
        with pytest.raises(TimeoutError) as caught, timeout(None) as inner:
            spawn(inner.cancel)
            sleep(100)
        assert caught.value.scope is inner
        sleep(1)
    assert not outer.expired


def test_cancel_waits_for_a_shield_and_ends_one() -> None:
    started = get_hub().time
    with pytest.raises(TimeoutError), timeout(None) as scope:
        spawn(scope.cancel)
        with shield():
            sleep(5)
        assert elapsed_since(started) == 5
        sleep(100)
    assert elapsed_since(started) == 5

    def work() -> None:
        with shield() as protection:
            spawn(protection.cancel)
            with pytest.raises(Cancelled):
                sleep(100)
            raise Cancelled

    task = spawn(work)
    task.cancel()
    sleep(0)
    task.join(1)
    assert task.done


def test_cancel_outside_of_the_block_has_no_effect() -> None:
    scope = timeout(1)
    scope.cancel()
    assert not scope.expired
    with scope:
        sleep(0.5)
    scope.cancel()
    assert not scope.expired
    with pytest.raises(TimeoutError, match="not done in 1"), scope:
        scope2 = scope
        sleep(5)
    with pytest.raises(TimeoutError, match="cancel"), scope:
        scope2.cancel()
        sleep(0.1)
    with pytest.raises(TimeoutError, match="not done"), scope:  # nothing is left of it
        sleep(5)


def test_cancel_after_the_deadline_says_what_was_first() -> None:
    with pytest.raises(TimeoutError, match="not done in 1"), timeout(1) as scope:
        with pytest.raises(Cancelled):
            sleep(5)
        scope.cancel()
        sleep(5)


def test_cancel_from_another_thread_is_refused() -> None:
    errors: list[BaseException] = []

    def cancel() -> None:
        try:
            scope.cancel()
        except RuntimeError as error:
            errors.append(error)

    with timeout(50) as scope:
        thread = threading.Thread(target=cancel)
        thread.start()
        thread.join()
        sleep(1)
    assert "another thread" in str(errors[0])


def test_cancel_of_a_task_that_has_ended_inside_has_no_effect() -> None:
    scopes: list[Any] = []

    def work() -> None:
        scopes.append(timeout(50))
        scopes[0].__enter__()

    spawn(work).join()
    scopes[0].cancel()
    assert not scopes[0].expired


# --- Greenlets of the user's own --------------------------------------------------------


def test_timeout_reaches_a_nested_greenlet() -> None:
    def work() -> Any:
        with pytest.raises(TimeoutError), timeout(1):
            greenlet.greenlet(lambda: sleep(100)).switch()
        return "done"

    assert spawn(work).get() == "done"


def test_cancel_reaches_each_greenlet_of_the_task() -> None:
    cancelled: list[int] = []

    def wait(number: int) -> None:
        try:
            sleep(100)
        except Cancelled:
            cancelled.append(number)

    def work() -> None:
        # Each parks; the wait of the last one comes back here only when it is over.
        children = [greenlet.greenlet(wait) for _ in range(3)]
        for number, child in enumerate(children):
            child.switch(number)

    task = spawn(work)
    sleep(1)
    task.cancel()
    task.join()
    assert cancelled == [0, 1, 2]
