"""The seed's two ways to use a server, each with and without TLS, as processes."""

from __future__ import annotations

import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates
from connections import receive_until

import pycoronet
from pycoronet import client_ssl_context

PATIENCE_SECONDS = 30

Start = Callable[..., Any]

STRATEGIES = ["callback", "threadpool"]


def address_of(program: Any) -> tuple[str, int]:
    """Return the address that the example says it serves."""
    line = program.process.stdout.readline().decode()
    assert line.startswith("serving 127.0.0.1:"), program.finish()[2]
    return "127.0.0.1", int(line.rpartition(":")[2])


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def tls_arguments(request: pytest.FixtureRequest) -> tuple[object, ...]:
    """Return the options for a server with TLS, and for one without."""
    if not request.param:
        return ()
    folder = request.getfixturevalue("certificates").folder
    return "--tls", folder / "server.crt", folder / "server.key"


def dial(address: Any, context: ssl.SSLContext | None) -> Any:
    """Return a client, with TLS if there is a context."""
    sock = socket.create_connection(address, PATIENCE_SECONDS)
    return sock if context is None else context.wrap_socket(sock, server_hostname="localhost")


@pytest.fixture
def context(request: pytest.FixtureRequest, tls_arguments: Any) -> ssl.SSLContext | None:
    """Return what a client needs, None without TLS."""
    if not tls_arguments:
        return None
    return client_ssl_context(request.getfixturevalue("certificates").authority)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_lines_are_numbered_over_all_connections(
    start: Start, strategy: str, tls_arguments: Any, context: ssl.SSLContext | None
) -> None:
    program = start("cp_server.py", strategy, "127.0.0.1:0", *tls_arguments)
    address = address_of(program)
    clients = [dial(address, context) for _ in range(10)]
    files = [client.makefile("rwb", buffering=0) for client in clients]
    for number, file in enumerate(files * 2, start=1):
        file.write(b"line\n")
        assert file.readline() == b"%d line\n" % number
    files[0].write(b"two\nat once\n")
    assert files[0].readline() == b"21 two\n"
    assert files[0].readline() == b"22 at once\n"
    for file, client in zip(files, clients, strict=True):
        file.close()
        client.close()
    program.interrupt()
    assert program.finish() == (0, "10 connections\n", "")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_connection_that_waits_for_nothing_is_ended_by_a_signal(
    start: Start, strategy: str, tls_arguments: Any, context: ssl.SSLContext | None
) -> None:
    program = start("cp_server.py", strategy, "127.0.0.1:0", *tls_arguments)
    with dial(address_of(program), context) as client:
        client.sendall(b"line\n")
        assert receive_until(client, b"\n") == b"1 line\n"
        program.process.send_signal(signal.SIGTERM)
        assert client.recv(100) == b""
    assert program.finish() == (0, "1 connections\n", "")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_known_clients_are_let_in(
    start: Start, certificates: Certificates, strategy: str
) -> None:
    files = certificates.folder / "server.crt", certificates.folder / "server.key"
    program = start(
        *("cp_server.py", strategy, "127.0.0.1:0", "--tls", *files),
        *("--clients", certificates.authority),
    )
    address = address_of(program)
    stranger = client_ssl_context(certificates.authority)
    with pytest.raises(OSError, match=r"."), dial(address, stranger) as client:
        client.sendall(b"line\n")
        if client.recv(100) == b"":
            raise ConnectionResetError("the end")
    known = client_ssl_context(certificates.authority)
    known.load_cert_chain(certificates.client)
    with dial(address, known) as client:
        client.sendall(b"line\n")
        assert receive_until(client, b"\n") == b"1 line\n"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_other_addresses(start: Start, strategy: str, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    program = start("cp_server.py", strategy, f"unix:{path}")
    assert program.process.stdout.readline().decode() == f"serving unix:{path}\n"
    with pycoronet.connect(path, timeout=PATIENCE_SECONDS) as conn:
        conn.write(b"line\n")
        assert conn.readln() == b"1 line\n"
    program.interrupt()
    assert program.finish() == (0, "1 connections\n", "")
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((), 2, "usage: cp_server.py"),
        (("coroutine", ":0"), 2, "invalid choice: 'coroutine'"),
        (("callback", "8000"), 1, "cp_server: '8000' is no address"),
        (("callback", ":0", "--tls", "none", "none"), 1, "cannot read the certificate"),
    ],
)
def test_a_wrong_command_line(start: Start, arguments: Any, status: int, said: str) -> None:
    code, out, err = start("cp_server.py", *arguments).finish()
    assert (code, out) == (status, "")
    assert said in err
    if status == 1:
        assert err.count("\n") == 1


def test_a_port_in_use(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        code, out, err = start("cp_server.py", "callback", f"127.0.0.1:{port}").finish()
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"127.0.0.1:{port}: the address is in use" in err
