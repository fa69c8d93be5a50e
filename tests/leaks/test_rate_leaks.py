"""Rate limits over many rounds: members, groups, lines and timers are given back."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
from connections import MOMENT, attempt, drain_now
from leak_case import check_rounds, pair

import pycoronet
from pycoronet import RateGroup, RateLimit, sk_conn, sleep, spawn

pytestmark = [pytest.mark.leaks, pytest.mark.usefixtures("virtual_hub")]

SLOW = RateLimit(read_rate=1, write_rate=1)
OWN = RateLimit(read_rate=1000, write_rate=1000)
COUNTED = (SLOW, OWN, RateGroup, RateLimit)


# Each is one round, complete with its clean-up.


def limited_and_freed() -> None:
    with pair() as (conn, peer):
        conn.set_rate_limit(RateLimit(read_rate=500, write_burst=5, write_rate=500))
        conn.write(b"x" * 10)
        peer.sendall(b"y" * 10)
        conn.read(10)
        conn.decrement_rate(5, 5)
        conn.set_rate_limit(OWN)
        conn.set_rate_limit(None)


def held_and_aborted() -> None:
    with pair() as (conn, peer):
        conn.set_rate_limit(SLOW)
        peer.sendall(b"y" * 10)
        tasks = [spawn(attempt, conn.write, b"x" * 10), spawn(attempt, conn.read, 10)]
        sleep(MOMENT)
        conn.abort()
        for task in tasks:
            task.join()


def held_and_cancelled() -> None:
    with pair() as (conn, _):
        conn.set_rate_limit(SLOW)
        task = spawn(conn.write, b"x" * 10)
        sleep(MOMENT)
        task.cancel()
        sleep(MOMENT)


def in_a_group() -> None:
    group = RateGroup(OWN, min_share=5)
    with pair() as (left, left_peer), pair() as (right, right_peer):
        for conn in (left, right):
            group.add(conn)
            conn.set_rate_limit(OWN)
        left.enqueue(b"x" * 2000)
        right.enqueue(b"x" * 2000)
        sleep(1)
        drain_now(left_peer)
        drain_now(right_peer)
        assert group.members == [left, right]
        assert left.rate_group is group
        group.set_limit(SLOW)
        group.decrement(1, 1)
        group.remove(left)


def group_that_goes_first() -> None:
    with pair() as (conn, _):
        RateGroup(SLOW).add(conn)
        conn.enqueue(b"x" * 10)
        sleep(MOMENT)


def members_that_go_first() -> None:
    group = RateGroup(SLOW)
    left, right = socket.socketpair()
    conn = sk_conn(left)
    group.add(conn)
    conn.enqueue(b"x" * 10)
    conn.close()
    del conn
    sleep(MOMENT)
    assert len(group) == 1
    group.set_limit(RateLimit())  # the rest leaves
    assert len(group) == 0
    right.close()


def refused() -> None:
    group = RateGroup(SLOW)
    with pair() as (conn, _):
        group.add(conn)
        for call in (
            lambda: RateLimit(read_rate=0),
            lambda: RateLimit(read_rate=1, write_rate=1.5),  # type: ignore[arg-type]
            lambda: RateLimit(write_burst=1),
            lambda: RateGroup(SLOW, min_share=0),
            lambda: RateGroup(None),  # type: ignore[arg-type]
            lambda: RateGroup(SLOW).add(conn),
            lambda: group.add(None),  # type: ignore[arg-type]
            lambda: group.set_limit(None),  # type: ignore[arg-type]
            lambda: group.decrement("x"),  # type: ignore[arg-type]
            lambda: conn.set_rate_limit(5),
            lambda: conn.decrement_rate(1),
        ):
            assert isinstance(attempt(call), (ValueError, TypeError))


def hub_that_closes() -> None:
    pycoronet.get_hub().close()
    pycoronet.get_hub(backend="fake")
    left, right = socket.socketpair()
    conn = sk_conn(left)
    group = RateGroup(SLOW)
    group.add(conn)
    conn.set_rate_limit(SLOW)
    conn.enqueue(b"x" * 10)
    sleep(MOMENT)
    pycoronet.get_hub().close()
    assert len(group) == 0
    conn.abort()
    right.close()
    pycoronet.get_hub(backend="fake")


CASES: list[Callable[[], Any]] = [
    limited_and_freed,
    held_and_aborted,
    held_and_cancelled,
    in_a_group,
    group_that_goes_first,
    members_that_go_first,
    refused,
    hub_that_closes,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_nothing_stays_behind(case: Callable[[], None]) -> None:
    check_rounds(case, counted=COUNTED, by_malloc=True)
    pycoronet.get_hub().close()  # of those that made hubs the last one
