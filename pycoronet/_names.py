"""Names of hosts and services, looked up in threads of their own."""

import socket
from collections.abc import Callable
from typing import Any

from ._coronet import _set_resolver
from ._coronet import timeout as time_limit
from ._threads import call_in_pool, name_pool

__all__ = ["getaddrinfo", "gethostbyname", "getnameinfo"]


def _look_up(seconds: float | None, function: Callable[..., Any], *args: Any) -> Any:
    with time_limit(seconds):
        return call_in_pool(name_pool, function, *args)


def getaddrinfo(
    host: str | bytes | None,
    port: str | int | None,
    family: int = 0,
    type: int = 0,
    proto: int = 0,
    flags: int = 0,
    *,
    timeout: float | None = None,
) -> list[tuple[int, int, int, str, Any]]:
    """`socket.getaddrinfo`, without blocking the hub.

    timeout: seconds, None for no limit. The system's own look-up cannot be ended: it goes on in
    its thread, of which there are as many as `set_thread_limits()` says.

    Raises socket.gaierror, TimeoutError. Switches.

    Source: Python's socket.getaddrinfo.
    """
    found: list[tuple[int, int, int, str, Any]] = _look_up(
        timeout, socket.getaddrinfo, host, port, family, type, proto, flags
    )
    return found


def getnameinfo(
    sockaddr: tuple[Any, ...], flags: int = 0, *, timeout: float | None = None
) -> tuple[str, str]:
    """`socket.getnameinfo`, without blocking the hub; otherwise as `getaddrinfo()`.

    Switches.

    Source: Python's socket.getnameinfo.
    """
    names: tuple[str, str] = _look_up(timeout, socket.getnameinfo, sockaddr, flags)
    return names


def gethostbyname(hostname: str, *, timeout: float | None = None) -> str:
    """`socket.gethostbyname`, without blocking the hub; otherwise as `getaddrinfo()`.

    Switches.

    Source: Python's socket.gethostbyname.
    """
    address: str = _look_up(timeout, socket.gethostbyname, hostname)
    return address


def _resolve(host: str, port: int, family: int, type: int) -> Any:
    """Look up the first address of a host name, for sk_conn.connect() and sendto()."""
    return getaddrinfo(host, port, family, type)[0][4]


_set_resolver(_resolve)
