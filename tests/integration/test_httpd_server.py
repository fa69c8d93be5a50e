"""The files of a directory by a Server: its strategies, what it counts, and how it ends."""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("h11", reason="h11, the parser of pycoronet[http], is not installed")

from pycoronet import Server, connect, to_thread
from pycoronet.httpd import Directory

PATIENCE_SECONDS = 30
LARGE = os.urandom(1_000_000)


@pytest.fixture(params=["coroutine", "threadpool"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "page").write_text("page")
    (tmp_path / "large").write_bytes(LARGE)
    server = Server(("127.0.0.1", 0), Directory(tmp_path), strategy=request.param)
    with server:
        yield server


def fetch(server: Server, *targets: str) -> list[tuple[int, bytes]]:
    """Return the answers to requests on one connection, from another thread."""

    def ask() -> list[tuple[int, bytes]]:
        client = http.client.HTTPConnection(*server.addresses[0][:2], timeout=PATIENCE_SECONDS)
        answers = []
        for target in targets:
            client.request("GET", target)
            response = client.getresponse()
            answers.append((response.status, response.read()))
        client.close()
        return answers

    found: list[tuple[int, bytes]] = to_thread(ask)
    return found


def test_httpd_server_answers_and_counts(server):
    answers = fetch(server, "/page", "/large", "/nothing", "/page")
    assert answers == [(200, b"page"), (200, LARGE), (404, b"404 Not Found\n"), (200, b"page")]
    assert server.stop() == 0
    stats = server.stats
    assert (stats.accepted, stats.connections_served, stats.open) == (1, 1, 0)
    assert stats.bytes_sent > len(LARGE)
    assert sum(stats.errors.values()) == 0


def test_httpd_server_that_stops_lets_idle_clients_go(server):
    with connect(server.addresses[0]) as client:
        client.write(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = b""
        while not answer.endswith(b"page"):
            answer += client.recv(1000)
        assert server.stop(timeout=PATIENCE_SECONDS) == 0
        assert client.recv(1) == b""


def test_httpd_server_counts_who_breaks_off(server, caplog, reports: list[Any]):
    client = connect(server.addresses[0])
    client.write(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n" * 20)
    assert client.recv(10)
    client.abort()
    assert server.stop(timeout=PATIENCE_SECONDS) == 0
    assert (server.stats.errors["reset"], reports) == (1, [])
