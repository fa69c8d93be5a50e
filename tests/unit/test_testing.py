"""pycoronet.testing: virtual time, and pairs with latency, stalls, short reads and resets."""

from __future__ import annotations

import errno
import gc
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from connections import MOMENT, attempt, count_descriptors, fill
from layer_case import Named
from recorders import Recorder, told, turn

import pycoronet
from pycoronet import get_hub, sleep, spawn
from pycoronet.layers import Zlib
from pycoronet.testing import Pair, pair, virtual_time

# The clock's tick: what is due is never early, and may be so much later on each way.
TICK = 0.002

CONTENT = bytes(range(256)) * 1200


@pytest.fixture
def hub(virtual_hub: pycoronet.Hub) -> pycoronet.Hub:
    return virtual_hub


@pytest.fixture
def made(hub: pycoronet.Hub) -> Iterator[Pair]:
    with pair() as made:
        yield made


def elapsed(hub: pycoronet.Hub, call: Any, *arguments: Any) -> tuple[Any, float]:
    """Return what the call gives, and how much virtual time it took."""
    began = hub.time
    return call(*arguments), hub.time - began


# --- Virtual time ---------------------------------------------------------------------------------


def test_virtual_time_passes_at_once() -> None:
    with virtual_time() as hub:
        assert get_hub() is hub
        assert hub.backend == "fake"
        assert elapsed(hub, sleep, 86400) == (None, pytest.approx(86400, abs=TICK))
    assert get_hub() is not hub


def test_virtual_time_ends_with_what_its_block_raises() -> None:
    with pytest.raises(ZeroDivisionError), virtual_time() as hub:
        raise ZeroDivisionError
    assert get_hub() is not hub


# --- Connected ------------------------------------------------------------------------------------


def test_both_ends_are_connected(made: Pair) -> None:
    left, right = made
    left.write(b"ping\n")
    assert right.readln() == b"ping\n"
    right.write(b"pong\n")
    assert left.readln() == b"pong\n"
    assert made.partner(left) is right
    assert made.partner(right) is left
    with pair() as other, pytest.raises(ValueError, match="not of this pair"):
        made.partner(next(iter(other)))


@pytest.mark.parametrize("capacity", [1, 1000, 65536])
def test_much_passes_unchanged_in_both_directions(hub: pycoronet.Hub, capacity: int) -> None:
    content = CONTENT if capacity > 1 else CONTENT[:3000]
    with pair(latency=0.01 if capacity > 1 else 0, capacity=capacity) as ends:
        writers = [spawn(conn.sendall, content) for conn in ends]
        readers = [spawn(conn.read_exactly, len(content)) for conn in ends]
        assert [reader.get() for reader in readers] == [content] * 2
        for writer in writers:
            writer.join()


def test_layers_and_callbacks_work_on_it(made: Pair) -> None:
    left, right = made
    for conn in made:
        conn.push_layer(Zlib())

    def answer(conn: Any) -> None:
        if len(recorder.received) == 3:
            conn.write(recorder.received[::-1])

    recorder = Recorder(data=answer)
    right.set_callbacks(recorder)
    left.write(b"abc")
    assert left.read(3) == b"cba"
    left.close()
    turn()
    assert told(recorder.log) == ["data", "eof", "close"]


@pytest.mark.parametrize(
    "options",
    [
        *({"latency": wrong} for wrong in (-1, float("nan"), float("inf"), (0, -1), (1, 2, 3))),
        {"capacity": 0},
    ],
)
def test_bad_options_are_refused(hub: pycoronet.Hub, options: Any) -> None:
    before = count_descriptors()
    with pytest.raises(ValueError, match=next(iter(options))):
        pair(**options)
    assert count_descriptors() == before


def test_on_a_hub_in_real_time() -> None:
    get_hub().close()
    with pair(latency=0.001) as (left, right):
        left.write(b"x")
        assert right.recv(1) == b"x"
    get_hub().close()


# --- Latency --------------------------------------------------------------------------------------


def test_latency_of_each_direction(hub: pycoronet.Hub) -> None:
    with pair(latency=(1, 20)) as (left, right):
        left.write(b"there")
        assert elapsed(hub, right.recv, 9) == (b"there", pytest.approx(1, abs=TICK))
        right.write(b"back")
        assert elapsed(hub, left.recv, 9) == (b"back", pytest.approx(20, abs=TICK))


def test_latency_of_one_number_is_for_both(hub: pycoronet.Hub) -> None:
    with pair(latency=3) as (left, right):
        echo = spawn(lambda: right.write(right.recv(9)))
        left.write(b"x")
        assert elapsed(hub, left.recv, 9) == (b"x", pytest.approx(6, abs=2 * TICK))
        echo.join()


def test_without_latency_no_time_passes(hub: pycoronet.Hub, made: Pair) -> None:
    left, right = made
    left.write(b"x")
    assert elapsed(hub, right.recv, 9) == (b"x", 0)


def test_what_is_under_way_keeps_its_distance(hub: pycoronet.Hub) -> None:
    with pair(latency=10) as (left, right):

        def write() -> None:
            for number in range(3):
                left.write(b"%d\n" % number)
                sleep(2)
            left.close()

        spawn(write)
        arrivals = [(line, hub.time) for line in right]
        first = arrivals[0][1]
        assert [(line, round(time - first)) for line, time in arrivals] == [
            (b"0\n", 0),
            (b"1\n", 2),
            (b"2\n", 4),
        ]


def test_the_end_takes_as_long_as_bytes_do(hub: pycoronet.Hub) -> None:
    with pair(latency=5) as (left, right):
        left.shutdown(socket.SHUT_WR)
        assert elapsed(hub, right.recv, 9) == (b"", pytest.approx(5, abs=TICK))
        right.close()
        assert elapsed(hub, left.recv, 9) == (b"", pytest.approx(5, abs=TICK))


# --- Ends of the stream ---------------------------------------------------------------------------


@pytest.mark.parametrize("latency", [0, 1])
def test_half_close_passes_through(hub: pycoronet.Hub, latency: float) -> None:
    with pair(latency=latency) as (left, right):
        left.write(b"question")
        left.shutdown(socket.SHUT_WR)
        assert right.read(99) == b"question"
        sleep(5)
        writer = spawn(right.sendall, CONTENT)
        assert left.read_exactly(len(CONTENT)) == CONTENT
        writer.join()
        right.shutdown(socket.SHUT_WR)
        assert left.recv(1) == b""


@pytest.mark.parametrize("latency", [0, 1])
def test_close_is_seen_behind_what_was_written(hub: pycoronet.Hub, latency: float) -> None:
    with pair(latency=latency) as (left, right):
        left.buffered = True
        left.write(CONTENT[:5000])
        left.close()
        assert right.read(9999) == CONTENT[:5000]
        assert right.recv(1) == b""


@pytest.mark.parametrize("latency", [0, 1])
def test_writing_to_a_closed_end_fails(hub: pycoronet.Hub, latency: float) -> None:
    with pair(latency=latency) as (left, right):
        left.write(b"last")
        left.close()
        with pytest.raises(BrokenPipeError):
            while True:
                right.write(b"x" * 1000)
                sleep(0.1)
        assert right.read(99) == b"last"


def test_writer_that_waits_hears_of_a_close(hub: pycoronet.Hub, made: Pair) -> None:
    left, right = made
    writer = spawn(attempt, left.sendall, CONTENT)
    turn()
    assert not writer.done
    right.close()
    assert isinstance(writer.get(), ConnectionError)


@pytest.mark.parametrize("latency", [0, 1])
def test_after_a_half_close_a_close_is_still_heard_of(hub: pycoronet.Hub, latency: float) -> None:
    with pair(latency=latency) as (left, right):
        left.shutdown(socket.SHUT_WR)
        assert right.recv(1) == b""
        left.close()
        with pytest.raises(ConnectionError):
            while True:
                right.write(b"x" * 1000)
                sleep(0.1)


def test_nothing_is_left_when_both_ends_are_closed(hub: pycoronet.Hub) -> None:
    sleep(MOMENT)  # the engine has its own
    before = count_descriptors()
    left, right = pair(latency=1)
    left.write(b"x")
    left.close()
    right.close()
    hub.run()  # until nothing is left to do
    assert count_descriptors() == before
    left, right = pair()
    left.shutdown(socket.SHUT_WR)
    right.shutdown(socket.SHUT_WR)
    hub.run()
    assert left.recv(1) == right.recv(1) == b""
    left.close()
    right.close()
    assert count_descriptors() == before


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_is_dropped_is_closed(hub: pycoronet.Hub) -> None:
    sleep(MOMENT)  # the engine has its own
    before = count_descriptors()
    left, right = pair(latency=1)
    left.write(b"x")
    sleep(0)
    del left, right
    gc.collect()
    hub.run()
    assert count_descriptors() == before


def test_close_drops_what_is_under_way(hub: pycoronet.Hub) -> None:
    sleep(MOMENT)
    before = count_descriptors()
    made = pair(latency=100)
    left, right = made
    reader = spawn(attempt, right.recv, 1)
    left.write(b"x")
    sleep(1)
    made.close()
    made.close()
    assert isinstance(reader.get(), pycoronet.ClosedError)
    sleep(200)
    assert count_descriptors() == before


# --- Stalls ---------------------------------------------------------------------------------------


def test_a_stalled_end_cannot_be_written_for_long(hub: pycoronet.Hub, made: Pair) -> None:
    left, right = made
    made.stall(left)
    taken = fill(left)
    assert 1 < taken < 64 * 1024
    writer = spawn(left.write, b"more")
    reader = spawn(right.recv, 1 << 20)
    sleep(3600)
    assert not writer.done
    assert not reader.done
    right.write(b"the other way")
    assert left.recv(99) == b"the other way"
    made.resume(left)
    writer.get()
    reader.join()
    received = reader.get()
    while len(received) < taken + 4:
        received += right.recv(1 << 20)
    assert received == b"f" * taken + b"more"


def test_a_stalled_end_times_out(hub: pycoronet.Hub, made: Pair) -> None:
    left, _ = made
    left.settimeout(30)
    made.stall(left)
    with pytest.raises(TimeoutError):
        left.sendall(CONTENT)


def test_what_had_left_before_a_stall_arrives(hub: pycoronet.Hub) -> None:
    with pair(latency=5) as made:
        left, right = made
        left.write(b"before")
        sleep(1)
        made.stall(left)
        left.write(b"after")
        assert right.recv(99) == b"before"
        reader = spawn(right.recv, 99)
        sleep(100)
        assert not reader.done
        made.resume(left)
        assert elapsed(hub, reader.get) == (b"after", pytest.approx(5, abs=TICK))


@pytest.mark.parametrize("content", [b"", b"some", CONTENT[:3000]])
def test_a_stall_holds_the_end_back_too(hub: pycoronet.Hub, made: Pair, content: bytes) -> None:
    left, right = made
    made.stall(left)
    left.linger = 1000
    left.enqueue(content)
    sleep(MOMENT)
    left.close()
    reader = spawn(right.read, 1 << 20)
    sleep(100)
    assert not reader.done
    made.resume(left)
    assert reader.get() == content


@pytest.mark.parametrize("latency", [0, 1])
def test_a_writer_waits_for_a_reader_that_does_not_read(hub: pycoronet.Hub, latency: float) -> None:
    with pair(latency=latency, capacity=100_000) as (left, right):
        left.settimeout(60)
        with pytest.raises(TimeoutError) as caught:
            left.sendall(bytes(1 << 20))
        sent = caught.value.bytes_written  # type: ignore[attr-defined]
        assert 100_000 <= sent < 150_000
        assert right.read_exactly(sent) == bytes(sent)


# --- Short reads ----------------------------------------------------------------------------------


def test_short_reads(made: Pair) -> None:
    left, right = made
    made.short_reads(3)
    left.write(b"12345678")
    assert [right.recv(99) for _ in range(3)] == [b"123", b"456", b"78"]
    right.write(b"line\n")
    assert left.readln() == b"line\n"
    made.short_reads(None)
    left.write(b"12345678")
    assert right.recv(99) == b"12345678"


def test_short_reads_leave_the_other_limit_alone(made: Pair) -> None:
    left, right = made
    left.set_single_limits(write=2)
    right.close()
    made.short_reads(1)
    assert left.get_single_limits() == {"read": 1, "write": 2}


# --- Resets ---------------------------------------------------------------------------------------


VERBS = {
    "recv": lambda conn: conn.recv(1),
    "readln": lambda conn: conn.readln(),
    "recvmsg": lambda conn: conn.recvmsg(1),
    "write": lambda conn: conn.write(b"x"),
    "sendall": lambda conn: conn.sendall(CONTENT),
    "enqueue": lambda conn: (conn.enqueue(b"x"), conn.flush()),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("is_waiting", [True, False])
def test_reset_reaches_both_ends(made: Pair, verb: str, is_waiting: bool) -> None:
    call = VERBS[verb]
    if is_waiting and verb not in ("write", "enqueue"):
        tasks = [spawn(attempt, call, conn) for conn in made]
        turn()
        assert not any(task.done for task in tasks)
        made.reset()
        outcomes = [task.get() for task in tasks]
    else:
        made.reset()
        outcomes = [attempt(call, conn) for conn in made]
    for outcome in outcomes:
        assert isinstance(outcome, ConnectionResetError)
        assert outcome.errno == errno.ECONNRESET


def test_what_arrived_before_a_reset_is_read_first(hub: pycoronet.Hub) -> None:
    with pair(latency=1) as made:
        left, right = made
        left.write(b"arrived")
        sleep(2)
        left.write(b"lost")
        sleep(0)
        made.reset()
        assert right.recv(99) == b"arrived"
        with pytest.raises(ConnectionResetError):
            right.recv(99)


@pytest.mark.parametrize("receive", [True, False])
def test_reset_is_an_error_to_callbacks(made: Pair, receive: bool) -> None:
    recorder = Recorder(takes=receive)
    for conn in made:
        conn.set_callbacks(recorder, receive=receive)
    turn()
    made.reset()
    turn()
    assert [type(error) for error in recorder.errors] == [ConnectionResetError] * 2
    assert recorder.log.count("close") == 2
    assert "eof" not in recorder.log


def test_reset_through_layers(made: Pair) -> None:
    left, right = made
    left.push_layer(Named(b""))
    made.reset()
    with pytest.raises(ConnectionResetError):
        left.recv(1)
    assert isinstance(attempt(right.recv, 1), ConnectionResetError)


def test_reset_of_closed_ends_does_nothing(made: Pair) -> None:
    left, right = made
    left.close()
    right.close()
    sleep(MOMENT)
    made.reset()


# --- The same each time ---------------------------------------------------------------------------


def run_a_protocol() -> list[Any]:
    """Return what happens, and when, between two that talk over a bad network."""
    log: list[Any] = []
    with virtual_time() as hub, pair(latency=(0.25, 0.5), capacity=5000) as made:
        left, right = made
        began = hub.time

        def note(*what: object) -> None:
            log.append((round(hub.time - began, 3), *what))

        def send() -> None:
            for size in (10, 20_000, 1, 7000):
                left.write(bytes(size))
                note("sent", size)
            left.shutdown(socket.SHUT_WR)
            note("answered", len(left.read(1 << 20)))

        def receive() -> None:
            while data := right.recv(4096):
                note("received", len(data))
                right.write(data[:7])
            right.close()

        tasks = [spawn(send), spawn(receive)]
        sleep(1)
        made.stall(left)
        sleep(10)
        made.resume(left)
        for task in tasks:
            task.get()
    return log


def test_what_happens_is_the_same_each_time() -> None:
    first = run_a_protocol()
    assert len(first) > 10
    assert sum(entry[2] for entry in first if entry[1] == "received") == 27011
    for _ in range(3):
        assert run_a_protocol() == first
