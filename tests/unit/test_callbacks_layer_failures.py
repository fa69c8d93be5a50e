"""Layers that fail under callbacks, or do what they may not do: who is told, and how often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from connections import Ends, attempt, drain_now, fill, receive
from layer_case import Failing, watch
from recorders import Recorder, turn

import pycoronet
from pycoronet import ClosedError, TransportLayer, get_hub, spawn
from pycoronet.layers import Tee

pytestmark = pytest.mark.usefixtures("virtual_hub")


# --- Failures ------------------------------------------------------------------------------------


class Fails(Failing):
    """Raises one and the same exception."""

    def __init__(self, *methods: str) -> None:
        super().__init__(*methods)
        self.exception = ZeroDivisionError("by the layer")

    def _fail(self, *arguments: object) -> bytes:
        raise self.exception


def check_told_once(recorder: Recorder, layer: Fails, log: list[str]) -> None:
    turn()
    assert recorder.log == [*log, "error", "close"]
    assert recorder.errors[0] is layer.exception
    assert layer.cleared == 1


def test_unwrap_that_raises(ends: Ends, reports: list[Any]) -> None:
    conn, peer = ends.pair()
    layer = Fails("unwrap")
    recorder = watch(conn, layer)
    peer.sendall(b"x")
    check_told_once(recorder, layer, [])
    assert peer.recv(1) == b""
    assert reports == []


def test_unwrap_that_raises_in_take(ends: Ends, reports: list[Any]) -> None:
    """The method that took is not to blame, and what it raises is no news."""

    class Second(Fails):
        def unwrap(self, data: bytes) -> bytes:
            return data if data == b"1" else self._fail()

    def take_two(conn: Any) -> None:
        assert conn.take(10) == b"1"
        peer.sendall(b"2")
        conn.take(10)

    conn, peer = ends.pair()
    layer = Second()
    recorder = watch(conn, layer, takes=False, data=take_two)
    peer.sendall(b"1")
    check_told_once(recorder, layer, ["data"])
    assert reports == []


def test_unwrap_that_raises_and_a_method_that_goes_on(ends: Ends, reports: list[Any]) -> None:
    def go_on(conn: Any) -> None:
        with pytest.raises(ZeroDivisionError):
            conn.push_layer(layer)
        with pytest.raises(ZeroDivisionError):
            conn.write(b"x")
        with pytest.raises(ZeroDivisionError):
            conn.close()

    conn, peer = ends.pair()
    layer = Fails("unwrap")
    recorder = watch(conn, takes=False, data=go_on)
    peer.sendall(b"x")
    check_told_once(recorder, layer, ["data"])
    with pytest.raises(ClosedError):
        conn.write(b"x")
    conn.close()
    assert reports == []


def test_closing_again_in_on_error_raises_nothing(ends: Ends, reports: list[Any]) -> None:
    conn, peer = ends.pair()
    layer = Fails("unwrap")
    recorder = watch(conn, layer, error=lambda conn: conn.close())
    peer.sendall(b"x")
    check_told_once(recorder, layer, [])
    assert reports == []


@pytest.mark.parametrize("method", ["wrap", "finish"])
def test_what_a_method_wrote_cannot_be_wrapped(ends: Ends, reports: list[Any], method: str) -> None:
    def write(conn: Any) -> None:
        conn.write(b"y")
        if method == "finish":
            conn.pop_layer()

    conn, peer = ends.pair()
    layer = Fails(method)
    recorder = watch(conn, layer, data=write)
    peer.sendall(b"x")
    check_told_once(recorder, layer, ["data"])
    assert reports == []


def test_wrap_that_raises_as_an_event_sends(ends: Ends) -> None:
    conn, peer = ends.pair()
    fill(conn)
    layer = Fails("wrap")
    recorder = watch(conn, layer)
    turn()
    conn.enqueue(b"y")
    turn()
    assert recorder.log == []
    while drain_now(peer):
        pass
    check_told_once(recorder, layer, [])


def test_wrap_that_raises_as_a_task_parks(ends: Ends) -> None:
    conn, _ = ends.pair()
    layer = Fails("wrap")
    recorder = watch(conn, layer)
    conn.enqueue(b"y")
    check_told_once(recorder, layer, [])


def test_wrap_that_raises_to_a_writing_task(ends: Ends) -> None:
    conn, _ = ends.pair()
    layer = Fails("wrap")
    recorder = watch(conn, layer)
    assert spawn(attempt, conn.write, b"y").get() is layer.exception
    check_told_once(recorder, layer, [])


def test_finish_that_raises_in_a_method_that_closes(ends: Ends, reports: list[Any]) -> None:
    conn, peer = ends.pair()
    layer = Fails("finish")
    recorder = watch(conn, layer, data=lambda conn: conn.close())
    peer.sendall(b"x")
    check_told_once(recorder, layer, ["data"])
    assert reports == []


def test_finish_that_raises_as_the_rest_is_sent(ends: Ends) -> None:
    conn, peer = ends.pair()
    fill(conn)
    layer = Fails("finish")
    recorder = watch(conn, layer)
    conn.enqueue(b"rest")
    conn.close()
    turn()
    assert recorder.log == []
    while drain_now(peer):
        pass
    check_told_once(recorder, layer, [])


def test_finish_that_raises_at_shutdown(ends: Ends) -> None:
    conn, _ = ends.pair()
    layer = Fails("finish")
    recorder = watch(conn, layer)
    get_hub().stop()
    get_hub().run()
    check_told_once(recorder, layer, ["shutdown"])


def test_started_that_raises_in_on_open(listener: Any, dial: Any, reports: list[Any]) -> None:
    layer = Fails("started")
    recorder = Recorder(open=lambda conn: conn.push_layer(layer))
    listener.set_callbacks(recorder)
    peer = dial()
    check_told_once(recorder, layer, ["open"])
    assert peer.recv(1) == b""
    assert reports == []


def test_failure_is_told_before_its_last_words_have_left(ends: Ends) -> None:
    class Alert(Fails):
        def unwrap(self, data: bytes) -> bytes:
            self.emit(b"alert")
            return self._fail()

    conn, peer = ends.pair()
    taken = fill(conn)
    layer = Alert()
    conn.push_layer(layer)
    recorder = Recorder(takes=False)
    conn.set_callbacks(recorder, receive=False)
    peer.sendall(b"x")
    turn()
    recorder.log.clear()
    with pytest.raises(ZeroDivisionError):
        conn.take(1)
    turn()
    assert recorder.log == ["error"]
    assert receive(peer, taken + 5)[taken:] == b"alert"
    check_told_once(recorder, layer, [])


# --- What layers' code may not do, and what it may -----------------------------------------------


class Runs(TransportLayer):
    """Has unwrap() or wrap() do something else."""

    def __init__(self, method: str, function: Callable[[], object]) -> None:
        self.function = function
        setattr(self, method, self.run)

    def run(self, data: bytes) -> bytes:
        self.function()
        return data


@pytest.mark.parametrize("method", ["wrap", "unwrap"])
def test_layers_may_not_wait(ends: Ends, method: str) -> None:
    conn, peer = ends.pair()
    layer = Runs(method, lambda: pycoronet.sleep(1))
    recorder = watch(conn, layer, data=lambda conn: conn.write(b"y"))
    peer.sendall(b"x")
    turn()
    assert recorder.log[-2:] == ["error", "close"]
    assert isinstance(recorder.errors[0], RuntimeError)


@pytest.mark.parametrize("name", ["take", "take_line", "read", "push_layer", "pop_layer"])
def test_layers_may_not_use_their_own_connection(ends: Ends, name: str) -> None:
    arguments = {"take": [10], "read": [10], "push_layer": [Tee()]}.get(name, [])
    conn, peer = ends.pair()
    layer = Runs("unwrap", lambda: getattr(conn, name)(*arguments))
    recorder = watch(conn, layer)
    peer.sendall(b"x")
    turn()
    assert recorder.log == ["error", "close"]
    with pytest.raises(RuntimeError, match="may not use the connection"):
        raise recorder.errors[0]


def test_layer_that_closes_is_no_failure(ends: Ends) -> None:
    conn, peer = ends.pair()
    recorder = watch(conn, Runs("unwrap", lambda: conn.close()))
    peer.sendall(b"x")
    turn()
    assert recorder.log == ["close"]


@pytest.mark.parametrize("receives", [True, False])
def test_layer_that_gives_other_callbacks(ends: Ends, receives: bool) -> None:
    other = Recorder()

    def change() -> None:
        if conn.callbacks is first:
            conn.set_callbacks(None)
            conn.set_callbacks(other, receive=receives)

    conn, peer = ends.pair()
    first = watch(conn, Runs("unwrap", change))
    peer.sendall(b"x")
    turn()
    assert first.log == []
    assert (other.log, other.received) == (["data"], b"x")


@pytest.mark.parametrize("method", ["wrap", "unwrap"])
def test_layer_that_ends_the_callbacks(ends: Ends, method: str) -> None:
    conn, peer = ends.pair()
    layer = Runs(method, lambda: conn.set_callbacks(None))
    recorder = watch(conn, layer, data=lambda conn: conn.write(b"y"))
    peer.sendall(b"x")
    turn()
    assert conn.callbacks is None
    assert recorder.log == (["data"] if method == "wrap" else [])
    if method == "wrap":
        peer.sendall(b"x")
    assert conn.recv(10) == b"x"


def test_layers_that_close_each_other_when_all_are_aborted(ends: Ends) -> None:
    class Closes(TransportLayer):
        def on_clear(self) -> None:
            for other in conns:
                other.abort()

    def never_mind(conn: Any) -> None:
        conn.write(b"more")
        get_hub().stop()  # a second time: nothing is waited for

    recorder = Recorder(shutdown=never_mind)
    conns = [ends.pair()[0] for _ in range(4)]
    for conn in conns:
        fill(conn)
        conn.push_layer(Closes())
        conn.set_callbacks(recorder)
    get_hub().stop()
    get_hub().run()
    assert sorted(recorder.log) == ["close"] * 4 + ["shutdown"] * 4
