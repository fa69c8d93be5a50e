"""wait_input(): the pause before something is read, with and without layers."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from connections import MOMENT, Ends, attempt, reset
from layer_case import Failing, Named
from recorders import Recorder, turn

import pycoronet
from pycoronet import (
    READ,
    BusyError,
    ClosedError,
    RateLimit,
    TransportLayer,
    get_hub,
    listen,
    sleep,
    spawn,
    timeout,
)

pytestmark = pytest.mark.usefixtures("virtual_hub")


class Pairs(TransportLayer):
    """Gives bytes only two at a time; ends at a full stop."""

    def __init__(self) -> None:
        self.held = b""

    def unwrap(self, data: bytes) -> bytes:
        self.held += data
        if self.held.endswith(b"."):
            self.end()
        count = len(self.held) // 2 * 2
        given, self.held = self.held[:count], self.held[count:]
        return given


class Silent(TransportLayer):
    """Gives nothing, whatever comes."""

    def unwrap(self, data: bytes) -> bytes:
        return b""


@pytest.fixture(params=["plain", "layer"])
def both(request: pytest.FixtureRequest, ends: Ends) -> tuple[Any, socket.socket]:
    """Return a connection and its peer; one without and one with a layer."""
    conn, peer = ends.pair("tcp")
    if request.param == "layer":
        conn.push_layer(TransportLayer())
    return conn, peer


def test_it_is_true_at_once_while_something_is_there(both: tuple[Any, socket.socket]) -> None:
    conn, peer = both
    peer.sendall(b"one\ntwo")
    assert conn.wait_input()
    assert conn.wait_input(0)
    assert conn.readln() == b"one\n"
    assert conn.wait_input(0)
    assert conn.read(3) == b"two"
    assert not conn.wait_input(0)


def test_it_waits_for_what_comes_later(both: tuple[Any, socket.socket]) -> None:
    conn, peer = both
    for _ in range(3):
        waiting = spawn(conn.wait_input)
        sleep(1)
        assert not waiting.done
        peer.sendall(b"word")
        assert waiting.get() is True
        assert conn.read(4) == b"word"


def test_in_vain_it_is_false_and_time_has_passed(both: tuple[Any, socket.socket]) -> None:
    conn, peer = both
    started = get_hub().time
    assert conn.wait_input(5) is False
    assert round(get_hub().time - started, 3) == 5
    peer.sendall(b"x")
    assert conn.recv(1) == b"x"


@pytest.mark.parametrize(("own", "given", "passed"), [(2, 5, 2), (5, 2, 2), (2, None, 2)])
def test_the_shorter_timeout_counts(
    both: tuple[Any, socket.socket], own: float, given: float | None, passed: float
) -> None:
    conn, _ = both
    conn.timeo = own
    started = get_hub().time
    assert conn.wait_input(timeout=given) is False
    assert round(get_hub().time - started, 3) == passed
    assert conn.error == 0


def test_the_end_of_file_is_something_to_read(both: tuple[Any, socket.socket]) -> None:
    conn, peer = both
    peer.shutdown(socket.SHUT_WR)
    for _ in range(2):
        assert conn.wait_input() is True
        assert conn.recv(10) == b""


def test_a_reset_is_told_by_the_read(ends: Ends) -> None:
    conn, peer = ends.pair("tcp")
    reset(peer)
    assert conn.wait_input() is True
    with pytest.raises(ConnectionResetError):
        conn.recv(10)


def test_a_reset_below_layers_is_raised(ends: Ends) -> None:
    conn, peer = ends.pair("tcp")
    conn.push_layer(TransportLayer())
    reset(peer)
    with pytest.raises(ConnectionResetError):
        conn.wait_input()


def test_a_layer_has_to_give_something(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.push_layer(Pairs())
    waiting = spawn(conn.wait_input)
    peer.sendall(b"a")
    sleep(1)
    assert not waiting.done
    peer.sendall(b"b")
    assert waiting.get() is True
    assert conn.recv(10) == b"ab"
    peer.sendall(b".")  # which is never given, but ends it
    assert conn.wait_input() is True
    assert conn.recv(10) == b""


def test_bytes_that_give_nothing_do_not_start_the_time_anew(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.push_layer(Silent())
    started = get_hub().time
    waiting = spawn(conn.wait_input, 5)
    for _ in range(4):
        sleep(1)
        peer.sendall(b"x")
    assert waiting.get() is False
    assert round(get_hub().time - started, 3) == 5


def test_others_run_while_a_layer_is_fed_nothing_but_noise(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.set_single_limits(read=1)
    conn.push_layer(Silent())
    peer.sendall(b"x" * 5000)
    waiting = spawn(conn.wait_input)
    sleep(0)
    sleep(0)
    assert 0 < conn.bytes_read < 5000  # it gave way before it had read all
    waiting.cancel()
    sleep(MOMENT)


def test_a_layer_that_fails_closes_the_connection(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.push_layer(Failing("unwrap"))
    peer.sendall(b"x")
    with pytest.raises(ZeroDivisionError):
        conn.wait_input()
    assert conn.closed


def test_below_popped_layers_it_goes_on(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.push_layer(Named(b"a"))
    conn.pop_layer()
    peer.sendall(b"word")
    assert conn.wait_input()
    assert conn.recv(10) == b"word"
    peer.shutdown(socket.SHUT_WR)
    assert conn.wait_input()
    assert conn.recv(10) == b""


def test_a_held_direction_has_nothing_to_read(both: tuple[Any, socket.socket]) -> None:
    conn, peer = both
    conn.disable(READ)
    peer.sendall(b"word")
    assert conn.wait_input(1) is False
    waiting = spawn(conn.wait_input)
    sleep(1)
    conn.enable(READ)
    assert waiting.get() is True
    assert conn.read(4) == b"word"


def test_a_rate_limit_is_waited_for(both: tuple[Any, socket.socket]) -> None:
    conn, peer = both
    conn.set_rate_limit(RateLimit(read_rate=2))
    peer.sendall(b"word")
    assert conn.read(2) == b"wo"
    assert conn.wait_input(0.1) is False
    assert conn.wait_input() is True
    assert conn.recv(1) == b"r"


def test_what_is_put_back_can_be_read(both: tuple[Any, socket.socket]) -> None:
    conn, _ = both
    waiting = spawn(conn.wait_input)
    sleep(MOMENT)
    conn.prepend(b"word")
    assert waiting.get() is True
    assert conn.recv(10) == b"word"


def test_closing_ends_it(both: tuple[Any, socket.socket]) -> None:
    conn, _ = both
    waiting = spawn(attempt, conn.wait_input)
    sleep(MOMENT)
    conn.close()
    assert isinstance(waiting.get(), ClosedError)
    with pytest.raises(ClosedError):
        conn.wait_input(0)


def test_a_scope_ends_it_and_nothing_is_lost(both: tuple[Any, socket.socket]) -> None:
    conn, peer = both
    with pytest.raises(TimeoutError), timeout(None) as scope:
        spawn(scope.cancel)
        conn.wait_input()
    peer.sendall(b"word")
    assert conn.read(4) == b"word"


def test_one_task_reads_at_a_time(both: tuple[Any, socket.socket]) -> None:
    conn, _ = both
    waiting = spawn(conn.wait_input)
    sleep(MOMENT)
    for read in (conn.recv, conn.wait_input):
        with pytest.raises(BusyError, match="wait_input"):
            read(1)
    waiting.cancel()


def test_callbacks_read_by_themselves(ends: Ends) -> None:
    conn, peer = ends.pair()
    outcomes: list[Any] = []

    def look_and_take(conn: Any) -> None:
        outcomes.append(attempt(conn.wait_input))
        conn.take(10)
        outcomes.append(attempt(conn.wait_input))

    conn.set_callbacks(Recorder(takes=False, data=look_and_take))
    with pytest.raises(BusyError):
        conn.wait_input()
    peer.sendall(b"word")
    turn()
    assert outcomes[0] is True
    assert isinstance(outcomes[1], RuntimeError)  # it would have to wait


@pytest.mark.parametrize("kind", ["udp", "seqpacket"])
def test_packets_are_input(ends: Ends, kind: str) -> None:
    conn, peer = ends.pair(kind)
    assert conn.wait_input(0) is False
    peer.send(b"packet")
    assert conn.wait_input() is True
    assert conn.recv(10) == b"packet"


def test_a_listener_has_input_when_somebody_waits(ends: Ends) -> None:
    listener = ends.keep(listen(("127.0.0.1", 0)))
    assert listener.wait_input(1) is False
    ends.keep(socket.create_connection(listener.getsockname()))
    assert listener.wait_input() is True
    ends.keep(listener.accept()[0])


@pytest.mark.parametrize("wrong", [-1, float("nan"), "soon"])
def test_wrong_timeouts(ends: Ends, wrong: Any) -> None:
    conn, _ = ends.pair()
    with pytest.raises((TypeError, ValueError)):
        conn.wait_input(wrong)


def test_urgent_data_alone_is_no_input(ends: Ends) -> None:
    conn, peer = ends.pair("tcp")
    waiting = spawn(conn.wait_input, 5)
    sleep(MOMENT)
    peer.send(b"!", socket.MSG_OOB)
    sleep(1)
    assert not waiting.done
    peer.send(b"word")
    assert waiting.get() is True
    assert pycoronet.get_hub().task_count == 0
