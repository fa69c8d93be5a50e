"""Groups that share one rate limit: the rate, everybody's part, who comes and goes."""

from __future__ import annotations

import socket
import threading
import weakref
from typing import Any

import pytest
from connections import Ends, attempt, drain_now, receive
from rate_case import DIRECTIONS, READING, WRITING, Flow, limit, remaining, seconds
from recorders import Recorder, turn

import pycoronet
from pycoronet import ClosedError, RateGroup, RateLimit, sleep, spawn
from pycoronet.layers import Tee

pytestmark = pytest.mark.usefixtures("virtual_hub")

# The sizes of the pieces that members read or write, very different ones.
PIECES = [65536, 100, 1460, 7, 200_000, 512, 4096, 33, 10_000, 1000]


def crowd(ends: Ends, group: RateGroup, direction: str, pieces: list[int]) -> list[Flow]:
    """Return members that always want more."""
    flows = [Flow(ends, direction, piece) for piece in pieces]
    for flow in flows:
        group.add(flow.conn)
    return [flow.start() for flow in flows]


def empty(group: RateGroup, direction: str) -> None:
    """Take the tokens that there are."""
    group.decrement(**{direction: remaining(group, direction)})


def stop(flows: list[Flow]) -> None:
    for flow in flows:
        flow.stop()


# --- The rate, and everybody's part --------------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("count", [1, 2, 3, 10])
@pytest.mark.parametrize(("rate", "burst", "duration"), [(3000, 500, 600), (1_000_000, None, 60)])
def test_the_rate_is_shared_fairly_over_a_long_run(
    ends: Ends, direction: str, count: int, rate: int, burst: int | None, duration: int
) -> None:
    group = RateGroup(limit(direction, rate, burst))
    empty(group, direction)
    flows = crowd(ends, group, direction, PIECES[:count])
    sleep(duration)
    moved = [flow.arrived for flow in flows]
    assert sum(moved) == pytest.approx(rate * duration, rel=0.02)
    for one in moved:
        assert one == pytest.approx(rate * duration / count, rel=0.1)
    stop(flows)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("count", [2, 3, 10, 200])  # also more than run between two polls
def test_a_full_bucket_is_shared_fairly(ends: Ends, direction: str, count: int) -> None:
    group = RateGroup(limit(direction, 10_000, 1_000_000))
    flows = crowd(ends, group, direction, (PIECES * 20)[:count])
    sleep(10)
    moved = [flow.arrived for flow in flows]
    assert sum(moved) == pytest.approx(1_100_000, rel=0.02)
    for one in moved:
        assert one == pytest.approx(1_100_000 / count, rel=0.1)
    stop(flows)


def test_one_that_comes_later_has_its_part_from_then_on(ends: Ends) -> None:
    group = RateGroup(limit(WRITING, 10_000))
    flows = crowd(ends, group, WRITING, [65536, 1000])
    sleep(50)
    before = [flow.arrived for flow in flows]
    flows += crowd(ends, group, WRITING, [100])
    sleep(60)
    gained = [flow.arrived - then for flow, then in zip(flows, [*before, 0], strict=True)]
    for one in gained:
        assert one == pytest.approx(200_000, rel=0.1)
    stop(flows)


def test_what_one_does_not_want_is_the_others(ends: Ends) -> None:
    group = RateGroup(limit(WRITING, 10_000, 1000))
    modest = Flow(ends, WRITING)
    group.add(modest.conn)

    flows = crowd(ends, group, WRITING, [65536, 1000])
    modest.tasks = [spawn(modest._read)]
    timer = pycoronet.get_hub().call_every(0.1, modest.left.enqueue, b"x" * 100)
    sleep(60)
    timer.cancel()
    assert modest.arrived == pytest.approx(60_000, rel=0.1)
    for flow in flows:
        assert flow.arrived == pytest.approx(270_000, rel=0.1)
    stop([*flows, modest])


def test_a_lone_member_of_many_has_all_that_there_is(ends: Ends) -> None:
    group = RateGroup(limit(WRITING, 1000, 50_000))
    for _ in range(20):
        group.add(ends.pair()[0])
    (flow,) = crowd(ends, group, WRITING, [65536])
    sleep(0.02)  # so long the others may come, too
    assert flow.arrived == pytest.approx(50_000, rel=0.02)
    flow.stop()


@pytest.mark.parametrize("min_share", [64, 1000])
def test_no_turn_is_smaller_than_min_share(ends: Ends, min_share: int) -> None:
    group = RateGroup(limit(WRITING, 2000), min_share=min_share)
    empty(group, WRITING)
    flows = crowd(ends, group, WRITING, [65536] * 10)
    sleep(600)
    for flow in flows:
        assert min(flow.sizes) >= min_share
        assert flow.arrived == pytest.approx(120_000, rel=0.1)
    stop(flows)


def test_callbacks_share_with_tasks(ends: Ends) -> None:
    group = RateGroup(limit(READING, 10_000))
    empty(group, READING)
    flows = crowd(ends, group, READING, [65536])
    left, right = (ends.conn(end) for end in socket.socketpair())
    recorder = Recorder()
    right.set_callbacks(recorder)
    group.add(right)
    left.buffered = True
    writer = spawn(attempt, left.write, b"x" * 500_000)
    sleep(60)
    assert len(recorder.received) == pytest.approx(300_000, rel=0.1)
    assert flows[0].arrived == pytest.approx(300_000, rel=0.1)
    writer.cancel()
    stop(flows)


def test_a_limit_of_its_own_holds_besides_the_groups(ends: Ends) -> None:
    group = RateGroup(limit(WRITING, 10_000, 1000))
    flows = crowd(ends, group, WRITING, [65536, 65536, 1000])
    flows[0].conn.set_rate_limit(limit(WRITING, 500))
    flows[0].conn.decrement_rate(write=500)
    flows[1].conn.set_rate_limit(limit(WRITING, 1_000_000))
    sleep(120)
    moved = [flow.arrived for flow in flows]
    assert moved[0] == pytest.approx(60_000, rel=0.02)
    assert moved[1] == pytest.approx(570_000, rel=0.1)
    assert moved[2] == pytest.approx(570_000, rel=0.1)
    assert sum(moved) == pytest.approx(1_200_000, rel=0.02)
    # Without the group its own limit stays, and without that nothing.
    group.remove(flows[0].conn)
    before = flows[0].arrived
    sleep(60)
    assert flows[0].arrived - before == pytest.approx(30_000, rel=0.02)
    stop(flows)


# --- Totals and tokens ---------------------------------------------------------------------------


def test_totals_count_what_members_move(ends: Ends) -> None:
    group = RateGroup(RateLimit())
    (left, peer), (other, other_peer) = ends.pair(), ends.pair()
    for conn in (left, other):
        group.add(conn)
    left.write(b"x" * 100)
    other.write(b"x" * 20)
    peer.sendall(b"y" * 7)
    left.recv(100)
    assert (group.bytes_read, group.bytes_written) == (7, 120)
    assert (group.read_remaining, group.write_remaining) == (None, None)
    group.reset_totals()
    assert (group.bytes_read, group.bytes_written) == (0, 0)
    other_peer.sendall(b"y" * 3)
    other.recv(100)
    group.remove(other)
    other.write(b"no more")
    assert (group.bytes_read, group.bytes_written) == (3, 0)


def test_tokens_by_hand(ends: Ends) -> None:
    group = RateGroup(RateLimit(read_rate=50, write_rate=100, write_burst=1000), min_share=1)
    conn, peer = ends.pair()
    group.add(conn)
    assert (group.read_remaining, group.write_remaining) == (50, 1000)
    conn.write(b"x" * 300)
    assert group.write_remaining == 700
    group.decrement(10, 900)
    assert (group.read_remaining, group.write_remaining) == (40, -200)
    assert group.bytes_written == 300  # by hand nothing has moved
    assert conn.write_remaining is None  # these are its own
    assert seconds(conn.write, b"x") == pytest.approx(2.02, abs=0.03)
    peer.sendall(b"y" * 90)
    assert seconds(conn.read, 90) == pytest.approx(0.8, abs=0.03)
    group.decrement(write=10_000)
    writer = spawn(conn.write, b"held")
    sleep(5)
    assert not writer.done
    group.decrement(write=-(10**20))
    assert group.write_remaining == 1000
    assert seconds(writer.join) == 0


def test_decrementing_what_has_no_limit() -> None:
    group = RateGroup(limit(WRITING, 100))
    with pytest.raises(ValueError, match="reading has no limit"):
        group.decrement(read=1, write=1)
    assert group.write_remaining == 100
    with pytest.raises(TypeError):
        group.decrement(write=1.5)  # type: ignore[arg-type]


def test_another_limit_holds_from_now_on(ends: Ends) -> None:
    group = RateGroup(limit(WRITING, 10))
    flows = crowd(ends, group, WRITING, [65536] * 3)
    sleep(10)
    faster = limit(WRITING, 9000, 30)
    group.set_limit(faster)
    assert group.limit is faster
    before = [flow.arrived for flow in flows]
    sleep(20)
    for flow, then in zip(flows, before, strict=True):
        assert flow.arrived - then == pytest.approx(60_000, rel=0.1)
    group.set_limit(RateLimit(read_rate=5))
    assert group.write_remaining is None
    begin = pycoronet.get_hub().time
    while min(flow.arrived for flow in flows) < 1_000_000:
        sleep(0)
    assert pycoronet.get_hub().time == begin
    group.set_limit(limit(WRITING, 5))
    assert group.write_remaining == 5
    stop(flows)


# --- Who comes and goes --------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["remove", "abort", "cancel"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_held_member_that_goes_strands_nobody(ends: Ends, way: str, which: int) -> None:
    group = RateGroup(limit(WRITING, 9000))
    empty(group, WRITING)
    flows = crowd(ends, group, WRITING, [65536] * 3)
    sleep(30)
    gone = flows.pop(which)
    if way == "remove":
        gone.tasks[0].cancel()
        group.remove(gone.conn)
    elif way == "abort":
        gone.left.abort()
        with pytest.raises(ClosedError):
            gone.tasks[0].get()
    else:
        gone.tasks[0].cancel()
    assert len(group) == (3 if way == "cancel" else 2)
    before = [flow.arrived for flow in flows]
    sleep(30)
    for flow, then in zip(flows, before, strict=True):
        assert flow.arrived - then == pytest.approx(135_000, rel=0.02)
    gone.tasks[1].cancel()
    stop(flows)


def test_a_removed_member_goes_on_at_once(ends: Ends) -> None:
    group = RateGroup(RateLimit(read_rate=1, write_rate=1))
    conn, peer = ends.pair()
    group.add(conn)
    peer.sendall(b"y" * 100)
    tasks = [spawn(conn.write, b"x" * 100), spawn(conn.read_exactly, 100)]
    sleep(5)
    assert not any(task.done for task in tasks)
    group.remove(conn)
    group.remove(conn)
    assert conn.rate_group is None
    for task in tasks:
        assert seconds(task.join) == 0
    assert receive(peer, 100) == b"x" * 100


def test_the_last_member_that_goes_leaves_nothing_armed(ends: Ends) -> None:
    group = RateGroup(limit(WRITING, 1))
    conn, peer = ends.pair()
    group.add(conn)
    conn.enqueue(b"x" * 10)
    turn()
    assert drain_now(peer) == b"x"
    conn.abort()
    assert len(group) == 0
    assert group.members == []
    sleep(100)
    assert group.bytes_written == 1
    assert group.write_remaining == 1


def test_a_member_that_closes_sends_the_rest_at_the_groups_rate(ends: Ends) -> None:
    group = RateGroup(limit(WRITING, 1000))
    empty(group, WRITING)
    left, right = (ends.conn(end) for end in socket.socketpair())
    group.add(left)
    left.enqueue(b"x" * 5000)
    left.close()
    assert len(group) == 1
    with pytest.raises(ClosedError):
        RateGroup(RateLimit()).add(left)
    assert seconds(right.read_exactly, 5000) == pytest.approx(5, rel=0.02)
    turn()
    assert len(group) == 0


def test_what_a_member_throws_away_costs_the_others_nothing(ends: Ends) -> None:
    left, right = (ends.conn(end) for end in socket.socketpair())
    right.push_layer(Tee())
    group = RateGroup(limit(READING, 1000))
    group.add(right)
    left.enqueue(bytes(50_000))
    turn()
    right.close()  # takes what is there off the kernel, lest the peer sees a reset
    assert group.read_remaining == 1000
    assert group.bytes_read == 0


def test_members_keep_their_group_and_it_does_not_keep_them(ends: Ends) -> None:
    group = RateGroup(limit(WRITING, 1000))
    flows = crowd(ends, group, WRITING, [65536, 100])
    watched = weakref.ref(group)
    left, right = socket.socketpair()
    dropped = [pycoronet.sk_conn(left)]
    group.add(dropped[0])
    assert len(group) == 3
    with pytest.warns(ResourceWarning):
        dropped.clear()
    right.close()
    assert len(group) == 2
    assert flows[0].conn.rate_group is group
    del group
    sleep(100)
    for flow in flows:
        assert flow.arrived == pytest.approx(50_500, rel=0.1)
    stop(flows)
    for flow in flows:
        group = flow.conn.rate_group
        group.remove(flow.conn)
    del group
    assert watched() is None


def test_a_group_knows_its_members(ends: Ends) -> None:
    made = limit(WRITING, 1000)
    group = RateGroup(made, min_share=5)
    conns = [ends.pair()[0] for _ in range(3)]
    for conn in conns:
        group.add(conn)
        group.add(conn)
    assert group.members == conns
    assert len(group) == 3
    assert (group.limit, group.min_share) == (made, 5)
    assert [conn.rate_group for conn in conns] == [group] * 3
    assert conns[0].rate_limit is None
    assert repr(group) == f"<RateGroup of 3, {made!r}>"
    group.remove(conns[1])
    assert group.members == [conns[0], conns[2]]


def test_what_cannot_be_a_group(ends: Ends) -> None:
    for wrong_type in (None, 5, RateLimit):
        with pytest.raises(TypeError, match="must be a RateLimit"):
            RateGroup(wrong_type)  # type: ignore[arg-type]
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="min_share must be at least 1"):
            RateGroup(RateLimit(), min_share=wrong)
    with pytest.raises(TypeError):
        RateGroup(RateLimit(), min_share="x")  # type: ignore[arg-type]
    group = RateGroup(RateLimit())
    with pytest.raises(TypeError, match="must be a RateLimit"):
        group.set_limit(None)  # type: ignore[arg-type]
    huge = RateGroup(limit(WRITING, 10), min_share=10**30)
    flows = crowd(ends, huge, WRITING, [100, 100])
    sleep(100)
    assert sum(flow.arrived for flow in flows) == pytest.approx(1010, rel=0.03)
    stop(flows)


def test_what_cannot_be_a_member(ends: Ends, listener: Any) -> None:
    group, other = RateGroup(RateLimit()), RateGroup(RateLimit())
    conn, _ = ends.pair()
    for wrong in (None, 5, socket.socket):
        with pytest.raises(TypeError, match="sk_conn"):
            group.add(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="sk_conn"):
            group.remove(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="listener"):
        group.add(listener)
    group.add(conn)
    with pytest.raises(ValueError, match="another group"):
        other.add(conn)
    other.remove(conn)
    assert conn.rate_group is group
    conn.close()
    assert len(group) == 0
    with pytest.raises(ClosedError):
        group.add(conn)


def test_a_group_belongs_to_its_thread(ends: Ends) -> None:
    group = RateGroup(limit(WRITING, 10))
    conn, _ = ends.pair()
    group.add(conn)
    errors: list[BaseException] = []

    def touch() -> None:
        for call in (
            lambda: group.add(conn),
            lambda: group.remove(conn),
            lambda: group.set_limit(RateLimit()),
            lambda: group.decrement(write=1),
            lambda: group.write_remaining,
        ):
            try:
                call()
            except RuntimeError as error:
                errors.append(error)

    thread = threading.Thread(target=touch)
    thread.start()
    thread.join()
    assert len(errors) == 5
    assert group.members == [conn]


def test_a_connection_of_another_hub(ends: Ends) -> None:
    conn, _ = ends.pair()
    groups: list[RateGroup] = []

    def make() -> None:
        groups.append(RateGroup(RateLimit()))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    with pytest.raises(RuntimeError):
        groups[0].add(conn)
    assert conn.rate_group is None


def test_a_hub_that_closes_with_members_that_wait(ends: Ends) -> None:
    group = RateGroup(limit(WRITING, 1, 1000))
    left, right = (ends.conn(end) for end in socket.socketpair())
    group.add(left)
    left.set_rate_limit(limit(WRITING, 1))
    left.enqueue(b"x" * 100)
    turn()
    pycoronet.get_hub().close()
    assert len(group) == 0
    assert (left.rate_group, left.rate_limit) == (None, None)
    for call in (
        lambda: group.add(right),
        lambda: group.set_limit(RateLimit()),
        lambda: group.decrement(write=1),
        lambda: group.write_remaining,
    ):
        with pytest.raises(RuntimeError, match="closed"):
            call()
    group.remove(left)
    assert group.bytes_written > 0
