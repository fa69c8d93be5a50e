"""examples/cnhttpload.py: its sessions, table, summary and errors, and how it ends."""

from __future__ import annotations

import os
import pty
import re
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

PATIENCE_SECONDS = 30
HEADINGS = ["CONNS", "ACTIVE", "TRESP", "TBYTES", "RESPSEC", "BYTESEC"]
REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def errors_of(err: str) -> dict[str, int]:
    """Return the counts of the error list that are not 0."""
    found = re.findall(r"^\t(\w.*?) +(\d+)$", err, re.MULTILINE)
    assert [kind for kind, _ in found] == [
        "Network", "Coroutines", "Connect", "Read", "Write", "Protocol",
        "HTTP 2xx", "HTTP 3xx", "HTTP 4xx", "HTTP 5xx",
    ]  # fmt: skip
    return {kind: int(count) for kind, count in found if count != "0"}


def rows_of(out: str) -> list[list[str]]:
    """Return the rows of the table, which is checked for its headings."""
    table, _, summary = out.partition("\n\n")
    headings, *rows = [line.split() for line in table.splitlines()]
    assert headings == HEADINGS
    assert re.fullmatch(
        r"Peak Connection Rate \.\.\.\.: +\d+\.\d conn/sec\n"
        r"Peak Transfer Rate \.\.\.\.\.\.: +\d+\.\d bytes/sec\n",
        summary,
    )
    return rows


class ScriptedServer:
    """Gives each connection to a function in a thread of its own."""

    def __init__(self, behave: Callable[[socket.socket], None]) -> None:
        self._behave = behave
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            conn.settimeout(PATIENCE_SECONDS)
            self._threads.append(threading.Thread(target=self._serve, args=(conn,)))
            self._threads[-1].start()

    def _serve(self, conn: socket.socket) -> None:
        with conn:
            self._behave(conn)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)


@pytest.fixture
def start_scripted() -> Iterator[Callable[..., ScriptedServer]]:
    servers: list[ScriptedServer] = []

    def start_server(behave: Callable[[socket.socket], None]) -> ScriptedServer:
        servers.append(ScriptedServer(behave))
        return servers[-1]

    yield start_server
    for server in servers:
        server.close()


def read_request(conn: socket.socket) -> bytes:
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        block = conn.recv(65536)
        if not block:
            return request
        request += block
    return request


def answer_once(reply: bytes) -> Callable[[socket.socket], None]:
    def behave(conn: socket.socket) -> None:
        read_request(conn)
        conn.sendall(reply)

    return behave


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# Runs against cnhttpd.


def run(start, server, *arguments: object, host: str = "127.0.0.1"):
    program = start("cnhttpload.py", "-s", host, "-p", server.port, *arguments)
    code, out, err = program.finish()
    assert code == 0, err
    return rows_of(out), errors_of(err)


@pytest.mark.parametrize("active", [1, 3, 50])
def test_a_run_brings_all_responses(start, server, active):
    options = ("-n", 10, "-M", 40, "-r", 5, "-a", active)
    rows, errors = run(start, server, *options, "/mem-100")
    assert rows[-1][:4] == ["0", "0", "200", "20000"]
    assert errors == {"HTTP 2xx": 200}
    server.interrupt()
    assert server.finish()[1] == (
        "Connections .....: 40\nRequests ........: 200\nTotal Bytes .....: 20000\n"
    )


def test_connections_take_the_urls_in_turn(start, server):
    rows, errors = run(start, server, "-n", 1, "-M", 5, "-r", 2, "/mem-10", "/nothing")
    assert errors == {"HTTP 2xx": 6, "HTTP 4xx": 4}
    assert rows[-1][2:4] == ["10", "60"]


def test_the_host_may_be_a_name(start, server):
    _, errors = run(start, server, "-n", 1, "-M", 1, "/mem-10", host="localhost")
    assert errors == {"HTTP 2xx": 1}


def test_long_bodies_are_read_whole(start, server):
    rows, _ = run(start, server, "-n", 2, "-M", 4, "/mem-1000000")
    assert rows[-1][3] == "4000000"


def test_the_other_options_are_accepted(start, server):
    _, errors = run(start, server, "-n", 1, "-M", 1, "-S", 8192, "-t", 5, "-T", 1, "/mem-1")
    assert errors == {"HTTP 2xx": 1}


# Responses.

OUTCOMES = {
    "until the end": (b"HTTP/1.0 200 OK\r\n\r\nhello world", {"HTTP 2xx": 1}, 11),
    "until the end, as said": (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
        {"HTTP 2xx": 1},
        5,
    ),
    "no body at all": (b"HTTP/1.1 304 Not Modified\r\n\r\n", {"HTTP 3xx": 1}, 0),
    "no body, yet kept open": (
        b"HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n",
        {"HTTP 2xx": 1},
        0,
    ),
    "a server error": (b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", {"HTTP 5xx": 1}, 0),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        {"Protocol": 1},
        0,
    ),
    "no length, yet kept open": (
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n",
        {"Protocol": 1},
        0,
    ),
    "no number": (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", {"Protocol": 1}, 0),
    "no response": (b"SSH-2.0-OpenSSH\r\n", {"Protocol": 1}, 0),
    "an odd status": (b"HTTP/1.1 999 X\r\n\r\n", {"Protocol": 1}, 0),
    "no status": (b"HTTP/1.1\r\n\r\n", {"Protocol": 1}, 0),
    "an endless line": (b"x" * 70_000, {"Protocol": 1}, 0),
    "nothing": (b"", {"Read": 1}, 0),
    "half a status line": (b"HTTP/1.1 200", {"Read": 1}, 0),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", {"Read": 1}, 0),
    "half a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", {"Read": 1}, 5),
}


@pytest.mark.parametrize(("reply", "counted", "size"), OUTCOMES.values(), ids=OUTCOMES.keys())
def test_each_outcome_is_counted_as_what_it_is(start, start_scripted, reply, counted, size):
    server = start_scripted(answer_once(reply))
    rows, errors = run(start, server, "-n", 1, "-M", 1, "/")
    assert errors == counted
    assert rows[-1][:2] == ["0", "0"]
    assert rows[-1][3] == str(size)


def test_the_last_request_of_a_connection_says_so(start, start_scripted):
    requests = []

    def behave(conn: socket.socket) -> None:
        while request := read_request(conn):
            requests.append(request)
            conn.sendall(REPLY)

    server = start_scripted(behave)
    _, errors = run(start, server, "-n", 1, "-M", 1, "-r", 3, "/page?a=b")
    assert errors == {"HTTP 2xx": 3}
    for request, connection in zip(requests, ("keep-alive", "keep-alive", "close"), strict=True):
        assert request.startswith(b"GET /page?a=b HTTP/1.1\r\n")
        assert f"\r\nHost: 127.0.0.1:{server.port}\r\n".encode() in request
        assert f"\r\nConnection: {connection}\r\n".encode() in request


def test_a_server_that_closes_early_ends_the_session_without_an_error(start, start_scripted):
    close = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    server = start_scripted(answer_once(close))
    _, errors = run(start, server, "-n", 2, "-M", 4, "-r", 10, "/")
    assert errors == {"HTTP 2xx": 4}


# Regression: sessions that failed used to keep their active places.


@pytest.mark.parametrize("reply", [b"", b"nonsense\r\n", REPLY[:-1]])
def test_failing_sessions_give_their_active_places_back(start, start_scripted, reply):
    server = start_scripted(answer_once(reply))
    rows, errors = run(start, server, "-n", 3, "-a", 1, "-M", 12, "/")
    assert sum(errors.values()) == 12
    assert rows[-1][:2] == ["0", "0"]


def test_connections_that_fail_let_the_run_end(start):
    program = start("cnhttpload.py", "-s", "127.0.0.1", "-p", unused_port(), "-n", 3, "-a", 1,
                    "-M", 30, "/")  # fmt: skip
    code, out, err = program.finish()
    assert code == 0
    assert errors_of(err) == {"Connect": 30}
    assert rows_of(out)[-1][:4] == ["0", "0", "0", "0"]


def test_no_more_are_active_than_allowed(start, start_scripted):
    may_answer = threading.Event()

    def behave(conn: socket.socket) -> None:
        while read_request(conn):
            may_answer.wait(PATIENCE_SECONDS)
            conn.sendall(REPLY)

    server = start_scripted(behave)
    program = start("cnhttpload.py", "-s", "127.0.0.1", "-p", server.port, "-n", 5, "-a", 2,
                    "-M", 5, "-r", 20, "-t", 1, "-T", 1, "/")  # fmt: skip
    lines = iter(program.process.stdout.readline, b"")
    assert next(lines).split()[:2] == [b"CONNS", b"ACTIVE"]
    full = 0
    for line in lines:
        connections, active = map(int, line.split()[:2])
        assert active <= 2
        full += (connections, active) == (5, 2)
        if full == 10:
            may_answer.set()
            break
    code, _, err = program.finish()
    assert (code, errors_of(err)) == (0, {"HTTP 2xx": 100})


# The table.


def test_in_a_terminal_the_table_is_redrawn_in_place(start, server):
    master, slave = pty.openpty()
    try:
        program = start("cnhttpload.py", "-s", "127.0.0.1", "-p", server.port, "-n", 1, "-M", 1,
                        "-r", 300, "-T", 1, "-t", 1, "/mem-1", stdout=slave)  # fmt: skip
        os.close(slave)
        text = b""
        while b"bytes/sec" not in text:
            text += os.read(master, 65536)
        assert program.finish()[0] == 0
    finally:
        os.close(master)
    headings, table, *_ = text.decode().split("\r\n")
    assert headings.split() == HEADINGS
    rows = table.split("\r")[1:]
    assert len(rows) > 1
    assert all(row.endswith("\x1b[K") for row in rows)
    assert rows[-1].split()[:4] == ["0", "0", "300", "300"]


def test_in_a_pipe_each_row_is_a_line(start, start_scripted):
    has_answered = threading.Event()

    def behave(conn: socket.socket) -> None:
        read_request(conn)
        has_answered.wait(PATIENCE_SECONDS)
        conn.sendall(REPLY)

    server = start_scripted(behave)
    program = start("cnhttpload.py", "-s", "127.0.0.1", "-p", server.port, "-n", 1, "-M", 1,
                    "-t", 1, "-T", 1, "/")  # fmt: skip
    lines = [program.process.stdout.readline().decode() for _ in range(4)]
    has_answered.set()
    assert lines[0].split() == HEADINGS
    assert [line.split()[2] for line in lines[1:]] == ["0", "0", "0"]
    code, out, _ = program.finish()
    assert code == 0
    assert "\r" not in "".join(lines) + out
    assert "\x1b" not in "".join(lines) + out


def test_rates_are_moving_averages_with_a_peak(load_example):
    rate = load_example("cnhttpload").Rate()
    rate.sample(100, 0.5)
    assert rate.value == 50
    rate.sample(100, 0.5)
    assert (rate.value, rate.peak) == (37.5, 50)
    rate.sample(400, 1)
    assert (rate.value, rate.peak) == (103.125, 103.125)


# Stopping.


def test_an_interrupt_lets_what_has_begun_come_to_its_end(start, start_scripted):
    has_request, may_answer = threading.Event(), threading.Event()
    waiting_ended = threading.Event()

    def behave(conn: socket.socket) -> None:
        if not read_request(conn):
            waiting_ended.set()  # it only waited for its turn, and was closed
            return
        has_request.set()
        may_answer.wait(PATIENCE_SECONDS)
        conn.sendall(REPLY)
        assert conn.recv(1) == b""

    server = start_scripted(behave)
    program = start("cnhttpload.py", "-s", "127.0.0.1", "-p", server.port, "-n", 2, "-a", 1,
                    "-r", 1000, "/")  # fmt: skip
    assert has_request.wait(PATIENCE_SECONDS)
    program.interrupt()
    assert waiting_ended.wait(PATIENCE_SECONDS)
    may_answer.set()
    code, out, err = program.finish()
    assert code == 0
    assert errors_of(err) == {"HTTP 2xx": 1}
    assert rows_of(out)[-1][:4] == ["0", "0", "1", "5"]


def test_a_second_interrupt_ends_at_once(start, start_scripted):
    has_request, waiting_ended = threading.Event(), threading.Event()

    def behave(conn: socket.socket) -> None:
        if read_request(conn):
            has_request.set()
            assert conn.recv(1) == b""  # never answered; it ends with the program
        else:
            waiting_ended.set()

    server = start_scripted(behave)
    program = start("cnhttpload.py", "-s", "127.0.0.1", "-p", server.port, "-n", 2, "-a", 1,
                    "/")  # fmt: skip
    assert has_request.wait(PATIENCE_SECONDS)
    program.interrupt()
    assert waiting_ended.wait(PATIENCE_SECONDS)
    program.interrupt()
    code, out, err = program.finish()
    assert code == 0
    assert errors_of(err) == {}
    assert rows_of(out)[-1][2:4] == ["0", "0"]


# The command line.


@pytest.mark.parametrize(
    "arguments",
    [
        ["-h"],
        [],
        ["-s", "x", "/"],
        ["-n", "1", "/"],
        ["-s", "x", "-n", "1"],
        ["-s", "x", "-n", "0", "/"],
        ["-s", "x", "-n", "1", "-T", "0", "/"],
        ["-s", "x", "-n", "1", "-r", "many", "/"],
        ["-s", "x", "-n", "1", "-x", "/"],
        ["-s", "x", "-n", "1", "/a b"],
        ["-s", "x", "-n", "1", "/a\r\nHost: y"],
        ["-s", "x", "-n"],
    ],
)
def test_a_command_line_it_cannot_use_gets_the_usage(start, arguments):
    code, out, err = start("cnhttpload.py", *arguments).finish()
    assert (code, out) == (1, "")
    for option in ("-s HOST", "-n NCON", "-p PORT (80)", "-r NREQS (1)", "-S STKSIZE",
                   "-M MAXCONNS", "-t TMUPD (1000)", "-a NACTIVE", "-T TMSAMP (200)"):  # fmt: skip
        assert option in err


def test_an_unknown_host_has_its_exit_code(load_example, monkeypatch, capsys):
    cnhttpload = load_example("cnhttpload")

    def fail(*arguments, **options):
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(cnhttpload, "getaddrinfo", fail)
    assert cnhttpload.main(["cnhttpload", "-s", "no.such", "-n", "1", "/"]) == 2
    assert capsys.readouterr().err == "Unable to resolve: no.such\n"


def test_a_descriptor_shortage_is_a_network_error_and_no_busy_loop(start, server):
    limits = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, ({0}, {0}))"
    program = start("cnhttpload.py", "-s", "127.0.0.1", "-p", server.port, "-n", 60, "-M", 60,
                    "-a", 1, "/mem-1", preexec_fn=lambda: exec(limits.format(30)))  # fmt: skip
    code, _, err = program.finish()
    assert code == 0
    errors = errors_of(err)
    assert errors["Network"] > 0
    assert errors["Network"] + errors["HTTP 2xx"] == 60
