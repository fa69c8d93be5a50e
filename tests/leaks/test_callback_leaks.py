"""Callbacks and timers over many rounds: no descriptor, object or memory stays behind."""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
from leak_case import ROUNDS, check_rounds, count_objects
from recorders import Recorder, raise_error, reset, turn

import pycoronet
from pycoronet import READ, WRITE, Protocol, TimerHandle, get_hub, sk_conn, spawn

pytestmark = [pytest.mark.leaks, pytest.mark.usefixtures("virtual_hub")]

TYPES = (sk_conn, TimerHandle, Recorder)


def pair(recorder: Any, **options: Any) -> tuple[Any, socket.socket]:
    left, right = socket.socketpair()
    right.settimeout(10)
    conn = sk_conn(left)
    conn.set_callbacks(recorder, **options)
    return conn, right


# Each is one round, complete with its clean-up.


def echoed() -> None:
    recorder = Recorder(data=lambda conn: conn.write(recorder.received))
    _, peer = pair(recorder)
    peer.sendall(b"some bytes")
    turn(1)
    assert peer.recv(100) == b"some bytes"
    peer.close()
    turn(1)
    assert recorder.log == ["data", "eof", "close"]


def lines() -> None:
    def take_lines(conn: Any) -> None:
        while conn.take_line() is not None:
            pass

    conn, peer = pair(Recorder(takes=False, data=take_lines))
    for piece in (b"one\ntw", b"o\n", b"rest"):
        peer.sendall(piece)
        turn(1)
    conn.abort()
    peer.close()


def many_ends() -> None:
    for end in ("close", "abort", "set_callbacks", "detach", "reset", "stop"):
        conn, peer = pair(Recorder)
        peer.sendall(b"x")
        turn(1)
        if end == "set_callbacks":
            conn.set_callbacks(None)
            conn.close()
        elif end == "detach":
            socket.socket(fileno=conn.detach()).close()
        elif end == "reset":
            conn.write(b"unread")
            reset(peer)
        elif end == "stop":
            get_hub().stop()
            get_hub().run()
        else:
            getattr(conn, end)()
        peer.close()
        turn(1)


def failing() -> None:
    hook, sys.unraisablehook = sys.unraisablehook, lambda report: None
    try:
        recorder = Recorder(data=raise_error, error=raise_error, close=raise_error)
        _, peer = pair(recorder)
        peer.sendall(b"x")
        turn(1)
        peer.close()
        assert recorder.log == ["data", "error", "close"]
    finally:
        sys.unraisablehook = hook


def refused() -> None:
    left, right = socket.socketpair()
    with right, sk_conn(left) as conn:
        for wrong in (5, object(), object, lambda: 5, raise_error):
            with pytest.raises((TypeError, ZeroDivisionError)):
                conn.set_callbacks(wrong)
        for wrong in (5, print):
            with pytest.raises((TypeError, ValueError)):
                conn.set_callbacks(Recorder(), on_accept_error=wrong)
        for call in (conn.take, conn.take_line, conn.set_callbacks):
            with pytest.raises((TypeError, ValueError)):
                call(-1)


def replaced() -> None:
    def replace(conn: Any) -> None:
        conn.set_callbacks(None)
        conn.set_callbacks(Recorder)
        conn.set_callbacks(Recorder, receive=False)
        conn.set_callbacks(Recorder())

    conn, peer = pair(Recorder(takes=False, data=replace))
    peer.sendall(b"x")
    turn(1)
    conn.close()
    peer.close()
    turn(1)


def accepted() -> None:
    listener = pycoronet.listen(("127.0.0.1", 0))
    listener.set_callbacks(Recorder)
    with socket.create_connection(listener.getsockname()) as peer:
        turn(1)
        peer.sendall(b"x")
        turn(1)
    turn(1)
    listener.close()
    turn(1)


def paused() -> None:
    listener = pycoronet.listen(("127.0.0.1", 0), enabled=False)
    listener.accept_limit = 1
    listener.set_callbacks(Recorder, on_accept_error=lambda *_: None)
    peers = [socket.create_connection(listener.getsockname()) for _ in range(3)]
    turn(1)
    listener.enable(READ)
    turn(1)
    assert listener.accept_limit == 0
    for wrong in (-1, "x"):
        with pytest.raises((TypeError, ValueError)):
            listener.accept_limit = wrong
    listener.set_callbacks(Recorder, on_accept_error=lambda *_: None)
    listener.accept_limit = None
    turn(1)
    listener.disable(READ)
    listener.close()
    for peer in peers:
        peer.close()
    turn(1)


def starved() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    told: list[Exception] = []

    def drop(listener: Any, error: Exception) -> None:
        told.append(error)
        if len(told) == 2:
            listener.set_callbacks(None)

    listener = pycoronet.listen(("127.0.0.1", 0))
    listener.set_callbacks(Recorder, on_accept_error=drop)
    with socket.create_connection(listener.getsockname()):
        probe = os.dup(0)
        os.close(probe)
        resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))
        pycoronet.sleep(1)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(told) == 2
    told.clear()
    listener.set_callbacks(Recorder, on_accept_error=drop)
    listener.shutdown(socket.SHUT_RDWR)
    turn(1)
    assert listener.closed
    assert len(told) == 1


def timed() -> None:
    hub = get_hub()
    calls: list[int] = []
    hub.call_later(0.001, calls.append, 1)
    hub.call_later(1, calls.append, 2).cancel()
    every = hub.call_every(0.001, calls.append, 3)
    hub.call_soon(calls.append, 4)
    pycoronet.sleep(0.01)
    every.cancel()
    for wrong in (-1, float("nan"), "x", None):
        with pytest.raises((TypeError, ValueError)):
            hub.call_later(wrong, print)  # type: ignore[arg-type]
    assert set(calls) == {1, 3, 4}


def handed_over() -> None:
    def hand_over(conn: Any) -> None:
        conn.set_callbacks(None)
        spawn(lambda: (conn.recv(100), conn.close()))

    _, peer = pair(Recorder(takes=False, data=hand_over))
    peer.sendall(b"x")
    turn(2)
    peer.close()


def held_and_timed() -> None:
    recorder = Recorder()
    conn, peer = pair(recorder)
    conn.set_watermarks(read_low=3, read_high=5)
    conn.set_timeouts(read=0.001, write=0.001)
    conn.disable(READ | WRITE)
    conn.set_single_limits(read=2, write=2)
    conn.enqueue(b"some bytes")
    peer.sendall(b"some bytes")
    turn(2)
    conn.enable(READ | WRITE)
    conn.trigger(READ | WRITE, ignore_watermarks=True)
    turn(3)
    for wrong in ({"read_high": 0}, {"read_low": 9}, {"write_low": 1 << 40}):
        with pytest.raises(ValueError, match=r"mark|least"):
            conn.set_watermarks(**wrong)
    with pytest.raises(ValueError, match="negative"):
        conn.set_timeouts(read=-1)
    conn.close()
    peer.close()
    turn(1)
    assert recorder.log[-1] == "close"


def connected() -> None:
    listener = pycoronet.listen(("127.0.0.1", 0))
    recorder = Recorder()
    conn = sk_conn(socket.socket())
    conn.set_timeouts(write=5)
    conn.set_callbacks(recorder)
    conn.enqueue(b"queued")
    conn.connect(listener.getsockname())
    with listener.accept()[0] as accepted:
        assert accepted.read(6) == b"queued"
    while "close" not in recorder.log:
        turn(1)
    address = listener.getsockname()
    listener.close()
    refused, left_alone = Recorder(), Recorder()
    conn = sk_conn(socket.socket())
    conn.set_callbacks(refused)
    conn.connect(address)
    while "close" not in refused.log:
        turn(1)
    conn = sk_conn(socket.socket())
    conn.set_callbacks(left_alone)
    conn.connect(address)
    conn.abort()
    turn(1)
    assert left_alone.log == ["close"]


CASES = [
    held_and_timed,
    connected,
    echoed,
    lines,
    many_ends,
    failing,
    refused,
    replaced,
    accepted,
    paused,
    starved,
    timed,
    handed_over,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_nothing_stays_behind(case: Callable[[], None]) -> None:
    check_rounds(case, types=TYPES, counted=[Protocol])


def test_closing_the_hub_with_open_callbacks_frees_all_of_them() -> None:
    objects = count_objects(TYPES)
    peers = []
    for _ in range(ROUNDS):
        peers.append(pair(Recorder)[1])
        get_hub().call_later(1000, print)
    get_hub().close()
    for peer in peers:
        peer.close()
    assert count_objects(TYPES) == objects
