"""Listeners that are paused by hand, at a count, or from the start; and how they go on.

While one is paused, virtual time passes: a listener that is still watched would be reported
for ever, and no time would pass at all.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from connections import PEER_TIMEOUT, Ends
from processes import lines_of
from recorders import Recorder, raise_error, turn

import pycoronet
from pycoronet import READ, WRITE, listen, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")


def open_listener(ends: Ends, family: str, folder: Path, **options: Any) -> Any:
    """Return a listener of that family, unless the system has no such address."""
    address: Any = {"ipv4": ("127.0.0.1", 0), "ipv6": ("::1", 0), "unix": str(folder / "socket")}
    try:
        return ends.keep(listen(address[family], **options))
    except OSError:
        if family == "ipv6":
            pytest.skip("needs an IPv6 loopback address")
        raise


def dial(ends: Ends, listener: Any, times: int = 1) -> list[socket.socket]:
    """Return clients that wait to be accepted."""
    address = listener.getsockname()
    if not isinstance(address, str):
        return [
            ends.keep(socket.create_connection(address[:2], PEER_TIMEOUT)) for _ in range(times)
        ]
    clients = [ends.keep(socket.socket(socket.AF_UNIX)) for _ in range(times)]
    for client in clients:
        client.settimeout(PEER_TIMEOUT)
        client.connect(address)
    return clients


class Acceptor:
    """Accepts all that it can, in one of the three ways; says hello to each."""

    def __init__(self, listener: Any, way: str) -> None:
        self.count = 0
        if way == "callbacks":
            listener.set_callbacks(Recorder(open=self.greet))
        elif way == "serve":
            spawn(pycoronet.serve, listener, lambda conn, _: self.greet(conn))
        else:
            spawn(self.accept, listener)

    def greet(self, conn: Any) -> None:
        self.count += 1
        conn.write(b"hello")
        conn.close()

    def accept(self, listener: Any) -> None:
        while not listener.closed:
            try:
                conn, _ = listener.accept()
            except pycoronet.ClosedError:
                return
            self.greet(conn)


WAYS = ["callbacks", "serve", "accept"]
each_way = pytest.mark.parametrize("way", WAYS)
each_family = pytest.mark.parametrize("family", ["ipv4", "ipv6", "unix"])


# --- By hand -------------------------------------------------------------------------------------


@each_way
@each_family
def test_a_paused_listener_leaves_connections_queued(
    ends: Ends, tmp_path: Path, way: str, family: str
) -> None:
    listener = open_listener(ends, family, tmp_path)
    acceptor = Acceptor(listener, way)
    turn()
    listener.disable(READ)
    clients = dial(ends, listener, 3)
    pycoronet.sleep(10)
    assert acceptor.count == 0
    listener.enable(READ)
    turn()
    assert acceptor.count == 3
    assert [client.recv(10) for client in clients] == [b"hello"] * 3
    listener.disable(READ)
    listener.disable(READ)
    (client,) = dial(ends, listener)
    pycoronet.sleep(10)
    assert acceptor.count == 3
    listener.enable(READ)
    turn()
    assert client.recv(10) == b"hello"


@each_way
@each_family
def test_a_listener_may_begin_paused(ends: Ends, tmp_path: Path, way: str, family: str) -> None:
    listener = open_listener(ends, family, tmp_path, enabled=False)
    assert listener.enabled == WRITE
    (client,) = dial(ends, listener)
    acceptor = Acceptor(listener, way)
    pycoronet.sleep(10)
    assert acceptor.count == 0
    listener.enable(READ)
    turn()
    assert client.recv(10) == b"hello"
    assert open_listener(ends, "ipv4", tmp_path).enabled == READ | WRITE


@each_way
def test_a_paused_listener_can_be_closed(ends: Ends, tmp_path: Path, way: str) -> None:
    listener = open_listener(ends, "ipv4", tmp_path, enabled=False)
    acceptor = Acceptor(listener, way)
    (client,) = dial(ends, listener)
    turn()
    listener.close()
    turn()
    assert acceptor.count == 0
    with pytest.raises(ConnectionResetError):
        client.recv(10)
    assert pycoronet.get_hub().task_count == 0


def test_a_hub_that_stops_closes_a_paused_listener(ends: Ends, listener: Any) -> None:
    Acceptor(listener, "callbacks")
    listener.disable(READ)
    dial(ends, listener)
    hub = pycoronet.get_hub()
    hub.call_later(5, hub.stop)
    hub.run()
    assert listener.closed


def test_accepting_in_vain_times_out(ends: Ends, listener: Any) -> None:
    listener.disable(READ)
    (client,) = dial(ends, listener)
    for timeout in (0, 5):
        listener.settimeout(timeout)
        with pytest.raises(TimeoutError):
            listener.accept()
    listener.enable(READ)
    conn, _ = listener.accept()
    ends.keep(conn).write(b"hello")
    assert client.recv(10) == b"hello"


def test_on_open_may_pause_in_the_middle_of_a_round(ends: Ends, listener: Any) -> None:
    dial(ends, listener, 5)
    recorder = Recorder(open=lambda _: listener.disable(READ))
    listener.set_callbacks(recorder)
    pycoronet.sleep(10)
    for count in range(1, 6):
        assert recorder.log == ["open"] * count
        listener.enable(READ)
        pycoronet.sleep(10)
    assert recorder.log == ["open"] * 5


def test_who_only_listens_is_not_told_while_it_is_paused(ends: Ends, listener: Any) -> None:
    recorder = Recorder(takes=False)
    listener.set_callbacks(recorder, receive=False)
    turn()
    listener.disable(READ)
    dial(ends, listener)
    pycoronet.sleep(10)
    assert recorder.log == []
    listener.enable(READ)
    pycoronet.sleep(10)
    assert "data" in recorder.log
    told = len(recorder.log)
    pycoronet.sleep(10)  # what it left is told of by an edge, as ever
    assert len(recorder.log) == told
    conn, _ = accept_with_callbacks(listener)
    conn.close()


def accept_with_callbacks(listener: Any) -> Any:
    """Take the callbacks off, and accept."""
    listener.set_callbacks(None)
    return listener.accept()


# --- At a count ----------------------------------------------------------------------------------


@each_way
@each_family
def test_so_many_more_are_accepted_and_then_it_pauses(
    ends: Ends, tmp_path: Path, way: str, family: str
) -> None:
    listener = open_listener(ends, family, tmp_path)
    assert listener.accept_limit is None
    listener.accept_limit = 2
    acceptor = Acceptor(listener, way)
    turn()
    dial(ends, listener)
    turn()
    assert (acceptor.count, listener.accept_limit) == (1, 1)
    dial(ends, listener, 5)
    pycoronet.sleep(10)
    assert (acceptor.count, listener.accept_limit) == (2, 0)
    listener.accept_limit = 1
    pycoronet.sleep(10)
    assert (acceptor.count, listener.accept_limit) == (3, 0)
    listener.accept_limit = 100
    pycoronet.sleep(10)
    assert (acceptor.count, listener.accept_limit) == (6, 97)
    listener.accept_limit = 0
    dial(ends, listener)
    pycoronet.sleep(10)
    assert (acceptor.count, listener.accept_limit) == (6, 0)
    listener.accept_limit = None
    turn()
    assert (acceptor.count, listener.accept_limit) == (7, None)


@each_way
def test_both_pauses_must_end(ends: Ends, tmp_path: Path, way: str) -> None:
    listener = open_listener(ends, "ipv4", tmp_path, enabled=False)
    listener.accept_limit = 1
    acceptor = Acceptor(listener, way)
    dial(ends, listener, 3)
    pycoronet.sleep(10)
    assert acceptor.count == 0
    listener.enable(READ)
    pycoronet.sleep(10)
    assert acceptor.count == 1
    listener.enable(READ)
    listener.disable(READ)
    listener.accept_limit = 1
    pycoronet.sleep(10)
    assert acceptor.count == 1
    listener.enable(READ)
    pycoronet.sleep(10)
    assert acceptor.count == 2
    listener.disable(READ)
    listener.enable(READ)
    pycoronet.sleep(10)
    assert acceptor.count == 2


def test_on_open_may_set_the_limit(ends: Ends, listener: Any) -> None:
    dial(ends, listener, 5)

    def allow_one_more(_: object) -> None:
        listener.accept_limit = 1 if len(recorder.log) < 3 else 0

    recorder = Recorder(open=allow_one_more)
    listener.accept_limit = 1
    listener.set_callbacks(recorder)
    pycoronet.sleep(10)
    assert recorder.log == ["open"] * 3


def test_a_connection_that_no_callbacks_could_be_made_for_counts(
    ends: Ends, listener: Any, reports: list[Any]
) -> None:
    clients = dial(ends, listener, 2)
    listener.accept_limit = 1
    listener.set_callbacks(lambda: raise_error())
    turn()
    assert clients[0].recv(10) == b""
    assert len(reports) == 1
    assert listener.accept_limit == 0


def test_a_connection_that_is_lost_for_want_of_memory_does_not_count(
    ends: Ends, listener: Any
) -> None:
    memory = pytest.importorskip("_testcapi", reason="needs a way to let malloc fail")
    listener.accept_limit = 1
    for place in range(50):
        dial(ends, listener)
        accepted = None
        memory.set_nomemory(place, place + 1)
        try:
            accepted = listener.accept()
        except MemoryError:
            pass
        finally:
            memory.remove_mem_hooks()
        if accepted is not None:
            accepted[0].close()
            break
        assert listener.accept_limit == 1
    assert place > 1
    assert listener.accept_limit == 0


def test_a_limit_that_makes_no_sense_is_refused(ends: Ends, listener: Any) -> None:
    listener.accept_limit = 3
    for wrong, error in [(-1, ValueError), ("1", TypeError), (1.5, TypeError)]:
        with pytest.raises(error):
            listener.accept_limit = wrong
    assert listener.accept_limit == 3
    listener.accept_limit = 1 << 100
    assert listener.accept_limit > 1 << 30
    conn, _ = ends.pair()
    assert conn.accept_limit is None
    with pytest.raises(ValueError, match="not a listener"):
        conn.accept_limit = 1
    conn.accept_limit = None
    listener.close()
    with pytest.raises(pycoronet.ClosedError):
        listener.accept_limit = 1


# --- Processes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pause", ["listener.disable(READ)", "listener.accept_limit = 0"])
def test_a_forked_child_has_the_pause_too(pause: str) -> None:
    program = f"""
    import socket
    listener = listen(("127.0.0.1", 0))
    accepting = spawn(listener.accept)
    sleep(0)
    {pause}
    clients = [socket.create_connection(listener.getsockname()) for _ in range(2)]
    child = os.fork()
    if child == 0:
        listener.settimeout(0.01)
        try:
            listener.accept()
        except TimeoutError:
            say("paused")
        listener.enable(READ)
        listener.accept_limit = None
        listener.settimeout(None)
        conn, _ = listener.accept()
        say("accepted")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    listener.enable(READ)
    listener.accept_limit = 1
    conn, _ = accepting.get()
    say("accepted", listener.accept_limit)
    """
    assert lines_of(program, environment={"PYTHONWARNINGS": "ignore"}) == [
        "paused",
        "accepted",
        "accepted 0",
    ]
