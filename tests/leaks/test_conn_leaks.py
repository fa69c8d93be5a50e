"""Connections over many rounds: no descriptor, object, reference or memory stays behind."""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

import pytest
from connections import MOMENT, attempt, drain_now, fill
from layer_case import Failing
from leak_case import check_rounds, pair

import pycoronet
from pycoronet import Cancelled, Traffic, TransportLayer, sk_conn, sleep, spawn, testing, timeout

pytestmark = [pytest.mark.leaks, pytest.mark.usefixtures("virtual_hub")]

# Each is one round, complete with its clean-up.


def read_and_write() -> None:
    with pair() as (conn, peer):
        peer.sendall(b"one\ntwo;three")
        assert conn.readln() == b"one\n"
        assert conn.read_until(b";") == b"two;"
        conn.write(bytearray(b"answer"))
        conn.printf(b"%d", 5)
        conn.sendall(memoryview(b"view"))
        room = bytearray(100)
        peer.sendall(b"more")
        conn.recv_into(room)


def looked_at_and_put_back() -> None:
    with pair() as (conn, peer):
        peer.sendall(b"one\ntwo;three")
        conn.readln()
        conn.peek(5)
        conn.search(bytearray(b"three"))
        conn.copyout(bytearray(3))
        conn.drain(2)
        conn.prepend(bytearray(2000))
        for wrong in (lambda: conn.search(b""), lambda: conn.copyout(b"x"), conn.prepend):
            attempt(wrong)
    attempt(conn.prepend, b"x")
    with pair() as (conn, peer):
        task = spawn(conn.read_until, b";")
        sleep(MOMENT)
        conn.prepend(b"x;")
        task.join()


def waited_for_input() -> None:
    with pair() as (conn, peer):
        conn.wait_input(0)
        task = spawn(conn.wait_input)
        sleep(MOMENT)
        peer.sendall(b"x")
        task.join()
        conn.take(1)
        with pytest.raises(TimeoutError), timeout(None) as scope:
            spawn(scope.cancel)
            conn.wait_input()
        conn.push_layer(TransportLayer())
        peer.sendall(b"x")
        conn.wait_input()
        for wrong in (-1, "soon"):
            attempt(conn.wait_input, wrong)
        conn.close()
        attempt(conn.wait_input)
    with pair() as (conn, peer):
        conn.push_layer(Failing("unwrap"))
        peer.sendall(b"x")
        attempt(conn.wait_input)


def moved() -> None:
    with pair() as (conn, peer):
        conn._attach(conn.detach())
        peer.sendall(b"x")
        conn.recv(1)
        for wrong in (conn.fileno(), -1, "x"):
            attempt(conn._attach, wrong)
        fd = conn.detach()
        attempt(conn._attach, -1)
        conn._attach(fd)


class Owner:
    """Stands for a server that knows its connections."""


def counted_for_a_server() -> None:
    owner: Any = Owner()
    with socket.create_server(("127.0.0.1", 0)) as server:
        owner.listener = sk_conn(server.dup())
    with owner.listener as listener:
        listener.server, listener.traffic, listener.exclusive = owner, Traffic(), True
        with socket.create_connection(listener.getsockname()) as client:
            owner.conn, _ = listener.accept()
            client.sendall(b"word")
            owner.conn.recv(4)
            attempt(setattr, owner.conn, "traffic", 5)
            attempt(setattr, owner.conn, "exclusive", True)
            owner.conn.traffic = Traffic()
            attempt(Traffic, 5)
            repr(owner.conn.traffic)
            owner.conn.close()
    attempt(setattr, listener, "exclusive", False)
    owner.listener.server = owner


def over_a_pair() -> None:
    with testing.pair(latency=0.01, capacity=5000) as made:
        left, right = made
        writer = spawn(attempt, left.sendall, bytes(30_000))
        right.read_exactly(9000)
        made.stall(left)
        made.short_reads(10)
        attempt(made.partner, None)
        sleep(MOMENT)
        made.resume(left)
        right.read_exactly(21_000)
        writer.join()
        reader = spawn(attempt, left.recv, 1)
        made.reset()
        reader.join()
    left, right = testing.pair()
    left.write(b"x")
    left.close()
    right.read(9)
    right.close()
    sleep(MOMENT)
    attempt(lambda: testing.pair(latency=-1))


def lines_in_pieces() -> None:
    with pair("tcp") as (conn, peer):
        task = spawn(attempt, list, conn)
        sleep(MOMENT)
        for piece in (b"on", b"e\ntw", b"o\n", b"x" * 70_000):
            peer.sendall(piece)
            sleep(MOMENT)
        peer.shutdown(socket.SHUT_WR)
        assert isinstance(task.get(), pycoronet.LineTooLongError)


def lines_of_each_kind() -> None:
    with pair() as (conn, peer):
        conn.timeo = 0
        for eol in ("lf", "crlf", "crlf_strict", "any", "nul"):
            for _ in range(3):
                peer.sendall(b"\0" if eol == "nul" else b"one\r\n")
            conn.readln(eol=eol, keepends=False)
            conn.take_line(eol=eol)
            attempt(conn.readln, 1)
            next(conn.lines(eol=eol))
            attempt(conn.lines, 0)
            attempt(lambda: conn.readln(eol="none"))
            attempt(lambda: conn.take_line(eol=5))
            conn.take(100)
        peer.close()
        assert list(conn.lines()) == []


def frames() -> None:
    with pair() as (conn, peer):
        conn.timeo = 0
        peer.sendall(b"\1a\2bc\0\xff")
        conn.read_frame("B")
        conn.take_frame("b")
        attempt(conn.read_frame, "x")
        attempt(conn.take_frame, None)
        attempt(lambda: conn.read_frame("B", limit=0))
        assert conn.read_frame("B") == b""
        for letter in "bB":
            attempt(lambda letter=letter: conn.read_frame(letter, limit=5))
            attempt(lambda letter=letter: conn.take_frame(letter, limit=5))
        peer.close()
        attempt(conn.read_frame, "B")
        assert conn.read_frame("B") is None


def failing_reads() -> None:
    with pair() as (conn, peer):
        conn.timeo = 0
        for call in (
            lambda: conn.recv(1),
            lambda: conn.recv_into(bytearray(10)),
            lambda: conn.read(5),
            lambda: conn.readln(),
            lambda: next(conn),
            lambda: conn.read_until(b"x"),
            lambda: conn.recv(-1),
            lambda: conn.recv("x"),
            lambda: conn.readln(nonsense=1),
            lambda: conn.read_until(b""),
            lambda: conn.recv_into(b""),
        ):
            assert isinstance(attempt(call), Exception)
        peer.sendall(b"x" * 100)
        assert isinstance(attempt(conn.readln, 10), pycoronet.LineTooLongError)
        assert isinstance(attempt(conn.read_until, b"y", 10), pycoronet.LineTooLongError)
        peer.shutdown(socket.SHUT_WR)
        assert isinstance(attempt(conn.read_exactly, 1000), pycoronet.IncompleteReadError)


def failing_writes() -> None:
    with pair() as (conn, peer):
        fill(conn)
        conn.timeo = 0
        for call in (
            lambda: conn.write(b"x"),
            lambda: conn.write(bytearray(b"x")),
            lambda: conn.write("x"),
            lambda: conn.printf(b"%d"),
            lambda: conn.printf(b"%d", 1),
        ):
            assert isinstance(attempt(call), Exception)
        peer.close()
        assert isinstance(attempt(conn.write, b"x"), OSError)
        assert isinstance(attempt(conn.recv, 1), OSError | bytes)


def busy() -> None:
    with pair() as (conn, _):
        fill(conn)
        tasks = [spawn(attempt, conn.recv, 1), spawn(attempt, conn.write, b"x")]
        sleep(MOMENT)
        assert isinstance(attempt(conn.recv, 1), pycoronet.BusyError)
        assert isinstance(attempt(conn.write, b"x"), pycoronet.BusyError)
        conn.close()
        for task in tasks:
            assert isinstance(task.get(), pycoronet.ClosedError)
        assert isinstance(attempt(conn.recv, 1), pycoronet.ClosedError)


def cancelled() -> None:
    with pair() as (conn, _):
        fill(conn)
        tasks = [spawn(conn.read, 5), spawn(conn.write, bytes(1000))]
        sleep(MOMENT)
        for task in tasks:
            task.cancel("reason")
            with pytest.raises(Cancelled):
                task.get()


def reset_by_peer() -> None:
    with pair("tcp") as (conn, peer):
        fill(conn)
        tasks = [spawn(attempt, conn.read, 5), spawn(attempt, conn.write, b"x")]
        sleep(MOMENT)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        for task in tasks:
            assert isinstance(task.get(), OSError)


def buffered() -> None:
    with pair() as (conn, peer):
        conn.buffered = True
        for _ in range(10):
            conn.write(b"piece")
        sleep(0)
        conn.write(b"rest")
        conn.flush()
        conn.write(b"last")
        conn.close()
        assert peer.recv(1000) == b"piece" * 10 + b"restlast"


def draining() -> None:
    with pair() as (conn, peer):
        fill(conn)
        conn.buffered = True
        conn.write(b"later")
        conn.close()
        while peer.recv(1 << 20):
            sleep(MOMENT)
        assert conn.fileno() == -1


def lingering() -> None:
    with pair() as (conn, _):
        fill(conn)
        conn.buffered = True
        conn.write(b"never")
        conn.close()
        sleep(31)
        assert conn.fileno() == -1


def kept_failure() -> None:
    with pair() as (conn, peer):
        conn.buffered = True
        peer.close()
        conn.write(b"x")
        sleep(0)
        assert isinstance(attempt(conn.close), BrokenPipeError)


def dropped() -> None:
    left, right = socket.socketpair()
    conn = sk_conn(left)
    conn.buffered = True
    conn.write(b"x")
    with pytest.warns(ResourceWarning):
        del conn
    right.close()


def refused_constructors() -> None:
    fd = os.open(__file__, os.O_RDONLY)
    assert isinstance(attempt(sk_conn, fd), ValueError)
    os.close(fd)
    assert isinstance(attempt(sk_conn, object()), TypeError)
    with pair() as (conn, _):
        assert isinstance(attempt(sk_conn, conn.fileno()), ValueError)
    assert isinstance(attempt(sk_conn, 1_000_000), OSError)


def accepted() -> None:
    with pycoronet.listen(("127.0.0.1", 0)) as listener:
        connecting = spawn(pycoronet.connect, listener.getsockname())
        conn, _ = listener.accept()
        conn.close()
        connecting.get().close()
        waiting = spawn(attempt, listener.accept)
        sleep(MOMENT)
        listener.close()
        assert isinstance(waiting.get(), pycoronet.ClosedError)
        assert isinstance(attempt(pycoronet.connect, ("127.0.0.1", 1)), OSError)


def paused() -> None:
    with pycoronet.listen(("127.0.0.1", 0), enabled=False, defer_accept=None) as listener:
        listener.accept_limit = 1
        with socket.create_connection(listener.getsockname()):
            accepting = spawn(listener.accept)
            sleep(MOMENT)
            listener.enable(pycoronet.READ)
            conn, _ = accepting.get()
            conn.close()
        waiting = spawn(attempt, listener.accept)
        sleep(MOMENT)
        listener.accept_limit = None
        listener.disable(pycoronet.READ)
        listener.accept_limit = 5
        sleep(MOMENT)
        listener.close()
        assert isinstance(waiting.get(), pycoronet.ClosedError)


def refused_options() -> None:
    with pycoronet.listen(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()
    for address, options in [
        (taken, {"ipv6_only": True}),
        (taken, {"defer_accept": 0}),
        (taken, {"backlog": "x"}),
        (("192.0.2.1", 1), {}),  # nobody's
        (("127.0.0.1", 1 << 20), {}),
    ]:
        error = attempt(lambda: pycoronet.listen(address, **options))  # noqa: B023
        assert isinstance(error, OSError | ValueError | TypeError | OverflowError)


def served() -> None:
    def handler(conn: Any, _: object) -> None:
        for line in conn:
            conn.write(line)

    listener = pycoronet.listen(("127.0.0.1", 0))
    server = spawn(pycoronet.serve, listener, handler)
    for _ in range(3):
        with pycoronet.connect(listener.getsockname()) as client:
            client.write(b"x\n")
            assert client.readln() == b"x\n"
    listener.close()
    server.get()
    pycoronet.get_hub().run()


def waited_for() -> None:
    left, right = socket.socketpair()
    assert isinstance(attempt(pycoronet.wait_readable, left, 0), TimeoutError)
    task = spawn(pycoronet.wait_readable, left)
    sleep(0)
    assert isinstance(attempt(pycoronet.wait_readable, left), pycoronet.BusyError)
    right.send(b"x")
    task.get()
    other = spawn(attempt, pycoronet.wait_fd, left, pycoronet.PRIORITY)
    sleep(0)
    pycoronet.notify_closing(left)
    assert isinstance(other.get(), pycoronet.ClosedError)
    left.close()
    right.close()


def closed_behind_our_back() -> None:
    left, right = socket.socketpair()
    number = left.fileno()
    conn = sk_conn(left)
    task = spawn(attempt, conn.recv, 1)
    sleep(MOMENT)
    pycoronet.notify_closing(number)
    assert isinstance(task.get(), pycoronet.ClosedError)
    socket.socket(fileno=number).close()
    right.close()


CASES = [
    read_and_write,
    looked_at_and_put_back,
    over_a_pair,
    lines_in_pieces,
    lines_of_each_kind,
    frames,
    failing_reads,
    failing_writes,
    busy,
    cancelled,
    reset_by_peer,
    buffered,
    draining,
    lingering,
    kept_failure,
    dropped,
    refused_constructors,
    accepted,
    paused,
    refused_options,
    served,
    waited_for,
    waited_for_input,
    counted_for_a_server,
    moved,
    closed_behind_our_back,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_nothing_stays_behind(case: Callable[[], None]) -> None:
    check_rounds(case)


@pytest.mark.parametrize(
    "call",
    [
        lambda conn, data: conn.write(data),
        lambda conn, data: conn.sendall(data),
        lambda conn, data: conn.printf(data),
        lambda conn, data: attempt(conn.read_until, data, 1),
        lambda conn, data: attempt(conn.recv_into, data),
        lambda conn, data: attempt(sk_conn, data),
        lambda conn, data: attempt(conn.readln, data),
        lambda conn, data: attempt(setattr, conn, "timeo", data),
    ],
)
def test_arguments_keep_their_reference_counts(call: Callable[[Any, Any], object]) -> None:
    with pair() as (conn, peer):
        conn.timeo = 0
        peer.sendall(b"xyz")
        data = bytes(bytearray(b"some bytes"))
        own = sys.getrefcount(conn)
        before = sys.getrefcount(data)
        for _ in range(100):
            call(conn, data)
            drain_now(peer)
        assert sys.getrefcount(data) == before
        assert sys.getrefcount(conn) == own


def test_a_parked_wait_gives_its_references_back() -> None:
    with pair() as (conn, peer):
        before = sys.getrefcount(conn)
        for _ in range(50):
            task = spawn(conn.recv, 1)
            sleep(MOMENT)
            peer.send(b"x")
            task.get()
            task.join()
        del task
        sleep(MOMENT)
        assert sys.getrefcount(conn) == before
