"""Server with strategy="threadpool": a native thread for each connection."""

from __future__ import annotations

import contextvars
import errno
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from processes import lines_of

import pycoronet
import pycoronet.testing
from pycoronet import Cancelled, Server, connect, current, get_hub, sleep, spawn
from pycoronet.server import _strategies, _thread_strategy

LOCAL = ("127.0.0.1", 0)
NAME = "pycoronet server"


def echo(conn: Any, _: object) -> None:
    for line in conn:
        conn.write(line)


def threads_of_servers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


@pytest.fixture(autouse=True)
def _ends_all_threads() -> Iterator[None]:
    yield
    for thread in threads_of_servers():
        thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[..., Any]]:
    """Return a function that starts a server; closed in the end."""
    servers: list[Any] = []

    def start(handler: Any, **settings: Any) -> Any:
        settings = {"strategy": "threadpool", "poolsize_min": 0, **settings}
        servers.append(Server(LOCAL, handler, **settings))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def call(ends: Any) -> Callable[..., Any]:
    """Return a function that connects to a server, on the hub that accepts as well."""

    def call(server: Any, **settings: Any) -> Any:
        return ends.keep(connect(server.addresses[0], **settings))

    return call


@pytest.fixture
def virtual_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have time pass in the threads' hubs as soon as nothing else goes on there."""
    get_hub()
    monkeypatch.setenv("PYCORONET_ENGINE", "fake")


def until(condition: Callable[[], Any]) -> None:
    """Wait for what other threads have to do first."""
    while not condition():
        sleep(0.001)


def ask(conn: Any, line: bytes = b"hello\n") -> bytes:
    conn.write(line)
    answer: bytes = conn.readln()
    return answer


class Gate:
    """A handler that blocks its thread, in a way that nothing can end but opening it."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.count = 0

    def __call__(self, conn: Any, _: object) -> None:
        self.count += 1
        self.opened.wait()
        conn.write(b"done\n")


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


# --- Serving ----------------------------------------------------------------------------------


def test_a_connection_has_a_thread_with_a_hub_of_its_own(
    serve: Callable[..., Any], call: Callable[..., Any]
) -> None:
    seen: list[Any] = []

    def handler(conn: Any, address: Any) -> None:
        seen.append((threading.current_thread(), get_hub(), conn.server.owner, address))
        assert spawn(sum, [1, 2]).get() == 3
        conn.write(conn.readln() * 2)

    server = serve(handler, owner="somebody")
    conn = call(server)
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
    serve: Callable[..., Any], call: Callable[..., Any]
) -> None:
    hubs: list[Any] = []

    def handler(conn: Any, _: object) -> None:
        hubs.append(get_hub())

    server = serve(handler)
    for number in range(5):
        assert call(server).readsome(1) == b""
        until(lambda number=number: server.stats.connections_served == number + 1)  # type: ignore[misc]
    assert len({id(hub) for hub in hubs}) == 1
    assert server.stats.threads == 1


def test_a_blocked_thread_stalls_nobody(
    serve: Callable[..., Any], call: Callable[..., Any], gate: Gate
) -> None:
    def handler(conn: Any, address: Any) -> None:
        if conn.readln() == b"block\n":
            gate(conn, address)
        else:
            echo(conn, address)

    server = serve(handler)
    blocked = [call(server) for _ in range(3)]
    for conn in blocked:
        conn.write(b"block\n")
    until(lambda: gate.count == 3)
    for _ in range(3):
        conn = call(server)
        conn.write(b"go\n")
        assert ask(conn) == b"hello\n"
        conn.close()
    gate.opened.set()
    assert [conn.readln() for conn in blocked] == [b"done\n"] * 3


def test_500_connections_are_served_by_50_threads(
    serve: Callable[..., Any], call: Callable[..., Any]
) -> None:
    def handler(conn: Any, _: object) -> None:
        conn.write(conn.readln())

    server = serve(handler, poolsize_min=5)
    conns = [call(server) for _ in range(500)]
    for number, conn in enumerate(conns):
        conn.write(b"%d\n" % number)
    assert [conn.readln() for conn in conns] == [b"%d\n" % number for number in range(500)]
    until(lambda: server.stats.open == 0)
    assert server.stats.connections_served == server.stats.accepted == 500
    assert server.stats.threads <= 50
    assert sum(server.stats.shed.values()) == sum(server.stats.errors.values()) == 0


def test_context_variables_are_those_of_the_server_and_do_not_go_from_one_to_the_next(
    serve: Callable[..., Any], call: Callable[..., Any]
) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
    seen: list[int] = []

    def handler(conn: Any, _: object) -> None:
        seen.append(variable.get())
        variable.set(0)

    variable.set(5)
    server = serve(handler)
    for count in (1, 2):
        assert call(server).readsome(1) == b""
        until(lambda count=count: server.stats.connections_served == count)  # type: ignore[misc]
    assert seen == [5, 5]


def test_a_handler_that_cancels_itself_harms_nobody(
    serve: Callable[..., Any], call: Callable[..., Any], reports: list[Any]
) -> None:
    def handler(conn: Any, _: object) -> None:
        if conn.readln() == b"cancel\n":
            current().cancel()  # type: ignore[union-attr]
        echo(conn, None)

    server = serve(handler)
    conn = call(server)
    conn.write(b"cancel\n")
    assert conn.readsome(1) == b""
    until(lambda: server.stats.connections_served == 1)
    other = call(server)
    other.write(b"go on\n")
    assert ask(other) == b"hello\n"
    assert server.stats.threads == 1
    assert sum(server.stats.errors.values()) == 0
    assert reports == []


def test_what_the_peer_has_not_taken_yet_is_sent_before_the_thread_goes_on(
    serve: Callable[..., Any], call: Callable[..., Any]
) -> None:
    data = bytes(range(256)) * 40_000

    def handler(conn: Any, _: object) -> None:
        conn.enqueue(data)

    server = serve(handler, poolsize_max=1)
    first, second = call(server), call(server)
    assert first.read_exactly(len(data)) == data
    assert first.readsome(1) == b""
    assert second.read_exactly(len(data)) == data


def test_tasks_that_the_handler_has_left_behind_come_to_their_end(
    serve: Callable[..., Any], call: Callable[..., Any]
) -> None:
    ended: list[str] = []

    def work() -> None:
        sleep(0.001)
        ended.append(threading.current_thread().name)

    server = serve(lambda conn, _: spawn(work) and None)
    assert call(server).readsome(1) == b""
    until(lambda: server.stats.connections_served)
    assert ended == [NAME]


@pytest.mark.parametrize("way", ["close", "detach", "abort"])
def test_a_handler_may_end_the_connection_itself(
    serve: Callable[..., Any], call: Callable[..., Any], way: str, reports: list[Any]
) -> None:
    def handler(conn: Any, _: object) -> None:
        if way == "detach":
            socket.socket(fileno=conn.detach()).close()
        else:
            getattr(conn, way)()

    server = serve(handler)
    for count in (1, 2):
        assert call(server).readsome(1) == b""
        until(lambda count=count: server.stats.connections_served == count)  # type: ignore[misc]
    assert server.stats.open == 0
    assert reports == []


# --- The size of the pool -----------------------------------------------------------------------


def test_the_fewest_threads_are_there_from_the_start(serve: Callable[..., Any]) -> None:
    server = serve(echo, poolsize_min=3)
    assert len(threads_of_servers()) == 3
    server._strategy._sweep()
    assert server.stats.threads == 3


def test_idle_threads_leave_down_to_the_minimum(
    serve: Callable[..., Any], call: Callable[..., Any]
) -> None:
    server = serve(echo, poolsize_min=2, poolsize_max=6, delay=0.001)
    conns = [call(server) for _ in range(6)]
    assert [ask(conn) for conn in conns] == [b"hello\n"] * 6
    until(lambda: server.stats.threads == 6)
    for conn in conns:
        conn.close()
    until(lambda: server.stats.threads == 2)
    until(lambda: len(threads_of_servers()) == 2)
    assert ask(call(server)) == b"hello\n"


def test_more_than_the_pool_may_have_wait_and_more_than_the_backlog_are_shed(
    serve: Callable[..., Any], call: Callable[..., Any], gate: Gate
) -> None:
    server = serve(gate, poolsize_max=2, backlog=2)
    conns: list[Any] = []
    for number in range(6):
        conns.append(call(server))
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
    serve: Callable[..., Any], call: Callable[..., Any], gate: Gate
) -> None:
    server = serve(gate, max_connections=2)
    conns = [call(server) for _ in range(4)]
    until(lambda: gate.count == 2)
    assert server.stats.accepted == server.stats.open == 2
    gate.opened.set()
    assert [conn.readln() for conn in conns] == [b"done\n"] * 4
    until(lambda: server.stats.connections_served == 4)


def test_without_any_thread_a_connection_is_shed(
    serve: Callable[..., Any], call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    server = serve(echo)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert call(server).readsome(1) == b""
        assert server.stats.shed["pool"] == 1
        with pytest.raises(RuntimeError, match="can't start"):
            serve(echo, poolsize_min=1)
    assert server.stats.open == server.stats.connections_served == 0
    assert ask(call(server)) == b"hello\n"


def test_a_server_that_cannot_have_its_threads_has_none(
    serve: Callable[..., Any], call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
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
    assert ask(call(server)) == b"hello\n"
    server.close()


def test_a_thread_without_descriptors_for_its_hub_sheds_the_connection(
    serve: Callable[..., Any], call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    server = serve(echo)
    with monkeypatch.context() as patch:
        patch.setattr(_thread_strategy, "get_hub", refuse)
        assert call(server).readsome(1) == b""
        until(lambda: server.stats.shed["descriptors"] == 1)
    assert server.stats.open == server.stats.connections_served == 0
    assert ask(call(server)) == b"hello\n"


# --- Failures -----------------------------------------------------------------------------------


def test_what_a_handler_raises_is_reported_and_counted(
    serve: Callable[..., Any], call: Callable[..., Any], reports: list[Any]
) -> None:
    def handler(conn: Any, _: object) -> None:
        raise LookupError("oh")

    server = serve(handler)
    for count in (1, 2):
        assert call(server).readsome(1) == b""
        until(lambda count=count: server.stats.connections_served == count)  # type: ignore[misc]
    assert [type(error) for error in reports] == [LookupError] * 2
    assert server.stats.errors["handler"] == 2
    assert server.stats.open == 0
    assert server.stats.threads == 1


def test_memory_that_is_out_at_the_beginning_is_reported(
    serve: Callable[..., Any],
    call: Callable[..., Any],
    reports: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(fd: int) -> None:
        raise MemoryError

    server = serve(echo)
    with monkeypatch.context() as patch:
        patch.setattr(_thread_strategy, "sk_conn", refuse)
        assert call(server).readsome(1) == b""
        until(lambda: server.stats.connections_served)
    assert [type(error) for error in reports] == [MemoryError]
    assert ask(call(server)) == b"hello\n"


def test_a_peer_that_breaks_off_is_counted_and_not_reported(
    serve: Callable[..., Any], ends: Any, reports: list[Any]
) -> None:
    server = serve(echo)
    peer = ends.keep(socket.create_connection(server.addresses[0]))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    until(lambda: server.stats.open)
    peer.close()
    until(lambda: not server.stats.open)
    assert server.stats.errors["reset"] == 1
    assert reports == []


def test_a_handler_that_exits_ends_the_main_program(
    serve: Callable[..., Any], call: Callable[..., Any]
) -> None:
    def handler(conn: Any, _: object) -> None:
        raise SystemExit(7)

    server = serve(handler)
    spawn(lambda: call(server))
    with pytest.raises(SystemExit) as caught:
        server.serve_forever()
    assert caught.value.code == 7
    assert not server.is_listening


# --- TLS ----------------------------------------------------------------------------------------


def test_tls_is_done_in_the_thread(
    serve: Callable[..., Any], call: Callable[..., Any], certificates: Any
) -> None:
    seen: list[Any] = []

    def handler(conn: Any, address: Any) -> None:
        seen.append((conn.tls.version(), threading.current_thread().name))
        echo(conn, address)

    server = serve(handler, tls=certificates.server_context())
    context = certificates.client_context()
    conns = [call(server, tls=context, server_hostname="localhost") for _ in range(3)]
    assert [ask(conn) for conn in conns] == [b"hello\n"] * 3
    assert seen == [("TLSv1.3", NAME)] * 3


def test_a_failed_handshake_is_counted_and_harms_nobody(
    serve: Callable[..., Any], call: Callable[..., Any], certificates: Any, reports: list[Any]
) -> None:
    server = serve(echo, tls=certificates.server_context())
    conn = call(server)
    conn.write(b"GET / HTTP/1.0\r\n\r\n" * 20)
    while conn.readsome(1000):
        pass
    until(lambda: server.stats.errors["tls"] == 1)
    until(lambda: server.stats.open == 0)
    good = call(server, tls=certificates.client_context(), server_hostname="localhost")
    assert ask(good) == b"hello\n"
    assert reports == []


# --- Limits in seconds --------------------------------------------------------------------------


@pytest.mark.usefixtures("virtual_threads")
def test_a_silent_client_is_held_off(serve: Callable[..., Any], call: Callable[..., Any]) -> None:
    server = serve(echo, idle_timeout=1000)
    assert call(server).readsome(1) == b""
    until(lambda: server.stats.errors["timeout"] == 1)
    assert server.stats.open == 0


@pytest.mark.usefixtures("virtual_threads")
def test_a_connection_lasts_no_longer_than_it_may(
    serve: Callable[..., Any], call: Callable[..., Any]
) -> None:
    def handler(conn: Any, _: object) -> None:
        while True:
            conn.write(b"x")
            sleep(1)

    server = serve(handler, total_timeout=10)
    conn = call(server)
    assert conn.read_until(b"x" * 10) == b"x" * 10
    assert conn.readsome(1) == b""
    until(lambda: server.stats.errors["timeout"] == 1)


@pytest.mark.usefixtures("virtual_threads")
def test_a_client_that_does_not_take_what_it_is_sent_goes_with_the_timeout(
    serve: Callable[..., Any], call: Callable[..., Any]
) -> None:
    def handler(conn: Any, _: object) -> None:
        conn.enqueue(bytes(10_000_000))
        conn.linger = None
        conn.readln()

    server = serve(handler, idle_timeout=1000)
    conn = call(server)
    until(lambda: server.stats.connections_served == 1)
    assert server.stats.errors["timeout"] == 1
    assert server.stats.bytes_sent < 10_000_000
    conn.abort()


@pytest.mark.usefixtures("virtual_threads")
def test_a_client_that_does_not_shake_hands_is_held_off(
    serve: Callable[..., Any], call: Callable[..., Any], certificates: Any
) -> None:
    server = serve(echo, tls=certificates.server_context(), handshake_timeout=1000)
    assert call(server).readsome(1) == b""
    until(lambda: server.stats.errors["tls"] == 1)


# --- The end ------------------------------------------------------------------------------------


def test_stop_lets_handlers_finish_and_serves_those_that_wait(
    serve: Callable[..., Any], call: Callable[..., Any], gate: Gate
) -> None:
    server = serve(gate, poolsize_max=1)
    conns = [call(server) for _ in range(3)]
    until(lambda: server.stats.waiting == 2)
    stopping = spawn(server.stop)
    until(lambda: server.closing)
    gate.opened.set()
    assert [conn.readln() for conn in conns] == [b"done\n"] * 3
    assert stopping.get() == 0
    get_hub().run()  # nothing goes on in it, no housekeeping either
    assert server.stats.connections_served == 3
    assert server.stats.threads == server.stats.open == server.stats.cancelled == 0


def test_stop_cancels_handlers_that_wait_and_sheds_connections_without_a_thread(
    serve: Callable[..., Any], call: Callable[..., Any], reports: list[Any]
) -> None:
    ended: list[str] = []

    def child() -> None:
        try:
            sleep(None)
        finally:
            ended.append("child")

    def handler(conn: Any, _: object) -> None:
        spawn(child)
        try:
            conn.readln()
        except Cancelled:
            ended.append("handler")
            raise

    server = serve(handler, poolsize_max=2)
    conns = [call(server) for _ in range(5)]
    until(lambda: server.stats.waiting == 3)
    assert server.stop(0) == 2
    assert sorted(ended) == ["child"] * 2 + ["handler"] * 2
    assert server.stats.shed["closing"] == 3
    assert server.stats.cancelled == server.stats.connections_served == 2
    assert server.stats.open == server.stats.threads == server.stats.waiting == 0
    assert [conn.readsome(1) for conn in conns] == [b""] * 5
    assert sum(server.stats.errors.values()) == 0
    assert reports == []


def test_tasks_left_behind_are_cancelled_as_well(
    serve: Callable[..., Any], call: Callable[..., Any]
) -> None:
    ended: list[str] = []

    def child() -> None:
        try:
            sleep(None)
        finally:
            ended.append("child")

    server = serve(lambda conn, _: spawn(child) and None)
    assert call(server).readsome(1) == b""
    assert server.stop(0) == 1
    assert ended == ["child"]


def test_a_handler_that_never_returns_is_left_behind_and_counted(
    serve: Callable[..., Any],
    call: Callable[..., Any],
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_thread_strategy, "CLEAN_UP_SECONDS", 0.001)
    server = serve(gate)
    conn = call(server)
    until(lambda: gate.count == 1)
    assert server.stop(0) == 1
    assert not server.is_listening
    assert server.stats.cancelled == server.stats.connections_served == 1
    assert server.stats.open == 0
    # What becomes of it later is its own affair, and the server may serve again meanwhile.
    server.start()
    other = call(server)
    until(lambda: gate.count == 2)
    gate.opened.set()
    assert [conn.readsome(9), other.readln()] == [b"done\n", b"done\n"]
    until(lambda: server.stats.connections_served == 2)
    assert server.stats.open == 0


def test_handlers_between_two_requests_hear_of_the_closing(
    serve: Callable[..., Any], call: Callable[..., Any]
) -> None:
    heard: list[bool] = []

    def handler(conn: Any, _: object) -> None:
        while server.await_input(conn):
            conn.write(conn.readln())
        heard.append(server.closing)
        conn.write(b"bye\n")

    server = serve(handler)
    conns = [call(server) for _ in range(3)]
    assert [ask(conn) for conn in conns] == [b"hello\n"] * 3
    assert server.stop() == 0
    assert heard == [True] * 3
    assert [conn.readln() for conn in conns] == [b"bye\n"] * 3


def test_a_handler_that_loops_sees_the_closing_flag(
    serve: Callable[..., Any], call: Callable[..., Any]
) -> None:
    begun = threading.Event()

    def handler(conn: Any, _: object) -> None:
        begun.set()
        while not conn.server.closing:
            pass
        conn.write(b"bye\n")

    server = serve(handler)
    conn = call(server)
    until(begun.is_set)
    assert server.stop() == 0
    assert conn.readln() == b"bye\n"


def test_a_handler_stops_its_server_without_waiting(
    serve: Callable[..., Any], call: Callable[..., Any], reports: list[Any]
) -> None:
    def handler(conn: Any, _: object) -> None:
        with pytest.raises(RuntimeError, match="use stop"):
            conn.server.stop()
        assert conn.server.stop(wait=False) == 0
        conn.write(b"stopping\n")

    server = serve(handler)
    conn = call(server)
    server.serve_forever()
    assert conn.readln() == b"stopping\n"
    assert server.stats.connections_served == 1
    assert reports == []


def test_close_waits_for_nobody(
    serve: Callable[..., Any], call: Callable[..., Any], gate: Gate, reports: list[Any]
) -> None:
    cancelled = threading.Event()

    def handler(conn: Any, address: Any) -> None:
        if conn.readln() == b"block\n":
            gate(conn, address)
        try:
            conn.readln()
        finally:
            cancelled.set()

    server = serve(handler, poolsize_max=2)
    blocked, waiting = call(server), call(server)
    blocked.write(b"block\n")
    waiting.write(b"wait\n")
    until(lambda: gate.count == 1)
    late = call(server)
    until(lambda: server.stats.waiting == 1)
    server.close()
    assert not server.is_listening
    assert server.stats.open == 0
    assert server.stats.shed["closing"] == 1
    assert late.readsome(1) == b""
    assert waiting.readsome(1) == b""
    cancelled.wait()
    gate.opened.set()
    assert blocked.readsome(9) == b"done\n"


def test_cancelling_reaches_a_thread_that_is_only_just_beginning(
    serve: Callable[..., Any], call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go = threading.Event(), threading.Event()

    def make_late(fd: int) -> Any:
        began.set()
        go.wait()
        return pycoronet.sk_conn(fd)

    monkeypatch.setattr(_thread_strategy, "sk_conn", make_late)
    server = serve(echo)
    conn = call(server)
    until(began.is_set)
    stopping = spawn(server.stop, 0)
    until(lambda: any(job._is_cancelled for job in server._strategy._entries))
    go.set()
    assert stopping.get() == 1
    assert conn.readsome(1) == b""


def test_a_server_with_output_that_is_not_taken_is_stopped(
    serve: Callable[..., Any], call: Callable[..., Any]
) -> None:
    def handler(conn: Any, _: object) -> None:
        conn.linger = None
        conn.enqueue(bytes(10_000_000))
        if conn.readln() == b"wait\n":
            conn.readln()

    server = serve(handler)
    waiting, closed = call(server), call(server)
    waiting.write(b"wait\n")
    closed.write(b"end\n")
    until(lambda: server.stats.bytes_read == 9)
    assert server.stop(0) == 2
    assert 0 < server.stats.bytes_sent < 20_000_000
    waiting.abort()
    closed.abort()


def test_a_job_whose_hub_has_just_been_closed_is_not_cancelled_any_more() -> None:
    with pycoronet.testing.virtual_time() as hub:
        pass
    left, right = socket.socketpair()
    job = _thread_strategy._Job(None, left.detach(), None)  # type: ignore[arg-type]
    job._hub = hub
    job.cancel()
    job.drop()
    assert right.recv(1) == b""
    right.close()


def test_a_clean_up_that_takes_its_time_is_waited_for(
    serve: Callable[..., Any], call: Callable[..., Any]
) -> None:
    assert _strategies.CLEAN_UP_SECONDS == _thread_strategy.CLEAN_UP_SECONDS
    done: list[Any] = []

    def handler(conn: Any, _: object) -> None:
        try:
            conn.readln()
        finally:
            with pycoronet.shield():
                sleep(0.001)
            done.append(current())

    server = serve(handler)
    call(server)
    until(lambda: server.stats.threads == 1)
    assert server.stop(0) == 1
    assert len(done) == 1


# --- Processes ----------------------------------------------------------------------------------

SETTING = """
import warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded")
def start(handler, **settings):
    server = Server(("127.0.0.1", 0), handler, strategy="threadpool", **settings)
    server.start()
    return server
"""


def test_a_child_forked_in_a_handler_ends_with_it() -> None:
    program = SETTING + (
        """
def handler(conn, _):
    pid = os.fork()
    if pid == 0:
        conn.write(b"child\\n")
    else:
        os.waitpid(pid, 0)
        conn.write(b"parent\\n")
server = start(handler)
conn = connect(server.addresses[0])
say(conn.readln().decode().strip(), conn.readln().decode().strip(), conn.readsome(1))
conn.close()
server.stop()
say(server.stats.connections_served, server.stats.open)
"""
    )
    assert lines_of(program) == ["child parent b''", "1 0"]


def test_a_thread_comes_back_to_a_hub_that_has_been_closed() -> None:
    program = SETTING + (
        """
begun, go = threading.Event(), threading.Event()
def handler(conn, _):
    begun.set()
    go.wait()
server = start(handler, poolsize_min=1)
conn = connect(server.addresses[0])
while not begun.is_set(): sleep(0.001)
conn.close()
server.close()
get_hub().close()
go.set()
for thread in threading.enumerate():
    if thread.name == "pycoronet server": thread.join()
say("end")
"""
    )
    assert lines_of(program) == ["end"]


@pytest.mark.parametrize(
    "wait", ["time.sleep(60)", "conn.readln()", "sleep(60)", "spawn(time.sleep, 60).join()"]
)
def test_a_program_ends_whatever_its_threads_do(wait: str) -> None:
    program = SETTING + (
        f"""
count = 0
def handler(conn, _):
    global count
    count += 1
    {wait}
server = start(handler)
conns = [connect(server.addresses[0]) for _ in range(5)]
while count < 5: sleep(0.001)
say("end")
"""
    )
    assert lines_of(program) == ["end"]


def test_a_program_ends_while_its_threads_are_at_work() -> None:
    program = SETTING + (
        """
at_work = set()
def handler(conn, address):
    def work():
        at_work.add(address)
        while True: time.sleep(0.0001)
    if conn.readln() == b"task\\n": spawn(work).join()
    work()
server = start(handler)
conns = [connect(server.addresses[0]) for _ in range(8)]
for conn in conns[::2]: conn.write(b"task\\n")
for conn in conns[1::2]: conn.write(b"thread\\n")
while len(at_work) < 8: sleep(0.001)
say("end")
"""
    )
    for _ in range(3):
        assert lines_of(program) == ["end"]
