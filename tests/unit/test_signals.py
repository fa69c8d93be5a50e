"""Signals: KeyboardInterrupt in the main program alone, nobody else's handler touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from processes import PREAMBLE, lines_of, run_program

import pycoronet
from pycoronet import get_hub, sleep, spawn

INTERRUPT = "os.kill(os.getpid(), signal.SIGINT)\n"

# Where the main program waits when the signal comes; the signal comes from a thread once
# it does, or from a coroutine.
WAITS = {
    "sleep": "sleep(30)",
    "sleep without end": "sleep(None)",
    "join": "spawn(sleep, 30).join()",
    "get": "spawn(sleep, 30).get(40)",
    "read": "connected.readsome(10)",
    "accept": "listener.accept()",
    "serve": "serve(listener, print)",
    "wait_fd": "wait_readable(pipe[0])",
    "run": "get_hub().run()",
    "by hand": "\n    while True: get_hub().wait(30); get_hub().dispatch()",
    "to_thread": "to_thread(time.sleep, 1)",
    "nested greenlet": "__import__('greenlet').greenlet(lambda: sleep(30)).switch()",
}

SETTING = """
listener = listen(("127.0.0.1", 0))
client = connect(listener.getsockname())
connected, _ = listener.accept()
pipe = os.pipe()
def pending():
    try:
        sleep(60)
    except Cancelled:
        say("cancelled")
        raise
    except BaseException as error:
        say("wrong", repr(error))
    finally:
        say("finally")
"""


@pytest.mark.parametrize("sender", ["thread", "coroutine"])
@pytest.mark.parametrize("wait", WAITS)
def test_interrupt_reaches_the_waiting_main_program(wait: str, sender: str) -> None:
    if sender == "thread":
        # Not before the main program is in the system's wait: it has nothing else to do.
        send = """
def send():
    while "S" not in open("/proc/self/task/%d/stat" % os.getpid()).read().split(")")[1][:3]:
        pass
    os.kill(os.getpid(), signal.SIGINT)
spawn(lambda: threading.Thread(target=send, daemon=True).start())
"""
        if not sys.platform.startswith("linux"):
            pytest.skip("needs /proc")
    else:
        send = "spawn(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
    program = (
        SETTING
        + "spawn(pending)\n"
        + send
        + "try:\n    "
        + WAITS[wait]
        + "\nexcept KeyboardInterrupt:\n    say('interrupted')\n"
        + "for it in (listener, client, connected): it.close()\n"
    )
    done = run_program(program)
    assert done.stdout.splitlines() == ["interrupted", "cancelled", "finally"], done.stderr
    assert done.returncode == 0
    assert "Error" not in done.stderr


def test_interrupt_never_hits_a_coroutine_that_computes() -> None:
    program = """
    hits = []
    def compute():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(100_000):
                pass
        except BaseException as error:
            say("hit", repr(error))
        say("computed")
    spawn(compute)
    try:
        sleep(0)
    except KeyboardInterrupt:
        say("interrupted")
    """
    assert lines_of(program) == ["computed", "interrupted"]


def test_second_undelivered_interrupt_raises_in_place() -> None:
    program = """
    def refuse():
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000): pass
        try:
            os.kill(os.getpid(), signal.SIGINT)
            while True: pass
        except KeyboardInterrupt:
            say("in place")
    spawn(refuse)
    try:
        sleep(1)
    except KeyboardInterrupt:
        say("interrupted")
    """
    assert lines_of(program) == ["in place", "interrupted"]


def test_uncaught_interrupt_runs_finally_blocks_and_kills_the_process() -> None:
    program = """
    def pending():
        try:
            sleep(60)
        finally:
            with shield(1):
                sleep(0.001)
            say("finally")
    spawn(pending)
    spawn(lambda: os.kill(os.getpid(), signal.SIGINT))
    try:
        sleep(60)
    finally:
        say("main")
    """
    done = run_program(program)
    assert done.stdout.splitlines() == ["main", "finally"]
    assert done.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in done.stderr


def test_interrupt_while_the_main_program_runs_is_python_s_own() -> None:
    program = """
    sleep(0.001)
    try:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000): pass
        say("missed")
    except KeyboardInterrupt:
        say("interrupted")
    sleep(0.001)
    """
    assert lines_of(program) == ["interrupted"]


@pytest.fixture
def kept_handlers() -> Iterator[None]:
    """Put handlers back, and give the test a hub that has not looked at them."""
    get_hub().close()
    numbers = (signal.SIGINT, signal.SIGUSR1, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    get_hub().close()
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("kept_handlers")
def test_the_user_s_handler_stays_and_runs() -> None:
    got: list[Any] = []
    signal.signal(signal.SIGINT, lambda number, frame: got.append(number))
    mine = signal.getsignal(signal.SIGINT)
    spawn(os.kill, os.getpid(), signal.SIGINT)
    sleep(0.001)
    assert signal.getsignal(signal.SIGINT) is mine
    assert got == [signal.SIGINT]


@pytest.mark.usefixtures("kept_handlers")
@pytest.mark.parametrize("choice", [signal.SIG_IGN, signal.SIG_DFL])
def test_ignored_and_default_interrupts_stay_so(choice: Any) -> None:
    signal.signal(signal.SIGINT, choice)
    sleep(0.001)
    assert signal.getsignal(signal.SIGINT) is choice
    with pytest.raises(pycoronet.DeadlockError):
        sleep(None)
    get_hub().close()
    assert signal.getsignal(signal.SIGINT) is choice


@pytest.mark.usefixtures("kept_handlers")
def test_the_handler_and_the_wakeup_descriptor_are_given_back() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    os.set_blocking(read_end, False)
    signal.set_wakeup_fd(write_end)
    got: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, frame: got.append(number))
    sleep(0.001)
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    spawn(os.kill, os.getpid(), signal.SIGUSR1)
    sleep(0.001)
    assert got == [signal.SIGUSR1]
    # Whose place we took gets the byte as well.
    assert os.read(read_end, 10) == bytes([signal.SIGUSR1])
    get_hub().close()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == write_end
    os.close(read_end)
    os.close(write_end)


@pytest.mark.usefixtures("kept_handlers")
def test_a_wakeup_descriptor_closed_meanwhile_is_not_given_back() -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end)
    sleep(0.001)
    os.close(read_end)
    os.close(write_end)
    get_hub().close()
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.usefixtures("kept_handlers")
def test_somebody_else_s_later_wakeup_descriptor_stays() -> None:
    sleep(0.001)
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end)
    get_hub().close()
    assert signal.set_wakeup_fd(-1) == write_end
    os.close(read_end)
    os.close(write_end)


@pytest.mark.usefixtures("kept_handlers")
def test_handler_that_wakes_a_task_is_no_deadlock() -> None:
    lot = pycoronet._coronet.ParkingLot()
    signal.signal(signal.SIGUSR1, lambda number, frame: lot.unpark())
    # A thread that is no more when the main program waits would do as well; this one
    # sends the signal and has ended, so nothing but the handler can wake the lot.
    thread = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGUSR1))
    waiting = spawn(lot.park, "signal")
    spawn(thread.start)
    assert waiting.get() is True
    thread.join()


@pytest.mark.usefixtures("kept_handlers")
def test_what_a_handler_raises_goes_to_the_main_program() -> None:
    def fail(number: int, frame: Any) -> None:
        raise LookupError

    signal.signal(signal.SIGALRM, fail)
    waiting = spawn(sleep, 30)
    sleep(0)
    # It comes while all wait: a coroutine that runs would have got it.
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    with pytest.raises(LookupError):
        sleep(10)
    assert not waiting.done


def test_signal_just_before_the_wait_is_not_lost() -> None:
    # The handler runs no bytecode between the kill in the callback and the poll.
    program = """
    signal.signal(signal.SIGUSR1, lambda *_: lot.unpark())
    from pycoronet._coronet import ParkingLot
    lot = ParkingLot()
    send = __import__("functools").partial(os.kill, os.getpid(), signal.SIGUSR1)
    for _ in range(300):
        get_hub().call_soon_threadsafe(send)
        assert lot.park("signal", 20)
    say("all")
    """
    assert lines_of(program) == ["all"]


def test_endless_feeders_do_not_starve_signals() -> None:
    program = """
    def feed():
        while True: sleep(0)
    spawn(feed)
    spawn(feed)
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        sleep(None)
    except KeyboardInterrupt:
        say("interrupted")
    """
    assert lines_of(program) == ["interrupted"]


def test_interrupts_at_exit_do_not_stop_the_clean_up() -> None:
    program = """
    def pending():
        try:
            sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            with shield(5):
                sleep(0.01)
            say("finally")
    spawn(pending)
    sleep(0)
    """
    done = run_program(program)
    assert done.stdout.splitlines() == ["finally"]
    assert done.returncode == 0


def test_ctrl_c_from_outside_ends_a_server() -> None:
    program = PREAMBLE + (
        "listener = listen(('127.0.0.1', 0))\n"
        "spawn(say, 'ready')\n"
        "try: serve(listener, print)\n"
        "except KeyboardInterrupt: say('interrupted')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", program], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "interrupted\n"
    assert process.returncode == 0


def test_a_hub_waits_though_no_descriptor_is_left_since_it_was_made() -> None:
    lines = lines_of("""
        import resource

        hub = get_hub()
        highest = os.dup(0)
        os.close(highest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, highest))
        spawn(say, "spawned").join()
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        signal.signal(signal.SIGALRM, lambda *_: say("signalled"))
        spawn(sleep, 0.05).join()
    """)
    assert lines == ["spawned", "signalled"]


def test_a_hub_that_finds_no_descriptor_is_not_made() -> None:
    lines = lines_of("""
        import resource

        highest = os.dup(0)
        os.close(highest)
        for room in range(1, 8):
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + room, 100))
            try:
                get_hub()
            except OSError as error:
                say(error.errno == __import__("errno").EMFILE)
            else:
                sleep(0.001)
                say("made")
                break
    """)
    assert lines[-1] == "made"
    assert set(lines[:-1]) == {"True"}
