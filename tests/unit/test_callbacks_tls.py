"""TLS under callbacks: no coroutine anywhere, in a handshake neither."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from certificates import Certificates
from connections import PEER_TIMEOUT, Ends
from processes import lines_of
from recorders import Recorder, reset, told, turn
from tls_peer import TlsPeer

import pycoronet
from pycoronet import get_hub, spawn
from pycoronet.layers import Zlib
from pycoronet.tls import TLSLayer

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture
def contexts(certificates: Certificates) -> Contexts:
    """Return a server's and a client's context."""
    return certificates.server_context(), certificates.client_context()


def secure(context: ssl.SSLContext) -> Callable[[Any], None]:
    """Return an on_open() that begins TLS as a server."""
    return lambda conn: conn.push_layer(TLSLayer(context, server_side=True))


def echo(conn: Any) -> None:
    while data := conn.take(65536):
        conn.write(data)


# --- Against a peer that blocks ------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_server_for_a_blocking_client(
    listener: Any, contexts: Contexts, version: ssl.TLSVersion
) -> None:
    server_context, client_context = contexts
    client_context.maximum_version = version
    content = bytes(range(256)) * 2000
    address = listener.getsockname()

    def client() -> bytes:
        with socket.create_connection(address, PEER_TIMEOUT) as sock:
            tls = client_context.wrap_socket(sock, server_hostname="localhost")
            received = b""
            for at in range(0, len(content), 50_000):
                piece = content[at : at + 50_000]
                tls.sendall(piece)
                while len(received) < at + len(piece):
                    received += tls.recv(65536)
            tls.unwrap().close()  # waits for the server's own end
            return received

    recorder = Recorder(takes=False, open=secure(server_context), data=echo)
    listener.set_callbacks(recorder)
    assert pycoronet.to_thread(client) == content
    assert recorder.log[0] == "open"
    listener.close()
    get_hub().run()
    assert set(recorder.log[1:-2]) == {"data"}
    assert recorder.log[-2:] == ["eof", "close"]


def test_client_of_a_blocking_server(ends: Ends, contexts: Contexts) -> None:
    server_context, client_context = contexts
    left, right = ends.sockets("tcp")

    def server() -> bytes:
        with server_context.wrap_socket(right, server_side=True) as tls:
            question = tls.recv(100)
            tls.sendall(b"answer")
            return question + bytes(tls.recv(100))  # b"" at an orderly end

    task = spawn(pycoronet.to_thread, server)
    conn = ends.conn(left)
    recorder = Recorder(data=lambda conn: conn.close())
    conn.set_callbacks(recorder)
    conn.push_layer(TLSLayer(client_context, server_hostname="localhost"))
    conn.write(b"question")
    assert task.get() == b"question"
    get_hub().run()
    assert recorder.received == b"answer"
    assert recorder.log == ["data", "close"]


# --- By hand, in virtual time --------------------------------------------------------------------


class Server:
    """A connection that serves TLS by callbacks, and the peer of it."""

    def __init__(self, ends: Ends, contexts: Contexts, kind: str = "tcp", **options: Any) -> None:
        self.conn, sock = ends.pair(kind)
        self.peer = TlsPeer(sock, contexts[1])
        self.layer = TLSLayer(contexts[0], server_side=True)
        self.conn.push_layer(self.layer)
        self.recorder = Recorder(**options)
        self.conn.set_callbacks(self.recorder)


@pytest.fixture
def serve(ends: Ends, contexts: Contexts, virtual_hub: Any) -> Callable[..., Server]:
    """Return a function that makes a server, with the handshake done if nothing else is said."""

    def make(*, shakes_hands: bool = True, **options: Any) -> Server:
        server = Server(ends, contexts, **options)
        if shakes_hands:
            server.peer.shake_hands()
            turn()
        return server

    return make


def test_both_ends_by_callbacks(virtual_hub: Any, ends: Ends, contexts: Contexts) -> None:
    left, right = ends.sockets("tcp")
    server, client = ends.conn(left), ends.conn(right.dup())
    right.close()
    at_server = Recorder(takes=False, data=echo)
    at_client = Recorder(data=lambda conn: conn.close())
    server.set_callbacks(at_server)
    client.set_callbacks(at_client)
    server.push_layer(TLSLayer(contexts[0], server_side=True))
    client.push_layer(TLSLayer(contexts[1], server_hostname="localhost"))
    client.write(b"hello")
    get_hub().run()
    assert at_client.received == b"hello"
    assert at_client.log == ["data", "close"]
    assert at_server.log == ["data", "eof", "close"]


@pytest.mark.parametrize("piece", [1, 5, 1000])
def test_handshake_in_pieces(serve: Any, piece: int) -> None:
    server = serve(shakes_hands=False, takes=False, data=echo)
    server.peer.shake_hands(piece=piece)
    for byte in server.peer.encrypted(b"x"):
        server.peer.send(bytes([byte]))
    assert server.peer.read(1) == b"x"
    assert server.recorder.log == ["data"]


def test_written_before_the_handshake(serve: Any) -> None:
    server = serve(shakes_hands=False)
    server.conn.write(b"welcome")
    server.peer.shake_hands()
    assert server.peer.read(7) == b"welcome"


def test_starttls_with_the_hello_read_too_far(
    virtual_hub: Any, ends: Ends, contexts: Contexts
) -> None:
    lines: list[Any] = []

    def read(conn: Any) -> None:
        while (line := conn.take_line()) is not None:
            lines.append(line)
            if line == b"STARTTLS\n":
                conn.write(b"OK\n")
                conn.push_layer(TLSLayer(contexts[0], server_side=True))

    conn, sock = ends.pair("tcp")
    recorder = Recorder(takes=False, data=read)
    conn.set_callbacks(recorder)
    peer = TlsPeer(sock, contexts[1])
    sock.sendall(b"STARTTLS\n" + peer.hello())
    turn()
    assert sock.recv(3) == b"OK\n"
    peer.shake_hands(b"")
    peer.send(peer.encrypted(b"secret\n"))
    assert lines == [b"STARTTLS\n", b"secret\n"]
    assert recorder.errors == []


# Ends.


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_orderly_end(serve: Any, kind: str) -> None:
    server = serve(kind=kind)
    server.peer.send(server.peer.end())
    assert server.recorder.log == ["eof", "close"]
    assert server.peer.read(1) == b""  # ours is orderly, too
    server.peer.sock.close()
    turn()
    assert server.recorder.log == ["eof", "close"]


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_data_and_end_in_one_receipt(serve: Any, kind: str) -> None:
    server = serve(kind=kind)
    peer = server.peer
    peer.send(peer.encrypted(b"one", b"two", b"three") + peer.end())
    assert server.recorder.received == b"onetwothree"
    assert told(server.recorder.log) == ["data", "eof", "close"]


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_ragged_end(serve: Any, reports: list[Any], kind: str) -> None:
    server = serve(kind=kind)
    server.peer.send(server.peer.encrypted(b"cut"))
    server.peer.take_in()  # or it would be a reset
    server.peer.sock.close()
    turn()
    assert server.recorder.received == b"cut"
    assert server.recorder.log == ["data", "error", "close"]
    assert isinstance(server.recorder.errors[0], ssl.SSLEOFError)
    assert reports == []


def test_ragged_end_in_take(serve: Any, reports: list[Any]) -> None:
    def take_twice(conn: Any) -> None:
        got.append(conn.take(100))
        server.peer.sock.shutdown(socket.SHUT_WR)
        conn.take(100)

    got: list[bytes] = []
    server = serve(kind="unix", takes=False, data=take_twice)
    server.peer.send(server.peer.encrypted(b"cut"))
    assert got == [b"cut"]
    assert server.recorder.log == ["data", "error", "close"]
    assert isinstance(server.recorder.errors[0], ssl.SSLEOFError)
    assert reports == []


def test_reset(serve: Any) -> None:
    server = serve()
    reset(server.peer.sock)
    turn()
    assert server.recorder.log == ["error", "close"]
    assert isinstance(server.recorder.errors[0], ConnectionResetError)


def test_end_of_one_direction(serve: Any) -> None:
    server = serve(eof=lambda conn: conn.write(b"still here"))
    server.peer.send(server.peer.end())
    assert server.peer.read(10) == b"still here"
    assert server.recorder.log == ["eof"]
    server.conn.close()
    turn()
    assert server.recorder.log == ["eof", "close"]


def test_close_in_on_data_is_orderly(serve: Any, reports: list[Any]) -> None:
    def answer_and_close(conn: Any) -> None:
        conn.write(b"answer")
        conn.close()

    server = serve(data=answer_and_close)
    server.peer.send(server.peer.encrypted(b"question"))
    assert server.recorder.log == ["data", "close"]
    assert server.peer.read(100) == b"answer"  # and then close_notify, or it would not return
    assert reports == []


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\xff\xff", b"\0" * 99]
)
def test_garbage_on_a_tls_port(
    virtual_hub: Any,
    listener: Any,
    dial: Any,
    contexts: Contexts,
    reports: list[Any],
    garbage: bytes,
) -> None:
    recorders: list[Recorder] = []

    def make() -> Recorder:
        recorders.append(Recorder(takes=False, open=secure(contexts[0]), data=echo))
        return recorders[-1]

    listener.set_callbacks(make)
    peer = TlsPeer(dial(), contexts[1])
    peer.shake_hands()
    intruder = dial()
    intruder.sendall(garbage)
    turn()
    intruder.shutdown(socket.SHUT_WR)
    turn()
    peer.send(peer.encrypted(b"undisturbed"))
    assert peer.read(11) == b"undisturbed"
    assert recorders[0].log == ["open", "data"]
    assert recorders[1].log == ["open", "error", "close"]
    assert isinstance(recorders[1].errors[0], ssl.SSLError)
    assert reports == []


def test_garbage_later(serve: Any, reports: list[Any]) -> None:
    server = serve()
    server.peer.send(server.peer.encrypted(b"good"))
    server.peer.send(b"\x17\x03\x03\x00\x20" + b"bad" * 11)
    assert server.recorder.log == ["data", "error", "close"]
    assert isinstance(server.recorder.errors[0], ssl.SSLError)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.bad.record.mac"):
        server.peer.read(1)
    assert reports == []


def test_client_that_does_not_trust_the_server(
    virtual_hub: Any, ends: Ends, contexts: Contexts
) -> None:
    conn, sock = ends.pair("tcp")
    recorder = Recorder()
    conn.set_callbacks(recorder)
    context = ssl.create_default_context()
    conn.push_layer(TLSLayer(context, server_hostname="localhost"))
    peer = TlsPeer(sock, contexts[0], server_side=True)
    with pytest.raises(ssl.SSLError):
        peer.shake_hands(b"")
        peer.read(1)
    turn()
    assert recorder.log == ["error", "close"]
    assert isinstance(recorder.errors[0], ssl.SSLCertVerificationError)


# Output.


def test_more_than_the_high_mark(serve: Any) -> None:
    content = bytes(range(256)) * 20_000

    server = serve(data=lambda conn: conn.write(content))
    server.peer.send(server.peer.encrypted(b"x"))
    assert server.recorder.log == ["data"]
    server.peer.send(server.peer.encrypted(b"y"))
    assert server.recorder.received == b"x"  # nothing is received while so much waits
    assert 64 * 1024 < server.conn.pending <= len(content)
    assert server.peer.read(2 * len(content)) == 2 * content
    turn()
    assert server.recorder.received == b"xy"
    assert server.recorder.log.count("data") == 2
    assert server.recorder.log[-1] == "ready"


def test_on_ready_goes_on_writing(serve: Any) -> None:
    """The way to send without end: never more than a piece waits."""
    piece = bytes(1_000_000)
    pending: list[int] = []
    left = [5]

    def write(conn: Any) -> None:
        while left[0] and conn.pending == 0:
            left[0] -= 1
            conn.enqueue(piece)
            pending.append(conn.pending)

    server = serve(data=write, ready=write)
    server.peer.send(server.peer.encrypted(b"x"))
    assert server.peer.read(5 * len(piece)) == 5 * piece
    assert max(pending) <= len(piece)


def test_peer_that_never_reads(serve: Any) -> None:
    server = serve(takes=False, data=echo, kind="unix")
    sent = 0
    server.peer.sock.setblocking(False)
    data = b""
    for _ in range(200):
        data = data or server.peer.encrypted(bytes(16_000))
        try:
            count = server.peer.sock.send(data)
        except BlockingIOError:
            count = 0
        sent += count
        data = data[count:]
        turn(1)
        assert server.conn.pending < 300_000
    assert sent < 200 * 16_000  # it has to wait, too


def test_close_drains_and_lingers(serve: Any) -> None:
    server = serve(data=lambda conn: (conn.write(bytes(5_000_000)), conn.close()))
    server.peer.send(server.peer.encrypted(b"x"))
    assert server.recorder.log == ["data"]
    assert server.peer.read(5_000_001) == bytes(5_000_000)
    turn()
    assert server.recorder.log == ["data", "close"]


# Stopping, time, and other hands.


def test_stop_says_goodbye(serve: Any, reports: list[Any]) -> None:
    server = serve(shutdown=lambda conn: conn.write(b"goodbye"))
    get_hub().stop()
    get_hub().run()
    assert server.recorder.log == ["shutdown", "close"]
    assert server.peer.read(100) == b"goodbye"  # and the orderly end
    assert reports == []


def test_closing_the_hub_says_goodbye(serve: Any) -> None:
    server = serve(shutdown=lambda conn: conn.write(b"goodbye"))
    get_hub().close()
    assert server.recorder.log == ["shutdown", "close"]
    assert server.peer.read(100) == b"goodbye"  # and the orderly end


def test_stop_in_a_handshake_with_something_written(serve: Any) -> None:
    server = serve(shakes_hands=False)
    server.conn.write(b"lost")
    turn()
    get_hub().stop()
    get_hub().run()
    assert server.recorder.log == ["shutdown", "error", "close"]
    with pytest.raises(ssl.SSLError, match="lost"):
        raise server.recorder.errors[0]


def test_handshake_that_takes_too_long(serve: Any) -> None:
    server = serve(shakes_hands=False, timeout=lambda conn: conn.abort())
    server.conn.settimeout(5)
    server.peer.send(server.peer.hello()[:10])
    pycoronet.sleep(4)
    assert server.recorder.log == []
    pycoronet.sleep(2)
    assert server.recorder.log == ["timeout", "close"]


def test_on_to_a_task(serve: Any) -> None:
    def hand_over(conn: Any) -> None:
        got.append(conn.take(3))
        conn.set_callbacks(None)

    got: list[bytes] = []
    server = serve(takes=False, data=hand_over)
    peer = server.peer
    peer.send(peer.encrypted(b"first", b"second"))
    task = spawn(server.conn.read_exactly, 13)
    peer.send(peer.encrypted(b"third"))
    assert (got, task.get()) == ([b"fir"], b"stsecondthird"[:13])
    peer.send(peer.end())
    assert server.conn.recv(10) == b""


def test_from_a_task(virtual_hub: Any, ends: Ends, contexts: Contexts) -> None:
    conn, sock = ends.pair("tcp")
    peer = TlsPeer(sock, contexts[1])
    task = spawn(conn.start_tls, contexts[0], server_side=True)
    peer.shake_hands()
    task.get()
    peer.send(peer.encrypted(b"before"))
    assert conn.recv(4) == b"befo"
    recorder = Recorder()
    conn.set_callbacks(recorder)
    turn()
    assert recorder.received == b"re"
    peer.send(peer.encrypted(b", after") + peer.end())
    assert recorder.received == b"re, after"
    assert recorder.log == ["data", "data", "eof", "close"]


def test_start_tls_would_wait(serve: Any, reports: list[Any]) -> None:
    def start(conn: Any) -> None:
        with pytest.raises(RuntimeError, match="callback"):
            conn.start_tls(ssl.create_default_context(), server_hostname="x")

    server = serve(data=start)
    server.peer.send(server.peer.encrypted(b"x"))
    assert server.recorder.log == ["data", "close"]
    assert reports == []


def test_layers_below_and_above(serve: Any) -> None:
    server = serve(takes=False, data=echo)
    server.conn.push_layer(Zlib())
    client = Zlib()
    server.peer.send(server.peer.encrypted(client.wrap(b"deep inside")))
    received = b""
    while received != b"deep inside":
        received += client.unwrap(server.peer.read(1))
    assert server.recorder.log == ["data"]


def test_fork(certificates: Certificates) -> None:
    """The child says nothing in the parent's connection, whatever it does."""
    program = f"""
import socket, ssl, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # it forks beside a thread
from pycoronet.tls import TLSLayer
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain({str(certificates.server)!r})
client = ssl.create_default_context(cafile={str(certificates.authority)!r})
left, right = socket.socketpair()
class Echo(Protocol):
    def on_data(self, conn):
        conn.write(conn.take(100))
        pid = os.fork()
        if pid == 0:
            conn.abort()
            os._exit(0)
        os.waitpid(pid, 0)
    def on_close(self, conn):
        say("closed")
conn = sk_conn(left)
conn.push_layer(TLSLayer(context, server_side=True))
conn.set_callbacks(Echo())
def talk():
    tls = client.wrap_socket(right, server_hostname="localhost")
    answers = []
    for _ in range(3):
        tls.sendall(b"x")
        answers.append(tls.recv(100))
    tls.unwrap().close()
    return answers
say(to_thread(talk))
get_hub().run()
"""
    assert sorted(lines_of(program)) == ["[b'x', b'x', b'x']", "closed"]
