"""connect(): names, several addresses, refusals, limits of time, cancelling."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from connections import MOMENT, Ends, attempt, open_descriptors

import pycoronet
from pycoronet import Cancelled, connect, get_hub, listen, sleep, spawn

HOST = "127.0.0.1"

# Attempts of made-up addresses go nowhere: what becomes of one is said by its port.
SILENT, REFUSED, QUICK = range(3)


@pytest.fixture
def listener() -> Iterator[Any]:
    with listen((HOST, 0)) as opened:
        yield opened


def entry(host: str, port: int) -> tuple[int, int, int, str, Any]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return (family, socket.SOCK_STREAM, 6, "", (host, port))


def resolve_to(monkeypatch: pytest.MonkeyPatch, *found: tuple[int, int, int, str, Any]) -> None:
    monkeypatch.setattr(pycoronet._sockets, "getaddrinfo", lambda *_, **__: list(found))


class Network:
    """Stands in for the attempts: which address answers, and after how long."""

    def __init__(self, ends: Ends, outcomes: dict[str, tuple[float, object]]) -> None:
        self.ends = ends
        self.outcomes = outcomes
        self.started: list[tuple[str, float]] = []
        self.open: list[Any] = []
        self.began = get_hub().time

    def attempt(self, _: int, address: Any) -> Any:
        """Do what connecting does: wait, then give a connection or raise."""
        host = address[0]
        self.started.append((host, round(get_hub().time - self.began, 3)))
        seconds, outcome = self.outcomes[host]
        left, _ = self.ends.sockets()
        conn = self.ends.conn(left)
        self.open.append(conn)
        try:
            sleep(seconds)
            if isinstance(outcome, Exception):
                raise outcome
        except BaseException:
            conn.abort()
            raise
        return conn


@pytest.fixture
def make_network(virtual_hub: pycoronet.Hub, ends: Ends, monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(**outcomes: tuple[float, object]) -> Network:
        network = Network(ends, outcomes)
        resolve_to(monkeypatch, *[entry(host, 1) for host in outcomes])
        monkeypatch.setattr(pycoronet._sockets, "_attempt", network.attempt)
        return network

    return make


def refusal() -> OSError:
    return ConnectionRefusedError(errno.ECONNREFUSED, "refused")


# --- For real --------------------------------------------------------------------------------


def test_by_number(listener: Any) -> None:
    with connect(listener.getsockname()) as conn:
        accepted, address = listener.accept()
        assert address == conn.getsockname()
        assert conn.getpeername() == listener.getsockname()
        assert conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        assert os.get_inheritable(conn.fileno()) is False
        assert os.get_blocking(conn.fileno()) is False
        accepted.close()


def test_by_name(listener: Any) -> None:
    with connect(("localhost", listener.getsockname()[1])) as conn:
        accepted, _ = listener.accept()
        conn.write(b"x")
        assert accepted.recv(1) == b"x"
        accepted.close()


def test_by_service_name() -> None:
    # Nobody listens there; what counts is that the name was looked up.
    error = attempt(connect, (HOST, "tcpmux"))
    assert isinstance(error, OSError)


def test_refused(listener: Any) -> None:
    address = listener.getsockname()
    listener.close()
    sleep(0.001)
    before = open_descriptors()
    for _ in range(5):
        with pytest.raises(ConnectionRefusedError) as caught:
            connect(address)
        assert caught.value.errno == errno.ECONNREFUSED
    assert open_descriptors() == before


def test_an_unknown_name() -> None:
    with pytest.raises(socket.gaierror):
        connect(("no-such-host.invalid", 80))


def test_a_unix_path_that_is_not_there(tmp_path: Path) -> None:
    sleep(0.001)
    before = open_descriptors()
    with pytest.raises(FileNotFoundError):
        connect(tmp_path / "nothing")
    with pytest.raises(ValueError, match="at most"):
        connect("x" * 1000)
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("address", "error"),
    [
        (None, TypeError),
        (5, TypeError),
        ((), (TypeError, ValueError)),
        ((HOST,), (TypeError, ValueError)),
        ((HOST, None), (TypeError, OSError)),
        ((HOST, 1 << 70), (OverflowError, OSError)),
        ((HOST, -1), (OverflowError, OSError)),
        (("", 1), OSError),
    ],
)
def test_wrong_addresses(address: Any, error: type[Exception]) -> None:
    sleep(0.001)
    before = open_descriptors()
    with pytest.raises(error):
        connect(address)
    assert open_descriptors() == before


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1"])
def test_wrong_timeouts(listener: Any, timeout: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        connect(listener.getsockname(), timeout=timeout)


def test_the_first_of_two_addresses_refuses(listener: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((HOST, 0)) as closed:
        unused = closed.getsockname()[1]
    resolve_to(monkeypatch, entry(HOST, unused), entry(*listener.getsockname()))
    with connect(("anything", 1)) as conn:
        assert conn.getpeername() == listener.getsockname()
    resolve_to(monkeypatch, entry(HOST, unused), entry(HOST, unused))
    with pytest.raises(ConnectionRefusedError):
        connect(("anything", 1))


def test_names_are_looked_up_without_blocking(
    listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    real = socket.getaddrinfo

    def slow(*arguments: Any, **keywords: Any) -> Any:
        go_on.wait(30)
        return real(*arguments, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    connecting = spawn(connect, ("localhost", listener.getsockname()[1]))
    for _ in range(10):
        sleep(0)
    assert not connecting.done  # and we are here
    go_on.set()
    connecting.get().close()


def test_a_limit_of_time_while_the_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: go_on.wait(30))
    try:
        with pytest.raises(TimeoutError):
            connect(("localhost", 1), timeout=0.01)
    finally:
        go_on.set()


def full_listener() -> tuple[socket.socket, list[socket.socket]]:
    """Return a listener whose queue is full, so that an attempt to connect hangs."""
    server = socket.create_server((HOST, 0), backlog=0)
    clients = []
    for _ in range(4):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(server.getsockname())
        clients.append(client)
    return server, clients


@pytest.mark.linux_only
def test_a_limit_of_time_for_an_attempt_that_hangs() -> None:
    server, clients = full_listener()
    sleep(0.001)
    before = open_descriptors()
    with pytest.raises(TimeoutError):
        connect(server.getsockname(), timeout=0.05)
    sleep(0)
    assert open_descriptors() == before
    for sock in [server, *clients]:
        sock.close()


@pytest.mark.linux_only
@pytest.mark.parametrize("addresses", [1, 3])
def test_cancelled_in_the_middle_leaves_nothing_open(
    addresses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, clients = full_listener()
    resolve_to(monkeypatch, *[entry(*server.getsockname())] * addresses)
    monkeypatch.setattr(pycoronet._sockets, "ATTEMPT_DELAY", 0.001)
    sleep(0.001)
    before = open_descriptors()
    task = spawn(connect, ("anything", 1))
    while len(open_descriptors()) < len(before) + addresses:
        sleep(0.001)
    task.cancel()
    with pytest.raises(Cancelled):
        task.get()
    get_hub().run()
    assert open_descriptors() == before
    for sock in [server, *clients]:
        sock.close()


# --- Several addresses, in virtual time -----------------------------------------------------------


def test_the_first_to_answer_wins(make_network: Any) -> None:
    network = make_network(slow=(60, None), quick=(0.1, None), never=(1000, None))
    conn = connect(("name", 1))
    assert conn is network.open[1]
    assert network.started == [("slow", 0), ("quick", 0.25)]
    sleep(MOMENT)
    assert [conn.closed for conn in network.open] == [True, False]


def test_one_answers_late_when_others_have_begun(make_network: Any) -> None:
    network = make_network(slow=(0.6, None), a=(1000, None), b=(1000, None), c=(1000, None))
    conn = connect(("name", 1))
    assert conn is network.open[0]
    assert network.started == [("slow", 0), ("a", 0.25), ("b", 0.5)]
    sleep(MOMENT)
    assert [conn.closed for conn in network.open] == [False, True, True]


def test_a_refusal_tries_the_next_at_once(make_network: Any) -> None:
    network = make_network(a=(0, refusal()), b=(0.1, refusal()), c=(0, None))
    assert connect(("name", 1)) is network.open[2]
    assert network.started == [("a", 0), ("b", 0), ("c", 0.1)]


def test_all_fail(make_network: Any) -> None:
    last = refusal()
    unreachable = OSError(errno.ENETUNREACH, "unreachable")
    network = make_network(a=(0, refusal()), b=(1, last), c=(0, unreachable))
    with pytest.raises(OSError, match="refused") as caught:
        connect(("name", 1))
    assert caught.value is last  # the one that came last
    assert len(network.started) == 3
    assert all(conn.closed for conn in network.open)


def test_another_kind_of_failure_is_raised_too(make_network: Any) -> None:
    make_network(a=(0, MemoryError()), b=(0, OverflowError("port")))
    with pytest.raises(OverflowError):
        connect(("name", 1))


def test_the_limit_of_time_is_for_everything(make_network: Any) -> None:
    network = make_network(a=(1000, None), b=(1000, None))
    hub = get_hub()
    began = hub.time
    with pytest.raises(TimeoutError):
        connect(("name", 1), timeout=3)
    assert hub.time - began == pytest.approx(3)
    sleep(MOMENT)
    assert [conn.closed for conn in network.open] == [True, True]


@pytest.mark.parametrize("seconds", [0.1, 0.25, 0.3, 0.5])
def test_answers_at_the_very_end_leave_nothing_open(make_network: Any, seconds: float) -> None:
    # Whether the answer or the limit comes first, no connection is left behind.
    network = make_network(a=(seconds, None), b=(max(seconds - 0.25, 0), None))
    outcome = attempt(lambda: connect(("name", 1), timeout=seconds))
    sleep(MOMENT)
    left_open = [conn for conn in network.open if not conn.closed]
    assert left_open == ([] if isinstance(outcome, TimeoutError) else [outcome])


def test_an_attempt_that_was_woken_when_the_race_was_cancelled(make_network: Any) -> None:
    network = make_network(a=(10, None), b=(10, None))
    racer: list[Any] = []

    def cancel() -> None:
        sleep(10)
        racer[0].cancel()  # in the turn in which the first attempt is ready, before it runs

    spawn(cancel)
    sleep(0)
    racer.append(spawn(lambda: attempt_or_cancelled(("name", 1))))
    outcome = racer[0].get()
    sleep(MOMENT)
    sleep(1)
    left_open = [conn for conn in network.open if not conn.closed]
    assert left_open == ([outcome] if outcome is not None else [])


def attempt_or_cancelled(address: Any) -> Any:
    try:
        return connect(address)
    except Cancelled:
        return None


def test_the_families_take_turns(make_network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_network()
    hosts = ["::1", "::2", "::3", "1.1.1.1", "2.2.2.2"]
    resolve_to(monkeypatch, *[entry(host, 1) for host in hosts])
    network.outcomes = dict.fromkeys(hosts, (0, refusal()))
    with pytest.raises(ConnectionRefusedError):
        connect(("name", 1))
    assert [host for host, _ in network.started] == ["::1", "1.1.1.1", "::2", "2.2.2.2", "::3"]
