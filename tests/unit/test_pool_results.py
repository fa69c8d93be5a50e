"""map, imap, imap_unordered and apply of a Pool: order, failures, who is cancelled."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pool_case import RESULTS, Load, all_results, fail, iterators, slow_to_end

from pycoronet import (
    Cancelled,
    Pool,
    current,
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
    errors = {2: ArithmeticError(2), 4: ArithmeticError(4)}

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
        except ArithmeticError as error:
            seen.append(error)
    assert seen == [0, 1, errors[2], 3, errors[4], 5]
    with pytest.raises(StopIteration):
        next(found)
    assert reports == []


def test_a_failure_comes_out_of_imap_unordered_when_it_happens() -> None:
    found = Pool(10).imap_unordered(fail, [ArithmeticError(), LookupError()], [2, 1])
    for kind in (LookupError, ArithmeticError, StopIteration):
        with pytest.raises(kind):
            next(found)


def test_a_failure_of_map_cancels_the_rest_and_waits_for_it(load: Load, reports: list[Any]) -> None:
    error = ArithmeticError()
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
    with pytest.raises(ArithmeticError) as caught:
        pool.map(call, range(100))
    assert caught.value is error
    assert get_hub().time - start < 2
    assert (load.begun, load.ended, load.now, get_hub().task_count) == (2, 0, 0, 0)
    assert reports == []
    assert pool.map(abs, [-1]) == [1]


def test_further_failures_of_map_are_reported(reports: list[Any]) -> None:
    errors = [ArithmeticError(number) for number in range(3)]

    def call(number: int) -> None:
        try:
            sleep(number + 1)  # all have begun when the first fails
        except Cancelled:
            pass
        raise errors[number]

    with pytest.raises(ArithmeticError) as caught:
        Pool(3).map(call, range(3))
    assert caught.value is errors[0]
    assert reports == errors[1:]


@all_results
def test_a_failure_of_the_iterable_comes_out(results: Any, load: Load, reports: list[Any]) -> None:
    error = ArithmeticError("of the iterable")

    def give() -> Iterator[int]:
        yield 1
        raise error

    with pytest.raises(ArithmeticError) as caught:
        results(Pool(2), load, give())
    assert caught.value is error
    assert get_hub().task_count == 0
    assert reports == []


def test_results_come_before_the_failure_of_the_iterable() -> None:
    def give() -> Iterator[int]:
        yield from range(3)
        raise ArithmeticError

    found = Pool(2).imap(abs, give())
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ArithmeticError):
        next(found)
    with pytest.raises(StopIteration):
        next(found)


@all_results
def test_stop_iteration_of_a_function_ends_nothing_quietly(results: Any) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        results(Pool(2), fail, [StopIteration()])


def test_stop_iteration_that_is_there_already_ends_nothing_quietly() -> None:
    found = Pool(1).imap(fail, [StopIteration()])
    sleep(1)  # the function is called
    with pytest.raises(RuntimeError, match="StopIteration"):
        next(found)


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
    with pytest.raises(ArithmeticError):
        pool.apply(fail, ArithmeticError())
    with pytest.raises(TypeError):
        pool.apply(None)  # type: ignore[arg-type]
    assert reports == []


def test_apply_waits_for_room(load: Load) -> None:
    pool = Pool(2)
    joinall([spawn(pool.apply, load, 1) for _ in range(10)])
    assert (load.most, load.ended) == (2, 10)


# --- Whoever waits is cancelled -------------------------------------------------------------


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


@pytest.mark.parametrize("what", ["reader", "pool"])
def test_what_is_cancelled_as_room_becomes_free_starts_nothing(what: str) -> None:
    pool = Pool(1)
    taken: list[float] = []
    begun: list[float] = []

    def inputs() -> Iterator[float]:
        for seconds in (1, 3600, 3600):
            taken.append(seconds)
            yield seconds

    def call(seconds: float) -> None:
        begun.append(seconds)
        sleep(seconds)
        task = current()
        assert task is not None
        if what == "reader":
            reader.cancel()
        else:
            task.link(lambda _: pool.cancel())

    reader = spawn(pool.map, call, inputs())
    start = get_hub().time
    with pytest.raises(Cancelled):
        reader.get()
    pool.join()
    assert get_hub().time - start < 3600
    assert begun == [1]
    assert taken == [1, 3600]


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
    unread, late = ArithmeticError("unread"), ArithmeticError("late")
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
    error = ArithmeticError()

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


@iterators
def test_a_loop_that_raises_ends_its_calls_without_the_collector(name: str, load: Load) -> None:
    def work() -> None:
        for result in getattr(Pool(3), name)(call, [1, 2, 50, 50]):
            assert result == 1

    def call(seconds: float) -> Any:
        if seconds == 2:
            raise LookupError
        return load(seconds)

    gc.disable()
    try:
        for _ in range(3):
            try:
                work()
            except LookupError:
                pass
            else:
                raise AssertionError
            sleep(1)
            assert load.now == 0
    finally:
        gc.enable()
