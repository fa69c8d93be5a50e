"""How each public method is called, for tests of all; attributes are read, and set to that."""

from __future__ import annotations

import array
import os
import signal
import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from connections import MOMENT
from kept import SLOW, Kept, nothing, use

import pycoronet
from pycoronet import READ, WRITE, RateLimit, get_hub, sleep, spawn

# How a method is called: its arguments, or a function of a fresh object of its type.
Call = tuple[Any, ...] | Callable[[Any], object]

LEAVE = (None, None, None)


def receive_into(conn: Any) -> None:
    assert conn.recv_into(bytearray(9)) == 9


def listen_then(name: str) -> Callable[[Any], object]:
    def call(conn: Any) -> object:
        with ExitStack() as stack:
            return getattr(Kept(stack).listener(), name)()

    return call


def pop_layer(conn: Any) -> None:
    conn.push_layer(pycoronet.TransportLayer())
    conn.pop_layer()


def start_tls(conn: Any) -> None:
    # The peer's bytes are no TLS.
    with suppress(OSError):
        conn.start_tls(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), server_side=True)


def reconnect(conn: Any) -> None:
    with suppress(OSError):
        conn.connect("/nowhere")


def make_context(files: Any) -> None:
    with suppress(OSError):
        files.context()


def send_file(conn: Any) -> None:
    with Path(__file__).open("rb") as file:
        conn.sendfile(file)


def send_message(conn: Any) -> None:
    conn.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])


def send_to(conn: Any) -> None:
    with suppress(OSError):
        conn.sendto(b"x", "/nowhere")


def callbacks(conn: Any) -> None:
    conn.set_callbacks(pycoronet.Protocol())
    conn.trigger(READ | WRITE)
    sleep(MOMENT)


def serve_forever(server: Any) -> None:
    spawn(server.close)
    server.serve_forever()


def await_input(server: Any) -> None:
    with ExitStack() as stack:
        server.start()
        server.await_input(Kept(stack).conn())


def run_barrier(barrier: Any) -> None:
    other = spawn(barrier.wait)
    barrier.wait()
    other.join()


def await_task(task: Any) -> None:
    async def work() -> None:
        await task

    pycoronet.await_(work())


def notify(condition: Any) -> None:
    def wait() -> None:
        with condition:
            condition.wait()

    waiting = spawn(wait)
    try:
        sleep(0)
        with condition:
            condition.notify()
        waiting.join()
    finally:
        waiting.cancel()


def wait_condition(condition: Any) -> None:
    with condition:
        condition.wait(0)


QUEUE = {
    "empty": (),
    "full": (),
    "get": (),
    "get_nowait": (),
    "join": lambda it: (it.get(), it.task_done(), it.join()),
    "put": (1,),
    "put_nowait": (1,),
    "qsize": (),
    "shutdown": (True,),
    "task_done": lambda it: (it.get(), it.task_done()),
}
SIMPLE_QUEUE = {name: QUEUE[name] for name in QUEUE if name not in ("full", "join", "task_done")}
LOCK: dict[str, Call] = {
    "__enter__": lambda it: (it.release(), it.__enter__()),
    "__exit__": LEAVE,
    "acquire": lambda it: (it.release(), it.acquire(True, 1)),
    "locked": (),
    "release": (),
}
SEMAPHORE = {name: LOCK[name] for name in LOCK if name != "locked"}
HANDLE: dict[str, Call] = {"cancel": ()}

METHODS: dict[str, tuple[Callable[[Kept], Any], dict[str, Call]]] = {
    "Barrier": (
        lambda kept: pycoronet.Barrier(2, nothing),
        {"abort": (), "reset": (), "wait": run_barrier},
    ),
    "BoundedSemaphore": (lambda kept: kept.held(pycoronet.BoundedSemaphore(2)), SEMAPHORE),
    "CertificateFiles": (
        lambda kept: pycoronet.CertificateFiles("a.pem"),
        {"context": make_context},
    ),
    "Channel": (
        lambda kept: kept.queue(lambda: pycoronet.Channel(3)),
        {
            "__iter__": (),
            "__next__": (),
            "close": (),
            "get": (),
            "get_nowait": (),
            "put": (2,),
            "put_nowait": (2,),
        },
    ),
    "Condition": (
        lambda kept: pycoronet.Condition(),
        {
            "__enter__": lambda it: it.__enter__() and it.__exit__(*LEAVE),
            "__exit__": lambda it: it.__enter__() and it.__exit__(*LEAVE),
            "notify": notify,
            "notify_all": lambda it: it.__enter__() and (it.notify_all(), it.__exit__(*LEAVE)),
            "wait": wait_condition,
            "wait_for": lambda it: it.__enter__() and (it.wait_for(int, 0), it.__exit__(*LEAVE)),
        },
    ),
    "Event": (
        lambda kept: pycoronet.Event(),
        {"clear": (), "is_set": (), "set": (), "wait": (0,)},
    ),
    "HookHandle": (
        lambda kept: kept.cancelled_in_the_end(get_hub().add_hook(check=nothing)),
        HANDLE,
    ),
    "Hub": (
        lambda kept: get_hub(),
        {
            "add_hook": lambda it: it.add_hook(nothing, nothing).cancel(),
            "call_every": lambda it: it.call_every(1, nothing).cancel(),
            "call_later": lambda it: it.call_later(0, nothing),
            "call_soon": (nothing,),
            "call_soon_threadsafe": (nothing,),
            "close": (),
            "dispatch": (1,),
            "dump": (),
            "loop_break": (),
            "loop_continue": (),
            "loop_exit": (),
            "registrations": (),
            "run": (),
            "set_dispatch_interval": (1.0, 9),
            "set_stall_limit": lambda it: (
                it.set_stall_limit(9, nothing),
                it.set_stall_limit(None),
            ),
            "stop": (),
            "wait": (0,),
            "waiters": (),
        },
    ),
    "LifoQueue": (lambda kept: kept.queue(pycoronet.LifoQueue), QUEUE),
    "Local": (lambda kept: pycoronet.Local(), {}),
    "Lock": (lambda kept: kept.held(pycoronet.Lock()), LOCK),
    "LoopMeter": (
        lambda kept: kept.entered(pycoronet.LoopMeter()),
        {"__enter__": (), "__exit__": LEAVE, "close": (), "percentile": (50,), "reset": ()},
    ),
    "OnceHandle": (
        lambda kept: kept.cancelled_in_the_end(pycoronet.once(kept.socket(), READ, nothing)),
        HANDLE,
    ),
    "Pool": (
        lambda kept: pycoronet.Pool(2),
        {
            "__enter__": (),
            "__exit__": LEAVE,
            "__len__": (),
            "apply": (nothing,),
            "cancel": (),
            "imap": lambda it: list(it.imap(int, [1, 2])),
            "imap_unordered": lambda it: list(it.imap_unordered(int, [1, 2])),
            "join": (),
            "map": (nothing, [1, 2]),
            "spawn": (nothing,),
        },
    ),
    "PriorityQueue": (lambda kept: kept.queue(pycoronet.PriorityQueue), QUEUE),
    "Protocol": (
        lambda kept: pycoronet.Protocol(),
        {
            "on_close": (None,),
            "on_data": lambda it: it.on_eof,
            "on_eof": lambda it: it.on_eof,
            "on_error": lambda it: it.on_error,
            "on_open": (None,),
            "on_ready": (None,),
            "on_shutdown": lambda it: it.on_shutdown,
            "on_timeout": lambda it: it.on_timeout,
        },
    ),
    "Queue": (lambda kept: kept.queue(pycoronet.Queue), QUEUE),
    "RLock": (lambda kept: kept.held(pycoronet.RLock()), LOCK),
    "RateGroup": (
        Kept.grouped,
        {
            "__len__": (),
            "add": lambda it: it.add(it.members[0]),
            "decrement": (5,),
            "remove": lambda it: it.remove(it.members[0]),
            "reset_totals": (),
            "set_limit": (RateLimit(),),
        },
    ),
    "RateLimit": (lambda kept: RateLimit(read_rate=5), {}),
    "Semaphore": (lambda kept: kept.held(pycoronet.Semaphore(2)), SEMAPHORE),
    "Server": (
        Kept.server,
        {
            "__enter__": (),
            "__exit__": LEAVE,
            "add_shutdown_callback": (nothing,),
            "await_input": await_input,
            "close": (),
            "listen": (),
            "serve_forever": serve_forever,
            "start": (),
            "stop": lambda it: (it.start(), it.stop(0)),
        },
    ),
    "SignalHandle": (
        lambda kept: kept.cancelled_in_the_end(pycoronet.signal_handler(signal.SIGUSR1, nothing)),
        HANDLE,
    ),
    "SimpleQueue": (lambda kept: kept.queue(pycoronet.SimpleQueue), SIMPLE_QUEUE),
    "Task": (
        lambda kept: spawn(int),
        {
            "__await__": await_task,
            "cancel": ("why",),
            "get": (),
            "join": (),
            "link": (nothing,),
            "unlink": (nothing,),
        },
    ),
    "TaskGroup": (
        lambda kept: kept.entered(pycoronet.TaskGroup()),
        {
            "__enter__": lambda it: it.__exit__(*LEAVE) or use(pycoronet.TaskGroup()),
            "__exit__": LEAVE,
            "cancel": (),
            "spawn": (int,),
        },
    ),
    "TimerHandle": (
        lambda kept: kept.cancelled_in_the_end(get_hub().call_later(1, nothing)),
        HANDLE,
    ),
    "Traffic": (lambda kept: pycoronet.Traffic(), {}),
    "TransportLayer": (
        Kept.layer,
        {
            "emit": (b"x",),
            "end": (),
            "finish": (),
            "on_clear": (),
            "started": (),
            "take_emitted": (),
            "unwrap": (b"x",),
            "wrap": (b"x",),
        },
    ),
    "sk_conn": (
        Kept.conn,
        {
            "__enter__": (),
            "__exit__": LEAVE,
            "__iter__": (),
            "__next__": (),
            "abort": (),
            "accept": listen_then("accept"),
            "close": (),
            "connect": reconnect,
            "copyout": lambda it: (it.wait_input(), it.copyout(bytearray(5))),
            "decrement_rate": lambda it: (it.set_rate_limit(SLOW), it.decrement_rate(1)),
            "detach": lambda it: os.close(it.detach()),
            "disable": (READ | WRITE,),
            "drain": (5,),
            "enable": (READ,),
            "enqueue": ([b"x" * 9, bytearray(b"y" * 9000)],),
            "fileno": (),
            "flush": lambda it: (setattr(it, "buffered", True), it.write(b"x"), it.flush()),
            "get_single_limits": (),
            "get_timeouts": (),
            "get_watermarks": (),
            "getpeername": (),
            "getsockname": (),
            "getsockopt": (socket.SOL_SOCKET, socket.SO_TYPE),
            "gettimeout": (),
            "lines": lambda it: next(it.lines(eol="any")),
            "mod": (READ,),
            "peek": (5,),
            "pop_layer": pop_layer,
            "prepend": (b"x" * 600,),
            "printf": (b"%d", 5),
            "push_layer": lambda it: it.push_layer(pycoronet.TransportLayer()),
            "read": (5,),
            "read_exactly": (5,),
            "read_frame": (),
            "read_until": (b"\n",),
            "readline": (),
            "readln": (),
            "readsome": (9,),
            "recv": (9,),
            "recv_into": receive_into,
            "recvfrom": (9,),
            "recvmsg": (9, 99),
            "search": (b"x",),
            "sendall": (b"x",),
            "sendfile": send_file,
            "sendmsg": send_message,
            "sendto": send_to,
            "set_callbacks": callbacks,
            "set_rate_limit": (RateLimit(),),
            "set_single_limits": (5, 5),
            "set_timeo": (5,),
            "set_timeouts": (5, 5),
            "set_watermarks": (),
            "setsockopt": (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            "settimeout": (5,),
            "shutdown": (socket.SHUT_WR,),
            "start_tls": start_tls,
            "take": (5,),
            "take_frame": (),
            "take_line": (),
            "trigger": callbacks,
            "wait_input": (),
            "write": (b"x",),
        },
    ),
}
