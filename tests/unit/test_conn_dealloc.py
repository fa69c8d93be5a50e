"""What the output queue gives back: dealloc is called, buffers are let go, once and in the hub."""

from __future__ import annotations

import array
import gc
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from connections import MOMENT, Ends, behind_full, drain_now, fill, receive, reset

import pycoronet
from pycoronet import ClosedError, sleep, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")

LONG = 5000  # bytes of this length are referenced, not copied


class Deallocs:
    """Notes what dealloc was called with."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, data: Any) -> None:
        """Note it, and that nobody's coroutine runs."""
        assert pycoronet.current() is None
        self.seen.append(data)


@pytest.fixture
def deallocs() -> Deallocs:
    """Return what is to be given as dealloc."""
    return Deallocs()


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Return what was reported in place of being raised."""
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    yield seen
    seen.clear()


# --- dealloc ------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"x", b"x" * LONG, bytearray(10), [b"a", b"b"], b"", []])
@pytest.mark.parametrize("move", [False, True])
def test_dealloc_is_called_once_when_it_has_left(
    ends: Ends, deallocs: Deallocs, data: Any, move: bool
) -> None:
    conn, _ = ends.pair()
    conn.enqueue(data, move=move, dealloc=deallocs)
    assert deallocs.seen == []
    conn.flush()
    sleep(0)
    assert len(deallocs.seen) == 1
    assert deallocs.seen[0] is data
    conn.close()
    sleep(0)
    assert len(deallocs.seen) == 1


def test_dealloc_waits_for_the_last_byte(ends: Ends, deallocs: Deallocs) -> None:
    conn, peer, taken = behind_full(ends)
    conn.enqueue([b"a" * 300_000, b"b"], dealloc=deallocs)
    receive(peer, taken + 10)
    assert conn.pending > 0
    assert deallocs.seen == []
    while conn.pending:
        drain_now(peer)
        sleep(MOMENT)
    sleep(MOMENT)
    assert len(deallocs.seen) == 1


@pytest.mark.parametrize("end", ["close", "abort", "error", "linger", "hub"])
def test_dealloc_is_called_once_when_it_is_dropped(
    ends: Ends, deallocs: Deallocs, end: str
) -> None:
    conn, peer, _ = behind_full(ends, "tcp")
    data = b"x" * LONG
    conn.enqueue(data, dealloc=deallocs.seen.append if end == "hub" else deallocs)
    sleep(MOMENT)
    if end == "close":
        conn.linger = 0
        conn.close()
    elif end == "abort":
        conn.abort()
    elif end == "error":
        reset(peer)
    elif end == "linger":
        conn.close()
        sleep(31)
    else:
        pycoronet.get_hub().close()
        assert deallocs.seen == [data]
        return
    sleep(MOMENT)
    assert deallocs.seen == [data]
    assert conn.pending == 0


def test_dealloc_of_a_refused_enqueue_is_not_called(ends: Ends, deallocs: Deallocs) -> None:
    conn, _ = ends.pair()
    with pytest.raises(TypeError):
        conn.enqueue([b"x", "y"], dealloc=deallocs)
    conn.close()
    with pytest.raises(ClosedError):
        conn.enqueue(b"x", dealloc=deallocs)
    sleep(MOMENT)
    assert deallocs.seen == []


def test_dealloc_that_raises_is_reported(ends: Ends, reports: list[Any]) -> None:
    conn, peer = ends.pair()

    def fail(_: object) -> None:
        raise KeyError

    conn.enqueue(b"one", dealloc=fail)
    conn.enqueue(b"two", dealloc=fail)
    conn.flush()
    sleep(0)
    assert [report.exc_type for report in reports] == [KeyError, KeyError]
    assert reports[0].object is fail
    assert receive(peer, 6) == b"onetwo"


def test_dealloc_that_ends_the_program(ends: Ends) -> None:
    conn, _ = ends.pair()

    def leave(_: object) -> None:
        raise SystemExit(5)

    conn.enqueue(b"one", dealloc=leave)
    with pytest.raises(SystemExit):
        sleep(1)


def test_dealloc_may_use_the_connection(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.enqueue(b"one", dealloc=lambda _: conn.enqueue(b"two", dealloc=lambda _: conn.close()))
    sleep(MOMENT)
    assert peer.recv(100) == b"onetwo"
    assert peer.recv(100) == b""


def test_dealloc_cannot_wait(ends: Ends, reports: list[Any]) -> None:
    conn, _ = ends.pair()
    conn.enqueue(b"x", dealloc=lambda _: sleep(1))
    sleep(MOMENT)
    assert [report.exc_type for report in reports] == [RuntimeError]


def test_dealloc_may_wake_the_main_program(ends: Ends) -> None:
    conn, peer, taken = behind_full(ends)
    lot = pycoronet._coronet.ParkingLot()
    conn.enqueue(b"x", dealloc=lambda _: lot.unpark())
    spawn(receive, peer, taken)
    lot.park("waiting")
    assert conn.pending == 0


def test_dealloc_driven_by_hand(ends: Ends, deallocs: Deallocs) -> None:
    conn, _ = ends.pair()
    conn.enqueue(b"x", dealloc=deallocs)
    hub = pycoronet.get_hub()
    hub.wait(0)
    hub.dispatch(10)
    assert deallocs.seen == [b"x"]


# --- Buffers that are held -------------------------------------------------------------------


def test_a_moved_buffer_cannot_be_resized_until_it_has_left(ends: Ends) -> None:
    conn, peer, taken = behind_full(ends)
    data = bytearray(b"x" * 10)
    conn.enqueue(data, move=True)
    with pytest.raises(BufferError):
        data.append(1)
    receive(peer, taken + 10)
    data.append(1)
    assert len(data) == 11


@pytest.mark.parametrize("size", [10, LONG])
@pytest.mark.parametrize("make", [bytes, bytearray, lambda data: array.array("b", data)])
def test_objects_are_given_back(ends: Ends, size: int, make: Callable[[bytes], Any]) -> None:
    conn, peer = ends.pair()
    data = make(bytes(size))
    before = sys.getrefcount(data)
    for _ in range(20):
        conn.enqueue(data)
        conn.enqueue(data, move=True)
    reader = spawn(receive, peer, 40 * size)
    conn.flush()
    reader.join()
    assert sys.getrefcount(data) == before


def test_a_cycle_through_the_queue_is_found_and_drained(ends: Ends) -> None:
    left, peer = ends.sockets()
    conn = pycoronet.sk_conn(left)
    taken = fill(conn)

    class Holder:
        def __init__(self, conn: Any) -> None:
            self.conn = conn

        def dealloc(self, _: object) -> None:
            pass

    holder = Holder(conn)
    gone = weakref.ref(holder)
    conn.enqueue(b"x" * LONG, dealloc=holder.dealloc)
    conn.enqueue(array.array("b", bytes(10)), move=True)
    # Otherwise the collector may come by itself, before the warning is expected.
    gc.disable()
    try:
        del conn, holder
        with pytest.warns(ResourceWarning):
            gc.collect()
    finally:
        gc.enable()
    assert len(receive(peer, taken + LONG + 10)) == taken + LONG + 10
    sleep(MOMENT)
    gc.collect()
    assert gone() is None


@pytest.mark.linux_only
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_drops_what_is_queued(ends: Ends, deallocs: Deallocs) -> None:
    conn, peer, taken = behind_full(ends)
    data = bytearray(b"parent's")
    conn.enqueue(data, move=True, dealloc=deallocs)
    gone, _ = ends.pair()
    gone.enqueue(b"x", dealloc=deallocs)
    gone.abort()  # its dealloc is due when we fork
    own_end, _ = ends.pair()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            data.append(1)
            own_end.enqueue(b"c", dealloc=deallocs)
            own_end.flush()
            sleep(0)
            status = 10 if conn.pending == 0 and deallocs.seen == [b"c"] else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 10
    assert receive(peer, taken + 8).endswith(b"parent's")
    assert deallocs.seen == [b"x", data]
