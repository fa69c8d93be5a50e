"""A server's page and shared rows over many rounds: nothing stays behind."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from connections import drain_now
from leak_case import check_rounds
from recorders import reset, turn

from pycoronet import Server, Task, TimerHandle, sk_conn
from pycoronet.server import Stats
from pycoronet.server._shared_stats import Row, SharedStats

pytestmark = [pytest.mark.leaks, pytest.mark.usefixtures("virtual_hub")]

LOCAL = ("127.0.0.1", 0)
TYPES = (Row, Server, SharedStats, Stats, Task, TimerHandle, sk_conn)


def close_at_once(conn: sk_conn, _: object) -> None:
    """Serve nobody."""


def make_server() -> Server:
    return Server(LOCAL, close_at_once, metrics=LOCAL)


# Each is one round, complete with its clean-up.


def page_is_read() -> None:
    with make_server() as server, socket.create_connection(server.metrics_addresses[0]) as reader:
        for request in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"HEAD /x HTTP/1.0\r\n\r\n"):
            reader.sendall(request)
            turn()
        assert b"# EOF" in drain_now(reader)


def readers_misbehave() -> None:
    with make_server() as server:
        readers = [socket.create_connection(server.metrics_addresses[0]) for _ in range(3)]
        readers[0].sendall(b"nonsense\r\n\r\n")
        readers[1].sendall(b"GET / HT")
        turn()
        reset(readers[2])
        turn()
    for reader in readers:
        reader.close()


def server_is_closed_while_the_page_is_read() -> None:
    server = make_server()
    server.start()
    with socket.create_connection(server.metrics_addresses[0]) as reader:
        reader.sendall(b"GET / HTTP/1.1\r\n")
        turn()
        server.close()
    turn()


def page_without_a_server() -> None:
    with socket.create_server(LOCAL) as other:
        for addresses in ((LOCAL, other.getsockname()), (other.getsockname(), LOCAL)):
            server = Server(addresses[0], close_at_once, metrics=addresses[1])
            with pytest.raises(OSError, match="in use"):
                server.listen()


def rows_come_and_go() -> None:
    shared = SharedStats(Stats())
    for _ in range(3):
        rows = [shared.take_row() for _ in range(3)]
        for row in rows:
            row.publish(shared.total())
            shared.retire(row)


@pytest.mark.parametrize(
    "case",
    [
        page_is_read,
        page_without_a_server,
        readers_misbehave,
        rows_come_and_go,
        server_is_closed_while_the_page_is_read,
    ],
)
def test_nothing_stays_behind(case: Callable[[], None]) -> None:
    check_rounds(case, types=TYPES)
