"""Hub.call_soon, Hub.call_later and Hub.call_every, in virtual time."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

import pycoronet
from pycoronet import TimerHandle, current, get_hub, sleep, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")


def fail() -> None:
    raise ZeroDivisionError("on purpose")


def test_call_later_calls_once_and_not_early() -> None:
    hub = get_hub()
    start = hub.time
    calls: list[float] = []
    handle = hub.call_later(2.5, lambda number: calls.append(hub.time - start + number), 0)
    assert isinstance(handle, TimerHandle)
    assert handle.active
    assert handle.when == pytest.approx(start + 2.5)
    sleep(2.4)
    assert calls == []
    sleep(0.2)
    assert calls == [pytest.approx(2.5)]
    assert not handle.active
    sleep(10)
    assert len(calls) == 1


def test_timers_come_in_order_of_their_time() -> None:
    calls: list[int] = []
    for delay in (3, 1, 2, 0):
        get_hub().call_later(delay, calls.append, delay)
    get_hub().run()
    assert calls == [0, 1, 2, 3]


def test_call_every_keeps_its_rhythm() -> None:
    hub = get_hub()
    start = hub.time
    calls: list[float] = []

    def tick() -> None:
        calls.append(hub.time - start)
        if len(calls) == 2:
            # One tick is late and one left out; the next comes when it would have come.
            pycoronet._coronet._advance_time(2.5)
        if len(calls) == 4:
            handle.cancel()

    handle = hub.call_every(1, tick)
    hub.run()
    assert calls == [pytest.approx(each) for each in (1, 2, 4.5, 5)]
    assert not handle.active


def test_cancel_before_and_twice() -> None:
    calls: list[int] = []
    handle = get_hub().call_later(1, calls.append, 1)
    assert "append" in repr(handle)
    handle.cancel()
    handle.cancel()
    assert "over" in repr(handle)
    get_hub().run()
    sleep(2)
    assert calls == []


def test_cancel_of_one_that_is_due_by_another() -> None:
    calls: list[str] = []
    hub = get_hub()
    hub.call_later(1, lambda: (calls.append("first"), second.cancel()))
    second = hub.call_later(1, calls.append, "second")
    sleep(2)
    assert calls == ["first"]


def test_a_timer_that_arms_another() -> None:
    hub = get_hub()
    start = hub.time
    calls: list[float] = []

    def again() -> None:
        calls.append(hub.time - start)
        if len(calls) < 3:
            hub.call_later(1, again)

    hub.call_later(1, again)
    hub.run()
    assert calls == [pytest.approx(each) for each in (1, 2, 3)]


def test_a_timer_of_no_seconds_that_arms_itself_starves_nobody() -> None:
    hub = get_hub()
    rounds: list[int] = []

    def again() -> None:
        rounds.append(1)
        if not task.done:
            hub.call_later(0, again)

    task = spawn(lambda: [sleep(0) for _ in range(100)])
    hub.call_later(0, again)
    hub.run()
    assert task.done
    assert rounds


def test_a_timer_that_raises_is_reported(reports: list[Any]) -> None:
    hub = get_hub()
    calls: list[int] = []
    hub.call_later(1, fail)
    repeating = hub.call_every(1, lambda: (calls.append(1), fail()))
    sleep(3.5)
    repeating.cancel()
    assert len(calls) == 3
    assert [type(report) for report in reports] == [ZeroDivisionError] * 4


def test_a_timer_that_interrupts_does_so_to_the_main_program() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    get_hub().call_later(1, interrupt)
    with pytest.raises(KeyboardInterrupt):
        get_hub().run()


def test_a_timer_cannot_wait_but_spawn() -> None:
    errors: list[str] = []
    done: list[str] = []

    def timer() -> None:
        assert current() is None
        try:
            sleep(1)
        except RuntimeError as error:
            errors.append(str(error))
        spawn(lambda: (sleep(1), done.append("task")))

    get_hub().call_later(1, timer)
    get_hub().run()
    assert done == ["task"]
    assert "spawn()" in errors[0]


@pytest.mark.parametrize("seconds", [-1, -0.001, float("nan"), float("inf"), -float("inf")])
def test_wrong_delays(seconds: float) -> None:
    for call in (get_hub().call_later, get_hub().call_every):
        with pytest.raises(ValueError, match="finite number"):
            call(seconds, print)


@pytest.mark.parametrize("seconds", [-(10**400), 10**400])
def test_delays_beyond_all_floats(seconds: int) -> None:
    if seconds < 0:
        with pytest.raises(ValueError, match="negative"):
            get_hub().call_later(seconds, print)
    else:
        get_hub().call_later(seconds, print).cancel()


def test_a_huge_delay_is_a_year() -> None:
    hub = get_hub()
    calls: list[int] = []
    hub.call_later(1e300, calls.append, 1)
    sleep(300 * 86400)
    assert calls == []
    sleep(70 * 86400)
    assert calls == [1]


def test_wrong_arguments() -> None:
    hub = get_hub()
    for call in (hub.call_later, hub.call_every):
        for arguments in ((), (1,), (1, 2), ("1", print), (None, print)):
            with pytest.raises(TypeError):
                call(*arguments)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="more than 0"):
        hub.call_every(0, print)
    with pytest.raises(TypeError, match="callable"):
        hub.call_soon()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="callable"):
        hub.call_soon(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        TimerHandle()


def test_call_soon_comes_in_the_next_turn_in_order() -> None:
    hub = get_hub()
    calls: list[int] = []

    def first() -> None:
        calls.append(1)
        hub.call_soon(calls.append, 3)

    hub.call_soon(first)
    hub.call_soon(calls.append, 2)
    assert calls == []
    hub.run()
    assert calls == [1, 2, 3]


def test_run_waits_for_timers() -> None:
    hub = get_hub()
    start = hub.time
    hub.call_later(100, lambda: None)
    hub.run()
    assert hub.time - start >= 100


def test_an_armed_timer_is_no_deadlock() -> None:
    results: list[str] = []
    lot = pycoronet._coronet.ParkingLot()
    get_hub().call_later(50, lot.unpark)
    assert lot.park("a test")
    results.append("woken")
    assert results == ["woken"]


def test_closing_the_hub_ends_timers_without_calling_them() -> None:
    hub = get_hub()
    calls: list[int] = []
    handle = hub.call_later(0, calls.append, 1)
    repeating = hub.call_every(1, calls.append, 2)
    hub.close()
    assert calls == []
    assert not handle.active
    assert not repeating.active
    handle.cancel()
    with pytest.raises(RuntimeError, match="closed"):
        hub.call_later(1, print)


def test_a_timer_lets_go_of_its_function_when_it_is_over() -> None:
    class Thing:
        def method(self) -> None: ...

    hub = get_hub()
    for end in ("called", "cancelled"):
        thing = Thing()
        gone = weakref.ref(thing)
        handle = hub.call_later(1, thing.method)
        del thing
        gc.collect()
        assert gone() is not None
        if end == "cancelled":
            handle.cancel()
        else:
            sleep(2)
        gc.collect()
        assert gone() is None


def test_timers_are_run_when_driven_by_hand() -> None:
    hub = get_hub()
    calls: list[int] = []
    hub.call_later(1, calls.append, 1)
    for _ in range(10):  # a wait may end early, when timers only have to be looked at
        if calls:
            break
        hub.wait(5)
        assert calls == []
        hub.dispatch()
    assert calls == [1]


def test_timers_belong_to_their_thread() -> None:
    hub = get_hub()
    handle = hub.call_later(1, print)
    for call in (lambda: hub.call_later(1, print), lambda: hub.call_soon(print), handle.cancel):
        with pytest.raises(RuntimeError, match="another thread"):
            pycoronet.to_thread(call)
    handle.cancel()
