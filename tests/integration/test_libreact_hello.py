"""examples/libreact_hello.py: a keep-alive server on libreact's calls, stopped by SIGINT."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parent.parent.parent / "examples" / "libreact_hello.py"
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\nContent-Type: text/plain\r\n"
    b"Connection: keep-alive\r\nKeep-Alive: timeout=2\r\n\r\nHello World!\r\n"
)


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-X", "dev", PROGRAM, *words], stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Return a running server's process and port."""
    with start("0") as process:
        assert process.stderr is not None
        found = re.search(r"http://127.0.0.1:(\d+)/", process.stderr.readline())
        assert found is not None
        yield process, int(found[1])
        process.kill()


def dial(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 10)


def read_exactly(peer: socket.socket, size: int) -> bytes:
    with peer.makefile("rb") as file:
        return file.read(size)


def test_requests_on_one_connection(server: tuple[subprocess.Popen[str], int]) -> None:
    with dial(server[1]) as peer:
        for _ in range(3):
            peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_exactly(peer, len(ANSWER)) == ANSWER


def test_requests_in_pieces_and_pipelined(server: tuple[subprocess.Popen[str], int]) -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    with dial(server[1]) as peer, dial(server[1]) as other:
        for byte in request[:-1]:
            peer.sendall(bytes([byte]))
        other.sendall(request * 5)
        assert read_exactly(other, 5 * len(ANSWER)) == ANSWER * 5
        peer.sendall(request[-1:] + request)
        assert read_exactly(peer, 2 * len(ANSWER)) == ANSWER * 2


def test_connection_close_is_followed(server: tuple[subprocess.Popen[str], int]) -> None:
    with dial(server[1]) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert read_exactly(peer, 1000) == ANSWER


def test_a_head_without_end_is_cut_off(server: tuple[subprocess.Popen[str], int]) -> None:
    with dial(server[1]) as peer, pytest.raises(ConnectionError):
        for _ in range(1000):
            peer.sendall(b"x" * 1000)
        peer.recv(1)
        raise ConnectionResetError  # it was closed with an end of file


def test_interrupt_stops_it_and_closes_every_client(
    server: tuple[subprocess.Popen[str], int],
) -> None:
    process, port = server
    with dial(port) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert read_exactly(peer, len(ANSWER)) == ANSWER
        process.send_signal(signal.SIGINT)
        assert peer.recv(1) == b""
    assert process.wait(20) == 0
    assert process.stderr is not None
    assert process.stderr.read() == "stopped\n"


def test_wrong_usage_and_a_port_in_use(server: tuple[subprocess.Popen[str], int]) -> None:
    for words, status, message in (
        (["x"], 1, "usage"),
        (["1", "2"], 1, "usage"),
        ([str(server[1])], 2, "in use"),
    ):
        with start(*words) as process:
            _, text = process.communicate(timeout=20)
        assert process.returncode == status
        assert message in text
