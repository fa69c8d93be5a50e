"""What the tests of thread-pool servers share: handlers, and waiting for what threads do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from pycoronet import Server, sleep

LOCAL = ("127.0.0.1", 0)
NAME = "pycoronet server"  # of the threads


def echo(conn: Any, _: object) -> None:
    for line in conn:
        conn.write(line)


class Gate:
    """A handler that blocks its thread, in a way that nothing can end but opening it."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.count = 0

    def __call__(self, conn: Any, _: object) -> None:
        self.count += 1
        self.opened.wait()
        conn.write(b"done\n")


class ThreadServers:
    """Starts servers; in the end they are closed, and all their threads have ended."""

    def __init__(self) -> None:
        self._servers: list[Any] = []

    def start(self, handler: Any, **settings: Any) -> Any:
        settings = {"strategy": "threadpool", "poolsize_min": 0, **settings}
        self._servers.append(Server(LOCAL, handler, **settings))
        self._servers[-1].start()
        return self._servers[-1]

    def close(self) -> None:
        for server in self._servers:
            server.close()
        for thread in threads_of_servers():
            thread.join()


def threads_of_servers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


def until(condition: Callable[[], Any]) -> None:
    """Wait for what other threads have to do first."""
    while not condition():
        sleep(0.001)


def until_served(server: Any, count: int) -> None:
    until(lambda: server.stats.connections_served == count)


def ask(conn: Any, line: bytes = b"hello\n") -> bytes:
    conn.write(line)
    answer: bytes = conn.readln()
    return answer
