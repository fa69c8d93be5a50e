"""`python -m pycoronet serve`: a handler of the user's as a server."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from ..server._imports import HandlerError, load_handler
from . import CommandError
from ._serving import add_server_options, count, run_server

__all__ = ["add_parser"]

DESCRIPTION = """\
Serve connections with a handler: a function that is called as handler(conn, address) for
each of them, or a Protocol.

  python -m pycoronet serve app:handler                       app.py in this directory
  python -m pycoronet serve app:handler --bind :7000          on all interfaces
  python -m pycoronet serve app:handler --processes auto --metrics 127.0.0.1:9100
  python -m pycoronet serve app:handler --tls-cert cert.pem --tls-key key.pem
  python -m pycoronet serve app:handler --strategy threadpool    it may block

app.py:

  def handler(conn, address):
      for line in conn:
          conn.write(line)

Ctrl-C and SIGTERM let the handlers finish; a second one ends them. With --processes, SIGHUP
starts new workers, which load app.py anew, before the old ones finish.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to those of an argparse parser."""
    parser = subparsers.add_parser(
        "serve",
        help="serve connections with a handler of yours",
        usage="python -m pycoronet serve MODULE:HANDLER [OPTION ...]",
        description=DESCRIPTION,
    )
    parser.add_argument(
        "handler", metavar="MODULE:HANDLER", help="what serves a connection, such as app:handler"
    )
    parser.add_argument(
        "--app-dir",
        metavar="DIR",
        default=".",
        help="the directory where MODULE is looked for first (default: this one)",
    )
    add_server_options(parser)
    group = parser.add_argument_group("the way it serves")
    group.add_argument(
        "--strategy",
        choices=("coroutine", "callback", "threadpool"),
        help="a coroutine for each connection (the default); the handler called each time there "
        "is data (the default for a Protocol); or a thread for each connection",
    )
    for name, what in {
        "min": "kept even when idle (default: 5)",
        "max": "at most (default: 50)",
    }.items():
        group.add_argument(
            f"--poolsize-{name}", metavar="N", type=count, help=f"threads of threadpool {what}"
        )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Carry the command out; return its exit status."""
    sys.path.insert(0, str(Path(options.app_dir).absolute()))
    if "processes" in options:
        # Each worker imports it for itself, so this process must not.
        is_protocol = _look_in_child(options.handler)
    else:
        is_protocol = _look(options.handler)
    if is_protocol and "strategy" not in options:
        options.strategy = "callback"
    return run_server(options, options.handler, options.handler)


def _look(handler: str) -> bool:
    """Import the handler; return whether it is a Protocol. Raises CommandError."""
    try:
        return hasattr(load_handler(handler), "on_data")
    except HandlerError as error:
        raise CommandError(str(error)) from error


def _look_in_child(handler: str) -> bool:
    """Do what `_look()` does in a process of its own, so that this one imports nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        answer = "it ended the process"  # not reached: coverage.py does not see this child
        try:
            answer = "protocol" if _look(handler) else "function"
        except CommandError as error:
            answer = str(error)
        finally:
            os.write(writing, os.fsencode(answer))
            os._exit(0)  # what the parent would do at its end is not done here
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = os.fsdecode(pipe.read())
    os.waitpid(child, 0)
    if answer not in ("protocol", "function"):
        raise CommandError(answer or f"importing {handler} ended the process")
    return answer == "protocol"
