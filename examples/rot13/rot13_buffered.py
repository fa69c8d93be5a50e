#!/usr/bin/env python3
"""rot13_buffered: the ROT13 server by callbacks on buffered connections.

    rot13_buffered.py            # on port 40713 of 127.0.0.1
    rot13_buffered.py 9000       # on another one; 0 takes a free one

The connection receives and sends by itself; a callback takes the lines that have come and
writes their answers. All that there is of a client is its connection: one object serves
them all.
"""

from __future__ import annotations

from pycoronet import LineTooLongError, Protocol, get_hub, listen, sk_conn
from rot13 import MAX_LINE, answer, main


def take_line(conn: sk_conn) -> bytes | None:
    """Return a line that has come, or MAX_LINE bytes of a longer one; None if there is none."""
    try:
        # A line is known to be too long when there is one byte more.
        return conn.take_line(MAX_LINE - 1)
    except LineTooLongError:
        return conn.take(MAX_LINE)


class Rot13(Protocol):
    """What to do when something has happened to a connection."""

    def on_open(self, conn: sk_conn) -> None:
        """Begin: no more is ever held of what a client sends."""
        conn.set_watermarks(read_high=MAX_LINE)

    def on_data(self, conn: sk_conn) -> None:
        """Answer the lines that are whole."""
        while line := take_line(conn):
            conn.write(answer(line))

    def on_eof(self, conn: sk_conn) -> None:
        """Answer the last line, if it has no end; close when all has been sent."""
        conn.write(answer(conn.take(MAX_LINE)))
        conn.close()


def serve(listener: sk_conn) -> None:
    """Have the callbacks called."""
    listener.set_callbacks(Rot13())
    get_hub().run()


if __name__ == "__main__":
    main(listen, serve)
