"""The loop's controls: exit, break, continue, the dispatch interval, cached time."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from connections import Ends
from processes import lines_of
from recorders import Recorder, turn

import pycoronet
from pycoronet import HIGH, LOW, NORMAL, TimerHandle, get_hub, sleep, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")

advance_time = pycoronet._coronet._advance_time


def urgent(ends: Ends, log: list[Any]) -> Any:
    """Return a function that makes an urgent connection ready."""
    conn, peer = ends.pair()
    conn.priority = HIGH
    conn.set_callbacks(Recorder(data=lambda _: log.append("urgent")))
    turn()
    return lambda: peer.send(b"x")


# --- Break, exit, continue --------------------------------------------------------------


def test_break_returns_after_the_callback_and_keeps_the_rest() -> None:
    hub = get_hub()
    log: list[Any] = []
    hub.call_soon(log.append, 1)
    hub.call_soon(lambda: (hub.loop_break(), log.append("same callback")))
    hub.call_soon(log.append, 2)
    hub.call_soon(log.append, 3)
    hub.run()
    assert log == [1, "same callback"]
    hub.run()
    assert log == [1, "same callback", 2, 3]


def test_exit_returns_after_the_round() -> None:
    hub = get_hub()
    log: list[Any] = []

    def leave() -> None:
        hub.loop_exit()
        hub.call_soon(log.append, "next round")

    hub.call_soon(leave)
    hub.call_soon(log.append, "same round")
    hub.run()
    assert log == ["same round"]
    hub.run()
    assert log == ["same round", "next round"]


def test_rest_of_a_broken_round_stands_before_what_came_later() -> None:
    hub = get_hub()
    log: list[Any] = []
    hub.call_soon(lambda: (hub.call_soon(log.append, "later"), hub.loop_break()))
    hub.call_soon(log.append, "rest")
    hub.run()
    assert log == []
    hub.run()
    assert log == ["rest", "later"]


def test_rest_also_runs_when_the_main_program_waits_otherwise() -> None:
    hub = get_hub()
    log: list[Any] = []
    hub.call_soon(hub.loop_break)
    hub.call_soon(log.append, "rest")
    hub.run()
    assert log == []
    sleep(0)
    assert log == ["rest"]


def test_nothing_is_closed_or_cancelled_by_an_exit(ends: Ends) -> None:
    hub = get_hub()
    recorder = Recorder()
    conn, peer = ends.pair()
    conn.set_callbacks(recorder)
    task = spawn(sleep, 10)
    hub.call_later(1, hub.loop_exit)
    hub.run()
    assert not task.done
    assert not conn.closed
    peer.send(b"x")
    hub.call_later(1, hub.loop_break)
    hub.run()
    assert recorder.log == ["data"]
    conn.abort()
    hub.run()
    assert task.done


def test_break_from_a_coroutine_lets_no_callback_in_between() -> None:
    hub = get_hub()
    log: list[Any] = []

    def work() -> None:
        hub.loop_break()
        hub.call_soon(log.append, "callback")
        sleep(0)
        log.append("task")
        sleep(0)

    spawn(work)
    hub.run()
    assert "callback" not in log
    hub.run()
    assert log.count("callback") == 1


def test_exit_after_a_time_and_its_cancel() -> None:
    hub = get_hub()
    start = hub.time
    task = spawn(sleep, 100)
    handle = hub.loop_exit(2.5)
    assert isinstance(handle, TimerHandle)
    hub.run()
    assert hub.time - start == pytest.approx(2.5, abs=0.01)
    hub.loop_exit(1).cancel()
    hub.run()
    assert task.done
    assert hub.time - start == pytest.approx(100, abs=0.01)


@pytest.mark.parametrize("call", ["loop_exit", "loop_break", "loop_continue"])
def test_without_a_run_they_do_nothing(call: str) -> None:
    hub = get_hub()
    log: list[Any] = []
    getattr(hub, call)()
    hub.call_soon(getattr(hub, call))
    hub.call_soon(log.append, 1)
    sleep(0)
    sleep(0)
    assert log == [1]
    spawn(lambda: (sleep(1), log.append(2)))
    hub.run()
    assert log == [1, 2]


def test_exit_and_then_stop_closes_connections(ends: Ends) -> None:
    hub = get_hub()
    recorder = Recorder()
    conn, _ = ends.pair()
    conn.set_callbacks(recorder)
    hub.call_soon(lambda: (hub.loop_exit(), hub.stop()))
    hub.run()
    assert recorder.log == ["shutdown", "close"]


def test_exit_in_the_middle_of_a_stop_does_not_cut_it_short(ends: Ends) -> None:
    hub = get_hub()
    recorder = Recorder(shutdown=lambda _: hub.loop_break())
    conn, _ = ends.pair()
    conn.set_callbacks(recorder)
    hub.call_soon(hub.stop)
    hub.run()
    assert recorder.log == ["shutdown", "close"]


def test_break_and_an_interrupt_of_the_same_callback() -> None:
    hub = get_hub()
    log: list[Any] = []

    def interrupt() -> None:
        hub.loop_break()
        raise KeyboardInterrupt

    hub.call_soon(interrupt)
    hub.call_soon(log.append, 1)
    with pytest.raises(KeyboardInterrupt):
        hub.run()
    hub.run()
    assert log == [1]


def test_break_from_a_thread() -> None:
    hub = get_hub()
    lot = pycoronet._coronet.ParkingLot(external=True)
    task = spawn(lot.park, "thread")
    thread = threading.Thread(target=hub.call_soon_threadsafe, args=(hub.loop_break,))
    spawn(thread.start)
    hub.run()
    thread.join()
    assert not task.done
    lot.unpark()
    task.join()


def test_continue_lets_what_became_urgent_overtake(ends: Ends) -> None:
    hub = get_hub()
    log: list[Any] = []
    make_ready = urgent(ends, log)
    hub.call_soon(make_ready)
    hub.call_soon(log.append, 1)
    hub.call_soon(hub.loop_continue)
    hub.call_soon(log.append, 2)
    turn()
    assert log == [1, "urgent", 2]


def test_continue_looks_at_the_engine_before_coroutines_go_on(ends: Ends) -> None:
    hub = get_hub()
    log: list[Any] = []
    make_ready = urgent(ends, log)
    busy = spawn(lambda: [sleep(0) for _ in range(20)])
    hub.call_soon(lambda: (make_ready(), hub.loop_continue()))
    hub.call_soon(log.append, 2)
    turn()
    assert log == ["urgent", 2]
    busy.join()


def test_driven_by_hand_a_cut_round_goes_on_with_the_next_dispatch() -> None:
    hub = get_hub()
    log: list[Any] = []
    hub.call_soon(hub.loop_continue)
    hub.call_soon(log.append, 1)
    hub.dispatch()
    assert log == []
    hub.wait(0)
    hub.dispatch()
    assert log == [1]


# --- The dispatch interval --------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "place"),
    [
        ({}, 10),
        ({"calls": 3}, 3),
        ({"calls": 1}, 1),
        ({"calls": 100}, 10),
        ({"seconds": 0}, 1),
        ({"seconds": 0.25}, 3),
        ({"seconds": 0.25, "calls": 2}, 2),
        ({"seconds": 100}, 10),
        ({"calls": 3, "min_priority": HIGH}, 3),
        ({"calls": 3, "min_priority": LOW}, 10),
    ],
)
def test_interval_cuts_a_round_for_a_look_at_the_engine(
    ends: Ends, limits: dict[str, Any], place: int
) -> None:
    hub = get_hub()
    log: list[Any] = []
    make_ready = urgent(ends, log)

    def work(number: int) -> None:
        log.append(number)
        if number == 0:
            make_ready()
        advance_time(0.1)

    hub.set_dispatch_interval(**limits)
    for number in range(10):
        hub.call_soon(work, number)
    sleep(10)
    assert log.index("urgent") == place
    assert [each for each in log if each != "urgent"] == list(range(10))


@pytest.mark.parametrize(("min_priority", "turns"), [(HIGH, 2), (NORMAL, 1)])
def test_interval_spares_what_is_more_urgent_than_min_priority(
    ends: Ends, min_priority: int, turns: int
) -> None:
    hub = get_hub()
    times: list[float] = []

    def note(_: Any) -> None:
        times.append(hub.cached_time)
        advance_time(0.1)

    peers = []
    for _ in range(2):
        conn, peer = ends.pair()
        conn.priority = HIGH
        conn.set_callbacks(Recorder(data=note))
        peers.append(peer)
    turn()
    hub.set_dispatch_interval(calls=1, min_priority=min_priority)
    for peer in peers:
        peer.send(b"x")
    sleep(10)
    assert len(times) == 2
    assert len(set(times)) == turns


def test_interval_is_taken_off_again(ends: Ends) -> None:
    hub = get_hub()
    log: list[Any] = []
    make_ready = urgent(ends, log)
    hub.set_dispatch_interval(calls=1)
    hub.set_dispatch_interval()
    hub.call_soon(make_ready)
    hub.call_soon(log.append, 1)
    turn()
    assert log == [1, "urgent"]


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        ({"seconds": -1}, ValueError),
        ({"seconds": float("nan")}, ValueError),
        ({"seconds": "1"}, TypeError),
        ({"calls": 0}, ValueError),
        ({"calls": -5}, ValueError),
        ({"calls": 1.5}, TypeError),
        ({"min_priority": 3}, ValueError),
        ({"min_priority": None}, TypeError),
        ({"rounds": 3}, TypeError),
    ],
)
def test_wrong_intervals_are_refused_and_change_nothing(
    limits: dict[str, Any], error: type
) -> None:
    hub = get_hub()
    log: list[Any] = []
    hub.set_dispatch_interval(calls=1)
    with pytest.raises(error):
        hub.set_dispatch_interval(**limits)
    hub.call_soon(log.append, 1)
    hub.call_soon(log.append, 2)
    hub.dispatch()
    assert log == [1]


# --- Time -------------------------------------------------------------------------------


def test_cached_time_stands_still_for_a_turn() -> None:
    hub = get_hub()
    sleep(1)
    cached = hub.cached_time
    assert cached == hub.time
    advance_time(5)
    assert hub.time == cached + 5
    assert hub.cached_time == cached
    sleep(1)
    assert hub.cached_time == hub.time


def test_cached_time_is_one_for_all_callbacks_of_a_round() -> None:
    hub = get_hub()
    times: list[float] = []

    def note() -> None:
        times.append(hub.cached_time)
        advance_time(1)

    for _ in range(3):
        hub.call_soon(note)
    sleep(10)
    assert len(set(times)) == 1


def test_cached_time_of_a_closed_hub_is_refused() -> None:
    hub = get_hub()
    assert hub.cached_time
    hub.close()
    with pytest.raises(RuntimeError, match="closed"):
        _ = hub.cached_time


# --- Elsewhere --------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["loop_exit", "loop_break", "loop_continue"])
def test_other_threads_are_refused(call: str) -> None:
    hub = get_hub()
    errors: list[str] = []

    def attempt() -> None:
        try:
            getattr(hub, call)()
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert ["another thread" in error for error in errors] == [True]


def test_child_forked_in_a_run_that_is_halted_serves_callbacks() -> None:
    program = """
    hub = get_hub()
    def work():
        hub.loop_break()
        if os.fork() == 0:
            hub.call_soon(say, "child")
            sleep(0.001)
            os._exit(0)
        os.wait()
        say("parent")
    import warnings
    warnings.simplefilter("ignore")
    spawn(work)
    hub.run()
    """
    assert lines_of(program) == ["child", "parent"]
