"""What holds the directions of a connection: enable(), disable() and caps on one system call."""

from __future__ import annotations

import fcntl
import os
import select
import socket
from typing import Any

import pytest
from connections import Ends, behind_full, drain_now, feed, receive
from recorders import Recorder, turn

import pycoronet
from pycoronet import READ, WRITE, ClosedError, _coronet, sleep, spawn
from pycoronet.layers import Zlib

pytestmark = pytest.mark.usefixtures("virtual_hub")

KINDS = ["unix", "tcp"]


# --- Reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_waits_while_reading_is_disabled(ends: Ends, kind: str) -> None:
    conn, peer = ends.pair(kind)
    assert conn.enabled == READ | WRITE
    conn.disable(READ)
    assert conn.enabled == WRITE
    peer.sendall(b"held")
    task = spawn(conn.recv, 100)
    turn()
    assert not task.done
    peer.sendall(b" and more")  # an event for it wakes nobody either
    turn()
    assert not task.done
    conn.enable(READ)
    assert task.get() == b"held and more"
    assert conn.enabled == READ | WRITE


def test_a_reader_that_waits_already_is_held(ends: Ends) -> None:
    conn, peer = ends.pair()
    task = spawn(conn.readln)
    turn()
    conn.disable(READ)
    peer.sendall(b"line\n")
    turn()
    assert not task.done
    conn.enable(READ)
    assert task.get() == b"line\n"


def test_a_held_reader_times_out_in_its_time(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.settimeout(5)
    conn.disable(READ)
    hub = pycoronet.get_hub()
    feed(peer.sendall, [b"x"] * 20)  # these do not begin its time anew
    begin = hub.time
    with pytest.raises(TimeoutError):
        conn.recv(1)
    assert hub.time - begin == pytest.approx(5, abs=0.01)
    conn.enable(READ)
    assert conn.read(20) == b"x" * 20


def test_what_was_received_before_is_not_held(ends: Ends) -> None:
    conn, peer = ends.pair()
    peer.sendall(b"one\ntwo\nthr")
    conn.timeo = 0
    with pytest.raises(TimeoutError):
        conn.read_until(b"all of it")
    assert conn.readln() == b"one\n"
    conn.disable(READ)
    assert conn.readln() == b"two\n"
    assert conn.take(10) == b"thr"
    peer.sendall(b"ee\n")
    assert conn.take(10) == b""
    conn.enable(READ)
    assert conn.take(10) == b"ee\n"


@pytest.mark.parametrize("kind", KINDS)
def test_callbacks_are_not_called_while_reading_is_disabled(ends: Ends, kind: str) -> None:
    conn, peer = ends.pair(kind)
    recorder = Recorder()
    conn.set_callbacks(recorder)
    conn.disable(READ)
    peer.sendall(b"held")
    peer.shutdown(socket.SHUT_WR)
    turn()
    assert recorder.log == []
    conn.write(b"the other way is open")
    assert receive(peer, 21) == b"the other way is open"
    conn.enable(READ)
    turn()
    assert recorder.received == b"held"
    assert recorder.log == ["data", "eof", "close"]


def test_a_callback_that_disables_reading_hears_no_more(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.set_single_limits(read=2)
    recorder = Recorder(data=lambda conn: conn.disable(READ))
    conn.set_callbacks(recorder)
    peer.sendall(b"abcdef")
    turn()
    assert recorder.received == b"ab"
    conn.enable(READ)
    turn()
    assert recorder.received == b"abcd"


def test_receive_false_is_held_and_told(ends: Ends) -> None:
    conn, peer = ends.pair("udp")
    recorder = Recorder()
    conn.set_callbacks(recorder, receive=False)
    turn()
    recorder.log.clear()
    conn.disable(READ)
    peer.send(b"packet")
    turn()
    assert recorder.log == []
    assert conn.take(100) == b""
    conn.enable(READ)
    turn()
    assert recorder.log == ["data"]
    assert recorder.received == b"packet"


# --- Writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_output_stays_queued_while_writing_is_disabled(ends: Ends, kind: str) -> None:
    conn, peer = ends.pair(kind)
    conn.disable(WRITE)
    conn.enqueue(b"queued")
    turn()
    assert conn.pending == 6
    assert drain_now(peer) == b""
    conn.enable(WRITE)
    assert conn.pending == 0
    assert receive(peer, 6) == b"queued"


@pytest.mark.parametrize("kind", KINDS)
def test_a_writer_waits_while_writing_is_disabled(ends: Ends, kind: str) -> None:
    conn, peer = ends.pair(kind)
    conn.disable(WRITE)
    task = spawn(conn.write, b"held")
    turn()
    assert not task.done
    assert drain_now(peer) == b""
    conn.enable(WRITE)
    assert task.get() == 4
    assert receive(peer, 4) == b"held"


def test_a_held_writer_times_out_and_tells_how_much_went(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.disable(WRITE)
    conn.settimeout(2)
    with pytest.raises(TimeoutError) as caught:
        conn.write(b"held")
    assert caught.value.bytes_written == 0  # type: ignore[attr-defined]
    conn.enable(WRITE)
    turn()
    assert drain_now(peer) == b""


def test_a_writer_behind_a_full_socket_is_held_too(ends: Ends) -> None:
    conn, peer, taken = behind_full(ends)
    task = spawn(conn.write, b"tail")
    turn()
    conn.disable(WRITE)
    assert len(receive(peer, taken)) == taken
    turn()
    assert not task.done
    conn.enable(WRITE)
    assert task.get() == 4
    assert receive(peer, 4) == b"tail"


def test_on_ready_comes_when_held_output_has_left(ends: Ends) -> None:
    conn, peer = ends.pair()
    recorder = Recorder()
    conn.set_callbacks(recorder)
    conn.disable(WRITE)
    conn.enqueue(b"queued")
    turn()
    assert recorder.log == []
    conn.enable(WRITE)
    turn()
    assert recorder.log == ["ready"]
    assert receive(peer, 6) == b"queued"


@pytest.mark.parametrize("enables", [False, True])
def test_close_lingers_for_what_is_held(ends: Ends, enables: bool) -> None:
    conn, peer = ends.pair()
    conn.linger = 10
    conn.disable(WRITE)
    conn.enqueue(b"last words")
    conn.close()
    sleep(9)
    assert conn.fileno() >= 0
    if enables:
        conn.enable(WRITE)
        assert conn.fileno() == -1
        assert receive(peer, 10) == b"last words"
    else:
        sleep(2)
        assert conn.fileno() == -1
    assert peer.recv(100) == b""
    with pytest.raises(ClosedError):
        conn.enable(WRITE)
    with pytest.raises(ClosedError):
        conn.disable(READ)


def test_a_file_is_held(ends: Ends, small: Any) -> None:
    conn, peer = ends.pair()
    conn.disable(WRITE)
    with small.open("rb") as file:
        length = conn.sendfile(file)
    turn()
    assert conn.pending == length
    conn.set_single_limits(write=7)
    conn.enable(WRITE)
    assert receive(peer, length) == small.read_bytes()


def test_packets_and_messages_are_held(ends: Ends) -> None:
    conn, peer = ends.pair("udp")
    conn.disable(READ | WRITE)
    peer.send(b"in")
    for never_waiting in (
        lambda: conn.recvmsg(10, 0, socket.MSG_DONTWAIT),
        lambda: conn.sendmsg([b"x"], (), socket.MSG_DONTWAIT),
    ):
        with pytest.raises(BlockingIOError):
            never_waiting()
    reader = spawn(conn.recvfrom, 100)
    writer = spawn(conn.sendmsg, [b"out"])
    turn()
    assert not reader.done
    assert not writer.done
    conn.enable(READ | WRITE)
    assert reader.get()[0] == b"in"
    assert writer.get() == 3
    assert peer.recv(100) == b"out"


def test_a_connection_with_layers_is_held(ends: Ends) -> None:
    left, right = (ends.conn(end) for end in socket.socketpair())
    for conn in (left, right):
        conn.push_layer(Zlib())
    left.disable(WRITE)
    writer = spawn(left.write, b"through layers")
    turn()
    assert not writer.done
    right.disable(READ)
    left.enable(WRITE)
    assert writer.get() == 14
    reader = spawn(right.read, 14)
    turn()
    assert not reader.done
    right.enable(READ)
    assert reader.get() == b"through layers"


# --- Listeners -----------------------------------------------------------------------------------


def test_a_disabled_listener_leaves_connections_queued(listener: Any, dial: Any) -> None:
    recorder = Recorder()
    listener.set_callbacks(recorder)
    listener.disable(READ)
    dial()
    turn()
    assert recorder.log == []
    assert select.select([listener.fileno()], [], [], 10)[0]
    listener.enable(READ)
    turn()
    assert recorder.log == ["open"]


def test_accept_waits_while_the_listener_is_disabled(listener: Any, dial: Any, keep: Any) -> None:
    listener.disable(READ)
    dial()
    task = spawn(listener.accept)
    turn()
    assert not task.done
    listener.enable(READ)
    keep(task.get()[0])


# --- Single limits -------------------------------------------------------------------------------


def test_one_call_receives_no_more_than_the_limit(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.set_single_limits(read=3)
    assert conn.get_single_limits() == {"read": 3, "write": None}
    peer.sendall(b"abcdefgh")
    assert conn.recv(100) == b"abc"
    assert conn.recv(2) == b"de"
    assert conn.read(3) == b"fgh"
    conn.set_single_limits()
    assert conn.get_single_limits() == {"read": None, "write": None}
    peer.sendall(b"abcdefgh")
    assert conn.recv(100) == b"abcdefgh"


@pytest.mark.parametrize("kind", KINDS)
def test_callbacks_receive_no_more_than_the_limit_at_once(ends: Ends, kind: str) -> None:
    sizes: list[int] = []
    conn, peer = ends.pair(kind)
    conn.set_single_limits(read=4)
    recorder = Recorder(takes=False, data=lambda conn: sizes.append(len(conn.take(100))))
    conn.set_callbacks(recorder)
    peer.sendall(b"x" * 50)
    turn(10)
    assert sum(sizes) == 50
    assert max(sizes) == 4


@pytest.mark.linux_only
@pytest.mark.parametrize("layered", [False, True])
def test_one_call_sends_no_more_than_the_limit(ends: Ends, layered: bool) -> None:
    # Such a pipe keeps what each call has written apart.
    read_end, write_end = os.pipe2(os.O_DIRECT)
    ends.keep(os.fdopen(read_end, "rb", buffering=0))
    os.set_blocking(read_end, False)
    conn = ends.conn(write_end)
    if layered:
        conn.push_layer(pycoronet.TransportLayer())

    def pieces() -> list[bytes]:
        found = []
        while select.select([read_end], [], [], 0)[0]:
            found.append(os.read(read_end, 1 << 20))
        return found

    conn.set_single_limits(write=10)
    conn.enqueue([b"a" * 25, b"b" * 7, b"c" * 30])
    conn.flush()
    sent = pieces()
    assert {len(piece) for piece in sent} == {10, 2}
    assert b"".join(sent) == b"a" * 25 + b"b" * 7 + b"c" * 30
    assert conn.write(b"d" * 101) == 101
    assert [len(piece) for piece in pieces()] == [10] * 10 + [1]
    conn.set_single_limits(write=None)
    conn.write(b"e" * 101)
    assert [len(piece) for piece in pieces()] == [101]


@pytest.mark.parametrize("layered", [False, True])
@pytest.mark.parametrize("way", ["enqueue", "write"])
def test_no_turn_is_long_where_each_call_is_capped(ends: Ends, way: str, layered: bool) -> None:
    conn, peer = ends.pair()
    if layered:
        conn.push_layer(pycoronet.TransportLayer())
    conn.set_single_limits(write=10)
    writer = spawn(getattr(conn, way), bytes(2000))
    turns = 0
    received = b""
    while not writer.done or conn.pending > 0:
        sleep(0)
        turns += 1
        received += drain_now(peer)
    # And not all in one. In hard mode a turn of ours is two or three of the hub's.
    assert turns > 2000 / 10 / (24 if _coronet.HARD_MODE else 8)
    assert received + drain_now(peer) == bytes(2000)


@pytest.mark.linux_only
def test_one_call_sends_no_more_of_a_file_than_the_limit(ends: Ends, small: Any) -> None:
    read_end, write_end = os.pipe()
    reader = ends.keep(os.fdopen(read_end, "rb", buffering=0))
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)  # of one page: it takes one call's bytes
    conn = ends.conn(write_end)
    conn.set_single_limits(write=10)
    with small.open("rb") as file:
        conn.sendfile(file, 0, 64)
    turn()
    assert conn.pending == 54
    assert reader.read(100) == small.read_bytes()[:10]


def test_limits_that_make_no_sense(ends: Ends) -> None:
    conn, _ = ends.pair()
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            conn.set_single_limits(read=wrong)
        with pytest.raises(ValueError, match="at least 1"):
            conn.set_single_limits(write=wrong)
    with pytest.raises(TypeError):
        conn.set_single_limits(read="x")
    assert conn.get_single_limits() == {"read": None, "write": None}
    packets, _ = ends.pair("udp")
    with pytest.raises(ValueError, match="stream"):
        packets.set_single_limits(read=10)
    for wrong in (8, -1, READ | 8):
        with pytest.raises(ValueError, match="READ, WRITE or both"):
            conn.disable(wrong)
        with pytest.raises(ValueError, match="READ, WRITE or both"):
            conn.enable(wrong)
    conn.disable(0)
    conn.enable(0)
    conn.enable(READ | WRITE)
    assert conn.enabled == READ | WRITE
