"""What a server listens on: addresses in all their forms, and the sockets bound to them.

Nothing in here makes a hub or a thread, so a master process may use it before it forks.
"""

import errno
import os
import re
import socket
import weakref
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

from .._binding import LookUp, Place, bind, find_places, is_path
from ._systemd import SystemdSockets, find_passed, forget_passed
from ._unix_paths import bind_path, unlink_path

__all__ = [
    "borrow",
    "format_address",
    "is_borrowed",
    "open_listeners",
    "parse_address",
    "parse_addresses",
]

# How often another free port is tried when it is not free on all addresses of a host.
PORT_ATTEMPTS = 20

# An address of a host that this machine has not, or has no protocol for.
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})

# Sockets that somebody else has opened, and may go on with when we are gone, as systemd does.
_borrowed: weakref.WeakSet[socket.socket] = weakref.WeakSet()

# (host, port), the path of a Unix socket, an open descriptor, a listening socket, SystemdSockets.
Address: TypeAlias = Any


def parse_address(text: str) -> Address:
    """Return the address that a text names, for open_listeners() and format_address().

    HOST:PORT, [IPV6]:PORT, :PORT (all interfaces, IPv4 and IPv6), unix:PATH, unix:@NAME
    (Linux' abstract namespace), fd:NUMBER (a listening socket that was inherited), systemd or
    systemd:NAME (those that systemd has passed). What has a slash is a path as well. Raises
    ValueError, saying what is wrong, if it is none of these. Never switches.

    Source: pycoronet's own.
    """
    if text == "systemd":
        return SystemdSockets()
    kind, colon, rest = text.partition(":")
    if colon and kind in ("unix", "fd", "systemd"):
        if not rest or rest == "@":
            raise ValueError(f"nothing comes after {text!r}")
        if kind == "systemd":
            return SystemdSockets(rest)
        if kind == "fd":
            return _parse_descriptor(text, rest)
        return "\0" + rest[1:] if rest.startswith("@") else Path(rest)
    if text.startswith("\0"):
        return text
    return Path(text) if "/" in text else _parse_internet_address(text)


def _parse_descriptor(text: str, number: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", number):
        raise ValueError(f"{text!r}: the number of a descriptor comes after 'fd:'")
    return int(number)


def _parse_internet_address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(
            f"{text!r} is no address: say HOST:PORT, :PORT for all interfaces, unix:PATH, "
            "fd:NUMBER or systemd"
        )
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise ValueError(f"{text!r}: only IPv6 addresses stand in brackets")
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address needs brackets, as in [::1]:8000")
    if not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"{text!r}: the port must be a number from 0 to 65535")
    return host, int(port)


def parse_addresses(given: Any) -> list[Address]:
    """Return the addresses that a server was given: one, or a list of several.

    Texts are parsed; (host, port), paths, descriptors and sockets stay what they are. Raises
    TypeError or ValueError for what can be no address.
    """
    several = given if isinstance(given, list) else [given]
    if not several:
        raise ValueError("a server needs an address")
    return [_check_address(one) for one in several]


def _check_address(address: Any) -> Address:
    if isinstance(address, str):
        address = parse_address(address)
    if isinstance(address, tuple):
        if not 2 <= len(address) <= 4 or not isinstance(address[0], str):
            raise TypeError(f"an Internet address is (host, port), not {address!r}")
        if not isinstance(address[1], int) or isinstance(address[1], bool):
            raise TypeError(f"the port must be an int, not {address[1]!r}")
        if not 0 <= address[1] <= 65535:
            raise ValueError(f"the port must be from 0 to 65535, not {address[1]}")
        return address
    is_descriptor = isinstance(address, int) and not isinstance(address, bool)
    if is_descriptor and address < 0:
        raise ValueError(f"a descriptor is 0 or more, not {address}")
    if is_path(address):
        return _check_path(address)
    if is_descriptor or isinstance(address, socket.socket | SystemdSockets):
        return address
    raise TypeError(
        "an address is (host, port), a text such as 'localhost:8000', a path, the number of a "
        f"descriptor or a socket, not {type(address).__name__}"
    )


def _check_path(path: Address) -> Address:
    name = os.fsdecode(path)
    if name in ("", "\0"):
        raise ValueError("the path of a Unix socket is empty")
    if "\0" in name and not name.startswith("\0"):
        raise ValueError(f"a path cannot have a null character: {name!r}")
    return path


def format_address(address: Address) -> str:
    """Return an address as parse_address() takes it; also one that getsockname() has given.

    Never switches.

    Source: pycoronet's own.
    """
    if isinstance(address, socket.socket):
        return format_address(address.getsockname()) if address.fileno() >= 0 else "closed socket"
    if isinstance(address, SystemdSockets):
        return "systemd" if address.name is None else f"systemd:{address.name}"
    if isinstance(address, int):
        return f"fd:{address}"
    if isinstance(address, tuple):
        host, port, *rest = address
        if len(rest) == 2 and rest[1] and "%" not in host:
            host = f"{host}%{rest[1]}"  # the interface of a link-local address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    name = os.fsdecode(address)
    if name.startswith("\0"):
        name = "@" + name[1:]
    return "unix:" + name.encode("utf-8", "backslashreplace").decode()


def open_listeners(
    addresses: Any,
    *,
    backlog: int = 1024,
    reuse_port: bool = False,
    count: int = 1,
    unix_mode: int | None = None,
    look_up: LookUp = socket.getaddrinfo,
) -> list[socket.socket]:
    """Open everything that a server listens on; return plain sockets that listen.

    addresses: as for parse_addresses(). All addresses of a host's name are listened on, those
    that this machine does not have excepted, with port 0 at the same free port. A descriptor,
    a socket or what systemd passed is taken over. The file of a Unix socket is replaced if
    nobody listens on it; `unlink_path()` removes it in the end.
    reuse_port: let others listen on the same port, who say so too.
    count: so many sockets for each, in turn, for workers that each have their own: worker i
    takes sockets[i::count]. What cannot be had twice, Unix sockets and those taken over, is
    there count times, as the same object. More than 1 means reuse_port.
    unix_mode: permissions of Unix sockets' files; None leaves them to the umask.

    Raises TypeError or ValueError for what is no address, and OSError (socket.gaierror for an
    unknown name), whose strerror is one line with the address and what to do. Nothing stays
    open then. Blocks while a name is looked up.
    """
    listeners: list[socket.socket] = []
    taken: list[int] = []
    with ExitStack() as undo:
        for address in parse_addresses(addresses):
            try:
                if isinstance(address, tuple):
                    places = find_places(address, look_up=look_up)
                    listeners += _open_places(places, backlog, reuse_port or count > 1, count, undo)
                    continue
                if is_path(address):
                    found = [_open_path(address, backlog, unix_mode, undo)]
                else:
                    found = _take_over(address, taken, undo)
            except OSError as error:
                raise _explain(error, address) from None
            except UnicodeError:
                reason = "no host can have this name"
                raise ValueError(f"cannot listen on {format_address(address)}: {reason}") from None
            listeners += [sock for sock in found for _ in range(count)]
        undo.pop_all()
    for sock in listeners:
        sock.set_inheritable(False)
    forget_passed(taken)
    return listeners


def _open_places(
    places: list[Place], backlog: int, reuse_port: bool, count: int, undo: ExitStack
) -> list[socket.socket]:
    """Listen at all places of one address, at one port."""
    for attempts_left in reversed(range(PORT_ATTEMPTS)):
        try:
            with ExitStack() as undo_attempt:
                opened = _try_places(places, backlog, reuse_port, count, undo_attempt)
                undo.push(undo_attempt.pop_all())
                return opened
        except OSError as error:
            was_our_choice = places[0].address[1] == 0
            if error.errno != errno.EADDRINUSE or not was_our_choice or not attempts_left:
                raise
    # not reached: the last attempt returns or raises
    raise AssertionError  # the last attempt has returned or raised


def _try_places(
    places: list[Place], backlog: int, reuse_port: bool, count: int, undo: ExitStack
) -> list[socket.socket]:
    opened: list[socket.socket] = []
    port = places[0].address[1]
    for number, place in enumerate(places, start=1):
        for _ in range(count):
            host, _, *scope = place.address
            try:
                sock = bind(place._replace(address=(host, port, *scope)), reuse_port=reuse_port)
            except OSError as error:
                is_last_hope = number == len(places) and not opened
                if error.errno not in _NOT_HERE or is_last_hope:
                    raise
                break
            opened.append(undo.enter_context(sock))
            port = sock.getsockname()[1]
            sock.listen(backlog)
    return opened


def _open_path(address: Any, backlog: int, mode: int | None, undo: ExitStack) -> socket.socket:
    sock = undo.enter_context(bind_path(os.fspath(address), mode=mode))
    undo.callback(unlink_path, sock)
    sock.listen(backlog)
    return sock


def _take_over(address: Any, taken: list[int], undo: ExitStack) -> list[socket.socket]:
    """Return sockets that are open already; they stay open if another address fails."""
    if isinstance(address, socket.socket):
        found = [address]
    else:
        descriptors = [address]
        if isinstance(address, SystemdSockets):
            descriptors = find_passed(address.name)
            if not descriptors:
                raise OSError(errno.ENOENT, "systemd has passed no such socket")
        found = []
        for fd in descriptors:
            if fd in taken:
                raise ValueError(f"{format_address(address)}: descriptor {fd} was given twice")
            found.append(socket.socket(fileno=fd))
            undo.callback(found[-1].detach)
            taken.append(fd)
    for sock in found:
        if not _is_listening(sock):
            raise OSError(errno.EINVAL, "this is no listening stream socket")
        borrow(sock, address)
    return found


def borrow(sock: socket.socket, address: Address) -> None:
    """Note whose socket it is that listens at an address: only what we bind is ours alone."""
    if not isinstance(address, tuple) and not is_path(address):
        _borrowed.add(sock)


def is_borrowed(sock: socket.socket) -> bool:
    """Tell whether others have the socket too: then its queue is not to be shut."""
    return sock in _borrowed


def _is_listening(sock: socket.socket) -> bool:
    return sock.type == socket.SOCK_STREAM and bool(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    )


# What to do about it, by the kind of address.

_INTERNET_ADVICE = {
    errno.EADDRINUSE: "the address is in use: stop what listens there, or take another port",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EAFNOSUPPORT: "this system does not speak the address's protocol",
}
_UNIX_ADVICE = {
    errno.EADDRINUSE: "a server listens there",
    errno.EEXIST: "there is a file that is no socket; it is left alone",
    errno.ENOENT: "its directory does not exist",
    errno.ENOTDIR: "its directory is none",
    errno.EACCES: "no permission for its directory",
    errno.EPERM: "no permission for its directory",
    errno.EROFS: "its directory is read-only",
}
_DESCRIPTOR_ADVICE = {
    errno.EBADF: "no such descriptor is open; a port is given as (host, port)",
    errno.ENOTSOCK: "the descriptor is no socket",
}
_SYSTEMD_ADVICE = {
    errno.ENOENT: "systemd has passed no such socket: is the service started by its .socket unit?",
}
_PRIVILEGED_PORTS = range(1, 1024)
_PRIVILEGED_ADVICE = (
    "ports below 1024 are for root: take a higher one, or have systemd pass the socket"
)


def _explain(error: OSError, address: Address) -> OSError:
    """Return an error of the same kind that says in one line which address, and what to do."""
    if isinstance(error, socket.gaierror):
        reason = f"the host's name cannot be looked up: {error.strerror}"
        return socket.gaierror(error.errno, f"cannot listen on {format_address(address)}: {reason}")
    advice = _DESCRIPTOR_ADVICE
    if isinstance(address, tuple):
        advice = _INTERNET_ADVICE
        if error.errno == errno.EACCES and address[1] in _PRIVILEGED_PORTS:
            advice = {errno.EACCES: _PRIVILEGED_ADVICE}
    elif is_path(address):
        advice = _UNIX_ADVICE
    elif isinstance(address, SystemdSockets):
        advice = _SYSTEMD_ADVICE
    reason = advice.get(error.errno or 0) or error.strerror or str(error)
    return OSError(
        error.errno or errno.EINVAL, f"cannot listen on {format_address(address)}: {reason}"
    )
