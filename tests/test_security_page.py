"""SECURITY.md: the limits that it tells are those of the code, and what it names exists."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("h11", reason="h11, the parser of pycoronet[http], is not installed")

import pycoronet
from pycoronet import Server, _http, layers, sk_conn
from pycoronet.testing import pair

PAGE = Path(__file__).parent.parent / "SECURITY.md"


def default(function: Callable[..., Any], name: str) -> Any:
    return inspect.signature(function).parameters[name].default


def fresh() -> Any:
    """Return the options of a new connection."""
    conn, other = pair()
    with conn, other:
        return SimpleNamespace(linger=conn.linger, **conn.get_watermarks())


# The first column of the page's tables, and what the code says.
LIMITS: dict[str, Callable[[], Any]] = {
    "a line": lambda: default(sk_conn.readln, "limit"),
    "what comes before a separator": lambda: default(sk_conn.read_until, "limit"),
    "a frame": lambda: default(sk_conn.read_frame, "limit"),
    "received and not taken, for callbacks": lambda: fresh().read_high,
    "written and not sent, when writing pauses": lambda: fresh().write_high,
    "waiting to read or write": lambda: default(pycoronet.connect, "timeout"),
    "sending what is left after close()": lambda: fresh().linger,
    "a PROXY header": lambda: default(layers.ProxyProtocol, "limit"),
    "what 64 KiB of compressed data become": lambda: default(layers.Zlib, "limit"),
    "connections": lambda: default(Server, "max_connections"),
    "connections of one address": lambda: default(Server, "max_per_address"),
    "a TLS handshake": lambda: default(Server, "handshake_timeout"),
    "a client that says and takes nothing": lambda: default(Server, "idle_timeout"),
    "a connection as a whole": lambda: default(Server, "total_timeout"),
    "draining when it stops": lambda: default(Server, "drain_timeout"),
    "threads of `threadpool`": lambda: default(Server, "poolsize_max"),
    "an HTTP head": lambda: _http.MAX_HEAD_BYTES,
    "an HTTP body": lambda: default(_http.serve_http, "max_body"),
    "an HTTP request, first byte to last": lambda: default(_http.serve_http, "request_timeout"),
    "an HTTP client that is idle": lambda: default(_http.serve_http, "idle_timeout"),
}

# Rows that give no number of ours.
WITHOUT_NUMBER = {"queued by `enqueue()`", "a connect"}


def rows() -> dict[str, str]:
    """Return the second column of the tables of limits by the first."""
    text = PAGE.read_text("utf-8")
    text = text[text.index("## Limits of a connection") : text.index("## Attacks")]
    found = re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \|$", text, re.MULTILINE)
    return {name: value for name, value in found if name not in ("what", "---")}


def test_each_limit_on_the_page_is_looked_up_here() -> None:
    assert set(rows()) - WITHOUT_NUMBER == set(LIMITS)


@pytest.mark.parametrize("name", LIMITS)
def test_the_page_tells_the_limit_of_the_code(name: str) -> None:
    told, limit = rows()[name], LIMITS[name]()
    if limit is None:
        assert told == "**no limit**"
    else:
        assert float(told.split()[0]) == limit


def test_what_the_page_names_exists() -> None:
    text = PAGE.read_text("utf-8")
    for method in re.findall(r"`conn\.(\w+)", text):
        assert hasattr(sk_conn, method), method
    for name in ("LineTooLongError", "Hub", "RateLimit", "RateGroup"):
        assert name in text
        assert hasattr(pycoronet, name)
