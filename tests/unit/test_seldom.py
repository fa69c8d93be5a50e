"""What seldom happens, area by area: branches that the tests of these areas do not come to."""

from __future__ import annotations

import argparse
import asyncio
import gc
import mmap
import os
import signal
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from connections import MOMENT, Ends, Keep
from greenlet import greenlet
from processes import lines_of, run_program

import pycoronet
from pycoronet import (
    Cancelled,
    ClosedError,
    Condition,
    Event,
    Local,
    Lock,
    Protocol,
    Queue,
    RLock,
    Semaphore,
    TaskGroup,
    TransportLayer,
    _coronet,
    _names,
    aio,
    conet,
    sleep,
    spawn,
)
from pycoronet._cli._inspecting import format_seconds
from pycoronet._cli._serving import seconds
from pycoronet.testing import faults

pytestmark = pytest.mark.usefixtures("virtual_hub")


def make_pair(keep: Keep) -> list[Any]:
    return [keep(pycoronet.sk_conn(end)) for end in socket.socketpair()]


# --- Operations that give way ------------------------------------------------------------------


def resume_at_once() -> None:
    conet.co_create(conet.co_resume)
    conet.co_resume()


def give_ways(keep: Keep) -> dict[str, Callable[[], object]]:
    left, right = make_pair(keep)
    semaphore, event, queue = Semaphore(1000), Event(), Queue()
    event.set()
    return {
        "write": lambda: left.write(b"x"),
        "read": lambda: (right.prepend(b"x"), right.recv(1)),
        "received": right._receive_layered,
        "semaphore": semaphore.acquire,
        "event": event.wait,
        "put": lambda: queue.put(1),
        "empty group": lambda: TaskGroup().__enter__().__exit__(None, None, None),
    }


@pytest.mark.parametrize("name", give_ways(lambda thing: thing))
def test_what_need_not_wait_can_be_cancelled(ends: Ends, name: str) -> None:
    operation = give_ways(ends.keep)[name]

    def go_on() -> None:
        while True:
            operation()

    task = spawn(go_on)
    sleep(0)
    task.cancel()
    with pytest.raises(Cancelled):
        task.get()


def test_a_connection_closed_while_an_operation_gave_way(keep: Keep) -> None:
    _, right = make_pair(keep)
    right.prepend(b"x" * 10_000)

    def take_all() -> None:
        while True:
            right.recv(1)

    task = spawn(take_all)
    sleep(0)
    right.abort()
    with pytest.raises(ClosedError):
        task.get()


# --- Arguments ---------------------------------------------------------------------------------


def test_functions_of_the_package_look_at_what_they_get(keep: Keep) -> None:
    (conn, _) = make_pair(keep)
    with pytest.raises(TypeError, match="_report"):
        _coronet._report(1)  # type: ignore[call-arg, arg-type]
    with pytest.raises(TypeError):
        _coronet._advance_time("soon")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="int"):
        _coronet._count_idle_thread("one")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="spawn_handler"):
        _coronet.spawn_handler(print, 1, 2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="number"):
        Event()._wait_as("test", None, "soon")  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="number"):
        Semaphore()._acquire_as("test", None, True, "soon")  # type: ignore[attr-defined]
    lock = RLock()
    with lock, pytest.raises(TypeError, match="number"):
        lock.acquire(timeout="soon")  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        conn.buffered = Undecided()
    for take in (Lock().acquire, Semaphore().acquire, Queue().get):
        with pytest.raises(ZeroDivisionError):
            take(Undecided())  # type: ignore[arg-type]
    with pytest.raises(OSError, match=r"\[Errno"):
        conn.setsockopt(socket.SOL_SOCKET, 9999, b"four")


class Undecided:
    def __bool__(self) -> bool:
        return 1 // 0 == 0


def test_ancillary_data_that_is_too_large(keep: Keep) -> None:
    (conn, _) = make_pair(keep)
    with mmap.mmap(-1, 2**31) as much, pytest.raises(ValueError, match="too large"):
        conn.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, much)])


@pytest.mark.parametrize("name", ["_await_room", "_expect_reset", "_flush_now", "_receive_layered"])
def test_helpers_of_a_closed_connection(keep: Keep, name: str) -> None:
    (conn, _) = make_pair(keep)
    conn.close()
    with pytest.raises(ClosedError):
        getattr(conn, name)()


# --- Addresses ---------------------------------------------------------------------------------


@contextmanager
def resolver(answer: object) -> Iterator[None]:
    _coronet._set_resolver(lambda *ignored: answer)  # type: ignore[arg-type, return-value]
    try:
        yield
    finally:
        _coronet._set_resolver(_names._resolve)


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (("a.name", 80), ValueError, "which is not numeric"),
        ("127.0.0.1", TypeError, "address must be"),
    ],
)
def test_a_resolver_that_answers_something_else(
    keep: Keep, answer: object, error: type[Exception], message: str
) -> None:
    conn = keep(_coronet._socket(socket.AF_INET, socket.SOCK_STREAM))
    with resolver(answer), pytest.raises(error, match=message):
        conn.connect(("name.test", 80))


def test_a_port_that_changes_while_the_name_is_looked_up(keep: Keep) -> None:
    class Changing:
        __index__ = iter([80, 65536]).__next__

    conn = keep(_coronet._socket(socket.AF_INET, socket.SOCK_STREAM))
    with resolver(("127.0.0.1", 80)), pytest.raises(OverflowError, match="port"):
        conn.connect(("name.test", Changing()))


@pytest.mark.parametrize(
    "host", ["name.test", "a-name-that-is-much-longer-than.any.number.of.IPv6.test"]
)
def test_names_are_looked_up_for_ipv6_too(keep: Keep, host: str) -> None:
    conn = keep(_coronet._socket(socket.AF_INET6, socket.SOCK_DGRAM))
    with resolver(("::1", 9)):
        conn.connect((host, 9))
    assert conn.getpeername()[:2] == ("::1", 9)


def test_the_empty_host_of_ipv6_is_any(keep: Keep) -> None:
    conn = keep(_coronet._socket(socket.AF_INET6, socket.SOCK_DGRAM))
    conn.connect(("", 9))
    assert conn.getpeername()[:2] == ("::1", 9)


# --- Connections -------------------------------------------------------------------------------


def test_a_layer_emits_before_what_it_wraps(keep: Keep) -> None:
    class Heading(TransportLayer):
        def wrap(self, data: bytes) -> bytes:
            self.emit(b"head ")
            return data

    left, right = make_pair(keep)
    left.push_layer(Heading())
    left.write(b"body")
    assert right.read_exactly(9) == b"head body"


def test_a_stream_that_ended_gives_no_more_through_layers(keep: Keep) -> None:
    left, right = make_pair(keep)
    right.push_layer(TransportLayer())
    left.close()
    assert right.recv(1) == b""
    with pytest.raises(EOFError):
        right._receive_layered()


def test_the_collector_may_stop_at_a_layer(keep: Keep) -> None:
    (conn, _) = make_pair(keep)
    layer = TransportLayer()
    conn.push_layer(layer)
    assert conn in gc.get_referrers(layer)


def test_what_could_not_be_sent_is_told_by_detach(keep: Keep) -> None:
    left, right = make_pair(keep)
    left.buffered = True
    left.write(b"x")
    right.close()
    sleep(MOMENT)
    with pytest.raises(BrokenPipeError):
        left.detach()


def test_data_not_sent_is_released_as_the_hub_closes(keep: Keep) -> None:
    released: list[object] = []
    left, _ = make_pair(keep)
    left.enqueue([b"x"], dealloc=released.append)
    left.flush()
    pycoronet.get_hub().close()
    assert released == [[b"x"]]


@pytest.mark.leaves_something("connections that other tests drop")
def test_a_dropped_connection_tells_what_it_lost(reports: list[Any]) -> None:
    left, right = (pycoronet.sk_conn(end) for end in socket.socketpair())
    left.buffered = True
    right.close()
    left.write(b"x")
    with pytest.warns(ResourceWarning):
        del left
    assert [type(report) for report in reports] == [BrokenPipeError]


def test_nothing_of_a_file(keep: Keep) -> None:
    left, right = make_pair(keep)
    with Path(__file__).open("rb") as file:
        left.sendfile(file, 0, 0)
    left.write(b"x")
    assert right.recv(9) == b"x"


def test_a_lower_layer_emits_behind_what_waits(keep: Keep) -> None:
    left, _ = make_pair(keep)
    low = TransportLayer()
    left.push_layer(low)
    left.push_layer(TransportLayer())
    left.enqueue([b"x" * 5_000_000])
    left.enqueue([b"y" * 10])
    before = left.pending
    low.emit(b"yy")
    assert left.pending >= before
    left.abort()


def test_a_hub_closes_with_a_connection_that_drains(keep: Keep) -> None:
    left, _ = make_pair(keep)
    closed: list[Any] = []

    class Leaving(Protocol):
        def on_close(self, conn: Any) -> None:
            closed.append(conn)

    left.set_callbacks(Leaving())
    left.linger = 60
    left.enqueue([b"x" * 5_000_000])
    left.close()
    pycoronet.get_hub().close()
    assert left.closed


# --- Faults that are injected ------------------------------------------------------------------


def test_faults_of_a_pipe(keep: Keep, pipe: tuple[int, int]) -> None:
    conn = keep(pycoronet.sk_conn(pipe[1]))
    with faults({"write": [2, "EINTR", "EAGAIN", 1, None, "EINTR"]}):
        conn.write(b"abcdef")
        conn.enqueue([b"gh", b"ij"])
        conn.flush()
    assert os.read(pipe[0], 99) == b"abcdefghij"


def test_a_connect_that_takes_its_time_by_a_fault(keep: Keep) -> None:
    server = keep(pycoronet.listen(("127.0.0.1", 0)))
    conn = keep(_coronet._socket(socket.AF_INET, socket.SOCK_STREAM))
    with faults({"connect": ["EINPROGRESS"]}):
        conn.connect(server.getsockname())
    assert conn.getpeername() == server.getsockname()


def test_a_connect_that_is_over_at_once_by_a_fault(keep: Keep, tmp_path: Path) -> None:
    path = str(tmp_path / "server")
    keep(pycoronet.listen(path))
    conn = keep(_coronet._socket(socket.AF_UNIX, socket.SOCK_STREAM))
    with faults({"connect": ["EINPROGRESS"]}):
        conn.connect(path)
    assert conn.getpeername() == path


def test_a_message_behind_what_waits_is_cancelled(keep: Keep) -> None:
    left, _ = make_pair(keep)
    left.enqueue([b"x" * 5_000_000])
    task = spawn(left.sendmsg, [b"x"])
    sleep(0)
    task.cancel()
    with pytest.raises(Cancelled):
        task.get()


@pytest.mark.parametrize("how", ["closed", "cancelled"])
def test_a_writer_that_gives_way(keep: Keep, how: str) -> None:
    left, right = make_pair(keep)
    task = spawn(left.write, b"x" * 50_000_000)
    drain = spawn(lambda: [right.recv(1_000_000) for _ in range(10)])
    sleep(0)
    sleep(0)
    left.abort() if how == "closed" else task.cancel()
    with pytest.raises(ClosedError if how == "closed" else Cancelled):
        task.get()
    drain.cancel()
    drain.join()


def test_callbacks_that_are_paused_go_on_after_a_read(keep: Keep) -> None:
    left, right = make_pair(keep)
    told: list[Any] = []

    class Slow(Protocol):
        def on_data(self, conn: Any) -> None:
            told.append(conn)

    right.set_watermarks(read_high=4)
    right.set_callbacks(Slow())
    left.write(b"x" * 8)
    sleep(MOMENT)
    taken: list[bytes] = []
    pycoronet.get_hub().call_soon(lambda: taken.append(right.recv(99)))
    sleep(MOMENT)
    assert taken == [b"xxxx"]
    assert len(told) == 2  # of the rest, without any news from the peer


def test_a_method_that_is_gone_is_reported_with_its_protocol(
    keep: Keep, reports: list[Any]
) -> None:
    left, right = make_pair(keep)
    methods = [fail] * 3  # two are looked at by set_callbacks()

    class Once(Protocol):
        @property
        def on_data(self) -> Any:  # type: ignore[override]
            if not methods:
                raise AttributeError("on_data")
            return methods.pop()

    right.set_callbacks(Once())
    left.write(b"x")
    sleep(MOMENT)
    assert [type(report) for report in reports] == [KeyError]


def fail(*ignored: object) -> None:
    raise KeyError("on purpose")


# --- Locals, locks and queues ------------------------------------------------------------------


@pytest.mark.parametrize("make", [Local, Queue, RLock, Event, Semaphore])
def test_weak_references_end(make: Callable[[], object]) -> None:
    it = make()
    reference = weakref.ref(it)
    del it
    gc.collect()
    assert reference() is None


def test_a_queue_that_cannot_be_emptied() -> None:
    class Stuck(Queue[int]):
        def _get(self) -> int:
            raise KeyError("stuck")

    queue = Stuck()
    queue.put(1)
    with pytest.raises(KeyError):
        queue.shutdown(immediate=True)


# --- Coroutines and hubs -----------------------------------------------------------------------


def test_a_coroutine_ends_the_loop() -> None:
    hub = pycoronet.get_hub()
    spawn(sleep, 5)
    spawn(hub.loop_exit)
    hub.run()
    assert hub.task_count == 1


def test_a_hub_that_is_made_below_the_main_greenlet() -> None:
    made: list[bool] = []

    def run() -> None:
        greenlet(lambda: made.append(spawn(bool).get())).switch()
        pycoronet.get_hub().close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert made == [False]


def test_a_hub_is_asked_by_its_own_thread_only(keep: Keep) -> None:
    (conn, _) = make_pair(keep)
    conn.enqueue([b"x" * 5_000_000])
    conn.linger = 60
    conn.close()
    hub = pycoronet.get_hub()
    group = TaskGroup()
    group.__enter__()
    errors: list[str] = []

    def ask() -> None:
        for call in (hub._contents, conn._flush_now, group._join):
            try:
                call()
            except RuntimeError as error:
                errors.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    group.__exit__(None, None, None)
    assert len(errors) == 3
    hub.close()
    assert hub._contents() == ([], [], [])


def test_who_has_a_registration(keep: Keep) -> None:
    first, _ = (keep(end) for end in socket.socketpair())
    handle = pycoronet.once(first, pycoronet.READ, print)
    assert str(first.fileno()) in str(pycoronet.get_hub().registrations())
    handle.cancel()


def test_a_signal_handler_may_end_a_wait_for_ever() -> None:
    program = """
    event = Event()
    signal.signal(signal.SIGALRM, lambda *ignored: event.set())
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    event.wait()
    say("woken")
    """
    assert lines_of(program) == ["woken"]


# --- Python ------------------------------------------------------------------------------------


def test_long_times_are_short_texts() -> None:
    assert [format_seconds(time) for time in (999, 6000, 360_000)] == [
        "999.0 s",
        "100.0 m",
        "100.0 h",
    ]


def test_a_word_is_no_time() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="no number of seconds"):
        seconds("soon")


def test_the_condition_does_what_threading_asks_of_locks() -> None:
    for lock in (Lock(), RLock()):
        condition = Condition(lock)
        assert not condition._is_owned()
        with condition:
            assert condition._is_owned()


def test_a_function_of_a_pool_raises_stop_iteration() -> None:
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        list(pycoronet.Pool(1).imap(next, [iter(())]))


def test_asyncio_is_asked_for_debug_mode() -> None:
    async def is_debugging() -> bool:
        return asyncio.get_running_loop().get_debug()

    assert aio.run(is_debugging(), debug=True)


def test_a_coroutine_of_asyncio_is_no_signal_handler() -> None:
    async def handle() -> None: ...

    loop = aio.get_loop()
    with pytest.raises(TypeError, match="coroutines cannot be used"):
        loop.add_signal_handler(signal.SIGUSR1, handle)
    loop.close()


# --- Forks ---------------------------------------------------------------------------------------

# What the child has of a draining connection, of one that another coroutine waits for, and of
# asyncio's; and two coroutines that fork, with something to say at the end of the child.
FORKS = """
import asyncio, socket
from pycoronet import aio

class Stream:
    def write(self, text):
        pass
    def flush(self):
        raise OSError("no room")

def wait(sock):
    wait_readable(sock, 30)

def fork(end):
    pid = os.fork()
    if pid == 0:
        end()
    os.waitpid(pid, 0)

def leave_with_words():
    raise SystemExit("words")

def leave_without_room():
    sys.unraisablehook = lambda report: say("child:", report.exc_value)
    sys.stdout = Stream()
    raise SystemExit(0)

def leave():
    say("child:", get_hub().task_count)
    get_hub().close()
    os._exit(0)

a, b = socket.socketpair()
c, d = socket.socketpair()
left, right = [sk_conn(end) for end in socket.socketpair()]
left.set_callbacks(Protocol())
left.enqueue([b"x" * 5_000_000])
left.linger = 60
left.close()
waiting = spawn(wait, a)
loop = aio.get_loop()
loop.add_reader(c, print)
sleep(0)
get_hub().dump()
fork(leave)
spawn(fork, leave_with_words).get()
spawn(fork, leave_without_room).get()
waiting.cancel()
loop.close()
right.close()
os._exit(0)
"""


def test_what_a_child_has_of_its_parent() -> None:
    done = run_program(FORKS)
    assert done.stdout.splitlines() == ["child: 0", "child: no room"]
    assert done.stderr == "words\n"
    assert done.returncode == 0
