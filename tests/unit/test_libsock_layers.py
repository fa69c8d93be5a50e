"""pycoronet.libsock: chains of transport layers, and hooks."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from connections import Ends

import pycoronet
from pycoronet import ClosedError
from pycoronet.layers import Tee
from pycoronet.libreact import Reactor, reactor_review, reactor_stop
from pycoronet.libsock import (
    SockRWHook,
    SockTLC,
    sock_attach,
    sock_clear,
    sock_fd2uuid,
    sock_flush,
    sock_flush_all,
    sock_force_close,
    sock_isvalid,
    sock_open,
    sock_read,
    sock_rw_hook_get,
    sock_rw_hook_set,
    sock_tlc_add,
    sock_tlc_get,
    sock_tlc_set,
    sock_write,
)

pytestmark = pytest.mark.usefixtures("virtual_hub")


@pytest.fixture
def opened(ends: Ends) -> Iterator[tuple[int, socket.socket]]:
    """Return a socket that libsock has opened, and its peer."""
    left, right = ends.sockets()
    fd = left.detach()
    sock_open(None, fd)
    uuid = sock_fd2uuid(fd)
    yield fd, right
    if sock_isvalid(uuid):
        sock_force_close(None, uuid)


class Noting:
    """Functions for layers that write down what they are called with."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    def adding(self, name: str) -> Callable[[int, Any, bytes], bytes]:
        def function(fd: int, udata: Any, data: bytes) -> bytes:
            self.log.append((name, fd, udata, data))
            return data + udata if data else data

        return function

    def clear(self, *arguments: Any) -> None:
        self.log.append(("clear", *arguments))

    def tlc(self, udata: bytes) -> SockTLC:
        return SockTLC(
            udata=udata,
            wrap=self.adding("wrap"),
            unwrap=self.adding("unwrap"),
            on_clear=self.clear,
        )


def test_a_chain_of_two(opened: tuple[int, socket.socket]) -> None:
    fd, peer = opened
    noting = Noting()
    assert sock_tlc_get(fd) is None
    bottom, top = noting.tlc(b"1"), noting.tlc(b"2")
    assert sock_tlc_set(fd, bottom) == 0
    assert sock_tlc_add(fd, top) == 0
    assert sock_tlc_get(fd) is top
    assert top.next is bottom
    assert bottom.next is None
    sock_write(fd, b"out")
    sock_flush(fd)
    assert peer.recv(100) == b"out21"
    peer.sendall(b"i")
    assert sock_read(fd, 100) == b"i12"
    assert noting.log == [
        ("wrap", fd, b"2", b"out"),
        ("wrap", fd, b"1", b"out2"),
        ("unwrap", fd, b"1", b"i"),
        ("unwrap", fd, b"2", b"i1"),
    ]
    noting.log.clear()
    sock_force_close(None, fd)
    assert sorted(noting.log) == [("clear", fd, b"1"), ("clear", fd, b"2")]
    assert top.next is None


def test_setting_replaces_the_chain(opened: tuple[int, socket.socket]) -> None:
    fd, peer = opened
    noting = Noting()
    sock_tlc_add(fd, noting.tlc(b"1"))
    sock_tlc_add(fd, noting.tlc(b"2"))
    sock_write(fd, b"old ")
    assert sock_tlc_set(fd, noting.tlc(b"3")) == 0
    sock_write(fd, b"new")
    sock_flush(fd)
    assert peer.recv(100) == b"old 21new3"
    assert [entry for entry in noting.log if entry[0] == "clear"] == [
        ("clear", fd, b"2"),
        ("clear", fd, b"1"),
    ]
    assert sock_tlc_set(fd, None) == 0
    assert sock_tlc_get(fd) is None
    sock_write(fd, b"plain")
    sock_flush(fd)
    assert peer.recv(100) == b"plain"


def test_functions_that_are_not_there_pass_all_on(opened: tuple[int, socket.socket]) -> None:
    fd, peer = opened
    sock_rw_hook_set(fd, SockRWHook())
    sock_tlc_add(fd, SockTLC())
    sock_write(fd, b"out")
    sock_flush(fd)
    assert peer.recv(10) == b"out"
    peer.sendall(b"i")
    assert sock_read(fd, 10) == b"i"
    assert sock_read(fd, 10) == b""
    peer.shutdown(socket.SHUT_WR)
    with pytest.raises(ClosedError, match="ended"):
        while True:
            assert sock_read(fd, 10) == b""


def test_a_layer_that_holds_back_is_not_the_end(opened: tuple[int, socket.socket]) -> None:
    fd, peer = opened
    held: list[bytes] = []

    def collect(fd: int, udata: Any, data: bytes) -> bytes:
        held.append(data)
        return b"".join(held) if data.endswith(b"\n") else b""

    sock_tlc_add(fd, SockTLC(unwrap=collect))
    peer.sendall(b"half ")
    assert sock_read(fd, 100) == b""
    assert sock_read(fd, 100) == b""
    peer.sendall(b"whole\n")
    assert sock_read(fd, 100) == b"half whole\n"


def test_a_layer_ends_the_stream(opened: tuple[int, socket.socket]) -> None:
    fd, peer = opened
    sock_tlc_add(fd, SockTLC(unwrap=lambda fd, udata, data: None))
    peer.sendall(b"over")
    with pytest.raises(ClosedError, match="ended"):
        while True:
            assert sock_read(fd, 100) == b""


def test_a_layer_that_raises_closes(opened: tuple[int, socket.socket]) -> None:
    fd, _ = opened
    sock_tlc_add(fd, SockTLC(wrap=lambda fd, udata, data: bytes(1 // 0)))
    sock_write(fd, b"x")
    with pytest.raises(ZeroDivisionError):
        sock_flush(fd)
    assert not sock_isvalid(fd)


def test_a_layer_that_raises_concerns_its_socket_alone(
    ends: Ends, opened: tuple[int, socket.socket]
) -> None:
    fd, peer = opened
    left, _ = ends.sockets()
    other = left.detach()
    sock_open(None, other)
    sock_tlc_add(other, SockTLC(wrap=lambda fd, udata, data: bytes(1 // 0)))
    sock_write(other, b"x")
    sock_write(fd, b"x")
    assert sock_flush_all() == 0
    assert peer.recv(10) == b"x"
    assert not sock_isvalid(other)


def test_a_reactor_reads_through_the_layers(opened: tuple[int, socket.socket]) -> None:
    fd, peer = opened
    got: list[bytes] = []
    closed: list[int] = []
    reactor = Reactor(
        on_data=lambda _reactor, fd: got.extend(iter(lambda: sock_read(fd, 100), b"")),
        on_close=lambda _reactor, fd: closed.append(fd),
    )
    sock_tlc_add(fd, SockTLC(unwrap=lambda fd, udata, data: data.upper()))
    sock_attach(reactor, fd)
    peer.sendall(b"in")
    while b"".join(got) != b"IN":
        reactor_review(reactor)
    reactor_stop(reactor)
    reactor_review(reactor)
    assert closed == [fd]


def test_hooks(opened: tuple[int, socket.socket]) -> None:
    fd, peer = opened
    uuid = sock_fd2uuid(fd)
    noting = Noting()

    def write(uuid: int, data: bytes) -> bytes:
        noting.log.append(("write", uuid))
        return data.upper()

    assert sock_rw_hook_get(fd) is None
    first = SockRWHook(on_clear=noting.clear)
    assert sock_rw_hook_set(fd, first) == 0
    assert sock_rw_hook_get(fd) is first
    hook = SockRWHook(
        read=lambda _uuid, data: data.lower(),
        write=write,
        flush=lambda uuid: b"rest",
        on_clear=noting.clear,
    )
    assert sock_rw_hook_set(uuid, hook) == 0
    sock_tlc_add(fd, SockTLC(wrap=lambda fd, udata, data: data + b"!"))
    assert sock_rw_hook_get(fd) is hook
    sock_write(fd, b"out")
    sock_flush(fd)
    assert peer.recv(100) == b"OUT!"
    peer.sendall(b"I")
    assert sock_read(fd, 100) == b"i"
    with pytest.raises(ValueError, match="below all"):
        sock_rw_hook_set(fd, None)
    sock_tlc_set(fd, None)
    assert sock_rw_hook_set(fd, None) == 0
    assert sock_rw_hook_get(fd) is None
    sock_flush(fd)
    assert peer.recv(100) == b"rest"
    assert noting.log == [("clear", uuid), ("write", uuid), ("clear", uuid)]


def test_clear_drops_the_layers(opened: tuple[int, socket.socket]) -> None:
    fd, peer = opened
    noting = Noting()
    sock_tlc_add(fd, noting.tlc(b"1"))
    sock_open(None, fd)
    assert noting.log == [("clear", fd, b"1")]
    assert sock_tlc_get(fd) is None
    sock_tlc_add(fd, noting.tlc(b"2"))
    sock_clear(fd)
    assert noting.log[1:] == [("clear", fd, b"2")]
    socket.socket(fileno=fd).close()
    assert peer.recv(1) == b""


def test_wrong_layers(opened: tuple[int, socket.socket]) -> None:
    fd, _ = opened
    used, hook = SockTLC(), SockRWHook()
    sock_rw_hook_set(fd, hook)
    sock_tlc_add(fd, used)
    wrong: list[tuple[Callable[[], object], type[Exception]]] = [
        (lambda: sock_tlc_add(fd, used), ValueError),
        (lambda: sock_tlc_add(fd, hook), TypeError),  # type: ignore[arg-type]
        (lambda: sock_tlc_set(fd, b"x"), TypeError),  # type: ignore[arg-type]
        (lambda: sock_rw_hook_set(fd, used), TypeError),  # type: ignore[arg-type]
        (lambda: sock_rw_hook_set(fd, SockRWHook()), ValueError),
        (lambda: sock_tlc_get(10_000), ClosedError),
        (lambda: sock_tlc_set(10_000, None), ClosedError),
        (lambda: sock_tlc_add(10_000, SockTLC()), ClosedError),
        (lambda: sock_rw_hook_get(10_000), ClosedError),
        (lambda: sock_rw_hook_set(10_000, None), ClosedError),
    ]
    for call, error in wrong:
        with pytest.raises(error):
            call()
    assert used.fd == fd
    assert sock_tlc_get(fd) is used
    pycoronet.libsock.find(fd).conn.push_layer(Tee())
    with pytest.raises(ValueError, match="not its own"):
        sock_tlc_set(fd, None)
