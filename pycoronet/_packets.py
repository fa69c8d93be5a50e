"""The packets of pycoronet.libsock: pieces of output that are filled first and sent whole."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ._coronet import sk_conn

__all__ = [
    "BUFFER_FILE_READ_SIZE",
    "BUFFER_PACKET_POOL",
    "BUFFER_PACKET_SIZE",
    "Packet",
    "PacketMetadata",
    "Parcel",
    "sock_checkout_packet",
    "sock_free_packet",
]

BUFFER_PACKET_SIZE = 17 * 1024  # of a packet's own memory
BUFFER_FILE_READ_SIZE = 16 * 1024  # of a file at a time: 1 KiB is left for transport layers
BUFFER_PACKET_POOL = 1024  # how many packets' memory is kept for the next ones

_pool: list[bytearray] = []


@dataclass(slots=True)
class PacketMetadata:
    """What is to be done with a packet, by the names of the C structure.

    next: the packet that follows; a chain is one message, which nothing is put into.
    can_interrupt: whether an urgent packet may be put before this one.
    is_file, is_fd: the buffer is a file object, or a descriptor; it is closed when it has been
    queued, unless keep_open. external: the buffer is not the packet's own memory but any
    bytes-like object, which is not to be changed until it has been sent.
    urgent: overtake what has not begun to leave; the first packet's counts for its chain.
    offset: where in the buffer or the file it begins.
    """

    next: "Packet | None" = None
    can_interrupt: bool = True
    is_file: bool = False
    is_fd: bool = False
    external: bool = False
    urgent: bool = False
    keep_open: bool = False
    offset: int = 0


@dataclass(slots=True, eq=False)
class Packet:
    """A piece of output. sock_checkout_packet() makes them.

    length: how many bytes count; None for all that an external buffer, or a file, has.
    buffer: what they are in, at first the packet's own `internal_memory`.
    metadata: a PacketMetadata. dealloc: called as dealloc(buffer) when an external buffer was
    sent, dropped or freed.
    """

    internal_memory: bytearray | None
    length: int | None = None
    buffer: Any = None
    metadata: PacketMetadata = field(default_factory=PacketMetadata)
    dealloc: Callable[[Any], object] | None = None

    def __post_init__(self) -> None:
        self.buffer = self.internal_memory


def sock_checkout_packet() -> Packet:
    """Return an empty packet: fill `buffer` and set `length`. It is the caller's.

    The memory comes from a pool of up to BUFFER_PACKET_POOL pieces and is not cleared. Raises
    MemoryError where the seed's function returns NULL. Never switches.
    """
    return Packet(_pool.pop() if _pool else bytearray(BUFFER_PACKET_SIZE))


def sock_free_packet(packet: Packet) -> None:
    """Free a packet that is not to be sent, with those that follow it in its chain.

    Their files are closed, unless keep_open, and dealloc() is called for external buffers. A
    packet that was sent or freed cannot be used again: ValueError. Nothing else has to be
    done for one that is just dropped, but then no file is closed. Never switches.
    """
    for one in _chain_of(packet):
        release = _release_of(one)
        _let_go(one)
        release()


def _chain_of(packet: Packet) -> list[Packet]:
    chain: list[Packet] = []
    one: Packet | None = packet
    while one is not None or not chain:
        if not isinstance(one, Packet):
            raise TypeError(f"a Packet is needed, not {type(one).__name__}")
        if one in chain:
            raise ValueError("the chain of packets has no end: one follows itself")
        if one.internal_memory is None:
            raise ValueError("the packet was sent or freed already")
        chain.append(one)
        one = one.metadata.next
    return chain


def _let_go(packet: Packet) -> None:
    """Take the packet's memory back into the pool; it is nobody's any more."""
    memory, packet.internal_memory, packet.buffer = packet.internal_memory, None, None
    # The caller may still have a view of it, or may have changed its length.
    if memory is not None and len(memory) == BUFFER_PACKET_SIZE and len(_pool) < BUFFER_PACKET_POOL:
        _pool.append(memory)


def _release_of(packet: Packet) -> Callable[[], object]:
    """Return what frees the packet's buffer."""
    meta, buffer, dealloc = packet.metadata, packet.buffer, packet.dealloc
    if meta.is_fd or meta.is_file:
        return _do_nothing if meta.keep_open else partial(close_file, buffer)
    if meta.external and dealloc is not None:
        return partial(dealloc, buffer)
    return _do_nothing


def _do_nothing() -> None: ...


def close_file(file: Any) -> None:
    """Close a file object or a descriptor."""
    if isinstance(file, int):
        os.close(file)
    else:
        file.close()


def slice_of(buffer: Any, offset: int, length: int | None) -> Any:
    """Return the part of a bytes-like object that counts, itself if that is all of it.

    Raises ValueError for a part that the buffer does not have.
    """
    view = memoryview(buffer).cast("B")
    end = view.nbytes if length is None else offset + length
    if offset < 0 or not offset <= end <= view.nbytes:
        raise ValueError(f"bytes {offset} to {end} are not in a buffer of {view.nbytes}")
    if (offset, end) == (0, view.nbytes):
        return buffer
    return view[offset:end]


Step = Callable[[sk_conn, bool, bool], object]


class Parcel:
    """A chain of packets, checked, on its way to a connection's queue."""

    def __init__(self, packet: Packet) -> None:
        self._chain = _chain_of(packet)
        self._steps = [_step_of(one) for one in self._chain]
        self._releases = [_release_of(one) for one in self._chain]

    def take(self) -> "Parcel":
        """Take the packets from the caller; return this."""
        for one in self._chain:
            _let_go(one)
        return self

    def queue(self, conn: sk_conn) -> None:
        """Put all of it into the connection's queue."""
        first = self._chain[0].metadata
        can_interrupt = first.can_interrupt
        for index, step in enumerate(self._steps):
            try:
                step(conn, first.urgent, can_interrupt)
            except BaseException:
                if index > 0:
                    conn.abort()  # half a message is worse than none
                raise
            self._releases[index] = _do_nothing  # the connection does it
            can_interrupt = False

    def drop(self) -> None:
        """Free what was taken and cannot be queued."""
        for release in self._releases:
            release()


def _step_of(packet: Packet) -> Step:
    """Return what queues one packet. Raises what is wrong with it."""
    meta, length = packet.metadata, packet.length
    if meta.is_fd or meta.is_file:
        if meta.offset < 0 or (length is not None and length < 0):
            raise ValueError("the offset and the length of a file are 0 or more")
        os.fstat(packet.buffer if meta.is_fd else packet.buffer.fileno())
        return partial(_queue_file, packet.buffer, meta, length)
    if meta.external:
        part = slice_of(packet.buffer, meta.offset, length)
        return partial(_queue_external, packet.buffer, part, packet.dealloc)
    if packet.buffer is not packet.internal_memory:
        raise ValueError("a packet with a buffer that is not its own has to say `external`")
    if length is None:
        raise ValueError("set the length of what was put into the packet")
    return partial(_queue_bytes, bytes(slice_of(packet.buffer, meta.offset, length)))


def _queue_bytes(data: bytes, conn: sk_conn, urgent: bool, can_interrupt: bool) -> None:
    conn.enqueue(data, urgent=urgent, can_interrupt=can_interrupt)


def _queue_external(
    buffer: Any,
    part: Any,
    dealloc: Callable[[Any], object] | None,
    conn: sk_conn,
    urgent: bool,
    can_interrupt: bool,
) -> None:
    release = None if dealloc is None else lambda _part: dealloc(buffer)
    conn.enqueue(part, urgent=urgent, can_interrupt=can_interrupt, move=True, dealloc=release)


def _queue_file(
    file: Any,
    meta: PacketMetadata,
    length: int | None,
    conn: sk_conn,
    urgent: bool,
    can_interrupt: bool,
) -> None:
    conn.sendfile(
        file,
        meta.offset,
        length,
        close=not meta.keep_open,
        urgent=urgent,
        can_interrupt=can_interrupt,
    )
