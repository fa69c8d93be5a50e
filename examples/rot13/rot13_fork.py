#!/usr/bin/env python3
"""rot13_fork: the ROT13 server with a process for each client, on the standard library alone.

    rot13_fork.py            # on port 40713 of 127.0.0.1
    rot13_fork.py 9000       # on another one; 0 takes a free one

A process waits for its client and concerns nobody else: straight lines, blocking calls, no
buffer to manage. Ctrl-C in a terminal ends all of them. A signal to the first process alone
ends the listening, and the others go on until their clients leave.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from contextlib import suppress

from rot13 import MAX_LINE, answer, main

SHORTAGE_SECONDS = 0.1  # to wait when there was no process or descriptor for a client


def serve_client(client: socket.socket) -> None:
    """Answer line by line, to the end."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with client, client.makefile("rb") as stream:
        while line := stream.readline(MAX_LINE):
            client.sendall(answer(line))


def run_child(client: socket.socket) -> None:
    """Be the process of one client; never return."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        with suppress(OSError):  # it has gone
            serve_client(client)
    except Exception as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(0)


def serve(listener: socket.socket) -> None:
    """Start a process for each client."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    while True:
        try:
            client, _ = listener.accept()
            with client:
                if os.fork() == 0:
                    listener.close()
                    run_child(client)
        except OSError as error:
            print(f"rot13_fork: {error}", file=sys.stderr)
            time.sleep(SHORTAGE_SECONDS)


if __name__ == "__main__":
    main(socket.create_server, serve)
