"""to_thread() and its pool; a hub in each thread."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from typing import Any

import pytest
from connections import Ends
from processes import lines_of, run_program

import pycoronet
from pycoronet import Cancelled, Protocol, current, get_hub, sleep, spawn, to_thread
from pycoronet._threads import MAX_THREADS


def run_thread(function: Any) -> Any:
    """Run a function in a thread; return what it returns or raise what it raises."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((function(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    value, error = outcome[0]
    if error is not None:
        raise error
    return value


# --- to_thread() ------------------------------------------------------------------------


def test_results_and_exceptions_come_back() -> None:
    assert to_thread(divmod, 7, 2) == (3, 1)
    assert to_thread(int, "ff", base=16) == 255
    assert to_thread(threading.get_ident) != threading.get_ident()
    error = LookupError()

    def fail() -> None:
        raise error

    for _ in range(2):
        with pytest.raises(LookupError) as caught:
            to_thread(fail)
        assert caught.value is error
    with pytest.raises(SystemExit):
        to_thread(__import__("sys").exit, 3)


def test_something_not_callable_is_refused() -> None:
    with pytest.raises(TypeError):
        to_thread(5)
    with pytest.raises(TypeError):
        to_thread()


def test_others_run_while_a_call_blocks() -> None:
    read_end, write_end = os.pipe()
    call = spawn(to_thread, os.read, read_end, 5)
    sleep(0)
    assert spawn(lambda: 5).get() == 5
    os.write(write_end, b"hello")
    assert call.get() == b"hello"
    os.close(read_end)
    os.close(write_end)


def test_more_calls_than_threads() -> None:
    running = 0
    most = 0
    lock = threading.Lock()
    gate = threading.Event()

    def call(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == MAX_THREADS:
                gate.set()
        gate.wait()
        with lock:
            running -= 1
        return number

    tasks = [spawn(to_thread, call, number) for number in range(5 * MAX_THREADS)]
    assert [task.get() for task in tasks] == list(range(5 * MAX_THREADS))
    assert most == MAX_THREADS


def test_cancelled_waiter_leaves_its_call_behind() -> None:
    read_end, write_end = os.pipe()
    done = threading.Event()

    def call() -> None:
        os.read(read_end, 1)
        done.set()

    task = spawn(to_thread, call)
    sleep(0)
    task.cancel()
    with pytest.raises(Cancelled):
        task.get()
    os.write(write_end, b"x")
    done.wait()
    assert to_thread(int) == 0
    os.close(read_end)
    os.close(write_end)


def test_arguments_and_results_are_not_kept() -> None:
    class Thing:
        pass

    thing = Thing()
    reference = weakref.ref(thing)
    assert to_thread(lambda it: it, thing) is thing
    del thing
    # Its thread lets go of a call after it has delivered the outcome, and before the next.
    deadline = time.monotonic() + 10
    while reference() is not None and time.monotonic() < deadline:
        sleep(0.001)
        gc.collect()
    assert reference() is None


# --- A hub in each thread ---------------------------------------------------------------


def test_threads_have_hubs_of_their_own() -> None:
    def work() -> Any:
        assert current().name == "main program"
        assert spawn(lambda: 5).get() == 5
        sleep(0.001)
        return get_hub()

    hubs = [run_thread(work) for _ in range(3)]
    assert len({id(hub) for hub in [*hubs, get_hub()]}) == 4


def test_hubs_of_many_threads_at_once() -> None:
    def work(count: int) -> None:
        tasks = [spawn(sleep, 0.0001 * number) for number in range(count)]
        for task in tasks:
            task.join()
        counts.append(count)

    counts: list[int] = []
    threads = [threading.Thread(target=work, args=(50,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [50] * 8


def test_ended_threads_free_their_hubs() -> None:
    def work() -> Any:
        spawn(sleep, 0.001).join()
        return weakref.ref(get_hub())

    references = [run_thread(work) for _ in range(10)]
    gc.collect()
    assert [reference() for reference in references] == [None] * 10


def test_thread_that_ends_with_tasks_pending() -> None:
    # Nothing of theirs runs, and nothing crashes.
    program = """
    def work():
        def pending():
            try: sleep(60)
            finally: say("never")
        for _ in range(100): spawn(pending)
        sleep(0.001)
        connect(address)
    listener = listen(("127.0.0.1", 0))
    address = listener.getsockname()
    for _ in range(3):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        __import__("gc").collect()
    listener.close()
    say("done")
    """
    done = run_program(program)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_thread_that_closes_its_hub_runs_finally_blocks() -> None:
    order: list[str] = []

    def work() -> None:
        def pending() -> None:
            try:
                sleep(60)
            finally:
                order.append("finally")

        spawn(pending)
        sleep(0)
        get_hub().close()

    run_thread(work)
    assert order == ["finally"]


def test_connections_of_another_thread_are_refused() -> None:
    with (
        pycoronet.listen(("127.0.0.1", 0)) as listener,
        pytest.raises(RuntimeError, match="another thread"),
    ):
        run_thread(listener.accept)


def test_options_are_set_in_the_connections_thread(ends: Ends) -> None:
    conn, _ = ends.pair()
    conn.set_callbacks(Protocol())  # which they move the timers of

    for call in (
        lambda: conn.set_watermarks(read_low=2),
        lambda: conn.set_timeouts(5, 5),
        lambda: conn.settimeout(5),
        lambda: setattr(conn, "linger", 5),
    ):
        with pytest.raises(RuntimeError, match="another thread"):
            run_thread(call)
    assert conn.timeo is None
    assert conn.get_timeouts() == {"read": None, "write": None}
    assert conn.get_watermarks()["read_low"] == 1
    assert conn.linger == 30


def test_parking_lot_serves_all_threads() -> None:
    lot = pycoronet._coronet.ParkingLot()
    assert run_thread(lot.unpark) is False
    task = spawn(lot.park, "park")
    sleep(0)
    assert run_thread(lot.unpark) is True
    assert task.get() is True
    assert run_thread(lambda: lot.park("park", timeout=0.001)) is False
    assert lot.unpark() is False


def test_interrupts_are_the_main_thread_s_alone() -> None:
    program = """
    def work():
        try:
            ready.set()
            sleep(0.2)
            say("thread slept")
        except BaseException as error:
            say("hit", repr(error))
    ready = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    ready.wait()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        sleep(5)
    except KeyboardInterrupt:
        say("interrupted")
    thread.join()
    """
    assert lines_of(program) == ["interrupted", "thread slept"]
