"""examples/rot13/http_client.py: what it asks for, and that it prints what it gets."""

from __future__ import annotations

import random
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from conftest import PATIENCE_SECONDS, Program

PROGRAM = "rot13/http_client.py"
RESET_AT_CLOSE = struct.pack("ii", 1, 0)
RESPONSE = b"HTTP/1.0 200 OK\r\n\r\n" + random.Random(1).randbytes(1_000_000) + b"\0\n\xff"


class Server:
    """Answers one request with what it is told to."""

    def __init__(self, host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.create_server((host, 0), family=family)
        self.listener.settimeout(PATIENCE_SECONDS)
        self.port = self.listener.getsockname()[1]

    def answer(self, response: bytes, *, resets: bool = False) -> bytes:
        """Send the response to whoever comes; return the request."""
        conn, _ = self.listener.accept()
        with conn:
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += conn.recv(65536)
            conn.sendall(response)
            if resets:
                conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        return request


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[int, Future[bytes]]]]:
    """Return a function that serves one response, and gives the port and the request to come."""
    servers: list[Server] = []
    with ThreadPoolExecutor() as threads:

        def start_server(
            response: bytes, *, host: str = "127.0.0.1", **options: Any
        ) -> tuple[int, Future[bytes]]:
            servers.append(Server(host))
            return servers[-1].port, threads.submit(servers[-1].answer, response, **options)

        yield start_server
    for server in servers:
        server.listener.close()


def run(start: Callable[..., Program], *arguments: object) -> tuple[int, bytes, str]:
    process = start(PROGRAM, *arguments).process
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, out, err.decode()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_response_is_printed_byte_for_byte(start: Any, serve: Any, host: str) -> None:
    port, request = serve(RESPONSE)
    assert run(start, f"{host}:{port}") == (0, RESPONSE, "")
    assert request.result() == b"GET / HTTP/1.0\r\nHost: %s:%d\r\n\r\n" % (host.encode(), port)


def test_ipv6(start: Any, serve: Any) -> None:
    try:
        port, request = serve(b"six", host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    assert run(start, f"[::1]:{port}") == (0, b"six", "")
    assert b"\r\nHost: [::1]:%d\r\n" % port in request.result()


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/a/b.html?x=1&y=%20", b"/a/b.html?x=1&y=%20"),
        ("no/slash", b"/no/slash"),
        ("/a b\r\nX: y\u00e9", b"/a%20b%0D%0AX:%20y%C3%A9"),
    ],
)
def test_path_becomes_the_target(start: Any, serve: Any, path: str, target: bytes) -> None:
    port, request = serve(b"")
    assert run(start, f"127.0.0.1:{port}", path) == (0, b"", "")
    assert request.result().splitlines()[0] == b"GET " + target + b" HTTP/1.0"


def test_port_is_that_of_http_if_none_is_given(load_example: Any, monkeypatch: Any) -> None:
    client = load_example("rot13/http_client")
    asked: list[object] = []

    def refuse(address: object) -> None:
        asked.append(address)
        raise OSError("no")

    monkeypatch.setattr(client, "connect", refuse)
    monkeypatch.setattr("sys.argv", ["http_client.py", "host.example"])
    with pytest.raises(SystemExit, match="http_client: no"):
        client.main()
    assert asked == [("host.example", 80)]


def test_response_that_breaks_off_is_an_error_behind_what_came(start: Any, serve: Any) -> None:
    port, _ = serve(b"the beginning", resets=True)
    code, out, err = run(start, f"127.0.0.1:{port}")
    assert code == 1
    assert b"the beginning".startswith(out)  # a reset may overtake it
    assert err.startswith("http_client: ")
    assert err.count("\n") == 1


def test_server_that_is_not_there(start: Any) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        code, out, err = run(start, f"127.0.0.1:{bound.getsockname()[1]}")
    assert (code, out) == (1, b"")
    assert "refused" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [([], 2), (["a", "/", "c"], 2), ([""], 2), (["a/b"], 2), ([":80"], 2), (["127.0.0.1:x"], 1)],
)
def test_command_line_it_cannot_use_is_refused(start: Any, arguments: list[str], code: int) -> None:
    status, out, err = run(start, *arguments)
    assert (status, out) == (code, b"")
    assert "http_client" in err
    assert "Traceback" not in err


def test_reader_that_goes_away_is_no_accident(start: Any, serve: Any) -> None:
    port, _ = serve(RESPONSE[:100_000])
    program = start(PROGRAM, f"127.0.0.1:{port}", stderr=subprocess.PIPE)
    program.process.stdout.close()
    assert program.process.wait(PATIENCE_SECONDS) == 1
    err = program.process.stderr.read().decode()
    assert err == "http_client: [Errno 32] Broken pipe\n"


def test_interrupt_ends_it_quietly(start: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        program = start(PROGRAM, f"127.0.0.1:{listener.getsockname()[1]}")
        conn, _ = listener.accept()
        with conn:
            assert conn.recv(100).startswith(b"GET / ")
            program.interrupt()
            assert program.finish() == (1, "", "")
