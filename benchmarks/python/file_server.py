"""file_server.py pycoronet|gevent|asyncio PORT FILE: sends one file to whoever connects."""

import contextlib
import pathlib
import sys


def serve_pycoronet(port, path):
    import pycoronet

    def send(conn, address):
        # Whoever looks whether the server is up leaves at once.
        with contextlib.suppress(ConnectionError), path.open("rb") as file:
            conn.sendfile(file)
            conn.flush()

    pycoronet.serve(("127.0.0.1", port), send)


def serve_gevent(port, path):
    from gevent.server import StreamServer

    def send(connection, address):
        with contextlib.suppress(ConnectionError), path.open("rb") as file:
            connection.sendfile(file)

    StreamServer(("127.0.0.1", port), send).serve_forever()


def serve_asyncio(port, path):
    import asyncio

    async def send(reader, writer):
        with (
            contextlib.suppress(ConnectionError),
            contextlib.closing(writer),
            path.open("rb") as file,
        ):
            await asyncio.get_running_loop().sendfile(writer.transport, file)

    async def serve():
        server = await asyncio.start_server(send, "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(serve())


if __name__ == "__main__":
    name, port, path = sys.argv[1:]
    globals()["serve_" + name](int(port), pathlib.Path(path))
