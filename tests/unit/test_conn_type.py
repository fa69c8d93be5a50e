"""The sk_conn type: what it is made of, its attributes, timeouts and mod()."""

from __future__ import annotations

import gc
import io
import math
import os
import socket
import ssl
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from connections import MOMENT, Ends, attempt, fill, open_descriptors

import pycoronet
from pycoronet import PRIORITY, READ, WRITE, sk_conn, sleep, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")


# --- Making -----------------------------------------------------------------------------------


def test_from_a_descriptor(ends: Ends) -> None:
    left, right = ends.sockets()
    fd = left.detach()
    conn = ends.conn(fd)
    assert conn.fileno() == conn.sfd == fd
    assert os.get_blocking(fd) is False
    conn.write(b"x")
    assert right.recv(1) == b"x"


def test_from_a_socket_which_is_detached(ends: Ends) -> None:
    left, _ = ends.sockets()
    fd = left.fileno()
    left.settimeout(5)
    conn = ends.conn(left)
    assert conn.fileno() == fd
    assert left.fileno() == -1
    left.close()
    assert conn.write(b"still open") == 10


def test_from_a_subclass_of_socket(ends: Ends) -> None:
    class Special(socket.socket):
        pass

    left, _ = ends.sockets()
    special = Special(fileno=left.detach())
    conn = ends.conn(special)
    assert conn.write(b"x") == 1


def test_by_keyword(ends: Ends) -> None:
    left, _ = ends.sockets()
    conn = sk_conn(fd=left.detach())
    conn.close()


@pytest.mark.parametrize("arguments", [(), (1, 2)])
def test_takes_one_argument(arguments: tuple[int, ...]) -> None:
    with pytest.raises(TypeError):
        sk_conn(*arguments)
    with pytest.raises(TypeError):
        sk_conn(nonsense=1)


@pytest.mark.parametrize("file", [None, 1.5, "1", b"1", [1], io.BytesIO(), object()])
def test_other_objects_are_refused(file: object) -> None:
    with pytest.raises(TypeError, match="takes a descriptor or a socket, not"):
        sk_conn(file)


def test_an_encrypting_socket_is_refused_and_stays_whole() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with socket.socket() as plain:
        wrapped = context.wrap_socket(
            plain, server_hostname="localhost", do_handshake_on_connect=False
        )
        with wrapped, pytest.raises(TypeError, match="would lose the encryption"):
            sk_conn(wrapped)


def test_a_file_object_is_refused_with_advice(ends: Ends) -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as file:
        with pytest.raises(TypeError, match=r"os\.dup\(file\.fileno\(\)\)"):
            sk_conn(file)
        conn = ends.conn(os.dup(file.fileno()))
    os.write(write_end, b"x")
    os.close(write_end)
    assert conn.read(10) == b"x"


def test_numbers_that_are_no_open_descriptor() -> None:
    with pytest.raises(ValueError, match="negative"):
        sk_conn(-1)
    with pytest.raises(OverflowError):
        sk_conn(1 << 70)
    with pytest.raises(OSError, match="Bad file descriptor"):
        sk_conn(1_000_000)
    sock = socket.socket()
    sock.close()
    with pytest.raises((OSError, ValueError)):
        sk_conn(sock)


def test_a_regular_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with path.open("rb") as file:
        with pytest.raises(ValueError, match=r"regular file.*to_thread\(\)"):
            sk_conn(file.fileno())
        assert os.get_blocking(file.fileno())
        assert file.read() == b"content"
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(ValueError, match="directory"):
        sk_conn(fd)
    os.close(fd)


def test_an_fd_in_use_is_refused_and_left_alone(ends: Ends) -> None:
    conn, peer = ends.pair()
    with pytest.raises(ValueError, match="in use already by another sk_conn"):
        sk_conn(conn.fileno())
    peer.send(b"x")
    assert conn.recv(1) == b"x"
    waited, _ = ends.sockets()
    ends.keep(waited)
    task = spawn(pycoronet.wait_readable, waited)
    sleep(MOMENT)
    with pytest.raises(ValueError, match="a wait for it is going on"):
        sk_conn(waited)
    assert waited.fileno() >= 0
    task.cancel()
    task.join()


def test_a_duplicate_is_a_connection_of_its_own(ends: Ends) -> None:
    conn, peer = ends.pair()
    other = ends.conn(os.dup(conn.fileno()))
    task = spawn(conn.recv, 1)
    sleep(MOMENT)
    peer.send(b"x")
    assert task.get() == b"x"
    other.write(b"y")
    assert peer.recv(1) == b"y"
    conn.close()
    other.write(b"z")
    assert peer.recv(1) == b"z"


def test_it_cannot_be_subclassed_or_changed() -> None:
    with pytest.raises(TypeError):
        type("Sub", (sk_conn,), {})
    with pytest.raises(TypeError):
        sk_conn.read = None
    left, right = socket.socketpair()
    conn = sk_conn(left)
    with pytest.raises(AttributeError):
        conn.nonsense = 1
    for name in ("sfd", "events", "revents", "pending", "closed"):
        with pytest.raises(AttributeError):
            setattr(conn, name, 1)
    conn.close()
    right.close()


def test_repr(ends: Ends) -> None:
    conn, _ = ends.pair()
    assert repr(conn) == f"<sk_conn fd={conn.fileno()}>"
    conn.close()
    assert repr(conn) == "<sk_conn fd=-1 closed>"


def test_weak_references(ends: Ends) -> None:
    left, _ = ends.sockets()
    conn = sk_conn(left)
    reference = weakref.ref(conn)
    assert reference() is conn
    conn.close()
    del conn
    assert reference() is None


def test_it_takes_part_in_collection(ends: Ends) -> None:
    conn, _ = ends.pair()
    assert gc.is_tracked(conn)
    task = spawn(int)
    task.join()
    conn.coroutine = task
    assert task in gc.get_referents(conn)
    conn.coroutine = None
    assert conn.coroutine is None
    with pytest.raises(TypeError, match="must be a Task or None"):
        conn.coroutine = 5


# --- Attributes ------------------------------------------------------------------------------


def test_fresh_attributes(ends: Ends) -> None:
    conn, _ = ends.pair()
    assert conn.timeo is None
    assert conn.gettimeout() is None
    assert conn.events == 0
    assert conn.revents == 0
    assert conn.error == 0
    assert conn.pending == 0
    assert conn.buffered is False
    assert conn.closed is False
    assert conn.coroutine is None


@pytest.mark.parametrize("how", ["set_timeo", "settimeout", "timeo"])
@pytest.mark.parametrize("seconds", [None, 0, 1, 2.5, True, 1e-9, 86400 * 365])
def test_timeouts_by_three_names(ends: Ends, how: str, seconds: float | None) -> None:
    conn, _ = ends.pair()
    conn.timeo = 77
    set_timeout(conn, how, seconds)
    assert conn.timeo == conn.gettimeout() == seconds


def set_timeout(conn: Any, how: str, seconds: object) -> None:
    if how == "timeo":
        conn.timeo = seconds
    else:
        assert getattr(conn, how)(seconds) is None


@pytest.mark.parametrize("how", ["set_timeo", "settimeout", "timeo"])
@pytest.mark.parametrize(
    ("seconds", "error"),
    [
        (-1, ValueError),
        (-1e-9, ValueError),
        (-math.inf, ValueError),
        (-(10**400), ValueError),
        (math.nan, ValueError),
        ("1", TypeError),
        (b"1", TypeError),
        ([], TypeError),
        (1j, TypeError),
    ],
)
def test_wrong_timeouts_are_refused_and_change_nothing(
    ends: Ends, how: str, seconds: object, error: type[Exception]
) -> None:
    conn, _ = ends.pair()
    conn.timeo = 5
    with pytest.raises(error, match="timeout must"):
        set_timeout(conn, how, seconds)
    assert conn.timeo == 5


@pytest.mark.parametrize("seconds", [math.inf, 1e300, 10**400, sys.float_info.max])
def test_huge_timeouts_are_as_good_as_none(ends: Ends, seconds: float) -> None:
    conn, peer = ends.pair()
    conn.timeo = seconds
    task = spawn(conn.recv, 1)
    sleep(86400 * 300)
    peer.send(b"x")
    assert task.get() == b"x"


def test_a_year_is_exact(ends: Ends) -> None:
    conn, _ = ends.pair()
    conn.timeo = 86400 * 365
    hub = pycoronet.get_hub()
    began = hub.time
    with pytest.raises(TimeoutError):
        conn.recv(1)
    assert hub.time - began == pytest.approx(86400 * 365)


def test_a_timeout_set_meanwhile_concerns_the_next_wait(ends: Ends) -> None:
    conn, peer = ends.pair()
    task = spawn(attempt, conn.read, 2)
    sleep(MOMENT)
    conn.timeo = 1
    sleep(100)
    assert not task.done
    peer.send(b"x")
    sleep(2)
    assert isinstance(task.get(), TimeoutError)
    assert conn.recv(1) == b"x"


def test_an_index_like_object_is_a_size(ends: Ends) -> None:
    class Two:
        def __index__(self) -> int:
            return 2

    conn, peer = ends.pair()
    peer.send(b"abc")
    assert conn.recv(Two()) == b"ab"


# --- Events -----------------------------------------------------------------------------------


def test_revents_tells_the_last_event(ends: Ends) -> None:
    conn, peer = ends.pair()
    task = spawn(conn.recv, 10)
    sleep(MOMENT)
    peer.send(b"x")
    sleep(MOMENT)
    assert conn.revents & READ
    task.get()
    peer.close()
    assert conn.recv(1) == b""


@pytest.mark.parametrize("events", [0, READ, WRITE, PRIORITY, READ | WRITE])
def test_mod_sets_events(ends: Ends, events: int) -> None:
    conn, _ = ends.pair()
    assert conn.mod(events) is None
    assert conn.events == events
    assert conn.mod(events | 1 << 31) is None  # the seed's programs may ask for edges
    assert conn.events == events


@pytest.mark.parametrize(
    ("events", "error"),
    [
        (1 << 20, ValueError),
        (READ | 64, ValueError),
        (1 << 70, OverflowError),
        (-1, (OverflowError, ValueError)),
        (1.5, TypeError),
        ("1", TypeError),
        (None, TypeError),
    ],
)
def test_mod_refuses_other_bits(ends: Ends, events: object, error: type[Exception]) -> None:
    conn, _ = ends.pair()
    conn.mod(READ)
    with pytest.raises(error):
        conn.mod(events)
    assert conn.events == READ


def test_mod_does_not_disturb_the_verbs(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.mod(WRITE)
    task = spawn(conn.readln)
    sleep(MOMENT)
    conn.mod(0)
    peer.send(b"line\n")
    assert task.get() == b"line\n"
    fill(conn)
    conn.mod(READ)
    writer = spawn(conn.write, b"x")
    sleep(MOMENT)
    while not writer.done:
        peer.recv(1 << 20)
        sleep(MOMENT)


def test_a_failed_constructor_leaves_the_descriptor(ends: Ends) -> None:
    conn, _ = ends.pair()
    before = open_descriptors()
    for _ in range(10):
        with pytest.raises(ValueError, match="in use"):
            sk_conn(conn.fileno())
        with pytest.raises(TypeError):
            sk_conn(object())
    assert open_descriptors() == before
