"""What the tests of sendfile share: two contents, and a connection in the middle of one."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import Any

from connections import MOMENT, Ends, attempt

from pycoronet import sleep, spawn

CONTENT = bytes(range(256)) * 40  # less than the high mark
LARGE = os.urandom(1_000_000) * 12  # more than a socket takes


def begin(ends: Ends, large: Path, kind: str = "unix") -> tuple[Any, socket.socket, Any]:
    """Return a connection that is in the middle of the large file, its peer, and the task."""
    conn, peer = ends.pair(kind)
    task = spawn(attempt, send_path, conn, large)
    sleep(MOMENT)
    assert 0 < conn.pending < len(LARGE)
    return conn, peer, task


def send_path(conn: Any, path: Path, **options: Any) -> int:
    with path.open("rb") as file:
        return conn.sendfile(file, **options)


def must_read(conn: Any) -> None:
    """Have the system refuse sendfile(2): on Linux it does not append."""
    flags = fcntl.fcntl(conn.fileno(), fcntl.F_GETFL)
    fcntl.fcntl(conn.fileno(), fcntl.F_SETFL, flags | os.O_APPEND)
