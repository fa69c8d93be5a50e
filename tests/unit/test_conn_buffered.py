"""Buffered writing: what is run together, when it leaves, and what becomes of failures."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from connections import MOMENT, Ends, attempt, drain_now, fill, open_descriptors

import pycoronet
from pycoronet import sleep, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")

HIGH_MARK = 64 * 1024
LINGER = 30


def buffered_pair(ends: Ends, kind: str = "unix") -> tuple[Any, socket.socket]:
    conn, peer = ends.pair(kind)
    conn.buffered = True
    return conn, peer


def packet_pipe(ends: Ends) -> tuple[Any, Callable[[], list[bytes]]]:
    """Return a buffered sk_conn, and what tells with which writes its bytes came."""
    read_end, write_end = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
    reader = ends.keep(os.fdopen(read_end, "rb", buffering=0))
    conn = ends.conn(write_end)
    conn.buffered = True

    def packets() -> list[bytes]:
        # Each write is a packet, and each read gives one (at most a page).
        return list(iter(lambda: reader.read(4096), None))

    return conn, packets


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


# --- When it leaves -----------------------------------------------------------------------


def test_it_is_off_at_first(ends: Ends) -> None:
    conn, peer = ends.pair()
    assert conn.buffered is False
    conn.write(b"at once")
    assert conn.pending == 0
    assert drain_now(peer) == b"at once"


@pytest.mark.optimisation("calls that need not wait go on without giving way")
def test_writes_collect_until_flush(ends: Ends) -> None:
    conn, peer = buffered_pair(ends)
    assert conn.buffered is True
    assert conn.write(b"one") == 3
    assert conn.printf(b"%d", 2) == 1
    assert conn.sendall(bytearray(b"three")) is None
    assert conn.pending == 9
    assert drain_now(peer) == b""
    assert conn.flush() is None
    assert conn.pending == 0
    assert drain_now(peer) == b"one2three"
    conn.flush()


@pytest.mark.linux_only
@pytest.mark.optimisation("calls that need not wait go on without giving way")
def test_they_leave_in_one_call_when_the_task_parks(ends: Ends) -> None:
    conn, packets = packet_pipe(ends)
    for piece in (b"a", b"bb", b"", b"ccc"):
        conn.write(piece)
    assert packets() == []
    sleep(MOMENT)
    assert packets() == [b"abbccc"]


@pytest.mark.linux_only
@pytest.mark.optimisation("calls that need not wait go on without giving way")
def test_they_leave_in_one_call_when_the_task_ends(ends: Ends) -> None:
    conn, packets = packet_pipe(ends)

    def write() -> None:
        for piece in (b"a", b"bb", b"ccc"):
            conn.write(piece)

    spawn(write).join()
    assert packets() == [b"abbccc"]


@pytest.mark.linux_only
def test_they_leave_when_the_task_fails(ends: Ends) -> None:
    conn, packets = packet_pipe(ends)

    def write() -> None:
        conn.write(b"before the end")
        raise KeyError

    task = spawn(write)
    with pytest.raises(KeyError):
        task.get()
    assert packets() == [b"before the end"]


@pytest.mark.linux_only
@pytest.mark.parametrize(
    "wait",
    [
        lambda: sleep(0),
        lambda: sleep(1),
        lambda: spawn(int).join(),
        lambda: pycoronet.get_hub().run(),
        lambda: pycoronet.to_thread(int),
    ],
    ids=["yield", "sleep", "join", "run", "to_thread"],
)
@pytest.mark.optimisation("calls that need not wait go on without giving way")
def test_any_wait_flushes(ends: Ends, wait: Callable[[], object]) -> None:
    conn, packets = packet_pipe(ends)
    spawn(sleep, MOMENT)
    sleep(0)
    conn.write(b"1")
    conn.write(b"2")
    wait()
    assert packets() == [b"12"]


@pytest.mark.linux_only
@pytest.mark.optimisation("calls that need not wait go on without giving way")
def test_a_read_that_has_to_wait_flushes_and_one_that_need_not_does_not(ends: Ends) -> None:
    conn, packets = packet_pipe(ends)
    other, peer = ends.pair()
    peer.send(b"one\ntwo\n")
    for _ in range(2):
        conn.write(other.readln())
    assert packets() == []
    other.timeo = 0
    with pytest.raises(TimeoutError):
        other.readln()
    assert packets() == [b"one\ntwo\n"]


@pytest.mark.linux_only
def test_the_poll_of_a_hand_driven_hub_flushes(ends: Ends) -> None:
    conn, packets = packet_pipe(ends)
    conn.write(b"x")
    pycoronet.get_hub().wait(0)
    assert packets() == [b"x"]


@pytest.mark.optimisation("calls that need not wait go on without giving way")
def test_the_high_mark_sends_at_once(ends: Ends) -> None:
    conn, peer = buffered_pair(ends)
    conn.write(b"a" * (HIGH_MARK - 1))
    conn.write(b"b")
    assert conn.pending == HIGH_MARK
    assert drain_now(peer) == b""
    conn.write(b"c")
    assert conn.pending == 0
    received = b""
    while piece := drain_now(peer):
        received += piece
    assert received == b"a" * (HIGH_MARK - 1) + b"bc"


def test_a_large_write_goes_straight_through_and_in_order(ends: Ends) -> None:
    conn, peer = buffered_pair(ends)
    content = bytes(range(256)) * 10_000
    conn.write(b"head")
    task = spawn(lambda: (conn.write(content), conn.write(b"tail")))
    received = b""
    while len(received) < len(content) + 8:
        received += drain_now(peer)
        sleep(MOMENT)
    assert received == b"head" + content + b"tail"
    task.get()


def test_several_connections_are_flushed_together(ends: Ends) -> None:
    pairs = [buffered_pair(ends) for _ in range(10)]
    for number, (conn, _) in enumerate(pairs):
        conn.write(b"%d" % number)
    sleep(0)
    assert [drain_now(peer) for _, peer in pairs] == [b"%d" % number for number in range(10)]


def test_turned_off_with_bytes_pending(ends: Ends) -> None:
    conn, peer = buffered_pair(ends)
    conn.write(b"one ")
    conn.buffered = False
    assert conn.pending == 4
    conn.write(b"two")  # not past the others
    assert conn.pending == 0
    assert drain_now(peer) == b"one two"


def test_half_close_sends_what_waits(ends: Ends) -> None:
    conn, peer = buffered_pair(ends)
    conn.write(b"all")
    conn.shutdown(socket.SHUT_WR)
    assert peer.recv(10) == b"all"
    assert peer.recv(10) == b""


@pytest.mark.parametrize("kind", ["udp", "seqpacket"])
def test_packets_cannot_be_buffered(ends: Ends, kind: str) -> None:
    conn, peer = ends.pair(kind)
    with pytest.raises(ValueError, match="packets would be run together"):
        conn.buffered = True
    conn.buffered = False
    conn.write(b"one")
    conn.write(b"two")
    assert [peer.recv(100), peer.recv(100)] == [b"one", b"two"]


# --- A slow reader ------------------------------------------------------------------------


def test_what_the_kernel_does_not_take_leaves_later(ends: Ends) -> None:
    conn, peer = buffered_pair(ends)
    taken = fill(conn)
    conn.write(b"later")
    sleep(MOMENT)
    assert conn.pending == 5
    received = b""
    while len(received) < taken + 5:
        received += drain_now(peer)
        sleep(MOMENT)
    assert received.endswith(b"flater")
    assert conn.pending == 0


def test_flush_waits_until_it_is_taken(ends: Ends) -> None:
    conn, peer = buffered_pair(ends)
    fill(conn)
    conn.write(b"later")
    conn.timeo = 1
    with pytest.raises(TimeoutError, match="flush timed out"):
        conn.flush()
    assert conn.pending == 5
    conn.timeo = None
    task = spawn(conn.flush)
    sleep(MOMENT)
    assert not task.done
    while not task.done:
        drain_now(peer)
        sleep(MOMENT)
    assert conn.pending == 0
    task.get()


def test_the_high_mark_bounds_what_waits_for_a_slow_reader(ends: Ends) -> None:
    conn, peer = buffered_pair(ends)
    written = []

    def write_on() -> None:
        for number in range(2000):
            conn.write(b"%06d" % number * 100)
            written.append(number)

    task = spawn(write_on)
    sleep(MOMENT)
    assert not task.done
    assert conn.pending <= HIGH_MARK
    received = b""
    while len(received) < 2000 * 600:
        received += drain_now(peer)
        sleep(MOMENT)
    assert received == b"".join(b"%06d" % number * 100 for number in range(2000))
    task.get()


def test_a_timeout_counts_the_writes_own_bytes_only(ends: Ends) -> None:
    conn, peer = buffered_pair(ends)
    taken = fill(conn)
    conn.write(b"queued")
    conn.timeo = 1
    with pytest.raises(TimeoutError) as caught:
        conn.write(b"x" * HIGH_MARK)
    assert caught.value.bytes_written == 0  # type: ignore[attr-defined]
    assert conn.pending == 6  # it stays, and is sent
    received = b""
    while len(received) < taken + 6:
        received += drain_now(peer)
        sleep(MOMENT)
    assert received.endswith(b"fqueued")
    assert drain_now(peer) == b""


# --- Failures -----------------------------------------------------------------------------


def write_in_vain(conn: Any, peer: socket.socket) -> None:
    """Leave the failure of a flush behind that nobody was there to be told."""
    peer.close()
    conn.write(b"x")
    sleep(MOMENT)
    assert conn.pending == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda conn: conn.write(b"y"),
        lambda conn: conn.sendall(b"y"),
        lambda conn: conn.printf(b"y"),
        lambda conn: conn.flush(),
        lambda conn: conn.close(),
        lambda conn: conn.__exit__(None, None, None),
    ],
    ids=["write", "sendall", "printf", "flush", "close", "with"],
)
def test_a_failure_is_kept_for_the_next_call(ends: Ends, call: Callable[[Any], object]) -> None:
    conn, peer = buffered_pair(ends)
    write_in_vain(conn, peer)
    with pytest.raises(BrokenPipeError):
        call(conn)
    # Told once.
    conn.close()
    assert conn.closed
    assert conn.fileno() == -1


def test_a_failure_of_write_itself_is_not_told_again(ends: Ends) -> None:
    conn, peer = buffered_pair(ends)
    conn.write(b"x")
    peer.close()
    with pytest.raises(BrokenPipeError):
        conn.flush()
    assert conn.pending == 0
    conn.close()


def test_reading_goes_on_after_a_failed_write(ends: Ends) -> None:
    conn, peer = buffered_pair(ends)
    peer.send(b"one\ntwo\n")
    write_in_vain(conn, peer)
    assert list(conn) == [b"one\n", b"two\n"]
    with pytest.raises(BrokenPipeError):
        conn.close()


def test_a_reset_under_a_waiting_flush(ends: Ends) -> None:
    conn, peer = buffered_pair(ends, "tcp")
    fill(conn)
    conn.write(b"x")
    task = spawn(attempt, conn.flush)
    sleep(MOMENT)
    reset(peer)
    assert isinstance(task.get(), ConnectionResetError | BrokenPipeError)
    conn.close()


def test_a_reset_while_output_waits_in_the_background(ends: Ends) -> None:
    conn, peer = buffered_pair(ends, "tcp")
    fill(conn)
    conn.write(b"x")
    sleep(MOMENT)
    assert conn.pending == 1
    reset(peer)
    sleep(MOMENT)
    assert conn.pending == 0
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        conn.write(b"y")


# --- Closing with output left ---------------------------------------------------------------


def test_close_sends_what_waits(ends: Ends) -> None:
    conn, peer = buffered_pair(ends)
    conn.write(b"goodbye")
    conn.close()
    assert conn.fileno() == -1
    assert peer.recv(100) == b"goodbye"
    assert peer.recv(100) == b""


def test_close_drains_in_the_background(ends: Ends) -> None:
    conn, peer = buffered_pair(ends)
    taken = fill(conn)
    conn.write(b"goodbye")
    before = open_descriptors()
    switches = pycoronet.get_hub().switch_count
    conn.close()
    conn.close()
    assert pycoronet.get_hub().switch_count == switches
    assert conn.closed
    assert conn.pending == 7
    with pytest.raises(pycoronet.ClosedError):
        conn.write(b"no more")
    received = b""
    while len(received) < taken + 7:
        received += drain_now(peer)
        sleep(MOMENT)
    assert received.endswith(b"fgoodbye")
    assert peer.recv(100) == b""
    assert conn.pending == 0
    assert conn.fileno() == -1
    assert len(before) - len(open_descriptors()) == 1


def test_a_peer_that_does_not_read_is_left_after_the_linger_time(ends: Ends) -> None:
    conn, _ = buffered_pair(ends)
    fill(conn)
    conn.write(b"unwanted")
    conn.close()
    sleep(LINGER - 2 * MOMENT)
    assert conn.pending == 8
    assert conn.fileno() >= 0
    sleep(3 * MOMENT)
    assert conn.pending == 0
    assert conn.fileno() == -1


def test_a_reset_ends_the_draining(ends: Ends) -> None:
    conn, peer = buffered_pair(ends, "tcp")
    fill(conn)
    conn.write(b"unwanted")
    conn.close()
    sleep(MOMENT)
    assert conn.fileno() >= 0
    reset(peer)
    sleep(MOMENT)
    assert conn.fileno() == -1
    assert conn.pending == 0


@pytest.mark.parametrize("closes_first", [False, True])
def test_abort_drops_what_waits(ends: Ends, closes_first: bool) -> None:
    conn, peer = buffered_pair(ends)
    taken = fill(conn)
    conn.write(b"dropped")
    if closes_first:
        conn.close()
        assert conn.fileno() >= 0
    conn.abort()
    conn.abort()
    assert conn.fileno() == -1
    assert conn.pending == 0
    received = b""
    while piece := peer.recv(1 << 20):
        received += piece
    assert received == b"f" * taken


def test_abort_drops_what_no_kernel_has_seen(ends: Ends) -> None:
    conn, peer = buffered_pair(ends)
    conn.write(b"dropped")
    conn.abort()
    sleep(MOMENT)
    assert peer.recv(100) == b""


def test_closing_the_hub_sends_what_drains(ends: Ends) -> None:
    conn, peer = buffered_pair(ends)
    fill(conn)
    conn.write(b"goodbye")
    conn.close()
    while drain_now(peer):
        pass
    pycoronet.get_hub().close()
    assert conn.fileno() == -1
    assert peer.recv(100) == b"goodbye"


@pytest.mark.parametrize("is_full", [False, True])
def test_closing_the_hub_sends_what_open_connections_hold(ends: Ends, is_full: bool) -> None:
    conn, peer = buffered_pair(ends)
    if is_full:
        fill(conn)
        sleep(MOMENT)
    conn.write(b"goodbye")
    if is_full:
        sleep(MOMENT)
        while drain_now(peer):
            pass
    pycoronet.get_hub().close()
    assert conn.pending == 0
    assert peer.recv(100) == b"goodbye"


def test_closing_the_hub_waits_five_seconds_at_most(ends: Ends) -> None:
    conn, _ = buffered_pair(ends)
    fill(conn)
    conn.write(b"unwanted")
    conn.close()
    hub = pycoronet.get_hub()
    began = hub.time
    ended = []
    spawn(lambda: wait_for_cancel(ended))
    sleep(MOMENT)
    hub.close()
    assert conn.fileno() == -1
    assert len(ended) == 1
    assert ended[0] - began < 6


def wait_for_cancel(ended: list[float]) -> None:
    try:
        sleep(1000)
    finally:
        ended.append(pycoronet.get_hub().time)


@pytest.mark.parametrize("way", ["returns", "exits", "raises", "stays open"])
def test_output_left_at_exit_drains(way: str) -> None:
    """The peer reads only when the process is at its end."""
    left, right = socket.socketpair()
    code = f"""if 1:
        import sys
        import pycoronet
        conn = pycoronet.sk_conn({left.fileno()})
        conn.buffered = True
        conn.timeo = 0
        try:
            while True:
                conn.write(b"f" * 70000)
        except TimeoutError:
            pass
        conn.write(b"goodbye")
        if {way!r} != "stays open":
            conn.close()
        print("ready", flush=True)
        if {way!r} == "exits":
            sys.exit(0)
        if {way!r} == "raises":
            raise SystemExit
    """
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, pass_fds=[left.fileno()]
    ) as process:
        left.close()
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        right.settimeout(20)
        received = b""
        while piece := right.recv(1 << 20):
            received += piece
        assert process.wait(timeout=20) == 0
    right.close()
    assert received.endswith(b"fgoodbye")


def test_a_handlers_output_is_sent_when_it_returns(ends: Ends) -> None:
    listener = ends.conn(socket.create_server(("127.0.0.1", 0)))

    def handler(conn: Any, _: object) -> None:
        conn.buffered = True
        for line in conn:
            conn.write(line.upper())

    server = spawn(pycoronet.serve, listener, handler)
    with socket.create_connection(listener.getsockname()) as client:
        client.settimeout(10)
        client.sendall(b"a\nb\nc\n")
        client.shutdown(socket.SHUT_WR)
        peer = pycoronet.sk_conn(client.dup())
        assert peer.read(100) == b"A\nB\nC\n"
        peer.close()
    server.cancel()
    server.join()
