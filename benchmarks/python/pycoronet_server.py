"""pycoronet_server.py PORT MODE: straight-line handlers on pycoronet.

On SIGUSR1 it prints how often the hub has switched greenlets so far.
"""

import contextlib
import signal

from server_arguments import BACKLOG, HTTP_REPLY, make_parser

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


def print_switch_count(signal_number, frame):
    print(pycoronet.get_hub().switch_count, flush=True)


if __name__ == "__main__":
    arguments = make_parser().parse_args()
    signal.signal(signal.SIGUSR1, print_switch_count)
    handler = {"echo": echo, "lines": lines, "http": http}[arguments.mode]
    pycoronet.serve(("127.0.0.1", arguments.port), handler, backlog=BACKLOG)
