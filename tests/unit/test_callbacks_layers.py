"""Connections with callbacks and transport layers: what is told of what comes out of them."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from connections import Ends, drain_now, fill, receive
from layer_case import Named, watch
from recorders import Recorder, told, turn

import pycoronet
from pycoronet import TransportLayer, get_hub, spawn
from pycoronet.layers import Tee, Zlib

pytestmark = pytest.mark.usefixtures("virtual_hub")


class Peer:
    """Compresses what it sends, as Zlib at the other end expects it."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj()

    def piece(self, data: bytes) -> bytes:
        return self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._stream.flush(zlib.Z_FINISH)


# --- Data and ends -------------------------------------------------------------------------------


def take_all(conn: Any) -> bytes:
    return b"".join(iter(lambda: conn.take(1000), b""))


def take_lines(conn: Any) -> bytes:
    return b"".join(iter(conn.take_line, None))


@pytest.mark.parametrize("take", [take_all, take_lines])
@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_echo(ends: Ends, take: Callable[[Any], bytes], kind: str) -> None:
    conn, peer = ends.pair(kind)
    received: list[bytes] = []
    sent: list[bytes] = []
    layers = Zlib(), Tee(received.append, sent.append)
    recorder = watch(conn, *layers, takes=False, data=lambda conn: conn.write(take(conn)))
    client = ends.conn(peer.dup())
    client.push_layer(Zlib())
    content = b"one\n" + b"x" * 50_000 + b"\nthree\n"
    client.write(content)
    assert client.read_exactly(len(content)) == content
    client.write(b"more\n")
    assert client.readln() == b"more\n"
    client.close()
    turn()
    assert b"".join(received) == b"".join(sent) == content + b"more\n"
    assert recorder.log[-2:] == ["eof", "close"]
    assert set(recorder.log[:-2]) == {"data"}


def test_on_data_is_called_for_what_comes_out(ends: Ends) -> None:
    conn, peer = ends.pair()
    recorder = watch(conn, Zlib())
    stream = Peer()
    first = stream.piece(b"first")
    peer.sendall(first[:3])
    turn()
    assert recorder.log == []
    peer.sendall(first[3:] + stream.piece(b"second") + stream.piece(b"third"))
    turn()
    assert recorder.received == b"firstsecondthird"
    assert told(recorder.log) == ["data"]


@pytest.mark.parametrize("kind", ["unix", "tcp"])
@pytest.mark.parametrize("receives", [True, False])
def test_end_that_comes_with_the_last_data(ends: Ends, kind: str, receives: bool) -> None:
    conn, peer = ends.pair(kind)
    conn.push_layer(Zlib())
    recorder = Recorder(takes=False, data=lambda conn: got.append(take_all(conn)))
    got: list[bytes] = []
    conn.set_callbacks(recorder, receive=receives)
    turn()
    stream = Peer()
    peer.sendall(stream.piece(b"last words") + stream.end())
    turn()
    # The peer has not closed: only the layer knows.
    assert b"".join(got) == b"last words"
    assert told(recorder.log) == ["data", "eof", "close"]


def test_end_that_nobody_took_is_what_the_layer_makes_of_it(ends: Ends) -> None:
    conn, peer = ends.pair("tcp")
    conn.push_layer(Zlib())
    recorder = Recorder()
    conn.set_callbacks(recorder, receive=False)
    peer.sendall(Peer().piece(b"not the end"))
    peer.close()
    turn()
    assert recorder.received == b"not the end"
    assert recorder.log[-2:] == ["error", "close"]
    assert isinstance(recorder.errors[0], EOFError)


def test_callbacks_of_a_stream_that_ended_before(ends: Ends) -> None:
    conn, peer = ends.pair("tcp")
    stream = Peer()
    conn.push_layer(Zlib())
    peer.sendall(stream.piece(b"x") + stream.end())
    assert conn.recv(10) == b"x"
    assert conn.recv(10) == b""
    recorder = Recorder()
    conn.set_callbacks(recorder)
    turn()
    assert recorder.log == ["eof", "close"]


def test_popped_in_on_eof_the_stream_goes_on(ends: Ends) -> None:
    conn, peer = ends.pair("tcp")
    recorder = watch(conn, Zlib(), eof=lambda conn: conn.layers and conn.pop_layer())
    stream = Peer()
    peer.sendall(stream.piece(b"compressed, ") + stream.end() + b"plain")
    turn()
    assert recorder.received == b"compressed, plain"
    peer.sendall(b" and more")
    turn()
    assert recorder.received == b"compressed, plain and more"
    assert told(recorder.log) == told(["data", "eof", "data", "data"])


@pytest.mark.parametrize("reads", ["callbacks", "task"])
def test_end_while_output_of_a_popped_layer_waits(ends: Ends, reads: str) -> None:
    conn, peer = ends.pair()
    fill(conn)
    conn.push_layer(Zlib())
    conn.enqueue(b"waits")
    conn.pop_layer()
    peer.shutdown(1)
    if reads == "task":
        assert spawn(conn.recv, 1).get() == b""
        return
    recorder = Recorder(eof=lambda conn: None)
    conn.set_callbacks(recorder)
    turn()
    assert recorder.log == ["eof"]


# --- Pushing in mid-stream -----------------------------------------------------------------------


def test_what_was_read_too_far_goes_through_the_layer(ends: Ends) -> None:
    lines: list[bytes] = []

    def read(conn: Any) -> None:
        while (line := conn.take_line()) is not None:
            lines.append(line)
            if line == b"COMPRESS\n":
                conn.write(b"OK\n")
                conn.push_layer(Zlib())
                conn.write(b"hello")

    conn, peer = ends.pair()
    recorder = watch(conn, takes=False, data=read)
    stream = Peer()
    peer.sendall(b"HELO\nCOMPRESS\n" + stream.piece(b"secret\n"))
    turn()
    assert lines == [b"HELO\n", b"COMPRESS\n", b"secret\n"]
    assert recorder.log == ["data"]
    answer = receive(peer, 4)
    assert answer.startswith(b"OK\n")
    assert zlib.decompressobj().decompress(answer[3:]) == b"hello"


def test_push_in_on_data_and_leave(ends: Ends) -> None:
    """What came out of the layer is told, for on_data has not seen it."""

    def push(conn: Any) -> None:
        if not conn.layers:
            conn.take_line()
            conn.push_layer(Zlib())
        else:
            got.append(conn.take(100))

    conn, peer = ends.pair("tcp")
    got: list[bytes] = []
    recorder = watch(conn, takes=False, data=push)
    stream = Peer()
    peer.sendall(b"COMPRESS\n" + stream.piece(b"secret") + stream.end())
    turn()
    assert got == [b"secret"]
    assert recorder.log == ["data", "data", "eof", "close"]


def test_push_by_somebody_else(ends: Ends) -> None:
    conn, peer = ends.pair()
    recorder = watch(conn, takes=False)
    peer.sendall(Peer().piece(b"secret"))
    turn()
    assert recorder.log == ["data"]
    recorder.takes = True
    conn.push_layer(Zlib())
    turn()
    assert recorder.received == b"secret"
    assert recorder.log == ["data", "data"]


# --- Output --------------------------------------------------------------------------------------


def test_urgent_and_files_in_a_callback(ends: Ends, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"file" * 10_000)

    def answer(conn: Any) -> None:
        conn.enqueue(b"first,")
        conn.enqueue(b"urgent,", urgent=True)
        with path.open("rb") as file:
            conn.sendfile(file)
        conn.write(b"last")
        conn.close()

    conn, peer = ends.pair()
    fill(conn)
    taken = len(drain_now(peer, 1 << 24))
    assert taken > 0
    watch(conn, Zlib(), data=answer)
    peer.sendall(Peer().piece(b"x"))
    turn()
    received = b""
    while data := peer.recv(1 << 20):
        received += data
        turn()
    plain = zlib.decompressobj().decompress(received.lstrip(b"f"))
    assert sorted(plain.replace(b"file" * 10_000, b"(file),").split(b",")) == sorted(
        [b"first", b"urgent", b"(file)", b"last"]
    )
    assert plain.index(b"urgent") < plain.index(b"file") < plain.index(b"last")


def test_much_output_and_on_ready(ends: Ends) -> None:
    content = bytes(range(256)) * 10_000
    conn, peer = ends.pair()
    recorder = watch(conn, Tee(), data=lambda conn: conn.write(content))
    peer.sendall(b"x")
    turn()
    assert recorder.log == ["data"]
    # Nothing more is received while so much waits.
    peer.sendall(b"y")
    turn()
    assert recorder.log == ["data"]
    assert conn.pending > 64 * 1024
    received = receive(peer, len(content))
    assert received[: len(content)] == content
    received += receive(peer, 2 * len(content) - len(received))
    turn()
    assert received == content * 2
    assert sorted(recorder.log) == ["data", "data", "ready", "ready"] or recorder.log == [
        "data",
        "data",
        "ready",
    ]


@pytest.mark.parametrize("high_mark", [64 * 1024, 1024 * 1024])
def test_answers_of_layers_that_nobody_reads(ends: Ends, high_mark: int) -> None:
    """They end the reading, too; and it goes on when they have been read."""

    class Answers(TransportLayer):
        def unwrap(self, data: bytes) -> bytes:
            self.emit(b"a" * 100_000 * len(data))
            return data

    conn, peer = ends.pair()
    conn.set_watermarks(write_low=high_mark // 4, write_high=high_mark)
    fill(conn)
    count = 1 if high_mark < 100_000 else 3
    recorder = watch(conn, Answers())
    peer.sendall(b"x" * count)
    turn()
    peer.sendall(b"y")
    turn()
    assert recorder.received == b"x" * count
    received = 0
    while recorder.received != b"x" * count + b"y":
        data = drain_now(peer, 1 << 24)
        received += len(data)
        assert data, "it reads no more, and nothing is there to be read"
        turn()


# --- Changing hands ------------------------------------------------------------------------------


def test_from_callbacks_to_a_task_and_back(ends: Ends) -> None:
    def hand_over(conn: Any) -> None:
        if conn.available < 6:
            return
        got.append(conn.take(4))
        conn.set_callbacks(None)
        spawn(read, conn)

    def read(conn: Any) -> None:
        got.append(conn.read_exactly(8))
        conn.set_callbacks(recorder)

    conn, peer = ends.pair()
    got: list[bytes] = []
    stream = Peer()
    conn.push_layer(Zlib())
    first = Recorder(takes=False, data=hand_over)
    recorder = Recorder()
    conn.set_callbacks(first)
    peer.sendall(stream.piece(b"onetwo"))
    turn()
    peer.sendall(stream.piece(b"threefour"))
    turn()
    assert got == [b"onet", b"wothreef"]
    assert recorder.received == b"our"
    assert told(first.log) == ["data"]


def test_timeouts(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.settimeout(1)
    recorder = watch(conn, Zlib())
    piece = Peer().piece(b"x" * 100)
    start = get_hub().time
    for byte in piece[:2]:
        pycoronet.sleep(0.9)
        peer.sendall(bytes([byte]))  # of which nothing comes out
    assert recorder.log == []
    recorder.actions["timeout"] = lambda conn: conn.abort()
    pycoronet.sleep(1.1)
    assert recorder.log == ["timeout", "close"]
    assert get_hub().time - start < 5


def test_callbacks_ended_at_the_last_receipt_of_a_turn(ends: Ends) -> None:
    """Nothing of them may be left on the hub's list, which the sanitizer would tell."""

    def receive_or_end(conn: Any) -> None:
        if len(recorder.log) == 4:
            conn.set_callbacks(None)
        else:
            peer.sendall(b"x")

    conn, peer = ends.pair()
    recorder = watch(conn, data=receive_or_end)
    peer.sendall(b"x")
    turn()
    get_hub().call_soon(recorder.log.append, "called")
    turn()
    assert recorder.log == ["data"] * 4 + ["called"]


def test_named_layers_see_each_byte_once(ends: Ends) -> None:
    conn, peer = ends.pair()
    below, above = Named(b"below"), Named(b"above")
    recorder = watch(conn, below, above, data=lambda conn: conn.write(b"Y"))
    peer.sendall(b"x")
    turn()
    assert recorder.received == b"x"
    conn.close()
    turn()
    assert peer.recv(1000) == b"below(above(Y))below(above.)below."
    for layer in (below, above):
        assert layer.calls.count("unwrap") == 1
        assert layer.calls[-2:] == ["finish", "on_clear"]
