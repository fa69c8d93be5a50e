"""Hub.set_stall_limit(): who keeps the hub is reported, once, by a thread."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from processes import lines_of

import pycoronet
from pycoronet import DeadlockError, Hub, StalledError, get_hub, sleep, spawn
from pycoronet._stall import StallWatch

LIMIT = 0.02
PATIENCE_SECONDS = 30  # far more than anything here takes


class Reports:
    """What was reported, and a way to be stuck until something is."""

    def __init__(self) -> None:
        self.errors: list[StalledError] = []
        self.threads: list[int] = []
        self._came = threading.Event()

    def __call__(self, error: StalledError) -> None:
        self.errors.append(error)
        self.threads.append(threading.get_ident())
        self._came.set()

    def be_stuck(self) -> None:
        """Keep the hub until a report has come."""
        assert self._came.wait(PATIENCE_SECONDS)


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Return this thread's hub, which is closed in the end."""
    yield get_hub()
    get_hub().close()


@pytest.fixture
def told() -> Reports:
    return Reports()


def watches() -> int:
    return sum(thread.name == "pycoronet stall watch" for thread in threading.enumerate())


# The thread


def test_task_that_keeps_the_hub_is_reported_with_its_stack(hub: Hub, told: Reports) -> None:
    hub.set_stall_limit(LIMIT, told)

    def inner() -> None:
        told.be_stuck()

    task = spawn(inner)
    task.name = "stuck"
    task.join()
    (error,) = told.errors
    assert error.task is task
    assert error.seconds >= LIMIT
    assert [frame.name for frame in error.stack if frame.name in ("inner", "be_stuck")] == [
        "inner",
        "be_stuck",
    ]
    text = str(error)
    assert re.match(r"Task 'stuck' has kept the hub for \d+\.\d{3} s:\n  File ", text)
    assert "told.be_stuck()" in text
    assert told.threads[0] != threading.get_ident()


def test_main_program_that_keeps_the_hub_is_reported(hub: Hub, told: Reports) -> None:
    hub.set_stall_limit(LIMIT, told)
    told.be_stuck()
    assert told.errors[0].task is pycoronet.current()


def test_callback_that_keeps_the_hub_is_reported(hub: Hub, told: Reports) -> None:
    hub.set_stall_limit(LIMIT, told)
    hub.call_soon(told.be_stuck)
    sleep(0)
    sleep(0.001)
    assert told.errors[0].task is None
    assert str(told.errors[0]).startswith("a callback has kept the hub for ")


def test_without_a_function_the_hook_is_told(
    hub: Hub, told: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[Any] = []

    def hook(report: Any) -> None:
        reports.append((report.exc_value, report.object))
        told(report.exc_value)

    monkeypatch.setattr(sys, "unraisablehook", hook)
    hub.set_stall_limit(LIMIT)
    task = spawn(told.be_stuck)
    task.join()
    assert reports == [(told.errors[0], task)]
    assert isinstance(told.errors[0], StalledError)


def test_function_that_raises_is_reported(
    hub: Hub, told: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda report: told(report.exc_value))

    def fail(error: StalledError) -> None:
        raise SystemExit(5)

    hub.set_stall_limit(LIMIT, fail)
    spawn(told.be_stuck).join()
    assert isinstance(told.errors[0], SystemExit)
    assert watches() == 1


def test_function_may_call_into_the_hub(hub: Hub) -> None:
    done = pycoronet.Event()
    came = threading.Event()

    def report(error: StalledError) -> None:
        hub.call_soon_threadsafe(done.set)
        came.set()

    hub.set_stall_limit(LIMIT, report)
    assert came.wait(PATIENCE_SECONDS)
    done.wait()


def test_watching_is_no_reason_to_wait_for_ever(hub: Hub) -> None:
    hub.set_stall_limit(3600)
    with pytest.raises(DeadlockError):
        sleep(None)
    hub.set_stall_limit(None)
    with pytest.raises(DeadlockError):
        sleep(None)


def test_thread_ends_with_the_limit_and_with_the_hub(hub: Hub) -> None:
    assert watches() == 0
    hub.set_stall_limit(3600)
    hub.set_stall_limit(1800)
    assert watches() == 1
    hub.set_stall_limit(None)
    hub.set_stall_limit(None)
    assert watches() == 0
    hub.set_stall_limit(3600)
    hub.close()
    assert watches() == 0
    with pytest.raises(RuntimeError, match="closed"):
        hub.set_stall_limit(1)


def test_thread_ends_with_the_hub_of_a_thread_that_ends() -> None:
    def work() -> None:
        get_hub().set_stall_limit(3600)
        found.extend(thread for thread in threading.enumerate() if "stall" in thread.name)

    found: list[threading.Thread] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    found[0].join(PATIENCE_SECONDS)
    assert not found[0].is_alive()


def test_hub_that_is_closed_while_a_report_is_made(hub: Hub) -> None:
    came, go = threading.Event(), threading.Event()

    def report(error: StalledError) -> None:
        came.set()
        go.wait(PATIENCE_SECONDS)

    hub.set_stall_limit(LIMIT, report)
    assert came.wait(PATIENCE_SECONDS)
    (thread,) = (thread for thread in threading.enumerate() if "stall" in thread.name)
    hub.close()
    go.set()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    with pytest.raises(DeadlockError):
        sleep(None)


def test_what_fails_as_the_thread_ends_is_reported(
    hub: Hub, told: Reports, reports: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    close = StallWatch.close

    def close_and_fail(watch: StallWatch, waits: bool) -> None:
        close(watch, waits)
        raise ArithmeticError

    monkeypatch.setattr(StallWatch, "close", close_and_fail)
    hub.set_stall_limit(LIMIT, told)
    sleep(0)
    assert watches() == 1
    hub.set_stall_limit(None)
    assert watches() == 0
    assert [type(error) for error in reports] == [ArithmeticError]


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_limits_that_are_none_are_refused(hub: Hub, limit: float) -> None:
    with pytest.raises(ValueError, match=r"limit|negative|NaN|nan"):
        hub.set_stall_limit(limit)
    assert watches() == 0


def test_other_wrong_arguments_are_refused(hub: Hub) -> None:
    calls: list[Callable[[], object]] = [
        lambda: hub.set_stall_limit("1"),  # type: ignore[arg-type]
        lambda: hub.set_stall_limit(1, 5),  # type: ignore[arg-type]
        lambda: hub.set_stall_limit(),  # type: ignore[call-arg]
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call()
    errors: list[BaseException] = []

    def attempt() -> None:
        try:
            hub.set_stall_limit(1)
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert len(errors) == 1
    assert watches() == 0


def test_thread_that_cannot_be_started_leaves_things_as_they_are(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        hub.set_stall_limit(1)
    with pytest.raises(DeadlockError):
        sleep(None)


def test_forked_child_has_a_watch_of_its_own() -> None:
    program = """
    came = threading.Event()
    def report(error):
        say(os.getpid() == parent, error.task.name)
        came.set()
    def be_stuck():
        assert came.wait(30)
    def begin(name):
        task = spawn(be_stuck)
        task.name = name
        task.join()
        came.clear()
    parent = os.getpid()
    get_hub().set_stall_limit(0.02, report)
    begin("parent")
    pid = os.fork()
    if pid == 0:
        begin("child")
        get_hub().set_stall_limit(None)
        say(threading.active_count())
        sys.exit()
    get_hub().set_stall_limit(None)
    os.waitpid(pid, 0)
    """
    lines = lines_of(program, environment={"PYTHONWARNINGS": "ignore"})
    assert lines == ["True parent", "False child", "1"]


def test_forked_child_that_is_no_use_of_the_hub_starts_nothing() -> None:
    program = """
    get_hub().set_stall_limit(3600)
    pid = os.fork()
    if pid == 0:
        say(threading.active_count())
        os._exit(0)
    os.waitpid(pid, 0)
    say(threading.active_count())
    """
    assert lines_of(program, environment={"PYTHONWARNINGS": "ignore"}) == ["1", "2"]


def test_report_that_forks_leaves_one_thread_in_the_child() -> None:
    program = """
    came = threading.Event()
    def report(error):
        pid = os.fork()
        if pid == 0:
            say("child")
            return
        os.waitpid(pid, 0)
        came.set()
    get_hub().set_stall_limit(0.02, report)
    assert came.wait(30)
    """
    assert lines_of(program, environment={"PYTHONWARNINGS": "ignore"}) == ["child"]


# What counts as a stall, with a clock of the test's


@pytest.fixture
def look(virtual_hub: Hub) -> Callable[[float], bool]:
    """Return a function that looks at the hub at a time; True if something is reported."""
    watch = StallWatch(virtual_hub, 1.0, None)
    return lambda now: watch.look(now) is not None


def test_each_stall_is_reported_once(look: Callable[[float], bool]) -> None:
    assert [look(now) for now in (10.0, 10.5, 10.9, 11.0, 11.5, 20.0)] == [
        False,
        False,
        False,
        True,
        False,
        False,
    ]
    sleep(0)
    assert [look(now) for now in (20.5, 21.0, 21.5, 22.0)] == [False, False, True, False]


def test_who_gives_way_keeps_nobody_waiting(look: Callable[[float], bool]) -> None:
    now = 0.0
    for _ in range(5 * 64):  # more than there are hand-offs between two polls
        now += 0.75
        assert not look(now)
        sleep(0)


def test_two_that_take_turns_keep_nobody_waiting(look: Callable[[float], bool]) -> None:
    seen: list[bool] = []

    def work(times: range) -> None:
        for time in times:
            seen.append(look(float(time) * 0.75))
            sleep(0)

    tasks = [spawn(work, range(0, 200, 2)), spawn(work, range(1, 200, 2))]
    for task in tasks:
        task.join()
    assert not any(seen)


def test_hub_that_waits_for_events_is_not_stuck() -> None:
    program = """
    from pycoronet._stall import StallWatch
    hub = get_hub()
    watch = StallWatch(hub, 1.0, None)
    lot = pycoronet._coronet.ParkingLot(external=True)
    def look():
        while hub._progress() is not None: pass
        say([watch.look(now) for now in (0.0, 5.0, 10.0)], hub._holder())
        hub.call_soon_threadsafe(lot.unpark)
    thread = threading.Thread(target=look)
    thread.start()
    lot.park("it")
    thread.join()
    """
    assert lines_of(program) == ["[None, None, None] None"]


def test_closed_hub_is_not_stuck(look: Callable[[float], bool]) -> None:
    get_hub().close()
    assert not any(look(now) for now in (0.0, 5.0, 10.0))
