"""Tasks: spawn, join, get, cancel, sleep, current; what they refuse and what they report."""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import greenlet
import pytest

import pycoronet
from pycoronet import Cancelled, current, get_hub, shield, sleep, spawn, timeout

BAD_TIMEOUTS = [
    ("1", TypeError),
    (b"1", TypeError),
    ([], TypeError),
    (1j, TypeError),
    (object(), TypeError),
    (-1, ValueError),
    (-1e-9, ValueError),
    (float("-inf"), ValueError),
    (float("nan"), ValueError),
    (-(10**400), ValueError),
]
HUGE_TIMEOUTS = [float("inf"), 1e300, 10**400, 1e18, 2.0**63, 366 * 24 * 3600]


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect what is reported through sys.unraisablehook."""
    reports: list[Any] = []
    monkeypatch.setattr(
        sys,
        "unraisablehook",
        lambda report: reports.append((repr(report.object), report.exc_value)),
    )
    return reports


@pytest.fixture(autouse=True)
def _virtual(virtual_hub: pycoronet.Hub) -> Iterator[None]:
    return iter([None])


def raise_it(error: BaseException) -> None:
    raise error


# --- Arguments --------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "error"), BAD_TIMEOUTS, ids=repr)
def test_bad_timeouts_are_refused_everywhere(value: Any, error: type[Exception]) -> None:
    task = spawn(sleep, 1)
    for call in (sleep, timeout, shield, task.join, task.get, get_hub().wait):
        with pytest.raises(error, match="timeout"):
            call(value)
    assert not task.done


@pytest.mark.parametrize("value", HUGE_TIMEOUTS, ids=repr)
def test_huge_timeouts_are_waited_for_without_end(value: Any) -> None:
    task = spawn(sleep, value)
    with timeout(value), shield(value):
        sleep(3600)
        spawn(sleep, 1).join(value)
    assert not task.done
    task.cancel()
    with pytest.raises(Cancelled):
        task.get(value)


@pytest.mark.parametrize(
    ("call", "arguments", "keywords"),
    [
        (spawn, (), {}),
        (spawn, (None,), {}),
        (spawn, ("print",), {}),
        (spawn, (), {"function": print}),
        (sleep, (1, 2), {}),
        (sleep, (), {"second": 1}),
        (sleep, (1,), {"seconds": 1}),
        (timeout, (), {}),
        (timeout, (1, 2), {}),
        (shield, (1, 2), {}),
        (shield, (), {"timeout": 1}),
        (current, (1,), {}),
        (get_hub, (1,), {}),
    ],
)
def test_wrong_arguments_are_refused(call: Any, arguments: Any, keywords: Any) -> None:
    with pytest.raises(TypeError):
        call(*arguments, **keywords)


def test_wrong_arguments_of_methods_are_refused() -> None:
    task = spawn(sleep, 1)
    for call in (task.join, task.get, task.cancel):
        with pytest.raises(TypeError):
            call(1, 2)
        with pytest.raises(TypeError):
            call(wrong=1)
    with pytest.raises(TypeError):
        task.name = 5
    with pytest.raises(TypeError):
        del task.name
    with pytest.raises(AttributeError):
        task.done = True
    with pytest.raises(TypeError):
        pycoronet.Task()
    assert not task.done


def test_arguments_reach_the_function_as_given() -> None:
    def function(*arguments: Any, **keywords: Any) -> Any:
        return arguments, keywords

    assert spawn(function).get() == ((), {})
    assert spawn(function, 1, 2, a=3, b=4).get() == ((1, 2), {"a": 3, "b": 4})
    assert spawn(function, function=5, self=6).get() == ((), {"function": 5, "self": 6})


def test_error_of_a_number_like_timeout_passes_through() -> None:
    class Number:
        def __float__(self) -> float:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sleep(Number())


# --- Beginning and ending ---------------------------------------------------------------


def test_spawn_does_not_switch_and_keeps_order() -> None:
    order: list[int] = []
    tasks = [spawn(order.append, number) for number in range(100)]
    assert order == []
    sleep(0)
    assert order == list(range(100))
    assert all(task.done for task in tasks)


def test_get_returns_and_reraises_again_and_again(unraisable: Any) -> None:
    error = LookupError("x")
    failed, done = spawn(raise_it, error), spawn(lambda: 5)
    for _ in range(3):
        assert done.get() == 5
        assert done.join() is None
        with pytest.raises(LookupError) as caught:
            failed.get()
        assert caught.value is error
        assert failed.join() is None


def test_any_number_may_join_and_all_wake() -> None:
    task = spawn(sleep, 5)
    joiners = [spawn(task.join) for _ in range(50)]
    task.join()
    sleep(0)
    assert all(joiner.done for joiner in joiners)


def test_joiner_that_times_out_is_forgotten() -> None:
    task = spawn(sleep, 5)
    with pytest.raises(TimeoutError):
        task.join(1)
    with pytest.raises(TimeoutError):
        task.get(0)
    with pytest.raises(TimeoutError):
        task.get(timeout=1.5)
    started = get_hub().time
    task.join(10)
    assert get_hub().time - started == pytest.approx(2.5, abs=0.01)


def test_task_cannot_join_itself_nor_main_be_joined() -> None:
    def join_self() -> None:
        with pytest.raises(RuntimeError, match="itself"):
            current().join()
        with pytest.raises(RuntimeError, match="itself"):
            greenlet.greenlet(current().get).switch()
        with pytest.raises(RuntimeError, match="main program"):
            main.join()

    main = current()
    spawn(join_self).get()
    with pytest.raises(RuntimeError, match="main program"):
        main.get()


def test_other_thread_is_refused() -> None:
    task = spawn(sleep, 1)
    errors: list[Exception] = []

    def use() -> None:
        for call in (task.join, task.get, task.cancel, hub.run, hub.wait, hub.dispatch):
            try:
                call()
            except RuntimeError as error:
                errors.append(error)
        for call in (hub.waiters, hub.close):
            try:
                call()
            except RuntimeError as error:
                errors.append(error)

    hub = get_hub()
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(errors) == 8
    assert all("another thread" in str(error) for error in errors)
    assert not task.done


def test_current_is_the_running_task() -> None:
    task = spawn(lambda: current())
    assert task.get() is task
    assert current().name == "main program"
    assert current() is current()


def test_names() -> None:
    def handler() -> None:
        pass

    task = spawn(handler)
    assert "handler" in task.name
    assert task.name in repr(task)
    task.name = "mine"
    assert repr(task) == "<Task 'mine' queued>"
    task.join()
    assert repr(task) == "<Task 'mine' done>"
    assert spawn(sleep).name != spawn(sleep).name


def test_20000_tasks_at_once() -> None:
    tasks = [spawn(sleep, number % 7) for number in range(20_000)]
    assert get_hub().task_count == 20_000
    get_hub().run()
    assert all(task.done for task in tasks)
    assert get_hub().task_count == 0


def test_each_task_spawns_the_next_50000_times() -> None:
    ran = 0

    def link(left: int) -> None:
        nonlocal ran
        ran += 1
        if left > 1:
            spawn(link, left - 1)

    spawn(link, 50_000)
    get_hub().run()
    assert ran == 50_000


def test_each_task_joins_the_next_2000_deep() -> None:
    def link(left: int) -> int:
        return 0 if left == 0 else spawn(link, left - 1).get() + 1

    assert spawn(link, 2_000).get() == 2_000


def test_idle_workers_are_bounded() -> None:
    greenlets: list[Any] = []

    def note() -> None:
        greenlets.append(weakref.ref(greenlet.getcurrent()))
        sleep(1)

    for _ in range(3_000):
        spawn(note)
    get_hub().run()
    for _ in range(200):
        sleep(0)
    gc.collect()
    assert sum(reference() is not None for reference in greenlets) <= 1_024


def test_what_a_task_held_goes_when_it_ends() -> None:
    class Held:
        pass

    held, kept = Held(), Held()
    references = [weakref.ref(held), weakref.ref(kept)]
    task = spawn(lambda first, second: None, held, second=kept)
    del held, kept
    assert all(reference() is not None for reference in references)
    task.join()
    assert all(reference() is None for reference in references)


def test_task_without_references_lives_until_it_ends() -> None:
    ended: list[bool] = []

    def work() -> None:
        sleep(1)
        gc.collect()
        sleep(1)
        ended.append(True)

    spawn(work)
    gc.collect()
    sleep(3)
    assert ended == [True]


# --- Cancelling -------------------------------------------------------------------------


def test_cancel_before_start_never_calls() -> None:
    called: list[bool] = []
    task = spawn(called.append, True)
    task.cancel("reason")
    with pytest.raises(Cancelled) as caught:
        task.get()
    assert caught.value.reason == "reason"
    assert called == []
    assert "cancelled" in repr(task)


def test_cancel_while_parked_raises_there_at_once() -> None:
    task = spawn(sleep, 1000)
    sleep(1)
    task.cancel()
    started = get_hub().time
    with pytest.raises(Cancelled):
        task.get()
    assert get_hub().time == started


@pytest.mark.parametrize("wait", ["sleep", "join", "yield", "wait_fd"])
def test_cancel_is_level_triggered(wait: str) -> None:
    other = spawn(sleep, None)
    read_end, write_end = os.pipe()
    waits = {
        "sleep": lambda: sleep(10),
        "join": other.join,
        "yield": sleep,
        "wait_fd": lambda: pycoronet.wait_readable(read_end, 100),
    }

    def work() -> int:
        count = 0
        sleep(0)
        for _ in range(5):
            try:
                waits[wait]()
            except Cancelled:
                count += 1
        return count

    task = spawn(work)
    sleep(0)
    task.cancel()
    task.cancel()
    # The sleep(0) had completed when the cancel came; all that follow are refused.
    assert task.get() == 5
    os.close(read_end)
    os.close(write_end)
    other.cancel()


def test_cancelled_task_that_never_gives_up_lets_others_run() -> None:
    stopped = False

    def refuse() -> None:
        while not stopped:
            try:
                sleep(1)
            except Cancelled:
                pass

    task = spawn(refuse)
    sleep(0)
    task.cancel()
    for _ in range(3):
        sleep(0)
    assert not task.done
    stopped = True
    task.join()


def test_cancel_of_an_ended_task_does_nothing() -> None:
    task = spawn(lambda: 5)
    task.join()
    task.cancel()
    assert task.get() == 5


def test_last_reason_wins_and_swallowing_it_ends_the_task_well() -> None:
    def work() -> Any:
        try:
            sleep(100)
        except Cancelled as error:
            return error.reason, error.scope

    task = spawn(work)
    sleep(0)
    task.cancel(1)
    task.cancel(2)
    assert task.get() == (2, None)


def test_task_that_cancels_itself_ends_at_its_next_wait() -> None:
    steps: list[int] = []

    def work() -> None:
        current().cancel()
        steps.append(1)
        sleep(0)
        steps.append(2)

    with pytest.raises(Cancelled):
        spawn(work).get()
    assert steps == [1]


def test_what_has_completed_is_not_also_cancelled() -> None:
    def work() -> str:
        sleep(1)
        return "completed"

    task = spawn(work)
    sleep(0)
    # Both in one turn: the timer first, then the cancel of the main program's timer.
    sleep(1)
    task.cancel()
    assert task.get() == "completed"


def test_what_is_ready_and_due_in_one_turn_was_ready_in_time() -> None:
    read_end, write_end = os.pipe()
    task = spawn(pycoronet.wait_readable, read_end, 1)
    sleep(0)
    os.write(write_end, b"x")
    pycoronet._coronet._advance_time(5)
    assert task.get() & pycoronet.READ
    os.close(read_end)
    os.close(write_end)


def test_wake_and_cancel_in_one_turn_the_first_wins() -> None:
    lot = pycoronet._coronet.ParkingLot()
    woken, cancelled = spawn(lot.park, "park"), spawn(lot.park, "park")
    sleep(0)
    assert lot.unpark()
    woken.cancel()
    cancelled.cancel()
    assert not lot.unpark()
    assert woken.get() is True
    with pytest.raises(Cancelled):
        cancelled.get()


def test_cancel_reaches_a_woken_task_at_its_next_wait_only() -> None:
    results: list[str] = []

    def work() -> None:
        other.join()
        results.append("joined")
        try:
            sleep(1)
        except Cancelled:
            results.append("cancelled")
            raise

    other = spawn(sleep, 1)
    task = spawn(work)
    sleep(0)

    def end_both() -> None:
        other.join()
        task.cancel()

    spawn(end_both)
    task.join()
    assert results == ["joined", "cancelled"]


def test_main_program_may_be_cancelled_and_still_close() -> None:
    cleaned: list[bool] = []

    def work() -> None:
        try:
            sleep(100)
        finally:
            cleaned.append(True)

    spawn(work)
    sleep(0)
    current().cancel()
    with pytest.raises(Cancelled):
        sleep(0)
    get_hub().close()
    assert cleaned == [True]


# --- Reports ----------------------------------------------------------------------------


def test_failure_is_reported_once_with_the_name_if_nobody_joins(unraisable: Any) -> None:
    error = LookupError("x")
    task = spawn(raise_it, error)
    task.name = "loser"
    sleep(0)
    assert unraisable == [("<Task 'loser' failed>", error)]
    with pytest.raises(LookupError):
        task.get()
    del task
    gc.collect()
    assert len(unraisable) == 1


def test_failure_is_not_reported_with_a_joiner(unraisable: Any) -> None:
    with pytest.raises(LookupError):
        spawn(raise_it, LookupError()).get()
    spawn(raise_it, LookupError()).join()
    assert unraisable == []


def test_failure_is_reported_if_the_joiner_has_left(unraisable: Any) -> None:
    def fail_late() -> None:
        sleep(2)
        raise LookupError

    task = spawn(fail_late)
    with pytest.raises(TimeoutError):
        task.join(1)
    sleep(2)
    assert len(unraisable) == 1


def test_cancel_and_greenlet_exit_are_no_failures(unraisable: Any) -> None:
    task = spawn(sleep, 10)
    sleep(0)
    task.cancel()
    exiting = spawn(raise_it, greenlet.GreenletExit())
    sleep(0)
    assert task.done
    assert "cancelled" in repr(exiting)
    assert unraisable == []


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_exceptions_that_end_programs_go_to_main(kind: type, unraisable: Any) -> None:
    error = kind(3)
    others: list[str] = []

    def other() -> None:
        sleep(2)
        others.append("lived")

    spawn(other)
    task = spawn(raise_it, error)
    with pytest.raises(kind) as caught:
        sleep(1)
    assert caught.value is error
    with pytest.raises(kind):
        task.get()
    sleep(5)
    assert others == ["lived"]
    assert unraisable == []


def test_second_exit_while_the_first_is_undelivered_is_reported(unraisable: Any) -> None:
    first, second = SystemExit(1), SystemExit(2)
    spawn(raise_it, first)
    spawn(raise_it, second)
    with pytest.raises(SystemExit) as caught:
        sleep(1)
    assert caught.value is first
    assert [error for _, error in unraisable] == [second]


def test_exit_reaches_main_that_waited_in_a_nested_greenlet(unraisable: Any) -> None:
    error = SystemExit(4)
    spawn(raise_it, error)
    with pytest.raises(SystemExit) as caught:
        greenlet.greenlet(lambda: sleep(1)).switch()
    assert caught.value is error
    assert unraisable == []
