"""The C API in threads, processes and forked children, and the extension in examples/c_api."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from c_api_case import ROOT, build_example, run
from processes import lines_of
from test_fork import SETTING as FORK_SETTING

from pycoronet import READ, _coronet, current, sleep, spawn

# --- Threads ----------------------------------------------------------------------------


def in_thread(function: Any) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


@pytest.mark.linux_only
def test_time_of_a_real_hub_is_pythons_monotonic_clock(probe: Any) -> None:
    times = [time.monotonic_ns(), probe.now_ns(), time.monotonic_ns()]
    assert times == sorted(times)


def test_wake_comes_from_a_thread_that_python_does_not_know(probe: Any) -> None:
    turns: list[int] = []

    def tick() -> None:
        while True:
            turns.append(1)
            sleep(0)

    for with_others in (False, True):
        ticker = spawn(tick) if with_others else None
        waiter = probe.waiter_new()
        probe.wake_from_thread(waiter)
        probe.park(waiter, probe.deadline_after(60))
        if ticker is not None:
            ticker.cancel()
            assert turns


def test_wakes_from_many_threads_all_arrive(probe: Any) -> None:
    waiters = [probe.waiter_new() for _ in range(50)]
    tasks = [spawn(probe.park, waiter, probe.deadline_after(60)) for waiter in waiters]
    sleep(0)
    for waiter in waiters:
        probe.wake_from_thread(waiter)
    assert [task.get() for task in tasks] == [None] * 50


def test_threads_wait_in_hubs_of_their_own(probe: Any, pipe: tuple[int, int]) -> None:
    waiter, seen = probe.waiter_new(), []

    def wait() -> None:
        seen.append(probe.wait_fd(pipe[0], READ, probe.deadline_after(60)))
        probe.park(waiter, probe.deadline_after(60))
        seen.append(probe.current_task())

    thread = threading.Thread(target=wait)
    thread.start()
    os.write(pipe[1], b"x")
    probe.wake(waiter)
    thread.join()
    assert seen[0] == READ
    assert seen[1] is not current()
    assert seen[1].name == "main program"


def test_thread_without_a_hub_makes_and_wakes_waiters(probe: Any) -> None:
    made: list[Any] = []

    def make() -> None:
        made.append(probe.waiter_new())
        probe.wake(made[0])
        probe.notify_closing(0)
        assert len(_coronet._list_hubs()) == before

    before = len(_coronet._list_hubs())
    in_thread(make)
    probe.park(made[0], 0)


def test_thread_that_python_does_not_know_waits_and_leaves_nothing(
    probe: Any, pipe: tuple[int, int]
) -> None:
    seen: list[int] = []
    before = len(_coronet._list_hubs())
    os.write(pipe[1], b"x")
    for _ in range(3):
        probe.call_in_thread(
            lambda: seen.append(probe.wait_fd(pipe[0], READ, probe.deadline_after(60)))
        )
    assert seen == [READ] * 3
    assert len(_coronet._list_hubs()) == before


# --- Processes --------------------------------------------------------------------------


def program_with(probe: Any, source: str) -> str:
    folder = str(Path(probe.__file__).parent)
    return f"sys.path.insert(0, {folder!r})\nimport coronet_probe as probe\n{source}"


def test_forked_child_goes_on_and_wakes_nobody_of_the_parents(probe: Any) -> None:
    program = program_with(
        probe,
        FORK_SETTING
        + """
waiter = probe.waiter_new()
def wait():
    probe.park(waiter)
    say("woken in the", where())
task = spawn(wait)
sleep(0)
pid = os.fork()
if pid == 0:
    probe.wake(waiter)
    sleep(0.001)
    probe.park(waiter, 0)  # the wake is the child's own
    reader, writer = os.pipe()
    os.write(writer, b"x")
    say("child", probe.wait_fd(reader, READ, probe.deadline_after(60)))
    os._exit(0)
say("status", status_of(pid))
assert not task.done
probe.wake(waiter)
task.join()
""",
    )
    assert lines_of(program) == ["child 1", "status 0", "woken in the parent", "exit parent"]


def test_wait_for_a_wake_is_no_deadlock(probe: Any) -> None:
    # Nobody is to be seen who could wake it: Python does not know that thread yet.
    program = program_with(
        probe,
        """
signal.alarm(40)
waiter = probe.waiter_new()
probe.wake_from_thread(waiter)
probe.park(waiter)
say("woken")
""",
    )
    assert lines_of(program) == ["woken"]


def test_interrupt_on_the_way_to_the_first_wait_is_not_lost(probe: Any) -> None:
    # Making a hub runs Python code, and what that raised was taken for a missing module.
    program = program_with(
        probe,
        """
signal.alarm(40)
try:
    probe.raise_and_park(signal.SIGINT, probe.waiter_new())
except KeyboardInterrupt:
    say("interrupted")
""",
    )
    assert lines_of(program) == ["interrupted"]


def test_signal_that_came_on_the_way_to_the_first_wait_is_handled(probe: Any) -> None:
    # The hub's own pipe was not Python's wake-up descriptor yet, so nothing would end its poll.
    program = program_with(
        probe,
        """
signal.alarm(40)
waiter = probe.waiter_new()
get_hub()  # making it runs Python code, which would look for signals
signal.signal(signal.SIGUSR1, lambda *_: probe.wake(waiter))
signal.signal(signal.SIGINT, signal.SIG_IGN)  # to take Python's own handler over would look, too
for _ in range(2):
    probe.raise_and_park(signal.SIGUSR1, waiter)
say("handled")
""",
    )
    assert lines_of(program) == ["handled"]


def test_waits_at_exit_end_cleanly(probe: Any) -> None:
    program = program_with(
        probe,
        """
waiter = probe.waiter_new()
def wait():
    try:
        probe.park(waiter)
    finally:
        say("finally")
spawn(wait)
sleep(0)
probe.waiter = waiter  # is let go of late, when there is no hub any more
""",
    )
    assert lines_of(program) == ["finally"]


def test_no_memory_is_a_clean_error(probe: Any) -> None:
    pytest.importorskip("_testcapi")
    program = program_with(
        probe,
        """
import _testcapi
calls = (probe.waiter_new, probe.current_task, probe.now_ns, probe.deadline_after)
failures = 0
for number in range(12):
    for call in calls:
        get_hub().close()
        _testcapi.set_nomemory(number, number + 1)
        try:
            call()
        except MemoryError:
            failures += 1
        finally:
            _testcapi.remove_mem_hooks()
        assert call() is not None
say(failures > 10)
""",
    )
    assert lines_of(program) == ["True"]


# --- The example ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the example, built."""
    return build_example(tmp_path_factory.mktemp("example"))


def test_example_does_what_its_page_says(example: Path) -> None:
    environment = {**os.environ, "PYTHONSAFEPATH": ""}  # beside use.py lies what it imports
    printed = run([sys.executable, "use.py"], cwd=example, env=environment)
    assert printed == "hello\n9592 primes\nothers ran\n"
    page = (ROOT / "examples/c_api/README.md").read_text()
    assert "".join(f"    {line}\n" for line in printed.splitlines()) in page


def test_example_gives_up_in_time_and_leaves_its_job_to_the_thread(example: Path) -> None:
    program = f"""
sys.path.insert(0, {str(example)!r})
import crunch
for end in ("timeout", "cancel"):
    task = spawn(crunch.count_primes, 100_000, timeout=0 if end == "timeout" else None)
    sleep(0)
    task.cancel()
    task.join()
assert crunch.count_primes(200_000) == 17984  # by then the others have ended too
reader, writer = os.pipe()
os.set_blocking(reader, False)
for timeout_of_it, data in ((0, None), (0, b"x"), (None, b"")):
    if data == b"x":
        os.write(writer, data)
    elif data == b"":
        os.close(writer)
    try:
        say(crunch.read(reader, 5, timeout=timeout_of_it))
    except TimeoutError:
        say("timeout")
os.close(reader)
for wrong in ((reader, 5), (0, -1), (0, 5, -1)):
    try:
        crunch.read(*wrong)
    except (OSError, ValueError, SystemError) as error:
        say(type(error).__name__)
"""
    lines = lines_of(program)
    assert lines[:3] == ["timeout", "b'x'", "b''"]
    assert lines[3] == "OSError"
    assert lines[5] == "ValueError"
