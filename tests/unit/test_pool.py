"""Pool: its limit, join, cancel, the with block, misuse."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pool_case import Load, fail, slow_to_end
from processes import lines_of
from sync_case import in_callback

from pycoronet import (
    Cancelled,
    DeadlockError,
    Pool,
    Task,
    get_hub,
    joinall,
    sleep,
    spawn,
    timeout,
)

pytestmark = pytest.mark.usefixtures("virtual_hub")


@pytest.fixture
def load() -> Load:
    return Load()


# --- The limit ------------------------------------------------------------------------------


def test_spawn_waits_while_the_pool_is_full(load: Load) -> None:
    pool = Pool(2)
    start = get_hub().time
    times = []
    for _ in range(5):
        pool.spawn(load, 1)
        times.append(round(get_hub().time - start))
    assert times == [0, 0, 1, 1, 2]
    assert len(pool) == 1 or load.now == 1
    pool.join()
    assert (load.most, load.ended, len(pool)) == (2, 5, 0)


def test_who_waits_for_room_gets_it_in_order(load: Load) -> None:
    pool = Pool(1)
    order: list[int] = []
    pool.spawn(sleep, 1)
    spawners = [spawn(pool.spawn, order.append, number) for number in range(5)]
    joinall(spawners)
    pool.join()
    assert order == list(range(5))


def test_a_spawn_that_is_cancelled_has_started_nothing_and_takes_no_room() -> None:
    pool = Pool(1)
    called: list[int] = []
    pool.spawn(sleep, 2)
    spawner = spawn(pool.spawn, called.append, 1)
    sleep(1)
    spawner.cancel()
    with pytest.raises(TimeoutError), timeout(0.5):
        pool.spawn(called.append, 2)
    pool.join()
    pool.spawn(called.append, 3).join()
    assert called == [3]


def test_room_is_free_again_however_a_task_ends(reports: list[Any]) -> None:
    pool = Pool(1)
    error = ArithmeticError()
    pool.spawn(fail, error)
    cancelled = pool.spawn(sleep, 9)
    cancelled.cancel()  # before it has begun
    pool.spawn(sleep, 9).cancel()
    for wrong in (None, "print"):
        with pytest.raises(TypeError):
            pool.spawn(wrong)  # type: ignore[arg-type]
    assert pool.spawn(lambda: 5).get() == 5
    pool.join()
    assert reports == [error]  # nobody has joined that task


def test_spawn_gives_arguments_and_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    pool = Pool(1)

    def call(*arguments: Any, **keywords: Any) -> Any:
        return arguments, keywords, variable.get()

    def work() -> Any:
        variable.set("mine")
        found = [pool.spawn(call, 1, a=2).get(), pool.apply(call, 1, a=2)]
        found += [*pool.map(call, [1]), *pool.imap(call, [1])]
        return found

    arguments = ((1,), {"a": 2}, "mine")
    assert spawn(work).get() == [arguments] * 2 + [((1,), {}, "mine")] * 2


def test_a_task_of_the_pool_that_needs_it_all_is_a_deadlock_that_is_told() -> None:
    pool = Pool(1)
    task = pool.spawn(lambda: pool.spawn(int).get())
    with pytest.raises(DeadlockError, match=r"spawn <Pool\(1\)"):
        task.join()


# --- join, cancel, the with block -----------------------------------------------------------


def test_join_waits_for_all_and_for_what_is_started_meanwhile(load: Load) -> None:
    pool = Pool(2)

    def grow(number: int) -> None:
        load(1)
        if number:
            spawn(pool.spawn, grow, number - 1)
            sleep(0.1)

    start = get_hub().time
    pool.join()
    pool.spawn(grow, 5)
    pool.join()
    assert get_hub().time - start > 5
    assert load.ended == 6


def test_join_times_out_and_is_cancelled_without_harm() -> None:
    pool = Pool(2)
    task = pool.spawn(sleep, 5)
    for seconds in (0, 1):
        with pytest.raises(TimeoutError, match="1 tasks"):
            pool.join(seconds)
    with pytest.raises(TimeoutError), timeout(1):
        pool.join()
    assert not task.done
    joiners = [spawn(pool.join) for _ in range(3)]
    pool.join(50)
    joinall(joiners, 1)
    for wrong, error in ((-1, ValueError), ("1", TypeError)):
        with pytest.raises(error):
            pool.join(wrong)  # type: ignore[arg-type]


def test_join_does_not_wait_for_what_nobody_reads(load: Load) -> None:
    pool = Pool(2)
    found = pool.imap(load, [1] * 20)
    pool.join()
    assert load.ended == 4
    assert list(found) == [1] * 20
    pool.join()


def test_a_task_cannot_join_its_own_pool() -> None:
    pool = Pool(2)
    with pytest.raises(RuntimeError, match="pool that it runs in"):
        pool.spawn(pool.join).get()

    def give() -> Iterator[int]:
        pool.join()
        yield 1

    with pytest.raises(RuntimeError, match="pool that it runs in"):
        pool.map(abs, give())


def test_cancel_ends_tasks_and_what_is_still_to_come(load: Load) -> None:
    pool = Pool(2)
    mapping, applying = spawn(pool.map, load, [9] * 9), spawn(pool.apply, load, 9)
    sleep(1)
    found = pool.imap(load, [9] * 9)
    sleep(1)
    pool.cancel("why")
    pool.join(1)
    for task in (mapping, applying):
        with pytest.raises(Cancelled):
            task.get(1)
    with pytest.raises(Cancelled, match="why"):
        list(found)
    assert (load.now, load.ended, len(pool)) == (0, 0, 0)
    assert pool.map(abs, [-1]) == [1]


def test_a_with_block_ends_when_its_tasks_have(load: Load) -> None:
    with Pool(2) as pool:
        for _ in range(4):
            pool.spawn(load, 1)
    assert load.ended == 4


def test_a_with_block_that_raises_cancels_its_tasks(load: Load, reports: list[Any]) -> None:
    log: list[str] = []
    with pytest.raises(ZeroDivisionError), Pool(3) as pool:
        pool.spawn(slow_to_end, log, LookupError())
        pool.spawn(load, 50)
        sleep(1)
        raise ZeroDivisionError
    assert log == ["ended"]
    assert load.now == 0
    assert [type(report) for report in reports] == [LookupError]


def test_a_with_block_that_is_cancelled_at_its_end_cancels_its_tasks(load: Load) -> None:
    log: list[str] = []
    with pytest.raises(TimeoutError), timeout(1), Pool(3) as pool:
        pool.spawn(slow_to_end, log)
        pool.spawn(load, 50)
    assert log == ["ended"]
    assert load.now == 0


def test_after_a_with_block_nothing_goes_on(load: Load) -> None:
    with Pool(2) as pool:
        found = pool.imap(load, [1] * 20)
        few = pool.imap(load, [1] * 2)
    assert get_hub().task_count == 0
    assert list(few) == [1, 1]
    with pytest.raises(Cancelled):
        list(found)


# --- What is refused, and odd uses ----------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "error"), [(0, ValueError), (-1, ValueError), (None, TypeError), (1.5, TypeError)]
)
def test_a_pool_needs_a_size(size: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Pool(size)


def test_what_is_not_callable_or_iterable_is_refused_at_once() -> None:
    pool = Pool(1)
    for method in (pool.map, pool.imap, pool.imap_unordered):
        for arguments in ((None, []), (abs, 5), (abs,), (abs, [], 5)):
            with pytest.raises(TypeError):
                method(*arguments)
    assert get_hub().task_count == 0


def test_a_pool_belongs_to_its_thread() -> None:
    pool = Pool(1)
    errors: list[Exception] = []

    def work() -> None:
        for call in (
            lambda: pool.spawn(int),
            lambda: pool.map(abs, []),
            lambda: pool.imap(abs, []),
            lambda: pool.apply(int),
            pool.join,
            pool.cancel,
            pool.__enter__,
        ):
            try:
                call()
            except RuntimeError as error:
                errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(errors) == 7


def test_in_a_callback_a_pool_starts_what_there_is_room_for() -> None:
    pool = Pool(1)
    task: Task = in_callback(lambda: pool.spawn(sleep, 5))
    with pytest.raises(RuntimeError, match="cannot"):
        in_callback(lambda: pool.spawn(int))
    with pytest.raises(RuntimeError, match="cannot"):
        in_callback(pool.join)
    task.join()
    pool.join()


def test_a_pool_outlives_its_hub() -> None:
    pool = Pool(1)
    pool.spawn(sleep, 50)
    sleep(1)
    get_hub().close()
    assert len(pool) == 0
    get_hub(backend="fake")
    assert pool.apply(lambda: 5) == 5


def test_a_pool_in_a_forked_child_is_empty() -> None:
    assert lines_of(
        """
        pool = Pool(1)
        pool.spawn(sleep, 0.01)
        sleep(0)
        if os.fork() == 0:
            pool.join()
            say(pool.map(abs, [-1, -2]), len(pool))
            os._exit(0)
        os.wait()
        pool.join()
        say("parent", len(pool))
        """
    ) == ["[1, 2] 0", "parent 0"]


def test_repr_and_length_say_what_it_does() -> None:
    pool = Pool(3)
    assert pool
    assert len(pool) == 0
    pool.spawn(sleep, 1)
    assert repr(pool) == "<Pool(3) with 1 tasks>"
    assert pool.size == 3
