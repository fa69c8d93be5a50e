"""Everything that holds or turns a flow, at random and at once: no byte is lost, nothing stalls.

Two ends send each other numbered messages, in every way there is, while their directions are
disabled, limited, paused by marks and read by turns by callbacks and by tasks. In virtual time.
"""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates
from connections import Ends

from pycoronet import (
    HIGH,
    READ,
    WRITE,
    BusyError,
    ClosedError,
    Protocol,
    RateGroup,
    RateLimit,
    _coronet,
    get_hub,
    sleep,
    spawn,
)
from pycoronet.layers import Filter, Zlib
from pycoronet.tls import TLSLayer

pytestmark = pytest.mark.usefixtures("virtual_hub")

HEADER = struct.Struct(">BII")  # is urgent, which one, how many bytes follow
MESSAGES = 20  # of each end
STEPS = 100  # that something is changed
# More than any run needs: one in which time stands still is ended.
MAX_POLLS = 600_000 if _coronet.HARD_MODE else 60_000
PATIENCE = 30  # how often the kernel's own, real, timers are given a moment
DIRECTIONS = [READ, WRITE, READ | WRITE]
CHANGES = [
    "disable",
    "limits",
    "rate",
    "group",
    "marks",
    "timeouts",
    "trigger",
    "flush",
    "task",
    "priority",
    "callbacks",
    "told",
    "decrement",
]
STACKS = ["plain", "filter", "zlib", "tls", "zlib over tls"]


def payload(number: int, length: int) -> bytes:
    """Return the bytes of a message, told by its number."""
    return bytes([number % 251 + 1]) * length


def swap(source: bytearray, is_end: bool) -> bytes:
    """Be a filter that changes each byte, and takes a few at a time."""
    taken = bytes(source)
    source.clear()
    return bytes(byte ^ 0x55 for byte in taken)


class End(Protocol):
    """One end: what it sends, what it has got, and how it reads at the moment."""

    def __init__(self, conn: Any, dice: random.Random, folder: Path) -> None:
        self.conn = conn
        self.dice = dice
        self.folder = folder
        self.received = bytearray()
        self.numbers: dict[int, list[int]] = {0: [], 1: []}
        self.written = 0
        self.has_ended = False
        self.is_reading = False
        self.log: list[str] = []
        self.mode = "callbacks"
        self.is_over = False  # of the disturbance
        conn.set_callbacks(self)

    # --- Reading ---------------------------------------------------------------------------------

    def on_data(self, conn: Any) -> None:
        assert not conn.closed
        choice = self.dice.randrange(8) if not self.is_over else 7
        if choice == 0:
            conn.disable(READ)
            get_hub().call_later(self.dice.random(), self.enable, READ)
        if choice == 1:
            conn.trigger(READ)
            self.flush()
        if choice == 2:
            self.keep(conn.take(self.dice.randrange(1, 3000)))
            get_hub().call_later(self.dice.random(), self.take_more)
        elif choice == 3:
            get_hub().call_later(self.dice.random(), self.take_more)
        else:
            while data := conn.take(self.dice.choice([1, 500, 100_000])):
                self.keep(data)

    def take_more(self) -> None:
        if not self.conn.closed and not self.is_reading:
            # What is left would be told of with what comes next, and that may be nothing.
            while data := self.conn.take(5000):
                self.keep(data)

    def on_eof(self, conn: Any) -> None:
        assert not self.has_ended
        while data := conn.take(100_000):
            self.keep(data)
        self.has_ended = True

    def on_error(self, conn: Any, error: Exception, direction: int) -> None:
        self.log.append(f"{error!r} {direction}")

    def on_close(self, conn: Any) -> None:
        self.log.append("close")

    def on_timeout(self, conn: Any, direction: int) -> None:
        assert direction in DIRECTIONS

    def read_by_task(self) -> None:
        """Take turns with the callbacks."""
        conn = self.conn
        while self.mode == "task" and not self.has_ended:
            try:
                data = conn.recv(self.dice.choice([1, 100, 70_000]))
            except TimeoutError:
                continue
            self.keep(data)
            self.has_ended |= not data
        self.is_reading = False

    def keep(self, data: bytes) -> None:
        self.received += data
        while len(self.received) >= HEADER.size:
            urgent, number, length = HEADER.unpack_from(self.received)
            if len(self.received) < HEADER.size + length:
                break
            content = bytes(self.received[HEADER.size : HEADER.size + length])
            assert content == payload(number, length)
            self.numbers[urgent].append(number)
            del self.received[: HEADER.size + length]

    # --- Writing ---------------------------------------------------------------------------------

    def write_all(self) -> None:
        for number in range(MESSAGES):
            self.send(number)
            if self.dice.random() < 0.5:
                sleep(self.dice.random() * 0.5)

    def send(self, number: int) -> None:
        conn = self.conn
        length = self.dice.choice([0, 1, 100, 3000, 20_000, 150_000])
        way = self.dice.randrange(6)
        message = HEADER.pack(way == 0, number, length) + payload(number, length)
        if way <= 1:
            conn.enqueue(message, urgent=way == 0)
        elif way == 2:
            path = self.folder / f"{id(self)}-{number}"  # it may wait in the queue
            path.write_bytes(message)
            with path.open("rb") as file:
                conn.sendfile(file)
        elif way == 3:
            get_hub().call_soon(self.write, message)
            while self.written <= number:
                sleep(0)
        else:
            conn.buffered = way == 4
            conn.write(message)
        self.written = number + 1

    def flush(self) -> None:
        with suppress(BusyError, ClosedError):  # a task writes, or it came too late
            self.conn.flush()

    def write(self, message: bytes) -> None:
        try:
            self.conn.write(message)
        except BusyError:
            self.conn.enqueue(message)
        self.written += 1

    # --- Disturbing ------------------------------------------------------------------------------

    def enable(self, directions: int) -> None:
        if not self.conn.closed:
            self.conn.enable(directions)

    def disturb(self, group: RateGroup) -> None:
        conn, dice = self.conn, self.dice
        name = dice.choice(CHANGES)
        if name == "disable":
            directions = dice.choice(DIRECTIONS)
            conn.disable(directions)
            get_hub().call_later(dice.random() * 2, self.enable, directions)
        elif name == "limits":
            conn.set_single_limits(dice.choice([None, 100, 4096]), dice.choice([None, 70, 5000]))
        elif name == "rate":
            rate = dice.choice([20_000, 300_000])
            limits = [None, RateLimit(read_rate=rate), RateLimit(write_rate=rate, write_burst=100)]
            conn.set_rate_limit(dice.choice(limits))
        elif name == "group":
            (group.remove if conn.rate_group else group.add)(conn)
        elif name == "marks":
            low = dice.choice([0, 1, 100, 5000])
            conn.set_watermarks(read_low=low, read_high=low + dice.choice([1, 100, 60_000]))
            low = dice.choice([0, 1000])
            conn.set_watermarks(write_low=low, write_high=low + dice.choice([0, 1000, 60_000]))
        elif name == "timeouts" and not self.is_reading:
            conn.set_timeouts(dice.choice([None, 0.3]), None)
        elif name == "trigger" and self.mode != "task":
            conn.trigger(dice.choice(DIRECTIONS), ignore_watermarks=dice.random() < 0.5)
        elif name == "flush":
            get_hub().call_soon(self.flush)
        elif name == "task" and not self.is_reading:
            self.use_task()
        elif name == "priority":
            conn.priority = dice.randrange(3)
        elif name == "callbacks":
            self.use_callbacks(True)
        elif name == "told":
            self.use_callbacks(False)
        elif name == "decrement" and conn.rate_limit is not None:
            reads = conn.rate_limit.read_rate is not None
            conn.decrement_rate(**{"read" if reads else "write": 5000})

    def use_task(self) -> None:
        if self.has_ended:
            return
        self.conn.set_callbacks(None)
        self.mode = "task"
        self.is_reading = True
        self.conn.settimeout(None)
        self.conn.set_timeouts(0.1, None)
        spawn(self.read_by_task)

    def use_callbacks(self, receive: bool) -> None:
        if self.has_ended:
            return
        self.mode = "callbacks"
        while self.is_reading:
            self.conn.enable(READ)
            sleep(0.2)
        if not self.has_ended:
            self.conn.set_callbacks(self, receive=receive)

    def settle(self) -> None:
        """Let all flow again."""
        self.is_over = True
        self.use_callbacks(True)
        conn = self.conn
        conn.set_timeouts()
        conn.set_single_limits()
        if self.dice.random() < 0.5:
            conn.set_rate_limit(None)
        if self.dice.random() < 0.5 and conn.rate_group is not None:
            conn.rate_group.remove(conn)
        conn.set_watermarks(read_low=0, read_high=65536, write_low=16384, write_high=10_000_000)
        conn.enable(READ | WRITE)
        if not self.has_ended:
            conn.trigger(READ, ignore_watermarks=True)


@pytest.fixture
def ends_of_flow(
    ends: Ends, virtual_hub: Any, tmp_path: Path
) -> Iterator[Callable[..., list[End]]]:
    """Return a maker of two ends, which are aborted if time stands still between them."""
    polls = 0
    made: list[End] = []

    def count() -> None:
        nonlocal polls
        polls += 1
        if polls == MAX_POLLS:
            for end in made:
                end.conn.abort()

    def make(kind: str, dice: random.Random) -> list[End]:
        for sock in ends.sockets(kind):
            if kind == "unix":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            made.append(End(ends.conn(sock), dice, tmp_path))
        return made

    handle = virtual_hub.add_hook(check=count)
    yield make
    handle.cancel()
    assert polls < MAX_POLLS


def push(conn: Any, stack: str, certificates: Certificates, is_server: bool) -> None:
    """Put the layers on that the stack's name tells of."""
    if stack == "filter":
        conn.push_layer(Filter(swap, swap))
    if "tls" in stack:
        context = certificates.server_context() if is_server else certificates.client_context()
        name = None if is_server else "localhost"
        conn.push_layer(TLSLayer(context, server_side=is_server, server_hostname=name))
    if "zlib" in stack:
        conn.push_layer(Zlib())


def wait_for(is_done: Callable[[], bool]) -> None:
    """Let virtual time pass, and where the kernel has timers of its own, a little of the real."""
    for _ in range(PATIENCE):
        sleep(100)
        if is_done():
            return
        time.sleep(0.02)
    pytest.fail("it stalled:\n" + get_hub().dump())


def finish(ends: list[End]) -> None:
    """End both directions: one after the other, or by closing one end when it has got all."""
    first, second = ends
    if first.dice.random() < 0.5:
        first.conn.shutdown(socket.SHUT_WR)
        wait_for(lambda: second.has_ended)
        second.conn.close()
        wait_for(lambda: first.has_ended)
    else:
        wait_for(lambda: sum(map(len, first.numbers.values())) == MESSAGES)
    first.conn.close()
    wait_for(lambda: second.has_ended)
    second.conn.close()
    wait_for(lambda: all("close" in end.log for end in ends))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_no_byte_is_lost_and_nothing_stalls(
    kind: str,
    stack: str,
    seed: int,
    ends_of_flow: Callable[..., list[End]],
    certificates: Certificates,
) -> None:
    dice = random.Random(seed)
    both = ends_of_flow(kind, dice)
    group = RateGroup(RateLimit(read_rate=200_000, write_rate=100_000, write_burst=2000))
    if dice.random() < 0.5:
        get_hub().set_dispatch_interval(calls=1, min_priority=HIGH)
    for end in both:
        end.conn.linger = None
        push(end.conn, stack, certificates, end is both[0])
    writers = [spawn(end.write_all) for end in both]
    for _ in range(STEPS):
        sleep(dice.random() * 0.2)
        dice.choice(both).disturb(group)
    for end in both:
        end.settle()
    wait_for(lambda: all(writer.done for writer in writers))
    finish(both)
    for end in both:
        assert end.log == ["close"]
        assert not end.received
        ordinary, urgent = end.numbers[0], end.numbers[1]
        assert ordinary == sorted(ordinary)
        assert urgent == sorted(urgent)
        assert sorted(ordinary + urgent) == list(range(MESSAGES))
    assert len(group) == 0
