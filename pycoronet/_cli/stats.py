"""`python -m pycoronet stats`: a server's statistics, live in a terminal."""

from __future__ import annotations

import argparse
import http.client
import os
import socket
import time
from email.utils import parsedate_to_datetime
from typing import Any

from ..server._addresses import format_address, parse_address
from . import CommandError
from ._screen import Screen, add_repetition
from .stats_table import Snapshot, format_table, parse_page

__all__ = ["add_parser"]

# How long the server may take to answer, in seconds, and how much it may say.
TIMEOUT = 5.0
MAX_PAGE_BYTES = 1024 * 1024

DESCRIPTION = """\
Show what a server counts, as its metrics page tells it, until Ctrl-C.

  python -m pycoronet serve app:handler --metrics 127.0.0.1:9100
  python -m pycoronet stats 127.0.0.1:9100

  value       how many so far; of what is open, waiting, a thread or a worker: how many now
  per second  how many more in a second, since the table before
  mean        how many more in a second, since the server was started

Below "connections shed" (closed unserved) and "errors" stand the reasons that occurred.
A narrow terminal shows the first columns only.
"""


class PageError(Exception):
    """The page could not be had; why, in one line."""


def add_parser(subparsers: Any) -> None:
    """Add the command to those of an argparse parser."""
    parser = subparsers.add_parser(
        "stats",
        help="show a server's statistics, live",
        usage="python -m pycoronet stats ADDRESS [OPTION ...]",
        description=DESCRIPTION,
    )
    parser.add_argument(
        "address",
        metavar="ADDRESS",
        type=_page_address,
        help="where the server's metrics are, as given to its --metrics: HOST:PORT or unix:PATH",
    )
    add_repetition(parser)
    parser.set_defaults(run=run)


def _page_address(text: str) -> Any:
    try:
        address = parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not isinstance(address, tuple | str | os.PathLike):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be connected to")
    return address


def _connect(address: Any) -> socket.socket:
    if isinstance(address, tuple):
        host, *rest = address
        return socket.create_connection((host or "localhost", *rest), TIMEOUT)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(TIMEOUT)
        sock.connect(os.fspath(address))
    except BaseException:
        sock.close()
        raise
    return sock


def _fetch_page(address: Any) -> tuple[str, str | None]:
    """Return the page, and the time that the server gives with it."""
    host = address[0] if isinstance(address, tuple) else ""
    conn = http.client.HTTPConnection(host or "localhost")
    conn.sock = _connect(address)
    try:
        conn.request("GET", "/metrics", headers={"Connection": "close"})
        response = conn.getresponse()
        body = response.read(MAX_PAGE_BYTES)
        if response.status != 200:
            raise PageError(f"the answer has the status {response.status}")
        return body.decode("utf-8", "replace"), response.getheader("Date")
    finally:
        conn.close()


def fetch(address: Any) -> Snapshot:
    """Return a server's statistics. Raises PageError."""
    try:
        text, date = _fetch_page(address)
        values = parse_page(text)
        seconds = time.time() if date is None else parsedate_to_datetime(date).timestamp()
    except OSError as error:
        raise PageError(error.strerror or str(error)) from None
    except http.client.HTTPException as error:
        raise PageError(f"no HTTP is spoken there ({type(error).__name__})") from None
    except ValueError as error:
        raise PageError(str(error)) from None
    return Snapshot(values, seconds, time.monotonic())


def _watch(address: Any, interval: float, once: bool) -> None:
    """Show table after table. Raises CommandError if the first cannot be had."""
    title = format_address(address)
    screen = Screen()
    before = None
    try:
        now = fetch(address)
    except PageError as error:
        raise CommandError(f"{title}: {error}") from None
    note = ""
    while True:
        screen.show(format_table(title, now, before, width=screen.width, note=note))
        if once:
            return
        time.sleep(interval)
        try:
            latest = fetch(address)
        except PageError as error:
            note = f"no answer: {error}; trying again"
        else:
            before, now, note = now, latest, ""


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out; return its exit status."""
    try:
        _watch(arguments.address, arguments.interval, arguments.once)
    except KeyboardInterrupt:
        pass  # how it is meant to end
    except BrokenPipeError:
        pass  # whoever read has enough
    return 0
