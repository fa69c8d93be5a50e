"""Layers on connections: order, marks, failures, what they may not do."""

from __future__ import annotations

import socket
import zlib
from typing import Any

import pytest
from connections import MOMENT, Ends, attempt, fill
from layer_case import Named, read_behind

import pycoronet
from pycoronet import BusyError, ClosedError, TransportLayer, spawn
from pycoronet.layers import Tee, Zlib

# Order.


def test_layers_wrap_from_the_top_and_unwrap_from_the_bottom(ends: Ends) -> None:
    conn, peer = ends.pair()
    seen: list[bytes] = []
    conn.push_layer(Named(b"below"))
    conn.push_layer(Tee(seen.append, seen.append))
    conn.push_layer(Named(b"above"))
    conn.write(b"x")
    assert peer.recv(100) == b"below(above(x))"
    peer.sendall(b"Answer")
    assert conn.read_exactly(6) == b"Answer"
    assert (seen[0], b"".join(seen[1:])) == (b"above(x)", b"aNSWER")


def test_layers_are_listed_from_the_top(ends: Ends) -> None:
    conn, _ = ends.pair()
    assert conn.layers == ()
    below, above = Named(b"1"), Named(b"2")
    conn.push_layer(below)
    conn.push_layer(above)
    assert conn.layers == (above, below)
    assert conn.tls is None
    assert conn.pop_layer() is above
    assert conn.layers == (below,)


def test_many_layers(ends: Ends) -> None:
    conn, peer = ends.pair()
    layers = [Named(b"") for _ in range(3000)]
    for layer in layers:
        conn.push_layer(layer)
    conn.write(b"x")
    wrapped = b"(" * 3000 + b"x" + b")" * 3000
    assert peer.recv(10_000) == wrapped
    peer.sendall(b"Even")
    assert conn.read_exactly(4) == b"Even"
    conn.close()
    assert all(layer.calls[-1] == "on_clear" for layer in layers)


def test_every_verb_reads_through_layers(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.push_layer(Named(b"n"))
    peer.sendall(b"ONE\nTWO\nexactlysome|rest and more")
    peer.shutdown(socket.SHUT_WR)
    assert conn.readln() == b"one\n"
    assert next(conn) == b"two\n"
    assert conn.read_exactly(7) == b"EXACTLY"
    assert conn.read_until(b"|") == b"SOME|"
    room = bytearray(4)
    count = conn.recv_into(room)
    assert room[:count] + conn.read(4 - count) == b"REST"
    assert conn.readsome(1) == b" "
    assert conn.read(100) == b"AND MORE"
    assert conn.recv(10) == conn.readln() == b""
    assert conn.recv_into(room) == 0


@pytest.mark.optimisation("much is received at once")
def test_recv_gives_no_more_than_asked_and_keeps_the_rest(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.push_layer(TransportLayer())
    peer.sendall(b"abcdef")
    assert conn.recv(2) == b"ab"
    room = bytearray(3)
    assert conn.recv_into(room) == 3
    assert conn.recv(10) == b"f"


def test_what_was_written_before_a_push_does_not_go_through_it(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.buffered = True
    conn.write(b"before ")
    conn.push_layer(Named(b"n"))
    conn.write(b"behind")
    conn.flush()
    assert peer.recv(100) == b"before n(behind)"


def test_what_a_layer_says_first_comes_behind_what_was_written_before(ends: Ends) -> None:
    class Greeting(TransportLayer):
        def started(self) -> None:
            self.emit(b"hello ")

    conn, peer = ends.pair()
    conn.buffered = True
    conn.write(b"before ")
    conn.push_layer(Greeting())
    conn.write(b"behind")
    conn.flush()
    assert peer.recv(100) == b"before hello behind"


def test_what_layers_say_first_when_the_system_takes_nothing(ends: Ends) -> None:
    class Greeting(TransportLayer):
        def __init__(self, text: bytes) -> None:
            self.text = text

        def started(self) -> None:
            self.emit(self.text)

    conn, peer = ends.pair()
    filled = fill(conn)
    conn.buffered = True
    conn.write(b"first ")
    conn.push_layer(Greeting(b"one "))
    conn.write(b"second ")
    conn.push_layer(Greeting(b"two "))
    conn.write(b"third")
    conn.close()
    assert read_behind(peer, filled) == b"first one second two third"


def test_bytes_read_ahead_go_through_a_layer_pushed_later(ends: Ends) -> None:
    conn, peer = ends.pair()
    peer.sendall(b"STARTTLS\nafter\n")
    assert conn.readln() == b"STARTTLS\n"
    conn.push_layer(Named(b"n"))
    assert conn.readln() == b"AFTER\n"


def test_layer_pushed_on_an_ended_stream_is_told(ends: Ends) -> None:
    class Ending(TransportLayer):
        def unwrap(self, data: bytes) -> bytes | None:
            return None if data == b"." else data

    conn, peer = ends.pair()
    conn.push_layer(Ending())
    peer.sendall(b".")
    assert conn.recv(10) == b""
    upper = Named(b"n")
    conn.push_layer(upper)
    assert conn.recv(10) == b""
    assert upper.calls == ["started", "unwrap"]


# Popping.


def test_popped_layer_still_wraps_what_was_written_before(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.buffered = True
    layer = Named(b"n")
    conn.push_layer(layer)
    conn.write(b"through it ")
    assert conn.pop_layer() is layer
    conn.write(b" plain")
    conn.flush()
    assert peer.recv(100) == b"n(through it )n. plain"
    assert layer.calls == ["started", "wrap", "finish", "on_clear"]


def test_layer_popped_from_between_is_not_missed(ends: Ends) -> None:
    conn, peer = ends.pair()
    filled = fill(conn)
    conn.buffered = True
    below, middle, above = Named(b"below"), Named(b"middle"), Named(b"above")
    conn.push_layer(below)
    conn.push_layer(middle)
    conn.write(b"1")
    conn.pop_layer()
    conn.push_layer(above)
    conn.write(b"2")
    assert "on_clear" not in middle.calls
    conn.close()
    assert "on_clear" not in middle.calls
    expected = b"below(middle(1))below(middle.)below(above(2))below(above.)below."
    assert read_behind(peer, filled) == expected
    for layer in (below, middle, above):
        assert layer.calls.count("finish") == layer.calls.count("on_clear") == 1


def test_connection_without_layers_again_is_a_plain_one(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.push_layer(Named(b"n"))
    conn.pop_layer()
    assert peer.recv(10) == b"n."
    peer.sendall(b"plain\n")
    assert conn.readln() == b"plain\n"
    assert conn.recvmsg is not None
    peer.sendall(b"message")
    assert conn.recvmsg(100)[0] == b"message"


def test_what_came_behind_a_layers_end_is_read_below_it(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.push_layer(Zlib())
    peer.sendall(zlib.compress(b"inside") + b"outside\n")
    assert conn.read_exactly(6) == b"inside"
    assert conn.recv(100) == b""
    conn.pop_layer()
    assert conn.readln() == b"outside\n"


def test_pop_without_layers(ends: Ends) -> None:
    conn, _ = ends.pair()
    with pytest.raises(IndexError):
        conn.pop_layer()


# What cannot have layers, and when they cannot be changed.


def test_push_needs_a_layer_that_is_new(ends: Ends) -> None:
    conn, _ = ends.pair()
    with pytest.raises(TypeError, match="TransportLayer"):
        conn.push_layer(object())
    layer = TransportLayer()
    conn.push_layer(layer)
    with pytest.raises(ValueError, match="pushed before"):
        conn.push_layer(layer)
    conn.pop_layer()
    with pytest.raises(ValueError, match="pushed before"):
        ends.pair()[0].push_layer(layer)


@pytest.mark.parametrize("kind", ["udp", "seqpacket"])
def test_only_streams_have_layers(ends: Ends, kind: str) -> None:
    conn, _ = ends.pair(kind)
    with pytest.raises(ValueError, match="streams"):
        conn.push_layer(TransportLayer())


def test_listeners_have_no_layers(ends: Ends) -> None:
    listener = ends.keep(pycoronet.listen(("127.0.0.1", 0)))
    with pytest.raises(ValueError, match="streams"):
        listener.push_layer(TransportLayer())


def test_layers_do_not_change_while_somebody_waits(ends: Ends) -> None:
    conn, peer = ends.pair()
    reader = spawn(conn.recv, 10)
    pycoronet.sleep(MOMENT)
    with pytest.raises(BusyError):
        conn.push_layer(TransportLayer())
    peer.sendall(b"x")
    reader.join()
    conn.push_layer(TransportLayer())
    fill(conn)
    writer = spawn(attempt, conn.write, b"x" * 1_000_000)
    pycoronet.sleep(MOMENT)
    with pytest.raises(BusyError):
        conn.pop_layer()
    conn.abort()
    assert isinstance(writer.get(), ClosedError)


@pytest.mark.parametrize("verb", ["recvfrom", "recvmsg", "sendmsg", "detach"])
def test_verbs_that_would_go_past_layers_are_refused(ends: Ends, verb: str) -> None:
    conn, _ = ends.pair()
    conn.push_layer(TransportLayer())
    arguments: dict[str, list[Any]] = {"sendmsg": [[b"x"]], "detach": []}
    with pytest.raises(RuntimeError, match="layers"):
        getattr(conn, verb)(*arguments.get(verb, [10]))


def test_closed_connection_takes_no_layer(ends: Ends) -> None:
    conn, _ = ends.pair()
    conn.close()
    with pytest.raises(ClosedError):
        conn.push_layer(TransportLayer())


# Closing.


def test_close_finishes_from_the_top_and_clears_once(ends: Ends) -> None:
    conn, peer = ends.pair()
    below, above = Named(b"below"), Named(b"above")
    conn.push_layer(below)
    conn.push_layer(above)
    conn.buffered = True
    conn.write(b"last")
    conn.close()
    assert peer.recv(100) == b"below(above(last))below(above.)below."
    assert peer.recv(100) == b""
    conn.close()
    conn.abort()
    assert above.calls == ["started", "wrap", "finish", "on_clear"]
    assert below.calls.count("finish") == below.calls.count("on_clear") == 1


def test_abort_clears_without_finishing(ends: Ends) -> None:
    conn, peer = ends.pair()
    layer = Named(b"n")
    conn.push_layer(layer)
    conn.buffered = True
    conn.write(b"dropped")
    conn.abort()
    assert peer.recv(100) == b""
    assert layer.calls == ["started", "on_clear"]


def test_shutdown_finishes_and_the_rest_can_be_read(ends: Ends) -> None:
    conn, peer = ends.pair()
    layer = Named(b"n")
    conn.push_layer(layer)
    conn.write(b"request")
    conn.shutdown(socket.SHUT_WR)
    assert peer.recv(100) == b"n(request)n."
    assert peer.recv(100) == b""
    peer.sendall(b"answer")
    assert conn.read_exactly(6) == b"ANSWER"
    with pytest.raises(BrokenPipeError):
        conn.write(b"too late")
    conn.close()
    assert layer.calls.count("finish") == layer.calls.count("on_clear") == 1


def test_dropped_connection_clears_its_layers(ends: Ends) -> None:
    left, peer = ends.sockets()
    layer = Named(b"n")
    conn = pycoronet.sk_conn(left)
    conn.push_layer(layer)
    with pytest.warns(ResourceWarning):
        del conn
    assert peer.recv(100) == b"n."
    assert layer.calls[-1] == "on_clear"


def test_layer_that_knows_its_connection_is_collected(ends: Ends) -> None:
    import gc
    import weakref

    left, _ = ends.sockets()
    conn = pycoronet.sk_conn(left)
    layer = Named(b"n")
    layer.conn = conn  # type: ignore[attr-defined]
    conn.push_layer(layer)
    conn.close()
    alive = weakref.ref(layer)
    del conn, layer
    gc.collect()
    assert alive() is None


# Making one.


def test_arguments_are_for_the_init_of_a_subclass() -> None:
    class Titled(TransportLayer):
        def __init__(self, name: str) -> None:
            self.name = name

    class Plain(TransportLayer):
        pass

    assert Titled("x").name == "x"
    for kind in (TransportLayer, Plain):
        with pytest.raises(TypeError, match="takes no arguments"):
            kind(5)  # type: ignore[call-arg]
