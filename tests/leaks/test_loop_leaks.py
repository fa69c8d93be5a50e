"""What the loop calls, over many rounds: no descriptor, object or memory stays behind."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from connections import attempt
from leak_case import ROUNDS, check_rounds, count_objects
from recorders import Recorder, raise_error, turn

import pycoronet
from pycoronet import (
    HIGH,
    LOW,
    READ,
    WRITE,
    HookHandle,
    LoopMeter,
    OnceHandle,
    SignalHandle,
    TimerHandle,
    get_hub,
    once,
    signal_handler,
    sk_conn,
    sleep,
    spawn,
)

pytestmark = [pytest.mark.leaks, pytest.mark.usefixtures("virtual_hub")]

TYPES = (HookHandle, OnceHandle, SignalHandle, TimerHandle, LoopMeter, sk_conn)


@contextmanager
def quiet() -> Iterator[None]:
    """Let what is reported pass."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda report: None
    try:
        yield
    finally:
        sys.unraisablehook = hook


# Each is one round, complete with its clean-up.


def levels() -> None:
    for priority in (LOW, HIGH):
        left, right = socket.socketpair()
        conn = sk_conn(left)
        conn.priority = priority
        conn.set_callbacks(Recorder(data=lambda conn: setattr(conn, "priority", 1)))
        right.send(b"x")
        with pytest.raises(ValueError, match="priority"):
            conn.priority = 7
        turn(1)
        conn.abort()
        right.close()


def cut_rounds() -> None:
    hub = get_hub()
    hub.set_dispatch_interval(seconds=0)
    for _ in range(3):
        hub.call_soon(hub.loop_continue)
        hub.call_soon(hub.loop_break)
        hub.call_soon(hub.loop_exit)
    hub.loop_exit(1).cancel()
    for _ in range(5):
        hub.run()
    sleep(0)
    hub.set_dispatch_interval()
    with pytest.raises(TypeError):
        hub.call_soon(5)  # type: ignore[arg-type]


def hooked() -> None:
    hub = get_hub()
    with quiet(), LoopMeter() as meter:
        handles = [hub.add_hook(raise_error, raise_error), hub.add_hook(check=lambda: None)]
        turn(2)
        for wrong in ((), (1,), (None, 2)):
            with pytest.raises(TypeError):
                hub.add_hook(*wrong)  # type: ignore[arg-type]
        for handle in handles:
            handle.cancel()
    assert meter.count


def called_once() -> None:
    left, right = socket.socketpair()
    calls: list[int] = []
    once(left, WRITE, calls.append, timeout=5)
    once(left, READ, calls.append, timeout=0.001)
    assert isinstance(attempt(once, left, READ, print), pycoronet.BusyError)
    sleep(1)
    once(left, READ, calls.append)
    pycoronet.notify_closing(left)
    sleep(0)
    once(right, READ, calls.append).cancel()
    with quiet():
        once(right, WRITE, raise_error)
        sleep(0.001)
    with tempfile.TemporaryFile() as file:
        assert isinstance(attempt(once, file, READ, print), ValueError)
    assert isinstance(attempt(once, 900, READ, print), OSError)
    left.close()
    right.close()
    assert len(calls) == 3


def signalled() -> None:
    calls: list[int] = []
    handles = [signal_handler(signal.SIGUSR1, calls.append) for _ in range(3)]
    os.kill(os.getpid(), signal.SIGUSR1)
    sleep(0)
    for handle in handles:
        handle.cancel()
    for wrong in ((0, print), (signal.SIGKILL, print), (signal.SIGUSR1, 5)):
        assert isinstance(attempt(signal_handler, *wrong), ValueError | OSError | TypeError)
    assert len(calls) == 3


def dumped() -> None:
    hub = get_hub()
    left, right = socket.socketpair()
    conn = sk_conn(left)
    conn.set_callbacks(Recorder())
    handles: list[Any] = [
        once(right, READ, print),
        once(right, WRITE, print),
        hub.call_later(9, print),
        hub.add_hook(lambda _: None),
    ]
    task = spawn(sleep, 3)
    sleep(0)
    assert hub.dump()
    assert len(hub.registrations()) == 3
    for handle in handles:
        handle.cancel()
    task.cancel()
    conn.abort()
    right.close()


CASES = [levels, cut_rounds, hooked, called_once, signalled, dumped]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_nothing_stays_behind(case: Callable[[], None]) -> None:
    check_rounds(case, types=TYPES, counted=[print, raise_error])


def test_thread_that_ends_frees_all_that_was_to_be_called() -> None:
    objects = count_objects(TYPES)
    references = sys.getrefcount(raise_error)
    pipe = os.pipe()

    def work() -> None:
        hub = get_hub()
        hub.call_later(1000, raise_error)
        hub.call_soon(raise_error)
        hub.add_hook(raise_error)
        once(pipe[0], READ, raise_error)

    for _ in range(ROUNDS):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    for fd in pipe:
        os.close(fd)
    assert count_objects(TYPES) == objects
    assert abs(sys.getrefcount(raise_error) - references) < 10


def test_closing_the_hub_frees_all_that_was_to_be_called() -> None:
    objects = count_objects(TYPES)
    references = sys.getrefcount(raise_error)
    pipe = os.pipe()
    for number in range(ROUNDS):
        hub = get_hub()
        hub.call_later(1000, raise_error)
        hub.call_soon(int)
        hub.add_hook(lambda _: None)
        once(pipe[0], READ, raise_error, timeout=number + 1)
        signal_handler(signal.SIGUSR1, raise_error)
        hub.close()
        pycoronet.get_hub(backend="fake")
    for fd in pipe:
        os.close(fd)
    assert count_objects(TYPES) == objects
    assert abs(sys.getrefcount(raise_error) - references) < 10
