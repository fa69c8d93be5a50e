"""How fast one connection reads and writes: rate, burst, tokens by hand, and who waits."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from connections import Ends, attempt, drain_now, receive
from rate_case import DIRECTIONS, READING, WRITING, Flow, limit, remaining, seconds
from recorders import Recorder, turn

import pycoronet
from pycoronet import READ, WRITE, ClosedError, RateGroup, RateLimit, _coronet, sleep, spawn
from pycoronet.layers import Zlib

pytestmark = pytest.mark.usefixtures("virtual_hub")

# Rates and bursts of very different kinds, and how long each runs, in seconds.
RATES = [
    (1, 1, 7200),
    (10, None, 3600),
    (1000, 50, 1800),
    (1000, 20_000, 600),
    (65_537, 1, 300),
    (1_000_000, 100, 60),
    (1_000_000, 3_000_000, 60),
    (50_000_000, 1_000_000, 20),
]


# --- The rate ------------------------------------------------------------------------------------


def arriving(peer: socket.socket, duration: float) -> int:
    """Return how many bytes come in so many seconds; they leave no socket full meanwhile."""
    end = pycoronet.get_hub().time + duration
    count = 0
    while pycoronet.get_hub().time < end:
        sleep(min(0.1, end - pycoronet.get_hub().time))
        count += len(drain_now(peer))
    return count


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("rate", "burst", "duration"), RATES)
def test_the_rate_is_kept_over_a_long_run(
    ends: Ends, direction: str, rate: int, burst: int | None, duration: int
) -> None:
    flow = Flow(ends, direction)
    flow.conn.set_rate_limit(limit(direction, rate, burst))
    flow.conn.decrement_rate(**{direction: burst or rate})  # it begins empty
    assert remaining(flow.conn, direction) == 0
    flow.start()
    sleep(duration)
    assert flow.arrived == pytest.approx(rate * duration, rel=0.02)
    flow.stop()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_full_bucket_lets_one_burst_go_at_once(ends: Ends, direction: str) -> None:
    flow = Flow(ends, direction)
    flow.conn.set_rate_limit(limit(direction, 1000, 5000))
    assert remaining(flow.conn, direction) == 5000
    flow.start()
    turn()
    assert flow.arrived == pytest.approx(5000, abs=20)
    sleep(10)
    assert flow.arrived == pytest.approx(15_000, rel=0.02)
    flow.stop()
    sleep(60)  # a long rest saves up one burst, and no more
    assert remaining(flow.conn, direction) == 5000


def test_both_directions_have_buckets_of_their_own(ends: Ends) -> None:
    left, right = (ends.conn(end) for end in socket.socketpair())
    left.set_rate_limit(RateLimit(read_rate=100, write_rate=1000))
    right.enqueue(b"x" * 600)

    def write() -> None:
        left.write(b"y" * 6000)

    writer = spawn(write)
    arrived = spawn(right.read_exactly, 6000)
    assert seconds(left.read_exactly, 600) == pytest.approx(5, rel=0.02)
    writer.join(0.1)
    assert writer.done
    assert len(arrived.get()) == 6000


def test_one_limit_serves_many_connections_each_by_itself(ends: Ends) -> None:
    shared = limit(WRITING, 1000)
    flows = [Flow(ends, WRITING) for _ in range(3)]
    for flow in flows:
        flow.conn.set_rate_limit(shared)
        flow.conn.decrement_rate(write=1000)
        flow.start()
    sleep(100)
    for flow in flows:
        assert flow.arrived == pytest.approx(100_000, rel=0.02)
        flow.stop()


def test_ten_thousand_tiny_writes_leave_at_the_rate(ends: Ends) -> None:
    left, right = (ends.conn(end) for end in socket.socketpair())
    left.set_rate_limit(limit(WRITING, 1000, 1))
    before = pycoronet.get_hub().switch_count

    def write() -> None:
        for number in range(10_000):
            left.write(b"%05d" % number)

    writer = spawn(write)
    taken = seconds(right.read_exactly, 50_000)
    assert taken == pytest.approx(50, rel=0.02)
    assert writer.done
    # Nobody asks again and again: 1000 wake-ups a second at the most, for that burst.
    assert _coronet.HARD_MODE or pycoronet.get_hub().switch_count - before < 3 * 51_000


def test_ten_thousand_tiny_buffered_writes_leave_at_the_rate(ends: Ends) -> None:
    left, right = (ends.conn(end) for end in socket.socketpair())
    left.set_rate_limit(limit(WRITING, 1000))
    left.buffered = True
    expected = b"".join(b"%05d" % number for number in range(10_000))

    def write() -> None:
        for number in range(10_000):
            left.write(b"%05d" % number)

    spawn(write)
    before = pycoronet.get_hub().switch_count
    received: list[bytes] = []
    taken = seconds(lambda: received.append(right.read_exactly(50_000)))
    assert taken == pytest.approx(49, rel=0.02)  # the first second's worth was there
    assert received == [expected]
    assert _coronet.HARD_MODE or pycoronet.get_hub().switch_count - before < 3 * 51 * 50


def test_who_waits_for_tokens_sleeps(ends: Ends) -> None:
    flow = Flow(ends, WRITING)
    flow.conn.set_rate_limit(limit(WRITING, 1000))
    flow.conn.decrement_rate(write=1_001_000)
    flow.start()
    before = pycoronet.get_hub().switch_count
    sleep(999)
    assert flow.arrived == 0
    assert pycoronet.get_hub().switch_count - before < 20
    sleep(101)
    assert flow.arrived == pytest.approx(100_000, rel=0.02)
    flow.stop()


def test_an_enormous_rate_holds_nothing_up(ends: Ends) -> None:
    flow = Flow(ends, WRITING)
    flow.conn.set_rate_limit(RateLimit(write_rate=2**60, read_rate=2**60))
    flow.start()
    before = pycoronet.get_hub().time
    while flow.arrived < 10_000_000:
        sleep(0)
    assert pycoronet.get_hub().time == before
    flow.stop()


# --- What is limited -----------------------------------------------------------------------------


def test_callbacks_receive_at_the_rate(ends: Ends) -> None:
    left, right = (ends.conn(end) for end in socket.socketpair())
    recorder = Recorder()
    right.set_callbacks(recorder)
    right.set_rate_limit(limit(READING, 1000))
    left.enqueue(b"x" * 100_000)
    left.close()
    sleep(49)
    assert len(recorder.received) == pytest.approx(50_000, rel=0.02)
    assert len(recorder.log) < 51 * 50
    assert set(recorder.log) == {"data"}
    sleep(51)
    assert len(recorder.received) == 100_000
    assert recorder.log[-2:] == ["eof", "close"]


def test_what_callbacks_write_leaves_at_the_rate(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.set_rate_limit(limit(WRITING, 1000))
    conn.set_watermarks(write_low=0)
    recorder = Recorder(data=lambda conn: conn.write(b"y" * 10_000))
    conn.set_callbacks(recorder)
    peer.sendall(b"go")
    turn()
    assert len(drain_now(peer)) == pytest.approx(1000, abs=20)
    assert arriving(peer, 5) == pytest.approx(5000, rel=0.02)
    assert recorder.log == ["data"]
    assert arriving(peer, 5) == pytest.approx(4000, rel=0.02)
    assert recorder.log == ["data", "ready"]
    assert conn.pending == 0


def test_a_file_leaves_at_the_rate(ends: Ends, large: Any) -> None:
    left, right = (ends.conn(end) for end in socket.socketpair())
    size = large.stat().st_size
    left.set_rate_limit(limit(WRITING, size // 20, 1000))
    received: list[bytes] = []
    with large.open("rb") as file:
        sender = spawn(left.sendfile, file)
        taken = seconds(lambda: received.append(right.read_exactly(size)))
        assert sender.get() == size
    assert taken == pytest.approx(20, rel=0.02)
    assert received == [large.read_bytes()]


def test_layers_are_limited_by_what_is_on_the_wire(ends: Ends) -> None:
    left, right = (ends.conn(end) for end in socket.socketpair())
    for conn in (left, right):
        conn.push_layer(Zlib())
    group = pycoronet.RateGroup(RateLimit())
    group.add(left)
    left.set_rate_limit(limit(WRITING, 1000, 10))
    left.buffered = True
    content = b"".join(b"%d " % (number * number) for number in range(10_000))
    left.write(content)
    received: list[bytes] = []
    taken = seconds(lambda: received.append(right.read_exactly(len(content))))
    assert received == [content]
    assert group.bytes_written < len(content) / 2
    assert taken == pytest.approx(group.bytes_written / 1000, rel=0.02)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_packets_go_whole_and_are_paid_back(ends: Ends, direction: str) -> None:
    left, right = ends.sockets("udp")
    left, right = ends.conn(left), ends.conn(right.detach())
    conn = left if direction == WRITING else right
    conn.set_rate_limit(limit(direction, 1000, 100))
    conn.decrement_rate(**{direction: 100})

    def send() -> None:
        for _ in range(100):
            left.write(b"x" * 500)
            sleep(0.001)

    def read() -> None:
        for _ in range(100):
            assert len(right.recv(1000)) == 500

    spawn(send)
    # The last packet has not been paid for yet.
    assert seconds(read) == pytest.approx(99 * 500 / 1000, rel=0.02)
    assert remaining(conn, direction) < 0


def test_output_held_by_a_limit_lingers_after_close(ends: Ends) -> None:
    left, right = (ends.conn(end) for end in socket.socketpair())
    left.set_rate_limit(limit(WRITING, 100))
    left.enqueue(b"x" * 1000)
    left.close()
    reader = spawn(right.read_exactly, 1000)
    sleep(8.9)
    assert left.fileno() >= 0
    sleep(0.2)
    assert left.fileno() == -1
    assert reader.done
    assert right.recv(1) == b""


def test_output_held_for_longer_than_linger_is_lost(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.set_rate_limit(limit(WRITING, 100))
    conn.linger = 3
    conn.enqueue(b"x" * 1000)
    conn.close()
    arrived = arriving(peer, 3.1)
    assert conn.fileno() == -1
    assert arrived == pytest.approx(400, abs=5)


# --- Who waits -----------------------------------------------------------------------------------


def test_a_held_reader_waits_within_its_timeout(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.set_rate_limit(limit(READING, 10, 10))
    peer.sendall(b"x" * 40)
    assert conn.recv(100) == b"x" * 10
    conn.decrement_rate(read=20)
    conn.settimeout(1.5)
    assert seconds(attempt, conn.recv, 100) == pytest.approx(1.5, abs=0.01)
    assert seconds(conn.recv, 100) == pytest.approx(0.6, abs=0.01)
    conn.settimeout(None)
    assert conn.read(29) == b"x" * 29


@pytest.mark.optimisation("a read of what is there takes one call")
def test_what_comes_meanwhile_does_not_wake_a_held_reader(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.set_rate_limit(limit(READING, 1000, 100))
    conn.decrement_rate(read=1_000_000)
    reader = spawn(conn.read_exactly, 30)
    turn()
    before = pycoronet.get_hub().switch_count
    for _ in range(30):
        peer.sendall(b"x")
        turn(1)
    assert pycoronet.get_hub().switch_count - before < 20
    assert reader.get() == b"x" * 30


def test_a_held_writer_waits_within_its_timeout(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.set_rate_limit(limit(WRITING, 1, 50))
    conn.settimeout(0.5)
    with pytest.raises(TimeoutError) as caught:
        conn.write(b"x" * 60)
    assert caught.value.bytes_written == 50  # type: ignore[attr-defined]
    sleep(20)
    assert conn.write(b"y" * 10) == 10
    assert receive(peer, 60) == b"x" * 50 + b"y" * 10


def test_a_limit_taken_off_lets_who_waits_go_on(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.set_rate_limit(RateLimit(read_rate=1, write_rate=1))
    writer = spawn(conn.write, b"x" * 100)
    peer.sendall(b"y" * 100)
    reader = spawn(conn.read_exactly, 100)
    turn()
    assert not writer.done
    assert not reader.done
    conn.set_rate_limit(None)
    assert conn.rate_limit is None
    assert conn.read_remaining is None
    assert seconds(writer.join) == 0
    assert seconds(reader.join) == 0


def test_another_limit_holds_from_now_on(ends: Ends) -> None:
    flow = Flow(ends, WRITING)
    slow, fast = limit(WRITING, 1), limit(WRITING, 1000, 30)
    flow.conn.set_rate_limit(slow)
    flow.start()
    sleep(10)
    assert flow.conn.rate_limit is slow
    assert flow.arrived == pytest.approx(11, abs=1)
    flow.conn.set_rate_limit(fast)
    assert flow.conn.rate_limit is fast
    sleep(10)
    assert flow.arrived == pytest.approx(10_000, rel=0.02)
    # This is none for writing: now the task never waits, and no virtual time passes.
    flow.conn.set_rate_limit(limit(READING, 1))
    before = pycoronet.get_hub().time
    while flow.arrived < 1_000_000:
        sleep(0)
    assert pycoronet.get_hub().time == before
    flow.stop()


def test_a_held_direction_may_be_disabled_as_well(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.set_rate_limit(limit(WRITING, 10, 10))
    conn.enqueue(b"x" * 20)
    turn()
    conn.disable(WRITE)
    sleep(5)
    assert drain_now(peer) == b"x" * 10
    conn.enable(WRITE)
    turn()
    assert drain_now(peer) == b"x" * 10
    conn.set_rate_limit(limit(READING, 10, 10))
    peer.sendall(b"y" * 20)
    reader = spawn(conn.read_exactly, 20)
    conn.disable(READ)
    sleep(5)
    conn.enable(READ)
    assert seconds(reader.join) == pytest.approx(1, abs=0.01)


def test_looking_costs_nothing(ends: Ends) -> None:
    conn, peer = ends.pair("udp")
    group = RateGroup(RateLimit(read_rate=1000))
    group.add(conn)
    conn.set_rate_limit(RateLimit(read_rate=1000))
    peer.send(bytes(100))
    for _ in range(2):
        assert len(conn.recvmsg(1000, 0, socket.MSG_PEEK)[0]) == 100
    assert conn.read_remaining == group.read_remaining == 1000
    assert group.bytes_read == 0
    conn.recvmsg(1000)
    assert conn.read_remaining == group.read_remaining == 900
    assert group.bytes_read == 100


def test_single_limits_hold_besides(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.set_rate_limit(limit(READING, 1000))
    conn.set_single_limits(read=7)
    peer.sendall(b"x" * 100)
    assert conn.recv(100) == b"x" * 7
    assert conn.read_remaining == 993
    conn.set_rate_limit(None)
    assert conn.recv(100) == b"x" * 7


def test_a_held_connection_that_closes_wakes_who_waits(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.set_rate_limit(RateLimit(read_rate=1, write_rate=1))
    conn.decrement_rate(1, 1)
    peer.sendall(b"y")
    tasks = [spawn(attempt, conn.recv, 1), spawn(attempt, conn.write, b"x")]
    turn()
    conn.abort()
    assert [type(task.get()) for task in tasks] == [ClosedError, ClosedError]
    assert conn.rate_limit is None


# --- By hand, and wrong --------------------------------------------------------------------------


def test_tokens_by_hand(ends: Ends) -> None:
    conn, _ = ends.pair()
    conn.set_rate_limit(RateLimit(write_rate=100, write_burst=1000))
    assert conn.read_remaining is None
    assert conn.write(b"x" * 300) == 300
    assert conn.write_remaining == 700
    conn.decrement_rate(write=900)
    assert conn.write_remaining == -200
    assert seconds(conn.write, b"x") == pytest.approx(2.02, abs=0.03)
    conn.decrement_rate(write=-500)
    assert conn.write_remaining == pytest.approx(500, abs=3)
    conn.decrement_rate(write=-(10**30))
    assert conn.write_remaining == 1000
    conn.decrement_rate(write=10**30)
    assert conn.write_remaining == -(2**60)
    conn.decrement_rate()
    writer = spawn(conn.write, b"held")
    turn()
    conn.decrement_rate(write=-(10**30))
    assert seconds(writer.join) == 0


def test_decrementing_what_has_no_limit(ends: Ends) -> None:
    conn, _ = ends.pair()
    with pytest.raises(ValueError, match="no limit of its own"):
        conn.decrement_rate(1, 1)
    conn.set_rate_limit(limit(WRITING, 100))
    with pytest.raises(ValueError, match="reading has no limit"):
        conn.decrement_rate(1, 1)
    assert conn.write_remaining == 100
    with pytest.raises(TypeError):
        conn.decrement_rate(write="x")


@pytest.mark.parametrize("name", ["read_rate", "write_rate", "read_burst", "write_burst"])
def test_numbers_that_make_no_sense(name: str) -> None:
    others = {name.replace("burst", "rate"): 1000}
    for wrong in (0, -1, -(10**30)):
        with pytest.raises(ValueError, match=f"{name} must be at least 1"):
            RateLimit(**{**others, name: wrong})
    for wrong in (2**60 + 1, 10**30):
        with pytest.raises(ValueError, match=rf"{name} must be at most 2 \*\* 60"):
            RateLimit(**{**others, name: wrong})
    for wrong_type in (1.5, "1", b"1", object()):
        with pytest.raises(TypeError, match=f"{name} must be an int or None"):
            RateLimit(**{**others, name: wrong_type})  # type: ignore[arg-type]


def test_a_burst_without_its_rate() -> None:
    with pytest.raises(ValueError, match="read_burst needs a read_rate"):
        RateLimit(read_burst=5, write_rate=5)
    with pytest.raises(ValueError, match="write_burst needs a write_rate"):
        RateLimit(write_burst=5)
    with pytest.raises(TypeError):
        RateLimit(5)  # type: ignore[misc]


def test_a_limit_is_what_it_was_made_and_stays_so() -> None:
    made = RateLimit(read_rate=2**60, write_rate=5, write_burst=7)
    assert (made.read_rate, made.read_burst) == (2**60, 2**60)
    assert (made.write_rate, made.write_burst) == (5, 7)
    assert repr(made) == (
        f"RateLimit(read_rate={2**60}, read_burst={2**60}, write_rate=5, write_burst=7)"
    )
    with pytest.raises(AttributeError):
        made.read_rate = 5  # type: ignore[misc]
    nothing = RateLimit()
    assert (nothing.read_rate, nothing.write_burst) == (None, None)
    assert repr(nothing) == "RateLimit()"


def test_what_cannot_have_a_limit(ends: Ends, listener: Any) -> None:
    conn, _ = ends.pair()
    for wrong in (5, "x", {}, RateLimit):
        with pytest.raises(TypeError, match="RateLimit or None"):
            conn.set_rate_limit(wrong)
    assert conn.rate_limit is None
    conn.set_rate_limit(None)
    with pytest.raises(ValueError, match="listener"):
        listener.set_rate_limit(RateLimit())
    conn.close()
    with pytest.raises(ClosedError):
        conn.set_rate_limit(RateLimit())
    with pytest.raises(ClosedError):
        conn.decrement_rate()
