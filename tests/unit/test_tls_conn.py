"""TLS on connections: handshakes, ends, failures, bulk, and what goes on beside each other."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates
from connections import Ends, attempt, receive

import pycoronet
from pycoronet import ClosedError, connect, listen, serve, sleep, spawn, timeout
from pycoronet.layers import Tee, Zlib


@pytest.fixture
def contexts(certificates: Certificates) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return certificates.server_context(), certificates.client_context()


class Pair:
    """A client's and a server's connection over TLS, both ours."""

    def __init__(self, ends: Ends, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
        server_context, client_context = contexts
        left, right = ends.sockets("tcp")
        self.server, self.client = ends.conn(left), ends.conn(right.dup())
        right.close()
        handshake = spawn(self.server.start_tls, server_context, server_side=True)
        self.client.start_tls(client_context, server_hostname="localhost")
        handshake.get()
        # What comes behind a handshake is under way still, unless it is read.
        self.server.write(b"!")
        assert self.client.recv(1) == b"!"


@pytest.fixture
def pair(ends: Ends, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Pair:
    return Pair(ends, contexts)


@pytest.fixture
def start_server(ends: Ends) -> Iterator[Callable[..., tuple[str, int]]]:
    """Return a function that serves in a task and gives the address."""
    servers = []

    def start(handler: Any, **options: Any) -> tuple[str, int]:
        listener = listen(("127.0.0.1", 0))
        ends.keep(listener)
        servers.append(spawn(serve, listener, handler, **options))
        return "127.0.0.1", listener.getsockname()[1]

    yield start
    for server in servers:
        server.cancel()
    sleep(0)


def echo(conn: Any, address: Any) -> None:
    while data := conn.recv(65536):
        conn.sendall(data)


# Handshakes.


def test_both_ways(pair: Pair) -> None:
    pair.client.write(b"question\n")
    assert pair.server.readln() == b"question\n"
    pair.server.write(b"answer\n")
    assert pair.client.readln() == b"answer\n"
    assert pair.client.tls.version() == "TLSv1.3"
    assert pair.client.tls is pair.client.layers[0]


def test_connect_and_serve(contexts: Any, start_server: Any) -> None:
    server_context, client_context = contexts
    address = start_server(echo, tls=server_context)
    with connect(address, tls=client_context) as conn:
        conn.write(b"hello\n")
        assert conn.readln() == b"hello\n"
    with connect(address, tls=client_context, server_hostname="localhost", timeout=10) as conn:
        conn.write(b"by name\n")
        assert conn.readln() == b"by name\n"


@pytest.mark.parametrize("which", ["expired", "elsewhere", "server"])
def test_client_verifies_by_default(
    certificates: Certificates, start_server: Any, which: str
) -> None:
    address = start_server(echo, tls=certificates.server_context(getattr(certificates, which)))
    context = True if which == "server" else certificates.client_context()
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(address, tls=context)
    # The server is none the worse for it.
    with connect(address, tls=ssl._create_unverified_context()) as conn:
        conn.write(b"still there\n")
        assert conn.readln() == b"still there\n"


def test_start_tls_of_a_server_needs_a_context(ends: Ends) -> None:
    conn, _ = ends.pair("tcp")
    with pytest.raises(TypeError, match="context"):
        conn.start_tls(server_side=True)
    with pytest.raises(ValueError, match="server_hostname"):
        conn.start_tls()
    assert conn.layers == ()


def test_server_name_is_told(certificates: Certificates, start_server: Any) -> None:
    names = []
    context = certificates.server_context()
    context.sni_callback = lambda tls, name, _: names.append(name)
    address = start_server(echo, tls=context)
    for name in ("localhost", None):
        with connect(address, tls=certificates.client_context(), server_hostname=name) as conn:
            conn.write(b"!")
            assert conn.read(1) == b"!"  # what the server sends behind the handshake has left
    assert names == ["localhost", None]  # an address is no name to be sent


def test_alpn_is_agreed(contexts: Any, start_server: Any) -> None:
    for context, protocols in zip(contexts, (["a", "b"], ["c", "b"]), strict=True):
        context.set_alpn_protocols(protocols)
    chosen = []
    address = start_server(
        lambda conn, _: chosen.append(conn.tls.selected_alpn_protocol()), tls=contexts[0]
    )
    with connect(address, tls=contexts[1]) as conn:
        assert conn.tls.selected_alpn_protocol() == "b"
        assert conn.recv(1) == b""
    assert chosen == ["b"]


def test_client_certificate(certificates: Certificates, start_server: Any) -> None:
    context = certificates.server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificates.authority)

    def greet(conn: Any, address: Any) -> None:
        subject = conn.tls.getpeercert()["subject"]
        conn.write(subject[0][0][1].encode() + b"\n")

    address = start_server(greet, tls=context)
    client = certificates.client_context()
    with pytest.raises(ssl.SSLError), connect(address, tls=client) as conn:
        conn.readln()
    client.load_cert_chain(certificates.client)
    with connect(address, tls=client) as conn:
        assert conn.readln() == b"client\n"


def test_session_is_resumed(contexts: Any, start_server: Any) -> None:
    server_context, client_context = contexts
    address = start_server(echo, tls=server_context)
    session = None
    for is_resumed in (False, True):
        with connect(address) as conn:
            tls = conn.start_tls(client_context, server_hostname="localhost", session=session)
            conn.write(b"x")
            assert conn.recv(1) == b"x"
            assert tls.session_reused is is_resumed
            session = tls.session


def test_handshake_in_single_bytes(ends: Ends, contexts: Any) -> None:
    # A relay that passes on a byte at a time, as a very bad network might.
    server_context, client_context = contexts
    one, other = ends.sockets("tcp"), ends.sockets("tcp")
    server, client = ends.conn(one[0]), ends.conn(other[0])

    def relay(source: Any, target: Any) -> None:
        while data := attempt(source.recv, 1):
            if isinstance(data, ClosedError):
                return
            target.sendall(data)
            sleep(0)

    middle = [ends.conn(sock.dup()) for sock in (one[1], other[1])]
    spawn(relay, *middle)
    spawn(relay, *reversed(middle))
    handshake = spawn(server.start_tls, server_context, server_side=True)
    client.start_tls(client_context, server_hostname="localhost")
    handshake.get()
    client.write(b"there\n")
    assert server.readln() == b"there\n"
    server.write(b"and back\n")
    assert client.readln() == b"and back\n"


def test_handshake_that_takes_too_long(ends: Ends, contexts: Any) -> None:
    conn, peer = ends.pair("tcp")
    with pytest.raises(TimeoutError):
        conn.start_tls(contexts[0], server_side=True, timeout=0.001)
    assert conn.closed
    assert peer.recv(1) == b""


@pytest.mark.leaves_something("the traceback of an error that was logged")
def test_silent_client_of_a_server(
    ends: Ends, contexts: Any, start_server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pycoronet.tls")
    address = start_server(echo, tls=contexts[0], handshake_timeout=0.001)
    silent = ends.keep(connect(address))
    assert silent.recv(1) == b""
    assert "handshake" in caplog.text


def test_cancel_in_the_middle_of_a_handshake(ends: Ends, contexts: Any) -> None:
    conn, peer = ends.pair("tcp")
    task = spawn(conn.start_tls, contexts[0], server_side=True)
    sleep(0)
    peer.sendall(b"\x16\x03\x01")
    sleep(0)
    task.cancel()
    task.join()
    assert conn.closed
    assert conn.layers == ()


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x00\x05hello", os.urandom(3000)],
)
def test_client_that_speaks_no_tls(
    ends: Ends, contexts: Any, start_server: Any, garbage: bytes
) -> None:
    called = []
    address = start_server(lambda *_: called.append(1), tls=contexts[0])
    with connect(address) as good:
        # It is in its handshake while the other one fails.
        handshake = spawn(good.start_tls, contexts[1], server_hostname="localhost")
        with connect(address) as bad:
            bad.write(garbage)
            try:
                while bad.recv(1000):
                    pass  # the alert
            except ConnectionResetError:
                pass
        handshake.get()
        assert good.recv(1) == b""
    assert called == [1]


@pytest.mark.parametrize("length", [0, 1, 5, 6, 100])
def test_client_that_goes_in_its_handshake(
    contexts: Any, start_server: Any, length: int, certificates: Certificates
) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = contexts[1].wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    address = start_server(echo, tls=contexts[0])
    with connect(address) as conn:
        if length:
            conn.write(outgoing.read()[:length])
        conn.shutdown(socket.SHUT_WR)
        assert len(conn.recv(100)) <= 7  # an alert at most
    with connect(address, tls=contexts[1]) as conn:
        conn.write(b"x")
        assert conn.recv(1) == b"x"


# STARTTLS.


def test_first_record_in_the_same_packet_as_the_request(ends: Ends, contexts: Any) -> None:
    server_context, client_context = contexts
    conn, peer = ends.pair("tcp")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    peer.sendall(b"STARTTLS\r\n" + outgoing.read())
    assert conn.readln() == b"STARTTLS\r\n"
    conn.buffered = True
    conn.write(b"go ahead\r\n")
    handshake = spawn(conn.start_tls, server_context, server_side=True)
    received = receive(peer, 12)
    assert received.startswith(b"go ahead\r\n\x16\x03")
    incoming.write(received[10:])
    while attempt(tls.do_handshake) is not None:
        incoming.write(receive(peer, 1))
    tls.write(b"private\n")
    peer.sendall(outgoing.read())
    handshake.get()
    assert conn.readln() == b"private\n"


def test_tls_ends_and_plain_text_goes_on(pair: Pair) -> None:
    pair.client.write(b"inside\n")
    pair.client.pop_layer()
    pair.client.write(b"outside\n")
    assert pair.server.readln() == b"inside\n"
    assert pair.server.readln() == b""
    pair.server.pop_layer()
    assert pair.server.readln() == b"outside\n"
    pair.server.write(b"so be it\n")
    pair.server.close()
    assert pair.client.read(1000)[-9:] == b"so be it\n"  # behind TLS' own last words


def test_tls_with_other_layers_above_and_below(pair: Pair) -> None:
    wire: list[bytes] = []
    for conn in (pair.client, pair.server):
        conn.push_layer(Zlib())
        conn.push_layer(Tee(sent=wire.append))
    pair.client.write(b"squeezed " * 1000)
    assert pair.server.read_exactly(9000) == b"squeezed " * 1000
    assert wire == [b"squeezed " * 1000]


# Ends.


def test_orderly_end(pair: Pair) -> None:
    pair.client.write(b"last words")
    pair.client.close()
    assert pair.server.read(100) == b"last words"
    assert pair.server.recv(1) == b""
    pair.server.close()


def test_ragged_end(pair: Pair) -> None:
    pair.client.write(b"last words")
    pair.client.abort()
    assert pair.server.readsome(100) == b"last words"
    with pytest.raises(ssl.SSLEOFError):
        pair.server.recv(1)
    assert pair.server.closed
    with pytest.raises(ClosedError):
        pair.server.recv(1)


def test_half_closed(pair: Pair) -> None:
    pair.client.write(b"request")
    pair.client.shutdown(socket.SHUT_WR)
    assert pair.server.read(100) == b"request"
    pair.server.write(b"response")
    pair.server.close()
    assert pair.client.read(100) == b"response"


def test_truncated_and_garbage_records(ends: Ends, contexts: Any) -> None:
    for garbage, error in (
        (b"\x17\x03\x03\x00\x20" + bytes(32), ssl.SSLError),
        (b"\x17\x03\x03\x00\x20" + bytes(10), ssl.SSLEOFError),
        (b"plain text in between", ssl.SSLError),
    ):
        both = Pair(ends, contexts)
        raw = os.dup(both.client.fileno())
        os.write(raw, garbage)
        os.close(raw)
        both.client.abort()
        with pytest.raises(error):
            both.server.recv(1)
        assert both.server.closed


def test_close_with_unsent_output_sends_it_and_the_end(pair: Pair) -> None:
    data = os.urandom(3_000_000)
    pair.server.buffered = True
    writer = spawn(pair.server.write, data[:1000])
    writer.get()
    pair.server.enqueue(data[1000:])
    pair.server.close()
    assert pair.server.pending > 0
    assert pair.client.read(len(data) + 1) == data  # and an orderly end


def test_abort_drops_unsent_output(pair: Pair) -> None:
    pair.server.enqueue(bytes(5_000_000))
    sleep(0)
    pair.server.abort()
    with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
        while pair.client.recv(1 << 20):
            pass


# Beside each other.


def test_big_transfers_both_ways_at_once(pair: Pair) -> None:
    data = os.urandom(4_000_000)

    def send(conn: Any) -> None:
        conn.sendall(data)

    senders = [spawn(send, pair.client), spawn(send, pair.server)]
    readers = [
        spawn(pair.client.read_exactly, len(data)),
        spawn(pair.server.read_exactly, len(data)),
    ]
    with timeout(60):
        assert [reader.get() == data for reader in readers] == [True, True]
    for sender in senders:
        sender.get()


def test_peer_that_never_reads_leaves_memory_at_the_mark(pair: Pair) -> None:
    pair.server.settimeout(0.05)
    pair.server.buffered = True
    with pytest.raises(TimeoutError):
        while True:
            pair.server.write(bytes(50_000))
    assert pair.server.pending <= 2 * 65536 + 50_000 + 1000
    pair.server.abort()


def test_messages_behind_the_handshake_while_writing(
    ends: Ends, certificates: Certificates
) -> None:
    # Python's ssl cannot ask for a key update, but a server that wants a certificate later
    # makes the client read and answer in the middle of its writing.
    server_context, client_context = certificates.server_context(), certificates.client_context()
    server_context.load_verify_locations(certificates.authority)
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.verify_mode = ssl.CERT_OPTIONAL
    server_context.post_handshake_auth = client_context.post_handshake_auth = True
    both_contexts = (server_context, client_context)
    client_context.load_cert_chain(certificates.client)
    server_context.verify_mode = ssl.CERT_REQUIRED
    both = Pair(ends, both_contexts)
    data = os.urandom(2_000_000)
    sender = spawn(both.client.sendall, data)
    reader = spawn(both.client.recv, 100)
    assert both.server.read_exactly(1_000_000) == data[:1_000_000]
    assert both.server.tls.getpeercert() is None
    both.server.tls.ssl_object.verify_client_post_handshake()
    both.server.write(b"who are you")  # takes the request with it
    assert both.server.read_exactly(1_000_000) == data[1_000_000:]
    sender.get()
    assert reader.get() == b"who are you"
    both.client.write(b"done")
    assert both.server.recv(10) == b"done"
    assert both.server.tls.getpeercert()["subject"] == ((("commonName", "client"),),)


def test_urgent_output_overtakes_what_is_not_yet_wrapped(pair: Pair) -> None:
    pair.server.settimeout(0.02)
    with pytest.raises(TimeoutError):
        pair.server.write(b"." * 8_000_000)
    sent = pair.server.pending
    pair.server.settimeout(None)
    for number in range(4):
        pair.server.enqueue(b"%d" % number * 10)
    pair.server.enqueue(b"urgent", urgent=True)
    pair.server.close()
    received = b""
    while data := pair.client.recv(1 << 20):
        received += data
    assert received.endswith(b"urgent" + b"0" * 10 + b"1" * 10 + b"2" * 10 + b"3" * 10)
    assert sent < 8_000_000


def test_file_through_tls(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = os.urandom(1_500_000)
    path.write_bytes(data)
    with path.open("rb") as file:
        assert pair.server.sendfile(file, 100, 1_400_000) == 1_400_000
        pair.server.close()
        assert pair.client.read(len(data)) == data[100:1_400_100]


def test_file_that_shrinks_cuts_the_stream(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(30_000_000))
    with path.open("rb") as file:
        pair.server.set_watermarks(write_high=1 << 40)
        pair.server.sendfile(file)
        sleep(0)
        os.truncate(path, 0)
        reader = spawn(attempt, pair.client.read, 30_000_000)
        with pytest.raises(OSError, match="cut off"):
            pair.server.flush()
        pair.server.close()
        assert isinstance(reader.get(), (ssl.SSLEOFError, ConnectionResetError))


def test_python_client_in_a_thread(contexts: Any, start_server: Any) -> None:
    server_context, client_context = contexts
    address = start_server(echo, tls=server_context)
    results: list[bytes] = []

    def talk() -> None:
        with (
            socket.create_connection(address, timeout=10) as raw,
            client_context.wrap_socket(raw, server_hostname="localhost") as sock,
        ):
            sock.sendall(b"x" * 100_000)
            received = b""
            while len(received) < 100_000:
                received += sock.recv(65536)
            results.append(received)
            sock.unwrap()

    pycoronet.to_thread(talk)
    assert results == [b"x" * 100_000]
    assert threading.active_count() >= 1


def test_hub_that_closes_sends_what_waits(ends: Ends, contexts: Any) -> None:
    both = Pair(ends, contexts)
    raw = ends.keep(socket.socket(fileno=os.dup(both.client.fileno())))
    tls = both.client.tls
    both.client.abort()
    both.server.buffered = True
    both.server.write(b"in the last minute")
    pycoronet.get_hub().close()
    raw.settimeout(10)
    assert tls.unwrap(raw.recv(1000)) == b"in the last minute"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_goes_on_with_its_connection(pair: Pair) -> None:
    pair.server.buffered = True
    pair.server.write(b"the parent's")
    pid = os.fork()
    if pid == 0:
        try:
            pair.client.write(b"by the child")
            pair.client.flush()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert pair.server.recv(100) == b"by the child"
    pair.server.flush()
    assert pair.client.recv(100) == b"the parent's"
