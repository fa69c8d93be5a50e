"""Random verbs on the input of a connection, by a task and by callbacks, against a model.

Every byte comes out once and in order, whatever the verbs and styles are, however the bytes
are split on their way, and whatever is put back, looked at, or held by layers meanwhile.
"""

from __future__ import annotations

import os
import random
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from connections import MOMENT, Ends

from pycoronet import (
    READ,
    WRITE,
    IncompleteReadError,
    Protocol,
    sleep,
    spawn,
    wait_fd,
)
from pycoronet.layers import Filter, Tee
from pycoronet.testing import pair

pytestmark = pytest.mark.usefixtures("virtual_hub")

ROUNDS = int(os.environ.get("PYCORONET_MODEL_ROUNDS", "15"))
PIECES = [b"\r", b"\n", b"\r\n", b"\0", b"a", b"line", b"ab" * 9, b"\r\r\n\n", b"\0\0\0\2ok"]
ENDINGS = {"lf": b"\n", "crlf": b"\r?\n", "crlf_strict": b"\r\n", "any": b"[\r\n]", "nul": b"\0"}
FORMATS = {">I": 4, "B": 1, ">h": 2, "<Q": 8}
PATIENCE = 20  # turns without a byte, when there are some to be had


class Model:
    """What is still to come: with a run of CRs and LFs perhaps in part, so there are several.

    A run is dropped as it comes, so nobody can say how much of it is left.
    """

    def __init__(self, content: bytes) -> None:
        self.rests = {content}
        self.is_run_open = False

    def keep(self, rests: Iterator[bytes]) -> None:
        """Go on with these; one of them must be."""
        before = {rest[:60] for rest in self.rests}
        self.rests = set(rests)
        assert self.rests, before

    def take(self, content: bytes) -> None:
        """Compare what was read with what comes next."""
        self.keep(rest[len(content) :] for rest in self.rests if rest.startswith(content))
        if content:
            self.is_run_open = False

    def put_back(self, content: bytes) -> None:
        """Expect this first."""
        self.rests = {content + rest for rest in self.rests}
        if content:
            self.is_run_open = False

    def swallow(self) -> None:
        """Let what is left of an open run be dropped, or some of it."""
        if self.is_run_open:
            self.rests = {end for rest in self.rests for end in without_run(rest)}

    def take_line(self, line: bytes, eol: str, keepends: bool) -> None:
        """Compare a line, which may be the last one, without an end."""
        if eol == "any" and self.is_run_open:
            self.rests = {rest.lstrip(b"\r\n") for rest in self.rests}
        self.keep(after for rest in self.rests for after in after_line(rest, line, eol, keepends))
        self.is_run_open = eol == "any"


def without_run(rest: bytes) -> Iterator[bytes]:
    """Yield the rest without the first, the first two ... of the CRs and LFs it begins with."""
    for count in range(len(rest) - len(rest.lstrip(b"\r\n")) + 1):
        yield rest[count:]


def after_line(rest: bytes, line: bytes, eol: str, keepends: bool) -> Iterator[bytes]:
    """Yield what may follow, if the rest begins with this line."""
    end = re.search(ENDINGS[eol], rest)
    if end is None:
        if rest == line:
            yield b""
    elif eol == "any" and rest[: end.end()] == line.rstrip(b"\r\n") + end[0]:
        run = rest[end.start() :]
        if not keepends:
            yield from without_run(run[1:])
        elif run.startswith(given := line[end.start() :]) and not given.strip(b"\r\n"):
            yield run[len(given) :]
    elif eol != "any" and line == rest[: end.end() if keepends else end.start()]:
        yield rest[end.end() :]


class Verbs:
    """What tasks and callbacks can do alike, in a random order."""

    def __init__(self, conn: Any, content: bytes, chance: random.Random) -> None:
        self.conn = conn
        self.model = Model(content)
        self.chance = chance

    def step(self) -> None:
        """Look at what is held, or change it, without receiving."""
        self.chance.choice([self.look, self.look, self.drain, self.put_back, self.change_layers])()

    def disturb(self) -> None:
        """Let the stream flow or not, and how much of it at once."""
        if self.conn.closed:
            return
        self.chance.choice([self.conn.enable, self.conn.enable, self.conn.disable])(READ)
        if self.chance.random() < 0.1:
            self.conn.set_single_limits(read=self.chance.choice([None, 1, 30]))

    def look(self) -> None:
        conn = self.conn
        held = conn.peek(1 << 20)
        assert conn.available == len(held)
        assert any(rest.startswith(held) for rest in self.model.rests), held
        room = bytearray(self.chance.randrange(9))
        count = conn.copyout(room)
        assert room[:count] == held[: len(room)]
        pattern = self.chance.choice(PIECES)
        start, end = self.chance.randrange(9), self.chance.choice([None, 5, 50])
        assert conn.search(pattern, start, end) == held.find(pattern, start, end)

    def drain(self) -> None:
        held = self.conn.peek(self.chance.randrange(12))
        assert self.conn.drain(len(held)) == len(held)
        self.model.take(held)

    def put_back(self) -> None:
        content = b"".join(self.chance.choices(PIECES, k=self.chance.randrange(3)))
        self.conn.prepend(content)
        self.model.put_back(content)

    def change_layers(self) -> None:
        if len(self.conn.layers) > self.chance.randrange(3):
            self.conn.pop_layer()
        else:
            self.conn.push_layer(self.chance.choice([Tee(), blocks_of(3)]))
        self.model.is_run_open = False

    def take_line(self, read: Callable[..., bytes | None]) -> bool:
        """Take a line by a reading verb; False if there was none."""
        eol = self.chance.choice(list(ENDINGS))
        keepends = self.chance.random() < 0.5
        limit = self.chance.choice([1, 2, 5, 20, 65536])
        if eol == "any":
            self.model.swallow()
        line = read(limit, eol=eol, keepends=keepends)
        if not line and (line is None or keepends):
            return False
        assert len(line) <= limit
        self.model.take_line(line, eol, keepends)
        return True

    def take_frame(self, read: Callable[..., bytes | None]) -> bool:
        """Take a frame by a reading verb; False if there was none."""
        order = self.chance.choice(list(FORMATS))
        payload = read(order, limit=self.chance.choice([2, 200]))
        if payload is None:
            return False
        self.model.take(struct.pack(order if order[0] in "<>" else "=" + order, len(payload)))
        self.model.take(payload)
        return True


def blocks_of(size: int) -> Filter:
    """Return a layer that lets through blocks of so many bytes, and the rest at the end."""

    def cut(source: bytearray, is_end: bool) -> bytes:
        length = len(source) if is_end else len(source) // size * size
        content = bytes(source[:length])
        del source[:length]
        return content

    return Filter(cut)


class Reader(Verbs):
    """A task that reads."""

    has_ended = False

    def read_on(self) -> None:
        while not self.has_ended:
            self.conn.timeo = self.chance.choice([None, None, 0, 0.002])
            try:
                self.chance.choice([self.step, self.read_step, self.read_step])()
            except TimeoutError:
                sleep(MOMENT)
            except IncompleteReadError as error:
                self.model.take(error.partial)
            except ValueError:  # of a line or a frame; it is readable
                assert self.conn.available > 0
                self.model.take(self.conn.recv(self.chance.choice([1, 3, 100])))

    def read_step(self) -> None:
        conn, verb, size = self.conn, self.chance.randrange(11), self.chance.choice([1, 2, 9, 300])
        if verb < 2:
            self.note(self.take_line(conn.readln))
        elif verb == 2:
            self.note(self.take_line(lambda *limit, **how: next(conn.lines(*limit, **how), None)))
        elif verb == 3:
            self.note(self.take_frame(conn.read_frame))
        elif verb == 4:
            self.model.take(conn.read_until(self.chance.choice(PIECES), size))
        elif verb == 5:
            self.model.take(conn.read_exactly(size))
        elif verb == 6:
            self.take(conn.read(size))
        elif verb == 7:
            room = bytearray(size)
            self.take(bytes(room[: conn.recv_into(room)]))
        elif verb == 8:
            wait_fd(conn, READ, conn.timeo)
            self.model.take(conn.take(size))
        else:
            self.take(conn.recv(size))

    def take(self, content: bytes) -> None:
        self.model.take(content)
        self.note(bool(content))

    def note(self, got_something: bool) -> None:
        """Note the end of file: it must be the end."""
        if not got_something:
            assert b"" in self.model.rests, self.model.rests
            self.has_ended = True


class Receiver(Verbs, Protocol):
    """Callbacks that take, or leave it for later."""

    receives = True
    has_ended = False
    calls = 0

    def on_data(self, conn: Any) -> None:
        self.calls += 1
        for _ in range(self.chance.randrange(5)):
            self.take_step()
        if not self.receives:
            self.take_all()

    def on_eof(self, conn: Any) -> None:
        self.take_step()
        self.take_all()
        self.put_back()
        self.take_all()
        self.has_ended = True

    def take_step(self) -> None:
        conn, verb, size = self.conn, self.chance.randrange(6), self.chance.choice([1, 2, 9, 300])
        try:
            if verb < 2:
                self.take_line(conn.take_line)
            elif verb == 2:
                self.take_frame(conn.take_frame)
            elif verb == 3:
                self.step()
            else:
                self.model.take(conn.take(size))
        except ValueError:
            assert conn.available > 0
            self.model.take(conn.take(1))

    def take_all(self) -> None:
        while content := self.conn.take(self.chance.choice([1, 30, 5000])):
            self.model.take(content)


def send_on(peer: Any, content: bytes, chance: random.Random) -> None:
    """Send in pieces of all sizes, with moments in between, and end the stream."""
    while content:
        size = chance.choice([1, 1, 2, 5, 40, 2000])
        peer.sendall(content[:size])
        content = content[size:]
        if chance.random() < 0.4:
            sleep(MOMENT)
    peer.close()


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Return a source of numbers that a failing test names."""
    seed = int(os.environ.get("PYCORONET_MODEL_SEED", random.randrange(1 << 32)))
    print(f"PYCORONET_MODEL_SEED={seed}")
    return random.Random(seed)


def make_ends(ends: Ends, chance: random.Random) -> tuple[Any, Any, bytes]:
    """Return a connection, the one at its other end, and what that is to send."""
    content = b"".join(chance.choices(PIECES, k=chance.choice([0, 3, 50, 1000])))
    kind = chance.choice(["unix", "tcp", "pipe", "pair"])
    if kind == "pair":
        made = ends.keep(pair(latency=chance.choice([0, MOMENT]), capacity=chance.randint(1, 5000)))
        made.short_reads(chance.choice([None, 1, 30]))
        return *made, content
    left, right = os.pipe() if kind == "pipe" else ends.sockets(kind)
    return ends.conn(left), ends.conn(right), content


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_task_reads_each_byte_once(ends: Ends, chance: random.Random, number: int) -> None:
    conn, peer, content = make_ends(ends, chance)
    reader = Reader(conn, content, chance)
    writer = spawn(send_on, peer, content, chance)
    task = spawn(reader.read_on)
    while not task.done:
        sleep(MOMENT)
        reader.disturb()
        if chance.random() < 0.3:
            reader.put_back()  # a reader that waits is woken
    writer.get()
    task.get()
    conn.enable(READ)
    reader.put_back()  # readable behind the end, too, and then it has ended again
    reader.has_ended = False
    reader.read_on()


@pytest.mark.parametrize("receives", [True, False])
@pytest.mark.parametrize("number", range(ROUNDS))
def test_callbacks_are_given_each_byte_once(
    ends: Ends, chance: random.Random, number: int, receives: bool
) -> None:
    conn, peer, content = make_ends(ends, chance)
    receiver = Receiver(conn, content, chance)
    receiver.receives = receives
    high = chance.choice([1, 2, 7, 64, 65536])
    conn.set_watermarks(read_high=high, read_low=chance.randint(1, min(high, 9)))
    conn.set_callbacks(receiver, receive=receives)
    writer = spawn(send_on, peer, content, chance)
    quiet = 0
    while not receiver.has_ended:
        calls = receiver.calls
        receiver.disturb()
        sleep(MOMENT)
        quiet += conn.enabled == READ | WRITE
        if chance.random() < 0.1 or conn.available >= high:
            receiver.take_step()  # not in a callback
            quiet = 0
        if receiver.calls != calls or not writer.done:
            quiet = 0
        assert quiet < PATIENCE, (conn.get_watermarks(), conn.layers, conn.available)
    writer.get()
    receiver.take_all()
    assert b"" in receiver.model.rests
