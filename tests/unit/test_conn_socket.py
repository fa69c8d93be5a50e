"""What only sockets can: connect, accept, names, options, shutdown."""

from __future__ import annotations

import array
import errno
import os
import resource
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from connections import MOMENT, Keep, count_descriptors

import pycoronet


@pytest.fixture
def listener(keep: Keep) -> Any:
    """Return a listening TCP sk_conn on 127.0.0.1."""
    sock = socket.create_server(("127.0.0.1", 0))
    return keep(pycoronet.sk_conn(sock))


def tcp_conn(keep: Keep) -> Any:
    return keep(pycoronet.sk_conn(socket.socket()))


def conn_pair(keep: Keep) -> tuple[Any, socket.socket]:
    """Return an sk_conn and the other end of it as a socket."""
    left, right = socket.socketpair()
    right.settimeout(10)  # a failing test ends, too
    return keep(pycoronet.sk_conn(left)), keep(right)


def pipe_conn(keep: Keep) -> Any:
    read_end, write_end = os.pipe()
    keep(os.fdopen(write_end, "wb"))
    return keep(pycoronet.sk_conn(read_end))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


# connect


def test_connect_tcp_then_both_ends_talk(keep: Keep, listener: Any) -> None:
    conn = tcp_conn(keep)
    assert conn.connect(listener.getsockname()) is None
    accepted, address = listener.accept()
    keep(accepted)
    assert address == conn.getsockname()
    conn.write(b"to")
    assert accepted.read(2) == b"to"
    accepted.write(b"fro")
    assert conn.read(3) == b"fro"


def test_connect_waits_while_others_run(keep: Keep, listener: Any) -> None:
    conn = tcp_conn(keep)
    task = pycoronet.spawn(conn.connect, listener.getsockname())
    accepted, _address = listener.accept()
    keep(accepted)
    task.get()
    assert conn.getpeername() == listener.getsockname()


def test_connect_refused_is_the_errors_own_class(keep: Keep) -> None:
    conn = tcp_conn(keep)
    with pytest.raises(ConnectionRefusedError) as caught:
        conn.connect(("127.0.0.1", free_port()))
    assert caught.value.errno == errno.ECONNREFUSED
    assert conn.error == errno.ECONNREFUSED


def fill_backlog(keep: Keep) -> Any:
    """Return the address of a listener that answers no further connection."""
    full = keep(socket.socket())
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    for _ in range(4):
        waiting = keep(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(full.getsockname())
    return full.getsockname()


@pytest.mark.linux_only
def test_connect_timeout_leaves_the_socket_open(keep: Keep) -> None:
    conn = tcp_conn(keep)
    conn.set_timeo(0.01)
    with pytest.raises(TimeoutError, match="connect"):
        conn.connect(fill_backlog(keep))
    assert conn.fileno() >= 0
    with pytest.raises(OSError, match=r".+") as caught:
        conn.connect(("127.0.0.1", 9))
    assert caught.value.errno == errno.EALREADY


@pytest.mark.linux_only
def test_connect_ready_without_a_peer_is_not_connected(keep: Keep) -> None:
    conn = tcp_conn(keep)
    conn.set_timeo(0.05)
    task = pycoronet.spawn(conn.connect, fill_backlog(keep))
    while conn.getsockname()[1] == 0:
        pycoronet.sleep(0)
    # Somebody else breaks the attempt off and takes the error: an event says "ready".
    other = keep(socket.socket(fileno=os.dup(conn.fileno())))
    other.shutdown(socket.SHUT_RDWR)
    assert other.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
    with pytest.raises(TimeoutError):
        task.get()


@pytest.mark.linux_only
def test_connect_wakes_when_closed(keep: Keep) -> None:
    conn = tcp_conn(keep)
    task = pycoronet.spawn(conn.connect, fill_backlog(keep))
    pycoronet.sleep(0)
    conn.close()
    with pytest.raises(pycoronet.ClosedError):
        task.get()


@pytest.mark.linux_only
def test_connect_twice_at_once_is_busy(keep: Keep) -> None:
    conn = tcp_conn(keep)
    task = pycoronet.spawn(conn.connect, fill_backlog(keep))
    pycoronet.sleep(0)
    with pytest.raises(pycoronet.BusyError):
        conn.connect(("127.0.0.1", 9))
    conn.close()
    with pytest.raises(pycoronet.ClosedError):
        task.get()


@pytest.mark.linux_only
def test_connect_unix_full_queue_is_blocking_io_error(keep: Keep, tmp_path: Path) -> None:
    path = os.fsdecode(tmp_path / "full")
    full = keep(socket.socket(socket.AF_UNIX))
    full.bind(path)
    full.listen(0)
    first = keep(pycoronet.sk_conn(socket.socket(socket.AF_UNIX)))
    first.connect(path)
    second = keep(pycoronet.sk_conn(socket.socket(socket.AF_UNIX)))
    with pytest.raises(BlockingIOError) as caught:
        second.connect(path)
    assert caught.value.errno == errno.EAGAIN


def test_connect_connected_socket_is_an_error(keep: Keep, listener: Any) -> None:
    keep(socket.create_connection(listener.getsockname()))
    conn = keep(listener.accept()[0])
    with pytest.raises(OSError, match=r".+") as caught:
        conn.connect(listener.getsockname())
    assert caught.value.errno == errno.EISCONN


# accept


def test_accept_gives_a_ready_made_connection(keep: Keep, listener: Any) -> None:
    client = keep(socket.create_connection(listener.getsockname()))
    accepted, address = listener.accept()
    keep(accepted)
    assert address == client.getsockname()
    assert isinstance(accepted, pycoronet.sk_conn)
    assert not os.get_blocking(accepted.fileno())
    assert not os.get_inheritable(accepted.fileno())
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    client.sendall(b"line\n")
    assert accepted.readln() == b"line\n"


def test_accept_waits_for_a_connection(keep: Keep, listener: Any) -> None:
    task = pycoronet.spawn(listener.accept)
    pycoronet.sleep(0)
    assert not task.done
    client = keep(socket.create_connection(listener.getsockname()))
    accepted, address = task.get()
    keep(accepted)
    assert address == client.getsockname()


def test_accept_after_a_pause_finds_what_was_queued(keep: Keep, listener: Any) -> None:
    listener.set_timeo(0)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            listener.accept()
        clients = [keep(socket.create_connection(listener.getsockname())) for _ in range(3)]
        listener.set_timeo(None)
        addresses = []
        for _ in clients:
            pycoronet.sleep(0)  # events come while nobody accepts
            accepted, address = listener.accept()
            keep(accepted)
            addresses.append(address)
        assert addresses == [client.getsockname() for client in clients]
        listener.set_timeo(0)


def test_accept_unix_unnamed_peer(keep: Keep, tmp_path: Path) -> None:
    path = os.fsdecode(tmp_path / "listener")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    listener = keep(pycoronet.sk_conn(sock))
    client = keep(socket.socket(socket.AF_UNIX))
    client.connect(path)
    accepted, address = listener.accept()
    keep(accepted)
    assert address == ""
    assert accepted.getsockname() == path


def test_accept_of_a_socket_that_listens_later(keep: Keep) -> None:
    # The connection was made, and watched, before the socket listened.
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    conn = keep(pycoronet.sk_conn(sock))
    with pytest.raises(OSError, match=r".+"):
        conn.accept()
    again = socket.socket(fileno=os.dup(conn.fileno()))
    again.listen()
    again.close()
    conn.set_timeo(0)
    with pytest.raises(TimeoutError):
        conn.accept()
    client = keep(socket.create_connection(conn.getsockname()))
    conn.set_timeo(None)
    accepted, address = conn.accept()
    keep(accepted)
    assert address == client.getsockname()


def test_accept_without_listening_is_an_error(keep: Keep) -> None:
    conn, peer = conn_pair(keep)
    with pytest.raises(OSError, match=r".+") as caught:
        conn.accept()
    assert caught.value.errno == errno.EINVAL
    # It is no listener because somebody tried: both directions still work.
    peer.sendall(b"in")
    assert conn.read(2) == b"in"


def test_accept_on_a_datagram_socket_is_an_error(keep: Keep) -> None:
    conn = keep(pycoronet.sk_conn(socket.socket(type=socket.SOCK_DGRAM)))
    with pytest.raises(OSError, match=r".+") as caught:
        conn.accept()
    assert caught.value.errno in (errno.EOPNOTSUPP, errno.EINVAL)  # the latter on FreeBSD


def test_accept_timeout_then_works(keep: Keep, listener: Any) -> None:
    listener.set_timeo(0.001)
    with pytest.raises(TimeoutError, match="accept"):
        listener.accept()
    keep(socket.create_connection(listener.getsockname()))
    listener.set_timeo(None)
    keep(listener.accept()[0])


def test_accept_wakes_when_closed(listener: Any) -> None:
    task = pycoronet.spawn(listener.accept)
    pycoronet.sleep(0)
    listener.close()
    with pytest.raises(pycoronet.ClosedError):
        task.get()


def test_accept_closed_right_after_it_became_ready(keep: Keep, listener: Any) -> None:
    # Both come before its turn: the connection arrives, then the listener is closed.
    task = pycoronet.spawn(listener.accept)
    pycoronet.sleep(0)
    keep(socket.create_connection(listener.getsockname()))
    closer = pycoronet.spawn(listener.close)
    with pytest.raises(pycoronet.ClosedError):
        keep(task.get()[0])
        raise pycoronet.ClosedError  # it was accepted first: as good
    closer.get()


def test_accept_twice_at_once_is_busy(listener: Any) -> None:
    task = pycoronet.spawn(listener.accept)
    pycoronet.sleep(0)
    with pytest.raises(pycoronet.BusyError):
        listener.accept()
    listener.close()
    with pytest.raises(pycoronet.ClosedError):
        task.get()


def test_accept_without_free_descriptors_keeps_the_connection(keep: Keep, listener: Any) -> None:
    client = keep(socket.create_connection(listener.getsockname()))
    before = count_descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match=r".+") as caught:
            listener.accept()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE
    assert count_descriptors() == before
    accepted, address = listener.accept()
    keep(accepted)
    assert address == client.getsockname()


def call_with_one_failure(place: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call [function]; its allocation number [place] fails. Return None for MemoryError."""
    memory = pytest.importorskip("_testcapi", reason="needs a way to let malloc fail")
    result = None
    try:
        memory.set_nomemory(place, place + 1)
        result = function(*arguments)
    except MemoryError:
        pass
    finally:
        memory.remove_mem_hooks()
    return result


@pytest.mark.optimisation("an operation that need not wait does not switch")
def test_accept_without_memory_leaks_no_descriptor(keep: Keep, listener: Any) -> None:
    failures = 0
    pycoronet.sleep(MOMENT)  # the hub has the descriptors that it needs
    for place in range(50):
        keep(socket.create_connection(listener.getsockname()))
        before = count_descriptors()
        accepted = call_with_one_failure(place, listener.accept)
        if accepted is not None:
            accepted[0].close()
            break
        failures += 1
        assert count_descriptors() == before
    assert failures > 1


# names


def test_getpeername_without_a_peer_is_an_error(keep: Keep) -> None:
    with pytest.raises(OSError, match=r".+") as caught:
        tcp_conn(keep).getpeername()
    assert caught.value.errno == errno.ENOTCONN


# shutdown


def test_shutdown_of_writing_ends_the_peers_reading(keep: Keep) -> None:
    conn, peer = conn_pair(keep)
    conn.write(b"last")
    conn.shutdown(socket.SHUT_WR)
    assert peer.recv(10) == b"last"
    assert peer.recv(10) == b""
    peer.sendall(b"answer")
    assert conn.read(6) == b"answer"
    with pytest.raises(BrokenPipeError):
        conn.write(b"more")


def test_shutdown_of_writing_sends_first_what_was_collected(keep: Keep) -> None:
    conn, peer = conn_pair(keep)
    conn.buffered = True
    conn.write(b"collected")
    conn.shutdown(socket.SHUT_WR)
    assert peer.recv(20) == b"collected"
    assert peer.recv(20) == b""


def test_shutdown_of_writing_waits_for_room(keep: Keep) -> None:
    conn, peer_socket = conn_pair(keep)
    peer = keep(pycoronet.sk_conn(peer_socket))
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    conn.buffered = True
    for _ in range(15):
        conn.write(b"x" * 4096)
    task = pycoronet.spawn(conn.shutdown, socket.SHUT_WR)
    pycoronet.sleep(0)
    assert not task.done
    assert peer.read(15 * 4096 + 1) == b"x" * (15 * 4096)
    task.get()


def test_shutdown_of_reading_wakes_the_reader(keep: Keep) -> None:
    conn, _peer = conn_pair(keep)
    task = pycoronet.spawn(conn.readsome, 10)
    pycoronet.sleep(0)
    conn.shutdown(socket.SHUT_RD)
    assert task.get() == b""


def test_shutdown_without_a_peer_is_an_error(keep: Keep) -> None:
    with pytest.raises(OSError, match=r".+") as caught:
        tcp_conn(keep).shutdown(socket.SHUT_WR)
    assert caught.value.errno == errno.ENOTCONN


def test_shutdown_after_a_reset_tells_of_the_reset(keep: Keep, listener: Any) -> None:
    conn = tcp_conn(keep)
    conn.connect(listener.getsockname())
    accepted, _address = listener.accept()
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    accepted.close()
    pycoronet.wait_fd(conn.fileno(), pycoronet.READ)
    with pytest.raises(ConnectionResetError):
        conn.shutdown(socket.SHUT_WR)
    assert conn.error == errno.ECONNRESET


@pytest.mark.parametrize(("how", "expected"), [(None, TypeError), ("1", TypeError), (7, OSError)])
def test_shutdown_of_a_wrong_direction(keep: Keep, how: Any, expected: type[Exception]) -> None:
    conn, _peer = conn_pair(keep)
    with pytest.raises(expected):
        conn.shutdown(how)


# options


def test_setsockopt_int_comes_back(keep: Keep) -> None:
    conn = tcp_conn(keep)
    assert conn.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    assert conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1) is None
    assert conn.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_setsockopt_bytes_come_back(keep: Keep, kind: Any) -> None:
    conn = tcp_conn(keep)
    linger = struct.pack("ii", 1, 7)
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, kind(linger))
    for size in (64, 8):
        is_on, seconds = struct.unpack(
            "ii", conn.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, size)
        )
        assert is_on != 0  # the BSDs say yes with another number
        assert seconds == 7
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))


@pytest.mark.linux_only
def test_setsockopt_none_goes_with_a_length(keep: Keep) -> None:
    conn = tcp_conn(keep)
    # No address to read there: the kernel has to be handed the length to say so.
    with pytest.raises(OSError, match=r".+") as caught:
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, None, 4)
    assert caught.value.errno == errno.EFAULT
    with pytest.raises(OSError, match=r".+") as caught:
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, None, optlen=0)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), TypeError),
        ((1, 2), TypeError),
        ((1, 2, None), TypeError),
        ((1, 2, 3, 4), TypeError),
        ((1, 2, "text"), TypeError),
        ((1, 2, 1.5), TypeError),
        (("1", 2, 3), TypeError),
        ((1, "2", 3), TypeError),
        ((1 << 40, 2, 3), OverflowError),
        ((1, 2, 1 << 40), OverflowError),
        ((1, 2, None, -1), ValueError),
        ((1, 2, None, "4"), TypeError),
        ((socket.SOL_SOCKET, 9999, 1), OSError),
        ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, b"x" * 65537), OSError),
        ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, None, 65537), OSError),
    ],
)
def test_setsockopt_wrong_arguments(keep: Keep, arguments: Any, expected: type[Exception]) -> None:
    with pytest.raises(expected):
        tcp_conn(keep).setsockopt(*arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), TypeError),
        ((1,), TypeError),
        ((1, 2, 3, 4), TypeError),
        (("1", 2), TypeError),
        ((1, "2"), TypeError),
        ((1, 2, "3"), TypeError),
        ((1, 2, -1), ValueError),
        ((1, 2, 65537), ValueError),
        ((1 << 40, 2), OverflowError),
        ((socket.SOL_SOCKET, 9999), OSError),
        ((socket.SOL_SOCKET, 9999, 8), OSError),
    ],
)
def test_getsockopt_wrong_arguments(keep: Keep, arguments: Any, expected: type[Exception]) -> None:
    with pytest.raises(expected):
        tcp_conn(keep).getsockopt(*arguments)


# _socket, the module's own maker of sockets


def open_socket(*arguments: Any) -> Any:
    return pycoronet._coronet._socket(*arguments)


def test_socket_is_nonblocking_close_on_exec_and_without_delay(keep: Keep) -> None:
    conn = keep(open_socket(socket.AF_INET, socket.SOCK_STREAM))
    assert not os.get_blocking(conn.fileno())
    assert not os.get_inheritable(conn.fileno())
    assert conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_socket_datagram_keeps_the_borders_of_messages(keep: Keep) -> None:
    conn = keep(open_socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP))
    peer = keep(socket.socket(type=socket.SOCK_DGRAM))
    peer.bind(("127.0.0.1", 0))
    conn.connect(peer.getsockname())
    peer.sendto(b"one", conn.getsockname())
    peer.sendto(b"two", conn.getsockname())
    assert conn.recvfrom(10)[0] == b"one"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), TypeError),
        ((socket.AF_INET,), TypeError),
        (("inet", 1), TypeError),
        ((socket.AF_INET, None), TypeError),
        ((socket.AF_INET, 1, "tcp"), TypeError),
        ((1 << 40, 1), OverflowError),
        ((socket.AF_INET, 1, 0, 0), TypeError),
        ((9999, 1), OSError),
    ],
)
def test_socket_wrong_arguments(arguments: Any, expected: type[Exception]) -> None:
    pycoronet.get_hub()  # which has descriptors of its own
    before = count_descriptors()
    with pytest.raises(expected):
        open_socket(*arguments)
    assert count_descriptors() == before


# every method, on what it cannot work with

CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("connect", (("127.0.0.1", 9),)),
    ("accept", ()),
    ("shutdown", (socket.SHUT_RD,)),
    ("shutdown", (socket.SHUT_WR,)),
    ("getpeername", ()),
    ("getsockname", ()),
    ("getsockopt", (socket.SOL_SOCKET, socket.SO_TYPE)),
    ("getsockopt", (socket.SOL_SOCKET, socket.SO_TYPE, 4)),
    ("setsockopt", (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)),
    ("setsockopt", (socket.SOL_SOCKET, socket.SO_KEEPALIVE, array.array("i", [1]))),
]


@pytest.mark.parametrize(("name", "arguments"), CALLS)
def test_method_of_a_closed_connection_raises_closed_error(
    keep: Keep, name: str, arguments: tuple[Any, ...]
) -> None:
    conn = tcp_conn(keep)
    conn.close()
    with pytest.raises(pycoronet.ClosedError):
        getattr(conn, name)(*arguments)


@pytest.mark.parametrize(("name", "arguments"), CALLS)
def test_method_of_a_pipe_raises_enotsock(
    keep: Keep, name: str, arguments: tuple[Any, ...]
) -> None:
    conn = pipe_conn(keep)
    with pytest.raises(OSError, match=r".+") as caught:
        getattr(conn, name)(*arguments)
    assert caught.value.errno == errno.ENOTSOCK


@pytest.mark.parametrize("name", sorted({name for name, _arguments in CALLS}))
def test_method_is_documented_with_its_signature(name: str) -> None:
    method = getattr(pycoronet.sk_conn, name)
    assert method.__text_signature__.startswith("($self")
    assert method.__doc__
