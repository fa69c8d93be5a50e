"""HTTP over a bad network: Server and httpd.Directory, with files that sendfile() sends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hosts import SERVER, Network
from transfers import CONTENT

import pycoronet
from pycoronet import Server, sleep

pytest.importorskip("h11")
from pycoronet.httpd import Directory

LIMIT = 1.0


@contextmanager
def client_and_server(network: Network, folder: Path, **settings: Any) -> Iterator[tuple[Any, Any]]:
    """Have a web server with a file, and a client's connection."""
    (folder / "file").write_bytes(CONTENT)
    with network.server:
        server = Server((SERVER, 0), Directory(folder), **settings)
        server.start()
    try:
        with network.client, pycoronet.connect(server.addresses[0]) as conn:
            yield conn, server
    finally:
        server.stop(0)


def get(conn: Any, first: int = 0, last: int = len(CONTENT) - 1) -> bytes:
    """Return some of the file."""
    conn.write(b"GET /file HTTP/1.1\r\nHost: s\r\nRange: bytes=%d-%d\r\n\r\n" % (first, last))
    assert conn.readln().startswith(b"HTTP/1.1 206")
    length = 0
    while (line := conn.readln()) != b"\r\n":
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    body: bytes = conn.read_exactly(length)
    return body


@pytest.mark.parametrize("strategy", ["coroutine", "threadpool"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_files_over_a_bad_line_are_whole(
    network: Network, tmp_path: Path, request: pytest.FixtureRequest, strategy: str, tls: bool
) -> None:
    settings: dict[str, Any] = {"strategy": strategy, "poolsize_min": 1, "poolsize_max": 1}
    if tls:
        certificates = request.getfixturevalue("certificates")
        settings["tls"] = certificates.server_context()
    network.set(loss=0.03, jitter=0.005, duplicate=0.03)
    with client_and_server(network, tmp_path, **settings) as (conn, server):
        if tls:
            conn.start_tls(certificates.client_context(), server_hostname="localhost")
        assert get(conn) == CONTENT
        for first in range(0, len(CONTENT), 90_001):
            assert get(conn, first, first + 4000) == CONTENT[first : first + 4001]
        conn.close()
        while server.stats.open:
            sleep(0.01)
        assert not any(server.stats.errors.values())


def test_files_through_a_hole_that_is_mended_are_whole(network: Network, tmp_path: Path) -> None:
    network.hole(after=100_000, heal_after=0.2)
    with client_and_server(network, tmp_path) as (conn, _):
        assert get(conn) == CONTENT
        assert get(conn, 1, 10) == CONTENT[1:11]
    assert network.counts()["swallowed"] > 0


@pytest.mark.parametrize("how", ["hole", "cut"])
def test_client_that_vanishes_in_the_middle_of_a_file_is_given_up(
    network: Network, tmp_path: Path, how: str
) -> None:
    with client_and_server(network, tmp_path, idle_timeout=LIMIT) as (conn, server):
        getattr(network, how)(after=100_000)
        with pytest.raises(TimeoutError):
            conn.settimeout(LIMIT)
            get(conn)
        while server.stats.open:
            sleep(0.01)
        assert server.stats.errors["timeout"] == 1


def test_client_that_vanishes_between_two_requests_is_given_up(
    network: Network, tmp_path: Path
) -> None:
    with client_and_server(network, tmp_path, idle_timeout=LIMIT) as (conn, server):
        assert get(conn, 0, 99) == CONTENT[:100]
        network.hole()
        while server.stats.open:
            sleep(0.01)
