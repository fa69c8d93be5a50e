"""connect() of a connection with callbacks: on_open() or on_error() is the end of it."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from connections import Ends, open_descriptors
from recorders import Recorder, turn

import pycoronet
from pycoronet import READ, WRITE, _coronet, sleep, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")


def unconnected(ends: Ends, recorder: Recorder, family: int = socket.AF_INET) -> Any:
    conn = ends.conn(socket.socket(family))
    conn.set_callbacks(recorder)
    return conn


def refused_address() -> Any:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return closed.getsockname()


def wait_for(recorder: Recorder, event: str) -> None:
    for _ in range(1000):
        if event in recorder.log:
            return
        turn(1)
    raise AssertionError(recorder.log)


def silent_address(ends: Ends) -> Any:
    """Return where a connect neither succeeds nor fails: a listener whose queue is full."""
    server = ends.keep(socket.socket())
    server.bind(("127.0.0.1", 0))
    server.listen(0)
    for _ in range(3):
        client = ends.keep(socket.socket())
        client.setblocking(False)
        client.connect_ex(server.getsockname())
    return server.getsockname()


def test_on_open_is_the_end_of_connect(ends: Ends, listener: Any) -> None:
    recorder = Recorder(open=lambda conn: conn.write(b" from on_open"))
    conn = unconnected(ends, recorder)
    turn()
    assert recorder.log == []  # no peer yet is no error, and no end
    conn.connect(listener.getsockname())
    assert recorder.log == []
    wait_for(recorder, "open")
    peer = ends.keep(listener.accept()[0])
    assert peer.read(13) == b" from on_open"
    peer.write(b"answer")
    turn()
    assert recorder.log == ["open", "data"]
    assert recorder.received == b"answer"
    assert conn.getpeername() == listener.getsockname()
    peer.close()
    turn()
    assert recorder.log == ["open", "data", "eof", "close"]


def test_what_is_written_before_is_queued_until_then(ends: Ends, listener: Any) -> None:
    recorder = Recorder()
    conn = unconnected(ends, recorder)
    conn.enqueue(b"first ")
    task = spawn(conn.write, b"second ")
    turn()
    assert conn.pending == 6
    assert not task.done
    conn.connect(listener.getsockname())
    conn.enqueue(b"third")
    wait_for(recorder, "open")
    peer = ends.keep(listener.accept()[0])
    assert peer.read(18) == b"first second third"
    assert task.get() == 7
    turn()
    assert recorder.log == ["open", "ready"]


def test_a_refused_connect_is_an_error_of_writing(ends: Ends) -> None:
    recorder = Recorder()
    conn = unconnected(ends, recorder)
    conn.enqueue(b"lost")
    conn.connect(refused_address())
    wait_for(recorder, "close")
    assert recorder.log == ["error", "close"]
    assert isinstance(recorder.errors[0], ConnectionRefusedError)
    assert recorder.directions == [WRITE]


@pytest.mark.parametrize("timeouts", ["both", "write", "shorter"])
def test_a_connect_that_takes_too_long(ends: Ends, timeouts: str) -> None:
    recorder = Recorder()
    conn = unconnected(ends, recorder)
    if timeouts != "write":
        conn.settimeout(5 if timeouts == "both" else 50)
    if timeouts != "both":
        conn.set_timeouts(write=5)
    sleep(4)
    recorder.log.clear()
    conn.connect(silent_address(ends))  # its time begins here
    sleep(4)
    if recorder.errors and not isinstance(recorder.errors[0], TimeoutError):
        pytest.skip("the system does not keep a full queue's clients waiting")
    assert recorder.log == []
    sleep(1.5)
    assert recorder.log == ["error", "close"]
    assert isinstance(recorder.errors[0], TimeoutError)
    assert recorder.directions[-1:] == [WRITE]


@pytest.mark.parametrize("closes", [False, True])
def test_what_was_queued_is_dropped_when_connect_takes_too_long(ends: Ends, closes: bool) -> None:
    """It lingered for 30 seconds, and left if the peer answered by then."""
    recorder = Recorder(error=lambda conn: conn.close() if closes else None)
    conn = unconnected(ends, recorder)
    given_back: list[bytes] = []
    conn.enqueue(b"queued", dealloc=given_back.append)
    conn.settimeout(5)
    conn.connect(silent_address(ends))
    sleep(5.5)
    if recorder.errors and not isinstance(recorder.errors[0], TimeoutError):
        pytest.skip("the system does not keep a full queue's clients waiting")
    assert recorder.log == ["error", "close"]
    assert conn.pending == 0
    assert given_back == [b"queued"]


def test_unix_sockets_connect_and_fail_at_once(ends: Ends, tmp_path: Path) -> None:
    path = os.path.relpath(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        recorder = Recorder()
        conn = unconnected(ends, recorder, socket.AF_UNIX)
        conn.enqueue(b"queued")
        conn.connect(path)
        assert recorder.log == []
        turn()
        # In hard mode enqueue() gives way, so that it could not be sent at once.
        assert recorder.log == (["open", "ready"] if _coronet.HARD_MODE else ["open"])
        peer, _ = server.accept()
        assert ends.keep(peer).recv(10) == b"queued"
    Path(path).unlink()
    missing = Recorder()
    unconnected(ends, missing, socket.AF_UNIX).connect(path)
    turn()
    assert missing.log == ["error", "close"]
    assert isinstance(missing.errors[0], FileNotFoundError)
    assert missing.directions == [WRITE]


def test_connecting_twice(ends: Ends, listener: Any) -> None:
    recorder = Recorder()
    conn = unconnected(ends, recorder)
    conn.connect(listener.getsockname())
    wait_for(recorder, "open")
    with pytest.raises(OSError, match=os.strerror(errno.EISCONN)):
        conn.connect(listener.getsockname())
    conn.write(b"still here")
    assert ends.keep(listener.accept()[0]).read(10) == b"still here"
    assert recorder.log == ["open"]


def test_connecting_inside_a_callback(ends: Ends, listener: Any) -> None:
    recorder = Recorder()
    conn = unconnected(ends, recorder)
    pycoronet.get_hub().call_soon(conn.connect, listener.getsockname())
    wait_for(recorder, "open")


def test_disabled_directions_stay_so(ends: Ends, listener: Any) -> None:
    recorder = Recorder()
    conn = unconnected(ends, recorder)
    conn.disable(READ | WRITE)
    conn.enqueue(b"held")
    conn.connect(listener.getsockname())
    wait_for(recorder, "open")
    assert conn.pending == 4
    conn.enable(READ | WRITE)
    assert ends.keep(listener.accept()[0]).read(4) == b"held"


@pytest.mark.parametrize("begun", [False, True])
def test_without_callbacks_it_is_as_ever(ends: Ends, listener: Any, begun: bool) -> None:
    recorder = Recorder()
    conn = unconnected(ends, recorder)
    if begun:
        conn.connect(listener.getsockname())
    conn.set_callbacks(None)
    if not begun:
        conn.connect(listener.getsockname())
    conn.write(b"by a task")
    assert ends.keep(listener.accept()[0]).read(9) == b"by a task"
    assert recorder.log == []


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("end", ["close", "abort"])
def test_closing_before_the_end(ends: Ends, end: str, begun: bool) -> None:
    turn()  # the hub has all its own
    before = open_descriptors()
    recorder = Recorder()
    conn = unconnected(ends, recorder)
    if begun:
        conn.connect(refused_address())
    getattr(conn, end)()
    turn()
    assert recorder.log == ["close"]
    assert open_descriptors() == before


@pytest.mark.parametrize("action", ["close", "replace", "write", "raise"])
def test_on_open_may_do_anything(
    ends: Ends, listener: Any, reports: list[Any], action: str
) -> None:
    second = Recorder()
    actions = {
        "close": lambda conn: conn.close(),
        "replace": lambda conn: conn.set_callbacks(second),
        "write": lambda conn: conn.write(b"hello"),
        "raise": lambda conn: 1 // 0,
    }
    recorder = Recorder(open=actions[action])
    conn = unconnected(ends, recorder)
    conn.connect(listener.getsockname())
    wait_for(recorder, "open")
    peer = ends.keep(listener.accept()[0])
    if action == "write":
        assert peer.read(5) == b"hello"
    elif action == "replace":
        peer.write(b"data")
        turn()
        assert second.received == b"data"
    else:
        assert peer.recv(10) == b""
        assert recorder.log == ["open", *(["error"] if action == "raise" else []), "close"]
        assert len(reports) == (action == "raise")
    del conn
