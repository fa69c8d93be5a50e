"""What every benchmark server shares: its command line and its canned HTTP reply.

Each handler also passes over ConnectionResetError: wrk leaves by resetting connections,
and reporting that is no part of what is measured.
"""

import argparse

BACKLOG = 1024
HTTP_REPLY = (
    b"HTTP/1.1 200 OK\r\n"
    b"Connection: keep-alive\r\n"
    b"Content-Type: text/plain\r\n"
    b"Content-Length: 100\r\n\r\n" + b"x" * 100
)


def make_parser():
    """Return a parser for `PORT echo|lines|http`; a server may add options of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument(
        "mode",
        choices=["echo", "lines", "http"],
        help="send bytes back; send line by line back; answer each blank line",
    )
    return parser
