"""How each public function and type is called, for tests of all."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from traceback import StackSummary
from typing import Any

from connections import MOMENT
from kept import LOCAL, Kept, nothing, use

import pycoronet
from pycoronet import WRITE, RateLimit, get_hub, sleep, spawn


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
        signal.raise_signal(signal.SIGUSR1)  # to this thread, at once
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
