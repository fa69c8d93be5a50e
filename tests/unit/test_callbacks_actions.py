"""Each callback closes, aborts, replaces or ends its callbacks, writes, or raises, from inside."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

import pytest
from connections import MOMENT, Ends, drain_now, fill
from recorders import Recorder, queue_some, raise_error, reset, turn

import pycoronet
from pycoronet import READ, WRITE, sleep

pytestmark = pytest.mark.usefixtures("virtual_hub")


class Case:
    """A connection that is about to have one event, and what its protocol does then."""

    def __init__(self, ends: Ends, event: str, action: Callable[[Any], object]) -> None:
        self.recorder = Recorder(**{event: action})
        self.ends = ends
        self.drained = b""  # what the peer has read last
        getattr(self, event)()

    def connected(self, **options: float) -> tuple[Any, socket.socket]:
        self.conn, self.peer = self.ends.pair("tcp")
        self.conn.set_timeouts(**options)
        return self.conn, self.peer

    def open(self) -> None:
        listener = self.ends.keep(pycoronet.listen(("127.0.0.1", 0)))
        self.conn = self.ends.conn(socket.socket())
        self.conn.set_callbacks(self.recorder)
        self.conn.connect(listener.getsockname())
        accepted = self.ends.keep(listener.accept()[0])
        self.peer = self.ends.keep(socket.socket(fileno=accepted.detach()))
        turn()

    def data(self) -> None:
        conn, peer = self.connected()
        conn.set_callbacks(self.recorder)
        peer.sendall(b"x")
        turn()

    def ready(self) -> None:
        conn, peer = self.connected()
        fill(conn)
        conn.set_callbacks(self.recorder)
        queue_some(conn)
        turn()
        while piece := drain_now(peer):
            self.drained = piece
            turn(1)
        turn()

    def timeout(self) -> None:
        conn, _ = self.connected(read=1)
        conn.set_callbacks(self.recorder)
        sleep(1.5)

    def eof(self) -> None:
        conn, peer = self.connected()
        conn.set_callbacks(self.recorder)
        peer.shutdown(socket.SHUT_WR)
        turn()

    def error(self) -> None:
        conn, peer = self.connected()
        conn.set_callbacks(self.recorder)
        reset(peer)
        turn()


EVENTS = ["open", "data", "ready", "timeout", "eof", "error"]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("how", ["close", "abort"])
def test_closing(ends: Ends, event: str, how: str) -> None:
    case = Case(ends, event, lambda conn: getattr(conn, how)())
    assert case.recorder.log == [event, "close"]
    assert case.conn.fileno() == -1
    sleep(5)
    assert case.recorder.log == [event, "close"]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("back_and_forth", [False, True])
def test_replacing(ends: Ends, event: str, back_and_forth: bool) -> None:
    second = Recorder(eof=lambda conn: None)

    def replace(conn: Any) -> None:
        if back_and_forth:
            conn.set_callbacks(None)
            conn.set_callbacks(Recorder(), receive=False)
            conn.set_watermarks(read_low=1)
            conn.set_timeouts(read=None)
        conn.set_callbacks(second)

    case = Case(ends, event, replace)
    assert case.recorder.log == [event]
    # What has failed is closed. Other callbacks, set from the beginning, hear of it as well.
    assert case.conn.closed == (event == "error")
    assert ("error" in second.log) == (event == "error" and back_and_forth)
    if event not in ("eof", "error"):
        case.peer.sendall(b"for the second")
        turn()
        assert second.received.endswith(b"for the second")
    case.conn.close()
    turn()
    assert case.recorder.log == [event]
    assert second.log[-1:] == ["close"]


@pytest.mark.parametrize("event", EVENTS)
def test_ending_the_callbacks(ends: Ends, event: str) -> None:
    case = Case(ends, event, lambda conn: conn.set_callbacks(None))
    sleep(5)
    assert case.recorder.log == [event]
    assert not case.conn.closed
    if event != "error":
        case.conn.write(b"by hand")
        turn()
        assert case.peer.recv(100).endswith(b"by hand")


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("how", ["write", "enqueue", "flush", "trigger"])
def test_writing(ends: Ends, event: str, how: str) -> None:
    triggered: list[int] = []

    def act(conn: Any) -> None:
        if how == "trigger":
            if not triggered:
                triggered.append(1)
                conn.trigger(READ | WRITE, ignore_watermarks=True)
        elif how == "flush":
            conn.enqueue(b"answer")
            with contextlib.suppress(BrokenPipeError):
                conn.flush()
        else:
            getattr(conn, how)(b"answer")

    case = Case(ends, event, act)
    turn()
    if event == "error":
        # There is nobody to write to.
        assert case.recorder.log[:1] == ["error"]
        assert case.recorder.log[-1:] == ["close"]
    elif how == "trigger":
        assert {"data", "ready"} <= set(case.recorder.log)
    else:
        assert (case.drained + drain_now(case.peer)).endswith(b"answer")


@pytest.mark.parametrize("event", EVENTS)
def test_raising(ends: Ends, reports: list[Any], event: str) -> None:
    case = Case(ends, event, raise_error)
    if event == "error":
        assert case.recorder.log == ["error", "close"]
        assert case.recorder.directions == [READ]
    else:
        assert case.recorder.log == [event, "error", "close"]
        assert [type(error) for error in case.recorder.errors] == [ZeroDivisionError]
        assert case.recorder.directions[-1] == 0
    assert [type(error) for error in reports] == [ZeroDivisionError]
    assert case.conn.closed
    # The loop lives: others are served, and tasks run.
    conn, peer = ends.pair()
    other = Recorder()
    conn.set_callbacks(other)
    peer.sendall(b"alive")
    sleep(MOMENT)
    assert other.received == b"alive"


# --- Directions ----------------------------------------------------------------------------------


def test_a_reset_while_nothing_is_sent_is_an_error_of_reading(ends: Ends) -> None:
    case = Case(ends, "error", lambda conn: None)
    assert case.recorder.directions == [READ]
    assert isinstance(case.recorder.errors[0], ConnectionResetError)


def test_a_peer_that_has_gone_is_an_error_of_writing(ends: Ends) -> None:
    conn, peer = ends.pair()
    recorder = Recorder(eof=lambda conn: None)
    conn.set_callbacks(recorder)
    conn.disable(READ)
    turn()
    peer.close()
    turn()
    conn.enqueue(b"x")
    turn()
    assert recorder.log == ["error", "close"]
    assert recorder.directions == [WRITE]
    assert isinstance(recorder.errors[0], BrokenPipeError)


def test_a_layer_that_fails_is_neither(ends: Ends) -> None:
    class Failing(pycoronet.TransportLayer):
        def unwrap(self, data: bytes) -> bytes:
            raise ValueError("of the layer")

    conn, peer = ends.pair()
    conn.push_layer(Failing())
    recorder = Recorder()
    conn.set_callbacks(recorder)
    peer.sendall(b"x")
    turn()
    assert recorder.directions == [0]
    assert isinstance(recorder.errors[0], ValueError)
