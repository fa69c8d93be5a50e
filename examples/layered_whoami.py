#!/usr/bin/env python3
"""layered_whoami: a web page that says who asks, also behind a proxy and over TLS.

    layered_whoami.py 8000                    http://127.0.0.1:8000/
    layered_whoami.py 8443 server.pem         the same over TLS
    curl --haproxy-protocol http://127.0.0.1:8000/

A load balancer that passes connections on hides where they come from. The PROXY protocol
puts that in front of each connection; over TLS it comes before the handshake, in the clear.
"""

from __future__ import annotations

import ssl
import sys
from typing import Any

from pycoronet import listen, serve, sk_conn
from pycoronet.layers import accept_proxy


def answer(conn: sk_conn, source: Any) -> None:
    """Read one request and say who has sent it, and how."""
    while line := conn.readln():
        if line in (b"\r\n", b"\n"):
            break
    where = "an unknown client" if source is None else f"{source[0]} port {source[1]}"
    how = "in the clear" if conn.tls is None else f"over {conn.tls.version()}"
    body = f"You are {where}, {how}.\n".encode()
    head = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
    conn.write(head % len(body) + body)


def main(arguments: list[str]) -> int:
    """Serve until Ctrl-C; return the exit code."""
    if len(arguments) not in (1, 2) or not arguments[0].isdigit():
        print(__doc__, file=sys.stderr)
        return 2
    context = None
    if len(arguments) == 2:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(arguments[1])

    def handle(conn: sk_conn, address: Any) -> None:
        try:
            header = accept_proxy(conn, timeout=10)
            if context is not None:
                conn.start_tls(context, server_side=True, timeout=10)
        except (OSError, ValueError, EOFError) as error:
            print(f"{address[0]}: {error}", file=sys.stderr, flush=True)
            return
        answer(conn, header.source if header.command == "PROXY" else address)

    listener = listen(("127.0.0.1", int(arguments[0])))
    print(f"whoami on port {listener.getsockname()[1]}", flush=True)
    try:
        serve(listener, handle)
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
