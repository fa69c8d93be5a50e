"""Listeners with callbacks: accepting, factories, shortages."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

import pytest
from recorders import Recorder, raise_error, turn

import pycoronet
from pycoronet import READ, get_hub, spawn

HOST = "127.0.0.1"
pytestmark = pytest.mark.usefixtures("virtual_hub")


# --- Accepting -----------------------------------------------------------------------------------


def test_one_object_serves_all_connections(listener: Any, dial: Any) -> None:
    echo = Recorder(data=lambda conn: conn.write(echo.received))
    listener.set_callbacks(echo)
    peers = [dial() for _ in range(3)]
    turn()
    assert echo.log == ["open"] * 3
    peers[1].sendall(b"hello")
    turn()
    assert peers[1].recv(10) == b"hello"
    for peer in peers:
        peer.close()
    turn()
    assert sorted(echo.log) == ["close"] * 3 + ["data"] + ["eof"] * 3 + ["open"] * 3
    assert not listener.closed


@pytest.mark.parametrize("is_class", [True, False])
def test_a_factory_makes_an_object_for_each_connection(
    listener: Any, dial: Any, is_class: bool
) -> None:
    made: list[Recorder] = []

    class Noted(Recorder):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    listener.set_callbacks(Noted if is_class else lambda: Noted())
    assert made == []
    first, second = dial(), dial()
    turn()
    assert [one.log for one in made] == [["open"], ["open"]]
    second.sendall(b"2")
    turn()
    assert sorted(one.received for one in made) == [b"", b"2"]
    first.close()


def test_what_is_queued_before_is_accepted_and_more_than_one_turn_takes(
    listener: Any, dial: Any
) -> None:
    peers = [dial() for _ in range(150)]
    recorder = Recorder()
    listener.set_callbacks(recorder)
    turn(6)
    assert recorder.log == ["open"] * 150
    assert len(peers) == 150


def test_on_open_may_write_and_close(listener: Any, dial: Any) -> None:
    def greet(conn: Any) -> None:
        conn.write(b"go away\n")
        conn.close()

    recorder = Recorder(open=greet)
    listener.set_callbacks(recorder)
    peer = dial()
    turn()
    assert peer.recv(100) == b"go away\n"
    assert peer.recv(100) == b""
    assert recorder.log == ["open", "close"]


def test_on_open_that_raises_and_that_lets_go(listener: Any, dial: Any, reports: list[Any]) -> None:
    recorder = Recorder(open=raise_error)
    listener.set_callbacks(recorder)
    peer = dial()
    turn()
    assert recorder.log == ["open", "error", "close"]
    assert peer.recv(100) == b""
    assert len(reports) == 1

    def hand_over(conn: Any) -> None:
        conn.set_callbacks(None)
        spawn(lambda: (conn.sendall(b"from a task"), conn.close()))

    recorder.actions["open"] = hand_over
    peer = dial()
    turn()
    assert peer.recv(100) == b"from a task"
    assert recorder.log == ["open", "error", "close", "open"]


class Deficient:
    def on_data(self, conn: Any) -> None: ...


@pytest.mark.parametrize("factory", [raise_error, Deficient], ids=["raises", "deficient"])
def test_a_factory_that_fails_costs_only_its_connection(
    listener: Any, dial: Any, reports: list[Any], factory: Any
) -> None:
    listener.set_callbacks(lambda: factory())
    peer = dial()
    turn()
    assert peer.recv(10) == b""
    (error,) = reports
    assert isinstance(error, ZeroDivisionError if factory is raise_error else TypeError)
    recorder = Recorder()
    listener.set_callbacks(recorder)
    peer = dial()
    turn()
    assert recorder.log == ["open"]


def test_closing_the_listener_from_a_callback(listener: Any, dial: Any) -> None:
    recorder = Recorder(open=lambda conn: listener.close())
    listener.set_callbacks(recorder)
    peers = [dial(), dial(), dial()]
    turn()
    assert recorder.log == ["open"]
    assert listener.closed
    peers[0].close()
    turn()
    assert recorder.log == ["open", "eof", "close"]


def test_a_listener_gives_its_connections_back_to_accept(listener: Any, dial: Any) -> None:
    recorder = Recorder()
    listener.set_callbacks(recorder)
    turn()
    listener.set_callbacks(None)
    peer = dial()
    turn()
    conn, _ = listener.accept()
    with conn:
        conn.sendall(b"accepted")
        assert peer.recv(10) == b"accepted"
    assert recorder.log == []


def test_only_telling_of_connections(listener: Any, dial: Any) -> None:
    accepted: list[Any] = []
    recorder = Recorder(takes=False, data=lambda conn: accepted.append(conn.accept()[0]))
    listener.set_callbacks(recorder, receive=False)
    turn()
    assert accepted == []
    peers = [dial(), dial()]
    turn(5)
    for conn in accepted:
        conn.close()
    # By edges: what is left in the queue is not told of again.
    assert recorder.log == ["data"] * len(accepted)
    assert 1 <= len(accepted) <= 2
    listener.close()
    turn()
    assert recorder.log[-1] == "close"
    assert len(peers) == 2


def test_running_out_of_descriptors_pauses_accepting(
    listener: Any, dial: Any, few_descriptors: Callable[[int], None]
) -> None:
    recorder = Recorder()
    listener.set_callbacks(recorder)
    turn()  # the hub has what it needs
    peers = [dial() for _ in range(3)]
    few_descriptors(1)
    hub = get_hub()
    start = hub.time
    turn()
    assert recorder.log == ["open"]
    # It rests: the time in which it could have turned for ever passes in one go.
    pycoronet.sleep(10)
    assert recorder.log == ["open"]
    assert hub.time - start < 11
    assert hub.switch_count < 100
    few_descriptors(100)
    pycoronet.sleep(0.2)
    assert recorder.log == ["open"] * 3
    assert len(peers) == 3


class Notes:
    """An on_accept_error: writes down what it is told, and then does as it is told."""

    def __init__(self, action: Callable[[Any], object] = lambda _: None) -> None:
        self.errors: list[Exception] = []
        self.action = action

    def __call__(self, listener: Any, error: Exception) -> None:
        assert pycoronet.current() is None
        self.errors.append(error)
        self.action(listener)


def test_a_shortage_is_told_once_for_each_rest(
    listener: Any, dial: Any, few_descriptors: Callable[[int], None], reports: list[Any]
) -> None:
    recorder, notes = Recorder(), Notes()
    listener.set_callbacks(recorder, on_accept_error=notes)
    turn()
    assert len([dial() for _ in range(3)]) == 3
    few_descriptors(1)
    turn()
    assert recorder.log == ["open"]
    (error,) = notes.errors
    assert isinstance(error, OSError)
    assert error.errno == errno.EMFILE
    assert listener.error == errno.EMFILE
    pycoronet.sleep(1)
    assert 8 <= len(notes.errors) <= 11
    few_descriptors(100)
    pycoronet.sleep(0.2)
    assert recorder.log == ["open"] * 3
    assert reports == []


@pytest.mark.parametrize("way", ["close", "set_callbacks", "replace", "disable"])
def test_on_accept_error_may_end_the_accepting(
    listener: Any, dial: Any, few_descriptors: Callable[[int], None], way: str
) -> None:
    recorder, later = Recorder(), Notes()
    notes = Notes(
        {
            "close": lambda listener: listener.close(),
            "set_callbacks": lambda listener: listener.set_callbacks(None),
            "replace": lambda listener: listener.set_callbacks(recorder, on_accept_error=later),
            "disable": lambda listener: listener.disable(READ),
        }[way]
    )
    listener.set_callbacks(recorder, on_accept_error=notes)
    turn()
    peer = dial()
    few_descriptors(0)
    pycoronet.sleep(1)
    assert len(notes.errors) == 1
    assert (len(later.errors) > 5) is (way == "replace")
    few_descriptors(100)
    pycoronet.sleep(1)
    assert recorder.log == (["open"] if way == "replace" else [])
    assert listener.closed is (way == "close")
    if way == "disable":
        listener.enable(READ)
        pycoronet.sleep(1)
        assert recorder.log == ["open"]
    peer.close()


@pytest.mark.parametrize("way", ["enable", "accept_limit"])
def test_resuming_does_not_cut_a_shortage_short(
    listener: Any, dial: Any, few_descriptors: Callable[[int], None], way: str
) -> None:
    def pause_and_resume(listener: Any) -> None:
        if way == "enable":
            listener.disable(READ)
            listener.enable(READ)
        else:
            listener.accept_limit = 0
            listener.accept_limit = 5

    polls = 0

    def count() -> None:
        nonlocal polls
        polls += 1
        if polls == 1000:
            listener.close()  # no time passes any more

    recorder, notes = Recorder(), Notes(pause_and_resume)
    listener.set_callbacks(recorder, on_accept_error=notes)
    listener.settimeout(0.001)  # nor is it what a rest takes
    turn()
    peer = dial()
    few_descriptors(0)
    hook = get_hub().add_hook(check=count)
    pycoronet.sleep(1.05)
    hook.cancel()
    assert len(notes.errors) == 11  # at once, and then each 0.1 s
    assert polls < 100
    few_descriptors(100)
    pycoronet.sleep(0.2)
    assert recorder.log == ["open"]
    peer.close()


def test_on_accept_error_that_raises_is_reported_and_accepting_goes_on(
    listener: Any, dial: Any, few_descriptors: Callable[[int], None], reports: list[Any]
) -> None:
    recorder, notes = Recorder(), Notes(raise_error)
    listener.set_callbacks(recorder, on_accept_error=notes)
    turn()
    peer = dial()
    few_descriptors(0)
    pycoronet.sleep(0.25)
    assert 1 < len(notes.errors) == len(reports)
    assert all(isinstance(error, ZeroDivisionError) for error in reports)
    few_descriptors(100)
    pycoronet.sleep(0.2)
    assert recorder.log == ["open"]
    peer.close()


def test_a_listener_that_breaks_tells_its_callback_and_is_closed(
    listener: Any, reports: list[Any]
) -> None:
    notes = Notes(lambda listener: states.append(listener.closed))
    states: list[bool] = []
    listener.set_callbacks(Recorder(), on_accept_error=notes)
    turn()
    listener.shutdown(socket.SHUT_RDWR)
    turn()
    (error,) = notes.errors
    assert isinstance(error, OSError)
    assert states == [False]
    assert listener.closed
    assert reports == []


def test_a_connection_that_is_lost_for_want_of_memory_is_told(
    listener: Any, dial: Any, reports: list[Any]
) -> None:
    memory = pytest.importorskip("_testcapi", reason="needs a way to let malloc fail")
    recorder = Recorder(open=lambda _: memory.set_nomemory(0, 1))
    notes = Notes(lambda _: memory.remove_mem_hooks())
    listener.set_callbacks(recorder, on_accept_error=notes)
    turn()
    peers = [dial() for _ in range(3)]
    turn()
    assert recorder.log == ["open"]
    recorder.actions.clear()
    (error,) = notes.errors
    assert isinstance(error, MemoryError)
    pycoronet.sleep(0.2)
    assert recorder.log == ["open"] * 2
    assert peers[1].recv(1) == b""  # the one that was lost
    assert reports == []


def test_what_on_accept_error_may_not_be(listener: Any, ends: Any) -> None:
    conn, _ = ends.pair()
    for target, function, options, error in [
        (listener, 5, {}, TypeError),
        (listener, print, {"receive": False}, ValueError),
        (conn, print, {}, ValueError),
    ]:
        with pytest.raises(error, match="on_accept_error"):
            target.set_callbacks(Recorder(), on_accept_error=function, **options)
        assert target.callbacks is None
    conn.set_callbacks(Recorder(), on_accept_error=None)


def test_a_listener_that_breaks_is_reported_and_closed(listener: Any, reports: list[Any]) -> None:
    recorder = Recorder()
    listener.set_callbacks(recorder)
    turn()
    listener.shutdown(socket.SHUT_RDWR)
    turn()
    assert listener.closed
    (error,) = reports
    assert isinstance(error, OSError)
    assert recorder.log == []


def test_what_was_there_before_it_was_accepted_is_served(
    listener: Any, dial: Callable[[], socket.socket]
) -> None:
    clients = [dial() for _ in range(3)]
    for client in clients[:2]:
        client.sendall(b"at once")
    clients[1].shutdown(socket.SHUT_WR)
    recorder = Recorder()
    listener.set_callbacks(recorder)
    turn()
    clients[2].sendall(b" and later")
    turn()
    assert recorder.received == b"at onceat once and later"
    assert recorder.log.count("open") == recorder.log.count("data") == 3
    assert recorder.log.count("eof") == recorder.log.count("close") == 1
    for client in clients:
        client.close()
    turn()
    assert recorder.log.count("close") == 3
