"""What `ps` and `top` share: asking a process, and making a table of what it says."""

from __future__ import annotations

import argparse
import json
import os
import socket
from contextlib import suppress
from typing import Any

from .._inspection import VARIABLE, socket_path
from . import CommandError

__all__ = ["Process", "add_arguments", "format_hub", "printable"]

# How long the process may take to answer, in seconds. With very many tasks it takes a while.
TIMEOUT = 30.0

Snapshot = dict[str, Any]


def add_arguments(parser: Any) -> None:
    """Add what says which process it is."""
    parser.add_argument("pid", metavar="PID", type=_pid, help="the process")
    parser.add_argument(
        "--directory",
        metavar="PATH",
        default=os.environ.get(VARIABLE),
        help=f"what {VARIABLE} is in that process (default: what it is here)",
    )


def _pid(text: str) -> int:
    try:
        pid = int(text)
    except ValueError:
        pid = 0
    if pid < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of a process")
    return pid


class Process:
    """A connection to the thread of a process that answers."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Connect. Raises CommandError."""
        if not arguments.directory:
            raise CommandError(f"{VARIABLE} is not set: it names the directory of the sockets")
        self.pid = arguments.pid
        path = socket_path(arguments.directory, self.pid)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            text = error.strerror or str(error)
            if isinstance(error, FileNotFoundError | ConnectionRefusedError):
                text = "nobody answers; has it a hub, and was it started with the variable set?"
            raise CommandError(f"process {self.pid} at {path}: {text}") from None
        self._file = self._socket.makefile("rb")

    def ask(self, request: str) -> Snapshot:
        """Return what the process does now. Raises CommandError."""
        try:
            self._socket.sendall(request.encode() + b"\n")
            answer = json.loads(self._file.readline() or b"null")
        except (OSError, ValueError) as error:
            raise CommandError(f"process {self.pid}: {error}") from None
        if not isinstance(answer, dict) or "hubs" not in answer:
            raise CommandError(f"process {self.pid} has ended")
        return answer

    def close(self) -> None:
        """End the connection."""
        with suppress(OSError):
            self._file.close()
        self._socket.close()


def printable(text: str) -> str:
    """Return the text without what a terminal would take for commands."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def format_seconds(seconds: float) -> str:
    """Return a time in at most eight characters."""
    if seconds < 1000:
        return f"{seconds:.1f} s"
    if seconds < 100_000:
        return f"{seconds / 60:.1f} m"
    return f"{seconds / 3600:.1f} h"


def _state_cells(task: dict[str, Any], hub: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return (state, for how long, waiting for what), one for each wait."""
    if not task["waits"]:
        where = hub["stack"][-1] if task["state"] == "running" and hub["stack"] else ""
        return [(task["state"], "", where.strip().splitlines()[0] if where else "")]
    return [(task["state"], format_seconds(w["seconds"]), w["for"]) for w in task["waits"]]


def format_hub(
    hub: dict[str, Any],
    tasks: list[dict[str, Any]],
    titles: tuple[str, str],
    cells: dict[int, tuple[str, str]],
    width: int,
) -> list[str]:
    """Return the table of a hub's tasks.

    titles, cells: two columns of numbers, and what stands there by the id of the task.
    """
    rows = [("TASK", "STATE", "FOR", *titles, "WAITS FOR")]
    for task in tasks:
        name = printable(task["name"])
        numbers = cells[task["id"]]
        for state, duration, what in _state_cells(task, hub):
            rows.append((name, state, duration, *numbers, printable(what)))
            name, numbers = "", ("", "")
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    widths[0] = min(widths[0], max(12, width // 3))
    lines = []
    for row in rows:
        name = row[0] if len(row[0]) <= widths[0] else row[0][: widths[0] - 1] + "…"
        columns = [name.ljust(widths[0]), row[1].ljust(widths[1])]
        columns += [row[column].rjust(widths[column]) for column in range(2, 5)]
        lines.append("  ".join([*columns, row[5]]).rstrip())
    return lines
