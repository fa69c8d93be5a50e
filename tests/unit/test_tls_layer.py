"""TLSLayer by itself: two of them fed with each other's bytes, without a connection."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from certificates import Certificates

from pycoronet.tls import MAX_HELD, TLSLayer


class Wire:
    """A client's and a server's layer, and what is under way between them."""

    def __init__(self, certificates: Certificates, **options: Any) -> None:
        server_context = options.pop("server_context", None) or certificates.server_context()
        client_context = options.pop("client_context", None) or certificates.client_context()
        options.setdefault("server_hostname", "localhost")
        self.server = TLSLayer(server_context, server_side=True)
        self.client = TLSLayer(client_context, **options)
        self.client.started()
        self.server.started()

    def shake_hands(self, piece: int = 1 << 20) -> None:
        """Pass bytes on in pieces of that size until neither has any to say."""
        busy = True
        while busy:
            busy = False
            for source, target in ((self.client, self.server), (self.server, self.client)):
                data = source.take_emitted()
                for at in range(0, len(data), piece):
                    assert target.unwrap(data[at : at + piece]) == b""
                busy = busy or bool(data)


@pytest.fixture
def wire(certificates: Certificates) -> Wire:
    both = Wire(certificates)
    both.shake_hands()
    return both


def limit_to(version: ssl.TLSVersion, context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = context.maximum_version = version
    return context


def test_handshake_makes_both_ready(wire: Wire) -> None:
    assert wire.client.is_ready
    assert wire.server.is_ready
    assert wire.client.version() == wire.server.version() == "TLSv1.3"
    assert wire.client.cipher() is not None
    assert wire.client.getpeercert()["subject"] == ((("commonName", "server"),),)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_handshake_in_single_bytes(certificates: Certificates, version: ssl.TLSVersion) -> None:
    both = Wire(certificates, client_context=limit_to(version, certificates.client_context()))
    both.shake_hands(piece=1)
    assert both.client.is_ready
    assert both.server.is_ready


def test_handshake_split_in_two_at_every_byte(certificates: Certificates) -> None:
    server_context, client_context = certificates.server_context(), certificates.client_context()
    length = 1
    at = 0
    while at < length:
        both = Wire(certificates, server_context=server_context, client_context=client_context)
        hello = both.client.take_emitted()
        length = len(hello)
        for half in (hello[:at], hello[at:]):
            if half:
                both.server.unwrap(half)
        both.shake_hands()
        assert both.client.is_ready
        assert both.server.is_ready
        at += 1
    assert length > 100


def test_servers_answer_split_in_two_at_every_byte(certificates: Certificates) -> None:
    server_context, client_context = certificates.server_context(), certificates.client_context()
    length, at = 1, 0
    while at < length:
        both = Wire(certificates, server_context=server_context, client_context=client_context)
        both.server.unwrap(both.client.take_emitted())
        answer = both.server.take_emitted()
        length = len(answer)
        for half in (answer[:at], answer[at:]):
            if half:
                both.client.unwrap(half)
        both.shake_hands()
        assert both.client.is_ready
        assert both.server.is_ready
        at += 7
    assert length > 500


def test_data_comes_out_as_it_went_in(wire: Wire) -> None:
    for size in (1, 16384, 16385, 100_000):
        data = bytes(range(256)) * (size // 256 + 1)
        wrapped = wire.client.wrap(data)
        assert data[:32] not in wrapped
        assert wire.server.unwrap(wrapped) == data


def test_record_split_at_every_byte_comes_out_whole(wire: Wire) -> None:
    length, at = 2, 1
    while at < length:
        record = wire.server.wrap(b"forty-two")
        length = len(record)
        assert wire.client.unwrap(record[:at]) == b""
        assert wire.client.unwrap(record[at:]) == b"forty-two"
        at += 1


def test_many_records_at_once_come_out_together(wire: Wire) -> None:
    records = b"".join(wire.client.wrap(b"%d," % number) for number in range(50))
    expected = b"".join(b"%d," % number for number in range(50))
    assert wire.server.unwrap(records[:-1]) + wire.server.unwrap(records[-1:]) == expected


def test_writes_before_the_handshake_are_held_back(certificates: Certificates) -> None:
    both = Wire(certificates)
    assert both.client.wrap(b"early ") == b""
    assert both.client.wrap(b"bird") == b""
    received = b""
    for _ in range(4):
        hello = both.client.take_emitted()
        received += both.server.unwrap(hello) if hello else b""
        answer = both.server.take_emitted()
        if answer:
            both.client.unwrap(answer)
    assert received == b"early bird"


def test_writes_before_the_handshake_have_a_limit(certificates: Certificates) -> None:
    both = Wire(certificates)
    both.client.wrap(bytes(MAX_HELD))
    with pytest.raises(ssl.SSLError, match="before the peer"):
        both.client.wrap(b"x")


def test_finish_without_handshake_loses_nothing_silently(certificates: Certificates) -> None:
    both = Wire(certificates)
    assert both.client.finish() == b""
    both = Wire(certificates)
    both.client.wrap(b"never")
    with pytest.raises(ssl.SSLError, match="lost"):
        both.client.finish()


def test_orderly_end_is_the_end_of_file(wire: Wire) -> None:
    last = wire.client.wrap(b"last") + wire.client.finish()
    assert wire.server.unwrap(last) == b"last"
    assert wire.server.ended


def test_end_without_data_is_the_end_of_file(wire: Wire) -> None:
    assert not wire.server.ended
    assert wire.server.unwrap(wire.client.finish()) == b""
    assert wire.server.ended


def test_after_our_own_end_the_peer_may_go_on(wire: Wire) -> None:
    wire.server.unwrap(wire.client.finish())
    assert wire.client.unwrap(wire.server.wrap(b"still here")) == b"still here"
    assert not wire.client.ended
    assert wire.client.unwrap(wire.server.finish()) == b""
    assert wire.client.ended


def test_bytes_behind_the_end_are_left_over(wire: Wire) -> None:
    assert wire.server.unwrap(wire.client.finish() + b"in the clear") == b""
    assert wire.server.leftover == b"in the clear"


def test_ragged_end_raises(wire: Wire) -> None:
    with pytest.raises(ssl.SSLEOFError):
        wire.server.unwrap(b"")


def test_truncated_record_raises_at_the_end(wire: Wire) -> None:
    record = wire.client.wrap(b"cut short")
    for length in range(1, len(record)):
        assert wire.server.unwrap(record[length - 1 : length]) == b""
    with pytest.raises(ssl.SSLEOFError):
        wire.server.unwrap(b"")


def test_end_in_the_handshake_raises(certificates: Certificates) -> None:
    both = Wire(certificates)
    hello = both.client.take_emitted()
    both.server.unwrap(hello[:40])
    with pytest.raises(ssl.SSLEOFError):
        both.server.unwrap(b"")


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + bytes(100_000),
        b"\x16\x03\x01\x00\x04\x63\x00\x00\x00",
        b"\0" * 11,
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
def test_garbage_in_place_of_a_handshake_raises(certificates: Certificates, garbage: bytes) -> None:
    both = Wire(certificates)
    with pytest.raises(ssl.SSLError):
        both.server.unwrap(garbage)


def test_garbage_record_raises_after_an_alert(wire: Wire) -> None:
    with pytest.raises(ssl.SSLError):
        wire.server.unwrap(b"\x17\x03\x03\x00\x20" + bytes(32))
    alert = wire.server.take_emitted()
    assert alert
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        wire.client.unwrap(alert)


def test_changed_record_raises(wire: Wire) -> None:
    record = bytearray(wire.client.wrap(b"to be changed"))
    record[-1] ^= 1
    with pytest.raises(ssl.SSLError):
        wire.server.unwrap(bytes(record))


@pytest.mark.parametrize("which", ["expired", "elsewhere"])
def test_wrong_certificate_is_refused(certificates: Certificates, which: str) -> None:
    context = certificates.server_context(getattr(certificates, which))
    both = Wire(certificates, server_context=context)
    with pytest.raises(ssl.SSLCertVerificationError):
        both.shake_hands()
    assert both.client.take_emitted()  # the alert
    assert not both.client.is_ready


def test_session_is_resumed(certificates: Certificates) -> None:
    server_context, client_context = certificates.server_context(), certificates.client_context()
    both = Wire(certificates, server_context=server_context, client_context=client_context)
    both.shake_hands()
    assert not both.client.session_reused
    again = Wire(
        certificates,
        server_context=server_context,
        client_context=client_context,
        session=both.client.session,
    )
    again.shake_hands()
    assert again.client.session_reused
    assert again.server.session_reused


def test_alpn_agrees(certificates: Certificates) -> None:
    server_context, client_context = certificates.server_context(), certificates.client_context()
    server_context.set_alpn_protocols(["h2", "http/1.1"])
    client_context.set_alpn_protocols(["spdy/3", "http/1.1"])
    both = Wire(certificates, server_context=server_context, client_context=client_context)
    both.shake_hands()
    assert both.client.selected_alpn_protocol() == "http/1.1"
    assert both.server.selected_alpn_protocol() == "http/1.1"
