"""WorkerProcess: a worker as its master sees it, from the fork to the last message."""

import atexit
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from .._coronet import _close_at_exit
from ._worker import Worker, exit_status, read_lines

__all__ = ["BackOff", "WorkerProcess", "describe_status", "logger"]

logger = logging.getLogger("pycoronet.server")

RunWorker = Callable[[Worker], object]


class BackOff:
    """How long to wait before a worker that died is replaced.

    At once, the first time. While they go on dying within a few seconds: 0.1 s, and twice
    as long each time, up to half a minute.
    """

    QUICK_SECONDS = 5.0
    FIRST_SECONDS = 0.1
    LONGEST_SECONDS = 30.0

    def __init__(self) -> None:
        self._quick_deaths = 0

    def next_delay(self, lifetime: float) -> float:
        """Return the seconds to wait after a worker has died that lived for [lifetime]."""
        if lifetime >= self.QUICK_SECONDS:
            self._quick_deaths = 0
        self._quick_deaths += 1
        if self._quick_deaths == 1:
            return 0.0
        doublings = min(self._quick_deaths - 2, 30)
        return float(min(self.FIRST_SECONDS * 2**doublings, self.LONGEST_SECONDS))


def describe_status(status: int | None) -> str:
    """Say how a process ended. status: as waitpid() gives it, or None if nobody knows."""
    if status is None:
        return "is gone"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"was killed by {signal.Signals(number).name}"
        except ValueError:
            return f"was killed by signal {number}"
    return f"ended with status {os.waitstatus_to_exitcode(status)}"


class WorkerProcess:
    """A forked worker; of the master's data, it has what the master knows about this one.

    pid is this process' own until `reap()` has said that it ended: only then can the system
    give the number to another one, so a signal never meets a stranger.
    """

    def __init__(self, worker: Worker, link: socket.socket, began: float) -> None:
        self.index = worker.index
        self.sockets = worker.sockets  # the master's own; none after it has said "closed"
        self.row = worker.row
        self.link = link
        self.began = began
        self.pid = 0
        self.is_ready = False
        self.is_leaving = False
        self.failure: str | None = None  # why it could not start, in its own words
        self.kill_at: float | None = None  # when it is ended the hard way
        self._rest = bytearray()
        self._has_ended = False

    def __str__(self) -> str:
        return f"worker {self.index} (pid {self.pid})"

    def fork(
        self, worker: Worker, run_worker: RunWorker, forget_master: Callable[[], None]
    ) -> None:
        """Start the process. Raises OSError.

        Signals have to be blocked, from before the fork until the child has handlers of its
        own: one that came in between would be handled as the master's, in the wrong process.
        forget_master: called first in the child, unblocks them.
        """
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()  # what waits there would be written by both
        self.pid = os.fork()
        if self.pid == 0:
            # not reached: coverage.py does not see this child
            _be_worker(worker, run_worker, forget_master)

    def tell(self, command: str) -> bool:
        """Send a command; return False if the worker has closed its link or died."""
        try:
            self.link.send(command.encode() + b"\n")
        except OSError:
            return False
        return True

    def signal(self, signum: int) -> None:
        """Send a signal."""
        if not self._has_ended:
            try:
                os.kill(self.pid, signum)
            # not reached: a handler of the user's has reaped it
            except (ProcessLookupError, PermissionError):
                pass  # a handler of the user's has reaped it

    def take_messages(self) -> tuple[list[str], bool]:
        """Return the lines that the worker has said, and whether the link has ended."""
        return read_lines(self.link, self._rest)

    def reap(self, *, waits: bool = False) -> tuple[bool, int | None]:
        """Tell whether the process has ended, and with which status."""
        status: int | None = None
        try:
            pid, status = os.waitpid(self.pid, 0 if waits else os.WNOHANG)
            self._has_ended = pid != 0
        except ChildProcessError:
            self._has_ended = True  # a handler of the user's has taken it
        return self._has_ended, status


def _be_worker(
    worker: Worker, run_worker: RunWorker, forget_master: Callable[[], None]
) -> NoReturn:
    """Be the forked process, to its end: nothing of the master's may run here after it."""
    status: Any = 1
    try:
        forget_master()
        atexit._clear()  # what is the master's to do at its end
        status = _run(worker, run_worker)
    finally:
        os._exit(status)


def _run(worker: Worker, run_worker: RunWorker) -> int:
    status = 1
    try:
        run_worker(worker)
        status = 0
    except SystemExit as error:
        status = exit_status(error)
        if status != 0 and not worker.is_ready:
            worker.notify_failed(error)
    except BaseException as error:
        if worker.is_ready:
            # not reached: a defect of ours
            logger.critical("worker %d ends by an error", worker.index, exc_info=True)
        else:
            logger.debug("worker %d cannot start", worker.index, exc_info=True)
            worker.notify_failed(error)
    try:
        # os._exit() does none of this.
        atexit._run_exitfuncs()
        _close_at_exit()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except BaseException:  # not reached: a stream without room
        logger.critical("worker %d: an error at its end", worker.index, exc_info=True)
        status = status or 1
    return status
