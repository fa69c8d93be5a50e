"""from_thread.run(): a thread calls into the hub of another one."""

from __future__ import annotations

import contextvars
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from connections import attempt
from processes import lines_of
from thread_case import until

from pycoronet import (
    Cancelled,
    Event,
    Queue,
    _coronet,
    current,
    from_thread,
    get_hub,
    sleep,
    spawn,
    timeout,
    to_thread,
)

JOIN_SECONDS = 30


@pytest.fixture
def other_hub() -> Iterator[Any]:
    """Return the hub of another thread, which runs until the test ends."""
    hubs: list[Any] = []
    ready = threading.Event()
    lot = _coronet.ParkingLot(external=True)

    def serve() -> None:
        hubs.append(get_hub())
        ready.set()
        lot.park("test")
        get_hub().close()

    thread = threading.Thread(target=serve)
    thread.start()
    ready.wait()
    yield hubs[0]
    while thread.is_alive():
        lot.unpark()
        thread.join(0.001)


def call_from_thread(*args: Any, **kwargs: Any) -> Any:
    """Call from_thread.run() into this hub, in a thread of the pool."""
    return to_thread(from_thread.run, get_hub(), *args, **kwargs)


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """See to it that a test which fails does not hang."""
    with timeout(JOIN_SECONDS):
        yield


# --- Outcomes ---------------------------------------------------------------------------


def test_it_runs_in_a_task_of_the_hub_and_the_result_comes_back() -> None:
    here = threading.get_ident()

    def work(number: int) -> tuple[int, bool, bool]:
        sleep(0.001)
        return number, threading.get_ident() == here, current().name != "main program"

    assert call_from_thread(work, 5) == (5, True, True)


@pytest.mark.parametrize("kind", [LookupError, SystemExit, KeyboardInterrupt, StopIteration])
def test_what_it_raises_is_raised_in_the_thread(kind: type[BaseException]) -> None:
    error = kind()

    def fail() -> None:
        sleep(0)
        raise error

    with pytest.raises(kind) as caught:
        call_from_thread(fail)
    assert caught.value is error
    sleep(0.001)  # and nowhere else


def test_something_not_callable_is_a_type_error_in_the_thread() -> None:
    with pytest.raises(TypeError, match="not callable"):
        call_from_thread(5)


def test_it_sees_the_context_variables_of_the_caller() -> None:
    variable = contextvars.ContextVar("variable", default="hub")

    def work() -> str:
        variable.set("thread")
        return from_thread.run(hub, variable.get)

    hub = get_hub()
    assert to_thread(work) == "thread"
    assert variable.get() == "hub"


def test_a_plain_thread_calls_into_a_hub_that_runs() -> None:
    queue: Any = Queue()
    hub = get_hub()

    def produce() -> None:
        for number in range(100):
            from_thread.run(hub, queue.put, number)

    thread = threading.Thread(target=produce)
    thread.start()
    assert [queue.get() for _ in range(100)] == list(range(100))
    thread.join(JOIN_SECONDS)


def test_many_threads_call_at_once() -> None:
    hub = get_hub()
    inside = 0

    def work(number: int) -> int:
        nonlocal inside
        inside += 1
        sleep(0)
        return number

    def call(number: int) -> list[int]:
        return [from_thread.run(hub, work, number) for _ in range(20)]

    tasks = [spawn(to_thread, call, number) for number in range(8)]
    assert [task.get() for task in tasks] == [[number] * 20 for number in range(8)]
    assert inside == 160


def test_coroutines_of_the_calling_thread_go_on(other_hub: Any) -> None:
    begun = Event()
    go_on = Event()

    def work() -> str:
        begun.set()
        go_on.wait()
        return "done"

    call = spawn(from_thread.run, other_hub, work)
    begun.wait()
    go_on.set()  # by a coroutine of the thread that called
    assert call.get() == "done"


def test_two_hubs_call_into_one_another(other_hub: Any) -> None:
    here = get_hub()

    def back() -> Any:
        return from_thread.run(here, lambda: get_hub() is here)

    tasks = [spawn(from_thread.run, other_hub, back) for _ in range(3)]
    assert [task.get() for task in tasks] == [True] * 3


# --- Misuse -----------------------------------------------------------------------------


def test_the_hub_s_own_thread_is_refused() -> None:
    with pytest.raises(RuntimeError, match="other threads"):
        from_thread.run(get_hub(), int)
    with pytest.raises(RuntimeError, match="other threads"):
        spawn(from_thread.run, get_hub(), int).get()


def test_a_closed_hub_and_what_is_no_hub_are_refused() -> None:
    hub = get_hub()
    hub.close()
    with pytest.raises(RuntimeError, match="closed"):
        from_thread.run(hub, int)
    with pytest.raises(TypeError):
        from_thread.run("hub", int)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        to_thread(from_thread.run, get_hub(), int, timeout="soon")


# --- Time and cancelling ----------------------------------------------------------------


def test_after_the_timeout_the_task_is_cancelled(other_hub: Any) -> None:
    begun, ended = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        try:
            sleep(None)
        finally:
            ended.set()

    for seconds in (0.001, 0.1, 10):  # until it was enough to begin
        with pytest.raises(TimeoutError):
            from_thread.run(other_hub, work, timeout=seconds)
        if begun.is_set():
            break
    assert ended.wait(JOIN_SECONDS)


def test_a_call_that_nobody_waits_for_any_more_is_not_begun(other_hub: Any) -> None:
    begun: list[int] = []
    reached = threading.Event()
    go_on = threading.Event()

    def block() -> None:
        reached.set()
        go_on.wait(JOIN_SECONDS)

    other_hub.call_soon_threadsafe(block)
    reached.wait(JOIN_SECONDS)
    with pytest.raises(TimeoutError):
        from_thread.run(other_hub, begun.append, 1, timeout=0.001)
    go_on.set()
    assert from_thread.run(other_hub, int) == 0
    assert begun == []


def test_a_caller_that_is_cancelled_cancels_the_task(other_hub: Any) -> None:
    begun, ended = Event(), threading.Event()

    def work() -> None:
        begun.set()
        try:
            sleep(None)
        finally:
            ended.set()

    call = spawn(from_thread.run, other_hub, work)
    begun.wait()
    call.cancel()
    with pytest.raises(Cancelled):
        call.get()
    assert ended.wait(JOIN_SECONDS)


def test_a_task_that_is_cancelled_in_its_hub_is_a_runtime_error() -> None:
    def work() -> None:
        current().cancel()
        sleep(1)

    with pytest.raises(RuntimeError, match="cancelled in its hub"):
        call_from_thread(work)


# --- Hubs that end ----------------------------------------------------------------------


def run_until_told(end: Callable[[], None]) -> tuple[Any, threading.Event]:
    """Start a thread with a hub that ends in a way when the event is set; return both."""
    hubs: list[Any] = []
    ready = threading.Event()
    told = threading.Event()

    def serve() -> None:
        hubs.append(get_hub())
        ready.set()
        to_thread(told.wait)
        end()

    threading.Thread(target=serve).start()
    ready.wait()
    return hubs[0], told


@pytest.mark.leaves_something("a hub whose thread has ended while a task waited")
@pytest.mark.parametrize("way", ["closed", "left", "halted"])
def test_a_hub_that_ends_during_the_call_is_a_runtime_error(way: str) -> None:
    # closed: it cancels its tasks. left: its thread ends, and they never run again. halted: the
    # call was not even begun.
    def end() -> None:
        if way == "halted":
            blocked.set()
            to_call.wait(JOIN_SECONDS)
        if way == "closed":
            get_hub().close()

    blocked, to_call = threading.Event(), threading.Event()
    hub, told = run_until_told(end)
    begun = Event()

    def work() -> None:
        begun.set()
        sleep(None)

    if way == "halted":
        told.set()
        blocked.wait(JOIN_SECONDS)
    call = spawn(from_thread.run, hub, work)
    if way == "halted":
        sleep(0)
        to_call.set()
    else:
        begun.wait()
        told.set()
    with pytest.raises(RuntimeError, match="closed"):
        call.get()


def test_the_last_thing_that_a_hub_does_counts() -> None:
    hub, told = run_until_told(lambda: get_hub().close())

    def work() -> str:
        try:
            told.set()
            sleep(None)
        except Cancelled:
            pass
        return "done"

    assert from_thread.run(hub, work) == "done"


def test_parking_lot_of_a_hub() -> None:
    hub, told = run_until_told(lambda: None)
    lot = _coronet.ParkingLot(external=True, hub=hub)
    tasks = [spawn(attempt, lot.park, "test") for _ in range(3)]
    sleep(0)
    assert lot.unpark() is True
    assert tasks[0].get() is True
    told.set()
    assert [str(task.get()) for task in tasks[1:]] == ["the hub was closed"] * 2
    with pytest.raises(RuntimeError, match="closed"):
        lot.park("test")
    with pytest.raises(RuntimeError, match="closed"):
        _coronet.ParkingLot(hub=hub)
    with pytest.raises(TypeError):
        _coronet.ParkingLot(hub=5)  # type: ignore[arg-type]


def test_nothing_is_kept() -> None:
    class Thing:
        pass

    thing = Thing()
    gone = weakref.ref(thing)
    assert call_from_thread(lambda it: it, thing) is thing
    del thing

    def is_gone() -> bool:
        gc.collect()
        return gone() is None

    until(is_gone)


def test_forked_child_has_no_hubs_of_other_threads() -> None:
    program = """
    import warnings
    from pycoronet import from_thread
    warnings.filterwarnings("ignore", "This process .* is multi-threaded")
    hubs, ready, told = [], threading.Event(), threading.Event()
    def serve():
        hubs.append(get_hub())
        ready.set()
        to_thread(told.wait)
    threading.Thread(target=serve).start()
    ready.wait()
    pid = os.fork()
    if pid == 0:
        try:
            from_thread.run(hubs[0], int, timeout=5)
        except (RuntimeError, TimeoutError) as error:
            say(type(error).__name__)
        os._exit(0)
    os.waitpid(pid, 0)
    say(from_thread.run(hubs[0], int))
    told.set()
    """
    assert lines_of(program) == ["RuntimeError", "0"]
