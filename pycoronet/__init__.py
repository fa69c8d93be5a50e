"""Sequential network code on a C core: coroutines over epoll and kqueue.

Example::

    from pycoronet import serve

    def handler(conn, address):
        for line in conn:
            conn.write(line)

    serve(("127.0.0.1", 7000), handler)
"""

import atexit
import os

from . import _inspection as _inspection  # the core calls these by name
from . import _waits as _waits
from ._await import await_
from ._coronet import (
    HANGUP,
    HIGH,
    LOW,
    NORMAL,
    PRIORITY,
    READ,
    WRITE,
    BoundedSemaphore,
    Event,
    HookHandle,
    Hub,
    LifoQueue,
    Local,
    Lock,
    OnceHandle,
    Queue,
    RateGroup,
    RateLimit,
    RLock,
    Semaphore,
    SignalHandle,
    SimpleQueue,
    Task,
    TimerHandle,
    Traffic,
    TransportLayer,
    _after_fork_in_child,
    _close_at_exit,
    current,
    flush_all,
    get_hub,
    move_on_after,
    notify_closing,
    once,
    shield,
    signal_handler,
    sk_conn,
    sleep,
    spawn,
    spawn_later,
    timeout,
    wait_fd,
    wait_readable,
    wait_writable,
)
from ._groups import TaskGroup
from ._include import get_include
from ._meter import LoopMeter
from ._names import getaddrinfo, gethostbyname, getnameinfo
from ._pools import Pool
from ._protocol import Protocol
from ._signals import open_signal_receiver
from ._sockets import connect, listen, max_capacity, serve
from ._sync import Barrier, Channel, Condition, PriorityQueue
from ._threads import get_thread_limits, set_thread_limits, to_thread
from ._waiting import iwait, joinall, wait
from .errors import (
    BusyError,
    Cancelled,
    ClosedError,
    DeadlockError,
    IncompleteReadError,
    LineTooLongError,
    ShutDown,
    StalledError,
)
from .server import (
    CertificateFiles,
    Server,
    client_ssl_context,
    server_ssl_context,
    shutdown,
    stop_all,
)

__all__ = [
    "HANGUP",
    "HIGH",
    "LOW",
    "NORMAL",
    "PRIORITY",
    "READ",
    "WRITE",
    "Barrier",
    "BoundedSemaphore",
    "BusyError",
    "Cancelled",
    "CertificateFiles",
    "Channel",
    "ClosedError",
    "Condition",
    "DeadlockError",
    "Event",
    "HookHandle",
    "Hub",
    "IncompleteReadError",
    "LifoQueue",
    "LineTooLongError",
    "Local",
    "Lock",
    "LoopMeter",
    "OnceHandle",
    "Pool",
    "PriorityQueue",
    "Protocol",
    "Queue",
    "RLock",
    "RateGroup",
    "RateLimit",
    "Semaphore",
    "Server",
    "ShutDown",
    "SignalHandle",
    "SimpleQueue",
    "StalledError",
    "Task",
    "TaskGroup",
    "TimerHandle",
    "Traffic",
    "TransportLayer",
    "await_",
    "client_ssl_context",
    "connect",
    "current",
    "flush_all",
    "get_hub",
    "get_include",
    "get_thread_limits",
    "getaddrinfo",
    "gethostbyname",
    "getnameinfo",
    "iwait",
    "joinall",
    "listen",
    "max_capacity",
    "move_on_after",
    "notify_closing",
    "once",
    "open_signal_receiver",
    "serve",
    "server_ssl_context",
    "set_thread_limits",
    "shield",
    "shutdown",
    "signal_handler",
    "sk_conn",
    "sleep",
    "spawn",
    "spawn_later",
    "stop_all",
    "timeout",
    "to_thread",
    "wait",
    "wait_fd",
    "wait_readable",
    "wait_writable",
]

__version__ = "0.1.0"

# At interpreter exit suspended greenlets end without their finally blocks; so the main
# thread's hub cancels its tasks while they can still run.
atexit.register(_close_at_exit)
os.register_at_fork(after_in_child=_after_fork_in_child)
