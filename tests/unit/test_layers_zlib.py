"""Zlib, Tee and the base class by themselves."""

from __future__ import annotations

import io
import zlib

import pytest

from pycoronet.layers import ExpansionError, Tee, TransportLayer, Zlib


def test_each_piece_can_be_read_at_once() -> None:
    one, other = Zlib(), Zlib()
    for piece in (b"a", b"line\n", bytes(100_000), b"z"):
        assert other.unwrap(one.wrap(piece)) == piece


def test_stream_in_single_bytes() -> None:
    one, other = Zlib(), Zlib()
    stream = one.wrap(b"to be or not to be ") * 1 + one.wrap(b"that is the question")
    plain = b"".join(other.unwrap(stream[at : at + 1]) for at in range(len(stream)))
    assert plain == b"to be or not to be that is the question"


def test_deflate_without_header() -> None:
    one = Zlib(wbits=-15)
    assert zlib.decompressobj(-15).decompress(one.wrap(b"raw")) == b"raw"
    assert Zlib(wbits=-15).unwrap(Zlib(wbits=-15).wrap(b"raw")) == b"raw"


def test_orderly_end() -> None:
    one, other = Zlib(), Zlib()
    assert other.unwrap(one.wrap(b"all") + one.finish() + b"beyond") == b"all"
    assert other.ended
    assert other.leftover == b"beyond"


def test_end_in_the_middle_raises() -> None:
    one, other = Zlib(), Zlib()
    assert other.unwrap(one.wrap(b"some")) == b"some"
    with pytest.raises(EOFError):
        other.unwrap(b"")


def test_garbage_raises() -> None:
    with pytest.raises(zlib.error):
        Zlib().unwrap(b"no zlib at all")


def test_bomb_is_stopped_at_the_limit() -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    assert len(bomb) < 65536
    with pytest.raises(ExpansionError):
        Zlib(limit=1_000_000).unwrap(bomb)
    with pytest.raises(ExpansionError):
        Zlib().unwrap(bomb)


def test_limit_itself_is_allowed() -> None:
    data = bytes(100_000)
    assert Zlib(limit=100_000).unwrap(zlib.compress(data)) == data
    with pytest.raises(ExpansionError):
        Zlib(limit=99_999).unwrap(zlib.compress(data))


def test_limit_is_for_each_piece() -> None:
    one, other = Zlib(), Zlib(limit=10_000)
    for _ in range(20):
        assert other.unwrap(one.wrap(bytes(10_000))) == bytes(10_000)


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_that_allows_nothing_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="limit"):
        Zlib(limit=limit)


def test_tee_records_both_directions() -> None:
    received, sent = io.BytesIO(), io.BytesIO()
    tee = Tee(received.write, sent.write)
    assert tee.wrap(b"down ") == b"down "
    assert tee.unwrap(b"up ") == b"up "
    assert tee.unwrap(b"") == b""
    assert tee.wrap(b"again") == b"again"
    assert (received.getvalue(), sent.getvalue()) == (b"up ", b"down again")


def test_tee_that_records_nothing_changes_nothing() -> None:
    tee = Tee()
    assert tee.wrap(b"x") == tee.unwrap(b"x") == b"x"
    assert tee.finish() == b""


def test_base_class_passes_everything_through() -> None:
    layer = TransportLayer()
    assert layer.wrap(b"x") == layer.unwrap(b"x") == b"x"
    assert layer.finish() == b""
    layer.started()
    layer.on_clear()
    assert not layer.ended
    layer.end()
    assert layer.ended


def test_emitted_bytes_are_taken_once() -> None:
    layer = TransportLayer()
    layer.emit(b"one ")
    layer.emit(bytearray(b"two"))
    layer.emit(b"")
    assert layer.take_emitted() == b"one two"
    assert layer.take_emitted() == b""
    with pytest.raises(TypeError):
        layer.emit("text")  # type: ignore[arg-type]
