"""examples/kqueue_server.py: what it prints for what clients do, on the engine there is."""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from conftest import PATIENCE_SECONDS, Program

RESET_AT_CLOSE = struct.pack("ii", 1, 0)
DISCONNECTED = "Client has disconnected"


class Server:
    """A running kqueue_server, and what it has printed so far."""

    def __init__(self, program: Program, host: str = "127.0.0.1") -> None:
        self.program = program
        self.first_line = program.process.stderr.readline().decode()
        found = re.fullmatch(r"kqueue_server: (.+):(\d+), by (\w+)\n", self.first_line)
        assert found, self.first_line + program.process.stderr.read().decode()
        assert found[1] == host
        self.port, self.engine = int(found[2]), found[3]
        self.lines: list[str] = []

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_SECONDS)

    def read_line(self) -> str:
        """Return the next line, at once when it is printed: nothing keeps it in a buffer."""
        readable, _, _ = select.select([self.program.process.stdout], [], [], PATIENCE_SECONDS)
        assert readable, self.lines
        line = self.program.process.stdout.readline().decode()
        assert line.endswith("\n"), self.lines
        self.lines.append(line.removesuffix("\n"))
        return self.lines[-1]

    def read_until(self, wanted: str, count: int = 1) -> None:
        """Read until a line has been seen so many times."""
        while self.lines.count(wanted) < count:
            self.read_line()

    def complains(self) -> bool:
        """Tell whether there is something to read on stderr."""
        return bool(select.select([self.program.process.stderr], [], [], 0)[0])

    def read_until_or_complaint(self, wanted: str, count: int) -> None:
        """Read until a line has been seen so many times, or there is something on stderr."""
        stdout, stderr = self.program.process.stdout, self.program.process.stderr
        while self.lines.count(wanted) < count:
            readable, _, _ = select.select([stdout, stderr], [], [], PATIENCE_SECONDS)
            assert readable, self.lines
            if stderr in readable:
                return
            self.read_line()

    def events(self) -> list[int]:
        return [int(line[8:]) for line in self.lines if line.startswith("events: ")]

    def sizes(self) -> list[int]:
        return [int(line.split()[1]) for line in self.lines if line.startswith("read ")]

    def finish(self) -> str:
        """End it by Ctrl-C, which must go well; return what it complained about."""
        self.program.interrupt()
        code, out, err = self.program.finish()
        assert code == 0, err
        # A client's socket that can be written is an event, but nobody waits for it.
        assert re.fullmatch(r"(events: \d+\n)*", out), out
        return err


@pytest.fixture
def start_server(start: Callable[..., Program]) -> Callable[..., Server]:
    """Return a function that starts the example on a free port."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return lambda **options: Server(
        # Without a buffer here select() tells of every line.
        start("kqueue_server.py", "-b", "127.0.0.1", 0, bufsize=0, env=environment, **options)
    )


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    """Return the example on a free port."""
    return start_server()


def test_bytes_that_come_with_the_end_are_read_before_the_disconnect(server: Server) -> None:
    with server.connect() as client:
        client.sendall(b"x" * 100)
    server.read_until(DISCONNECTED)
    assert [line for line in server.lines if "events" not in line] == [
        "read 100 bytes",
        DISCONNECTED,
    ]
    assert server.finish() == ""


def test_blocks_are_those_of_the_original(server: Server) -> None:
    with server.connect() as client:
        client.sendall(b"x" * 2500)
    server.read_until(DISCONNECTED)
    assert sum(server.sizes()) == 2500
    assert max(server.sizes()) == 1024
    assert server.finish() == ""


def test_half_close_is_a_disconnect_and_the_server_closes(server: Server) -> None:
    with server.connect() as client:
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    server.read_until(DISCONNECTED)
    assert server.sizes() == [10]
    assert server.finish() == ""


def test_reset_is_a_disconnect_too(server: Server) -> None:
    with server.connect() as client:
        client.sendall(b"before")
        server.read_until("read 6 bytes")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
    server.read_until(DISCONNECTED)
    # The next one is served.
    with server.connect() as client:
        client.sendall(b"afterwards")
        server.read_until("read 10 bytes")
    server.read_until(DISCONNECTED, 2)
    assert "reset" in server.finish()


def test_clients_at_once_are_all_served_and_none_holds_up_another(server: Server) -> None:
    silent = server.connect()
    clients = [server.connect() for _ in range(20)]
    for round_number in range(1, 4):
        for client in clients:
            client.sendall(b"x" * 7)
            # A client's bytes were not there in one turn and gone in the next.
            if round_number < 3:
                server.read_until("read 7 bytes", len(server.sizes()) + 1)
    for client in clients:
        client.close()
    server.read_until(DISCONNECTED, 20)
    assert sum(server.sizes()) == 20 * 3 * 7
    assert all(count >= 1 for count in server.events())
    silent.close()
    server.read_until(DISCONNECTED, 21)
    assert server.finish() == ""


def test_events_of_one_turn_are_counted_together(server: Server) -> None:
    clients = [server.connect() for _ in range(3)]
    for client in clients:
        client.sendall(b"x")
    server.read_until("read 1 bytes", 3)
    # When one who came later is gone, they wait again, with whatever engine.
    server.connect().close()
    server.read_until(DISCONNECTED)
    # While it stands still, all of them do something.
    pid = server.program.process.pid
    os.kill(pid, signal.SIGSTOP)
    assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
    for client in clients:
        client.sendall(b"yy")
    os.kill(pid, signal.SIGCONT)
    server.read_until("read 2 bytes", 3)
    assert server.lines[-4:] == ["events: 3", *["read 2 bytes"] * 3]
    for client in clients:
        client.close()
    server.read_until(DISCONNECTED, 4)
    assert server.finish() == ""


def test_accept_without_a_descriptor_is_told_and_tried_again(
    start_server: Callable[..., Server],
) -> None:
    # Room for a few clients: the interpreter, the engine and the listener need some, too.
    limits = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, ({0}, {0}))"
    server = start_server(preexec_fn=lambda: exec(limits.format(16)))
    complaint = b"Accept socket error: Too many open files\n"
    clients = []
    # One by one, for the queue is as short as the original's.
    while not server.complains():
        clients.append(server.connect())
        clients[-1].sendall(b"x" * 5)
        server.read_until_or_complaint("read 5 bytes", len(clients))
        assert len(clients) < 16
    assert server.program.process.stderr.readline() == complaint
    waiting = [server.connect() for _ in range(2)]
    for client in waiting:
        client.sendall(b"y" * 6)
    # Twice more in vain, and then those that waited come in as the others go.
    for _ in range(2):
        assert server.program.process.stderr.readline() == complaint
    for client in clients + waiting:
        client.close()
    server.read_until(DISCONNECTED, len(clients) + 2)
    assert sorted(server.sizes()) == [5] * len(clients) + [6, 6]
    complaints = server.finish().encode().splitlines(keepends=True)
    assert set(complaints) <= {complaint}
    # It did not turn and turn while nobody could come in.
    tries = 3 + len(complaints)
    assert len(server.events()) <= 4 * (len(clients) + 2) + 2 * tries


def test_accept_pauses_after_an_error(load_example, monkeypatch, capsys) -> None:
    example = load_example("kqueue_server")
    steps: list[object] = []
    monkeypatch.setattr(example, "sleep", steps.append)

    class Listener:
        def accept(self) -> None:
            steps.append("accept")
            if len(steps) == 5:
                raise KeyboardInterrupt
            raise OSError(errno.EMFILE, "too many")

    with pytest.raises(KeyboardInterrupt):
        example.accept_clients(Listener())
    pause = example.SHORTAGE_SECONDS
    assert pause > 0
    assert steps == ["accept", pause, "accept", pause, "accept"]
    assert capsys.readouterr() == ("", "Accept socket error: too many\n" * 2)


def test_interrupt_ends_it_with_clients_and_without(start_server: Callable[..., Server]) -> None:
    assert start_server().finish() == ""
    server = start_server()
    with server.connect() as client:
        client.sendall(b"x")
        server.read_until("read 1 bytes")
        assert server.finish() == ""
        assert client.recv(1) == b""


def test_engine_is_the_one_of_the_environment(start_server: Callable[..., Server]) -> None:
    wanted = os.environ.get("PYCORONET_ENGINE")
    server = start_server()
    assert server.engine in ([wanted] if wanted else ["epoll", "kqueue"])


# The command line.


@pytest.fixture
def taken_port() -> Iterator[int]:
    """Return a port of 127.0.0.1 that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_port_is_the_only_argument(start: Callable[..., Program]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as finder:
        port = finder.getsockname()[1]
    server = Server(start("kqueue_server.py", "-b", "127.0.0.1", port, bufsize=0))
    assert server.port == port
    assert server.finish() == ""


def test_port_and_address_are_the_originals_if_none_is_given(load_example, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["kqueue_server.py"])
    options = load_example("kqueue_server").parse_arguments()
    assert (options.address, options.port) == ("0.0.0.0", 1815)


def test_port_in_use_is_told(start: Callable[..., Program], taken_port: int) -> None:
    code, out, err = start("kqueue_server.py", "-b", "127.0.0.1", taken_port).finish()
    assert (code, out) == (1, "")
    assert re.fullmatch(r"kqueue_server: .*in use.*\n", err)


@pytest.mark.parametrize(
    ("arguments", "code"), [(["x"], 2), (["1", "2"], 2), (["-q"], 2), ([70000], 1), ([-1], 1)]
)
def test_command_line_it_cannot_use_is_refused(
    start: Callable[..., Program], arguments: list[object], code: int
) -> None:
    status, out, err = start("kqueue_server.py", "-b", "127.0.0.1", *arguments).finish()
    assert (status, out) == (code, "")
    assert "kqueue_server" in err
    assert "Traceback" not in err


def test_engine_that_is_not_there_is_told(start: Callable[..., Program]) -> None:
    environment = {**os.environ, "PYCORONET_ENGINE": "kqeue"}
    code, out, err = start("kqueue_server.py", 0, env=environment).finish()
    assert (code, out) == (1, "")
    assert err.startswith("kqueue_server: there is no engine 'kqeue' here; PYCORONET_ENGINE may be")
