"""Servers with worker processes, as programs; and clients that count what becomes of them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from pathlib import Path
from typing import Any

# Far more than anything here takes; it only keeps a failing test from hanging.
PATIENCE_SECONDS = 40

PREAMBLE = f"""
import logging, os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
signal.alarm({PATIENCE_SECONDS + 10})  # no program is left behind
os.register_at_fork(after_in_child=lambda: signal.alarm({PATIENCE_SECONDS + 10}))
logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(message)s", stream=sys.stderr)
from plain_worker import run_plain_worker
from pycoronet.server import _master
from pycoronet.server._handover import HandoverPoint, take_over
from pycoronet.server._listeners import open_for_workers
from pycoronet.server._master import Master

def serve(run_worker=run_plain_worker, address=("127.0.0.1", 0), *, processes=2, own=True,
          handover=None, **options):
    predecessor = point = None
    if handover is not None:
        predecessor = take_over(handover)
        point = HandoverPoint(handover)
    listeners = open_for_workers(
        address, count=processes if own else 1, predecessor=predecessor)
    for entry in listeners:
        logging.info("listening %r", entry.sockets[0].getsockname())
    master = Master(run_worker, listeners, processes=processes, handover=point,
                    predecessor=predecessor, **options)
    master.run()
    logging.info("over")
"""

# The same with a whole Server. Its handler answers as plain workers do.
SERVER_PREAMBLE = f"""
import logging, os, signal, sys
signal.alarm({PATIENCE_SECONDS + 10})
os.register_at_fork(after_in_child=lambda: signal.alarm({PATIENCE_SECONDS + 10}))
logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(message)s", stream=sys.stderr)
from pycoronet import Server

def answer(conn, address):
    while conn.server.await_input(conn):
        line = conn.readln()
        if not line:
            break
        conn.write(b"%d %s" % (os.getpid(), line))

def answer_what_is_there(conn, address):
    while line := conn.take_line():
        conn.write(b"%d %s" % (os.getpid(), line))

def serve(handler=answer, address=("127.0.0.1", 0), *, processes=2, **options):
    server = Server(address, handler, processes=processes, **options)
    server.listen()
    for bound in server.addresses:
        logging.info("listening %r", bound)
    try:
        server.serve_forever()
    finally:
        logging.info("over")
"""


class MasterProgram:
    """A running master. What it logs is waited for, line by line; nothing else may come."""

    def __init__(self, source: str = "serve()", preamble: str = PREAMBLE, **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-W", "error", "-c", preamble + textwrap.dedent(source)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        self.lines: list[str] = []
        self._taken = 0
        self._is_over = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._is_over = True
            self._news.notify_all()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Return the next line that matches, after the last one that was waited for."""
        with self._news:
            while True:
                while self._taken < len(self.lines):
                    self._taken += 1
                    if match := re.search(pattern, self.lines[self._taken - 1]):
                        return match
                if self._is_over or not self._news.wait(PATIENCE_SECONDS):
                    raise AssertionError(f"no line like {pattern!r} in:\n{self.output}")

    def wait_for_address(self) -> Any:
        return eval(self.wait_for(r"listening (.*)")[1])

    def wait_for_ready(self, count: int = 2) -> dict[int, int]:
        """Wait until so many workers have got ready; return their pids by their number."""
        matches = [self.wait_for(r"worker (\d+) \(pid (\d+)\) is ready") for _ in range(count)]
        return {int(match[1]): int(match[2]) for match in matches}

    def signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    def finish(self) -> int:
        """Wait until it and all that have its output have ended; return the exit status."""
        status = self.process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        assert self._is_over, "a worker has outlived its master"
        return status

    def __enter__(self) -> MasterProgram:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()  # its workers end by themselves
            self.process.wait(PATIENCE_SECONDS)
        self._reader.join(2 * PATIENCE_SECONDS)
        assert self.process.stderr is not None
        self.process.stderr.close()


def connect(address: Any) -> socket.socket:
    """Return a connection to (host, port) or to the path of a Unix socket."""
    family = socket.AF_UNIX if isinstance(address, str | bytes) else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE_SECONDS)
    try:
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def read_answer(sock: socket.socket) -> bytes:
    """Return what comes up to the end of a line, or all that comes."""
    answer = b""
    while not answer.endswith(b"\n") and (data := sock.recv(65536)):
        answer += data
    return answer


def ask(address: Any, line: bytes = b"hello\n") -> int:
    """Ask on a connection of its own; return the pid of the worker that has answered."""
    with connect(address) as sock:
        sock.sendall(line)
        answer = read_answer(sock)
    pid, _, rest = answer.partition(b" ")
    assert rest == line, answer
    return int(pid)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Load:
    """Clients in threads, each with one connection after the other: connect, ask, be answered.

    counts: "answered", "refused" (the connection was not made), "lost" (it was made, and the
    answer did not come, or not in full).
    """

    def __init__(self, address: Any, clients: int = 8) -> None:
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.pids: Counter[int] = Counter()
        self._address = address
        self._is_over = threading.Event()
        self._news = threading.Condition()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._is_over.is_set():
            outcome, pid, problem = self._ask_once()
            with self._news:
                self.counts[outcome] += 1
                self.pids[pid] += 1
                if problem:
                    self.problems.append(problem)
                self._news.notify_all()

    def _ask_once(self) -> tuple[str, int, str]:
        try:
            sock = connect(self._address)
        except OSError as error:
            return "refused", 0, repr(error)
        with sock:
            try:
                sock.sendall(b"some words\n")
                answer = read_answer(sock)
            except OSError as error:
                return "lost", 0, repr(error)
        pid, _, rest = answer.partition(b" ")
        return ("answered", int(pid), "") if rest == b"some words\n" else ("lost", 0, repr(answer))

    def wait_for(self, count: int, pid: int | None = None) -> None:
        """Wait until so many more have been answered, by a certain worker if one is given."""
        with self._news:
            wanted = self._answered(pid) + count
            assert self._news.wait_for(lambda: self._answered(pid) >= wanted, PATIENCE_SECONDS)

    def _answered(self, pid: int | None) -> int:
        return self.counts["answered"] if pid is None else self.pids[pid]

    def stop(self) -> Counter[str]:
        self._is_over.set()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
        return self.counts

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def kill_one_under_load(program: MasterProgram) -> None:
    """Kill one of two workers under load; see that the other's connections notice nothing."""
    address = program.wait_for_address()
    pids = program.wait_for_ready()
    with connect(address) as steady, Load(address) as load:
        steady.sendall(b"one\n")
        steady_pid = int(read_answer(steady).split()[0])
        (killed,) = set(pids.values()) - {steady_pid}
        load.wait_for(5, killed)
        os.kill(killed, signal.SIGKILL)
        new = program.wait_for_ready(1)
        load.wait_for(5, *new.values())
        steady.sendall(b"two\n")
        assert read_answer(steady) == b"%d two\n" % steady_pid
    assert load.counts["refused"] == 0, load.problems
    # Each client had one connection, and not all of them were with that worker.
    assert load.counts["lost"] <= 8, load.problems
