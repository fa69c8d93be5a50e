"""Who may drive the loop by hand, and what signals do meanwhile."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from conet_case import Readers, settle, start, turn
from connections import Ends

import pycoronet
from pycoronet.conet import (
    co_current,
    conet_cleanup,
    conet_events_dispatch,
    conet_events_wait,
    conet_init,
    conet_readln,
)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Have SIGINT handled as in a program in the foreground."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture(autouse=True)
def hub(interruptible: None, virtual_hub: pycoronet.Hub, ends: Ends) -> Iterator[pycoronet.Hub]:
    """Set conet up over a hub in virtual time."""
    conet_init()
    yield virtual_hub
    conet_cleanup()


@pytest.fixture
def readers(hub: pycoronet.Hub) -> Iterator[Readers]:
    """Return five coroutines that read lines, each from its own connection."""
    made = Readers(5)
    yield made
    made.close()


# Who may drive.


def test_driving_from_a_coroutine_is_refused(readers: Readers) -> None:
    errors: list[str] = []

    def drive() -> None:
        for function in (conet_events_wait, conet_events_dispatch):
            try:
                function(0)
            except RuntimeError as error:
                errors.append(str(error))

    start(drive)  # under the hub's own loop
    pycoronet.spawn(drive)
    turn()  # under a dispatch
    assert len(errors) == 4
    assert all("main program" in error for error in errors)
    readers.send()
    assert turn() == 5


def test_driving_from_a_callback_is_refused(hub: pycoronet.Hub) -> None:
    errors: list[str] = []

    def drive() -> None:
        try:
            conet_events_dispatch(0)
        except RuntimeError as error:
            errors.append(str(error))

    hub.call_soon_threadsafe(drive)
    turn()
    assert len(errors) == 1


def test_driving_by_hand_and_waiting_in_the_main_program_take_turns(
    readers: Readers, ends: Ends
) -> None:
    conn, peer = ends.pair()
    readers.send()
    assert conet_events_wait(0) == 5
    assert conet_events_dispatch(2) == 2
    peer.send(b"for main\n")
    assert conet_readln(conn) == b"for main\n"
    pycoronet.sleep(0)
    pycoronet.sleep(1)  # under the hub's own loop everything is handed out
    assert len(readers.log) == 5


# Signals.


def test_signal_handler_runs_in_wait_and_is_nothing_to_dispatch(
    hub: pycoronet.Hub, readers: Readers
) -> None:
    log: list[Any] = []
    settle()
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: log.append(pycoronet.current()))
    try:
        signal.raise_signal(signal.SIGUSR1)
        assert log == [co_current()]  # raised in the main program itself
        assert conet_events_wait(0) == 0
        assert conet_events_wait(10) == 0
        readers.send()
        signal.raise_signal(signal.SIGUSR1)
        assert conet_events_wait(0) == 5
        assert conet_events_dispatch(0) == 5
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_signal_interrupts_a_wait_without_limit() -> None:
    log: list[int] = []
    previous = signal.signal(signal.SIGALRM, lambda number, frame: log.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        while not log:
            assert conet_events_wait(-1) == 0
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert log == [signal.SIGALRM]


def test_exception_of_a_signal_handler_comes_out_of_wait() -> None:
    def stop(number: int, frame: object) -> None:
        raise InterruptedError("stop")

    previous = signal.signal(signal.SIGALRM, stop)
    try:
        with pytest.raises(InterruptedError, match="stop"):
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            conet_events_wait(-1)
    finally:
        signal.signal(signal.SIGALRM, previous)


def test_exception_of_a_signal_handler_of_before_comes_out_before_anything_is_done(
    hub: pycoronet.Hub,
) -> None:
    def stop(number: int, frame: object) -> None:
        raise InterruptedError("stop")

    settle()  # the hub looks after signals from its first wait on
    prepared: list[object] = []
    hook = hub.add_hook(prepare=lambda *_: prepared.append(None))
    previous = signal.signal(signal.SIGUSR1, stop)
    # From C to C: Python does not look for signals in between.
    steps = [partial(ctypes.CDLL(None)["raise"], signal.SIGUSR1), partial(hub.wait, 0)]
    try:
        with pytest.raises(InterruptedError, match="stop"):
            list(map(partial.__call__, steps))
    finally:
        signal.signal(signal.SIGUSR1, previous)
        hook.cancel()
    assert prepared == []


def test_interrupt_in_a_dispatched_coroutine_is_raised_by_dispatch(
    readers: Readers, ends: Ends
) -> None:
    conn, peer = ends.pair()
    log: list[str] = []

    def interrupt() -> None:
        conn.readln()
        os.kill(os.getpid(), signal.SIGINT)
        log.append("goes on")

    start(interrupt)
    settle()
    peer.send(b"now\n")
    readers.send()
    conet_events_wait(0)
    with pytest.raises(KeyboardInterrupt):
        conet_events_dispatch(0)
    assert log == ["goes on"]
    assert len(readers.log) == 5
