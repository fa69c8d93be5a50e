"""Server with TLS in each strategy: whom it lets in, and what others do not notice of it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates

import pycoronet
from pycoronet import (
    CertificateFiles,
    Server,
    client_ssl_context,
    connect,
    server_ssl_context,
    sleep,
    spawn,
)

HOST = "127.0.0.1"
PATIENCE_SECONDS = 30

Serve = Callable[..., Server]


def who_in_lines(conn: Any, address: Any) -> None:
    """Answer each line with the client's name, as a task or in a thread."""
    while conn.readln():
        conn.write(name_of(conn))


def who_at_once(conn: Any, address: Any) -> None:
    """Answer each line with the client's name, as a callback."""
    while conn.take_line():
        conn.write(name_of(conn))


def name_of(conn: Any) -> bytes:
    certificate = conn.tls.getpeercert()
    return b"%s\n" % (
        dict(certificate["subject"][0])["commonName"].encode() if certificate else b"-"
    )


@pytest.fixture(params=["coroutine", "callback", "threadpool"])
def serve(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """Return a function that starts a server, which is closed in the end."""
    made: list[Server] = []

    def start(**options: Any) -> Server:
        handler = who_at_once if request.param == "callback" else who_in_lines
        server = Server((HOST, 0), handler, strategy=request.param, **options)
        made.append(server)
        server.start()
        return server

    yield start
    for server in made:
        server.close()


def ask(server: Server, context: ssl.SSLContext) -> str:
    """Return what the server calls a client, or why there was no answer."""
    try:
        with connect(
            server.addresses[0], tls=context, server_hostname="localhost", timeout=PATIENCE_SECONDS
        ) as conn:
            conn.write(b"who am I?\n")
            return str(conn.readln().strip().decode())
    except OSError as error:
        return type(error).__name__


def make_client(certificates: Certificates, shown: Path | None) -> ssl.SSLContext:
    context = client_ssl_context(certificates.authority)
    if shown is not None:
        context.load_cert_chain(shown)
    return context


@pytest.mark.parametrize(
    ("verify", "nameless", "known", "unknown"),
    [
        ("none", "-", "-", "-"),
        ("optional", "-", "client", None),
        ("required", None, "client", None),
    ],
)
def test_clients_are_verified_as_the_mode_says(
    serve: Serve,
    certificates: Certificates,
    tmp_path: Path,
    verify: str,
    nameless: str | None,
    known: str,
    unknown: str | None,
) -> None:
    authorities = {} if verify == "none" else {"cafile": certificates.authority}
    server = serve(tls=CertificateFiles(certificates.server, verify=verify, **authorities))
    strangers = Certificates(tmp_path)
    clients = [(None, nameless), (certificates.client, known), (strangers.client, unknown)]
    refused = 0
    for shown, answer in clients:
        found = ask(server, make_client(certificates, shown))
        if answer is None:
            refused += 1
            assert found in ("SSLError", "SSLEOFError", "ConnectionResetError", "BrokenPipeError")
        else:
            assert found == answer
    server.stop()
    assert server.stats.errors["tls"] == refused
    assert server.stats.errors["handler"] == 0


def test_what_tls_may_be(serve: Serve, certificates: Certificates) -> None:
    folder = certificates.folder
    settings = [
        (folder / "server.crt", folder / "server.key"),
        (str(certificates.server), None),
        CertificateFiles(folder / "server.crt", folder / "server.key"),
        server_ssl_context(certificates.server),
        certificates.server_context(),
    ]
    for tls in settings:
        assert ask(serve(tls=tls), make_client(certificates, None)) == "-"


def test_a_client_does_not_believe_another_server(serve: Serve, certificates: Certificates) -> None:
    server = serve(tls=(certificates.elsewhere, None))
    assert ask(server, make_client(certificates, None)) == "SSLCertVerificationError"


def test_handshakes_hold_up_nobody(serve: Serve, certificates: Certificates) -> None:
    server = serve(tls=(certificates.server, None), handshake_timeout=None)
    silent = [socket.create_connection(server.addresses[0], PATIENCE_SECONDS) for _ in range(40)]
    silent[0].sendall(b"\x16\x03\x01")  # the beginning of one
    silent[1].sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert ask(server, make_client(certificates, None)) == "-"
    with pycoronet.timeout(PATIENCE_SECONDS):
        while server.stats.errors["tls"] < 1:
            sleep(0.01)
    for client in silent:
        client.close()


def test_clients_side_by_side(serve: Serve, certificates: Certificates) -> None:
    server = serve(tls=(certificates.server, None))
    context = make_client(certificates, None)
    clients = [spawn(ask, server, context) for _ in range(30)]
    assert [client.get() for client in clients] == ["-"] * 30
    assert server.stop() == 0
    assert server.stats.connections_served == 30


def name_served(path: Path, certificates: Certificates) -> str:
    """Return whose certificate a server at a Unix socket shows."""
    context = client_ssl_context(certificates.authority)
    context.check_hostname = False
    with connect(path, tls=context, timeout=PATIENCE_SECONDS) as conn:
        assert conn.tls is not None
        return str(dict(conn.tls.getpeercert()["subject"][0])["commonName"])


def test_a_reload_reads_renewed_certificates(certificates: Certificates, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def handler(conn, address):\n    conn.readln()\n")
    files = [tmp_path / "server.crt", tmp_path / "server.key"]
    for path in files:
        shutil.copy(certificates.folder / path.name, path)
    command = [sys.executable, "-m", "pycoronet", "serve", "app:handler", "--processes", "1"]
    command += ["--bind", "unix:./socket", "--tls-cert", "server.crt", "--tls-key", "server.key"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(PATIENCE_SECONDS)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        with subprocess.Popen(
            command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE
        ) as service:
            try:
                assert supervisor.recv(100).startswith(b"READY=1")
                assert name_served(tmp_path / "socket", certificates) == "server"
                # First the file alone, which the old key does not open; then the key as well.
                for path, name in zip(files, ["server", "elsewhere"], strict=True):
                    shutil.copy(certificates.folder / f"elsewhere{path.suffix}", path)
                    service.send_signal(signal.SIGHUP)
                    assert supervisor.recv(100).startswith(b"RELOADING=1")
                    assert supervisor.recv(100).startswith(b"READY=1")
                    # The old worker may accept until it hears that it is to go.
                    with pycoronet.timeout(PATIENCE_SECONDS):
                        while name_served(tmp_path / "socket", certificates) != name:
                            sleep(0.01)
                service.send_signal(signal.SIGTERM)
                _, said = service.communicate(timeout=PATIENCE_SECONDS)
            finally:
                service.kill()
    assert service.returncode == 0
    assert b"does not belong to the certificate" in said


@pytest.mark.parametrize("strategy", ["coroutine", "callback", "threadpool"])
def test_bad_files_are_one_clear_line_and_nothing_listens(
    certificates: Certificates, tmp_path: Path, strategy: Any
) -> None:
    with socket.create_server((HOST, 0)) as probe:
        address = probe.getsockname()
    other = tmp_path / "none.pem"
    server = Server(address, who_in_lines, strategy=strategy, tls=(other, None))
    with pytest.raises(FileNotFoundError, match="cannot read the certificate: ") as caught:
        server.listen()
    assert str(other) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConnectionRefusedError):
        connect(address, timeout=PATIENCE_SECONDS)
    server.tls = (certificates.folder / "server.crt", certificates.folder / "client.key")
    with pytest.raises(ValueError, match="does not belong to the certificate"):
        server.listen()
    server.tls = (certificates.server, None)  # it can be mended, and goes on from there
    server.start()
    server.close()
