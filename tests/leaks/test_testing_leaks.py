"""Leaks of the test kit: sets of faults, made in vain or injected, and looking for leftovers."""

from __future__ import annotations

from typing import Any

import pytest
from connections import MOMENT, attempt
from leak_case import Case, check_rounds, pair

from pycoronet import sleep, spawn
from pycoronet._coronet import _Faults
from pycoronet.testing import faults, nothing_left_behind

pytestmark = [pytest.mark.leaks, pytest.mark.usefixtures("virtual_hub")]

NONE: Any = ((), None)


def harmless() -> None:
    with pair() as (conn, peer), faults(seed=1):
        peer.sendall(b"x" * 1000)
        conn.read_exactly(1000)
        conn.write(b"y" * 1000)


def resets() -> None:
    with pair() as (conn, peer), faults({"read": ["EAGAIN", "EAGAIN", "ECONNRESET"]}, only=[conn]):
        reader = spawn(attempt, conn.read, 10)
        peer.sendall(b"unread")
        sleep(MOMENT)
        reader.join()


def refused() -> None:
    attempt(_Faults, (NONE,) * 3, 0, None)
    attempt(_Faults, ((((1, 0, "x"),), None), *[NONE] * 6), 0, None)
    attempt(_Faults, ((((1, 0, 0.5),), b"\\1"), *[NONE] * 5, ([], None)), 0, [5])
    attempt(_Faults, (NONE,) * 7, 0, [3, "x"])
    with faults() as injected:
        attempt(injected.__enter__)
        assert len(injected.counts) == 0


def nothing_is_left() -> None:
    with nothing_left_behind(), pair() as (conn, peer):
        peer.sendall(b"x")
        spawn(conn.recv, 1).join()


@pytest.mark.parametrize("case", [harmless, resets, refused, nothing_is_left])
def test_nothing_leaks(case: Case) -> None:
    check_rounds(case, types=(_Faults,), rounds=40)


@pytest.mark.parametrize("case", [harmless, resets, refused])
def test_no_memory_of_the_core_leaks(case: Case) -> None:
    check_rounds(case, types=(_Faults,), by_malloc=True, rounds=40)
