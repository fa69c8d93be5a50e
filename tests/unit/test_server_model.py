"""Servers and clients that do anything at random: in the end nothing is lost and nothing left."""

from __future__ import annotations

import random
import socket
import ssl
import threading
from contextlib import suppress
from typing import Any

import pytest
from connections import open_descriptors, reset
from recorders import turn
from thread_case import threads_of_servers, until
from tls_peer import TlsPeer

from pycoronet import Server, sleep

pytestmark = pytest.mark.usefixtures("virtual_hub")

STEPS = 120
LINES = [b"hello\n", b"half a", b" line\n", b"fail\n", b"close\n", b"wait\n", b"two\nlines\n"]


def answer(conn: Any, line: bytes) -> None:
    if line == b"fail\n":
        raise LookupError("on purpose")
    if line == b"close\n":
        conn.close()
    else:
        conn.write(line)


def serve_lines(conn: Any, _: object) -> None:
    while conn.server.await_input(conn):
        line = conn.readln()
        if line == b"wait\n":
            sleep(0.01 if threading.current_thread() is not threading.main_thread() else 20)
        if not line:
            break
        answer(conn, line)
        if conn.closed:
            break


def serve_lines_that_came(conn: Any, _: object) -> None:
    while not conn.closed and (line := conn.take_line()):
        answer(conn, line)


HANDLERS = {
    "coroutine": serve_lines,
    "callback": serve_lines_that_came,
    "threadpool": serve_lines,
}


class Client:
    """One who connects and may say something; what comes back is what was said."""

    def __init__(self, address: Any, context: ssl.SSLContext | None) -> None:
        self.sock = socket.socket()
        self.sock.settimeout(0.1)  # the queue may be full
        try:
            self.sock.connect(address)
        except BaseException:
            self.sock.close()
            raise
        self.tls = None if context is None else TlsPeer(self.sock, context)
        self._has_greeted = False

    def say(self, data: bytes) -> None:
        if self.tls is None:
            self.sock.sendall(data)
        elif not self._has_greeted:
            self._has_greeted = True
            self.sock.sendall(self.tls.hello())
        else:
            with suppress(ssl.SSLError):
                self.tls.take_in()
                self.tls.tls.do_handshake()
                self.tls.tls.write(data)
            self.sock.sendall(self.tls.outgoing.read())

    def half_close(self, chance: random.Random) -> None:
        if self.tls is not None and self._has_greeted and chance.random() < 0.5:
            with suppress(ValueError):  # the handshake is not done
                self.sock.sendall(self.tls.end())
        self.sock.shutdown(socket.SHUT_WR)

    def end(self, chance: random.Random) -> None:
        if chance.random() < 0.5:
            reset(self.sock)
        else:
            self.sock.close()


class World:
    """A server, its clients, and what may happen to them."""

    def __init__(self, strategy: Any, certificates: Any, seed: int) -> None:
        self.chance = random.Random(f"{strategy} {seed}")
        self.context = None
        settings: dict[str, Any] = {}
        if self.chance.random() < 0.5:
            self.context = certificates.client_context()
            settings["tls"] = certificates.server_context()
        for name, values in {
            "max_connections": (None, 3, 7),
            "max_per_address": (None, 5),
            "idle_timeout": (None, 15.0),
            "total_timeout": (None, 40.0),
            "drain_timeout": (5.0, 60.0),
            "backlog": (2, 100),
        }.items():
            settings[name] = self.chance.choice(values)
        if strategy == "threadpool":
            settings.update(poolsize_min=self.chance.randrange(3), poolsize_max=4)
            for name in ("idle_timeout", "total_timeout"):
                if settings[name] is not None:
                    settings[name] /= 100  # in threads it is real
        self.server: Any = Server(
            ("127.0.0.1", 0), HANDLERS[strategy], strategy=strategy, **settings
        )
        self.clients: list[Client] = []

    def step(self) -> None:
        happen = self.change
        if self.server.is_listening:
            happen = self.chance.choices(
                [self.connect, self.talk, self.finish, self.wait, self.change], [8, 12, 4, 2, 1]
            )[0]
        with suppress(OSError):  # who was sent away, or speaks to a server that has gone
            happen()
        turn(self.chance.randrange(3))
        self.check()

    def connect(self) -> None:
        if self.server.is_listening and not self.server.closing:
            self.clients.append(Client(self.server.addresses[0], self.context))

    def talk(self) -> None:
        if self.clients:
            self.chance.choice(self.clients).say(self.chance.choice(LINES))

    def finish(self) -> None:
        if self.clients:
            client = self.chance.choice(self.clients)
            if self.chance.random() < 0.5:
                client.half_close(self.chance)
            else:
                self.clients.remove(client)
                client.end(self.chance)

    def wait(self) -> None:
        sleep(self.chance.choice([1, 10, 100]))

    def change(self) -> None:
        server = self.server
        if not server.is_listening:
            server.listen() if self.chance.random() < 0.3 else server.start()
        elif self.chance.random() < 0.3:
            server.close()
        elif self.chance.random() < 0.3:
            server.stop(self.chance.choice([None, 0, 3]))
        elif self.chance.random() < 0.5:
            server.stop(self.chance.choice([None, 0, 3]), wait=False)
        elif not server.closing:
            with suppress(RuntimeError):  # it serves already
                server.start()

    def check(self) -> None:
        stats = self.server.stats
        assert stats.accepted == stats.open + stats.connections_served + sum(stats.shed.values())
        assert stats.open >= 0
        if not self.server.is_listening:
            assert stats.open == 0
        for most in (self.server.max_connections, self.server.max_per_address):
            assert most is None or stats.open <= most

    def check_that_it_serves(self) -> None:
        """Check that there is a place for one more when all have gone."""
        with suppress(RuntimeError):  # it serves already
            self.server.start()
        turn()
        until(lambda: self.server.stats.open == 0)
        last = self.connect_last()
        until(lambda: self.server.stats.open == 1)
        last.sock.close()

    def connect_last(self) -> Client:
        """Connect as soon as there is room among the arrivals."""
        for _ in range(100):
            with suppress(TimeoutError):
                return Client(self.server.addresses[0], self.context)
            turn()
        raise AssertionError("the server lets nobody in")

    def end(self) -> None:
        turn()  # a stop that was asked for has begun
        if not self.server.is_listening:
            self.server.start()
        for client in self.clients:
            client.sock.close()
        if not self.server.closing:
            self.check_that_it_serves()
        self.server.close()
        for thread in threads_of_servers():
            thread.join()
        turn()
        sleep(1000)
        self.check()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("strategy", list(HANDLERS))
def test_nothing_is_lost_and_nothing_is_left(
    strategy: str, certificates: Any, reports: list[Any], seed: int
) -> None:
    turn()
    before = open_descriptors()
    world = World(strategy, certificates, seed)
    for _ in range(STEPS):
        world.step()
    world.end()
    acceptor = world.server._acceptor
    assert (acceptor._admission.open, acceptor._admission._by_host) == (0, {})
    assert world.server._awaiting == {}
    assert open_descriptors() == before
    assert all(isinstance(report, LookupError) for report in reports), reports
    if strategy != "threadpool":
        assert world.server.stats.errors["handler"] == len(reports)
    # Whatever has been, it serves again.
    with world.server:
        client = Client(world.server.addresses[0], world.context)
        turn()
        assert world.server.stats.open == 1
        client.sock.close()
    assert world.server.stats.open == 0
    for thread in threads_of_servers():
        thread.join()
