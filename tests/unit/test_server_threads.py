"""Server with strategy="threadpool": a native thread for each connection; the pool; failures."""

from __future__ import annotations

import contextvars
import errno
import os
import socket
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from thread_case import LOCAL, NAME, Gate, ask, echo, threads_of_servers, until, until_served

from pycoronet import Server, current, get_hub, sleep, spawn
from pycoronet.server import _thread_strategy

# --- Serving ----------------------------------------------------------------------------------


def test_a_connection_has_a_thread_with_a_hub_of_its_own(
    start_server: Callable[..., Any], call_server: Callable[..., Any]
) -> None:
    seen: list[Any] = []

    def handler(conn: Any, address: Any) -> None:
        seen.append((threading.current_thread(), get_hub(), conn.server.owner, address))
        assert spawn(sum, [1, 2]).get() == 3
        conn.write(conn.readln() * 2)

    server = start_server(handler, owner="somebody")
    conn = call_server(server)
    assert ask(conn, b"abc\n") == b"abc\n"
    assert conn.readln() == b"abc\n"
    assert conn.readsome(1) == b""
    until(lambda: server.stats.connections_served == 1)
    ((thread, hub, owner, address),) = seen
    assert thread is not threading.current_thread()
    assert thread.daemon
    assert hub is not get_hub()
    assert owner == "somebody"
    assert address == conn.getsockname()
    assert (server.stats.bytes_read, server.stats.bytes_sent) == (4, 8)
    assert server.stats.open == 0


def test_a_thread_keeps_its_hub_for_the_next_connection(
    start_server: Callable[..., Any], call_server: Callable[..., Any]
) -> None:
    hubs: list[Any] = []

    def handler(conn: Any, _: object) -> None:
        hubs.append(get_hub())

    server = start_server(handler)
    for number in range(5):
        assert call_server(server).readsome(1) == b""
        until_served(server, number + 1)
    assert len({id(hub) for hub in hubs}) == 1
    assert server.stats.threads == 1


def test_a_blocked_thread_stalls_nobody(
    start_server: Callable[..., Any], call_server: Callable[..., Any], gate: Gate
) -> None:
    def handler(conn: Any, address: Any) -> None:
        if conn.readln() == b"block\n":
            gate(conn, address)
        else:
            echo(conn, address)

    server = start_server(handler)
    blocked = [call_server(server) for _ in range(3)]
    for conn in blocked:
        conn.write(b"block\n")
    until(lambda: gate.count == 3)
    for _ in range(3):
        conn = call_server(server)
        conn.write(b"go\n")
        assert ask(conn) == b"hello\n"
        conn.close()
    gate.opened.set()
    assert [conn.readln() for conn in blocked] == [b"done\n"] * 3


def test_500_connections_are_served_by_50_threads(
    start_server: Callable[..., Any], call_server: Callable[..., Any]
) -> None:
    def handler(conn: Any, _: object) -> None:
        conn.write(conn.readln())

    server = start_server(handler, poolsize_min=5)
    conns = [call_server(server) for _ in range(500)]
    for number, conn in enumerate(conns):
        conn.write(b"%d\n" % number)
    assert [conn.readln() for conn in conns] == [b"%d\n" % number for number in range(500)]
    until(lambda: server.stats.open == 0)
    assert server.stats.connections_served == server.stats.accepted == 500
    assert server.stats.threads <= 50
    assert sum(server.stats.shed.values()) == sum(server.stats.errors.values()) == 0


def test_context_variables_are_those_of_the_server_and_do_not_go_from_one_to_the_next(
    start_server: Callable[..., Any], call_server: Callable[..., Any]
) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
    seen: list[int] = []

    def handler(conn: Any, _: object) -> None:
        seen.append(variable.get())
        variable.set(0)

    variable.set(5)
    server = start_server(handler)
    for count in (1, 2):
        assert call_server(server).readsome(1) == b""
        until_served(server, count)
    assert seen == [5, 5]


def test_a_handler_that_cancels_itself_harms_nobody(
    start_server: Callable[..., Any], call_server: Callable[..., Any], reports: list[Any]
) -> None:
    def handler(conn: Any, _: object) -> None:
        if conn.readln() == b"cancel\n":
            current().cancel()  # type: ignore[union-attr]
        echo(conn, None)

    server = start_server(handler)
    conn = call_server(server)
    conn.write(b"cancel\n")
    assert conn.readsome(1) == b""
    until(lambda: server.stats.connections_served == 1)
    other = call_server(server)
    other.write(b"go on\n")
    assert ask(other) == b"hello\n"
    assert server.stats.threads == 1
    assert sum(server.stats.errors.values()) == 0
    assert reports == []


def test_what_the_peer_has_not_taken_yet_is_sent_before_the_thread_goes_on(
    start_server: Callable[..., Any], call_server: Callable[..., Any]
) -> None:
    data = bytes(range(256)) * 40_000

    def handler(conn: Any, _: object) -> None:
        conn.enqueue(data)

    server = start_server(handler, poolsize_max=1)
    first, second = call_server(server), call_server(server)
    assert first.read_exactly(len(data)) == data
    assert first.readsome(1) == b""
    assert second.read_exactly(len(data)) == data


def test_tasks_that_the_handler_has_left_behind_come_to_their_end(
    start_server: Callable[..., Any], call_server: Callable[..., Any]
) -> None:
    ended: list[str] = []

    def work() -> None:
        sleep(0.001)
        ended.append(threading.current_thread().name)

    server = start_server(lambda conn, _: spawn(work) and None)
    assert call_server(server).readsome(1) == b""
    until(lambda: server.stats.connections_served)
    assert ended == [NAME]


@pytest.mark.parametrize("way", ["close", "detach", "abort"])
def test_a_handler_may_end_the_connection_itself(
    start_server: Callable[..., Any], call_server: Callable[..., Any], way: str, reports: list[Any]
) -> None:
    def handler(conn: Any, _: object) -> None:
        if way == "detach":
            socket.socket(fileno=conn.detach()).close()
        else:
            getattr(conn, way)()

    server = start_server(handler)
    for count in (1, 2):
        assert call_server(server).readsome(1) == b""
        until_served(server, count)
    assert server.stats.open == 0
    assert reports == []


# --- The size of the pool -----------------------------------------------------------------------


def test_the_fewest_threads_are_there_from_the_start(start_server: Callable[..., Any]) -> None:
    server = start_server(echo, poolsize_min=3)
    assert len(threads_of_servers()) == 3
    server._strategy._sweep()
    assert server.stats.threads == 3


def test_idle_threads_leave_down_to_the_minimum(
    start_server: Callable[..., Any], call_server: Callable[..., Any]
) -> None:
    server = start_server(echo, poolsize_min=2, poolsize_max=6, delay=0.001)
    conns = [call_server(server) for _ in range(6)]
    assert [ask(conn) for conn in conns] == [b"hello\n"] * 6
    until(lambda: server.stats.threads == 6)
    for conn in conns:
        conn.close()
    until(lambda: server.stats.threads == 2)
    until(lambda: len(threads_of_servers()) == 2)
    assert ask(call_server(server)) == b"hello\n"


def test_more_than_the_pool_may_have_wait_and_more_than_the_backlog_are_shed(
    start_server: Callable[..., Any], call_server: Callable[..., Any], gate: Gate
) -> None:
    server = start_server(gate, poolsize_max=2, backlog=2)
    conns: list[Any] = []
    for number in range(6):
        conns.append(call_server(server))
        until(lambda number=number: server.stats.accepted > number)  # type: ignore[misc]
    until(lambda: gate.count == 2)
    assert server.stats.threads == 2
    assert server.stats.waiting == 2
    assert server.stats.open == 4
    assert server.stats.shed["pool"] == 2
    assert [conn.readsome(1) for conn in conns[4:]] == [b"", b""]
    gate.opened.set()
    assert [conn.readln() for conn in conns[:4]] == [b"done\n"] * 4
    until(lambda: server.stats.open == 0)
    assert server.stats.waiting == 0
    assert server.stats.connections_served == 4
    assert sum(server.stats.shed.values()) == 2


def test_accepting_pauses_at_max_connections_and_goes_on(
    start_server: Callable[..., Any], call_server: Callable[..., Any], gate: Gate
) -> None:
    server = start_server(gate, max_connections=2)
    conns = [call_server(server) for _ in range(4)]
    until(lambda: gate.count == 2)
    assert server.stats.accepted == server.stats.open == 2
    gate.opened.set()
    assert [conn.readln() for conn in conns] == [b"done\n"] * 4
    until(lambda: server.stats.connections_served == 4)


def test_without_any_thread_a_connection_is_shed(
    start_server: Callable[..., Any],
    call_server: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    server = start_server(echo)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert call_server(server).readsome(1) == b""
        assert server.stats.shed["pool"] == 1
        with pytest.raises(RuntimeError, match="can't start"):
            start_server(echo, poolsize_min=1)
    assert server.stats.open == server.stats.connections_served == 0
    assert ask(call_server(server)) == b"hello\n"


def test_a_server_that_cannot_have_its_threads_has_none(
    start_server: Callable[..., Any],
    call_server: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start
    count = 0

    def refuse_the_third(thread: threading.Thread) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise RuntimeError("can't start new thread")
        start(thread)

    server = Server(LOCAL, echo, strategy="threadpool", poolsize_min=4)
    server.listen()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse_the_third)
        with pytest.raises(RuntimeError, match="can't start"):
            server.start()
    until(lambda: not threads_of_servers())
    server.start()  # it listens as before
    assert ask(call_server(server)) == b"hello\n"
    server.close()


def test_a_thread_without_descriptors_for_its_hub_sheds_the_connection(
    start_server: Callable[..., Any],
    call_server: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    server = start_server(echo)
    with monkeypatch.context() as patch:
        patch.setattr(_thread_strategy, "get_hub", refuse)
        assert call_server(server).readsome(1) == b""
        until(lambda: server.stats.shed["descriptors"] == 1)
    assert server.stats.open == server.stats.connections_served == 0
    assert ask(call_server(server)) == b"hello\n"


def test_a_connection_that_was_shed_is_counted_though_the_server_closes_at_once(
    start_server: Callable[..., Any],
    call_server: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_go_on = threading.Event()

    def refuse() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    def close_and_hold(fd: int) -> None:
        os.close(fd)
        assert may_go_on.wait(timeout=30)

    server = start_server(echo)
    monkeypatch.setattr(_thread_strategy, "get_hub", refuse)
    monkeypatch.setattr(_thread_strategy, "os", SimpleNamespace(close=close_and_hold))
    try:
        assert call_server(server).readsome(1) == b""
        server.close()  # before the thread has come back
        assert server.stats.shed["descriptors"] == 1
    finally:
        may_go_on.set()


# --- Failures -----------------------------------------------------------------------------------


def test_what_a_handler_raises_is_reported_and_counted(
    start_server: Callable[..., Any], call_server: Callable[..., Any], reports: list[Any]
) -> None:
    def handler(conn: Any, _: object) -> None:
        raise LookupError("oh")

    server = start_server(handler)
    for count in (1, 2):
        assert call_server(server).readsome(1) == b""
        until_served(server, count)
    assert [type(error) for error in reports] == [LookupError] * 2
    assert server.stats.errors["handler"] == 2
    assert server.stats.open == 0
    assert server.stats.threads == 1


def test_memory_that_is_out_at_the_beginning_is_reported(
    start_server: Callable[..., Any],
    call_server: Callable[..., Any],
    reports: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise MemoryError

    server = start_server(echo)
    with monkeypatch.context() as patch:
        patch.setattr(_thread_strategy, "get_hub", refuse)
        assert call_server(server).readsome(1) == b""
        until(lambda: server.stats.connections_served)
    assert [type(error) for error in reports] == [MemoryError]
    assert ask(call_server(server)) == b"hello\n"


def test_a_peer_that_breaks_off_is_counted_and_not_reported(
    start_server: Callable[..., Any], ends: Any, reports: list[Any]
) -> None:
    server = start_server(echo)
    peer = ends.keep(socket.create_connection(server.addresses[0]))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    until(lambda: server.stats.open)
    peer.close()
    until(lambda: not server.stats.open)
    assert server.stats.errors["reset"] == 1
    assert reports == []


def test_a_handler_that_exits_ends_the_main_program(
    start_server: Callable[..., Any], call_server: Callable[..., Any]
) -> None:
    def handler(conn: Any, _: object) -> None:
        raise SystemExit(7)

    server = start_server(handler)
    spawn(lambda: call_server(server))
    with pytest.raises(SystemExit) as caught:
        server.serve_forever()
    assert caught.value.code == 7
    assert not server.is_listening


# --- TLS ----------------------------------------------------------------------------------------


def test_tls_is_done_in_the_thread(
    start_server: Callable[..., Any], call_server: Callable[..., Any], certificates: Any
) -> None:
    seen: list[Any] = []

    def handler(conn: Any, address: Any) -> None:
        seen.append((conn.tls.version(), threading.current_thread().name))
        echo(conn, address)

    server = start_server(handler, tls=certificates.server_context())
    context = certificates.client_context()
    conns = [call_server(server, tls=context, server_hostname="localhost") for _ in range(3)]
    assert [ask(conn) for conn in conns] == [b"hello\n"] * 3
    assert seen == [("TLSv1.3", NAME)] * 3


def test_a_failed_handshake_is_counted_and_harms_nobody(
    start_server: Callable[..., Any],
    call_server: Callable[..., Any],
    certificates: Any,
    reports: list[Any],
) -> None:
    server = start_server(echo, tls=certificates.server_context())
    conn = call_server(server)
    conn.write(b"GET / HTTP/1.0\r\n\r\n" * 20)
    while conn.readsome(1000):
        pass
    until(lambda: server.stats.errors["tls"] == 1)
    until(lambda: server.stats.open == 0)
    good = call_server(server, tls=certificates.client_context(), server_hostname="localhost")
    assert ask(good) == b"hello\n"
    assert reports == []
