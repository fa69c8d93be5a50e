#!/usr/bin/env python3
"""rot13_select: the ROT13 server on select(), on the standard library alone, for contrast.

    rot13_select.py            # on port 40713 of 127.0.0.1
    rot13_select.py 9000       # on another one; 0 takes a free one

One process, and one loop that asks before each step who can go on: a client is waited for
either to send or, while it has not taken its answers, to receive. select() looks at every
client each time, and knows no descriptor from 1024 on: who comes then is turned away.
"""

from __future__ import annotations

import select
import socket

from rot13 import Lines, main

FD_SETSIZE = 1024
SHORTAGE_SECONDS = 0.1  # to wait when there was no descriptor for a client


class Client:
    """One client: its begun line, and the answers that it has not taken."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.lines = Lines()
        self.unsent = b""
        self.has_ended = False

    def fileno(self) -> int:
        """Return the descriptor, for select()."""
        return self.sock.fileno()

    def go_on(self) -> bool:
        """Send what waits, or receive and answer; return whether there is more to come."""
        try:
            if not self.unsent:
                block = self.sock.recv(self.lines.room)
                self.has_ended = not block
                self.unsent = self.lines.answer(block)
            if self.unsent:
                sent = self.sock.send(self.unsent)
                self.unsent = self.unsent[sent:]
        except BlockingIOError:
            pass
        except OSError:
            return False  # it has gone
        return bool(self.unsent) or not self.has_ended


def accept_clients(listener: socket.socket, clients: set[Client]) -> bool:
    """Take in all who wait; return False if there is no descriptor for one."""
    while True:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return True
        except ConnectionAbortedError:
            continue
        except OSError:
            return False
        if sock.fileno() < FD_SETSIZE:
            clients.add(Client(sock))
        else:
            sock.close()


def serve(listener: socket.socket) -> None:
    """Serve until Ctrl-C, and close what is left."""
    listener.setblocking(False)
    clients: set[Client] = set()
    try:
        turn(listener, clients)
    finally:
        for one in clients:
            one.sock.close()


def turn(listener: socket.socket, clients: set[Client]) -> None:
    """Let everybody go on who can, again and again."""
    has_room = True
    while True:
        readers: list[Client | socket.socket] = [one for one in clients if not one.unsent]
        writers = [one for one in clients if one.unsent]
        if has_room:
            readers.append(listener)
        pause = None if has_room else SHORTAGE_SECONDS
        readable, writable, _ = select.select(readers, writers, [], pause)
        has_room = True
        for one in readable + writable:
            if not isinstance(one, Client):
                has_room = accept_clients(listener, clients)
            elif not one.go_on():
                clients.remove(one)
                one.sock.close()


if __name__ == "__main__":
    main(socket.create_server, serve)
