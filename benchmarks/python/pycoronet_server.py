"""pycoronet_server.py PORT MODE [--style handlers|callbacks] [--server STRATEGY].

Handlers are straight-line code, each in a coroutine; callbacks are the methods of one object
for all connections, which asyncio's Protocol is to be compared with. With --server a Server
serves either, which counts, limits and drains besides.

On SIGUSR1 it prints how often the hub has switched greenlets so far.
"""

import contextlib
import signal

from server_arguments import BACKLOG, BULK_REPLY, HTTP_REPLY, make_context, make_parser

import pycoronet


def echo(conn, address):
    while data := conn.recv(65536):
        conn.sendall(data)


def lines(conn, address):
    conn.buffered = True
    while line := conn.readln():
        conn.write(line)


def http(conn, address):
    with contextlib.suppress(ConnectionResetError):
        while line := conn.readln():
            if line == b"\r\n":
                conn.sendall(HTTP_REPLY)


def one_line(conn, address):
    conn.write(conn.readln())


class Echo(pycoronet.Protocol):
    def on_data(self, conn):
        conn.write(conn.take(65536))


class Lines(pycoronet.Protocol):
    def on_data(self, conn):
        while line := conn.take_line():
            conn.write(line)


class Http(pycoronet.Protocol):
    def on_data(self, conn):
        while line := conn.take_line():
            if line == b"\r\n":
                conn.write(HTTP_REPLY)


class OneLine(pycoronet.Protocol):
    def on_data(self, conn):
        if line := conn.take_line():
            conn.write(line)
            conn.close()


def bulk(conn, address):
    with contextlib.suppress(ConnectionResetError):
        while conn.readln():
            conn.sendall(BULK_REPLY)


def print_switch_count(signal_number, frame):
    print(pycoronet.get_hub().switch_count, flush=True)


HANDLERS = {"echo": echo, "lines": lines, "http": http, "bulk": bulk, "one-line": one_line}
PROTOCOLS = {"echo": Echo, "lines": Lines, "http": Http, "one-line": OneLine}


def serve_callbacks(address, mode):
    listener = pycoronet.listen(address, backlog=BACKLOG)
    listener.set_callbacks(PROTOCOLS[mode]())
    pycoronet.get_hub().run()


if __name__ == "__main__":
    parser = make_parser()
    parser.add_argument("--style", choices=["handlers", "callbacks"], default="handlers")
    parser.add_argument("--server", help="serve by a Server of this strategy")
    parser.add_argument("--processes", type=int, help="of so many workers")
    parser.add_argument("--sharing", help="how they share the listener")
    arguments = parser.parse_args()
    address = ("127.0.0.1", arguments.port)
    if arguments.server is not None:
        is_callback = arguments.server == "callback"
        handler = PROTOCOLS[arguments.mode]() if is_callback else HANDLERS[arguments.mode]
        pycoronet.Server(
            address,
            handler,
            strategy=arguments.server,
            tls=make_context(arguments),
            backlog=BACKLOG,
            processes=arguments.processes,
            sharing=arguments.sharing,
        ).serve_forever()
    elif arguments.style == "callbacks":
        signal.signal(signal.SIGUSR1, print_switch_count)
        serve_callbacks(address, arguments.mode)
    else:
        signal.signal(signal.SIGUSR1, print_switch_count)
        handler = HANDLERS[arguments.mode]
        pycoronet.serve(address, handler, backlog=BACKLOG, tls=make_context(arguments))
