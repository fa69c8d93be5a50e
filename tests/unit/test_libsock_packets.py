"""pycoronet.libsock: packets, their chains and who owns them."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from connections import Ends, count_descriptors, drain_now

import pycoronet
from pycoronet import ClosedError, _packets
from pycoronet.libsock import (
    BUFFER_FILE_READ_SIZE,
    BUFFER_PACKET_POOL,
    BUFFER_PACKET_SIZE,
    Packet,
    sock_checkout_packet,
    sock_close,
    sock_fd2uuid,
    sock_flush,
    sock_force_close,
    sock_free_packet,
    sock_isvalid,
    sock_open,
    sock_packets_pending,
    sock_send_packet,
    sock_write,
    sock_write2,
)

pytestmark = pytest.mark.usefixtures("virtual_hub")

BIG = 4_000_000


@pytest.fixture
def opened(ends: Ends) -> Iterator[tuple[int, Any]]:
    """Return a socket that libsock has opened, and its peer."""
    left, right = ends.sockets()
    fd = left.detach()
    sock_open(None, fd)
    uuid = sock_fd2uuid(fd)
    yield fd, right
    if sock_isvalid(uuid):
        sock_force_close(None, uuid)


@pytest.fixture(autouse=True)
def own_pool(monkeypatch: pytest.MonkeyPatch) -> list[bytearray]:
    """Give each test an empty pool."""
    pool: list[bytearray] = []
    monkeypatch.setattr(_packets, "_pool", pool)
    return pool


def filled(data: bytes) -> Packet:
    packet = sock_checkout_packet()
    packet.buffer[: len(data)] = data
    packet.length = len(data)
    return packet


def external(data: Any, dealloc: Callable[[Any], object] | None = None) -> Packet:
    packet = sock_checkout_packet()
    packet.buffer, packet.dealloc, packet.metadata.external = data, dealloc, True
    return packet


def of_file(path: Path) -> Packet:
    packet = sock_checkout_packet()
    packet.buffer, packet.metadata.is_file = path.open("rb"), True
    return packet


def of_descriptor(path: Path) -> Packet:
    packet = sock_checkout_packet()
    packet.buffer, packet.metadata.is_fd = os.open(path, os.O_RDONLY), True
    return packet


def chain(*packets: Packet) -> Packet:
    for one, following in itertools.pairwise(packets):
        one.metadata.next = following
    return packets[0]


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_the_sizes() -> None:
    assert BUFFER_PACKET_SIZE == 17 * 1024
    assert BUFFER_FILE_READ_SIZE == 16 * 1024
    packet = sock_checkout_packet()
    assert len(packet.buffer) == BUFFER_PACKET_SIZE
    sock_free_packet(packet)


def test_memory_goes_round_up_to_the_limit(
    own_pool: list[bytearray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_packets, "BUFFER_PACKET_POOL", 2)
    packets = [sock_checkout_packet() for _ in range(3)]
    memory = [packet.buffer for packet in packets]
    for packet in packets:
        sock_free_packet(packet)
    assert len(own_pool) == 2
    assert sock_checkout_packet().buffer is memory[1]
    shortened = sock_checkout_packet()
    del shortened.buffer[10:]
    sock_free_packet(shortened)
    assert own_pool == []
    assert BUFFER_PACKET_POOL == 1024


def test_sending_leaves_at_once_and_gives_the_memory_back(
    opened: tuple[int, Any], own_pool: list[bytearray]
) -> None:
    fd, peer = opened
    packet = filled(b"hello world")
    packet.metadata.offset, packet.length = 6, 5
    assert sock_send_packet(fd, packet) == 0
    assert peer.recv(100) == b"world"
    assert len(own_pool) == 1
    for call in (lambda: sock_send_packet(fd, packet), lambda: sock_free_packet(packet)):
        with pytest.raises(ValueError, match="sent or freed"):
            call()
    assert len(own_pool) == 1


def test_a_chain_of_all_kinds_is_one_message(opened: tuple[int, Any], tmp_path: Path) -> None:
    fd, peer = opened
    path = tmp_path / "file"
    path.write_bytes(b"file")
    released: list[Any] = []
    data = b"external" * 1000
    sock_write(fd, b"x" * BIG)
    sock_flush(fd)
    pycoronet.get_hub().call_soon(list)
    pycoronet.get_hub().dispatch()
    before = count_descriptors()  # the hub has its own by now
    file, descriptor = of_file(path), of_descriptor(path)
    descriptor.metadata.offset, descriptor.length = 1, 2
    kept = of_file(path)
    kept.metadata.keep_open = True
    kept_file, file_object = kept.buffer, file.buffer
    message = chain(filled(b"head "), file, descriptor, kept, external(data, released.append))
    message.metadata.can_interrupt = False  # so that only its inside is left to be overtaken
    sock_send_packet(fd, message)
    assert file_object.closed
    assert not kept_file.closed
    kept_file.close()
    sock_write2(fd, b"urgent", urgent=True)
    assert released == []
    got = b""
    while sock_packets_pending(fd):
        got += drain_now(peer)
        sock_flush(fd)
    got += drain_now(peer)
    pycoronet.get_hub().dispatch()
    assert released == [data]
    assert count_descriptors() == before
    assert got.rstrip(b"x").lstrip(b"x") == b"head fileilfile" + data + b"urgent"


def test_urgent_and_uninterrupted(opened: tuple[int, Any]) -> None:
    fd, peer = opened
    sock_write(fd, b"x" * BIG)
    sock_flush(fd)
    sock_write(fd, b"[a]")
    joined = filled(b"[b]")
    joined.metadata.can_interrupt = False
    sock_send_packet(fd, joined)
    urgent = chain(filled(b"[u1]"), filled(b"[u2]"))
    urgent.metadata.urgent = True
    sock_send_packet(fd, urgent)
    sock_write2(fd, b"[v]", urgent=True)
    got = b""
    while sock_packets_pending(fd):
        got += drain_now(peer)
        sock_flush(fd)
    got += drain_now(peer)
    assert got.lstrip(b"x") == b"[u1][u2][v][a][b]"


def test_urgent_packets_stay_out_of_a_message(opened: tuple[int, Any], tmp_path: Path) -> None:
    fd, peer = opened
    path = tmp_path / "file"
    path.write_bytes(b"file")
    sock_write(fd, b"x" * BIG)
    sock_flush(fd)
    joined = of_file(path)
    joined.metadata.can_interrupt = False
    sock_send_packet(fd, filled(b"head "))
    sock_send_packet(fd, joined)
    sock_write2(fd, b"urgent ", urgent=True)
    got = b""
    while sock_packets_pending(fd):
        got += drain_now(peer)
        sock_flush(fd)
    got += drain_now(peer)
    assert got.lstrip(b"x") == b"urgent head file"


def test_on_error_the_packets_stay_the_callers(opened: tuple[int, Any], tmp_path: Path) -> None:
    fd, peer = opened
    path = tmp_path / "file"
    path.write_bytes(b"file")
    good, bad = of_file(path), filled(b"x")
    bad.length = BUFFER_PACKET_SIZE + 1
    with pytest.raises(ValueError, match="not in a buffer"):
        sock_send_packet(fd, chain(good, bad))
    with pytest.raises(ClosedError):
        sock_send_packet(10_000, good)
    assert not good.buffer.closed
    assert not sock_packets_pending(fd)
    bad.length = 1
    sock_send_packet(fd, good)
    assert peer.recv(100) == b"filex"


def test_bad_packets(opened: tuple[int, Any], tmp_path: Path) -> None:
    fd, _ = opened
    path = tmp_path / "file"
    path.write_bytes(b"file")
    foreign = sock_checkout_packet()
    foreign.buffer = b"not its own"
    circle = filled(b"x")
    circle.metadata.next = circle
    negative_offset, negative_length = of_file(path), of_descriptor(path)
    negative_offset.metadata.offset = -1
    negative_length.length = -1
    closed = of_file(path)
    closed.buffer.close()
    wrong: list[tuple[Any, type[Exception], str]] = [
        (b"bytes", TypeError, "a Packet is needed"),
        (sock_checkout_packet(), ValueError, "set the length"),
        (foreign, ValueError, "external"),
        (circle, ValueError, "follows itself"),
        (external("text"), TypeError, "bytes-like"),
        (negative_offset, ValueError, "0 or more"),
        (negative_length, ValueError, "0 or more"),
        (closed, ValueError, "closed file"),
    ]
    for packet, error, message in wrong:
        with pytest.raises(error, match=message):
            sock_send_packet(fd, packet)
    with pytest.raises(TypeError, match="a Packet is needed"):
        sock_free_packet(None)  # type: ignore[arg-type]
    sock_free_packet(negative_offset)
    sock_free_packet(negative_length)
    assert not sock_packets_pending(fd)
    assert sock_isvalid(fd)


def test_half_a_chain_closes_the_connection(opened: tuple[int, Any]) -> None:
    fd, peer = opened
    read_end, write_end = os.pipe()
    pipe = sock_checkout_packet()
    pipe.buffer, pipe.metadata.is_fd = read_end, True
    with pytest.raises(OSError, match="pipes"):
        sock_send_packet(fd, chain(filled(b"half"), pipe))
    assert not sock_isvalid(fd)
    assert peer.recv(100) == b""
    sock_free_packet(pipe)
    assert not is_open(read_end)
    os.close(write_end)


def test_half_a_chain_of_another_thread_is_freed_once(
    opened: tuple[int, Any], reports: list[Any]
) -> None:
    fd, _ = opened
    released: list[Any] = []
    read_end, write_end = os.pipe()
    pipe = sock_checkout_packet()
    pipe.buffer, pipe.metadata.is_fd = read_end, True
    packets = chain(external(b"e" * 5000, released.append), pipe)
    thread = threading.Thread(target=sock_send_packet, args=(fd, packets))
    thread.start()
    thread.join()
    hub = pycoronet.get_hub()
    hub.wait(0)
    hub.dispatch()
    hub.dispatch()
    assert released == [b"e" * 5000]
    assert not is_open(read_end)
    assert not sock_isvalid(fd)
    os.close(write_end)


def test_freeing_closes_and_releases(tmp_path: Path, own_pool: list[bytearray]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"file")
    released: list[Any] = []
    file, descriptor, kept = of_file(path), of_descriptor(path), of_descriptor(path)
    kept.metadata.keep_open = True
    file_object, number, kept_number = file.buffer, descriptor.buffer, kept.buffer
    sock_free_packet(chain(file, descriptor, kept, external(b"e", released.append)))
    assert file_object.closed
    assert not is_open(number)
    assert is_open(kept_number)
    os.close(kept_number)
    assert released == [b"e"]
    assert len(own_pool) == 4


def test_a_connection_that_fails_takes_the_packet_all_the_same(opened: tuple[int, Any]) -> None:
    fd, peer = opened
    peer.close()
    packet = filled(b"x")
    assert sock_send_packet(fd, packet) == 0
    assert packet.buffer is None
    assert not sock_isvalid(fd)
    with pytest.raises(ClosedError):
        sock_close(None, fd)
