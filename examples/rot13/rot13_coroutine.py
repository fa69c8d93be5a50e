#!/usr/bin/env python3
"""rot13_coroutine: the ROT13 server with a coroutine for each client.

    rot13_coroutine.py            # on port 40713 of 127.0.0.1
    rot13_coroutine.py 9000       # on another one; 0 takes a free one

It reads like the server with a process for each client, and runs in a single one: where a
call would have to wait, others go on.
"""

from __future__ import annotations

from pycoronet import LineTooLongError, listen, serve, sk_conn
from rot13 import MAX_LINE, answer, main


def read_line(conn: sk_conn) -> bytes:
    """Return a line, MAX_LINE bytes of a longer one, or b"" at the end."""
    try:
        # A line is known to be too long when there is one byte more.
        return conn.readln(MAX_LINE - 1)
    except LineTooLongError:
        return conn.read(MAX_LINE)


def serve_client(conn: sk_conn, address: object) -> None:
    """Answer line by line, to the end."""
    conn.buffered = True  # the answers to lines that came together leave together
    try:
        while line := read_line(conn):
            conn.write(answer(line))
        conn.flush()
    except OSError:
        conn.abort()  # it has gone


if __name__ == "__main__":
    main(listen, lambda listener: serve(listener, serve_client))
