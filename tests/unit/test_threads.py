"""to_thread() and its pool; a hub in each thread."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any
from unittest.mock import ANY

import pytest
from connections import Ends
from processes import lines_of, run_program

import pycoronet
from pycoronet import (
    Cancelled,
    Protocol,
    _threads,
    current,
    get_hub,
    get_thread_limits,
    set_thread_limits,
    sleep,
    spawn,
    to_thread,
)
from pycoronet._threads import MAX_THREADS

JOIN_SECONDS = 30


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


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """See to it that a test which fails does not hang."""
    with pycoronet.timeout(JOIN_SECONDS):
        yield


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
    begun = threading.Event()
    done = threading.Event()

    def call() -> None:
        begun.set()
        os.read(read_end, 1)
        done.set()

    task = spawn(to_thread, call)
    sleep(0)
    begun.wait()
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


# --- Limits -----------------------------------------------------------------------------


@pytest.fixture
def limits() -> Iterator[dict[str, int]]:
    """Return the limits of threads, which are as before in the end."""
    before = get_thread_limits()
    yield before
    set_thread_limits(**before)


class Blocked:
    """Calls that block their threads until they are let go."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.count = 0
        self.gate = threading.Event()

    def __call__(self, *_: object) -> int:
        self.count += 1
        self.begun.release()
        self.gate.wait(JOIN_SECONDS)
        return self.count

    def await_begun(self, count: int) -> None:
        for _ in range(count):
            assert self.begun.acquire(timeout=JOIN_SECONDS)


@pytest.fixture
def blocked() -> Iterator[Blocked]:
    """Return something to be called in threads that blocks; in the end it is let go."""
    blocked = Blocked()
    yield blocked
    blocked.gate.set()


def test_limit_bounds_the_calls_at_once(limits: dict[str, int], blocked: Blocked) -> None:
    set_thread_limits(2)
    assert get_thread_limits() == {**limits, "calls": 2}
    tasks = [spawn(to_thread, blocked) for _ in range(5)]
    sleep(0)
    blocked.await_begun(2)
    assert blocked.count == 2
    set_thread_limits(calls=4)  # those that wait begin at once
    blocked.await_begun(2)
    assert blocked.count == 4
    set_thread_limits(calls=1)  # those that run go on
    blocked.gate.set()
    assert [task.get() for task in tasks] == [5 if n == 4 else ANY for n in range(5)]
    assert _threads._pool.threads == 1
    assert to_thread(int) == 0


def test_limit_ends_the_idle_threads(limits: dict[str, int], blocked: Blocked) -> None:
    set_thread_limits(3)
    tasks = [spawn(to_thread, blocked) for _ in range(3)]
    sleep(0)
    blocked.await_begun(3)
    blocked.gate.set()
    for task in tasks:
        task.join()
    set_thread_limits(1)
    assert _threads._pool.threads == 1
    set_thread_limits(**limits)
    assert to_thread(int) == 0


@pytest.mark.parametrize("name", ["calls", "names"])
def test_wrong_limits_are_refused(name: str, limits: dict[str, int]) -> None:
    other = "names" if name == "calls" else "calls"
    for value, error in ((0, ValueError), (-1, ValueError), ("5", TypeError), (1.5, TypeError)):
        with pytest.raises(error, match="limit of threads"):
            set_thread_limits(**{other: 3, name: value})  # type: ignore[arg-type]
    set_thread_limits()
    assert get_thread_limits() == limits


def test_call_that_waits_for_a_thread_and_is_cancelled_is_not_made(
    limits: dict[str, int], blocked: Blocked
) -> None:
    set_thread_limits(1)
    running = spawn(to_thread, blocked)
    made: list[int] = []
    waiting = spawn(to_thread, made.append, 1)
    sleep(0)
    blocked.await_begun(1)
    waiting.cancel()
    with pytest.raises(Cancelled):
        waiting.get()
    blocked.gate.set()
    assert running.get() == 1
    assert to_thread(int) == 0
    assert made == []


# --- Names ------------------------------------------------------------------------------


def test_names_are_found() -> None:
    found = pycoronet.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    assert found == socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    assert pycoronet.gethostbyname("127.0.0.1") == "127.0.0.1"
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    assert pycoronet.getnameinfo(("127.0.0.1", 80), flags) == ("127.0.0.1", "80")
    with pytest.raises(socket.gaierror):
        pycoronet.getaddrinfo("127.0.0.1", "no such service")
    with pytest.raises(OSError):  # noqa: PT011
        pycoronet.getnameinfo(("no address", 80), flags)


LOOK_UPS = {
    "getaddrinfo": ("host", 80),
    "getnameinfo": (("127.0.0.1", 80),),
    "gethostbyname": ("host",),
}


@pytest.mark.parametrize("name", LOOK_UPS)
def test_look_up_that_takes_too_long(
    name: str, blocked: Blocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, name, blocked)
    look_up = getattr(pycoronet, name)
    with pytest.raises(TimeoutError):
        look_up(*LOOK_UPS[name], timeout=0.001)
    blocked.gate.set()
    assert isinstance(look_up(*LOOK_UPS[name], timeout=JOIN_SECONDS), int)


def test_slow_names_do_not_hold_up_calls_nor_calls_names(
    limits: dict[str, int], blocked: Blocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_thread_limits(calls=1, names=1)
    monkeypatch.setattr(socket, "gethostbyname", blocked)
    looking = spawn(pycoronet.gethostbyname, "slow")
    sleep(0)
    blocked.await_begun(1)
    assert to_thread(int) == 0
    calling = spawn(to_thread, blocked)
    waiting = spawn(pycoronet.gethostbyname, "slow")
    blocked.gate.set()
    for task in (looking, waiting, calling):
        task.join()
    blocked.gate.clear()
    calling = spawn(to_thread, blocked)
    sleep(0)
    blocked.await_begun(3)
    assert pycoronet.getaddrinfo("127.0.0.1", 80)
    blocked.gate.set()
    calling.join()


# --- Forks ------------------------------------------------------------------------------


def test_fork_while_threads_work() -> None:
    program = """
    import socket, warnings
    warnings.filterwarnings("ignore", "This process .* is multi-threaded")
    set_thread_limits(calls=2, names=2)
    go = threading.Event()
    begun = threading.Semaphore(0)
    def block(*_):
        begun.release()
        go.wait()
        return "from a thread"
    socket.gethostbyname = block
    def ask(call, *args):
        try:
            say(call(*args))
        finally:
            if os.getpid() != parent: say("never in the child")
    parent = os.getpid()
    tasks = [spawn(ask, to_thread, block) for _ in range(3)]
    tasks += [spawn(ask, gethostbyname, "name") for _ in range(3)]
    sleep(0)
    for _ in range(4): begun.acquire()
    pid = os.fork()
    if pid == 0:
        say("child", to_thread(lambda: "has threads"), get_thread_limits())
        say("child", getaddrinfo("127.0.0.1", 80)[0][4])
        say("child", spawn(to_thread, int).get())
        sys.exit(0)
    say("status", os.waitpid(pid, 0)[1])
    go.set()
    for task in tasks: task.join()
    """
    assert lines_of(program) == [
        "child has threads {'calls': 2, 'names': 2}",
        "child ('127.0.0.1', 80)",
        "child 0",
        "status 0",
        *["from a thread"] * 6,
    ]


def test_fork_in_a_thread() -> None:
    # The child has that thread alone, and ends with the call.
    program = """
    import warnings
    warnings.filterwarnings("ignore", "This process .* is multi-threaded")
    def fork():
        pid = os.fork()
        if pid == 0:
            say("child", to_thread(lambda: "has threads"))
        return pid
    pid = to_thread(fork)
    say("status", os.waitpid(pid, 0)[1])
    say("parent", to_thread(int))
    """
    assert lines_of(program) == ["child has threads", "status 0", "parent 0"]


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
