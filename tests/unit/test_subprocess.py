"""pycoronet.subprocess: programs with connections as pipes, waited for one by one."""

from __future__ import annotations

import errno
import gc
import os
import select
import signal
import subprocess as standard
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from connections import attempt, count_descriptors

import pycoronet
from pycoronet import BusyError, Cancelled, get_hub, sk_conn, sleep, spawn, subprocess, to_thread
from pycoronet.subprocess import DEVNULL, PIPE, STDOUT, Popen, TimeoutExpired, check_output, run

LIMIT = 30  # seconds, for what ends at once unless something is wrong
MOMENT = 0.001
LARGE = bytes(range(256)) * 4096  # more than any pipe holds


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Return the programs that the test has started; all of them have been waited for."""
    started: list[Any] = []
    init = standard.Popen.__init__

    def record(process: Any, *args: Any, **options: Any) -> None:
        init(process, *args, **options)
        started.append(process)

    monkeypatch.setattr(standard.Popen, "__init__", record)
    yield started
    survivors = [process for process in started if process.returncode is None]
    for process in survivors:
        process.kill()
        process.wait()
    assert survivors == []


@pytest.fixture(autouse=True)
def same_descriptors() -> Iterator[None]:
    """See to it that the test leaves no descriptor open."""
    get_hub()
    sleep(MOMENT)  # what the hub itself opens is open
    to_thread(int)
    before = count_descriptors()
    with pycoronet.timeout(LIMIT):  # a test that fails may not hang
        yield
    if count_descriptors() != before:
        gc.collect()
    assert count_descriptors() == before


def in_thread(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Start a call in a thread that ends with it; return what waits for the result."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function(*args, **options)))
    thread.start()

    def get() -> Any:
        while thread.is_alive():
            sleep(MOMENT)
        return results[0]

    return get


def raise_refusal(*_: object) -> Any:
    raise OSError(errno.ENOSYS, "not on this system")


def open_by_stand_in(pid: int) -> Any:
    """Open a kqueue for a process, where a pidfd stands in for it."""
    changes: list[Any] = []

    class Queue:
        def __init__(self) -> None:
            self.fd = os.pidfd_open(pid)

        def control(self, events: list[Any], count: int, timeout: float) -> list[Any]:
            changes.append((*events, count, timeout))
            return []

        def fileno(self) -> int:
            return self.fd

        def close(self) -> None:
            os.close(self.fd)

    kernel = SimpleNamespace(
        kqueue=Queue,
        kevent=lambda ident, **rest: (ident, rest),
        KQ_FILTER_PROC=-5,
        KQ_EV_ADD=1,
        KQ_NOTE_EXIT=1 << 31,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "select", kernel)
        opened = subprocess._kqueue_of(pid)
    assert changes == [((pid, {"filter": -5, "flags": 1, "fflags": 1 << 31}), 0, 0)]
    return opened


WAYS: dict[str, Callable[[int], Any]] = {"thread": raise_refusal}
if hasattr(os, "pidfd_open"):
    WAYS = {**WAYS, "pidfd": subprocess._pidfd_of, "kqueue": open_by_stand_in}
elif hasattr(select, "kqueue"):
    WAYS = {**WAYS, "kqueue": subprocess._kqueue_of}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have the end of programs be seen in each of the ways that there are."""
    monkeypatch.setattr(subprocess, "_open_exit", WAYS[request.param])
    return str(request.param)


class Gate:
    """A FIFO that a shell can wait for, with `read line < gate`, until it is opened."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "gate")
        os.mkfifo(self.path)
        self._fd = os.open(self.path, os.O_RDWR)

    def open(self, line: bytes = b"go\n") -> None:
        os.write(self._fd, line)

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Return what a program can wait for."""
    gate = Gate(tmp_path)
    yield gate
    gate.close()


def shell(script: str, *args: str) -> list[str]:
    return ["/bin/sh", "-c", script, *args]


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def cancel(task: Any) -> None:
    task.cancel()
    with pytest.raises(Cancelled):
        task.get()


# --- run() and check_output() -------------------------------------------------------------


def test_run_gives_status_and_output() -> None:
    done = run(shell("cat; echo problem >&2; exit 3"), input=b"input", capture_output=True)
    assert isinstance(done, standard.CompletedProcess)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"input", b"problem\n")
    assert done.args[0] == "/bin/sh"
    done = run("echo out; echo err >&2", shell=True, stdout=PIPE, stderr=STDOUT)
    assert (done.stdout, done.stderr) == (b"out\nerr\n", None)
    done = run(
        shell("cat; echo $NAME; pwd"), stdin=DEVNULL, stdout=PIPE, env={"NAME": "value"}, cwd="/"
    )
    assert done.stdout == b"value\n/\n"
    assert run(["true"]).stdout is None


def test_a_signal_that_ends_it_is_a_negative_status() -> None:
    assert run(shell("kill -KILL $$")).returncode == -signal.SIGKILL


def test_check_raises_for_a_status() -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(shell("echo out; echo err >&2; exit 4"), capture_output=True, check=True)
    error = caught.value
    assert (error.returncode, error.output, error.stderr) == (4, b"out\n", b"err\n")
    assert isinstance(error, standard.CalledProcessError)
    assert run(["true"], check=True).returncode == 0


def test_check_output() -> None:
    assert check_output(["cat"], input=LARGE, timeout=LIMIT) == LARGE
    with pytest.raises(subprocess.CalledProcessError):
        check_output(["false"])
    for name in ("stdout", "check", "capture_output"):
        with pytest.raises(ValueError, match=name):
            check_output(["true"], **{name: None})


def test_much_goes_through_all_pipes_at_once() -> None:
    done = run(shell("tee /dev/stderr"), input=LARGE, capture_output=True, timeout=LIMIT)
    assert done.stdout == LARGE
    assert done.stderr == LARGE


def test_others_run_meanwhile(gate: Gate) -> None:
    task = spawn(run, shell('read line < "$0"; echo $line', gate.path), stdout=PIPE)
    assert spawn(lambda: 5).get() == 5
    gate.open(b"from another task\n")
    assert task.get().stdout == b"from another task\n"


def test_many_at_once() -> None:
    tasks = [spawn(run, ["cat"], input=b"%d" % number, stdout=PIPE) for number in range(20)]
    assert [task.get().stdout for task in tasks] == [b"%d" % number for number in range(20)]


@pytest.mark.parametrize("script", ["exit 0", "exec 0<&-; echo done", "head -c 5 > /dev/null"])
def test_input_that_is_not_read_is_no_error(script: str) -> None:
    done = run(shell(script), input=LARGE, stdout=PIPE, timeout=LIMIT)
    assert done.returncode == 0
    assert done.stdout in (b"", b"done\n")


@pytest.mark.parametrize("data", [b"", bytearray(b"abc"), memoryview(LARGE)])
def test_input_of_any_kind_of_bytes(data: Any) -> None:
    assert run(["cat"], input=data, stdout=PIPE, timeout=LIMIT).stdout == bytes(data)


# --- What cannot be started ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "options", "error"),
    [
        (["/no/such/program"], {}, FileNotFoundError),
        (["no-such-program-anywhere"], {}, FileNotFoundError),
        (["true"], {"cwd": "/no/such/folder"}, FileNotFoundError),
        (["true"], {"cwd": "/dev/null"}, NotADirectoryError),
        (["/dev/null"], {}, PermissionError),
        ([], {}, (IndexError, ValueError)),
        (["tr\0ue"], {}, ValueError),
        ([5], {}, TypeError),
        (["true"], {"no_such_option": 5}, TypeError),
        (["true"], {"text": True}, TypeError),
        (["true"], {"encoding": "utf-8"}, TypeError),
        (["true"], {"bufsize": 0}, TypeError),
        (["true"], {"stdin": "file"}, (TypeError, AttributeError)),
    ],
)
def test_what_cannot_be_started(args: Any, options: Any, error: Any) -> None:
    settings = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE, **options}
    with pytest.raises(error):
        Popen(args, **settings)


def test_connections_are_not_given_to_programs(ends: Any) -> None:
    conn, _ = ends.pair()
    for name in ("stdin", "stdout", "stderr"):
        with pytest.raises(TypeError, match="non-blocking"):
            Popen(["true"], **{name: conn})
    ends.close()


def test_without_descriptors(few_descriptors: Callable[[int], None]) -> None:
    before = count_descriptors()
    failures = 0
    for number in range(20):
        few_descriptors(number)
        try:
            with Popen(["true"], stdin=PIPE, stdout=PIPE, stderr=PIPE):
                pass
            break
        except OSError as error:
            assert error.errno == errno.EMFILE
            failures += 1
        few_descriptors(100)
        assert count_descriptors() == before
    assert 0 < failures < 20


def test_a_pipe_that_becomes_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def __init__(self, fd: int) -> None:
            raise MemoryError

    monkeypatch.setattr(subprocess, "sk_conn", Refusing)
    with pytest.raises(MemoryError):
        Popen(["true"], stdout=PIPE)


def test_wait_without_descriptors(gate: Gate, few_descriptors: Callable[[int], None]) -> None:
    process = Popen(shell('read line < "$0"; exit 5', gate.path))
    few_descriptors(0)
    task = spawn(process.wait)
    sleep(0)
    gate.open()
    assert task.get() == 5


def test_options_that_contradict_one_another() -> None:
    with pytest.raises(ValueError, match="not both"):
        run(["true"], input=b"", stdin=DEVNULL)
    with pytest.raises(ValueError, match="not both"):
        run(["true"], capture_output=True, stderr=STDOUT)
    with Popen(["true"]) as process:
        with pytest.raises(ValueError, match="stdin=PIPE"):
            process.communicate(b"input")
        assert process.communicate() == (None, None)
    with Popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
        with pytest.raises(TypeError):
            process.communicate("text")  # type: ignore[arg-type]
        assert process.communicate(b"bytes") == (b"bytes", None)
    with Popen(["cat"], stdin=PIPE) as process, pytest.raises(ValueError, match="negative"):
        process.communicate(timeout=-1)


# --- Popen ----------------------------------------------------------------------------------


def test_pipes_are_connections() -> None:
    with Popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
        assert isinstance(process.stdin, sk_conn)
        assert isinstance(process.stdout, sk_conn)
        assert process.stderr is None
        for number in range(5):
            process.stdin.write(b"%d\n" % number)
            assert process.stdout.readln() == b"%d\n" % number
        assert process.poll() is None
        assert process.returncode is None
        assert process.args == ["cat"]
        assert "cat" in repr(process)
        process.stdin.close()
        assert process.stdout.recv(1) == b""
    assert process.returncode == process.poll() == process.wait() == 0
    assert is_gone(process.pid)


def test_signals_are_sent(way: str) -> None:
    for send, number in (
        (Popen.kill, signal.SIGKILL),
        (Popen.terminate, signal.SIGTERM),
        (lambda process: process.send_signal(signal.SIGUSR1), signal.SIGUSR1),
    ):
        with Popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"x")
            assert process.stdout.recv(1) == b"x"  # it is executed
            send(process)
            assert process.wait() == -number
            send(process)  # to nobody


def test_wait_until_the_end(way: str, gate: Gate) -> None:
    process = Popen(shell('read line < "$0"; exit 7', gate.path))
    tasks = [spawn(process.wait) for _ in range(3)]
    get = in_thread(process.wait)
    sleep(MOMENT)
    with pytest.raises(TimeoutExpired) as caught:
        process.wait(timeout=MOMENT)
    assert (caught.value.cmd, caught.value.timeout) == (process.args, MOMENT)
    with pytest.raises(TimeoutExpired):
        process.wait(0)
    cancel(tasks.pop(0))  # does nothing to the program
    assert process.poll() is None
    gate.open()
    assert [task.get() for task in tasks] == [7] * 2
    assert get() == 7
    assert process.wait(0) == 7


def test_one_thread_waits_however_often_it_is_asked(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "_open_exit", raise_refusal)
    process = Popen(shell('read line < "$0"', gate.path))
    for _ in range(5):
        with pytest.raises(TimeoutExpired):
            process.wait(timeout=MOMENT)
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("pycoronet wait") == 1
    gate.open()
    assert process.wait() == 0
    for thread in threading.enumerate():
        if thread.name == "pycoronet wait":
            thread.join(LIMIT)


def test_reaped_by_others_it_counts_as_well_ended(way: str) -> None:
    process = Popen(["false"])
    os.waitpid(process.pid, 0)
    assert process.wait(LIMIT) == 0  # as in the standard library


def test_the_signal_and_other_children_are_left_alone(way: str) -> None:
    calls: list[int] = []
    before = signal.signal(signal.SIGCHLD, lambda number, frame: calls.append(number))
    try:
        mine = signal.getsignal(signal.SIGCHLD)
        other = os.posix_spawn("/bin/sh", shell("exit 9"), {})
        assert run(["true"]).returncode == 0
        assert signal.getsignal(signal.SIGCHLD) is mine
        assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 9
        assert calls
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt])
def test_an_exception_in_its_block_kills_it(error: type[BaseException], way: str) -> None:
    with pytest.raises(error), Popen(["cat"], stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        raise error
    assert process.returncode == -signal.SIGKILL
    for conn in (process.stdin, process.stdout, process.stderr):
        assert conn is not None
        assert conn.closed


def test_a_cancel_at_the_end_of_its_block_kills_it(gate: Gate) -> None:
    processes: list[Popen] = []

    def work() -> None:
        with Popen(shell('read line < "$0"', gate.path), stdout=PIPE) as process:
            processes.append(process)

    task = spawn(work)
    sleep(0)
    cancel(task)
    assert processes[0].returncode == -signal.SIGKILL


def test_it_can_be_started_in_another_thread() -> None:
    assert in_thread(run, ["cat"], input=b"x", stdout=PIPE)().stdout == b"x"


def test_a_function_before_the_execution() -> None:
    # It forks through Python, where hubs are told.
    done = run(shell("echo done"), stdout=PIPE, preexec_fn=lambda: None)
    assert done.stdout == b"done\n"


# --- communicate() --------------------------------------------------------------------------


def test_after_a_timeout_nothing_is_lost(gate: Gate, way: str) -> None:
    # The program takes no input until it is told.
    script = 'echo first; read line < "$0"; cat; echo end >&2'
    with Popen(shell(script, gate.path), stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        with pytest.raises(TimeoutExpired) as caught:
            process.communicate(LARGE, timeout=0.05)
        assert caught.value.output in (b"", b"first\n")
        assert caught.value.stderr == b""
        assert process.poll() is None
        with pytest.raises(ValueError, match="more input"):
            process.communicate(b"more")
        with pytest.raises(TimeoutExpired):
            process.communicate(timeout=0)
        gate.open()
        assert process.communicate(timeout=LIMIT) == (b"first\n" + LARGE, b"end\n")
        assert process.communicate() == (b"first\n" + LARGE, b"end\n")
    assert process.returncode == 0


def test_run_kills_after_the_timeout(gate: Gate, way: str, started: list[Any]) -> None:
    script = 'echo first; read line < "$0"; echo never'
    with pytest.raises(TimeoutExpired) as caught:
        run(shell(script, gate.path), capture_output=True, timeout=0.05)
    assert caught.value.timeout == 0.05
    assert caught.value.output in (b"", b"first\n")
    assert started[0].returncode == -signal.SIGKILL


def test_a_cancel_kills_and_reaps(gate: Gate, way: str, started: list[Any]) -> None:
    task = spawn(run, shell('read line < "$0"; cat', gate.path), input=LARGE, stdout=PIPE)
    while not started:
        sleep(MOMENT)
    cancel(task)
    assert started[0].returncode == -signal.SIGKILL
    assert is_gone(started[0].pid)


def test_a_cancel_of_communicate_kills_and_reaps(gate: Gate) -> None:
    process = Popen(shell('read line < "$0"', gate.path), stdin=PIPE, stdout=PIPE, stderr=PIPE)
    task = spawn(process.communicate, LARGE)
    sleep(MOMENT)
    cancel(task)
    assert process.returncode == -signal.SIGKILL


def test_the_deadline_of_a_scope_around_it_kills_too(gate: Gate, started: list[Any]) -> None:
    with pytest.raises(TimeoutError) as caught, pycoronet.timeout(MOMENT):
        run(shell('read line < "$0"', gate.path), timeout=LIMIT)
    assert not isinstance(caught.value, standard.TimeoutExpired)
    assert started[0].returncode == -signal.SIGKILL


def test_a_grandchild_that_holds_the_pipe(gate: Gate) -> None:
    # Its own end is seen at the pipe of stderr.
    script = '(read line < "$0"; echo from the grandchild) & echo child'
    read_end, write_end = os.pipe()
    with pytest.raises(TimeoutExpired) as caught:
        run(shell(script, gate.path), stdout=PIPE, stderr=write_end, timeout=0.05)
    assert caught.value.output in (b"", b"child\n")
    os.close(write_end)
    gate.open()
    with sk_conn(read_end) as watched:
        watched.timeo = LIMIT
        while watched.recv(100):
            pass
    with Popen(shell(script, gate.path), stdout=PIPE) as process:
        assert process.wait() == 0  # the child alone
        gate.open()
        assert process.communicate() == (b"child\nfrom the grandchild\n", None)


def test_another_task_at_a_pipe_is_told_of(gate: Gate) -> None:
    # It outlives its input, which communicate() may have ended before.
    with Popen(shell('cat; read line < "$0"', gate.path), stdin=PIPE, stdout=PIPE) as process:
        assert process.stdout is not None
        reader = spawn(attempt, process.stdout.recv, 5)
        sleep(0)
        with pytest.raises(BusyError):
            process.communicate(timeout=LIMIT)
        assert process.poll() is None
        process.kill()
        reader.join()


def test_input_after_input_that_nobody_took() -> None:
    with Popen(["true"], stdin=PIPE) as process:
        assert process.stdin is not None
        process.wait()
        process.stdin.enqueue(b"early")
        sleep(MOMENT)
        assert process.communicate(b"late") == (None, None)


def test_the_timeout_of_a_pipe_is_its_own(gate: Gate) -> None:
    with Popen(shell('read line < "$0"', gate.path), stdout=PIPE) as process:
        assert process.stdout is not None
        process.stdout.timeo = MOMENT
        for seconds in (None, LIMIT):
            with pytest.raises(TimeoutError) as caught:
                process.communicate(timeout=seconds)
            assert isinstance(caught.value, TimeoutError)
        gate.open()
        process.stdout.timeo = None
        assert process.communicate() == (b"", None)


def test_a_pipe_that_was_closed_before() -> None:
    with Popen(["cat"], stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.close()
        process.stderr.close()
        assert process.communicate(timeout=LIMIT) == (b"", b"")


def test_left_behind_it_warns_as_in_the_standard_library(gate: Gate, started: list[Any]) -> None:
    processes = [Popen(shell('read line < "$0"', gate.path))]
    started.clear()
    pid = processes[0].pid
    with pytest.warns(ResourceWarning, match="still running"):
        processes.clear()
    gate.open()
    os.waitpid(pid, 0)
