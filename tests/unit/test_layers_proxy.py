"""ProxyProtocol and ProxyHeader by themselves: what they take, what they refuse."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from pycoronet.layers import ProxyError, ProxyHeader, ProxyProtocol

START = b"\r\n\r\n\0\r\nQUIT\n"
SOURCE, DESTINATION = ("192.0.2.1", 50000), ("198.51.100.2", 443)
SOURCE_6, DESTINATION_6 = ("2001:db8::1", 50000), ("2001:db8::2", 443)


def binary(command: int, family: int, body: bytes = b"", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return START + bytes([command, family]) + size.to_bytes(2, "big") + body


INET_BODY = socket.inet_aton("192.0.2.1") + socket.inet_aton("198.51.100.2")
INET_BODY += (50000).to_bytes(2, "big") + (443).to_bytes(2, "big")
UNIX_BODY = b"/run/a".ljust(108, b"\0") + b"\0abstract".ljust(108, b"\0")

GOOD = {
    "text, IPv4": (b"PROXY TCP4 192.0.2.1 198.51.100.2 50000 443\r\n", SOURCE, DESTINATION),
    "text, IPv6": (b"PROXY TCP6 2001:db8::1 2001:db8::2 50000 443\r\n", SOURCE_6, DESTINATION_6),
    "text, unknown": (b"PROXY UNKNOWN\r\n", None, None),
    "text, unknown with more": (b"PROXY UNKNOWN a b c d\r\n", None, None),
    "binary, IPv4": (binary(0x21, 0x11, INET_BODY), SOURCE, DESTINATION),
    "binary, datagrams": (binary(0x21, 0x12, INET_BODY), SOURCE, DESTINATION),
    "binary, Unix": (binary(0x21, 0x31, UNIX_BODY), "/run/a", b"\0abstract"),
    "binary, local": (binary(0x20, 0x11, INET_BODY), None, None),
    "binary, unknown": (binary(0x21, 0x00, b"whatever"), None, None),
}


@pytest.mark.parametrize("case", GOOD)
def test_header_split_at_every_byte(case: str) -> None:
    header, source, destination = GOOD[case]
    stream = header + b"what follows"
    for at in range(len(stream) + 1):
        layer = ProxyProtocol()
        plain = layer.unwrap(stream[:at]) if at else b""
        assert layer.is_done == (at >= len(header))
        plain += layer.unwrap(stream[at:]) if at < len(stream) else b""
        assert plain == b"what follows"
        assert layer.is_done
        assert (layer.source, layer.destination) == (source, destination)
        assert layer.version == (1 if case.startswith("text") else 2)


def test_header_in_single_bytes() -> None:
    for header, source, _ in GOOD.values():
        layer = ProxyProtocol()
        for at in range(len(header)):
            assert layer.unwrap(header[at : at + 1]) == b""
        assert layer.is_done
        assert layer.source == source


def test_command_is_told() -> None:
    for command, name in ((0x20, "LOCAL"), (0x21, "PROXY")):
        layer = ProxyProtocol()
        layer.unwrap(binary(command, 0))
        assert layer.command == name


def test_extras_are_kept() -> None:
    layer = ProxyProtocol()
    extras = b"\x02\x00\x0bexample.org" + b"\x04\x00\x00"
    assert layer.unwrap(binary(0x21, 0x11, INET_BODY + extras)) == b""
    assert layer.extras == [(2, b"example.org"), (4, b"")]


def test_what_follows_the_header_is_let_through() -> None:
    layer = ProxyProtocol()
    assert layer.unwrap(b"PROXY UNKNOWN\r\n") == b""
    assert layer.unwrap(b"PROXY once more") == b"PROXY once more"
    assert layer.unwrap(b"") == b""


BAD = {
    "no header": b"GET / HTTP/1.1\r\n\r\n",
    "nearly a header": b"PROXY_TCP4 ",
    "nearly a binary one": START[:-1] + b"\r" + bytes(4),
    "text that never ends": b"PROXY TCP4 " + b"1" * 97,
    "text that ends too late": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "text, no addresses": b"PROXY TCP4\r\n",
    "text, nothing": b"PROXY \r\n",
    "text, too few fields": b"PROXY TCP4 192.0.2.1 198.51.100.2 50000\r\n",
    "text, too many fields": b"PROXY TCP4 192.0.2.1 198.51.100.2 50000 443 1\r\n",
    "text, two spaces": b"PROXY TCP4  192.0.2.1 198.51.100.2 50000 443\r\n",
    "text, unknown protocol": b"PROXY UDP4 192.0.2.1 198.51.100.2 50000 443\r\n",
    "text, IPv6 for IPv4": b"PROXY TCP4 2001:db8::1 2001:db8::2 50000 443\r\n",
    "text, IPv4 for IPv6": b"PROXY TCP6 192.0.2.1 198.51.100.2 50000 443\r\n",
    "text, no address": b"PROXY TCP4 192.0.2.256 198.51.100.2 50000 443\r\n",
    "text, a name": b"PROXY TCP4 localhost 198.51.100.2 50000 443\r\n",
    "text, a scope": b"PROXY TCP6 fe80::1%eth0 2001:db8::2 50000 443\r\n",
    "text, not ASCII": b"PROXY TCP4 192.0.2.\xb9 198.51.100.2 50000 443\r\n",
    "text, port too high": b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
    "text, port with sign": b"PROXY TCP4 192.0.2.1 198.51.100.2 +5000 443\r\n",
    "text, port with zero": b"PROXY TCP4 192.0.2.1 198.51.100.2 050 443\r\n",
    "text, no port": b"PROXY TCP4 192.0.2.1 198.51.100.2 50000 \r\n",
    "version 1 in binary": START + b"\x11\x11\0\x0c" + INET_BODY,
    "version 3": START + b"\x31\x11\0\x0c" + INET_BODY,
    "unknown command": binary(0x22, 0x11, INET_BODY),
    "unknown family": binary(0x21, 0x41, INET_BODY),
    "unknown kind": binary(0x21, 0x13, INET_BODY),
    "family without kind": binary(0x21, 0x10, INET_BODY),
    "shorter than its family": binary(0x21, 0x11, INET_BODY[:-1]),
    "IPv4 said to be IPv6": binary(0x21, 0x21, INET_BODY),
    "Unix, too short": binary(0x21, 0x31, UNIX_BODY[:-1]),
    "extra longer than the rest": binary(0x21, 0x11, INET_BODY + b"\x01\0\x05abcd"),
    "half an extra": binary(0x21, 0x11, INET_BODY + b"\x01\0"),
    "longer than allowed": binary(0x21, 0x11, INET_BODY, length=65535),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_header_is_refused_at_once_and_in_pieces(case: str) -> None:
    with pytest.raises(ProxyError):
        ProxyProtocol().unwrap(BAD[case])

    def take_in_pieces() -> None:
        layer = ProxyProtocol()
        for at in range(len(BAD[case])):
            assert layer.unwrap(BAD[case][at : at + 1]) == b""

    with pytest.raises(ProxyError):
        take_in_pieces()


def test_length_that_lies_waits_and_does_not_take_the_data() -> None:
    layer = ProxyProtocol()
    assert layer.unwrap(binary(0x21, 0x11, INET_BODY, length=len(INET_BODY) + 100)) == b""
    assert not layer.is_done


def test_limit_is_the_callers() -> None:
    header = binary(0x21, 0x11, INET_BODY + b"\x04\x00\x64" + bytes(100))
    ProxyProtocol(limit=len(header)).unwrap(header)
    with pytest.raises(ProxyError, match="allowed"):
        ProxyProtocol(limit=len(header) - 1).unwrap(header)


@pytest.mark.parametrize("part", [b"", b"PROXY TC", START + b"\x21"])
def test_end_before_the_header_raises(part: bytes) -> None:
    layer = ProxyProtocol()
    assert part == b"" or layer.unwrap(part) == b""
    with pytest.raises(EOFError):
        layer.unwrap(b"")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("source", "destination"),
    [(SOURCE, DESTINATION), (SOURCE_6, DESTINATION_6), (None, None)],
)
def test_header_sent_is_the_header_taken(version: int, source: Any, destination: Any) -> None:
    sender, taker = ProxyHeader(source, destination, version=version), ProxyProtocol()
    sender.started()
    assert taker.unwrap(sender.take_emitted() + sender.wrap(b"data")) == b"data"
    assert (taker.version, taker.source, taker.destination) == (version, source, destination)


@pytest.mark.parametrize(
    ("source", "destination", "version"),
    [
        (SOURCE, DESTINATION_6, 2),
        (SOURCE, None, 2),
        (SOURCE, DESTINATION, 3),
        (("localhost", 1), DESTINATION, 1),
        (("192.0.2.1", 65536), DESTINATION, 2),
    ],
)
def test_header_that_cannot_be_is_not_made(source: Any, destination: Any, version: int) -> None:
    with pytest.raises((ValueError, TypeError)):
        ProxyHeader(source, destination, version=version)
