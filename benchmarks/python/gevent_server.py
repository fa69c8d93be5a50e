"""gevent_server.py PORT MODE: straight-line handlers on gevent, unpatched."""

import contextlib
import socket

from gevent.server import StreamServer
from gevent.ssl import SSLContext
from server_arguments import BACKLOG, BULK_REPLY, HTTP_REPLY, make_context, make_parser


def echo(connection):
    while data := connection.recv(4096):
        connection.sendall(data)


def lines(connection):
    for line in connection.makefile("rb"):
        connection.sendall(line)


def http(connection):
    for line in connection.makefile("rb"):
        if line == b"\r\n":
            connection.sendall(HTTP_REPLY)


def bulk(connection):
    for _ in connection.makefile("rb"):
        connection.sendall(BULK_REPLY)


def one_line(connection):
    line = b""
    while not line.endswith(b"\n"):
        if not (data := connection.recv(4096)):
            return
        line += data
    connection.sendall(line)


if __name__ == "__main__":
    arguments = make_parser().parse_args()
    modes = {"echo": echo, "lines": lines, "http": http, "bulk": bulk, "one-line": one_line}
    serve_connection = modes[arguments.mode]
    context = make_context(arguments, SSLContext)
    options = {} if context is None else {"ssl_context": context}

    def handle(connection, address):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionResetError):
            serve_connection(connection)

    StreamServer(("127.0.0.1", arguments.port), handle, backlog=BACKLOG, **options).serve_forever()
