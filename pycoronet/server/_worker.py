"""Worker: what a worker process knows of itself, and how it talks with the master.

The two ends of a link, a pair of sockets, say lines to each other. The worker:

    ready       it accepts connections
    leaving     it stops accepting for a reason of its own, so another one may begin
    closed      it has closed its listening sockets, and will take nothing from them any more
    emptied     the same, and it took all that was queued
    failed TEXT it could not start, and why

The master:

    retire      stop accepting, let handlers end: other workers go on with these sockets
    drain       the same, but first take what is queued: these sockets are about to be closed
    cancel      end at once
    shared      from now on another master has the sockets, too
    sole        not any more

When the master dies the link ends. If nobody else has the sockets then, that means to drain.
"""

import os
import socket
from dataclasses import dataclass
from typing import Any

__all__ = ["CANCEL", "DRAIN", "RETIRE", "SHARED", "SOLE", "Worker", "read_lines"]

RETIRE = "retire"
DRAIN = "drain"
CANCEL = "cancel"
SHARED = "shared"
SOLE = "sole"

# No line is longer; a reason that is gets cut.
MAX_LINE_BYTES = 4096


def read_lines(link: socket.socket, rest: bytearray) -> tuple[list[str], bool]:
    """Read whole lines from a non-blocking socket; tell as well whether it has ended.

    rest: what has come of a line whose end is missing.
    """
    has_ended = False
    while not has_ended:
        try:
            data = link.recv(MAX_LINE_BYTES)
        except BlockingIOError:
            break
        except OSError:
            data = b""  # reset: the other process has died with something unread
        rest += data
        has_ended = not data
    *lines, left = rest.split(b"\n")
    rest[:] = left
    return [line.decode(errors="replace") for line in lines], has_ended


@dataclass
class Worker:
    """A worker process, as it sees itself.

    index: its number, from 0. sockets: its listening sockets, which the master owns; closing
    them closes this process' copies. link: to the master, readable when there are commands
    to take. row: its place in the shared statistics, or None.
    is_shared: another master has the sockets as well. is_orphaned: there is no master any more.
    takes_queues: when it ends, what is in the queues is for it to serve.
    """

    index: int
    sockets: list[socket.socket]
    link: socket.socket
    row: Any = None
    is_shared: bool = False
    is_ready: bool = False
    is_orphaned: bool = False
    takes_queues: bool = False

    def __post_init__(self) -> None:
        self.link.setblocking(False)
        self._rest = bytearray()

    def _say(self, line: str) -> None:
        try:
            self.link.send(line.encode(errors="replace")[: MAX_LINE_BYTES - 1] + b"\n")
        except OSError:
            pass  # the master is gone, which the end of the link says too

    def notify_ready(self) -> None:
        """Tell the master that this worker accepts connections."""
        self.is_ready = True
        self._say("ready")

    def notify_leaving(self) -> None:
        """Tell the master that this worker ends without having been told to."""
        self._say("leaving")

    def notify_closed(self, *, were_emptied: bool) -> None:
        """Tell the master that the listening sockets are closed here; with what in them."""
        self._say("emptied" if were_emptied else "closed")

    def notify_failed(self, error: BaseException) -> None:
        """Tell the master why this worker does not start."""
        text = " ".join(str(error).split())  # one line
        if not isinstance(error, SystemExit):
            text = f"{type(error).__name__}: {text}" if text else type(error).__name__
        self._say(f"failed {text}")

    def take_commands(self) -> list[str]:
        """Return what is to be done, RETIRE, DRAIN or CANCEL; in the order of its coming.

        Never waits. The end of the link is the last to come, and sets is_orphaned.
        """
        lines, self.is_orphaned = read_lines(self.link, self._rest)
        commands = []
        for line in lines:
            if line in (SHARED, SOLE):
                self.is_shared = line == SHARED
            else:
                commands.append(line)
        if self.is_orphaned:
            commands.append(RETIRE if self.is_shared else DRAIN)
        for command in commands:
            self.takes_queues = command == DRAIN
        return commands

    @property
    def owns_sockets(self) -> bool:
        """True if no other process is there that goes on with the sockets."""
        return self.is_orphaned and not self.is_shared

    def close(self) -> None:
        """Close the sockets and the link, in this process."""
        for sock in self.sockets:
            sock.close()  # not reached: coverage.py does not see this child
        self.link.close()


def exit_status(error: SystemExit) -> int:
    """Return the status that a SystemExit stands for, as the interpreter has it."""
    if error.code is None:
        return os.EX_OK  # not reached: coverage.py does not see this child
    return error.code & 0xFF if isinstance(error.code, int) else 1
