"""The hub: callbacks, driving by hand, closing, one hub a thread."""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from processes import lines_of

import pycoronet
from pycoronet import Cancelled, current, get_hub, shield, sleep, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect what is reported through sys.unraisablehook."""
    reports: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reports.append(report.exc_value))
    return reports


# --- Callbacks --------------------------------------------------------------------------


def test_callbacks_run_in_order_in_the_hub_and_not_at_once() -> None:
    order: list[Any] = []
    hub = get_hub()
    for number in range(5):
        hub.call_soon_threadsafe(order.append, number)
    hub.call_soon_threadsafe(lambda: order.append(current()))
    assert order == []
    sleep(0)
    assert order == [0, 1, 2, 3, 4, None]


def test_callback_that_leaves_itself_starves_nobody() -> None:
    hub = get_hub()
    count = 0

    def again() -> None:
        nonlocal count
        count += 1
        if not stopped:
            hub.call_soon_threadsafe(again)

    stopped = False
    hub.call_soon_threadsafe(again)
    sleep(0)
    assert spawn(lambda: 5).get() == 5
    task = spawn(sleep, 1)
    sleep(0)
    pycoronet._coronet._advance_time(2)
    task.join()
    # By hand too.
    assert hub.wait(0) == 0
    hub.dispatch()
    stopped = True
    sleep(1)
    assert 3 < count < 1000


def test_callbacks_from_threads_wake_the_hub() -> None:
    hub = get_hub()
    lot = pycoronet._coronet.ParkingLot(external=True)
    called: list[int] = []

    def finish(number: int) -> None:
        called.append(number)
        if len(called) == 400:
            lot.unpark()

    def call(first: int) -> None:
        for number in range(100):
            hub.call_soon_threadsafe(finish, first + number)

    threads = [threading.Thread(target=call, args=(100 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    lot.park("threads")
    for thread in threads:
        thread.join()
    assert sorted(called) == list(range(400))


def test_waiting_in_a_callback_is_refused() -> None:
    left, right = __import__("socket").socketpair()
    conn = pycoronet.sk_conn(left)
    pending = spawn(sleep, 1)
    errors: list[str] = []

    def callback() -> None:
        for call in (sleep, lambda: sleep(1), pending.join, pending.get, hub.run, hub.wait):
            try:
                call()
            except RuntimeError as error:
                errors.append(str(error))
        for call in (lambda: conn.readsome(1), lambda: pycoronet.to_thread(int), hub.close):
            try:
                call()
            except RuntimeError as error:
                errors.append(str(error))

    hub = get_hub()
    hub.call_soon_threadsafe(callback)
    sleep(0)
    assert len(errors) == 9
    assert sum("spawn()" in error for error in errors) == 6
    assert not pending.done
    conn.close()
    right.close()
    sleep(1)


def test_callback_may_spawn_and_do_what_does_not_wait() -> None:
    tasks: list[Any] = []
    ended = spawn(lambda: 5)
    ended.join()

    def callback() -> None:
        # More often than a coroutine may before it gives way.
        for _ in range(1_000):
            ended.join()
        tasks.append(spawn(sleep, 1))

    get_hub().call_soon_threadsafe(callback)
    sleep(0)
    tasks[0].join()


def test_exceptions_of_callbacks_are_reported(unraisable: list[Any]) -> None:
    error = LookupError()

    def callback() -> None:
        raise error

    get_hub().call_soon_threadsafe(callback)
    sleep(0)
    assert unraisable == [error]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_exits_of_callbacks_go_to_the_main_program(kind: type, unraisable: list[Any]) -> None:
    def callback() -> None:
        raise kind

    get_hub().call_soon_threadsafe(callback)
    with pytest.raises(kind):
        sleep(1)
    assert unraisable == []


def test_wrong_arguments_are_refused() -> None:
    hub = get_hub()
    for call, arguments in (
        (hub.call_soon_threadsafe, ()),
        (hub.call_soon_threadsafe, (1,)),
        (hub.dispatch, (1.5,)),
        (hub.dispatch, ("1",)),
        (hub.dispatch, (1, 2)),
        (hub.run, (1,)),
        (hub.close, (1,)),
        (hub.waiters, (1,)),
        (pycoronet.Hub, ()),
        (get_hub, (1,)),
        (get_hub, (b"fake",)),
        (get_hub, ("fake", None)),
    ):
        with pytest.raises(TypeError):
            call(*arguments)
    assert hub.dispatch(10**30) == 0
    assert hub.dispatch(-(10**30)) == 0


# --- Run, wait, dispatch ----------------------------------------------------------------


def test_run_returns_when_no_task_is_left() -> None:
    order: list[int] = []

    def work(number: int) -> None:
        sleep(number)
        order.append(number)
        if number < 3:
            spawn(work, number + 1)

    spawn(work, 1)
    get_hub().run()
    assert order == [1, 2, 3]
    get_hub().run()


def test_driving_is_for_the_main_program_alone() -> None:
    def work() -> None:
        for call in (hub.run, hub.wait, hub.dispatch, hub.close):
            with pytest.raises(RuntimeError, match="main program"):
                call()

    hub = get_hub()
    spawn(work).get()


def test_dispatch_starts_and_resumes_but_never_waits() -> None:
    steps: list[str] = []

    def work() -> None:
        steps.append("begun")
        sleep(5)
        steps.append("done")

    hub = get_hub()
    spawn(work)
    assert hub.dispatch() == 0
    assert steps == ["begun"]
    assert hub.dispatch() == 0
    for _ in range(10):
        # It may come back early, with nothing.
        assert hub.wait(100) == 0
        assert hub.dispatch() == 0
    assert steps == ["begun", "done"]


def test_exit_of_a_task_is_raised_by_dispatch() -> None:
    def fail() -> None:
        raise SystemExit(3)

    spawn(fail)
    with pytest.raises(SystemExit):
        get_hub().dispatch()


# --- Closing ----------------------------------------------------------------------------


def test_close_cancels_and_runs_finally_blocks() -> None:
    order: list[str] = []

    def work(name: str) -> None:
        try:
            sleep(100)
        except Cancelled:
            order.append("cancelled " + name)
        finally:
            with shield(1):
                sleep(0.5)
            order.append("finally " + name)

    for name in "ab":
        spawn(work, name)
    never = spawn(order.append, "never")
    never.cancel()
    sleep(0)
    get_hub().close()
    assert order == ["cancelled a", "cancelled b", "finally a", "finally b"]


def test_close_is_idempotent_and_a_new_hub_comes() -> None:
    hub = get_hub()
    hub.close()
    hub.close()
    for call in (hub.run, hub.wait, hub.dispatch, lambda: hub.call_soon_threadsafe(int)):
        with pytest.raises(RuntimeError, match="closed"):
            call()
    assert hub.waiters() == []
    with pytest.raises(RuntimeError, match="closed"):
        _ = hub.time
    other = get_hub()
    assert other is not hub
    assert spawn(lambda: 5).get() == 5
    other.close()


@pytest.mark.leaves_something("a task that refuses to end")
def test_close_does_not_wait_for_ever_for_who_refuses() -> None:
    def refuse() -> None:
        with shield():
            while True:
                sleep(1)

    task = spawn(refuse)
    sleep(0)
    get_hub().close()
    # The time for closing has passed, in virtual time; what is left can do no harm.
    assert not task.done
    for call in (task.join, task.get):
        with pytest.raises(RuntimeError, match="closed"):
            call()
    task.cancel()
    get_hub().close()


def test_close_does_not_go_on_for_ever_if_it_is_interrupted_again_and_again() -> None:
    lines = lines_of(
        """
        get_hub(backend="fake")  # no two of them end at a time
        reports, ended = [], []
        sys.unraisablehook = lambda report: reports.append(report.exc_type)

        def interrupt(number):
            try:
                sleep(100)
            finally:
                with shield(4):
                    sleep(number / 100)
                ended.append(number)
                raise KeyboardInterrupt

        for number in range(20):
            spawn(interrupt, number)
        sleep(0)
        get_hub().close()
        say(len(ended), reports == [KeyboardInterrupt] * 16)
        """
    )
    assert lines == ["16 True"]


@pytest.mark.leaves_something("a task that refuses to end")
def test_things_of_a_closed_hub_are_refused_in_the_next_one() -> None:
    def refuse() -> None:
        with shield():
            sleep(None)

    old_task = spawn(refuse)
    sleep(0)
    get_hub().close()

    def use() -> None:
        with pytest.raises(RuntimeError, match="closed"):
            old_task.join()

    use()
    spawn(use).get()
    get_hub().close()


def test_foreign_switch_into_a_greenlet_of_a_closed_hub() -> None:
    greenlet = pytest.importorskip("greenlet")
    seen: list[Any] = []

    def nested() -> None:
        try:
            sleep(10)
        except RuntimeError as error:
            seen.append(str(error))

    child = greenlet.greenlet(nested)

    def work() -> None:
        spawn(greenlet.getcurrent().switch)
        child.switch()

    spawn(work).join()
    get_hub().close()
    child.switch()
    assert seen == ["this hub is closed"]


def test_closed_hubs_are_freed() -> None:
    get_hub().close()
    references = []
    for _ in range(3):
        hub = get_hub(backend="fake")
        spawn(sleep, 1).join()
        spawn(sleep, 100)
        sleep(0)
        hub.close()
        references.append(weakref.ref(hub))
        del hub
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


# --- Engines ----------------------------------------------------------------------------

LIST_OF_ENGINES = r"((epoll|kqueue), )+fake$"


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Leave the choice of the engine to pycoronet; return its name."""
    monkeypatch.delenv("PYCORONET_ENGINE", raising=False)
    get_hub().close()
    name = get_hub().backend
    get_hub().close()
    yield name
    monkeypatch.undo()
    get_hub().close()


def test_engine_is_the_systems_if_nobody_names_one(
    real: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert real in ("epoll", "kqueue")
    monkeypatch.setenv("PYCORONET_ENGINE", "")
    assert get_hub(backend=None).backend == real


def test_engine_is_that_of_the_environment(real: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fake", real):
        monkeypatch.setenv("PYCORONET_ENGINE", name)
        assert get_hub().backend == name
        get_hub().close()


def test_engine_asked_for_goes_before_the_environment(
    real: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYCORONET_ENGINE", "fake")
    assert get_hub(backend=real).backend == real
    get_hub().close()
    monkeypatch.setenv("PYCORONET_ENGINE", "nonsense")
    assert get_hub("fake").backend == "fake"
    # The hub is there: what the environment says does not matter any more.
    assert get_hub() is get_hub(None) is get_hub(backend="fake")


def test_engine_of_a_hub_cannot_be_changed(real: str) -> None:
    hub = get_hub(backend=real)
    with pytest.raises(RuntimeError, match=f"'{real}'.*close().*'fake'"):
        get_hub(backend="fake")
    with pytest.raises(ValueError, match="no engine 'nonsense'"):
        get_hub(backend="nonsense")
    assert get_hub() is hub
    assert spawn(lambda: 5).get() == 5
    hub.close()
    assert get_hub(backend="fake").backend == "fake"


@pytest.mark.parametrize(
    "name", ["kqeue", "Fake", "fake ", "", "fake\0", "fake\0x", "\0", "\udcff", "é", "%s%n"]
)
def test_engine_that_is_not_there_is_named_with_those_that_are(real: str, name: str) -> None:
    with pytest.raises(ValueError, match=LIST_OF_ENGINES) as caught:
        get_hub(backend=name)
    assert str(caught.value).startswith(f"there is no engine {name!r} here; backend may be: ")
    assert get_hub().backend == real


USERS_OF_A_HUB = {
    "get_hub": get_hub,
    "spawn": lambda: spawn(int),
    "sleep": sleep,
    "current": current,
    "timeout": lambda: pycoronet.timeout(1).__enter__(),
    "shield": lambda: shield(1).__enter__(),
    "wait_fd": lambda: pycoronet.wait_readable(0, 0),
    "to_thread": lambda: pycoronet.to_thread(int),
    "connect": lambda: pycoronet.connect(("127.0.0.1", 9)),
    "listen": lambda: pycoronet.listen(("127.0.0.1", 0)),
    "serve": lambda: pycoronet.serve(("127.0.0.1", 0), int),
    "getaddrinfo": lambda: pycoronet.getaddrinfo("localhost", 9),
}


@pytest.mark.parametrize("user", USERS_OF_A_HUB)
def test_engine_of_the_environment_that_is_not_there_is_told_by_whoever_needs_it(
    real: str, monkeypatch: pytest.MonkeyPatch, user: str
) -> None:
    monkeypatch.setenv("PYCORONET_ENGINE", "kqeue")
    pattern = "^there is no engine 'kqeue' here; PYCORONET_ENGINE may be: " + LIST_OF_ENGINES
    for _ in range(2):
        with pytest.raises(ValueError, match=pattern):
            USERS_OF_A_HUB[user]()
    monkeypatch.setenv("PYCORONET_ENGINE", real)
    assert spawn(lambda: 5).get() == 5


def test_engine_of_the_environment_may_be_any_bytes() -> None:
    program = """
    try:
        get_hub()
    except ValueError as error:
        say(str(error).partition(";")[0])
    """
    name = os.fsdecode(b"\xff\n")
    lines = lines_of(program, environment={"PYCORONET_ENGINE": name})
    assert lines == [f"there is no engine {name!r} here"]


def test_engines_of_two_threads_have_nothing_to_do_with_each_other(real: str) -> None:
    hub = get_hub(backend="fake")
    others: list[Any] = []

    def work() -> None:
        others.append(get_hub(backend=real))
        others.append(spawn(lambda: get_hub().backend).get())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert others[0] is not hub
    assert others[1] == real
    assert get_hub() is hub
    assert hub.backend == "fake"


# --- Waiters ----------------------------------------------------------------------------


def test_waiters_tell_who_waits_for_what() -> None:
    task = spawn(sleep, 3)
    task.name = "sleeper"
    sleep(0)
    assert get_hub().waiters() == ["Task 'sleeper': sleep 3"]
    task.cancel()


def test_whether_any_thread_has_a_hub() -> None:
    program = """
    from pycoronet import _coronet
    steps = [_coronet._hub_exists()]
    begun, over = threading.Event(), threading.Event()
    def work():
        get_hub()
        begun.set()
        over.wait()
    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    steps.append(_coronet._hub_exists())  # that of the thread
    if os.fork() == 0:
        say(_coronet._hub_exists())  # which is not here
        get_hub()
        say(_coronet._hub_exists())
        os._exit(0)
    os.wait()
    over.set()
    thread.join()
    steps.append(_coronet._hub_exists())
    get_hub()
    steps.append(_coronet._hub_exists())
    if os.fork() == 0:
        say(_coronet._hub_exists())
        os._exit(0)
    os.wait()
    get_hub().close()
    steps.append(_coronet._hub_exists())
    try:
        get_hub(backend="none")
    except ValueError:
        steps.append(_coronet._hub_exists())
    say(*steps)
    """
    assert lines_of(program, environment={"PYTHONWARNINGS": "ignore"}) == [
        "False",
        "True",
        "True",
        "False True False True False False",
    ]
