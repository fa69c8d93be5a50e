"""pycoronet.libsock: its functions by name, in virtual time."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from connections import PEER_TIMEOUT, Ends, drain_now, reset

import pycoronet
from pycoronet import ClosedError, libsock
from pycoronet.libreact import Reactor, reactor_add, reactor_conn, reactor_review
from pycoronet.libsock import (
    init_socklib,
    sock_accept,
    sock_attach,
    sock_clear,
    sock_close,
    sock_connect,
    sock_fd2uuid,
    sock_flush,
    sock_flush_strong,
    sock_force_close,
    sock_is_closed,
    sock_isvalid,
    sock_listen,
    sock_max_capacity,
    sock_open,
    sock_packets_pending,
    sock_read,
    sock_sendfile,
    sock_set_non_block,
    sock_status,
    sock_touch,
    sock_uuid2fd,
    sock_write,
    sock_write2,
)

pytestmark = pytest.mark.usefixtures("virtual_hub")

BIG = 4_000_000  # more than any socket takes at once


# Helpers.


def test_init_and_its_bad_number() -> None:
    assert init_socklib(1024) == 0
    with pytest.raises(ValueError, match="0 or more"):
        init_socklib(-1)


def test_set_non_block(ends: Ends) -> None:
    left, _ = ends.sockets()
    left.setblocking(True)
    assert sock_set_non_block(left.fileno()) == 0
    assert not os.get_blocking(left.fileno())
    left.close()
    for wrong in (-1, 10_000):
        with pytest.raises(OSError, match="Bad file descriptor"):
            sock_set_non_block(wrong)


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stand in for the process's limits of open files."""
    state: dict[str, Any] = {"now": (64, 4096), "set": []}

    def set_limit(kind: int, limit: tuple[int, int]) -> None:
        assert kind == resource.RLIMIT_NOFILE
        state["set"].append(limit)

    monkeypatch.setattr("resource.getrlimit", lambda kind: state["now"])
    monkeypatch.setattr("resource.setrlimit", set_limit)
    return state


@pytest.mark.parametrize(
    ("platform", "now", "number", "wanted"),
    [
        ("linux", (64, 4096), 4096, [(4096, 4096)]),
        ("linux", (4096, 4096), 4096, []),
        ("darwin", (256, resource.RLIM_INFINITY), 10240, [(10240, resource.RLIM_INFINITY)]),
        ("darwin", (256, 50_000), 10240, [(10240, 50_000)]),
        ("darwin", (256, 1000), 1000, [(1000, 1000)]),
        ("darwin", (20_000, resource.RLIM_INFINITY), 20_000, []),
        ("freebsd14", (256, resource.RLIM_INFINITY), 10240, [(10240, resource.RLIM_INFINITY)]),
        ("darwin", (resource.RLIM_INFINITY, resource.RLIM_INFINITY), 10240, []),
    ],
)
def test_max_capacity_by_system(
    monkeypatch: pytest.MonkeyPatch,
    limits: dict[str, Any],
    platform: str,
    now: tuple[int, int],
    number: int,
    wanted: list[tuple[int, int]],
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    limits["now"] = now
    assert sock_max_capacity() == number
    assert limits["set"] == wanted


def test_max_capacity_really_raises_the_limit() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] - 1, before[1]))
    try:
        number = pycoronet.max_capacity()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == number
        assert number >= before[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# Opening.


def test_listen_accept_and_connect(reactors: Callable[..., Reactor]) -> None:
    log: list[tuple[str, int]] = []
    clients: list[int] = []

    def on_data(reactor: Reactor, fd: int) -> None:
        if fd != server:
            log.append(("data " + sock_read(fd, 100).decode(), fd))
            return
        while True:
            try:
                clients.append(sock_accept(reactor, fd))
            except BlockingIOError:
                return

    reactor = reactors(
        on_data=on_data,
        on_ready=lambda _reactor, fd: log.append(("ready", fd)),
        on_close=lambda _reactor, fd: log.append(("close", fd)),
    )
    server = sock_listen("127.0.0.1", 0)
    assert not os.get_blocking(server)
    reactor_add(reactor, server)
    port = pycoronet.libreact.reactor_conn(reactor, server).getsockname()[1]
    client = sock_connect(reactor, "127.0.0.1", str(port))
    sock_write(client, b"hello")
    while ("data hello", clients[0] if clients else -1) not in log:
        reactor_review(reactor)
    assert ("ready", client) in log
    accepted = clients[0]
    assert not os.get_blocking(accepted)
    conn = reactor_conn(reactor, accepted)
    assert conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    sock_close(reactor, client)
    while ("close", accepted) not in log:
        reactor_review(reactor)
    assert log.count(("close", client)) == 1
    assert sock_is_closed(accepted)


def test_the_listener_has_reuseaddr_and_all_interfaces() -> None:
    server = sock_listen(None, "0")
    with socket.socket(fileno=os.dup(server)) as view:
        assert view.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert view.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        socket.create_connection(("127.0.0.1", view.getsockname()[1])).close()
    accepted = sock_accept(None, server)
    sock_close(None, accepted)
    sock_close(None, server)
    with pytest.raises(OSError, match="not found"):
        sock_listen("127.0.0.1", "no such service")


def test_what_cannot_be_accepted_or_connected(ends: Ends, opened: Any) -> None:
    fd, _ = opened()
    with pytest.raises(OSError, match=r"Invalid argument|not supported"):
        sock_accept(None, fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        sock_accept(None, 10_000)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,  # blocking
        pytest.raises(BlockingIOError),
    ):
        sock_accept(None, server.fileno())
    with pytest.raises(socket.gaierror):
        sock_connect(None, "127.0.0.1", "no such service")
    assert os.get_blocking(fd) is False


def test_a_refused_connection_is_told(reactors: Callable[..., Reactor]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    closed: list[int] = []
    reactor = reactors(on_close=lambda _reactor, fd: closed.append(fd))
    attached = sock_connect(reactor, "127.0.0.1", port)
    while not closed:
        reactor_review(reactor)
    assert closed == [attached]
    alone = sock_connect(None, "127.0.0.1", port)
    with pytest.raises(ConnectionRefusedError):
        while True:
            assert sock_read(alone, 1) == b""
    assert sock_is_closed(alone)


def test_a_failed_attachment_closes_what_is_ours_alone(
    ends: Ends, reactors: Callable[..., Reactor]
) -> None:
    reactor = reactors(maxfd=2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        peer = ends.keep(socket.create_connection(server.getsockname(), PEER_TIMEOUT))
        with pytest.raises(OSError, match="maxfd"):
            sock_accept(reactor, server.fileno())
        assert peer.recv(1) == b""
        left, right = ends.sockets()
        with pytest.raises(OSError, match="maxfd"):
            sock_open(reactor, left.fileno())
    left.sendall(b"mine")
    assert right.recv(10) == b"mine"
    left.close()
    assert not sock_isvalid(left.fileno())


def test_opening_again_drops_what_there_was(ends: Ends, opened: Any) -> None:
    fd, peer = opened()
    uuid = sock_fd2uuid(fd)
    sock_write(fd, b"x" * BIG)
    sock_flush(fd)
    drain_now(peer, 2 * BIG)
    assert sock_packets_pending(fd)
    assert sock_open(None, fd) == 0
    assert not sock_packets_pending(fd)
    assert not sock_isvalid(uuid)
    drain_now(peer, 2 * BIG)
    sock_write(fd, b"new")
    sock_flush(fd)
    assert drain_now(peer, 2 * BIG).endswith(b"new")
    sock_close(None, fd)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        for wrong, error in ((file.fileno(), ValueError), (10_000, OSError), (-1, ValueError)):
            with pytest.raises(error):
                sock_open(None, wrong)
    with pytest.raises(TypeError):
        sock_open(None, "1")  # type: ignore[arg-type]


def test_attaching_later_keeps_the_buffers(opened: Any, reactors: Callable[..., Reactor]) -> None:
    fd, peer = opened()
    sock_write(fd, b"queued")
    log: list[str] = []
    first = reactors(on_data=lambda _reactor, fd: log.append("first"))
    second = reactors(on_data=lambda _reactor, fd: log.append(sock_read(fd, 9).decode()))
    assert sock_attach(first, fd) == 0
    assert sock_attach(second, fd) == 0
    with pytest.raises(OSError, match="already"):
        sock_attach(second, fd)
    reactor_review(second)
    assert peer.recv(100) == b"queued"
    peer.sendall(b"second")
    reactor_review(second)
    assert "".join(log) == "second"  # perhaps first asked to look
    reactor_add(first, ends_fd := os.dup(fd))  # the first one works on
    assert reactor_conn(first, ends_fd).sfd == ends_fd
    with pytest.raises(ClosedError):
        sock_attach(first, 10_000)


def test_clear_leaves_the_descriptor_alone(opened: Any, reactors: Callable[..., Reactor]) -> None:
    fd, peer = opened()
    closed: list[int] = []
    reactor = reactors(on_close=lambda _reactor, fd: closed.append(fd))
    sock_attach(reactor, fd)
    sock_write(fd, b"x" * BIG)
    sock_flush(fd)
    sock_clear(fd)
    reactor_review(reactor)
    assert closed == []
    while drain_now(peer):
        pass
    os.write(fd, b"raw")
    assert peer.recv(10) == b"raw"
    for call in (sock_clear, sock_status, sock_fd2uuid, sock_flush):
        with pytest.raises(ClosedError):
            call(fd)
    os.close(fd)


def test_clear_after_close_stops_the_sending(opened: Any) -> None:
    fd, _ = opened()
    sock_write(fd, b"x" * BIG)
    sock_close(None, fd)
    sock_clear(fd)
    assert fcntl.fcntl(fd, fcntl.F_GETFD) >= 0
    os.close(fd)


# State and identity.


def test_status(opened: Any) -> None:
    fd, _ = opened()
    assert sock_status(fd) & os.O_NONBLOCK
    assert sock_status(fd) & os.O_ACCMODE == os.O_RDWR
    assert not sock_is_closed(fd)
    sock_close(None, fd)
    assert sock_is_closed(fd)
    with pytest.raises(ClosedError) as caught:
        sock_status(fd)
    assert caught.value.errno == errno.EBADF


def test_a_number_that_was_given_out_again_is_another_socket(opened: Any) -> None:
    fd, _ = opened()
    old = sock_fd2uuid(fd)
    assert sock_uuid2fd(old) == fd
    sock_close(None, old)
    again, peer = opened()
    while again != fd:  # the lowest free number comes first, so soon
        again, peer = opened()
    new = sock_fd2uuid(fd)
    assert new != old
    assert sock_isvalid(new)
    assert not sock_isvalid(old)
    calls: list[Callable[[], object]] = [
        lambda: sock_write(old, b"for the other one"),
        lambda: sock_write2(old, b"x"),
        lambda: sock_sendfile(old, 0),
        lambda: sock_read(old, 1),
        lambda: sock_flush(old),
        lambda: sock_flush_strong(old),
        lambda: sock_close(None, old),
        lambda: sock_force_close(None, old),
        lambda: sock_clear(old),
        lambda: sock_open(None, old),
        lambda: sock_attach(Reactor(), old),
        lambda: sock_accept(None, old),
        lambda: sock_status(old),
        lambda: sock_touch(old),
        lambda: sock_uuid2fd(old),
        lambda: sock_fd2uuid(old),
        lambda: sock_packets_pending(old),
        lambda: sock_set_non_block(old),
        lambda: libsock.sock_send_packet(old, libsock.sock_checkout_packet()),
    ]
    for call in calls:
        with pytest.raises(ClosedError):
            call()
    sock_write(new, b"right")
    sock_flush(new)
    assert peer.recv(100) == b"right"


def test_a_number_closed_behind_our_back_is_not_ours(ends: Ends, opened: Any) -> None:
    fd, _ = opened()
    left, right = socket.socketpair()
    ends.keep(right)
    os.dup2(left.fileno(), fd)  # which closes what the number was
    left.close()
    other = ends.conn(fd)
    with pytest.raises(ClosedError):
        sock_write(fd, b"x")
    assert not other.closed


def test_numbers_that_are_none() -> None:
    for wrong in (-1, 10_000, 1 << 40, -(1 << 40)):
        assert sock_is_closed(wrong)
        with pytest.raises(ClosedError):
            sock_write(wrong, b"x")
    with pytest.raises(TypeError):
        sock_write("1", b"x")  # type: ignore[arg-type]


def test_touch_moves_the_timeout(opened: Any, virtual_hub: pycoronet.Hub) -> None:
    late: list[float] = []

    class Idle(pycoronet.Protocol):
        def on_timeout(self, conn: pycoronet.sk_conn, direction: int) -> None:
            late.append(virtual_hub.time - start)
            conn.abort()

    fd, _ = opened()
    conn = libsock.find(fd).conn
    conn.settimeout(10)
    conn.set_callbacks(Idle())
    start = virtual_hub.time
    virtual_hub.call_later(6, sock_touch, fd)
    while not late:
        virtual_hub.wait(1)
        virtual_hub.dispatch()
    assert late[0] >= 16


# Reading.


def test_read(opened: Any) -> None:
    fd, peer = opened()
    assert sock_read(fd, 100) == b""
    peer.sendall(b"hello")
    assert sock_read(fd, 0) == b""
    assert sock_read(fd, 3) == b"hel"
    assert sock_read(fd, 100) == b"lo"
    assert sock_read(fd, 100) == b""
    with pytest.raises(ValueError, match="n must"):
        sock_read(fd, -1)
    peer.sendall(b"last")
    peer.shutdown(socket.SHUT_WR)
    assert sock_read(fd, 100) == b"last"
    with pytest.raises(ClosedError, match="ended"):
        sock_read(fd, 100)
    assert sock_is_closed(fd)
    assert peer.recv(1) == b""


def test_read_sends_what_waits_before_it_closes(opened: Any) -> None:
    fd, peer = opened()
    sock_write(fd, b"bye")
    peer.shutdown(socket.SHUT_WR)
    with pytest.raises(ClosedError):
        sock_read(fd, 1)
    assert peer.recv(10) == b"bye"


def test_read_from_a_pipe() -> None:
    fd, write_end = os.pipe()
    sock_open(None, fd)
    assert sock_read(fd, 10) == b""
    os.write(write_end, b"x")
    os.close(write_end)
    assert sock_read(fd, 10) == b"x"
    with pytest.raises(ClosedError):
        sock_read(fd, 10)


def test_a_reset_closes(ends: Ends) -> None:
    left, right = ends.sockets("tcp")
    fd = left.detach()
    sock_open(None, fd)
    reset(right)
    with pytest.raises(ConnectionResetError):
        while True:
            sock_read(fd, 10)
    assert sock_is_closed(fd)


def test_attached_the_end_is_told_by_the_reactor(
    opened: Any, reactors: Callable[..., Reactor]
) -> None:
    closed: list[int] = []
    got: list[bytes] = []
    reactor = reactors(
        on_data=lambda _reactor, fd: got.append(sock_read(fd, 100)),
        on_close=lambda _reactor, fd: closed.append(fd),
    )
    fd, peer = opened()
    sock_attach(reactor, fd)
    assert sock_read(fd, 10) == b""
    peer.close()
    while not closed:
        reactor_review(reactor)
    assert set(got) == {b""}
    with pytest.raises(ClosedError):
        sock_read(fd, 1)


def test_all_names_are_there() -> None:
    for name in libsock.__all__:
        assert hasattr(libsock, name)
    assert libsock.__all__ == sorted(libsock.__all__)
