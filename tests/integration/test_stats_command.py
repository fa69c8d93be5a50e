"""`python -m pycoronet stats` as a program: plain, in a terminal, and against bad servers."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from connections import receive_until

from pycoronet.server._metrics import render
from pycoronet.server._stats import Stats

# Far more than anything here takes; it only keeps a failing test from hanging.
PATIENCE_SECONDS = 30

# Text, line feeds, and what moves the cursor up, erases a line's rest and all that follows.
TERMINAL_TOKEN = re.compile(r"([^\x1b\n]+)|(\n)|\x1b\[(\d*)([FKJ])")

Answer = Callable[[int], bytes]
RunStats = Callable[..., tuple[int, str, str]]


class PageServer:
    """Answers each connection with what a function says to its number, then closes it."""

    def __init__(self, answer: Answer, listener: socket.socket) -> None:
        self._answer = answer
        self._listener = listener
        self._is_closing = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def address(self) -> str:
        name = self._listener.getsockname()
        return f"unix:{name}" if isinstance(name, str) else f"127.0.0.1:{name[1]}"

    def _serve(self) -> None:
        number = 0
        while not self._is_closing:
            conn, _ = self._listener.accept()
            conn.settimeout(PATIENCE_SECONDS)
            with conn, suppress(ConnectionError):  # it may have been interrupted meanwhile
                if conn.recv(4096):
                    conn.sendall(self._answer(number))
                    number += 1

    def close(self) -> None:
        self._is_closing = True
        with socket.socket(self._listener.family) as last:
            last.connect(self._listener.getsockname())
        self._thread.join()
        self._listener.close()


@pytest.fixture
def page_server() -> Iterator[Callable[..., PageServer]]:
    """Return a maker of servers, which are closed in the end."""
    made: list[PageServer] = []

    def make(answer: Answer, listener: socket.socket | None = None) -> PageServer:
        made.append(PageServer(answer, listener or socket.create_server(("127.0.0.1", 0))))
        return made[-1]

    yield make
    for server in made:
        server.close()


def page(number: int) -> bytes:
    """Return the answer to the request of that number: 1,000 more connections each time."""
    stats = Stats()
    stats.created = 1_000_000.0
    stats.accepted = 1000 * (number + 1)
    date = b"Date: Mon, 12 Jan 1970 14:20:00 GMT\r\n"  # so many seconds, and 2000 more
    return b"HTTP/1.1 200 OK\r\n" + date + b"Connection: close\r\n\r\n" + render(stats)


@pytest.fixture
def run_stats(start_command: Callable[..., Any]) -> RunStats:
    """Return a function that runs the command, and gives its exit status, stdout and stderr."""
    return lambda *arguments: start_command("stats", *arguments).finish()


def accepted_in(text: str) -> list[list[str]]:
    """Return the columns of "connections accepted", table after table."""
    title = "connections accepted"
    return [
        line.removeprefix(title).split() for line in text.splitlines() if line.startswith(title)
    ]


def test_stats_once_prints_one_plain_table(
    run_stats: RunStats, page_server: Callable[..., PageServer]
) -> None:
    server = page_server(page)
    status, out, err = run_stats(server.address, "--once")
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == f"{server.address}  up 0:33:20"
    assert accepted_in(out) == [["1,000", "0.5"]]
    assert "\x1b" not in out


def test_stats_of_a_unix_socket(
    run_stats: RunStats, page_server: Callable[..., PageServer], tmp_path: Path
) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "metrics"))
    listener.listen()
    status, out, err = run_stats(page_server(page, listener).address, "--once")
    assert (status, err) == (0, "")
    assert accepted_in(out) == [["1,000", "0.5"]]


def test_stats_into_a_pipe_is_plain_and_ends_when_nobody_reads(
    page_server: Callable[..., PageServer],
) -> None:
    title = page_server(page).address
    command = [sys.executable, "-X", "dev", "-m", "pycoronet", "stats", title]
    with subprocess.Popen(
        [*command, "--interval", "0.05"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = []
        while len(accepted_in("".join(lines))) < 3:
            lines.append(process.stdout.readline())
        process.stdout.close()
        assert process.wait(PATIENCE_SECONDS) == 0
        assert process.stderr.read() == ""
    text = "".join(lines)
    assert text.count(f"\n\n{title}") == 2  # tables stand apart
    assert "\x1b" not in text
    assert [row[0] for row in accepted_in(text)] == ["1,000", "2,000", "3,000"]
    assert [len(row) for row in accepted_in(text)] == [2, 3, 3]  # the first has no rate


class Terminal:
    """The command in a terminal of a given size."""

    def __init__(self, columns: int, lines: int, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))
        environment = {
            name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")
        }
        command = [sys.executable, "-X", "dev", "-W", "error", "-m", "pycoronet", "stats"]
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=subprocess.PIPE,
            env=environment,
        )
        os.close(slave)
        self.output = ""

    def read_until(self, text: str) -> None:
        while text not in self.output:
            data = os.read(self._master, 65536)
            assert data, self.output
            self.output += data.decode().replace("\r\n", "\n")

    def interrupt(self) -> tuple[int, str]:
        """End it as Ctrl-C does; return its exit status and stderr."""
        self.process.send_signal(signal.SIGINT)
        _, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, err.decode()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        os.close(self._master)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Return a maker of terminals, closed in the end."""
    made: list[Terminal] = []

    def make(*arguments: object) -> Terminal:
        made.append(Terminal(*arguments))
        return made[-1]

    yield make
    for one in made:
        one.close()


def show(output: str, lines: int) -> list[str]:
    """Return what a terminal of so many lines shows after some output."""
    screen = [""] * lines
    row = column = 0
    for text, newline, count, command in TERMINAL_TOKEN.findall(output):
        if text:
            screen[row] = screen[row][:column] + text + screen[row][column + len(text) :]
            column += len(text)
        elif newline or command == "F":
            row += 1 if newline else -int(count)
            column = 0
            assert 0 <= row < lines, "off the screen"
        else:
            screen[row] = screen[row][:column]
            if command == "J":
                screen[row + 1 :] = [""] * (lines - row - 1)
    return screen


def test_stats_in_a_terminal_are_replaced_in_place(
    page_server: Callable[..., PageServer], terminal: Callable[..., Terminal]
) -> None:
    shown = terminal(80, 40, page_server(page).address, "--interval", "0.05")
    shown.read_until("4,000")
    shown.read_until("5,000")
    assert shown.interrupt() == (0, "")
    screen = show(shown.output[: shown.output.index("5,000")], 40)
    assert len([line for line in screen if line.startswith("connections accepted")]) == 1


def test_stats_in_a_small_terminal_do_not_roll(
    page_server: Callable[..., PageServer], terminal: Callable[..., Terminal]
) -> None:
    shown = terminal(36, 8, page_server(page).address, "--interval", "0.05")
    shown.read_until("4,000")
    assert shown.interrupt() == (0, "")
    complete = shown.output[: shown.output.rindex("\x1b[J")]
    screen = show(complete, 8)
    assert screen[0].endswith("up 0:33:20")
    assert max(map(len, screen)) <= 36
    assert "per second" not in complete


def test_stats_go_on_after_a_server_was_away(
    page_server: Callable[..., PageServer], terminal: Callable[..., Terminal]
) -> None:
    server = page_server(lambda number: b"" if number == 2 else page(number))
    shown = terminal(80, 40, server.address, "--interval", "0.05")
    shown.read_until("trying again")
    shown.read_until("5,000")
    assert shown.interrupt() == (0, "")
    screen = show(shown.output[: shown.output.rindex("\x1b[J")], 40)
    assert screen[1] == ""


BAD_ANSWERS = {
    "silence": (b"", "closed connection without response"),
    "another protocol": (b"220 mail.example\r\n", "no HTTP is spoken there"),
    "no page": (b"HTTP/1.1 404 Not\x1b[2J Found\r\n\r\n", "status 404"),
    "another page": (b"HTTP/1.1 200 OK\r\n\r\n<html>", "no statistics of pycoronet"),
    "a broken date": (page(0).replace(b"Jan", b"Foo"), "Foo"),
    "a broken page": (page(0)[:-300].replace(b"1000000.0", b"1.0.0"), "1.0.0"),
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_stats_of_what_is_no_server_of_ours_are_refused_in_one_line(
    run_stats: RunStats, page_server: Callable[..., PageServer], case: str
) -> None:
    answer, message = BAD_ANSWERS[case]
    server = page_server(lambda number: answer)
    status, out, err = run_stats(server.address)
    assert (status, out) == (1, "")
    assert err.startswith(f"pycoronet stats: {server.address}: ")
    assert message in err
    assert err.count("\n") == 1
    assert err[:-1].isprintable()


def test_stats_of_nobody_are_refused_in_one_line(run_stats: RunStats, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    assert run_stats(address) == (1, "", f"pycoronet stats: {address}: Connection refused\n")
    address = f"unix:{tmp_path / 'none'}"
    assert run_stats(address) == (1, "", f"pycoronet stats: {address}: No such file or directory\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["9100"], "HOST:PORT"),
        (["fd:3"], "cannot be connected to"),
        (["[::1]:9100", "--interval", "0"], "from 0.05"),
        (["[::1]:9100", "--interval", "nan"], "from 0.05"),
        (["[::1]:9100", "--interval", "x"], "from 0.05"),
        ([], "ADDRESS"),
    ],
)
def test_stats_arguments_are_checked(
    run_stats: RunStats, arguments: list[str], message: str
) -> None:
    status, out, err = run_stats(*arguments)
    assert (status, out) == (2, "")
    assert message in err.splitlines()[-1]


def test_stats_help_explains_the_columns(run_stats: RunStats) -> None:
    status, out, err = run_stats("--help")
    assert (status, err) == (0, "")
    for word in ("value", "per second", "mean", "--interval", "--once", "--metrics"):
        assert word in out


# --- Of a server ------------------------------------------------------------------------------


APP = """
def echo(conn, address):
    for line in conn:
        conn.write(line)
"""


def call(path: Path) -> socket.socket:
    """Connect to a Unix socket."""
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(PATIENCE_SECONDS)
    peer.connect(str(path))
    return peer


def test_stats_show_what_a_server_counts(
    run_stats: RunStats, start_command: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(APP)
    where = ["--bind", f"unix:{tmp_path / 'echo'}", "--metrics", f"unix:{tmp_path / 'metrics'}"]
    server = start_command("serve", "app:echo", *where, cwd=tmp_path)
    assert server.read_line().startswith("Serving app:echo ")
    with call(tmp_path / "echo") as peer:
        peer.sendall(b"hello\n")
        assert receive_until(peer, b"\n") == b"hello\n"
        status, out, err = run_stats(f"unix:{tmp_path / 'metrics'}", "--once")
    assert (status, err) == (0, "")
    shown = {line[:22].rstrip(): line[22:].split()[0] for line in out.splitlines()[3:]}
    assert shown["connections open"] == "1"
    assert shown["connections accepted"] == "1"
    assert shown["received bytes"] == shown["sent bytes"] == "6"
    server.interrupt()
    assert server.finish() == (0, "", "")
    assert not (tmp_path / "metrics").exists()


def test_metrics_without_the_parser_are_refused_in_one_line(
    start_command: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "h11.py").write_text("raise ModuleNotFoundError(name='h11')")
    server = start_command("serve", "app:echo", "--metrics", "unix:metrics", cwd=tmp_path)
    status, out, err = server.finish()
    assert (status, out) == (1, "")
    assert "pip install 'pycoronet[http]'" in err
    assert err.count("\n") == 1
