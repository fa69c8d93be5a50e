"""Hub.registrations() and Hub.dump(): what is registered and who waits."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest
from connections import Ends
from recorders import Recorder, turn

import pycoronet
from pycoronet import (
    HIGH,
    LOW,
    PRIORITY,
    READ,
    WRITE,
    get_hub,
    listen,
    once,
    sleep,
    spawn,
    wait_readable,
    wait_writable,
)

pytestmark = pytest.mark.usefixtures("virtual_hub")


def registered() -> dict[int, Any]:
    """Return what is registered by descriptor, without the hub's own."""
    rows = get_hub().registrations()
    assert rows == sorted(rows, key=lambda row: row[0])
    return {fd: rest for fd, *rest in rows if rest[2] != "signals"}


def test_nothing_is_registered_before_somebody_waits(ends: Ends) -> None:
    assert registered() == {}
    conn, _ = ends.pair()
    conn.write(b"x")
    assert registered() == {}
    conn.settimeout(1)
    with pytest.raises(TimeoutError):
        conn.recv(1)
    assert registered() == {conn.fileno(): [READ | WRITE | PRIORITY, "edge", conn]}
    conn.abort()
    assert registered() == {}


def test_the_hub_s_own_descriptor_is_told_apart() -> None:
    sleep(0.001)
    rows = get_hub().registrations()
    assert [row[1:] for row in rows] == [(READ, "edge", "signals")]


def test_listeners_are_registered_by_level_while_somebody_accepts(ends: Ends) -> None:
    listener = ends.keep(listen(("127.0.0.1", 0)))
    task = spawn(listener.accept)
    sleep(0.001)
    events, trigger, owner = registered()[listener.fileno()]
    assert (events, owner) == (READ, listener)
    assert "level" in trigger
    task.cancel()
    sleep(0)


def test_other_descriptors_belong_to_who_waits(pipe: tuple[int, int], ends: Ends) -> None:
    left, _ = ends.sockets()
    reader = spawn(wait_readable, left)
    handle = once(pipe[0], READ, print)
    sleep(0)
    assert registered() == {
        left.fileno(): [READ, "edge", reader],
        pipe[0]: [READ, "edge", handle],
    }
    writer = once(left, WRITE, lambda _: None)
    assert registered()[left.fileno()] == [READ | WRITE, "edge", (reader, writer)]
    sleep(1)
    assert registered()[left.fileno()] == [READ, "edge", reader]
    reader.cancel()
    handle.cancel()
    sleep(0)
    assert registered() == {}
    blocked = spawn(wait_writable, pipe[0])
    sleep(0)
    assert registered()[pipe[0]][2] is blocked
    blocked.cancel()
    sleep(0)
    left.close()


def test_dump_names_each_descriptor_with_its_owner(pipe: tuple[int, int], ends: Ends) -> None:
    recorder = Recorder()
    called, _ = ends.pair()
    called.set_callbacks(recorder)
    waiting, _ = ends.pair()
    waiting.settimeout(5)
    task = spawn(waiting.readln)
    task.name = "reader"
    once(pipe[0], READ, ord)
    sleep(1)
    text = get_hub().dump()
    assert text.startswith("hub on fake\nregistered: 4\n")
    assert f"fd {called.fileno()} READ PRIORITY WRITE, edge: {called!r} calls {recorder!r}" in text
    assert f"fd {waiting.fileno()} READ PRIORITY WRITE, edge: {waiting!r}\n" in text
    assert re.search(rf"fd {pipe[0]} READ, edge: <OnceHandle of .*ord>>\n", text)
    assert f"Task 'reader': readln {waiting!r}, 4.000 s left\n" in text
    task.cancel()
    sleep(0)


def test_dump_names_tasks_in_all_their_states() -> None:
    texts: list[str] = []
    lot = pycoronet._coronet.ParkingLot()

    def show() -> None:
        sleep(1)
        woken.cancel()
        spawn(int).name = "fresh"
        texts.append(get_hub().dump())

    showing = spawn(show)
    showing.name = "showing"
    woken = spawn(lot.park, "something")
    woken.name = "woken"
    asleep = spawn(sleep, 9)
    asleep.name = "asleep"
    showing.join()
    lines = texts[0].splitlines()
    assert "tasks: 5" in lines
    assert "  Task 'main program': join Task 'showing'" in lines
    assert "  Task 'showing': running" in lines
    assert "  Task 'woken': something, ready to go on" in lines
    assert "  Task 'asleep': sleep 9, 8.000 s left" in lines
    assert "  Task 'fresh': not begun" in lines
    asleep.cancel()
    sleep(0)


def test_dump_names_what_will_be_called(pipe: tuple[int, int], ends: Ends) -> None:
    hub = get_hub()
    texts: list[str] = []
    hub.call_later(2.5, len)
    hub.call_every(60, abs)
    once(pipe[0], READ, ord, timeout=30)
    hook = hub.add_hook(lambda _: None)
    for priority in (HIGH, LOW):
        conn, peer = ends.pair()
        conn.priority = priority
        conn.set_callbacks(Recorder())
        turn(1)
        peer.send(b"x")
    hub.call_soon(lambda: texts.append(hub.dump()))
    hub.call_soon(int)
    sleep(1)
    text = texts[0]
    assert "to be called: 3\n" in text
    assert re.search(r"<TimerHandle of .*len>>, 2\.49\d s left\n", text)
    assert re.search(r"<TimerHandle of .*abs>>, 59\.99\d s left\n", text)
    assert re.search(r"<OnceHandle of .*ord>>, 29\.99\d s left\n", text)
    assert "callbacks due: " in text
    assert "1 of this round" in text
    assert f"hooks: 1\n  {hook!r}\n" in text
    assert text.endswith("\n")


def test_dump_reads_the_clock() -> None:
    hub = get_hub()
    handle = hub.call_later(5, len)
    pycoronet._coronet._advance_time(2)
    assert "len>>, 3.000 s left\n" in hub.dump()
    handle.cancel()


def test_dump_counts_the_callbacks_of_each_level(ends: Ends) -> None:
    hub = get_hub()
    texts: list[str] = []
    peers = []
    for priority in (HIGH, HIGH, LOW, LOW, LOW):
        conn, peer = ends.pair()
        conn.priority = priority
        conn.set_callbacks(Recorder(data=lambda _: texts.append(hub.dump())))
        peers.append(peer)
    turn(1)
    for peer in peers:
        peer.send(b"x")
    sleep(1)
    assert "callbacks due: 0 HIGH, 0 NORMAL, 3 LOW, 1 of this round\n" in texts[0]
    assert "callbacks due: 0 HIGH, 0 NORMAL, 0 LOW, 0 of this round\n" in hub.dump()


def test_dump_of_objects_whose_description_does_things(ends: Ends) -> None:
    hub = get_hub()

    class Odd:
        def __call__(self) -> None:
            pass

        def __repr__(self) -> str:
            for handle in handles:
                handle.cancel()
            for task in tasks:
                task.cancel()
            conn.abort()
            return "odd"

    class OddTime(float):
        def __repr__(self) -> str:
            return repr(Odd())

    conn, _ = ends.pair()
    conn.set_callbacks(Recorder())
    handles = [hub.call_later(number, Odd()) for number in range(1, 6)]
    tasks = [spawn(sleep, OddTime(5)) for _ in range(5)]
    sleep(0)
    assert "odd" in hub.dump()
    sleep(1)


def test_dump_of_what_cannot_be_described_raises() -> None:
    class Broken:
        def __call__(self) -> None:
            pass

        def __repr__(self) -> str:
            raise ZeroDivisionError

    handle = get_hub().call_later(1, Broken())
    with pytest.raises(ZeroDivisionError):
        get_hub().dump()
    handle.cancel()
    assert get_hub().dump()


def test_a_closed_hub_has_nothing() -> None:
    hub = get_hub()
    hub.close()
    assert hub.dump() == "hub, closed\n"
    assert hub.registrations() == []


def test_other_threads_are_refused() -> None:
    hub = get_hub()
    errors: list[type] = []

    def attempt() -> None:
        for call in (hub.dump, hub.registrations):
            try:
                call()
            except RuntimeError as error:
                errors.append(type(error))

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert errors == [RuntimeError] * 2
