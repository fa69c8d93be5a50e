"""Random readers, writers, timeouts and cancels against a plain model of the stream.

What is written comes out once and in order, whatever verbs read it and however they were
disturbed. Each end of a connection has a writer and a reader task, which draw their next
step; the model is the bytes that were written and how many of them have been read.
"""

from __future__ import annotations

import os
import random
import socket
from contextlib import suppress
from typing import Any

import pytest
from connections import MOMENT, Ends

import pycoronet
from pycoronet import (
    Cancelled,
    IncompleteReadError,
    LineTooLongError,
    sleep,
    spawn,
    timeout,
)

pytestmark = pytest.mark.usefixtures("virtual_hub")

ROUNDS = int(os.environ.get("PYCORONET_MODEL_ROUNDS", "12"))
STEPS = 120
SIZES = [0, 1, 2, 3, 10, 100, 1000, 4096, 65536, 65537, 300_000]


class Direction:
    """One direction of a connection: what went in, and how far the reader has come."""

    def __init__(self, writer: Any, reader: Any, chance: random.Random) -> None:
        self.writer = writer
        self.reader = reader
        self.chance = chance
        self.sent = bytearray()
        self.received = 0
        self.is_ended = False

    # --- Writing ---

    def write_on(self) -> None:
        """Take random steps of writing, then end the direction."""
        for _ in range(STEPS):
            self.write_step()
        while self.writer.pending:
            try:
                self.writer.flush()
            except TimeoutError:
                sleep(MOMENT)
        self.writer.shutdown(socket.SHUT_WR)

    def write_step(self) -> None:
        step = self.chance.random()
        if step < 0.1:
            sleep(self.chance.choice([0, MOMENT]))
        elif step < 0.2:
            self.writer.buffered = not self.writer.buffered
        elif step < 0.3:
            self.writer.timeo = self.chance.choice([None, 0, 0.002, 0.01])
        elif step < 0.35:
            with suppress(TimeoutError):
                self.writer.flush()
        else:
            self.write(self.make_bytes())

    def make_bytes(self) -> bytes:
        size = self.chance.choice(SIZES) * self.chance.randint(1, 3)
        content = bytearray(self.chance.randbytes(min(size, 5000)) * (size // 5000 + 1))
        del content[size:]
        if size and self.chance.random() < 0.5:
            content[-1:] = b"\n"
        return bytes(content)

    def write(self, content: bytes) -> None:
        verb = self.chance.choice([self.writer.write, self.writer.sendall])
        try:
            if self.chance.random() < 0.2:
                with timeout(self.chance.choice([0, 0.001, 0.005])):
                    self.attempt_write(verb, content)
            else:
                self.attempt_write(verb, content)
        except TimeoutError:
            pass

    def attempt_write(self, verb: Any, content: bytes) -> None:
        before = len(self.sent)
        # The reader may see bytes before the call returns, so they are noted first.
        self.sent += content
        try:
            verb(content)
        except (TimeoutError, Cancelled) as error:
            # With no count the call was disturbed before it wrote anything.
            written = getattr(error, "bytes_written", 0)
            assert 0 <= written <= len(content)
            assert self.received <= before + written
            del self.sent[before + written :]
            raise

    # --- Reading ---

    def read_on(self) -> None:
        """Take random steps of reading until the end of file; it must come."""
        while not self.is_ended:
            self.reader.timeo = self.chance.choice([None, None, 0, 0.001, 0.02])
            try:
                if self.chance.random() < 0.2:
                    with timeout(self.chance.choice([0, 0.001, 0.01])):
                        self.read_step()
                else:
                    self.read_step()
            except TimeoutError:
                sleep(self.chance.choice([0, MOMENT]))
            except LineTooLongError:
                self.reader.timeo = None
                self.take(self.reader.recv(self.chance.choice([1, 100, 70_000])), False)

    def read_step(self) -> None:
        verb = self.chance.randrange(9)
        size = self.chance.choice(SIZES[1:])
        if verb == 0:
            self.take(self.reader.recv(size))
        elif verb == 1:
            self.take(self.reader.readsome(size))
        elif verb == 2:
            room = bytearray(size)
            count = self.reader.recv_into(room)
            self.take(bytes(room[:count]))
        elif verb == 3:
            self.take(self.reader.read(size))
        elif verb == 4:
            self.take_record(lambda: self.reader.read_exactly(size))
        elif verb == 5:
            self.take(self.reader.readln(size))
        elif verb == 6:
            line = next(self.reader, b"")
            assert b"\n" not in line[:-1]
            self.take(line)
        elif verb == 7:
            separator = self.chance.choice([b"\n", b"\0", b"ab", b"\xff\xff"])
            self.take_record(lambda: self.reader.read_until(separator, size + 2))
        else:
            line = self.reader.readln(size, keepends=False)
            if line is None:
                self.take(b"")
            else:
                end = self.received + len(line)
                has_end = bytes(self.sent[end : end + 1]) == b"\n"
                self.take(line + b"\n" * has_end)

    def take_record(self, read: Any) -> None:
        try:
            self.take(read(), False)
        except IncompleteReadError as error:
            self.take(error.partial, False)
            self.take(self.reader.recv(1))

    def take(self, content: bytes, may_end: bool = True) -> None:
        """Compare what was read with what comes next in the model."""
        expected = bytes(self.sent[self.received : self.received + len(content)])
        assert content == expected, f"at byte {self.received}"
        self.received += len(content)
        if not content and may_end:
            self.is_ended = True


@pytest.mark.parametrize("kind", ["unix", "tcp"])
@pytest.mark.parametrize("number", range(ROUNDS))
def test_no_byte_is_lost_doubled_or_moved(ends: Ends, kind: str, number: int) -> None:
    seed = int(os.environ.get("PYCORONET_MODEL_SEED", random.randrange(1 << 32)))
    print(f"PYCORONET_MODEL_SEED={seed} (round {number})")
    chance = random.Random(seed)
    left, right = ends.sockets(kind)
    for sock in (left, right):
        if chance.random() < 0.5:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    a, b = ends.conn(left), ends.conn(right.detach())
    directions = [
        Direction(a, b, random.Random(chance.random())),
        Direction(b, a, random.Random(chance.random())),
    ]
    # The readers set timeo too, of the connection that another task writes on: that is
    # part of the disturbance.
    writers = [spawn(direction.write_on) for direction in directions]
    readers = [spawn(direction.read_on) for direction in directions]
    for task in writers + readers:
        task.join()
    for task in writers + readers:
        task.get()
    for direction in directions:
        assert direction.received == len(direction.sent)
    assert pycoronet.get_hub().task_count == 0
