"""Datagrams and their addresses: recvfrom, sendto, recvmsg, sendmsg."""

from __future__ import annotations

import errno
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from connections import MOMENT, Keep, attempt, hold_input, unix_pair

import pycoronet

ROOM_FOR_ONE_FD = socket.CMSG_SPACE(4)


def udp_conn(keep: Keep, family: int = socket.AF_INET) -> Any:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
    return keep(pycoronet.sk_conn(sock))


def unix_conn(keep: Keep, path: str) -> Any:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(path)
    return keep(pycoronet.sk_conn(sock))


# Datagrams to and fro, in each family.


def test_datagram_ipv4_carries_both_addresses(keep: Keep) -> None:
    left, right = udp_conn(keep), udp_conn(keep)
    assert left.sendto(b"there", right.getsockname()) == 5
    data, address = right.recvfrom(100)
    assert (data, address) == (b"there", left.getsockname())
    assert right.sendto(b"back", address) == 4
    assert left.recvfrom(100) == (b"back", right.getsockname())


def test_datagram_ipv6_carries_both_addresses(keep: Keep) -> None:
    try:
        left, right = udp_conn(keep, socket.AF_INET6), udp_conn(keep, socket.AF_INET6)
    except OSError:
        pytest.skip("needs an IPv6 loopback address")
    assert left.sendto(b"there", right.getsockname()) == 5
    assert right.recvfrom(100) == (b"there", left.getsockname())


def test_datagram_unix_carries_both_paths(keep: Keep, tmp_path: Path) -> None:
    left = unix_conn(keep, os.fsdecode(tmp_path / "left"))
    right = unix_conn(keep, os.fsdecode(tmp_path / "right"))
    assert left.sendto(b"there", right.getsockname()) == 5
    assert right.recvfrom(100) == (b"there", left.getsockname())


@pytest.mark.linux_only
def test_datagram_unix_abstract_carries_both_names(keep: Keep) -> None:
    left = unix_conn(keep, f"\0pycoronet {os.getpid()} left")
    right = unix_conn(keep, f"\0pycoronet {os.getpid()} right")
    assert left.sendto(b"there", right.getsockname()) == 5
    assert right.recvfrom(100) == (b"there", left.getsockname())


def test_datagram_of_an_unnamed_socket_has_no_address(keep: Keep) -> None:
    conn, peer = unix_pair(keep, socket.SOCK_DGRAM)
    peer.send(b"x")
    data, address = conn.recvfrom(10)
    assert data == b"x"
    assert address in (None, "")  # the BSDs have an empty one


def test_datagram_of_length_0_is_no_end(keep: Keep) -> None:
    left, right = udp_conn(keep), udp_conn(keep)
    assert left.sendto(b"", right.getsockname()) == 0
    assert left.sendmsg([], address=right.getsockname()) == 0
    assert left.sendto(b"after", right.getsockname()) == 5
    assert right.recvfrom(10) == (b"", left.getsockname())
    data, ancillary, _flags, address = right.recvmsg(10)
    assert (data, ancillary, address) == (b"", [], left.getsockname())
    assert right.recvfrom(10)[0] == b"after"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_sendto_takes_any_bytes_like(keep: Keep, kind: Any) -> None:
    left, right = udp_conn(keep), udp_conn(keep)
    assert left.sendto(kind(b"data"), 0, right.getsockname()) == 4
    assert right.recvfrom(10)[0] == b"data"


def test_recvfrom_cuts_a_datagram_off(keep: Keep) -> None:
    conn, peer = unix_pair(keep, socket.SOCK_DGRAM)
    peer.send(b"0123456789")
    peer.send(b"next")
    assert conn.recvfrom(4)[0] == b"0123"
    assert conn.recvfrom(4)[0] == b"next"


def test_recvmsg_tells_that_a_datagram_was_cut_off(keep: Keep) -> None:
    conn, peer = unix_pair(keep, socket.SOCK_DGRAM)
    peer.send(b"0123456789")
    data, _ancillary, flags, _address = conn.recvmsg(4)
    assert data == b"0123"
    assert flags == socket.MSG_TRUNC


def test_recvfrom_peek_leaves_the_datagram(keep: Keep) -> None:
    conn, peer = unix_pair(keep, socket.SOCK_DGRAM)
    peer.send(b"data")
    assert conn.recvfrom(2, socket.MSG_PEEK)[0] == b"da"
    assert conn.recvfrom(4, flags=0)[0] == b"data"


@pytest.mark.parametrize("size", [256 * 1024, 256 * 1024 + 1, 1 << 20])
def test_recvfrom_more_than_the_scratch_area(keep: Keep, size: int) -> None:
    conn, peer = unix_pair(keep)
    peer.setblocking(False)
    sent = peer.send(b"x" * size)
    received = b""
    while len(received) < sent:
        received += conn.recvfrom(size)[0]
    assert received == b"x" * sent


def test_recvfrom_stream_end_of_file_is_empty(keep: Keep) -> None:
    conn, peer = unix_pair(keep)
    peer.send(b"last")
    peer.close()
    assert conn.recvfrom(10) == (b"last", None)
    assert conn.recvfrom(10) == (b"", None)


# Parking.


def test_recvfrom_waits_for_a_datagram(keep: Keep) -> None:
    conn, peer = unix_pair(keep, socket.SOCK_DGRAM)
    for _ in range(3):
        task = pycoronet.spawn(conn.recvfrom, 10)
        pycoronet.sleep(0)
        assert not task.done
        peer.send(b"late")
        assert task.get() == (b"late", None)


def test_recvmsg_waits_for_a_message(keep: Keep) -> None:
    conn, peer = unix_pair(keep)
    task = pycoronet.spawn(conn.recvmsg, 10, ROOM_FOR_ONE_FD)
    pycoronet.sleep(0)
    assert not task.done
    peer.send(b"late")
    assert task.get() == (b"late", [], 0, None)


@pytest.mark.parametrize("name", ["recvfrom", "recvmsg"])
def test_receiving_times_out_and_loses_nothing(keep: Keep, name: str) -> None:
    conn, peer = unix_pair(keep, socket.SOCK_DGRAM)
    for seconds in (0, 0.001):
        conn.set_timeo(seconds)
        with pytest.raises(TimeoutError, match=name):
            getattr(conn, name)(10)
    peer.send(b"later")
    conn.set_timeo(None)
    assert getattr(conn, name)(10)[0] == b"later"


@pytest.mark.parametrize("name", ["recvfrom", "recvmsg"])
def test_receiving_dontwait_does_not_wait(keep: Keep, name: str) -> None:
    conn, peer = unix_pair(keep, socket.SOCK_DGRAM)
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            getattr(conn, name)(10, flags=socket.MSG_DONTWAIT)
    peer.send(b"now")
    assert getattr(conn, name)(10, flags=socket.MSG_DONTWAIT)[0] == b"now"


@pytest.mark.parametrize("name", ["recvfrom", "recvmsg"])
def test_receiving_wakes_when_closed(keep: Keep, name: str) -> None:
    conn, _peer = unix_pair(keep, socket.SOCK_DGRAM)
    task = pycoronet.spawn(getattr(conn, name), 10)
    pycoronet.sleep(0)
    conn.close()
    with pytest.raises(pycoronet.ClosedError):
        task.get()


@pytest.mark.parametrize("name", ["recvfrom", "recvmsg"])
def test_receiving_closed_between_event_and_turn(keep: Keep, name: str) -> None:
    conn, peer = unix_pair(keep, socket.SOCK_DGRAM)
    other, other_peer = unix_pair(keep)

    def close_it() -> None:
        other.readsome(1)
        conn.close()

    # Both become ready in one poll; who waited on the first is resumed first.
    closer = pycoronet.spawn(close_it)
    task = pycoronet.spawn(getattr(conn, name), 10)
    pycoronet.sleep(0)
    other_peer.send(b"x")
    peer.send(b"x")
    with pytest.raises(pycoronet.ClosedError):
        task.get()
    closer.get()


@pytest.mark.parametrize("name", ["recvfrom", "recvmsg"])
def test_receiving_twice_at_once_is_busy(keep: Keep, name: str) -> None:
    conn, peer = unix_pair(keep, socket.SOCK_DGRAM)
    task = pycoronet.spawn(conn.recvfrom, 10)
    pycoronet.sleep(0)
    with pytest.raises(pycoronet.BusyError):
        getattr(conn, name)(10)
    peer.send(b"x")
    assert task.get()[0] == b"x"


@pytest.mark.parametrize("name", ["recvfrom", "recvmsg"])
def test_receiving_cancelled_leaves_the_datagram(keep: Keep, name: str) -> None:
    conn, peer = unix_pair(keep, socket.SOCK_DGRAM)
    task = pycoronet.spawn(getattr(conn, name), 10)
    pycoronet.sleep(MOMENT)
    task.cancel()
    peer.send(b"kept")
    task.join()
    assert conn.recvfrom(10)[0] == b"kept"


def test_receiving_reports_the_networks_error(keep: Keep) -> None:
    conn = udp_conn(keep)
    with socket.socket(type=socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        address = gone.getsockname()
    conn.connect(address)
    conn.sendto(b"nobody there", address)
    with pytest.raises(ConnectionRefusedError):
        conn.recvfrom(10)
    assert conn.error == errno.ECONNREFUSED


# Bytes that a reading verb left behind.


@pytest.mark.parametrize("name", ["recvfrom", "recvmsg"])
def test_receiving_takes_what_is_buffered_first(keep: Keep, name: str) -> None:
    conn, peer = unix_pair(keep)
    receive = getattr(conn, name)
    hold_input(conn, peer, b"rest")
    peer.send(b" and more")
    assert receive(2, flags=socket.MSG_PEEK)[0] == b"re"
    assert receive(2)[0] == b"re"
    assert receive(0)[0] == b""
    assert receive(100)[0] == b"st"
    assert receive(100)[0] == b" and more"


# Sending: order, room, errors.


def test_sending_goes_behind_what_was_collected(keep: Keep) -> None:
    conn, peer = unix_pair(keep)
    conn.buffered = True
    conn.write(b"first ")
    assert conn.sendmsg([b"sec", bytearray(b"ond")]) == 6
    assert peer.recv(12, socket.MSG_WAITALL) == b"first second"


def test_sending_waits_until_what_was_collected_has_gone(keep: Keep) -> None:
    conn, peer_socket = unix_pair(keep)
    peer = keep(pycoronet.sk_conn(peer_socket))
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    conn.buffered = True
    for _ in range(15):
        conn.write(b"x" * 4096)
    task = pycoronet.spawn(conn.sendmsg, [b"end"])
    pycoronet.sleep(0)
    assert not task.done
    assert peer.read(15 * 4096 + 3) == b"x" * (15 * 4096) + b"end"
    assert task.get() == 3


def test_sending_raises_the_error_of_what_was_collected(keep: Keep) -> None:
    conn, peer = unix_pair(keep)
    conn.buffered = True
    conn.write(b"lost")
    peer.close()
    with pytest.raises(BrokenPipeError):
        conn.sendmsg([b"more"])


def fill(conn: Any) -> int:
    """Send until there is no room; return how many bytes it took."""
    total = 0
    with suppress(BlockingIOError):
        while True:
            total += conn.sendmsg([b"f" * 1000], (), socket.MSG_DONTWAIT)
    return total


def test_sendmsg_waits_for_room_and_returns_a_partial_count(keep: Keep) -> None:
    conn, peer_socket = unix_pair(keep)
    peer = keep(pycoronet.sk_conn(peer_socket))
    filled = fill(conn)
    data = bytearray(4 << 20)
    task = pycoronet.spawn(conn.sendmsg, [data])
    pycoronet.sleep(0)
    assert not task.done
    with pytest.raises(BufferError):
        data.append(0)  # exported as long as its sender is parked
    assert peer.read(filled) == b"f" * filled
    count = task.get()
    assert 0 < count < len(data)
    data.append(0)
    assert peer.read(count) == bytes(count)


@pytest.mark.parametrize("seconds", [0, 0.001])
def test_sendmsg_times_out_and_lets_the_buffer_go(keep: Keep, seconds: float) -> None:
    conn, _peer = unix_pair(keep)
    fill(conn)
    conn.set_timeo(seconds)
    data = bytearray(1000)
    with pytest.raises(TimeoutError, match="sendmsg"):
        conn.sendmsg([data])
    data.append(0)


def test_sending_wakes_when_closed_and_lets_the_buffer_go(keep: Keep) -> None:
    conn, _peer = unix_pair(keep)
    fill(conn)
    data = bytearray(1000)
    task = pycoronet.spawn(conn.sendmsg, [data])
    pycoronet.sleep(0)
    conn.close()
    with pytest.raises(pycoronet.ClosedError):
        task.get()
    data.append(0)


def test_sending_twice_at_once_is_busy(keep: Keep) -> None:
    conn, _peer = unix_pair(keep)
    fill(conn)
    task = pycoronet.spawn(conn.sendmsg, [b"x"])
    pycoronet.sleep(0)
    with pytest.raises(pycoronet.BusyError):
        conn.sendmsg([b"y"])
    conn.close()
    with pytest.raises(pycoronet.ClosedError):
        task.get()


# A full queue of the receiver makes no event for a sender that is not connected to it.


def crowd(keep: Keep, path: str) -> Any:
    """Return a bound receiver whose queue strangers have filled."""
    receiver = keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    receiver.bind(path)
    receiver.settimeout(10)  # a failing test ends, too
    stranger = keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    stranger.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            stranger.sendto(b"x", path)
    return receiver


@pytest.mark.linux_only
def test_sendto_crowded_unix_receiver_goes_on_when_there_is_room(
    keep: Keep, tmp_path: Path
) -> None:
    path = os.fsdecode(tmp_path / "crowded")
    receiver = crowd(keep, path)
    conn = unix_conn(keep, os.fsdecode(tmp_path / "sender"))
    reader = pycoronet.spawn(conn.recvfrom, 10)  # so that the engine knows the socket
    task = pycoronet.spawn(conn.sendto, b"mine", path)
    pycoronet.sleep(0.001)  # whatever the engine has to say has been heard
    assert not task.done
    assert receiver.recv(10) == b"x"
    assert task.get() == 4
    while (data := receiver.recv(10)) == b"x":
        pass
    assert data == b"mine"
    receiver.sendto(b"bye", conn.getsockname())
    assert reader.get()[0] == b"bye"


@pytest.mark.linux_only
@pytest.mark.parametrize("seconds", [0, 0.02])
def test_sendto_crowded_unix_receiver_times_out(keep: Keep, tmp_path: Path, seconds: float) -> None:
    path = os.fsdecode(tmp_path / "crowded")
    crowd(keep, path)
    conn = unix_conn(keep, os.fsdecode(tmp_path / "sender"))
    reader = pycoronet.spawn(attempt, conn.recvfrom, 10)  # so that the engine knows the socket
    pycoronet.sleep(0)
    conn.set_timeo(seconds)
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        conn.sendto(b"mine", path)
    assert time.monotonic() - start >= seconds
    reader.cancel()
    reader.join()


@pytest.mark.linux_only
def test_sendto_crowded_unix_receiver_wakes_when_closed(keep: Keep, tmp_path: Path) -> None:
    path = os.fsdecode(tmp_path / "crowded")
    crowd(keep, path)
    conn = unix_conn(keep, os.fsdecode(tmp_path / "sender"))
    task = pycoronet.spawn(conn.sendto, b"mine", path)
    pycoronet.sleep(0)
    conn.close()
    with pytest.raises(pycoronet.ClosedError):
        task.get()


# Wrong arguments.


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("recvfrom", (), TypeError),
        ("recvfrom", (1, 0, 0), TypeError),
        ("recvfrom", ("1",), TypeError),
        ("recvfrom", (1, "0"), TypeError),
        ("recvfrom", (-1,), ValueError),
        ("recvfrom", (1, 1 << 40), OverflowError),
        ("recvmsg", (), TypeError),
        ("recvmsg", (1, 0, 0, 0), TypeError),
        ("recvmsg", (None,), TypeError),
        ("recvmsg", (1, None), TypeError),
        ("recvmsg", (1, 0, None), TypeError),
        ("recvmsg", (-1,), ValueError),
        ("recvmsg", (1, -1), ValueError),
        ("recvmsg", (1, 1 << 40), ValueError),
        ("sendto", (), TypeError),
        ("sendto", (b"x",), TypeError),
        ("sendto", ("text", ("127.0.0.1", 9)), TypeError),
        ("sendto", (b"x", "flags", ("127.0.0.1", 9)), TypeError),
        ("sendto", (b"x", 0, None), TypeError),
        ("sendto", (b"x", 0, ("127.0.0.1", 9), 0), TypeError),
        ("sendto", (b"x", ("127.0.0.1", 65536)), OverflowError),
        ("sendto", (b"x" * 70000, ("127.0.0.1", 9)), OSError),
        ("sendmsg", (), TypeError),
        ("sendmsg", (None,), TypeError),
        ("sendmsg", (b"x",), TypeError),
        ("sendmsg", (["text"],), TypeError),
        ("sendmsg", ([b"x"], None), TypeError),
        ("sendmsg", ([b"x"], [1]), TypeError),
        ("sendmsg", ([b"x"], [(1, 2)]), TypeError),
        ("sendmsg", ([b"x"], [(1, 2, "text")]), TypeError),
        ("sendmsg", ([b"x"], [("1", 2, b"")]), TypeError),
        ("sendmsg", ([b"x"], [(1, "2", b"")]), TypeError),
        ("sendmsg", ([b"x"], [(1 << 40, 2, b"")]), OverflowError),
        ("sendmsg", ([b"x"], (), "0"), TypeError),
        ("sendmsg", ([b"x"], (), 0, 9), TypeError),
        ("sendmsg", ([b"x"], (), 0, None, 0), TypeError),
        ("sendmsg", ([b"x"],), OSError),
    ],
)
def test_wrong_arguments(keep: Keep, name: str, arguments: Any, expected: type[Exception]) -> None:
    with pytest.raises(expected):
        getattr(udp_conn(keep), name)(*arguments)


def test_sendmsg_wrong_item_lets_the_others_go(keep: Keep) -> None:
    conn, _peer = unix_pair(keep)
    data = bytearray(10)
    for arguments in (([data, data, 1],), ([b""], [(1, 2, data), 3])):
        with pytest.raises(TypeError):
            conn.sendmsg(*arguments)
        data.append(0)


def test_sendmsg_takes_iterators(keep: Keep) -> None:
    conn, peer = unix_pair(keep)
    assert conn.sendmsg((letter for letter in (b"a", b"b")), iter(())) == 2
    assert peer.recv(10) == b"ab"


def test_sendmsg_more_buffers_than_the_kernel_takes(keep: Keep) -> None:
    conn, _peer = unix_pair(keep)
    with pytest.raises(OSError, match=r".+") as caught:
        conn.sendmsg([b"x"] * 100_000)
    assert caught.value.errno == errno.EMSGSIZE


CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("recvfrom", (1,)),
    ("recvmsg", (1,)),
    ("recvmsg", (1, 100)),
    ("sendto", (b"x", ("127.0.0.1", 9))),
    ("sendto", (b"x", 0, ("127.0.0.1", 9))),
    ("sendmsg", ([b"x"],)),
    ("sendmsg", ([b"x"], (), 0, ("127.0.0.1", 9))),
]


@pytest.mark.parametrize(("name", "arguments"), CALLS)
def test_method_of_a_closed_connection_raises_closed_error(
    keep: Keep, name: str, arguments: tuple[Any, ...]
) -> None:
    conn = udp_conn(keep)
    conn.close()
    with pytest.raises(pycoronet.ClosedError):
        getattr(conn, name)(*arguments)


@pytest.mark.parametrize(("name", "arguments"), CALLS)
def test_method_of_a_pipe_raises_enotsock(
    keep: Keep, name: str, arguments: tuple[Any, ...]
) -> None:
    read_end, write_end = os.pipe()
    keep(os.fdopen(write_end, "wb"))
    conn = keep(pycoronet.sk_conn(read_end))
    with pytest.raises(OSError, match=r".+") as caught:
        getattr(conn, name)(*arguments)
    assert caught.value.errno == errno.ENOTSOCK


@pytest.mark.parametrize("name", sorted({name for name, _arguments in CALLS}))
def test_method_is_documented_with_its_signature(name: str) -> None:
    method = getattr(pycoronet.sk_conn, name)
    assert method.__text_signature__.startswith("($self")
    assert method.__doc__
