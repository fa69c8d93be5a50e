#!/usr/bin/env python3
"""rot13_events: the ROT13 server by events: told who can go on, it receives by itself.

    rot13_events.py            # on port 40713 of 127.0.0.1
    rot13_events.py 9000       # on another one; 0 takes a free one

With receive=False a connection only tells that something has come, once for each time it is
news: the program receives, and keeps the begun line of each client. While a client has not
taken its answers nothing is received from it; that it has taken them is an event, too.
"""

from __future__ import annotations

from pycoronet import READ, Protocol, get_hub, listen, sk_conn
from rot13 import MAX_LINE, Lines, main


class Client(Protocol):
    """One client: its begun line."""

    def __init__(self) -> None:
        self.lines = Lines()

    def on_open(self, conn: sk_conn) -> None:
        """Begin: have it told when there is something to receive."""
        conn.set_callbacks(self, receive=False)

    def on_data(self, conn: sk_conn) -> None:
        """Receive and answer a block, unless earlier answers wait."""
        if conn.pending > MAX_LINE:
            return
        room = self.lines.room
        try:
            block = conn.take(room)
            if block:
                conn.write(self.lines.answer(block))
        except OSError:
            conn.abort()  # it has gone
            return
        if len(block) == room:
            # There may be more, and nobody tells of it again; the others come first.
            conn.trigger(READ, ignore_watermarks=True)

    def on_ready(self, conn: sk_conn) -> None:
        """Receive again: the answers have left."""
        self.on_data(conn)

    def on_eof(self, conn: sk_conn) -> None:
        """Answer the last line, if it has no end; close when all has been sent."""
        conn.write(self.lines.answer(b""))
        conn.close()


def serve(listener: sk_conn) -> None:
    """Have the events told."""
    listener.set_callbacks(Client)
    get_hub().run()


if __name__ == "__main__":
    main(listen, serve)
