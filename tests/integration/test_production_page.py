"""docs/production.md does what it says: its programs run, its options and numbers exist."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pycoronet import Server, connect
from pycoronet.layers import ProxyHeader
from pycoronet.server import parse_address
from pycoronet.server._metrics import METRICS

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "production.md").read_text("utf-8")
PATIENCE_SECONDS = 30


# The programs by their files' names, with which they begin.
PROGRAMS = {
    re.split(r"[ \n]", program)[1]: program
    for program in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
}


def handler_of(file: str) -> Any:
    """Return the handler of a program on the page."""
    names: dict[str, Any] = {}
    exec(PROGRAMS[file], names)
    return names["handler"]


def run(*command: str, **options: Any) -> str:
    """Return what a command prints."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS, **options
    )
    return done.stdout


def options_of(command: str) -> set[str]:
    """Return what the help of a command lists."""
    return set(re.findall(r"--[a-z-]+", run(sys.executable, "-m", "pycoronet", command, "--help")))


@pytest.mark.parametrize("strategy", ["coroutine", "threadpool"])
def test_the_service_serves(strategy: Any) -> None:
    with Server(("127.0.0.1", 0), handler_of("service.py"), strategy=strategy) as server:
        conn = connect(server.addresses[0], timeout=PATIENCE_SECONDS)
        conn.write(b"one\n")
        assert conn.readln() == b"one\n"
        server.stop(wait=False)  # the client waits for nothing: that is no reason to wait
        assert conn.readln() == b""
        conn.close()


def test_a_balancers_clients_have_their_address() -> None:
    with Server(("127.0.0.1", 0), handler_of("behind_balancer.py")) as server:
        with connect(server.addresses[0], timeout=PATIENCE_SECONDS) as check:
            check.close()
        with connect(server.addresses[0], timeout=PATIENCE_SECONDS) as conn:
            conn.push_layer(ProxyHeader(("192.0.2.7", 1234), ("198.51.100.1", 80), version=2))
            conn.write(b"hello\n")
            assert conn.readln() == b"192.0.2.7: hello\n"
    assert server.stats.errors["handler"] == 0


def commands_behind(heading: str) -> list[list[str]]:
    """Return the commands of this package in the part of the page that begins with a line."""
    part = PAGE.partition(f"{heading}\n")[2].partition("\n## ")[0].replace("\\\n", " ")
    found = re.findall(r"^ {4}python (-m pycoronet .*)$", part, re.MULTILINE)
    return [[sys.executable, *command.split()] for command in found]


def test_the_first_command_serves_reloads_and_ends(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(PROGRAMS["service.py"])
    ((*command, metrics),) = commands_behind("# Running it in production")
    assert command[-1] == "--metrics"
    command[command.index(":7000")] = "unix:./socket"
    command[command.index("auto")] = "2"
    _, (*show, shown) = commands_behind("## Metrics")
    assert shown == metrics
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(PATIENCE_SECONDS)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        with subprocess.Popen(
            [*command, "unix:./metrics"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE
        ) as service:
            try:
                assert supervisor.recv(100).startswith(b"READY=1")
                for signum, said in [
                    (signal.SIGHUP, b"RELOADING=1"),
                    (signal.SIGTERM, b"STOPPING=1"),
                ]:
                    with connect(tmp_path / "socket", timeout=PATIENCE_SECONDS) as conn:
                        conn.write(b"one\n")
                        assert conn.readln() == b"one\n"
                        if signum == signal.SIGTERM:
                            page = run(*show, "--once", "unix:./metrics", cwd=tmp_path)
                        service.send_signal(signum)
                        assert supervisor.recv(100).startswith(said)
                        if signum == signal.SIGHUP:
                            assert supervisor.recv(100).startswith(b"READY=1")
                        assert conn.readln() == b""  # it waited for nothing
                assert service.wait(PATIENCE_SECONDS) == 0
            finally:
                service.kill()
    assert re.search(r"^workers started +4\b", page, re.MULTILINE)
    assert not (tmp_path / "socket").exists()
    assert not (tmp_path / "metrics").exists()


def test_the_options_exist() -> None:
    named = set(re.findall(r"--[a-z][a-z-]+", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)))
    assert len(named) > 12
    assert sorted(named - options_of("serve")) == []


def test_the_addresses_are_addresses() -> None:
    table = PAGE[PAGE.index("## Addresses") : PAGE.index("## Processes")]
    named = re.findall(r"`([^`]+)`", "\n".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)))
    assert len(named) > 8
    for text in named:
        if not text.startswith(("--", "Server")):
            assert parse_address(text) is not None


def test_the_numbers_exist() -> None:
    named = set(re.findall(r"`(pycoronet_\w+)`", PAGE))
    assert len(named) == 5
    assert named <= {metric.name for metric in METRICS}
