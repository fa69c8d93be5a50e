"""The PROXY header as its specification tells it, read from the first byte each time.

It shares nothing with `pycoronet.layers`: text by one pattern for each form, addresses by the
system's own functions. `check(bytes)` is the fuzz target: it gives a layer a stream in pieces
and asks after each whether the layer is as far as the model.
"""

from __future__ import annotations

import re
import socket
from typing import Any

from pycoronet.layers import ProxyError, ProxyProtocol

BINARY_START = bytes([13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10])
TEXT_LIMIT = 107
LIMITS = (4096, 4096, 4096, 15, 16, 28, 40, 106, 107, 108, 232, 65551)
PORT = rb"(0|[1-9][0-9]{0,4})"
TEXT = re.compile(rb"PROXY TCP([46]) ([!-~]+) ([!-~]+) " + PORT + b" " + PORT, re.DOTALL)
UNKNOWN = re.compile(rb"PROXY UNKNOWN( .*)?", re.DOTALL)

# What `read` gives when more bytes are needed, and when none can help.
MORE = "more"
WRONG = "wrong"

Header = dict[str, Any]


def read(stream: bytes, limit: int) -> Header | str:
    """Return what the stream's header says and its length, or MORE, or WRONG."""
    if stream[:6] == b"PROXY "[: len(stream)]:
        return read_text(stream, min(limit, TEXT_LIMIT))
    if stream[:12] == BINARY_START[: len(stream)]:
        return read_binary(stream, limit)
    return WRONG


def read_text(stream: bytes, limit: int) -> Header | str:
    line, end, _ = stream[:limit].partition(b"\r\n")
    if not end:
        return WRONG if len(stream) >= limit else MORE
    header: Header = {"version": 1, "command": "PROXY", "length": len(line) + 2}
    if UNKNOWN.fullmatch(line):
        return header
    match = TEXT.fullmatch(line)
    if match is None:
        return WRONG
    family = socket.AF_INET if match[1] == b"4" else socket.AF_INET6
    try:
        hosts = [socket.inet_pton(family, match[n].decode()) for n in (2, 3)]
    except OSError:
        return WRONG
    ports = [int(match[n]) for n in (4, 5)]
    if max(ports) > 65535:
        return WRONG
    return header | {"family": family, "ends": list(zip(hosts, ports, strict=True))}


def read_binary(stream: bytes, limit: int) -> Header | str:
    if len(stream) >= 13 and stream[12] & 0xF0 != 0x20:
        return WRONG
    if len(stream) < 16:
        return MORE
    length = 16 + stream[14] * 256 + stream[15]
    if length > limit:
        return WRONG
    if len(stream) < length:
        return MORE
    header: Header = {"version": 2, "command": "LOCAL", "length": length}
    if stream[12] == 0x20:
        return header
    header["command"] = "PROXY"
    if stream[12] != 0x21:
        return WRONG
    if stream[13] == 0:
        return header
    body = stream[16:length]
    if stream[13] in (0x11, 0x12, 0x21, 0x22):
        family, size = (socket.AF_INET, 4) if stream[13] < 0x20 else (socket.AF_INET6, 16)
        used = 2 * size + 4
        hosts = [body[:size], body[size : 2 * size]]
        ports = [int.from_bytes(body[at:][:2], "big") for at in (2 * size, 2 * size + 2)]
        header |= {"family": family, "ends": list(zip(hosts, ports, strict=True))}
    elif stream[13] in (0x31, 0x32):
        used = 216
        header |= {"family": socket.AF_UNIX, "ends": [body[:108], body[108:216]]}
    else:
        return WRONG
    extras = read_extras(body[used:])
    if len(body) < used or extras is None:
        return WRONG
    return header | {"extras": extras}


def read_extras(rest: bytes) -> list[tuple[int, bytes]] | None:
    extras = []
    while rest:
        if len(rest) < 3:
            return None
        length = rest[1] * 256 + rest[2]
        if len(rest) < 3 + length:
            return None
        extras.append((rest[0], rest[3:][:length]))
        rest = rest[3:][length:]
    return extras


def compare(layer: ProxyProtocol, header: Header) -> None:
    """Assert that a layer that is done says what the model says."""
    assert (layer.version, layer.command) == (header["version"], header["command"])
    assert layer.extras == header.get("extras", [])
    if "family" not in header:
        assert layer.source is None
        assert layer.destination is None
        return
    for said, end in zip((layer.source, layer.destination), header["ends"], strict=True):
        if header["family"] != socket.AF_UNIX:
            assert (socket.inet_pton(header["family"], said[0]), said[1]) == end
        elif end[0] == 0:
            assert isinstance(said, bytes)
            assert said + bytes(108 - len(said)) == end
            assert not said.endswith(b"\0")
        else:
            name = said.encode("utf-8", "surrogateescape")
            assert name + b"\0" == (end + b"\0")[: len(name) + 1]
            assert b"\0" not in name


def cut(data: bytes) -> tuple[int, list[bytes]]:
    """Return a limit, and a stream in pieces, as the fuzzer's bytes say.

    The first byte chooses the limit, the second what the stream begins with and how it is cut.
    """
    choice, shape = (data + b"\0\0")[:2]
    start = (b"", b"PROXY ", BINARY_START, b"PROXY TCP4 ")[shape & 3]
    stream = start + data[2:]
    size = (len(stream), 1, 2, 7, 16, 30, 12, 13)[shape >> 2 & 7] or 1
    return LIMITS[choice % len(LIMITS)], [
        stream[at : at + size] for at in range(0, len(stream), size)
    ]


def check(data: bytes) -> None:
    """Give a layer one stream, in pieces."""
    limit, pieces = cut(data)
    layer = ProxyProtocol(limit=limit)
    seen = b""
    passed = b""
    for piece in pieces:
        seen += piece
        expected = read(seen, limit)
        try:
            passed += layer.unwrap(piece)
        except ProxyError:
            assert expected == WRONG, expected
            assert passed == b""
            assert not layer.is_done
            return
        assert expected != WRONG
        assert layer.is_done == (expected != MORE)
        if isinstance(expected, str):
            assert passed == b""
        else:
            compare(layer, expected)
            assert passed == seen[expected["length"] :]
    if not layer.is_done:
        try:
            layer.unwrap(b"")
        except EOFError:
            return
        raise AssertionError("no error at the end of the stream")
