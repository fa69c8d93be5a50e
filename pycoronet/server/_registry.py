"""The servers of this process, and how all of them are ended."""

import contextlib
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from .._coronet import ParkingLot, _report, get_hub
from ._settings import check_wait

if TYPE_CHECKING:
    from ._server import Server

__all__ = [
    "add_shutdown_callback",
    "call_reported",
    "close_all",
    "servers",
    "shutdown",
    "stop_all",
    "wait_for_all",
]

# Those of this process that live; each hub's thread adds and stops its own.
servers: "weakref.WeakSet[Server]" = weakref.WeakSet()
_shutdown_callbacks: list[Callable[[], object]] = []


def _listening_servers() -> "list[Server]":
    while True:
        try:
            return [server for server in servers if server.is_listening]
        except RuntimeError:  # not reached: another thread makes a server just then
            pass  # another thread has made one meanwhile


def close_all() -> None:
    """Have all servers closed, in their hubs."""
    for server in _listening_servers():
        server._close_soon()


def wait_for_all() -> None:
    """Wait until all servers have stopped, those of other threads too."""
    hub, lot = get_hub(), ParkingLot()

    def tell(_: "Server") -> None:
        with contextlib.suppress(RuntimeError):  # nobody waits any more
            hub.call_soon_threadsafe(lot.unpark)

    for server in _listening_servers():
        server.add_shutdown_callback(tell)
        while server.is_listening:
            lot.park("the servers that are stopping")
        server._shutdown_callbacks.remove(tell)


def stop_all(timeout: float | None = None, *, wait: bool = True) -> int:
    """Stop all servers of the process, as `Server.stop()` does; return how many were cancelled.

    Those of other threads are stopped without being waited for. Raises RuntimeError where
    stop() does, before any is stopped. Switches, if it waits.

    Source: cp_socket's cp_socket_stop_all.
    """
    check_wait(timeout)
    mine = _listening_servers()
    for server in mine:
        if wait and server.is_in_this_thread:
            server._check_may_wait()
    for server in mine:
        server.stop(timeout, wait=False)
    return sum(server.stop(timeout) for server in mine if server.is_in_this_thread) if wait else 0


def shutdown(timeout: float | None = None) -> None:
    """Stop all servers, then call the functions of `add_shutdown_callback()`, the last first.

    timeout: seconds, as for `stop_all()`. Switches.

    Source: cp_socket's cp_socket_shutdown.
    """
    stop_all(timeout)
    while _shutdown_callbacks:
        call_reported(_shutdown_callbacks.pop())


def add_shutdown_callback(function: Callable[[], object]) -> None:
    """Have function() called by `shutdown()`. What it raises is reported. Never switches.

    Source: cp_socket's shutdown callbacks.
    """
    _shutdown_callbacks.append(function)


def call_reported(function: Callable[..., object], *args: object) -> None:
    """Call a function whose failure nobody can be given."""
    try:
        function(*args)
    except Exception as error:
        _report(error, function)
