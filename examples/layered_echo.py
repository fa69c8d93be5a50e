#!/usr/bin/env python3
"""layered_echo: an echo server whose client puts layers under the connection as it goes.

    layered_echo.py server.pem 7000

It begins in plain text, line by line. Three lines are commands:

    STARTTLS   answered by "+ go ahead"; TLS begins right behind that line
    COMPRESS   answered by "+ go ahead"; zlib, both ways, from there on
    QUIT       answered by "+ bye"; and then the stream ends in order

Every other line comes back. One handler does all that, and knows nothing of where its
lines come from: `conn.readln()` reads plain text, records or compressed data alike. What
came in the same packet behind STARTTLS goes through TLS, too.

With LOG in the environment, what passes on the wire is written to that file: a tee lies at
the bottom of each connection.
"""

from __future__ import annotations

import os
import ssl
import sys
from typing import IO, Any

from pycoronet import listen, serve, sk_conn
from pycoronet.layers import Tee, Zlib


class LayeredEcho:
    """The server: what all connections share."""

    def __init__(self, context: ssl.SSLContext, log_path: str | None) -> None:
        self.context = context
        self.log: IO[bytes] | None = None
        if log_path:
            self.log = open(log_path, "wb", buffering=0)  # noqa: PTH123, SIM115

    def handle(self, conn: sk_conn, address: Any) -> None:
        """Serve one client."""
        if self.log is not None:
            conn.push_layer(Tee(received=self.log.write, sent=self.log.write))
        while line := conn.readln():
            command = line.strip().upper()
            if command == b"STARTTLS" and conn.tls is None:
                conn.write(b"+ go ahead\r\n")
                conn.start_tls(self.context, server_side=True, timeout=10)
            elif command == b"COMPRESS" and not any(isinstance(la, Zlib) for la in conn.layers):
                conn.write(b"+ go ahead\r\n")
                conn.push_layer(Zlib())
            elif command == b"QUIT":
                conn.write(b"+ bye\r\n")
                return
            else:
                conn.write(line)


def main(arguments: list[str]) -> int:
    """Serve until Ctrl-C; return the exit code."""
    if len(arguments) != 2 or not arguments[1].isdigit():
        print(__doc__, file=sys.stderr)
        return 2
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments[0])
    server = LayeredEcho(context, os.environ.get("LOG"))
    listener = listen(("127.0.0.1", int(arguments[1])))
    print(f"layered echo on port {listener.getsockname()[1]}", flush=True)
    try:
        serve(listener, server.handle)
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
