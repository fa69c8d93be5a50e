"""Task.cancel() and move_on_after(): reasons, whom they reach, and tasks that do not listen."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from pycoronet import (
    Cancelled,
    Event,
    Lock,
    TaskGroup,
    current,
    get_hub,
    move_on_after,
    shield,
    sleep,
    spawn,
    timeout,
)

pytestmark = pytest.mark.usefixtures("virtual_hub")

LIMIT = 1000  # so many Cancelled in a row are too many


def elapsed_since(started: float) -> float:
    return round(get_hub().time - started, 6)


def swallow(count: int) -> int:
    """Wait so many times, whatever comes; return how often it was Cancelled."""
    caught = 0
    for _ in range(count):
        try:
            sleep(1)
        except Cancelled:
            caught += 1
    return caught


# --- Reasons ----------------------------------------------------------------------------


def test_reason_is_on_the_task_and_on_the_exception() -> None:
    task = spawn(sleep, 100)
    assert task.cancel_reason is None
    sleep(0)
    task.cancel(reason := object())
    task.cancel()  # says nothing new
    assert task.cancel_reason is reason
    with pytest.raises(Cancelled) as caught:
        task.get()
    assert caught.value.reason is reason
    assert caught.value.scope is None
    assert task.cancel_reason is reason


def test_reason_of_a_task_that_never_begins() -> None:
    task = spawn(sleep)
    task.cancel("early")
    with pytest.raises(Cancelled, match="early"):
        task.get()


def test_reason_of_a_scope() -> None:
    with move_on_after(5) as scope:
        spawn(scope.cancel, "why")
        with pytest.raises(Cancelled) as caught:
            sleep(50)
        assert (caught.value.reason, caught.value.scope) == ("why", scope)
    with scope, pytest.raises(Cancelled) as caught:  # entered anew, it has none
        sleep(50)
    assert caught.value.reason is None


def test_reason_that_refers_to_its_scope_is_freed() -> None:
    class Witness:
        pass

    witness = Witness()
    with timeout(5) as scope:
        scope.cancel((scope, witness))
    reference = weakref.ref(witness)
    del witness, scope
    gc.collect()
    assert reference() is None


# --- move_on_after() --------------------------------------------------------------------


def test_move_on_after_ends_its_block_without_an_error() -> None:
    started = get_hub().time
    with move_on_after(2) as scope:
        sleep(100)
        pytest.fail("not reached")
    assert scope.expired
    assert elapsed_since(started) == 2
    sleep(5)


def test_move_on_after_leaves_a_block_that_is_done_alone() -> None:
    for seconds in (2, None, float("inf")):
        with move_on_after(seconds) as scope:
            sleep(1)
        assert not scope.expired
    sleep(5)
    assert not scope.expired


def test_move_on_after_0_ends_at_the_first_wait() -> None:
    started = get_hub().time
    with move_on_after(0):
        sleep(1)
    assert elapsed_since(started) == 0


def test_move_on_after_takes_only_what_is_its_own() -> None:
    for error in (LookupError, TimeoutError, Cancelled):
        with pytest.raises(error), move_on_after(1) as scope:
            with pytest.raises(Cancelled):
                sleep(5)
            raise error
        assert scope.expired
    with pytest.raises(TimeoutError) as caught, timeout(1) as outer, move_on_after(5):
        sleep(10)
    assert caught.value.scope is outer
    with move_on_after(1) as outer, pytest.raises(TimeoutError) as caught, timeout(0.5) as inner:
        sleep(10)
    assert caught.value.scope is inner
    assert not outer.expired


def test_move_on_after_passes_a_cancel_of_the_task_on() -> None:
    def work() -> None:
        with move_on_after(50):
            sleep(100)

    task = spawn(work)
    sleep(1)
    task.cancel()
    with pytest.raises(Cancelled):
        task.get()


@pytest.mark.parametrize("value", [-1, float("nan"), "1", b"", object()])
def test_move_on_after_refuses_what_is_no_time(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="timeout"):
        move_on_after(value)


# --- Bounded clean-up -------------------------------------------------------------------


def test_finally_block_has_so_many_seconds() -> None:
    steps: list[Any] = []

    def work() -> None:
        try:
            sleep(100)
        finally:
            with shield(5):
                sleep(3)
                steps.append("fast part")
                sleep(100)
                steps.append("never")

    task = spawn(work)
    sleep(1)
    started = get_hub().time
    task.cancel()
    with pytest.raises(Cancelled):
        task.get()
    assert steps == ["fast part"]
    assert elapsed_since(started) == 5


def test_clean_up_that_times_out_by_itself_goes_on() -> None:
    steps: list[str] = []

    def work() -> None:
        try:
            sleep(100)
        finally:
            with shield(5):
                with move_on_after(1):
                    Event().wait()
                steps.append("given up")
                sleep(1)
                steps.append("done")

    task = spawn(work)
    sleep(1)
    task.cancel()
    task.join()
    assert steps == ["given up", "done"]


# --- Bad input --------------------------------------------------------------------------


def test_cancelling_a_task_that_has_ended_does_nothing() -> None:
    done, failed = spawn(lambda: 5), spawn(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        failed.get()
    for task in (done, failed):
        task.join()
        task.cancel("late")
        assert task.cancel_reason is None
    assert done.get() == 5
    with pytest.raises(ZeroDivisionError):
        failed.get()


def test_cancelling_oneself_is_told_by_the_next_wait() -> None:
    steps: list[str] = []

    def work() -> None:
        current().cancel("myself")  # type: ignore[union-attr]
        steps.append("goes on")
        sleep(0)
        steps.append("never")

    with pytest.raises(Cancelled, match="myself"):
        spawn(work).get()
    assert steps == ["goes on"]


def test_task_that_cancels_itself_and_waits_no_more_ends_well() -> None:
    assert spawn(lambda: current().cancel() or 5).get() == 5  # type: ignore[union-attr]


def test_joining_oneself_is_refused() -> None:
    def work() -> None:
        task = current()
        assert task is not None
        for call in (task.join, task.get):
            with pytest.raises(RuntimeError, match="itself"):
                call()

    spawn(work).get()
    with pytest.raises(RuntimeError, match="main program"):
        current().join()  # type: ignore[union-attr]


@pytest.fixture
def deep_recursion() -> Iterator[None]:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(5000)
    yield
    sys.setrecursionlimit(limit)


@pytest.mark.usefixtures("deep_recursion")
@pytest.mark.parametrize("make", [timeout, move_on_after, shield])
def test_recursion_of_scopes_a_thousand_deep(make: Any) -> None:
    def descend(depth: int, seconds: float) -> int:
        if depth == 0:
            sleep(50)
            return 0
        with make(seconds):
            return 1 + descend(depth - 1, seconds)

    started = get_hub().time
    assert spawn(descend, 1000, 60).get() == 1000
    task = spawn(descend, 1000, None)
    sleep(0)
    task.cancel()
    task.join()
    assert elapsed_since(started) == (100 if make is shield else 50)


@pytest.mark.usefixtures("deep_recursion")
def test_thousand_deadlines_at_once_end_their_blocks_one_by_one() -> None:
    ended: list[Any] = []

    def descend(depth: int) -> None:
        with move_on_after(1) as scope:
            if depth > 1:
                descend(depth - 1)
            sleep(5)
        ended.append(scope)

    started = get_hub().time
    spawn(descend, 1000).get()
    assert len(ended) == 1000
    assert all(scope.expired for scope in ended)
    assert elapsed_since(started) == 1


def test_outermost_of_a_thousand_scopes_ends_all() -> None:
    started = get_hub().time
    with pytest.raises(TimeoutError) as caught, timeout(1) as outermost:
        scopes = [timeout(50) for _ in range(1000)]
        for scope in scopes:
            scope.__enter__()
        try:
            sleep(100)
        except Cancelled as error:
            for scope in reversed(scopes):
                assert scope.__exit__(Cancelled, error, None) is False
            raise
    assert caught.value.scope is outermost
    assert elapsed_since(started) == 1


def test_a_hundred_thousand_scopes_of_a_task_that_ends() -> None:
    def work() -> None:
        for _ in range(100_000):
            timeout(50).__enter__()

    spawn(work).get()


# --- Tasks that do not listen -----------------------------------------------------------


def test_task_that_swallows_cancellation_is_reported_once(reports: list[Any]) -> None:
    task = spawn(swallow, 3 * LIMIT)
    task.name = "deaf"
    sleep(0)
    task.cancel()
    assert task.get() == 3 * LIMIT
    assert len(reports) == 1
    assert "'deaf'" in str(reports[0])
    assert f"{LIMIT} times" in str(reports[0])


def test_task_that_stops_just_in_time_is_not_reported(reports: list[Any]) -> None:
    task = spawn(swallow, LIMIT)  # the first one wakes it, and was no refusal
    sleep(0)
    task.cancel()
    assert task.get() == LIMIT
    assert reports == []


def test_waits_that_end_well_in_between_do_not_count(reports: list[Any]) -> None:
    def work() -> None:
        for _ in range(3):
            swallow(LIMIT - 1)
            with shield():
                sleep(1)

    task = spawn(work)
    sleep(0)
    task.cancel()
    task.get()
    assert reports == []


def test_task_that_swallows_an_expired_scope_is_reported(reports: list[Any]) -> None:
    with timeout(1):
        swallow(2 * LIMIT)
    assert len(reports) == 1


@pytest.mark.leaves_something("a task that never ends, and its hub")
def test_others_and_time_go_on_beside_a_task_that_never_listens(reports: list[Any]) -> None:
    task = spawn(swallow, 100_000)
    sleep(0)
    task.cancel()
    started = get_hub().time
    sleep(60)  # virtual time passes only when nobody is ready
    assert elapsed_since(started) == 60
    with pytest.raises(TimeoutError):
        task.join(10)
    assert len(reports) == 1
    get_hub().close()  # it gives up on such a task
    assert not task.done


def test_report_of_a_task_that_does_not_listen_may_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caught: list[BaseException] = []

    def hook(report: Any) -> None:
        try:
            sleep(1)
        except Cancelled as error:
            caught.append(error)
        raise LookupError("of the hook")

    monkeypatch.setattr("sys.unraisablehook", hook)
    task = spawn(swallow, 2 * LIMIT)
    sleep(0)
    task.cancel()
    assert task.get() == 2 * LIMIT
    assert len(caught) == 1


def test_lock_passes_a_task_that_does_not_listen_by(reports: list[Any]) -> None:
    lock = Lock()
    lock.acquire()

    def work() -> int:
        caught = 0
        for _ in range(2 * LIMIT):
            try:
                lock.acquire()
            except Cancelled:
                caught += 1
        return caught

    task = spawn(work)
    sleep(0)
    task.cancel()
    sleep(1.005)  # it is in the middle of a pause
    lock.release()
    assert lock.acquire(False)
    assert task.get() == 2 * LIMIT
    assert len(reports) == 1


def test_group_waits_for_a_task_that_listens_late(reports: list[Any]) -> None:
    with TaskGroup() as group:
        task = group.spawn(swallow, 2 * LIMIT)
        sleep(0)
        group.cancel()
    assert task.done
    assert len(reports) == 1
