"""Binding stream sockets: what listen() and servers share. Nothing in here needs a hub.

An address becomes the places that it stands for, and a place a socket that is bound there.
"""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias, TypeGuard

# FreeBSD spreads connections over the listeners of a port only by an option of its own.
SHARED_PORT = getattr(socket, "SO_REUSEPORT_LB", socket.SO_REUSEPORT)

# (host, port), or the path of a Unix socket.
Address: TypeAlias = tuple[Any, ...] | str | bytes | os.PathLike[str] | os.PathLike[bytes]
LookUp = Callable[..., list[Any]]


class Place(NamedTuple):
    """Where one socket can be bound."""

    family: int
    address: Any  # as bind() takes it
    is_ipv6_only: bool = True  # of interest for IPv6 alone


def is_path(address: Any) -> TypeGuard[str | bytes | os.PathLike[str]]:
    """Tell whether it is the path of a Unix socket."""
    return isinstance(address, str | bytes | os.PathLike)


def numeric_family(host: Any) -> int | None:
    """Return the family that a numeric address belongs to, None for a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError, TypeError, ValueError):
            socket.inet_pton(family, host)
            return family
    return None


def find_places(
    address: Any, *, ipv6_only: bool | None = None, look_up: LookUp = socket.getaddrinfo
) -> list[Place]:
    """Return where to bind for an address, in the resolver's order: at least one place.

    address and ipv6_only: as for listen(). look_up: what asks for a name that is no numeric
    address, called as socket.getaddrinfo is. Raises what that raises, ValueError for
    ipv6_only with an address that is not of IPv6, and TypeError for what is no address.
    """
    if is_path(address):
        places = [Place(socket.AF_UNIX, os.fspath(address))]
    elif not isinstance(address, tuple | list) or len(address) < 2:
        raise TypeError(f"an address is (host, port) or the path of a Unix socket, not {address!r}")
    else:
        places = _find_internet_places(*address, ipv6_only=ipv6_only, look_up=look_up)
    if ipv6_only is not None and places[0].family != socket.AF_INET6:
        raise ValueError(f"ipv6_only is for IPv6 addresses, not for {address!r}")
    return places


def _find_internet_places(
    host: str, port: int, *scope: int, ipv6_only: bool | None, look_up: LookUp
) -> list[Place]:
    if host == "":
        if ipv6_only is not None or socket.has_dualstack_ipv6():
            return [Place(socket.AF_INET6, ("::", port), bool(ipv6_only))]
        return [Place(socket.AF_INET, ("0.0.0.0", port))]
    is_alone = ipv6_only is None or bool(ipv6_only)
    family = numeric_family(host)
    if family is not None:
        rest = scope if family == socket.AF_INET6 else ()
        return [Place(family, (host, port, *rest), is_alone)]
    found = look_up(
        host,
        port,
        family=socket.AF_UNSPEC if ipv6_only is None else socket.AF_INET6,
        type=socket.SOCK_STREAM,
        flags=socket.AI_PASSIVE,
    )
    # A hosts file may name an address twice.
    return list(dict.fromkeys(Place(entry[0], entry[4], is_alone) for entry in found))


def bind(
    place: Place,
    *,
    reuse_port: bool = False,
    reuse_address: bool = True,
    close_on_exec: bool = True,
) -> socket.socket:
    """Return a stream socket that is bound at the place and does not listen yet."""
    sock = socket.socket(place.family, socket.SOCK_STREAM)
    try:
        if place.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, bool(reuse_address))
        if place.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, place.is_ipv6_only)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, SHARED_PORT, 1)
        sock.set_inheritable(not close_on_exec)
        sock.bind(place.address)
    except BaseException:
        sock.close()
        raise
    return sock
