#!/usr/bin/env python3
"""kqueue_server: counts the bytes that clients send, on an event loop turned by hand.

    kqueue_server.py            # on port 1815 of all interfaces
    kqueue_server.py 9000       # on another one

Each turn waits for events, says how many there are and hands them out. Who gets them are
coroutines, so nobody asks an event what it is about: one coroutine accepts, and each client
has another that reads until it gets nothing. What arrived together with the end of the
stream is read first, as it comes first. Ctrl-C ends the server.

The name is that of the tutorial server it answers to; the engine is the one this system has,
or what PYCORONET_ENGINE names.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

from pycoronet import get_hub, listen, sk_conn, sleep, spawn

BACKLOG = 3
BLOCK_SIZE = 1024
SHORTAGE_SECONDS = 0.1  # to wait for a descriptor when there was none for a client

say = partial(print, flush=True)
complain = partial(say, file=sys.stderr)


def accept_clients(listener: sk_conn) -> None:
    """Start a coroutine for each client."""
    while True:
        try:
            conn, _ = listener.accept()
        except OSError as error:
            complain(f"Accept socket error: {error.strerror}")
            sleep(SHORTAGE_SECONDS)  # the client stays in the queue, and is tried again
        else:
            spawn(read_client, conn)


def read_client(conn: sk_conn) -> None:
    """Read what one client sends, to the end."""
    with conn:
        try:
            while data := conn.recv(BLOCK_SIZE):
                say(f"read {len(data)} bytes")
        except OSError as error:
            complain(f"Read error: {error.strerror}")
    say("Client has disconnected")


def turn(listener: sk_conn) -> None:
    """Be the event loop."""
    hub = get_hub()
    address, port = listener.getsockname()[:2]
    complain(f"kqueue_server: {address}:{port}, by {hub.backend}")
    spawn(accept_clients, listener)
    while True:
        if count := hub.wait():
            say(f"events: {count}")
        hub.dispatch()


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Counts the bytes that clients send.")
    parser.add_argument(
        "port", nargs="?", type=int, default=1815, help="1815 if not given; 0 takes a free one"
    )
    parser.add_argument(
        "-b", dest="address", default="0.0.0.0", help="address to listen on (all interfaces)"
    )
    return parser.parse_args()


def main() -> None:
    """Listen and serve until Ctrl-C."""
    options = parse_arguments()
    try:
        listener = listen((options.address, options.port), backlog=BACKLOG)
    except (OSError, OverflowError, ValueError) as error:
        sys.exit(f"kqueue_server: {error}")
    with listener:
        try:
            turn(listener)
        except KeyboardInterrupt:
            get_hub().close()


if __name__ == "__main__":
    main()
