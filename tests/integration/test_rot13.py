"""examples/rot13: five servers, one meaning. Every test here is for each of them.

What they have to answer is computed by two other ways than theirs: Python's codec and a regular
expression for the pieces of long lines.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import random
import re
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import EXAMPLES, PATIENCE_SECONDS, Program, read_all

SERVERS = ["fork", "select", "events", "buffered", "coroutine"]
MAX_LINE = 16384
RESET_AT_CLOSE = struct.pack("ii", 1, 0)
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}

PROC_NET_TCP = Path("/proc/net/tcp")

LONG = bytes(random.Random(7).choices(b"abcxyzABCXYZ .\r\0\xff", k=50000))
TRANSCRIPTS = {
    "nothing": b"",
    "one line": b"Hello, World!\n",
    "a last line without newline": b"first\nlast",
    "only a line without newline": b"last",
    "only an empty line": b"\n",
    "empty lines": b"\n\nbetween\n\n\n",
    "empty lines and a last one": b"\n\nx",
    "NUL bytes": b"\0\na\0b\n\0\0\0\n\0",
    "CR and LF": b"one\r\ntwo\rthree\n\r\n\r",
    "every byte": bytes(range(256)) * 2,
    "letters at their ends": b"AMNZamnz@[`{\n",
    **{
        f"{length} bytes and {what}": b"z" * length + ending
        for length in (16382, 16383, 16384, 16385, 16386, 32767, 32768, 32769)
        for what, ending in (
            ("the end", b""),
            ("a newline", b"\n"),
            ("a newline and more", b"\nmore\n"),
            ("an empty line", b"\n\n"),
        )
    },
    "50000 bytes without newline": LONG,
    "a long line between short ones": b"before\n" + LONG + b"\nafter\nlast",
    "long lines": (LONG + b"\n") * 3,
    "pipelined": b"".join(b"line %d\n" % number for number in range(5000)),
}
# Where long ones are split: at the ends of a piece, of a block and of a line.
AWKWARD_SPLITS = (1, 2, 8191, 8192, 16382, 16383, 16384, 16385, 16386, 16387, 32767, 32768, 49999)


def expect(data: bytes) -> bytes:
    """Return what a server has to answer to a whole stream."""
    pieces = re.sub(rb"[^\n]{16384}", lambda match: match[0] + b"\n", data)
    return codecs.encode(pieces.decode("latin-1"), "rot13").encode("latin-1")


class Rot13(Program):
    """One of the servers, running on a free port."""

    def __init__(self, name: str, **options: object) -> None:
        super().__init__(f"rot13/rot13_{name}.py", 0, env=ENVIRONMENT, **options)
        self.name = name
        said = self.process.stdout.readline().decode()
        found = re.fullmatch(rf"rot13_{name}: 127\.0\.0\.1:(\d+)\n", said)
        assert found, said + self.process.stderr.read().decode()
        self.port = int(found[1])

    def connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), PATIENCE_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def exchange(self, *pieces: bytes) -> bytes:
        """Send pieces, each when the one before has been received; return all that comes back."""
        with self.connect() as client, ThreadPoolExecutor(1) as reader:
            answers = reader.submit(read_all, client)
            for piece in pieces:
                client.sendall(piece)
                if len(pieces) > 1:
                    self.wait_until_taken(client)
            client.shutdown(socket.SHUT_WR)
            return answers.result()

    def wait_until_taken(self, client: socket.socket) -> None:
        """Wait until the server has received all that was sent, where one can see that."""
        own_port = client.getsockname()[1]
        pattern = re.compile(
            rf": 0100007F:(?:({own_port:04X}) 0100007F:{self.port:04X}"
            rf"|{self.port:04X} 0100007F:{own_port:04X}) \w\w (\w+):(\w+) "
        )
        while PROC_NET_TCP.exists():
            queues = pattern.findall(PROC_NET_TCP.read_text())
            # Both ends, and one of them twice if the list changes while it is read.
            assert len({is_ours for is_ours, _, _ in queues}) == 2
            waiting = [to_send if is_ours else held for is_ours, to_send, held in queues]
            if all(int(length, 16) == 0 for length in waiting):
                return

    def interrupt(self) -> None:
        """End it when it has closed all clients: Python tells of those that it was closing."""
        descriptors = Path(f"/proc/{self.process.pid}/fd")
        while descriptors.exists() and count_sockets(descriptors) > 1:  # the listener
            pass
        super().interrupt()

    def read_peak_bytes(self) -> int:
        """Return the most memory that it, or a process of one client, has had; 0 if unknown."""
        if "LD_PRELOAD" in os.environ:
            return 0  # a sanitizer keeps what was freed
        pids = [self.process.pid, *list_children(self.process.pid)]
        statuses = [Path(f"/proc/{pid}/status") for pid in pids]
        peaks = [re.search(r"VmHWM:\s+(\d+)", one.read_text()) for one in statuses if one.exists()]
        # One that has ended, and that nobody has waited for yet, has no memory.
        return max((int(peak[1]) * 1024 for peak in peaks if peak is not None), default=0)


def count_sockets(descriptors: Path) -> int:
    with contextlib.suppress(FileNotFoundError):  # one was closed while we looked
        return sum(str(path.readlink()).startswith("socket:") for path in descriptors.iterdir())
    return sys.maxsize


def list_children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def read_exactly(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        block = client.recv(size - len(data))
        assert block, data
        data += block
    return data


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Rot13]:
    """Return a running server, which must say nothing and end well when the tests are over."""
    running = Rot13(request.param)
    try:
        yield running
        running.interrupt()
        assert running.finish() == (0, "", "")
    finally:
        running.kill()


def test_what_is_expected() -> None:
    assert expect(b"Hello, World!\n\0\xe9\n\nz") == b"Uryyb, Jbeyq!\n\0\xe9\n\nm"
    assert expect(b"a" * 16383 + b"\nb") == b"n" * 16383 + b"\no"
    assert expect(b"a" * 16384 + b"\nb") == b"n" * 16384 + b"\n\no"
    assert expect(b"a" * 16384) == b"n" * 16384 + b"\n"
    assert expect(b"a" * 40000) == (b"n" * 16384 + b"\n") * 2 + b"n" * 7232


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_transcript(server: Rot13, name: str) -> None:
    data = TRANSCRIPTS[name]
    assert server.exchange(data) == expect(data)


@pytest.mark.parametrize("name", [name for name, data in TRANSCRIPTS.items() if len(data) < 100])
def test_transcript_byte_by_byte(server: Rot13, name: str) -> None:
    data = TRANSCRIPTS[name]
    assert server.exchange(*(bytes([byte]) for byte in data)) == expect(data)


@pytest.mark.parametrize("split", AWKWARD_SPLITS)
def test_long_lines_split(server: Rot13, split: int) -> None:
    for data in (LONG, b"z" * 16383 + b"\n" + LONG, b"z" * 16384 + b"\n" + LONG):
        assert server.exchange(data[:split], data[split:]) == expect(data)


def test_in_pieces_of_all_sizes(server: Rot13) -> None:
    chance = random.Random(13)
    data = TRANSCRIPTS["long lines"] + TRANSCRIPTS["pipelined"]
    pieces, rest = [], data
    while rest:
        size = chance.choice((1, 2, 100, 1000, 16384, 20000))
        pieces.append(rest[:size])
        rest = rest[size:]
    assert server.exchange(*pieces) == expect(data)


def test_each_line_is_answered_as_soon_as_it_is_whole(server: Rot13) -> None:
    with server.connect() as client:
        # The last but one: it is too long, with or without the newline that follows.
        for sent in (b"one\n", b"\n", b"tw", b"o\nthree\nfo", b"ur\n", b"z" * 16384, b"\n"):
            client.sendall(sent)
            if sent == b"tw":
                continue
            wanted = {b"o\nthree\nfo": b"two\nthree\n", b"ur\n": b"four\n"}.get(sent, sent)
            assert read_exactly(client, len(expect(wanted))) == expect(wanted)


def test_half_close_is_answered_and_then_the_server_closes(server: Rot13) -> None:
    with server.connect() as client:
        client.sendall(b"first\nlast words")
        assert read_exactly(client, 6) == b"svefg\n"
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"ynfg jbeqf"


def test_clients_at_once_do_not_wait_for_each_other(server: Rot13) -> None:
    clients = [server.connect() for _ in range(30)]
    clients[0].sendall(b"begun")
    for word in (b"one\n", b"another\n"):
        for client in clients[1:]:
            client.sendall(word)
        for client in reversed(clients[1:]):
            assert read_exactly(client, len(word)) == expect(word)
    clients[0].sendall(b"\n")
    assert read_exactly(clients[0], 6) == expect(b"begun\n")
    for client in clients:
        client.close()


def test_clients_that_vanish_harm_nobody(server: Rot13) -> None:
    with server.connect() as witness:
        for sent in (b"", b"half a line", b"a line\n", LONG * 20):
            for _ in range(5):
                with server.connect() as client:
                    client.setblocking(False)
                    if sent:
                        client.send(sent)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
            witness.sendall(b"here\n")
            assert read_exactly(witness, 5) == b"urer\n"
    assert server.exchange(b"still\n") == b"fgvyy\n"


def send_until_stuck(client: socket.socket, data: bytes) -> int:
    """Send until nobody takes more for a while; return how much went.

    The while decides only how hard the test is: a server that reads on for ever gets more.
    """
    client.settimeout(0.5)
    sent = 0
    try:
        while sent < len(data):
            sent += client.send(data[sent : sent + 65536])
    except TimeoutError:
        pass
    client.settimeout(PATIENCE_SECONDS)
    return sent


def test_client_that_does_not_read_fills_no_memory(server: Rot13) -> None:
    data = (LONG + b"\n" + b"short\n" * 10000) * 600
    before = server.read_peak_bytes()
    with server.connect() as client:
        sent = send_until_stuck(client, data)
        with ThreadPoolExecutor(1) as reader:
            answers = reader.submit(read_all, client)
            client.shutdown(socket.SHUT_WR)
            got = answers.result()
        assert server.read_peak_bytes() - before < 16 * 1024 * 1024
    assert got == expect(data[:sent])


# Starting and ending.


@pytest.fixture
def launch() -> Iterator[Callable[..., Rot13]]:
    """Return a function that starts a server for this test alone."""
    launched: list[Rot13] = []

    def launch_server(name: str, **options: object) -> Rot13:
        launched.append(Rot13(name, **options))
        return launched[-1]

    yield launch_server
    for one in launched:
        one.kill()


@pytest.mark.parametrize("name", SERVERS)
def test_interrupt_in_a_terminal_ends_it_with_its_clients(
    launch: Callable[..., Rot13], name: str
) -> None:
    server = launch(name, start_new_session=True)
    with server.connect() as client:
        client.sendall(b"x\n")
        assert read_exactly(client, 2) == b"k\n"
        # As a terminal does it, to all processes.
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.finish() == (0, "", "")
        assert client.recv(1) == b""


@pytest.mark.parametrize("name", SERVERS)
def test_port_is_the_only_argument(start: Callable[..., Program], name: str) -> None:
    program = f"rot13/rot13_{name}.py"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = start(program, port, env=ENVIRONMENT).finish()
        assert (code, out) == (1, "")
        assert re.fullmatch(rf"rot13_{name}: .*in use.*\n", err)
    for arguments in (["x"], [1, 2], ["-q"]):
        code, out, err = start(program, *arguments, env=ENVIRONMENT).finish()
        assert (code, out) == (2, "")
        assert "Traceback" not in err


@pytest.fixture
def load(
    load_example: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], ModuleType]:
    """Return a function that loads one of the servers as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES / "rot13"))
    return lambda name: load_example(f"rot13/{name}")


def test_port_is_the_originals_if_none_is_given(
    load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["rot13_x.py"])

    def refuse(address: object) -> None:
        raise OSError(address)

    with pytest.raises(SystemExit, match=re.escape("('127.0.0.1', 40713)")):
        load("rot13").main(refuse, None)


# Shortages.


class FailingListener:
    """A listener whose accept() gives what the test has prepared, and is interrupted after it."""

    def __init__(self, *outcomes: object) -> None:
        self.outcomes = list(outcomes)

    def accept(self) -> tuple[object, object]:
        outcome = self.outcomes.pop(0) if self.outcomes else KeyboardInterrupt()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome, None

    def setblocking(self, flag: bool) -> None: ...


def test_fork_without_a_process_or_a_descriptor_is_told_and_tried_again(
    load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    server = load("rot13_fork")
    pauses: list[float] = []
    client, peer = socket.socketpair()
    fork = lambda: (_ for _ in ()).throw(BlockingIOError(errno.EAGAIN, "no process"))  # noqa: E731
    monkeypatch.setattr(server.os, "fork", fork)
    monkeypatch.setattr(server.time, "sleep", pauses.append)
    monkeypatch.setattr(server.signal, "signal", lambda *arguments: None)
    with peer, pytest.raises(KeyboardInterrupt):
        server.serve(FailingListener(OSError(errno.EMFILE, "no descriptor"), client))
    assert client.fileno() == -1
    assert pauses == [server.SHORTAGE_SECONDS] * 2
    said = ["rot13_fork: [Errno 24] no descriptor", "rot13_fork: [Errno 11] no process"]
    assert capsys.readouterr().err.splitlines() == said


@pytest.mark.linux_only
def test_fork_leaves_no_process_behind(launch: Callable[..., Rot13]) -> None:
    server = launch("fork")
    for _ in range(5):
        server.exchange(b"x\n")
    while list_children(server.process.pid):
        pass  # each ends when it has seen its client go


def test_select_without_a_descriptor_leaves_the_listener_alone_for_a_while(
    load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = load("rot13_select")
    calls: list[tuple[int, object]] = []

    def pretend_select(readers: list[Any], *others: Any) -> tuple[list[Any], list[Any], list[Any]]:
        calls.append((len(readers), others[-1]))
        return list(readers), [], []

    monkeypatch.setattr(server.select, "select", pretend_select)
    listener = FailingListener(ConnectionAbortedError(), OSError(errno.EMFILE, "none"))
    with pytest.raises(KeyboardInterrupt):
        server.serve(listener)
    assert calls == [(1, None), (0, server.SHORTAGE_SECONDS), (1, None)]


def test_select_turns_away_who_has_too_high_a_descriptor(
    load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = load("rot13_select")
    client, peer = socket.socketpair()
    monkeypatch.setattr(server, "FD_SETSIZE", client.fileno())
    clients: set[Any] = set()
    with peer:
        assert server.accept_clients(FailingListener(client, BlockingIOError()), clients)
        assert not clients
        assert peer.recv(1) == b""


@pytest.mark.linux_only
@pytest.mark.parametrize("name", SERVERS)
def test_who_finds_no_descriptor_is_served_when_others_have_gone(
    launch: Callable[..., Rot13], name: str
) -> None:
    # Few descriptors: the interpreter, the engine and the listener need some, too.
    limits = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, ({0}, {0}))"
    server = launch(name, preexec_fn=lambda: exec(limits.format(20)))
    assert server.exchange(b"first\n") == b"svefg\n"  # from now on it needs no more for itself
    clients = [server.connect() for _ in range(30)]
    for number, client in enumerate(clients):
        client.sendall(b"line %d\n" % number)
    for number, client in enumerate(clients):
        answer = b"yvar %d\n" % number
        assert read_exactly(client, len(answer)) == answer
        client.close()
    server.interrupt()
    assert server.finish() == (0, "", "")
