"""HTTP over many rounds: no connection, file, descriptor or memory stays behind."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable
from functools import partial
from typing import IO, Any

import pytest
from connections import attempt, reset
from leak_case import check_rounds, pair

from pycoronet import Task, sk_conn, sleep, spawn

pytest.importorskip("h11", reason="h11, the parser of pycoronet[http], is not installed")

import h11

from pycoronet._http import FileBody, HTTPError, Request, Response, serve_http

pytestmark = [pytest.mark.leaks, pytest.mark.usefixtures("virtual_hub")]

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SMALL, LARGE = 100, 3_000_000


def exchange(
    respond: Callable[[Request], Response], request: bytes, end: Callable[..., Any]
) -> None:
    """Serve a client that sends a request, then ends it in some way."""
    with pair() as (conn, peer):
        task = spawn(attempt, serve_http, conn, respond)
        peer.sendall(request)
        sleep(0.1)
        end(peer)
        task.join()


def leave(peer: socket.socket) -> None:
    peer.shutdown(socket.SHUT_WR)


def stay(peer: socket.socket) -> None:
    """Do nothing: the server's timeouts end it."""


def text(request: Request) -> Response:
    return Response(200, [("Content-Type", "text/plain")], b"text")


def file(size: int, said: int, request: Request) -> Response:
    opened: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  it is closed for us
    opened.truncate(size)
    return Response(200, [], FileBody(opened, 0, said))


def bad_file(request: Request) -> Response:
    return Response(200, [("Bad Name", "x")], file(SMALL, SMALL, request).body)


def refuse(request: Request) -> Response:
    raise HTTPError(405, [("Allow", "GET")])


def fail(request: Request) -> Response:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("respond", "request_bytes", "end"),
    [
        (text, GET * 3, leave),
        (text, GET, stay),
        (text, b"nonsense\r\n\r\n", leave),
        (text, b"GET / HTTP/1.1\r\nHo", stay),
        (text, b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab", reset),
        (refuse, GET, leave),
        (fail, GET, leave),
        (bad_file, GET, leave),
        (partial(file, SMALL, SMALL), GET, leave),
        (partial(file, SMALL, LARGE), GET, leave),
        (partial(file, LARGE, LARGE), GET, stay),
        (partial(file, LARGE, LARGE), GET, reset),
        (partial(file, LARGE, LARGE), b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", leave),
    ],
)
def test_http_leaves_nothing_behind(respond, request_bytes, end) -> None:
    case = partial(exchange, respond, request_bytes, end)
    check_rounds(case, types=(sk_conn, Task, h11.Connection, FileBody))
