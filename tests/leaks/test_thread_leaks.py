"""Threads, their hubs and what they serve: over many rounds nothing is left of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from leak_case import check_rounds

import pycoronet
from pycoronet import Hub, Server, Task, connect, sk_conn, sleep, spawn
from pycoronet._thread_pool import ThreadPool
from pycoronet.server import _thread_strategy

pytestmark = pytest.mark.leaks

LOCAL = ("127.0.0.1", 0)
TYPES = (sk_conn, Task, Hub, Server, ThreadPool, threading.Thread, _thread_strategy._Job)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have servers stop without the moment that they give to handshakes, round by round."""
    monkeypatch.setattr("pycoronet.server._acceptor.HANDSHAKE_SECONDS", 0.0)


def check(case: Callable[[], None]) -> None:
    before = set(threading.enumerate())  # to_thread()'s own pool keeps its threads

    def round_of_it() -> None:
        case()
        for thread in set(threading.enumerate()) - before:
            thread.join()

    check_rounds(round_of_it, types=TYPES)


def serve(handler: Any, talk: Callable[[Any], Any], **settings: Any) -> None:
    """Start a server, talk to it on a few connections, and end it."""
    with Server(LOCAL, handler, strategy="threadpool", poolsize_min=1, **settings) as server:
        conns = [connect(server.addresses[0]) for _ in range(3)]
        for conn in conns:
            talk(conn)
        for conn in conns:
            conn.close()
        while server.stats.open:
            sleep(0.0001)


def test_pools_and_their_jobs() -> None:
    def run() -> None:
        pool = ThreadPool(1, 3, limit=1)
        pool.start()
        done = threading.Semaphore(0)
        for _ in range(6):
            pool.submit(lambda: done.release)
        done.acquire()
        pool.shrink()
        pool.close()

    check(run)


def test_connections_that_are_served() -> None:
    def handler(conn: Any, _: object) -> None:
        spawn(sleep, 0)
        conn.write(conn.readln())

    def talk(conn: Any) -> None:
        conn.write(b"hello\n")
        assert conn.readln() == b"hello\n"

    check(lambda: serve(handler, talk))


def test_handlers_that_raise(reports: list[Any]) -> None:
    def handler(conn: Any, _: object) -> None:
        raise LookupError

    def talk(conn: Any) -> None:
        assert conn.readsome(1) == b""
        reports.clear()

    def run() -> None:
        serve(handler, talk)
        reports.clear()

    check(run)


def test_connections_that_are_shed() -> None:
    def refuse() -> None:
        raise OSError

    def talk(conn: Any) -> None:
        assert conn.readsome(1) == b""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_thread_strategy, "get_hub", refuse_in_threads(refuse))
        check(lambda: serve(lambda conn, _: None, talk))


def refuse_in_threads(refuse: Callable[[], None]) -> Callable[[], Hub]:
    """Return get_hub(), which for other threads than this one calls a function first."""
    here = threading.get_ident()

    def get_hub() -> Hub:
        if threading.get_ident() != here:
            refuse()
        return pycoronet.get_hub()

    return get_hub


@pytest.mark.parametrize("way", ["stop", "close"])
def test_servers_that_end_with_handlers_at_work(way: str) -> None:
    def handler(conn: Any, _: object) -> None:
        spawn(sleep, None)
        conn.readln()

    def run() -> None:
        server = Server(LOCAL, handler, strategy="threadpool", poolsize_min=0, poolsize_max=1)
        server.start()
        conns = [connect(server.addresses[0]) for _ in range(3)]
        while server.stats.accepted < 3:
            sleep(0)
        if way == "stop":
            server.stop(0)
        else:
            server.close()
        for conn in conns:
            conn.close()

    check(run)
