"""Socket addresses, from Python to the kernel and back, in every form that there is."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from connections import Ends

import pycoronet
from pycoronet import listen

MAX_PATH = 107 if os.uname().sysname == "Linux" else 103

OpenConn = Callable[..., Any]


def can_use_ipv6() -> bool:
    """Tell whether ::1 can be bound here."""
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not can_use_ipv6(), reason="needs an IPv6 loopback address")


@pytest.fixture
def open_conn() -> Iterator[OpenConn]:
    """Return a function that makes an sk_conn over a datagram socket, bound if asked to."""
    with ExitStack() as stack:

        def open_one(family: int = socket.AF_INET, bound_to: Any = None) -> Any:
            sock = socket.socket(family, socket.SOCK_DGRAM)
            if bound_to is not None:
                sock.bind(bound_to)
            conn = pycoronet.sk_conn(sock)
            stack.callback(conn.close)
            return conn

        yield open_one


# The kernel's form to Python's.


def test_getsockname_ipv4_is_host_and_port(open_conn: OpenConn) -> None:
    host, port = open_conn(bound_to=("127.0.0.1", 0)).getsockname()
    assert host == "127.0.0.1"
    assert 0 < port <= 65535


@needs_ipv6
def test_getsockname_ipv6_is_a_tuple_of_four(open_conn: OpenConn) -> None:
    host, port, flow_info, scope_id = open_conn(socket.AF_INET6, ("::1", 0)).getsockname()
    assert host == "::1"
    assert 0 < port <= 65535
    assert (flow_info, scope_id) == (0, 0)


def test_getsockname_unix_is_the_path(open_conn: OpenConn, tmp_path: Path) -> None:
    path = os.fsdecode(tmp_path / "name")
    assert open_conn(socket.AF_UNIX, path).getsockname() == path


def test_getsockname_unix_undecodable_path_comes_back(open_conn: OpenConn, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff"
    conn = open_conn(socket.AF_UNIX, path)
    assert os.fsencode(conn.getsockname()) == path


def test_getsockname_unix_unnamed_is_empty(open_conn: OpenConn) -> None:
    assert open_conn(socket.AF_UNIX).getsockname() == ""


@pytest.mark.linux_only
def test_getsockname_unix_longest_path_is_whole(
    open_conn: OpenConn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # The kernel takes a path that fills the field, with no NUL behind it.
    for length in (MAX_PATH, MAX_PATH + 1):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = b"p" * length
        address = struct.pack("=H", socket.AF_UNIX) + path
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.bind(sock.fileno(), address, len(address)) == 0
        conn = pycoronet.sk_conn(sock)
        assert conn.getsockname() == path.decode()
        conn.close()


@pytest.mark.linux_only
def test_getsockname_unix_abstract_is_text_with_its_nul(open_conn: OpenConn) -> None:
    name = f"\0pycoronet {os.getpid()} a\0b"
    assert open_conn(socket.AF_UNIX, name).getsockname() == name


@pytest.mark.linux_only
def test_getsockname_unknown_family_is_none(open_conn: OpenConn) -> None:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM)
    conn = pycoronet.sk_conn(sock)
    assert conn.getsockname() is None
    conn.close()


# Python's form to the kernel's. Connecting a datagram socket sends nothing.


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("127.0.0.1", 9), ("127.0.0.1", 9)),
        ((b"127.0.0.1", 9), ("127.0.0.1", 9)),
        (("127.255.255.254", 65535), ("127.255.255.254", 65535)),
    ],
)
def test_address_ipv4_comes_back(open_conn: OpenConn, given: Any, expected: Any) -> None:
    conn = open_conn()
    conn.connect(given)
    assert conn.getpeername() == expected


def test_address_ipv4_empty_host_is_any_address(open_conn: OpenConn) -> None:
    conn = open_conn()
    conn.connect(("", 9))
    assert conn.getpeername()[1] == 9  # Linux puts the loopback address there


def test_address_ipv4_broadcast_by_name(open_conn: OpenConn) -> None:
    conn = open_conn()
    with pytest.raises(PermissionError):  # it takes SO_BROADCAST, so it was understood
        conn.sendto(b"x", ("<broadcast>", 9))


@needs_ipv6
@pytest.mark.parametrize(
    "given", [("::1", 9), ("::1", 9, 0), ("::1", 9, 0, 0), (b"::1", 9), ("0:0:0:0:0:0:0:1", 9)]
)
def test_address_ipv6_comes_back(open_conn: OpenConn, given: Any) -> None:
    conn = open_conn(socket.AF_INET6)
    conn.connect(given)
    assert conn.getpeername() == ("::1", 9, 0, 0)


@needs_ipv6
@pytest.mark.linux_only
@pytest.mark.parametrize(
    ("given", "is_refused"),
    [
        (("fe80::1%lo", 9), False),
        (("fe80::1", 9, 0, socket.if_nametoindex("lo")), False),
        (("fe80::1%lo", 9, 0, 0), False),
        (("fe80::1", 9), True),
    ],
)
def test_address_ipv6_scope_reaches_the_kernel(
    open_conn: OpenConn, given: Any, is_refused: bool
) -> None:
    conn = open_conn(socket.AF_INET6)
    try:
        conn.connect(given)
    except OSError as error:
        # Without an interface it is EINVAL; with one there may still be no route.
        assert (error.errno == errno.EINVAL) == is_refused
    else:
        assert not is_refused
        assert conn.getpeername()[3] == socket.if_nametoindex("lo")


@pytest.mark.parametrize("kind", [str, bytes])
def test_address_unix_path_comes_back(open_conn: OpenConn, tmp_path: Path, kind: type) -> None:
    path = os.fsdecode(tmp_path / "name")
    open_conn(socket.AF_UNIX, path)
    conn = open_conn(socket.AF_UNIX)
    conn.connect(path if kind is str else os.fsencode(path))
    assert conn.getpeername() == path


@pytest.mark.linux_only
@pytest.mark.parametrize("kind", [str, bytes])
def test_address_unix_abstract_comes_back(open_conn: OpenConn, kind: type) -> None:
    name = f"\0pycoronet {os.getpid()} there"
    open_conn(socket.AF_UNIX, name)
    conn = open_conn(socket.AF_UNIX)
    conn.connect(name if kind is str else name.encode())
    assert conn.getpeername() == name


@pytest.mark.linux_only
def test_address_unix_abstract_name_is_not_padded(open_conn: OpenConn) -> None:
    name = f"\0pycoronet {os.getpid()} short"
    open_conn(socket.AF_UNIX, name)
    with pytest.raises(ConnectionRefusedError):
        open_conn(socket.AF_UNIX).connect(name + "\0")


# What is refused.


@pytest.mark.parametrize(
    "address", [None, 9, "127.0.0.1", ["127.0.0.1", 9], (), ("127.0.0.1",), ("::1", 9, 0, 0)]
)
def test_address_ipv4_of_a_wrong_form_is_a_type_error(open_conn: OpenConn, address: Any) -> None:
    with pytest.raises(TypeError, match="AF_INET address must be"):
        open_conn().connect(address)


@pytest.mark.parametrize("address", [None, "::1", ["::1", 9], ("::1",), ("::1", 9, 0, 0, 0)])
@needs_ipv6
def test_address_ipv6_of_a_wrong_form_is_a_type_error(open_conn: OpenConn, address: Any) -> None:
    with pytest.raises(TypeError, match="AF_INET6 address must be"):
        open_conn(socket.AF_INET6).connect(address)


@pytest.mark.parametrize("address", [None, 9, ("/tmp/x", 9), bytearray(b"/tmp/x")])
def test_address_unix_of_a_wrong_type_is_a_type_error(open_conn: OpenConn, address: Any) -> None:
    with pytest.raises(TypeError, match="AF_UNIX address must be str or bytes"):
        open_conn(socket.AF_UNIX).connect(address)


@pytest.mark.parametrize("host", [None, 9, bytearray(b"127.0.0.1")])
def test_address_host_of_a_wrong_type_is_a_type_error(open_conn: OpenConn, host: Any) -> None:
    with pytest.raises(TypeError, match="host must be str or bytes"):
        open_conn().connect((host, 9))


def test_address_host_with_a_nul_is_a_value_error(open_conn: OpenConn) -> None:
    with pytest.raises(ValueError, match="null character"):
        open_conn().connect(("127.0.0.1\0.example", 9))


@pytest.mark.parametrize("port", [-1, 65536, 1 << 80, -(1 << 80)])
def test_address_port_out_of_range_is_an_overflow_error(open_conn: OpenConn, port: int) -> None:
    with pytest.raises(OverflowError, match="port must be from 0 to 65535"):
        open_conn().connect(("127.0.0.1", port))


@pytest.mark.parametrize("port", [None, "9", 9.0])
def test_address_port_of_a_wrong_type_is_a_type_error(open_conn: OpenConn, port: Any) -> None:
    with pytest.raises(TypeError, match="port must be an int"):
        open_conn().connect(("127.0.0.1", port))


@needs_ipv6
@pytest.mark.parametrize(
    ("address", "name"),
    [
        (("::1", 9, -1), "flowinfo"),
        (("::1", 9, 1 << 20), "flowinfo"),
        (("::1", 9, 0, -1), "scope_id"),
        (("::1", 9, 0, 1 << 32), "scope_id"),
    ],
)
def test_address_ipv6_number_out_of_range_is_an_overflow_error(
    open_conn: OpenConn, address: Any, name: str
) -> None:
    with pytest.raises(OverflowError, match=name):
        open_conn(socket.AF_INET6).connect(address)


def test_address_unix_path_too_long_is_a_value_error(
    open_conn: OpenConn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    conn = open_conn(socket.AF_UNIX)
    with pytest.raises(ValueError, match=f"at most {MAX_PATH} bytes, not {MAX_PATH + 1}"):
        conn.connect("p" * (MAX_PATH + 1))
    with pytest.raises(FileNotFoundError):
        conn.connect("p" * MAX_PATH)


@pytest.mark.linux_only
def test_address_unix_abstract_name_too_long_is_a_value_error(open_conn: OpenConn) -> None:
    conn = open_conn(socket.AF_UNIX)
    with pytest.raises(ValueError, match="at most 108 bytes, not 109"):
        conn.connect("\0" + "n" * 108)
    with pytest.raises(ConnectionRefusedError):
        conn.connect("\0" + "n" * 107)


def test_address_unix_path_with_a_nul_inside_is_a_value_error(open_conn: OpenConn) -> None:
    with pytest.raises(ValueError, match="null byte"):
        open_conn(socket.AF_UNIX).connect("/tmp/a\0b")


@pytest.mark.linux_only
def test_address_of_an_unknown_family_is_an_os_error() -> None:
    conn = pycoronet.sk_conn(socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM))
    with pytest.raises(OSError, match="ddress family") as caught:
        conn.connect((0, 0))
    assert caught.value.errno == errno.EAFNOSUPPORT
    conn.close()


# Names are looked up.


def test_address_host_name_is_looked_up(open_conn: OpenConn) -> None:
    conn = open_conn()
    conn.connect(("localhost", 9))
    host, port = conn.getpeername()
    assert host.startswith("127.")
    assert port == 9


def test_address_unknown_host_name_is_an_os_error(open_conn: OpenConn) -> None:
    with pytest.raises(OSError, match=r".+"):
        open_conn().connect(("name.invalid", 9))


def test_address_of_another_family_is_an_os_error(open_conn: OpenConn) -> None:
    with pytest.raises(OSError, match=r".+"):
        open_conn().connect(("::1", 9))


@pytest.mark.linux_only  # all of 127.0.0.0/8 is this host's
@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.10.99", "127.100.199.200", "127.255.255.254"])
def test_each_octet_is_written_as_it_should_be(ends: Ends, host: str) -> None:
    listener = ends.keep(listen((host, 0)))
    client = ends.keep(socket.create_connection(listener.getsockname(), source_address=(host, 0)))
    conn, address = listener.accept()
    ends.keep(conn)
    assert address == client.getsockname() == conn.getpeername()
    assert listener.getsockname()[0] == host
