"""Virtual time: when the clock jumps, what it does with real sockets and other threads."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from connections import Ends

import pycoronet
from pycoronet import DeadlockError, Event, get_hub, sleep, spawn, timeout, to_thread
from pycoronet.testing import advance, virtual_time

pytestmark = pytest.mark.usefixtures("virtual_hub")

HOUR = 3600


def run_an_hour() -> list[tuple[str, float]]:
    """Return what happened when in an hour of timeouts, sleeps and timers."""
    log: list[tuple[str, float]] = []
    with virtual_time() as hub:
        began = hub.time

        def note(what: str) -> None:
            log.append((what, round(hub.time - began, 3)))

        def give_up(number: int) -> None:
            try:
                with timeout(number):
                    sleep(HOUR)
            except TimeoutError:
                note(f"timeout {number}")

        every = hub.call_every(600, note, "every")
        tasks = [spawn(give_up, number) for number in (3000, 1, 60, 60, 1799)]
        for task in tasks:
            task.join()
        sleep(600)
        every.cancel()
        note("end")
    return log


def test_an_hour_happens_in_the_same_order_each_time() -> None:
    log = run_an_hour()
    assert [what for what, _ in log][:4] == ["timeout 1", "timeout 60", "timeout 60", "every"]
    assert log == sorted(log, key=lambda entry: entry[1])
    assert log[-1] == ("end", pytest.approx(HOUR, abs=0.01))
    assert len(log) >= 11
    assert run_an_hour() == log


def test_the_clock_stands_still_while_something_can_go_on(ends: Ends) -> None:
    left, right = (ends.conn(sock) for sock in ends.sockets("tcp"))
    began = get_hub().time

    def answer() -> None:
        for _ in range(100):
            right.write(right.recv(9))

    spawn(answer)
    with timeout(0.001):
        for _ in range(100):
            left.write(b"x")
            assert left.recv(9) == b"x"
    assert get_hub().time == began


def test_a_peer_in_another_thread_comes_after_any_timeout(ends: Ends) -> None:
    conn, peer = ends.pair()
    may_write = threading.Event()

    def write() -> None:
        may_write.wait(10)
        peer.sendall(b"x")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with pytest.raises(TimeoutError), timeout(HOUR):
            conn.recv(1)
    finally:
        may_write.set()
        thread.join()
    assert conn.recv(1) == b"x"  # without a limit it is waited for


def test_to_thread_comes_after_any_timeout() -> None:
    gate = threading.Event()
    task = spawn(to_thread, gate.wait, 10)
    try:
        with pytest.raises(TimeoutError):
            task.get(timeout=HOUR)
    finally:
        gate.set()
    assert task.get() is True


def test_a_deadlock_is_told() -> None:
    with pytest.raises(DeadlockError):
        Event().wait()
    sleeper = spawn(sleep, HOUR)
    began = get_hub().time
    with pytest.raises(DeadlockError):  # as soon as the sleeper has gone
        Event().wait()
    assert sleeper.done
    assert get_hub().time - began >= HOUR


def test_advance_is_as_slow_code() -> None:
    began = get_hub().time
    calls: list[float] = []
    get_hub().call_later(5, lambda: calls.append(get_hub().time - began))
    advance(7.5)
    assert get_hub().time - began == 7.5
    assert calls == []
    sleep(0.001)
    assert calls == [pytest.approx(7.5, abs=0.01)]


@pytest.mark.parametrize("wrong", [-1, float("nan")])
def test_advance_goes_forward_only(wrong: float) -> None:
    with pytest.raises(ValueError, match="only forward"):
        advance(wrong)


def test_advance_needs_virtual_time() -> None:
    get_hub().close()
    backend: Any = get_hub().backend
    if backend == "fake":
        pytest.skip("the environment asks for the fake engine")
    with pytest.raises(ValueError, match="only the fake engine"):
        advance(1)
    pycoronet.get_hub().close()


def test_other_clocks_go_on_as_ever() -> None:
    began = time.monotonic()
    sleep(100 * HOUR)
    assert time.monotonic() - began < 50 * HOUR
