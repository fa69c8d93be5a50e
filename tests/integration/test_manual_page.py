"""The manual page's example program serves, in a process of its own."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("manual_page_program.py")
TIMEOUT = 30.0  # a failing test ends, too


class Server:
    """The program, running."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-W", "error", str(PROGRAM), "-p", "0", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        host, _, port = self.process.stdout.readline().partition(" ")
        self.address = (host, int(port))

    def connect(self) -> socket.socket:
        """Return a socket that is connected to it."""
        return socket.create_connection(self.address, timeout=TIMEOUT)

    def interrupt(self) -> tuple[int, str, str]:
        """Send SIGINT; return exit code, output and errors."""
        self.process.send_signal(signal.SIGINT)
        output, errors = self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode, output, errors

    def kill(self) -> None:
        """End it, if it has not ended."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def server() -> Iterator[Server]:
    """Run the program and end it."""
    running = Server()
    yield running
    running.kill()


def read_response(sock: socket.socket) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Return status line, headers and body of one response."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        assert piece, data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = dict(line.split(b": ", 1) for line in lines)
    while len(body) < int(headers[b"Content-Length"]):
        piece = sock.recv(65536)
        assert piece
        body += piece
    return status, headers, body


def statistics(connections: int, requests: int, total: int) -> str:
    return (
        f"Connections .....: {connections}\n"
        f"Requests ........: {requests}\n"
        f"Total Bytes .....: {total}\n"
    )


def test_program_serves_and_sigint_ends_it_with_the_statistics(server: Server) -> None:
    with server.connect() as sock:
        for size in (0, 1, 1000, 8192, 8193, 100_000):
            sock.sendall(b"GET /mem-%d HTTP/1.1\r\nHost: x\r\n\r\n" % size)
            status, headers, body = read_response(sock)
            assert status == b"HTTP/1.1 200 OK"
            assert headers[b"Connection"] == b"keep-alive"
            assert body == bytes(size)
        sock.sendall(b"GET /other HTTP/1.1\r\n\r\n")
        assert read_response(sock)[0] == b"HTTP/1.1 404 OK"
        total = 0 + 1 + 1000 + 8192 + 8193 + 100_000
        assert server.interrupt() == (0, statistics(1, 7, total), "")
        assert sock.recv(1) == b""


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /mem-5 HTTP/1.0\r\n\r\n",
        b"GET /mem-5 HTTP/1.1\r\nConnection: close\r\n\r\n",
    ],
)
def test_program_closes_when_asked(server: Server, request_: bytes) -> None:
    with server.connect() as sock:
        sock.sendall(request_)
        status, headers, body = read_response(sock)
        assert status.endswith(b"200 OK")
        assert (headers[b"Connection"], body) == (b"close", bytes(5))
        assert sock.recv(1) == b""


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /mem-5 HTTP/1.1\r\n\r\n",
        b"GET\r\n",
        b"\r\n",
        b"GET /mem-5 HTTP/1.1\r\nContent-Length: 3\r\n\r\n",
        b"GET /mem-5 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"G" * 65537,
    ],
)
def test_program_refuses_bad_requests(server: Server, request_: bytes) -> None:
    with server.connect() as sock:
        sock.sendall(request_)
        with suppress(OSError):  # it may have closed already, over what it has not read: a reset
            sock.shutdown(socket.SHUT_WR)
        status, headers, _ = read_response(sock)
        assert status == b"HTTP/1.1 400 Bad request"
        assert headers[b"Connection"] == b"close"


def test_program_serves_many_at_the_same_time(server: Server) -> None:
    clients, rounds, size = 20, 10, 50_000
    failures: list[BaseException] = []
    # All are connected before the first asks: none is served alone.
    everybody = threading.Barrier(clients)

    def ask() -> None:
        try:
            with server.connect() as sock:
                everybody.wait(TIMEOUT)
                for _ in range(rounds):
                    sock.sendall(b"GET /mem-%d HTTP/1.1\r\n\r\n" % size)
                    assert read_response(sock)[2] == bytes(size)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    count = clients * rounds
    assert server.interrupt() == (0, statistics(clients, count, count * size), "")


def test_program_serves_pipelined_requests_in_order(server: Server) -> None:
    with server.connect() as sock:
        sizes = list(range(1, 30))
        sock.sendall(b"".join(b"GET /mem-%d HTTP/1.1\r\n\r\n" % size for size in sizes))
        sock.shutdown(socket.SHUT_WR)
        received = b""
        while piece := sock.recv(65536):
            received += piece
        lengths = [int(part.split(b"\r\n")[0]) for part in received.split(b"Content-Length: ")[1:]]
        assert lengths == sizes


def test_program_goes_on_after_clients_that_vanish(server: Server) -> None:
    with ExitStack() as stack:
        socks = [stack.enter_context(server.connect()) for _ in range(5)]
        for sock in socks[:4]:
            sock.sendall(b"GET /mem-10000000 HTTP/1.1\r\n\r\n")
            sock.recv(1)
            sock.close()  # with output unread: it is reset
        socks[4].sendall(b"GET /mem-7 HTTP/1.1\r\n\r\n")
        assert read_response(socks[4])[2] == bytes(7)
    code, output, errors = server.interrupt()
    assert (code, errors) == (0, "")
    assert output.startswith("Connections .....: 5\nRequests ........: 5\n")


def test_program_has_the_exit_codes_of_the_manual_page(server: Server) -> None:
    def run(*options: str) -> tuple[int, str]:
        result = subprocess.run(
            [sys.executable, str(PROGRAM), *options],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        return result.returncode, result.stderr

    code, errors = run("-h")
    assert code == 1
    assert errors.startswith("Use: ")
    code, errors = run("-p", str(server.address[1]))
    assert code == 3
    assert "in use" in errors
