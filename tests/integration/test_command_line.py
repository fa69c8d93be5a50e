"""`python -m pycoronet` as a program: what it serves, to whom, and how it ends."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates
from connections import receive_until

PATIENCE_SECONDS = 30

APP = """
from pycoronet import Protocol

def echo(conn, address):
    for line in conn:
        conn.write(line)

def blocking(conn, address):
    import threading
    for line in conn:
        conn.write(threading.current_thread().name.encode() + b"\\n")

class Echo(Protocol):
    def on_data(self, conn):
        conn.write(conn.take(65536))

def name(conn, address):
    who = conn.tls.getpeercert() if conn.tls else None
    conn.write(repr(who).encode())

def patient(conn, address):
    from pycoronet import sleep
    conn.write(b"begun\\n")
    while not conn.server.closing:
        sleep(0.01)
    conn.write(b"done\\n")

def broken(conn, address):
    1 / 0
"""


@pytest.fixture
def app(tmp_path: Path) -> dict[str, Any]:
    """Return the options of a command that finds a module app."""
    (tmp_path / "app.py").write_text(APP)
    return {"cwd": tmp_path}


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)


def ask(conn: socket.socket, line: bytes = b"hello\n") -> bytes:
    conn.sendall(line)
    return receive_until(conn, b"\n")


# serve.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_runs_a_handler_until_a_signal(start_command, app, number):
    command = start_command("serve", "app:echo", "--bind", "127.0.0.1:0", **app)
    (port,) = command.ports()
    with connect(port) as conn:
        assert ask(conn) == b"hello\n"
    command.process.send_signal(number)
    assert command.finish() == (0, "", "")


def test_serve_runs_a_protocol(start_command, app):
    command = start_command("serve", "app:Echo", "--bind", "127.0.0.1:0", **app)
    (port,) = command.ports()
    with connect(port) as conn:
        assert ask(conn) == b"hello\n"
    command.interrupt()
    assert command.finish() == (0, "", "")


def test_serve_listens_on_several_addresses(start_command, app, tmp_path):
    path = tmp_path / "socket"
    binds = ["--bind", "127.0.0.1:0", "--bind", "127.0.0.1:0", "--bind", f"unix:{path}"]
    command = start_command("serve", "app:echo", *binds, **app)
    ports = command.ports()
    assert len(set(ports)) == 2
    for port in ports:
        with connect(port) as conn:
            assert ask(conn) == b"hello\n"
    with socket.socket(socket.AF_UNIX) as conn:
        conn.settimeout(PATIENCE_SECONDS)
        conn.connect(os.path.relpath(path))
        assert ask(conn) == b"hello\n"
    command.interrupt()
    assert command.finish() == (0, "", "")
    assert not path.exists()


def test_serve_asks_clients_for_certificates(
    start_command, app, certificates: Certificates, tmp_path
):
    options = ["--tls-cert", certificates.server, "--tls-verify", "required"]
    options += ["--tls-ca", certificates.authority]
    command = start_command("serve", "app:name", "--bind", "127.0.0.1:0", *options, **app)
    (port,) = command.ports()
    context = certificates.client_context()
    context.load_cert_chain(certificates.client)
    with connect(port) as plain, context.wrap_socket(plain, server_hostname="localhost") as conn:
        assert b"commonName" in receive_until(conn, b"}")
    stranger = certificates.client_context()
    with connect(port) as plain, pytest.raises((ssl.SSLError, ConnectionError)):  # noqa: SIM117
        with stranger.wrap_socket(plain, server_hostname="localhost") as conn:
            conn.recv(1)
    command.interrupt()
    assert command.finish() == (0, "", "")


def test_serve_keeps_its_limits(start_command, app):
    limits = ["--max-per-address", 1]
    command = start_command("serve", "app:echo", "--bind", "127.0.0.1:0", *limits, **app)
    (port,) = command.ports()
    with connect(port) as first, connect(port) as second:
        assert ask(first) == b"hello\n"
        with pytest.raises(ConnectionError):
            second.sendall(b"x")
            if second.recv(1) == b"":
                raise ConnectionResetError
    command.interrupt()
    assert command.finish()[0] == 0


def test_serve_reports_what_a_handler_raises(start_command, app):
    command = start_command("serve", "app:broken", "--bind", "127.0.0.1:0", **app)
    (port,) = command.ports()
    with connect(port) as conn:
        assert conn.recv(1) == b""
    command.interrupt()
    code, out, err = command.finish()
    assert (code, out, err.count("ZeroDivisionError")) == (0, "", 1)


def test_serve_finishes_what_has_begun(start_command, app):
    command = start_command("serve", "app:patient", "--bind", "127.0.0.1:0", **app)
    (port,) = command.ports()
    with connect(port) as conn:
        assert receive_until(conn, b"\n") == b"begun\n"
        command.process.send_signal(signal.SIGTERM)
        assert receive_until(conn, b"\n") == b"done\n"
        assert conn.recv(1) == b""
    assert command.finish() == (0, "", "")


def test_serve_second_signal_ends_at_once(start_command, app):
    command = start_command("serve", "app:echo", "--bind", "127.0.0.1:0", **app)
    (port,) = command.ports()
    with connect(port) as conn:
        assert ask(conn) == b"hello\n"
        command.process.send_signal(signal.SIGTERM)
        refused = False
        while not refused:  # until the first signal was seen
            try:
                connect(port).close()
            except OSError:
                refused = True
        command.process.send_signal(signal.SIGTERM)
        assert command.finish()[0] == 0


def test_serve_port_in_use_is_one_line(start_command, app):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = start_command("serve", "app:echo", "--bind", f"127.0.0.1:{port}", **app)
        code, out, err = command.finish()
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"pycoronet serve: cannot listen on 127.0.0.1:{port}: the address is in")


def test_serve_certificate_that_is_not_there_is_one_line(start_command, app):
    options = ["--bind", "127.0.0.1:0", "--tls-cert", "nothing.pem"]
    code, out, err = start_command("serve", "app:echo", *options, **app).finish()
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "nothing.pem" in err


# Processes.


def call(port: int) -> bytes:
    """Return what the handler says to a new client."""
    with connect(port) as conn:
        answer = b""
        while block := conn.recv(1000):
            answer += block
    return answer


def test_serve_processes_load_new_code_at_a_reload(start_command, tmp_path):
    module = tmp_path / "app.py"
    module.write_text("def handler(conn, address):\n    conn.write(b'old')\n")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    options = ["--bind", "127.0.0.1:0", "--processes", 2]
    command = start_command("serve", "app:handler", *options, cwd=tmp_path, env=environment)
    (port,) = command.ports()
    assert [call(port) for _ in range(10)] == [b"old"] * 10
    module.write_text("def handler(conn, address):\n    conn.write(b'new')\n")
    command.process.send_signal(signal.SIGHUP)
    while (answer := call(port)) != b"new":  # nobody is refused meanwhile
        assert answer == b"old"
    command.process.send_signal(signal.SIGTERM)
    assert command.finish()[:2] == (0, "")


def test_serve_processes_need_a_handler_that_can_be_imported(start_command, app):
    options = ["--bind", "127.0.0.1:0", "--processes", 2]
    code, out, err = start_command("serve", "app:nothing", *options, **app).finish()
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "has no 'nothing'" in err


def test_httpd_processes_serve_files(start_command, site):
    command = start_command("httpd", site, "--bind", "127.0.0.1:0", "--processes", 2)
    (port,) = command.ports()
    for _ in range(10):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
        client.request("GET", "/page.html")
        assert client.getresponse().read() == b"<p>page</p>"
        client.close()
    command.interrupt()
    assert command.finish()[:2] == (0, "")


# httpd.


@pytest.fixture
def site(tmp_path: Path) -> Path:
    pytest.importorskip("h11", reason="h11, the parser of pycoronet[http], is not installed")
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "page.html").write_text("<p>page</p>")
    (folder / "large").write_bytes(os.urandom(3_000_000))
    return folder


@pytest.fixture
def web(start_command: Callable[..., Any], site: Path) -> Iterator[int]:
    """Return the port of a server of the site."""
    command = start_command("httpd", site, "--bind", "127.0.0.1:0")
    (port,) = command.ports()
    yield port
    command.interrupt()
    assert command.finish() == (0, "", "")


def test_httpd_serves_files_on_one_connection(web, site):
    client = http.client.HTTPConnection("127.0.0.1", web, timeout=PATIENCE_SECONDS)
    for target, status, body in [
        ("/page.html", 200, b"<p>page</p>"),
        ("/large", 200, (site / "large").read_bytes()),
        ("/nothing", 404, b"404 Not Found\n"),
        ("/..%2fsecret", 404, b"404 Not Found\n"),
    ]:
        client.request("GET", target)
        response = client.getresponse()
        assert (response.status, response.read() == body) == (status, True)
    client.request("GET", "/large", headers={"Range": "bytes=1000000-1999999"})
    response = client.getresponse()
    assert response.read() == (site / "large").read_bytes()[1_000_000:2_000_000]
    client.close()


def test_httpd_client_that_leaves_in_a_file_ends_nobody_else(web, site):
    with connect(web) as leaving:
        leaving.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        assert leaving.recv(10).startswith(b"HTTP/1.1 2")
    with connect(web) as staying:
        staying.sendall(b"GET /page.html HTTP/1.0\r\n\r\n")
        assert staying.recv(10).startswith(b"HTTP/1.1 2")


def test_httpd_serves_files_over_tls(start_command, site, certificates: Certificates):
    options = ["--bind", "127.0.0.1:0", "--tls-cert", certificates.server]
    command = start_command("httpd", site, *options)
    (port,) = command.ports()
    client = http.client.HTTPSConnection(
        "localhost", port, timeout=PATIENCE_SECONDS, context=certificates.client_context()
    )
    for target in ("/large", "/page.html"):
        client.request("GET", target)
        assert client.getresponse().read() == (site / target[1:]).read_bytes()
    client.close()
    command.interrupt()
    assert command.finish() == (0, "", "")


def test_httpd_drain_ends_idle_connections_and_finishes_files(start_command, site):
    command = start_command("httpd", site, "--bind", "127.0.0.1:0")
    (port,) = command.ports()
    with connect(port) as idle, connect(port) as busy:
        idle.sendall(b"GET /page.html HTTP/1.1\r\nHost: a\r\n\r\n")
        assert receive_until(idle, b"<p>page</p>").startswith(b"HTTP/1.1 200")
        busy.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        received = busy.recv(1000)
        command.process.send_signal(signal.SIGTERM)
        assert idle.recv(1) == b""
        while block := busy.recv(65536):
            received += block
    assert received.endswith((site / "large").read_bytes())
    assert command.finish() == (0, "", "")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_httpd_curl_gets_what_it_asks_for(web, site, tmp_path):
    def run(*arguments: object) -> str:
        # A sanitizer that is preloaded for our sake is none of the other program's business.
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        return subprocess.run(
            ["curl", "-sS", "--noproxy", "*", *map(str, arguments)],
            check=True,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        ).stdout

    url = f"http://127.0.0.1:{web}"
    assert run(f"{url}/page.html") == "<p>page</p>"
    assert run("--http1.0", f"{url}/page.html") == "<p>page</p>"
    assert run("-r", "3-6", f"{url}/page.html") == "page"
    assert "Content-Length: 11\r\n" not in run("-I", f"{url}/nothing")
    assert 'href="page.html"' in run(f"{url}/")
    status = ["-o", os.devnull, "-w", "%{http_code} %{num_connects}\\n"]
    both = run(*status, f"{url}/page.html", *status[:2], f"{url}/nothing")
    assert both.splitlines() == ["200 1", "404 0"]
    assert run(*status, "-d", "x=y", f"{url}/page.html").startswith("405")
    assert run(*status, "-T", site / "large", f"{url}/large").startswith("413")
    assert run(*status, "--path-as-is", f"{url}/../page.html").startswith("404")
    copy, tag = tmp_path / "copy", tmp_path / "tag"
    saving = ["--etag-save", tag, "--etag-compare", tag, "-o", copy, "-w", "%{http_code}"]
    assert [run(*saving, f"{url}/large") for _ in range(2)] == ["200", "304"]
    assert copy.read_bytes() == (site / "large").read_bytes()
    shortened = tmp_path / "shortened"
    shortened.write_bytes(copy.read_bytes()[:1_234_567])
    run("-C", "-", "-o", shortened, f"{url}/large")
    assert shortened.read_bytes() == copy.read_bytes()
