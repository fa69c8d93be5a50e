"""Programs of examples/ as processes, ended by their pid whatever a test does."""

from __future__ import annotations

import importlib.util
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"

# Far more than anything here takes; it only keeps a failing test from hanging.
PATIENCE_SECONDS = 30


class PythonProcess:
    """A running interpreter, whose warnings are errors."""

    def __init__(self, *arguments: object, **options: Any) -> None:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        command = [sys.executable, "-X", "dev", "-W", "error"]
        self.process = subprocess.Popen([*command, *map(str, arguments)], **options)

    def read_line(self) -> str:
        """Return the next line that it writes to stderr."""
        readable, _, _ = select.select([self.process.stderr], [], [], PATIENCE_SECONDS)
        assert readable, "it has not said what it is expected to say"
        return self.process.stderr.readline().decode().strip()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def finish(self) -> tuple[int, str, str]:
        """Wait until it ends; return its exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, (out or b"").decode(), (err or b"").decode()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_SECONDS)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


class Program(PythonProcess):
    """A running example."""

    def __init__(self, name: str, *arguments: object, **options: Any) -> None:
        super().__init__(EXAMPLES / name, *arguments, **options)


class Command(PythonProcess):
    """A running `python -m pycoronet`."""

    def __init__(self, *arguments: object, **options: Any) -> None:
        super().__init__("-m", "pycoronet", *arguments, **options)

    def ports(self) -> list[int]:
        """Return the ports of 127.0.0.1 that it serves, once it does."""
        line = self.read_line()
        assert line.startswith("Serving "), line + "\n" + self.finish()[2]
        return [int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", line)]


class WebServer(Program):
    """A running cnhttpd, on a free port of 127.0.0.1."""

    def __init__(self, root: Path, *arguments: object, **options: Any) -> None:
        arguments = ("-b", "127.0.0.1", "-p", 0, "-r", root, *arguments)
        super().__init__("cnhttpd.py", *arguments, **options)
        self.port = int(re.search(r":(\d+)/$", self.read_line())[1])

    def url(self, target: str) -> str:
        return f"http://127.0.0.1:{self.port}{target}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_SECONDS)

    def exchange(self, request: bytes) -> bytes:
        """Send bytes, say that no more will come, and return all that comes back."""
        with self.connect() as conn:
            conn.sendall(request)
            conn.shutdown(socket.SHUT_WR)
            return read_all(conn)

    def get(self, target: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """Return the status, the headers and the body of a reply to one request."""
        request = f"{method} {target} HTTP/1.1\r\nConnection: close\r\n\r\n"
        return parse_reply(self.exchange(request.encode("latin-1")))


def read_all(conn: socket.socket) -> bytes:
    data = b""
    while block := conn.recv(65536):
        data += block
    return data


def parse_reply(reply: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = reply.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body


@pytest.fixture
def start() -> Iterator[Callable[..., Program]]:
    """Return a function that starts an example and has it ended after the test."""
    yield from _starter(Program)


@pytest.fixture
def start_command() -> Iterator[Callable[..., Command]]:
    """Return a function that starts `python -m pycoronet` and has it ended after the test."""
    yield from _starter(Command)


def _starter(kind: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    programs: list[PythonProcess] = []
    watchdogs: list[threading.Timer] = []

    def start_program(*arguments: object, **options: Any) -> Any:
        program = kind(*arguments, **options)
        programs.append(program)
        # A test that waits in vain for what the program prints sees it end instead.
        watchdog = threading.Timer(PATIENCE_SECONDS, program.process.kill)
        watchdog.daemon = True
        watchdog.start()
        watchdogs.append(watchdog)
        return program

    yield start_program
    for watchdog in watchdogs:
        watchdog.cancel()
    for program in programs:
        program.kill()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., WebServer]]:
    """Return a function that starts cnhttpd over the test's folder."""
    servers: list[WebServer] = []

    def start_web_server(*arguments: object, **options: Any) -> WebServer:
        servers.append(WebServer(tmp_path, *arguments, **options))
        return servers[-1]

    yield start_web_server
    for server in servers:
        server.kill()


@pytest.fixture
def server(start_server: Callable[..., WebServer]) -> WebServer:
    """Return a cnhttpd over the test's folder."""
    return start_server()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """Return a cnhttpd over an empty folder, for all tests of a file that need no more."""
    server = WebServer(tmp_path_factory.mktemp("root"))
    yield server
    server.kill()


@pytest.fixture
def load_example() -> Iterator[Callable[[str], ModuleType]]:
    """Return a function that loads an example afresh as a module."""
    handler = signal.getsignal(signal.SIGINT)
    names = []

    def load(name: str) -> ModuleType:
        names.append(f"example_{name}")
        spec = importlib.util.spec_from_file_location(names[-1], EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[names[-1]] = module  # where dataclasses look for annotations
        spec.loader.exec_module(module)
        return module

    yield load
    signal.signal(signal.SIGINT, handler)
    for name in names:
        sys.modules.pop(name, None)
