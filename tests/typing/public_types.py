"""What type checkers have to find out about the public names; nothing in here is ever run.

`make lint` has mypy and pyright read it. assert_type() fails for any other type, Any included;
a line with "type: ignore" has to be refused: where it is not, the comment itself is an error.
`test_stubs.py` sees to it that each public name occurs.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typing_extensions import assert_type

import pycoronet
from pycoronet import READ, Hub, Task, TransportLayer, aio, from_thread, sk_conn, testing
from pycoronet.layers import Filter, Tee, Zlib
from pycoronet.subprocess import CompletedProcess, Popen, check_output
from pycoronet.subprocess import run as run_process
from pycoronet.tls import TLSLayer


def measure(text: str, factor: int = 1) -> int:
    """Stand for any function that a task runs."""
    return len(text) * factor


def handle(conn: sk_conn, address: tuple[str, int]) -> None:
    """Stand for any handler."""


def tasks(ended: Task[int], any_task: Task) -> None:
    task = pycoronet.spawn(measure, "text", factor=2)
    assert_type(task, Task[int])
    assert_type(task.get(), int)
    assert_type(pycoronet.spawn_later(0.5, measure, "text"), Task[int])
    pycoronet.spawn(measure, 5)  # type: ignore[arg-type]
    pycoronet.spawn(measure)  # type: ignore[call-arg]
    pycoronet.spawn(measure, "text", wrong=1)  # type: ignore[call-arg]
    pycoronet.spawn_later("soon", measure, "text")  # type: ignore[arg-type]
    assert_type(pycoronet.current(), Task[Any] | None)
    some: Task[object] = ended  # a task of int is one of object
    some.cancel("why")
    assert_type(any_task.get(), Any)
    assert_type(ended.join(timeout=1.5), None)
    assert_type(ended.exception, BaseException | None)
    assert_type((ended.name, ended.done), tuple[str, bool])
    ended.link(lambda it: print(it.get().bit_length()))
    ended.done = True  # type: ignore[misc]
    pycoronet.sleep(0.1)
    pycoronet.sleep("a while")  # type: ignore[arg-type]


def many_tasks(some: list[Task[int]]) -> None:
    assert_type(pycoronet.joinall(some, 5, raise_error=True), None)
    assert_type(pycoronet.wait(some, count=1), tuple[set[Task[int]], set[Task[int]]])
    assert_type([task.get() for task in pycoronet.iwait(some)], list[int])
    with pycoronet.TaskGroup() as group:
        assert_type(group.spawn(measure, "text"), Task[int])
        group.spawn(measure, 5)  # type: ignore[arg-type]
    with pycoronet.Pool(5) as pool:
        assert_type(pool.spawn(measure, "text"), Task[int])
        assert_type(pool.apply(measure, "text", factor=3), int)
        assert_type(pool.map(measure, ["a", "b"]), list[int])
        assert_type(pool.map(measure, ["a", "b"], [1, 2]), list[int])
        assert_type(pool.imap(measure, ["a"]), Iterator[int])
        assert_type(pool.imap_unordered(str, [1, 2]), Iterator[str])
        pool.map(measure, [1, 2])  # type: ignore[arg-type]
        pool.spawn(measure, 5)  # type: ignore[arg-type]


def bounds() -> None:
    with pycoronet.timeout(5) as scope:
        assert_type(scope.expired, bool)
    with pycoronet.move_on_after(None) as scope:
        pass
    with pycoronet.shield():
        pass
    pycoronet.timeout("5")  # type: ignore[arg-type]


def locks(lock: pycoronet.Lock, recursive: pycoronet.RLock) -> None:
    with lock, recursive, pycoronet.Semaphore(2), pycoronet.BoundedSemaphore() as got:
        assert_type(got, bool)
    assert_type(lock.acquire(timeout=1), bool)
    condition = pycoronet.Condition(lock)
    assert_type(condition.wait_for(lambda: 5), int)
    event = pycoronet.Event()
    assert_type(event.wait(1), bool)
    assert_type(pycoronet.Barrier(2).wait(), int)


def queues(jobs: pycoronet.Queue[str]) -> None:
    assert_type(jobs.get(timeout=1), str)
    jobs.put(5)  # type: ignore[arg-type]
    last: pycoronet.LifoQueue[bytes] = pycoronet.LifoQueue(5)
    assert_type(last.get_nowait(), bytes)
    assert_type(pycoronet.SimpleQueue[int]().get(), int)
    assert_type(pycoronet.PriorityQueue[tuple[int, str]](9).get(), tuple[int, str])
    channel = pycoronet.Channel[int](3)
    assert_type(list(channel), list[int])
    channel.put("text")  # type: ignore[arg-type]


class Session(pycoronet.Local):
    """What each task has for itself."""

    def __init__(self, user: str) -> None:
        self.user = user


def locals_of_tasks(session: Session) -> None:
    assert_type(session.user, str)
    session.user = 5  # type: ignore[assignment]
    assert_type(Session("me"), Session)
    Session(5)  # type: ignore[arg-type]


def connections(conn: sk_conn, path: Path) -> None:
    assert_type(conn.recv(5), bytes)
    assert_type(conn.recv_into(bytearray(5)), int)
    assert_type(conn.readln(), bytes)
    assert_type(conn.readln(eol="crlf", keepends=bool(conn)), bytes | None)
    conn.readln(eol="cr")  # type: ignore[call-overload]
    assert_type(list(conn), list[bytes])
    assert_type(list(conn.lines(100, eol="any")), list[bytes])
    assert_type(conn.read_frame(">H", limit=100), bytes | None)
    assert_type(conn.take_line(), bytes | None)
    assert_type(conn.write(memoryview(b"x")), int)
    conn.write("text")  # type: ignore[arg-type]
    conn.timeo = None
    conn.settimeout("1")  # type: ignore[arg-type]
    with path.open("rb") as file:
        assert_type(conn.sendfile(file, 5, count=None), int)
    assert_type(conn.tls, TLSLayer | None)
    assert_type(conn.layers, tuple[TransportLayer, ...])
    assert_type(conn.coroutine, Task[Any] | None)
    conn.connect(("127.0.0.1", 5))
    conn.connect(5)  # type: ignore[arg-type]
    assert_type(conn.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE), int)
    with conn as same:
        assert_type(same, sk_conn)


def sockets(context: ssl.SSLContext, path: Path) -> None:
    assert_type(pycoronet.connect(("localhost", 80), timeout=5, tls=True), sk_conn)
    pycoronet.connect(path)
    pycoronet.connect(80)  # type: ignore[arg-type]
    listener = pycoronet.listen(("", 0), backlog=5, defer_accept=1.5)
    assert_type(listener, sk_conn)
    pycoronet.serve(listener, handle, tls=context)
    pycoronet.serve(("", 0), lambda conn, address: conn.write(b"x"))
    pycoronet.serve(("", 0), measure)  # type: ignore[arg-type]
    assert_type(pycoronet.max_capacity(), int)
    assert_type(pycoronet.get_include(), str)
    assert_type(pycoronet.gethostbyname("localhost", timeout=5), str)
    assert_type(pycoronet.getnameinfo(("::1", 80)), tuple[str, str])
    found = pycoronet.getaddrinfo("localhost", 80)
    assert_type(found, list[tuple[int, int, int, str, Any]])


class Echo(pycoronet.Protocol):
    """Callbacks; any class with these methods would do."""

    def on_data(self, conn: sk_conn) -> None:
        """Answer."""
        conn.write(conn.take(conn.available))


def callbacks(conn: sk_conn, limit: pycoronet.RateLimit, traffic: pycoronet.Traffic) -> None:
    conn.set_callbacks(Echo())
    conn.set_callbacks(Echo, on_accept_error=lambda listener, error: listener.close())
    conn.set_callbacks(5)  # type: ignore[arg-type]
    conn.priority = pycoronet.HIGH or pycoronet.NORMAL or pycoronet.LOW
    conn.trigger(READ | pycoronet.WRITE)
    conn.set_rate_limit(limit)
    group = pycoronet.RateGroup(limit, min_share=9)
    assert_type(group.members, list[sk_conn])
    assert_type(group.read_remaining, int | None)
    conn.traffic = traffic
    assert_type(conn.get_watermarks(), dict[str, int])
    pycoronet.RateLimit(1000)  # type: ignore[call-arg]


def loop(hub: Hub, conn: sk_conn) -> None:
    assert_type(pycoronet.get_hub(backend="epoll"), Hub)
    assert_type(hub.call_later(0.5, measure, "text"), pycoronet.TimerHandle)
    hub.call_later(0.5, measure, 5)  # type: ignore[arg-type]
    hub.call_soon(measure, "text")
    assert_type(hub.add_hook(check=lambda: None), pycoronet.HookHandle)
    assert_type(hub.loop_exit(5.0), pycoronet.TimerHandle)
    assert_type(hub.registrations(), list[tuple[int, int, str, object]])
    hub.set_stall_limit(1.0, lambda error: print(error.task))
    once = pycoronet.once(conn, READ | pycoronet.PRIORITY, lambda ready: None, timeout=5)
    assert_type(once, pycoronet.OnceHandle)
    handle = pycoronet.signal_handler(signal.SIGTERM, lambda signum: None)
    assert_type(handle, pycoronet.SignalHandle)
    assert_type(pycoronet.wait_fd(0, READ, timeout=None) & pycoronet.HANGUP, int)
    assert_type(pycoronet.wait_readable(conn), int)
    pycoronet.wait_writable("stdin")  # type: ignore[arg-type]
    pycoronet.notify_closing(conn)
    assert_type(pycoronet.flush_all(), int)
    with pycoronet.open_signal_receiver(signal.SIGHUP) as received:
        assert_type(list(received), list[int])
    with pycoronet.LoopMeter() as meter:
        assert_type(meter.percentile(99), float)


def threads(hub: Hub) -> None:
    assert_type(pycoronet.to_thread(measure, "text", factor=2), int)
    pycoronet.to_thread(measure, 5)  # type: ignore[arg-type]
    assert_type(from_thread.run(hub, measure, "text", timeout=5), int)
    from_thread.run(hub, measure, 5)  # type: ignore[arg-type]
    pycoronet.set_thread_limits(calls=5)
    assert_type(pycoronet.get_thread_limits(), dict[str, int])


def asyncio_code(waiting: Task[int]) -> None:
    """Results cross over to asyncio, and come back."""

    async def main() -> int:
        assert_type(await waiting, int)
        return 5

    assert_type(aio.run(main()), int)
    assert_type(pycoronet.await_(asyncio.sleep(1, "text")), str)
    assert_type(aio.get_loop(), aio.EventLoop)


def layers(conn: sk_conn, layer: Zlib) -> None:
    conn.push_layer(layer)
    assert_type(conn.pop_layer(), TransportLayer)
    conn.push_layer(Tee(received=print))
    conn.push_layer(Filter(lambda data, is_end: bytes(data), None, limit=100))
    conn.push_layer(print)  # type: ignore[arg-type]
    assert_type(conn.start_tls(server_hostname="localhost", timeout=5), TLSLayer)


def servers(files: pycoronet.CertificateFiles) -> None:
    server = pycoronet.Server(("", 7000), handle, tls=files, poolsize_max=5)
    assert_type(server.closing, bool)
    assert_type(server.backlog, int)
    assert_type(server.stop(timeout=5), int)
    server.backlog = "many"  # type: ignore[assignment]
    with pycoronet.Server("localhost:7000", Echo, strategy="callback") as server:
        server.serve_forever()
    assert_type(pycoronet.server_ssl_context("a.pem"), ssl.SSLContext)
    assert_type(pycoronet.client_ssl_context(capath="/"), ssl.SSLContext)
    assert_type(pycoronet.stop_all(5), int)
    pycoronet.shutdown()


def errors(
    broken: pycoronet.IncompleteReadError,
    deadlock: pycoronet.DeadlockError,
    stall: pycoronet.StalledError,
    cancelled: pycoronet.Cancelled,
) -> None:
    assert_type(broken.partial, bytes)
    assert_type(stall.seconds, float)
    oserrors: tuple[type[OSError], ...] = (pycoronet.ClosedError,)
    others: tuple[type[Exception], ...] = (
        pycoronet.BusyError,
        pycoronet.LineTooLongError,
        pycoronet.ShutDown,
    )
    print(oserrors, others, deadlock.waiters, cancelled.reason)


def processes() -> None:
    with Popen(["cat"], stdin=-1) as process:
        assert_type(process.stdin, sk_conn | None)
        assert_type(process.wait(), int)
    assert_type(run_process("true", check=True), CompletedProcess[bytes])
    assert_type(check_output(["date"], timeout=5), bytes)
    Popen(5)  # type: ignore[arg-type]


def tests() -> None:
    with testing.virtual_time() as hub, testing.pair(latency=0.5) as (left, right):
        assert_type((hub, left, right), tuple[Hub, sk_conn, sk_conn])
        testing.advance(5)
    with testing.faults({"read": ["EINTR", 3, None]}, only=[left]) as faults:
        assert_type(faults.total, int)
