"""What the commands that serve have in common: the options of a server, and running it."""

import argparse
import logging
import os
import sys
from contextlib import suppress
from typing import Any, TypeAlias

from .._sockets import max_capacity
from ..server import CertificateFiles, Server, format_address, parse_address
from ..server._imports import HandlerError
from . import CommandError

__all__ = ["add_server_options", "count", "run_server"]

DEFAULT_ADDRESS = "127.0.0.1:8000"

# These go to the server as they are, if they were given.
_SETTINGS = (
    "backlog",
    "drain_timeout",
    "handover",
    "handshake_timeout",
    "idle_timeout",
    "max_connections",
    "max_per_address",
    "metrics",
    "poolsize_max",
    "poolsize_min",
    "processes",
    "strategy",
    "total_timeout",
)

_Group: TypeAlias = Any  # argparse has no public name for it


def address(text: str) -> str:
    """Check an address of the command line."""
    try:
        parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def count(text: str) -> int:
    """Read a number of things: 1 or more."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:10]) < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def seconds(text: str) -> float | None:
    """Read a time, or "none" for no limit."""
    if text == "none":
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0, nor 'none'")
    return value


def process_count(text: str) -> int:
    """Read a number of processes, or "auto" for one to each processor."""
    if text != "auto":
        return count(text)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a server that any handler can have. What is not given is not set."""
    parser.set_defaults(bind=None)
    parser.argument_default = argparse.SUPPRESS
    where = parser.add_argument_group("where it listens")
    where.add_argument(
        "--bind",
        metavar="ADDRESS",
        action="append",
        type=address,
        help=f"HOST:PORT, [IPV6]:PORT, :PORT (all interfaces), unix:PATH, unix:@NAME, fd:NUMBER "
        f"or systemd; may be repeated (default: {DEFAULT_ADDRESS})",
    )
    where.add_argument(
        "--backlog",
        metavar="N",
        type=count,
        help="connections that may wait to be accepted (default: 1024)",
    )
    _add_process_options(parser.add_argument_group("processes"))
    _add_tls_options(parser.add_argument_group("TLS"))
    _add_limit_options(parser.add_argument_group("limits, times in seconds or 'none'"))
    watching = parser.add_argument_group("watching it")
    watching.add_argument(
        "--metrics",
        metavar="ADDRESS",
        type=address,
        help="serve what is counted on a page for Prometheus, and for the command stats",
    )
    watching.add_argument(
        "--verbose",
        action="store_true",
        help="also tell of single connections that failed",
    )


def _add_process_options(group: _Group) -> None:
    group.add_argument(
        "--processes",
        metavar="N",
        type=process_count,
        help="worker processes, or 'auto' for one to each processor; SIGHUP replaces them by "
        "new ones (default: none, this process serves)",
    )
    group.add_argument(
        "--handover",
        metavar="PATH",
        help="a socket by which a server that is started with the same PATH takes over from "
        "this one, with no connection refused; needs --processes",
    )


def _add_tls_options(group: _Group) -> None:
    group.add_argument("--tls-cert", metavar="FILE", help="the certificate, PEM; turns TLS on")
    group.add_argument(
        "--tls-key", metavar="FILE", help="its private key (default: it is in the same file)"
    )
    group.add_argument(
        "--tls-verify",
        choices=("none", "optional", "required"),
        help="what certificate clients have to show (default: none)",
    )
    group.add_argument("--tls-ca", metavar="FILE", help="the authorities that sign clients'")


def _add_limit_options(group: _Group) -> None:
    for name, what in {
        "max-connections": "open at a time; others wait in the system",
        "max-per-address": "open at a time from one client's address; others are closed",
    }.items():
        group.add_argument(f"--{name}", metavar="N", type=count, help=f"connections {what}")
    for name, what in {
        "idle-timeout": "that a connection may wait for its client (default: none)",
        "total-timeout": "that a connection may last (default: none)",
        "handshake-timeout": "that a client has for the TLS handshake (default: 10)",
        "drain-timeout": "that handlers have to finish when the server ends (default: 30)",
    }.items():
        group.add_argument(f"--{name}", metavar="SECONDS", type=seconds, help=f"time {what}")


def _tls_of(options: argparse.Namespace) -> CertificateFiles | None:
    if "tls_cert" not in options:
        for name in ("tls_key", "tls_verify", "tls_ca"):
            if name in options:
                raise CommandError(f"--{name.replace('_', '-')} needs --tls-cert", 2)
        return None
    ca = getattr(options, "tls_ca", None)
    verify = getattr(options, "tls_verify", "none")
    if (ca is not None) != (verify != "none"):
        raise CommandError("--tls-ca and --tls-verify optional or required go together", 2)
    return CertificateFiles(
        options.tls_cert, getattr(options, "tls_key", None), verify=verify, cafile=ca
    )


def run_server(options: argparse.Namespace, handler: Any, what: str, scheme: str = "") -> int:
    """Serve with the settings that were given, and say where, until a signal ends it.

    scheme: "http" if the addresses are those of web pages. Returns the exit status. Raises
    CommandError if the server cannot start.
    """
    level = logging.INFO if "verbose" in options else logging.WARNING
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=level)
    with suppress(OSError, ValueError):
        max_capacity()
    server = _make_server(options, handler)
    try:
        server.listen()
        shown_at = [
            _show_address(place, scheme, "tls_cert" in options) for place in server.addresses
        ]
        print(f"Serving {what} on {', '.join(shown_at)}. Ctrl-C ends it.", file=sys.stderr)
        server.serve_forever()
    except KeyboardInterrupt:
        pass  # how it is meant to end
    except (HandlerError, ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise CommandError(_in_one_line(error)) from error
    return 0


def _make_server(options: argparse.Namespace, handler: Any) -> Server:
    if "handover" in options and "processes" not in options:
        raise CommandError("--handover needs --processes", 2)
    settings = {name: value for name, value in vars(options).items() if name in _SETTINGS}
    try:
        return Server(options.bind or [DEFAULT_ADDRESS], handler, tls=_tls_of(options), **settings)
    except (TypeError, ValueError) as error:
        raise CommandError(str(error), 2) from None


def _show_address(place: Any, scheme: str, is_encrypted: bool) -> str:
    shown = format_address(place)
    if not scheme or not isinstance(place, tuple):
        return shown
    return f"{scheme}{'s' * is_encrypted}://{shown}/"


def _in_one_line(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return " ".join(text.split())
