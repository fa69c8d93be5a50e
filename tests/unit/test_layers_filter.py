"""Filter: a layer of two functions, by itself and on connections."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from certificates import Certificates
from connections import Ends, drain_now, feed
from layer_case import Named, watch
from recorders import turn

import pycoronet
from pycoronet import IncompleteReadError, LineTooLongError, spawn
from pycoronet.layers import Filter, Zlib


def from_hex(source: bytearray, is_end: bool) -> bytes:
    """Use whole pairs of digits."""
    used = len(source) // 2 * 2
    result = bytes.fromhex(source[:used].decode("ascii"))
    del source[:used]
    return result


def to_hex(source: bytearray, is_end: bool) -> bytes:
    result = source.hex().encode("ascii")
    source.clear()
    return result


def one_word(source: bytearray, is_end: bool) -> bytes:
    """Use one word with its space a time; at the end what is left is a word."""
    word, space, _ = source.partition(b" ")
    if not space and not is_end:
        return b""
    del source[: len(word) + 1]
    return b"<" + word + b">"


class Scripted:
    """A function of a filter that keeps the last byte and notes what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[bytes, bool]] = []

    def __call__(self, source: bytearray, is_end: bool) -> bytes:
        self.calls.append((bytes(source), is_end))
        result = bytes(source if is_end else source[:-1])
        del source[: len(result)]
        return result


# --- By itself ------------------------------------------------------------------------------------


def test_each_direction_has_its_function() -> None:
    layer = Filter(from_hex, to_hex)
    assert layer.wrap(b"hex") == b"686578"
    assert layer.unwrap(b"686578") == b"hex"


def test_what_is_not_used_comes_again_with_more() -> None:
    for name in ("wrap", "unwrap"):
        function = Scripted()
        layer = Filter(function, function)
        pass_on = getattr(layer, name)
        assert [pass_on(b"a"), pass_on(b"b"), pass_on(b"cd")] == [b"", b"a", b"bc"]
        # It is called until it leaves all that there is.
        assert function.calls == [
            (b"a", False),
            *((b"ab", False), (b"b", False)),
            *((b"bcd", False), (b"d", False)),
        ]


@pytest.mark.parametrize("name", ["wrap", "unwrap"])
def test_split_at_every_byte_it_is_the_same(name: str) -> None:
    content = b"to be or not to be"
    for at in range(len(content) + 1):
        pass_on = getattr(Filter(one_word, one_word), name)
        pieces = [pass_on(piece) for piece in (content[:at], content[at:]) if piece]
        assert b"".join(pieces) == b"<to><be><or><not><to>"


def test_end_of_each_direction() -> None:
    layer = Filter(one_word, one_word)
    assert layer.unwrap(b"a b") == b"<a>"
    assert layer.unwrap(b"") == b"<b>"
    assert layer.wrap(b"c d") == b"<c>"
    assert layer.finish() == b"<d>"


def test_at_the_end_source_may_be_empty() -> None:
    function = Scripted()
    layer = Filter(function, function)
    assert layer.unwrap(b"") == b""
    assert layer.finish() == b""
    assert function.calls == [(b"", True)] * 2


def test_without_a_function_nothing_changes() -> None:
    layer = Filter()
    assert layer.wrap(b"down") == b"down"
    assert layer.unwrap(b"up") == b"up"
    assert layer.unwrap(b"") == b""
    assert layer.finish() == b""


def test_function_that_uses_and_gives_nothing_is_called_on() -> None:
    def skip_comments(source: bytearray, is_end: bool) -> bytes:
        line, end, _ = source.partition(b"\n")
        del source[: len(line + end) if end else 0]
        return b"" if line.startswith(b"#") or not end else bytes(line + end)

    layer = Filter(skip_comments)
    assert layer.unwrap(b"#1\n#2\nthree\n#4\nfi") == b"three\n"
    assert layer.unwrap(b"ve\n") == b"five\n"


def test_function_that_gives_without_using_is_not_called_for_ever() -> None:
    layer = Filter(lambda source, is_end: b"more")
    assert layer.unwrap(b"x") == b"more"


@pytest.mark.parametrize("name", ["wrap", "unwrap"])
def test_limit_of_what_is_left(name: str) -> None:
    pass_on = getattr(Filter(one_word, one_word, limit=5), name)
    assert pass_on(b"used at once 12345") == b"<used><at><once>"
    with pytest.raises(LineTooLongError, match="6 bytes were left unused; 5 are allowed"):
        pass_on(b"6")


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_that_allows_nothing_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="limit"):
        Filter(limit=limit)


@pytest.mark.parametrize("wrong", ["text", None, 5])
def test_function_that_gives_no_bytes_is_named(wrong: Any) -> None:
    def give_wrong(source: bytearray, is_end: bool) -> Any:
        return wrong

    layer = Filter(give_wrong)
    with pytest.raises(TypeError, match=rf"give_wrong\(\) returned {type(wrong).__name__}"):
        layer.unwrap(b"x")


def test_bytearrays_and_memoryviews_will_do() -> None:
    for kind in (bytearray, memoryview):

        def pass_on(source: bytearray, is_end: bool, kind: Any = kind) -> Any:
            result = kind(bytes(source))
            source.clear()
            return result

        result = Filter(pass_on).unwrap(b"bytes")
        assert result == b"bytes"
        assert type(result) is bytes


# --- On connections -------------------------------------------------------------------------------


@pytest.fixture
def unlayered(virtual_hub: pycoronet.Hub, ends: Ends) -> tuple[Any, socket.socket]:
    """Return a connection in virtual time, and its peer."""
    return ends.pair()


def test_reading_and_writing_through_it(unlayered: Any) -> None:
    conn, peer = unlayered
    conn.push_layer(Filter(from_hex, to_hex))
    feeder = feed(peer.sendall, [bytes([byte]) for byte in b"6f6e650a74776f0a"])
    assert conn.readln() == b"one\n"
    assert conn.read_exactly(4) == b"two\n"
    feeder.join()
    conn.write(b"three")
    conn.buffered = True
    conn.write(b"four")
    conn.flush()
    assert drain_now(peer) == b"7468726565" + b"666f7572"


def test_callbacks_above_it(unlayered: Any) -> None:
    conn, peer = unlayered
    recorder = watch(conn, Filter(one_word, one_word), data=lambda conn: conn.write(b"w w"))
    peer.sendall(b"not yet")
    turn()
    assert (recorder.log, recorder.received) == (["data"], b"<not>")
    peer.sendall(b"s")
    turn()
    assert recorder.log == ["data"]
    peer.shutdown(socket.SHUT_WR)
    turn()
    assert recorder.received == b"<not><yets>"
    assert recorder.log == ["data", "data", "eof", "close"]
    assert drain_now(peer) == b"<w><ww><w>"


def test_incomplete_end_of_the_stream(unlayered: Any) -> None:
    conn, peer = unlayered
    conn.push_layer(Filter(from_hex))
    peer.sendall(b"6f6e6")
    assert conn.read_exactly(2) == b"on"
    peer.close()
    with pytest.raises(IncompleteReadError) as caught:
        conn.recv(9)
    assert caught.value.partial == b"6"
    assert conn.closed


def test_incomplete_end_is_told_to_callbacks(unlayered: Any) -> None:
    conn, peer = unlayered
    recorder = watch(conn, Filter(from_hex))
    peer.sendall(b"6f6")
    peer.close()
    turn()
    assert recorder.received == b"o"
    assert [type(error) for error in recorder.errors] == [IncompleteReadError]
    assert recorder.log[-1] == "close"


def test_output_that_is_left_when_it_closes(unlayered: Any) -> None:
    conn, peer = unlayered
    conn.push_layer(Filter(output=from_hex))
    conn.write(b"6f6e6")
    with pytest.raises(ValueError, match="left 1 bytes at the end"):
        conn.close()
    assert drain_now(peer) == b"on"
    assert conn.closed


@pytest.mark.parametrize("direction", ["input", "output"])
def test_function_that_raises_closes_with_that_error(unlayered: Any, direction: str) -> None:
    conn, peer = unlayered
    conn.push_layer(Filter(**{direction: lambda source, is_end: 1 / 0}))
    peer.sendall(b"x")
    with pytest.raises(ZeroDivisionError):
        conn.recv(1) if direction == "input" else conn.write(b"x")
    assert conn.closed


def test_function_may_not_wait(unlayered: Any) -> None:
    conn, peer = unlayered
    conn.push_layer(Filter(lambda source, is_end: pycoronet.sleep(1)))
    peer.sendall(b"x")
    with pytest.raises(RuntimeError, match="wait"):
        conn.recv(1)


def test_more_than_the_limit_closes(unlayered: Any) -> None:
    conn, peer = unlayered
    conn.push_layer(Filter(one_word, limit=100))
    peer.sendall(b"x" * 100)
    turn()
    reader = spawn(conn.recv, 1)
    turn()
    assert not reader.done
    peer.sendall(b"x")
    with pytest.raises(LineTooLongError):
        reader.get()
    assert conn.closed


def test_popped_it_leaves_what_it_did_not_use(unlayered: Any) -> None:
    conn, peer = unlayered
    layer = Filter(one_word, one_word)
    conn.push_layer(layer)
    peer.sendall(b"STARTTLS then")
    assert conn.recv(99) == b"<STARTTLS>"
    conn.write(b"unended")
    assert conn.pop_layer() is layer
    peer.sendall(b" bare")
    assert conn.read_exactly(9) == b"then bare"
    assert drain_now(peer) == b"<unended>"


def test_between_other_layers(unlayered: Any) -> None:
    conn, peer = unlayered
    below, above = Named(b"b"), Zlib()
    for layer in (below, Filter(from_hex, to_hex), above):
        conn.push_layer(layer)
    other = Zlib()
    peer.sendall(other.wrap(b"compressed").hex().encode().swapcase())
    assert conn.read_exactly(10) == b"compressed"
    conn.write(b"answer")
    sent = drain_now(peer)
    assert sent[:2] == b"b("
    assert other.unwrap(bytes.fromhex(sent[2:-1].decode())) == b"answer"


@pytest.mark.parametrize("is_above", [True, False])
def test_above_and_below_tls(ends: Ends, certificates: Certificates, is_above: bool) -> None:
    left, right = (ends.conn(end) for end in ends.sockets("unix"))
    if not is_above:
        left.push_layer(Filter(from_hex, to_hex))
        right.push_layer(Filter(from_hex, to_hex))
    handshake = spawn(left.start_tls, certificates.server_context(), server_side=True)
    layer = right.start_tls(certificates.client_context(), server_hostname="localhost")
    handshake.join()
    if is_above:
        left.push_layer(Filter(from_hex, to_hex))
        right.push_layer(Filter(from_hex, to_hex))
    assert right.tls is layer
    large = bytes(range(256)) * 1000
    writer = spawn(left.sendall, large)
    assert right.read_exactly(len(large)) == large
    writer.join()
    right.write(b"back\n")
    assert left.readln() == b"back\n"
    closing = spawn(left.close)
    assert right.recv(1) == b""
    closing.join()
