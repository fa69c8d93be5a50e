"""Server with strategy="threadpool": limits in seconds, stopping, closing, the program's end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from processes import lines_of
from thread_case import NAME, Gate, ask, echo, until

import pycoronet
import pycoronet.testing
from pycoronet import Cancelled, current, get_hub, sleep, spawn
from pycoronet.server import _strategies, _thread_strategy

# --- Limits in seconds --------------------------------------------------------------------------


@pytest.mark.usefixtures("virtual_threads")
def test_a_silent_client_is_held_off(
    start_server: Callable[..., Any], call_server: Callable[..., Any]
) -> None:
    server = start_server(echo, idle_timeout=1000)
    assert call_server(server).readsome(1) == b""
    until(lambda: server.stats.errors["timeout"] == 1)
    assert server.stats.open == 0


@pytest.mark.usefixtures("virtual_threads")
def test_a_connection_lasts_no_longer_than_it_may(
    start_server: Callable[..., Any], call_server: Callable[..., Any]
) -> None:
    def handler(conn: Any, _: object) -> None:
        while True:
            conn.write(b"x")
            sleep(1)

    server = start_server(handler, total_timeout=10)
    conn = call_server(server)
    assert conn.read_until(b"x" * 10) == b"x" * 10
    assert conn.readsome(1) == b""
    until(lambda: server.stats.errors["timeout"] == 1)


@pytest.mark.usefixtures("virtual_threads")
def test_a_client_that_does_not_take_what_it_is_sent_goes_with_the_timeout(
    start_server: Callable[..., Any], call_server: Callable[..., Any]
) -> None:
    def handler(conn: Any, _: object) -> None:
        conn.enqueue(bytes(10_000_000))
        conn.linger = None
        conn.readln()

    server = start_server(handler, idle_timeout=1000)
    conn = call_server(server)
    until(lambda: server.stats.connections_served == 1)
    assert server.stats.errors["timeout"] == 1
    assert server.stats.bytes_sent < 10_000_000
    conn.abort()


@pytest.mark.usefixtures("virtual_threads")
def test_a_client_that_does_not_shake_hands_is_held_off(
    start_server: Callable[..., Any], call_server: Callable[..., Any], certificates: Any
) -> None:
    server = start_server(echo, tls=certificates.server_context(), handshake_timeout=1000)
    assert call_server(server).readsome(1) == b""
    until(lambda: server.stats.errors["tls"] == 1)


# --- The end ------------------------------------------------------------------------------------


def test_stop_lets_handlers_finish_and_serves_those_that_wait(
    start_server: Callable[..., Any], call_server: Callable[..., Any], gate: Gate
) -> None:
    server = start_server(gate, poolsize_max=1)
    conns = [call_server(server) for _ in range(3)]
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
    start_server: Callable[..., Any], call_server: Callable[..., Any], reports: list[Any]
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

    server = start_server(handler, poolsize_max=2)
    conns = [call_server(server) for _ in range(5)]
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
    start_server: Callable[..., Any], call_server: Callable[..., Any]
) -> None:
    ended: list[str] = []

    def child() -> None:
        try:
            sleep(None)
        finally:
            ended.append("child")

    server = start_server(lambda conn, _: spawn(child) and None)
    assert call_server(server).readsome(1) == b""
    assert server.stop(0) == 1
    assert ended == ["child"]


def test_a_handler_that_never_returns_is_left_behind_and_counted(
    start_server: Callable[..., Any],
    call_server: Callable[..., Any],
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_thread_strategy, "CLEAN_UP_SECONDS", 0.001)
    server = start_server(gate)
    conn = call_server(server)
    until(lambda: gate.count == 1)
    assert server.stop(0) == 1
    assert not server.is_listening
    assert server.stats.cancelled == server.stats.connections_served == 1
    assert server.stats.open == 0
    # What becomes of it later is its own affair, and the server may serve again meanwhile.
    server.start()
    other = call_server(server)
    until(lambda: gate.count == 2)
    gate.opened.set()
    assert [conn.readsome(9), other.readln()] == [b"done\n", b"done\n"]
    until(lambda: server.stats.connections_served == 2)
    assert server.stats.open == 0


def test_handlers_between_two_requests_hear_of_the_closing(
    start_server: Callable[..., Any], call_server: Callable[..., Any]
) -> None:
    heard: list[bool] = []

    def handler(conn: Any, _: object) -> None:
        while server.await_input(conn):
            conn.write(conn.readln())
        heard.append(server.closing)
        conn.write(b"bye\n")

    server = start_server(handler)
    conns = [call_server(server) for _ in range(3)]
    assert [ask(conn) for conn in conns] == [b"hello\n"] * 3
    assert server.stop() == 0
    assert heard == [True] * 3
    assert [conn.readln() for conn in conns] == [b"bye\n"] * 3


def test_a_handler_that_loops_sees_the_closing_flag(
    start_server: Callable[..., Any], call_server: Callable[..., Any]
) -> None:
    begun = threading.Event()

    def handler(conn: Any, _: object) -> None:
        begun.set()
        while not conn.server.closing:
            pass
        conn.write(b"bye\n")

    server = start_server(handler)
    conn = call_server(server)
    until(begun.is_set)
    assert server.stop() == 0
    assert conn.readln() == b"bye\n"


def test_a_handler_stops_its_server_without_waiting(
    start_server: Callable[..., Any], call_server: Callable[..., Any], reports: list[Any]
) -> None:
    def handler(conn: Any, _: object) -> None:
        with pytest.raises(RuntimeError, match="use stop"):
            conn.server.stop()
        assert conn.server.stop(wait=False) == 0
        conn.write(b"stopping\n")

    server = start_server(handler)
    conn = call_server(server)
    server.serve_forever()
    assert conn.readln() == b"stopping\n"
    assert server.stats.connections_served == 1
    assert reports == []


def test_close_waits_for_nobody(
    start_server: Callable[..., Any],
    call_server: Callable[..., Any],
    gate: Gate,
    reports: list[Any],
) -> None:
    cancelled = threading.Event()
    begun: list[bytes] = []

    def handler(conn: Any, address: Any) -> None:
        begun.append(conn.readln())
        if begun[-1] == b"block\n":
            gate(conn, address)
        try:
            conn.readln()
        finally:
            cancelled.set()

    server = start_server(handler, poolsize_max=2)
    blocked, waiting = call_server(server), call_server(server)
    blocked.write(b"block\n")
    waiting.write(b"wait\n")
    until(lambda: gate.count == 1 and len(begun) == 2)
    late = call_server(server)
    until(lambda: server.stats.open == 3)
    assert server.stats.waiting == 1
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
    start_server: Callable[..., Any],
    call_server: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began, go = threading.Event(), threading.Event()

    def arrive_late() -> pycoronet.Hub:
        if threading.current_thread().name == NAME:
            began.set()
            go.wait()
        return pycoronet.get_hub()

    monkeypatch.setattr(_thread_strategy, "get_hub", arrive_late)
    monkeypatch.setattr(_thread_strategy, "CLEAN_UP_SECONDS", 1000)
    server = start_server(echo)
    conn = call_server(server)
    until(began.is_set)
    stopping = spawn(server.stop, 0)
    until(lambda: any(job._is_cancelled for job in server._strategy._entries))
    go.set()
    assert stopping.get() == 1
    assert conn.readsome(1) == b""


def test_a_server_with_output_that_is_not_taken_is_stopped(
    start_server: Callable[..., Any],
    call_server: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_thread_strategy, "CLEAN_UP_SECONDS", 1000)

    def handler(conn: Any, _: object) -> None:
        conn.linger = None
        conn.enqueue(bytes(10_000_000))
        if conn.readln() == b"wait\n":
            conn.readln()

    server = start_server(handler)
    waiting, closed = call_server(server), call_server(server)
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
    job = _thread_strategy._Job(None, pycoronet.sk_conn(left), None)  # type: ignore[arg-type]
    job._hub = hub
    job.cancel()
    job.drop()
    assert right.recv(1) == b""
    right.close()


def test_a_clean_up_that_takes_its_time_is_waited_for(
    start_server: Callable[..., Any], call_server: Callable[..., Any]
) -> None:
    assert _strategies.CLEAN_UP_SECONDS == _thread_strategy.CLEAN_UP_SECONDS
    begun: list[Any] = []
    done: list[Any] = []

    def handler(conn: Any, _: object) -> None:
        try:
            begun.append(conn)
            conn.readln()
        finally:
            with pycoronet.shield():
                sleep(0.001)
            done.append(current())

    server = start_server(handler)
    call_server(server)
    until(lambda: len(begun) == 1)
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
