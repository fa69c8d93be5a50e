"""eventlet_server.py PORT MODE: straight-line handlers on eventlet, unpatched."""

import contextlib
import warnings

# Its own notice of retirement is no part of what is measured.
warnings.simplefilter("ignore")

import eventlet  # noqa: E402
from eventlet.green import socket  # noqa: E402
from server_arguments import BACKLOG, HTTP_REPLY, make_parser  # noqa: E402

MOST_CONNECTIONS = 20000


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

    listener = eventlet.listen(("127.0.0.1", arguments.port), backlog=BACKLOG)
    eventlet.serve(listener, handle, concurrency=MOST_CONNECTIONS)
