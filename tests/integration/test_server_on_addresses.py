"""Server on addresses of every kind, with each strategy: real clients, real leftovers."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from connections import open_descriptors
from listener_case import leave_stale, needs_ipv6

import pycoronet
from pycoronet import Server, connect
from pycoronet.server import format_address, parse_address

HOST = "127.0.0.1"
PATIENCE_SECONDS = 30

STRATEGIES = ["coroutine", "callback", "threadpool"]
Serve = Callable[..., Server]


def echo_lines(conn: Any, address: Any) -> None:
    """Send every line back, as a task or in a thread."""
    for line in conn:
        conn.write(line)


def echo_what_came(conn: Any, address: Any) -> None:
    """Send back what has come, as a callback."""
    conn.write(conn.take(conn.available))


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> str:
    """Return each strategy in turn."""
    return str(request.param)


@pytest.fixture
def serve(strategy: str) -> Iterator[Serve]:
    """Return a function that starts an echo server, which is closed in the end."""
    made: list[Server] = []

    def start(address: Any, **options: Any) -> Server:
        handler = echo_what_came if strategy == "callback" else echo_lines
        server = Server(address, handler, strategy=strategy, **options)  # type: ignore[arg-type]
        made.append(server)
        server.start()
        return server

    yield start
    for server in made:
        server.close()


def ask(address: Any) -> bool:
    """Tell whether a server echoes at an address."""
    if isinstance(address, bytes):
        address = os.fsdecode(address)
    with connect(address, timeout=PATIENCE_SECONDS) as conn:
        conn.write(b"hello\n")
        return bool(conn.readln() == b"hello\n")


ADDRESSES = [
    pytest.param(f"{HOST}:0", id="ipv4"),
    pytest.param("[::1]:0", id="ipv6", marks=needs_ipv6),
    pytest.param(("", 0), id="all"),
    pytest.param("localhost:0", id="name"),
    pytest.param("unix:socket", id="path"),
    pytest.param("unix:@{pid} server", id="abstract", marks=pytest.mark.linux_only),
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_served(
    serve: Serve, address: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if isinstance(address, str):
        address = address.format(pid=os.getpid())
    server = serve(address)
    assert server.addresses
    for bound in server.addresses:
        where = (HOST, bound[1]) if bound[0] == "::" else bound
        assert ask(where)
        # What is shown to people is understood when they type it.
        assert parse_address(format_address(bound)) is not None
    assert server.stop() == 0
    for bound in server.addresses:
        with pytest.raises(OSError, match=r"."):
            ask((HOST, bound[1]) if bound[0] == "::" else bound)
    assert list(tmp_path.iterdir()) == []


@needs_ipv6
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_all_interfaces_are_served_in_both_families(serve: Serve, host: str) -> None:
    server = serve(":0")
    assert ask((host, server.addresses[0][1]))


def test_several_addresses_are_one_server(serve: Serve, tmp_path: Path) -> None:
    inherited = socket.create_server((HOST, 0))
    path = tmp_path / "socket"
    with socket.create_server((HOST, 0)) as given:
        fd = inherited.detach()
        server = serve([f"{HOST}:0", path, fd, given])
        assert len(server.addresses) == 4
        for address in server.addresses:
            assert ask(address)
        assert server.stop() == 0
    assert server.stats.connections_served == 4
    with pytest.raises(OSError, match=r"."):
        os.fstat(fd)
    assert not path.exists()


def test_one_address_that_is_taken_leaves_the_others_free(serve: Serve, tmp_path: Path) -> None:
    before = open_descriptors()
    path = tmp_path / "socket"
    with socket.create_server((HOST, 0)) as other:
        taken = other.getsockname()
        with pytest.raises(OSError, match="the address is in use") as caught:
            serve([path, taken])
        assert caught.value.errno == errno.EADDRINUSE
        assert str(caught.value).count("\n") == 0
        assert format_address(taken) in str(caught.value)
        assert not path.exists()
    assert open_descriptors() <= before  # what earlier tests left may go meanwhile
    server = serve([path, taken])  # now it is free
    assert all(ask(address) for address in server.addresses)


def test_a_server_may_begin_again_at_its_path(serve: Serve, tmp_path: Path) -> None:
    server = serve(tmp_path / "socket")
    for _ in range(2):
        assert ask(server.addresses[0])
        server.stop()
        assert list(tmp_path.iterdir()) == []
        server.start()


def test_a_stale_path_is_replaced(serve: Serve, tmp_path: Path) -> None:
    leave_stale(tmp_path / "socket")
    server = serve(tmp_path / "socket")
    assert ask(server.addresses[0])


def test_a_path_that_is_served_is_left_to_its_server(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    first = serve(path)
    with pytest.raises(OSError, match="a server listens there") as caught:
        serve(path)
    assert caught.value.errno == errno.EADDRINUSE
    assert ask(path)
    first.stop()
    assert not path.exists()


def test_a_path_that_somebody_else_has_taken_stays_at_the_end(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    first = serve(path)
    path.unlink()  # as an administrator may do
    second = serve(path)
    first.stop()
    assert ask(path)
    second.stop()
    assert not path.exists()


SERVICE = """if 1:
    import sys
    from pycoronet import Server
    from pycoronet.server import format_address

    def handler(conn, address):
        conn.write(conn.readln())

    server = Server(sys.argv[1], handler)
    server.listen()
    print(*map(format_address, server.addresses), flush=True)
    server.serve_forever()
"""


@pytest.fixture
def service() -> Iterator[Callable[..., Any]]:
    """Return a function that starts a server as a process, which is ended after the test."""
    processes: list[Any] = []

    def start(*command: object, **options: Any) -> Any:
        if len(command) == 1:
            command = (sys.executable, "-X", "dev", "-W", "error", "-c", SERVICE, *command)
        pipe = subprocess.PIPE
        arguments = [str(part) for part in command]
        processes.append(subprocess.Popen(arguments, stdout=pipe, stderr=pipe, **options))
        return processes[-1]

    yield start
    for process in processes:
        with process:
            process.kill()


def test_a_killed_servers_path_is_taken_by_the_next_one(
    service: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    for _ in range(2):
        process = service(f"unix:{path}")
        assert process.stdout.readline().decode() == f"unix:{path}\n"
        assert ask(path)
        process.kill()
        process.wait(PATIENCE_SECONDS)
        assert path.is_socket()
    process = service(f"unix:{path}")
    assert process.stdout.readline()
    assert ask(path)  # it serves, so it has its signal handlers
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=PATIENCE_SECONDS) == (b"", b"")
    assert process.returncode == 0
    assert not path.exists()


@pytest.mark.linux_only
def test_systemd_passes_a_socket(service: Callable[..., Any], tmp_path: Path) -> None:
    tool = shutil.which("systemd-socket-activate")
    if tool is None:
        pytest.skip("systemd-socket-activate is not installed")
    path = tmp_path / "socket"
    process = service(
        *(tool, "--listen", path, "--fdname=web", sys.executable, "-X", "dev"),
        *("-c", SERVICE, "systemd:web"),
        env={name: value for name, value in os.environ.items() if name != "LD_PRELOAD"},
    )
    with pycoronet.timeout(PATIENCE_SECONDS):
        while not path.exists():
            pycoronet.sleep(0.01)
        # The tool starts the program for the first connection, which waits in the socket.
        assert ask(path)
        assert ask(path)
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE_SECONDS)
    assert process.returncode == 0
    assert path.exists()  # it is systemd's


@pytest.mark.parametrize("is_passed", [True, False])
def test_sockets_of_systemd_by_the_whole_server(
    service: Callable[..., Any], is_passed: bool
) -> None:
    supervise = """if 1:
        import os, sys
        os.dup2(int(sys.argv[1]), 3)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="web")
        os.execv(sys.executable, [sys.executable, "-c", *sys.argv[2:]])
    """
    with socket.create_server((HOST, 0)) as sock:
        address, fd = sock.getsockname(), sock.fileno()
        name = "systemd:web" if is_passed else "systemd:other"
        process = service(sys.executable, "-c", supervise, fd, SERVICE, name, pass_fds=[fd])
        if is_passed:
            assert process.stdout.readline().decode() == f"{HOST}:{address[1]}\n"
            assert ask(address)
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE_SECONDS)
            return
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert out == b""
    assert err.splitlines()[-1].endswith(
        b"cannot listen on systemd:other: systemd has passed no such socket: "
        b"is the service started by its .socket unit?"
    )


def test_systemd_is_told_when_it_serves_and_when_it_ends(
    service: Callable[..., Any], tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(os.fspath(tmp_path / "notify"))
        supervisor.settimeout(PATIENCE_SECONDS)
        path = tmp_path / "socket"
        environment = {**os.environ, "NOTIFY_SOCKET": os.fspath(tmp_path / "notify")}
        process = service(f"unix:{path}", env=environment)
        assert supervisor.recv(100) == b"READY=1"
        with connect(path, timeout=PATIENCE_SECONDS) as conn:
            process.send_signal(signal.SIGTERM)
            assert supervisor.recv(100) == b"STOPPING=1"
            conn.write(b"still\n")
            assert conn.readln() == b"still\n"
        assert process.communicate(timeout=PATIENCE_SECONDS)[1] == b""
        assert process.returncode == 0
