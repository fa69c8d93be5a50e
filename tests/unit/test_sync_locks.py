"""Lock, RLock, Event, Semaphore: fairness, cancellation, owners, threads, misuse."""

from __future__ import annotations

import threading
from typing import Any

import greenlet
import pytest
from connections import MOMENT
from processes import lines_of
from sync_case import hold, in_callback

import pycoronet
from pycoronet import (
    BoundedSemaphore,
    Cancelled,
    DeadlockError,
    Event,
    Lock,
    RLock,
    Semaphore,
    Task,
    get_hub,
    sleep,
    spawn,
    timeout,
)

pytestmark = pytest.mark.usefixtures("virtual_hub")

LOCKS = [Lock, RLock, Semaphore, BoundedSemaphore]


# --- Fairness ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LOCKS)
def test_lock_serves_who_waits_longest(kind: Any) -> None:
    lock = kind()
    log: list[Any] = []
    tasks = [spawn(hold, lock, log, number) for number in range(20)]
    for task in tasks:
        task.join()
    assert log == list(range(20))


@pytest.mark.parametrize("kind", LOCKS)
def test_lock_that_was_handed_over_is_not_overtaken(kind: Any) -> None:
    lock = kind()
    log: list[Any] = []
    lock.acquire()
    waiting = spawn(hold, lock, log, "waiting")
    sleep(0)
    lock.release()
    # It is the task's by now, though that has not run.
    assert spawn(lock.acquire, False).get() is False
    with lock:
        log.append("main")
    assert log == ["waiting", "main"]
    waiting.join()


@pytest.mark.parametrize("kind", LOCKS)
def test_lock_in_time_and_not_in_time(kind: Any) -> None:
    lock = kind()
    holder = spawn(hold, lock, [], "", 5)
    sleep(0)
    before = get_hub().time
    assert lock.acquire(timeout=2) is False
    assert get_hub().time == pytest.approx(before + 2, abs=0.1)
    assert lock.acquire(True, 0) is False
    assert lock.acquire(timeout=100) is True
    holder.join()
    lock.release()
    assert lock.acquire(False) is True


def test_semaphore_gives_several_permits_in_order() -> None:
    semaphore = Semaphore(0)
    log: list[int] = []

    def take(number: int) -> None:
        semaphore.acquire()
        log.append(number)

    for number in range(5):
        spawn(take, number)
    sleep(MOMENT)
    semaphore.release(3)
    assert semaphore.acquire(False) is False
    sleep(MOMENT)
    assert log == [0, 1, 2]
    semaphore.release(4)
    sleep(MOMENT)
    assert log == [0, 1, 2, 3, 4]
    assert [semaphore.acquire(False) for _ in range(3)] == [True, True, False]


def test_event_wakes_all_in_their_order_also_if_it_is_cleared_at_once() -> None:
    event = Event()
    log: list[Any] = []
    for number in range(10):
        spawn(lambda number: log.append((number, event.wait())), number)
    sleep(0)
    event.set()
    event.clear()
    sleep(0)
    assert log == [(number, True) for number in range(10)]
    assert event.wait(0) is False
    assert event.wait(-1) is False
    assert event.wait(1) is False


def test_many_operations_without_waiting_give_way() -> None:
    lock, event = Lock(), Event()
    event.set()
    for wait in (lock.acquire, event.wait, Semaphore(10**6).acquire):
        seen: list[int] = []
        spawn(seen.append, 1)
        for _ in range(300):
            wait()
            if lock.locked():
                lock.release()
        assert seen == [1]


# --- Cancelling -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LOCKS)
def test_cancelled_waiter_gets_nothing_and_loses_nothing(kind: Any) -> None:
    lock = kind()
    lock.acquire()
    first, second = spawn(lock.acquire), spawn(lock.acquire)
    sleep(MOMENT)
    first.cancel()
    lock.release()
    with pytest.raises(Cancelled):
        first.get()
    assert second.get() is True


@pytest.mark.parametrize("kind", LOCKS)
def test_waiter_cancelled_after_it_was_served_has_the_lock(kind: Any) -> None:
    lock = kind()
    log: list[str] = []

    def work() -> None:
        with lock:
            log.append("has it")
            try:
                sleep(0)
            except Cancelled:
                log.append("cancelled")

    lock.acquire()
    task = spawn(work)
    sleep(0)
    lock.release()
    task.cancel()
    task.join()
    assert log == ["has it", "cancelled"]
    assert lock.acquire(False) is True


@pytest.mark.parametrize("kind", LOCKS)
def test_lock_given_to_a_main_program_that_is_interrupted_goes_to_the_next(kind: Any) -> None:
    lock = kind()

    def work() -> None:
        lock.acquire()
        sleep(1)
        get_hub().call_soon(interrupt)
        # Both in one turn: the main program is served, and then has something to raise.
        lock.release()
        sleep(0)

    def interrupt() -> None:
        raise KeyboardInterrupt

    spawn(work)
    sleep(0)
    taken = spawn(lambda: (sleep(0.5), lock.acquire())[1])
    with pytest.raises(KeyboardInterrupt):
        lock.acquire()
    assert taken.get() is True


@pytest.mark.parametrize("kind", [Lock, Semaphore, BoundedSemaphore])
def test_lock_given_to_a_greenlet_that_is_thrown_into_goes_to_the_next(kind: Any) -> None:
    lock = kind()
    lock.acquire()
    parked: list[Any] = []

    def work() -> str:
        parked.append(greenlet.getcurrent())
        with pytest.raises(ZeroDivisionError):
            lock.acquire()
        sleep(1)
        return "went on"

    def throw() -> None:
        lock.release()
        parked[0].throw(ZeroDivisionError)

    first, second = spawn(work), spawn(lock.acquire)
    spawn(throw)
    assert first.get() == "went on"
    assert second.get() is True


def test_deadline_of_a_block_ends_the_wait() -> None:
    lock = Lock()
    lock.acquire()
    with pytest.raises(TimeoutError), timeout(1):
        lock.acquire()
    with pytest.raises(TimeoutError), timeout(1):
        Event().wait()
    lock.release()
    assert lock.acquire(False)


# --- Owners -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Lock, RLock])
def test_owner_is_the_task_the_thread_or_the_hub(kind: Any) -> None:
    lock = kind()
    assert lock.owner is None
    assert "unlocked" in repr(lock)
    with lock:
        assert lock.owner == threading.get_ident()
    task = spawn(hold, lock, [], "")
    sleep(MOMENT)
    assert lock.owner is task
    assert repr(task) in repr(lock)
    waiting = spawn(hold, lock, [], "")
    sleep(MOMENT)
    sleep(1)
    assert lock.owner is waiting
    waiting.join()
    assert lock.owner is None
    in_callback(lock.acquire)
    assert lock.owner is get_hub()


def test_recursive_lock_is_the_task_s_own() -> None:
    lock = RLock()
    log: list[str] = []

    def work() -> None:
        with lock, lock:
            sleep(1)
            # Greenlets of one task are one owner.
            assert greenlet.greenlet(lock.acquire).switch() is True
            lock.release()
            log.append("first")
        with pytest.raises(RuntimeError, match="somebody else"):
            lock.release()  # it went to the main program

    task = spawn(work)
    sleep(MOMENT)
    with pytest.raises(RuntimeError, match="somebody else"):
        lock.release()
    assert lock.acquire(False) is False
    assert in_callback(lambda: lock.acquire(False)) is False
    with pytest.raises(RuntimeError, match="somebody else"):
        in_callback(lock.release)
    with lock:
        log.append("second")
        assert in_callback(lambda: lock.acquire(False)) is False
    task.join()
    assert log == ["first", "second"]


def test_recursive_lock_stays_the_thread_s_when_the_thread_gets_a_hub() -> None:
    lock = RLock()
    outcome: list[Any] = []

    def work() -> None:
        with lock:
            sleep(0)  # makes the hub
            outcome.append(lock.acquire(False))
            lock.release()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert outcome == [True]
    assert lock.owner is None


# --- Threads ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LOCKS)
def test_threads_and_tasks_exclude_each_other(kind: Any) -> None:
    get_hub().close()  # real time
    lock = kind()
    count = [0]

    def work() -> None:
        for number in range(200):
            with lock:
                seen = count[0]
                if number % 20 == 0:
                    sleep(0)
                count[0] = seen + 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    tasks = [spawn(work) for _ in range(3)]
    for task in tasks:
        task.join()
    for thread in threads:
        thread.join()
    assert count == [1200]


def test_event_is_set_across_threads_both_ways() -> None:
    get_hub().close()
    here, there = Event(), Event()

    def work() -> None:
        for _ in range(100):
            here.wait()
            here.clear()
            there.set()

    thread = threading.Thread(target=work)
    thread.start()
    others: list[int] = []
    spawn(lambda: [others.append(sleep(0) or 1) for _ in range(3)])
    for _ in range(100):
        here.set()
        there.wait()
        there.clear()
    thread.join()
    assert others == [1, 1, 1]


@pytest.mark.leaves_something("a task of a thread that has ended")
def test_what_is_given_to_a_thread_that_has_ended_goes_to_the_next() -> None:
    lock = Lock()
    lock.acquire()
    kept: list[Task] = []

    def work() -> None:
        kept.append(spawn(lock.acquire))
        sleep(0)  # it waits, and will for ever

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    task = spawn(lock.acquire)
    sleep(0)
    lock.release()
    assert task.get() is True


def test_thread_that_only_tries_gets_no_hub() -> None:
    def work() -> None:
        lock, event = Lock(), Event()
        lock.acquire()
        assert lock.acquire(False) is False
        assert lock.acquire(timeout=0) is False
        lock.release()
        event.set()
        assert event.wait()
        with Semaphore():
            pass
        me = threading.get_ident()
        results.append(any(hub._thread_id == me for hub in pycoronet._coronet._list_hubs()))

    results: list[bool] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [False]


# --- Deadlocks, forks -------------------------------------------------------------------


def test_deadlock_names_the_lock_and_its_owner() -> None:
    lock, event = Lock(), Event()

    def work() -> None:
        with lock:
            event.wait()

    task = spawn(work)
    task.name = "holder"
    sleep(0)
    with pytest.raises(DeadlockError) as caught:
        lock.acquire()
    assert caught.value.waiters == [
        f"Task 'main program': acquire <Lock at {id(lock):#x}> held by Task 'holder'",
        f"Task 'holder': wait {event!r}",
    ]
    assert "owner=<Task 'holder'" in repr(lock)
    event.set()


def test_lock_that_is_acquired_twice_is_a_deadlock() -> None:
    lock = Lock()
    lock.acquire()
    with pytest.raises(DeadlockError):
        lock.acquire()


def test_forked_child_uses_what_the_others_waited_for() -> None:
    program = """
    lock, event, semaphore = Lock(), Event(), Semaphore(0)
    lock.acquire()
    def wait():
        lock.acquire()
        say("parent has the lock")
    tasks = [spawn(wait), spawn(event.wait), spawn(semaphore.acquire)]
    sleep(0)
    pid = os.fork()
    if pid == 0:
        lock.release()
        assert not lock.locked()
        event.set()
        semaphore.release()
        assert semaphore.acquire(False)
        task = spawn(lambda: (lock.acquire(), semaphore.acquire()))
        sleep(0)
        semaphore.release()
        task.join()
        say("child done")
        os._exit(0)
    os.waitpid(pid, 0)
    assert not any(task.done for task in tasks)
    lock.release(); event.set(); semaphore.release()
    for task in tasks: task.join()
    """
    assert lines_of(program) == ["child done", "parent has the lock"]


def test_forked_child_of_a_thread_passes_over_the_other_threads() -> None:
    program = """
    import warnings
    warnings.filterwarnings("ignore", "This process .* is multi-threaded")
    lock, started = Lock(), Event()
    lock.acquire()
    def wait():
        spawn(started.set)  # which runs when this thread waits
        lock.acquire()
        lock.release()
    thread = threading.Thread(target=wait)
    thread.start()
    started.wait()
    pid = os.fork()
    if pid == 0:
        lock.release()
        assert lock.acquire(False)
        os._exit(0)
    say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    lock.release()
    thread.join()
    """
    assert lines_of(program) == ["0"]
