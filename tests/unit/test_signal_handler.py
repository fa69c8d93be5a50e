"""signal_handler(): signals as callbacks of the hub."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from processes import lines_of

import pycoronet
from pycoronet import SignalHandle, current, get_hub, signal_handler, sleep, spawn

SIGNALS = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)


@pytest.fixture(autouse=True)
def kept_handlers() -> Iterator[None]:
    """Put handlers back, and give the test a hub that has not looked at them."""
    get_hub().close()
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    get_hub().close()
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


def kill(number: int = signal.SIGUSR1) -> None:
    os.kill(os.getpid(), number)


def test_function_is_called_in_the_hub_and_in_no_coroutine() -> None:
    calls: list[Any] = []
    handle = signal_handler(
        signal.SIGUSR1, lambda number: calls.append((number, current(), threading.get_ident()))
    )
    assert isinstance(handle, SignalHandle)
    assert handle.active
    assert handle.signum == signal.SIGUSR1
    kill()
    assert calls == []

    def work() -> None:
        kill()
        assert len(calls) == 1  # of the first one
        sleep(0.001)

    sleep(0)
    spawn(work).get()
    assert calls == [(signal.SIGUSR1, None, threading.get_ident())] * 2
    handle.cancel()


def test_it_is_called_each_time_until_it_is_cancelled() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    calls: list[int] = []
    handle = signal_handler(signal.SIGUSR1, calls.append)
    for count in range(1, 4):
        kill()
        sleep(0)
        assert len(calls) == count
    handle.cancel()
    handle.cancel()
    assert not handle.active
    assert signal.getsignal(signal.SIGUSR1) is before


def test_signals_before_the_call_count_as_one() -> None:
    calls: list[int] = []
    handle = signal_handler(signal.SIGUSR1, calls.append)
    for _ in range(5):
        kill()
        for _ in range(10):
            pass  # lets Python's own handler run
    sleep(0)
    assert calls == [signal.SIGUSR1]
    handle.cancel()


def test_one_that_is_due_is_not_called_after_cancel() -> None:
    calls: list[int] = []
    handle = signal_handler(signal.SIGUSR1, calls.append)
    kill()
    handle.cancel()
    sleep(0)
    assert calls == []


@pytest.mark.parametrize("last", [0, 1, 2])
def test_several_for_one_signal_and_the_old_one_with_the_last_cancel(last: int) -> None:
    def mine(number: int, frame: Any) -> None:
        pass

    signal.signal(signal.SIGUSR1, mine)
    calls: list[str] = []
    handles = [
        signal_handler(signal.SIGUSR1, lambda _, name=name: calls.append(name)) for name in "abc"
    ]
    kill()
    sleep(0)
    assert calls == ["a", "b", "c"]
    keeper = handles.pop(last)
    for handle in handles:
        handle.cancel()
        assert signal.getsignal(signal.SIGUSR1) is not mine
    calls.clear()
    kill()
    sleep(0)
    assert calls == ["abc"[last]]
    keeper.cancel()
    assert signal.getsignal(signal.SIGUSR1) is mine


def test_signals_are_told_apart() -> None:
    calls: list[int] = []
    handles = [signal_handler(number, calls.append) for number in (signal.SIGUSR1, signal.SIGUSR2)]
    kill(signal.SIGUSR2)
    sleep(0)
    assert calls == [signal.SIGUSR2]
    handles[1].cancel()
    kill(signal.SIGUSR1)
    sleep(0)
    assert calls == [signal.SIGUSR2, signal.SIGUSR1]
    handles[0].cancel()


def test_handler_set_by_others_meanwhile_stays() -> None:
    got: list[int] = []
    handle = signal_handler(signal.SIGUSR1, print)
    signal.signal(signal.SIGUSR1, lambda number, frame: got.append(number))
    theirs = signal.getsignal(signal.SIGUSR1)
    handle.cancel()
    assert signal.getsignal(signal.SIGUSR1) is theirs


def test_handler_set_by_others_comes_back_after_a_later_one() -> None:
    calls: list[int] = []
    first = signal_handler(signal.SIGUSR1, calls.append)
    signal.signal(signal.SIGUSR1, lambda number, frame: None)
    theirs = signal.getsignal(signal.SIGUSR1)
    second = signal_handler(signal.SIGUSR1, calls.append)
    kill()
    sleep(0)
    assert len(calls) == 2
    for handle in (first, second):
        handle.cancel()
    assert signal.getsignal(signal.SIGUSR1) is theirs


def test_interrupt_becomes_a_callback_and_keyboard_interrupt_again() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    calls: list[int] = []
    handle = signal_handler(signal.SIGINT, calls.append)
    spawn(kill, signal.SIGINT)
    sleep(0.001)
    assert calls == [signal.SIGINT]
    handle.cancel()
    # The hub stands in for Python's handler again: no coroutine gets the exception.
    seen: list[BaseException] = []

    def work() -> None:
        try:
            kill(signal.SIGINT)
            sleep(0)
        except BaseException as error:
            seen.append(error)
            raise

    task = spawn(work)
    with pytest.raises(KeyboardInterrupt):
        sleep(0.001)
    task.join()
    assert seen == []
    get_hub().close()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_close_of_the_hub_brings_all_handlers_back() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = [signal.getsignal(number) for number in SIGNALS]
    handles = [signal_handler(number, print) for number in SIGNALS for _ in range(2)]
    assert signal.getsignal(signal.SIGTERM) is not before[3]
    get_hub().close()
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert not any(handle.active for handle in handles)
    handles[0].cancel()


def test_a_hub_made_anew_takes_handlers_again() -> None:
    calls: list[int] = []
    signal_handler(signal.SIGUSR1, print)
    get_hub().close()
    handle = signal_handler(signal.SIGUSR1, calls.append)
    kill()
    sleep(0)
    assert calls == [signal.SIGUSR1]
    handle.cancel()


def test_run_goes_on_for_it_and_stop_ends_that() -> None:
    hub = get_hub()
    calls: list[int] = []

    def stop(number: int) -> None:
        calls.append(number)
        hub.stop()

    handle = signal_handler(signal.SIGUSR1, stop)
    # From a thread that has ended when the signal is looked at; nothing else is there.
    timer = threading.Timer(0, kill)
    spawn(timer.start).join()
    hub.run()
    timer.join()
    assert calls == [signal.SIGUSR1]
    handle.cancel()
    hub.run()


def test_function_that_cancels_itself_ends_the_run() -> None:
    hub = get_hub()
    handle = signal_handler(signal.SIGUSR1, lambda _: handle.cancel())
    kill()
    hub.run()
    assert not handle.active


def test_function_that_only_wakes_a_coroutine_is_no_deadlock() -> None:
    lot = pycoronet._coronet.ParkingLot()
    handle = signal_handler(signal.SIGUSR1, lambda _: lot.unpark())
    waiting = spawn(lot.park, "signal")
    thread = threading.Thread(target=kill)
    spawn(thread.start)
    assert waiting.get() is True
    thread.join()
    handle.cancel()


def test_what_the_function_raises(reports: list[Any]) -> None:
    errors = [ZeroDivisionError, KeyboardInterrupt]

    def fail(number: int) -> None:
        raise errors.pop(0)

    handle = signal_handler(signal.SIGUSR1, fail)
    kill()
    sleep(0)
    assert [type(each) for each in reports] == [ZeroDivisionError]
    kill()
    with pytest.raises(KeyboardInterrupt):
        sleep(1)
    assert handle.active
    handle.cancel()


def test_driven_by_hand_it_is_called_by_dispatch() -> None:
    hub = get_hub()
    calls: list[int] = []
    handle = signal_handler(signal.SIGUSR1, calls.append)
    hub.wait(0)
    kill()
    hub.wait()
    assert calls == []
    hub.dispatch()
    assert calls == [signal.SIGUSR1]
    handle.cancel()


def test_function_is_let_go_of() -> None:
    class Function:
        def __call__(self, number: int) -> None:
            pass

    function = Function()
    gone = weakref.ref(function)
    handle = signal_handler(signal.SIGUSR1, function)
    del function
    assert gone() is not None
    assert "SignalHandle of" in repr(handle)
    handle.cancel()
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), TypeError),
        ((signal.SIGUSR1,), TypeError),
        ((signal.SIGUSR1, 5), TypeError),
        (("USR1", print), TypeError),
        ((0, print), ValueError),
        ((-1, print), ValueError),
        ((10_000, print), ValueError),
        ((10**30, print), (OverflowError, ValueError)),
        ((signal.SIGKILL, print), OSError),
    ],
)
def test_wrong_arguments_are_refused(arguments: Any, error: Any) -> None:
    with pytest.raises(error):
        signal_handler(*arguments)
    get_hub().run()


def test_other_threads_are_refused_clearly() -> None:
    handle = signal_handler(signal.SIGUSR1, print)
    errors: list[str] = []

    def attempt() -> None:
        for call in (lambda: signal_handler(signal.SIGUSR1, print), handle.cancel):
            try:
                call()
            except RuntimeError as error:
                errors.append(str(error))
        get_hub().close()

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert "main thread" in errors[0]
    assert "another thread" in errors[1]
    handle.cancel()


def test_endless_feeders_do_not_starve_signals() -> None:
    calls: list[int] = []

    def feed() -> None:
        while not calls:
            sleep(0)

    handle = signal_handler(signal.SIGUSR1, calls.append)
    tasks = [spawn(feed) for _ in range(2)]
    sleep(0)
    kill()
    for task in tasks:
        task.join()
    handle.cancel()


def test_signal_just_before_the_wait_is_not_lost() -> None:
    program = """
    from pycoronet._coronet import ParkingLot
    lot = ParkingLot()
    signal_handler(signal.SIGUSR1, lambda _: lot.unpark())
    send = __import__("functools").partial(os.kill, os.getpid(), signal.SIGUSR1)
    for _ in range(300):
        get_hub().call_soon(send)
        assert lot.park("signal", 20)
    say("all")
    """
    assert lines_of(program) == ["all"]


def test_signal_wakes_a_hub_that_sleeps_in_the_system() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("needs /proc")
    program = """
    def state():
        with open("/proc/self/task/%d/stat" % os.getpid()) as file:
            return file.read().split(")")[1][:3]
    def send():
        while "S" not in state():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
    signal_handler(signal.SIGTERM, lambda number: (say(number), get_hub().stop()))
    threading.Thread(target=send, daemon=True).start()
    get_hub().run()
    say("stopped")
    """
    assert lines_of(program) == [str(int(signal.SIGTERM)), "stopped"]


def test_forked_child_has_the_old_handlers() -> None:
    program = """
    signal.signal(signal.SIGUSR1, lambda *_: say("old handler"))
    handle = signal_handler(signal.SIGUSR1, lambda _: say("new in", where()))
    signal_handler(signal.SIGINT, lambda _: say("interrupt"))
    parent = os.getpid()
    def where():
        return "parent" if os.getpid() == parent else "child"
    def work():
        sleep(0)
        if os.fork() == 0:
            assert not handle.active
            os.kill(os.getpid(), signal.SIGUSR1)
            mine = signal_handler(signal.SIGUSR1, lambda _: say("new in", where()))
            os.kill(os.getpid(), signal.SIGUSR1)
            sleep(0.001)
            mine.cancel()
            os.kill(os.getpid(), signal.SIGUSR1)
            say(signal.getsignal(signal.SIGINT) is signal.default_int_handler
                or signal.getsignal(signal.SIGINT).__name__)
            os._exit(0)
        os.wait()
        os.kill(os.getpid(), signal.SIGUSR1)
        sleep(0.001)
    spawn(work).join()
    """
    assert lines_of(program) == [
        "old handler",
        "new in child",
        "old handler",
        "_interrupt_main",
        "new in parent",
    ]


def test_a_handler_that_was_not_python_s_becomes_the_default() -> None:
    program = """
    import _signal
    real = _signal.signal
    def set_handler(number, handler):
        # As if the one before had been set before Python began, which does not know it.
        real(number, handler)
    _signal.signal = set_handler
    handle = signal_handler(signal.SIGUSR1, print)
    handle.cancel()
    say(signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL)
    """
    assert lines_of(program) == ["True"]
