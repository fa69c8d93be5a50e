"""ThreadPool: who gets which job, how it grows and shrinks, how it ends."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from processes import lines_of

import pycoronet
from pycoronet import DeadlockError, _thread_pool
from pycoronet._thread_pool import ThreadPool

NAME = "pool under test"


class Work:
    """A job that goes on until it is let go."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.ended = threading.Event()
        self.release = threading.Event()
        self.thread: int | None = None

    def __call__(self) -> Callable[[], object]:
        self.thread = threading.get_ident()
        self.began.set()
        self.release.wait()
        return self.finish

    def finish(self) -> None:
        self.ended.set()

    def end(self) -> None:
        self.release.set()
        self.ended.wait()


def threads_of_pools() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


@pytest.fixture
def make_pool() -> Iterator[Callable[..., ThreadPool]]:
    """Return a maker of pools; in the end their threads are gone."""
    pools: list[ThreadPool] = []

    def make(minimum: int, maximum: int, **settings: Any) -> ThreadPool:
        pools.append(ThreadPool(minimum, maximum, name=NAME, **settings))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()
    for thread in threads_of_pools():
        thread.join()
    assert [(pool.threads, pool.idle, pool.waiting) for pool in pools] == [(0, 0, 0)] * len(pools)


def occupy(pool: ThreadPool, count: int) -> list[Work]:
    """Submit so many jobs that go on until they are let go."""
    works = [Work() for _ in range(count)]
    for work in works:
        assert pool.submit(work)
    return works


def begin(pool: ThreadPool, count: int) -> list[Work]:
    """Submit so many jobs, and wait until each has a thread."""
    works = occupy(pool, count)
    for work in works:
        work.began.wait()
    return works


def end(works: list[Work]) -> None:
    for work in works:
        work.end()


def counts(pool: ThreadPool) -> tuple[int, int, int]:
    return pool.threads, pool.idle, pool.waiting


# --- Growing ------------------------------------------------------------------------------


def test_there_are_no_threads_until_they_are_needed(
    make_pool: Callable[..., ThreadPool],
) -> None:
    pool = make_pool(2, 4)
    assert counts(pool) == (0, 0, 0)
    assert threads_of_pools() == []


def test_start_starts_the_fewest_that_there_are(make_pool: Callable[..., ThreadPool]) -> None:
    pool = make_pool(2, 4)
    pool.start()
    assert counts(pool) == (2, 2, 0)
    pool.start()
    assert len(threads_of_pools()) == 2
    end(begin(pool, 2))
    assert counts(pool) == (2, 2, 0)


def test_it_grows_while_all_are_busy_and_then_jobs_wait(
    make_pool: Callable[..., ThreadPool],
) -> None:
    pool = make_pool(1, 3)
    works = begin(pool, 3)
    assert counts(pool) == (3, 0, 0)
    waiting = occupy(pool, 5)
    assert counts(pool) == (3, 0, 5)
    assert len({work.thread for work in works}) == 3
    works[0].end()
    waiting[0].began.wait()  # the first that waited is the first that is served
    assert waiting[0].thread == works[0].thread
    assert counts(pool) == (3, 0, 4)
    end(works[1:])
    end(waiting)
    assert counts(pool) == (3, 3, 0)


def test_a_limit_is_not_met_while_there_may_be_more_threads(
    make_pool: Callable[..., ThreadPool],
) -> None:
    # However fast they come: with nothing that may wait, each calls a thread at once.
    pool = make_pool(0, 3, limit=0)
    works = occupy(pool, 3)
    assert counts(pool) == (3, 0, 0)
    assert not pool.submit(Work())
    end(works)
    works = occupy(pool, 3)
    assert not pool.submit(Work())
    end(works)


def test_one_thread_at_a_time_is_on_its_way(
    make_pool: Callable[..., ThreadPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    take = _thread_pool._Worker.take

    def take_late(worker: Any) -> Any:
        job = take(worker)
        gate.wait()
        return job

    monkeypatch.setattr(_thread_pool._Worker, "take", take_late)
    pool = make_pool(0, 3)
    works = occupy(pool, 4)
    assert counts(pool) == (1, 0, 3)
    gate.set()
    for work in works[:3]:
        work.began.wait()
    assert counts(pool) == (3, 0, 1)
    end(works)


def test_a_burst_is_done_in_order_by_threads_that_call_one_another(
    make_pool: Callable[..., ThreadPool],
) -> None:
    pool = make_pool(0, 4, limit=3)
    works = occupy(pool, 7)
    assert not pool.submit(Work())
    for work in works[:4]:
        work.began.wait()
    assert counts(pool) == (4, 0, 3)
    for before, work in enumerate(works[4:]):
        assert not work.began.is_set()
        works[before].end()
        work.began.wait()
    end(works[3:])
    assert counts(pool) == (4, 4, 0)


def test_more_waiting_jobs_than_the_limit_are_refused(
    make_pool: Callable[..., ThreadPool],
) -> None:
    pool = make_pool(0, 1, limit=2)
    works = begin(pool, 1) + occupy(pool, 2)
    assert not pool.submit(Work())
    assert counts(pool) == (1, 0, 2)
    works[0].end()
    works[1].began.wait()
    works += occupy(pool, 1)
    assert not pool.submit(Work())
    end(works)
    assert counts(pool) == (1, 1, 0)


def test_an_idle_thread_is_taken_before_one_is_started_and_the_last_one_first(
    make_pool: Callable[..., ThreadPool],
) -> None:
    pool = make_pool(0, 9)
    works = begin(pool, 3)
    for index in (1, 0, 2):
        works[index].end()
    again = begin(pool, 2)
    assert [work.thread for work in again] == [works[2].thread, works[0].thread]
    assert counts(pool) == (3, 1, 0)
    end(again)


def test_whoever_hears_of_the_outcome_finds_the_thread_idle(
    make_pool: Callable[..., ThreadPool],
) -> None:
    pool = make_pool(0, 5)
    seen: list[Any] = []
    heard = threading.Event()

    def finish() -> None:
        seen.append(counts(pool))
        heard.set()

    assert pool.submit(lambda: finish)
    heard.wait()
    assert seen == [(1, 1, 0)]


def test_a_job_is_not_kept_by_an_idle_thread(make_pool: Callable[..., ThreadPool]) -> None:
    pool = make_pool(0, 1)
    gone = threading.Event()
    work = Work()
    weakref.finalize(work, gone.set)
    assert pool.submit(work)
    work.began.wait()
    work.end()
    del work
    gone.wait()
    assert counts(pool) == (1, 1, 0)


# --- Shrinking ----------------------------------------------------------------------------


def join_until(count: int) -> None:
    """Wait until so many threads are left."""
    while len(threads := threads_of_pools()) > count:
        for thread in threads:
            thread.join(0.001)


def test_threads_that_nobody_needed_since_the_last_look_end(
    make_pool: Callable[..., ThreadPool],
) -> None:
    pool = make_pool(2, 8)
    end(begin(pool, 6))
    pool.shrink()
    assert counts(pool) == (6, 6, 0)  # they were all needed
    end(begin(pool, 4))
    pool.shrink()
    assert counts(pool) == (4, 4, 0)
    pool.shrink()
    assert counts(pool) == (2, 2, 0)
    pool.shrink()
    assert counts(pool) == (2, 2, 0)
    join_until(2)
    end(begin(pool, 3))
    assert counts(pool) == (3, 3, 0)


def test_busy_threads_do_not_end_and_count_for_the_minimum(
    make_pool: Callable[..., ThreadPool],
) -> None:
    pool = make_pool(3, 8)
    works = begin(pool, 5)
    end(works[:3])
    pool.shrink()
    assert counts(pool) == (5, 3, 0)
    pool.shrink()
    assert counts(pool) == (3, 1, 0)
    join_until(3)
    end(works[3:])


def test_a_pool_without_a_minimum_loses_all(make_pool: Callable[..., ThreadPool]) -> None:
    pool = make_pool(0, 3)
    end(begin(pool, 3))
    pool.shrink()
    pool.shrink()
    assert counts(pool) == (0, 0, 0)
    join_until(0)
    end(begin(pool, 1))
    assert counts(pool) == (1, 1, 0)


# --- Closing ------------------------------------------------------------------------------


def test_closing_ends_idle_threads_now_and_busy_ones_after_their_jobs(
    make_pool: Callable[..., ThreadPool],
) -> None:
    pool = make_pool(0, 3)
    works = begin(pool, 3)
    works[0].end()
    waiting = [Work(), Work()]
    works += begin(pool, 1)
    for work in waiting:
        assert pool.submit(work)
    assert pool.close() == waiting
    assert pool.close() == []
    assert counts(pool) == (3, 0, 0)
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(Work())
    end(works[1:])
    join_until(0)
    assert counts(pool) == (0, 0, 0)
    assert not any(work.began.is_set() for work in waiting)


def test_a_thread_that_ends_closes_the_hub_that_its_jobs_have_made(
    make_pool: Callable[..., ThreadPool],
) -> None:
    pool = make_pool(0, 1)
    ended: list[str] = []

    def leave_a_task() -> None:
        def wait() -> None:
            try:
                pycoronet.sleep(None)
            finally:
                ended.append(threading.current_thread().name)

        pycoronet.spawn(wait)
        pycoronet.sleep(0)

    assert pool.submit(leave_a_task)
    pool.close()
    join_until(0)
    assert ended == [NAME]


def test_closing_wakes_threads_that_never_had_a_job(
    make_pool: Callable[..., ThreadPool],
) -> None:
    pool = make_pool(3, 3)
    pool.start()
    assert pool.close() == []
    join_until(0)


# --- When the system has no thread left ---------------------------------------------------


def test_without_another_thread_jobs_wait_for_those_that_there_are(
    make_pool: Callable[..., ThreadPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool = make_pool(1, 3)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            pool.submit(Work())
        with pytest.raises(RuntimeError, match="can't start"):
            pool.start()
        assert counts(pool) == (0, 0, 0)
    works = begin(pool, 1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        works += occupy(pool, 1)
        assert counts(pool) == (1, 0, 1)
    end(works)
    assert counts(pool) == (1, 1, 0)


# --- Jobs that break the rules ------------------------------------------------------------


def test_a_job_that_raises_costs_its_thread_alone(
    make_pool: Callable[..., ThreadPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda report: reported.append(report.exc_type))
    pool = make_pool(0, 1)

    def fail() -> None:
        raise LookupError

    assert pool.submit(fail)
    join_until(0)
    assert pool.submit(lambda: fail)  # when the thread counts as idle
    join_until(0)
    assert reported == [LookupError, LookupError]
    assert counts(pool) == (0, 0, 0)
    end(begin(pool, 1))


# --- Deadlocks ----------------------------------------------------------------------------


def expect_deadlock() -> None:
    with pytest.raises(DeadlockError):
        pycoronet._coronet.ParkingLot().park("park")


def expect_no_deadlock(pool: ThreadPool) -> None:
    """Wait for what only a thread of the pool can do."""
    hub = pycoronet.get_hub()
    lot = pycoronet._coronet.ParkingLot()
    work = begin(pool, 1)[0]
    assert pool.submit(lambda: lambda: hub.call_soon_threadsafe(lot.unpark))
    # Not before everybody waits.
    hub.call_soon_threadsafe(work.release.set)
    assert lot.park("pool")
    work.ended.wait()


@pytest.mark.usefixtures("virtual_hub")
def test_idle_threads_do_not_hide_a_deadlock_and_others_do(
    make_pool: Callable[..., ThreadPool],
) -> None:
    pool = make_pool(1, 4)
    pool.start()
    expect_deadlock()
    end(begin(pool, 4))
    expect_deadlock()
    for _ in range(2):
        pool.shrink()
        join_until(pool.threads)
        expect_deadlock()
    works = begin(pool, 3)
    pool.close()
    end(works)
    join_until(0)
    expect_deadlock()


@pytest.mark.usefixtures("virtual_hub")
def test_threads_at_work_are_no_deadlock(
    make_pool: Callable[..., ThreadPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_pool(0, 1)
    for _ in range(3):
        expect_no_deadlock(pool)
    monkeypatch.setattr(threading, "excepthook", lambda report: None)
    assert pool.submit(lambda: lambda: 1 / 0)  # it ends as an idle thread
    join_until(0)
    expect_no_deadlock(pool)
    expect_deadlock()


# --- Forks --------------------------------------------------------------------------------


def test_a_child_has_no_threads_and_its_own_start_anew() -> None:
    program = """
    import warnings
    from pycoronet._thread_pool import ThreadPool
    warnings.filterwarnings("ignore", "This process .* is multi-threaded")
    pool = ThreadPool(2, 3, limit=5)
    pool.start()
    hub = get_hub()
    go = threading.Event()
    begun = threading.Semaphore(0)
    def wait():
        begun.release()
        go.wait()
    for _ in range(6): pool.submit(wait)
    for _ in range(3): begun.acquire()
    say("parent", pool.threads, pool.idle, pool.waiting)
    assert to_thread(int) == 0  # an idle thread of another pool
    pid = os.fork()
    if pid == 0:
        say("child", pool.threads, pool.idle, pool.waiting)
        lot = pycoronet._coronet.ParkingLot()
        begin = threading.Event()
        def wake():
            begin.wait()
            return lambda: hub.call_soon_threadsafe(lot.unpark)
        pool.submit(wake)
        hub.call_soon_threadsafe(begin.set)
        lot.park("pool")
        say("child", pool.threads, pool.idle, pool.waiting)
        try:
            sleep(None)
        except DeadlockError:
            say("deadlock")
        os._exit(0)
    os.waitpid(pid, 0)
    go.set()
    say("parent", pool.threads)
    """
    assert lines_of(program) == [
        "parent 3 0 3",
        "child 0 0 0",
        "child 1 1 0",
        "deadlock",
        "parent 3",
    ]
