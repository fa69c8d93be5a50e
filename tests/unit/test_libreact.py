"""pycoronet.libreact: the reactor's functions, in virtual time."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
from connections import Ends, drain_now

import pycoronet
from pycoronet import libreact
from pycoronet.libreact import (
    Reactor,
    reactor_add,
    reactor_add_timer,
    reactor_close,
    reactor_conn,
    reactor_init,
    reactor_make_timer,
    reactor_remove,
    reactor_reset_timer,
    reactor_review,
    reactor_stop,
)

pytestmark = pytest.mark.usefixtures("virtual_hub")


class Told:
    """A reactor whose functions write down what they are called for."""

    def __init__(self, **actions: Callable[[Reactor, int], object]) -> None:
        self.log: list[tuple[str, int]] = []
        names = ("on_data", "on_ready", "on_shutdown", "on_close")
        functions: dict[str, Any] = {name: self.noting(name, actions.get(name)) for name in names}
        self.reactor = Reactor(**functions)

    def noting(self, name: str, action: Any) -> Callable[[Reactor, int], object]:
        def function(reactor: Reactor, fd: int) -> None:
            assert reactor is self.reactor
            self.log.append((name, fd))
            if action is not None:
                action(reactor, fd)

        return function


def descriptors(ends: Ends) -> tuple[int, socket.socket]:
    left, right = ends.sockets()
    return left.detach(), right


@pytest.fixture
def told(request: pytest.FixtureRequest) -> Any:
    """Return a maker of reactors that are stopped in the end."""
    made: list[Told] = []

    def make(**actions: Any) -> Told:
        made.append(Told(**actions))
        return made[-1]

    yield make
    for one in made:
        reactor_stop(one.reactor)
        reactor_review(one.reactor)


def test_on_data_by_edges_and_on_close_by_the_peer(ends: Ends, told: Any) -> None:
    one = told(on_data=lambda reactor, fd: os.read(fd, 100))
    fd, peer = descriptors(ends)
    assert reactor_add(one.reactor, fd) == 0
    assert reactor_review(one.reactor) == 0  # that it can be written to is no news
    assert one.log == []
    peer.sendall(b"x")
    assert reactor_review(one.reactor) == 1
    assert one.log == [("on_data", fd)]
    assert reactor_review(one.reactor) == 0
    assert one.log == [("on_data", fd)]
    peer.close()
    reactor_review(one.reactor)
    assert one.log[-1] == ("on_close", fd)
    assert one.log.count(("on_close", fd)) == 1
    with pytest.raises(OSError, match="not the reactor's"):
        reactor_conn(one.reactor, fd)


def test_on_ready_when_there_is_room_again(ends: Ends, told: Any) -> None:
    one = told()
    fd, peer = descriptors(ends)
    reactor_add(one.reactor, fd)
    conn = reactor_conn(one.reactor, fd)
    conn.enqueue(b"x" * 1_000_000)
    reactor_review(one.reactor)
    assert conn.pending > 0
    got = 0
    while got < 1_000_000:
        got += len(drain_now(peer))
        reactor_review(one.reactor)
    assert ("on_ready", fd) in one.log
    assert conn.pending == 0


def test_reactor_close_and_remove(ends: Ends, told: Any) -> None:
    one = told()
    first, _ = descriptors(ends)
    second, peer = descriptors(ends)
    reactor_add(one.reactor, first)
    reactor_add(one.reactor, second)
    assert reactor_close(one.reactor, first) == 0
    assert reactor_remove(one.reactor, second) == 0
    reactor_review(one.reactor)
    assert one.log == [("on_close", first)]
    os.write(second, b"still open")
    assert peer.recv(100) == b"still open"
    os.close(second)
    for call in (reactor_close, reactor_remove):
        with pytest.raises(OSError, match="not the reactor's"):
            call(one.reactor, second)


def test_an_sk_conn_can_be_added_and_stays_what_it_is(ends: Ends, told: Any) -> None:
    one = told()
    conn, peer = ends.pair()
    reactor_add(one.reactor, conn)
    assert reactor_conn(one.reactor, conn.sfd) is conn
    peer.sendall(b"x")
    reactor_review(one.reactor)
    assert conn.take(10) == b"x"
    reactor_remove(one.reactor, conn.sfd)
    assert not conn.closed


def test_stop_tells_every_descriptor_and_closes_it(ends: Ends, told: Any) -> None:
    def goodbye(reactor: Reactor, fd: int) -> None:
        reactor_conn(reactor, fd).write(b"bye")

    one = told(on_shutdown=goodbye)
    fds = []
    peers = []
    for _ in range(2):
        fd, peer = descriptors(ends)
        reactor_add(one.reactor, fd)
        fds.append(fd)
        peers.append(peer)
    reactor_review(one.reactor)
    assert reactor_stop(one.reactor) == 0
    assert one.log == []
    assert reactor_review(one.reactor) == -1
    assert sorted(one.log) == sorted(
        [("on_shutdown", fd) for fd in fds] + [("on_close", fd) for fd in fds]
    )
    assert one.log.index(("on_shutdown", fds[0])) < one.log.index(("on_close", fds[0]))
    assert [peer.recv(10) for peer in peers] == [b"bye", b"bye"]
    assert reactor_review(one.reactor) == -1
    assert len(one.log) == 4
    with pytest.raises(OSError, match="stopped"):
        reactor_add(one.reactor, 0)
    assert reactor_init(one.reactor) == 0
    assert reactor_review(one.reactor) == 0


def test_a_shutdown_that_raises_keeps_none_back(ends: Ends, told: Any, reports: list[Any]) -> None:
    def fail(reactor: Reactor, fd: int) -> None:
        raise ZeroDivisionError

    one = told(on_shutdown=fail)
    for _ in range(2):
        reactor_add(one.reactor, descriptors(ends)[0])
    reactor_stop(one.reactor)
    assert reactor_review(one.reactor) == -1
    assert [name for name, _ in one.log].count("on_close") == 2
    assert len(reports) == 2


def test_last_tick_and_the_length_of_a_cycle(monkeypatch: pytest.MonkeyPatch, told: Any) -> None:
    one = told()
    hub = pycoronet.get_hub()
    timer = hub.call_later(100, print)  # without it nothing could wake the wait
    monkeypatch.setattr("time.time", lambda: 12345.5)
    start = hub.time
    assert reactor_review(one.reactor) == 0
    assert hub.time - start <= 1.001
    assert one.reactor.last_tick == 12345.5
    timer.cancel()


def test_timers_repeat_and_can_be_closed(told: Any) -> None:
    one = told()
    hub = pycoronet.get_hub()
    fd = reactor_make_timer()
    assert reactor_add_timer(one.reactor, fd, 2500) == 0
    start = hub.time
    while hub.time - start < 11:
        reactor_review(one.reactor)
    assert one.log == [("on_data", fd)] * 4
    assert reactor_reset_timer(one.reactor, fd) == 0
    start = hub.time
    while len(one.log) == 4:
        reactor_review(one.reactor)
    assert hub.time - start >= 2.5
    reactor_close(one.reactor, fd)
    reactor_review(one.reactor)
    assert one.log[-1] == ("on_close", fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_timers_are_told_of_the_shutdown(told: Any) -> None:
    one = told()
    fd = reactor_make_timer()
    reactor_add_timer(one.reactor, fd, 1)
    reactor_stop(one.reactor)
    assert reactor_review(one.reactor) == -1
    assert one.log == [("on_shutdown", fd), ("on_close", fd)]


def test_wrong_descriptors(ends: Ends, told: Any) -> None:
    one = told()
    one.reactor.maxfd = 500
    fd, _ = descriptors(ends)
    reactor_add(one.reactor, fd)
    timer = reactor_make_timer()
    reactor_add_timer(one.reactor, timer, 1000)
    wrong: list[tuple[Callable[[], object], str]] = [
        (lambda: reactor_add(one.reactor, fd), "already"),
        (lambda: reactor_add(one.reactor, 501), "maxfd"),
        (lambda: reactor_add(one.reactor, -1), "closed"),
        (lambda: reactor_add(one.reactor, 499), "Bad file descriptor"),
        (lambda: reactor_add_timer(one.reactor, timer, 5), "already"),
        (lambda: reactor_add_timer(one.reactor, 499, 5), "Bad file descriptor"),
        (lambda: reactor_reset_timer(one.reactor, fd), "no timer"),
        (lambda: reactor_remove(one.reactor, timer), "closed, not removed"),
        (lambda: reactor_conn(one.reactor, timer), "no connection"),
    ]
    for call, message in wrong:
        with pytest.raises(OSError, match=message):
            call()
    spare = reactor_make_timer()
    with pytest.raises(ValueError, match="more than 0"):
        reactor_add_timer(one.reactor, spare, 0)
    os.close(spare)


def test_a_reactor_without_functions_closes_what_ends(ends: Ends) -> None:
    reactor = Reactor()
    fd, peer = descriptors(ends)
    reactor_add(reactor, fd)
    timer = reactor_make_timer()
    reactor_add_timer(reactor, timer, 100)
    peer.sendall(b"x")
    for _ in range(5):
        reactor_review(reactor)
    peer.close()
    conn = reactor_conn(reactor, fd)
    assert conn.take(10) == b"x"
    reactor_stop(reactor)
    assert reactor_review(reactor) == -1
    assert conn.closed


def test_accepting_until_nothing_waits(ends: Ends, told: Any) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    server.setblocking(False)
    address = server.getsockname()
    accepted = []

    def accept_all(reactor: Reactor, fd: int) -> None:
        while True:
            try:
                accepted.append(ends.keep(server.accept()[0]))
            except BlockingIOError:
                return

    one = told(on_data=accept_all)
    reactor_add(one.reactor, os.dup(server.fileno()))
    peers = [ends.keep(socket.create_connection(address)) for _ in range(3)]
    reactor_review(one.reactor)
    assert len(accepted) == len(peers)
    server.close()


def test_tasks_run_beside_the_reactor(told: Any) -> None:
    one = told()
    done: list[int] = []
    pycoronet.spawn(lambda: (pycoronet.sleep(0.5), done.append(1)))
    while not done:
        assert reactor_review(one.reactor) == 0


def test_all_names_are_there() -> None:
    for name in libreact.__all__:
        assert hasattr(libreact, name)
