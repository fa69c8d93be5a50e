"""_attach(): a detached connection goes on, in this thread or in another."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from connections import Ends, attempt

from pycoronet import Protocol, RateLimit, Traffic, get_hub, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")


def test_it_goes_on_in_another_thread_with_all_it_has(ends: Ends) -> None:
    conn, peer = ends.pair("tcp")
    conn.server, conn.traffic = "the server", Traffic()
    conn.settimeout(5)
    created = conn.created
    peer.sendall(b"one\n")
    assert conn.readln() == b"one\n"
    fd = conn.detach()
    outcome: list[Any] = []

    def work() -> None:
        conn._attach(fd)
        peer.sendall(b"two\n")
        outcome.extend([conn.readln(), conn.fileno(), conn.timeo, conn.server])
        conn.write(b"answer")
        with pytest.raises(TimeoutError):
            conn.wait_input(0) or conn.read(1)
        conn.close()
        get_hub().close()

    conn.settimeout(0.01)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert outcome == [b"two\n", fd, 0.01, "the server"]
    assert peer.recv(10) == b"answer"
    assert peer.recv(10) == b""
    assert (conn.bytes_read, conn.bytes_sent, conn.created) == (8, 6, created)
    assert (conn.traffic.bytes_read, conn.traffic.bytes_sent) == (8, 6)
    assert conn.closed


def test_it_is_of_the_new_thread_alone(ends: Ends) -> None:
    conn, _ = ends.pair()
    fd = conn.detach()
    attached, done = threading.Event(), threading.Event()

    def work() -> None:
        conn._attach(fd)
        attached.set()
        done.wait()
        conn.close()

    thread = threading.Thread(target=work)
    thread.start()
    attached.wait()
    with pytest.raises(RuntimeError, match="another thread"):
        conn.recv(1)
    done.set()
    thread.join()


def test_it_comes_back_to_the_same_hub(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn._attach(conn.detach())
    reader = spawn(conn.recv, 10)
    peer.sendall(b"word")
    assert reader.get() == b"word"
    conn.set_callbacks(Protocol())
    assert conn.callbacks is not None


def close_with_callbacks(conn: Any) -> None:
    conn.set_callbacks(Protocol())
    conn.detach()


def detach_with_a_rate(conn: Any) -> None:
    conn.disable(1)
    conn.detach()


@pytest.mark.parametrize("begin", [int, close_with_callbacks, detach_with_a_rate])
def test_what_is_not_free_is_refused(ends: Ends, begin: Callable[[Any], object]) -> None:
    conn, _ = ends.pair()
    if begin is not int:
        begin(conn)
    fd = os.dup(0)
    with pytest.raises(RuntimeError, match="was detached"):
        conn._attach(fd)
    os.close(fd)


def test_a_number_that_is_none_or_in_use_is_refused(ends: Ends) -> None:
    conn, _ = ends.pair()
    fd = conn.detach()
    for wrong in (-1, "x", None):
        assert isinstance(attempt(conn._attach, wrong), TypeError | ValueError)
    conn._attach(fd)
    conn.set_rate_limit(RateLimit(read_rate=5))
    assert conn.fileno() == fd
