"""Listeners that several processes wait on: one of them is told of a connection, not all."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from connections import Ends
from processes import lines_of
from recorders import Recorder, turn

from pycoronet import READ, ClosedError, get_hub, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")


def trigger_of(conn: Any) -> str | None:
    """Return how the engine watches it; None if it does not."""
    return {fd: trigger for fd, _, trigger, _ in get_hub().registrations()}.get(conn.fileno())


@pytest.mark.parametrize("way", ["accept", "callbacks"])
def test_it_is_watched_as_shared_and_accepts_all(
    ends: Ends, listener: Any, dial: Any, way: str
) -> None:
    assert listener.exclusive is False
    listener.exclusive = True
    assert listener.exclusive is True
    accepted: list[Any] = []

    def accept() -> None:
        while True:
            accepted.append(ends.keep(listener.accept()[0]))

    if way == "accept":
        accepting = spawn(accept)
    else:
        listener.set_callbacks(Recorder(open=lambda conn: accepted.append(ends.keep(conn))))
    turn()
    assert trigger_of(listener) == "shared level"
    for number in range(3):
        clients = [dial() for _ in range(number + 1)]
        turn()
        assert len(accepted) == sum(range(number + 2))
        assert len(clients) == number + 1
    if way == "accept":
        accepting.cancel()
    turn()


def test_it_is_paused_and_resumed(ends: Ends, listener: Any, dial: Any) -> None:
    listener.exclusive = True
    accepting = spawn(listener.accept)
    turn()
    listener.disable(READ)
    dial()
    turn()
    assert trigger_of(listener) is None
    assert not accepting.done
    listener.enable(READ)
    ends.keep(accepting.get()[0])


def test_nobody_is_told_for_ever(listener: Any, dial: Any) -> None:
    listener.exclusive = True
    accepting = spawn(listener.accept)
    turn()
    accepting.cancel()
    turn()
    dial()
    turn()  # were it still reported, no virtual time would pass
    assert trigger_of(listener) is None


def test_it_can_be_changed_while_somebody_waits(ends: Ends, listener: Any, dial: Any) -> None:
    accepting = spawn(listener.accept)
    turn()
    assert trigger_of(listener) == "level"
    listener.exclusive = True
    assert trigger_of(listener) == "shared level"
    listener.exclusive = False
    assert trigger_of(listener) == "level"
    del listener.exclusive
    dial()
    ends.keep(accepting.get()[0])


def test_only_a_listener_can_be(ends: Ends, listener: Any) -> None:
    conn, _ = ends.pair("tcp")
    with pytest.raises(ValueError, match="not a listener"):
        conn.exclusive = True
    conn.exclusive = False
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        later = ends.conn(sock.dup())
    with pytest.raises(ValueError, match="not a listener"):
        later.exclusive = True
    listener.close()
    with pytest.raises(ClosedError):
        listener.exclusive = True


def test_several_processes_share_one_listener() -> None:
    program = """
    import socket
    listener = socket.create_server(("127.0.0.1", 0))
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            def answer(conn, address):
                conn.write(conn.readln())
            own = sk_conn(listener.dup())
            own.exclusive = True
            serve(own, answer)
            os._exit(0)
        children.append(child)
    try:
        for number in range(50):
            with socket.create_connection(listener.getsockname()) as client:
                client.sendall(b"line\\n")
                assert client.makefile("rb").readline() == b"line\\n"
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    say("all answered")
    """
    assert lines_of(program, environment={"PYTHONWARNINGS": "ignore"}) == ["all answered"]
