"""DeadlockError: when nothing can wake anybody, and not while something may."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from processes import lines_of, run_program

import pycoronet
from pycoronet import DeadlockError, get_hub, sleep, spawn, to_thread

pytestmark = pytest.mark.usefixtures("virtual_hub")


def test_it_lists_who_waits_for_what() -> None:
    lot = pycoronet._coronet.ParkingLot()
    first = spawn(lot.park, "wait for the lot")
    second = spawn(first.join)
    first.name, second.name = "first", "second"
    with pytest.raises(DeadlockError) as caught:
        second.get()
    assert caught.value.waiters == [
        "Task 'main program': get Task 'second'",
        "Task 'first': wait for the lot",
        "Task 'second': join Task 'first'",
    ]
    assert all(line in str(caught.value) for line in caught.value.waiters)
    first.cancel()


def test_it_is_raised_in_the_main_program_alone_and_again() -> None:
    lot = pycoronet._coronet.ParkingLot()
    task = spawn(lot.park, "park")
    for _ in range(3):
        with pytest.raises(DeadlockError):
            sleep(None)
    with pytest.raises(DeadlockError):
        get_hub().run()
    assert not task.done
    lot.unpark()
    assert task.get() is True


def test_a_timer_is_no_deadlock() -> None:
    lot = pycoronet._coronet.ParkingLot()
    task = spawn(lot.park, "park")
    with pytest.raises(TimeoutError):
        task.join(1000)
    with pycoronet.shield(10), pytest.raises(TimeoutError):
        task.join(1000)
    task.cancel()


def test_a_descriptor_is_no_deadlock() -> None:
    read_end, write_end = os.pipe()
    waiting = spawn(pycoronet.wait_readable, read_end)
    thread = threading.Thread(target=os.write, args=(write_end, b"x"))
    get_hub().call_soon_threadsafe(thread.start)
    assert waiting.get() & pycoronet.READ
    thread.join()
    os.close(read_end)
    os.close(write_end)


def test_another_thread_is_no_deadlock_while_it_lives() -> None:
    hub = get_hub()
    lot = pycoronet._coronet.ParkingLot()
    go = threading.Event()

    def wake() -> None:
        go.wait()
        hub.call_soon_threadsafe(lot.unpark)

    thread = threading.Thread(target=wake)
    thread.start()
    hub.call_soon_threadsafe(go.set)
    assert lot.park("thread") is True
    thread.join()
    with pytest.raises(DeadlockError):
        lot.park("thread")


def test_idle_threads_of_the_pool_do_not_hide_one() -> None:
    lot = pycoronet._coronet.ParkingLot()
    for _ in range(50):
        assert to_thread(int) == 0
        with pytest.raises(DeadlockError):
            lot.park("park")


def test_a_call_in_a_thread_is_no_deadlock() -> None:
    read_end, write_end = os.pipe()
    call = spawn(to_thread, os.read, read_end, 1)
    spawn(os.write, write_end, b"x")
    assert call.get() == b"x"
    os.close(read_end)
    os.close(write_end)


def test_the_main_program_in_a_greenlet_of_its_own_gets_it() -> None:
    greenlet = pytest.importorskip("greenlet")
    seen: list[Any] = []

    def nested() -> None:
        try:
            sleep(None)
        except DeadlockError as error:
            seen.append(error.waiters)

    greenlet.greenlet(nested).switch()
    assert seen == [["Task 'main program': sleep None"]]


@pytest.mark.parametrize("choice", ["signal.SIG_IGN", "signal.SIG_DFL", None])
def test_ignored_signals_do_not_hide_one(choice: str | None) -> None:
    program = f"""
    if {choice} is not None: signal.signal(signal.SIGINT, {choice})
    try:
        sleep(None)
    except DeadlockError as error:
        say(*error.waiters)
    """
    assert lines_of(program) == ["Task 'main program': sleep None"]


def test_it_ends_a_program_that_does_not_catch_it() -> None:
    done = run_program(
        """
        def pending():
            try: sleep(None)
            finally: say("finally")
        spawn(pending).join()
        """
    )
    assert done.returncode == 1
    assert done.stdout == "finally\n"
    assert "DeadlockError: every task waits" in done.stderr
    assert "Task 'pending-" in done.stderr
