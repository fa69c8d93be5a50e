#!/usr/bin/env python3
"""http_client: fetches a page by HTTP/1.0 and prints the whole response, byte for byte.

    http_client.py www.example.org
    http_client.py localhost:8080 /index.html

It is the first program of every book on sockets: look up the name, connect, send, receive to
the end. Each call waits, but only the coroutine that makes it: others could go on meanwhile.
Exit codes: 0 done, 1 not reached, broken off or Ctrl-C, 2 usage.
"""

from __future__ import annotations

import argparse
import sys
from typing import BinaryIO
from urllib.parse import quote, urlsplit

from pycoronet import connect, spawn

BLOCK_SIZE = 65536


def fetch(address: tuple[str, int], host: str, path: str, out: BinaryIO) -> None:
    """Ask one server for one page, and write what it responds."""
    # What may not stand in a request line is percent-encoded, and what is encoded stays.
    target = quote(path if path.startswith("/") else "/" + path, safe="/%:;=?@!$&'()*+,~")
    with connect(address) as conn:
        conn.printf(b"GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", target.encode(), host.encode("idna"))
        while block := conn.recv(BLOCK_SIZE):
            out.write(block)


def main() -> None:
    """Read the command line, and fetch."""
    parser = argparse.ArgumentParser(description="Fetches a page by HTTP/1.0.")
    parser.add_argument("host", help="the server: a name or an address, perhaps with :PORT (80)")
    parser.add_argument("path", nargs="?", default="/", help="of the page (/)")
    options = parser.parse_args()
    try:
        server = urlsplit("//" + options.host)
        if not server.hostname or server.netloc != options.host:
            parser.error(f"not a host: {options.host}")
        address = server.hostname, server.port or 80
        # Not sys.stdout: what it could not write it would try again when the program ends.
        with open(sys.stdout.fileno(), "wb", closefd=False) as out:
            spawn(fetch, address, options.host, options.path, out).get()
    except (OSError, ValueError) as error:
        sys.exit(f"http_client: {error}")
    except KeyboardInterrupt:
        sys.exit(1)


if __name__ == "__main__":
    main()
