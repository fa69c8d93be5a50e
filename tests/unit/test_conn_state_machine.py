"""Any interleaving of what both ends of a connection can do, against the stream as one string.

Hypothesis chooses the steps and makes a failure small. Each end writes the next bytes of PATTERN,
of which no few are alike: so all that the model knows of a direction is how many bytes were
written and how many were read, and a byte lost, doubled or moved is seen at once. After each
step the clock stands still until nobody can go on; who still waits then must have a reason.
"""

from __future__ import annotations

import array
import fcntl
import random
import re
import socket
import termios
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from machines import run_machine

from pycoronet import (
    READ,
    WRITE,
    BusyError,
    Cancelled,
    ClosedError,
    IncompleteReadError,
    LineTooLongError,
    sk_conn,
    sleep,
    spawn,
    timeout,
)
from pycoronet.layers import TransportLayer
from pycoronet.testing import virtual_time

MOMENT = 0.001  # of virtual time: it passes only when nothing else can go on
SIZES = [0, 1, 2, 17, 511, 512, 513, 4096, 20_000, 20_000]
LIMITS = [None, None, 0, 1, 3]  # seconds
RARE = 7  # a number like others; 0 would come often
ENDINGS = {"lf": b"\n", "crlf": b"\r?\n", "crlf_strict": b"\r\n", "nul": b"\0"}


def make_pattern(length: int) -> bytes:
    """Return bytes that hardly repeat, with something that ends a line now and then."""
    chance = random.Random(8)
    pieces = bytearray()
    while len(pieces) < length:
        pieces += chance.randbytes(chance.choice([3, 20, 60, 700]))
        pieces += chance.choice([b"\n", b"\r\n", b"\r", b"\0", b"\r\n\r\n"])
    return bytes(pieces)


PATTERN = make_pattern(1_000_000)
TABLES = [bytes((i * factor + 13) % 256 for i in range(256)) for factor in (3, 5, 7)]


class Scrambled(TransportLayer):
    """Each byte is another one on the way; the order of two such layers counts."""

    def __init__(self, table: bytes) -> None:
        self.table = table
        self.back = bytes(table.index(i) for i in range(256))

    def wrap(self, data: bytes, /) -> bytes:
        """Send it so."""
        return data.translate(self.table)

    def unwrap(self, data: bytes, /) -> bytes:
        """Make it what it was."""
        return data.translate(self.back)


class Call:
    """A verb that a task is in."""

    def __init__(self, run: Callable[[], None], limit: float | None, clock: Any) -> None:
        self.error: BaseException | None = None
        self.deadline = None if limit is None else clock.time + limit
        self.clock = clock
        self.was_cancelled = False
        self.task = spawn(self.run, run, limit)

    def run(self, run: Callable[[], None], limit: float | None) -> None:
        try:
            with timeout(limit):
                run()
        except Cancelled as error:
            self.error = None if self.was_cancelled else error
        except TimeoutError as error:
            # It may be the connection's own time, too.
            # A microsecond, for the sum of two floats may be a little more than their time.
            is_early = self.deadline is None or self.clock.time < self.deadline - 1e-6
            if getattr(error, "scope", None) is not None and is_early:
                self.error = error
        except BaseException as error:
            self.error = error


class Direction:
    """What one end sends to the other: bytes of PATTERN, from the first on."""

    def __init__(self, writer: Any, reader: Any) -> None:
        self.writer = writer
        self.reader = reader
        self.written = 0
        self.offered = 0  # by a verb that has not returned: the reader may have some of it
        self.received = 0
        self.has_ended = False  # nothing more will be written
        self.is_broken = False  # the rest need not arrive
        self.writing: Call | None = None
        self.reading: Call | None = None
        self.wanted = 0  # bytes that the reader waits for at most, when a whole line is not it

    def in_kernel(self) -> int:
        """Return how many bytes the reader could receive at once."""
        count = array.array("i", [0])
        fcntl.ioctl(self.reader.fileno(), termios.FIONREAD, count)
        return count[0]

    def next(self, length: int) -> bytes:
        at = self.written
        return PATTERN[at : at + length]

    # Verbs that write.

    def write(self, verb: Callable[[bytes], object], length: int) -> None:
        before = self.written
        self.offered = length
        try:
            verb(self.next(length))
        except (TimeoutError, Cancelled, OSError, ClosedError) as error:
            count = getattr(error, "bytes_written", 0)
            assert 0 <= count <= length
            self.written = before + count
            self.offered = 0
            assert self.received <= self.written
            if isinstance(error, (TimeoutError, Cancelled)):
                raise
            self.note_failure(error)
        else:
            self.written += length
            self.offered = 0

    def note_failure(self, error: Exception) -> None:
        """Allow an error only if there is a reason."""
        assert self.is_broken or self.writer.closed or self.has_ended, repr(error)

    def end(self) -> None:
        try:
            self.writer.shutdown(socket.SHUT_WR)
        except (ClosedError, ConnectionError) as error:
            self.note_failure(error)
        else:
            self.has_ended = True

    def flush(self) -> None:
        try:
            self.writer.flush()
        except (ClosedError, ConnectionError) as error:
            self.note_failure(error)

    # Verbs that read.

    def take(self, content: bytes) -> None:
        """Compare what came with what had to come."""
        end = self.received + len(content)
        assert content == PATTERN[self.received : end], f"at byte {self.received}"
        assert end <= self.written + self.offered
        self.received = end

    def take_end(self) -> None:
        """Note an end of file: it must be the end."""
        assert self.has_ended or self.is_broken
        assert self.received == self.written or self.is_broken

    def read(self, verb: str, length: int, eol: str, keepends: bool) -> None:
        try:
            getattr(self, f"read_{verb}")(length, eol, keepends)
        except (TimeoutError, Cancelled):
            raise
        except LineTooLongError:
            end = re.compile(ENDINGS[eol]).search(PATTERN, self.received)
            assert verb in ("line", "until")
            assert end is not None
            assert end.end() - self.received > length
        except IncompleteReadError as error:
            self.take(error.partial)
            self.take_end()
        except ClosedError:
            assert self.reader.closed
        except ConnectionError:
            # Who closes and has not read all resets; what had been sent comes before, and what
            # makes no whole line stays readable.
            assert self.has_ended
            assert self.is_broken or self.received + self.reader.available == self.written

    def read_some(self, length: int, eol: str, keepends: bool) -> None:
        self.take_some(self.reader.recv(length), length)

    def read_into(self, length: int, eol: str, keepends: bool) -> None:
        room = bytearray(length)
        self.take_some(bytes(room[: self.reader.recv_into(room)]), length)

    def take_some(self, content: bytes, length: int) -> None:
        assert len(content) <= length
        self.take(content)
        if not content and length:
            self.take_end()

    def read_all(self, length: int, eol: str, keepends: bool) -> None:
        content = self.reader.read(length)
        self.take(content)
        if len(content) < length:
            self.take_end()

    def read_exactly(self, length: int, eol: str, keepends: bool) -> None:
        content = self.reader.read_exactly(length)
        assert len(content) == length
        self.take(content)

    def read_line(self, length: int, eol: str, keepends: bool) -> None:
        line = self.reader.readln(length, eol=eol, keepends=keepends)
        if not line and (line is None or keepends):
            self.take_end()
            return
        self.take_line(line, eol, keepends)

    def take_line(self, line: bytes, eol: str, keepends: bool) -> None:
        found = re.compile(ENDINGS[eol]).search(PATTERN, self.received)
        assert found is not None
        wanted = PATTERN[self.received : found.end() if keepends else found.start()]
        if line == wanted:
            self.take(PATTERN[self.received : found.end()])
        else:
            self.take(line)  # the last one, without an end
            self.take_end()

    def read_until(self, length: int, eol: str, keepends: bool) -> None:
        if eol == "crlf":
            eol = "lf"  # a separator is no choice of two
        self.take_line(self.reader.read_until(ENDINGS[eol], length), eol, True)

    def read_nothing(self, length: int, eol: str, keepends: bool) -> None:
        """Wait for input, and leave it."""
        is_there = self.reader.wait_input(1)
        assert not is_there or self.reader.available or self.in_kernel() or self.has_ended


READS = ["some", "into", "all", "exactly", "line", "line", "until", "nothing"]
ends = st.integers(0, 1)
sizes = st.sampled_from(SIZES)
limits = st.sampled_from(LIMITS)


class ConnectionMachine(RuleBasedStateMachine):
    """Two ends; what one writes the other reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.hub = self.stack.enter_context(virtual_time())
        left, right = socket.socketpair()
        for sock in (left, right):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.conns = [sk_conn(left), sk_conn(right)]
        for conn in self.conns:
            self.stack.callback(conn.abort)
        self.directions = [Direction(*self.conns), Direction(*self.conns[::-1])]
        self.depth = 0

    def settle(self) -> None:
        sleep(MOMENT)
        for direction in self.directions:
            for name in ("writing", "reading"):
                call = getattr(direction, name)
                if call is not None and call.task.done:
                    setattr(direction, name, None)
                    if call.error is not None:
                        raise call.error

    def sending(self, end: int) -> Direction:
        return self.directions[end]

    def receiving(self, end: int) -> Direction:
        return self.directions[1 - end]

    # --- Verbs -----------------------------------------------------------------------------------

    @rule(end=ends, length=sizes, limit=limits, verb=st.sampled_from(["write", "sendall"]))
    def write(self, end: int, length: int, limit: float | None, verb: str) -> None:
        direction = self.sending(end)
        if direction.writing is not None or direction.has_ended:
            return
        if len(direction.next(length)) == length:
            call = getattr(direction.writer, verb)
            direction.writing = Call(lambda: direction.write(call, length), limit, self.hub)
        self.settle()

    @rule(end=ends, lengths=st.lists(sizes, max_size=3), is_move=st.booleans())
    def enqueue(self, end: int, lengths: list[int], is_move: bool) -> None:
        direction = self.sending(end)
        length = sum(lengths)
        if direction.has_ended or len(direction.next(length)) < length:
            return
        if direction.writing is not None:
            return  # between the bytes of a writer they would not be in order
        content, pieces = direction.next(length), []
        for size in lengths:
            pieces.append(bytearray(content[:size]) if is_move else content[:size])
            content = content[size:]
        try:
            assert direction.writer.enqueue(pieces, move=is_move) == length
            direction.written += length
        except (ClosedError, OSError) as error:
            direction.note_failure(error)
        self.settle()

    @rule(end=ends, limit=limits, is_end=st.sampled_from([False, False, True]))
    def flush_or_end(self, end: int, limit: float | None, is_end: bool) -> None:
        direction = self.sending(end)
        if direction.writing is None:
            verb = direction.end if is_end else direction.flush
            direction.writing = Call(verb, limit, self.hub)
        self.settle()

    @rule(
        end=ends,
        verb=st.sampled_from(READS),
        length=sizes,
        limit=limits,
        eol=st.sampled_from(sorted(ENDINGS)),
        keepends=st.booleans(),
    )
    def read(
        self, end: int, verb: str, length: int, limit: float | None, eol: str, keepends: bool
    ) -> None:
        direction = self.receiving(end)
        if direction.reading is None:
            length = max(length, 2) if verb in ("line", "until") else length
            direction.wanted = {"exactly": length, "all": length}.get(verb, length and 1)
            if verb in ("line", "until", "nothing"):
                direction.wanted = 1 if verb == "nothing" else 1 << 30
            direction.reading = Call(
                lambda: direction.read(verb, length, eol, keepends), limit, self.hub
            )
        self.settle()

    # --- Without waiting -------------------------------------------------------------------------

    @rule(end=ends, length=sizes)
    def take(self, end: int, length: int) -> None:
        direction = self.receiving(end)
        if not direction.reader.closed and direction.reading is None:
            try:
                direction.take(direction.reader.take(length))
            except ConnectionError:
                assert direction.has_ended
        self.settle()

    @rule(end=ends, length=sizes)
    def look(self, end: int, length: int) -> None:
        direction = self.receiving(end)
        if direction.reader.closed:
            return
        held = direction.reader.peek(length)
        assert held == PATTERN[direction.received : direction.received + len(held)]
        assert len(held) == min(length, direction.reader.available)
        try:
            assert direction.reader.drain(len(held)) == len(held)
            direction.received += len(held)
        except BusyError:
            assert direction.reading is not None
        self.settle()

    @rule(end=ends, length=sizes)
    def put_back(self, end: int, length: int) -> None:
        """Give back what was read last: it is to be read once more."""
        direction = self.receiving(end)
        if not direction.reader.closed:
            length = min(length, direction.received)
            direction.received -= length
            direction.reader.prepend(PATTERN[direction.received :][:length])
        self.settle()

    # --- What disturbs ---------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([MOMENT, 1, 2, 5]))
    def pass_time(self, seconds: float) -> None:
        sleep(seconds)
        self.settle()

    @rule(end=ends, is_reader=st.booleans(), is_twice=st.booleans())
    def cancel(self, end: int, is_reader: bool, is_twice: bool) -> None:
        direction = self.receiving(end) if is_reader else self.sending(end)
        call = direction.reading if is_reader else direction.writing
        if call is not None:
            call.was_cancelled = True
            call.task.cancel()
            if is_twice:
                call.task.cancel()
            self.settle()
            assert call.task.done

    @rule(
        end=ends,
        events=st.sampled_from([READ, WRITE, READ | WRITE]),
        is_enabled=st.sampled_from([True, True, False]),
    )
    def hold(self, end: int, events: int, is_enabled: bool) -> None:
        conn = self.conns[end]
        if not conn.closed:
            (conn.enable if is_enabled else conn.disable)(events)
        self.settle()

    @rule(
        end=ends,
        is_buffered=st.booleans(),
        timeo=st.sampled_from([None, None, 0, 2]),
        cap=st.sampled_from([None, 100, 1000]),
    )
    def set_options(
        self, end: int, is_buffered: bool, timeo: float | None, cap: int | None
    ) -> None:
        conn = self.conns[end]
        if not conn.closed:
            conn.buffered = is_buffered
            conn.timeo = timeo
            conn.set_single_limits(read=cap, write=cap)
        self.settle()

    @precondition(lambda self: not any(conn.closed for conn in self.conns))
    @rule(is_push=st.sampled_from([True, True, False]), table=st.sampled_from(TABLES))
    def change_layers(self, is_push: bool, table: bytes) -> None:
        """Push or pop at both ends, when all has been read: so that both do it at one place."""
        self.finish_calls()
        if any(direction.has_ended for direction in self.directions):
            return
        for direction in self.directions:
            self.read_to(direction, direction.written)
        for conn in self.conns:
            assert conn.pending == 0
            if is_push and self.depth < 3:
                conn.push_layer(Scrambled(table))
            elif not is_push and self.depth > 0:
                conn.pop_layer()
        if is_push and self.depth < 3:
            self.depth += 1
        elif not is_push and self.depth > 0:
            self.depth -= 1
        self.settle()

    @rule(end=ends, linger=st.sampled_from([None, None, 0]), chance=st.integers(0, 9))
    def close(self, end: int, linger: float | None, chance: int) -> None:
        conn = self.conns[end]
        if conn.closed or chance != RARE:  # for it is the end
            return
        conn.enable(WRITE)
        self.settle()
        sending = self.sending(end)
        sending.is_broken |= linger == 0 and conn.pending > 0
        sending.has_ended = True
        self.receiving(end).is_broken = True
        conn.linger = linger
        try:
            conn.close()
        except ConnectionError:  # of output that nobody was there to take
            assert sending.is_broken
        self.settle()
        assert sending.writing is None
        assert self.receiving(end).reading is None

    @rule(end=ends, chance=st.integers(0, 19))
    def abort(self, end: int, chance: int) -> None:
        if not self.conns[end].closed and chance == RARE:
            for direction in self.directions:
                direction.is_broken = True
            self.sending(end).has_ended = True
            self.conns[end].abort()
            self.settle()
            assert self.sending(end).writing is None
            assert self.receiving(end).reading is None

    # --- What must hold --------------------------------------------------------------------------

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        for direction in self.directions:
            for call in (direction.reading, direction.writing):
                if call is not None and call.deadline is not None:
                    assert self.hub.time < call.deadline + 2 * MOMENT
            self.check_reader(direction)
            self.check_writer(direction)

    def check_reader(self, direction: Direction) -> None:
        reader = direction.reader
        if direction.reading is None or reader.closed or not reader.enabled & READ:
            return
        assert direction.in_kernel() == 0, "it could read"
        assert reader.available < direction.wanted, "what it needs is there"
        if direction.writer.closed and direction.writer.pending == 0:
            raise AssertionError("it waits behind the end")
        assert not direction.has_ended or direction.writer.closed, "it waits behind the end"

    def check_writer(self, direction: Direction) -> None:
        writer = direction.writer
        if writer.closed or not writer.enabled & WRITE:
            return
        if direction.writing is not None:
            # Who is closed and has output of its own keeps the descriptor, and reads no more.
            is_gone = direction.reader.closed and direction.reader.pending == 0
            assert not is_gone, "it writes to nobody"
            assert direction.in_kernel() > 0, "it could write"
        elif writer.pending > 0 and not writer.buffered and not direction.reader.closed:
            assert direction.in_kernel() > 0, "the queue stands still"

    # --- The end ---------------------------------------------------------------------------------

    def finish_calls(self) -> None:
        """Undo what holds and cancel who waits."""
        for conn in self.conns:
            if not conn.closed:
                conn.timeo = None
                conn.buffered = False
                conn.enable(READ | WRITE)
        for end in (0, 1):
            self.cancel(end, True, False)
            self.cancel(end, False, False)

    def read_to(self, direction: Direction, count: int) -> None:
        """Read up to a place of the stream, while what waits is sent."""
        while direction.received < count:
            content = direction.reader.recv(count - direction.received)
            assert content, f"{count - direction.received} bytes are missing"
            direction.take(content)
        self.settle()

    def teardown(self) -> None:
        """Read what is left: it must come."""
        try:
            self.finish_calls()
            for direction in self.directions:
                self.drain_direction(direction)
            self.settle()
            assert self.hub.task_count == 0
        finally:
            self.stack.close()

    def drain_direction(self, direction: Direction) -> None:
        if direction.reader.closed or (direction.is_broken and not direction.writer.closed):
            return
        if not direction.writer.closed and not direction.has_ended:
            self.read_to(direction, direction.written)
            direction.end()
        elif not direction.is_broken:
            self.read_to(direction, direction.written)
        try:
            while content := direction.reader.recv(100_000):
                direction.take(content)
        except ConnectionError:
            assert direction.writer.closed
        direction.take_end()


def test_connection_state_machine() -> None:
    run_machine(ConnectionMachine, examples=100, steps=40)
