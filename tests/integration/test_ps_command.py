"""`python -m pycoronet ps` and `top`: the commands, against a process that runs."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from connections import Ends
from processes import PREAMBLE

from pycoronet import _coronet
from pycoronet._cli import main

PATIENCE_SECONDS = 30  # far more than anything here takes

# Of a task that has asked for a lock, and waits: in hard mode acquire() gives way first.
SWITCHES = 2 if _coronet.HARD_MODE else 1

# Runs until its input ends, and says when it has begun.
PROGRAM = """
def named(name, function, *arguments):
    task = spawn(function, *arguments)
    task.name = name
    return task

def in_a_thread():
    named("far away", sleep, None)
    wait_readable(0)

current()  # this thread's hub is the first
threading.Thread(target=in_a_thread, name="second").start()
lock = Lock()
held = named("holder", lambda: (lock.acquire(), sleep(None)))
named("wants\\x1b[2J", lock.acquire)
first = named("first", lambda: second.join())
second = named("second", first.join)

def burn():
    while True:
        for _ in range(1000): pass
        sleep(0.001)

def stick():
    say("stuck")
    threading.Event().wait()

named("busy", burn)
if "stuck" in sys.argv[1:]:
    named("culprit", stick)
    sleep(None)
sleep(0.001)
say("begun")
wait_readable(0)
get_hub().close()
"""


class Subject:
    """A process to be looked at."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + PROGRAM, *arguments],
            env={**os.environ, "PYCORONET_INSPECT": str(directory)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.word = self.process.stdout.readline().strip()

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(PATIENCE_SECONDS)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Subject]]:
    """Return a function that starts a process; all are ended."""
    made: list[Subject] = []

    def begin(*arguments: str) -> Subject:
        made.append(Subject(tmp_path, *arguments))
        return made[-1]

    yield begin
    for subject in made:
        with subject.process:
            subject.process.kill()


def run(directory: Path | None, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of pycoronet's."""
    environment = {**os.environ, "COLUMNS": "200"}
    environment.pop("PYCORONET_INSPECT", None)
    if directory is not None:
        environment["PYCORONET_INSPECT"] = str(directory)
    return subprocess.run(
        [sys.executable, "-X", "dev", "-m", "pycoronet", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=PATIENCE_SECONDS,
    )


def table(directory: Path, *arguments: Any) -> str:
    done = run(directory, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def check_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Return a function that runs a command in this process and sees it refused."""

    def check(text: str, *arguments: Any, directory: Path | None = None, status: int = 1) -> None:
        monkeypatch.delenv("PYCORONET_INSPECT", raising=False)
        if directory is not None:
            monkeypatch.setenv("PYCORONET_INSPECT", str(directory))
        assert main(list(map(str, arguments))) == status
        written = capsys.readouterr()
        assert written.out == ""
        assert re.fullmatch(f"pycoronet (ps|top): .*{text}.*\n", written.err), written.err

    return check


def test_ps_lists_every_task_of_every_hub(start: Callable[..., Subject], tmp_path: Path) -> None:
    subject = start()
    assert subject.word == "begun"
    text = table(tmp_path, "ps", subject.process.pid)
    assert text.startswith(f"process {subject.process.pid}: hubs: 2, tasks: 8\n")
    assert "\nhub of MainThread on " in text
    assert "\nhub of second on " in text
    assert re.search(r"\nTASK +STATE +FOR +SWITCHES +CPU +WAITS FOR\n", text)
    lock = r"<Lock at 0x[0-9a-f]+> held by Task 'holder'"
    assert re.search(
        rf"\nwants\\x1b\[2J +waiting +\d+\.\d s +{SWITCHES} +- +acquire {lock}\n", text
    )
    assert re.search(r"\nfirst +waiting +\d+\.\d s +1 +- +join Task 'second'\n", text)
    assert re.search(r"\nfar away +waiting +\d+\.\d s +1 +- +sleep None\n", text)
    assert re.search(r"\nbusy +\w+ ", text)
    assert re.search(r"\nTask 'first' waits in join for Task 'second', .*: a circle\n$", text)
    assert subject.end() == 0
    assert list(tmp_path.iterdir()) == []


def test_ps_answers_while_the_hub_is_stuck(start: Callable[..., Subject], tmp_path: Path) -> None:
    subject = start("stuck")
    assert subject.word == "stuck"
    text = table(tmp_path, "ps", subject.process.pid)
    assert re.search(r"\nculprit +running +\d+ ", text)
    assert "\nTask 'culprit' runs:\n" in text
    stack = text.partition("runs:\n")[2].partition("\n\n")[0]
    assert re.search(r"in stick\n(.*\n)*.* in wait", stack)


def test_top_shows_who_uses_the_cpu(start: Callable[..., Subject], tmp_path: Path) -> None:
    subject = start()
    text = table(tmp_path, "top", subject.process.pid, "--once", "--interval", "0.3")
    hubs = text.split("\n\n")
    assert len(hubs) == 2
    assert re.match(
        r"hub of MainThread on \w+, tasks: 6, polling and callbacks: \d+\.\d%\n"
        r"TASK +STATE +FOR +CPU +SWITCHES +WAITS FOR\n"
        r"busy +\w+ .* (?!0\.0%)\d+\.\d% +[1-9][\d,]*\.\d",
        hubs[0],
    )
    assert re.search(r"\nholder +waiting +\d+\.\d s +0\.0% +0\.0  sleep None\n", hubs[0])
    # What was measured stays; the others have none.
    text = table(tmp_path, "ps", subject.process.pid)
    assert re.search(r"\nbusy .* \d+\.\d{3} s ", text)
    assert re.search(rf"\nholder +waiting +\d+\.\d s +{SWITCHES} +- ", text)
    assert subject.end() == 0


def test_top_goes_on_until_it_is_interrupted(start: Callable[..., Subject], tmp_path: Path) -> None:
    subject = start()
    command = [sys.executable, "-m", "pycoronet", "top", str(subject.process.pid)]
    command += ["--interval", "0.05", "--directory", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as top:
        try:
            assert top.stdout is not None
            titles = 0
            while titles < 6:  # three tables of two hubs
                titles += top.stdout.readline().startswith("hub of ")
            top.send_signal(signal.SIGINT)
            top.stdout.read()
            assert top.wait(PATIENCE_SECONDS) == 0
        finally:
            top.kill()


def test_top_ends_with_the_process(start: Callable[..., Subject], tmp_path: Path) -> None:
    subject = start()
    command = [sys.executable, "-m", "pycoronet", "top", str(subject.process.pid)]
    command += ["--interval", "0.05", "--directory", str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as top:
        try:
            assert top.stdout is not None
            top.stdout.readline()
            assert subject.end() == 0
            _, error = top.communicate(timeout=PATIENCE_SECONDS)
            assert top.returncode == 1
            assert error.startswith(f"pycoronet top: process {subject.process.pid}")
        finally:
            top.kill()


def test_process_that_was_killed_leaves_nothing_for_long(
    start: Callable[..., Subject], tmp_path: Path, check_refused: Callable[..., None]
) -> None:
    killed = start()
    killed.process.kill()
    killed.process.wait(PATIENCE_SECONDS)
    assert [path.name for path in tmp_path.iterdir()] == [f"{killed.process.pid}.sock"]
    check_refused("nobody answers", "ps", killed.process.pid, directory=tmp_path)
    subject = start()
    assert [path.name for path in tmp_path.iterdir()] == [f"{subject.process.pid}.sock"]
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_cannot_be_asked_is_refused(
    tmp_path: Path, check_refused: Callable[..., None]
) -> None:
    check_refused("PYCORONET_INSPECT is not set", "ps", 1)
    check_refused("nobody answers", "ps", 1, directory=tmp_path)
    check_refused("nobody answers", "top", 1, directory=tmp_path)
    check_refused("nobody answers", "ps", 1, "--directory", tmp_path)
    check_refused("too long", "ps", 1, directory=tmp_path / ("x" * 200))
    for wrong in ("0", "-5", "x", ""):
        with pytest.raises(SystemExit):
            main(["ps", wrong])


@pytest.mark.parametrize("answer", [b"", b"x\n", b"[]\n", b"null\n", b'{"error": "no"}\n', b"{"])
def test_answers_that_are_none_are_refused(
    tmp_path: Path, ends: Ends, check_refused: Callable[..., None], answer: bytes
) -> None:
    listener = ends.keep(socket.socket(socket.AF_UNIX))
    listener.bind(str(tmp_path / "77.sock"))
    listener.listen()
    listener.settimeout(PATIENCE_SECONDS)

    def serve() -> None:
        conn, _ = listener.accept()
        with conn:
            conn.settimeout(PATIENCE_SECONDS)
            conn.recv(100)
            conn.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    check_refused("process 77", "ps", 77, directory=tmp_path)
    thread.join()
