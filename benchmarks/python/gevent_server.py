"""gevent_server.py PORT MODE: straight-line handlers on gevent, unpatched."""

import contextlib
import socket

from gevent.server import StreamServer
from server_arguments import BACKLOG, HTTP_REPLY, make_parser


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


if __name__ == "__main__":
    arguments = make_parser().parse_args()
    serve_connection = {"echo": echo, "lines": lines, "http": http}[arguments.mode]

    def handle(connection, address):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionResetError):
            serve_connection(connection)

    StreamServer(("127.0.0.1", arguments.port), handle, backlog=BACKLOG).serve_forever()
