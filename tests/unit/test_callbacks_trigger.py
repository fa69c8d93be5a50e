"""trigger() and flush() for callbacks, and what a flood of tiny writes comes to."""

from __future__ import annotations

import os
import select
import socket
from typing import Any

import pytest
from connections import Ends, behind_full, drain_now, receive
from recorders import Recorder, told, turn

import pycoronet
from pycoronet import READ, WRITE, TransportLayer, _coronet

pytestmark = pytest.mark.usefixtures("virtual_hub")


# --- trigger() -----------------------------------------------------------------------------------


def test_trigger_tells_of_what_is_held(ends: Ends) -> None:
    conn, peer = ends.pair()
    recorder = Recorder(takes=False)
    conn.set_callbacks(recorder)
    conn.trigger(READ)
    turn()
    assert recorder.log == []  # there is nothing to take
    peer.sendall(b"left")
    turn()
    conn.trigger(READ)
    assert recorder.log == ["data"]  # it is deferred
    turn()
    assert recorder.log == ["data", "data"]
    conn.set_watermarks(read_low=5)
    conn.trigger(READ)
    turn()
    assert recorder.log == ["data", "data"]
    conn.trigger(READ, ignore_watermarks=True)
    turn()
    assert recorder.log == ["data", "data", "data"]


def test_trigger_tells_of_room(ends: Ends) -> None:
    conn, _, _ = behind_full(ends)
    recorder = Recorder()
    conn.set_watermarks(write_low=5)
    conn.set_callbacks(recorder)
    conn.trigger(WRITE)
    turn()
    assert recorder.log == ["ready"]
    conn.enqueue(b"123456")
    turn()
    conn.trigger(WRITE)
    turn()
    assert recorder.log == ["ready"]
    conn.trigger(WRITE, ignore_watermarks=True)
    turn()
    assert recorder.log == ["ready", "ready"]


def test_trigger_of_both_and_of_nothing(ends: Ends) -> None:
    conn, _ = ends.pair()
    recorder = Recorder()
    conn.set_callbacks(recorder)
    conn.disable(READ | WRITE)
    conn.trigger(0)
    turn()
    assert recorder.log == []
    conn.trigger(READ | WRITE, ignore_watermarks=True)
    turn()
    assert recorder.log == ["ready", "data"]


def test_trigger_inside_a_callback_comes_after_it(ends: Ends) -> None:
    conn, peer = ends.pair()
    depth: list[int] = []

    def again(conn: Any) -> None:
        depth.append(1)
        if recorder.log.count("data") < 5:
            conn.trigger(READ)
            conn.trigger(READ)  # twice is once
        assert depth.pop() == 1
        assert depth == []

    recorder = Recorder(takes=False, data=again)
    conn.set_callbacks(recorder)
    peer.sendall(b"x")
    turn()
    assert recorder.log == ["data"] * 5


def test_trigger_for_who_receives_itself(ends: Ends) -> None:
    conn, peer = ends.pair("udp")
    recorder = Recorder(takes=False)
    conn.set_callbacks(recorder, receive=False)
    turn()
    recorder.log.clear()
    peer.send(b"packet")
    turn()
    assert told(recorder.log) == ["data"]
    recorder.log.clear()
    conn.trigger(READ, ignore_watermarks=True)
    turn()
    assert recorder.log == ["data"]


def test_trigger_refuses(ends: Ends, listener: Any) -> None:
    conn, _ = ends.pair()
    with pytest.raises(RuntimeError, match="callbacks"):
        conn.trigger(READ)
    listener.set_callbacks(Recorder())
    with pytest.raises(RuntimeError, match="callbacks"):
        listener.trigger(READ)
    conn.set_callbacks(Recorder())
    for wrong in (2, -1, 64):
        with pytest.raises(ValueError, match="READ, WRITE or both"):
            conn.trigger(wrong)


# --- flush() -------------------------------------------------------------------------------------


def test_flush_in_a_callback_sends_at_once(ends: Ends) -> None:
    conn, peer = ends.pair()
    seen: list[bytes] = []

    def write_and_flush(conn: Any) -> None:
        conn.write(b"now")
        assert drain_now(peer) == b""
        conn.flush()
        seen.append(drain_now(peer))

    conn.set_callbacks(Recorder(data=write_and_flush))
    peer.sendall(b"x")
    turn()
    assert seen == [b"now"]


def test_flush_in_a_callback_never_waits(ends: Ends) -> None:
    conn, peer, taken = behind_full(ends)
    pending: list[int] = []

    def write_and_flush(conn: Any) -> None:
        conn.write(b"later")
        conn.flush()
        pending.append(conn.pending)

    recorder = Recorder(data=write_and_flush)
    conn.set_callbacks(recorder)
    peer.sendall(b"x")
    turn()
    assert pending == [5]
    assert len(receive(peer, taken + 5)) == taken + 5
    turn()
    assert recorder.log == ["data", "ready"]


def test_flush_in_a_callback_raises_what_it_finds(ends: Ends) -> None:
    conn, peer = ends.pair()
    other, other_peer = ends.pair()
    other_peer.close()
    errors: list[BaseException] = []

    def write_and_flush(conn: Any) -> None:
        try:
            other.enqueue(b"x")
            other.flush()
        except OSError as error:
            errors.append(error)

    conn.set_callbacks(Recorder(data=write_and_flush))
    peer.sendall(b"x")
    turn()
    assert [type(error) for error in errors] == [BrokenPipeError]


# --- Tiny writes ---------------------------------------------------------------------------------

COUNT = 10_000


class Pieces(TransportLayer):
    """Counts in how many pieces what is written comes down."""

    def __init__(self) -> None:
        self.pieces = 0

    def wrap(self, data: bytes) -> bytes:
        self.pieces += 1
        return data


@pytest.mark.parametrize("how", ["write", "enqueue"])
def test_tiny_writes_of_a_callback_leave_together(ends: Ends, how: str) -> None:
    conn, peer = ends.pair()
    layer = Pieces()
    conn.push_layer(layer)
    pending: list[int] = []

    def write_much(conn: Any) -> None:
        for at in range(COUNT):
            getattr(conn, how)(b"%x" % (at % 16))
        pending.append(conn.pending)
        assert layer.pieces == 0

    conn.set_callbacks(Recorder(data=write_much))
    peer.sendall(b"x")
    turn()
    assert pending == [COUNT]
    assert receive(peer, COUNT) == b"0123456789abcdef" * (COUNT // 16)
    # Each enqueue() is a packet of its own, in hard mode write() too: a layer takes sixteen.
    is_joined = how == "write" and not _coronet.HARD_MODE
    assert layer.pieces <= (1 if is_joined else COUNT / 10)


@pytest.mark.linux_only
@pytest.mark.optimisation("calls that need not wait go on without giving way")
def test_tiny_writes_of_a_task_leave_together(ends: Ends) -> None:
    # Such a pipe keeps what each system call has written apart.
    read_end, write_end = os.pipe2(os.O_DIRECT)
    ends.keep(os.fdopen(read_end, "rb", buffering=0))
    conn = ends.conn(write_end)
    conn.buffered = True
    conn.set_watermarks(write_low=4096, write_high=4096)
    most = 0
    received: list[bytes] = []
    for _ in range(COUNT):
        conn.write(b"x")
        most = max(most, conn.pending)
        while select.select([read_end], [], [], 0)[0]:
            received.append(os.read(read_end, 65536))
    conn.flush()
    received.append(os.read(read_end, 65536))
    assert sum(map(len, received)) == COUNT
    # It gives way after 256 operations, and what it has written leaves then.
    assert len(received) <= COUNT / 250
    assert most <= 4096


def test_tiny_writes_to_a_peer_that_does_not_read(ends: Ends) -> None:
    conn, peer, taken = behind_full(ends)
    conn.buffered = True
    conn.set_watermarks(write_low=0, write_high=1000)
    most: list[int] = []

    def write_much() -> None:
        for _ in range(COUNT):
            conn.write(b"x")
            most.append(conn.pending)

    task = pycoronet.spawn(write_much)
    turn()
    assert not task.done
    assert max(most) == 1000  # what is more than that waits in its task
    assert len(receive(peer, taken + 1001)) >= taken
    while not task.done:
        drain_now(peer)
        turn(1)
    task.get()
    conn.flush()
    assert max(most) == 1000


def test_tiny_pieces_that_come(ends: Ends) -> None:
    conn, peer = ends.pair("tcp")
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    rest: list[bytes] = []
    recorder = Recorder(eof=lambda conn: rest.append(conn.take(COUNT)))
    conn.set_watermarks(read_low=1000)
    conn.set_callbacks(recorder)
    for _ in range(COUNT):
        peer.send(b"x")
    peer.shutdown(socket.SHUT_WR)
    while "eof" not in recorder.log:
        turn()
    assert recorder.received + rest[0] == b"x" * COUNT
    assert len(rest[0]) < 1000
    assert recorder.log.count("data") <= COUNT / 1000
