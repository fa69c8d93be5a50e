"""The addresses of a server: what a text means, and which sockets come of it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from connections import PEER_TIMEOUT
from listener_case import Listeners, dial, is_served, needs_ipv6, refuse

from pycoronet import _binding
from pycoronet.server import _addresses
from pycoronet.server._addresses import (
    format_address,
    open_listeners,
    parse_address,
    parse_addresses,
)
from pycoronet.server._systemd import SystemdSockets

HOST = "127.0.0.1"


@pytest.fixture
def opened() -> Iterator[Listeners]:
    """Return open_listeners(), whose sockets are closed in the end."""
    with Listeners() as listeners:
        yield listeners


# --- Texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("[fe80::1%lo]:80", ("fe80::1%lo", 80)),
        (":8000", ("", 8000)),
        ("unix:/run/a.sock", Path("/run/a.sock")),
        ("unix:a.sock", Path("a.sock")),
        ("unix:/odd:name@x", Path("/odd:name@x")),
        ("unix:@name", "\0name"),
        ("/run/a.sock", Path("/run/a.sock")),
        ("./a.sock", Path("a.sock")),
        ("\0name", "\0name"),
        ("fd:3", 3),
        ("systemd", SystemdSockets()),
        ("systemd:web", SystemdSockets("web")),
    ],
)
def test_text_is_an_address_and_comes_back(text: str, address: Any) -> None:
    assert parse_address(text) == address
    assert parse_address(format_address(address)) == address


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", "HOST:PORT"),
        ("8000", ":PORT for all interfaces"),
        ("a.sock", "unix:PATH"),
        ("::1", "brackets"),
        ("::1:80", "brackets"),
        ("[localhost]:80", "only IPv6"),
        ("localhost:", "from 0 to 65535"),
        ("localhost:http", "from 0 to 65535"),
        ("localhost:65536", "from 0 to 65535"),
        ("localhost:-1", "from 0 to 65535"),
        ("localhost:+1", "from 0 to 65535"),
        ("localhost:1_0", "from 0 to 65535"),
        ("localhost:٣", "from 0 to 65535"),
        ("unix:", "nothing comes after"),
        ("unix:@", "nothing comes after"),
        ("systemd:", "nothing comes after"),
        ("fd:", "nothing comes after"),
        ("fd:x", "number"),
        ("fd:-1", "number"),
    ],
)
def test_text_that_is_no_address_says_why(text: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        parse_address(text)


@pytest.mark.parametrize(
    "address",
    [
        (),
        ("localhost",),
        (80, "localhost"),
        ("localhost", "80"),
        ("localhost", True),
        ("::1", 80, 0, 0, 0),
        None,
        True,
        1.5,
        {"localhost": 80},
        [["localhost:80"]],
    ],
)
def test_what_is_no_address_is_a_type_error(address: Any) -> None:
    with pytest.raises(TypeError, match=r"address is|port must be"):
        parse_addresses(address)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ([], "needs an address"),
        (-1, "0 or more"),
        (("localhost", -1), "from 0 to 65535"),
        (("localhost", 65536), "from 0 to 65535"),
        ("80", "is no address"),
        (b"", "is empty"),
        ("\0", "is empty"),
        (b"a\0b", "null character"),
        ("/a\0b", "null character"),
    ],
)
def test_what_can_be_no_address_is_a_value_error(address: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_addresses(address)


@pytest.mark.parametrize("host", ["x" * 64 + ".example", "a..example"])
def test_what_can_be_no_hosts_name_is_a_value_error(host: str) -> None:
    with pytest.raises(ValueError, match="no host can have this name") as caught:
        open_listeners((host, 0))
    assert not isinstance(caught.value, UnicodeError)


def test_several_addresses_keep_their_order(tmp_path: Path) -> None:
    given = [("", 80), "unix:@a", b"path", tmp_path, 4, SystemdSockets()]
    assert parse_addresses(given) == [("", 80), "\0a", b"path", tmp_path, 4, SystemdSockets()]


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("::1", 80, 0, 0), "[::1]:80"),
        (("fe80::1", 80, 0, 3), "[fe80::1%3]:80"),
        (b"\0name", "unix:@name"),
        ("/run/\udcff", "unix:/run/\\udcff"),
    ],
)
def test_what_getsockname_gives_is_shown(address: Any, text: str) -> None:
    assert format_address(address) == text
    assert text.encode()  # it can be printed


# --- Host and port -------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [HOST, pytest.param("::1", marks=needs_ipv6), "localhost", ""])
def test_a_host_and_a_port(opened: Listeners, host: str) -> None:
    for listener in opened((host, 0)):
        assert not listener.get_inheritable()
        assert listener.getsockname()[1] != 0
        assert is_served(listener)


def test_a_text_is_what_it_says(opened: Listeners) -> None:
    (listener,) = opened(f"{HOST}:0")
    assert is_served(listener)


@needs_ipv6
def test_all_interfaces_serve_both_families(opened: Listeners) -> None:
    (listener,) = opened(":0")
    listener.settimeout(PEER_TIMEOUT)
    port = listener.getsockname()[1]
    for address in [(HOST, port), ("::1", port, 0, 0)]:
        with dial(address):
            listener.accept()[0].close()


@needs_ipv6
def test_both_families_at_one_port_by_two_addresses(opened: Listeners) -> None:
    first, second = opened([(HOST, 0), ("::1", 0)])
    port = first.getsockname()[1]
    second.close()
    (third,) = opened(("::", port))  # IPv6 alone: it is no clash
    assert is_served(first)
    assert is_served(third)


def names_of(*found: tuple[int, Any]) -> Callable[..., Any]:
    """Return a resolver that finds these for any name."""
    return lambda *_, **options: [
        (family, options["type"], 0, "", address) for family, address in found
    ]


V4, V6 = (socket.AF_INET, (HOST, 0)), (socket.AF_INET6, ("::1", 0, 0, 0))
OTHER_V4 = (socket.AF_INET, ("127.0.0.2", 0))


@pytest.mark.linux_only
def test_all_addresses_of_a_name_have_the_same_port(opened: Listeners) -> None:
    first, second = opened(("name", 0), look_up=names_of(V4, OTHER_V4, V4))
    assert first.getsockname()[0] == HOST
    assert second.getsockname() == ("127.0.0.2", first.getsockname()[1])


@needs_ipv6
def test_a_name_of_both_families(opened: Listeners) -> None:
    first, second = opened(("name", 0), look_up=names_of(V6, V4))
    assert second.getsockname()[1] == first.getsockname()[1]
    assert is_served(first)
    assert is_served(second)


@pytest.mark.linux_only
@pytest.mark.parametrize("clashes", [1, _addresses.PORT_ATTEMPTS - 1, _addresses.PORT_ATTEMPTS])
def test_another_port_is_taken_when_one_is_not_free_everywhere(
    opened: Listeners, monkeypatch: pytest.MonkeyPatch, clashes: int
) -> None:
    tried: list[int] = []

    def bind(place: Any, **options: Any) -> socket.socket:
        if place.address[0] != HOST:
            tried.append(place.address[1])
            if len(tried) <= clashes:
                raise OSError(errno.EADDRINUSE, "in use")
        return _binding.bind(place, **options)

    monkeypatch.setattr(_addresses, "bind", bind)
    look_up = names_of(V4, OTHER_V4)
    if clashes == _addresses.PORT_ATTEMPTS:
        assert refuse(("name", 0), look_up=look_up)[0] == errno.EADDRINUSE
        assert len(tried) == clashes
        return
    first, second = opened(("name", 0), look_up=look_up)
    assert tried[-1] == second.getsockname()[1] == first.getsockname()[1]
    assert len(tried) == clashes + 1


def test_addresses_of_a_name_that_are_not_here_are_left_out(opened: Listeners) -> None:
    elsewhere = (socket.AF_INET, ("192.0.2.1", 0))
    for found in [(elsewhere, V4), (V4, elsewhere)]:
        (listener,) = opened(("name", 0), look_up=names_of(*found))
        assert listener.getsockname()[0] == HOST
    number, text = refuse(("name", 0), look_up=names_of(elsewhere, elsewhere))
    assert number == errno.EADDRNOTAVAIL
    assert text == "cannot listen on name:0: this machine has no such address"


def test_a_port_in_use_is_one_clear_line(opened: Listeners) -> None:
    (listener,) = opened((HOST, 0))
    port = listener.getsockname()[1]
    number, text = refuse((HOST, port))
    assert number == errno.EADDRINUSE
    assert text.startswith(f"cannot listen on {HOST}:{port}: the address is in use")


def test_a_privileged_port_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(*_: Any, **__: Any) -> socket.socket:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(_addresses, "bind", bind)
    number, text = refuse((HOST, 80), PermissionError)
    assert number == errno.EACCES
    assert text.startswith(f"cannot listen on {HOST}:80: ports below 1024 are for root")
    assert refuse((HOST, 8080))[1].endswith("Permission denied")


def test_an_unknown_name_is_one_clear_line() -> None:
    def look_up(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    number, text = refuse(("name.invalid", 80), socket.gaierror, look_up=look_up)
    assert number == socket.EAI_NONAME
    assert text.startswith("cannot listen on name.invalid:80: the host's name cannot be looked up")


def test_nothing_stays_open_when_one_of_several_fails(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    refuse([(HOST, 0), path, ("192.0.2.1", 80)])
    assert not path.exists()


def test_backlog_is_what_the_kernel_is_told(
    opened: Listeners, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[int] = []

    class Socket(socket.socket):
        def listen(self, backlog: int = 0, /) -> None:
            told.append(backlog)
            super().listen(backlog)

    monkeypatch.setattr(socket, "socket", Socket)
    opened([(HOST, 0), tmp_path / "socket"], backlog=7)
    assert told == [7, 7]


def test_the_interface_of_an_address_is_kept() -> None:
    (place,) = _binding.find_places(("fe80::1", 80, 0, 3))
    assert place == (socket.AF_INET6, ("fe80::1", 80, 0, 3), True)


# --- Sockets for several workers -----------------------------------------------------------------


def test_each_worker_has_sockets_of_its_own(opened: Listeners, tmp_path: Path) -> None:
    sockets = opened([(HOST, 0), tmp_path / "socket", (HOST, 0)], count=3)
    assert len(sockets) == 9
    workers = [sockets[index::3] for index in range(3)]
    for column in (0, 2):
        assert len({worker[column].getsockname() for worker in workers}) == 1
        assert len({worker[column].fileno() for worker in workers}) == 3
    assert workers[0][1] is workers[1][1] is workers[2][1]
    assert len({worker[0].getsockname() for worker in workers} | {workers[0][2].getsockname()}) == 2


def test_a_shared_port_is_shared_only_if_all_say_so(opened: Listeners) -> None:
    (first,) = opened((HOST, 0), reuse_port=True)
    address = first.getsockname()
    assert opened(address, reuse_port=True)[0].getsockname() == address
    assert refuse(address)[0] == errno.EADDRINUSE


# --- Sockets that are open already ---------------------------------------------------------------


def test_a_descriptor_is_taken_over(opened: Listeners) -> None:
    sock = socket.create_server((HOST, 0))
    fd = sock.detach()
    os.set_inheritable(fd, True)
    (listener,) = opened(f"fd:{fd}")
    assert listener.fileno() == fd
    assert not listener.get_inheritable()
    assert is_served(listener)


def test_what_was_given_stays_open_when_another_address_fails() -> None:
    with socket.create_server((HOST, 0)) as first, socket.create_server((HOST, 0)) as second:
        refuse([first, second.fileno(), ("192.0.2.1", 80)])
        assert is_served(first)
        assert is_served(second)


def test_a_descriptor_twice_is_refused() -> None:
    with socket.create_server((HOST, 0)) as sock:
        with pytest.raises(ValueError, match="given twice"):
            open_listeners([sock.fileno(), f"fd:{sock.fileno()}"])
        assert is_served(sock)


def test_a_listener_of_packets_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as packets:
        packets.bind(os.fspath(tmp_path / "packets"))
        packets.listen()
        assert refuse(packets)[1].endswith("this is no listening stream socket")


def test_descriptors_that_are_no_listeners_are_one_clear_line(pipe: tuple[int, int]) -> None:
    with socket.socket() as unused, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        for address in (unused, datagrams, unused.fileno()):
            number, text = refuse(address)
            assert number == errno.EINVAL
            assert text.endswith("this is no listening stream socket")
    number, text = refuse(pipe[0])
    assert (number, text) == (
        errno.ENOTSOCK,
        f"cannot listen on fd:{pipe[0]}: the descriptor is no socket",
    )
    number, text = refuse(8000)
    assert number == errno.EBADF
    assert text.startswith("cannot listen on fd:8000: no such descriptor is open; a port is given")
