"""asyncio_server.py PORT MODE [--style streams|protocol] [--loop asyncio|uvloop].

Streams are asyncio's sequential handlers; a Protocol is its callback interface, which is
faster and is what uvloop's own benchmark shows. Both set TCP_NODELAY by themselves.
"""

import asyncio
import contextlib

from server_arguments import BACKLOG, BULK_REPLY, HTTP_REPLY, make_context, make_parser


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def lines(reader, writer):
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()


async def http(reader, writer):
    while line := await reader.readline():
        if line == b"\r\n":
            writer.write(HTTP_REPLY)
            await writer.drain()


async def bulk(reader, writer):
    while await reader.readline():
        writer.write(BULK_REPLY)
        await writer.drain()


async def one_line(reader, writer):
    writer.write(await reader.readline())


class EchoProtocol(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class LinesProtocol(EchoProtocol):
    rest = b""

    def data_received(self, data):
        *complete, self.rest = (self.rest + data).split(b"\n")
        self.transport.writelines([line + b"\n" for line in complete])


class BulkProtocol(EchoProtocol):
    def data_received(self, data):
        for _ in range(data.count(b"\n")):
            self.transport.write(BULK_REPLY)


class HttpProtocol(EchoProtocol):
    rest = b""

    def data_received(self, data):
        *complete, self.rest = (self.rest + data).split(b"\r\n\r\n")
        for _ in complete:
            self.transport.write(HTTP_REPLY)


class OneLineProtocol(EchoProtocol):
    line = b""

    def data_received(self, data):
        self.line += data
        if self.line.endswith(b"\n"):
            self.transport.write(self.line)
            self.transport.close()


async def serve(arguments):
    address = {"host": "127.0.0.1", "port": arguments.port, "backlog": BACKLOG}
    address["ssl"] = make_context(arguments)
    if arguments.style == "protocol":
        protocol = {
            "echo": EchoProtocol,
            "lines": LinesProtocol,
            "http": HttpProtocol,
            "bulk": BulkProtocol,
            "one-line": OneLineProtocol,
        }
        loop = asyncio.get_running_loop()
        server = await loop.create_server(protocol[arguments.mode], **address)
    else:
        handlers = {"echo": echo, "lines": lines, "http": http, "bulk": bulk, "one-line": one_line}
        serve_streams = handlers[arguments.mode]

        async def handle(reader, writer):
            with contextlib.suppress(ConnectionResetError), contextlib.closing(writer):
                await serve_streams(reader, writer)

        server = await asyncio.start_server(handle, **address)
    await server.serve_forever()


if __name__ == "__main__":
    parser = make_parser()
    parser.add_argument("--style", choices=["streams", "protocol"], default="streams")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    arguments = parser.parse_args()
    if arguments.loop == "uvloop":
        import uvloop

        uvloop.run(serve(arguments))
    else:
        asyncio.run(serve(arguments))
