"""The master of worker processes: who starts and ends when, over workers without a hub."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import time
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from master_case import (
    Load,
    MasterProgram,
    ask,
    connect,
    is_alive,
    kill_one_under_load,
    read_answer,
)

SHARINGS = pytest.mark.parametrize("own", [True, False], ids=["own sockets", "shared socket"])


def end(program: MasterProgram) -> None:
    """Have it drain, and see that it ended well."""
    program.signal(signal.SIGTERM)
    assert program.finish() == 0, program.output
    assert program.lines[-1] == "INFO over"


# --- Starting and stopping --------------------------------------------------------------------


@SHARINGS
def test_all_workers_serve_until_sigterm(own: bool) -> None:
    with MasterProgram(f"serve(own={own})") as program:
        address = program.wait_for_address()
        pids = program.wait_for_ready()
        with Load(address) as load:
            for pid in pids.values():
                load.wait_for(1, pid)
        assert load.counts.keys() == {"answered"}
        end(program)
        assert not any(map(is_alive, pids.values()))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_all_its_workers(signum: int) -> None:
    with MasterProgram() as program:
        pids = program.wait_for_ready()
        program.signal(signum)
        assert program.finish() == 0
        assert not any(map(is_alive, pids.values()))


def test_a_terminal_interrupts_all_processes_at_once() -> None:
    with MasterProgram(start_new_session=True) as program:
        address = program.wait_for_address()
        program.wait_for_ready()
        with connect(address) as sock:
            sock.sendall(b"one\n")
            assert read_answer(sock).endswith(b"one\n")
            os.killpg(program.pid, signal.SIGINT)
            with pytest.raises(ConnectionRefusedError):
                while True:
                    connect(address).close()
            sock.sendall(b"two\n")
            assert read_answer(sock).endswith(b"two\n")
        assert program.finish() == 0


def test_a_supervisor_terminates_all_processes_at_once() -> None:
    with MasterProgram(start_new_session=True) as program:
        address = program.wait_for_address()
        program.wait_for_ready()
        with connect(address) as sock:
            sock.sendall(b"one\n")
            assert read_answer(sock).endswith(b"one\n")
            os.killpg(program.pid, signal.SIGTERM)
            with pytest.raises(ConnectionRefusedError):
                while True:
                    connect(address).close()
            sock.sendall(b"two\n")
            assert read_answer(sock).endswith(b"two\n")
        assert program.finish() == 0


def test_a_second_signal_cancels(tmp_path: Path) -> None:
    with MasterProgram() as program:
        address = program.wait_for_address()
        pids = program.wait_for_ready()
        with connect(address) as sock:
            sock.sendall(b"one\n")
            read_answer(sock)
            program.signal(signal.SIGTERM)
            with pytest.raises(ConnectionRefusedError):
                while True:
                    connect(address).close()
            program.signal(signal.SIGTERM)
            assert sock.recv(100) == b""
        assert program.finish() == 0
        assert "killed" not in program.output
        assert not any(map(is_alive, pids.values()))


STUBBORN = """
def run(worker):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    worker.notify_ready()
    while True:
        signal.pause()
"""


@pytest.mark.parametrize(
    ("options", "signals"),
    [("drain_timeout=0.01", 1), ("drain_timeout=None", 2), ("drain_timeout=None", 3)],
    ids=["drain timeout", "second signal", "third signal"],
)
def test_a_worker_that_does_not_end_is_killed(options: str, signals: int) -> None:
    grace = 1000 if signals == 3 else 0.01
    source = f"{STUBBORN}\n_master.GRACE_SECONDS = _master.CANCEL_SECONDS = {grace}\n"
    with MasterProgram(source + f"serve(run, {options})") as program:
        pids = program.wait_for_ready()
        for _ in range(signals):
            program.signal(signal.SIGTERM)
            time.sleep(0.1)  # two of a kind that are pending count as one
        assert program.finish() == 0
        assert not any(map(is_alive, pids.values()))


def test_a_killed_master_leaves_nobody_behind() -> None:
    source = """
    def run(worker):
        run_plain_worker(worker)
        logging.info("end of %d", os.getpid())
    serve(run)
    """
    with MasterProgram(source) as program:
        address = program.wait_for_address()
        pids = program.wait_for_ready()
        with connect(address) as sock:
            sock.sendall(b"one\n")
            serving = int(read_answer(sock).split()[0])
            (other,) = set(pids.values()) - {serving}
            program.process.kill()
            # The other one has nothing to do, and does not wait for this one either.
            program.wait_for(f"end of {other}")
            sock.sendall(b"two\n")
            assert read_answer(sock) == b"%d two\n" % serving
            with pytest.raises(ConnectionRefusedError):
                while True:
                    connect(address).close()
        program.finish()  # its output ends when nobody has it any more
        assert f"end of {serving}" in program.lines[-1]


# --- Queues -----------------------------------------------------------------------------------


def queue_up(address: Any, count: int = 5) -> list[socket.socket]:
    """Return connections that have asked; nobody accepts them, because the worker is stopped."""
    queued = [connect(address) for _ in range(count)]
    for sock in queued:
        sock.sendall(b"queued\n")
    return queued


def answers_of(queued: list[socket.socket]) -> set[bytes]:
    answers = {read_answer(sock) for sock in queued}
    for sock in queued:
        sock.close()
    return answers


@pytest.fixture(params=["tcp", "unix"])
def address_text(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return an address for serve()."""
    return '("127.0.0.1", 0)' if request.param == "tcp" else repr(f"unix:{tmp_path}/socket")


def test_what_a_killed_worker_has_in_its_queue_is_served_by_the_next(address_text: str) -> None:
    with MasterProgram(f"serve(address={address_text}, processes=1)") as program:
        address = program.wait_for_address()
        pid = program.wait_for_ready(1)[0]
        os.kill(pid, signal.SIGSTOP)
        queued = queue_up(address)
        os.kill(pid, signal.SIGKILL)
        program.wait_for(rf"WARNING worker 0 \(pid {pid}\): was killed by SIGKILL; .* in 0 s")
        new_pid = program.wait_for_ready(1)[0]
        assert answers_of(queued) == {b"%d queued\n" % new_pid}
        end(program)


def test_what_a_retiring_worker_has_in_its_queue_is_served_by_the_next(address_text: str) -> None:
    with MasterProgram(f"serve(address={address_text}, processes=1)") as program:
        address = program.wait_for_address()
        pid = program.wait_for_ready(1)[0]
        os.kill(pid, signal.SIGSTOP)
        queued = queue_up(address)
        program.signal(signal.SIGHUP)
        new_pid = program.wait_for_ready(1)[0]
        assert answers_of(queued) == {b"%d queued\n" % new_pid}
        os.kill(pid, signal.SIGCONT)
        while is_alive(pid):
            time.sleep(0.01)
        assert ask(address) == new_pid
        end(program)


def test_what_is_queued_at_sigterm_is_served(address_text: str) -> None:
    with MasterProgram(f"serve(address={address_text}, processes=1)") as program:
        address = program.wait_for_address()
        pid = program.wait_for_ready(1)[0]
        os.kill(pid, signal.SIGSTOP)
        queued = queue_up(address)
        program.signal(signal.SIGTERM)
        program.wait_for("stopping")
        os.kill(pid, signal.SIGCONT)
        assert answers_of(queued) == {b"%d queued\n" % pid}
        assert program.finish() == 0


def test_what_is_queued_when_the_last_worker_dies_is_served(address_text: str) -> None:
    with MasterProgram(f"serve(address={address_text}, processes=1)") as program:
        address = program.wait_for_address()
        pid = program.wait_for_ready(1)[0]
        os.kill(pid, signal.SIGSTOP)
        queued = queue_up(address)
        program.signal(signal.SIGTERM)
        program.wait_for("stopping")
        os.kill(pid, signal.SIGKILL)
        (answer,) = answers_of(queued)
        assert answer.endswith(b" queued\n")
        assert answer != b"%d queued\n" % pid
        assert program.finish() == 0


@pytest.mark.linux_only
def test_nothing_gets_into_the_queue_after_sigterm(address_text: str) -> None:
    with MasterProgram(f"serve(address={address_text}, processes=1)") as program:
        address = program.wait_for_address()
        pid = program.wait_for_ready(1)[0]
        os.kill(pid, signal.SIGSTOP)
        program.signal(signal.SIGTERM)
        program.wait_for("stopping")
        with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as late:
            late.setblocking(False)
            # Over TCP there is no answer while the worker may still take what is queued.
            error = late.connect_ex(address)
            os.kill(pid, signal.SIGCONT)
            if error == errno.EINPROGRESS:
                select.select([], [late], [])
                error = late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            assert error == errno.ECONNREFUSED
        assert program.finish() == 0


# --- Restarting -------------------------------------------------------------------------------


@SHARINGS
def test_a_worker_killed_under_load_harms_only_its_own_connections(own: bool) -> None:
    with MasterProgram(f"serve(own={own})") as program:
        kill_one_under_load(program)
        end(program)


def test_a_worker_that_dies_again_and_again_is_restarted_later_and_later() -> None:
    source = """
    def run(worker):
        worker.notify_ready()
        os._exit(3)
    serve(run, processes=1)
    """
    with MasterProgram(source) as program:
        for delay in ("0", "0.1", "0.2", "0.4"):
            program.wait_for(rf"pid \d+\): ended with status 3; a new one starts in {delay} s")
        program.signal(signal.SIGTERM)
        assert program.finish() == 0


def test_a_worker_that_is_told_to_end_is_replaced_at_once() -> None:
    with MasterProgram() as program:
        address = program.wait_for_address()
        pids = program.wait_for_ready()
        with connect(address) as sock:
            sock.sendall(b"one\n")
            pid = int(read_answer(sock).split()[0])
            os.kill(pid, signal.SIGTERM)
            (index,) = program.wait_for_ready(1)
            assert pids[index] == pid
            sock.sendall(b"two\n")
            assert read_answer(sock) == b"%d two\n" % pid  # it drains
        end(program)
        assert "WARNING" not in program.output


# --- Failing to start -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise ValueError('no such\\n  certificate')", "ValueError: no such certificate"),
        ("raise KeyError", "KeyError"),
        ("sys.exit('no configuration')", "no configuration"),
        ("sys.exit(3)", "3"),
        ("os._exit(4)", r"worker 0 \(pid \d+\) ended with status 4"),
        ("os.kill(os.getpid(), 9)", r"worker 0 \(pid \d+\) was killed by SIGKILL"),
        ("signal.pause()", "not ready within 0.3 seconds"),
        ("raise ValueError('x' * 100000)", "ValueError: x{4000,4100}"),
    ],
)
def test_a_worker_that_cannot_start_ends_the_master_in_one_line(body: str, reason: str) -> None:
    timeout = 0.3 if "pause" in body else 30
    source = f"def run(worker): {body}\nserve(run, processes=1, start_timeout={timeout})"
    with MasterProgram(source) as program:
        assert program.finish() == 1
        program.wait_for(f"^RuntimeError: no worker can start: {reason}$")


def test_one_worker_that_cannot_start_does_not_end_the_others() -> None:
    source = """
    def run(worker):
        if worker.index == 1:
            sys.exit("not today")
        run_plain_worker(worker)
    serve(run, own=False)
    """
    with MasterProgram(source) as program:
        address = program.wait_for_address()
        (pid,) = program.wait_for_ready(1).values()
        for _ in range(4):
            program.wait_for("worker 1 .*: not today; a new one starts in")
        assert ask(address) == pid
        end(program)


def test_a_fork_that_fails_is_tried_again() -> None:
    source = """
    import errno
    fork, failures = os.fork, [1, 1, 1]
    def fail_to_fork():
        if failures:
            failures.pop()
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()
    def run(worker):
        os.fork = fork
        run_plain_worker(worker)
    _master.START_ATTEMPTS = 4
    os.fork = fail_to_fork
    serve(run)
    """
    with MasterProgram(source) as program:
        address = program.wait_for_address()
        program.wait_for_ready()
        ask(address)
        end(program)


def test_a_fork_that_always_fails_ends_the_master() -> None:
    source = """
    import errno
    def fail_to_fork():
        raise OSError(errno.EAGAIN, "no more processes")
    os.fork = fail_to_fork
    serve()
    """
    with MasterProgram(source) as program:
        program.wait_for("^RuntimeError: no worker can start: .*no more processes$")
        assert program.finish() == 1


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        ("threading.Thread(target=serve).start()", "main thread"),
        ("threading.Thread(target=signal.pause, daemon=True).start(); serve()", "no thread"),
    ],
)
def test_a_master_among_threads_is_refused(start: str, reason: str) -> None:
    with MasterProgram(f"import threading; {start}") as program:
        program.wait_for(f"^RuntimeError: .*{reason}")
        program.finish()


# --- Signals of the user's --------------------------------------------------------------------


def test_a_handler_of_the_users_is_kept() -> None:
    source = """
    def handle(signum, frame):
        logging.info("handled by %d", os.getpid())
        if os.getpid() == master_pid:
            master.stop()
    master_pid = os.getpid()
    signal.signal(signal.SIGTERM, handle)
    listeners = open_for_workers(("127.0.0.1", 0), count=1)
    master = Master(run_plain_worker, listeners, processes=1)
    master.run()
    assert signal.getsignal(signal.SIGTERM) is handle
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGHUP) == signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    """
    with MasterProgram(source) as program:
        program.wait_for_ready(1)
        program.signal(signal.SIGTERM)
        program.wait_for(f"handled by {program.pid}")
        assert program.finish() == 0, program.output


def test_a_handler_of_the_users_may_reload_and_close() -> None:
    source = """
    def handle(signum, frame):
        if signum == signal.SIGUSR1:
            master.reload()
        else:
            master.close()
    signal.signal(signal.SIGUSR1, handle)
    signal.signal(signal.SIGUSR2, handle)
    listeners = open_for_workers(("127.0.0.1", 0), count=1)
    logging.info("listening %r", listeners[0].sockets[0].getsockname())
    master = Master(run_plain_worker, listeners, processes=1)
    master.run()
    logging.info("over")
    """
    with MasterProgram(source) as program:
        address = program.wait_for_address()
        pids = program.wait_for_ready(1)
        program.signal(signal.SIGUSR1)
        assert program.wait_for_ready(1) != pids
        program.wait_for("INFO reloaded")
        with connect(address) as sock:
            sock.sendall(b"one\n")
            read_answer(sock)
            program.signal(signal.SIGUSR2)
            assert sock.recv(100) == b""
        assert program.finish() == 0, program.output
        assert program.lines[-1] == "INFO over"


@pytest.mark.parametrize("what", ["sys.exit(7)", "raise KeyboardInterrupt"])
def test_a_handler_that_raises_ends_all_at_once(what: str) -> None:
    source = f"""
    def handle(signum, frame):
        {what}
    signal.signal(signal.SIGINT, handle)
    serve()
    """
    with MasterProgram(source) as program:
        address = program.wait_for_address()
        pids = program.wait_for_ready()
        with connect(address) as sock:
            sock.sendall(b"one\n")
            read_answer(sock)
            program.signal(signal.SIGINT)
            assert sock.recv(100) == b""
        assert program.finish() == (7 if "7" in what else -signal.SIGINT)
        assert not any(map(is_alive, pids.values()))


@pytest.mark.parametrize(
    "disposition",
    ["signal.SIG_IGN", "lambda *_: os.waitpid(-1, os.WNOHANG)", "lambda *_: None"],
    ids=["ignored", "reaped by the user", "handled"],
)
def test_workers_are_restarted_whatever_is_done_with_sigchld(disposition: str) -> None:
    with MasterProgram(f"signal.signal(signal.SIGCHLD, {disposition})\nserve()") as program:
        pids = program.wait_for_ready()
        os.kill(pids[1], signal.SIGKILL)
        program.wait_for(r"worker 1 \(pid \d+\).*; a new one starts in 0 s")
        assert list(program.wait_for_ready(1)) == [1]
        end(program)


def test_workers_have_random_numbers_of_their_own() -> None:
    source = """
    import random
    def run(worker):
        logging.info("random %r", random.random())
        run_plain_worker(worker)
    serve(run)
    """
    with MasterProgram(source) as program:
        assert len({program.wait_for("random (.*)")[1] for _ in range(2)}) == 2
        end(program)


def test_what_the_master_has_not_written_is_written_once() -> None:
    source = """
    out = open(2, "w", closefd=False)
    sys.stdout = out
    print("only once")
    serve()
    """
    with MasterProgram(source) as program:
        program.wait_for_ready()
        end(program)
        assert program.lines.count("only once") == 1


@pytest.mark.linux_only
def test_a_worker_has_no_descriptors_but_its_own(tmp_path: Path) -> None:
    source = """
    names = os.listdir("/proc/self/fd")
    before = {int(name) for name in names if os.path.exists("/proc/self/fd/" + name)}
    def run(worker):
        own = {sock.fileno() for sock in [*worker.sockets, worker.link]}
        fds = {int(name) for name in os.listdir("/proc/self/fd")} - before - own
        links = []
        for fd in fds:
            try:
                links.append(os.readlink(f"/proc/self/fd/{fd}"))
            except OSError:
                pass  # that of the listing
        logging.info("beside its own: %r", links)
        run_plain_worker(worker)
    serve(run, handover=PATH)
    """
    with MasterProgram(f"PATH = {str(tmp_path / 'handover')!r}\n" + dedent(source)) as program:
        for is_reloaded in (False, True):
            for _ in range(2):
                assert program.wait_for("beside its own: (.*)")[1] == "[]"
            if not is_reloaded:
                program.signal(signal.SIGHUP)
        program.wait_for("reloaded")
        end(program)
