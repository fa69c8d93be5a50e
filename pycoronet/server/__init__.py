"""Servers: one handler, three ways to run it, and what keeps a server alive.

    with Server(("127.0.0.1", 7000), handler) as server:
        ...

`Server` has the settings and the life cycle; `stop_all()` and `shutdown()` end all of them.
"""

from ._addresses import format_address, parse_address
from ._registry import add_shutdown_callback, shutdown, stop_all
from ._server import Server
from ._stats import Stats
from ._tls import CertificateFiles, client_ssl_context, server_ssl_context

__all__ = [
    "CertificateFiles",
    "Server",
    "Stats",
    "add_shutdown_callback",
    "client_ssl_context",
    "format_address",
    "parse_address",
    "server_ssl_context",
    "shutdown",
    "stop_all",
]
