#!/usr/bin/env python3
r"""tls_echo: an echo server over TLS, and a client for it.

    openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost -keyout key.pem -out certificate.pem
    cat certificate.pem key.pem > server.pem

    tls_echo.py serve server.pem 7443
    openssl s_client -quiet -connect localhost:7443
    tls_echo.py talk certificate.pem 7443

The handler is the one of a plain echo server: TLS lies under the connection. The client
believes certificate.pem and nothing else, and sends what it reads from standard input.
"""

from __future__ import annotations

import ssl
import sys
from typing import Any

from pycoronet import connect, listen, serve, sk_conn


def echo(conn: sk_conn, address: Any) -> None:
    """Send every line back."""
    for line in conn:
        conn.write(line)


def run_server(certificate: str, port: int) -> None:
    """Serve until Ctrl-C; the file holds the certificate and its key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = listen(("127.0.0.1", port))
    print(f"TLS echo on port {listener.getsockname()[1]}", flush=True)
    serve(listener, echo, tls=context)


def run_client(certificate: str, port: int) -> None:
    """Send each line of standard input, and print what comes back."""
    context = ssl.create_default_context(cafile=certificate)
    with connect(("127.0.0.1", port), tls=context, server_hostname="localhost") as conn:
        for line in sys.stdin.buffer:
            conn.write(line)
            sys.stdout.buffer.write(conn.readln())
            sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Run what the command line says; return the exit code."""
    commands = {"serve": run_server, "talk": run_client}
    if len(arguments) != 3 or arguments[0] not in commands or not arguments[2].isdigit():
        print(__doc__, file=sys.stderr)
        return 2
    try:
        commands[arguments[0]](arguments[1], int(arguments[2]))
    except KeyboardInterrupt:
        pass
    except OSError as error:
        print(f"tls_echo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
