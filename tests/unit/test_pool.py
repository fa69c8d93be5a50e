"""Pool: its limit, results in order and out of it, failures, cancellation, misuse."""

from __future__ import annotations

import contextvars
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from processes import lines_of
from sync_case import in_callback

from pycoronet import (
    Cancelled,
    DeadlockError,
    Pool,
    Task,
    current,
    get_hub,
    joinall,
    shield,
    sleep,
    spawn,
    timeout,
)

pytestmark = pytest.mark.usefixtures("virtual_hub")

RESULTS: dict[str, Callable[..., Any]] = {
    "map": Pool.map,
    "imap": lambda *arguments: list(Pool.imap(*arguments)),
    "imap_unordered": lambda *arguments: sorted(Pool.imap_unordered(*arguments)),
}
all_results = pytest.mark.parametrize("results", RESULTS.values(), ids=RESULTS)
iterators = pytest.mark.parametrize("name", ["imap", "imap_unordered"])


class Load:
    """A function to be called in a pool: takes so long, and counts how many do at once."""

    def __init__(self) -> None:
        self.now = self.most = self.begun = self.ended = 0

    def __call__(self, seconds: float, *rest: Any) -> Any:
        self.begun += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            sleep(seconds)
            self.ended += 1
        finally:
            self.now -= 1
        return (seconds, *rest) if rest else seconds


@pytest.fixture
def load() -> Load:
    return Load()


def fail(error: BaseException, seconds: float = 0) -> None:
    sleep(seconds)
    raise error



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
    error = ValueError()
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
    with pytest.raises(DeadlockError, match=r"acquire <Pool\(1\)"):
        task.join()


# --- Results --------------------------------------------------------------------------------


@all_results
def test_results_are_complete_and_within_the_limit(results: Any, load: Load) -> None:
    times = [3, 1, 2, 5, 1, 1, 4] * 10
    found = results(Pool(3), load, times)
    assert found == (times if results is not RESULTS["imap_unordered"] else sorted(times))
    assert load.most == 3


@all_results
def test_several_iterables_and_none_at_all(results: Any, load: Load) -> None:
    assert results(Pool(9), load, [1, 2], "ab", iter([True] * 9)) == [
        (1, "a", True),
        (2, "b", True),
    ]
    assert results(Pool(9), load, []) == []
    with pytest.raises(TypeError):
        results(Pool(9), load)


def test_imap_keeps_order_and_imap_unordered_gives_who_is_first(load: Load) -> None:
    pool = Pool(3)
    assert list(pool.imap(load, [3, 1, 2])) == [3, 1, 2]
    assert list(pool.imap_unordered(load, [3, 1, 2])) == [1, 2, 3]


@iterators
def test_iterators_run_ahead_of_their_reader_only_so_far(name: str, load: Load) -> None:
    taken: list[int] = []

    def give() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield 1

    pool = Pool(3)
    found = getattr(pool, name)(load, give())
    assert taken == []  # not before anybody waits
    for read in range(20):
        sleep(50)
        assert load.begun == len(taken) == read + 2 * pool.size
        next(found)
    assert len(list(found)) == 80
    assert load.most <= 3


def test_map_takes_no_more_than_the_pool_can_run(load: Load) -> None:
    ahead: list[int] = []

    def give() -> Iterator[int]:
        for taken in range(100):
            ahead.append(taken + 1 - load.ended)
            yield 1

    Pool(3).map(load, give())
    assert max(ahead) == 4  # the one taken waits for room


@iterators
def test_an_iterable_may_wait_while_results_come(name: str, load: Load) -> None:
    start = get_hub().time

    def give() -> Iterator[float]:
        yield 1
        sleep(10)
        yield 1

    found = getattr(Pool(1), name)(load, give())
    times = [round(get_hub().time - start) for _ in found]
    assert times == [1, 11]


# --- Failures -------------------------------------------------------------------------------


def test_a_failure_comes_out_of_imap_at_its_place(reports: list[Any]) -> None:
    errors = {2: ValueError(2), 4: ValueError(4)}

    def call(number: int) -> int:
        sleep(10 - number)
        if number in errors:
            raise errors[number]
        return number

    found = Pool(10).imap(call, range(6))
    seen: list[Any] = []
    for _ in range(6):
        try:
            seen.append(next(found))
        except ValueError as error:
            seen.append(error)
    assert seen == [0, 1, errors[2], 3, errors[4], 5]
    with pytest.raises(StopIteration):
        next(found)
    assert reports == []


def test_a_failure_comes_out_of_imap_unordered_when_it_happens() -> None:
    found = Pool(10).imap_unordered(fail, [ValueError(), LookupError()], [2, 1])
    for kind in (LookupError, ValueError, StopIteration):
        with pytest.raises(kind):
            next(found)


def test_a_failure_of_map_cancels_the_rest_and_waits_for_it(
    load: Load, reports: list[Any]
) -> None:
    error = ValueError()
    start = get_hub().time

    def call(number: int) -> None:
        if number == 1:
            fail(error, 1)
        try:
            load(50)
        finally:
            with pytest.raises(TimeoutError), timeout(None) as scope:
                scope.cancel()
                sleep(1)

    pool = Pool(3)
    with pytest.raises(ValueError) as caught:
        pool.map(call, range(100))
    assert caught.value is error
    assert get_hub().time - start < 2
    assert (load.begun, load.ended, load.now, get_hub().task_count) == (2, 0, 0, 0)
    assert reports == []
    assert pool.map(abs, [-1]) == [1]


def test_further_failures_of_map_are_reported(reports: list[Any]) -> None:
    errors = [ValueError(number) for number in range(3)]

    def call(number: int) -> None:
        try:
            sleep(number)
        except Cancelled:
            pass
        raise errors[number]

    with pytest.raises(ValueError) as caught:
        Pool(3).map(call, range(3))
    assert caught.value is errors[0]
    assert reports == errors[1:]


@all_results
def test_a_failure_of_the_iterable_comes_out(results: Any, load: Load, reports: list[Any]) -> None:
    error = ValueError("of the iterable")

    def give() -> Iterator[int]:
        yield 1
        raise error

    with pytest.raises(ValueError) as caught:
        results(Pool(2), load, give())
    assert caught.value is error
    assert get_hub().task_count == 0
    assert reports == []


def test_results_come_before_the_failure_of_the_iterable() -> None:
    def give() -> Iterator[int]:
        yield from range(3)
        raise ValueError

    found = Pool(2).imap(abs, give())
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError):
        next(found)
    with pytest.raises(StopIteration):
        next(found)


@all_results
def test_stop_iteration_of_a_function_ends_nothing_quietly(results: Any) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        results(Pool(2), fail, [StopIteration()])


@all_results
def test_what_ends_programs_goes_to_the_main_program(results: Any, reports: list[Any]) -> None:
    with pytest.raises(SystemExit):
        results(Pool(2), fail, [SystemExit(3)])
    sleep(1)
    assert reports == []


# --- apply ----------------------------------------------------------------------------------


def test_apply_returns_and_raises_what_the_function_does(reports: list[Any]) -> None:
    pool = Pool(1)
    assert pool.apply(lambda *a, **k: (a, k, current()), 1, b=2)[:2] == ((1,), {"b": 2})
    with pytest.raises(ValueError):
        pool.apply(fail, ValueError())
    with pytest.raises(TypeError):
        pool.apply(None)  # type: ignore[arg-type]
    assert reports == []


def test_apply_waits_for_room(load: Load) -> None:
    pool = Pool(2)
    joinall([spawn(pool.apply, load, 1) for _ in range(10)])
    assert (load.most, load.ended) == (2, 10)


# --- Whoever waits is cancelled -------------------------------------------------------------


def slow_to_end(log: list[str], error: BaseException | None = None) -> None:
    try:
        sleep(60)
    finally:
        with shield():
            sleep(1)
        log.append("ended")
        if error is not None:
            raise error


@pytest.mark.parametrize("how", ["apply", "map"])
def test_who_is_cancelled_leaves_no_task_behind(how: str, reports: list[Any]) -> None:
    log: list[str] = []
    error = LookupError()
    pool = Pool(2)
    start = get_hub().time
    with pytest.raises(TimeoutError) as caught, timeout(1) as scope:
        if how == "apply":
            pool.apply(slow_to_end, log, error)
        else:
            pool.map(slow_to_end, [log] * 5, [error] * 5)
    assert caught.value.scope is scope  # type: ignore[attr-defined]
    assert get_hub().time - start == pytest.approx(2, abs=0.1)
    number = 1 if how == "apply" else 2
    assert log == ["ended"] * number
    assert reports == [error] * number
    assert get_hub().task_count == 0
    assert pool.apply(int) == 0


@iterators
def test_a_reader_that_is_cancelled_loses_nothing(name: str, load: Load) -> None:
    found = getattr(Pool(3), name)(load, [1, 2, 3, 4, 5])
    seen: list[int] = []
    cuts = 0
    while True:
        try:
            with timeout(0.3):
                seen.append(next(found))
        except TimeoutError:
            cuts += 1
        except StopIteration:
            break
    assert seen == [1, 2, 3, 4, 5]
    assert cuts > 5


def test_a_cancelled_reader_does_not_harm_the_iterable(load: Load) -> None:
    def give() -> Iterator[int]:
        for _ in range(3):
            sleep(10)  # Cancelled here would be the end of it
            yield 1

    found = Pool(1).imap(load, give())
    with pytest.raises(TimeoutError), timeout(5):
        next(found)
    assert list(found) == [1, 1, 1]


@iterators
def test_many_readers_share_the_results(name: str, load: Load) -> None:
    found = getattr(Pool(3), name)(load, range(20))
    readers = [spawn(list, found) for _ in range(5)]
    assert sorted(number for reader in readers for number in reader.get()) == list(range(20))


# --- Iterators that nobody reads any more ---------------------------------------------------


@iterators
@pytest.mark.parametrize("is_closed", [True, False])
def test_what_nobody_reads_is_cancelled_and_its_failures_are_reported(
    name: str, is_closed: bool, load: Load, reports: list[Any]
) -> None:
    unread, late = ValueError("unread"), ValueError("late")
    log: list[str] = []

    def call(number: int) -> None:
        if number == 1:
            fail(unread, 1)
        if number == 2:
            slow_to_end(log, late)
        load(number and 50)

    pool = Pool(4)
    found = getattr(pool, name)(call, range(100))
    next(found)
    sleep(2)
    if is_closed:
        found.close()
        found.close()
        with pytest.raises(StopIteration):
            next(found)
    else:
        del found
    pool.join()
    assert log == ["ended"]
    assert reports == [unread, late]
    assert (load.now, load.ended, get_hub().task_count) == (0, 1, 0)


def test_a_failure_of_the_iterable_that_nobody_reads_is_reported(reports: list[Any]) -> None:
    error = ValueError()

    def give() -> Iterator[int]:
        yield 1
        raise error

    for wait in (True, False):
        pool = Pool(1)
        found = pool.imap(sleep, give())
        if wait:
            sleep(5)
        else:
            sleep(0.5)
        del found
        pool.join()
    assert reports == [error, error]


def test_an_iterator_nobody_has_begun_to_read_is_dropped(load: Load) -> None:
    pool = Pool(2)
    pool.imap(load, [1, 2, 3])
    pool.join()
    assert load.begun == 0


def test_iterators_may_be_dropped_in_another_thread_and_after_their_hub(load: Load) -> None:
    pool = Pool(2)
    held = [pool.imap(load, [50] * 9), pool.imap(load, [50] * 9)]
    sleep(1)
    thread = threading.Thread(target=held.pop)
    thread.start()
    thread.join()
    assert load.now == 2
    get_hub().close()
    assert load.now == 0
    held.clear()
    gc.collect()


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
    assert pool and len(pool) == 0
    pool.spawn(sleep, 1)
    assert repr(pool) == "<Pool(3) with 1 tasks>"
    assert pool.size == 3
