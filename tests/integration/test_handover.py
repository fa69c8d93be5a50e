"""A new program takes the listening sockets over from the one that runs."""

from __future__ import annotations

import os
import signal
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from master_case import (
    PREAMBLE,
    SERVER_PREAMBLE,
    Load,
    MasterProgram,
    ask,
    connect,
    is_alive,
    read_answer,
)

from pycoronet.server._handover import take_over


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return where to hand over."""
    return str(tmp_path / "handover")


@pytest.fixture(params=["plain", "server"])
def preamble(request: pytest.FixtureRequest) -> str:
    """Return what a program begins with: plain workers, or a whole server."""
    return PREAMBLE if request.param == "plain" else SERVER_PREAMBLE


def end(program: MasterProgram) -> None:
    program.signal(signal.SIGTERM)
    assert program.finish() == 0, program.output
    assert program.lines[-1] == "INFO over"


def test_the_new_one_serves_and_the_old_one_ends(path: str, preamble: str) -> None:
    source = f"serve(handover={path!r})"
    with MasterProgram(source, preamble) as old:
        address = old.wait_for_address()
        old_pids = old.wait_for_ready()
        while not Path(path).exists():
            pass
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
        with connect(address) as sock, MasterProgram(source, preamble) as new:
            sock.sendall(b"one\n")
            answer = read_answer(sock)
            if preamble == SERVER_PREAMBLE:
                sock.close()
            new.wait_for_ready()
            old.wait_for("a new master serves")
            assert new.wait_for_address.__self__.lines  # it has said where
            while ask(address) in old_pids.values():
                pass
            if preamble == PREAMBLE:
                sock.sendall(b"one\n")
                assert read_answer(sock) == answer
                sock.close()
            assert old.finish() == 0
            assert not any(map(is_alive, old_pids.values()))
            ask(address)
            end(new)
    assert not Path(path).exists()


@pytest.mark.parametrize("own", [True, False], ids=["own sockets", "shared socket"])
def test_handovers_under_load_lose_nothing(path: str, preamble: str, own: bool) -> None:
    sharing = {PREAMBLE: f"own={own}", SERVER_PREAMBLE: f"sharing={SHARINGS[own]!r}"}[preamble]
    source = f"serve(handover={path!r}, {sharing})"
    current = MasterProgram(source, preamble)
    try:
        address = current.wait_for_address()
        current.wait_for_ready()
        with Load(address) as load:
            for _ in range(3):
                load.wait_for(50)
                following = MasterProgram(source, preamble)
                with current as old:
                    current = following
                    pids = following.wait_for_ready()
                    assert old.finish() == 0, old.output
                for pid in pids.values():
                    load.wait_for(5, pid)
        assert load.counts.keys() == {"answered"}, (load.counts, load.problems)
        end(current)
    finally:
        current.__exit__()


SHARINGS = {True: "reuse_port", False: "exclusive"}


def test_what_is_queued_at_an_old_worker_is_served_by_the_new_one(path: str) -> None:
    source = f"serve(handover={path!r}, processes=1)"
    with MasterProgram(source) as old:
        address = old.wait_for_address()
        pid = old.wait_for_ready(1)[0]
        os.kill(pid, signal.SIGSTOP)
        queued = [connect(address) for _ in range(5)]
        for sock in queued:
            sock.sendall(b"queued\n")
        with MasterProgram(source) as new:
            new_pid = new.wait_for_ready(1)[0]
            assert {read_answer(sock) for sock in queued} == {b"%d queued\n" % new_pid}
            os.kill(pid, signal.SIGCONT)
            assert old.finish() == 0
            for sock in queued:
                sock.close()
            end(new)


FAILING = """
def fail(worker):
    if worker.index == 1:
        sys.exit("not ready for it")
    run_plain_worker(worker)
"""


@pytest.mark.parametrize("own", [True, False], ids=["own sockets", "shared socket"])
@pytest.mark.parametrize("how", ["fails", "is killed", "is terminated"])
def test_if_the_new_one_does_not_come_up_the_old_one_goes_on(
    path: str, how: str, own: bool
) -> None:
    with MasterProgram(f"serve(own={own}, handover={path!r})") as old:
        address = old.wait_for_address()
        pids = old.wait_for_ready()
        with Load(address, clients=4) as load:
            source = f"{FAILING}\nserve(fail, own={own}, handover={path!r})"
            if how == "fails":
                source = source.replace("worker.index == 1", "True")
            with MasterProgram(source) as new:
                if how == "fails":
                    new.wait_for("^RuntimeError: no worker can start: not ready for it$")
                    assert new.finish() == 1
                else:
                    (new_pid,) = new.wait_for_ready(1).values()
                    load.wait_for(5, new_pid)  # it serves already, beside the old one
                    number = signal.SIGKILL if how == "is killed" else signal.SIGTERM
                    new.signal(number)
                    new.finish()
            old.wait_for("WARNING no handover, this master goes on")
            load.wait_for(50)
            for pid in pids.values():
                load.wait_for(1, pid)
        lost = {"fails": 0, "is terminated": 0, "is killed": 0}[how]
        assert load.counts["lost"] == lost, load.problems
        assert load.counts["refused"] == 0, load.problems
        # And the next one succeeds.
        with MasterProgram(f"serve(own={own}, handover={path!r})") as new:
            new.wait_for_ready()
            assert old.finish() == 0
            end(new)


def test_the_new_one_goes_on_if_the_old_one_is_killed_meanwhile(path: str, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    source = f"""
    def run(worker):
        logging.info("at the gate")
        open({str(fifo)!r}).close()
        run_plain_worker(worker)
    serve(run, handover={path!r})
    """
    with MasterProgram(f"serve(handover={path!r})") as old:
        address = old.wait_for_address()
        old.wait_for_ready()
        with MasterProgram(source) as new:
            new.wait_for("at the gate")
            old.process.kill()
            os.close(os.open(fifo, os.O_RDWR))
            for _ in range(2):
                gate = os.open(fifo, os.O_RDWR)
            pids = new.wait_for_ready()
            os.close(gate)
            old.finish()
            assert ask(address) in pids.values()
            end(new)


def test_sigterm_of_the_old_one_during_a_handover_harms_the_new_one_not(
    path: str, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    source = f"""
    def run(worker):
        logging.info("at the gate")
        open({str(fifo)!r}).close()
        run_plain_worker(worker)
    serve(run, handover={path!r})
    """
    with MasterProgram(f"serve(handover={path!r})") as old:
        address = old.wait_for_address()
        old.wait_for_ready()
        with MasterProgram(source) as new:
            for _ in range(2):
                new.wait_for("at the gate")
            old.signal(signal.SIGTERM)
            assert old.finish() == 0
            with connect(address) as sock:  # nobody accepts, and nobody refuses
                sock.sendall(b"early\n")
                gate = os.open(fifo, os.O_RDWR)
                pids = new.wait_for_ready()
                os.close(gate)
                assert int(read_answer(sock).split()[0]) in pids.values()
            end(new)


def test_a_path_stays_the_new_one_s_if_the_old_one_ends_by_an_error_meanwhile(
    path: str, preamble: str, tmp_path: Path
) -> None:
    source = """
    def fail(*_):
        sys.exit(7)

    signal.signal(signal.SIGTERM, fail)
    """
    address = str(tmp_path / "address")
    with MasterProgram(source + f"serve(address={address!r}, handover={path!r})", preamble) as old:
        old.wait_for_ready()
        while not Path(path).exists():
            pass
        new = take_over(path)
        assert new is not None
        (listener,) = new.take(f"unix:{address}")
        try:
            old.signal(signal.SIGTERM)
            assert old.finish() == 7, old.output
            connect(address).close()
        finally:
            new.close()
            listener.close()


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2), (3, 1)])
@pytest.mark.parametrize("own", [(True, True), (True, False), (False, True)], ids=str)
def test_the_number_of_workers_may_change(path: str, before: int, after: int, own: Any) -> None:
    with MasterProgram(f"serve(processes={before}, own={own[0]}, handover={path!r})") as old:
        address = old.wait_for_address()
        old.wait_for_ready(before)
        with Load(address) as load:
            source = f"serve(processes={after}, own={own[1]}, handover={path!r})"
            with MasterProgram(source) as new:
                pids = new.wait_for_ready(after)
                assert old.finish() == 0
                for pid in pids.values():
                    load.wait_for(5, pid)
                load.stop()
                end(new)
        assert load.counts.keys() == {"answered"}, (load.counts, load.problems)


def test_other_addresses_are_bound_and_left_ones_drained(path: str, tmp_path: Path) -> None:
    kept, left, added = (f"unix:{tmp_path}/{name}" for name in ("kept", "left", "added"))
    with MasterProgram(
        f"serve(address=[{kept!r}, {left!r}], processes=1, handover={path!r})"
    ) as old:
        old.wait_for_address()
        pid = old.wait_for_ready(1)[0]
        os.kill(pid, signal.SIGSTOP)
        queued = [connect(address.removeprefix("unix:")) for address in (kept, left)]
        for sock in queued:
            sock.sendall(b"queued\n")
        source = f"serve(address=[{kept!r}, {added!r}], processes=1, handover={path!r})"
        with MasterProgram(source) as new:
            new_pid = new.wait_for_ready(1)[0]
            assert read_answer(queued[0]) == b"%d queued\n" % new_pid
            old.wait_for("stopping")
            os.kill(pid, signal.SIGCONT)
            assert read_answer(queued[1]) == b"%d queued\n" % pid
            for sock in queued:
                sock.close()
            assert old.finish() == 0
            assert sorted(entry.name for entry in tmp_path.iterdir()) == [
                "added",
                "handover",
                "kept",
            ]
            for address in (kept, added):
                assert ask(address.removeprefix("unix:")) == new_pid
            end(new)
    assert list(tmp_path.iterdir()) == []


# --- The path ---------------------------------------------------------------------------------


def test_a_path_that_a_crash_has_left_is_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(path)
    with MasterProgram(f"serve(handover={path!r})") as program:
        program.wait_for_ready()
        end(program)
    assert not Path(path).exists()


def test_a_killed_master_leaves_a_path_that_the_next_one_replaces(path: str) -> None:
    for _ in range(2):
        with MasterProgram(f"serve(handover={path!r})") as program:
            program.wait_for_ready()
            while not Path(path).exists():
                pass
            program.process.kill()
            program.finish()
    with MasterProgram(f"serve(handover={path!r})") as program:
        program.wait_for_ready()
        end(program)


def test_who_connects_and_says_nonsense_harms_nobody(path: str) -> None:
    with MasterProgram(f"serve(handover={path!r})") as program:
        address = program.wait_for_address()
        program.wait_for_ready()
        while not Path(path).exists():
            pass
        for words in (b"hello\n", b"ready nonsense\n", b"\xff" * 100 + b"\n", b""):
            with connect(path) as sock:
                sock.sendall(words)
                if not words:
                    sock.shutdown(socket.SHUT_WR)
                assert sock.recv(100) == b""
            program.wait_for("WARNING no handover")
        with connect(path) as first, connect(path) as second:
            first.sendall(b"take\n")
            assert first.recv(10000).endswith(b"\n")
            assert second.recv(100) == b""  # one at a time
        program.wait_for("WARNING no handover")
        ask(address)
        with connect(path) as silent, connect(address) as sock:
            sock.sendall(b"one\n")
            answer = read_answer(sock)
            program.signal(signal.SIGTERM)
            with suppress(ConnectionResetError):  # if it had not been taken up yet
                assert silent.recv(100) == b""
            assert not Path(path).exists()  # it has nothing to hand over any more
            sock.sendall(b"one\n")
            assert read_answer(sock) == answer
        assert program.finish() == 0


def test_a_master_that_does_not_answer_is_told_in_one_line(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen()
        preamble = PREAMBLE + "\nfrom pycoronet.server import _handover\n"
        source = f"_handover.TIMEOUT_SECONDS = 0.1\nserve(handover={path!r})"
        with MasterProgram(source, preamble) as program:
            program.wait_for(f"^TimeoutError: the master at '{path}' does not answer$")
            assert program.finish() == 1
        assert Path(path).is_socket()


def test_a_supervisor_hears_of_the_new_process(path: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(30)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        source = f"serve(handover={path!r})"
        with MasterProgram(source, env=environment) as old:
            assert supervisor.recv(1000) == b"READY=1"
            old.signal(signal.SIGHUP)
            assert supervisor.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert supervisor.recv(1000) == b"READY=1"
            with MasterProgram(source, env=environment) as new:
                assert supervisor.recv(1000) == b"READY=1\nMAINPID=%d" % new.pid
                old.finish()  # and says nothing: the service goes on
                new.signal(signal.SIGTERM)
                assert supervisor.recv(1000) == b"STOPPING=1"
                new.finish()
