"""Hooks around each look at the engine, and the LoopMeter that stands on them."""

from __future__ import annotations

import gc
import os
import random
import threading
import weakref
from typing import Any

import pytest
from connections import Ends
from processes import lines_of

import pycoronet
from pycoronet import HookHandle, LoopMeter, get_hub, sleep, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")

advance_time = pycoronet._coronet._advance_time


def fail(*_: Any) -> None:
    raise ZeroDivisionError("on purpose")


# --- Hooks ------------------------------------------------------------------------------


def test_hooks_are_called_around_the_wait() -> None:
    hub = get_hub()
    log: list[Any] = []
    started = hub.time
    handle = hub.add_hook(
        lambda timeout: log.append((timeout, hub.time - started)),
        lambda: log.append(hub.time - started),
    )
    assert isinstance(handle, HookHandle)
    assert handle.active
    sleep(2)
    # The wheel may wake up on the way; then the rest is waited for.
    assert log[0] == (pytest.approx(log[1]), 0)
    assert log[-1] == pytest.approx(2)
    assert len(log) % 2 == 0
    assert all(isinstance(each, tuple) for each in log[::2])
    handle.cancel()
    handle.cancel()
    assert not handle.active
    count = len(log)
    sleep(1)
    assert len(log) == count


@pytest.mark.optimisation("who waits is not woken for nothing")
def test_timeout_is_none_without_a_limit_and_zero_if_something_is_ready(ends: Ends) -> None:
    hub = get_hub()
    timeouts: list[Any] = []
    conn, peer = ends.pair()

    def send(timeout: float | None) -> None:
        timeouts.append(timeout)
        if timeout is None:
            peer.send(b"x")

    sleep(0.001)  # behind the first one the hub looks for signals that came before
    hub.add_hook(send)
    conn.recv(1)
    assert timeouts == [None]
    spawn(int)
    hub.wait(5)
    assert timeouts == [None, 0.0]


@pytest.mark.parametrize("which", ["prepare", "check"])
def test_one_of_the_two_is_enough(which: str) -> None:
    calls: list[Any] = []
    get_hub().add_hook(**{which: lambda *arguments: calls.append(len(arguments))})
    sleep(1)
    assert set(calls) == {1 if which == "prepare" else 0}


def test_hooks_run_in_the_order_they_were_added() -> None:
    hub = get_hub()
    log: list[Any] = []
    for number in range(3):
        hub.add_hook(
            lambda _, number=number: log.append(number), lambda number=number: log.append(-number)
        )
    sleep(0.001)
    assert log[:6] == [0, 1, 2, 0, -1, -2]


def test_what_prepare_queues_or_wakes_shortens_the_wait(ends: Ends) -> None:
    hub = get_hub()
    started = hub.time
    log: list[Any] = []
    lot = pycoronet._coronet.ParkingLot()
    task = spawn(lot.park, "hook")
    conn, peer = ends.pair()
    conn.buffered = True
    actions = [
        lambda: hub.call_soon(lambda: log.append(hub.time - started)),
        lot.unpark,
        lambda: hub.call_later(1, lambda: log.append(hub.time - started)),
        lambda: conn.write(b"written"),
    ]

    def prepare(timeout: float | None) -> None:
        if timeout and actions:
            actions.pop(0)()

    sleep(0)
    hub.add_hook(prepare)
    sleep(10)
    assert log == [0, pytest.approx(1)]
    assert task.done
    assert peer.recv(10) == b"written"


def test_hooks_may_not_wait_or_drive_the_loop() -> None:
    hub = get_hub()
    errors: list[str] = []
    lot = pycoronet._coronet.ParkingLot()

    def attempt(*_: Any) -> None:
        for call in (lambda: sleep(1), lambda: lot.park("x"), hub.run, hub.dispatch, hub.close):
            with pytest.raises(RuntimeError) as caught:
                call()
            errors.append(str(caught.value))

    hub.add_hook(attempt, attempt)
    sleep(0.001)
    spawn(sleep, 1).join()
    assert "hook" in errors[0]
    assert len(errors) % 10 == 0


def test_what_hooks_raise_is_reported_and_they_stay(reports: list[Any]) -> None:
    hub = get_hub()
    hub.add_hook(fail, fail)
    sleep(1)
    count = len(reports)
    assert count >= 2
    assert {type(each) for each in reports} == {ZeroDivisionError}
    sleep(1)
    assert len(reports) > count


@pytest.mark.parametrize("which", ["prepare", "check"])
@pytest.mark.parametrize("drive", ["sleep", "run", "by hand"])
def test_interrupts_of_hooks_go_to_the_main_program(which: str, drive: str) -> None:
    hub = get_hub()
    calls: list[int] = []

    def interrupt(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt

    lot = pycoronet._coronet.ParkingLot(external=True)
    task = spawn(lot.park, "for ever")
    sleep(0)
    read_end, write_end = os.pipe()
    keeper = spawn(pycoronet.wait_readable, read_end)
    sleep(0)
    hub.add_hook(**{which: interrupt})
    drives = {"sleep": lambda: sleep(5), "run": hub.run, "by hand": hub.wait}
    if which == "check":
        # The wait has to end by itself first.
        spawn(sleep, 1)
    with pytest.raises(KeyboardInterrupt):
        drives[drive]()
    for each in (task, keeper):
        each.cancel()
    sleep(0)
    for fd in (read_end, write_end):
        os.close(fd)


def test_hooks_that_cancel_and_add_each_other() -> None:
    hub = get_hub()
    log: list[Any] = []

    def first(_: Any) -> None:
        log.append("first")
        handles[0].cancel()
        handles[2].cancel()
        handles.append(hub.add_hook(lambda _: log.append("added")))

    handles = [
        hub.add_hook(first),
        hub.add_hook(lambda _: log.append("second")),
        hub.add_hook(lambda _: log.append("third")),
    ]
    hub.wait(0)
    assert log == ["first", "second"]
    hub.wait(0)
    assert log == ["first", "second", "second", "added"]


def test_hook_that_cancels_itself_lets_go_of_its_functions() -> None:
    hub = get_hub()

    class Hook:
        def prepare(self, _: Any) -> None:
            handle.cancel()

    hook = Hook()
    handle = hub.add_hook(hook.prepare, hook.prepare)
    assert "prepare" in repr(handle)
    gone = weakref.ref(hook)
    hub.wait(0)
    assert "over" in repr(handle)
    del hook
    gc.collect()
    assert gone() is None


def test_hooks_keep_no_run_going_and_end_with_the_hub() -> None:
    hub = get_hub()
    log: list[Any] = []
    handle = hub.add_hook(log.append)
    hub.run()
    hub.close()
    assert not handle.active
    with pytest.raises(RuntimeError, match="closed"):
        hub.add_hook(log.append)


def test_hooks_are_not_inherited_by_a_forked_child() -> None:
    program = """
    calls = []
    handle = get_hub().add_hook(calls.append)
    sleep(0.001)
    before = len(calls)
    assert before
    if os.fork() == 0:
        sleep(0.001)
        assert not handle.active
        say(len(calls) == before)
        os._exit(0)
    os.wait()
    sleep(0.001)
    say(len(calls) > before)
    """
    assert lines_of(program) == ["True", "True"]


@pytest.mark.parametrize("arguments", [(), (None, None), (1,), (None, "x"), (print, 5)])
def test_wrong_hooks_are_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        get_hub().add_hook(*arguments)
    sleep(0.001)


def test_other_threads_are_refused() -> None:
    hub = get_hub()
    handle = hub.add_hook(lambda _: None)
    errors: list[type] = []

    def attempt() -> None:
        for call in (lambda: hub.add_hook(print), handle.cancel):
            try:
                call()
            except RuntimeError as error:
                errors.append(type(error))

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert errors == [RuntimeError] * 2
    assert handle.active


# --- The meter --------------------------------------------------------------------------


def work(*seconds: float) -> None:
    """Keep the loop from its wait for these times, one turn after the other."""
    for each in seconds:
        get_hub().call_soon(advance_time, each)
        sleep(each + 0.001)


def test_meter_counts_the_time_away_from_the_wait() -> None:
    with LoopMeter() as meter:
        sleep(0.5)
        assert meter.max == 0
        meter.reset()
        work(0.25, 0.5, 1)
        count = meter.count
        assert count >= 3
        assert meter.max == 1
        assert meter.mean == pytest.approx(1.75 / count)
        assert meter.percentile(100) == 1
        assert meter.percentile(0) == 0
    work(5)
    assert meter.count == count
    assert meter.max == 1


def test_meter_of_nothing() -> None:
    meter = LoopMeter(get_hub())
    assert (meter.count, meter.mean, meter.max, meter.percentile(99)) == (0, 0.0, 0.0, 0.0)
    meter.close()
    meter.close()


@pytest.mark.parametrize("percent", [1, 10, 50, 90, 99, 99.9, 100])
def test_percentiles_are_close_and_never_below(percent: float) -> None:
    rng = random.Random(7)
    times = [rng.expovariate(1) ** 3 for _ in range(500)]
    with LoopMeter() as meter:
        # What the hooks do, without a loop in between.
        for each in times:
            meter._check()
            advance_time(each)
            meter._prepare(None)
        place = max(0, -(-len(times) * percent // 100) - 1)
        exact = sorted(times)[int(place)]
        assert exact * 0.999 <= meter.percentile(percent) <= exact * 1.07 + 1e-6
        assert len(meter._counts) < 400


@pytest.mark.parametrize("percent", [-1, 101, float("nan")])
def test_wrong_percentiles_are_refused(percent: float) -> None:
    with LoopMeter() as meter, pytest.raises(ValueError, match="between"):
        meter.percentile(percent)


def test_meter_of_a_closed_hub_is_refused() -> None:
    hub = get_hub()
    hub.close()
    with pytest.raises(RuntimeError, match="closed"):
        LoopMeter(hub)
