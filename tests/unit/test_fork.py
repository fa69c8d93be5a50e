"""fork(): only the forking coroutine lives on in the child, and nobody's finally runs there."""

from __future__ import annotations

import sys

import pytest
from processes import lines_of, run_program

SETTING = """
import warnings
# From 3.12 on Python warns of a fork beside threads, which is what some of these are about.
warnings.filterwarnings("ignore", "This process .* is multi-threaded")
parent = os.getpid()
def where():
    return "parent" if os.getpid() == parent else "child"
def other():
    try:
        sleep(60)
    finally:
        say("other finally", where())
def status_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
atexit.register(lambda: say("exit", where()))
"""


def test_fork_in_the_main_program() -> None:
    program = SETTING + (
        """
task = spawn(other)
sleep(0)
pid = os.fork()
if pid == 0:
    assert not get_hub().waiters()
    assert spawn(lambda: 5).get() == 5
    sleep(0.001)
    say("child ends")
    sys.exit(7)
say("status", status_of(pid))
assert not task.done
sleep(0.001)
"""
    )
    assert lines_of(program) == [
        "child ends",
        "exit child",
        "status 7",
        "exit parent",
        "other finally parent",
    ]


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("return", 0),
        ("sys.exit(3)", 3),
        ("sys.exit()", 0),
        ("os._exit(4)", 4),
        ("current().cancel(); sleep(1)", 0),
    ],
)
def test_fork_in_a_coroutine(end: str, status: int) -> None:
    program = SETTING + (
        f"""
def work():
    pid = os.fork()
    if pid == 0:
        assert current() is task
        assert spawn(lambda: 5).get() == 5
        sleep(0.001)
        print("printed by the", where())
        {end}
        return
    say("status", status_of(pid))
spawn(other)
task = spawn(work)
try:
    task.join()
    sleep(0.001)
finally:
    say("main finally", where())
"""
    )
    lines = lines_of(program, environment={"PYTHONUNBUFFERED": ""})
    printed = [] if "_exit(4)" in end else ["printed by the child"]
    assert lines == [
        *printed,
        f"status {status}",
        "main finally parent",
        "exit parent",
        "other finally parent",
    ]


def test_failure_in_a_child_that_a_coroutine_forked_is_reported() -> None:
    program = SETTING + (
        """
def work():
    pid = os.fork()
    if pid == 0:
        raise LookupError("in the child")
    say("status", status_of(pid))
spawn(work).join()
"""
    )
    done = run_program(program)
    assert done.stdout.splitlines() == ["status 1", "exit parent"]
    assert done.stderr.count("LookupError: in the child") == 1


def test_child_goes_on_with_its_connection_and_the_parent_with_others() -> None:
    program = SETTING + (
        """
import socket
a, b = map(sk_conn, socket.socketpair())
c, d = map(sk_conn, socket.socketpair())
def parent_echo():
    say("parent got", d.readsome(10).decode(), where())
def work():
    assert a.write(b"early") is None or True
    assert b.readsome(10) == b"early"
    pid = os.fork()
    if pid == 0:
        # A wait in the child, on what was registered with the parent's engine.
        def answer():
            sleep(0.001)
            a.write(b"late")
        spawn(answer)
        say("child got", b.readsome(10).decode(), where())
        os._exit(0)
    assert status_of(pid) == 0
    c.write(b"still")
echo = spawn(parent_echo)
spawn(work).join()
echo.join()
for conn in (a, b, c, d): conn.close()
"""
    )
    assert lines_of(program) == ["child got late child", "parent got still parent", "exit parent"]


def test_fork_in_a_nested_greenlet_and_in_a_callback() -> None:
    program = SETTING + (
        """
import greenlet
def nested():
    pid = os.fork()
    if pid == 0:
        sleep(0.001)
        say("nested in the", where())
        os._exit(0)
    assert status_of(pid) == 0
spawn(lambda: greenlet.greenlet(nested).switch()).get()
def callback():
    pid = os.fork()
    if pid == 0:
        return
    assert status_of(pid) == 5
get_hub().call_soon_threadsafe(callback)
sleep(0.001)
if where() == "child":
    sleep(0.001)
    say("main of the", where())
    os._exit(5)
"""
    )
    assert lines_of(program) == ["nested in the child", "main of the child", "exit parent"]


def test_signals_reach_the_child() -> None:
    program = SETTING + (
        """
got = []
signal.signal(signal.SIGUSR1, lambda *_: got.append(where()))
sleep(0.001)
pid = os.fork()
if pid == 0:
    for _ in range(3):
        count = len(got)
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        while len(got) == count:
            sleep(0.001)
    say(*got)
    try:
        spawn(os.kill, os.getpid(), signal.SIGINT)
        sleep(5)
    except KeyboardInterrupt:
        say("interrupted", where())
    os._exit(0)
assert status_of(pid) == 0
assert got == []
"""
    )
    assert lines_of(program) == ["child child child", "interrupted child", "exit parent"]


def test_interrupt_in_a_child_that_a_coroutine_forked() -> None:
    program = SETTING + (
        """
def work():
    pid = os.fork()
    if pid == 0:
        spawn(os.kill, os.getpid(), signal.SIGINT)
        try:
            sleep(5)
        except KeyboardInterrupt:
            say("interrupted", where())
        os._exit(0)
    assert status_of(pid) == 0
spawn(work).join()
"""
    )
    assert lines_of(program) == ["interrupted child", "exit parent"]


def test_deadlock_in_a_child_that_a_coroutine_forked() -> None:
    program = SETTING + (
        """
def work():
    pid = os.fork()
    if pid == 0:
        try:
            sleep(None)
        except DeadlockError:
            say("deadlock", where())
        os._exit(0)
    assert status_of(pid) == 0
spawn(work).join()
"""
    )
    assert lines_of(program) == ["deadlock child", "exit parent"]


def test_threads_of_the_pool_start_anew_in_the_child() -> None:
    program = SETTING + (
        """
for _ in range(3): assert to_thread(os.getpid) == parent
pid = os.fork()
if pid == 0:
    assert to_thread(os.getpid) == os.getpid()
    try:
        sleep(None)
    except DeadlockError:
        say("deadlock", where())
    os._exit(0)
assert status_of(pid) == 0
assert to_thread(os.getpid) == parent
"""
    )
    assert lines_of(program) == ["deadlock child", "exit parent"]


def test_fork_in_another_thread() -> None:
    program = SETTING + (
        """
def work():
    pid = os.fork()
    if pid == 0:
        sleep(0.001)
        assert spawn(lambda: 5).get() == 5
        say("thread in the", where())
        os._exit(6)
    say("status", status_of(pid))
sleep(0.001)
thread = threading.Thread(target=lambda: spawn(work).join())
thread.start()
thread.join()
sleep(0.001)
"""
    )
    assert lines_of(program) == ["thread in the child", "status 6", "exit parent"]


@pytest.mark.skipif(sys.platform == "darwin", reason="fork is not the default there")
def test_multiprocessing_by_fork() -> None:
    program = SETTING + (
        """
import multiprocessing
def square(number):
    sleep(0.001)
    return spawn(lambda: number * number).get()
spawn(other)
sleep(0)
context = multiprocessing.get_context("fork")
with context.Pool(2) as pool:
    say(*pool.map(square, range(5)))
"""
    )
    assert lines_of(program) == ["0 1 4 9 16", "exit parent", "other finally parent"]


def test_rate_limits_go_on_in_parent_and_child_each_for_itself() -> None:
    program = SETTING + (
        """
import socket
from pycoronet._coronet import HARD_MODE
get_hub(backend="fake")
a, b = map(sk_conn, socket.socketpair())
group = RateGroup(RateLimit(write_rate=100), min_share=1)
group.add(a)
a.set_rate_limit(RateLimit(write_rate=1000))
writer = spawn(a.write, b"p" * 200)
sleep(0.5)
begin = get_hub().time
pid = os.fork()
if pid == 0:
    # Nobody writes what the parent was held up with.
    # In hard mode half of what may go waits for another turn, and the tokens are there still.
    left = group.write_remaining
    say("held", left < 2, len(b.recv(200)) + HARD_MODE * left)
    a.write(b"c" * 150)
    assert b.read(150) == b"c" * 150
    say("child", group.members == [a], round(get_hub().time - begin, 1))
    os._exit(0)
assert status_of(pid) == 0
writer.join()
say("parent", group.bytes_written, round(get_hub().time - begin, 1))
a.close()
b.close()
"""
    )
    assert lines_of(program) == ["held True 150", "child True 1.5", "parent 200 0.5", "exit parent"]
