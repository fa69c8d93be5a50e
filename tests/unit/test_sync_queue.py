"""Queue, LifoQueue, PriorityQueue, SimpleQueue: order, fairness, cancelling, shutdown, threads."""

from __future__ import annotations

import queue as stdlib
import threading
from typing import Any

import pytest
from connections import MOMENT
from processes import lines_of

from pycoronet import (
    Cancelled,
    LifoQueue,
    PriorityQueue,
    Queue,
    ShutDown,
    SimpleQueue,
    get_hub,
    sleep,
    spawn,
    timeout,
)

pytestmark = pytest.mark.usefixtures("virtual_hub")

BOUNDED: list[Any] = [Queue, LifoQueue, PriorityQueue]
ALL: list[Any] = [*BOUNDED, SimpleQueue]


# --- Order and fairness -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_getters_are_served_in_their_order(kind: Any) -> None:
    queue = kind()
    log: list[Any] = []
    for number in range(5):
        spawn(lambda number: log.append((number, queue.get())), number)
    sleep(0)
    for number in range(5):
        queue.put(number)
        sleep(0)
    assert log == [(number, number) for number in range(5)]


@pytest.mark.parametrize("kind", BOUNDED)
def test_putters_are_served_in_their_order(kind: Any) -> None:
    queue = kind(1)
    queue.put(0)
    done: list[int] = []
    for number in range(1, 5):
        spawn(lambda number: (queue.put(number), done.append(number)), number)
    sleep(0)
    for number in range(5):
        assert queue.get() == number
        sleep(0)
        assert done == list(range(1, min(number + 2, 5)))


@pytest.mark.parametrize("kind", ALL)
def test_item_for_who_waits_counts_for_nobody_else(kind: Any) -> None:
    queue = kind()
    task = spawn(queue.get)
    sleep(MOMENT)
    queue.put("item")
    assert queue.empty()
    assert queue.qsize() == 0
    with pytest.raises(stdlib.Empty):
        queue.get_nowait()
    assert task.get() == "item"


@pytest.mark.parametrize("kind", BOUNDED)
def test_place_for_who_waits_is_not_taken_by_others(kind: Any) -> None:
    queue = kind(1)
    queue.put(1)
    task = spawn(queue.put, 2)
    sleep(0)
    assert queue.get() == 1
    assert queue.full()
    with pytest.raises(stdlib.Full):
        queue.put_nowait(3)
    task.join()
    assert queue.get() == 2
    assert not queue.full()


def test_putter_that_has_not_run_yet_is_not_overtaken() -> None:
    queue: Queue[int] = Queue(2)
    for _ in range(2):
        queue.put(0)
    first = spawn(queue.put, 1)
    sleep(0)
    assert [queue.get(), queue.get()] == [0, 0]
    queue.put(2)
    assert first.done
    assert [queue.get(), queue.get()] == [1, 2]


@pytest.mark.optimisation("calls that need not wait go on without giving way")
def test_who_cannot_wait_puts_beside_a_promise() -> None:
    queue: Queue[int] = Queue(3)
    log: list[bool] = []

    def put() -> None:
        log.append(first.done)
        queue.put(2)

    for _ in range(3):
        queue.put(0)
    first = spawn(queue.put, 1)
    sleep(0)
    get_hub().call_soon(put)
    assert [queue.get() for _ in range(3)] == [0, 0, 0]
    queue.put_nowait(3)
    first.join()
    assert log[0] is False
    assert [queue.get() for _ in range(3)] == [3, 2, 1]


@pytest.mark.parametrize("kind", [Queue, SimpleQueue])
def test_item_is_got_by_whom_it_was_promised(kind: Any) -> None:
    queue = kind()
    tasks = [spawn(queue.get) for _ in range(3)]
    sleep(MOMENT)
    for number in range(6):
        queue.put_nowait(number)
    assert [queue.get_nowait() for _ in range(2)] == [3, 4]
    assert [task.get() for task in tasks] == [0, 1, 2]
    assert queue.get_nowait() == 5


def test_order_of_each_kind() -> None:
    items = [3, 1, 2]
    for kind, order in (
        (Queue, [3, 1, 2]),
        (SimpleQueue, [3, 1, 2]),
        (LifoQueue, [2, 1, 3]),
        (PriorityQueue, [1, 2, 3]),
    ):
        queue: Any = kind()
        for item in items:
            queue.put(item)
        assert queue.qsize() == 3
        assert [queue.get() for _ in items] == order


def test_queue_grows_and_shrinks_in_order() -> None:
    queue: Queue[int] = Queue()
    put = got = 0
    for more, less in ((100, 30), (1000, 1065), (3, 3), (500, 505)):
        for _ in range(more):
            queue.put(put)
            put += 1
        for _ in range(less):
            assert queue.get() == got
            got += 1
    assert put == got
    assert queue.empty()


def test_limit_is_changed_while_some_wait() -> None:
    queue: Queue[int] = Queue(1)
    tasks = [spawn(queue.put, number) for number in range(5)]
    sleep(MOMENT)
    assert queue.qsize() == 1
    queue.maxsize = 3
    sleep(MOMENT)
    assert [task.done for task in tasks] == [True, True, True, False, False]
    queue.maxsize = 0
    sleep(MOMENT)
    assert all(task.done for task in tasks)
    assert [queue.get() for _ in range(5)] == list(range(5))


def test_many_operations_without_waiting_give_way() -> None:
    queue: Queue[int] = Queue()
    for call in (lambda: queue.put(1), queue.get):
        seen: list[int] = []
        spawn(seen.append, 1)
        for _ in range(300):
            call()
        assert seen == [1]


def test_time_limits() -> None:
    queue: Queue[int] = Queue(1)
    with pytest.raises(stdlib.Empty):
        queue.get(timeout=2)
    assert get_hub().time >= 2
    with pytest.raises(stdlib.Empty):
        queue.get(True, 0)
    queue.put(1)
    with pytest.raises(stdlib.Full):
        queue.put(2, timeout=1)
    with pytest.raises(TimeoutError), timeout(1):
        queue.put(2)
    assert queue.get() == 1
    with pytest.raises(TimeoutError), timeout(1):
        queue.get()
    queue.put(3)
    assert queue.get() == 3


# --- Cancelling -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_getter_that_is_cancelled_takes_nothing(kind: Any) -> None:
    queue = kind()
    first, second = spawn(queue.get), spawn(queue.get)
    sleep(MOMENT)
    first.cancel()
    queue.put("item")
    with pytest.raises(Cancelled):
        first.get()
    assert second.get() == "item"


@pytest.mark.parametrize("kind", ALL)
def test_getter_that_is_cancelled_after_it_was_served_has_its_item(kind: Any) -> None:
    queue = kind()
    got: list[str] = []

    def work() -> None:
        got.append(queue.get())
        sleep(1)

    task = spawn(work)
    sleep(0)
    queue.put("item")
    task.cancel()
    with pytest.raises(Cancelled):
        task.get()
    assert got == ["item"]


@pytest.mark.parametrize("kind", ALL)
def test_item_for_a_main_program_that_is_interrupted_goes_to_the_next(kind: Any) -> None:
    queue = kind()

    def interrupt() -> None:
        queue.put("item")
        raise KeyboardInterrupt

    get_hub().call_later(1, interrupt)
    second = spawn(lambda: (sleep(0.5), queue.get())[1])
    with pytest.raises(KeyboardInterrupt):
        queue.get()
    assert second.get() == "item"
    # And with nobody next it stays.
    get_hub().call_later(1, interrupt)
    with pytest.raises(KeyboardInterrupt):
        queue.get()
    assert queue.get_nowait() == "item"


@pytest.mark.parametrize("kind", BOUNDED)
def test_place_of_a_putter_that_is_cancelled_goes_to_the_next(kind: Any) -> None:
    queue = kind(1)
    queue.put(0)
    first, second = spawn(queue.put, 1), spawn(queue.put, 2)
    sleep(0)
    first.cancel()
    assert queue.get() == 0
    with pytest.raises(Cancelled):
        first.get()
    second.join()
    assert queue.get() == 2


# --- Joining and shutting down ----------------------------------------------------------


@pytest.mark.parametrize("kind", BOUNDED)
def test_join_waits_for_task_done(kind: Any) -> None:
    queue = kind()
    queue.join()
    queue.put(1)
    queue.put(2)
    assert queue.unfinished_tasks == 2
    task = spawn(queue.join)
    queue.get()
    queue.task_done()
    sleep(1)
    assert not task.done
    queue.task_done()
    task.join()
    with pytest.raises(ValueError, match="more often"):
        queue.task_done()


@pytest.mark.parametrize("kind", ALL)
def test_shutdown_lets_what_is_there_be_got(kind: Any) -> None:
    queue = kind()
    queue.put(1)
    queue.shutdown()
    assert queue.is_shutdown
    for call in (lambda: queue.put(2), lambda: queue.put_nowait(2)):
        with pytest.raises(ShutDown):
            call()
    assert queue.get() == 1
    for call in (queue.get, queue.get_nowait, lambda: queue.get(timeout=1)):
        with pytest.raises(ShutDown):
            call()
    assert "shut down" in repr(queue)


@pytest.mark.parametrize("kind", BOUNDED)
@pytest.mark.usefixtures("reports")
def test_shutdown_wakes_who_waits(kind: Any) -> None:
    queue = kind(1)
    getters = [spawn(queue.get) for _ in range(3)]
    sleep(0)
    queue.put("promised")
    queue.shutdown()
    assert getters[0].get() == "promised"
    for task in getters[1:]:
        with pytest.raises(ShutDown):
            task.get()
    queue = kind(1)
    queue.put(0)
    putters = [spawn(queue.put, 1) for _ in range(3)]
    joiner = spawn(queue.join)
    sleep(0)
    queue.get()  # the first of them may put, and has not yet
    queue.shutdown()
    for task in putters:
        with pytest.raises(ShutDown):
            task.get()
    queue.task_done()
    joiner.join()


@pytest.mark.usefixtures("reports")
@pytest.mark.parametrize("kind", BOUNDED)
def test_shutdown_of_a_full_queue_wakes_who_waits_to_put(kind: Any) -> None:
    queue = kind(1)
    queue.put(0)
    putters = [spawn(queue.put, 1) for _ in range(3)]
    sleep(0)
    queue.shutdown()
    for task in putters:
        with pytest.raises(ShutDown):
            task.get()
    assert queue.get() == 0


@pytest.mark.parametrize("kind", BOUNDED)
def test_immediate_shutdown_drops_all_and_counts_it_as_done(kind: Any) -> None:
    queue = kind()
    getter = spawn(queue.get)
    sleep(MOMENT)
    for number in range(4):
        queue.put_nowait(number)
    joiner = spawn(queue.join)
    sleep(MOMENT)
    queue.shutdown(immediate=True)
    assert getter.get() == (3 if kind is LifoQueue else 0)
    assert queue.qsize() == 0
    with pytest.raises(ShutDown):
        queue.get()
    assert not joiner.done
    queue.task_done()
    joiner.join()


def test_promise_is_void_when_all_is_dropped() -> None:
    queue: Queue[int] = Queue()
    getter = spawn(queue.get)
    sleep(0)
    queue.put(1)
    queue.shutdown(immediate=True)
    with pytest.raises(ShutDown):
        getter.get()


# --- Threads and forks ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("is_producer", [False, True])
def test_threads_and_tasks_exchange_items(kind: Any, is_producer: bool) -> None:
    get_hub().close()  # real time
    queue = kind() if kind is SimpleQueue else kind(3)
    got: list[int] = []
    others: list[int] = []

    def put() -> None:
        for number in range(500):
            queue.put(number)
        queue.put(10**6)

    def get() -> None:
        while (item := queue.get()) != 10**6:
            got.append(item)

    thread = threading.Thread(target=put if is_producer else get)
    thread.start()
    other = spawn(lambda: [others.append(sleep(0) or 1) for _ in range(10)])
    spawn(get if is_producer else put).join()
    thread.join()
    other.join()
    if kind in (Queue, SimpleQueue):
        assert got == list(range(500))
    assert set(got) <= set(range(500))
    assert len(others) == 10


def test_many_threads_and_tasks_lose_nothing() -> None:
    get_hub().close()
    queue: Queue[int] = Queue(5)
    got: list[int] = []

    def put(start: int) -> None:
        for number in range(start, start + 100):
            queue.put(number)

    def get() -> None:
        for _ in range(100):
            got.append(queue.get())

    threads = [threading.Thread(target=put, args=(number * 100,)) for number in range(3)]
    threads += [threading.Thread(target=get) for _ in range(3)]
    tasks = [spawn(put, number * 100) for number in range(3, 6)] + [spawn(get) for _ in range(3)]
    for thread in threads:
        thread.start()
    for task in tasks:
        task.join()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(600))


@pytest.mark.parametrize("kind", ["Queue", "PriorityQueue", "SimpleQueue"])
def test_forked_child_uses_a_queue_that_others_waited_at(kind: str) -> None:
    program = f"""
    queue = {kind}()
    getters = [spawn(queue.get) for _ in range(2)]
    sleep(0)
    queue.put(1)  # promised to the first one, who has not run when we fork
    pid = os.fork()
    if pid == 0:
        assert queue.get() == 1
        queue.put(2)
        assert queue.get() == 2
        task = spawn(queue.get)
        sleep(0)
        queue.put(3)
        assert task.get() == 3
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    queue.put(2)
    say(*[task.get() for task in getters])
    """
    assert lines_of(program) == ["1 2"]
