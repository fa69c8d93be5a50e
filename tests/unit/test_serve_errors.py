"""serve() with on_accept_error: what it is told of, and what it may do."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

import pytest
from recorders import turn

import pycoronet
from pycoronet import READ, serve, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")


class Server:
    """A server in a task, whose handler says hello; notes what accepting failed with."""

    def __init__(self, listener: Any, action: Callable[[Any], object] = lambda _: None) -> None:
        self.errors: list[Exception] = []
        self.served = 0
        self.action = action
        self.task = spawn(serve, listener, self.handle, on_accept_error=self.note)
        turn()  # the hub has the descriptors that it needs

    def handle(self, conn: Any, _: object) -> None:
        self.served += 1
        conn.write(b"hello")

    def note(self, listener: Any, error: Exception) -> None:
        assert pycoronet.current() is self.task
        self.errors.append(error)
        self.action(listener)


def test_a_shortage_is_told_once_for_each_pause(
    listener: Any, dial: Any, few_descriptors: Callable[[int], None]
) -> None:
    server = Server(listener)
    peer = dial()
    few_descriptors(0)
    turn()
    (error,) = server.errors
    assert isinstance(error, OSError)
    assert error.errno == errno.EMFILE
    pycoronet.sleep(1)
    assert 8 <= len(server.errors) <= 11
    few_descriptors(100)
    pycoronet.sleep(0.2)
    assert peer.recv(10) == b"hello"
    listener.close()
    assert server.task.get() is None


def test_it_may_close_the_listener_which_ends_the_server(
    listener: Any, dial: Any, few_descriptors: Callable[[int], None]
) -> None:
    server = Server(listener, lambda listener: listener.close())
    peer = dial()
    few_descriptors(0)
    assert server.task.get() is None
    assert len(server.errors) == 1
    assert server.served == 0
    peer.close()


def test_it_may_pause_the_listener(
    listener: Any, dial: Any, few_descriptors: Callable[[int], None]
) -> None:
    server = Server(listener, lambda listener: listener.disable(READ))
    peer = dial()
    few_descriptors(0)
    pycoronet.sleep(1)
    few_descriptors(100)
    pycoronet.sleep(1)
    assert len(server.errors) == 1
    assert server.served == 0
    listener.enable(READ)
    turn()
    assert peer.recv(10) == b"hello"
    listener.close()
    assert server.task.get() is None


def fail(_: object) -> None:
    raise ZeroDivisionError("on purpose")


def test_what_it_raises_ends_the_server(
    listener: Any, dial: Any, few_descriptors: Callable[[int], None]
) -> None:
    server = Server(listener, fail)
    peer = dial()
    few_descriptors(0)
    with pytest.raises(ZeroDivisionError):
        server.task.get()
    assert listener.closed
    peer.close()


@pytest.mark.parametrize("action", [None, lambda listener: listener.close()])
def test_a_listener_that_breaks_is_told_and_raised_unless_it_is_closed(
    listener: Any, action: Callable[[Any], object] | None
) -> None:
    server = Server(listener, action or (lambda _: None))
    listener.shutdown(socket.SHUT_RDWR)
    if action is None:
        with pytest.raises(OSError, match=r".") as caught:
            server.task.get()
        assert server.errors == [caught.value]
    else:
        assert server.task.get() is None
        assert len(server.errors) == 1
    assert listener.closed


class Forgetful:
    """Stands in for a listener without memory for what it accepts."""

    closed = False

    def __enter__(self) -> Forgetful:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    close = __exit__

    def accept(self) -> None:
        raise MemoryError


def test_a_lack_of_memory_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Forgetful()
    monkeypatch.setattr(pycoronet._sockets, "listen", lambda *_, **__: listener)
    server = Server(("127.0.0.1", 0))
    pycoronet.sleep(1)
    assert 8 <= len(server.errors) <= 11
    assert {type(error) for error in server.errors} == {MemoryError}
    listener.close()
    assert server.task.get() is None


def test_what_is_not_callable_is_refused(listener: Any) -> None:
    with pytest.raises(TypeError, match="on_accept_error must be callable"):
        serve(listener, print, on_accept_error=5)  # type: ignore[arg-type]
    assert not listener.closed
