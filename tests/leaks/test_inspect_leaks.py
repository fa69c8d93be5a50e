"""Leaks of what tells what hangs: wait graphs, stall watches, snapshots, the socket."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from leak_case import Case, check_rounds, pair

import pycoronet
from pycoronet import (
    DeadlockError,
    Event,
    Lock,
    StalledError,
    Task,
    TaskGroup,
    get_hub,
    sk_conn,
    sleep,
    spawn,
)
from pycoronet._inspection import _Service, socket_path, take_snapshot
from pycoronet._stall import StallWatch

pytestmark = [pytest.mark.leaks, pytest.mark.usefixtures("virtual_hub")]

TYPES = (sk_conn, Task, Lock, Event, TaskGroup, StallWatch)
FEW = 60  # rounds of what starts a thread, or takes long


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "unraisablehook", lambda report: None)
    return iter([None])


def describe_all() -> None:
    """Look in every way at tasks that wait for this and that."""
    lock, event = Lock(), Event()
    with pair() as (conn, _):
        tasks = [
            spawn(conn.recv, 9),
            spawn(lambda: lock.acquire() and sleep(None)),
            spawn(lock.acquire),
            spawn(event._wait_as, "something", lock, None),
            spawn(pycoronet.Semaphore(0)._acquire_as, "this", event, True, None),
        ]
        sleep(0.001)
        repr((conn, tasks))
        get_hub().waiters()
        get_hub().dump()
        take_snapshot()
        for task in tasks:
            task.cancel()
            task.join()


class Broken(float):
    def __repr__(self) -> str:
        raise ZeroDivisionError


def fail_to_describe() -> None:
    task = spawn(sleep, Broken(5))
    sleep(0)
    for look in (get_hub().waiters, get_hub().dump):
        try:
            look()
        except ZeroDivisionError:
            pass
    take_snapshot()
    task.cancel()
    task.join()


def be_deadlocked() -> None:
    lock = Lock()

    def hold() -> None:
        with lock, TaskGroup() as group:
            group.spawn(lock.acquire)

    task = spawn(hold)
    try:
        task.join()
    except DeadlockError as error:
        assert error.circles
    task.cancel()
    task.join()


def measure_cpu() -> None:
    get_hub()._measure_cpu(True)
    spawn(int).join()
    take_snapshot()
    get_hub()._measure_cpu(False)


def look_for_stalls() -> None:
    watch = StallWatch(get_hub(), 1.0, None)
    assert watch.look(0.0) is None
    assert isinstance(watch.look(2.0), StalledError)


@pytest.mark.parametrize(
    "case", [describe_all, fail_to_describe, be_deadlocked, measure_cpu, look_for_stalls]
)
def test_looking_leaks_nothing(case: Case) -> None:
    check_rounds(case, types=TYPES, rounds=FEW)


def test_watching_for_stalls_leaks_nothing() -> None:
    def watch() -> None:
        came = threading.Event()
        get_hub().set_stall_limit(0.001, lambda error: came.set())
        assert spawn(came.wait, 30).get()
        get_hub().set_stall_limit(None)
        try:
            get_hub().set_stall_limit(-1)
        except ValueError:
            pass

    check_rounds(watch, types=TYPES)


def test_serving_leaks_nothing(tmp_path: Path) -> None:
    directory = str(tmp_path)

    def ask() -> None:
        service = _Service(directory)
        for request in (b"ps\n", b"top\n", b"garbage\n", b""):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(socket_path(directory, os.getpid())))
                sock.sendall(request)
                if request:
                    sock.recv(1)
        service.stop()

    check_rounds(ask, types=TYPES, rounds=FEW)


def test_what_cannot_be_served_leaks_nothing(tmp_path: Path) -> None:
    def attempt() -> None:
        for directory in (tmp_path / "missing", long):
            try:
                _Service(str(directory))
            except OSError:
                pass

    long = tmp_path / ("x" * 200)
    long.mkdir(0o700)
    check_rounds(attempt, types=TYPES)
