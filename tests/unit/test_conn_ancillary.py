"""Ancillary data: descriptors and credentials that travel with a message."""

from __future__ import annotations

import array
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from connections import MOMENT, Keep, count_descriptors, hold_input, unix_pair

import pycoronet

ROOM_FOR_ONE_FD = socket.CMSG_SPACE(4)


def rights(*descriptors: int) -> list[tuple[int, int, Any]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]


def take_rights(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors of the one item there is."""
    ((level, kind, data),) = ancillary
    assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
    descriptors = array.array("i")
    descriptors.frombytes(data)
    return list(descriptors)


def test_recvmsg_leaves_descriptors_behind_what_is_buffered(keep: Keep) -> None:
    conn, peer = unix_pair(keep)
    hold_input(conn, peer, b"rest")
    with Path(os.devnull).open("rb") as null:
        peer.sendmsg([b"with"], rights(null.fileno()))
    assert conn.recvmsg(100, ROOM_FOR_ONE_FD) == (b"rest", [], 0, None)
    data, ancillary, _flags, _address = conn.recvmsg(100, ROOM_FOR_ONE_FD)
    assert data == b"with"
    (descriptor,) = take_rights(ancillary)
    os.close(descriptor)


def test_descriptors_pass_from_sk_conn_to_sk_conn(keep: Keep) -> None:
    left, right_socket = unix_pair(keep)
    right = keep(pycoronet.sk_conn(right_socket))
    read_end, write_end = os.pipe()
    assert left.sendmsg([b"a", b"b"], rights(read_end, write_end)) == 2
    data, ancillary, flags, address = right.recvmsg(10, socket.CMSG_SPACE(8))
    assert (data, flags, address) == (b"ab", 0, None)
    received_read_end, received_write_end = take_rights(ancillary)
    os.write(received_write_end, b"through")
    assert os.read(read_end, 10) == b"through"
    assert not os.get_inheritable(received_read_end)
    for descriptor in (read_end, write_end, received_read_end, received_write_end):
        os.close(descriptor)


def test_descriptors_without_room_are_closed(keep: Keep) -> None:
    conn, peer = unix_pair(keep)
    with Path(os.devnull).open("rb") as null:
        peer.sendmsg([b"x"], rights(null.fileno(), null.fileno(), null.fileno()))
        before = count_descriptors()
        data, ancillary, flags, _address = conn.recvmsg(10, socket.CMSG_LEN(4))
        assert data == b"x"
        assert flags & socket.MSG_CTRUNC
        descriptors = take_rights(ancillary)
        assert count_descriptors() == before + len(descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def test_descriptors_nobody_asked_for_are_closed(keep: Keep) -> None:
    conn, peer = unix_pair(keep)
    with Path(os.devnull).open("rb") as null:
        peer.sendmsg([b"x"], rights(null.fileno()))
        before = count_descriptors()
        data, ancillary, flags, _address = conn.recvmsg(10)
        assert (data, ancillary) == (b"x", [])
        if sys.platform == "linux":  # the BSDs say nothing if there was no room at all
            assert flags == socket.MSG_CTRUNC
        assert count_descriptors() == before


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
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_recvmsg_without_memory_leaks_no_descriptor(keep: Keep, kind: int) -> None:
    failures = lost = 0
    pycoronet.sleep(MOMENT)  # the hub has the descriptors that it needs
    with Path(os.devnull).open("rb") as null:
        for place in range(50):
            conn, peer = unix_pair(keep, kind)
            peer.sendmsg([b"x" * 1000], rights(null.fileno()))
            before = count_descriptors()
            received = call_with_one_failure(place, conn.recvmsg, 2000, ROOM_FOR_ONE_FD)
            if received is not None:
                (descriptor,) = take_rights(received[1])
                os.close(descriptor)
                break
            failures += 1
            # A stream that lost bytes ends; a datagram socket lives on.
            is_closed = conn.fileno() == -1
            lost += is_closed
            assert count_descriptors() == before - is_closed
    assert failures > 1
    assert (lost > 0) == (kind == socket.SOCK_STREAM)


def test_ancillary_data_of_several_kinds(keep: Keep) -> None:
    conn, peer = unix_pair(keep)
    if not hasattr(socket, "SO_PASSCRED"):
        pytest.skip("needs SCM_CREDENTIALS")
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    sender = keep(pycoronet.sk_conn(peer))
    credentials = array.array("i", [os.getpid(), os.getuid(), os.getgid()])
    with Path(os.devnull).open("rb") as null:
        items = [
            (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials),
            *rights(null.fileno()),
        ]
        assert sender.sendmsg([b"x"], items) == 1
    _data, ancillary, flags, _address = conn.recvmsg(10, ROOM_FOR_ONE_FD + socket.CMSG_SPACE(12))
    assert flags == 0
    found = {kind: data for _level, kind, data in ancillary}
    assert found[socket.SCM_CREDENTIALS] == credentials.tobytes()
    os.close(array.array("i", found[socket.SCM_RIGHTS])[0])
