"""docs/production.md does what it says: its programs run, its options and numbers exist."""

from __future__ import annotations

import re
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


def handler_of(file: str) -> Any:
    """Return the handler of a program on the page, which begins with its file's name."""
    (program,) = re.findall(rf"```python\n(# {file}\n.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)
    return names["handler"]


def options_of(*command: str) -> set[str]:
    """Return what the help of a command lists."""
    arguments = [sys.executable, "-m", "pycoronet", *command, "--help"]
    done = subprocess.run(
        arguments, capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS
    )
    return set(re.findall(r"(--[a-z-]+)", done.stdout))


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
