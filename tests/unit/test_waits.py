"""Who waits for what: DeadlockError's circles, and repr() of tasks and connections."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from connections import MOMENT, Ends
from processes import lines_of

import pycoronet
from pycoronet import (
    Condition,
    DeadlockError,
    Event,
    Lock,
    RLock,
    Task,
    TaskGroup,
    current,
    get_hub,
    listen,
    sleep,
    spawn,
)

pytestmark = pytest.mark.usefixtures("virtual_hub")


def named(name: str, function: Callable[..., Any], *arguments: Any) -> Task:
    task = spawn(function, *arguments)
    task.name = name
    return task


def deadlock(call: Callable[[], object] = lambda: sleep(None)) -> DeadlockError:
    """Wait for ever, and return the error that comes instead."""
    with pytest.raises(DeadlockError) as caught:
        call()
    return caught.value


def at(lock: object) -> str:
    return f"<{type(lock).__name__} at {id(lock):#x}>"


# Deadlocks


def test_circle_of_a_lock_and_a_join_is_told_in_words() -> None:
    lock = Lock()

    def first() -> None:
        sleep(1)
        with lock:
            pass

    def second() -> None:
        with lock:
            one.join()

    one, two = named("worker-1", first), named("worker-2", second)
    error = deadlock(two.join)
    assert error.waiters == [
        "Task 'main program': join Task 'worker-2'",
        f"Task 'worker-1': acquire {at(lock)} held by Task 'worker-2'",
        "Task 'worker-2': join Task 'worker-1'",
    ]
    circle = (
        "Task 'worker-2' waits in join for Task 'worker-1', "
        f"which waits for {at(lock)} held by Task 'worker-2': a circle"
    )
    assert error.circles == [circle]
    assert str(error).endswith("\n" + circle)
    one.cancel()
    two.join()


def test_locks_taken_in_two_orders_are_a_circle() -> None:
    locks = [Lock(), RLock(), Lock()]

    def work(place: int) -> None:
        with locks[place]:
            sleep(1)
            with locks[(place + 1) % 3]:
                pass

    tasks = [named(str(place), work, place) for place in range(3)]
    circle = (
        f"Task '0' waits for {at(locks[1])} held by Task '1', "
        f"which waits for {at(locks[2])} held by Task '2', "
        f"which waits for {at(locks[0])} held by Task '0': a circle"
    )
    assert deadlock().circles == [circle]
    tasks[0].cancel()
    tasks[2].join()


def test_lock_of_one_s_own_is_a_circle_of_one() -> None:
    lock = Lock()
    lock.acquire()
    error = deadlock(lock.acquire)
    held = f"{at(lock)} held by"
    assert error.waiters == [f"Task 'main program': acquire {held} Task 'main program'"]
    assert error.circles == [f"Task 'main program' waits for {held} itself: a circle"]


def test_circle_through_a_group_is_told() -> None:
    def parent() -> None:
        with TaskGroup() as group:
            group.spawn(sleep, None).name = "idle"
            group.spawn(task.join).name = "child"

    task = named("parent", parent)
    error = deadlock()
    circle = "Task 'parent' waits for Task 'child' of its TaskGroup, which waits in join for"
    assert error.circles == [f"{circle} Task 'parent': a circle"]
    task.cancel()
    sleep(0)


def test_two_circles_are_both_told() -> None:
    def wait(other: list[Task]) -> None:
        other[0].join()

    tasks = []
    for name in "ab":
        others: list[Task] = []
        pair = [named(f"{name}-1", wait, others), Task]
        pair[1] = named(f"{name}-2", pair[0].join)  # type: ignore[union-attr]
        others.append(pair[1])  # type: ignore[arg-type]
        tasks += pair
    assert [re.findall(r"'([^']*)'", circle) for circle in deadlock().circles] == [
        ["a-1", "a-2", "a-1"],
        ["b-1", "b-2", "b-1"],
    ]
    tasks[0].cancel()
    tasks[2].cancel()
    sleep(0)


def test_who_ended_with_a_lock_is_told() -> None:
    lock = Lock()
    named("careless", lock.acquire).join()
    error = deadlock(lock.acquire)
    assert error.waiters[0].endswith("held by Task 'careless', which has ended")
    assert error.circles == []


def test_owners_that_are_no_tasks_are_told() -> None:
    lock, other = Lock(), Lock()
    get_hub().call_soon(lock.acquire)
    sleep(1)
    thread = threading.Thread(target=other.acquire, name="careful")
    thread.start()
    thread.join()
    waiting = named("waiting", other.acquire)
    lines = deadlock(lock.acquire).waiters
    assert lines[0].endswith("held by a callback of the hub")
    assert re.fullmatch(r"Task 'waiting': acquire .* held by thread .*", lines[1])
    waiting.cancel()


def test_thread_that_has_a_lock_is_told_by_its_name() -> None:
    lock, held, done = Lock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold, name="holder")
    thread.start()
    held.wait()
    task = named("waiting", lock.acquire)
    sleep(MOMENT)
    try:
        assert get_hub().waiters() == [
            f"Task 'waiting': acquire {at(lock)} held by thread 'holder'"
        ]
    finally:
        done.set()
        thread.join()
    assert task.get() is True


def test_each_wait_reads_as_what_it_is() -> None:
    condition, event = Condition(), Event()

    def wait() -> None:
        with condition:
            condition.wait()

    named("condition", wait)
    named("event", event.wait)
    sleep(MOMENT)
    assert get_hub().waiters() == [
        f"Task 'condition': wait {condition!r}",
        f"Task 'event': wait {event!r}",
    ]
    deadlock()
    with condition:
        condition.notify()
    event.set()
    sleep(0)


def test_many_who_wait_for_one_another_are_told_at_once() -> None:
    task = named("first", sleep, None)
    tasks = [task]
    for _ in range(2_000):
        tasks.append(task := spawn(task.join))
    error = deadlock()
    assert len(error.waiters) == 2_002
    assert error.circles == []
    tasks[0].cancel()
    task.join()


def test_error_can_be_made_of_lines_alone() -> None:
    error = DeadlockError(["a", "b"])
    assert (error.waiters, error.circles) == (["a", "b"], [])
    assert str(error) == "every task waits and nothing can wake them:\n  a\n  b"


# Tasks


def test_repr_of_a_task_says_what_it_does() -> None:
    seen: list[str] = []
    task = named("x", lambda: (seen.append(repr(current())), sleep(5)))
    assert repr(task) == "<Task 'x' queued>"
    sleep(3.26)
    assert seen == ["<Task 'x' running>"]
    assert repr(task) == "<Task 'x' waiting in sleep for 3.2 s>"
    task.cancel()
    assert repr(task) == "<Task 'x' waiting in sleep, ready to go on>"
    task.join()
    assert repr(task) == "<Task 'x' cancelled>"
    assert repr(current()) == "<Task 'main program' running>"


def test_wait_is_dated_when_it_begins() -> None:
    lot = pycoronet._coronet.ParkingLot()

    def work() -> None:
        sleep(9)
        pycoronet._coronet._advance_time(100)  # it computes
        lot.park("it")

    task = named("x", work)
    sleep(7)
    assert repr(task) == "<Task 'x' waiting in sleep for 7.0 s>"
    sleep(3)
    assert repr(task) == "<Task 'x' waiting in it for 0.0 s>"
    sleep(1.5)
    assert repr(task) == "<Task 'x' waiting in it for 1.5 s>"
    lot.unpark()
    task.join()


def test_repr_of_a_task_whose_greenlets_wait_too() -> None:
    greenlet = pytest.importorskip("greenlet")
    lot = pycoronet._coronet.ParkingLot()

    def work() -> None:
        greenlet.greenlet(lambda: lot.park("nested")).switch()

    task = named("x", work)
    sleep(1)
    assert repr(task) == "<Task 'x' waiting in nested for 1.0 s>"
    lot.unpark()
    task.join()


def test_repr_of_a_task_for_another_thread_and_after_its_hub() -> None:
    task = named("x", sleep, None)
    sleep(2)
    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.append(repr(task)))
    thread.start()
    thread.join()
    assert seen == ["<Task 'x' waiting in sleep for 2.0 s>"]
    get_hub().close()
    assert repr(task) == "<Task 'x' cancelled>"


def test_repr_of_tasks_that_a_fork_has_left_behind() -> None:
    program = """
    lot = pycoronet._coronet.ParkingLot()
    task = spawn(lot.park, "it")
    task.name = "x"
    sleep(0)
    pid = os.fork()
    if pid == 0:
        say(repr(task), get_hub().waiters(), len(get_hub()._list_tasks()))
        os._exit(0)
    os.waitpid(pid, 0)
    task.cancel()
    """
    assert lines_of(program, environment={"PYTHONWARNINGS": "ignore"}) == [
        "<Task 'x' left behind> [] 1"
    ]


# Connections


def test_repr_of_a_connection_says_who_waits_and_what_it_holds(ends: Ends) -> None:
    conn, peer = ends.pair()
    begin = f"<sk_conn fd={conn.fileno()}"
    assert repr(conn) == begin + ">"
    reader = spawn(conn.read_exactly, 100)
    peer.send(b"x" * 12)
    sleep(3.2)
    assert repr(conn) == begin + " waiting in read_exactly for 3.2 s, 12 bytes received>"
    conn.buffered = True
    conn.write(b"y" * 30)
    assert repr(conn).endswith(" for 3.2 s, 12 bytes received, 30 bytes to send>")
    conn.flush()
    writer = spawn(conn.sendall, bytes(10_000_000))
    sleep(1)
    pattern = r" waiting in read_exactly for 4\.2 s, in \w+ for 1\.0 s, .*, \d{6,} bytes to send>"
    assert re.fullmatch(re.escape(begin) + pattern, repr(conn))
    reader.cancel()
    writer.cancel()
    sleep(0)
    conn.abort()
    assert repr(conn) == "<sk_conn fd=-1 closed>"


def test_repr_of_a_connection_names_the_other_end(
    listener: Any, dial: Callable[[], Any], ends: Ends
) -> None:
    assert repr(listener) == (
        f"<sk_conn fd={listener.fileno()} listening on {listener.getsockname()!r}>"
    )
    client = dial()
    conn, address = listener.accept()
    ends.keep(conn)
    assert repr(conn) == f"<sk_conn fd={conn.fileno()} to {address!r}>"
    assert address == client.getsockname()


def test_repr_of_what_has_no_name(ends: Ends, pipe: tuple[int, int]) -> None:
    conn = ends.keep(pycoronet.sk_conn(pipe[0]))
    assert repr(conn) == f"<sk_conn fd={pipe[0]}>"
    unbound = ends.keep(listen(("127.0.0.1", 0), enabled=False))
    assert "listening on ('127.0.0.1', " in repr(unbound)
