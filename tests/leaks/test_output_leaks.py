"""The output queue over many rounds: buffers, functions, files and C memory are given back."""

from __future__ import annotations

import gc
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from connections import MOMENT, attempt, drain_now, fill
from leak_case import check_rounds, pair

import pycoronet
from pycoronet import Cancelled, sleep, spawn

pytestmark = [pytest.mark.leaks, pytest.mark.usefixtures("virtual_hub")]

LONG = bytes(100_000)
MOVED = bytearray(100)
FILE = Path(__file__)


def ignore(_: object) -> None:
    """Be a dealloc."""


def read_all(conn: Any, peer: socket.socket) -> None:
    while conn.pending:
        drain_now(peer)
        sleep(MOMENT)


# Each is one round, complete with its clean-up.


def enqueued_and_sent() -> None:
    with pair() as (conn, peer):
        conn.enqueue(b"small", dealloc=ignore)
        conn.enqueue(LONG, dealloc=ignore)
        conn.enqueue([LONG, b"x", bytearray(5)], urgent=True)
        conn.enqueue(MOVED, move=True, dealloc=ignore)
        conn.enqueue(MOVED, can_interrupt=False)
        read_all(conn, peer)
        MOVED.append(MOVED.pop())


def enqueued_and_dropped() -> None:
    for end in ("abort", "close", "reset"):
        with pair("tcp") as (conn, peer):
            fill(conn)
            conn.linger = 0
            conn.enqueue([LONG, MOVED], move=True, dealloc=ignore)
            if end == "reset":
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.close()
                sleep(MOMENT)
                assert isinstance(attempt(conn.close), OSError)
            else:
                getattr(conn, end)()
            sleep(MOMENT)
            MOVED.append(MOVED.pop())


def refused() -> None:
    with pair() as (conn, _):
        for call in (
            lambda: conn.enqueue([LONG, MOVED, "x"], move=True, dealloc=ignore),
            lambda: conn.enqueue(MOVED, dealloc=1),
            lambda: conn.enqueue("x"),
            lambda: conn.set_watermarks(write_low=2, write_high=1),
            lambda: conn.sendfile(FILE),
            lambda: conn.sendfile(-1),
            lambda: conn.sendfile(0, -1),
        ):
            assert isinstance(attempt(call), Exception)
        conn.close()
        assert isinstance(attempt(conn.enqueue, LONG), pycoronet.ClosedError)


def written_past_the_marks() -> None:
    with pair() as (conn, peer):
        conn.buffered = True
        conn.set_watermarks(write_low=10, write_high=20)
        fill(conn)
        conn.write(b"1234567890")
        task = spawn(conn.write, b"x" * 15)
        sleep(MOMENT)
        read_all(conn, peer)
        assert task.get() == 15
        fill(conn)
        task = spawn(conn.write, LONG)
        sleep(MOMENT)
        task.cancel()
        with pytest.raises(Cancelled):
            task.get()


def files_sent() -> None:
    with pair() as (conn, peer):
        with FILE.open("rb") as file:
            conn.sendfile(file)
            conn.sendfile(file.fileno(), 10, 100)
        conn.sendfile(FILE.open("rb"), close=True)
        with Path("/proc/self/cmdline" if sys.platform == "linux" else FILE).open("rb") as file:
            conn.sendfile(file)
        read_all(conn, peer)


def files_dropped() -> None:
    with pair() as (conn, _), FILE.open("rb") as file:
        fill(conn)
        conn.set_watermarks(write_low=0, write_high=0)
        task = spawn(conn.sendfile, file)
        sleep(MOMENT)
        assert isinstance(attempt(conn.sendfile, file), pycoronet.BusyError)
        task.cancel()
        with pytest.raises(Cancelled):
            task.get()
        task = spawn(attempt, conn.sendfile, file)
        sleep(MOMENT)
        conn.abort()
        assert isinstance(task.get(), pycoronet.ClosedError)


def a_cycle_through_the_queue() -> None:
    left, right = socket.socketpair()
    conn = pycoronet.sk_conn(left)
    fill(conn)
    conn.linger = 0
    conn.enqueue(LONG, dealloc=lambda _, conn=conn: None)
    del conn
    with pytest.warns(ResourceWarning):
        gc.collect()
    sleep(MOMENT)
    right.close()


CASES = [
    enqueued_and_sent,
    enqueued_and_dropped,
    refused,
    written_past_the_marks,
    files_sent,
    files_dropped,
    a_cycle_through_the_queue,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_nothing_stays_behind(case: Callable[[], None]) -> None:
    check_rounds(case, counted=[LONG, MOVED, ignore], by_malloc=True)
