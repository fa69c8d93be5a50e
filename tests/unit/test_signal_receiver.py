"""open_signal_receiver(): signals as something to iterate over."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from processes import lines_of

from pycoronet import Cancelled, get_hub, open_signal_receiver, sleep, spawn, timeout, to_thread

SIGNALS = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT]


@pytest.fixture(autouse=True)
def same_handlers() -> Iterator[None]:
    """See to it that the handlers from before are back, and put them back otherwise."""
    get_hub().close()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    with timeout(30):  # a test that fails may not hang
        yield
    get_hub().close()
    after = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before


def kill(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def send(*numbers: int) -> None:
    """Send signals one by one, and let the hub hear of each."""
    for number in numbers:
        kill(number)
        sleep(0)


def taken(signals: Any, count: int) -> list[int]:
    return [next(signals) for _ in range(count)]


def test_signals_come_in_their_order() -> None:
    with open_signal_receiver(*SIGNALS) as signals:
        send(signal.SIGUSR2, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1)
        assert taken(signals, 4) == [signal.SIGUSR2, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1]


def test_the_block_is_left_out_of_the_loop() -> None:
    seen = []
    with open_signal_receiver(signal.SIGUSR1, signal.SIGHUP) as signals:
        spawn(send, signal.SIGUSR1)
        for signum in signals:
            seen.append(signum)
            if signum == signal.SIGHUP:
                break
            spawn(send, signal.SIGHUP)
    assert seen == [signal.SIGUSR1, signal.SIGHUP]


def test_one_that_comes_again_before_it_is_taken_counts_once() -> None:
    with open_signal_receiver(signal.SIGUSR1, signal.SIGUSR2) as signals:
        send(signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1, signal.SIGUSR1)
        assert taken(signals, 2) == [signal.SIGUSR1, signal.SIGUSR2]
        waiting = spawn(next, signals)
        sleep(0)
        assert not waiting.done  # there is none left
        send(signal.SIGUSR1)
        assert waiting.get() == signal.SIGUSR1


def test_one_given_twice_is_one() -> None:
    with open_signal_receiver(signal.SIGUSR1, signal.SIGUSR1) as signals:
        send(signal.SIGUSR1, signal.SIGUSR1)
        assert next(signals) == signal.SIGUSR1
        assert signals._queue.empty()


def test_a_signal_comes_while_nothing_else_goes_on() -> None:
    with open_signal_receiver(signal.SIGUSR1) as signals:
        thread = threading.Thread(target=kill, args=(signal.SIGUSR1,))
        spawn(thread.start)
        assert next(signals) == signal.SIGUSR1
        thread.join()
        spawn(kill, signal.SIGUSR1)
        assert next(signals) == signal.SIGUSR1  # no other thread is there


def test_two_receivers_get_all_each() -> None:
    with open_signal_receiver(signal.SIGUSR1, signal.SIGUSR2) as outer:
        with open_signal_receiver(signal.SIGUSR2) as inner:
            send(signal.SIGUSR1, signal.SIGUSR2)
            assert next(inner) == signal.SIGUSR2
            assert inner._queue.empty()
        assert taken(outer, 2) == [signal.SIGUSR1, signal.SIGUSR2]
        send(signal.SIGUSR2)
        assert next(outer) == signal.SIGUSR2


def test_tasks_that_share_one_get_each_signal_once() -> None:
    with open_signal_receiver(*SIGNALS) as signals:
        tasks = [spawn(next, signals) for _ in range(3)]
        sleep(0)
        send(*SIGNALS)
        assert [task.get() for task in tasks] == SIGNALS[:3]
        assert next(signals) == SIGNALS[3]


def test_a_cancelled_task_loses_no_signal() -> None:
    with open_signal_receiver(signal.SIGUSR1) as signals:
        first, second = spawn(next, signals), spawn(next, signals)
        sleep(0)
        first.cancel()
        with pytest.raises(Cancelled):
            first.get()
        send(signal.SIGUSR1)
        assert second.get() == signal.SIGUSR1


def test_another_thread_may_iterate() -> None:
    with open_signal_receiver(signal.SIGUSR1) as signals:
        task = spawn(to_thread, next, signals)
        sleep(0)
        send(signal.SIGUSR1)
        assert task.get() == signal.SIGUSR1


def test_the_end_of_the_block_ends_the_iteration() -> None:
    with open_signal_receiver(signal.SIGUSR1, signal.SIGUSR2) as signals:
        waiting = [spawn(list, signals) for _ in range(2)]
        sleep(0)
    assert [task.get() for task in waiting] == [[], []]
    with open_signal_receiver(signal.SIGUSR1) as signals:
        send(signal.SIGUSR1)
    assert list(signals) == []  # what was not taken is dropped


@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt])
def test_the_handlers_come_back_after_an_exception_too(error: type[BaseException]) -> None:
    def mine(number: int, frame: Any) -> None:
        calls.append(number)

    calls: list[int] = []
    before = signal.signal(signal.SIGUSR1, mine)
    with pytest.raises(error), open_signal_receiver(signal.SIGUSR1):
        kill(signal.SIGUSR1)
        assert calls == []
        raise error
    assert signal.getsignal(signal.SIGUSR1) is mine
    kill(signal.SIGUSR1)
    assert calls == [signal.SIGUSR1]
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize(
    ("numbers", "error"),
    [
        ((), TypeError),
        (("USR1",), TypeError),
        ((signal.SIGUSR1, None), TypeError),
        ((signal.SIGUSR1, 0), ValueError),
        ((signal.SIGUSR1, 10_000), ValueError),
        ((signal.SIGUSR1, signal.SIGKILL), OSError),
    ],
)
def test_wrong_arguments_are_refused(numbers: Any, error: Any) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(error), open_signal_receiver(*numbers):
        pass
    assert signal.getsignal(signal.SIGUSR1) is before


def test_other_threads_are_refused_clearly() -> None:
    def attempt() -> str:
        try:
            with open_signal_receiver(signal.SIGUSR1):
                return "entered"
        except RuntimeError as error:
            return str(error)

    assert "main thread" in to_thread(attempt)


def test_the_end_of_the_hub_ends_the_iteration() -> None:
    with open_signal_receiver(signal.SIGUSR1) as signals:
        get_hub().close()
        assert list(signals) == []


def test_a_forked_child_receives_nothing() -> None:
    program = """
    with open_signal_receiver(signal.SIGUSR1) as signals:
        pid = os.fork()
        if pid == 0:
            say("child", list(signals))
            os._exit(0)
        os.waitpid(pid, 0)
        os.kill(os.getpid(), signal.SIGUSR1)
        say("parent", next(signals))
    """
    assert lines_of(program) == ["child []", f"parent {int(signal.SIGUSR1)}"]
