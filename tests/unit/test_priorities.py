"""Priorities of callbacks: what is urgent overtakes, and nobody starves."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from connections import Ends
from recorders import Recorder, turn

import pycoronet
from pycoronet import HIGH, LOW, NORMAL, Protocol, _coronet, get_hub, sleep, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")

# Rounds, as the documentation promises.
PASS_OVER_LIMIT = 1 if _coronet.HARD_MODE else 16


class Logging(Protocol):
    """Writes its name down for each on_data(), then does something."""

    def __init__(self, name: str, log: list[str], action: Any = None) -> None:
        self.name = name
        self.log = log
        self.action = action

    def on_data(self, conn: Any) -> None:
        conn.take(100)
        self.log.append(self.name)
        if self.action is not None:
            self.action()


def served(
    ends: Ends, priority: int, name: str, log: list[str], action: Any = None
) -> tuple[Any, socket.socket]:
    """Return a connection with callbacks of that priority, and its peer."""
    conn, peer = ends.pair()
    conn.priority = priority
    conn.set_callbacks(Logging(name, log, action))
    turn()
    return conn, peer


def test_most_urgent_of_one_poll_come_first(ends: Ends) -> None:
    log: list[str] = []
    levels = {"low": LOW, "normal": NORMAL, "high": HIGH}
    peers = [served(ends, levels[name], name, log)[1] for name in levels]
    for peer in peers:
        peer.send(b"x")
    turn()
    assert log == ["high", "normal", "low"]


def test_callbacks_of_one_level_come_in_order(ends: Ends) -> None:
    log: list[str] = []
    conns = [served(ends, LOW, str(number), log)[0] for number in range(5)]
    for conn in conns:
        conn.set_callbacks(None)
        conn.set_callbacks(Logging(str(conns.index(conn)), log))
    log.clear()
    for number in range(3):
        get_hub().call_soon(log.append, f"soon {number}")
    sleep(0)
    assert log == ["soon 0", "soon 1", "soon 2"]


def test_urgent_overtakes_what_waits_since_the_last_poll(ends: Ends) -> None:
    log: list[str] = []
    _, urgent = served(ends, HIGH, "high", log)
    _, first = served(ends, NORMAL, "normal", log, lambda: urgent.send(b"x"))
    _, last = served(ends, LOW, "low", log)
    last.send(b"x")
    first.send(b"x")
    turn()
    assert log == ["normal", "high", "low"]


def feeder(ends: Ends, priority: int, name: str, log: list[str], is_over: Any) -> socket.socket:
    """Return whom to send a byte: then two connections wake each other until is_over()."""
    peers: list[socket.socket] = []

    def pass_on(other: int) -> None:
        if not is_over():
            peers[other].send(b"x")

    for other in (1, 0):
        _, peer = served(ends, priority, name, log, lambda other=other: pass_on(other))
        peers.append(peer)
    return peers[0]


@pytest.mark.parametrize("with_tasks", [False, True], ids=["alone", "beside coroutines"])
def test_low_levels_run_in_spite_of_an_endless_feeder(ends: Ends, with_tasks: bool) -> None:
    log: list[str] = []

    def is_over() -> bool:
        return {"normal", "low"} <= set(log)

    def busy() -> None:
        while not is_over():
            sleep(0)

    _, normal = served(ends, NORMAL, "normal", log)
    _, low = served(ends, LOW, "low", log)
    high = feeder(ends, HIGH, "high", log, is_over)
    for peer in (low, normal, high):
        peer.send(b"x")
    tasks = [spawn(busy) for _ in range(2 if with_tasks else 0)]
    turn()
    # They are passed over, but not for ever.
    assert log[: log.index("normal")].count("high") == PASS_OVER_LIMIT + 1
    assert log[: log.index("low")].count("high") == PASS_OVER_LIMIT + 1
    for task in tasks:
        task.join()


def test_low_level_runs_in_spite_of_two_feeders(ends: Ends) -> None:
    log: list[str] = []
    _, low = served(ends, LOW, "low", log)
    high = feeder(ends, HIGH, "high", log, lambda: "low" in log)
    normal = feeder(ends, NORMAL, "normal", log, lambda: "low" in log)
    for peer in (low, normal, high):
        peer.send(b"x")
    turn()
    before = log[: log.index("low")]
    assert before.count("high") == PASS_OVER_LIMIT + 1
    assert before.count("normal") == 1


def test_passed_over_is_counted_anew_after_its_turn(ends: Ends) -> None:
    log: list[str] = []

    def is_over() -> bool:
        return log.count("low") == 3

    for peer in (
        feeder(ends, HIGH, "high", log, is_over),
        feeder(ends, LOW, "low", log, is_over),
    ):
        peer.send(b"x")
    turn()
    places = [place for place, name in enumerate(log) if name == "low"]
    assert places == [PASS_OVER_LIMIT + 1, 2 * PASS_OVER_LIMIT + 3, 3 * PASS_OVER_LIMIT + 5]


def test_priority_changed_while_a_callback_is_due(ends: Ends) -> None:
    log: list[str] = []

    def promote() -> None:
        late.priority = HIGH
        early.priority = LOW

    early, early_peer = served(ends, NORMAL, "early", log)
    late, late_peer = served(ends, LOW, "late", log)
    _, first = served(ends, HIGH, "first", log, promote)
    for peer in (early_peer, late_peer, first):
        peer.send(b"x")
    turn()
    assert log == ["first", "late", "early"]


def test_priority_changed_inside_its_own_callback(ends: Ends) -> None:
    log: list[str] = []

    def demote() -> None:
        conn.priority = LOW

    conn, peer = served(ends, HIGH, "own", log, demote)
    peer.send(b"x")
    turn()
    peer.send(b"x")
    turn()
    assert log == ["own", "own"]
    assert conn.priority == LOW


def test_priority_is_kept_without_callbacks_and_for_new_ones(ends: Ends) -> None:
    log: list[str] = []
    conn, peer = ends.pair()
    assert conn.priority == NORMAL
    conn.priority = LOW
    conn.set_callbacks(Logging("low", log))
    conn.set_callbacks(None)
    conn.set_callbacks(Logging("low", log))
    _, other = served(ends, NORMAL, "normal", log)
    peer.send(b"x")
    other.send(b"x")
    turn()
    assert log == ["normal", "low"]


def test_timers_and_calls_are_normal(ends: Ends) -> None:
    log: list[str] = []
    _, high = served(ends, HIGH, "high", log)
    _, low = served(ends, LOW, "low", log)

    def send() -> None:
        for peer in (low, high):
            peer.send(b"x")
        pycoronet._coronet._advance_time(2)

    get_hub().call_later(1, log.append, "timer")
    send()
    get_hub().call_soon(get_hub().loop_continue)
    get_hub().call_soon(log.append, "soon")
    turn()
    assert log[0] == "high"
    assert log[-1] == "low"
    assert sorted(log[1:-1]) == ["soon", "timer"]


def test_coroutines_are_not_concerned(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.priority = LOW
    peer.send(b"x")
    assert spawn(conn.recv, 10).get() == b"x"


@pytest.mark.parametrize("wrong", [-1, 3, 10**30, -(10**30)])
def test_wrong_priorities_are_refused(ends: Ends, wrong: int) -> None:
    conn, _ = ends.pair()
    conn.priority = HIGH
    with pytest.raises((ValueError, OverflowError)):
        conn.priority = wrong
    assert conn.priority == HIGH


def test_what_is_no_priority_is_refused(ends: Ends) -> None:
    conn, _ = ends.pair()
    with pytest.raises(TypeError):
        conn.priority = "high"
    with pytest.raises(AttributeError):
        del conn.priority
    conn.close()
    with pytest.raises(pycoronet.ClosedError):
        conn.priority = HIGH


def test_end_of_an_urgent_connection_that_is_due(ends: Ends) -> None:
    recorder = Recorder()
    log: list[str] = []
    doomed, doomed_peer = ends.pair()
    doomed.priority = LOW
    doomed.set_callbacks(recorder)
    _, peer = served(ends, HIGH, "high", log, doomed.abort)
    for each in (doomed_peer, peer):
        each.send(b"x")
    turn()
    assert log == ["high"]
    assert recorder.log == ["close"]


def test_levels_by_hand_take_turns(ends: Ends) -> None:
    log: list[str] = []
    _, low = served(ends, LOW, "low", log)
    _, high = served(ends, HIGH, "high", log)
    for peer in (low, high):
        peer.send(b"x")
    hub = get_hub()
    rounds: list[list[str]] = []
    while len(log) < 2:
        hub.wait(1)
        hub.dispatch()
        rounds.append(list(log))
    assert rounds[-1] == ["high", "low"]
    assert hub.wait(0) == 0
