"""Who runs next: hand-off, switch counts, starvation, greenlets of the user's own."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import greenlet
import pytest

import pycoronet
from pycoronet import Cancelled, current, get_hub, shield, sk_conn, sleep, spawn, wait_readable

pytestmark = pytest.mark.usefixtures("virtual_hub")


def make_pair() -> tuple[sk_conn, sk_conn]:
    left, right = socket.socketpair()
    return sk_conn(left), sk_conn(right)


def count_switches(function: Callable[[], object]) -> int:
    before = get_hub().switch_count
    function()
    return get_hub().switch_count - before


# --- Switch counts ----------------------------------------------------------------------


@pytest.mark.optimisation("a request costs one switch, or none")
def test_wait_of_one_alone_needs_no_switch() -> None:
    sleep(0.1)  # behind the first one the hub looks for signals that came before
    assert count_switches(lambda: [sleep(0.1) for _ in range(100)]) == 0


def test_two_that_wake_each_other_need_one_switch_a_turn() -> None:
    def work() -> None:
        for _ in range(100):
            sleep(0)

    spawn(work)
    sleep(0)
    assert count_switches(lambda: [sleep(0) for _ in range(50)]) <= 102


def test_spawn_and_join_need_few_switches() -> None:
    spawn(sleep).join()
    # To the worker, and back.
    assert count_switches(lambda: spawn(lambda: 5).get()) == 2


CLIENT = """
import socket, sys
port, connections, rounds = map(int, sys.argv[1:])
peers = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
for _ in range(rounds):
    for peer in peers:
        peer.sendall(b"hello")
    for peer in peers:
        received = b""
        while len(received) < 5:
            received += peer.recv(100)
        assert received == b"hello"
"""


# With one client there is none for a request; a visit of the loop may come in between.
@pytest.mark.optimisation("a request costs one switch, or none")
@pytest.mark.parametrize(("connections", "limit"), [(1, 0.05), (64, 1.1)])
def test_switches_for_each_request(connections: int, limit: float) -> None:
    rounds = 200
    counted: list[int] = []
    handlers: list[pycoronet.Task] = []

    def handle(conn: sk_conn) -> None:
        with conn:
            while data := conn.readsome(100):
                conn.write(data)
                counted.append(get_hub().switch_count)

    def accept() -> None:
        for _ in range(connections):
            handlers.append(spawn(handle, listener.accept()[0]))

    with pycoronet.listen(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        arguments = [sys.executable, "-c", CLIENT, port, str(connections), str(rounds)]
        with subprocess.Popen(arguments) as client:
            spawn(accept).join()
            for handler in handlers:
                handler.join()
            assert client.wait() == 0
    assert len(counted) == connections * rounds
    # Without the last requests, and the first ones: a client that is quick enough has the
    # next one there before the others, who accepted it, have gone to sleep.
    measured = counted[10 * connections : -connections]
    assert (measured[-1] - measured[0]) / (len(measured) - 1) <= limit


# --- Starvation -------------------------------------------------------------------------


class Feeders:
    """Two tasks that wake each other for ever."""

    def __init__(self) -> None:
        self.lots = [pycoronet._coronet.ParkingLot() for _ in range(2)]
        self.turns = 0
        self.tasks = [spawn(self.feed, 0), spawn(self.feed, 1)]
        sleep(0)
        self.lots[0].unpark()

    def feed(self, place: int) -> None:
        while True:
            self.lots[place].park("feeding")
            self.turns += 1
            self.lots[1 - place].unpark()

    def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        for task in self.tasks:
            task.join()


def test_two_that_feed_each_other_do_not_starve_io() -> None:
    read_end, write_end = os.pipe()
    reader = spawn(wait_readable, read_end)
    feeders = Feeders()
    os.write(write_end, b"x")
    turns = feeders.turns
    assert reader.get() & pycoronet.READ
    assert 0 < feeders.turns - turns < 500
    feeders.stop()
    os.close(read_end)
    os.close(write_end)


def test_two_that_feed_each_other_do_not_starve_timers() -> None:
    sleeper = spawn(sleep, 1)
    feeders = Feeders()
    pycoronet._coronet._advance_time(2)
    turns = feeders.turns
    sleeper.join()
    assert feeders.turns - turns < 500
    feeders.stop()


def test_two_that_feed_each_other_do_not_starve_callbacks() -> None:
    called: list[int] = []
    feeders = Feeders()
    get_hub().call_soon_threadsafe(lambda: called.append(feeders.turns))
    for _ in range(3):
        sleep(0)
    assert called
    feeders.stop()


@pytest.mark.optimisation("calls that need not wait go on without giving way")
def test_coroutine_that_never_blocks_gives_way() -> None:
    left, right = make_pair()
    turns: list[int] = []

    def busy() -> None:
        # One that always finds what it asks for: it is its own peer.
        for number in range(100_000):
            left.write(b"x")
            right.readsome(1)
            if turns:
                turns.append(number)
                return

    with left, right:
        task = spawn(busy)
        sleep(0)
        assert not task.done
        turns.append(0)
        task.join()
    assert 0 < turns[1] < 300


def test_join_of_ended_tasks_in_a_loop_gives_way() -> None:
    ended = spawn(lambda: 5)
    ended.join()
    stop = False

    def busy() -> None:
        while not stop:
            ended.join()

    task = spawn(busy)
    sleep(0)
    stop = True
    task.join()


# --- Greenlets of the user's own --------------------------------------------------------


def test_wait_in_a_nested_greenlet_resumes_that_one() -> None:
    seen: list[Any] = []

    def nested() -> str:
        me = greenlet.getcurrent()
        sleep(1)
        seen.append((greenlet.getcurrent() is me, current()))
        return "result"

    def work() -> Any:
        sleep(0)
        return greenlet.greenlet(nested).switch()

    task = spawn(work)
    assert task.get() == "result"
    assert seen == [(True, task)]


def test_several_nested_greenlets_wait_at_once() -> None:
    order: list[int] = []
    started: list[float] = []

    def nested(number: int, seconds: float) -> None:
        assert current() is task
        sleep(seconds)
        assert current() is task
        order.append(number)

    def work() -> None:
        me = greenlet.getcurrent()
        children = [greenlet.greenlet(nested) for _ in range(5)]
        for number, child in enumerate(children):
            # Somebody else switches back here while the child waits.
            spawn(me.switch)
            child.switch(number, 5 - number)
        started.append(get_hub().time)
        # Now all of them wait, and this one too.
        sleep(20)
        assert all(child.dead for child in children)

    task = spawn(work)
    task.join()
    assert order == [4, 3, 2, 1, 0]
    assert task.get() is None


def test_raw_greenlets_of_the_main_program() -> None:
    def nested() -> str:
        assert current() is main
        sleep(1)
        assert spawn(lambda: 6).get() == 6
        assert current() is main
        return "done"

    main = current()
    assert greenlet.greenlet(nested).switch() == "done"


def test_deeply_nested_greenlets_know_their_task() -> None:
    def nest(depth: int) -> Any:
        if depth == 0:
            sleep(1)
            return current()
        return greenlet.greenlet(nest).switch(depth - 1)

    task = spawn(nest, 300)
    assert task.get() is task


def test_nested_greenlet_that_outlives_its_task() -> None:
    seen: list[Any] = []

    def nested() -> None:
        try:
            sleep(5)
            seen.append("woken")
        except BaseException as error:
            seen.append(error)
            raise

    def work() -> None:
        child = greenlet.greenlet(nested)
        spawn(greenlet.getcurrent().switch)
        child.switch()

    task = spawn(work)
    task.join()
    assert seen == []
    get_hub().run()  # who has switched away for good, and was dropped, is gone by then
    assert get_hub().task_count == 0
    sleep(10)
    assert seen == ["woken"]
    assert spawn(lambda: 7).get() == 7


def test_foreign_switch_into_a_parked_greenlet_leaves_it_parked() -> None:
    parked: list[Any] = []
    woken: list[float] = []

    def work() -> None:
        parked.append(greenlet.getcurrent())
        sleep(10)
        woken.append(get_hub().time)

    started = get_hub().time
    task = spawn(work)
    sleep(1)

    def disturb() -> None:
        me = greenlet.getcurrent()
        spawn(me.switch, "back")
        assert parked[0].switch("nonsense") == "back"

    for _ in range(3):
        spawn(disturb).get()
    assert not task.done
    task.join()
    assert woken == [started + 10]


@pytest.mark.parametrize("wait", ["sleep", "join", "park", "wait_fd", "read", "yield"])
def test_throw_into_a_parked_greenlet_passes_on(wait: str) -> None:
    left, right = make_pair()
    other = spawn(sleep, None)
    lot = pycoronet._coronet.ParkingLot()
    calls: dict[str, Callable[[], object]] = {
        "sleep": lambda: sleep(10),
        "join": other.join,
        "park": lambda: lot.park("park", 10),
        "wait_fd": lambda: wait_readable(right.fileno(), 10),
        "read": lambda: right.readsome(10),
        "yield": lambda: sleep(0),
    }
    parked: list[Any] = []

    def work() -> str:
        parked.append(greenlet.getcurrent())
        with pytest.raises(ZeroDivisionError):
            calls[wait]()
        sleep(1)
        return "went on"

    def throw() -> None:
        parked[0].throw(ZeroDivisionError)

    task = spawn(work)
    spawn(throw)
    assert task.get() == "went on"
    # It is off every list: nobody wakes it a second time.
    lot.unpark()
    left.write(b"x")
    assert right.readsome(10) == b"x"
    other.cancel()
    sleep(20)
    left.close()
    right.close()


def test_throw_into_an_idle_worker_ends_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reports.append(report.exc_type))

    def throw(error: type) -> Any:
        idle = spawn(greenlet.getcurrent).get()
        idle.throw(error)

    # The worker's parent is the hub: whoever throws is let go of, as greenlet has it.
    for error in (ZeroDivisionError, greenlet.GreenletExit):
        task = spawn(throw, error)
        sleep(1)
        assert task.done
        assert spawn(lambda: 5).get() == 5
    assert reports == [ZeroDivisionError]


def test_switch_into_an_idle_worker_does_no_harm() -> None:
    def disturb() -> Any:
        idle = spawn(greenlet.getcurrent).get()
        # The idle worker takes this task, which switches back here.
        spawn(greenlet.getcurrent().switch, "back")
        return idle.switch()

    assert spawn(disturb).get() == "back"
    assert spawn(lambda: 5).get() == 5


def test_greenlet_nobody_refers_to_stays_while_it_waits() -> None:
    ended: list[bool] = []

    def nested() -> None:
        sleep(5)
        ended.append(True)

    def work() -> None:
        spawn(greenlet.getcurrent().switch)
        greenlet.greenlet(nested).switch()
        gc.collect()

    spawn(work).join()
    gc.collect()
    sleep(10)
    assert ended == [True]


def test_greenlet_dropped_while_suspended_outside_the_hub() -> None:
    ended: list[str] = []

    def nested() -> None:
        try:
            greenlet.getcurrent().parent.switch()
        finally:
            ended.append("finally")
            with pytest.raises(greenlet.GreenletExit):
                raise greenlet.GreenletExit
            sleep(1)  # waits on the spot, on the stack of who dropped it
            ended.append("waited")

    def work() -> str:
        child = greenlet.greenlet(nested)
        child.switch()
        del child
        return "went on"

    assert spawn(work).get() == "went on"
    assert ended == ["finally", "waited"]


def test_worker_that_ends_is_kept_for_who_is_in_the_switch_to_it() -> None:
    workers: list[Any] = []
    seen: list[bool] = []

    def wait() -> None:
        workers.append(weakref.ref(greenlet.getcurrent()))
        sleep(100)

    def look() -> None:
        try:
            sleep(100)
        finally:
            seen.append(workers[0]() is not None)

    def give_way() -> None:
        try:
            sleep(100)
        finally:
            with shield():
                sleep(0)  # switches to wait(), whose worker ends before control is back

    for function in (give_way, wait, look):
        spawn(function)
    sleep(1)
    get_hub().close()
    gc.collect()
    assert seen == [True]
    assert workers[0]() is None


def test_worker_greenlets_are_clean_for_the_next_task() -> None:
    class Kept:
        pass

    def leave() -> Any:
        me: Any = greenlet.getcurrent()
        me.mine = Kept()
        return weakref.ref(me.mine)

    reference = spawn(leave).get()
    sleep(0)
    assert reference() is None
    assert spawn(lambda: hasattr(greenlet.getcurrent(), "mine")).get() is False


def test_parent_of_a_finished_nested_greenlet_is_its_worker() -> None:
    def work() -> str:
        def nested() -> None:
            sleep(1)
            raise LookupError

        with pytest.raises(LookupError):
            greenlet.greenlet(nested).switch()
        sleep(1)
        return "went on"

    assert spawn(work).get() == "went on"


def test_exception_of_a_greenlet_whose_parent_is_parked_ends_that_wait() -> None:
    def work() -> str:
        me = greenlet.getcurrent()

        def nested() -> None:
            sleep(1)
            raise LookupError

        spawn(me.switch)
        greenlet.greenlet(nested).switch()
        with pytest.raises(LookupError):
            sleep(10)
        with pytest.raises(TimeoutError):
            spawn(sleep, 5).join(1)
        return "went on"

    assert spawn(work).get() == "went on"


def test_cancel_reaches_all_greenlets_of_a_task_that_wait_at_once() -> None:
    cancelled: list[int] = []

    def nested(number: int) -> None:
        try:
            sleep(100)
        except Cancelled:
            cancelled.append(number)

    def work() -> None:
        for number in range(3):
            spawn(greenlet.getcurrent().switch)
            greenlet.greenlet(nested).switch(number)
        sleep(100)

    task = spawn(work)
    sleep(1)
    task.cancel()
    with pytest.raises(Cancelled):
        task.get()
    sleep(1)
    assert sorted(cancelled) == [0, 1, 2]
