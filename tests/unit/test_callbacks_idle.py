"""The idle timeouts of set_timeouts(): each direction's own, and only while it is wanted."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from connections import MOMENT, Ends, behind_full, drain_now
from recorders import Recorder, turn

from pycoronet import READ, WRITE, get_hub, sleep, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")


def idle_pair(ends: Ends, **timeouts: float) -> tuple[Any, socket.socket, Recorder]:
    conn, peer = ends.pair()
    recorder = Recorder()
    conn.set_timeouts(**timeouts)
    conn.set_callbacks(recorder)
    return conn, peer, recorder


# --- Reading -------------------------------------------------------------------------------------


def test_silence_is_told_by_its_direction_and_again(ends: Ends) -> None:
    _, peer, recorder = idle_pair(ends, read=10)
    sleep(9)
    peer.sendall(b"sign of life")
    sleep(9.5)
    assert recorder.log == ["data"]
    sleep(1)
    assert recorder.log == ["data", "timeout"]
    sleep(10)
    assert recorder.log == ["data", "timeout", "timeout"]
    assert recorder.directions == [READ, READ]


def test_what_is_sent_is_no_sign_of_the_peer(ends: Ends) -> None:
    conn, peer, recorder = idle_pair(ends, read=10)
    for _ in range(4):
        sleep(3)
        conn.write(b"anybody there?")
    assert drain_now(peer)
    assert recorder.directions == [READ]


def test_not_while_reading_is_disabled(ends: Ends) -> None:
    conn, _, recorder = idle_pair(ends, read=10)
    sleep(5)
    conn.disable(READ)
    sleep(100)
    assert recorder.log == []
    conn.enable(READ)
    sleep(9.5)
    assert recorder.log == []
    sleep(1)
    assert recorder.directions == [READ]


def test_not_while_too_much_is_held(ends: Ends) -> None:
    conn, peer, recorder = idle_pair(ends, read=10)
    recorder.takes = False
    conn.set_watermarks(read_high=4)
    peer.sendall(b"12345")
    sleep(100)
    assert recorder.log == ["data"]
    assert conn.take(4) == b"1234"
    sleep(11)
    assert recorder.log == ["data", "data", "timeout"]


def test_not_after_the_end(ends: Ends) -> None:
    conn, peer = ends.pair()
    recorder = Recorder(eof=lambda conn: None)
    conn.set_timeouts(read=10)
    conn.set_callbacks(recorder)
    peer.shutdown(socket.SHUT_WR)
    sleep(100)
    assert recorder.log == ["eof"]


def test_what_came_in_time_has_not_timed_out(ends: Ends) -> None:
    _, peer, recorder = idle_pair(ends, read=10)
    get_hub().call_later(10, peer.sendall, b"just")
    sleep(15)
    assert recorder.log in (["data"], ["timeout", "data"])
    sleep(100)
    assert recorder.directions == [READ] * len(recorder.directions)


# --- Writing -------------------------------------------------------------------------------------


def test_output_that_stands_still_is_told(ends: Ends) -> None:
    conn, peer, _ = behind_full(ends)
    recorder = Recorder()
    conn.set_timeouts(write=10)
    conn.set_callbacks(recorder)
    sleep(100)
    assert recorder.log == []  # nothing waits
    conn.enqueue(b"tail" * 1000)
    sleep(9)
    assert recorder.log == []
    peer.sendall(b"what comes does not count")
    sleep(2)
    assert recorder.log == ["data", "timeout"]
    assert recorder.directions == [WRITE]
    while drain_now(peer):
        sleep(MOMENT)
    sleep(100)
    assert recorder.log == ["data", "timeout", "ready"]


def test_each_progress_begins_the_writing_time_anew(ends: Ends) -> None:
    conn, peer, _ = behind_full(ends)
    recorder = Recorder()
    conn.set_watermarks(write_high=1 << 30)
    conn.set_timeouts(write=10)
    conn.set_callbacks(recorder)
    conn.enqueue(b"tail" * 1_000_000)
    for _ in range(5):
        sleep(9)
        before = conn.pending
        while conn.pending == before and drain_now(peer):
            sleep(MOMENT)
    assert conn.pending > 0
    assert recorder.log == []
    sleep(11)
    assert recorder.directions == [WRITE]


def test_held_output_does_not_time_out(ends: Ends) -> None:
    conn, peer, recorder = idle_pair(ends, write=10)
    conn.disable(WRITE)
    conn.enqueue(b"held")
    sleep(100)
    assert recorder.log == []
    assert drain_now(peer) == b""
    conn.enable(WRITE)
    sleep(11)
    assert recorder.log == ["ready"]


# --- Both ----------------------------------------------------------------------------------------


def test_both_directions_and_the_connections_own_time(ends: Ends) -> None:
    conn, _, _ = behind_full(ends)
    recorder = Recorder()
    conn.set_timeouts(read=10, write=4)
    conn.settimeout(7)
    conn.set_callbacks(recorder)
    conn.enqueue(b"tail")
    turn()
    sleep(10.5)
    assert recorder.directions == [WRITE, READ | WRITE, WRITE, READ]


def test_timeouts_are_changed_and_ended(ends: Ends) -> None:
    conn, _, recorder = idle_pair(ends, read=10)
    sleep(9)
    conn.set_timeouts(read=20)
    sleep(19)
    assert recorder.log == []
    sleep(2)
    assert recorder.log == ["timeout"]
    conn.set_timeouts()
    assert conn.get_timeouts() == {"read": None, "write": None}
    sleep(100)
    conn.set_timeouts(read=0, write=0)  # none either: nothing can be that idle
    sleep(100)
    assert recorder.log == ["timeout"]
    conn.set_timeouts(5)  # and begun while callbacks are there
    sleep(6)
    assert recorder.log == ["timeout", "timeout"]


def test_a_timeout_that_closes_is_the_last(ends: Ends) -> None:
    conn, _ = ends.pair()
    recorder = Recorder(timeout=lambda conn: conn.close())
    conn.set_timeouts(read=5, write=5)
    conn.settimeout(5)
    conn.set_callbacks(recorder)
    sleep(100)
    assert recorder.log == ["timeout", "close"]


def test_set_timeouts_refuses(ends: Ends) -> None:
    conn, _ = ends.pair()
    conn.set_timeouts(1.5, 2)
    assert conn.get_timeouts() == {"read": 1.5, "write": 2}
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match=r"timeout|negative"):
            conn.set_timeouts(read=wrong)
        with pytest.raises(ValueError, match=r"timeout|negative"):
            conn.set_timeouts(write=wrong)
    with pytest.raises(TypeError):
        conn.set_timeouts(read="x")
    assert conn.get_timeouts() == {"read": 1.5, "write": 2}


# --- Tasks ---------------------------------------------------------------------------------------


def timed(call: Any) -> float:
    """Return how long the call took to time out."""
    begin = get_hub().time
    with pytest.raises(TimeoutError):
        call()
    return get_hub().time - begin


def test_tasks_wait_no_longer_than_their_direction_may(ends: Ends) -> None:
    conn, peer, _ = behind_full(ends)
    conn.set_timeouts(read=3, write=5)
    assert timed(lambda: conn.recv(1)) == pytest.approx(3, abs=0.01)
    assert timed(lambda: conn.write(b"x")) == pytest.approx(5, abs=0.01)
    conn.settimeout(4)  # the shorter one counts
    assert timed(lambda: conn.readln()) == pytest.approx(3, abs=0.01)
    assert timed(lambda: conn.write(b"x")) == pytest.approx(4, abs=0.01)
    conn.set_timeouts(read=0)
    assert timed(lambda: conn.recv(1)) == pytest.approx(0, abs=0.01)
    peer.sendall(b"x")
    assert conn.recv(1) == b"x"


def test_a_task_that_makes_progress_writes_on(ends: Ends) -> None:
    conn, peer, _ = behind_full(ends)
    conn.set_timeouts(write=10)
    task = spawn(conn.write, b"x" * 1_000_000)
    for _ in range(100):
        if task.done:
            break
        sleep(5)
        drain_now(peer)
    assert task.get() == 1_000_000


def test_a_listener_has_no_idle_time(listener: Any, dial: Any) -> None:
    recorder = Recorder()
    listener.set_timeouts(read=1, write=1)
    listener.set_callbacks(recorder)
    sleep(10)
    dial()
    turn()
    assert recorder.log == ["open"]
