"""Server: its life from listen() to the end, by coroutines and by callbacks."""

from __future__ import annotations

import errno
import pydoc
import socket
from typing import Any

import pytest
from connections import open_descriptors
from recorders import Recorder, turn
from server_case import HANDLERS, LOCAL, echo

import pycoronet
from pycoronet import Protocol, Server, sleep, spawn, stop_all
from pycoronet import server as server_module

pytestmark = pytest.mark.usefixtures("virtual_hub")


@pytest.fixture(params=list(HANDLERS))
def server(request: pytest.FixtureRequest) -> Any:
    """Return a server that echoes, by each of the strategies; not started."""
    server = Server(LOCAL, HANDLERS[request.param], strategy=request.param)
    yield server
    server.close()


def ask(peer: socket.socket, line: bytes = b"hello\n") -> bytes:
    """Send a line and return what comes back, after a turn of the server."""
    peer.sendall(line)
    turn()
    return peer.recv(100)


# --- Serving ----------------------------------------------------------------------------------


def test_it_serves_many_at_once(server: Any, call: Any) -> None:
    server.start()
    peers = [call(server) for _ in range(50)]
    for number, peer in enumerate(peers):
        peer.sendall(b"%d\n" % number)
    turn()
    assert [peer.recv(10) for peer in peers] == [b"%d\n" % number for number in range(50)]
    assert server.stats.open == server.stats.accepted == 50
    for peer in peers:
        peer.close()
    turn()
    assert server.stats.open == 0
    assert server.stats.connections_served == 50


def test_a_connection_knows_its_server_and_what_has_gone_over_it(call: Any) -> None:
    seen: list[Any] = []

    def handler(conn: Any, address: Any) -> None:
        seen.append((conn, address))
        conn.write(conn.readln() * 2)

    with Server(LOCAL, handler, owner="somebody") as server:
        peer = call(server)
        assert ask(peer, b"abc\n") == b"abc\nabc\n"
        ((conn, address),) = seen
        assert address == peer.getsockname()
        assert conn.server is server
        assert conn.server.owner == "somebody"
        assert (conn.bytes_read, conn.bytes_sent) == (4, 8)
        assert (server.stats.bytes_read, server.stats.bytes_sent) == (4, 8)


def test_a_protocol_may_be_one_for_all_or_a_class(call: Any) -> None:
    shared = Recorder()
    made: list[Recorder] = []

    class Noted(Recorder):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    for handler in (shared, Noted):
        with Server(LOCAL, handler, strategy="callback") as server:
            first, second = call(server), call(server)
            first.sendall(b"1")
            turn()
            first.close()
            second.close()
            turn()
            assert server.stats.open == 0
    assert sorted(shared.log) == ["close"] * 2 + ["data"] + ["eof"] * 2 + ["open"] * 2
    assert [one.log for one in made] == [
        ["open", "data", "eof", "close"],
        ["open", "eof", "close"],
    ]


def test_callbacks_replaced_in_mid_life_do_not_keep_a_connection_counted(call: Any) -> None:
    def handler(conn: Any, _: object) -> None:
        conn.take(10)
        conn.set_callbacks(None)
        spawn(conn.close)

    with Server(LOCAL, handler, strategy="callback", delay=2) as server:
        call(server).sendall(b"x")
        turn()
        assert server.stats.open == 1
        sleep(3)
        assert server.stats.open == 0


def test_what_is_left_at_the_end_of_the_stream_reaches_the_function(call: Any) -> None:
    seen: list[bytes] = []

    def handler(conn: Any, _: object) -> None:
        if conn.available >= 3:
            seen.append(conn.take(3))

    def greedy(conn: Any, _: object) -> None:
        seen.append(conn.take(2))

    for function in (handler, greedy):
        with Server(LOCAL, function, strategy="callback") as server:
            peer = call(server)
            peer.sendall(b"abcd")
            peer.shutdown(socket.SHUT_WR)
            turn()
            assert peer.recv(1) == b""
    assert seen == [b"abc", b"ab", b"cd"]


# --- Failures ---------------------------------------------------------------------------------


def test_a_handler_that_raises_is_reported_and_counted(call: Any, reports: list[Any]) -> None:
    def handler(conn: Any, _: object) -> None:
        conn.take(1)
        raise LookupError("oh")

    for strategy in ("coroutine", "callback"):
        with Server(LOCAL, handler, strategy=strategy) as server:
            peer = call(server)
            peer.sendall(b"x")
            turn()
            assert server.stats.errors["handler"] == 1
            assert server.stats.open == 0
            assert peer.recv(1) == b""
    assert [type(error) for error in reports] == [LookupError] * 2


def test_a_peer_that_breaks_off_is_counted_and_not_reported(
    server: Any, call: Any, reports: list[Any]
) -> None:
    server.start()
    peer = call(server)
    turn()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    turn()
    assert server.stats.errors["reset"] == 1
    assert server.stats.open == 0
    assert reports == []


def test_an_error_of_accepting_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(LOCAL, echo)
    server.start()
    monkeypatch.setattr("pycoronet.server._acceptor.accept_all", None)
    server.close()
    server.start()  # accept_all cannot be called: that is what accepting fails with
    with pytest.raises(TypeError):
        server.serve_forever()
    assert not server.is_listening


# --- Settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("backlog", 0, "backlog must be at least 1, not 0"),
        ("backlog", "5", "backlog must be a whole number, not '5'"),
        ("backlog", True, "backlog must be a whole number, not True"),
        ("delay", 0, "delay must be more than 0 seconds, not 0"),
        ("delay", float("nan"), "delay must be more than 0 seconds, not nan"),
        ("delay", None, "delay must be a number of seconds, not None"),
        ("idle_timeout", -1, "idle_timeout must be more than 0 seconds, not -1"),
        ("poolsize_min", -1, "poolsize_min must be at least 0, not -1"),
        ("max_connections", 0, "max_connections must be at least 1, not 0"),
        (
            "strategy",
            "fork",
            "strategy must be one of 'coroutine', 'callback', 'threadpool', not 'fork'",
        ),
    ],
)
def test_a_setting_is_checked_when_it_is_set(name: str, value: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Server(LOCAL, echo, **{name: value})
    server = Server(LOCAL, echo)
    before = getattr(server, name)
    with pytest.raises((TypeError, ValueError), match=message):
        setattr(server, name, value)
    assert getattr(server, name) == before


def test_a_setting_is_fixed_from_listen_to_the_end(server: Any) -> None:
    server.delay = 0.5
    server.listen()
    with pytest.raises(RuntimeError, match=r"delay has to be set before listen\(\)"):
        server.delay = 2
    assert server.delay == 0.5
    server.close()
    server.delay = 2
    assert server.delay == 2


def test_a_setting_of_the_class_tells_of_itself() -> None:
    assert Server.delay is vars(Server.__mro__[1])["delay"]
    assert "delay" in pydoc.render_doc(Server, renderer=pydoc.plaintext)


def test_settings_and_handlers_that_do_not_fit_are_refused_by_listen() -> None:
    with pytest.raises(ValueError, match="poolsize_min, 60, is more than poolsize_max, 50"):
        Server(LOCAL, echo, poolsize_min=60).listen()
    with pytest.raises(TypeError, match="the handler must be callable, not int"):
        Server(LOCAL, 3).listen()
    with pytest.raises(TypeError, match='a Protocol needs strategy="callback"'):
        Server(LOCAL, Protocol()).listen()


# --- Life -------------------------------------------------------------------------------------


def test_connections_wait_in_the_system_from_listen_on(server: Any, call: Any) -> None:
    server.listen()
    peer = call(server)
    peer.sendall(b"hello\n")
    assert not server.closing
    server.start()
    turn()
    assert peer.recv(10) == b"hello\n"


def test_stop_lets_handlers_finish(call: Any) -> None:
    def handler(conn: Any, _: object) -> None:
        sleep(5)
        conn.write(b"done")

    server = Server(LOCAL, handler)
    server.start()
    peer = call(server)
    turn()
    assert server.stop() == 0
    assert server.closing
    assert peer.recv(10) == b"done"
    with pytest.raises(ConnectionRefusedError):
        call(server)


def test_stop_cancels_what_is_left_and_says_how_many(call: Any) -> None:
    ended: list[str] = []

    def handler(conn: Any, _: object) -> None:
        try:
            conn.readln()
        finally:
            ended.append("clean")

    with Server(LOCAL, handler) as server:
        peers = [call(server) for _ in range(3)]
        turn()
        assert server.stop(10) == 3
        assert server.stats.cancelled == 3
        assert server.stats.open == 0
    assert ended == ["clean"] * 3
    assert [peer.recv(1) for peer in peers] == [b""] * 3


def test_stop_ends_callback_connections_that_stay(call: Any) -> None:
    with Server(LOCAL, Recorder(), strategy="callback") as server:
        peers = [call(server) for _ in range(3)]
        turn()
        assert server.stop(10) == 3
        assert server.stats.open == 0
    assert [peer.recv(1) for peer in peers] == [b""] * 3


def test_what_the_system_has_accepted_is_served_by_stop(server: Any, call: Any) -> None:
    server.start()
    turn()
    peers = [call(server) for _ in range(5)]
    for peer in peers:
        peer.sendall(b"late\n")
        peer.shutdown(socket.SHUT_WR)
    assert server.stop(10) == 0
    assert [peer.recv(10) for peer in peers] == [b"late\n"] * 5


def test_close_cuts_off_at_once(server: Any, call: Any) -> None:
    server.start()
    peer = call(server)
    assert ask(peer) == b"hello\n"
    server.close()
    assert not server.is_listening
    turn()
    assert server.stats.open == 0
    assert peer.recv(1) == b""


def test_a_server_may_begin_again(server: Any, call: Any) -> None:
    for _ in range(3):
        with server:
            peer = call(server)
            assert ask(peer) == b"hello\n"
            peer.close()
    assert server.stats.connections_served == 3


def test_a_block_that_raises_closes_the_server(server: Any, call: Any) -> None:
    with pytest.raises(LookupError), server:
        call(server)
        turn()
        raise LookupError
    assert not server.is_listening


def test_serve_forever_returns_when_it_is_stopped(server: Any, call: Any) -> None:
    serving = spawn(server.serve_forever)
    turn()
    peer = call(server)
    assert ask(peer) == b"hello\n"
    peer.close()
    server.stop()
    assert serving.get() is None


def test_serve_forever_that_is_cancelled_closes_the_server(server: Any) -> None:
    serving = spawn(server.serve_forever)
    turn()
    serving.cancel()
    with pytest.raises(pycoronet.Cancelled):
        serving.get()
    assert not server.is_listening


def test_misuse_is_refused(server: Any) -> None:
    assert server.stop() == 0
    server.close()
    server.start()
    for again in (server.listen, server.start):
        with pytest.raises(RuntimeError, match="already"):
            again()


def test_a_handler_cannot_wait_for_its_own_end(call: Any) -> None:
    refused: list[Any] = []

    def handler(conn: Any, _: object) -> None:
        if conn.server.strategy == "callback":
            conn.take(1)
        for stop in (conn.server.stop, stop_all):
            with pytest.raises(RuntimeError, match=r"use stop\(wait=False\)") as caught:
                stop()
            refused.append(caught.value)
        assert conn.server.stop(wait=False) == 0
        conn.close()

    for strategy in ("coroutine", "callback"):
        server = Server(LOCAL, handler, strategy=strategy)
        serving = spawn(server.serve_forever)
        turn()
        call(server).sendall(b"x")
        assert serving.get() is None
    assert len(refused) == 4


def test_two_servers_end_with_stop_all(call: Any) -> None:
    servers = [Server(LOCAL, echo), Server(LOCAL, echo)]
    for server in servers:
        server.start()
        call(server)
    turn()
    assert stop_all(1) == 2
    assert [server.is_listening for server in servers] == [False, False]
    assert stop_all() == 0


def test_shutdown_callbacks_are_called_once(reports: list[Any]) -> None:
    called: list[Any] = []
    server = Server(LOCAL, echo)
    server.add_shutdown_callback(called.append)
    server.add_shutdown_callback(lambda _: 1 / 0)
    server_module.add_shutdown_callback(lambda: called.append("first"))
    server_module.add_shutdown_callback(lambda: called.append("last"))
    server.start()
    pycoronet.shutdown()
    assert called == [server, "last", "first"]
    pycoronet.shutdown()
    assert called == [server, "last", "first"]
    assert [type(error) for error in reports] == [ZeroDivisionError]


# --- await_input ------------------------------------------------------------------------------


def answer_each(conn: Any, _: object) -> None:
    while conn.server.await_input(conn):
        line = conn.readln()
        if not line:
            break
        conn.write(line)


def test_a_handler_between_two_requests_ends_with_the_server(call: Any) -> None:
    server = Server(LOCAL, answer_each)
    server.start()
    peer = call(server)
    assert ask(peer) == b"hello\n"
    assert ask(peer) == b"hello\n"
    began = pycoronet.get_hub().time
    assert server.stop(1000) == 0
    assert pycoronet.get_hub().time - began < 1
    assert peer.recv(1) == b""


def test_one_who_has_not_asked_yet_is_answered_while_the_server_stops(call: Any) -> None:
    server = Server(LOCAL, answer_each)
    server.start()
    peer = call(server)
    turn()
    stopping = spawn(server.stop)
    turn()
    assert server.closing
    assert ask(peer) == b"hello\n"
    assert stopping.get() == 0
    assert peer.recv(1) == b""


def test_await_input_has_a_timeout_and_tells_the_end(call: Any) -> None:
    seen: list[bool] = []

    def handler(conn: Any, _: object) -> None:
        seen.append(conn.server.await_input(conn, 3))
        seen.append(conn.server.await_input(conn))
        assert conn.readln() == b""

    with Server(LOCAL, handler) as server:
        peer = call(server)
        sleep(4)
        peer.close()
        turn()
    assert seen == [False, True]


# --- Resources --------------------------------------------------------------------------------


def test_a_port_in_use_is_one_clear_line_and_leaves_nothing_open(server: Any) -> None:
    server.listen()
    port = server.addresses[0][1]
    before = open_descriptors()
    with pytest.raises(OSError, match=f"127.0.0.1:{port}") as caught:
        Server(("127.0.0.1", port), echo).start()
    assert caught.value.errno == errno.EADDRINUSE
    assert "\n" not in str(caught.value)
    assert open_descriptors() == before


@pytest.mark.parametrize("how", ["socket", "descriptor"])
def test_a_socket_that_others_have_too_stays_as_it_was(how: str, ends: Any) -> None:
    theirs = ends.keep(socket.create_server(LOCAL))
    ours = theirs.dup()
    address = ours if how == "socket" else ours.detach()
    with Server(address, echo, max_connections=1) as server:
        assert ask(ends.keep(socket.create_connection(theirs.getsockname(), 20))) == b"hello\n"
        late = ends.keep(socket.create_connection(theirs.getsockname(), 20))
        assert server.stop(0) == 1
    # What is queued is theirs, and more may come.
    later = ends.keep(socket.create_connection(theirs.getsockname(), 20))
    for peer in (late, later):
        conn, address = theirs.accept()
        conn.close()
        assert address == peer.getsockname()
