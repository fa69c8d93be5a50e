"""SIGHUP: new workers get ready before old ones leave, and the old ones stay if they do not."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from master_case import Load, MasterProgram, ask, connect, read_answer

# Workers that start by opening a FIFO, which waits until the test has opened it, too.
GATED = """
def run(worker):
    logging.info("at the gate: %d", worker.index)
    if os.path.exists(GATE):
        open(GATE).close()
    if os.path.exists(BROKEN):
        raise ImportError("no module named handler")
    run_plain_worker(worker)
serve(run)
"""


class Gate:
    """Lets workers start at once, only when told to, or not at all."""

    def __init__(self, folder: Path) -> None:
        self._gate = folder / "gate"
        self._broken = folder / "broken"
        self._fd = -1
        self.source = f"GATE, BROKEN = {str(self._gate)!r}, {str(self._broken)!r}\n{GATED}"

    def shut(self) -> None:
        os.mkfifo(self._gate)

    def open(self) -> None:
        self._fd = os.open(self._gate, os.O_RDWR)

    def break_handler(self) -> None:
        self._broken.touch()

    def mend_handler(self) -> None:
        self._broken.unlink()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path)
    yield made
    made.close()


def end(program: MasterProgram) -> None:
    program.signal(signal.SIGTERM)
    assert program.finish() == 0, program.output
    assert program.lines[-1] == "INFO over"


def test_new_workers_take_over_and_old_ones_drain(gate: Gate) -> None:
    with MasterProgram(gate.source) as program:
        address = program.wait_for_address()
        old = program.wait_for_ready()
        with connect(address) as sock:
            sock.sendall(b"one\n")
            answer = read_answer(sock)
            program.signal(signal.SIGHUP)
            new = program.wait_for_ready()
            program.wait_for("reloaded")
            assert new.keys() == old.keys()
            while ask(address) in old.values():
                pass  # they may accept until they have heard of it
            sock.sendall(b"one\n")
            assert read_answer(sock) == answer
        assert {ask(address) for _ in range(50)} <= set(new.values())
        end(program)
        assert "WARNING" not in program.output


def test_until_all_new_workers_are_ready_the_old_ones_serve(gate: Gate) -> None:
    with MasterProgram(gate.source) as program:
        address = program.wait_for_address()
        old = program.wait_for_ready()
        gate.shut()
        program.signal(signal.SIGHUP)
        for _ in old:
            program.wait_for("at the gate")
        assert {ask(address) for _ in range(20)} <= set(old.values())
        gate.open()
        program.wait_for("reloaded")
        end(program)


@pytest.mark.parametrize("how", ["broken", "killed", "told to end"])
def test_if_new_workers_fail_the_old_ones_stay(gate: Gate, how: str) -> None:
    with MasterProgram(gate.source) as program:
        address = program.wait_for_address()
        old = program.wait_for_ready()
        if how == "broken":
            gate.break_handler()
        else:
            gate.shut()
        program.signal(signal.SIGHUP)
        program.wait_for("reloading")
        if how != "broken":
            for _ in old:
                program.wait_for("at the gate")
            victim = next(iter(children_of(program.pid) - set(old.values())))
            os.kill(victim, signal.SIGKILL if how == "killed" else signal.SIGTERM)
        reason = "ImportError: no module named handler" if how == "broken" else "was killed by SIG"
        program.wait_for(rf"ERROR not reloaded, the old workers stay: worker \d .*: {reason}")
        assert {ask(address) for _ in range(20)} <= set(old.values())
        if how == "broken":
            gate.mend_handler()
        else:
            gate.open()
        program.signal(signal.SIGHUP)
        program.wait_for("INFO reloaded")
        end(program)
        assert program.output.count("not reloaded") == 1


def children_of(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def test_a_new_worker_that_is_ready_ends_well_if_another_one_fails(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    source = f"""
    def run(worker):
        if worker.index == 1 and os.path.exists({str(fifo)!r}):
            open({str(fifo)!r}).close()
            sys.exit("not any more")
        run_plain_worker(worker)
    serve(run, own=False)
    """
    with MasterProgram(source) as program, Load(("127.0.0.1", 1), clients=0):
        address = program.wait_for_address()
        old = program.wait_for_ready()
        os.mkfifo(fifo)
        program.signal(signal.SIGHUP)
        (new,) = program.wait_for_ready(1).values()
        with connect_to(address, new) as sock:
            writer = os.open(fifo, os.O_RDWR)  # the other one may still be on its way there
            program.wait_for("not reloaded, the old workers stay: worker 1 .*: not any more")
            os.close(writer)
            while ask(address) == new:
                pass
            sock.sendall(b"two\n")
            assert read_answer(sock) == b"%d two\n" % new
        assert {ask(address) for _ in range(20)} <= set(old.values())
        end(program)


def connect_to(address: object, pid: int) -> socket.socket:
    """Return a connection to a certain one of the workers that share a socket."""
    while True:
        sock = connect(address)
        sock.sendall(b"one\n")
        if int(read_answer(sock).split()[0]) == pid:
            return sock
        sock.close()


def test_a_second_sighup_meanwhile_reloads_once_more(gate: Gate) -> None:
    with MasterProgram(gate.source) as program:
        program.wait_for_ready()
        gate.shut()
        program.signal(signal.SIGHUP)
        for _ in range(2):
            program.wait_for("at the gate")
        for _ in range(3):  # several are like one
            program.signal(signal.SIGHUP)
        gate.open()
        for _ in range(2):
            program.wait_for("INFO reloaded")
        end(program)
        assert program.output.count("INFO reloaded") == 2


def test_a_second_sighup_after_a_mistake_reloads_what_was_mended(gate: Gate) -> None:
    with MasterProgram(gate.source) as program:
        program.wait_for_ready()
        gate.shut()
        gate.break_handler()
        program.signal(signal.SIGHUP)
        for _ in range(2):
            program.wait_for("at the gate")
        program.signal(signal.SIGHUP)
        gate.open()
        program.wait_for("not reloaded")
        gate.mend_handler()
        if "INFO reloaded" not in program.output:
            program.signal(signal.SIGHUP)
        program.wait_for("INFO reloaded")
        end(program)


def test_sigterm_during_a_reload_ends_old_and_new(gate: Gate) -> None:
    with MasterProgram(gate.source) as program:
        address = program.wait_for_address()
        program.wait_for_ready()
        gate.shut()
        with connect(address) as sock:
            sock.sendall(b"one\n")
            answer = read_answer(sock)
            program.signal(signal.SIGHUP)
            for _ in range(2):
                program.wait_for("at the gate")
            program.signal(signal.SIGTERM)
            program.wait_for("stopping")
            sock.sendall(b"one\n")
            assert read_answer(sock) == answer
        assert program.finish() == 0
        assert "reloaded" not in program.output


def test_sighup_while_stopping_does_nothing(gate: Gate) -> None:
    with MasterProgram(gate.source) as program:
        address = program.wait_for_address()
        program.wait_for_ready()
        with connect(address) as sock:
            sock.sendall(b"one\n")
            read_answer(sock)
            program.signal(signal.SIGTERM)
            program.wait_for("stopping")
            program.signal(signal.SIGHUP)
            sock.sendall(b"one\n")
            read_answer(sock)
        assert program.finish() == 0
        assert "reload" not in program.output


def test_sighup_before_the_first_workers_are_ready(gate: Gate) -> None:
    gate.shut()
    with MasterProgram(gate.source) as program:
        address = program.wait_for_address()
        for _ in range(2):
            program.wait_for("at the gate")
        program.signal(signal.SIGHUP)
        for _ in range(2):
            program.wait_for("at the gate")
        gate.open()
        program.wait_for("INFO reloaded")
        ask(address)
        end(program)


def test_an_old_worker_that_dies_during_a_reload_is_replaced(gate: Gate) -> None:
    with MasterProgram(gate.source) as program:
        address = program.wait_for_address()
        old = program.wait_for_ready()
        gate.shut()
        program.signal(signal.SIGHUP)
        for _ in range(2):
            program.wait_for("at the gate")
        os.kill(old[0], signal.SIGKILL)
        program.wait_for(r"worker 0 .*was killed by SIGKILL; a new one starts in 0 s")
        program.wait_for("at the gate: 0")
        gate.open()
        program.wait_for("INFO reloaded")
        assert ask(address) not in old.values()
        end(program)


def test_a_reload_starts_what_would_have_to_wait_for_its_time(gate: Gate) -> None:
    gate.break_handler()
    source = "_master.START_ATTEMPTS = 1000\n_master.BackOff.FIRST_SECONDS = 1000\n"
    with MasterProgram(source + gate.source) as program:
        address = program.wait_for_address()
        for _ in range(4):
            program.wait_for("a new one starts in")
        gate.mend_handler()
        program.signal(signal.SIGHUP)
        program.wait_for("INFO reloaded")
        ask(address)
        end(program)


@pytest.mark.parametrize("own", [True, False], ids=["own sockets", "shared socket"])
def test_reloads_under_load_lose_nothing(own: bool) -> None:
    with MasterProgram(f"serve(own={own})") as program:
        address = program.wait_for_address()
        program.wait_for_ready()
        with Load(address) as load:
            for _ in range(5):
                load.wait_for(50)
                program.signal(signal.SIGHUP)
                program.wait_for("INFO reloaded")
            load.wait_for(50)
        assert load.counts.keys() == {"answered"}, (load.counts, load.problems)
        end(program)


@pytest.mark.parametrize("own", [True, False], ids=["own sockets", "shared socket"])
def test_sigterm_under_load_loses_nothing_that_was_connected(own: bool) -> None:
    with MasterProgram(f"serve(own={own})") as program:
        address = program.wait_for_address()
        program.wait_for_ready()
        with Load(address) as load:
            load.wait_for(100)
            assert load.counts["refused"] == 0
            program.signal(signal.SIGTERM)
            assert program.finish() == 0
        assert load.counts["lost"] == 0, load.problems
