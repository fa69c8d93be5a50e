"""What callbacks may do, what they may not, and what set_callbacks() refuses."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
from connections import Ends, drain_now, fill
from recorders import Recorder, queue_some, raise_error, told, turn

import pycoronet
from pycoronet import BusyError, ClosedError, Protocol, current, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")

STREAMS = ["unix", "tcp"]


# --- What callbacks may do -----------------------------------------------------------------------


@pytest.mark.parametrize("event", ["data", "eof", "timeout", "shutdown", "ready"])
def test_a_callback_that_raises(ends: Ends, reports: list[Any], event: str) -> None:
    conn, peer = ends.pair()
    recorder = Recorder(**{event: raise_error})
    conn.settimeout(1)
    conn.set_callbacks(recorder)
    if event == "data":
        peer.sendall(b"x")
    elif event == "eof":
        peer.shutdown(socket.SHUT_WR)
    elif event == "timeout":
        pycoronet.sleep(2)
    elif event == "shutdown":
        pycoronet.get_hub().stop()
        pycoronet.get_hub().run()
    else:
        fill(conn)
        queue_some(conn)
        turn()
        while drain_now(peer):
            turn(1)
    turn()
    assert recorder.log[-3:] == [event, "error", "close"]
    assert isinstance(recorder.errors[0], ZeroDivisionError)
    assert [type(error) for error in reports] == [ZeroDivisionError]


def test_on_error_and_on_close_that_raise(ends: Ends, reports: list[Any]) -> None:
    conn, peer = ends.pair()
    recorder = Recorder(data=raise_error, error=raise_error, close=raise_error)
    conn.set_callbacks(recorder)
    peer.sendall(b"x")
    turn()
    assert recorder.log == ["data", "error", "close"]
    assert len(reports) == 3
    assert conn.closed


def test_what_on_error_writes_is_still_sent(ends: Ends, reports: list[Any]) -> None:
    conn, peer = ends.pair()
    conn.set_callbacks(Recorder(data=raise_error, error=lambda conn: conn.write(b"500")))
    peer.sendall(b"x")
    turn()
    assert peer.recv(100) == b"500"
    assert peer.recv(100) == b""
    assert len(reports) == 1


def test_an_interrupt_in_a_callback_is_the_main_programs(ends: Ends) -> None:
    conn, peer = ends.pair()

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    recorder = Recorder(data=interrupt)
    conn.set_callbacks(recorder)
    peer.sendall(b"x")
    with pytest.raises(KeyboardInterrupt):
        turn()
    assert not conn.closed
    assert recorder.log == ["data"]


@pytest.mark.parametrize("how", ["close", "abort"])
def test_a_callback_that_closes(ends: Ends, how: str) -> None:
    conn, peer = ends.pair()
    recorder = Recorder(data=lambda conn: getattr(conn, how)())
    conn.set_callbacks(recorder)
    peer.sendall(b"x" * 100)
    turn()
    assert recorder.log == ["data", "close"]
    with pytest.raises(ClosedError):
        conn.take(1)


def test_a_callback_that_sets_other_callbacks(ends: Ends) -> None:
    conn, peer = ends.pair()
    second = Recorder()
    first = Recorder(takes=False, data=lambda conn: conn.set_callbacks(second))
    conn.set_callbacks(first)
    peer.sendall(b"for the second")
    turn()
    assert conn.callbacks is second
    assert first.log == ["data"]
    assert second.log == ["data"]
    assert second.received == b"for the second"
    conn.close()
    turn()
    assert first.log == ["data"]
    assert second.log == ["data", "close"]


def test_a_callback_that_ends_the_callbacks(ends: Ends) -> None:
    conn, peer = ends.pair()
    lines = []

    def hand_over(conn: Any) -> None:
        conn.set_callbacks(None)
        spawn(lambda: lines.append(conn.readln()))

    recorder = Recorder(takes=False, data=hand_over)
    conn.set_callbacks(recorder)
    peer.sendall(b"a line\nmore")
    turn()
    assert lines == [b"a line\n"]
    assert conn.recv(10) == b"more"
    conn.close()
    turn()
    assert recorder.log == ["data"]


def test_setting_callbacks_by_turns_while_one_runs(ends: Ends) -> None:
    conn, peer = ends.pair()
    second = Recorder()

    def juggle(conn: Any) -> None:
        for _ in range(5):
            conn.set_callbacks(None)
            conn.set_callbacks(Recorder())
            conn.set_callbacks(second, receive=False)
        conn.set_callbacks(second)

    conn.set_callbacks(Recorder(takes=False, data=juggle))
    peer.sendall(b"x")
    turn()
    assert second.received == b"x"
    conn.close()
    turn()
    assert second.log[-1] == "close"


@pytest.mark.parametrize("verb", ["recv", "readln", "read_exactly", "sleep", "join", "accept"])
def test_a_callback_that_would_wait(ends: Ends, verb: str) -> None:
    conn, peer = ends.pair()
    listener = ends.keep(pycoronet.listen(("127.0.0.1", 0)))
    task = spawn(pycoronet.sleep, 1000)
    errors = []
    calls: dict[str, Callable[[Any], object]] = {
        "recv": lambda conn: conn.recv(1),
        "readln": lambda conn: conn.readln(),
        "read_exactly": lambda conn: conn.read_exactly(10),
        "sleep": lambda conn: pycoronet.sleep(1),
        "join": lambda conn: task.join(),
        "accept": lambda conn: listener.accept(),
    }

    def wait(conn: Any) -> None:
        conn.take(100)
        try:
            calls[verb](conn)
        except RuntimeError as error:
            errors.append(str(error))

    recorder = Recorder(takes=False, data=wait)
    conn.set_callbacks(recorder)
    peer.sendall(b"x")
    turn()
    (message,) = errors
    assert f"{verb} would have to wait" in message
    assert "spawn()" in message
    assert ("take()" in message) == (verb.startswith(("re", "reco")))
    assert recorder.log == ["data"]
    task.cancel()


def test_a_callback_that_spawns(ends: Ends) -> None:
    conn, peer = ends.pair()

    def answer() -> None:
        assert current() is not None
        pycoronet.sleep(5)
        conn.sendall(b"later")

    conn.set_callbacks(Recorder(data=lambda conn: spawn(answer)))
    peer.sendall(b"x")
    pycoronet.sleep(6)
    assert drain_now(peer) == b"later"


def test_switches_are_none_in_a_hub_of_callbacks_alone(ends: Ends) -> None:
    hub = pycoronet.get_hub()
    left, left_peer = ends.pair()
    right = ends.conn(left_peer.dup())
    counts = []

    def volley(conn: Any) -> None:
        counts.append(hub.switch_count)
        if len(counts) == 1000:
            hub.stop()
        conn.write(conn.take(100))

    for conn in (left, right):
        conn.set_callbacks(Recorder(takes=False, data=volley))
    left.write(b"ball")
    hub.run()
    assert counts[-1] - counts[0] == 0


# --- What set_callbacks refuses ------------------------------------------------------------------


class Deficient:
    def on_data(self, conn: Any) -> None: ...

    on_close = 5


def test_a_protocol_without_the_methods_is_refused(ends: Ends) -> None:
    conn, _ = ends.pair()
    for wrong in (Deficient(), Deficient, lambda: Deficient()):
        with pytest.raises(TypeError) as caught:
            conn.set_callbacks(wrong)
        assert "on_open, on_ready, on_eof" in str(caught.value)
        assert "on_data" not in str(caught.value)
        assert "on_close" in str(caught.value)
        assert "pycoronet.Protocol" in str(caught.value)
    for wrong in (5, b"x", object()):
        with pytest.raises(TypeError, match="no method on_open, on_data"):
            conn.set_callbacks(wrong)
    for call in (
        lambda: conn.set_callbacks(),
        lambda: conn.set_callbacks(Recorder(), False),
        lambda: conn.set_callbacks(Recorder(), nonsense=1),
    ):
        with pytest.raises(TypeError):
            call()
    assert conn.callbacks is None


def test_a_factory_that_raises_or_closes(ends: Ends) -> None:
    conn, _ = ends.pair()
    with pytest.raises(ZeroDivisionError):
        conn.set_callbacks(lambda: raise_error())

    def close() -> Recorder:
        conn.close()
        return Recorder()

    with pytest.raises(ClosedError):
        conn.set_callbacks(close)


def test_a_class_makes_one_object(ends: Ends) -> None:
    conn, _ = ends.pair()
    conn.set_callbacks(Recorder)
    assert isinstance(conn.callbacks, Recorder)
    assert isinstance(conn.callbacks, Protocol)


def test_callbacks_beside_a_task_that_reads_are_refused(ends: Ends) -> None:
    conn, peer = ends.pair()
    reader = spawn(conn.recv, 10)
    turn()
    with pytest.raises(BusyError, match="recv"):
        conn.set_callbacks(Recorder())
    peer.sendall(b"x")
    assert reader.get() == b"x"
    recorder = Recorder()
    conn.set_callbacks(recorder)
    for call in (lambda: conn.recv(1), conn.readln, lambda: conn.recvfrom(1)):
        with pytest.raises(BusyError, match="set_callbacks"):
            call()
    conn.set_callbacks(None)
    conn.set_callbacks(None)
    peer.sendall(b"y")
    assert conn.recv(1) == b"y"
    assert recorder.log == []


def test_only_telling_leaves_everything_to_the_user(ends: Ends) -> None:
    conn, peer = ends.pair("tcp")
    recorder = Recorder(takes=False)
    conn.set_callbacks(recorder, receive=False)
    peer.sendall(b"abc")
    turn(5)
    assert told(recorder.log) == ["data"]
    with socket.socket(fileno=os.dup(conn.fileno())) as raw:
        assert raw.recv(2) == b"ab"
        recorder.log.clear()
        peer.sendall(b"d")
        turn()
        assert told(recorder.log) == ["data"]
        peer.close()
        turn(5)
        assert "eof" not in recorder.log  # something is unread still
        recorder.actions["data"] = lambda conn: raw.recv(1)
    conn.close()
    turn()
    assert recorder.log[-1] == "close"


@pytest.mark.parametrize("kind", ["unix", "tcp", "pipe"])
def test_the_end_is_told_where_the_user_receives(ends: Ends, kind: str) -> None:
    conn, send, finish = ends.reading(kind)
    got = []
    recorder = Recorder(takes=False, data=lambda conn: got.append(os.read(conn.fileno(), 2)))
    conn.set_callbacks(recorder, receive=False)
    send(b"abcde")
    turn()
    assert told(recorder.log) == ["data"]
    assert got[0] == b"ab"
    finish()
    turn(6)
    # One call for the hang-up, and more as long as each leaves less.
    assert b"".join(got) == b"abcde"
    assert recorder.log[-2:] == ["eof", "close"]
