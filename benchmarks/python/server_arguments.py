"""What every benchmark server shares: its command line and its canned HTTP reply.

Each handler also passes over ConnectionResetError: wrk leaves by resetting connections,
and reporting that is no part of what is measured.
"""

import argparse
import ssl

BACKLOG = 1024
HTTP_REPLY = (
    b"HTTP/1.1 200 OK\r\n"
    b"Connection: keep-alive\r\n"
    b"Content-Type: text/plain\r\n"
    b"Content-Length: 100\r\n\r\n" + b"x" * 100
)
BULK_REPLY = b"x" * 1024 * 1024


def make_parser():
    """Return a parser for `PORT MODE`; a server may add options of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument(
        "mode",
        choices=["echo", "lines", "http", "bulk", "one-line"],
        help="send bytes back; send line by line back; answer each blank line; answer each "
        "line with a mebibyte; send one line back and close",
    )
    parser.add_argument("--tls", help="a file with a certificate and its key: speak TLS")
    return parser


def make_context(arguments, context_type=ssl.SSLContext):
    """Return the TLS context that the command line asks for, None for plain text."""
    if arguments.tls is None:
        return None
    context = context_type(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.tls)
    return context
