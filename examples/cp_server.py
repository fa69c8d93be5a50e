#!/usr/bin/env python3
"""cp_server: one small service in the two ways of cp_socket, each with TLS if it is asked for.

    cp_server.py callback localhost:7000
    cp_server.py threadpool localhost:7000 --tls certificate.pem key.pem

Each line comes back with its number. With "callback" the hub calls a function whenever there
are bytes to be taken; that function never waits. With "threadpool" each connection has a
native thread to itself, whose function may wait, and block as well. Ctrl-C or SIGTERM lets
connections finish what they are at.

Try it with `nc localhost 7000`, or `openssl s_client -quiet -connect localhost:7000`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from typing import Any

from pycoronet import CertificateFiles, Server, sk_conn
from pycoronet.server import format_address


def number_line(conn: sk_conn, line: bytes) -> None:
    """Answer one line; the owner is what all connections share."""
    conn.write(b"%d %s" % (next(conn.server.owner), line))


def answer_what_is_there(conn: sk_conn, address: Any) -> None:
    """Serve by callbacks: called each time bytes have come; takes the lines that are whole."""
    while (line := conn.take_line()) is not None:
        number_line(conn, line)


def answer_until_the_end(conn: sk_conn, address: Any) -> None:
    """Serve in a thread: called once; returns at the end, or when the server is closing."""
    while conn.server.await_input(conn):
        line = conn.readln()
        if not line:
            return
        number_line(conn, line)


HANDLERS = {"callback": answer_what_is_there, "threadpool": answer_until_the_end}


def make_server(options: argparse.Namespace) -> Server:
    """Return the server, which does not listen yet: until then its settings can be changed."""
    tls = None
    if options.tls:
        verify = "required" if options.clients else "none"
        tls = CertificateFiles(*options.tls, verify=verify, cafile=options.clients)
    server = Server(options.address, HANDLERS[options.strategy], strategy=options.strategy, tls=tls)
    server.backlog = 50
    server.delay = 1.0
    server.poolsize_min = 5
    server.poolsize_max = 50
    server.owner = itertools.count(1)
    return server


def main(arguments: list[str]) -> int:
    """Run what the command line says; return the exit code."""
    parser = argparse.ArgumentParser("cp_server.py", description="Number lines.")
    parser.add_argument("strategy", choices=HANDLERS)
    parser.add_argument("address", help="HOST:PORT, :PORT or unix:PATH")
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), help="files of the server")
    parser.add_argument("--clients", metavar="CA", help="let in whom these authorities know")
    server = make_server(parser.parse_args(arguments))
    try:
        server.listen()
    except (OSError, ValueError) as error:
        print(f"cp_server: {error}", file=sys.stderr)
        return 1
    print("serving", *map(format_address, server.addresses), flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        print(server.stats.connections_served, "connections", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
