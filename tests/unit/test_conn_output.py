"""The output queue: order, urgent messages, marks, flushing and closing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from connections import MOMENT, Ends, attempt, behind_full, drain_now, fill, receive, reset

import pycoronet
from pycoronet import ClosedError, sleep, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")

LONG = 5000  # bytes of this length are referenced, not copied


# --- Order --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unix", "tcp"])
@pytest.mark.parametrize("size", [1, 100, LONG])
def test_it_never_switches_and_leaves_when_the_task_waits(ends: Ends, kind: str, size: int) -> None:
    conn, peer = ends.pair(kind)
    switches = pycoronet.get_hub().switch_count
    assert conn.enqueue(b"a" * size) == size
    assert conn.enqueue(bytearray(b"b" * size)) == size
    assert conn.enqueue((b"c" * size, memoryview(b"d" * size))) == 2 * size
    assert conn.enqueue([]) == conn.enqueue(b"") == 0
    assert pycoronet.get_hub().switch_count == switches
    assert conn.pending == 4 * size
    assert drain_now(peer) == b""
    sleep(0)
    assert conn.pending == 0
    assert receive(peer, 4 * size) == b"".join(letter * size for letter in (b"a", b"b", b"c", b"d"))


@pytest.mark.linux_only
@pytest.mark.optimisation("calls that need not wait go on without giving way")
def test_everything_leaves_in_one_call(ends: Ends) -> None:
    read_end, write_end = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
    reader = ends.keep(os.fdopen(read_end, "rb", buffering=0))
    conn = ends.conn(write_end)
    conn.buffered = True
    conn.write(b"1")
    conn.enqueue(b"2")
    conn.enqueue([b"3", b"4"])
    conn.write(b"5")
    conn.enqueue(b"U", urgent=True)
    sleep(0)
    assert reader.read(4096) == b"U12345"


def test_what_a_write_waits_to_hand_over_stays_in_one_piece(ends: Ends) -> None:
    conn, peer, taken = behind_full(ends)
    content = os.urandom(3_000_000)
    writer = spawn(conn.write, content)
    sleep(MOMENT)
    received = drain_now(peer)
    sleep(MOMENT)  # the write has begun
    conn.enqueue(b"after it")
    conn.enqueue(b"urgent", urgent=True)
    assert conn.pending == len(b"after iturgent")
    received += receive(peer, taken + len(content) + 14 - len(received))
    assert received == b"f" * taken + content + b"urgent" + b"after it"
    assert writer.get() == len(content)


def test_urgent_overtakes_messages_not_chains(ends: Ends) -> None:
    conn, peer, taken = behind_full(ends)
    conn.enqueue([b"a1", b"a2"])
    conn.enqueue(b"b")
    conn.enqueue(b"U", urgent=True)
    conn.enqueue([b"V1", b"V2"], urgent=True)
    conn.enqueue(b"c")
    assert receive(peer, taken + 11)[taken:] == b"UV1V2a1a2bc"


def test_urgent_does_not_part_what_cannot_be_interrupted(ends: Ends) -> None:
    conn, peer, taken = behind_full(ends)
    conn.enqueue(b"a" * 3_000_000)
    receive(peer, taken)
    sleep(MOMENT)
    assert 0 < conn.pending < 3_000_000  # it has begun
    conn.enqueue(b"b", can_interrupt=False)
    conn.enqueue(b"c")
    conn.enqueue(b"U", urgent=True)
    assert receive(peer, 3_000_003)[-3:] == b"bUc"


def test_bytes_change_after_enqueue_only_if_moved(ends: Ends) -> None:
    conn, peer = ends.pair()
    data = bytearray(b"before")
    conn.enqueue(data)
    conn.enqueue(data, move=True)
    data[:] = b"after!"
    conn.flush()
    assert receive(peer, 12) == b"beforeafter!"


def test_each_buffer_is_a_packet_on_a_datagram_socket(ends: Ends) -> None:
    conn, peer = ends.pair("udp")
    conn.enqueue(b"one")
    conn.enqueue([b"two", b"three"])
    conn.enqueue(b"first", urgent=True)
    conn.flush()
    assert [peer.recv(100) for _ in range(4)] == [b"first", b"one", b"two", b"three"]


def test_more_packets_than_one_call_takes(ends: Ends) -> None:
    conn, peer = ends.pair()
    for number in range(1000):
        conn.enqueue(b"%04d" % number)
    conn.flush()
    assert receive(peer, 4000) == b"".join(b"%04d" % number for number in range(1000))


@pytest.mark.parametrize(
    "call",
    [
        lambda conn: conn.enqueue("text"),
        lambda conn: conn.enqueue([b"x", 1]),
        lambda conn: conn.enqueue(b"x", dealloc=1),
        lambda conn: conn.enqueue(b"x", nonsense=1),
        lambda conn: conn.enqueue(),
        lambda conn: conn.enqueue(b"x", True),
        lambda conn: conn.enqueue(memoryview(b"abcdef")[::2]),
        lambda conn: conn.enqueue([bytearray(LONG), None], move=True, dealloc=print),
    ],
)
def test_wrong_arguments_queue_nothing(ends: Ends, call: Callable[[Any], object]) -> None:
    conn, _ = ends.pair()
    with pytest.raises((TypeError, BufferError)):
        call(conn)
    assert conn.pending == 0


class Unclear:
    """Has no truth."""

    def __bool__(self) -> bool:
        raise KeyError


@pytest.mark.parametrize("name", ["urgent", "can_interrupt", "move"])
def test_flags_that_raise(ends: Ends, name: str) -> None:
    conn, _ = ends.pair()
    with pytest.raises(KeyError):
        conn.enqueue(b"x", **{name: Unclear()})


# --- Where it is called from -------------------------------------------------------------------


def test_from_a_hub_callback_it_leaves_at_the_end_of_the_turn(ends: Ends) -> None:
    conn, peer = ends.pair()
    pycoronet.get_hub().call_soon_threadsafe(conn.enqueue, b"from the hub")
    sleep(MOMENT)
    assert drain_now(peer) == b"from the hub"


def test_from_another_thread_is_refused(ends: Ends) -> None:
    conn, _ = ends.pair()
    with pytest.raises(RuntimeError, match="thread"):
        pycoronet.to_thread(conn.enqueue, b"x")


def test_closed_by_the_buffer_it_takes(ends: Ends) -> None:
    conn, _ = ends.pair()

    class Pieces(list[bytes]):
        def __iter__(self) -> Iterator[bytes]:
            conn.close()
            return super().__iter__()

    with pytest.raises(ClosedError):
        conn.enqueue(Pieces([b"x"]))


def test_failures_are_kept_for_the_next_call(ends: Ends) -> None:
    for call in (
        lambda conn: conn.enqueue(b"y"),
        lambda conn: conn.write(b"y"),
        lambda conn: conn.flush(),
        lambda conn: conn.close(),
    ):
        conn, peer = ends.pair()
        peer.close()
        conn.enqueue(b"x")
        sleep(0)
        with pytest.raises(BrokenPipeError):
            call(conn)
        conn.close()


# --- flush, flush_all --------------------------------------------------------------------------


def test_flush_waits_for_what_was_queued_before_it(ends: Ends) -> None:
    conn, peer, taken = behind_full(ends)
    conn.enqueue(b"before")
    task = spawn(conn.flush)
    sleep(MOMENT)
    conn.enqueue(b"x" * 1_000_000)
    receive(peer, taken + 6)
    sleep(MOMENT)
    assert task.done
    assert conn.pending > 0
    task.get()


def test_flush_all_sends_what_it_can_and_tells_what_is_left(ends: Ends) -> None:
    full, _, _ = behind_full(ends)
    conn, peer = ends.pair()
    full.enqueue(b"stays")
    conn.enqueue(b"goes")
    switches = pycoronet.get_hub().switch_count
    assert pycoronet.flush_all() == 5
    assert pycoronet.get_hub().switch_count == switches
    assert drain_now(peer) == b"goes"
    full.abort()
    assert pycoronet.flush_all() == 0


# --- Marks -------------------------------------------------------------------------------------


def test_a_write_pauses_at_the_high_mark_until_the_low_one(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.buffered = True
    conn.set_watermarks(write_low=1_000_000, write_high=2_000_000)
    fill(conn)
    sleep(MOMENT)
    for _ in range(2):
        conn.write(b"x" * 1_000_000)
    assert conn.pending == 2_000_000
    task = spawn(conn.write, b"y" * 50_000)
    sleep(MOMENT)
    seen = [conn.pending]
    assert seen == [2_000_000]
    while not task.done:
        assert seen[-1] > 950_000  # more than the low mark, if its own bytes count
        drain_now(peer, 30_000)
        sleep(MOMENT)
        seen.append(conn.pending)
    assert 0 < seen[-1] <= 1_000_000
    assert task.get() == 50_000


def test_the_rest_of_a_write_that_went_on_is_its_own(ends: Ends) -> None:
    conn, peer, taken = behind_full(ends)
    conn.buffered = True
    conn.set_watermarks(write_low=1_000_000, write_high=1_000_000)
    data = bytearray(b"x" * 1_500_000)
    task = spawn(conn.write, data)
    received = b""
    while not task.done:
        received += drain_now(peer, 20_000)
        sleep(MOMENT)
    assert 0 < conn.pending <= 1_000_000
    data[:] = b"y" * 70_000  # it is not held any more
    conn.enqueue(b"end")
    received += receive(peer, taken + 1_500_003 - len(received))
    assert received == b"f" * taken + b"x" * 1_500_000 + b"end"


def test_memory_stays_at_the_high_mark_if_nobody_reads(ends: Ends) -> None:
    conn, _ = ends.pair()
    conn.buffered = True
    written = []

    def write_on() -> None:
        while True:
            written.append(conn.write(b"x" * 1000))

    task = spawn(write_on)
    sleep(1000)
    assert conn.pending <= 64 * 1024
    count = len(written)
    sleep(1000)
    assert len(written) == count
    task.cancel()
    sleep(MOMENT)
    assert conn.pending <= 64 * 1024


@pytest.mark.parametrize(
    ("marks", "error"),
    [
        ({"write_low": 2, "write_high": 1}, ValueError),
        ({"write_low": 65537}, ValueError),
        ({"write_low": -1}, ValueError),
        ({"write_high": -1}, ValueError),
        ({"write_high": "x"}, TypeError),
        ({"nonsense": 1}, TypeError),
    ],
)
def test_wrong_marks(ends: Ends, marks: dict[str, Any], error: type[Exception]) -> None:
    conn, _ = ends.pair()
    with pytest.raises(error):
        conn.set_watermarks(**marks)


def test_marks_that_are_not_given_stay(ends: Ends) -> None:
    conn, _ = ends.pair()
    conn.set_watermarks()
    conn.set_watermarks(write_low=None, write_high=100)  # the low one comes down with it
    conn.set_watermarks(write_low=100)
    with pytest.raises(ValueError, match="the low mark 101 is above the high mark 100"):
        conn.set_watermarks(write_low=101)
    conn.set_watermarks(write_high=200)
    conn.set_watermarks(write_low=200)
    conn.set_watermarks(write_low=0, write_high=0)


def test_progress_extends_the_time_of_a_paused_write(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.timeo = 1
    fill(conn)
    conn.timeo = 1
    task = spawn(conn.write, b"x" * 1_000_000)
    for _ in range(40):
        sleep(0.9)
        drain_now(peer)  # all of it: the system may tell of room only when most has gone
    assert task.get() == 1_000_000
    fill(conn)
    task = spawn(attempt, conn.write, b"x")
    sleep(1.1)
    assert isinstance(task.get(), TimeoutError)


# --- Closing -----------------------------------------------------------------------------------


def test_linger_is_thirty_seconds_at_first(ends: Ends) -> None:
    conn, _ = ends.pair()
    assert conn.linger == 30
    conn.linger = 1.5
    assert conn.linger == 1.5
    conn.linger = None
    assert conn.linger is None
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            conn.linger = wrong
    with pytest.raises(TypeError):
        conn.linger = "x"


@pytest.mark.parametrize(("linger", "fd_lives"), [(0, False), (5, False), (15, True), (None, True)])
def test_what_is_not_sent_lingers(ends: Ends, linger: float | None, fd_lives: bool) -> None:
    conn, _, _ = behind_full(ends)
    conn.linger = linger
    conn.enqueue(b"x")
    conn.close()
    assert (conn.fileno() < 0) == (linger == 0)
    sleep(10)
    assert (conn.fileno() >= 0) == fd_lives
    assert conn.pending == fd_lives


def test_linger_zero_still_sends_what_the_kernel_takes(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.linger = 0
    conn.enqueue(b"bye")
    conn.close()
    assert peer.recv(10) == b"bye"
    assert peer.recv(10) == b""


def test_close_under_a_paused_write_sends_what_was_queued(ends: Ends) -> None:
    conn, peer, taken = behind_full(ends)
    conn.enqueue(b"queued")
    task = spawn(attempt, conn.write, b"not begun")
    sleep(MOMENT)
    conn.enqueue(b"!")
    conn.close()
    error = task.get()
    assert isinstance(error, ClosedError)
    assert error.bytes_written == 0  # type: ignore[attr-defined]
    assert receive(peer, taken + 7)[taken:] == b"queued!"
    assert peer.recv(10) == b""


def test_close_sends_nothing_more_of_a_paused_write(ends: Ends) -> None:
    conn, peer, taken = behind_full(ends)
    task = spawn(attempt, conn.write, b"not begun")
    sleep(MOMENT)
    received = receive(peer, taken)
    conn.close()  # there is room, but its event has not come yet
    error = task.get()
    assert isinstance(error, ClosedError)
    assert error.bytes_written == 0  # type: ignore[attr-defined]
    assert received == b"f" * taken
    assert peer.recv(10) == b""


def test_a_cancelled_write_takes_its_rest_out(ends: Ends) -> None:
    conn, peer, taken = behind_full(ends)
    conn.enqueue(b"before")
    task = spawn(conn.write, b"not begun")
    sleep(MOMENT)
    conn.enqueue(b"after")
    task.cancel()
    sleep(MOMENT)
    assert receive(peer, taken + 11)[taken:] == b"beforeafter"
    with pytest.raises(pycoronet.Cancelled):
        task.get()


def test_one_connection_does_not_hold_up_the_others(ends: Ends) -> None:
    # A device takes everything at once, and more than a turn's worth is queued.
    conn = ends.conn(os.open("/dev/null", os.O_WRONLY))
    conn.enqueue([b"x" * 100_000] * 2000)  # for however many turns there will be
    other, peer = ends.pair()
    other.enqueue(b"y")
    spawn(sleep, 100)
    sleep(0)
    assert 0 < conn.pending < 200_000_000
    assert drain_now(peer) == b"y"
    # Nothing is ready, and yet it goes on at once.
    hub = pycoronet.get_hub()
    began = hub.time
    hub.wait(50)
    hub.wait(50)
    assert hub.time == began
    assert 0 < conn.pending < 190_000_000
    sleep(MOMENT)
    conn.flush()
    assert conn.pending == 0


def test_a_reset_is_told_to_who_flushes(ends: Ends) -> None:
    conn, peer, _ = behind_full(ends, "tcp")
    conn.enqueue(b"x" * LONG)
    task = spawn(attempt, conn.flush)
    sleep(MOMENT)
    reset(peer)
    error = task.get()
    assert isinstance(error, OSError)
    assert error.errno in (errno.ECONNRESET, errno.EPIPE)
    assert conn.pending == 0
