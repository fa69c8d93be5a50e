"""trio_server.py PORT MODE: straight-line handlers on trio's streams.

trio's streams know bytes only, so those who want lines keep what is left over, as its
documentation teaches.
"""

import contextlib

import trio
from server_arguments import BACKLOG, BULK_REPLY, HTTP_REPLY, make_context, make_parser

RECEIVE_BYTES = 65536


class LineReader:
    """The lines of a stream, one by one, with their endings."""

    def __init__(self, stream):
        self._stream = stream
        self._buffer = bytearray()

    async def readline(self):
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            data = await self._stream.receive_some(RECEIVE_BYTES)
            if not data:
                return b""
            self._buffer += data
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        return line


async def echo(stream):
    async for data in stream:
        await stream.send_all(data)


async def lines(stream):
    reader = LineReader(stream)
    while line := await reader.readline():
        await stream.send_all(line)


async def http(stream):
    reader = LineReader(stream)
    while line := await reader.readline():
        if line == b"\r\n":
            await stream.send_all(HTTP_REPLY)


async def bulk(stream):
    reader = LineReader(stream)
    while await reader.readline():
        await stream.send_all(BULK_REPLY)


async def one_line(stream):
    await stream.send_all(await LineReader(stream).readline())


async def serve(arguments):
    modes = {"echo": echo, "lines": lines, "http": http, "bulk": bulk, "one-line": one_line}
    serve_stream = modes[arguments.mode]
    context = make_context(arguments)

    async def handle(stream):
        with contextlib.suppress(trio.BrokenResourceError):
            async with stream:
                await serve_stream(stream)

    address = {"host": "127.0.0.1", "backlog": BACKLOG}
    if context is None:
        await trio.serve_tcp(handle, arguments.port, **address)
    else:
        await trio.serve_ssl_over_tcp(
            handle, arguments.port, context, https_compatible=True, **address
        )


if __name__ == "__main__":
    trio.run(serve, make_parser().parse_args())
