"""Server's life used in the wrong order, from the wrong place, twice, or against itself."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from connections import PEER_TIMEOUT, count_descriptors, open_descriptors
from processes import lines_of
from recorders import turn
from server_case import HANDLERS, LOCAL, echo
from thread_case import threads_of_servers

import pycoronet
from pycoronet import Protocol, Server, get_hub, sleep, spawn, stop_all

pytestmark = pytest.mark.usefixtures("virtual_hub")

ALL_HANDLERS = {**HANDLERS, "threadpool": echo}


@pytest.fixture(params=list(ALL_HANDLERS))
def server(request: pytest.FixtureRequest) -> Any:
    """Return a server that echoes, by each of the strategies; not started."""
    server = Server(LOCAL, ALL_HANDLERS[request.param], strategy=request.param)
    yield server
    server.close()
    turn()


# --- Wrong arguments ---------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["closed", "listening", "serving"])
@pytest.mark.parametrize(
    ("timeout", "kind"),
    [(-1, ValueError), (float("nan"), ValueError), ("5", TypeError), (True, TypeError)],
)
def test_a_time_to_stop_in_that_is_none_is_refused_at_once(
    state: str, timeout: Any, kind: type[Exception]
) -> None:
    server = Server(LOCAL, echo)
    if state != "closed":
        server.listen()
    if state == "serving":
        server.start()
    for stop in (server.stop, stop_all):
        for wait in (True, False):
            with pytest.raises(kind, match="timeout must be"):
                stop(timeout, wait=wait)
    turn()
    assert server.is_listening == (state != "closed")
    assert server.stop(0) == 0


@pytest.mark.parametrize("name", ["address", "handler", "tls"])
def test_address_handler_and_tls_are_fixed_too(name: str) -> None:
    server = Server(LOCAL, echo)
    value = getattr(server, name)
    setattr(server, name, value)
    server.listen()
    with pytest.raises(RuntimeError, match=rf"{name} has to be set before listen\(\)"):
        setattr(server, name, value)
    server.close()
    setattr(server, name, value)


# --- From where it cannot be -------------------------------------------------------------------


def test_stop_all_in_a_handler_is_refused_before_anything_stops(call: Any) -> None:
    refused: list[BaseException] = []

    def handler(conn: Any, _: object) -> None:
        conn.take(1)
        with pytest.raises(RuntimeError, match=r"wait=False") as caught:
            stop_all()
        refused.append(caught.value)

    with Server(LOCAL, echo) as other, Server(LOCAL, handler, strategy="callback") as server:
        call(server).sendall(b"x")
        turn()
        assert len(refused) == 1
        assert not other.closing
        assert not server.closing
        assert stop_all(1, wait=False) == 0
        turn()
        assert other.closing
        sleep(2)
        assert not other.is_listening


@pytest.mark.parametrize("name", ["close", "stop"])
@pytest.mark.parametrize("strategy", ["coroutine", "callback"])
def test_a_handler_may_end_its_server(call: Any, strategy: str, name: str) -> None:
    said: list[str] = []

    def handler(conn: Any, _: object) -> None:
        if strategy == "callback":
            conn.take(1)
        if name == "close":
            conn.server.close()
        else:
            conn.server.stop(wait=False)
        said.append("went on")
        conn.close()

    server = Server(LOCAL, handler, strategy=strategy)
    serving = spawn(server.serve_forever)
    turn()
    call(server).sendall(b"x")
    assert serving.get() is None
    turn()
    assert said == ["went on"]
    assert server.stats.open == 0


def test_a_thread_s_handler_may_end_its_server(call: Any) -> None:
    def handler(conn: Any, _: object) -> None:
        conn.readln()
        with pytest.raises(RuntimeError, match=r"wait=False"):
            conn.server.stop()
        conn.server.stop(wait=False)

    server = Server(LOCAL, handler, strategy="threadpool")
    server.start()
    call(server).sendall(b"\n")
    server.serve_forever()
    assert server.stats.errors["handler"] == 0
    assert server.stats.connections_served == 1


def test_another_thread_can_have_it_stopped_or_closed_and_gets_no_hub(server: Any) -> None:
    for name in ("stop", "close"):
        server.start()
        raised: list[BaseException] = []

        def end(name: str = name, raised: list[BaseException] = raised) -> None:
            before = count_descriptors()
            try:
                server.stop()
            except RuntimeError as refusal:
                raised.append(refusal)
            if name == "stop":
                server.stop(wait=False)
            else:
                server.close()
            if count_descriptors() > before:
                raised.append(AssertionError("a hub was made"))

        thread = threading.Thread(target=end)
        thread.start()
        server.serve_forever()
        thread.join()
        (error,) = raised
        assert "another thread" in str(error)


def test_a_server_whose_hub_was_closed_gives_everything_back(server: Any) -> None:
    server.max_connections = 1
    ended = []
    server.add_shutdown_callback(ended.append)
    peers = []

    def run() -> None:
        server.start()
        peers.append(socket.create_connection(server.addresses[0], PEER_TIMEOUT))
        while server.stats.open == 0:
            sleep(0.001)
        get_hub().close()

    before = open_descriptors()
    for _ in range(2):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        server.close()
        for left in threads_of_servers():
            left.join()
        with peers.pop() as peer:
            assert peer.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(server.addresses[0], PEER_TIMEOUT)
        assert open_descriptors() == before
    assert (server.stats.accepted, server.stats.connections_served, server.stats.open) == (2, 2, 0)
    assert ended == [server, server]


def test_serve_forever_in_another_thread_does_no_harm(server: Any, call: Any) -> None:
    server.start()
    raised: list[BaseException] = []

    def serve() -> None:
        try:
            server.serve_forever()
        except RuntimeError as error:
            raised.append(error)
        get_hub().close()

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()
    assert "the thread that has called start()" in str(raised[0])
    assert server.is_listening
    peer = call(server)
    peer.close()


# --- Against itself ----------------------------------------------------------------------------


def test_close_is_quicker_than_stop(server: Any, call: Any) -> None:
    server.start()
    peer = call(server)
    turn()
    stopping = spawn(server.stop, 1000)
    turn()
    assert server.is_listening
    began = get_hub().time
    server.close()
    assert stopping.get() == 0
    assert get_hub().time - began < 1
    assert peer.recv(1) == b""


def test_a_stop_that_close_has_overtaken_leaves_the_next_run_alone(call: Any) -> None:
    server = Server(LOCAL, echo, drain_timeout=5)
    server.start()
    call(server)
    turn()
    spawn(server.stop)
    turn()
    server.close()
    server.start()
    peer = call(server)
    sleep(20)
    assert not server.closing
    peer.sendall(b"hello\n")
    turn()
    assert peer.recv(10) == b"hello\n"
    spawn(server.stop, 100)
    sleep(50)
    assert server.closing
    assert server.is_listening
    peer.close()
    sleep(1)
    assert not server.is_listening
    assert server.stats.cancelled == 0


@pytest.mark.parametrize("turns", [0, 3])
def test_a_stop_that_close_has_overtaken_leaves_the_next_stop_alone(call: Any, turns: int) -> None:
    server = Server(LOCAL, echo)
    server.start()
    call(server)
    turn()
    server.stop(wait=False)
    sleep(0)
    turn(turns)
    assert server.closing
    server.close()
    server.start()
    peer = call(server)
    turn(1)
    assert server.stats.open == 1
    server.stop(100, wait=False)
    sleep(50)
    assert server.is_listening
    peer.close()
    sleep(1)
    assert not server.is_listening
    assert server.stats.cancelled == 0


def test_several_may_wait_for_the_same_stop(server: Any, call: Any) -> None:
    if server.strategy == "threadpool":
        server.drain_timeout = None  # what is virtual here passes at once for threads
    server.start()
    peer = call(server)
    turn()
    limit = None if server.strategy == "threadpool" else 30
    waiting = [spawn(server.stop, limit), spawn(server.stop, 1), spawn(server.serve_forever)]
    sleep(5)
    assert not any(task.done for task in waiting)
    peer.close()
    assert [task.get() for task in waiting] == [0, 0, None]


def test_what_stop_has_cancelled_once_is_not_told_again(call: Any) -> None:
    server = Server(LOCAL, echo)
    server.start()
    call(server)
    turn()
    assert server.stop(1) == 1
    server.start()
    server.close()
    assert server.stop() == 0


def test_a_shutdown_callback_may_start_the_server_again(server: Any, call: Any) -> None:
    started: list[Any] = []

    def again(which: Any) -> None:
        started.append(which)
        if len(started) == 1:
            which.start()

    server.add_shutdown_callback(again)
    serving = spawn(server.serve_forever)
    turn()
    server.stop(wait=False)
    sleep(1)
    assert started == [server]
    assert not serving.done
    call(server).close()
    server.stop(wait=False)
    assert serving.get() is None
    assert started == [server] * 2


def test_a_listener_that_is_broken_ends_serve_forever_with_the_error(call: Any) -> None:
    server = Server(LOCAL, echo)
    server.start()
    turn()
    server._acceptor._listeners[0].shutdown(socket.SHUT_RDWR)
    with pytest.raises(OSError, match=r"."):
        server.serve_forever()
    assert not server.is_listening
    with server:
        call(server).close()


def test_a_server_shows_what_it_does_and_where(server: Any) -> None:
    server.listen()
    host, port = server.addresses[0]
    where = f"{server.strategy} ({host!r}, {port})>"
    assert repr(server) == f"<Server listening {where}"
    server.start()
    assert repr(server) == f"<Server serving {where}"
    server.close()
    assert repr(server).startswith(f"<Server closed {server.strategy} ")


def test_what_another_goodbye_has_closed_gets_none(call: Any) -> None:
    class Jealous(Protocol):
        def on_open(self, conn: Any) -> None:
            conns.append(conn)

        def on_shutdown(self, conn: Any) -> None:
            told.append(conn)
            for other in conns:
                if other is not conn:
                    other.abort()

    conns: list[Any] = []
    told: list[Any] = []
    server = Server(LOCAL, Jealous(), strategy="callback")
    server.start()
    for _ in range(3):
        call(server)
    turn()
    assert len(conns) == 3
    assert server.stop(1) == 1
    assert len(told) == 1


# --- What cannot begin -------------------------------------------------------------------------


def test_a_failed_start_leaves_nothing_open_and_may_be_tried_again(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn()
    before = open_descriptors()
    strategies = pycoronet.server._server._STRATEGIES

    def fail(_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setitem(strategies, server.strategy, fail)
        for begin in (server.start, server.serve_forever, server.__enter__):
            with pytest.raises(MemoryError):
                begin()
            assert not server.is_listening
            assert open_descriptors() == before
        # What was listening before goes on, as its clients wait already.
        server.listen()
        with pytest.raises(MemoryError):
            server.start()
        assert server.is_listening
    server.start()
    server.stop()
    assert open_descriptors() == before


def test_one_address_of_several_in_use_leaves_nothing_open(server: Any, tmp_path: Path) -> None:
    with socket.create_server(LOCAL) as taken:
        before = open_descriptors()
        server.address = [LOCAL, str(tmp_path / "socket"), taken.getsockname()]
        with pytest.raises(OSError, match="in use") as caught:
            server.start()
        assert "\n" not in str(caught.value)
        assert open_descriptors() == before
        assert list(tmp_path.iterdir()) == []
        assert not server.is_listening


def test_a_privileged_port_is_one_clear_line() -> None:
    lines = lines_of("""
        import socket
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            socket.create_server(("127.0.0.1", 1)).close()
        except PermissionError:
            try:
                Server(("127.0.0.1", 1), print).start()
            except PermissionError as error:
                say(error)
        else:
            say("any port may be bound here")
    """)
    if lines == ["any port may be bound here"]:
        pytest.skip(lines[0])
    (line,) = lines
    assert "127.0.0.1:1" in line
    assert "port" in line


def test_a_certificate_that_is_not_there_is_one_clear_line(server: Any) -> None:
    before = open_descriptors()
    server.tls = ("/nowhere/server.pem", None)
    with pytest.raises(OSError, match=r"/nowhere/server\.pem") as caught:
        server.start()
    assert "\n" not in str(caught.value)
    assert open_descriptors() == before
    assert not server.is_listening


def test_a_path_is_free_again_after_each_end(server: Any, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server.address = str(path)
    for end in (server.stop, server.close):
        server.start()
        assert path.is_socket()
        end()
        assert not path.exists()
    server.listen()
    server.close()
    assert not os.path.lexists(path)
