"""What is done with one connection besides calling its handler: handshake, limit, failures."""

import functools
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from .._coronet import sk_conn
from .._coronet import timeout as time_limit
from ..errors import IncompleteReadError, LineTooLongError
from ._stats import Stats

if TYPE_CHECKING:
    import ssl  # loaded when it is used: many programs have no TLS

__all__ = [
    "Handler",
    "HandshakeError",
    "error_kind",
    "has_answered",
    "log_failure",
    "logger",
    "note_failure",
    "with_limits",
]

Handler: TypeAlias = Callable[[sk_conn, Any], object]

# What befell single connections, for whoever wants to see it; at INFO.
logger = logging.getLogger("pycoronet.server")


class HandshakeError(Exception):
    """The client did not get through the handshake; the logger of TLS has been told."""


class TotalTimeoutError(TimeoutError):
    """The connection has lasted as long as it may."""


def with_limits(
    handler: Handler,
    *,
    tls: "ssl.SSLContext | None",
    handshake_timeout: float | None,
    total_timeout: float | None,
) -> Handler:
    """Return a handler that does the handshake first, and all of it within a time."""
    serve = handler
    if tls is not None:
        serve = _after_handshake(serve, tls, handshake_timeout)
    if total_timeout is not None:
        serve = _within(serve, total_timeout)
    return serve


def _after_handshake(handler: Handler, tls: "ssl.SSLContext", timeout: float | None) -> Handler:
    from ..tls import shake_hands

    @functools.wraps(handler)
    def handle(conn: sk_conn, address: Any) -> object:
        error = shake_hands(conn, address, tls, timeout)
        if error is not None:
            raise HandshakeError from error
        return handler(conn, address)

    return handle


def _within(handler: Handler, seconds: float) -> Handler:
    @functools.wraps(handler)
    def handle(conn: sk_conn, address: Any) -> object:
        scope = time_limit(seconds)
        try:
            with scope:
                return handler(conn, address)
        except TimeoutError as error:
            if getattr(error, "scope", None) is scope:
                raise TotalTimeoutError(f"not done in {seconds} seconds") from None
            raise

    return handle


def error_kind(error: BaseException) -> str:
    """Return the kind by which a connection's error is counted."""
    ssl = sys.modules.get("ssl")
    if isinstance(error, HandshakeError) or (ssl is not None and isinstance(error, ssl.SSLError)):
        return "tls"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionError):
        return "reset"
    if isinstance(error, LineTooLongError | IncompleteReadError):
        return "input"
    return "handler"


def log_failure(conn: sk_conn | None, address: Any, error: Exception) -> str:
    """Return the kind of what a handler raised; "handler": its own fault, to be reported.

    A peer that breaks off and a time that is over are everyday things, if they are this
    connection's: they go to the logger. So does what peers must not send: each could fill
    stderr with tracebacks otherwise.
    """
    kind = error_kind(error)
    if kind in ("timeout", "reset") and not _is_of(conn, error):
        kind = "handler"
    if kind != "handler" and not isinstance(error, HandshakeError):
        logger.info("%s: %s", address, error)
    return kind


def _is_of(conn: sk_conn | None, error: Exception) -> bool:
    """Tell whether a connection has failed so, and not another one that the handler uses."""
    if conn is None or isinstance(error, TotalTimeoutError):
        return True
    return isinstance(error, OSError) and conn.error == error.errno


def note_failure(stats: Stats, conn: sk_conn, address: Any, error: Exception) -> bool:
    """Count what a handler raised and log it; True if it has to be reported."""
    kind = log_failure(conn, address, error)
    stats.errors[kind] += 1
    return kind == "handler"


def has_answered(conn: sk_conn) -> bool:
    """Return whether a client has been sent anything, besides what the handshake takes."""
    layer = conn.tls
    return conn.bytes_sent + conn.pending > (0 if layer is None else layer.handshake_bytes_sent)
