"""Programs, calls between threads, names and signals: over many rounds nothing is left."""

from __future__ import annotations

import signal
import socket
import subprocess as standard
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from leak_case import check_rounds

import pycoronet
from pycoronet import (
    Event,
    Hub,
    Task,
    _coronet,
    from_thread,
    get_hub,
    open_signal_receiver,
    sk_conn,
    sleep,
    spawn,
    subprocess,
    to_thread,
)
from pycoronet.subprocess import PIPE, Popen, TimeoutExpired, run

pytestmark = pytest.mark.leaks

TYPES = (sk_conn, Task, Hub, Event, Popen, standard.Popen, threading.Thread)
ROUNDS = 10  # a program takes milliseconds to start
LARGE = bytes(70_000)  # more than a pipe holds


def check(case: Callable[[], object]) -> None:
    check_rounds(lambda: [case(), None][1], types=TYPES, rounds=ROUNDS)


# --- Programs -------------------------------------------------------------------------------


def communicate() -> None:
    done = run(["tee", "/dev/stderr"], input=LARGE, capture_output=True)
    assert done.stdout == done.stderr == LARGE


def ignore_input() -> None:
    run(["true"], input=LARGE, capture_output=True)


def refused() -> None:
    with pytest.raises(TypeError):
        Popen([5], stdin=PIPE, stdout=PIPE, stderr=PIPE)


def time_out() -> None:
    with pytest.raises(TimeoutExpired):
        run(["sleep", "60"], stdin=PIPE, stdout=PIPE, timeout=0.001)


def block_left_by_an_error() -> None:
    with pytest.raises(LookupError), Popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
        assert process.pid
        raise LookupError


def cancel() -> None:
    with Popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
        task = spawn(process.communicate, LARGE)
        sleep(0.001)
        task.cancel()
        task.join()


settled = pytest.mark.skipif(
    sys.version_info < (3, 11),
    reason="Python 3.10's own Popen goes on filling a cache of the interpreter's",
)


@settled
@pytest.mark.parametrize(
    "cases",
    [(communicate, ignore_input, refused), (time_out, block_left_by_an_error, cancel)],
    ids=["ended", "killed"],
)
def test_programs(cases: tuple[Callable[[], None], ...]) -> None:
    check(lambda: [case() for case in cases])


@settled
def test_waiting_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> Any:
        raise OSError

    def wait() -> None:
        with Popen(["true"]) as process:
            process.wait()
        for thread in threading.enumerate():
            if thread.name == "pycoronet wait":
                thread.join()

    monkeypatch.setattr(subprocess, "_open_exit", refuse)
    check(wait)


# --- Threads --------------------------------------------------------------------------------


def call() -> None:
    assert to_thread(from_thread.run, get_hub(), divmod, 7, 2) == (3, 1)


def fail() -> None:
    with pytest.raises(ZeroDivisionError):
        to_thread(from_thread.run, get_hub(), divmod, 7, 0)


def refuse() -> None:
    with pytest.raises(RuntimeError):
        from_thread.run(get_hub(), int)


def call_too_long() -> None:
    with pytest.raises(TimeoutError):
        to_thread(lambda: from_thread.run(hub, sleep, None, timeout=0.0001))


hub = get_hub()


def end_of_the_hub() -> None:
    hubs: list[Any] = []
    ready = threading.Event()
    told = threading.Event()

    def serve() -> None:
        hubs.append(get_hub())
        ready.set()
        to_thread(told.wait)

    thread = threading.Thread(target=serve)
    thread.start()
    ready.wait()
    lot = _coronet.ParkingLot(external=True, hub=hubs.pop())
    told.set()
    with pytest.raises(RuntimeError):
        lot.park("test")
    thread.join()


@pytest.mark.parametrize("cases", [(call, fail, refuse, call_too_long), (end_of_the_hub,)])
def test_calls_between_threads(
    cases: tuple[Callable[[], None], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(__name__ + ".hub", get_hub())
    check(lambda: [case() for case in cases])


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    gates: list[threading.Event] = []

    def look_up(host: str) -> str:
        if host == "slow":
            gates[-1].wait()
        return host

    def ask() -> None:
        gates[:] = [threading.Event()]
        pycoronet.getaddrinfo("127.0.0.1", 80)
        with pytest.raises(TimeoutError):
            pycoronet.gethostbyname("slow", timeout=0.0001)
        gates[0].set()
        assert pycoronet.gethostbyname("host", timeout=30) == "host"

    monkeypatch.setattr(socket, "gethostbyname", look_up)
    check(ask)


# --- Signals --------------------------------------------------------------------------------


def test_receivers() -> None:
    def receive() -> None:
        with open_signal_receiver(signal.SIGUSR1, signal.SIGHUP) as signals:
            signal.raise_signal(signal.SIGUSR1)
            assert next(signals) == signal.SIGUSR1
            waiting = spawn(list, signals)
            signal.raise_signal(signal.SIGHUP)
            sleep(0)
        assert waiting.get() in ([], [signal.SIGHUP])
        with (
            pytest.raises(OSError, match="Invalid"),
            open_signal_receiver(signal.SIGUSR1, signal.SIGKILL),
        ):
            pass

    check_rounds(receive, types=TYPES)
