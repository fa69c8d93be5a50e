"""Transport layers: what can lie between a connection and its descriptor.

A layer has two directions. What the program writes goes down through `wrap()`, what is
received comes up through `unwrap()`::

    class Swap(TransportLayer):
        def wrap(self, data):
            return data.swapcase()

        unwrap = wrap

    conn.push_layer(Swap())

A layer may hold bytes back and may give more than it was given. What it has to say on its
own it says by `emit()`. It may not wait. This module has five: `Filter`, which makes a
layer of two functions, `Tee`, `Zlib`, `ProxyProtocol` with `ProxyHeader`; TLS is in
`pycoronet.tls`.
"""

import ipaddress
import os
import socket
import zlib
from collections.abc import Callable
from typing import Any, TypeAlias

from ._coronet import TransportLayer, sk_conn
from ._coronet import timeout as time_limit
from .errors import IncompleteReadError, LineTooLongError

__all__ = [
    "ExpansionError",
    "Filter",
    "ProxyError",
    "ProxyHeader",
    "ProxyProtocol",
    "Tee",
    "TransportLayer",
    "Zlib",
    "accept_proxy",
]

_Sink: TypeAlias = Callable[[bytes], object]
_Function: TypeAlias = Callable[[bytearray, bool], bytes]


class Tee(TransportLayer):
    """Record what passes, and change nothing.

    received, sent: functions that are called with each piece of that direction, such as
    the write method of a file; None records nothing. Pushed on TLS it sees plain text,
    below TLS what is on the wire.

    Source: pycoronet's own.
    """

    def __init__(self, received: _Sink | None = None, sent: _Sink | None = None) -> None:
        self._received = received
        self._sent = sent

    def wrap(self, data: bytes, /) -> bytes:
        """Record data that is sent; as TransportLayer.wrap(). Never switches."""
        if self._sent is not None:
            self._sent(data)
        return data

    def unwrap(self, data: bytes, /) -> bytes:
        """Record data that is received; as TransportLayer.unwrap(). Never switches."""
        if data and self._received is not None:
            self._received(data)
        return data


class Filter(TransportLayer):
    """Pass each direction through a function.

    input, output: `function(source, is_end)` for what is received and for what is written;
    None changes nothing. source is a bytearray: the function removes from its beginning what
    it has used and returns what comes out of it, b"" for nothing yet::

        def from_hex(source, is_end):
            used = len(source) // 2 * 2
            result = bytes.fromhex(source[:used].decode("ascii"))
            del source[:used]
            return result

        conn.push_layer(Filter(from_hex, to_hex))

    While it removes something and leaves something it is called again at once; what it leaves
    then comes again together with more. is_end is True for the last call, when no more will
    come; source may be empty in that one. A function may not wait.

    limit: the most bytes that a function may leave unused; more raise LineTooLongError. Bytes
    that the input function leaves at the end of the stream raise IncompleteReadError, those
    that the output function leaves when the connection closes ValueError. What a function
    raises is raised to whoever uses the connection, and closes it. Popped off again, the
    layer leaves the input that it did not use to the reader.

    Source: libevent's bufferevent_filter_new.
    """

    def __init__(
        self,
        input: _Function | None = None,
        output: _Function | None = None,
        *,
        limit: int = 1024 * 1024,
    ) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        self._input = input
        self._output = output
        self._limit = limit
        self._received = bytearray()
        self._written = bytearray()

    def wrap(self, data: bytes, /) -> bytes:
        """Pass data, as it is written, through the output function; as TransportLayer.wrap().

        Never switches.
        """
        if self._output is None:
            return data
        return self._pass(self._output, self._written, data)

    def unwrap(self, data: bytes, /) -> bytes:
        """Pass data, as it is received, through the input function; as TransportLayer.unwrap().

        Never switches.
        """
        if self._input is None:
            return data
        result = self._pass(self._input, self._received, data)
        if not data and self._received:
            raise IncompleteReadError(bytes(self._received))
        return result

    def finish(self) -> bytes:
        """Tell the output function that no more will be written. Never switches."""
        if self._output is None:
            return b""
        result = self._pass(self._output, self._written, b"")
        if self._written:
            raise ValueError(f"the output function left {len(self._written)} bytes at the end")
        return result

    @property
    def leftover(self) -> bytes:
        """What was received and has not been used."""
        return bytes(self._received)

    def _pass(self, function: _Function, source: bytearray, data: bytes) -> bytes:
        """Return what the function makes of what it has left and the data, b"" for the end."""
        source += data
        results: list[bytes] = []
        while True:
            before = len(source)
            result: object = function(source, not data)
            if not isinstance(result, bytes | bytearray | memoryview):
                name = getattr(function, "__qualname__", repr(function))
                raise TypeError(f"{name}() returned {type(result).__name__}, not bytes")
            results.append(bytes(result))
            if not 0 < len(source) < before:
                break
        if len(source) > self._limit:
            raise LineTooLongError(
                f"{len(source)} bytes were left unused; {self._limit} are allowed"
            )
        return b"".join(results)


class ExpansionError(ValueError):
    """What was received would become more bytes than the limit allows.

    Source: pycoronet's own.
    """


class Zlib(TransportLayer):
    """Compress both directions (RFC 1950), each piece so that the peer can read it at once.

    level: from 0 to 9, -1 for zlib's own choice; `wbits` as in the zlib module, where -15
    is deflate without a header.
    limit: how many bytes that what is received at once (64 KiB or less) may become. A peer
    can make a thousand bytes of one, so without a limit it decides how much memory we use.

    A stream that ends before its end mark, as a broken connection does, raises EOFError to
    the reader. Data that is not compressed raises zlib.error, too much of it ExpansionError.

    Source: pycoronet's own.
    """

    def __init__(self, level: int = -1, *, wbits: int = 15, limit: int = 4 * 1024 * 1024) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        self._compressor = zlib.compressobj(level, wbits=wbits)
        self._decompressor = zlib.decompressobj(wbits)
        self._limit = limit
        self.leftover: bytes = b""  # what came behind the end of the compressed stream

    def wrap(self, data: bytes, /) -> bytes:
        """Compress data, and flush; as TransportLayer.wrap(). Never switches."""
        return self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def unwrap(self, data: bytes, /) -> bytes:
        """Expand data, up to the limit; as TransportLayer.unwrap(). Never switches."""
        stream = self._decompressor
        if not data:
            raise EOFError("the connection ended in the middle of a compressed stream")
        # One byte more than the limit, for that many alone would not show that it is passed.
        expanded = stream.decompress(data, self._limit + 1)
        if len(expanded) > self._limit:
            raise ExpansionError(f"{len(data)} bytes received would become more than {self._limit}")
        if stream.eof:
            self.leftover = stream.unused_data
            self.end()
        return expanded

    def finish(self) -> bytes:
        """Write the end mark. Never switches."""
        return self._compressor.flush(zlib.Z_FINISH)


# The PROXY protocol: a proxy puts a header with the client's address before what it passes
# on. https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt

_Address: TypeAlias = Any  # (host, port), or the path of a Unix socket

_V1_START = b"PROXY "
_V1_LIMIT = 107
_V2_START = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED = 16  # start, version and command, family, length
_COMMANDS = {0: "LOCAL", 1: "PROXY"}
_FAMILIES = {1: socket.AF_INET, 2: socket.AF_INET6, 3: socket.AF_UNIX}
_KINDS = {1: socket.SOCK_STREAM, 2: socket.SOCK_DGRAM}
_ADDRESS_SIZES = {socket.AF_INET: 4, socket.AF_INET6: 16, socket.AF_UNIX: 108}


class ProxyError(ValueError):
    """What came first is no valid PROXY header.

    Source: pycoronet's own.
    """


class ProxyProtocol(TransportLayer):
    """Take a PROXY header, version 1 or 2, off the beginning of what is received.

    limit: the longest header, in bytes. Once `is_done`, `version` is 1 or 2 and `source` and
    `destination` are (host, port), or the path of a Unix socket. They are None where the
    proxy does not say them: for its own health checks (`command` is "LOCAL") and for clients
    it knows nothing of. `extras` are the typed values of version 2, as (number, bytes).

    No byte comes up before the header is whole. Whatever it is that came instead of a valid
    one raises ProxyError; an end of the stream before it, EOFError. Trust it only from
    proxies: anybody can write such a header.

    Source: HAProxy's PROXY protocol; the layer is pycoronet's own.
    """

    def __init__(self, *, limit: int = 4096) -> None:
        self._limit = limit
        self._held = b""
        self.is_done: bool = False
        self.version: int = 0
        self.command: str = ""
        self.source: _Address = None
        self.destination: _Address = None
        self.extras: list[tuple[int, bytes]] = []

    def unwrap(self, data: bytes, /) -> bytes:
        """Hold data back until the header is there; as TransportLayer.unwrap(). Never switches."""
        if self.is_done:
            return data
        if not data:
            raise EOFError("the connection ended before its PROXY header")
        held = self._held + data
        length = self._measure(held)
        if length == 0 or len(held) < length:
            self._held = held
            return b""
        if self.version == 1:
            self._parse_text(held[: length - 2])
        else:
            self._parse_binary(held[:length])
        self._held = b""
        self.is_done = True
        return held[length:]

    def _measure(self, held: bytes) -> int:
        """Return how long the header is, 0 if that cannot be told yet."""
        if _V1_START.startswith(held[:6]):
            return self._measure_text(held)
        if _V2_START.startswith(held[:12]):
            return self._measure_binary(held)
        raise ProxyError(f"not a PROXY header: {held[:12]!r}")

    def _measure_text(self, held: bytes) -> int:
        limit = min(self._limit, _V1_LIMIT)
        end = held.find(b"\r\n", 0, limit)
        if end < 0 and len(held) >= limit:
            raise ProxyError(f"the PROXY header does not end within {limit} bytes")
        self.version = 1
        return end + 2 if end > 0 else 0

    def _measure_binary(self, held: bytes) -> int:
        if len(held) > 12 and held[12] >> 4 != 2:
            raise ProxyError(f"the PROXY header has the unknown version {held[12] >> 4}")
        if len(held) < _V2_FIXED:
            return 0
        length = _V2_FIXED + int.from_bytes(held[14:16], "big")
        if length > self._limit:
            raise ProxyError(f"the PROXY header has {length} bytes; allowed are {self._limit}")
        self.version = 2
        return length

    def _parse_text(self, line: bytes) -> None:
        fields = line.split(b" ")
        self.command = "PROXY"
        if fields[1] == b"UNKNOWN":
            return
        if len(fields) != 6 or fields[1] not in (b"TCP4", b"TCP6"):
            raise ProxyError(f"the PROXY header is malformed: {line!r}")
        family = 4 if fields[1] == b"TCP4" else 6
        try:
            hosts = [ipaddress.ip_address(field.decode("ascii")) for field in fields[2:4]]
        except ValueError as error:  # UnicodeDecodeError is one, too
            raise ProxyError(f"the PROXY header has a wrong address: {line!r}") from error
        if any(host.version != family for host in hosts) or b"%" in line:
            raise ProxyError(f"the PROXY header has addresses of another family: {line!r}")
        ports = [_parse_port(field) for field in fields[4:6]]
        self.source = (str(hosts[0]), ports[0])
        self.destination = (str(hosts[1]), ports[1])

    def _parse_binary(self, header: bytes) -> None:
        command = _COMMANDS.get(header[12] & 15)
        if command is None:
            raise ProxyError(f"the PROXY header has the unknown command {header[12] & 15}")
        self.command = command
        family, kind = header[13] >> 4, header[13] & 15
        rest = header[_V2_FIXED:]
        if command == "LOCAL" or (family == 0 and kind == 0):
            return  # what follows is for nobody to read
        if family not in _FAMILIES or kind not in _KINDS:
            raise ProxyError(f"the PROXY header has the unknown family 0x{header[13]:02x}")
        size = _ADDRESS_SIZES[_FAMILIES[family]]
        used = 2 * size + (0 if family == 3 else 4)
        if len(rest) < used:
            raise ProxyError(f"the PROXY header has {len(rest)} bytes for addresses of {used}")
        addresses = [rest[:size], rest[size : 2 * size]]
        if family == 3:
            self.source, self.destination = map(_parse_path, addresses)
        else:
            hosts = [socket.inet_ntop(_FAMILIES[family], address) for address in addresses]
            ports = [int.from_bytes(rest[at : at + 2], "big") for at in (used - 4, used - 2)]
            self.source, self.destination = zip(hosts, ports, strict=True)
        self.extras = _parse_extras(rest[used:])


def _parse_port(field: bytes) -> int:
    # int() alone would also take signs, spaces and underscores.
    if not field.isdigit() or len(field) > 5 or int(field) > 65535 or field != b"%d" % int(field):
        raise ProxyError(f"the PROXY header has a wrong port: {field!r}")
    return int(field)


def _parse_path(field: bytes) -> str | bytes:
    # A leading NUL byte is an abstract name, which may hold more of them.
    if field[:1] == b"\0":
        return field.rstrip(b"\0")
    return os.fsdecode(field.partition(b"\0")[0])


def _parse_extras(rest: bytes) -> list[tuple[int, bytes]]:
    extras = []
    while rest:
        length = 3 + int.from_bytes(rest[1:3], "big")
        if len(rest) < length or len(rest) < 3:
            raise ProxyError("the PROXY header has an extra value longer than itself")
        extras.append((rest[0], rest[3:length]))
        rest = rest[length:]
    return extras


class ProxyHeader(TransportLayer):
    """Send a PROXY header before everything else.

    source, destination: (host, port) with numeric hosts of one family; both None says that
    the client is unknown. version: 1, as text, or 2.

    Source: HAProxy's PROXY protocol; the layer is pycoronet's own.
    """

    def __init__(
        self, source: _Address = None, destination: _Address = None, *, version: int = 2
    ) -> None:
        if version not in (1, 2):
            raise ValueError(f"the PROXY protocol has the versions 1 and 2, not {version}")
        if (source is None) != (destination is None):
            raise ValueError("source and destination are known both or not at all")
        self._header = (
            _build_text(source, destination) if version == 1 else _build_binary(source, destination)
        )

    def started(self) -> None:
        """Send it. Never switches."""
        self.emit(self._header)


def _parse_hosts(source: _Address, destination: _Address) -> list[Any]:
    hosts = [ipaddress.ip_address(address[0]) for address in (source, destination)]
    if hosts[0].version != hosts[1].version:
        raise ValueError(f"{hosts[0]} and {hosts[1]} are of different families")
    for address in (source, destination):
        if not 0 <= address[1] <= 65535:
            raise ValueError(f"{address[1]} is no port")
    return hosts


def _build_text(source: _Address, destination: _Address) -> bytes:
    if source is None:
        return b"PROXY UNKNOWN\r\n"
    hosts = _parse_hosts(source, destination)
    line = f"PROXY TCP{hosts[0].version} {hosts[0]} {hosts[1]} {source[1]} {destination[1]}\r\n"
    return line.encode("ascii")


def _build_binary(source: _Address, destination: _Address) -> bytes:
    if source is None:
        return _V2_START + bytes([0x20, 0, 0, 0])
    hosts = _parse_hosts(source, destination)
    body: bytes = hosts[0].packed + hosts[1].packed
    body += source[1].to_bytes(2, "big") + destination[1].to_bytes(2, "big")
    family = 0x11 if hosts[0].version == 4 else 0x21
    return _V2_START + bytes([0x21, family]) + len(body).to_bytes(2, "big") + body


def accept_proxy(
    conn: sk_conn, *, timeout: float | None = 10.0, limit: int = 4096
) -> ProxyProtocol:
    """Wait for a PROXY header on a connection just accepted; return what it says.

    The layer is off the connection again when it returns, so what follows costs nothing.
    conn: nothing was read from it. timeout: seconds that the header may take, None for no limit.

    Raises ProxyError, EOFError or TimeoutError; the connection is closed then. Switches.

    Source: HAProxy's PROXY protocol; the function is pycoronet's own.
    """
    layer = ProxyProtocol(limit=limit)
    conn.push_layer(layer)
    try:
        with time_limit(timeout):
            while not layer.is_done:
                conn._receive_layered()
    except BaseException:
        conn.abort()
        raise
    conn.pop_layer()
    return layer
