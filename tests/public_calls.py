"""How each public name is called, for tests of all; attributes are read, and set to that."""

from __future__ import annotations

import array
import os
import signal
import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from traceback import StackSummary
from typing import Any

from connections import MOMENT

import pycoronet
from pycoronet import READ, WRITE, RateLimit, get_hub, sk_conn, sleep, spawn

LOCAL = ("127.0.0.1", 0)
SLOW = RateLimit(read_rate=1000)
INPUT = b"\0\0\0\1x" + b"line\n" * 9  # a frame, then lines


class Called:
    """The function that is called: it does nothing, or it raises."""

    raises = False

    def __call__(self, *_: object) -> None:
        if self.raises:
            raise LookupError


nothing = Called()


class Kept:
    """Makes what a case needs, and ends it when the round is over."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack

    def socket(self) -> socket.socket:
        """Return a socket with input."""
        left, right = socket.socketpair()
        self.stack.enter_context(left)
        self.stack.enter_context(right)
        right.send(INPUT)
        return left

    def conn(self) -> Any:
        """Return a connection with input."""
        conn = sk_conn(self.socket())
        self.stack.callback(conn.abort)
        return conn

    def listener(self) -> Any:
        """Return a listener with a connection in its queue."""
        listener = pycoronet.listen(LOCAL)
        self.stack.callback(listener.abort)
        self.stack.enter_context(socket.create_connection(listener.getsockname()))
        return listener

    def server(self) -> Any:
        """Return a server that is not started."""
        server = pycoronet.Server(LOCAL, nothing)
        self.stack.callback(server.close)
        return server

    def grouped(self) -> Any:
        """Return a rate group with a member."""
        group = pycoronet.RateGroup(SLOW)
        group.add(self.conn())
        return group

    def layer(self) -> Any:
        """Return a layer on a connection."""
        layer = pycoronet.TransportLayer()
        self.conn().push_layer(layer)
        return layer

    def queue(self, kind: Any) -> Any:
        """Return a queue with something in it."""
        queue = kind()
        queue.put(1)
        return queue

    def held(self, lock: Any) -> Any:
        """Return the lock, locked."""
        lock.acquire()
        return lock

    def entered(self, thing: Any) -> Any:
        """Return what is entered, and left in the end."""
        thing.__enter__()

        def leave() -> None:
            with suppress(RuntimeError):
                thing.__exit__(None, None, None)

        self.stack.callback(leave)
        return thing

    def cancelled_in_the_end(self, handle: Any) -> Any:
        """Return the handle."""
        self.stack.callback(handle.cancel)
        return handle


# How a method is called: its arguments, or a function of a fresh object of its type.
Call = tuple[Any, ...] | Callable[[Any], object]

LEAVE = (None, None, None)


def use(scope: Any) -> None:
    with scope:
        sleep(0)


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


def wait_for(function: Callable[..., object], *arguments: Any) -> Callable[[Kept], object]:
    return lambda kept: function(kept.conn(), *arguments)


def serve(kept: Kept) -> None:
    task = spawn(pycoronet.serve, LOCAL, nothing)
    sleep(0)
    task.cancel()
    task.join()


def await_(kept: Kept) -> None:
    async def work() -> None:
        pass

    pycoronet.await_(work())


def receive_signal(kept: Kept) -> None:
    with pycoronet.open_signal_receiver(signal.SIGUSR1) as receiver:
        os.kill(os.getpid(), signal.SIGUSR1)
        next(receiver)


def connect(kept: Kept) -> None:
    pycoronet.connect(kept.listener().getsockname()).close()


def make_server_context(kept: Kept) -> None:
    with suppress(OSError):
        pycoronet.server_ssl_context("/nowhere")


# How the functions and types themselves are called.
CALLS: dict[str, tuple[Any, ...] | Callable[[Kept], object]] = {
    "Barrier": (2,),
    "BoundedSemaphore": (2,),
    "BusyError": ("why",),
    "Cancelled": ("why",),
    "CertificateFiles": ("a.pem",),
    "Channel": (),
    "ClosedError": (),
    "Condition": (),
    "DeadlockError": (["who"],),
    "Event": (),
    "HookHandle": lambda kept: get_hub().add_hook(check=nothing).cancel(),
    "Hub": lambda kept: get_hub(),
    "IncompleteReadError": (b"",),
    "LifoQueue": (),
    "LineTooLongError": ("why",),
    "Local": (),
    "Lock": (),
    "LoopMeter": lambda kept: pycoronet.LoopMeter().close(),
    "OnceHandle": lambda kept: pycoronet.once(kept.socket(), WRITE, nothing).cancel(),
    "Pool": (2,),
    "PriorityQueue": (),
    "Protocol": (),
    "Queue": (),
    "RLock": (),
    "RateGroup": (RateLimit(),),
    "RateLimit": (),
    "Semaphore": (2,),
    "Server": lambda kept: kept.server(),
    "ShutDown": (),
    "SignalHandle": lambda kept: pycoronet.signal_handler(signal.SIGUSR1, nothing).cancel(),
    "SimpleQueue": (),
    "StalledError": (None, 1.0, StackSummary.from_list([])),
    "Task": lambda kept: spawn(int),
    "TaskGroup": (),
    "TimerHandle": lambda kept: get_hub().call_later(5, nothing).cancel(),
    "Traffic": (),
    "TransportLayer": (),
    "await_": await_,
    "client_ssl_context": lambda kept: pycoronet.client_ssl_context(capath="/"),
    "connect": connect,
    "current": (),
    "flush_all": (),
    "get_hub": (),
    "get_include": (),
    "get_thread_limits": (),
    "getaddrinfo": ("127.0.0.1", 80),
    "gethostbyname": ("127.0.0.1",),
    "getnameinfo": (("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV),
    "iwait": lambda kept: list(pycoronet.iwait([spawn(int)])),
    "joinall": lambda kept: pycoronet.joinall([spawn(int)]),
    "listen": lambda kept: kept.listener(),
    "max_capacity": (),
    "move_on_after": lambda kept: use(pycoronet.move_on_after(1)),
    "notify_closing": wait_for(pycoronet.notify_closing),
    "once": lambda kept: (pycoronet.once(kept.socket(), WRITE, nothing), sleep(MOMENT)),
    "open_signal_receiver": receive_signal,
    "serve": serve,
    "server_ssl_context": make_server_context,
    "set_thread_limits": lambda kept: pycoronet.set_thread_limits(**pycoronet.get_thread_limits()),
    "shield": lambda kept: use(pycoronet.shield(1)),
    "shutdown": (),
    "signal_handler": lambda kept: pycoronet.signal_handler(signal.SIGUSR1, nothing).cancel(),
    "sk_conn": lambda kept: kept.conn(),
    "sleep": (0.5,),
    "spawn": (nothing,),
    "spawn_later": (0.5, nothing),
    "stop_all": (),
    "timeout": lambda kept: use(pycoronet.timeout(1)),
    "to_thread": (nothing,),
    "wait": lambda kept: pycoronet.wait([spawn(int)]),
    "wait_fd": wait_for(pycoronet.wait_fd, WRITE),
    "wait_readable": wait_for(pycoronet.wait_readable),
    "wait_writable": wait_for(pycoronet.wait_writable),
}
