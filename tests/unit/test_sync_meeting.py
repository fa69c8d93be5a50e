"""Condition, Barrier, Channel: order, cancelling, closing, threads, misuse."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, Full
from typing import Any

import pytest
from connections import MOMENT
from processes import lines_of
from sync_case import in_callback

from pycoronet import (
    Barrier,
    Cancelled,
    Channel,
    Condition,
    DeadlockError,
    Lock,
    RLock,
    ShutDown,
    get_hub,
    joinall,
    sleep,
    spawn,
    timeout,
    to_thread,
)

pytestmark = pytest.mark.usefixtures("virtual_hub")


# --- Condition --------------------------------------------------------------------------


def wait_in(condition: Condition, log: list[Any], name: object) -> None:
    with condition:
        log.append((name, condition.wait()))


@pytest.mark.parametrize("lock", [None, Lock, RLock, threading.Lock])
def test_condition_notifies_in_order(lock: Any) -> None:
    condition = Condition(lock and lock())
    log: list[Any] = []
    for number in range(5):
        spawn(wait_in, condition, log, number)
    sleep(MOMENT)
    with condition:
        condition.notify(2)
    sleep(MOMENT)
    assert log == [(0, True), (1, True)]
    with condition:
        condition.notify_all()
        condition.notify(5)
    sleep(1)
    assert log == [(number, True) for number in range(5)]


def test_condition_waits_so_long_and_holds_its_lock_again() -> None:
    condition = Condition()
    with condition, condition:
        assert condition.wait(2) is False
        assert condition.wait(-1) is False
        assert condition._is_owned()
    assert not condition._is_owned()
    assert get_hub().time >= 2
    with condition:
        assert condition.wait_for(lambda: 0, timeout=1) == 0
        assert condition.wait_for(lambda: "yes") == "yes"


def test_cancelled_waiter_holds_the_lock_in_its_block_and_takes_no_notice() -> None:
    condition = Condition()
    log: list[Any] = []

    def work() -> None:
        with condition:
            try:
                condition.wait()
            except Cancelled:
                log.append(condition._is_owned())
                raise

    first, second = spawn(work), spawn(wait_in, condition, log, "second")
    sleep(0)
    with condition:
        first.cancel()
        sleep(1)  # it has to wait for the lock, cancelled as it is
        assert log == []
        condition.notify()  # it leaves, so it is the other's
    first.join()
    second.join()
    assert log == [True, ("second", True)]


def test_notified_waiter_that_is_cancelled_while_it_waits_for_the_lock_was_notified() -> None:
    condition = Condition()
    log: list[Any] = []
    task = spawn(wait_in, condition, log, "task")
    sleep(0)
    with condition:
        condition.notify()
        task.cancel()
        sleep(1)
    task.join()
    assert log == [("task", True)]


@pytest.mark.parametrize("call", ["wait", "notify", "notify_all"])
def test_condition_whose_lock_is_not_held_is_refused(call: str) -> None:
    condition = Condition()
    with pytest.raises(RuntimeError, match="does not hold"):
        getattr(condition, call)()
    spawn(lambda: (condition.acquire(), sleep(1), condition.release()))
    sleep(0)
    with pytest.raises(RuntimeError, match="does not hold"):
        getattr(condition, call)()


def test_condition_in_a_callback_keeps_its_lock() -> None:
    condition = Condition()

    def call() -> bool:
        with condition:
            with pytest.raises(RuntimeError, match="hub callback cannot"):
                condition.wait()
            return condition._is_owned()

    assert in_callback(call) is True


def test_condition_between_threads_and_tasks() -> None:
    get_hub().close()  # real time
    condition = Condition()
    turn = [0]

    def work(mine: int) -> None:
        for _ in range(50):
            with condition:
                condition.wait_for(lambda: turn[0] % 4 == mine)
                turn[0] += 1
                condition.notify_all()

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 2)]
    tasks = [spawn(work, number) for number in (1, 3)]
    for thread in threads:
        thread.start()
    for task in tasks:
        task.join()
    for thread in threads:
        thread.join()
    assert turn == [200]


# --- A forked child ---------------------------------------------------------------------


def test_child_notifies_none_of_the_parent_s() -> None:
    program = """
    condition = Condition()
    def wait():
        with condition: condition.wait()
    task = spawn(wait)
    sleep(0)
    pid = os.fork()
    if pid == 0:
        mine = spawn(wait)
        sleep(0)
        with condition: condition.notify()
        mine.join()
        os._exit(0)
    say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    with condition: condition.notify()
    task.join()
    """
    assert lines_of(program) == ["0"]


def test_in_a_child_nobody_of_the_parent_has_come_to_a_barrier() -> None:
    program = """
    barrier = Barrier(2)
    task = spawn(barrier.wait)
    sleep(0.01)
    pid = os.fork()
    if pid == 0:
        mine = spawn(barrier.wait)
        sleep(0.01)
        os._exit(barrier.n_waiting + 10 * mine.done)
    say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    say(barrier.wait())
    """
    assert lines_of(program) == ["1", "1"]


def test_child_gets_what_had_room_and_was_promised_to_the_parent_s() -> None:
    program = """
    room, meeting = Channel(2), Channel()
    getter = spawn(room.get)
    putter = spawn(meeting.put, "of the parent")
    sleep(0)
    room.put(3)
    pid = os.fork()
    if pid == 0:
        mine = spawn(meeting.put, 4)
        sleep(0)
        os._exit(10 * room.get(timeout=1) + meeting.get(timeout=1))
    say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    say(getter.get(), meeting.get())
    """
    assert lines_of(program) == ["34", "3 of the parent"]


# --- Barrier ----------------------------------------------------------------------------


def test_barrier_lets_all_go_and_can_be_used_again() -> None:
    log: list[Any] = []
    barrier = Barrier(3, lambda: log.append("action"))
    tasks = [spawn(lambda: [barrier.wait(), barrier.wait()]) for _ in range(3)]
    indexes = [task.get() for task in tasks]
    assert [sorted(index) for index in zip(*indexes, strict=True)] == [[0, 1, 2], [0, 1, 2]]
    assert log == ["action", "action"]
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (3, 0, False)


def test_party_that_is_cancelled_has_not_come() -> None:
    barrier = Barrier(2)
    first, second = spawn(barrier.wait), spawn(lambda: (sleep(1), barrier.wait())[1])
    sleep(MOMENT)
    assert barrier.n_waiting == 1
    first.cancel()
    sleep(2)
    assert not second.done
    assert barrier.n_waiting == 1
    assert barrier.wait() == 1
    assert second.get() == 0


@pytest.mark.usefixtures("reports")
def test_barrier_is_broken_by_a_timeout_an_abort_and_an_action() -> None:
    barrier = Barrier(3, timeout=5)
    other = spawn(barrier.wait)
    sleep(0)
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait(1)
    for call in (other.get, barrier.wait):
        with pytest.raises(threading.BrokenBarrierError):
            call()
    assert "broken" in repr(barrier)
    barrier.reset()
    other = spawn(barrier.wait)
    sleep(0)
    barrier.reset()
    with pytest.raises(threading.BrokenBarrierError):
        other.get()
    assert not barrier.broken
    barrier.abort()
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    failing = Barrier(1, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        failing.wait()
    assert failing.broken
    aborting = Barrier(1, lambda: aborting.abort())
    with pytest.raises(threading.BrokenBarrierError):
        aborting.wait()
    with pytest.raises(ValueError, match="parties"):
        Barrier(0)


# --- Channel ----------------------------------------------------------------------------


def test_rendezvous_ends_when_the_item_was_got() -> None:
    channel: Channel[int] = Channel()
    log: list[Any] = []
    putters = [
        spawn(lambda number: (channel.put(number), log.append(number)), number)
        for number in range(3)
    ]
    sleep(1)
    assert log == []
    assert channel.get() == 0
    sleep(MOMENT)
    assert log == [0]
    assert channel.get_nowait() == 1
    assert next(channel) == 2
    with pytest.raises(Empty):
        channel.get_nowait()
    for task in putters:
        task.join()
    assert log == [0, 1, 2]


def test_channel_serves_getters_in_their_order() -> None:
    channel: Channel[int] = Channel()
    getters = [spawn(channel.get) for _ in range(3)]
    sleep(0)
    with pytest.raises(Empty):
        channel.get(timeout=1)
    channel.put_nowait(0)  # for somebody waits
    channel.put(1)
    channel.put(2)
    assert [task.get() for task in getters] == [0, 1, 2]
    with pytest.raises(Full):
        channel.put_nowait(3)
    with pytest.raises(Full):
        channel.put(3, timeout=1)
    with pytest.raises(Empty):
        channel.get_nowait()


def test_getter_that_has_not_run_yet_is_not_overtaken() -> None:
    channel: Channel[int] = Channel(2)
    first = spawn(channel.get)
    sleep(0.001)  # it waits
    channel.put(1)
    channel.put(2)
    assert channel.get() == 2
    assert first.get() == 1
    # Nor by what closing gives.
    last = spawn(channel.get)
    sleep(0.001)  # it waits
    channel.put(3)
    channel.close()
    assert list(channel) == []
    assert last.get() == 3


def test_putter_whose_item_is_got_behind_a_promised_one_goes_on() -> None:
    channel: Channel[int] = Channel(1)
    first = spawn(channel.get)
    sleep(0)
    putters = [spawn(channel.put, item) for item in (1, 2)]
    second = spawn(channel.get)  # runs before the first does
    joinall([first, *putters, second], 1)
    assert (first.get(), second.get()) == (1, 2)


def test_channel_with_capacity_runs_ahead_so_far() -> None:
    channel: Channel[int] = Channel(2)
    assert channel.capacity == 2
    channel.put(0)
    channel.put_nowait(1)
    with pytest.raises(Full):
        channel.put_nowait(2)
    task = spawn(channel.put, 2)
    sleep(0)
    assert not task.done
    assert channel.get() == 0
    task.join()
    assert [channel.get(), channel.get()] == [1, 2]


@pytest.mark.usefixtures("reports")
def test_closing_ends_the_iteration_after_what_had_room() -> None:
    channel: Channel[int] = Channel(2)
    putters = [spawn(channel.put, number) for number in range(4)]
    sleep(0)
    channel.close()
    channel.close()
    assert channel.closed
    assert "closed" in repr(channel)
    for number, task in enumerate(putters):
        if number < 2:
            task.join()
        else:
            with pytest.raises(ShutDown):
                task.get()
    with pytest.raises(ShutDown):
        channel.put(5)
    assert list(channel) == [0, 1]
    for call in (channel.get, channel.get_nowait, channel.get):
        with pytest.raises(ShutDown):
            call()


def test_closing_wakes_all_who_wait_to_get() -> None:
    channel: Channel[int] = Channel()
    tasks = [spawn(list, channel) for _ in range(3)]
    sleep(0)
    channel.close()
    assert [task.get() for task in tasks] == [[], [], []]


def test_putter_that_is_cancelled_takes_its_item_back_or_has_put_it() -> None:
    channel: Channel[int] = Channel()
    done: list[int] = []

    def put(number: int) -> None:
        channel.put(number)
        done.append(number)

    first, second = spawn(put, 1), spawn(put, 2)
    sleep(MOMENT)
    first.cancel()
    sleep(MOMENT)
    assert channel.get() == 2
    second.join()
    third = spawn(put, 3)
    sleep(MOMENT)
    assert channel.get_nowait() == 3
    third.cancel()
    third.join()
    assert done == [2, 3]
    with pytest.raises(TimeoutError), timeout(1):
        channel.put(4)
    with pytest.raises(TimeoutError), timeout(1):
        channel.get()
    with pytest.raises(Empty):
        channel.get_nowait()


def test_channel_in_a_callback() -> None:
    channel: Channel[int] = Channel()
    for call in (lambda: channel.put(1), channel.get):
        with pytest.raises(RuntimeError, match="hub callback cannot"):
            in_callback(call)
    with pytest.raises(Empty):
        channel.get_nowait()
    task = spawn(channel.get)
    sleep(MOMENT)
    in_callback(lambda: channel.put_nowait(5))
    assert task.get() == 5


@pytest.mark.parametrize("capacity", [0, 3])
def test_channel_between_threads_and_tasks(capacity: int) -> None:
    get_hub().close()  # real time
    channel: Channel[int] = Channel(capacity)
    got: list[int] = []

    def put(start: int) -> None:
        for number in range(start, start + 100):
            channel.put(number)

    def get() -> None:
        got.extend(channel)

    putter = threading.Thread(target=put, args=(0,))
    getter = threading.Thread(target=get)
    putter.start()
    getter.start()
    reader = spawn(get)
    spawn(put, 100).join()
    to_thread(putter.join)  # the reader goes on meanwhile
    channel.close()
    reader.join()
    getter.join()
    assert sorted(got) == list(range(200))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: Channel(-1), ValueError),
        (lambda: Channel().put(1, timeout=-1), ValueError),
        (lambda: Channel().get(timeout=-1), ValueError),
        (lambda: Channel().get(True, "1"), TypeError),
        (lambda: Condition(5), AttributeError),
    ],
)
def test_wrong_arguments_are_refused(call: Callable[[], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        call()


def test_deadlock_names_what_is_waited_for() -> None:
    channel: Channel[int] = Channel()
    condition, barrier = Condition(Lock()), Barrier(2)
    full: Channel[int] = Channel(1)
    full.put(1)
    spawn(channel.get).name = "getter"
    spawn(full.put, 2).name = "putter"
    spawn(wait_in, condition, [], "").name = "condition"
    spawn(barrier.wait).name = "barrier"
    sleep(0)
    with pytest.raises(DeadlockError) as caught:
        sleep(None)
    assert caught.value.waiters[1:] == [
        f"Task 'getter': get {channel!r}",
        f"Task 'putter': put {full!r}",
        f"Task 'condition': wait {condition!r}",
        f"Task 'barrier': wait {barrier!r}",
    ]


def test_a_getter_that_was_promised_an_item_takes_it_though_it_is_cancelled_at_the_lock(
    virtual_hub: Any,
) -> None:
    channel: Channel[str] = Channel()
    getter = spawn(channel.get)
    sleep(0.001)  # it waits
    channel.put("item", timeout=0)  # done, for the getter has a promise
    with channel._lock:  # as another thread may have it
        sleep(0)
        getter.cancel()
        sleep(0)
    channel.close()
    assert getter.get() == "item"


def test_a_callback_gets_what_a_channel_has(virtual_hub: Any) -> None:
    channel: Channel[str] = Channel(1)
    channel.put("item")
    assert in_callback(channel.get_nowait) == "item"


def test_a_barrier_breaks_though_who_came_too_early_is_cancelled_at_its_lock(
    virtual_hub: Any,
) -> None:
    barrier = Barrier(2)
    early = spawn(barrier.wait, 1)
    sleep(0)
    with barrier._lock:  # as another thread may have it
        sleep(2)
        early.cancel()
        sleep(0)
    with pytest.raises(threading.BrokenBarrierError):
        early.get()
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait(1)
