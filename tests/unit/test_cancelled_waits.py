"""Cancelling any wait leaves no stray wake-up and loses nothing: each wait, in each situation.

A task waits; what it waits for comes, and so does a cancel or a deadline, in either order. The
task has then got it or been cancelled, never both and never neither: what it has not got is
there for the next one. Its next wait ends when it should, and not before.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from connections import MOMENT, Ends, drain_now, fill

import pycoronet
from pycoronet import (
    READ,
    BoundedSemaphore,
    Cancelled,
    Channel,
    Condition,
    Event,
    LifoQueue,
    Lock,
    PriorityQueue,
    Queue,
    RLock,
    Semaphore,
    SimpleQueue,
    TaskGroup,
    connect,
    get_hub,
    once,
    shield,
    sleep,
    spawn,
    timeout,
    to_thread,
    wait_fd,
    wait_readable,
    wait_writable,
)
from pycoronet._coronet import _advance_time

pytestmark = pytest.mark.usefixtures("virtual_hub")

MISSED = object()  # the wait was cancelled
LARGE = bytes(range(256)) * 4096

# How to wait, how to give what is waited for, and how to see, by what the wait has returned,
# that nothing is lost.
Case = tuple[Callable[[], Any], Callable[[], object], Callable[[Any], None]]
Maker = Callable[[Ends], Case]
CASES: list[Maker] = []


def case(maker: Maker) -> Maker:
    CASES.append(maker)
    return maker


def either(got: Any, again: Callable[[], Any]) -> Any:
    """Return what the wait has got, or else what the next one gets."""
    return again() if got is MISSED else got


# --- Connections and descriptors --------------------------------------------------------


def reading(name: str, call: Callable[[Any], Any], sent: bytes, expected: Any = None) -> None:
    """Add a case of reading what comes in two pieces."""

    def maker(ends: Ends) -> Case:
        conn, peer = ends.pair()
        half = len(sent) // 2
        peer.sendall(sent[:half])
        if name in ("recv", "recv_into", "readsome", "wait_input"):
            assert conn.recv(100) == sent[:half]  # these would have enough

        def rest(got: Any) -> None:
            value = either(got, lambda: call(conn))
            assert value == (sent[half:] if expected is None else expected)
            if name == "wait_input":
                assert conn.recv(100) == sent[half:]
            peer.sendall(b"next\n")
            assert conn.readln() == b"next\n"

        return lambda: call(conn), lambda: peer.sendall(sent[half:]), rest

    maker.__name__ = name
    case(maker)


def receive_into(conn: Any) -> bytes:
    area = bytearray(100)
    return bytes(area[: conn.recv_into(area)])


reading("recv", lambda conn: conn.recv(100), b"piece")
reading("recv_into", receive_into, b"piece")
reading("readsome", lambda conn: conn.readsome(100), b"piece")
reading("wait_input", lambda conn: conn.wait_input(), b"piece", True)
reading("read", lambda conn: conn.read(9), b"exactly 9", b"exactly 9")
reading("read_exactly", lambda conn: conn.read_exactly(9), b"exactly 9", b"exactly 9")
reading("readln", lambda conn: conn.readln(), b"a line\n", b"a line\n")
reading("lines", lambda conn: next(conn.lines()), b"a line\n", b"a line\n")
reading("read_until", lambda conn: conn.read_until(b"END"), b"up to END", b"up to END")
reading("read_frame", lambda conn: conn.read_frame("B"), b"\x04four", b"four")


@case
def receive_message(ends: Ends) -> Case:
    conn, peer = ends.pair("udp")

    def rest(got: Any) -> None:
        assert either(got, lambda: conn.recvmsg(100))[0] == b"datagram"

    return lambda: conn.recvmsg(100), lambda: peer.send(b"datagram"), rest


@case
def accept(ends: Ends) -> Case:
    listener = ends.keep(pycoronet.listen(("127.0.0.1", 0)))
    clients: list[socket.socket] = []

    def wake() -> None:
        clients.append(ends.keep(socket.create_connection(listener.getsockname())))

    def rest(got: Any) -> None:
        conn, address = either(got, listener.accept)
        ends.keep(conn)
        assert address == clients[0].getsockname()

    return listener.accept, wake, rest


@case
def connect_to_listener(ends: Ends) -> Case:
    server = ends.keep(socket.create_server(("127.0.0.1", 0)))
    server.settimeout(10)

    def rest(got: Any) -> None:
        conn = ends.keep(either(got, lambda: connect(server.getsockname())))
        conn.write(b"hello")
        messages = []
        while b"hello" not in messages:  # the one that was cancelled has sent nothing
            messages.append(ends.keep(server.accept()[0]).recv(100))
        assert set(messages) <= {b"hello", b""}

    return lambda: connect(server.getsockname()), int, rest


def sending(name: str, call: Callable[[Any], Any]) -> None:
    """Add a case of sending LARGE behind a full socket."""

    def maker(ends: Ends) -> Case:
        conn, peer = ends.pair()
        queued = fill(conn)
        received = bytearray()
        written: list[int] = []

        def wait() -> Any:
            try:
                return call(conn)
            except (Cancelled, TimeoutError) as error:
                written.append(len(LARGE) if name == "flush" else error.bytes_written)
                raise

        def rest(got: Any) -> None:
            # What a cancelled flush() has not sent stays queued; a cancelled write says how much.
            expected = LARGE[: written[0]] if got is MISSED else LARGE
            ending = spawn(conn.write, b"the end")
            while not received.endswith(b"the end"):
                received.extend(drain_now(peer))
                sleep(MOMENT)
            ending.get()
            assert received[queued:] == expected + b"the end"

        if name == "flush":
            conn.enqueue(LARGE)
        return wait, lambda: received.extend(drain_now(peer)), rest

    maker.__name__ = name
    case(maker)


sending("sendall", lambda conn: conn.sendall(LARGE))
sending("write", lambda conn: conn.write(LARGE))
sending("flush", lambda conn: conn.flush())


@case
def wait_for_descriptor(ends: Ends) -> Case:
    left, right = ends.sockets()
    ends.keep(left)

    def rest(got: Any) -> None:
        assert either(got, lambda: wait_fd(left, READ)) & READ
        assert left.recv(10) == b"x"
        right.send(b"y")
        assert wait_readable(left) & READ

    return lambda: wait_fd(left, READ), lambda: right.send(b"x"), rest


@case
def wait_for_room(ends: Ends) -> Case:
    left, right = ends.sockets()
    ends.keep(left)
    left.setblocking(False)
    try:
        while True:
            left.send(LARGE)
    except BlockingIOError:
        pass

    def wake() -> None:
        while drain_now(right):
            pass

    def rest(got: Any) -> None:
        either(got, lambda: wait_writable(left))
        assert left.send(b"x") == 1

    return lambda: wait_writable(left), wake, rest


@case
def wait_for_a_connections_descriptor(ends: Ends) -> Case:
    conn, peer = ends.pair()

    def rest(got: Any) -> None:
        assert either(got, lambda: wait_readable(conn)) & READ
        assert conn.recv(10) == b"x"

    return lambda: wait_readable(conn), lambda: peer.send(b"x"), rest


# --- Time, tasks, threads ---------------------------------------------------------------


@case
def sleep_a_second(ends: Ends) -> Case:
    return lambda: sleep(1), int, lambda got: None


@case
def yield_once(ends: Ends) -> Case:
    return lambda: sleep(0), int, lambda got: None


@case
def join(ends: Ends) -> Case:
    gate = Event()
    task = spawn(gate.wait)
    return task.join, gate.set, lambda got: task.join()


@case
def get(ends: Ends) -> Case:
    gate = Event()
    task = spawn(lambda: gate.wait() and "result")

    def rest(got: Any) -> None:
        assert either(got, task.get) == "result"

    return task.get, gate.set, rest


@case
def leave_a_group(ends: Ends) -> Case:
    gate, ended = Event(), []

    def work() -> None:
        try:
            gate.wait()
        finally:
            ended.append(1)

    def wait() -> None:
        with TaskGroup() as group:
            group.spawn(work)
            group.spawn(work)

    return wait, gate.set, lambda got: None if ended in ([], [1, 1]) else pytest.fail(str(ended))


@case
def call_in_a_thread(ends: Ends) -> Case:
    gate = threading.Event()

    def rest(got: Any) -> None:
        gate.set()
        assert got in (MISSED, True)  # what nobody waits for is dropped
        assert to_thread(int) == 0

    return lambda: to_thread(gate.wait, 10), gate.set, rest


# --- Locks and queues -------------------------------------------------------------------


@case
def event(ends: Ends) -> Case:
    flag = Event()

    def rest(got: Any) -> None:
        assert either(got, flag.wait) is True

    return flag.wait, flag.set, rest


def acquiring(name: str, make: Callable[[], Any]) -> None:
    """Add a case of something that is held by one at a time."""

    def maker(ends: Ends) -> Case:
        lock = make()
        assert lock.acquire()

        def wait() -> None:
            lock.acquire()
            lock.release()

        def rest(got: Any) -> None:
            assert lock.acquire(False)

        return wait, lock.release, rest

    maker.__name__ = name
    case(maker)


acquiring("lock", Lock)
acquiring("rlock", RLock)
acquiring("semaphore", lambda: Semaphore(1))
acquiring("bounded_semaphore", lambda: BoundedSemaphore(1))


@case
def condition(ends: Ends) -> Case:
    changed = Condition()

    def wait() -> Any:
        with changed:
            return changed.wait()

    def wake() -> None:
        with changed:
            changed.notify()

    def rest(got: Any) -> None:
        waiter = spawn(wait)
        sleep(0)
        wake()
        assert waiter.get() is True
        assert changed.acquire(False)

    return wait, wake, rest


def getting(make: Callable[[], Any]) -> None:
    """Add a case of taking an item out."""

    def maker(ends: Ends) -> Case:
        queue = make()

        def rest(got: Any) -> None:
            assert either(got, lambda: queue.get(timeout=1)) == "item"
            queue.put("next")
            assert queue.get() == "next"

        return queue.get, lambda: queue.put("item"), rest

    maker.__name__ = "get_from_" + type(make()).__name__
    case(maker)


def putting(make: Callable[[], Any]) -> None:
    """Add a case of putting an item into what is full."""

    def maker(ends: Ends) -> Case:
        queue = make()
        queue.put(1)
        taken: list[int] = []

        def rest(got: Any) -> None:
            if not taken:
                taken.append(queue.get())
            assert taken == [1]
            assert [queue.get(False) for _ in range(queue.qsize())] == (
                [] if got is MISSED else [2]
            )
            queue.put(3, False)

        return lambda: queue.put(2), lambda: taken.append(queue.get()), rest

    maker.__name__ = "put_into_" + type(make()).__name__
    case(maker)


for make_queue in (Queue, LifoQueue, PriorityQueue, SimpleQueue, lambda: Channel(2)):
    getting(make_queue)
for make_queue in (lambda: Queue(1), lambda: LifoQueue(1), lambda: PriorityQueue(1)):
    putting(make_queue)


@case
def hand_over(ends: Ends) -> Case:
    channel: Any = Channel()

    def rest(got: Any) -> None:
        assert either(got, lambda: channel.get(timeout=1)) == "item"

    return channel.get, lambda: spawn(channel.put, "item"), rest


@case
def queue_join(ends: Ends) -> Case:
    queue: Any = Queue()
    queue.put(1)
    queue.get()
    return queue.join, queue.task_done, lambda got: queue.join()


# --- The situations ---------------------------------------------------------------------

Situation = Callable[[Any, Callable[[], object], Ends], None]


def cancelled_before(task: Any, wake: Callable[[], object], ends: Ends) -> None:
    task.cancel()  # it waits to begin; see run()
    sleep(MOMENT)
    wake()


def cancelled_while_it_waits(task: Any, wake: Callable[[], object], ends: Ends) -> None:
    sleep(MOMENT)
    task.cancel()
    sleep(MOMENT)
    wake()


def cancelled_then_woken(task: Any, wake: Callable[[], object], ends: Ends) -> None:
    sleep(MOMENT)
    task.cancel()
    wake()


def woken_then_cancelled(task: Any, wake: Callable[[], object], ends: Ends) -> None:
    sleep(MOMENT)
    wake()
    task.cancel()


def cancelled_between_poll_and_event(task: Any, wake: Callable[[], object], ends: Ends) -> None:
    sleep(MOMENT)
    wake()
    hook = get_hub().add_hook(check=lambda: (task.cancel(), hook.cancel()))
    sleep(MOMENT)


def cancelled_after_its_event(task: Any, wake: Callable[[], object], ends: Ends) -> None:
    sleep(MOMENT)
    left, right = ends.sockets()
    ends.keep(left)
    wake()
    right.send(b"x")
    once(left, READ, lambda ready: task.cancel())  # called when all events were handed out
    sleep(MOMENT)


def deadline_then_woken(task: Any, wake: Callable[[], object], ends: Ends) -> None:
    sleep(MOMENT)
    sleep(1 - MOMENT)  # its timer is due behind the deadline, in the same turn
    wake()


def woken_with_the_deadline(task: Any, wake: Callable[[], object], ends: Ends) -> None:
    sleep(MOMENT)
    _advance_time(1)
    wake()
    sleep(MOMENT)


BY_DEADLINE = [deadline_then_woken, woken_with_the_deadline]
SITUATIONS = [
    cancelled_before,
    cancelled_while_it_waits,
    cancelled_then_woken,
    woken_then_cancelled,
    cancelled_between_poll_and_event,
    cancelled_after_its_event,
    *BY_DEADLINE,
]

# What ends by itself before it is cancelled.
AT_ONCE = [connect_to_listener, yield_once]


def wait_on() -> None:
    """See that nothing wakes this task before its time."""
    with shield():
        for _ in range(2):
            started = get_hub().time
            sleep(3)
            assert round(get_hub().time - started, 6) == 3
        assert Event().wait(3) is False


def name_of(function: Any) -> str:
    return str(function.__name__)


@pytest.mark.parametrize("situation", SITUATIONS, ids=name_of)
@pytest.mark.parametrize("maker", CASES, ids=name_of)
def test_cancelled_wait(maker: Maker, situation: Situation, ends: Ends) -> None:
    wait, wake, rest = maker(ends)

    def run() -> Any:
        if situation is cancelled_before:
            with shield():
                ready.wait()
        try:
            with timeout(1 if situation in BY_DEADLINE else None):
                got = wait()
        except (Cancelled, TimeoutError):
            got = MISSED
        wait_on()
        return got

    ready = Event()
    task = spawn(run)
    if situation is cancelled_before:
        sleep(0)
        ready.set()
    situation(task, wake, ends)
    got = task.get(100)
    if situation in (cancelled_before, cancelled_while_it_waits) and maker not in AT_ONCE:
        assert got is MISSED
    rest(got)
    sleep(MOMENT)
    assert get_hub().waiters() == []
