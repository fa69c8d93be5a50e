"""Streams, lines, frames, layers, TLS, HTTP and servers while system calls misbehave.

First what no program may notice: short calls, EINTR, EAGAIN. Then resets: nobody waits for
ever, what is read is a beginning of what was written, and nothing is left. The seeds are fixed;
a failing test has its seed in its name.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates
from connections import Ends, open_descriptors
from recorders import Recorder
from test_stream_model import Direction

from pycoronet import Hub, Server, _coronet, connect, get_hub, sleep, spawn, timeout
from pycoronet.layers import Zlib
from pycoronet.testing import Faults, faults, pair

pytestmark = pytest.mark.usefixtures("virtual_hub")

SEEDS = range(4)
CONTENT = random.Random(1).randbytes(150_000)
LINES = [b"%d " % number * (number % 40) + b"\n" for number in range(400)]

# More than any system would do.
STORM = {
    "read": {"short": 0.5, "EINTR": 0.1, "EAGAIN": 0.3},
    "write": {"short": 0.5, "EINTR": 0.1, "EAGAIN": 0.3},
    "sendfile": {"short": 0.4, "EINTR": 0.1, "EAGAIN": 0.3},
    "file": {"short": 0.6, "EINTR": 0.2},
    "accept": {"EINTR": 0.3, "EAGAIN": 0.3},
    "connect": {"EINTR": 0.4, "EINPROGRESS": 0.4},
}

RESETS = {
    "read": {"ECONNRESET": 0.03, "EAGAIN": 0.2, "short": 0.3},
    "write": {"EPIPE": 0.02, "ECONNRESET": 0.02, "ETIMEDOUT": 0.01, "ENOBUFS": 0.01},
    "sendfile": {"EPIPE": 0.1, "short": 0.5},
    "accept": {"ECONNABORTED": 0.2, "ENOBUFS": 0.1},
}


@pytest.fixture(autouse=True)
def bounded(virtual_hub: Hub) -> Iterator[None]:
    """Bound each test: virtual time is over at once when nobody can go on."""
    with timeout(1e6):
        yield


@pytest.fixture(params=SEEDS)
def storm(request: pytest.FixtureRequest) -> Iterator[Faults]:
    """Inject what nobody may notice; some of it has to have happened."""
    with faults(STORM, seed=request.param) as injected:
        yield injected
    assert injected.total > 0


@pytest.fixture(params=SEEDS)
def resets(request: pytest.FixtureRequest) -> Iterator[Faults]:
    """Inject what ends connections."""
    with faults(RESETS, seed=request.param) as injected:
        yield injected


def both_ways(left: Any, right: Any, content: bytes = CONTENT) -> None:
    """Have both ends write and read the same, and end."""

    def talk(conn: Any) -> bytes:
        writer = spawn(conn.sendall, content)
        received = conn.read_exactly(len(content))
        writer.get()
        return received

    tasks = [spawn(talk, conn) for conn in (left, right)]
    assert [task.get() for task in tasks] == [content] * 2


# --- What nobody may notice -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_the_stream_model(ends: Ends, storm: Faults, kind: str) -> None:
    chance = random.Random(kind)
    left, right = (ends.conn(sock.detach()) for sock in ends.sockets(kind))
    directions = [
        Direction(left, right, random.Random(chance.random())),
        Direction(right, left, random.Random(chance.random())),
    ]
    tasks = [spawn(direction.write_on) for direction in directions]
    tasks += [spawn(direction.read_on) for direction in directions]
    for task in tasks:
        task.get()
    for direction in directions:
        assert direction.received == len(direction.sent)


@pytest.mark.parametrize("is_buffered", [False, True])
def test_lines(ends: Ends, storm: Faults, is_buffered: bool) -> None:
    left, right = (ends.conn(sock) for sock in ends.sockets("tcp"))
    left.buffered = is_buffered

    def write() -> None:
        for line in LINES:
            left.write(line)
        left.close()

    spawn(write)
    assert list(right) == LINES


def test_frames_and_urgent_packets(ends: Ends, storm: Faults) -> None:
    left, right = (ends.conn(sock) for sock in ends.sockets())

    def write() -> None:
        for line in LINES:
            left.enqueue(len(line).to_bytes(4, "big") + line, urgent=len(line) % 3 == 0)
        left.close()

    spawn(write)
    frames = []
    while (frame := right.read_frame()) is not None:
        frames.append(frame)
    assert sorted(frames) == sorted(LINES)


@pytest.mark.parametrize("latency", [0, 0.5])
def test_a_pair_in_memory(storm: Faults, latency: float) -> None:
    with pair(latency=latency, capacity=5000) as (left, right):
        both_ways(left, right)


def test_layers(ends: Ends, storm: Faults) -> None:
    left, right = (ends.conn(sock) for sock in ends.sockets("tcp"))
    for conn in (left, right):
        conn.push_layer(Zlib())
    both_ways(left, right)


def test_callbacks(ends: Ends, storm: Faults) -> None:
    left, right = (ends.conn(sock) for sock in ends.sockets("tcp"))
    recorder = Recorder(data=echo_what_came, takes=False)
    right.set_callbacks(recorder)
    writer = spawn(left.sendall, CONTENT)
    assert left.read_exactly(len(CONTENT)) == CONTENT
    writer.get()
    left.close()
    get_hub().run()
    assert recorder.log[-2:] == ["eof", "close"]


def test_files(ends: Ends, storm: Faults, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    left, right = (ends.conn(sock) for sock in ends.sockets("tcp"))

    def send() -> None:
        with path.open("rb") as file:
            for start in (0, 70_000):
                left.write(b"<")
                left.sendfile(file, start)
                left.write(b">")
        left.close()

    spawn(send)
    expected = b"<" + CONTENT + b"><" + CONTENT[70_000:] + b">"
    assert right.read(len(expected) + 1) == expected


def test_messages_with_borders(ends: Ends, storm: Faults) -> None:
    left, right = (ends.conn(sock) for sock in ends.sockets("seqpacket"))
    writer = spawn(lambda: [left.write(line) for line in LINES])
    assert [right.recv(9999) for _ in LINES] == LINES
    writer.get()


# --- TLS, HTTP and servers ------------------------------------------------------------------------


def echo(conn: Any, *_: Any) -> None:
    while data := conn.recv(65536):
        conn.sendall(data)


def echo_what_came(conn: Any, *_: Any) -> None:
    while data := conn.take(65536):
        conn.write(data)


HANDLERS: dict[str, Callable[..., None]] = {"coroutine": echo, "callback": echo_what_came}


@pytest.fixture(params=list(HANDLERS))
def start(request: pytest.FixtureRequest) -> Iterator[Callable[..., Server]]:
    """Return a function that starts an echo server of either kind."""
    made: list[Server] = []

    def start(**settings: Any) -> Server:
        handler, strategy = HANDLERS[request.param], request.param
        made.append(Server(("127.0.0.1", 0), handler, strategy=strategy, **settings))
        made[-1].start()
        return made[-1]

    yield start
    sleep(10)  # the handlers see that their clients have gone
    for server in made:
        server.close()
    get_hub().run()


def test_a_server(start: Any, storm: Faults) -> None:
    server = start()

    def ask(number: int) -> None:
        with connect(server.addresses[0]) as conn:
            question = CONTENT[number * 1000 :][:50_000]
            writer = spawn(conn.sendall, question)
            assert conn.read_exactly(len(question)) == question
            writer.get()

    for task in [spawn(ask, number) for number in range(8)]:
        task.get()


def test_a_server_with_tls(start: Any, storm: Faults, certificates: Certificates) -> None:
    server = start(tls=certificates.server_context())
    with connect(server.addresses[0], tls=certificates.client_context()) as conn:
        writer = spawn(conn.sendall, CONTENT)
        assert conn.read_exactly(len(CONTENT)) == CONTENT
        writer.get()


def test_http(ends: Ends, storm: Faults, tmp_path: Path) -> None:
    pytest.importorskip("h11", reason="h11, the parser of pycoronet[http], is not installed")
    from test_http import Client, FakeServer

    from pycoronet.httpd import Directory

    (tmp_path / "file").write_bytes(CONTENT)
    with pair() as made:
        made.partner(next(iter(made))).server = FakeServer()  # type: ignore[attr-defined]
        client = Client(made, Directory(tmp_path).respond)
        for _ in range(3):
            client.send(b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n")
            status, _, body = client.reply()
            assert (status, body) == (200, CONTENT)
        client.conn.close()
        client.task.get()


def outlive(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what the call gives, or None if a connection was broken."""
    try:
        return call(*arguments)
    except (OSError, EOFError):
        return None


# --- Resets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_reset_loses_only_the_end(ends: Ends, resets: Faults, kind: str) -> None:
    left, right = (ends.conn(sock) for sock in ends.sockets(kind))
    received = bytearray()

    def write() -> None:
        try:
            while True:
                left.write(CONTENT[:5000])
        finally:
            left.close()

    def read() -> None:
        try:
            while data := right.recv(3000):
                received.extend(data)
        finally:
            right.close()

    for task in [spawn(outlive, write), spawn(outlive, read)]:
        task.get()
    assert resets.total > 0
    periods = len(received) // 5000 + 1
    assert bytes(received) == (CONTENT[:5000] * periods)[: len(received)]
    assert get_hub().task_count == 0


def test_a_server_outlives_resets(start: Any, resets: Faults, reports: list[Any]) -> None:
    server = start(backlog=64)
    before = open_descriptors()
    addresses = server.addresses
    outcomes = []
    # Each call may fail, and in hard mode each byte takes one.
    content = CONTENT[: 10 if _coronet.HARD_MODE else 2000]

    def ask() -> None:
        try:
            with connect(addresses[0]) as conn:
                conn.sendall(content)
                outcomes.append(conn.read_exactly(len(content)) == content)
        except (OSError, EOFError) as error:
            outcomes.append(error)

    for _ in range(5):
        tasks = [spawn(ask) for _ in range(10)]
        for task in tasks:
            task.get()
    assert len(outcomes) == 50
    assert outcomes.count(True) > 0
    assert resets.total > 0
    sleep(10)
    assert server.stats.open == 0
    assert open_descriptors() == before
    assert all(isinstance(report, OSError) for report in reports)


def test_tls_under_resets(
    ends: Ends, resets: Faults, certificates: Certificates, reports: list[Any]
) -> None:
    for _ in range(5):
        left, right = ends.sockets("tcp")
        server, client = ends.conn(left), ends.conn(right.detach())

        def serve(conn: Any = server) -> None:
            with conn:
                conn.start_tls(certificates.server_context(), server_side=True)
                echo(conn)

        def ask(conn: Any = client) -> None:
            with conn:
                conn.start_tls(certificates.client_context(), server_hostname="localhost")
                conn.sendall(CONTENT[:3000])
                assert conn.read_exactly(3000) == CONTENT[:3000]

        for task in [spawn(outlive, serve), spawn(outlive, ask)]:
            task.get()
    assert get_hub().task_count == 0


@pytest.mark.parametrize("plan", [["ENOBUFS"], ["EAGAIN", "EAGAIN", "ENOBUFS"]])
@pytest.mark.parametrize("is_client", [True, False])
def test_a_lost_part_of_a_handshake_ends_both_sides(
    ends: Ends, certificates: Certificates, plan: list[str], is_client: bool
) -> None:
    left, right = ends.sockets("tcp")
    server, client = ends.conn(left), ends.conn(right.detach())
    errors: dict[str, BaseException] = {}

    def shake_hands(name: str, conn: Any, context: Any, **options: Any) -> None:
        try:
            conn.start_tls(context, **options)
            conn.recv(1)
        except (OSError, EOFError) as error:
            errors[name] = error
        finally:
            conn.close()

    with faults({"write": plan}, only=[client if is_client else server]):
        tasks = [
            spawn(shake_hands, "server", server, certificates.server_context(), server_side=True),
            spawn(
                shake_hands,
                "client",
                client,
                certificates.client_context(),
                server_hostname="localhost",
            ),
        ]
        for task in tasks:
            task.get()
    told = errors["client" if is_client else "server"]
    assert isinstance(told, OSError)
    assert told.errno == errno.ENOBUFS


def test_files_under_resets(ends: Ends, resets: Faults, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    before = open_descriptors()
    for _ in range(10):
        left, right = (ends.conn(sock) for sock in ends.sockets("tcp"))

        def send(conn: Any = left) -> None:
            with conn, path.open("rb") as file:
                conn.sendfile(file)

        sender = spawn(outlive, send)
        received = outlive(right.read, len(CONTENT) + 1) or b""
        assert CONTENT.startswith(received)
        right.abort()
        sender.get()
    assert open_descriptors() == before
